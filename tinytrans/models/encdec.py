"""Encoder-decoder: source ids (B, S) and target ids so far (B, T) -> logits of the next target token (B, T, V).

The original transformer, norms after the sublayers, and what one would build today, norms before them, as the config
says. `model.given(source)` is the decoder alone with its source at hand, a language model that `generate` can use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinytrans.config import EncDecConfig
from tinytrans.models.reader import Given, Place, Reader
from tinytrans.models.stack import Stack, check_ids
from tinytrans.nn.masks import padding

IGNORED = -100  # what torch's cross_entropy leaves out unless told otherwise


class EncoderDecoder(Reader):
    """An encoder reads the source once, and each block of a decoder reads its last output: `model(source, target)`.

    Source, target and softmax share one matrix where the config ties them.
    Sources: Vaswani et al. 2017, arXiv 1706.03762; Press and Wolf 2016 (one matrix for both embeddings and the
    softmax), arXiv 1608.05859; for a narrower embedding, widened and narrowed again, Lan et al. 2019, arXiv 1909.11942.

    >>> model = EncoderDecoder(EncDecConfig(vocab_size=11, n_layers=2, d_model=6, n_heads=3))
    >>> model(torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[0, 7, 8]])).shape
    torch.Size([1, 3, 11])
    """

    Config = EncDecConfig

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__(config, Stack(config, config.n_layers))
        self.source_place = Place(config)
        self.tie()
        self.init_weights()

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        *,
        lengths: Tensor | None = None,
        source_mask: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Source (B, S) and target (B, T) -> logits (B, T, V); those at t predict target t + 1 and have seen no later.

        To learn, hand in the targets shifted right (`shift_right`). Of each source lengths (B,) places are real, all S
        unless given; the source's mask (B, 1, S) hides more of it, from the encoder and from the decoder's reading of
        it, and the mask (T, T) or (B, T, T) more of the target. Raises ValueError for ids, lengths and masks that
        do not fit each other or the config.
        """
        if lengths is not None:
            check_ids(source, self.config.vocab_size)
            if lengths.shape != source.shape[:1]:
                raise ValueError(f"lengths have shape {tuple(lengths.shape)}, the source {tuple(source.shape)}")
            real = padding(lengths, source.shape[1])
            source_mask = real if source_mask is None else real & source_mask
        return self.decode(target, self.encode(source, mask=source_mask), memory_mask=source_mask, mask=mask)

    def encode(self, source: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Source ids (B, S) -> memory (B, S, D), where each position has seen all that the mask does not hide."""
        check_ids(source, self.config.vocab_size)
        positions = torch.arange(source.shape[-1], device=source.device)
        x, rotation = self.embed(source, positions, self.source_place)
        return self.encoder(x, mask=mask, rotation=rotation)

    def given(self, source: Tensor, *, mask: Tensor | None = None) -> Given:
        """The decoder with this source at hand: `generate(model.given(source), start_ids, max_new_tokens=20)`."""
        return Given(self, lambda: (self.encode(source, mask=mask), mask))


def shift_right(targets: Tensor, start: int) -> Tensor:
    """What the decoder reads when it is to say the targets: the start token, then all but the last, (B, T) -> (B, T).

    -100, where no loss is taken, becomes the start token; at the end of a row, where padding stands, no loss sees it.

    >>> shift_right(torch.tensor([[7, 8, 9, -100]]), start=0)
    tensor([[0, 7, 8, 9]])
    """
    read = torch.cat((torch.full_like(targets[:, :1], start), targets[:, :-1]), dim=1)
    return read.masked_fill(read == IGNORED, start)
