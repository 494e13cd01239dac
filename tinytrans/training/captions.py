"""Captions: what to say of images -> batches (ids, images, targets) in which only the text is learnt.

A batch is for a model that reads images in the places of the tokens `image_id`; `fit(model, batches, caption_loss)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinytrans.training.pretrain import IGNORED, next_token_sum, shift

Captions = tuple[Tensor, Tensor, Tensor]  # ids (B, T), images (B, C, H, W), targets (B, T)


def text_targets(ids: Tensor, image_id: int, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Every position is asked for the token after it, if that is text: ids (B, T + 1) -> inputs, targets (B, T).

    An image's last place is asked for the first word behind it; that an image follows is not learnt: there the target
    is -100, and so it is past the lengths (B,), where these are given.

    >>> text_targets(torch.tensor([[9, 9, 5, 6]]), image_id=9)
    (tensor([[9, 9, 5]]), tensor([[-100,    5,    6]]))
    """
    inputs, targets = shift(ids, lengths)
    return inputs, targets.masked_fill(targets == image_id, IGNORED)


def caption_batch(
    images: Tensor, captions: Sequence[Sequence[int]], *, n_image_tokens: int, image_id: int, pad: int = 0
) -> Captions:
    """Images (B, C, H, W) and a caption for each, as ids -> (ids, images, targets), each image before its caption.

    The sign that ends a caption belongs to it, or the model never learns to stop.
    Raises ValueError where there are not as many captions as images, or none, and at a caption without a token.
    """
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images cannot be paired with {len(captions)} captions")
    if not len(captions):
        raise ValueError("there are no captions to make a batch of")
    if empty := [row for row, caption in enumerate(captions) if not len(caption)]:
        raise ValueError(f"caption {empty[0]} of {len(captions)} is empty")
    rows = [[image_id] * n_image_tokens + list(caption) for caption in captions]
    T = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (T - len(row)) for row in rows])
    inputs, targets = text_targets(ids, image_id, torch.tensor([len(row) for row in rows]))
    return inputs, images, targets


def caption_loss(model: nn.Module, batch: Captions) -> tuple[Tensor, Tensor]:
    """What `fit` differentiates: (ids, images, targets) -> (sum, number) of the surprise at the text's tokens."""
    ids, images, targets = batch
    return next_token_sum(model(ids, images), targets)
