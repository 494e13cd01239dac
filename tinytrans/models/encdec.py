"""Encoder-decoder: source ids (B, S) and target ids so far (B, T) -> logits of the next target token (B, T, V).

The original transformer, norms after the sublayers, and what one would build today, norms before them, as the config
says. `model.given(source)` is the decoder alone with its source at hand, a language model that `generate` can use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import EncDecConfig
from tinytrans.models.pretrained import Pretrained
from tinytrans.models.stack import Stack, check_ids
from tinytrans.nn.attention import KeysValues
from tinytrans.nn.cache import KVCache
from tinytrans.nn.masks import padding
from tinytrans.nn.positions import Rotation, rotation_at, sinusoidal

IGNORED = -100  # what torch's cross_entropy leaves out unless told otherwise


class EncoderDecoder(Pretrained):
    """An encoder reads the source once, and each block of a decoder reads its last output: `model(source, target)`.

    Sources: Vaswani et al. 2017, arXiv 1706.03762; Press and Wolf 2016 (one matrix for both embeddings and the
    softmax), arXiv 1608.05859; for a narrower embedding, widened and narrowed again, Lan et al. 2019, arXiv 1909.11942.

    >>> model = EncoderDecoder(EncDecConfig(vocab_size=11, n_layers=2, d_model=6, n_heads=3))
    >>> model(torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[0, 7, 8]])).shape
    torch.Size([1, 3, 11])
    """

    Config = EncDecConfig

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__(config)
        V, D, E = config.vocab_size, config.d_model, config.embedding_width
        self.embedding = nn.Embedding(V, E)
        self.widen = nn.Identity() if E == D else nn.Linear(E, D, bias=False)
        self.encoder = Stack(config, config.n_layers)
        self.decoder = Stack(config, config.decoder_layers, causal=True, cross=True)
        self.narrow = nn.Identity() if E == D else nn.Linear(D, E, bias=False)
        self.head = nn.Linear(E, V, bias=config.head_bias)
        self.tie()
        self.init_weights()

    def init_weights(self) -> None:
        """Embeddings of standard deviation E^-1/2, so that their vectors have length 1; matrices by Glorot, biases 0.

        Logits then have variance 1 at first, and the first loss is about ln V + 1/2.
        """
        for name, parameter in self.named_parameters():
            if name in ("embedding.weight", "head.weight"):
                nn.init.normal_(parameter, std=self.config.embedding_width**-0.5)
            elif parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def tie(self) -> None:
        """Source, target and softmax use one matrix, one parameter under two names, where the config ties them."""
        if self.config.tie:
            self.head.weight = self.embedding.weight

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        *,
        lengths: Tensor | None = None,
        source_mask: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Source (B, S) and target (B, T) -> logits (B, T, V); those at t foretell target t + 1 and have seen no later.

        To learn, hand in the targets shifted right (`shift_right`). Of each source lengths (B,) places are real, all S
        unless given; the source's mask (B, 1, S) hides more of it, from the encoder and from the decoder's reading of
        it, and the mask (T, T) or (B, T, T) more of the target.
        """
        if lengths is not None:
            real = padding(lengths, source.shape[1])
            source_mask = real if source_mask is None else real & source_mask
        return self.decode(target, self.encode(source, mask=source_mask), memory_mask=source_mask, mask=mask)

    def encode(self, source: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Source ids (B, S) -> memory (B, S, D), where each position has seen all that the mask does not hide."""
        x, rotation = self.embed(source, 0)
        return self.encoder(x, mask=mask, rotation=rotation)

    def decode(
        self,
        target: Tensor,
        memory: Tensor | Sequence[KeysValues],
        *,
        memory_mask: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Target ids (B, T) and memory (B, S, D), or `decoder.remember(memory)`, -> logits (B, T, V).

        With a cache the ids are the next T of the target, and the logits are those of the whole target at once.
        """
        x, rotation = self.embed(target, 0 if cache is None else cache.length)
        rows = memory.shape[0] if isinstance(memory, Tensor) else memory[0][0].shape[0]
        if rows != target.shape[0]:
            raise ValueError(f"a target of {target.shape[0]} rows does not fit a memory of {rows}")
        if cache is not None:
            cache.check(*target.shape)
        x = self.decoder(x, memory, mask=mask, memory_mask=memory_mask, rotation=rotation, cache=cache)
        return self.head(self.narrow(x))

    def embed(self, ids: Tensor, start: int) -> tuple[Tensor, Rotation | None]:
        """Ids (B, T) at positions from start on -> vectors (B, T, D), and by which angles attention turns them, if any.

        Raises ValueError for ids of a wrong type or shape, or outside the vocabulary.
        """
        c = self.config
        check_ids(ids, c.vocab_size)
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)
        x = self.embedding(ids)
        x = self.widen(x * math.sqrt(c.embedding_width) if c.scale_embedding else x)
        if c.positions == "sinusoidal":
            x = x + sinusoidal(positions, c.d_model).to(x.dtype)
        rotation = None
        if c.positions == "rope":
            rotation = rotation_at(positions, c.head_width, base=c.rope_base, dtype=x.dtype)
        return F.dropout(x, c.dropout, self.training), rotation

    def given(self, source: Tensor, *, mask: Tensor | None = None) -> Given:
        """The decoder with this source at hand: `generate(model.given(source), start_ids, max_new_tokens=20)`."""
        return Given(self, source, mask)

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        """An empty cache for this many targets of up to max_len positions (the config's unless given)."""
        c, weight = self.config, self.embedding.weight
        room = c.max_len if max_len is None else max_len
        return KVCache(c.decoder_layers, batch, room, c.kv_heads, c.head_width, weight.device, weight.dtype)


class Given:
    """A decoder that knows its source, p(target | source): ids (B, T) -> logits (B, T, V), as `generate` wants it.

    The source is encoded when first needed, and only then, as are the keys and values that the blocks make of it. The
    rows of ids may be k times those of the source (k beams, k samples): then each source stands for k rows in turn.
    """

    def __init__(self, model: EncoderDecoder, source: Tensor, mask: Tensor | None = None) -> None:
        self.model, self.source, self.mask = model, source, mask

    @cached_property
    def memory(self) -> list[KeysValues]:
        """What each block of the decoder reads: the source's keys and values (B, G, S, K)."""
        return self.model.decoder.remember(self.model.encode(self.source, mask=self.mask))

    def __call__(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        B, rows = self.source.shape[0], ids.shape[0]
        if rows % B:
            raise ValueError(f"{rows} rows of ids are not a multiple of the {B} sources")
        memory, mask = self.memory, self.mask
        if rows != B:
            memory = [(k.repeat_interleave(rows // B, 0), v.repeat_interleave(rows // B, 0)) for k, v in memory]
            mask = mask if mask is None or mask.dim() == 2 else mask.repeat_interleave(rows // B, 0)
        return self.model.decode(ids, memory, memory_mask=mask, cache=cache)

    @property
    def config(self) -> EncDecConfig:
        """The model's."""
        return self.model.config

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        """An empty cache for this many targets."""
        return self.model.new_cache(batch, max_len)

    def modules(self) -> Iterator[nn.Module]:
        """The model's parts."""
        return self.model.modules()


def shift_right(targets: Tensor, start: int) -> Tensor:
    """What the decoder reads when it is to say the targets: the start token, then all but the last, (B, T) -> (B, T).

    -100, where no loss is taken, becomes the start token; at the end of a row, where padding stands, no loss sees it.

    >>> shift_right(torch.tensor([[7, 8, 9, -100]]), start=0)
    tensor([[0, 7, 8, 9]])
    """
    read = torch.cat((torch.full_like(targets[:, :1], start), targets[:, :-1]), dim=1)
    return read.masked_fill(read == IGNORED, start)
