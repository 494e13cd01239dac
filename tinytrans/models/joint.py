"""Joint: several sources, each through an encoder of its own, and target ids (B, T) -> logits (B, T, V).

A text and an image, a question and its context: what the encoders say of them stands in one memory, side by side, and
every block of one decoder looks at all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinytrans.config import BERTConfig, JointConfig, ViTConfig
from tinytrans.models.bert import BERT
from tinytrans.models.reader import Given, Reader
from tinytrans.models.vit import ViT

Sources = Sequence[Tensor | None]


def side_by_side(memories: Sequence[Tensor], masks: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Memories (B, S_i, D) with their masks (B, 1, S_i) or None -> one memory (B, S, D) and its mask (B, 1, S) or None.

    >>> memory, mask = side_by_side([torch.zeros(1, 2, 4), torch.ones(1, 1, 4)], [None, torch.tensor([[[False]]])])
    >>> memory.shape, mask.int().tolist()
    (torch.Size([1, 3, 4]), [[[1, 1, 0]]])
    """
    if all(mask is None for mask in masks):
        return torch.cat(list(memories), dim=1), None
    every = [
        torch.ones(len(memory), 1, memory.shape[1], dtype=torch.bool, device=memory.device) if mask is None else mask
        for memory, mask in zip(memories, masks, strict=True)
    ]
    return torch.cat(list(memories), dim=1), torch.cat(every, dim=-1)


class Encoders(nn.Module):
    """Encoders beside each other, each followed by a projection to the width that the decoder reads."""

    def __init__(self, configs: Sequence[BERTConfig | ViTConfig], width: int) -> None:
        super().__init__()
        self.models = nn.ModuleList(BERT(c) if isinstance(c, BERTConfig) else ViT(c) for c in configs)
        for model in self.models:
            model.head = nn.Identity()  # neither words nor classes are asked for
        self.projections = nn.ModuleList(nn.Linear(c.d_model, width) for c in configs)

    def forward(self, sources: Sources, masks: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """The sources, None where one is not there, and their masks -> one memory and its mask."""
        memories, kept = [], []
        models: Any = self.models
        for model, project, source, mask in zip(models, self.projections, sources, masks, strict=True):
            if source is not None:
                seen = model.hidden(source, mask=mask) if isinstance(model, BERT) else model.hidden(source)
                memories.append(project(seen))
                kept.append(mask)
        return side_by_side(memories, kept)


class Joint(Reader):
    """One decoder that attends to several encoders at once: `model([ids, images], target)` -> logits.

    The decoder's cross-attention knows no positions, so the order of the memories makes no difference to it; by its own
    projection each encoder can say who speaks. Sources: Libovický and Helcl 2017 ("flat" attention over several
    sources), arXiv 1704.06567; Vaswani et al. 2017, arXiv 1706.03762.

    >>> text = BERTConfig(vocab_size=11, max_len=9, n_layers=1, d_model=6, n_heads=3)
    >>> image = ViTConfig(image_size=4, patch_size=2, n_channels=1, n_classes=2, n_layers=1, d_model=8, n_heads=2)
    >>> model = Joint(JointConfig(encoders=(text, image), vocab_size=13, n_layers=2, d_model=12, n_heads=3))
    >>> model([torch.tensor([[1, 2, 3]]), torch.zeros(1, 1, 4, 4)], torch.tensor([[0, 7]])).shape
    torch.Size([1, 2, 13])
    """

    Config = JointConfig

    def __init__(self, config: JointConfig) -> None:
        super().__init__(config, Encoders(config.encoders, config.d_model))
        self.tie()
        self.init_weights()

    def init_weights(self) -> None:
        """As a reader's; the encoders are born as they are alone."""
        super().init_weights()
        encoders: Any = self.encoder
        for model in encoders.models:
            model.init_weights()

    def forward(
        self,
        sources: Sources,
        target: Tensor,
        *,
        source_masks: Sequence[Tensor | None] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """A source for each encoder, texts (B, S_i) and images (B, C, H, W), and target (B, T) -> logits (B, T, V).

        A source may be None: then there is nothing to read of its kind. A source's mask, (B, 1, S_i) from `padding`,
        hides places of it from its own encoder, if it is a text, and from the decoder; S_i of an image is 1 + N.
        Raises ValueError where the sources are not as many as the encoders, all None, or of different rows.
        """
        memory, memory_mask = self.encode(sources, masks=source_masks)
        return self.decode(target, memory, memory_mask=memory_mask, mask=mask)

    def encode(self, sources: Sources, *, masks: Sequence[Tensor | None] | None = None) -> tuple[Tensor, Tensor | None]:
        """Sources -> the memory (B, S, D) of all of them, and its mask (B, 1, S), or None where nothing is hidden.

        Raises ValueError as `forward` does.
        """
        n = len(self.config.encoders)
        masks = [None] * n if masks is None else masks
        if not len(sources) == len(masks) == n:
            raise ValueError(f"{n} encoders want {n} sources and masks, not {len(sources)} and {len(masks)}")
        rows = [len(source) for source in sources if source is not None]
        if len(set(rows)) != 1:
            raise ValueError(f"sources of {rows} rows cannot be read side by side" if rows else "every source is None")
        return self.encoder(sources, masks)

    def given(self, sources: Sources, *, masks: Sequence[Tensor | None] | None = None) -> Given:
        """The decoder with these sources at hand: `generate(model.given([ids, images]), start, max_new_tokens=20)`."""
        return Given(self, lambda: self.encode(sources, masks=masks))
