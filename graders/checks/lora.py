"""Checks of LoRA: what the thin correction adds, how it is merged away, how few numbers it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_dtype, with_gradients
from tinytrans.adapters.lora import correction, lora_linear, lora_size, merged_weight

# ---- inputs: alpha is neither r nor 1, and all sizes differ, but where mixed-up matrices shall give a value


def layer(draw: Draw, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, float]:
    """W (D_out, D_in), A (r, D_in), B (D_out, r) and alpha."""
    r, D_in, D_out = draw.sizes(3, 2, 7)
    return _layer(draw, r, D_in, D_out, dtype)


def _layer(
    draw: Draw, r: int, D_in: int, D_out: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, float]:
    alpha = 2 * r + 0.5 + draw.integer(0, 3)
    shapes = (D_out, D_in), (r, D_in), (D_out, r)
    weight, a, b = (draw.normal(*shape, dtype=dtype) / math.sqrt(shape[1]) for shape in shapes)
    return weight, a, b, alpha


def vector(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    weight, a, b, alpha = layer(draw)
    return draw.normal(weight.shape[1]), weight, a, b, alpha


def sequence(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    weight, a, b, alpha = layer(draw)
    return draw.normal(2, 3, weight.shape[1]), weight, a, b, alpha


def square(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """All sizes equal, so that exchanged or transposed matrices give a value and can be named."""
    n = draw.integer(3, 5)
    return draw.normal(2, n), *_layer(draw, n, n, n)


def double(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    weight, a, b, alpha = layer(draw, torch.float64)
    return draw.normal(1, 1, weight.shape[1], dtype=torch.float64), weight, a, b, alpha


def newborn(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    x, weight, a, b, alpha = sequence(draw)
    return x, weight, a, torch.zeros_like(b), alpha


def square_layer(draw: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    return square(draw)[1:]


def double_layer(draw: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    return layer(draw, torch.float64)


def three_sizes(draw: Draw) -> tuple[int, int, int]:
    rank, d_in, d_out = draw.sizes(3, 3, 40)
    return d_in, d_out, rank


def sizes_of_a_large_model(draw: Draw) -> tuple[int, int, int]:
    rank, d_in, d_out = draw.sizes(3, 1, 99)
    return 1024 * d_in + 1, 1024 * d_out, rank  # an odd width: who halves or rounds is seen


def with_kind(answer: Any, *inputs: Any) -> Any:
    """The value and its type: a count is an int."""
    value = answer(*inputs)
    return value, type(value).__name__


# ---- lora_linear


def with_scale(scale: Callable[[float, Tensor, Tensor], float]) -> Callable[..., Tensor]:
    return lambda x, w, a, b, alpha: F.linear(x, w) + scale(alpha, a, b) * F.linear(F.linear(x, a), b)


def by_hand(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """Number by number, the full matrix B A written out."""
    r, D_in = a.shape
    rows = []
    for o in range(weight.shape[0]):
        full = [weight[o, i] + alpha / r * sum(b[o, j] * a[j, i] for j in range(r)) for i in range(D_in)]
        rows.append(sum(full[i] * x[..., i] for i in range(D_in)))
    return torch.stack(rows, dim=-1)


def starts_as_the_base(found: Any, x: Tensor, weight: Tensor, *_: Any) -> str | None:
    """The law of the beginning: with B = 0 the layer is its base."""
    base = F.linear(x, weight)
    if found.shape == base.shape and (found - base).abs().max() > 1e-5:
        return "with B = 0 the layer should compute what its base computes, W x, and it does not"
    return None


LINEAR = exercise(
    "lora_linear",
    reference=lora_linear,
    oracle=by_hand,
    requirements=[
        requires("a vector: W x + (alpha / r) B A x", 1, vector),
        requires("a batch of sequences, and the gradients of all three matrices", 1, sequence, run=with_gradients),
        requires("no matrix exchanged or turned round", 1, square),
        requires("with B = 0 it is the base", 1, newborn, law=starts_as_the_base),
        requires("double precision stays double", 1, double, run=with_dtype),
    ],
    wrong={
        "no scaling": (
            with_scale(lambda alpha, a, b: 1.0),
            "The correction is not scaled by alpha / r. As long as alpha = r nobody notices; with any other the "
            "adapter does something else than it was trained for.",
        ),
        "a whole factor": (
            with_scale(lambda alpha, a, b: alpha // len(a)),
            "`//` cuts the factor alpha / r down to a whole number.",
        ),
        "alpha not divided by r": (
            with_scale(lambda alpha, a, b: alpha),
            "You multiply by alpha and do not divide by r: with twice the rank the correction, a sum over r parts, "
            "would be twice as large.",
        ),
        "r / alpha": (
            with_scale(lambda alpha, a, b: a.shape[0] / alpha),
            "The factor is turned round: it is alpha / r.",
        ),
        "the root of r": (
            with_scale(lambda alpha, a, b: alpha / math.sqrt(a.shape[0])),
            "You divide by √r, as a later variant does (rsLoRA). The paper's factor is alpha / r.",
        ),
        "divided by the input's width": (
            with_scale(lambda alpha, a, b: alpha / a.shape[1]),
            "You divide by a.shape[1], the width of the input. r is the number of rows of A.",
        ),
        "divided by the output's width": (
            with_scale(lambda alpha, a, b: alpha / b.shape[0]),
            "You divide by b.shape[0], the width of the output. r is the number of columns of B.",
        ),
        "the correction alone": (
            lambda x, w, a, b, alpha: correction(x, a, b, alpha),
            "W x is missing: only the correction comes back. It stands beside the frozen layer, not in its place.",
        ),
        "the base alone": (
            lambda x, w, a, b, alpha: F.linear(x, w),
            "The correction is missing: this is the frozen layer. Nothing that A and B learn would change it.",
        ),
        "both scaled": (
            lambda x, w, a, b, alpha: alpha / a.shape[0] * (F.linear(x, w) + F.linear(F.linear(x, a), b)),
            "The frozen layer is scaled as well. Only the correction takes the factor.",
        ),
        "subtracted": (
            with_scale(lambda alpha, a, b: -alpha / a.shape[0]),
            "The correction is subtracted. It is added.",
        ),
        "B before A": (
            lambda x, w, a, b, alpha: F.linear(x, w) + alpha / a.shape[0] * F.linear(F.linear(x, b), a),
            "x goes through B first and then through A. A comes first: it takes x down to r numbers, B takes them up "
            "to the width of the output.",
        ),
        "A and B not transposed": (
            lambda x, w, a, b, alpha: F.linear(x, w) + alpha / a.shape[0] * (x @ a @ b),
            "x @ a @ b multiplies from the wrong side: rows times a matrix (r, D_in) wants its transpose. "
            "`F.linear(x, a)` is x @ a.T.",
        ),
        "W not transposed": (
            lambda x, w, a, b, alpha: x @ w + correction(x, a, b, alpha),
            "x @ weight: a weight (D_out, D_in) acts on rows as x @ weight.T, which is what `F.linear` does.",
        ),
        "corrected twice": (
            lambda x, w, a, b, alpha: F.linear(x, w) + 2 * correction(x, a, b, alpha),
            "The correction is in there twice, as if it had been merged into W *and* added in the forward pass.",
        ),
        "the input corrected": (
            lambda x, w, a, b, alpha: (
                F.linear(x + alpha / a.shape[0] * F.linear(F.linear(x, a), b), w)
                if w.shape[0] == w.shape[1]
                else F.linear(x, w)
            ),
            "The correction is added to x before the layer. It is added to what comes out.",
        ),
        "A without gradient": (
            lambda x, w, a, b, alpha: lora_linear(x, w, a.detach(), b, alpha),
            "The numbers are right, but no gradient reaches A: half of the adapter would never learn.",
        ),
        "nothing learns": (
            lambda x, w, a, b, alpha: lora_linear(x, w, a, b, alpha).detach(),
            "The numbers are right, but no gradient flows back at all. Look for `detach`, `.data` or `no_grad`.",
        ),
        "written into W": (
            lambda x, w, a, b, alpha: F.linear(x, w.data.add_(alpha / a.shape[0] * (b.data @ a.data))),
            "The correction is written into the weight that you were given: at the next call it would be added again. "
            "`+` makes a new tensor, `+=` and `add_` do not.",
        ),
        "single precision": (
            lambda x, w, a, b, alpha: lora_linear(x.float(), w.float(), a.float(), b.float(), alpha),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
        "alpha left out": (
            with_scale(lambda alpha, a, b: 1 / a.shape[0]),
            "The correction is divided by r and not multiplied by alpha.",
        ),
    },
    right={
        "by hand": by_hand,
        "merged first": lambda x, w, a, b, alpha: x @ (w + alpha / len(a) * b @ a).T,
        "matmuls": lambda x, w, a, b, alpha: x @ w.T + (x @ a.T) @ b.T * (alpha / b.shape[1]),
        "einsum": lambda x, w, a, b, alpha: (
            torch.einsum("...i,oi->...o", x, w) + torch.einsum("...i,ri,or->...o", x, a, b).mul(alpha).div(a.size(0))
        ),
    },
)

# ---- merged_weight


def merged_by_hand(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    parts = [torch.outer(b[:, j], a[j]) for j in range(a.shape[0])]
    return weight + torch.stack(parts).mean(0) * alpha


def with_factor(factor: Callable[[float, int], float]) -> Callable[..., Tensor]:
    return lambda w, a, b, alpha: w + factor(alpha, a.shape[0]) * (b @ a)


MERGED = exercise(
    "merged_weight",
    reference=merged_weight,
    oracle=merged_by_hand,
    requirements=[
        requires("W + (alpha / r) B A", 1, layer),
        requires("no matrix exchanged or turned round", 1, square_layer),
        requires("double precision stays double", 1, double_layer, run=with_dtype),
    ],
    wrong={
        "no scaling": (
            with_factor(lambda alpha, r: 1.0),
            "B A is added without the factor alpha / r, so the merged layer is not the one that was trained.",
        ),
        "a whole factor": (
            with_factor(lambda alpha, r: alpha // r),
            "`//` cuts the factor alpha / r down to a whole number.",
        ),
        "alpha not divided by r": (with_factor(lambda alpha, r: alpha), "The factor is alpha / r; you take alpha."),
        "r / alpha": (with_factor(lambda alpha, r: r / alpha), "The factor is turned round: alpha / r."),
        "the root of r": (
            with_factor(lambda alpha, r: alpha / math.sqrt(r)),
            "You divide by √r. The forward pass divides by r, and both must agree.",
        ),
        "subtracted": (
            with_factor(lambda alpha, r: -alpha / r),
            "B A is subtracted. That is how one takes an adapter *out* again; merging adds it.",
        ),
        "merged twice": (
            with_factor(lambda alpha, r: 2 * alpha / r),
            "The correction is added twice.",
        ),
        "A B": (
            lambda w, a, b, alpha: w + alpha / a.shape[0] * (a @ b),
            "You multiply A B, which is (r, r). What acts on x is first A, then B: as a matrix B A, (D_out, D_in).",
        ),
        "turned round": (
            lambda w, a, b, alpha: w + alpha / a.shape[0] * (b @ a).T,
            "B A is transposed before it is added. W is (D_out, D_in), and so is B A.",
        ),
        "the correction alone": (
            lambda w, a, b, alpha: alpha / a.shape[0] * (b @ a),
            "This is the correction without W: the base is missing.",
        ),
        "W scaled too": (
            lambda w, a, b, alpha: alpha / a.shape[0] * (w + b @ a),
            "The factor is applied to W as well. It belongs to B A alone.",
        ),
        "written into W": (
            lambda w, a, b, alpha: w.data.add_(alpha / a.shape[0] * (b.data @ a.data)),
            "The sum is written into the weight that you were given: a second call would add the correction again, and "
            "the base is lost. Return a new tensor.",
        ),
        "single precision": (
            lambda w, a, b, alpha: merged_weight(w.float(), a.float(), b.float(), alpha),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "sum of outer products": merged_by_hand,
        "addmm": lambda w, a, b, alpha: torch.addmm(w, b, a, alpha=alpha / a.shape[0]),
        "einsum": lambda w, a, b, alpha: torch.einsum("or,ri->oi", b * alpha, a) / b.shape[1] + w,
    },
)

# ---- lora_size

SIZE = exercise(
    "lora_size",
    reference=lora_size,
    oracle=lambda d_in, d_out, rank: torch.empty(rank, d_in).numel() + torch.empty(d_out, rank).numel(),
    requirements=[
        requires("the numbers in A and B", 1, three_sizes),
        requires("a whole number, whatever the widths", 1, sizes_of_a_large_model, run=with_kind),
    ],
    wrong={
        "the whole matrix": (
            lambda d_in, d_out, rank: d_in * d_out,
            "This counts W, which is frozen. A is (r, D_in) and B is (D_out, r).",
        ),
        "with the whole matrix": (
            lambda d_in, d_out, rank: d_in * d_out + rank * (d_in + d_out),
            "W is counted as well, and W does not train.",
        ),
        "A alone": (lambda d_in, d_out, rank: rank * d_in, "This is A alone. B has r numbers for each output."),
        "B alone": (lambda d_in, d_out, rank: rank * d_out, "This is B alone. A has r numbers for each input."),
        "twice A": (
            lambda d_in, d_out, rank: 2 * rank * d_in,
            "Right for a square layer only: B has D_out rows, A has D_in columns.",
        ),
        "r only once": (
            lambda d_in, d_out, rank: rank * d_in + d_out,
            "Brackets are missing: r multiplies both widths.",
        ),
        "B A": (
            lambda d_in, d_out, rank: rank * d_in * d_out,
            "You multiply the widths. A and B lie side by side, so their numbers add up; B A is never stored.",
        ),
        "with biases": (
            lambda d_in, d_out, rank: rank * (d_in + d_out) + rank + d_out,
            "A and B have no biases here.",
        ),
    },
    right={
        "A and B apart": lambda d_in, d_out, rank: d_in * rank + rank * d_out,
        "counted": lambda d_in, d_out, rank: sum(1 for _ in range(rank) for _ in range(d_in + d_out)),
    },
)

# ---- questions

WHY_ZERO = question(
    "why_zero",
    "At birth B is zero and A is random. What would happen if both were zero, and what if both were random?",
    choices={
        "a": "Both zero: the same as now, only simpler. Both random: training is faster at first.",
        "b": "Both zero: division by zero in the scaling. Both random: the rank is no longer r.",
        "c": "Both zero: the gradient of A contains B and that of B contains A, so both are zero, and nothing ever "
        "learns. Both random: the model is disturbed before the first step.",
        "d": "Both zero: only B learns. Both random: only A learns.",
    },
    explanations={
        "a": "Try it: with both zero the loss stays where it is, to the last digit.",
        "b": "The scaling divides by r, a size. And the rank of B A is at most r whatever stands in them.",
        "c": "Yes. With B = 0 the layer begins as its base; B's gradient is not zero since A is not, and after "
        "one step A's is not either.",
        "d": "A product has a gradient in each factor that is proportional to the other factor: both zero, both stuck.",
    },
    answer="c",
)

EXERCISES = [LINEAR, MERGED, SIZE, WHY_ZERO]
