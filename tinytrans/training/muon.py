"""Muon: the gradients of matrices -> updates whose singular values are all near 1."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from tinytrans.training import shards

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # a, b, c of Newton-Schulz: they lift small singular values fast


def orthogonalize(matrices: Tensor, *, iterations: int = 5) -> Tensor:
    """The singular values of matrices (..., M, N) come near 1, their singular vectors stay: U S V^T -> about U V^T.

    Newton-Schulz: X = G / |G|, then again and again X = a X + (b A + c A^2) X with A = X X^T: no decomposition, only
    matrix products. After five iterations a singular value that was above |G| / 300 lies between 0.68 and 1.21; the
    coefficients bring none to 1 exactly.
    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """
    x = matrices.reshape(-1, *matrices.shape[-2:])
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    short, long = sorted(x.shape[-2:])
    if long >= 2 * short and torch.finfo(x.dtype).bits >= 32:  # half precision would lose the small ones in A
        return from_the_gram(x, iterations).view(matrices.shape)
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = gram_matrix(x)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b A + c A^2 in one kernel
        x = torch.baddbmm(x, *beside(polynomial, x), beta=a)
    return x.view(matrices.shape)


def from_the_gram(x: Tensor, iterations: int) -> Tensor:
    """The same for long matrices (n, M, N), whose Gram matrices A are small: all iterations on A, then one product.

    Every X_k is Q_k X_0 with Q_k a polynomial in A_0, and such polynomials commute: with P = a I + b A + c A^2,
    Q becomes P Q and A becomes P A P.
    """
    a, b, c = COEFFICIENTS
    gram = gram_matrix(x)
    scaled_eye = a * torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    product = None
    for left in reversed(range(iterations)):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c).add_(scaled_eye)
        product = polynomial if product is None else polynomial @ product
        if left:
            gram = polynomial @ gram @ polynomial
    return x if product is None else torch.bmm(*beside(product, x))


def gram_matrix(x: Tensor) -> Tensor:
    """The products of all pairs of rows, or where these are longer in number of columns: (n, M, N) -> (n, k, k)."""
    return x.mT @ x if x.shape[-2] > x.shape[-1] else x @ x.mT


def beside(square: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """What is to be multiplied, in order: a polynomial of the Gram matrix stands on the side of its rows or columns."""
    return (x, square) if x.shape[-2] > x.shape[-1] else (square, x)


class Move(NamedTuple):
    """A matrix, or a block of its rows; what it moves along; how far."""

    weight: Tensor  # a view: to change it is to change the parameter
    direction: Tensor
    rate: float


def _check_numbers(group: dict[str, Any]) -> None:
    """Raise ValueError at a rate, momentum, decay or count that no descent can have."""
    rules = (
        ("lr", group["lr"] >= 0, "0 or more"),
        ("momentum", 0 <= group["momentum"] < 1, "in [0, 1)"),
        ("weight_decay", group["weight_decay"] >= 0, "0 or more"),
        ("iterations", group["iterations"] >= 1, "1 or more"),
    )
    for name, fine, wanted in rules:
        if not fine:
            raise ValueError(f"{name} {group[name]} is not {wanted}")


class Muon(Optimizer):
    """Momentum whose update is made orthogonal, for hidden matrices (M, N): a step goes equally far in every direction.

    m = momentum m + (1 - momentum) g,   d = (1 - momentum) g + momentum m  (Nesterov),
    w = w - lr * weight_decay * w - lr * sqrt(max(1, M / N)) * orthogonalize(d).
    Matrices of one shape share one batched product. A group's `parts` cuts its matrices by rows
    into as many, each with an update of its own. Raises ValueError for what is no matrix or can't be cut so, and for
    numbers that would climb instead of descend, or stand still.
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
            _check_numbers(group)
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
            if group["weight_decay"]:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
            moved = weight
            if shards.is_part(weight):  # a step needs the whole matrix: each process makes it and takes its part
                direction = direction.full_tensor()
                moved = changes[weight] = torch.zeros_like(direction)
            for part, toward in zip(moved.chunk(group["parts"]), direction.chunk(group["parts"]), strict=True):
                yield Move(part, toward, group["lr"] * max(1.0, part.shape[0] / part.shape[1]) ** 0.5)

    def _apply(self, moves: list[Move], iterations: int) -> None:
        directions = torch.stack([move.direction for move in moves])
        if (
            directions.is_cuda
        ):  # Newton-Schulz bears bfloat16, many times faster there; on a CPU without its instructions it is slower
            directions = directions.bfloat16()
        updates = orthogonalize(directions, iterations=iterations)
        for move, update in zip(moves, updates.to(moves[0].weight.dtype), strict=True):
            move.weight.sub_(update, alpha=move.rate)
