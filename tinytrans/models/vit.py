"""ViT: images (B, C, H, W) -> patches as a sequence (B, N, C P P) -> logits of the classes (B, n_classes).

An encoder that reads patches where BERT reads tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import ViTConfig
from tinytrans.models.pretrained import Pretrained
from tinytrans.models.stack import Stack, init_weights


def patchify(images: Tensor, P: int) -> Tensor:
    """Cut images into squares of P x P pixels, row by row: (B, C, H, W) -> (B, N, C P P) with N = H/P W/P.

    Within a patch the numbers are in the order channel, row, column, as in a convolution's kernel.
    Raises ValueError where P does not divide height and width.
    Source: Dosovitskiy et al. 2020, section 3.1, arXiv 2010.11929.

    >>> patchify(torch.arange(8.0).reshape(1, 1, 2, 4), 2)
    tensor([[[0., 1., 4., 5.],
             [2., 3., 6., 7.]]])
    """
    B, C, H, W = images.shape
    if H % P or W % P:
        raise ValueError(f"an image of {H} x {W} pixels cannot be cut into patches of {P} x {P}")
    x = images.reshape(B, C, H // P, P, W // P, P)
    x = x.permute(0, 2, 4, 1, 3, 5)  # (B, H/P, W/P, C, P, P)
    return x.flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, C: int, H: int, W: int) -> Tensor:
    """Put an image together again: patches (B, N, C P P) -> (B, C, H, W), `patchify` undone.

    Raises ValueError where so many patches of this size make no such image.

    >>> unpatchify(torch.tensor([[[0.0, 1, 4, 5], [2, 3, 6, 7]]]), C=1, H=2, W=4)
    tensor([[[[0., 1., 2., 3.],
              [4., 5., 6., 7.]]]])
    """
    B, N, _ = patches.shape
    P = round((H * W / N) ** 0.5)
    if patches.shape[1:] != (H // P * (W // P), C * P * P):
        raise ValueError(f"patches of shape {tuple(patches.shape)} make no image of {C} x {H} x {W}")
    x = patches.reshape(B, H // P, W // P, C, P, P)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(B, C, H, W)


class ViT(Pretrained):
    """A vision transformer: `model.hidden(images)` -> (B, 1 + N, D), the class token first; `model(images)` -> logits.

    Source: Dosovitskiy et al. 2020, arXiv 2010.11929.

    >>> model = ViT(ViTConfig(image_size=8, patch_size=2, n_channels=1, n_classes=10, n_layers=2, d_model=6, n_heads=3))
    >>> images = torch.zeros(4, 1, 8, 8)
    >>> model.hidden(images).shape, model(images).shape
    (torch.Size([4, 17, 6]), torch.Size([4, 10]))
    """

    Config = ViTConfig

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        D, P = config.d_model, config.patch_size
        self.patch = nn.Linear(config.n_channels * P * P, D)
        self.cls = nn.Parameter(torch.empty(1, 1, D))
        self.position = nn.Embedding(1 + config.n_patches, D)
        self.encoder = Stack(config, config.n_layers)
        self.head = nn.Linear(D, config.n_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """Matrices, tables and the class token normal with standard deviation 0.02, biases 0."""
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> logits (B, n_classes), read from what the class token has become."""
        return self.head(self.hidden(images)[:, 0])

    def hidden(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> vectors (B, 1 + N, D): of the class token, then of each patch, row by row.

        Raises ValueError for images that are not of the config's size, and for whole numbers.
        """
        c = self.config
        if not isinstance(images, Tensor):
            raise ValueError(f"images are of type {type(images).__name__}, not a tensor (B, C, H, W)")
        if images.dim() != 4 or images.shape[1:] != (c.n_channels, c.image_size, c.image_size):
            wanted = f"(B, {c.n_channels}, {c.image_size}, {c.image_size})"
            raise ValueError(f"images have shape {tuple(images.shape)}, not {wanted}")
        if not images.is_floating_point():
            raise ValueError(
                f"images are of dtype {images.dtype}, not of torch.float32: divide pixels of 0 ... 255 first"
            )
        x = self.patch(patchify(images, c.patch_size))
        x = torch.cat((self.cls.expand(len(x), -1, -1), x), dim=1) + self.position.weight
        return self.encoder(F.dropout(x, c.dropout, self.training))
