"""Split: one linear layer that computes several things -> several linear layers, so that each can be adapted or not.

As the paper of LoRA does, queries and values only:

    split(model, "qkv", {"q": 64, "k": 64, "v": 64})
    lora(model, targets=("qkv.q", "qkv.v"))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tinytrans.adapters.trainable import Model, linear_layers, replace


class Split(nn.Module):
    """The rows of one linear layer as several layers side by side: x (..., D) -> (..., D_out), the same numbers.

    Whoever reads `weight` and `bias` gets those of the parts, one under the other, adapters included. Raises ValueError
    where the widths do not sum to D_out, and where a part cannot have its name or its width.

    >>> layer = Split(nn.Linear(4, 6), {"q": 2, "k": 2, "v": 2})
    >>> layer.q, layer(torch.zeros(3, 4)).shape
    (Linear(in_features=4, out_features=2, bias=True), torch.Size([3, 6]))
    """

    def __init__(self, layer: nn.Linear, widths: Mapping[str, int]) -> None:
        super().__init__()
        if sum(widths.values()) != layer.out_features:
            total = sum(widths.values())
            raise ValueError(f"the widths {dict(widths)} sum to {total}, the layer is {layer.out_features} wide")
        self.in_features, self.out_features = layer.in_features, layer.out_features
        for name, width in widths.items():
            if not name.isidentifier() or name in dir(self) or width < 1:
                raise ValueError(f"no part can be {name!r} of {width} rows: names are free words, widths count from 1")
        rows = torch.arange(layer.out_features, device=layer.weight.device).split(list(widths.values()))
        for name, mine in zip(widths, rows, strict=True):
            bias = None if layer.bias is None else layer.bias[mine]
            self.add_module(name, _linear(layer.weight[mine], bias, layer.weight.requires_grad))

    @property
    def weight(self) -> Tensor:
        """The parts' matrices (D_out, D), one under the other."""
        return torch.cat([part.weight for part in self.parts()])

    @property
    def bias(self) -> Tensor | None:
        """The parts' biases (D_out,), one behind the other, if they have any."""
        biases = [part.bias for part in self.parts()]
        return None if biases[0] is None else torch.cat(biases)

    def parts(self) -> Iterator[Any]:
        """The linear layers, or what an adapter has put in their place, in the order of the rows."""
        return self.children()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts()], dim=-1)


def split(model: Model, target: str, widths: Mapping[str, int]) -> Model:
    """Every linear layer called `target` becomes a `Split` of the given widths; the model computes what it computed.

    Raises ValueError where the widths do not fill the layer, where a part cannot have its name, and where the layer's
    weight is shared with another layer (a part cannot share).
    """
    layers = linear_layers(model, [target])
    for name, layer in layers.items():
        owners = sum(any(layer.weight is w for w in m.parameters(recurse=False)) for m in model.modules())
        if owners > 1:
            raise ValueError(f"{owners} layers share the weight of {name}: its rows cannot leave one of them alone")
    return replace(model, {layer: Split(layer, widths) for layer in set(layers.values())})


def join(model: Model) -> Model:
    """Every `Split` becomes one linear layer again, under its old name.

    Raises ValueError where a part still has an adapter.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Split)}
    for name, layer in layers.items():
        for part, module in layer.named_children():
            if not isinstance(module, nn.Linear):
                raise ValueError(f"{name}.{part} is a {type(module).__name__}, not a Linear: unwrap the model first")
    trains = {layer: any(w.requires_grad for w in layer.parameters()) for layer in layers.values()}
    return replace(model, {layer: _linear(layer.weight, layer.bias, trains[layer]) for layer in layers.values()})


def _linear(weight: Tensor, bias: Tensor | None, trains: bool) -> nn.Linear:
    """A linear layer of these very numbers, in memory of its own."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")  # draws no random numbers
    layer.weight = nn.Parameter(weight.detach().clone(), trains)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), trains)
    return layer
