"""Given source: a recurrent decoder, its source at hand -> ids (B, T) to logits, as generation wants it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tinytrans.config import RNNConfig
from tinytrans.nn.cache import KVCache

if TYPE_CHECKING:
    from tinytrans.models.rnn import Memory, Seq2Seq, State


class StateCache(KVCache):
    """What a recurrent decoder keeps of the tokens behind it: its state, of one size however many they are."""

    def __init__(self, state: State) -> None:
        super().__init__(0, 0, 0, 0, 0)
        self.state, self.first, self.max_len = state, state, sys.maxsize

    @property
    def batch(self) -> int:
        """How many sequences it keeps."""
        return self.state[0].shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(part.nbytes for part in self.state)

    def rewind(self, length: int) -> None:
        """Begin anew: a state does not tell what it was before. Raises ValueError for another length than 0."""
        if length:
            raise ValueError(f"cannot rewind to {length}: a state of {self.length} tokens only knows its beginning")
        self.state, self.length = self.first, 0

    def reorder(self, index: Tensor) -> None:
        """Row b becomes what row index[b] was."""
        self.state, self.first = (
            tuple(part.index_select(1, index) for part in state) for state in (self.state, self.first)
        )


class GivenSource:
    """A decoder that knows its source, p(target | source): ids (B, T) -> logits (B, T, V), as `generate` wants it.

    The source is read when first needed, and only then. The rows of ids may be k times those of the source: then each
    source stands for k rows in turn.
    """

    def __init__(self, model: Seq2Seq, source: Tensor, lengths: Tensor | None = None) -> None:
        self.model, self.source, self.lengths = model, source, lengths

    @cached_property
    def memory(self) -> Memory:
        """What the decoder needs of the source."""
        return self.model.read(self.source, self.lengths)

    def __call__(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        memory = self.memory.times(self.times(len(ids)))
        self.model.check_target(ids, memory)
        kept = cache if isinstance(cache, StateCache) else None
        logits, state, _ = self.model.decoder(ids, memory, memory.state if kept is None else kept.state)
        if kept is not None:
            kept.check(*ids.shape)
            kept.advance(ids.shape[1])
            kept.state = state
        return logits

    def times(self, rows: int) -> int:
        """For how many rows each source stands; ValueError where they do not come out even."""
        if rows % len(self.source):
            raise ValueError(f"{rows} rows of ids are not a multiple of the {len(self.source)} sources")
        return rows // len(self.source)

    @property
    def config(self) -> RNNConfig:
        """The model's."""
        return self.model.config

    def new_cache(self, batch: int, max_len: int | None = None) -> StateCache:  # noqa: ARG002 - a state has no length
        """The state with which so many targets begin."""
        return StateCache(self.memory.times(self.times(batch)).state)

    def modules(self) -> Iterator[nn.Module]:
        """The model's parts."""
        return self.model.modules()
