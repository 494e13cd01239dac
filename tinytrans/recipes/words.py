"""Word vectors: tales -> a vector for each word, and whether the nearest of an animal are animals.

Nobody tells the model which words are alike; it is told only which stand side by side.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from tinytrans.config import Word2VecConfig
from tinytrans.data.tales import Tales
from tinytrans.data.tales_words import ADJECTIVES, COLORS, FOODS, KINDS, NAMES, PLACES, THINGS
from tinytrans.data.words import Words
from tinytrans.models.word2vec import Word2Vec, draw_negatives, keep_chances, neighbours, noise, subsample, windows
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.training.journal import History
from tinytrans.training.loop import fit
from tinytrans.training.optim import adamw, warmup_cosine

BANKS = {
    "animals": KINDS,
    "colours": COLORS,
    "places": tuple(PLACES),
    "foods": FOODS,
    "things": THINGS,
    "qualities": ADJECTIVES,
    "names": tuple(name.lower() for names in NAMES.values() for name in names),
}
BATCH, WIDTH, NEGATIVES, NEAREST = 2048, 2, 5, 5

Examples = tuple[Tensor, Tensor, Tensor]  # given (B, 1), right (B,), negatives (B, N)


def words(run: Run) -> Report:
    """Skip-gram on tales: of a word's five nearest neighbours among all words, how many are of its own bank.

    The controls: the same training on the same words in any order, without company to know them by; no training.
    """
    known = Words((tale.text for tale in Tales(run.pick(4000, 60), seed=run.seed)), least=run.pick(5, 2))
    torch.manual_seed(run.seed)
    models = [Word2Vec(Word2VecConfig(vocab_size=len(known), d_model=32)).to(run.device) for _ in range(3)]
    history = learn(models[0], known, known.sentences, run)
    learn(models[1], known, scattered(known.sentences, run), run)
    names = ("skip-gram", "control: words shuffled", "control: untrained")
    rows = {name: purity(model.vectors, known.index) for name, model in zip(names, models, strict=True)}
    aims = {f"{bank} >= 0.90": rows["skip-gram"][bank] >= 0.9 for bank in ("all", "animals", "colours", "places")}
    figures: Row = {"words": len(known), "occurrences": int(known.counts.sum())}
    return Report(rows=rows, figures=figures, aims=aims, records=history.records)


def scattered(sentences: Sequence[Sequence[int]], run: Run) -> list[list[int]]:
    """All words in an order of chance, cut into as many sentences of the same lengths."""
    words = [word for ids in sentences for word in ids]
    random.Random(run.seed).shuffle(words)
    rest = iter(words)
    return [list(islice(rest, len(ids))) for ids in sentences]


def learn(model: Word2Vec, known: Words, sentences: Sequence[Sequence[int]], run: Run) -> History:
    """Train on windows of sentences from which frequent words were dropped by chance."""
    chances, kept = keep_chances(known.counts), torch.Generator().manual_seed(run.seed)
    thinned = [subsample(torch.tensor(ids), chances, generator=kept).tolist() for ids in sentences]
    given, right = windows(thinned, WIDTH).pairs()
    wrong, steps = noise(known.counts), run.pick(1500, 10)

    def examples(step: int) -> Examples:
        drawn = torch.Generator().manual_seed(1000 * run.seed + step)
        some = torch.randint(len(right), (BATCH,), generator=drawn)
        return given[some], right[some], draw_negatives(wrong, right[some], NEGATIVES, generator=drawn)

    history = fit(
        model,
        examples,
        guess_loss,
        steps=steps,
        optimizer=adamw(model, 0.02, weight_decay=0.0),
        schedule=partial(warmup_cosine, warmup=10, total=steps),
        evaluate=lambda _: purity(model.vectors, known.index),
        every=run.pick(300, 5),
        progress=run.progress,
    )
    return to_the_end(history)


def guess_loss(model: nn.Module, batch: Examples) -> Tensor:
    """What `fit` differentiates: how surprising the right words are, and how plausible the wrong ones."""
    assert isinstance(model, Word2Vec)
    return model.loss(*batch)


def purity(vectors: Tensor, index: Mapping[str, int]) -> Row:
    """The share of the five nearest neighbours that are of a word's own bank, bank by bank and over all its words."""
    shares: dict[str, list[float]] = {}
    for bank, members in BANKS.items():
        ids = {index[word] for word in members if word in index}
        found = (set(neighbours(vectors, i, NEAREST).ids.tolist()) for i in ids)
        shares[bank] = [len(near & ids) / NEAREST for near in found]
    everyone = [share for bank in shares.values() for share in bank]
    return {bank: sum(each) / max(1, len(each)) for bank, each in {"all": everyone, **shares}.items()}
