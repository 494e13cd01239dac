"""Dates: as people write them in sixteen languages -> ISO 8601, by a recurrent model, with attention and without.

Without attention all of a date must pass through one vector: the bottleneck that attention was invented for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch

from tinytrans.config import RNNConfig
from tinytrans.data.chat import END
from tinytrans.data.dates import Dates
from tinytrans.data.splits import Pair
from tinytrans.data.translation import TranslationBatches, exact_match, rows_of, until
from tinytrans.models.rnn import Seq2Seq
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.tokenizers import CharacterTokenizer
from tinytrans.training.journal import History
from tinytrans.training.loop import evaluating, fit
from tinytrans.training.optim import adamw, wsd
from tinytrans.training.translation import translation_loss

Attention = Literal["additive", "none"]
BATCH, LONGEST = 64, 11  # 2026-11-21 and the end
LENGTHS = {"to 12": range(13), "13 to 20": range(13, 21), "21 on": range(21, 100)}  # characters of the source


class Letters:
    """The two alphabets: dates as they are written and in ISO 8601, each a list of characters with a sign for the end.

    >>> letters = Letters([Pair("21 Nov", "11-21")])
    >>> letters.read(letters.encode([Pair("21 Nov", "11-21")])[1])
    ['11-21']
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.source = CharacterTokenizer.train((pair.source for pair in pairs), special_tokens=(END,))
        self.target = CharacterTokenizer.train((pair.target for pair in pairs), special_tokens=(END,))
        self.end = self.target.token_to_id(END)

    def encode(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        """Sources and targets as ids, each to its end."""
        sources = self.source.encode_batch([pair.source + END for pair in pairs])
        return sources, self.target.encode_batch([pair.target + END for pair in pairs])

    def read(self, said: Sequence[Sequence[int]]) -> list[str]:
        """What a model said, up to the end."""
        return [self.target.decode(until(ids, self.end)) for ids in said]


def dates(run: Run) -> Report:
    """A GRU with attention reads held-out days in every language; one without, of the same size, does not.

    The control has as many parameters, its states being wider, and sees the same dates in the same steps.
    """
    taught = Dates(run.pick(20_000, 200), seed=run.seed)[:]
    unseen = Dates(run.pick(1000, 20), seed=run.seed, split="test")[:]
    letters = Letters(taught)
    model, without = build("additive", letters, run), build("none", letters, run)
    history = learn(model, taught, unseen, letters, run)
    learn(without, taught, unseen, letters, run)
    rows = {
        "with attention": measure(model, unseen, letters),
        "control: without": measure(without, unseen, letters),
    }
    aims = {
        "with attention exact >= 0.97": rows["with attention"]["exact"] >= 0.97,
        "at least 0.50 above without": rows["with attention"]["exact"] >= rows["control: without"]["exact"] + 0.5,
    }
    figures: Row = {"parameters": model.n_params, "parameters without": without.n_params}
    return Report(rows=rows, figures=figures, aims=aims, records=history.records)


def build(attention: Attention, letters: Letters, run: Run) -> Seq2Seq:
    """A new model with attention or without, in as many parameters."""
    torch.manual_seed(run.seed)
    width = run.pick(128, 32) if attention == "additive" else run.pick(164, 40)
    return Seq2Seq(
        RNNConfig(
            source_vocab_size=letters.source.vocab_size,
            target_vocab_size=letters.target.vocab_size,
            d_model=width,
            d_embedding=64,
            attention=attention,
        )
    ).to(run.device)


def learn(model: Seq2Seq, taught: Sequence[Pair], unseen: Sequence[Pair], letters: Letters, run: Run) -> History:
    """Train on the dates."""
    steps = run.pick(400, 4)
    history = fit(
        model,
        TranslationBatches(*letters.encode(taught), BATCH, start=letters.end, seed=run.seed),
        translation_loss,
        steps=steps,
        optimizer=adamw(model, 4e-3, weight_decay=0.0),
        schedule=partial(wsd, warmup=20, total=steps, decay=steps // 2),
        evaluate=lambda _: measure(model, unseen[:200], letters),
        every=run.pick(50, 2),
        progress=run.progress,
    )
    return to_the_end(history)


def measure(model: Seq2Seq, pairs: Sequence[Pair], letters: Letters) -> Row:
    """The share of dates that are right to the digit, of all and by the length of their source."""
    said = translate(model, pairs, letters)
    row = {"exact": exact_match(said, [pair.target for pair in pairs])}
    for name, lengths in LENGTHS.items():
        if some := [i for i, pair in enumerate(pairs) if len(pair.source) in lengths]:
            row[name] = exact_match([said[i] for i in some], [pairs[i].target for i in some])
    return row


def translate(model: Seq2Seq, pairs: Sequence[Pair], letters: Letters) -> list[str]:
    """What the model makes of the sources, the likeliest character at each step."""
    sources, _ = letters.encode(pairs)
    device = next(model.parameters()).device
    source, lengths = rows_of(sources, letters.end).to(device), torch.tensor([len(ids) for ids in sources])
    with evaluating(model):
        said = model.translate(
            source, start=letters.end, stop=letters.end, max_new_tokens=LONGEST, lengths=lengths.to(device)
        )
    return letters.read(said.ids.tolist())
