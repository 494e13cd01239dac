"""Fine-tuning BERT: some labelled paragraphs of documentation -> which library is each of the others from.

The libraries' names are taken out. Naive Bayes is the one to beat: it sees the same labels, and counts words.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tinytrans.data.batches import Shuffled
from tinytrans.data.docs import LIBRARIES, Docs, Paragraph, without_names
from tinytrans.data.translation import rows_of
from tinytrans.models.bayes import naive_bayes
from tinytrans.models.bert import BERT
from tinytrans.nn.masks import padding
from tinytrans.recipes.mlm import MAX_LEN, load_pretrained
from tinytrans.recipes.report import Report, Row, Run
from tinytrans.tokenizers import Tokenizer
from tinytrans.tokenizers.wordpiece import split
from tinytrans.training.classify import Labelled, accuracy, class_loss
from tinytrans.training.journal import History
from tinytrans.training.loop import fit
from tinytrans.training.optim import muon, warmup_cosine

BATCH, EPOCHS, LABELLED = 32, 3, 5000
SMOOTHINGS = (1.0, 0.3, 0.1, 0.03)

Encode = Callable[[Sequence[int]], Labelled]  # numbers of paragraphs -> a batch


def bert(run: Run) -> Report:
    """A pretrained encoder learns from some labels which library a paragraph is from, better than naive Bayes does.

    The controls: naive Bayes on the same labels, and the same fine-tuning from random weights.
    """
    pretrained, tokenizer = load_pretrained(run)
    labelled = random.Random(run.seed).sample(list(Docs()), run.pick(LABELLED, 100))
    unseen = list(Docs(split="validation"))[:: run.pick(1, 20)]
    rows: dict[str, Row] = {}
    rows["pretrained"], history = tuned(pretrained, tokenizer, labelled, unseen, run)
    torch.manual_seed(run.seed)
    rows["control: random weights"], _ = tuned(BERT(pretrained.config), tokenizer, labelled, unseen, run)
    rows["control: naive Bayes"] = bayes(labelled, unseen)
    rows["control: the commonest"] = commonest(unseen)
    mine = rows["pretrained"]["right"]
    aims = {
        "above naive Bayes by 0.02": mine >= rows["control: naive Bayes"]["right"] + 0.02,
        "above random weights by 0.02": mine >= rows["control: random weights"]["right"] + 0.02,
    }
    figures: Row = {"labelled": len(labelled), "held out": len(unseen)}
    return Report(rows=rows, figures=figures, aims=aims, records=history.records)


def tuned(
    encoder: BERT, tokenizer: Tokenizer, labelled: Sequence[Paragraph], unseen: Sequence[Paragraph], run: Run
) -> tuple[Row, History]:
    """An encoder with a new head for five classes learns from the labelled paragraphs: -> how often it is right."""
    torch.manual_seed(run.seed)
    model = encoder.with_head("classifier", n_classes=len(LIBRARIES), dropout=0.1).to(run.device)
    learned, asked = encoder_of(labelled, tokenizer), encoder_of(unseen, tokenizer)
    order = Shuffled([len(part.text) for part in labelled], BATCH, seed=run.seed, sort=16)
    tests = [asked(range(i, min(i + 64, len(unseen)))) for i in range(0, len(unseen), 64)]
    steps = run.pick(EPOCHS * order.per_epoch, 4)
    history = fit(
        model,
        lambda step: learned(order[step]),
        class_loss,
        steps=steps,
        optimizer=muon(model, 0.005, 1e-3),
        schedule=partial(warmup_cosine, warmup=max(1, steps // 10), total=steps),
        evaluate=lambda model: {"right": accuracy(model, tests)},
        every=max(1, steps // 3),
        progress=run.progress,
    )
    return {"right": history.records[-1]["right"]}, history


def encoder_of(parts: Sequence[Paragraph], tokenizer: Tokenizer) -> Encode:
    """A function of numbers: those paragraphs as what BERT reads, [CLS] paragraph [SEP], and their libraries."""
    cls, sep, pad = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[PAD]"))
    ids = tokenizer.encode_batch([without_names(part.text) for part in parts])
    rows, labels = [[cls, *row[: MAX_LEN - 2], sep] for row in ids], labels_of(parts)

    def encode(numbers: Sequence[int]) -> Labelled:
        some = [rows[i] for i in numbers]
        read = rows_of(some, pad)
        inputs: dict[str, Any] = {"ids": read, "mask": padding(torch.tensor([*map(len, some)]), read.shape[1])}
        return inputs, labels[list(numbers)]

    return encode


def labels_of(parts: Sequence[Paragraph]) -> Tensor:
    """The number of each paragraph's library (N,)."""
    return torch.tensor([LIBRARIES.index(part.library) for part in parts])


def bayes(labelled: Sequence[Paragraph], unseen: Sequence[Paragraph]) -> Row:
    """How often naive Bayes is right with the smoothing that suits the held-out paragraphs best: a favour to it."""
    learned, asked = (counts([split(without_names(p.text)) for p in parts], labelled) for parts in (labelled, unseen))
    right = []
    for smoothing in SMOOTHINGS:
        layer = naive_bayes(learned, labels_of(labelled), len(LIBRARIES), smoothing=smoothing)
        right.append(float((layer(asked).argmax(dim=-1) == labels_of(unseen)).float().mean()))
    return {"right": max(right)}


def counts(texts: Sequence[Sequence[str]], labelled: Sequence[Paragraph]) -> Tensor:
    """How often each word of the labelled paragraphs occurs in each text (N, V)."""
    known = sorted({word for part in labelled for word in split(without_names(part.text))})
    column = {word: i for i, word in enumerate(known)}
    table = torch.zeros(len(texts), len(known))
    for row, words in zip(table, texts, strict=True):
        found = Counter(column[word] for word in words if word in column)
        row[list(found)] = torch.tensor(list(found.values()), dtype=torch.float32)
    return table


def commonest(unseen: Sequence[Paragraph]) -> Row:
    """How often who always names the largest library is right."""
    return {"right": float(labels_of(unseen).bincount().max() / len(unseen))}
