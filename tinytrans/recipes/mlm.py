"""BERT's pretraining: documentation as it is -> an encoder that guesses hidden words and what comes next.

Nobody labels anything; the names of the libraries are taken out, so that the model cannot read off what it will be
asked later. What it costs is paid once and kept: `bert` starts from it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans import checkpoints
from tinytrans.config import BERTConfig
from tinytrans.data.batches import IGNORED, Shuffled
from tinytrans.data.docs import LIBRARIES, Docs, without_names
from tinytrans.data.masking import corrupt
from tinytrans.data.translation import rows_of
from tinytrans.models.bert import BERT, PretrainingHead
from tinytrans.nn.masks import padding
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.tokenizers import Tokenizer, WordPieceTokenizer, load_tokenizer
from tinytrans.tokenizers.pair_scores import frequency
from tinytrans.training.feed import to_device
from tinytrans.training.journal import History
from tinytrans.training.loop import evaluating, fit
from tinytrans.training.optim import muon, wsd

BATCH, STEPS, MAX_LEN = 32, 1500, 64
RATE = 0.25  # hidden: more than BERT's 0.15, as a short training wants more to guess (Wettig et al. 2022, 2202.08005)
SHARP = 10.0  # a cosine times this is a logit
NEAR = 8  # paragraphs so far apart at most belong together in training


class Hidden(NamedTuple):
    """Paragraphs and, in the other half of the rows, those that belong to them: ids (2B, T) of which some are hidden.

    lengths (2B,) and labels (2B, T): what the hidden ones were, elsewhere -100.
    """

    ids: Tensor
    lengths: Tensor
    labels: Tensor


def mlm(run: Run) -> Report:
    """Words that were hidden, and which of 32 paragraphs comes next, in documentation that the encoder never saw.

    BERT asks of two paragraphs whether one follows the other, yes or no. To find the one that follows among those of
    the whole batch is the same question and tells more: a short training learns from it what a paragraph is about.
    Source: Logeswaran and Lee 2018, arXiv 1803.02893. In training it is one of the next eight: from what is a little
    further on one learns what a whole page is about. Source: Giorgi et al. 2020 (DeCLUTR), arXiv 2006.03659. The
    controls: to guess what most often follows the word before, and what is most frequent.
    """
    model, tokenizer, history = pretrain(run)
    unseen = batches("validation", tokenizer, run)
    some = [unseen(i) for i in range(run.pick(50, 2))]
    after = followers(read(corpus("train", run), tokenizer))
    rows = {
        "BERT": guesses(model, some),
        "control: the word before": {"words": by_word_before(after, some)},
        "control: the commonest": commonest(some),
    }
    ours, before, control = rows.values()
    aims = {
        "words >= 0.05 above who sees the word before alone": ours["words"] >= before["words"] + 0.05,
        "next >= 0.20 above the commonest": ours["next"] >= control["next"] + 0.2,
    }
    figures = {"parameters": model.n_params, "targets": history.seen, "training_seconds": history.seconds}
    return Report(rows=rows, figures=figures, aims=aims, records=history.records)


def pretrain(run: Run) -> tuple[BERT, Tokenizer, History]:
    """Train the encoder on the paragraphs of the training split, and keep it in the run's folder."""
    tokenizer = WordPieceTokenizer.train(corpus("train", run)[::4], run.pick(8192, 300), score=frequency)
    checked = batches("validation", tokenizer, run)
    torch.manual_seed(run.seed)
    model = BERT(shape(tokenizer, run)).to(run.device)
    steps = run.pick(STEPS, 4)
    history = fit(
        model,
        batches("train", tokenizer, run, near=NEAR),
        pretraining_loss,
        steps=steps,
        optimizer=muon(model, 0.02, 4e-3, betas=(0.9, 0.99), iterations=4),
        schedule=partial(wsd, warmup=20, total=steps, decay=steps // 2),
        evaluate=lambda _: guesses(model, map(checked, range(run.pick(5, 1)))),
        every=run.pick(300, 2),
        progress=run.progress,
    )
    to_the_end(history)
    model.save_pretrained(run.folder("mlm"), tokenizer)
    return model, tokenizer, history


def load_pretrained(run: Run) -> tuple[BERT, Tokenizer]:
    """The encoder in eval mode: this run's own, else that which comes with the library (of seed 0), else trained."""
    folder = run.folder("mlm")
    if not (folder / "config.json").exists():
        if run.seed == 0 and not run.quick and "mlm" in checkpoints.names():
            return checkpoints.load("mlm", BERT, device=run.device)
        pretrain(run)
    return BERT.from_pretrained(folder, device=run.device), load_tokenizer(folder)


def shape(tokenizer: Tokenizer, run: Run) -> BERTConfig:
    """A small BERT with norms before the sublayers, which bears a high rate."""
    return BERTConfig(
        vocab_size=tokenizer.vocab_size,
        n_layers=2,
        d_model=run.pick(128, 32),
        n_heads=4,
        max_len=MAX_LEN,
        residual="pre",
        norm_eps=1e-5,
        qk_norm=True,
        bias=False,
        head="pretraining",
    )


def documentation(split: str, run: Run) -> Docs:
    """The paragraphs of a split; for a quick run those of two small libraries alone."""
    return Docs(("networkx", "numpy") if run.quick else LIBRARIES, split=split)


def corpus(split: str, run: Run) -> list[str]:
    """The same as texts without names."""
    return [without_names(part.text) for part in documentation(split, run)[: run.pick(10**6, 400)]]


def read(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Texts as BERT reads them: [CLS] text [SEP], cut to the length that it can read."""
    cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    return [[cls, *ids[: MAX_LEN - 2], sep] for ids in tokenizer.encode_batch(texts)]


def batches(split: str, tokenizer: Tokenizer, run: Run, *, near: int = 1) -> Callable[[int], Hidden]:
    """A step's number -> paragraphs of the split and, of the next `near` after each, one.

    Which one, and which of their tokens are hidden, is drawn anew at each step.
    """
    rows = read(corpus(split, run), tokenizer)
    order = Shuffled([len(a) + len(b) for a, b in pairwise(rows)], BATCH, seed=run.seed, sort=16)
    pad, mask = (tokenizer.token_to_id(token) for token in ("[PAD]", "[MASK]"))
    special = list(tokenizer.special_tokens.values())
    hide = partial(corrupt, mask_id=mask, vocab_size=tokenizer.vocab_size, special_ids=special, rate=RATE)

    def hidden(step: int) -> Hidden:
        chance = torch.Generator().manual_seed(1000 * run.seed + step)
        first = list(order[step])
        further = torch.randint(1, near + 1, (len(first),), generator=chance).tolist()
        second = [min(i + n, len(rows) - 1) for i, n in zip(first, further, strict=True)]
        some = [rows[i] for i in first + second]
        ids, labels = hide(rows_of(some, pad), generator=chance)
        return Hidden(ids, torch.tensor([*map(len, some)]), labels)

    return hidden


def asked(model: nn.Module, batch: Hidden) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the hidden tokens alone (N, V), what they were (N,), and how well each paragraph goes on (B, B).

    The logit of paragraph i and next one j is the cosine of what [CLS] says of them, times `SHARP`; right is i = j.
    """
    assert isinstance(model, BERT)
    assert isinstance(model.head, PretrainingHead)
    states = model.hidden(batch.ids, mask=padding(batch.lengths, batch.ids.shape[1]))
    wanted = batch.labels != IGNORED
    first, following = F.normalize(model.head.pooler(states), dim=-1).chunk(2)
    return model.head.guess(states[wanted]), batch.labels[wanted], SHARP * first @ following.T


def pretraining_loss(model: nn.Module, batch: Hidden) -> tuple[Tensor, int]:
    """What `fit` differentiates: the mean surprise at hidden tokens, and that at what comes next, and came before."""
    guessed, labels, scores = asked(model, batch)
    right = torch.arange(len(scores), device=scores.device)
    follows = (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2
    return (F.cross_entropy(guessed, labels) + follows) * len(labels), len(labels)


def guesses(model: BERT, unseen: Iterable[Hidden]) -> Row:
    """The share of hidden tokens that are guessed, and of paragraphs whose next one is found in the batch."""
    words: list[Tensor] = []
    follows: list[Tensor] = []
    with evaluating(model):
        for each in unseen:
            guessed, labels, scores = asked(model, to_device(each, model.embedding.weight.device))
            words.append(guessed.argmax(dim=-1) == labels)
            follows.append(scores.argmax(dim=-1) == torch.arange(len(scores), device=scores.device))
    return {"words": float(torch.cat(words).float().mean()), "next": float(torch.cat(follows).float().mean())}


def followers(rows: Iterable[Sequence[int]]) -> dict[int, int]:
    """For each token the one that most often follows it in these rows."""
    counted: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for row in rows:
        for token, following in pairwise(row):
            counted[token][following] += 1
    return {token: after.most_common(1)[0][0] for token, after in counted.items()}


def by_word_before(after: dict[int, int], unseen: Iterable[Hidden]) -> float:
    """The share of hidden tokens that are what most often follows the token before them, as far as that is shown."""
    right: list[bool] = []
    for batch in unseen:
        row, column = (batch.labels != IGNORED).nonzero(as_tuple=True)
        pairs = zip(batch.ids[row, column - 1].tolist(), batch.labels[row, column].tolist(), strict=True)
        right += [after.get(before) == label for before, label in pairs]
    return sum(right) / len(right)


def commonest(unseen: Sequence[Hidden]) -> Row:
    """The same for who always says the most frequent token, and always the same paragraph."""
    labels = torch.cat([batch.labels[batch.labels != IGNORED] for batch in unseen])
    return {
        "words": float(labels.bincount().max() / len(labels)),
        "next": 2 * len(unseen) / sum(len(b.ids) for b in unseen),
    }
