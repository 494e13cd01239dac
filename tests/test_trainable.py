"""Laws of choosing what trains: by name, frozen for good, each number counted once."""

from __future__ import annotations

import pytest
from torch import nn

from tinytrans.adapters import freeze, trainable_parameters
from tinytrans.adapters.trainable import count_trainable, linear_layers, matches, replace


def test_counts_by_hand() -> None:
    """4 x 3 + 4 of which the 4 train; a weight of shape () is one number; named twice it counts once."""
    shapes = {"up.weight": (4, 3), "up.bias": (4,), "scale": ()}
    assert count_trainable(shapes, ["up.bias"]) == (4, 17)
    assert count_trainable(shapes, ["scale", "scale"]) == (1, 17)
    assert count_trainable(shapes, []) == (0, 17)


def test_a_model_is_counted_like_its_shapes() -> None:
    """A shared weight counts once, a buffer not at all, and what is frozen does not train."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    assert trainable_parameters(model) == (9 + 3 + 6 + 3, 9 + 3 + 6 + 3)
    assert trainable_parameters(freeze(model)) == (0, 21)


def test_names_match_from_some_dot_on() -> None:
    """A pattern is the whole dotted name or its end, never a part of a word."""
    assert matches("blocks.0.attention.out", ["out"])
    assert matches("blocks.0.attention.out", ["blocks.*.out"])
    assert not matches("blocks.0.attention.readout", ["out"])


def test_layers_are_found_and_replaced() -> None:
    """Linear layers are found by pattern, one that nothing is called is an error, and a replaced one is gone."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert list(linear_layers(model, ["0"])) == ["0"]
    with pytest.raises(ValueError, match="no linear layer is called 'head'; there are 0, 2"):
        linear_layers(model, ["head"])
    new = nn.Identity()
    assert replace(model, {model[0]: new})[0] is new
