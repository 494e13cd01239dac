"""Batches: documents of ids -> (ids, targets) for language modelling; batch `step` depends on (seed, step) alone.

So an interrupted run resumes exactly: hand in the step, `batches.step = 500`, or `batches.load_state_dict(...)`.
The target of a position is the next id of its own document; where there is none it is IGNORED.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

IGNORED = -100  # what torch's cross_entropy leaves out unless told otherwise


class Batch(NamedTuple):
    """ids (B, T), targets (B, T), and for packed rows a mask (B, T, T), True = may look, and positions (B, T)."""

    ids: Tensor
    targets: Tensor
    mask: Tensor | None = None
    positions: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return Batch(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


Learned = Sequence[Sequence[bool]]  # for each document, of each of its ids: whether it is learned, or only read


def pad(
    documents: Sequence[Sequence[int]],
    *,
    max_len: int | None = None,
    pad_id: int = 0,
    learned: Learned | None = None,
) -> Batch:
    """One document a row, all as long as the longest, or cut to max_len positions.

    Padding stands behind, where a causal model cannot see it from any real position: no mask is needed. What is not
    `learned`, a prompt for one, is no target. Raises ValueError where no token follows another, and where `learned`
    has other lengths than the documents.

    >>> pad([[5, 6, 7], [8, 9]]).targets.tolist()
    [[6, 7], [9, -100]]
    """
    T = max((len(ids) for ids in documents), default=0) - 1
    T = T if max_len is None else min(T, max_len)
    if T < 1:
        raise ValueError(f"{len(documents)} documents, max_len {max_len}: no token follows another")
    check_learned(documents, learned)
    ids, targets = np.full((len(documents), T), pad_id), np.full((len(documents), T), IGNORED)
    for row, document in enumerate(documents):
        n = min(len(document) - 1, T)
        ids[row, :n], targets[row, :n] = document[:n], asked_for(document, learned[row] if learned else None, n)
    return Batch(torch.from_numpy(ids), torch.from_numpy(targets))


def check_learned(documents: Sequence[Sequence[int]], learned: Learned | None) -> None:
    """Raise ValueError unless `learned`, where it is given, says one thing of each id of each document."""
    if learned is None:
        return
    if len(learned) != len(documents):
        raise ValueError(f"learned tells of {len(learned)} documents, and there are {len(documents)}")
    for i, (ids, these) in enumerate(zip(documents, learned, strict=True)):
        if len(ids) != len(these):
            raise ValueError(f"learned tells of {len(these)} ids of document {i}, which has {len(ids)}")


def asked_for(document: Sequence[int], learned: Sequence[bool] | None, n: int) -> np.ndarray:
    """The targets at the first n positions of a document: each next id, or IGNORED where it is not learned."""
    following = np.asarray(document[1 : n + 1])
    return following if learned is None else np.where(learned[1 : n + 1], following, IGNORED)


def pack(documents: Sequence[Sequence[int]], T: int) -> list[list[int]]:
    """Which documents share a row of T positions: lists of their numbers, by best fit, longest first.

    A document of n ids fills n - 1 positions, as its last id is only a target; a longer one than T fills a row.

    >>> pack([[0] * 4, [0] * 7, [0] * 5, [0] * 2], T=7)
    [[1, 3], [2, 0]]
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free positions, row), sorted
    if T < 1 or min(map(len, documents), default=2) < 2:
        raise ValueError(f"rows of {T} positions hold documents of at least 2 ids: no token of others follows another")
    sizes = [min(len(ids) - 1, T) for ids in documents]
    for i in sorted(range(len(documents)), key=lambda i: -sizes[i]):
        at = bisect_left(room, (sizes[i], 0))
        free, row = room.pop(at) if at < len(room) else (T, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(i)
        insort(room, (free - sizes[i], row))
    return rows


def packed(
    rows: Sequence[Sequence[Sequence[int]]], T: int, *, pad_id: int = 0, learned: Sequence[Learned] | None = None
) -> Batch:
    """Several documents a row, behind each other; the mask is causal and keeps them apart.

    The positions begin anew with each document, so that a model with learned ones reads it as if it stood alone.
    `learned`, row by row, is as in `pad`.

    >>> packed([[[5, 6, 7], [8, 9]]], T=4).mask.int().tolist()
    [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]
    """
    ids, targets = np.full((len(rows), T), pad_id), np.full((len(rows), T), IGNORED)
    positions = np.zeros((len(rows), T), dtype=int)
    numbers = np.zeros((len(rows), T), dtype=int)  # 0 is padding, which sees only padding
    for r, row in enumerate(rows):
        these = None if learned is None else learned[r]
        check_learned(row, these)
        start = 0
        for number, document in enumerate(row, start=1):
            n = min(len(document) - 1, T - start)
            place = (r, slice(start, start + n))
            ids[place], numbers[place] = document[:n], number
            targets[place] = asked_for(document, these[number - 1] if these else None, n)
            positions[place] = np.arange(n)
            start += n
    block = torch.from_numpy(numbers)
    mask = (block[:, :, None] == block[:, None, :]).tril()
    return Batch(torch.from_numpy(ids), torch.from_numpy(targets), mask, torch.from_numpy(positions))


def windows(ids: Tensor, starts: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """Windows of T positions from a long row of ids (N,), at starts (B,) -> inputs, targets (B, T).

    A target is the id after its input's, so a window takes T + 1 ids and starts at N - T - 1 at the
    latest; raises ValueError for starts that are later, or below 0.

    >>> windows(torch.arange(9), torch.tensor([0, 5]), T=3)[1].tolist()
    [[1, 2, 3], [6, 7, 8]]
    """
    last = len(ids) - T - 1
    if len(starts) and not 0 <= int(starts.min()) <= int(starts.max()) <= last:
        raise ValueError(f"starts {starts.tolist()} do not lie in 0 ... {last}, the windows of {T} in {len(ids)} ids")
    at = starts[:, None] + torch.arange(T, device=starts.device)
    return ids[at], ids[at + 1]


def check_step(step: int) -> None:
    """Raise ValueError, naming it, for a step below 0: an endless stream has no last batch to count from."""
    if step < 0:
        raise ValueError(f"step {step}: batches are numbered from 0")


class Batches(ABC):
    """An endless stream of batches: `batches[step]` is always the same batch, `next(batches)` goes on from `step`."""

    def __init__(self, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} counts from 1")
        self.batch_size, self.seed, self.step = batch_size, seed, 0

    @abstractmethod
    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, whichever was asked for before; raises ValueError for a step below 0."""

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self[self.step]
        self.step += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands."""
        return {"seed": self.seed, "step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> Self:
        """Go on where another stream stood; raises ValueError when that one had another seed."""
        if state["seed"] != self.seed:
            raise ValueError(f"a stream of seed {state['seed']} cannot go on in one of seed {self.seed}")
        self.step = state["step"]
        return self


class Shuffled:
    """Which things come together: a step -> the numbers of those in its batch, `Shuffled(sizes, 8)[step]`.

    All are shuffled anew in every epoch; what does not fill a batch waits for the next one. Among `sort` batches things
    of like size stand together. Raises ValueError for fewer things than one batch holds, and for a step below 0.

    >>> sorted(Shuffled([1] * 6, 3)[0] + Shuffled([1] * 6, 3)[1])
    [0, 1, 2, 3, 4, 5]
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, *, seed: int = 0, sort: int = 1) -> None:
        self.batch_size, self.seed = batch_size, seed
        self.per_epoch = len(sizes) // batch_size
        if not self.per_epoch:
            raise ValueError(f"{len(sizes)} rows do not fill one batch of {batch_size}")
        self._sizes, self._sort = np.asarray(sizes), sort
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, step: int) -> list[int]:
        check_step(step)
        epoch, i = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self._shuffle(epoch))
        return self._order[1][i].tolist()

    def _shuffle(self, epoch: int) -> np.ndarray:
        """An epoch's order (per_epoch, batch_size): within every `sort` batches the equally long stand together."""
        chance = np.random.default_rng([self.seed, epoch])
        order = chance.permutation(len(self._sizes))[: self.per_epoch * self.batch_size]
        for start in range(0, len(order), self._sort * self.batch_size):
            group = order[start : start + self._sort * self.batch_size]
            group[:] = group[np.argsort(self._sizes[group], kind="stable")]
        return chance.permutation(order.reshape(self.per_epoch, self.batch_size))


class _ShuffledBatches(Batches):
    """Batches of things that are `Shuffled`."""

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int, sort: int) -> None:
        super().__init__(batch_size, seed)
        self._order = Shuffled(sizes, batch_size, seed=seed, sort=sort)
        self.per_epoch = self._order.per_epoch

    def numbers(self, step: int) -> list[int]:
        """The numbers of the things in the batch of a step."""
        return self._order[step]


class PaddedBatches(_ShuffledBatches):
    """One document a row, padded to the longest of its batch.

    Among `sort` batches documents of like length come together, so that little is padding; 1 leaves chance alone.
    `learned` is as in `pad`.
    """

    def __init__(
        self,
        documents: Sequence[Sequence[int]],
        batch_size: int,
        *,
        max_len: int | None = None,
        pad_id: int = 0,
        seed: int = 0,
        sort: int = 16,
        learned: Learned | None = None,
    ) -> None:
        super().__init__([len(ids) for ids in documents], batch_size, seed, sort)
        check_learned(documents, learned)
        self.documents, self.max_len, self.pad_id, self.learned = documents, max_len, pad_id, learned

    def __getitem__(self, step: int) -> Batch:
        some = self.numbers(step)
        learned = None if self.learned is None else [self.learned[i] for i in some]
        return pad([self.documents[i] for i in some], max_len=self.max_len, pad_id=self.pad_id, learned=learned)


class PackedBatches(_ShuffledBatches):
    """Rows of T positions, filled with as many whole documents as fit, which do not see each other.

    `learned` is as in `pad`: so dialogues are packed of which only the answers are learned.
    """

    def __init__(
        self,
        documents: Sequence[Sequence[int]],
        T: int,
        batch_size: int,
        *,
        pad_id: int = 0,
        seed: int = 0,
        learned: Learned | None = None,
    ) -> None:
        self.rows = pack(documents, T)
        super().__init__([T] * len(self.rows), batch_size, seed, sort=1)
        check_learned(documents, learned)
        self.documents, self.T, self.pad_id, self.learned = documents, T, pad_id, learned

    def __getitem__(self, step: int) -> Batch:
        rows = [self.rows[row] for row in self.numbers(step)]
        learned = None if self.learned is None else [[self.learned[i] for i in row] for row in rows]
        return packed([[self.documents[i] for i in row] for row in rows], self.T, pad_id=self.pad_id, learned=learned)


class WindowBatches(Batches):
    """Windows of T positions at random places of one long sequence of ids (N,), never beyond its end."""

    def __init__(self, ids: Tensor, T: int, batch_size: int, *, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        if len(ids) <= T:
            raise ValueError(f"{len(ids)} ids hold no window of {T} and its target")
        self.ids, self.T = ids, T

    def __getitem__(self, step: int) -> Batch:
        check_step(step)
        starts = np.random.default_rng([self.seed, step]).integers(len(self.ids) - self.T, size=self.batch_size)
        return Batch(*windows(self.ids, torch.from_numpy(starts), self.T))
