"""Checks of counting: how many numbers of a model train, and how many it has."""

from __future__ import annotations

import math
from typing import Any

import torch

from graders.draw import Draw
from graders.exercise import exercise, requires
from tinytrans.adapters import trainable

Shapes = dict[str, tuple[int, ...]]

# ---- inputs


def model(draw: Draw) -> tuple[Shapes, list[str]]:
    """Two layers and a norm, of which the biases train."""
    a, b, c = draw.sizes(3, 2, 20)
    shapes = {"up.weight": (b, a), "up.bias": (b,), "norm.weight": (b,), "down.weight": (c, b), "down.bias": (c,)}
    return shapes, ["up.bias", "down.bias"]


def with_odd_shapes(draw: Draw) -> tuple[Shapes, list[str]]:
    """A single number, three axes, and an empty weight."""
    shapes, _ = model(draw)
    shapes |= {"scale": (), "patches": tuple(draw.sizes(3, 2, 6)), "none": (0, 4)}
    shapes |= {"scale_of_more": (3,), "more_of_scale": (5,), "patch": (7,)}  # a name is a name, not a part of one
    return shapes, ["patches", "scale", "down.weight"]


def named_twice(draw: Draw) -> tuple[Shapes, list[str]]:
    shapes, names = model(draw)
    return shapes, [*names, names[draw.integer(0, 1)]]


def nothing(draw: Draw) -> tuple[Shapes, list[str]]:
    return model(draw)[0], []


def size(shape: Any) -> int:
    return torch.empty(tuple(shape)).numel()


def total(shapes: Shapes) -> int:
    return sum(map(size, shapes.values()))


COUNT = exercise(
    "count_trainable",
    reference=trainable.count_trainable,
    oracle=lambda shapes, names: (sum(size(s) for name, s in shapes.items() if name in names), total(shapes)),
    requirements=[
        requires("those that train, and all", 1, model),
        requires("a single number, three axes, an empty weight", 1, with_odd_shapes),
        requires("a name that comes twice counts once", 1, named_twice),
        requires("nothing trains", 1, nothing),
    ],
    wrong={
        "floats": (
            lambda *given: tuple(map(float, trainable.count_trainable(*given))),
            "The counts are right, and floats. Numbers are counted one by one: `math.prod` of a shape is an int.",
        ),
        "weights counted, not their numbers": (
            lambda shapes, names: (len(set(names)), len(shapes)),
            "You count the tensors. A matrix of shape (8, 2) holds 16 numbers.",
        ),
        "axes added up": (
            lambda shapes, names: (sum(sum(shapes[n]) for n in set(names)), sum(map(sum, shapes.values()))),
            "The axes are added where they should be multiplied: (8, 2) is 16 numbers, not 10.",
        ),
        "frozen instead of all": (
            lambda shapes, names: (
                trainable.count_trainable(shapes, names)[0],
                total(shapes) - trainable.count_trainable(shapes, names)[0],
            ),
            "The second number counts the frozen ones. All are asked for, the trained among them.",
        ),
        "all first": (
            lambda shapes, names: trainable.count_trainable(shapes, names)[::-1],
            "The two numbers are exchanged: first how many train, then how many there are.",
        ),
        "the frozen first": (
            lambda shapes, names: (sum(size(s) for n, s in shapes.items() if n not in names), total(shapes)),
            "You count what does not train: the names are those that do.",
        ),
        "twice for a name that comes twice": (
            lambda shapes, names: (sum(size(shapes[n]) for n in names), total(shapes)),
            "A weight that is named twice is counted twice. It is still one weight.",
        ),
        "a single number is none": (
            lambda shapes, names: (
                sum(size(shapes[n]) for n in set(names) if shapes[n]),
                sum(size(s) for s in shapes.values() if s),
            ),
            "A weight of shape () is one number, and you count none: the empty product is 1 (`math.prod` knows).",
        ),
        "two axes at most": (
            lambda shapes, names: (
                sum(math.prod(shapes[n][:2]) for n in set(names)),
                sum(math.prod(s[:2]) for s in shapes.values()),
            ),
            "Only the first two axes are multiplied. A weight may have more.",
        ),
        "a share": (
            lambda shapes, names: trainable.count_trainable(shapes, names)[0] / total(shapes),
            "This is the share. The two counts are asked for.",
        ),
        "parts of names": (
            lambda shapes, names: (
                sum(math.prod(shape) for name, shape in shapes.items() if name in " ".join(names)),
                sum(math.prod(shape) for shape in shapes.values()),
            ),
            "A weight counts as trained where its name is a part of one in the list: `up.bias` is not `group.bias`.",
        ),
        "names that begin so": (
            lambda shapes, names: (
                sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(tuple(names))),
                sum(math.prod(shape) for shape in shapes.values()),
            ),
            "A weight counts as trained where its name only begins like one of the list: `up.bias` is not `up.bias_2`.",
        ),
        "those that train alone": (
            lambda shapes, names: trainable.count_trainable(shapes, names)[0],
            "Only the first number comes back: return both.",
        ),
    },
    right={
        "numel": lambda shapes, names: (sum(size(s) for n, s in shapes.items() if n in names), total(shapes)),
        "a loop": lambda shapes, names: [
            sum(math.prod(shapes[n]) for n in shapes if n in names),
            sum(math.prod(shapes[n]) for n in shapes),
        ],
    },
)

EXERCISES = [COUNT]
