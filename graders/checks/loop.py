"""Checks of the loop: means over batches of unequal size, as losses and gradients need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, requires, with_dtype
from tinytrans.training import loop

# ---- inputs: seed -> what the learner's function is called with


def losses(draw: Draw) -> tuple[Tensor, Tensor]:
    """Losses of batches of very different size."""
    n = draw.integer(4, 6)
    return draw.uniform(n) * 5 + 1, torch.tensor([1, 40, 7, 300, 25, 90])[draw.permutation(6)][:n]


def gradients(draw: Draw) -> tuple[Tensor, Tensor]:
    """Gradients of a matrix with as many rows and columns as there are batches: a wrong broadcast gives a value."""
    n = draw.integer(3, 4)
    return draw.normal(n, n, n), torch.tensor([2, 50, 11, 7])[draw.permutation(4)][:n]


def double_gradients(draw: Draw) -> tuple[Tensor, Tensor]:
    return draw.normal(3, 5, dtype=torch.float64), torch.tensor([4, 1, 9])


def one_empty(draw: Draw) -> tuple[Tensor, Tensor]:
    """A single target in all: the batches without one have the mean 0, which does not count."""
    means, counts = draw.normal(3, 4) + 2, torch.tensor([0, 1, 0])
    return means * counts[:, None], counts


def all_empty(draw: Draw) -> tuple[Tensor, Tensor]:
    return torch.zeros(2, draw.integer(3, 5)), torch.tensor([0, 0])


# ---- ways to run an answer, and laws


def between(found: Any, means: Tensor, counts: Tensor) -> str | None:
    """The law of a mean: between the least and the greatest, nearer to where more is counted."""
    y = found[0] if isinstance(found, tuple) else found
    value = torch.as_tensor(y)
    if value.shape != means.shape[1:]:
        return f"a mean over the first axis of {tuple(means.shape)} has the shape {tuple(means.shape[1:])}"
    if value.isnan().any():
        return f"there is NaN in it; the batches have {counts.tolist()} targets"
    real = means[counts > 0]
    if len(real) and ((value > real.amax(0) + 1e-4) | (value < real.amin(0) - 1e-4)).any():
        return "it is not between the least and the greatest of the means: do the weights sum to 1?"
    return None


# ---- ways to go wrong


def column(counts: Tensor, means: Tensor) -> Tensor:
    return counts.view(-1, *[1] * (means.dim() - 1)).to(means.dtype)


def weighed(weights: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The sum over batches, each times a weight made of the counts."""
    return lambda means, counts: (means * column(weights(counts.double()).to(means.dtype), means)).sum(0)


def safe(counts: Tensor) -> Tensor:
    return counts / counts.sum().clamp(min=1)


def broadcast_wrongly(means: Tensor, counts: Tensor) -> Tensor:
    """The counts meet the last axis instead of the first."""
    if means.dim() == 1:
        return loop.pooled(means, counts)
    return (means * safe(counts.double()).to(means.dtype)).sum(0)


def in_a_loop(means: Tensor, counts: Tensor) -> Tensor:
    total = torch.zeros_like(means[0])
    for mean, count in zip(means, counts.tolist(), strict=True):
        total = total + mean * count
    return total / max(int(counts.sum()), 1)


def by_product(means: Tensor, counts: Tensor) -> Tensor:
    return torch.tensordot(safe(counts.double()).to(means.dtype), means, dims=1)


POOLED = exercise(
    "pooled",
    reference=loop.pooled,
    oracle=in_a_loop,
    requirements=[
        requires("losses of batches of unequal size", 1, losses, law=between),
        requires("gradients of a matrix", 1, gradients, law=between),
        requires("double precision", 1, double_gradients, run=with_dtype, law=between),
        requires("batches without a target do not count", 1, one_empty, law=between),
        requires("no target at all: 0, and no NaN", 1, all_empty, law=between),
    ],
    wrong={
        "a mean of means": (
            lambda means, counts: means.mean(0),
            "Every batch weighs the same, so a token in a small one weighs more. Weigh the means by their counts.",
        ),
        "a sum": (
            lambda means, counts: means.sum(0),
            "The means are added up: with n batches the gradient is n times too large.",
        ),
        "not divided": (
            weighed(lambda counts: counts),
            "The sums of all batches are added up and not divided by the number of all tokens.",
        ),
        "divided by the number of batches": (
            weighed(lambda counts: counts / len(counts)),
            "You divide by the number of batches. It is the number of all their tokens.",
        ),
        "divided by the largest": (
            weighed(lambda counts: counts / counts.max().clamp(min=1)),
            "You divide by the largest count. It is the sum of the counts, so that the weights sum to 1.",
        ),
        "the fewer, the more": (
            weighed(lambda counts: (1 / counts.clamp(min=1)) / (1 / counts.clamp(min=1)).sum()),
            "Small batches weigh most. A mean over many tokens stands for many.",
        ),
        "a softmax of the counts": (
            weighed(lambda counts: counts.softmax(0)),
            "The softmax gives nearly everything to the largest batch. Shares of the sum are meant.",
        ),
        "roots of the counts": (
            weighed(lambda counts: counts.sqrt() / counts.sqrt().sum().clamp(min=1)),
            "You weigh by the roots of the counts. A mean over four times as many tokens counts four times.",
        ),
        "only the largest": (
            lambda means, counts: means[counts.argmax()],
            "Only the largest batch counts.",
        ),
        "only the last": (
            lambda means, counts: means[-1],
            "Only the last batch counts. Was the sum overwritten instead of added to?",
        ),
        "over the wrong axis": (
            broadcast_wrongly,
            "The counts were broadcast along the last axis: columns are weighed instead of batches. They belong to the "
            "first axis.",
        ),
        "a mean over everything": (
            lambda means, counts: (means * column(safe(counts), means)).sum(),
            "One number comes out. Only the batches are averaged; a gradient keeps its shape.",
        ),
        "a batch at least": (
            weighed(lambda counts: counts.clamp(min=1) / counts.clamp(min=1).sum()),
            "A batch without a target weighs as much as one with one. It does not count.",
        ),
        "0 / 0": (
            weighed(lambda counts: counts / counts.sum()),
            "Right, unless there is no target at all: 0 / 0 is NaN, and a NaN in a gradient ruins all weights.",
        ),
        "shares rounded down": (
            weighed(lambda counts: torch.div(counts, counts.sum().clamp(min=1), rounding_mode="floor")),
            "The shares are rounded down to 0: a division of integers.",
        ),
    },
    right={
        "in a loop": in_a_loop,
        "as a product": by_product,
        "column by column": lambda means, counts: (means * column(counts, means)).sum(0) / counts.sum().clamp(min=1),
    },
)

EXERCISES = [POOLED]
