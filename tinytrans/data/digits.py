"""Digits: real handwriting, 1,797 pictures of 8 x 8 pixels by 13 writers, as tensors with labels and names.

Source: E. Alpaydin and C. Kaynak 1998, Optical Recognition of Handwritten Digits, UCI (CC BY 4.0), of which
scikit-learn carries the test set (extra `data`). Who wrote which is not told: a writer may be in all splits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrans.data.numbers import spell
from tinytrans.data.splits import SPLITS, check_split

SHARES = {"validation": 0.1, "test": 0.2}  # of each label; the rest trains


def load_pictures() -> tuple[Tensor, Tensor]:
    """All pictures (N, 1, 8, 8) between 0 (paper) and 1 (ink), and their labels (N,).

    Raises ImportError without the extra `data`.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('the handwritten digits need: pip install "tinytrans[data]"') from error
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16  # counts of 0 to 16 dark points
    return images, torch.tensor(bunch.target, dtype=torch.int64)


def jittered(
    images: Tensor,
    *,
    turn: float = 0.15,
    scale: float = 0.1,
    shift: float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Each picture as another hand might have put it down: (B, C, H, W) -> the same shape, drawn anew at each call.

    Turned by up to `turn` radians, up to `scale` larger or smaller, moved by up to `shift` pixels; paper is around.
    """
    B, *_, H, W = images.shape
    device = images.device if generator is None else generator.device
    chance = (2 * torch.rand(B, 4, generator=generator, device=device) - 1).to(images)
    angle, size = turn * chance[:, 0], 1 + scale * chance[:, 1]
    right, down = 2 * shift / W * chance[:, 2], 2 * shift / H * chance[:, 3]  # the picture is 2 wide and 2 high
    cos, sin = size * angle.cos(), size * angle.sin()
    moves = torch.stack((cos, -sin, right, sin, cos, down), dim=1).view(B, 2, 3)
    grid = F.affine_grid(moves, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def stratify(labels: Tensor, seed: int) -> dict[str, Tensor]:
    """The numbers of the examples in each split: SHARES of every label, drawn by the seed, in ascending order."""
    chance = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Tensor]] = {split: [] for split in SPLITS}
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=chance)]
        start = 0
        for split, share in SHARES.items():
            n = round(share * len(members))
            parts[split].append(members[start : start + n])
            start += n
        parts["train"].append(members[start:])
    return {split: torch.cat(members).sort().values for split, members in parts.items()}


def digit_names(language: str = "en") -> list[str]:
    """The words for 0 to 9 in a language, by label: what a model that reads a digit may answer.

    >>> digit_names()[:3]
    ['zero', 'one', 'two']
    """
    return [spell(digit, language) for digit in range(10)]


class Digits:
    """A split of the digits: `images` (N, 1, 8, 8) in [0, 1], `labels` (N,), and `names`, the words in a language.

    Every label has the same share in every split, and of one seed no picture is in two. Iterating gives (image, name).
    """

    def __init__(self, *, split: str = "train", seed: int = 0, language: str = "en") -> None:
        self.split, self.seed, self.language = check_split(split), seed, language
        self.names = digit_names(language)
        images, labels = load_pictures()
        self.numbers = stratify(labels, seed)[split]
        self.images, self.labels = images[self.numbers], labels[self.numbers]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, str]:
        return self.images[i], self.names[int(self.labels[i])]

    def __iter__(self) -> Iterator[tuple[Tensor, str]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Digits({len(self)} pictures; split={self.split!r}, seed={self.seed}, language={self.language!r})"
