"""Readers: a memory (B, S, D) and the ids so far (B, T) -> logits of the next (B, T, V).

The decoder half of every model that answers to something it has read. Who wrote the memory, it does not ask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import ReaderConfig
from tinytrans.models.pretrained import Pretrained, tied_as
from tinytrans.models.stack import (
    Stack,
    build_norm,
    build_rotation,
    check_ids,
    check_positions,
    last_position,
    may_be_read,
)
from tinytrans.nn.attention import KeysValues
from tinytrans.nn.cache import KVCache
from tinytrans.nn.positions import Rotation, sinusoidal


class Place(nn.Module):
    """Where tokens stand: vectors (B, T, D) and positions (T,) or (B, T) -> the stream's first vectors (B, T, D).

    By sines, by a learned table or not at all, and then a norm, as the config says; each stack has its own.
    """

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        D, learned = config.d_model, config.positions == "learned"
        self.sines, self.max_len = config.positions == "sinusoidal", config.max_len
        self.table = nn.Embedding(config.max_len, D) if learned else None
        self.norm = build_norm(config) if config.embedding_norm else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        if self.sines:
            x = x + sinusoidal(positions, x.shape[-1]).to(x.dtype)
        if self.table is not None:
            self.check(positions)
            x = x + self.table(positions)
        return self.norm(x)

    def check(self, positions: Tensor) -> None:
        """Raise ValueError, naming both numbers, where a position is further than were learned."""
        if may_be_read(positions):
            stop = last_position(positions) + 1
            if stop > self.max_len:
                raise ValueError(f"{stop} positions are more than max_len {self.max_len}, and each is learned")


class Reader(Pretrained):
    """A decoder whose every block reads a memory, between one embedding and the head that shares its matrix.

    Subclasses add as `encoder` what writes the memory, and call `tie` and `init_weights` when all parts are there.
    """

    config: Any

    def __init__(self, config: ReaderConfig, encoder: nn.Module) -> None:
        super().__init__(config)
        V, D, E = config.vocab_size, config.d_model, config.embedding_width
        self.embedding = nn.Embedding(V, E)
        self.widen = nn.Identity() if E == D else nn.Linear(E, D, bias=False)
        self.encoder = encoder
        self.place = Place(config)
        self.rotation = build_rotation(config)
        self.decoder = Stack(config, config.decoder_layers, causal=True, cross=True)
        self.narrow = nn.Identity() if E == D else nn.Linear(D, E, bias=False)
        self.head = nn.Linear(E, V, bias=config.head_bias)

    def init_weights(self) -> None:
        """Embeddings of standard deviation E^-1/2, so that their vectors have length 1; matrices by Glorot, biases 0.

        Logits then have variance 1 at first, and the first loss is about ln V + 1/2.
        """
        for name, parameter in self.named_parameters():
            if name in ("embedding.weight", "head.weight") or name.endswith("table.weight"):
                nn.init.normal_(parameter, std=self.config.embedding_width**-0.5)
            elif parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def tie(self) -> None:
        """Embedding and softmax use one matrix, one parameter under two names, where the config ties them."""
        if self.config.tie:
            self.head.weight = self.embedding.weight

    def as_is(self) -> ReaderConfig:
        """The config, not tied where head and embedding have come apart."""
        config: ReaderConfig = tied_as(self.config, self)
        return config

    def decode(
        self,
        target: Tensor,
        memory: Tensor | Sequence[KeysValues],
        *,
        memory_mask: Tensor | None = None,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Target ids (B, T) and memory (B, S, D), or `decoder.remember(memory)`, -> logits (B, T, V).

        With a cache the ids are the next T of the target, and the logits are those of the whole target at once. The
        mask hides more of the target; positions, (T,) or a row's own (B, T), are given where they don't simply follow
        each other, as behind padding on the left. Raises ValueError for what does not fit the config, or the memory.
        """
        check_ids(target, self.config.vocab_size)
        if positions is None:
            start = 0 if cache is None else cache.length
            positions = torch.arange(start, start + target.shape[-1], device=target.device)
        x, rotation = self.embed(target, positions, self.place)
        rows = memory.shape[0] if isinstance(memory, Tensor) else memory[0][0].shape[0]
        if rows != target.shape[0]:
            raise ValueError(f"a target of {target.shape[0]} rows does not fit a memory of {rows}")
        if cache is not None:
            cache.check(*target.shape)
            cache.check_made_for(self.config.decoder_layers, self.config.kv_heads, self.config.head_width)
        x = self.decoder(x, memory, mask=mask, memory_mask=memory_mask, rotation=rotation, cache=cache)
        return self.head(self.narrow(x))

    def embed(self, ids: Tensor, positions: Tensor, place: nn.Module) -> tuple[Tensor, Rotation | None]:
        """Ids (B, T) at positions (T,) or (B, T) -> vectors (B, T, D), and the angles by which attention turns them."""
        c = self.config
        check_positions(positions, *ids.shape)
        x = self.embedding(ids)
        x = place(self.widen(x * math.sqrt(c.embedding_width) if c.scale_embedding else x), positions)
        rotation = None
        if self.rotation is not None:
            places = positions if positions.dim() == 1 else positions.unsqueeze(1)  # (B, 1, T): alike for all heads
            rotation = self.rotation(places, dtype=x.dtype)
        return F.dropout(x, c.dropout, self.training), rotation

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        """An empty cache for this many targets of up to max_len positions (the config's unless given)."""
        c, weight = self.config, self.embedding.weight
        room = c.max_len if max_len is None else max_len
        return KVCache(c.decoder_layers, batch, room, c.kv_heads, c.head_width, weight.device, weight.dtype)


class Given:
    """A decoder that has its memory at hand, p(target | what was read): ids (B, T) -> logits, as `generate` wants it.

    `encode()`, the memory (B, S, D) and its mask or None, is called when first needed, and only then, and so are made
    the keys and values of the blocks. The rows of ids may be k times those of the memory (k beams, k samples): then
    each row of it stands for k rows in turn. Raises ValueError where they do not come out even.
    """

    def __init__(self, model: Reader, encode: Callable[[], tuple[Tensor, Tensor | None]]) -> None:
        self.model, self.encode = model, encode

    @cached_property
    def memory(self) -> tuple[list[KeysValues], Tensor | None]:
        """What each block of the decoder reads: the memory's keys and values (B, G, S, K), and the mask."""
        memory, mask = self.encode()
        return self.model.decoder.remember(memory), mask

    def __call__(
        self,
        ids: Tensor,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        memory, memory_mask = self.memory
        B, rows = memory[0][0].shape[0], ids.shape[0]
        if rows % B:
            raise ValueError(f"{rows} rows of ids are not a multiple of the {B} sources")
        if (k := rows // B) > 1:
            memory = [(keys.repeat_interleave(k, 0), values.repeat_interleave(k, 0)) for keys, values in memory]
            if memory_mask is not None and memory_mask.dim() == 3:
                memory_mask = memory_mask.repeat_interleave(k, 0)
        return self.model.decode(ids, memory, memory_mask=memory_mask, mask=mask, positions=positions, cache=cache)

    @property
    def config(self) -> Any:
        """The model's."""
        return self.model.config

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        """An empty cache for this many targets."""
        return self.model.new_cache(batch, max_len)

    def modules(self) -> Iterator[nn.Module]:
        """The model's parts."""
        return self.model.modules()
