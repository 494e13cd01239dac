"""GPT: token ids (B, T) -> for each position the logits of the next token (B, T, V).

Embedding, positions, blocks, a last norm, and a head that shares its matrix with the embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import GPTConfig
from tinytrans.models.pretrained import Pretrained, tied_as
from tinytrans.models.stack import (
    STD,
    build_block,
    build_norm,
    build_rotation,
    check_ids,
    check_mask,
    check_positions,
    last_norm,
    last_position,
    may_be_read,
)
from tinytrans.models.unrolled import unroll
from tinytrans.nn.cache import KVCache, RollingCache
from tinytrans.nn.positions import sinusoidal


class GPT(Pretrained):
    """A decoder-only transformer, from GPT-2 to Llama, as the config says: `model(ids)` -> logits.

    Sources: Vaswani et al. 2017, arXiv 1706.03762; Radford et al. 2019 (GPT-2); Press and Wolf 2016 (one matrix for
    embedding and head), arXiv 1608.05859.

    >>> model = GPT(GPTConfig(vocab_size=11, n_layers=2, d_model=6, n_heads=3))
    >>> model(torch.tensor([[1, 2, 3, 4]])).shape
    torch.Size([1, 4, 11])
    """

    Config = GPTConfig

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        V, D = config.vocab_size, config.d_model
        self.embedding = nn.Embedding(V, D)
        self.embedding_norm = build_norm(config) if config.embedding_norm else nn.Identity()
        self.position = nn.Embedding(config.max_len, D) if config.positions == "learned" else None
        self.rotation = build_rotation(config)
        self.blocks = nn.ModuleList(
            build_block(config, causal=True, window=config.window) for _ in range(config.n_layers)
        )
        self.norm = last_norm(config)
        self.head = nn.Linear(D, V, bias=False)
        self.tie()
        self.init_weights()

    def init_weights(self) -> None:
        """Weights as at GPT-2's birth: normal with standard deviation 0.02, biases 0; the first loss is about ln V.

        What the 2 n_layers sublayers add is scaled by 1 / sqrt(2 n_layers), so that their sum does not grow with depth;
        with `zero_init` they add nothing at first. Source: Radford et al. 2019, section 2.3.
        """
        outward = 0.0 if self.config.zero_init else STD / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(parameter, std=outward)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=STD)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def tie(self) -> None:
        """Make the head's matrix the embedding's own, one parameter under two names, where the config ties them."""
        if self.config.tie:
            self.head.weight = self.embedding.weight

    def as_is(self) -> GPTConfig:
        """The config, not tied where head and embedding have come apart."""
        config: GPTConfig = tied_as(self.config, self)
        return config

    def forward(
        self,
        ids: Tensor,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Ids (B, T) -> logits (B, T, V); the logits at t predict the token at t + 1 and have seen no later one.

        The mask (T, S) or (B, T, S) hides still more (padding, other documents). With a cache the ids are the next T of
        a sequence, S = cache.length + T, and the logits are those of the whole sequence at once. Positions, (T,) or a
        row's own (B, T), are given where they don't simply follow each other, as behind padding on the left; ALiBi asks
        for none, and counts the places between two tokens.
        Raises ValueError for ids of a wrong type or shape, outside the vocabulary, or further than the positions reach,
        and for a mask, positions or a cache that do not go with them.
        """
        return self.head(self.hidden(ids, mask=mask, positions=positions, cache=cache))

    def hidden(
        self,
        ids: Tensor,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Ids (B, T) -> what the last norm hands to the head (B, T, D); arguments as in `forward`."""
        check_ids(ids, self.config.vocab_size)
        return self.read(self.embedding(ids), mask=mask, positions=positions, cache=cache)

    def read(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Vectors of T tokens (B, T, D), the embedding's own or others in their place -> as `hidden` of their ids."""
        B, T, _ = x.shape
        start = 0 if cache is None else cache.length
        if cache is not None:
            cache.check(B, T)
            cache.check_made_for(self.config.n_layers, self.config.kv_heads, self.config.head_width)
        check_mask(mask, B, T, start + T)
        if positions is None:
            positions = torch.arange(start, start + T, device=x.device)
            self.check(start + T)
        else:
            check_positions(positions, B, T)
            if self.position is not None and may_be_read(positions):
                self.check(last_position(positions) + 1)
        x = self.place(x, positions)
        rotation = None
        if self.rotation is not None:
            places = positions if positions.dim() == 1 else positions.unsqueeze(1)  # (B, 1, T): alike for all heads
            rotation = self.rotation(places, dtype=x.dtype)
        for i, block in enumerate(self.blocks):
            x = block(x, mask=mask, rotation=rotation, cache=None if cache is None else cache[i])
        if cache is not None:
            cache.advance(T)
        return self.norm(x)

    def place(self, x: Tensor, positions: Tensor) -> Tensor:
        """Embeddings (B, T, D) at absolute positions (T,) or (B, T) -> the stream's first vectors (B, T, D)."""
        D = self.config.d_model
        if self.config.positions == "sinusoidal":
            x = x * math.sqrt(D)  # lest sines of size 1 drown the small embeddings (Vaswani et al., section 3.4)
        x = self.embedding_norm(x)
        if self.config.positions == "sinusoidal":
            x = x + sinusoidal(positions, D).to(x.dtype)
        elif self.position is not None:
            x = x + self.position(positions)
        return F.dropout(x, self.config.dropout, self.training)

    def check(self, stop: int) -> None:
        """Raise ValueError, naming both numbers, where the first `stop` positions are more than were learned."""
        if self.position is not None and stop > self.config.max_len:
            raise ValueError(f"{stop} positions are more than max_len {self.config.max_len}, and each is learned")

    def new_cache(self, batch: int, max_len: int | None = None, *, rewind: int = 0) -> KVCache:
        """An empty cache for this many sequences of up to max_len positions (the config's unless given).

        Where the window is much smaller, the cache rolls, and has room for no more than two windows; `rewind` is how
        many positions one must be able to go back.
        """
        c, weight = self.config, self.embedding.weight
        room = c.max_len if max_len is None else max_len
        if c.window is not None and 2 * (c.window + rewind) < room:
            sizes = (c.window, c.kv_heads, c.head_width)
            return RollingCache(c.n_layers, batch, *sizes, weight.device, weight.dtype, rewind=rewind)
        return KVCache(c.n_layers, batch, room, c.kv_heads, c.head_width, weight.device, weight.dtype)

    def one_by_one(self, cache: KVCache) -> Callable[[Tensor], Tensor] | None:
        """What reads the next token alone, ids (B, 1) -> logits (B, V): the numbers of `forward`, sooner; or None."""
        return unroll(self, cache) if type(self) is GPT else None  # what is built upon it may read otherwise
