"""LoRA: a trained linear layer -> the same layer with a thin correction B A beside it, the only part that trains.

The functions say what is computed; `LoRALinear` owns A and B; `lora` puts it around layers chosen by name, and the
model never knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.adapters.trainable import Model, freeze, linear_layers, replace


def lora_linear(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """A frozen layer and its low-rank correction: W x + (alpha / r) B A x, x (..., D_in) -> (..., D_out).

    weight (D_out, D_in), a (r, D_in), b (D_out, r). With b = 0 it is the frozen layer; freezing is done
    outside, and no gradient is cut off here. Divided by r so that the correction keeps its size when r
    changes. Source: Hu et al. 2021, section 4.1, arXiv 2106.09685.

    >>> a, b = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0], [0.0]])
    >>> lora_linear(torch.ones(2), torch.eye(2), a, b, alpha=2)
    tensor([13.,  1.])
    """
    down = F.linear(x, a)  # (..., r): never the full matrix B A
    return F.linear(x, weight) + alpha / a.shape[0] * F.linear(down, b)


def correction(x: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """What the adapter adds: (alpha / r) B A x, x (..., D_in), a (r, D_in), b (D_out, r) -> (..., D_out)."""
    return F.linear(alpha / a.shape[0] * F.linear(x, a), b)


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """One matrix that does the work of three, at no extra cost: W + (alpha / r) B A, (D_out, D_in).

    >>> merged_weight(torch.eye(2), torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0], [0.0]]), alpha=2)
    tensor([[7., 6.],
            [0., 1.]])
    """
    return weight + alpha / a.shape[0] * (b @ a)


def lora_size(d_in: int, d_out: int, rank: int) -> int:
    """How many numbers train beside a layer of d_out x d_in: A is r x d_in, B is d_out x r.

    >>> lora_size(768, 768, rank=8), 768 * 768
    (12288, 589824)
    """
    return rank * (d_in + d_out)


class LoRALinear(nn.Module):
    """A linear layer `base`, frozen by `lora`, with a correction of rank r beside it: x (..., D_in) -> (..., D_out).

    A is random with variance 1 / D_in, B is zero, so that the layer starts as its base; were both zero, neither would
    ever learn. Dropout falls on the correction's input alone. Who reads `weight` (a cross-attention takes its rows
    apart) gets the corrected one. Its state dict is that of the unmerged layer, merged or not: nothing can be added
    twice. Raises ValueError for a rank below 1, an alpha that is not finite and a dropout outside [0, 1].
    Source: Hu et al. 2021, arXiv 2106.09685.
    """

    def __init__(
        self,
        base: nn.Linear,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(rank, int) or isinstance(rank, bool):
            raise ValueError(f"rank {rank!r} is not a whole number")
        if rank < 1:
            raise ValueError(f"rank {rank} of {base} leaves nothing to train: at least 1")
        if not math.isfinite(alpha):
            raise ValueError(f"alpha {alpha} is not a finite number")
        self.base, self.rank, self.alpha, self.dropout = base, rank, float(alpha), nn.Dropout(dropout)
        self.in_features, self.out_features = base.in_features, base.out_features
        W = base.weight
        place = W.device if generator is None else generator.device
        draw = torch.randn(rank, base.in_features, generator=generator, device=place)
        self.a = nn.Parameter((draw / base.in_features**0.5).to(W))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, dtype=W.dtype, device=W.device))
        self.active = True
        self._original: tuple[Tensor, ...] = ()  # while merged the base's own weight, unlisted
        self.register_state_dict_post_hook(_as_unmerged)
        self.register_load_state_dict_pre_hook(_unmerge_first)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        return y + correction(self.dropout(x), self.a, self.b, self.alpha) if self.active and not self.merged else y

    @property
    def weight(self) -> Tensor:
        """The matrix (D_out, D_in) by which the layer multiplies, the correction in it."""
        W = self.base.weight
        return merged_weight(W, self.a, self.b, self.alpha) if self.active and not self.merged else W

    @property
    def bias(self) -> Tensor | None:
        """The base's (D_out,): LoRA corrects none."""
        return self.base.bias

    @property
    def merged(self) -> bool:
        """Whether the correction is in the base's weight."""
        return bool(self._original)

    def merge(self) -> None:
        """The correction goes into the base's weight; a second call changes nothing."""
        if not self.merged:
            own = self.base.weight
            merged = merged_weight(own, self.a, self.b, self.alpha).detach()
            self.base.weight = nn.Parameter(merged, requires_grad=False)  # not in place: who shares the old keeps it
            self._original = (own,)

    def unmerge(self) -> None:
        """The base has its own weight again, the very same object: no rounding is left, and what was tied is tied."""
        if self.merged:
            [original] = self._original
            original.data = original.data.to(self.base.weight)  # the model may have been moved in between
            self.base.weight = original
            self._original = ()

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}, merged={self.merged}"


def lora(
    model: Model,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = ("qkv", "out"),
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Model:
    """The model itself, frozen, with a trainable correction of rank r beside every linear layer that a target names.

    A target is the whole dotted name or its end, and `*` stands for anything: "qkv", "attention.out", "blocks.0.*".
    The model starts by computing exactly what it computed. Make the optimiser after this call. To adapt only the
    queries' and values' rows of a fused layer, `split` it first. Raises ValueError at a target that no linear layer
    has, and at a model that already has adapters. Source: Hu et al. 2021, arXiv 2106.09685.

    >>> model = lora(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), rank=2, targets=("0",))
    >>> [name for name, weight in model.named_parameters() if weight.requires_grad]
    ['0.a', '0.b']
    """
    if layers := adapters(model):
        raise ValueError(f"the model has {len(layers)} adapters already ({', '.join(layers)}): unwrap it first")
    options = {"rank": rank, "alpha": alpha, "dropout": dropout, "generator": generator}
    chosen = linear_layers(model, targets).values()
    return wrap(model, dict.fromkeys(chosen, options))  # a layer that stands in two places gets one adapter


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The model's LoRA layers, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def merge(model: Model) -> Model:
    """The model itself, its corrections added into the weights: the same function, as fast as the base.

    Nothing in it trains until `unmerge`. Raises ValueError where it has no adapter, as do all that want one here.
    """
    for layer in adapters_in(model).values():
        layer.merge()
    return model


def unmerge(model: Model) -> Model:
    """The model itself with its base weights and corrections apart again, both equal to the bit to what they were."""
    for layer in adapters_in(model).values():
        layer.unmerge()
    return model


def unwrap(model: Model) -> Model:
    """The model itself with plain linear layers under their old names, all of it trainable again.

    The adapter is in it if it was merged, else gone: `unwrap(merge(model))` is what one saves and ships.
    """
    replace(model, {layer: layer.base for layer in adapters_in(model).values()})
    return model.requires_grad_(True)


@contextmanager
def base_only(model: Model) -> Iterator[Model]:
    """Within, the model is its base: the reference of DPO or PPO without a second copy; afterwards what it was before.

    Raises ValueError where the adapter is merged: then there is no base apart.
    """
    layers = adapters_in(model)
    for name, layer in layers.items():
        if layer.merged:
            raise ValueError(f"{name} is merged, its base is not apart: unmerge the model first")
    before = {layer: layer.active for layer in layers.values()}
    try:
        for layer in before:
            layer.active = False
        yield model
    finally:
        for layer, active in before.items():
            layer.active = active


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter alone: `NAME.a` (r, D_in) and `NAME.b` (D_out, r) of every LoRA layer; views, like a state dict's."""
    pairs = adapters_in(model).items()
    return {f"{name}.{key}": getattr(layer, key).detach() for name, layer in pairs for key in ("a", "b")}


def wrap(model: Model, options: dict[nn.Linear, dict[str, Any]]) -> Model:
    """The model itself, frozen, each layer that is a key in a `LoRALinear` with its options."""
    wrappers: dict[nn.Module, nn.Module] = {layer: LoRALinear(layer, **kept) for layer, kept in options.items()}
    freeze(model)
    return replace(model, wrappers)


def adapters_in(model: nn.Module) -> dict[str, LoRALinear]:
    """The model's LoRA layers, by name. Raises ValueError where it has none."""
    if layers := adapters(model):
        return layers
    raise ValueError(f"this {type(model).__name__} has no adapter: give it one with lora")


def _as_unmerged(layer: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    if isinstance(layer, LoRALinear) and layer.merged:
        state[f"{prefix}base.weight"] = layer._original[0].detach()


def _unmerge_first(layer: nn.Module, *_: Any) -> None:
    if isinstance(layer, LoRALinear):
        layer.unmerge()
