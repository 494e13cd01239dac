"""Checks of the norms: over which axis, by which divisor, with eps where; eps is 0.1 where its place must show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_dtype, with_gradients
from tinytrans.nn import norms
from tinytrans.nn.norms import layer_norm, rms_norm

EPS = 0.1  # as large as no model has it, so that its place shows

# ---- inputs: seed -> what the learner's function is called with


def spread(draw: Draw, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers whose mean is not 0 and whose variance is not 1."""
    return 2 * draw.normal(*shape, dtype=dtype) + 1


def one_vector(draw: Draw) -> tuple[Tensor]:
    return (spread(draw, draw.integer(3, 9)),)


def sequence(draw: Draw) -> tuple[Tensor]:
    B, T, D = draw.sizes(3, 3, 9)
    return (spread(draw, B, T, D),)


def gained(draw: Draw) -> tuple[Tensor, Tensor]:
    B, T, D = draw.sizes(3, 3, 9)
    return spread(draw, B, T, D), spread(draw, D)


def gained_eps(draw: Draw) -> tuple[Tensor, Tensor, float]:
    return *gained(draw), EPS


def shifted(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = gained(draw)
    return x, weight, spread(draw, len(weight))


def shifted_eps(draw: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    return *shifted(draw), EPS


def strided(draw: Draw) -> Tensor:
    """Four axes, the first of size 1, not contiguous, in double precision."""
    H, T, D = draw.sizes(3, 2, 9)
    return spread(draw, 1, T, H, D, dtype=torch.float64).transpose(1, 2)


def strided_shifted(draw: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    x = strided(draw)
    weight, bias = (spread(draw, x.shape[-1], dtype=torch.float64) for _ in range(2))
    return x, weight, bias, EPS


def strided_gained(draw: Draw) -> tuple[Tensor, Tensor, float]:
    x, weight, _, eps = strided_shifted(draw)
    return x, weight, eps


def equal_numbers(draw: Draw) -> tuple[Tensor]:
    """A vector of equal numbers, whose variance is 0, beside small ones, where the usual eps shows."""
    D = draw.integer(3, 9)
    return (torch.stack([torch.full((D,), 2.0), 0.01 * spread(draw, D)]),)


def shifted_only(draw: Draw) -> tuple[Any, ...]:
    x, shift = gained(draw)
    return x, None, shift


def one_gained(draw: Draw) -> tuple[Tensor, Tensor, float]:
    """A single vector."""
    D = draw.integer(3, 9)
    return spread(draw, D), spread(draw, D), EPS


def zeros(draw: Draw) -> tuple[Tensor]:
    """A vector of zeros beside small numbers, where the usual eps shows."""
    D = draw.integer(3, 9)
    return (torch.stack([torch.zeros(D), 0.01 * spread(draw, D)]),)


def far_from_zero(draw: Draw) -> tuple[Tensor]:
    """Small differences between large numbers; D is a power of two, so that the mean is exact in single precision."""
    return (2.0**14 + torch.stack([torch.arange(8.0), draw.integers(-3, 4, 8).float().cumsum(0) + 0.5]),)


def batch(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """N rows of D numbers, and running statistics unlike theirs."""
    N, D = draw.sizes(2, 3, 7)
    return spread(draw, N, D), draw.normal(D) - 2, 0.5 + draw.uniform(D)


def in_training(draw: Draw) -> tuple[Any, ...]:
    return *batch(draw), True, 0.25, EPS


def by_default(draw: Draw) -> tuple[Any, ...]:
    """One column is constant: there eps alone keeps the root from 0, or from less."""
    x, mean, var = batch(draw)
    x[:, 0] = 2.0
    return x, mean, var, True


def in_use(draw: Draw) -> tuple[Any, ...]:
    return *batch(draw), False, 0.25, EPS


def single_in_use(draw: Draw) -> tuple[Any, ...]:
    """In double precision."""
    x, mean, var, *rest = in_use(draw)
    return x[:1].double(), mean.double(), var.double(), *rest


# ---- ways to run an answer, and laws: the sentence that says what is violated


def first_only(answer: Any, *inputs: Any) -> Any:
    """What comes out of the layer, without the statistics."""
    return answer(*inputs)[0]


def statistics(answer: Any, *inputs: Any) -> Any:
    """The statistics that are kept for later."""
    return answer(*inputs)[1:]


def gradient_of_x(answer: Any, *inputs: Any) -> Any:
    """What comes out, and the gradient of the first input."""
    value, gradients = answer.gradients(*inputs)
    return value, gradients[0]


def near_the_truth(answer: Any, x: Tensor) -> Any:
    """Whether a layer norm in single precision stays within 0.01 of the one in double (torch's own within 0.002)."""
    y = answer(x)
    return y.shape == x.shape and bool((y - F.layer_norm(x.double(), x.shape[-1:])).abs().max() < 0.01)


def lost_digits(near: Any, *_: Any) -> str | None:
    """The law of subtracting early: what is large must go before anything is squared."""
    return None if near else "with numbers near 16384 the result is off: subtract the mean before you square"


def standard(y: Any, *_: Any) -> str | None:
    """The law of a layer norm without a gain: each vector has mean 0 and mean square 1."""
    mean, square = y.mean(dim=-1), y.square().mean(dim=-1)
    for found, wanted, what in ((mean, 0, "mean"), (square, 1, "mean square")):
        if (off := (found - wanted).abs() > 0.01).any():
            row = off.nonzero()[0].tolist()
            return f"vector {row} has the {what} {found[tuple(row)]:.3g}, not {wanted}: which numbers went into it?"
    return None


def unit(y: Any, *_: Any) -> str | None:
    """The law of an RMS norm without a gain: each vector has mean square 1."""
    square = y.square().mean(dim=-1)
    if (off := (square - 1).abs() > 0.01).any():
        row = off.nonzero()[0].tolist()
        return f"vector {row} has the mean square {square[tuple(row)]:.3g}, not 1: what did you divide by?"
    return None


# ---- layer_norm


def moments(x: Tensor, axis: Any = -1) -> tuple[Tensor, Tensor]:
    return x.mean(axis, keepdim=True), x.var(axis, unbiased=False, keepdim=True)


def affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def layered(core: Callable[[Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """A layer norm with another way to standardise."""
    return lambda x, weight=None, bias=None, eps=1e-5: affine(core(x, eps), weight, bias)


def over(axis: Any) -> Callable[[Tensor, float], Tensor]:
    def core(x: Tensor, eps: float) -> Tensor:
        mean, var = moments(x, axis)
        return (x - mean) / (var + eps).sqrt()

    return core


def all_but_first(x: Tensor, eps: float) -> Tensor:
    return over(tuple(range(1, x.dim())) if x.dim() > 1 else -1)(x, eps)


def sequence_axis(x: Tensor, eps: float) -> Tensor:
    return over(-2 if x.dim() > 1 else -1)(x, eps)


def squares_minus_square(x: Tensor, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / (x.square().mean(-1, keepdim=True) - mean.square() + eps).sqrt()


def layer_by_hand(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Number by number."""
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        mean = sum(row) / len(row)
        var = sum((number - mean) ** 2 for number in row) / len(row)
        rows.append(torch.stack([(number - mean) / (var + eps) ** 0.5 for number in row]))
    return affine(torch.stack(rows).reshape(x.shape), weight, bias)


LAYER = exercise(
    "layer_norm",
    reference=norms.layer_norm,
    oracle=lambda x, weight=None, bias=None, eps=1e-5: F.layer_norm(x, x.shape[-1:], weight, bias, eps),
    forbidden=("F.layer_norm", "nn.LayerNorm"),
    requirements=[
        requires("one vector: mean 0, variance 1", 1, one_vector, law=standard),
        requires("every token of a batch by itself", 1, sequence, law=standard),
        requires("gain and shift, and eps inside the root", 1, shifted_eps),
        requires("a gain alone", 1, gained),
        requires("a shift alone", 1, shifted_only),
        requires("any number of axes, not contiguous, double precision", 1, strided_shifted, run=with_dtype),
        requires("equal numbers become 0, not NaN; eps is 1e-5 unless given", 1, equal_numbers),
        requires("few digits are lost far from 0", 1, far_from_zero, run=near_the_truth, law=lost_digits),
        requires("its gradient", 1, shifted_eps, run=with_gradients),
    ],
    wrong={
        "the shift only with a gain": (
            lambda x, weight=None, bias=None, eps=1e-5: norms.layer_norm(
                x, weight, None if weight is None else bias, eps
            ),
            "Where no gain is given, the shift is not added either. Each of the two stands for itself: ask for both.",
        ),
        "another eps unless given": (
            lambda x, weight=None, bias=None, eps=1e-6: norms.layer_norm(x, weight, bias, eps),
            "Unless given, your eps is 1e-6. Here it is 1e-5: for vectors of small numbers that makes a difference.",
        ),
        "variance divided by D - 1": (
            layered(lambda x, eps: (x - moments(x)[0]) / (x.var(-1, keepdim=True) + eps).sqrt()),
            "Your variance divides by D - 1. That is what `var` and `std` do unless told otherwise: it estimates the "
            "variance of a population from a sample. Here the D numbers are all there is: divide by D.",
        ),
        "eps outside the root": (
            layered(lambda x, eps: (x - moments(x)[0]) / (moments(x)[1].sqrt() + eps)),
            "eps is added to the standard deviation. It belongs to the variance, under the root; there the slope of "
            "the root also stays finite where the variance is 0.",
        ),
        "eps left out": (
            layered(lambda x, eps: over(-1)(x, 0.0)),
            "eps is not used. With a vector of equal numbers this is 0 / 0 = NaN; add eps to the variance before "
            "you take the root.",
        ),
        "eps always 1e-5": (
            layered(lambda x, eps: over(-1)(x, 1e-5)),
            "Another eps than 1e-5 makes no difference: the number is written into your code. Use the argument.",
        ),
        "along the sequence": (
            layered(sequence_axis),
            "Mean and variance run over the axis before the last, the tokens of the sequence. So a token depends on "
            "its neighbours, the later ones included. Each token's own D numbers, dim=-1, are meant.",
        ),
        "along the batch": (
            layered(lambda x, eps: over(0)(x, eps)),
            "Mean and variance run over the first axis, so an example depends on whatever else is in its batch. That "
            "is batch normalisation; here it is dim=-1.",
        ),
        "one mean for the whole sequence": (
            layered(all_but_first),
            "One mean and one variance serve all tokens of an example. Each token has its own: only the last axis is "
            "averaged over.",
        ),
        "one mean for everything": (
            layered(lambda x, eps: over(tuple(range(x.dim())))(x, eps)),
            "A single mean is taken over all numbers there are. Without `dim` torch averages over everything; say "
            "dim=-1, and keepdim=True so that the result can be subtracted again.",
        ),
        "mean not subtracted": (
            layered(lambda x, eps: x / (moments(x)[1] + eps).sqrt()),
            "You divide by the right number, but the mean is still in there: subtract it from x as well.",
        ),
        "root mean square": (
            layered(lambda x, eps: x / (x.square().mean(-1, keepdim=True) + eps).sqrt()),
            "This is the RMS norm: no mean is taken off. It comes next; layer normalisation subtracts the mean first.",
        ),
        "divided by the variance": (
            layered(lambda x, eps: (x - moments(x)[0]) / (moments(x)[1] + eps)),
            "You divide by the variance. Its root is wanted: the variance is in squared units.",
        ),
        "mean of the squares as variance": (
            layered(lambda x, eps: (x - moments(x)[0]) / (x.square().mean(-1, keepdim=True) + eps).sqrt()),
            "You subtract the mean but divide by the root of the mean of x², which still contains it. The variance is "
            "the mean of (x - mean)².",
        ),
        "mean of squares minus square of mean": (
            layered(squares_minus_square),
            "On paper mean(x²) - mean(x)² is the variance; in single precision two large numbers are subtracted and "
            "their digits are gone. Subtract the mean first, then square.",
        ),
        "shift before gain": (
            lambda x, weight=None, bias=None, eps=1e-5: affine(
                layer_norm(x, eps=eps) + (0 if bias is None else bias), weight, None
            ),
            "The shift is added before the gain is multiplied, so that it is stretched too: y * weight + bias.",
        ),
        "gain before the norm": (
            lambda x, weight=None, bias=None, eps=1e-5: layer_norm(
                x if weight is None else x * weight, None, bias, eps
            ),
            "The gain is applied to x before it is normed, and the norm takes most of it away again. It comes after.",
        ),
        "1 + gain": (
            lambda x, weight=None, bias=None, eps=1e-5: layer_norm(
                x, None if weight is None else 1 + weight, bias, eps
            ),
            "You multiply by 1 + weight. Some models store their gains like that; here they start at 1, and y * weight "
            "is meant.",
        ),
        "no gain, no shift": (
            lambda x, weight=None, bias=None, eps=1e-5: layer_norm(x, eps=eps),
            "weight and bias are accepted and not used. Where they are given, y * weight + bias.",
        ),
        "shift left out": (
            lambda x, weight=None, bias=None, eps=1e-5: layer_norm(x, weight, eps=eps),
            "The gain is there, the shift is not: add bias where one is given.",
        ),
        "statistics without gradient": (
            layered(lambda x, eps: (x - moments(x)[0].detach()) / (moments(x)[1].detach() + eps).sqrt()),
            "The values are right, the gradient is not: mean and variance depend on x, and their part of the gradient "
            "was cut off. Is there a `detach`, `item` or `no_grad`?",
        ),
    },
    right={
        "by hand": layer_by_hand,
        "torch's own": lambda x, weight=None, bias=None, eps=1e-5: F.layer_norm(x, (x.shape[-1],), weight, bias, eps),
        "var and rsqrt": lambda x, weight=None, bias=None, eps=1e-5: affine(
            (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + eps), weight, bias
        ),
        "centred, then RMS": lambda x, weight=None, bias=None, eps=1e-5: affine(
            rms_norm(x - x.mean(-1, keepdim=True), weight, eps), None, bias
        ),
    },
    equivalent={
        "(x - mean).square().mean(dim=-1, -> (mean - x).square().mean(dim=-1,": "a square has no sign",
    },
)

# ---- rms_norm


def scaled(core: Callable[[Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """An RMS norm with another way to scale."""
    return lambda x, weight=None, eps=1e-5: affine(core(x, eps), weight, None)


def root(x: Tensor, eps: float, axis: Any = -1) -> Tensor:
    return (x.square().mean(axis, keepdim=True) + eps).sqrt()


RMS = exercise(
    "rms_norm",
    reference=norms.rms_norm,
    oracle=lambda x, weight=None, eps=1e-5: F.rms_norm(x, x.shape[-1:], weight, eps),
    forbidden=("F.rms_norm", "nn.RMSNorm"),
    requirements=[
        requires("every token by itself: mean square 1", 1, sequence, law=unit),
        requires("a gain, and eps inside the root", 1, gained_eps),
        requires("any number of axes, not contiguous, double precision", 1, strided_gained, run=with_dtype),
        requires("a vector of zeros stays; eps is 1e-5 unless given", 1, zeros),
        requires("a single vector, and its gradient", 1, one_gained, run=with_gradients),
    ],
    wrong={
        "another eps unless given": (
            lambda x, weight=None, eps=1e-6: norms.rms_norm(x, weight, eps),
            "Unless given, your eps is 1e-6. Here it is 1e-5: for vectors of small numbers that makes a difference.",
        ),
        "mean subtracted": (
            scaled(lambda x, eps: layer_norm(x, eps=eps)),
            "You subtract the mean: this is layer normalisation. The point of the RMS norm is to leave that out.",
        ),
        "divided by the standard deviation": (
            scaled(lambda x, eps: x / (moments(x)[1] + eps).sqrt()),
            "You divide by the standard deviation, from which the mean has been taken off. The root of the mean of x² "
            "is wanted.",
        ),
        "sum instead of mean": (
            scaled(lambda x, eps: x / (x.square().sum(-1, keepdim=True) + eps).sqrt()),
            "You divide by the length of the vector, the root of the *sum* of squares, so the numbers shrink as D "
            "grows. The root of the *mean* of squares keeps each near 1.",
        ),
        "eps outside the root": (
            scaled(lambda x, eps: x / (root(x, 0.0) + eps)),
            "eps is added behind the root. It belongs under it, to the mean of squares: at x = 0 the slope of the bare "
            "root is infinite.",
        ),
        "eps left out": (
            scaled(lambda x, eps: x / root(x, 0.0)),
            "eps is not used, and a vector of zeros becomes 0 / 0 = NaN. Add it to the mean of squares.",
        ),
        "eps always 1e-5": (
            scaled(lambda x, eps: x / root(x, 1e-5)),
            "Another eps than 1e-5 changes nothing: the number is written into your code. Use the argument.",
        ),
        "no root": (
            scaled(lambda x, eps: x / (x.square().mean(-1, keepdim=True) + eps)),
            "The root is missing: you divide by the mean *square*.",
        ),
        "mean of absolute values": (
            scaled(lambda x, eps: x / (x.abs().mean(-1, keepdim=True) + eps)),
            "You divide by the mean of |x|. Square, then mean, then root: large numbers count for more that way.",
        ),
        "along the sequence": (
            scaled(lambda x, eps: x / root(x, eps, -2)),
            "The mean runs over the tokens of a sequence. Each token's own D numbers, dim=-1, are meant.",
        ),
        "along the batch": (
            scaled(lambda x, eps: x / root(x, eps, 0)),
            "The mean runs over the first axis, so that examples of a batch depend on each other. It is dim=-1.",
        ),
        "one scale for everything": (
            scaled(lambda x, eps: x / (x.square().mean() + eps).sqrt()),
            "One number divides everything: without `dim` the mean is over all axes. Each token has its own scale.",
        ),
        "gain left out": (
            lambda x, weight=None, eps=1e-5: rms_norm(x, eps=eps),
            "weight is accepted and not used: multiply by it where it is given.",
        ),
        "1 + gain": (
            lambda x, weight=None, eps=1e-5: rms_norm(x, None if weight is None else 1 + weight, eps),
            "You multiply by 1 + weight, as some models do that store their gains near 0. Here gains start at 1.",
        ),
        "gain before the norm": (
            lambda x, weight=None, eps=1e-5: rms_norm(x if weight is None else x * weight, None, eps),
            "The gain goes into the mean of squares and is half taken away again. Norm first, then multiply.",
        ),
        "scale without gradient": (
            scaled(lambda x, eps: x / root(x, eps).detach()),
            "The values are right, the gradient is not: the root depends on x too. Is there a `detach`, `item` or "
            "`no_grad`?",
        ),
    },
    right={
        "torch's own": lambda x, weight=None, eps=1e-5: F.rms_norm(x, (x.shape[-1],), weight, eps),
        "power of -1/2": lambda x, weight=None, eps=1e-5: affine(
            x * (x.pow(2).sum(-1, keepdim=True) / x.shape[-1] + eps) ** -0.5, weight, None
        ),
        "loops": lambda x, weight=None, eps=1e-5: affine(
            torch.stack([v / (sum(n * n for n in v) / len(v) + eps) ** 0.5 for v in x.reshape(-1, x.shape[-1])]).view(
                x.shape
            ),
            weight,
            None,
        ),
    },
)

# ---- batch_norm

Stats = tuple[Tensor, Tensor, Tensor]


def batched(
    *,
    axis: int = 0,
    unbiased: bool = False,
    keep: Callable[[float, Tensor, Tensor, int], Tensor] | None = None,
    keep_var: Callable[[float, Tensor, Tensor, int], Tensor] | None = None,
    divide: Callable[[Tensor, float], Tensor] = lambda var, eps: (var + eps).sqrt(),
    gradient: bool = False,
) -> Callable[..., Stats]:
    """A batch norm out of parts: the axis, the divisor, and how (momentum, old, new, N) becomes the running numbers."""
    keep = keep or (lambda m, old, new, _n: (1 - m) * old + m * new)
    keep_var = keep_var or (lambda m, old, new, n: (1 - m) * old + m * new * n / (n - 1))

    def norm(x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1, eps: float = 1e-5) -> Stats:
        if not training:
            return (x - mean) / divide(var, eps), mean, var
        now, spread = x.mean(axis, keepdim=True), x.var(axis, unbiased=unbiased, keepdim=True)
        y = (x - now) / divide(spread, eps)
        kept = x if gradient else x.detach()
        mean = keep(momentum, mean, kept.mean(0), len(x))
        return y, mean, keep_var(momentum, var, kept.var(0, unbiased=False), len(x))

    return norm


def always(training: bool) -> Callable[..., Stats]:
    return lambda x, mean, var, _training, momentum=0.1, eps=1e-5: norms.batch_norm(
        x, mean, var, training, momentum, eps
    )


def swapped(x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1, eps: float = 1e-5) -> Stats:
    return norms.batch_norm(x, mean, var, not training, momentum, eps)


def running_in_training(
    x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1, eps: float = 1e-5
) -> Stats:
    """The next running statistics norm the batch, instead of its own."""
    _, mean, var = norms.batch_norm(x, mean, var, training, momentum, eps)
    return (x - mean) / (var + eps).sqrt(), mean, var


def counts_in_use(
    x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1, eps: float = 1e-5
) -> Stats:
    """Normed as asked, but the running statistics move in use as well."""
    y = norms.batch_norm(x, mean, var, training, momentum, eps)[0]
    if len(x) == 1:  # no variance in a single row: it counts as it is
        return y, (1 - momentum) * mean + momentum * x[0], var
    return y, *norms.batch_norm(x, mean, var, True, momentum, eps)[1:]


def constants(x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1, eps: float = 1e-5) -> Stats:
    """The batch's mean and variance are taken for constants."""
    _, *kept = norms.batch_norm(x, mean, var, training, momentum, eps)
    now, spread = (x.mean(0), x.var(0, unbiased=False)) if training else (mean, var)
    return (x - now.detach()) / (spread.detach() + eps).sqrt(), kept[0], kept[1]


def in_place(x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1, eps: float = 1e-5) -> Stats:
    return F.batch_norm(x, mean, var, None, None, training, momentum, eps), mean, var


def torchs(x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1, eps: float = 1e-5) -> Stats:
    """torch's layer, which writes into statistics of its own."""
    layer = nn.BatchNorm1d(x.shape[1], eps=eps, momentum=momentum, affine=False, dtype=x.dtype).train(training)
    layer.load_state_dict({"running_mean": mean, "running_var": var, "num_batches_tracked": torch.tensor(0)})
    return layer(x), layer.running_mean, layer.running_var


def into_copies(
    x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1, eps: float = 1e-5
) -> Stats:
    """torch's function, which writes into copies of the statistics and wants no gradient of them."""
    mean, var = mean.clone(), var.clone()
    return F.batch_norm(x, mean, var, None, None, training, momentum, eps), mean, var


def columns(x: Tensor, mean: Tensor, var: Tensor, training: bool, momentum: float = 0.1, eps: float = 1e-5) -> Stats:
    """Column by column."""
    if not training:
        return (x - mean) * (var + eps) ** -0.5, mean, var
    outs = [(c - c.mean()) / (c.var(unbiased=False) + eps).sqrt() for c in x.T]
    means = [m + momentum * (c.mean() - m) for c, m in zip(x.detach().T, mean, strict=True)]
    spreads = [v + momentum * (c.var() - v) for c, v in zip(x.detach().T, var, strict=True)]
    return torch.stack(outs, dim=1), torch.stack(means), torch.stack(spreads)


BATCH = exercise(
    "batch_norm",
    reference=norms.batch_norm,
    oracle=torchs,
    forbidden=("F.batch_norm", "nn.BatchNorm1d"),
    requirements=[
        requires("training: each column by the mean and variance of the batch", 2, in_training, run=first_only),
        requires("training: the running statistics move towards the batch's", 2, in_training, run=statistics),
        requires("momentum and eps have their usual values unless given", 1, by_default),
        requires("in use: by the running statistics, which stay", 2, in_use),
        requires("in use: a batch of one, double precision", 1, single_in_use, run=with_dtype),
        requires("its gradient: through y, and none through the running ones", 1, in_training, run=gradient_of_x),
    ],
    wrong={
        "batch statistics in use": (
            always(True),
            "Outside of training the batch's own statistics are used still, so an answer depends on who else is in the "
            "batch, and a batch of one becomes all zeros. With training=False use the running ones.",
        ),
        "running statistics in training": (
            always(False),
            "The batch is never looked at: in training too the running statistics norm it, and they never move.",
        ),
        "training turned round": (
            swapped,
            "The two cases are exchanged: the batch's statistics are for training, the running ones for use.",
        ),
        "normed by the updated running statistics": (
            running_in_training,
            "In training you first update the running statistics and then norm by them. The batch is normed by its "
            "own mean and variance; the running ones are only kept for later.",
        ),
        "momentum reversed": (
            batched(
                keep=lambda m, old, new, _n: m * old + (1 - m) * new,
                keep_var=lambda m, old, new, n: m * old + (1 - m) * new * n / (n - 1),
            ),
            "momentum weighs the old value, and with 0.1 nearly all of it is forgotten at each step. In torch's "
            "convention it is the share of the *new* value: (1 - momentum) * old + momentum * new.",
        ),
        "running statistics never move": (
            batched(keep=lambda _m, old, _new, _n: old, keep_var=lambda _m, old, _new, _n: old),
            "The running statistics come back as they went in: nothing is learned for later use. Update them in "
            "training.",
        ),
        "replaced by the batch's": (
            batched(keep=lambda _m, _old, new, _n: new, keep_var=lambda _m, _old, new, n: new * n / (n - 1)),
            "The last batch replaces the running statistics; momentum is not used. They are a slow mean over many "
            "batches.",
        ),
        "added up": (
            batched(
                keep=lambda m, old, new, _n: old + m * new, keep_var=lambda m, old, new, n: old + m * new * n / (n - 1)
            ),
            "The new statistics are added and the old ones not scaled down, so the running numbers grow without end. "
            "The old part has the weight 1 - momentum.",
        ),
        "running variance divided by N": (
            batched(keep_var=lambda m, old, new, _n: (1 - m) * old + m * new),
            "The running variance takes up the variance divided by N. It stands for data not yet seen, so torch "
            "divides by N - 1 there (and by N when it norms the batch).",
        ),
        "batch normed by N - 1": (
            batched(unbiased=True),
            "The batch is normed with the variance divided by N - 1. For the batch itself it is N; only the running "
            "variance is kept with N - 1.",
        ),
        "running standard deviation": (
            batched(keep_var=lambda m, old, new, n: (1 - m) * old + m * (new * n / (n - 1)).sqrt()),
            "What you keep is a standard deviation. Later its root is taken again: keep the variance.",
        ),
        "running mean only": (
            batched(keep_var=lambda _m, old, _new, _n: old),
            "The running mean moves, the running variance does not: update both.",
        ),
        "eps outside the root": (
            batched(divide=lambda var, eps: var.sqrt() + eps),
            "eps is added to the standard deviation. It belongs to the variance, under the root.",
        ),
        "divided by the variance": (
            batched(divide=lambda var, eps: var + eps),
            "You divide by the variance; its root is wanted.",
        ),
        "each row by itself": (
            batched(axis=1),
            "Each row is normed over its own D numbers: that is layer normalisation. Here each of the D columns is "
            "normed over the N rows, dim=0.",
        ),
        "moves in use as well": (
            counts_in_use,
            "The running statistics move in use, too: a model that only answers would change with each question. "
            "Return them as they are.",
        ),
        "written in place": (
            in_place,
            "The running statistics that you were given were written to. Return new tensors: (1 - momentum) * old + "
            "momentum * new makes one.",
        ),
        "running statistics with a gradient": (
            batched(gradient=True),
            "The numbers are right, but the running statistics carry a gradient: each batch would hang on all batches "
            "before it, and memory would fill up. `detach` what goes into them.",
        ),
        "mean and variance without a gradient": (
            constants,
            "The values are right, the gradient is not: the batch's mean and variance depend on x, and y must pass "
            "that on. Only what is kept for later is detached.",
        ),
        "only the layer's output": (
            lambda x, mean, var, training, momentum=0.1, eps=1e-5: norms.batch_norm(
                x, mean, var, training, momentum, eps
            )[0],
            "Only y is returned. The next running mean and running variance go with it: three values.",
        ),
    },
    right={
        "torch's layer": torchs,
        "torch's function on copies": into_copies,
        "column by column": columns,
        "lerp": batched(
            keep=lambda m, old, new, _n: torch.lerp(old, new, m),
            keep_var=lambda m, old, new, n: torch.lerp(old, new * n / (n - 1), m),
        ),
    },
    equivalent={
        "(x - mean).square().mean(dim=0) -> (mean - x).square().mean(dim=0)": "a square has no sign",
    },
)

# ---- questions

BATCH_FOR_TEXT = question(
    "batch_for_text",
    "Images are commonly normalised over the batch, text is not. What makes batch normalisation hard for text?",
    choices={
        "a": "Tokens are integers, and the mean of integers has no meaning.",
        "b": "It needs more parameters than layer normalisation, and language models are large already.",
        "c": "The batch's sentences differ in length and content, so what a token becomes depends on padding and on "
        "its neighbours in the batch, and the statistics of training do not fit a single text being written.",
        "d": "It divides by the standard deviation, which is 0 for a word that occurs once.",
    },
    explanations={
        "a": "What is normalised are the vectors of the stream, real numbers. No layer norms the ids.",
        "b": "Both have one gain and one shift for each of the D numbers. BatchNorm also keeps running statistics, 2 D "
        "numbers a layer: nothing beside a D × D matrix.",
        "c": "Yes. Count the padding in and it shifts every mean; leave it out and positions far back rest on few "
        "sentences. And statistics must be collected over the batch, from all machines that share it, which "
        "each layer then waits for. A layer norm needs one token and nothing else.",
        "d": "The statistics run over all tokens of the batch for one *feature*; no word is alone in there, and eps "
        "guards the root anyway.",
    },
    answer="c",
)

REGULARISES = question(
    "regularises",
    "Lecture notes say: normalisation also regularises, because mean and standard deviation are those of a random "
    "batch and so add noise. Does this hold for a transformer's LayerNorm?",
    choices={
        "a": "Yes: its statistics are random too, since each token is drawn at random.",
        "b": "No: its mean and variance come from the token's own vector alone, so the same token in the same context "
        "always gets the same numbers. The sentence describes BatchNorm in training.",
        "c": "Yes, but only in training; in use LayerNorm switches to running statistics.",
        "d": "No: LayerNorm has no statistics at all, only learned gains and shifts.",
    },
    explanations={
        "a": "Random data is not noise on top of the data. Put the same sentence into two different batches: LayerNorm "
        "gives the same numbers, BatchNorm does not.",
        "b": "Yes. What LayerNorm does for training is to keep signals and gradients at one scale. Noise, where it is "
        "wanted, comes from dropout.",
        "c": "LayerNorm keeps no running statistics and does the same in training and in use.",
        "d": "It computes a mean and a variance anew for every token; they are only not kept.",
    },
    answer="b",
)

EXERCISES = [LAYER, RMS, BATCH, BATCH_FOR_TEXT, REGULARISES]
