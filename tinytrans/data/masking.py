"""Masking: ids -> corrupted ids and what they were, sentences -> pairs and whether they follow: BERT's two lessons.

Source: Devlin et al. 2018, arXiv 1810.04805, sections 3.1 and A.1; dynamic masking: Liu et al. 2019, arXiv 1907.11692.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tinytrans.data.batches import IGNORED, Shuffled


def corrupt(
    ids: Tensor,
    *,
    mask_id: int,
    vocab_size: int,
    special_ids: Collection[int],
    rate: float = 0.15,
    masked: float = 0.8,
    random: float = 0.1,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Hide some tokens: ids (B, T) -> inputs (B, T), labels (B, T) with the id where it is asked for, else -100.

    Each token is chosen with probability `rate`; of the chosen ones the share `masked` becomes [MASK], `random` any
    ordinary token, the rest stays and is asked for all the same. Special tokens are neither chosen nor drawn. Called
    anew for each batch, it hides other tokens each time. Raises ValueError on shares outside [0, 1], on ids outside the
    vocabulary, and where it holds nothing but special tokens.
    """
    if not (0 <= rate <= 1 and min(masked, random) >= 0 and masked + random <= 1):
        raise ValueError(f"rate {rate}, masked {masked}, random {random} are no shares")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise ValueError(f"ids from {int(ids.min())} to {int(ids.max())} do not lie in 0 ... {vocab_size - 1}")
    ordinary = torch.ones(vocab_size, dtype=torch.bool, device=ids.device)
    ordinary[torch.tensor([*special_ids, mask_id], device=ids.device)] = False
    chosen = (_uniform(ids, generator) < rate) & ordinary[ids]
    fate = _uniform(ids, generator)
    options = ordinary.nonzero().flatten()
    if not len(options):
        raise ValueError(f"all {vocab_size} tokens are special: none could stand in another's place")
    others = options[(_uniform(ids, generator) * len(options)).long().clamp(max=len(options) - 1)]
    inputs = torch.where(chosen & (fate < masked), mask_id, ids)
    inputs = torch.where(chosen & (fate >= masked) & (fate < masked + random), others, inputs)
    return inputs, torch.where(chosen, ids, IGNORED)


def _uniform(ids: Tensor, generator: torch.Generator | None) -> Tensor:
    """One number in [0, 1) for each id, drawn where the generator lives, in double precision for large vocabularies."""
    device = generator.device if generator is not None else ids.device
    return torch.rand(ids.shape, generator=generator, device=device, dtype=torch.float64).to(ids.device)


class SentencePair(NamedTuple):
    """[CLS] a [SEP] b [SEP] as ids, the segment of each (0 or 1), and whether b followed a in its document."""

    ids: list[int]
    segments: list[int]
    is_next: bool


def join(
    a: Sequence[int], b: Sequence[int], *, cls_id: int, sep_id: int, is_next: bool = True, max_len: int | None = None
) -> SentencePair:
    """Two sentences as one input; if it is longer than max_len the longer one loses its end, token by token.

    >>> join([7, 8], [9], cls_id=1, sep_id=2).ids
    [1, 7, 8, 2, 9, 2]
    """
    a, b = list(a), list(b)
    while max_len is not None and len(a) + len(b) + 3 > max_len:
        if not a and not b:
            raise ValueError(f"max_len {max_len} has no room for [CLS] and two [SEP]")
        (a if len(a) > len(b) else b).pop()
    ids = [cls_id, *a, sep_id, *b, sep_id]
    return SentencePair(ids, [0] * (len(a) + 2) + [1] * (len(b) + 1), is_next)


def next_sentence_pairs(
    documents: Sequence[Sequence[Sequence[int]]],
    n: int,
    *,
    cls_id: int,
    sep_id: int,
    max_len: int | None = None,
    generator: torch.Generator | None = None,
) -> list[SentencePair]:
    """Draw n pairs from documents of sentences of ids; half of them, by chance, follow each other.

    Otherwise the second sentence is from *another* document: one from the same might be the true next one.
    Raises ValueError with less than two documents, or when none has two sentences.
    """
    whole = [i for i, document in enumerate(documents) if len(document) > 1]
    filled = [i for i, document in enumerate(documents) if document]
    if not whole or len(filled) < 2:
        raise ValueError(f"{len(filled)} documents, {len(whole)} of them with two sentences: want two and one")
    return [_draw(documents, whole, filled, cls_id, sep_id, max_len, generator) for _ in range(n)]


def _draw(
    documents: Sequence[Sequence[Sequence[int]]],
    whole: list[int],
    filled: list[int],
    cls_id: int,
    sep_id: int,
    max_len: int | None,
    generator: torch.Generator | None,
) -> SentencePair:
    i = whole[_below(len(whole), generator)]
    at = _below(len(documents[i]) - 1, generator)
    is_next = _below(2, generator) == 0
    if is_next:
        second = documents[i][at + 1]
    else:
        j = filled[_below(len(filled) - 1, generator)]
        other = documents[j if j != i else filled[-1]]  # i's own place in the draw stands for the last one
        second = other[_below(len(other), generator)]
    return join(documents[i][at], second, cls_id=cls_id, sep_id=sep_id, is_next=is_next, max_len=max_len)


def _below(n: int, generator: torch.Generator | None) -> int:
    device = generator.device if generator is not None else None
    return int(torch.randint(n, (), generator=generator, device=device))


class PairBatch(NamedTuple):
    """ids (B, T), segments (B, T), lengths (B,) for `nn.masks.padding`, and the class of each pair (B,).

    `unrelated` is 0 where the second sentence follows the first and 1 where it does not, as BERT's head has it.
    """

    ids: Tensor
    segments: Tensor
    lengths: Tensor
    unrelated: Tensor


def pad_pairs(pairs: Sequence[SentencePair], pad_id: int) -> PairBatch:
    """Pairs as one batch, all as long as the longest; raises ValueError where there are none."""
    if not pairs:
        raise ValueError("there are no pairs to make a batch of")
    T = max(len(pair.ids) for pair in pairs)
    ids = torch.tensor([pair.ids + [pad_id] * (T - len(pair.ids)) for pair in pairs])
    segments = torch.tensor([pair.segments + [0] * (T - len(pair.ids)) for pair in pairs])
    lengths = torch.tensor([len(pair.ids) for pair in pairs])
    return PairBatch(ids, segments, lengths, torch.tensor([int(not pair.is_next) for pair in pairs]))


class MaskedBatch(NamedTuple):
    """A batch of pairs of which some tokens are hidden, and labels (B, T): what these were, elsewhere -100."""

    ids: Tensor
    segments: Tensor
    lengths: Tensor
    unrelated: Tensor
    labels: Tensor


class MaskedBatches:
    """An endless stream of batches by number: pairs of like length together, other tokens hidden in every epoch.

    Batch `step` depends on (seed, step) alone; `rate` is `corrupt`'s. The tokenizer's ids of [PAD], [MASK] and all its
    special tokens come as numbers.
    """

    def __init__(
        self,
        pairs: Sequence[SentencePair],
        batch_size: int,
        *,
        pad_id: int,
        mask_id: int,
        vocab_size: int,
        special_ids: Collection[int],
        rate: float = 0.15,
        seed: int = 0,
    ) -> None:
        self.pairs, self.pad_id, self.seed = pairs, pad_id, seed
        self._order = Shuffled([len(pair.ids) for pair in pairs], batch_size, seed=seed, sort=16)
        self._corrupt = partial(corrupt, mask_id=mask_id, vocab_size=vocab_size, special_ids=special_ids, rate=rate)
        self.per_epoch = self._order.per_epoch

    def __getitem__(self, step: int) -> MaskedBatch:
        batch = pad_pairs([self.pairs[i] for i in self._order[step]], self.pad_id)
        chance = torch.Generator().manual_seed(zlib.crc32(f"mask {self.seed} {step}".encode()))
        ids, labels = self._corrupt(batch.ids, generator=chance)
        return MaskedBatch(ids, batch.segments, batch.lengths, batch.unrelated, labels)
