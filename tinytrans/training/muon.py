"""Muon: the gradients of matrices -> updates whose singular values are all near 1."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from tinytrans.training import shards


def orthogonalize(matrices: Tensor, *, iterations: int = 5) -> Tensor:
    """The singular values of matrices (..., M, N) come near 1, their singular vectors stay: U S V^T -> about U V^T.

    Newton-Schulz: X = G / |G|, then again and again X = a X + (b A + c A^2) X with A = X X^T: no decomposition, only
    matrix products. After five iterations a singular value that was above |G| / 300 lies between 0.68 and 1.21; the
    coefficients lift small ones fast and bring none to 1 exactly.
    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the Gram matrix of the shorter side costs less
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).view(-1, *x.shape[-2:])
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b A + c A^2 in one kernel
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).view(matrices.shape)


class Move(NamedTuple):
    """A matrix, or a block of its rows, laid with its longer side along the rows; what it moves along; how far."""

    weight: Tensor  # a view: to change it is to change the parameter
    direction: Tensor
    rate: float


class Muon(Optimizer):
    """Momentum whose update is made orthogonal, for hidden matrices (M, N): a step goes equally far in every direction.

    m = momentum m + (1 - momentum) g,   d = (1 - momentum) g + momentum m  (Nesterov),
    w = w - lr * weight_decay * w - lr * sqrt(max(1, M / N)) * orthogonalize(d).
    Matrices of one shape, lying or standing, share one batched product. A group's `parts` cuts its matrices by rows
    into as many, each with an update of its own. Raises ValueError for what is no matrix or can't be cut so.
    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations, "parts": 1}
        )
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim != 2 or weight.shape[0] % group["parts"]:
                    shape = tuple(weight.shape)
                    raise ValueError(
                        f"Muon moves matrices of {group['parts']} equal parts by rows, not the shape {shape}"
                    )

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Every matrix that has a gradient moves; a closure is computed first and its value given back."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Move]] = defaultdict(list)
            changes: dict[Tensor, Tensor] = {}
            for move in self._moves(group, changes):
                alike[tuple(move.weight.shape)].append(move)
            for moves in alike.values():
                self._apply(moves, group["iterations"])
            for weight, change in changes.items():
                weight.add_(shards.part_of(change, weight))
        return loss

    def _moves(self, group: dict[str, Any], changes: dict[Tensor, Tensor]) -> Iterable[Move]:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
            mean.lerp_(weight.grad, 1 - group["momentum"])
            direction = weight.grad.lerp(mean, group["momentum"])
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            moved = weight
            if shards.is_part(weight):  # a step needs the whole matrix: each process makes it and takes its part
                direction = direction.full_tensor()
                moved = changes[weight] = torch.zeros_like(direction)
            for part, toward in zip(moved.chunk(group["parts"]), direction.chunk(group["parts"]), strict=True):
                tall = part.shape[0] > part.shape[1]
                rate = group["lr"] * max(1.0, part.shape[0] / part.shape[1]) ** 0.5
                yield Move(part.mT, toward.mT, rate) if tall else Move(part, toward, rate)

    def _apply(self, moves: list[Move], iterations: int) -> None:
        directions = torch.stack([move.direction for move in moves])
        if (
            directions.is_cuda
        ):  # Newton-Schulz bears bfloat16, many times faster there; on a CPU without its instructions it is slower
            directions = directions.bfloat16()
        updates = orthogonalize(directions, iterations=iterations)
        for move, update in zip(moves, updates.to(moves[0].weight.dtype), strict=True):
            move.weight.sub_(update, alpha=move.rate)
