"""KV cache: keys and values (B, G, T, K) of new positions -> those of all positions so far (B, G, S, K).

The room for max_len positions is taken once and filled from the left. A model's layers write at `cache.length`, and the
model advances it once, after all of them: `cache[i].update(k, v)` in layer i, `cache.advance(T)` at the end.
A `RollingCache` keeps no more positions than a sliding window can see, however long the sequence.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


def cached_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """T new positions look at the P before them and at themselves -> (output, all keys, all values).

    q and k (B, H, T, K), v (B, H, T, d_v) of the new ones, keys (B, H, P, K) and values (B, H, P, d_v)
    of those before -> (B, H, T, d_v), (B, H, P + T, K), (B, H, P + T, d_v). A new position sees
    everything before it and itself: the same numbers as causal attention over all P + T, of which these
    are the last T rows. What is handed in stays as it is.

    >>> new, old = torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 3, 2)
    >>> output, keys, values = cached_attend(new, 0 * new, 4 * new, old, old)
    >>> output.flatten().tolist(), keys.shape
    ([1.0, 1.0], torch.Size([1, 1, 4, 2]))
    """
    keys, values = torch.cat((keys, k), dim=-2), torch.cat((values, v), dim=-2)
    T, S = q.shape[-2], keys.shape[-2]
    may_look = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)  # the new ones come last
    scores = q @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~may_look, float("-inf")).softmax(dim=-1)
    return weights @ values, keys, values


def cache_bytes(
    n_layers: int, batch: int, length: int, d_model: int, n_heads: int, n_kv_heads: int, itemsize: int = 4
) -> int:
    """Bytes of the keys and values of `length` positions of a batch, in all layers.

    Each layer keeps a key and a value for each of n_kv_heads heads, K = d_model / n_heads numbers wide,
    at every position; a number takes itemsize bytes (4 in float32, 2 in bfloat16).

    >>> cache_bytes(n_layers=12, batch=1, length=1024, d_model=768, n_heads=12, n_kv_heads=12)
    75497472
    """
    head_width = d_model // n_heads
    return 2 * n_layers * batch * length * n_kv_heads * head_width * itemsize


class LayerCache(Protocol):
    """What a layer asks of its cache."""

    def update(self, k: Tensor, v: Tensor, /) -> tuple[Tensor, Tensor]:
        """Write new positions after the old ones: k and v (B, G, T, K) -> all that the new ones may see, in order."""
        ...


class FullLayer(NamedTuple):
    """One layer's room (B, G, max_len, K) for keys and values, and how many positions of it are full."""

    keys: Tensor
    values: Tensor
    length: int

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write new positions after the old ones: k and v (B, G, T, K) -> all of them so far (B, G, length + T, K)."""
        start, T = self.length, k.shape[2]
        self.keys.narrow(2, start, T).copy_(k)
        self.values.narrow(2, start, T).copy_(v)
        return self.keys.narrow(2, 0, start + T), self.values.narrow(2, 0, start + T)


class KVCache:
    """What a decoder has computed of the positions behind it, so that each new one is computed alone.

    Memory: 2 n_layers batch max_len n_kv_heads head_width numbers (`nbytes`). Raises ValueError for sizes below 0.

    >>> cache = KVCache(n_layers=2, batch=1, max_len=8, n_kv_heads=1, head_width=4)
    >>> keys, values = cache[0].update(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 4))
    >>> cache.advance(3); cache.length, keys.shape
    (3, torch.Size([1, 1, 3, 4]))
    """

    def __init__(
        self,
        n_layers: int,
        batch: int,
        max_len: int,
        n_kv_heads: int,
        head_width: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        room = (batch, n_kv_heads, max_len, head_width)
        if min(room) < 0:
            raise ValueError(f"no cache has room for {max_len} positions of {batch} sequences: {room}")
        self.max_len, self.length = max_len, 0
        self.keys = [torch.zeros(room, device=device, dtype=dtype) for _ in range(n_layers)]  # one tensor a layer, so
        self.values = [torch.zeros(room, device=device, dtype=dtype) for _ in range(n_layers)]  # that autograd can tell

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, layer: int) -> LayerCache:
        """One layer's part."""
        return FullLayer(self.keys[layer], self.values[layer], self.length)

    @property
    def batch(self) -> int:
        """How many sequences it keeps."""
        return self.keys[0].shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, full or not."""
        return sum(room.nbytes for room in (*self.keys, *self.values))

    def check(self, batch: int, T: int) -> None:
        """Raise ValueError unless T new positions of this many sequences fit."""
        if batch != self.batch:
            raise ValueError(f"a batch of {batch} does not fit a cache made for a batch of {self.batch}")
        if self.length + T > self.max_len:
            raise ValueError(f"{self.length} positions and {T} new ones exceed the cache's max_len {self.max_len}")

    def check_made_for(self, n_layers: int, n_kv_heads: int, head_width: int) -> None:
        """Raise ValueError, naming both, unless a decoder of these sizes can write into it."""
        made = (len(self), *self.keys[0].shape[1::2]) if self.keys else (0, 0, 0)
        if made != (wanted := (n_layers, n_kv_heads, head_width)):
            said = "{} layers of {} key/value heads, each {} wide".format
            raise ValueError(f"a cache for {said(*made)} does not fit a model of {said(*wanted)}: use its new_cache")

    def advance(self, T: int) -> None:
        """Count T positions that every layer has written; raises ValueError where there is no room for so many."""
        self.check(self.batch, T)
        self.length += T

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions, whose room is written over; raises ValueError for more."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind to {length}: the cache holds {self.length} positions")
        self.length = length

    def reset(self) -> None:
        """Forget everything, keep the room."""
        self.rewind(0)

    def reorder(self, index: Tensor) -> None:
        """Row b becomes what row index[b] was, as in beam search: index (B',), where B' may differ from B.

        The room is copied, so that rows that were one may part.
        """
        self.keys = [room.index_select(0, index) for room in self.keys]
        self.values = [room.index_select(0, index) for room in self.values]


class RollingLayer(NamedTuple):
    """One layer's room (B, G, R, K), how many positions of it are full, how many to keep and how many a query sees."""

    keys: Tensor
    values: Tensor
    stored: int
    keep: int
    window: int

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """New positions k and v (B, G, T, K) -> with the window - 1 before them, as far as there are so many."""
        return self.write(self.keys, k), self.write(self.values, v)

    def write(self, room: Tensor, new: Tensor) -> Tensor:
        """Put new positions into the room, from the left where it is full, and hand back what they may see."""
        T, before = new.shape[2], min(self.stored, self.window - 1)
        start = slide(self.stored, T, self.keep, room.shape[2])
        if start is None:  # more at once than there is room for: its end is what stays
            seen = torch.cat((room[:, :, self.stored - before : self.stored], new), dim=2)
            room[:, :, : self.keep] = torch.cat((room[:, :, : self.stored], new), dim=2)[:, :, -self.keep :]
            return seen
        if start < self.stored:
            room[:, :, :start] = room[:, :, self.stored - start : self.stored].clone()  # the two may overlap
        room[:, :, start : start + T] = new
        return room[:, :, start - before : start + T]


def slide(stored: int, T: int, keep: int, room: int) -> int | None:
    """Where T new positions are written: behind those stored, else behind the last `keep` of them, else None: too many.

    >>> slide(stored=5, T=2, keep=3, room=7), slide(6, 2, 3, 7), slide(6, 5, 3, 7)
    (5, 3, None)
    """
    if stored + T <= room:
        return stored
    return min(stored, keep) if min(stored, keep) + T <= room else None


class RollingCache(KVCache):
    """A cache for layers that all have a sliding window: its room is bound by the window, the sequence by nothing.

    Of positions that no query can see any more it keeps the last `rewind`, so that one may go so far back. The room is
    about twice the window: when it is full, what is still needed moves to its front, once in `window` steps, so that
    what a layer gets is always in order and never copied. Memory: 4 n_layers batch (window + rewind) n_kv_heads
    head_width numbers at most. Source: Jiang et al. 2023 (Mistral 7B), section 2, arXiv 2310.06825.

    >>> cache = RollingCache(n_layers=1, batch=1, window=3, n_kv_heads=1, head_width=4)
    >>> keys, values = cache[0].update(torch.ones(1, 1, 9, 4), torch.ones(1, 1, 9, 4)); cache.advance(9)
    >>> cache[0].update(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4))[0].shape
    torch.Size([1, 1, 3, 4])
    """

    def __init__(
        self,
        n_layers: int,
        batch: int,
        window: int,
        n_kv_heads: int,
        head_width: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rewind: int = 0,
    ) -> None:
        self.window, self.keep, self.stored = window, max(window - 1 + rewind, 1), 0
        super().__init__(n_layers, batch, 2 * self.keep, n_kv_heads, head_width, device, dtype)
        self.max_len = sys.maxsize

    def __getitem__(self, layer: int) -> LayerCache:
        return RollingLayer(self.keys[layer], self.values[layer], self.stored, self.keep, self.window)

    def advance(self, T: int) -> None:
        """Count T positions that every layer has written."""
        super().advance(T)
        start = slide(self.stored, T, self.keep, self.keys[0].shape[2])
        self.stored = self.keep if start is None else start + T

    def rewind(self, length: int) -> None:
        """Forget all but the first positions; raises ValueError where of those the last can no longer be seen."""
        gone = self.length - length
        if max(self.stored - gone, 0) < min(length, self.window - 1):
            raise ValueError(
                f"cannot rewind to {length}: the cache holds the last {self.stored} of {self.length} positions, "
                f"and its window is {self.window}"
            )
        super().rewind(length)
        self.stored = max(self.stored - gone, 0)
