"""Checks of the feed-forward layer: activations, two matrices, the gate, what it costs, and the reading of a neuron."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_dtype, with_gradients
from tinytrans.nn import feedforward as ff

# ---- inputs: seed -> what the learner's function is called with


def numbers(draw: Draw) -> tuple[Tensor]:
    """A table of numbers about as large as those in a model, 0 among them."""
    x = 2 * draw.normal(*draw.sizes(2, 5, 8))
    x[0, 0] = 0.0
    return (x,)


def numbers_double(draw: Draw) -> tuple[Tensor]:
    return (numbers(draw)[0].double(),)


def tails(draw: Draw) -> tuple[Tensor]:
    """Far below and far above 0, in any order."""
    return (torch.tensor([-800.0, -90.0, -20.0, 20.0, 90.0, 800.0])[draw.permutation(6)].view(1, 6, 1),)


def matrix(draw: Draw, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Weights that keep the size of what goes through them."""
    return draw.normal(*shape, dtype=dtype) / math.sqrt(shape[0])


def layer(draw: Draw) -> tuple[Tensor, ...]:
    B, T, D, width = draw.sizes(4, 2, 9)
    return draw.normal(B, T, D), matrix(draw, D, width), matrix(draw, width, D)


def layer_biased(draw: Draw) -> tuple[Tensor, ...]:
    x, w_up, w_down = layer(draw)
    return x, w_up, w_down, draw.normal(w_up.shape[1]), draw.normal(w_up.shape[0])


def layer_b_up(draw: Draw) -> tuple[Any, ...]:
    """With a fourth axis in front."""
    x, *rest = layer_biased(draw)[:4]
    return x[None], *rest, None


def layer_b_down(draw: Draw) -> tuple[Any, ...]:
    x, w_up, w_down, _, b_down = layer_biased(draw)
    return x, w_up, w_down, None, b_down


def layer_bent(draw: Draw) -> tuple[Any, ...]:
    """Another activation than the usual one."""
    return *layer_biased(draw), (torch.square, torch.tanh)[draw.integer(0, 1)]


def layer_even(draw: Draw) -> tuple[Tensor, ...]:
    """As many numbers inside as outside as tokens, one vector with no batch in front."""
    (D,) = draw.sizes(1, 4, 8)
    return draw.normal(D, D), matrix(draw, D, D), matrix(draw, D, D), draw.normal(D), draw.normal(D)


def layer_alone(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of a single token, in double precision."""
    D, width = draw.sizes(2, 3, 9)
    double = torch.float64
    w_up, w_down = matrix(draw, D, width, dtype=double), matrix(draw, width, D, dtype=double)
    x, b_up, b_down = (draw.normal(*shape, dtype=double) for shape in ((1, 1, D), (width,), (D,)))
    return x, w_up, w_down, b_up, b_down


def gated(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of one."""
    T, D, width = draw.sizes(3, 2, 9)
    return draw.normal(1, T, D), matrix(draw, D, width), matrix(draw, D, width), matrix(draw, width, D)


def gated_even(draw: Draw) -> tuple[Tensor, ...]:
    (D,) = draw.sizes(1, 4, 8)
    return draw.normal(D, D), *(matrix(draw, D, D) for _ in range(3))


def gated_alone(draw: Draw) -> tuple[Tensor, ...]:
    D, width = draw.sizes(2, 3, 9)
    shapes = ((D, width), (D, width), (width, D))
    return draw.normal(1, 1, D, dtype=torch.float64), *(matrix(draw, *shape, dtype=torch.float64) for shape in shapes)


def widths(draw: Draw) -> tuple[int, int]:
    """D and F; F is neither 4 D nor D."""
    D = draw.integer(5, 60)
    return D, 3 * D + draw.integer(1, 9)


def with_bias(draw: Draw) -> tuple[int, int, bool]:
    return *widths(draw), True


def without_bias(draw: Draw) -> tuple[int, int, bool]:
    return *widths(draw), False


def plain_width(draw: Draw) -> tuple[int]:
    """A width of which two thirds are no whole number."""
    return (3 * draw.integer(10, 200) + draw.integer(1, 2),)


def whole_width(draw: Draw) -> tuple[int]:
    """A width of which two thirds are whole."""
    return (3 * draw.integer(10, 200),)


def odd_width(draw: Draw) -> tuple[int]:
    """A width of which two thirds, rounded up, are odd."""
    return (3 * draw.integer(10, 200) + 1,)


def rounded_width(draw: Draw) -> tuple[int, int]:
    """Two thirds lie a little above a multiple of 14, 18 or 22, no powers of two: the nearest multiple is below."""
    multiple = (14, 18, 22)[draw.integer(0, 2)]
    return 3 * multiple // 2 * draw.integer(10, 200) + draw.integer(2, 9), multiple


def fitting_width(draw: Draw) -> tuple[int, int]:
    """Two thirds are a multiple of 16 already."""
    return 24 * draw.integer(10, 200), 16


def nearly_width(draw: Draw) -> tuple[int, int]:
    """Two thirds lie a little below a multiple of 16."""
    return 24 * draw.integer(10, 200) - draw.integer(2, 9), 16


def tight_width(draw: Draw) -> tuple[int, int]:
    """Two thirds lie two thirds above a multiple of 1024: the share of it that is left is below a thousandth."""
    return 1536 * draw.integer(2, 20) + 1, 1024


def activity(draw: Draw) -> tuple[Tensor, int, int]:
    """Hidden numbers of N places, far below 0 some of them; which neuron, and how many places."""
    N, width = draw.integer(12, 20), draw.integer(6, 9)
    return draw.normal(N, width) - 0.5, draw.integer(1, width - 1), draw.integer(3, 5)


def activity_single(draw: Draw) -> tuple[Tensor, int, int]:
    """The one place where the neuron is largest."""
    hidden, neuron, _ = activity(draw)
    return hidden, neuron, 1


def activity_square(draw: Draw) -> tuple[Tensor, int, int]:
    """As many places as neurons."""
    N = draw.integer(8, 12)
    return draw.normal(N, N) - 0.5, draw.integer(1, N - 1), draw.integer(3, 5)


def values(draw: Draw) -> tuple[Tensor, Tensor, int, int]:
    width, D, V = draw.integer(10, 14), draw.integer(4, 6), draw.integer(15, 20)
    lengths = 0.5 + 3 * draw.uniform(V, 1)  # so that a cosine would order them otherwise
    return draw.normal(width, D), lengths * draw.normal(V, D), draw.integer(1, 3), draw.integer(3, 5)


def values_single(draw: Draw) -> tuple[Tensor, Tensor, int, int]:
    """The one word that the neuron speaks for most."""
    return *values(draw)[:3], 1


def values_square(draw: Draw) -> tuple[Tensor, Tensor, int, int]:
    """As many neurons as numbers in the stream as words."""
    (D,) = draw.sizes(1, 8, 12)
    return draw.normal(D, D), draw.normal(D, D), draw.integer(1, D - 1), draw.integer(3, 5)


# ---- ways to run an answer, and laws: the sentence that says what is violated


def magnified(answer: Any, x: Tensor) -> Any:
    """A thousand times the distance from the exact GELU, so that each digit of the constants shows; and the dtype."""
    value, dtype = with_dtype(answer, x)
    return 1000 * (value - F.gelu(x)), dtype


def token_alone(answer: Any, x: Tensor, *rest: Any) -> Any:
    """What becomes of the first token in its sentence, and alone."""
    return answer(x, *rest)[:, :1], answer(x[:, :1], *rest)


def each_alone(found: Any, *_: Any) -> str | None:
    """The law of the layer: a token's result does not depend on its neighbours."""
    together, alone = found
    if together.shape == alone.shape and (together - alone).abs().max() > 1e-4:
        return "a token's result changes when its neighbours are taken away: each position is to be computed alone"
    return None


def like_relu(y: Any, x: Tensor) -> str | None:
    """The law of the tails: nothing far below 0, x itself far above."""
    if not y.isfinite().all():
        return f"at x = {x[~y.isfinite()][0].item():.0f} the result is {y[~y.isfinite()][0].item()}"
    off = (y - x.clamp(min=0)).abs() > 1e-3
    return f"at x = {x[off][0].item():.0f} the result is {y[off][0].item():.4g}" if off.any() else None


def in_descending_order(found: Any, hidden: Tensor, neuron: int, k: int) -> str | None:
    """The law of the triggers: k places, from the largest number down."""
    if not isinstance(found, Tensor) or found.shape != (k,):
        return None
    there = hidden[found.long(), neuron]
    if (there[1:] > there[:-1]).any():
        return (
            f"the neuron's numbers at your places are {[round(x, 2) for x in there.tolist()]}: the largest comes first"
        )
    return None


# ---- activations


def cdf(x: Tensor) -> Tensor:
    return torch.distributions.Normal(0.0, 1.0).cdf(x)


def gelu_from(share: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """x times a share of it."""
    return lambda x: x * share(x)


def erf_share(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def by_math(x: Tensor) -> Tensor:
    """Number by number, with Python's own erfc."""
    flat = [n * 0.5 * math.erfc(-n / math.sqrt(2)) for n in x.double().flatten().tolist()]
    return torch.tensor(flat, dtype=x.dtype).view_as(x)


def in_place_half(x: Tensor) -> Tensor:
    return x.data.mul_(0.5) * (1 + torch.erf(2 * x / math.sqrt(2)))


GELU = exercise(
    "gelu",
    reference=ff.gelu,
    oracle=F.gelu,
    requirements=[
        requires("the exact values, and the gradient", 2, numbers, run=with_gradients),
        requires("the tails: nothing far below 0, x itself far above", 1, tails, law=like_relu),
        requires("double precision, to the last digits", 1, numbers_double, run=magnified),
    ],
    wrong={
        "the tanh approximation": (
            ff.gelu_tanh,
            "This is the approximation by tanh, off by up to 0.0005. The exact one is asked for: erf.",
        ),
        "the sigmoid approximation": (
            gelu_from(lambda x: torch.sigmoid(1.702 * x)),
            "This is the approximation x sigmoid(1.702 x), off by up to 0.02. The exact one is asked for: erf.",
        ),
        "erf without the root": (
            gelu_from(lambda x: 0.5 * (1 + torch.erf(x))),
            "x goes into erf as it is. The chance that a normal number is below x is (1 + erf(x / √2)) / 2.",
        ),
        "erf times the root": (
            gelu_from(lambda x: 0.5 * (1 + torch.erf(x * math.sqrt(2)))),
            "x is multiplied by √2 inside of erf. It is divided.",
        ),
        "erf of x / 2": (
            gelu_from(lambda x: 0.5 * (1 + torch.erf(x / 2))),
            "x is divided by 2 inside of erf. It is divided by √2.",
        ),
        "half is missing": (
            gelu_from(lambda x: 1 + torch.erf(x / math.sqrt(2))),
            "The half is missing: 1 + erf runs from 0 to 2, and a chance from 0 to 1.",
        ),
        "one is missing": (
            gelu_from(lambda x: 0.5 * torch.erf(x / math.sqrt(2))),
            "The 1 is missing: erf runs from -1 to 1, and a chance from 0 to 1.",
        ),
        "the chance alone": (
            erf_share,
            "This is the chance itself. Multiply it by x.",
        ),
        "the density": (
            gelu_from(lambda x: torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)),
            "x is multiplied by the normal density, the bell. The chance of being *below* x is asked for, the area "
            "under the bell.",
        ),
        "the other side": (
            gelu_from(lambda x: 0.5 * (1 - torch.erf(x / math.sqrt(2)))),
            "The sign of erf is turned: large numbers vanish and very negative ones pass.",
        ),
        "ReLU": (F.relu, "This is ReLU: everything below 0 is cut off sharply."),
        "SiLU": (
            F.silu,
            "This is SiLU, x times its sigmoid. It comes later; here it is the normal distribution's chance.",
        ),
        "x left in front": (
            lambda x: x + x * erf_share(x),
            "x is added on top, as in a residual. That is the block's affair (lesson 07).",
        ),
        "written in place": (
            in_place_half,
            "The input was written to: an operation with an underscore works in place. The residual still needs x.",
        ),
        "no gradient through the chance": (
            gelu_from(lambda x: erf_share(x).detach()),
            "The values are right, the gradient is not: the chance depends on x, too.",
        ),
        "single precision": (
            lambda x: ff.gelu(x.float()),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "torch's own": F.gelu,
        "the normal distribution": gelu_from(cdf),
        "erfc": lambda x: x / 2 * torch.erfc(-x / 2**0.5),
        "special": gelu_from(torch.special.ndtr),
    },
)

ROOT = math.sqrt(2 / math.pi)


def tanh_gelu(inner: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """x/2 (1 + tanh(...))."""
    return lambda x: 0.5 * x * (1 + torch.tanh(inner(x)))


GELU_TANH = exercise(
    "gelu_tanh",
    reference=ff.gelu_tanh,
    oracle=lambda x: F.gelu(x, approximate="tanh"),
    requirements=[
        requires("the values of the approximation, and the gradient", 2, numbers, run=with_gradients),
        requires("the tails: nothing far below 0, x itself far above", 1, tails, law=like_relu),
        requires("double precision, to the last digits", 1, numbers_double, run=magnified),
    ],
    wrong={
        "the exact one": (
            ff.gelu,
            "This is the exact GELU. The approximation is asked for: GPT-2's weights were trained with it.",
        ),
        "cube left out": (
            tanh_gelu(lambda x: ROOT * x),
            "The cube is missing: 0.044715 x³ bends the tanh toward the normal distribution.",
        ),
        "square for cube": (
            tanh_gelu(lambda x: ROOT * (x + 0.044715 * x**2)),
            "x is squared where it should be cubed. A square is the same on both sides of 0.",
        ),
        "cube outside of the root": (
            tanh_gelu(lambda x: ROOT * x + 0.044715 * x**3),
            "√(2/π) multiplies x alone. It multiplies the whole bracket: √(2/π) (x + 0.044715 x³).",
        ),
        "root left out": (
            tanh_gelu(lambda x: x + 0.044715 * x**3),
            "√(2/π) is missing.",
        ),
        "no root of 2/π": (
            tanh_gelu(lambda x: 2 / math.pi * (x + 0.044715 * x**3)),
            "The bracket is multiplied by 2/π. Its root is meant.",
        ),
        "root of 2 over π": (
            tanh_gelu(lambda x: math.sqrt(2) / math.pi * (x + 0.044715 * x**3)),
            "The root covers the 2 alone: √2/π instead of √(2/π).",
        ),
        "root of π/2": (
            tanh_gelu(lambda x: math.sqrt(math.pi / 2) * (x + 0.044715 * x**3)),
            "The fraction is upside down: √(π/2) instead of √(2/π).",
        ),
        "0.44715": (
            tanh_gelu(lambda x: ROOT * (x + 0.44715 * x**3)),
            "The constant is ten times too large: 0.044715.",
        ),
        "a rounded constant": (
            tanh_gelu(lambda x: ROOT * (x + 0.0447 * x**3)),
            "The constant is cut to 0.0447: it is 0.044715.",
        ),
        "the sign of the cube": (
            tanh_gelu(lambda x: ROOT * (x - 0.044715 * x**3)),
            "The cube is subtracted; it is added.",
        ),
        "half is missing": (
            lambda x: 2 * ff.gelu_tanh(x),
            "The half is missing: 1 + tanh runs from 0 to 2.",
        ),
        "one is missing": (
            lambda x: ff.gelu_tanh(x) - x / 2,
            "The 1 is missing: tanh runs from -1 to 1, and a share from 0 to 1.",
        ),
        "x is missing": (
            lambda x: 0.5 * (1 + torch.tanh(ROOT * (x + 0.044715 * x**3))),
            "This is the share alone. Multiply it by x.",
        ),
        "the sigmoid approximation": (
            gelu_from(lambda x: torch.sigmoid(1.702 * x)),
            "This is the other approximation, x sigmoid(1.702 x), which is ten times less exact.",
        ),
        "single precision": (
            lambda x: ff.gelu_tanh(x.float()),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "torch's own": lambda x: F.gelu(x, approximate="tanh"),
        "by a sigmoid": gelu_from(lambda x: torch.sigmoid(2 * ROOT * (x + 0.044715 * x * x * x))),
        "x taken out": tanh_gelu(lambda x: ROOT * x * (1 + 0.044715 * x.square())),
    },
)

SILU = exercise(
    "silu",
    reference=ff.silu,
    oracle=F.silu,
    requirements=[
        requires("x times its sigmoid, and the gradient", 2, numbers, run=with_gradients),
        requires("the tails: nothing far below 0, x itself far above", 1, tails, law=like_relu),
        requires("double precision", 1, numbers_double, run=with_dtype),
    ],
    wrong={
        "the sigmoid alone": (torch.sigmoid, "This is the sigmoid. Multiply it by x."),
        "a steeper sigmoid": (
            gelu_from(lambda x: torch.sigmoid(1.702 * x)),
            "x is multiplied by 1.702 inside of the sigmoid, which approximates GELU. Here x goes in as it is.",
        ),
        "the other side": (
            gelu_from(lambda x: torch.sigmoid(-x)),
            "The sign in the exponent is turned: large numbers vanish and very negative ones pass.",
        ),
        "tanh for sigmoid": (
            gelu_from(torch.tanh),
            "x is multiplied by tanh, which is negative below 0. Take the sigmoid.",
        ),
        "GELU": (F.gelu, "This is GELU. SiLU takes the sigmoid in place of the normal distribution's chance."),
        "ReLU": (F.relu, "This is ReLU: everything below 0 is cut off sharply."),
        "infinity over infinity": (
            lambda x: x * x.exp() / (1 + x.exp()),
            "exp(x) overflows for large x, and infinity over infinity is NaN. With exp(-x) below the line, or "
            "`torch.sigmoid`, nothing overflows into NaN.",
        ),
        "softplus": (
            F.softplus,
            "This is softplus, ln(1 + e^x), whose *slope* is the sigmoid. SiLU is x times the sigmoid.",
        ),
        "x added": (lambda x: x + x * torch.sigmoid(x), "x is added on top, as in a residual."),
        "no gradient through the sigmoid": (
            gelu_from(lambda x: torch.sigmoid(x).detach()),
            "The values are right, the gradient is not: the sigmoid depends on x, too.",
        ),
        "single precision": (
            lambda x: ff.silu(x.float()),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "torch's own": F.silu,
        "over 1 + exp": lambda x: x / (1 + torch.exp(-x)),
        "by tanh": lambda x: x / 2 * (1 + torch.tanh(x / 2)),
    },
)

# ---- the layer

Layer = Callable[..., Tensor]
Bend = Callable[[Tensor], Tensor]


def composed(
    *,
    bend: Bend | None = None,
    read: Bend = lambda x: x,
    last: Callable[[Tensor, Tensor], Tensor] = lambda y, _x: y,
) -> Layer:
    """The layer out of parts: what is read of x, how it is bent whatever was asked for, what happens at the end."""

    def run(
        x: Tensor,
        w_up: Tensor,
        w_down: Tensor,
        b_up: Tensor | None = None,
        b_down: Tensor | None = None,
        activation: Bend = ff.gelu,
    ) -> Tensor:
        hidden = read(x) @ w_up + (0 if b_up is None else b_up)
        return last((bend or activation)(hidden) @ w_down + (0 if b_down is None else b_down), x)

    return run


def rearranged(change: Callable[..., tuple[Tensor | None, ...]]) -> Layer:
    """The layer with other weights and biases than those that were handed in."""
    return lambda x, w_up, w_down, b_up=None, b_down=None, bend=ff.gelu: ff.feed_forward(
        x, *change(w_up, w_down, b_up, b_down), bend
    )


def bias_behind(
    x: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    b_up: Tensor | None = None,
    b_down: Tensor | None = None,
    activation: Bend = ff.gelu,
) -> Tensor:
    """The first bias is added behind the activation."""
    hidden = activation(x @ w_up) + (0 if b_up is None else b_up)
    return hidden @ w_down + (0 if b_down is None else b_down)


def as_memory(
    x: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    b_up: Tensor | None = None,
    b_down: Tensor | None = None,
    activation: Bend = ff.gelu,
) -> Tensor:
    """Neuron by neuron: each key's fit times its value."""
    y = torch.zeros_like(x) if b_down is None else b_down.expand_as(x)
    for i, value in enumerate(w_down):
        fit = (x * w_up[:, i]).sum(-1, keepdim=True) + (0 if b_up is None else b_up[i])
        y = y + activation(fit) * value
    return y


def linear(
    x: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    b_up: Tensor | None = None,
    b_down: Tensor | None = None,
    activation: Bend = ff.gelu,
) -> Tensor:
    return F.linear(activation(F.linear(x, w_up.mT, b_up)), w_down.mT, b_down)


def einsums(
    x: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    b_up: Tensor | None = None,
    b_down: Tensor | None = None,
    activation: Bend = ff.gelu,
) -> Tensor:
    hidden = torch.einsum("...d,df->...f", x, w_up)
    y = torch.einsum("...f,fd->...d", activation(hidden if b_up is None else hidden + b_up), w_down)
    return y if b_down is None else y + b_down


def over_tokens(
    x: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    b_up: Tensor | None = None,
    b_down: Tensor | None = None,
    activation: Bend = ff.gelu,
) -> Tensor:
    rows = [linear(token, w_up, w_down, b_up, b_down, activation) for token in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows).view(x.shape)


FEED_FORWARD = exercise(
    "feed_forward",
    reference=ff.feed_forward,
    oracle=as_memory,
    requirements=[
        requires("widen, bend, narrow, and the gradients", 2, layer, run=with_gradients),
        requires("both biases", 1, layer_biased),
        requires("the first bias alone", 1, layer_b_up),
        requires("the second bias alone", 1, layer_b_down),
        requires("each position by itself", 1, layer_biased, run=token_alone, law=each_alone),
        requires("equal widths", 1, layer_even),
        requires("a batch of a single token, double precision", 1, layer_alone, run=with_dtype),
        requires("another activation, where one is handed in", 1, layer_bent),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: ff.feed_forward(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a batch of one loses its axis, and so does a "
            "single token.",
        ),
        "no activation": (
            composed(bend=lambda h: h),
            "Nothing bends the hidden numbers, so that two matrices are no more than one: x (W_up W_down).",
        ),
        "always GELU": (
            composed(bend=ff.gelu),
            "Right where nothing else is asked for. But `activation` is accepted and not used: call it, "
            "`activation(hidden)`.",
        ),
        "ReLU for GELU": (composed(bend=F.relu), "You bend with ReLU; the default is your gelu."),
        "SiLU for GELU": (composed(bend=F.silu), "You bend with SiLU; the default is your gelu."),
        "the tanh approximation": (
            composed(bend=ff.gelu_tanh),
            "You bend with the approximation by tanh; the default is the exact gelu.",
        ),
        "bent twice": (
            composed(last=lambda y, _x: ff.gelu(y)),
            "The result is bent as well. The layer's output goes into the residual stream, where it must be able to "
            "subtract: no activation behind W_down.",
        ),
        "bent before": (
            composed(read=ff.gelu, bend=lambda h: h),
            "The activation comes before the first matrix. It belongs between the two.",
        ),
        "softmax for the activation": (
            composed(bend=lambda h: h.softmax(-1)),
            "The hidden numbers go through a softmax. That is attention's way of sharing out; here each key answers by "
            "itself.",
        ),
        "residual inside": (
            composed(last=lambda y, x: x + y),
            "x is added to the result. The residual is the block's affair (lesson 07): here only what is added to it.",
        ),
        "the mean of the tokens": (
            composed(read=lambda x: x.mean(-2, keepdim=True).expand_as(x) if x.dim() > 1 else x),
            "The tokens are averaged first, so that all get the same result. Each position is computed alone, with the "
            "same weights.",
        ),
        "no biases": (
            rearranged(lambda up, down, _b_up, _b_down: (up, down, None, None)),
            "The biases are accepted and not used. Where they are given, they are added: b_up before the activation, "
            "b_down at the end.",
        ),
        "no first bias": (
            rearranged(lambda up, down, _b_up, b_down: (up, down, None, b_down)),
            "b_up is not used: add it before the activation.",
        ),
        "no second bias": (
            rearranged(lambda up, down, b_up, _b_down: (up, down, b_up, None)),
            "b_down is not used: add it at the end.",
        ),
        "first bias behind the activation": (
            bias_behind,
            "b_up is added after the activation, where it is only another part of b_down. It shifts where the "
            "activation bends, so it comes before.",
        ),
        "biases swapped": (
            rearranged(lambda up, down, b_up, b_down: (up, down, b_down, b_up)),
            "b_up and b_down have changed places.",
        ),
        "matrices swapped": (
            rearranged(lambda up, down, b_up, b_down: (down, up, b_up, b_down)),
            "w_down is used before w_up. First (D, F), then (F, D).",
        ),
        "transposed": (
            rearranged(lambda up, down, b_up, b_down: (up.mT, down.mT, b_up, b_down)),
            "The matrices are transposed. Here they are stored as they are used, x @ w_up; only torch's nn.Linear "
            "stores them the other way.",
        ),
        "not narrowed": (
            lambda x, w_up, w_down, b_up=None, b_down=None, bend=ff.gelu: bend(
                x @ w_up + (0 if b_up is None else b_up)
            ),
            "The second matrix is missing: the hidden numbers are returned.",
        ),
        "no gradient through the first matrix": (
            rearranged(lambda up, down, b_up, b_down: (up.detach(), down, b_up, b_down)),
            "The values are right, but w_up gets no gradient. Look for `detach`, `.data` or `no_grad`.",
        ),
        "single precision": (
            lambda *inputs: ff.feed_forward(*(i.float() if isinstance(i, Tensor) else i for i in inputs)),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "neuron by neuron": as_memory,
        "F.linear": linear,
        "einsum": einsums,
        "token by token": over_tokens,
    },
)

# ---- the count

COUNT = exercise(
    "feed_forward_parameters",
    reference=ff.feed_forward_parameters,
    oracle=lambda D, width, bias=True: sum(
        p.numel() for p in ff.FeedForward(D, width, bias=bias).to("meta").parameters()
    ),
    requirements=[
        requires("with biases", 1, with_bias),
        requires("without", 1, without_bias),
        requires("biases unless told otherwise", 1, widths),
    ],
    wrong={
        "a float": (
            lambda *sizes: float(ff.feed_forward_parameters(*sizes)),
            "The count is right, and a float. Weights are counted one by one: an int.",
        ),
        "without biases": (
            lambda D, width, bias=True: 2 * D * width,
            "The biases are not counted: F for the first matrix, D for the second.",
        ),
        "always with biases": (
            lambda D, width, bias=True: ff.feed_forward_parameters(D, width),
            "The biases are counted whether there are any or not: look at `bias`.",
        ),
        "turned round": (
            lambda D, width, bias=True: ff.feed_forward_parameters(D, width, not bias),
            "The two cases are exchanged: biases count where bias is True.",
        ),
        "one matrix": (
            lambda D, width, bias=True: D * width + (width + D if bias else 0),
            "Only one matrix is counted. There are two, (D, F) and (F, D).",
        ),
        "three matrices": (
            lambda D, width, bias=True: 3 * D * width + (width + D if bias else 0),
            "Three matrices are counted, as SwiGLU has them. Here there are two.",
        ),
        "two first biases": (
            lambda D, width, bias=True: 2 * D * width + (2 * width if bias else 0),
            "The second bias has D numbers, one for each number that comes out.",
        ),
        "two second biases": (
            lambda D, width, bias=True: 2 * D * width + (2 * D if bias else 0),
            "The first bias has F numbers, one for each hidden one.",
        ),
        "one bias": (
            lambda D, width, bias=True: 2 * D * width + (width if bias else 0),
            "Only the first bias is counted. The second adds D more.",
        ),
        "a bias for each weight's row": (
            lambda D, width, bias=True: 2 * D * width + (2 if bias else 0),
            "Each bias is counted as one number. A bias is a vector: F numbers, and D.",
        ),
        "always four times as wide": (
            lambda D, width, bias=True: ff.feed_forward_parameters(D, 4 * D, bias),
            "You take F = 4 D. The width is handed in.",
        ),
    },
    right={
        "the notes' formula": lambda D, width, bias=True: (
            (D * width + width) + (width * D + D) if bias else D * width + width * D
        ),
        "rows of weights and a bias": lambda D, width, bias=True: (D + bias) * width + (width + bias) * D,
        "torch counts": lambda D, width, bias=True: sum(
            p.numel()
            for one in (torch.nn.Linear(D, width, bias=bias), torch.nn.Linear(width, D, bias=bias))
            for p in one.parameters()
        ),
    },
)

# ---- the gate


def glu(
    gate: Callable[[Tensor], Tensor] = ff.silu,
    join: Callable[[Tensor, Tensor], Tensor] = lambda g, u: g * u,
    last: Callable[[Tensor, Tensor], Tensor] = lambda y, _x: y,
) -> Layer:
    """A gated layer out of parts: how the gate bends, how gate and the other half meet, what happens at the end."""
    return lambda x, w_gate, w_up, w_down: last(join(gate(x @ w_gate), x @ w_up) @ w_down, x)


def glu_neurons(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """Neuron by neuron, with the logistic function written out."""
    y = torch.zeros_like(x)
    for i, value in enumerate(w_down):
        gate, up = ((x * w[:, i]).sum(-1, keepdim=True) for w in (w_gate, w_up))
        y = y + gate / (1 + torch.exp(-gate)) * up * value
    return y


SWIGLU = exercise(
    "swiglu",
    reference=ff.swiglu,
    oracle=glu_neurons,
    requirements=[
        requires("equal widths", 1, gated_even),
        requires("gate, product, narrowing, and the gradients", 2, gated, run=with_gradients),
        requires("a batch of a single token, double precision", 1, gated_alone, run=with_dtype),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: ff.swiglu(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a batch of one loses its axis, and so does a "
            "single token.",
        ),
        "silu on the other branch": (
            lambda x, w_gate, w_up, w_down: ff.swiglu(x, w_up, w_gate, w_down),
            "silu bends x W_up, and x W_gate passes straight. It is the gate that is bent. As a design it would do "
            "as well; but the weights of a trained model would land in the wrong places.",
        ),
        "sigmoid gate": (
            glu(torch.sigmoid),
            "The gate is a sigmoid. That is the older GLU; SwiGLU's gate is silu, x times its sigmoid.",
        ),
        "GELU gate": (glu(F.gelu), "The gate is a GELU. That is GEGLU; SwiGLU's gate is silu."),
        "ReLU gate": (glu(F.relu), "The gate is a ReLU. That is ReGLU; SwiGLU's gate is silu."),
        "tanh gate": (glu(torch.tanh), "The gate is a tanh; SwiGLU's gate is silu."),
        "gate not bent": (
            glu(lambda g: g),
            "Neither branch is bent. A product of two linear views is a layer, the bilinear one, but not SwiGLU.",
        ),
        "both bent": (
            glu(join=lambda g, u: g * ff.silu(u)),
            "Both branches go through silu. x W_up passes straight.",
        ),
        "the product bent": (
            glu(lambda g: g, join=lambda g, u: ff.silu(g * u)),
            "silu bends the product. It bends the gate, before the two are multiplied.",
        ),
        "added": (
            glu(join=lambda g, u: g + u),
            "Gate and numbers are added. A gate multiplies: 0 lets nothing through.",
        ),
        "no second branch": (
            glu(join=lambda g, _u: g),
            "x W_up is not used: that is an ordinary layer with silu.",
        ),
        "no gate": (
            glu(join=lambda _g, u: u),
            "The gate is not used, and nothing bends.",
        ),
        "residual inside": (
            glu(last=lambda y, x: x + y),
            "x is added to the result. The residual is the block's affair (lesson 07).",
        ),
        "softmax gate": (
            glu(lambda g: g.softmax(-1)),
            "The gates go through a softmax, so that they compete. Each gate decides by itself: silu.",
        ),
        "transposed": (
            lambda x, w_gate, w_up, w_down: ff.swiglu(x, w_gate.mT, w_up.mT, w_down.mT),
            "The matrices are transposed. Here they are stored as they are used: x @ w_gate.",
        ),
        "not narrowed": (
            lambda x, w_gate, w_up, w_down: ff.silu(x @ w_gate) * (x @ w_up),
            "The third matrix is missing: the hidden numbers are returned.",
        ),
        "no gradient through the gate": (
            glu(lambda g: ff.silu(g).detach()),
            "The values are right, but no gradient reaches the gate: it would never learn what to let through.",
        ),
        "single precision": (
            lambda *inputs: ff.swiglu(*(one.float() for one in inputs)),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "neuron by neuron": glu_neurons,
        "F.silu and F.linear": lambda x, w_gate, w_up, w_down: F.linear(
            F.silu(F.linear(x, w_gate.mT)) * F.linear(x, w_up.mT), w_down.mT
        ),
        "one matrix for both": lambda x, w_gate, w_up, w_down: halves(x @ torch.cat((w_gate, w_up), dim=1)) @ w_down,
        "einsum": lambda x, w_gate, w_up, w_down: torch.einsum(
            "...f,...f,fd->...d", F.silu(torch.einsum("...d,df->...f", x, w_gate)), x @ w_up, w_down
        ),
    },
)


def halves(both: Tensor) -> Tensor:
    """silu of the first half times the second."""
    gate, up = both.chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


WIDTH = exercise(
    "gated_width",
    reference=ff.gated_width,
    oracle=lambda d_ff, multiple=1: next(n for n in range(0, 10 * d_ff, multiple) if 3 * n >= 2 * d_ff),
    requirements=[
        requires("two thirds, where they are whole", 1, whole_width),
        requires("two thirds, rounded up", 1, plain_width),
        requires("up to the next multiple", 1, rounded_width),
        requires("to the next whole number unless told otherwise", 1, odd_width),
        requires("up, and not down, also from just below one", 1, nearly_width),
        requires("and no further than that", 1, fitting_width),
        requires("less than one above a multiple goes up to the next", 1, tight_width),
    ],
    wrong={
        "a float": (
            lambda *sizes: float(ff.gated_width(*sizes)),
            "The width is right, and a float, which no layer takes for its width. `//` and `math.ceil` give an int.",
        ),
        "multiples of powers of two only": (
            lambda d_ff, multiple=1: (math.ceil(2 * d_ff / 3) + multiple - 1) & ~(multiple - 1),
            "The trick with `& ~(multiple - 1)` rounds up only where the multiple is a power of two. Divide, round up, "
            "multiply.",
        ),
        "rounded down": (
            lambda d_ff, multiple=1: 2 * d_ff // 3 // multiple * multiple,
            "You round down. Rounded up is asked for, as Llama does.",
        ),
        "to the nearest": (
            lambda d_ff, multiple=1: round(2 * d_ff / 3 / multiple) * multiple,
            "You round to the nearest multiple. The next one *above* is asked for.",
        ),
        "always one more": (
            lambda d_ff, multiple=1: (2 * d_ff // 3 // multiple + 1) * multiple,
            "You go one multiple too far where two thirds already are one.",
        ),
        "rounded down, then up": (
            lambda d_ff, multiple=1: -(-(2 * d_ff // 3) // multiple) * multiple,
            "Two thirds are cut to a whole number before they are rounded up, so that a remainder of a third is lost.",
        ),
        "multiple not used": (
            lambda d_ff, multiple=1: -(-2 * d_ff // 3),
            "`multiple` is accepted and not used.",
        ),
        "eight thirds": (
            lambda d_ff, multiple=1: -(-8 * d_ff // (3 * multiple)) * multiple,
            "You take 8/3. That is the factor for D where d_ff = 4 D; here d_ff itself comes in.",
        ),
        "half": (
            lambda d_ff, multiple=1: -(-d_ff // (2 * multiple)) * multiple,
            "You take one half. Three matrices share what two had: 3 F' = 2 F.",
        ),
        "three quarters": (
            lambda d_ff, multiple=1: -(-3 * d_ff // (4 * multiple)) * multiple,
            "You take three quarters. Three matrices share what two had: 3 F' = 2 F.",
        ),
        "a third": (
            lambda d_ff, multiple=1: -(-d_ff // (3 * multiple)) * multiple,
            "You take one third. Three matrices share what *two* had: 3 F' = 2 F.",
        ),
        "upside down": (
            lambda d_ff, multiple=1: -(-3 * d_ff // (2 * multiple)) * multiple,
            "You multiply by 3/2. More matrices must be narrower, not wider.",
        ),
        "the same width": (
            lambda d_ff, multiple=1: -(-d_ff // multiple) * multiple,
            "The width stays as it was. Three matrices of it have half as many parameters again as two.",
        ),
        "multiple added": (
            lambda d_ff, multiple=1: -(-2 * d_ff // 3) + multiple,
            "`multiple` is added. The width should be divisible by it.",
        ),
    },
    right={
        "math.ceil": lambda d_ff, multiple=1: math.ceil(2 * d_ff / 3 / multiple) * multiple,
        "a loop": lambda d_ff, multiple=1: next(n for n in range(0, 10 * d_ff, multiple) if n >= 2 * d_ff / 3),
        "divmod": lambda d_ff, multiple=1: (lambda q, r: (q + bool(r)) * multiple)(*divmod(2 * d_ff, 3 * multiple)),
    },
)

# ---- reading a neuron


def sorted_places(hidden: Tensor, neuron: int, k: int) -> Tensor:
    """By Python's sort."""
    column = [row[neuron] for row in hidden.tolist()]
    return torch.tensor(sorted(range(len(column)), key=lambda n: -column[n])[:k])


TRIGGERS = exercise(
    "neuron_triggers",
    reference=ff.neuron_triggers,
    oracle=sorted_places,
    requirements=[
        requires("the places where it is largest, largest first", 1, activity, law=in_descending_order),
        requires("a single place: still a list, of one", 1, activity_single, law=in_descending_order),
        requires("as many places as neurons", 1, activity_square, law=in_descending_order),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: ff.neuron_triggers(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: with k = 1 a bare number is left of the list.",
        ),
        "a place's neurons": (
            lambda hidden, neuron, k: hidden[neuron].topk(min(k, hidden.shape[1])).indices,
            "You read row `neuron`: the neurons of one place. A neuron is a column: its number at all places.",
        ),
        "the smallest": (
            lambda hidden, neuron, k: hidden[:, neuron].topk(k, largest=False).indices,
            "These are the places where the neuron is smallest. `argsort` begins with those, unless told otherwise.",
        ),
        "smallest of the largest first": (
            lambda hidden, neuron, k: hidden[:, neuron].topk(k).indices.flip(0),
            "The right places, in the wrong order: the largest comes first.",
        ),
        "by size alone": (
            lambda hidden, neuron, k: hidden[:, neuron].abs().topk(k).indices,
            "You order by the absolute value, so that a strong *no* counts as a trigger. Largest is furthest above 0.",
        ),
        "the numbers": (
            lambda hidden, neuron, k: hidden[:, neuron].topk(k).values,
            "These are the neuron's numbers. The places are asked for: `.indices`.",
        ),
        "in the order of the text": (
            lambda hidden, neuron, k: hidden[:, neuron].topk(k).indices.sort().values,
            "The right places in the order of the text. The largest comes first.",
        ),
        "one only": (
            lambda hidden, neuron, k: hidden[:, neuron].argmax(),
            "This is the best place alone. k of them are asked for.",
        ),
        "one more": (
            lambda hidden, neuron, k: hidden[:, neuron].topk(k + 1).indices,
            "There is one place too many: k are asked for.",
        ),
        "the neuron before": (
            lambda hidden, neuron, k: hidden[:, neuron - 1].topk(k).indices,
            "You read the neuron before. Neurons count from 0.",
        ),
        "places from 1": (
            lambda hidden, neuron, k: hidden[:, neuron].topk(k).indices + 1,
            "Your places count from 1. They count from 0.",
        ),
        "largest share": (
            lambda hidden, neuron, k: hidden.softmax(-1)[:, neuron].topk(k).indices,
            "You compare the neuron with its neighbours at the same place first. Its own number is what counts.",
        ),
    },
    right={
        "python's sort": sorted_places,
        "argsort": lambda hidden, neuron, k: hidden[:, neuron].argsort(descending=True)[:k],
        "sort": lambda hidden, neuron, k: torch.sort(hidden.T[neuron], descending=True).indices[:k],
    },
)


def sorted_words(w_down: Tensor, words: Tensor, neuron: int, k: int) -> Tensor:
    """By Python's sort and sums."""
    value = w_down[neuron].tolist()
    scores = [math.fsum(a * b for a, b in zip(value, word, strict=True)) for word in words.tolist()]
    return torch.tensor(sorted(range(len(scores)), key=lambda v: -scores[v])[:k])


WORDS = exercise(
    "neuron_words",
    reference=ff.neuron_words,
    oracle=sorted_words,
    requirements=[
        requires("the words it speaks for, strongest first", 1, values),
        requires("a single word: still a list, of one", 1, values_single),
        requires("all sizes equal", 1, values_square),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: ff.neuron_words(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: with k = 1 a bare number is left of the list.",
        ),
        "a column of W_down": (
            lambda w_down, words, neuron, k: (words @ w_down[: words.shape[1], neuron]).topk(k).indices,
            "You read a column of w_down. With w_down (F, D) a neuron's value is its *row*: D numbers for the stream.",
        ),
        "the weakest": (
            lambda w_down, words, neuron, k: (words @ w_down[neuron]).topk(k, largest=False).indices,
            "These are the words that it speaks *against*.",
        ),
        "weakest of the strongest first": (
            lambda w_down, words, neuron, k: (words @ w_down[neuron]).topk(k).indices.flip(0),
            "The right words, in the wrong order: the strongest comes first.",
        ),
        "by size alone": (
            lambda w_down, words, neuron, k: (words @ w_down[neuron]).abs().topk(k).indices,
            "You order by the absolute value: a word that is strongly forbidden would count as promoted.",
        ),
        "by angle": (
            lambda w_down, words, neuron, k: (F.normalize(words, dim=-1) @ w_down[neuron]).topk(k).indices,
            "You compare directions only (cosine). A logit is a dot product: the length of a word's row counts.",
        ),
        "by distance": (
            lambda w_down, words, neuron, k: (words - w_down[neuron]).norm(dim=1).topk(k, largest=False).indices,
            "You take the words whose vectors lie nearest. A logit is a dot product.",
        ),
        "the scores": (
            lambda w_down, words, neuron, k: (words @ w_down[neuron]).topk(k).values,
            "These are the scores. The words' numbers are asked for: `.indices`.",
        ),
        "the neurons of a word": (
            lambda w_down, words, neuron, k: (w_down @ words[neuron]).topk(k).indices,
            "You ask which neurons speak for word number `neuron`. It is the other way round.",
        ),
        "one only": (
            lambda w_down, words, neuron, k: (words @ w_down[neuron]).argmax(),
            "This is the strongest word alone. k of them are asked for.",
        ),
        "one more": (
            lambda w_down, words, neuron, k: (words @ w_down[neuron]).topk(k + 1).indices,
            "There is one word too many: k are asked for.",
        ),
        "the neuron before": (
            lambda w_down, words, neuron, k: (words @ w_down[neuron - 1]).topk(k).indices,
            "You read the neuron before. Neurons count from 0.",
        ),
        "words from 1": (
            lambda w_down, words, neuron, k: (words @ w_down[neuron]).topk(k).indices + 1,
            "Your words count from 1. Their numbers start at 0.",
        ),
    },
    right={
        "python's sort": sorted_words,
        "all neurons at once": lambda w_down, words, neuron, k: (w_down @ words.T)[neuron].topk(k).indices,
        "log-softmax first": lambda w_down, words, neuron, k: (
            (words @ w_down[neuron]).log_softmax(0).argsort(descending=True)[:k]
        ),
        "einsum": lambda w_down, words, neuron, k: (
            torch.einsum("d,vd->v", w_down[neuron], words).sort(descending=True).indices[:k]
        ),
    },
)

# ---- questions

TOKENWISE = question(
    "token_wise",
    "*Is the feed-forward layer word-specific, or are the embeddings of different words merged in it?*",
    choices={
        "a": "They are merged: the first matrix sums over all words of the sentence.",
        "b": "Each word has a feed-forward layer with weights of its own.",
        "c": "They are merged in training and kept apart in use.",
        "d": "Each position is computed alone, all by the same weights. Words meet only in attention.",
    },
    explanations={
        "a": "x W_up sums over the D numbers of *one* position. Your check took the neighbours away: no change.",
        "b": "Then the number of weights would grow with the vocabulary or the length. The same two matrices serve "
        "every position of every text.",
        "c": "Training and use differ in dropout alone, which mixes no positions either.",
        "d": "Yes: *position-wise*, like a convolution of width 1. What a position knows of others it learned from "
        "attention, before; the layer then works on what was brought together.",
    },
    answer="d",
)

ONLY_HERE = question(
    "only_here",
    "*ReLU only in the feed-forward layer?* Where does a transformer's block bend, apart from there?",
    choices={
        "a": "In the softmax of attention and in the norms; but what attention hands on is, for given weights, a "
        "linear mix of linear views. Bending a token's own numbers is left to the feed-forward layer.",
        "b": "Nowhere: apart from the feed-forward layer a block is linear.",
        "c": "In the residual: adding two vectors is not linear.",
        "d": "A ReLU stands behind W_Q, W_K and W_V as well.",
    },
    explanations={
        "a": "Yes. The softmax decides non-linearly *how much* of a value is taken, and a norm divides by a size that "
        "depends on x; but both multiply all numbers of a vector by one and the same factor. Only here is each number "
        "bent by itself.",
        "b": "The softmax is not linear, and neither is dividing by a vector's own size.",
        "c": "A sum is linear. That is why the gradient passes it unchanged.",
        "d": "Queries and keys must be able to be negative, so that two tokens can be a bad match. There is none in "
        "the original, nor in the models of today.",
    },
    answer="a",
)

WIDE = question(
    "wide_or_deep",
    "Two matrices of 4 D² weights each, or eight layers of D² weights each: equally many weights and operations. On a "
    "GPU the wide one is the faster as a rule. Why?",
    choices={
        "a": "Eight layers need eight activations, and those are what takes the time.",
        "b": "Wide matrices use fewer bytes for each weight.",
        "c": "A product fills the machine all at once if it is large; eight small ones must wait for each other, and "
        "each leaves a part of the machine idle.",
        "d": "It does fewer multiplications, for the hidden zeros of ReLU are skipped.",
    },
    explanations={
        "a": "They take time, but little: 7 D numbers are bent instead of 4 D, beside 8 D² multiplications.",
        "b": "A weight takes as many bytes in either.",
        "c": "Yes, it is the trouble of the recurrent network once more: steps that wait for each other. How much it "
        "costs depends on the machine and on how many tokens there are at once; section 7 measures yours.",
        "d": "Ordinary products skip no zeros.",
    },
    answer="c",
)

SHARE = question(
    "how_much",
    "*Up to 75 % of all weights are in the feed-forward layers,* say lecture notes; others say *most*. Which is right "
    "for a block with F = 4 D and four attention matrices of D² weights each?",
    choices={
        "a": "Half: two matrices against two.",
        "b": "Two thirds of a block; of a whole model less, for embeddings count too; more where key and value heads "
        "are shared.",
        "c": "75 % in every transformer.",
        "d": "It depends on the length of the text.",
    },
    explanations={
        "a": "Its two matrices are four times as large each: 8 D² against 4 D².",
        "b": "Yes: 8 D² of 12 D². In GPT-2, with its 50,257 embeddings, that makes less than half of all. Where "
        "heads share keys and values (lesson 05), attention is smaller: Mistral's has 2.5 D², its gated layer "
        "10.5 D², four fifths of a block.",
        "c": "Your table above shows other shares. 75 % would be 12 D² against 4 D².",
        "d": "No weight belongs to a place. Only the work grows with the text.",
    },
    answer="b",
)

EXERCISES = [
    GELU, GELU_TANH, SILU, FEED_FORWARD, COUNT, SWIGLU, WIDTH, TRIGGERS, WORDS, TOKENWISE, ONLY_HERE, WIDE, SHARE,
]  # fmt: skip
