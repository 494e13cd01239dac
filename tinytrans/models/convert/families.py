"""Families: what one of Hugging Face's architectures is here: which config, and under which name each weight.

A table of places is read in both directions, so that what can be brought in can be taken out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tinytrans.config import FeedForward
from tinytrans.models.pretrained import Pretrained

ACTIVATIONS: dict[str, FeedForward] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
"""their name -> ours; of several names for one function the first is the one that they get back."""


@dataclass(frozen=True)
class Place:
    """Where they keep one weight of ours: under one name, perhaps in another form, or its rows under several names."""

    names: tuple[str, ...]
    form: Literal["same", "transposed", "reshaped"] = "same"

    def take(self, theirs: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """Their weights by name -> a copy as our weight of this shape; raises ValueError where one is missing."""
        if missing := [name for name in self.names if name not in theirs]:
            raise ValueError(f"their weights lack {', '.join(missing)}")
        weight = torch.cat([theirs[name] for name in self.names])
        weight = weight.T.contiguous() if self.form == "transposed" else weight
        return weight.reshape(shape) if self.form == "reshaped" else weight

    def put(self, ours: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Our weight -> their weights by name, each of the shape that it has among theirs."""
        weight = ours.T if self.form == "transposed" else ours
        rows = [shapes[name][0] for name in self.names] if len(self.names) > 1 else [len(weight)]
        pieces = dict(zip(self.names, weight.split(rows), strict=True))
        return {n: p.reshape(shapes[n]) for n, p in pieces.items()} if self.form == "reshaped" else pieces

    def at(self, **numbers: Any) -> Place:
        """The same place with the names' {patterns} filled in."""
        return Place(tuple(name.format(**numbers) for name in self.names), self.form)


Places = dict[str, Place]


def place(*names: str, form: Literal["same", "transposed", "reshaped"] = "same") -> Place:
    """A place by its names."""
    return Place(names, form)


def modules(ours: str, *theirs: str, bias: bool = True, form: Literal["same", "transposed"] = "same") -> Places:
    """The places of a matrix or norm, and of its bias if it has one: only the matrix is transposed, if anything."""
    places = {f"{ours}.weight": place(*(f"{name}.weight" for name in theirs), form=form)}
    if bias:
        places[f"{ours}.bias"] = place(*(f"{name}.bias" for name in theirs))
    return places


def layers(n: int, places: Places) -> Places:
    """The places of one layer -> those of n of them: `{i}` becomes 0 ... n - 1."""
    return {name.format(i=i): place.at(i=i) for i in range(n) for name, place in places.items()}


def unchanged(weights: dict[str, Tensor], inward: bool) -> dict[str, Tensor]:  # noqa: ARG001 (most need no rearranging)
    """Weights that need no rearranging, on the way in or out."""
    return weights


@dataclass(frozen=True)
class Family:
    """One architecture: their classes, ours, and the ways from one to the other.

    `describe` makes our config of their model, `specify` the name and the config's values of their model out of our
    config; both raise ValueError for what the other side does not have. `places` has one place for each weight, `fixed`
    are names of theirs that may hold nothing learnt, `rearrange` is for weights whose numbers stand in another order.
    """

    classes: tuple[str, ...]
    model: type[Pretrained]
    describe: Callable[[Any], Any]
    specify: Callable[[Any], tuple[str, dict[str, Any]]]
    places: Callable[[Any], Places]
    fixed: tuple[str, ...] = ()
    rearrange: Callable[[dict[str, Tensor], bool], dict[str, Tensor]] = unchanged


def demand(config: Any, **wanted: Any) -> None:
    """Raise ValueError, naming both values, where a config says something else than what can be carried over."""
    for name, value in wanted.items():
        if (given := getattr(config, name)) != value:
            raise ValueError(f"{name} is {given!r}, and only {value!r} can be carried over")


def demand_usual(config: Any, *, is_causal: bool | None) -> None:
    """Raise ValueError for a model that was told to look ahead, or not to: few configs say `is_causal` at all."""
    if (given := getattr(config, "is_causal", is_causal)) != is_causal:
        raise ValueError(f"is_causal is {given!r}: a {config.model_type} of that kind cannot be carried over")


def tied(model: Any) -> bool:
    """Whether their embedding and head are one matrix, whatever their config says of it."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def activation(theirs: str) -> FeedForward:
    """Their activation by our name; raises ValueError for one that is unknown here."""
    if theirs not in ACTIVATIONS:
        raise ValueError(f"the activation {theirs!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[theirs]


def their_activation(ours: str) -> str:
    """Our activation by their name; raises ValueError for one that they do not have."""
    names: dict[str, str] = {name: their_name for their_name, name in reversed(ACTIVATIONS.items())}
    if ours not in names:
        raise ValueError(f"the activation {ours!r} is not one of {', '.join(names)}")
    return names[ours]
