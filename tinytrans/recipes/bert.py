"""Fine-tuning BERT: labelled paragraphs of documentation -> which library is each of the others from.

The libraries' names are taken out. Naive Bayes is the one to beat: it sees the same labels, and counts words. The fewer
the labels, the more it helps to have read what nobody labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tinytrans.data.batches import Shuffled
from tinytrans.data.docs import Paragraph, without_names
from tinytrans.data.masking import corrupt
from tinytrans.data.translation import rows_of
from tinytrans.models.bayes import naive_bayes
from tinytrans.models.bert import BERT
from tinytrans.nn.masks import padding
from tinytrans.recipes.mlm import documentation, load_pretrained, read
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.tokenizers import Tokenizer
from tinytrans.tokenizers.wordpiece import split
from tinytrans.training.classify import Labelled, accuracy, class_loss
from tinytrans.training.journal import History
from tinytrans.training.loop import fit
from tinytrans.training.optim import muon, warmup_cosine

BATCH = 64
HIDDEN = 0.3  # of the words, while it learns: no one of them may do
MANY, FEW = (6, 4), (24, 10)  # every how many-th paragraph has its label, and how often each of those is read
SMOOTHINGS = (1.0, 0.3, 0.1, 0.03)

Encode = Callable[[Sequence[int]], Labelled]  # numbers of paragraphs -> a batch


class Task(NamedTuple):
    """Which library is it from: paragraphs whose library is told, and others to be asked for."""

    libraries: tuple[str, ...]
    labelled: list[Paragraph]
    unseen: list[Paragraph]

    def labels(self, parts: Sequence[Paragraph]) -> Tensor:
        """The number of each paragraph's library (N,)."""
        return torch.tensor([self.libraries.index(part.origin) for part in parts])


def bert(run: Run) -> Report:
    """A pretrained encoder learns from labels which library a paragraph is from.

    From few it learns far more than naive Bayes does; from many, a little more. The controls: naive Bayes on the same
    labels, and the same fine-tuning from random weights.
    """
    pretrained, tokenizer = load_pretrained(run)
    rows: dict[str, Row] = {}
    margins: list[Row] = []
    for every, epochs in (MANY, FEW):
        task = ask(run, every)
        torch.manual_seed(run.seed)
        newborn = BERT(pretrained.config).to(run.device)
        ours, history = tuned(pretrained, tokenizer, task, run, epochs=epochs)
        others = {
            "random weights": tuned(newborn, tokenizer, task, run, epochs=epochs)[0],
            "naive Bayes": bayes(task),
            "the commonest": commonest(task),
        }
        told = f"{len(task.labelled):,} labels"
        rows |= {f"{told}: pretrained": ours} | {f"{told}, control: {name}": row for name, row in others.items()}
        margins.append({name: ours["right"] - row["right"] for name, row in others.items()})
    many, few = margins
    aims = {
        "above naive Bayes by 0.03 where labels are few": few["naive Bayes"] >= 0.03,
        "above random weights by 0.08 where labels are few": few["random weights"] >= 0.08,
        "above naive Bayes where they are many": many["naive Bayes"] > 0,
        "above random weights by 0.02 where they are many": many["random weights"] >= 0.02,
    }
    return Report(rows=rows, figures={"held out": len(task.unseen)}, aims=aims, records=history.records)


def ask(run: Run, every: int) -> Task:
    """One paragraph in `every` of the training split with its label, and all of the validation split.

    Labels are what costs; pretraining has read all the others too.
    """
    told, unseen = (documentation(split, run) for split in ("train", "validation"))
    return Task(tuple(told.versions), told[:: run.pick(every, 2 * every)], unseen[:: run.pick(1, 5)])


def tuned(encoder: BERT, tokenizer: Tokenizer, task: Task, run: Run, *, epochs: int) -> tuple[Row, History]:
    """An encoder with a new head learns from the labelled paragraphs: -> how often it is right on the others."""
    torch.manual_seed(run.seed)
    model = encoder.with_head("classifier", n_classes=len(task.libraries), dropout=0.1)
    learned, asked = (encoder_of(parts, task, tokenizer) for parts in (task.labelled, task.unseen))
    hide = partial(hidden_in, tokenizer=tokenizer, seed=run.seed)
    order = Shuffled([len(part.text) for part in task.labelled], BATCH, seed=run.seed, sort=16)
    tests = [asked(range(i, min(i + 64, len(task.unseen)))) for i in range(0, len(task.unseen), 64)]
    steps = run.pick(int(epochs * order.per_epoch), 4)
    history = fit(
        model,
        lambda step: hide(learned(order[step]), step),
        class_loss,
        steps=steps,
        optimizer=muon(model, 0.007, 2e-3),
        schedule=partial(warmup_cosine, warmup=max(1, steps // 10), total=steps),
        evaluate=lambda model: {"right": accuracy(model, tests)},
        every=max(1, steps // 3),
        progress=run.progress,
    )
    to_the_end(history)
    return {"right": history.records[-1]["right"]}, history


def hidden_in(batch: Labelled, step: int, *, tokenizer: Tokenizer, seed: int) -> Labelled:
    """The batch with some of its words hidden, as in pretraining; others at each step."""
    inputs, labels = batch
    ids, _ = corrupt(
        inputs["ids"],
        mask_id=tokenizer.token_to_id("[MASK]"),
        vocab_size=tokenizer.vocab_size,
        special_ids=list(tokenizer.special_tokens.values()),
        rate=HIDDEN,
        masked=1.0,
        random=0.0,
        generator=torch.Generator().manual_seed(1000 * seed + step),
    )
    return inputs | {"ids": ids}, labels


def encoder_of(parts: Sequence[Paragraph], task: Task, tokenizer: Tokenizer) -> Encode:
    """A function of numbers: those paragraphs as what BERT reads, [CLS] paragraph [SEP], and their libraries."""
    rows, labels = read([without_names(part.text) for part in parts], tokenizer), task.labels(parts)
    pad = tokenizer.token_to_id("[PAD]")

    def encode(numbers: Sequence[int]) -> Labelled:
        some = [rows[i] for i in numbers]
        read = rows_of(some, pad)
        inputs: dict[str, Any] = {"ids": read, "mask": padding(torch.tensor([*map(len, some)]), read.shape[1])}
        return inputs, labels[list(numbers)]

    return encode


def bayes(task: Task) -> Row:
    """How often naive Bayes is right with the smoothing that suits the held-out paragraphs best: a favour to it."""
    told, asked = ([split(without_names(part.text)) for part in parts] for parts in (task.labelled, task.unseen))
    known = sorted({word for words in told for word in words})
    learned, seen, labels = counts(told, known), counts(asked, known).to_dense(), task.labels(task.unseen)
    right = []
    for smoothing in SMOOTHINGS:
        layer = naive_bayes(learned, task.labels(task.labelled), len(task.libraries), smoothing=smoothing)
        right.append(float((layer(seen).argmax(dim=-1) == labels).float().mean()))
    return {"right": max(right)}


def counts(texts: Sequence[Sequence[str]], known: Sequence[str]) -> Tensor:
    """How often each known word occurs in each text (N, V), sparse: of thousands of words a paragraph has twenty."""
    column = {word: i for i, word in enumerate(known)}
    places = [(row, column[word]) for row, words in enumerate(texts) for word in words if word in column]
    where = torch.tensor(places, dtype=torch.long).view(-1, 2).T
    shape = (len(texts), len(known))
    return torch.sparse_coo_tensor(where, torch.ones(len(places)), shape, check_invariants=True).coalesce()


def commonest(task: Task) -> Row:
    """How often who always names the largest library is right."""
    return {"right": float(task.labels(task.unseen).bincount().max() / len(task.unseen))}
