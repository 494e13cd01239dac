"""Scenes: two coloured shapes -> a picture (3, 32, 32) of them and a caption, "a red circle left of a blue square".

Synthetic, drawn here: so every caption can be checked, and whole combinations can be kept from training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import overload

import torch
from torch import Tensor

from tinytrans.data.splits import check_split, split_of

SIDE = 32  # pixels
COLORS = {
    "red": (0.90, 0.10, 0.10), "green": (0.10, 0.65, 0.20), "blue": (0.15, 0.30, 0.95),
    "yellow": (0.95, 0.85, 0.10), "purple": (0.60, 0.15, 0.75), "white": (1.00, 1.00, 1.00),
}  # fmt: skip
BACKGROUND = 0.0
# x to the right, y down, both in units of the shape's radius -> whether a point lies in the shape
SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: (x.abs() <= 0.9) & (y.abs() <= 0.9),
    "triangle": lambda x, y: (y <= 0.9) & (2 * x.abs() <= y + 1),
    "cross": lambda x, y: (x.abs().minimum(y.abs()) <= 0.35) & (x.abs().maximum(y.abs()) <= 1),
    "ring": lambda x, y: (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.3),
}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}  # where the first one is
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Thing:
    """A shape of a color, its center (x to the right, y down) and its radius in pixels."""

    color: str
    shape: str
    x: float = SIDE / 2
    y: float = SIDE / 2
    radius: float = 5.0

    def __str__(self) -> str:
        return f"a {self.color} {self.shape}"


def draw(things: Sequence[Thing]) -> Tensor:
    """The picture of some things on black, later ones in front: (3, SIDE, SIDE) between 0 and 1."""
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    image = torch.full((3, SIDE, SIDE), BACKGROUND)
    for thing in things:
        inside = SHAPES[thing.shape]((x - thing.x) / thing.radius, (y - thing.y) / thing.radius)
        image[:, inside] = torch.tensor(COLORS[thing.color])[:, None]
    return image


@dataclass(frozen=True)
class Scene:
    """Two things and how the first lies to the second."""

    first: Thing
    second: Thing
    relation: str

    @property
    def image(self) -> Tensor:
        """The picture (3, SIDE, SIDE)."""
        return draw((self.first, self.second))

    @property
    def caption(self) -> str:
        """What the picture shows: "a red circle left of a blue square"."""
        return f"{self.first} {self.relation} {self.second}"

    def captions(self) -> tuple[str, str]:
        """Both captions that are true of the picture: it can be told from either side."""
        return self.caption, f"{self.second} {OPPOSITE[self.relation]} {self.first}"


def verify(caption: str, scene: Scene) -> bool:
    """Whether a caption tells all that a scene shows, from whichever side."""
    return " ".join(caption.split()) in scene.captions()


@cache
def combinations(split: str) -> tuple[tuple[str, str], ...]:
    """The (color, shape) pairs that a split's scenes draw from; those of `test` are never trained on.

    Every color and every shape is trained on, in other company. Validation has the pairs of training.
    """
    names = list(product(COLORS, SHAPES))
    new = {(color, list(SHAPES)[i % len(SHAPES)]) for i, color in enumerate(COLORS)}  # a diagonal: 6 of 30
    return tuple(name for name in names if (name in new) == (split == "test"))


def imagine(chance: random.Random, split: str) -> Scene:
    """Draw a scene: two things that differ, neither touching the other, one clearly beside or above the other."""
    options = combinations(split)
    while True:
        one, two = (options[int(chance.random() * len(options))] for _ in range(2))
        relation = tuple(RELATIONS)[int(chance.random() * len(RELATIONS))]
        key = min(f"{a} {b} {r}" for a, b, r in ((one, two, relation), (two, one, OPPOSITE[relation])))
        if one != two and (split == "test" or (split_of(key) == "validation") == (split == "validation")):
            break
    return place(chance, one, two, relation)


def place(chance: random.Random, one: tuple[str, str], two: tuple[str, str], relation: str) -> Scene:
    """Put two things into a picture so that the relation is true: far apart along its axis, close across it."""
    radii = [4 + 3 * chance.random() for _ in range(2)]
    near, far = (max(radii) + 0.5, SIDE - max(radii) - 0.5)
    gap = sum(radii) + 1
    low = near + (far - near - gap) * chance.random()
    high = low + gap + (far - low - gap) * chance.random()
    middle = near + 3 + (far - near - 6) * chance.random()
    across = [middle + 6 * chance.random() - 3 for _ in range(2)]
    dx, dy = RELATIONS[relation]
    along = (low, high) if dx + dy < 0 else (high, low)
    things = [
        Thing(*name, *((along[i], across[i]) if dx else (across[i], along[i])), radius)
        for i, (name, radius) in enumerate(zip((one, two), radii, strict=True))
    ]
    return Scene(things[0], things[1], relation)


class Scenes(Sequence[Scene]):
    """n scenes of a split; each is made when it is asked for, from (seed, split, its number) alone.

    Test shows colors on shapes that were never trained together; validation shows the things of training in pairs and
    relations that were not.

    >>> Scenes(n=3)[0].caption
    'a blue circle above a purple cross'
    """

    def __init__(self, n: int = 10_000, *, seed: int = 0, split: str = "train") -> None:
        self.n, self.seed, self.split = n, seed, check_split(split)

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, i: int) -> Scene: ...
    @overload
    def __getitem__(self, i: slice) -> list[Scene]: ...
    def __getitem__(self, i: int | slice) -> Scene | list[Scene]:
        if isinstance(i, slice):
            return [self[j] for j in range(self.n)[i]]
        return imagine(random.Random(f"scene {self.seed} {self.split} {range(self.n)[i]}"), self.split)

    def __repr__(self) -> str:
        return f"Scenes(n={self.n}, seed={self.seed}, split={self.split!r})"

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        """The pictures (B, 3, SIDE, SIDE) and the captions of these scenes."""
        scenes = [self[i] for i in numbers]
        return torch.stack([scene.image for scene in scenes]), [scene.caption for scene in scenes]
