"""Translation: pairs of sources and targets as ids -> batches for a model that reads the one and writes the other.

Its decoder is told the right token before each that it is to say (teacher forcing): `inputs` are the targets, one step
late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tinytrans.data.batches import IGNORED, Shuffled


class TranslationBatch(NamedTuple):
    """source (B, S), lengths (B,), how much of it is real; inputs (B, T), what the decoder reads; targets (B, T)."""

    source: Tensor
    lengths: Tensor
    inputs: Tensor
    targets: Tensor


def rows_of(sequences: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Sequences of ids -> one a row, filled up behind to the length of the longest; ValueError where there are none.

    >>> rows_of([[5, 6], [7]], fill=0)
    tensor([[5, 6],
            [7, 0]])
    """
    if not len(sequences):
        raise ValueError("there are no sequences to make rows of")
    T = max(map(len, sequences))
    return torch.tensor([[*ids, *[fill] * (T - len(ids))] for ids in sequences])


def translation_batch(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], *, start: int, pad_id: int = 0
) -> TranslationBatch:
    """Sources and their targets, each ended by its stop sign -> a batch, padded; nothing is asked for at padding.

    The decoder reads `start` first, which may be the stop sign too. Raises ValueError where there are not as many
    targets as sources, or one is empty.

    >>> batch = translation_batch([[5, 6], [7]], [[8, 9, 3], [4, 3]], start=3)
    >>> batch.inputs.tolist(), batch.targets.tolist()
    ([[3, 8, 9], [3, 4, 0]], [[8, 9, 3], [4, 3, -100]])
    """
    if len(sources) != len(targets):
        raise ValueError(f"{len(sources)} sources cannot be paired with {len(targets)} targets")
    for name, sequences in (("source", sources), ("target", targets)):
        if empty := [row for row, ids in enumerate(sequences) if not len(ids)]:
            raise ValueError(f"{name} {empty[0]} of {len(sequences)} is empty")
    return TranslationBatch(
        rows_of(sources, pad_id),
        torch.tensor([len(ids) for ids in sources]),
        rows_of([[start, *ids[:-1]] for ids in targets], pad_id),
        rows_of(targets, IGNORED),
    )


class TranslationBatches:
    """An endless stream of batches by number; among `sort` of them sources of like length come together.

    Batch `step` depends on (seed, step) alone.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        batch_size: int,
        *,
        start: int,
        pad_id: int = 0,
        seed: int = 0,
        sort: int = 16,
    ) -> None:
        self.sources, self.targets, self.start, self.pad_id = sources, targets, start, pad_id
        self._order = Shuffled([len(ids) for ids in sources], batch_size, seed=seed, sort=sort)
        self.per_epoch = self._order.per_epoch

    def __getitem__(self, step: int) -> TranslationBatch:
        numbers = self._order[step]
        sources, targets = ([side[i] for i in numbers] for side in (self.sources, self.targets))
        return translation_batch(sources, targets, start=self.start, pad_id=self.pad_id)


def until(ids: Sequence[int], stop: int) -> list[int]:
    """What was said before the first stop sign, or all, if there is none.

    >>> until([5, 6, 3, 3], stop=3)
    [5, 6]
    """
    ids = list(ids)
    return ids[: ids.index(stop)] if stop in ids else ids


def exact_match(said: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of translations that are as wanted, letter for letter.

    >>> exact_match(["2026-11-21", "2026-11-12"], ["2026-11-21", "2026-12-11"])
    0.5
    """
    if not said:
        raise ValueError("no translations to compare")
    return sum(a == b for a, b in zip(said, wanted, strict=True)) / len(said)
