"""Optimisers and schedules: a model's gradients -> its next weights; a step -> the factor of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from tinytrans.training.muon import Muon


def warmup_cosine(step: int, warmup: int, total: int, floor: float = 0.0) -> float:
    """A line up over `warmup` steps, then half a cosine down to `floor` at step `total`: step -> factor.

    Steps count from 0. Step 0 gives 1 / warmup, never 0: a step at rate 0 learns nothing. Step warmup - 1
    gives 1, and so does step warmup, where the cosine begins; from step total on it stays at the floor.
    Source: Loshchilov and Hutter 2017, arXiv 1608.03983.

    >>> [round(warmup_cosine(step, warmup=2, total=6), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def wsd(step: int, *, warmup: int, total: int, decay: int) -> float:
    """A line up over `warmup` steps, 1, a line down over the last `decay` of `total`: a step < total -> (0, 1].

    Warm-up, stable, decay. Raises ValueError where step, warmup or decay is below 0.
    Source: Hu et al. 2024 (MiniCPM), arXiv 2404.06395.

    >>> [wsd(step, warmup=2, total=6, decay=2) for step in range(6)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.5]
    """
    if min(step, warmup, decay) < 0:
        raise ValueError(f"step {step}, warmup {warmup} and decay {decay} count from 0")
    return max(0.0, min(1.0, (step + 1) / max(1, warmup), (total - step) / max(1, decay)))


def adamw_step(
    weight: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: int,
    lr: float, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8, weight_decay: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One step of AdamW: a weight, its gradient, means m of g and v of g^2 -> the next (weight, m, v).

    With step counted from 1:
    m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,
    w = w - lr * weight_decay * w - lr * m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps).
    The decay acts on the weight itself, not through m and v.
    Source: Loshchilov and Hutter 2019, arXiv 1711.05101.
    """
    b1, b2 = betas
    m = b1 * m + (1 - b1) * gradient
    v = b2 * v + (1 - b2) * gradient**2
    m_hat = m / (1 - b1**step)  # both means begin at 0: without this the first of them are too small
    v_hat = v / (1 - b2**step)
    weight = weight - lr * weight_decay * weight
    return weight - lr * m_hat / (v_hat.sqrt() + eps), m, v


def clip_by_norm(gradients: Sequence[Tensor], largest: float) -> list[Tensor]:
    """All gradients as one long vector, no longer than `largest`: the same direction, tensor by tensor.

    g * min(1, largest / ||g||), where ||g|| is the root of the sum of the squares of all numbers in all
    gradients. What is short enough, and what is 0, stays as it is.
    Source: Pascanu et al. 2013, arXiv 1211.5063.

    >>> clip_by_norm([torch.tensor([3.0]), torch.tensor([4.0])], largest=1.0)
    [tensor([0.6000]), tensor([0.8000])]
    """
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    factor = largest / norm.clamp(min=largest)  # 1 where the norm is not larger
    return [gradient * factor for gradient in gradients]


def adamw(model: nn.Module, lr: float, *, weight_decay: float = 0.1, betas: tuple[float, float] = (0.9, 0.95)) -> AdamW:
    """torch's AdamW over the trainable parameters: matrices decay; norms, biases and other vectors do not.

    Embeddings are matrices. A tied one is there once. Raises ValueError where nothing is trainable.
    """
    return _adamw(_trainable(model), lr, weight_decay, betas)


def muon(
    model: nn.Module, lr: float, adamw_lr: float, *,
    weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.95), momentum: float = 0.95, iterations: int = 5,
) -> Optimizers:  # fmt: skip
    """Muon for the matrices between the embeddings and the head, AdamW for these two, norms, biases and other vectors.

    A fused `qkv` of three square matrices is treated as three. Raises ValueError where no hidden matrix is trainable.
    """
    tables = {
        id(table) for module in model.modules() if isinstance(module, nn.Embedding) for table in module.parameters()
    }
    kinds: dict[str, dict[str, nn.Parameter]] = {"qkv": {}, "matrix": {}, "rest": {}}
    for name, weight in _trainable(model).items():
        if weight.ndim != 2 or id(weight) in tables or name.endswith("head.weight"):
            kinds["rest"][name] = weight
        elif name.endswith("qkv.weight") and weight.shape[0] == 3 * weight.shape[1]:
            kinds["qkv"][name] = weight
        else:
            kinds["matrix"][name] = weight
    groups = [
        {"params": list(kinds[kind].values()), "parts": parts}
        for kind, parts in (("matrix", 1), ("qkv", 3))
        if kinds[kind]
    ]
    if not groups:
        raise ValueError(f"{type(model).__name__} has no trainable hidden matrix, nothing for Muon to move: use adamw")
    hidden = Muon(groups, lr, momentum=momentum, weight_decay=weight_decay, iterations=iterations)
    return Optimizers(hidden, *([_adamw(kinds["rest"], adamw_lr, weight_decay, betas)] if kinds["rest"] else []))


class Optimizers:
    """Several optimisers that act as one: `step`, `zero_grad`, `param_groups` and state, over all parts."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parts' own groups, no copies: a schedule sets their `lr`."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """Every part moves its own weights."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """No weight of any part has a gradient left."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The parts' states, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Every part takes its state; ValueError where their number differs."""
        for part, part_state in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(part_state)


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name, a tied one under its first name only."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not weights:
        raise ValueError(f"{type(model).__name__} has no trainable parameter: all are frozen, or there are none")
    return weights


def _adamw(weights: dict[str, nn.Parameter], lr: float, weight_decay: float, betas: tuple[float, float]) -> AdamW:
    matrices = [weight for weight in weights.values() if weight.ndim >= 2]
    vectors = [weight for weight in weights.values() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    fused = all(weight.device.type in {"cpu", "cuda"} and weight.is_floating_point() for weight in weights.values())
    return AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, fused=fused)
