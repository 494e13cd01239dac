"""Which weights train: a model and patterns of names -> the same model partly frozen, and how much of it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)
"""Whatever comes in is what goes out: the same model, of the same class."""


def count_trainable(shapes: Mapping[str, Sequence[int]], trained: Iterable[str]) -> tuple[int, int]:
    """How many numbers train and how many there are: shapes of all weights by name, names of what trains.

    A weight of shape () is one number.

    >>> count_trainable({"up.weight": (8, 2), "up.bias": (8,)}, ["up.bias"])
    (8, 24)
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return sum(sizes[name] for name in set(trained)), sum(sizes.values())


def trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """How many numbers of the model train, and how many it has: a weight that two layers share counts once.

    >>> trainable_parameters(nn.Linear(3, 2))
    (8, 8)
    """
    weights = dict(model.named_parameters())  # each once, however many layers hold it
    trained = [name for name, weight in weights.items() if weight.requires_grad]
    return count_trainable({name: weight.shape for name, weight in weights.items()}, trained)


def freeze(model: Model) -> Model:
    """No weight of the model trains any more. An optimiser made before keeps what it was given: freeze first."""
    return model.requires_grad_(False)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a dotted name, or its end after some dot, is one of the patterns; `*` stands for anything.

    >>> matches("blocks.0.attention.qkv", ["qkv"]), matches("blocks.0.attention.qkv", ["blocks.1.*"])
    (True, False)
    """
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}") for pattern in patterns)


def replace(model: Model, new: Mapping[nn.Module, nn.Module]) -> Model:
    """Each module that is a key of `new` gives way to its value, in every place where the model holds it."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in new:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, new[module])
    return model


def linear_layers(model: nn.Module, patterns: Iterable[str]) -> dict[str, nn.Linear]:
    """The model's linear layers whose name matches. Raises ValueError at a pattern that no linear layer has."""
    layers = {name: m for name, m in model.named_modules(remove_duplicate=False) if name and isinstance(m, nn.Linear)}
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not patterns:
        raise ValueError(f"no pattern chooses none of the model's layers; there are {', '.join(layers) or 'none'}")
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in layers):
            raise ValueError(f"no linear layer is called {pattern!r}; there are {', '.join(layers) or 'none'}")
    return {name: layer for name, layer in layers.items() if matches(name, patterns)}
