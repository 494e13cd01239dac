"""Checks of the block: where the norm stands, what goes along the stream, how strongly the loss pulls at a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_dtype, with_gradients
from tinytrans.nn import block
from tinytrans.nn.norms import layer_norm, rms_norm

# ---- inputs: seed -> what the learner's function is called with


def matrices(draw: Draw, D: int, width: int, *, layers: int | None = None) -> tuple[Tensor, Tensor]:
    """w_up and w_down that keep the variance of what they are applied to; with `layers`, one pair for each."""
    front = () if layers is None else (layers,)
    return draw.normal(*front, D, width) / math.sqrt(D), draw.normal(*front, width, D) / math.sqrt(width / 2)


def layer(draw: Draw) -> tuple[Tensor, ...]:
    """A stream far from mean 0 and variance 1, without gain and shift."""
    B, T, D, width = draw.sizes(4, 3, 9)
    return 2 * draw.normal(B, T, D) + 1, *matrices(draw, D, width)


def layer_gained(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of one."""
    x, w_up, w_down = layer(draw)
    x = x[:1]
    return x, w_up, w_down, draw.normal(x.shape[-1]) + 1, draw.normal(x.shape[-1])


def one_token(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of a single token in double precision."""
    return tuple(x[:1, :1].double() if i == 0 else x.double() for i, x in enumerate(layer_gained(draw)))


def tokens(draw: Draw) -> tuple[Tensor, ...]:
    """One sequence without a batch, and a gain without a shift."""
    x, *rest, _ = layer_gained(draw)
    return x[0], *rest


def adds_nothing(draw: Draw) -> tuple[Tensor, ...]:
    """A sublayer whose w_down is 0."""
    x, w_up, w_down = layer(draw)
    return x, w_up, 0 * w_down


def stack_of(place: str) -> Callable[[Draw], tuple[Any, ...]]:
    def inputs(draw: Draw) -> tuple[Any, ...]:
        N, D, width, L = draw.sizes(4, 3, 7)
        return 2 * draw.normal(N, D) + 1, *matrices(draw, D, width, layers=L), place

    return inputs


def stack_by_default(draw: Draw) -> tuple[Any, ...]:
    """A batch of one."""
    x, w_up, w_down, _ = stack_of("pre")(draw)
    return x[None], w_up, w_down


def single_layer(draw: Draw) -> tuple[Any, ...]:
    """Numbers so small that a second norm, where there should be one, shows; in double precision."""
    x, w_up, w_down, place = stack_of("post")(draw)
    return 0.002 * x[None, :1].double(), w_up[:1].double(), w_down[:1].double(), place


def judged(place: str) -> Callable[[Draw], tuple[Any, ...]]:
    """A stack with a head and targets; the sizes all differ."""

    def inputs(draw: Draw) -> tuple[Any, ...]:
        N, D, width, L, V = draw.sizes(5, 3, 8)
        x, (w_up, w_down) = 2 * draw.normal(N, D) + 1, matrices(draw, D, width, layers=L)
        return x, w_up, w_down, draw.normal(D, V), draw.integers(0, V, N), place

    return inputs


def judged_by_default(draw: Draw) -> tuple[Any, ...]:
    return judged("pre")(draw)[:-1]


def noisy(draw: Draw) -> tuple[Any, ...]:
    B, T, D = draw.sizes(3, 3, 9)
    return 2 * draw.normal(B, T, D) + 1, draw.uniform(B, T, D), 0.25


def noisy_in_training(draw: Draw) -> tuple[Any, ...]:
    return *noisy(draw), True


def noisy_in_use(draw: Draw) -> tuple[Any, ...]:
    return *noisy(draw), False


def never(draw: Draw) -> tuple[Any, ...]:
    """p = 0, with noise that is 0 somewhere; a batch of a single token, in double precision."""
    x, noise, _ = noisy(draw)
    noise[..., 0] = 0.0
    return x[:1, :1].double(), noise[:1, :1].double(), 0.0


# ---- laws: the sentence that says what is violated


def spares_or_drops(y: Any, x: Tensor, noise: Tensor, p: float, training: bool = True) -> str | None:
    """The law of dropout: 0 where the noise is below p, x / (1 - p) elsewhere."""
    if y.shape != x.shape or not training:
        return None
    place = (((noise < p) & (y != 0)) | ((noise >= p) & (y == 0))).nonzero()
    if len(place):
        at = tuple(place[0].tolist())
        should = "go" if noise[at] < p else "stay"
        return f"at {list(at)} the noise is {noise[at]:.2f} and p {p}: this number should {should}"
    ratio = float((y / x)[noise >= p].mean())
    if abs(ratio - 1 / (1 - p)) < 1e-3:
        return None
    return f"what stays is multiplied by {ratio:.3g}: how much is needed so that the mean stays the same?"


def stream_unharmed(y: Any, x: Tensor, *_: Any) -> str | None:
    """The law of the pre-norm stream: when the sublayer adds nothing, x comes out as it went in."""
    return (
        None
        if torch.equal(y, x)
        else "w_down is 0, so the sublayer adds nothing, and yet x does not come out as it went in"
    )


def stream_normed(y: Any, *_: Any) -> str | None:
    """The law of the post-norm stream: what leaves the layer has mean 0 and variance 1."""
    return None if abs(float(y.mean())) < 1e-3 else f"what leaves the layer has the mean {float(y.mean()):.2g}, not 0"


# ---- a layer out of parts

Layer = Callable[..., Tensor]


def layered(join: Callable[[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]], Tensor]) -> Layer:
    """A layer from (x, n, f): the stream, the norm, the sublayer."""

    def made(
        x: Tensor, w_up: Tensor, w_down: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        return join(x, lambda h: layer_norm(h, gain, shift), lambda h: F.relu(h @ w_up) @ w_down)

    return made


def with_sublayer(sublayer: Callable[[Tensor, Tensor, Tensor], Tensor], residual: Callable[..., Tensor]) -> Layer:
    """A layer in which f is computed in another way."""
    return lambda x, w_up, w_down, gain=None, shift=None: residual(
        x, lambda h: layer_norm(h, gain, shift), lambda h: sublayer(h, w_up, w_down)
    )


def both_or_none(x: Tensor, gain: Tensor | None, shift: Tensor | None) -> Tensor:
    return layer_norm(x) if gain is None or shift is None else layer_norm(x, gain, shift)


def normed_by(norm: Callable[..., Tensor], residual: Callable[..., Tensor]) -> Layer:
    """A layer with another norm."""
    return lambda x, w_up, w_down, gain=None, shift=None: residual(
        x, lambda h: norm(h, gain, shift), lambda h: F.relu(h @ w_up) @ w_down
    )


PRE, POST = layered(block.pre_norm), layered(block.post_norm)


def linear(h: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    return h @ w_up @ w_down


def relu_last(h: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    return F.relu(h @ w_up @ w_down)


def relu_first(h: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    return F.relu(h) @ w_up @ w_down


def with_gelu(h: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    return F.gelu(h @ w_up) @ w_down


def no_affine(x: Tensor, _gain: Tensor | None, _shift: Tensor | None) -> Tensor:
    return layer_norm(x)


def root_mean_square(x: Tensor, gain: Tensor | None, shift: Tensor | None) -> Tensor:
    return rms_norm(x, gain) + (0 if shift is None else shift)


def adding_in_place(place: str) -> Layer:
    def made(
        x: Tensor, w_up: Tensor, w_down: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        h = layer_norm(x, gain, shift) if place == "pre" else x
        with torch.no_grad():
            x += F.relu(h @ w_up) @ w_down
        return x if place == "pre" else layer_norm(x, gain, shift)

    return made


def modules(place: str) -> Layer:
    """The layer from torch's modules: an implementation that shares nothing with the reference."""

    def made(
        x: Tensor, w_up: Tensor, w_down: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        def norm(h: Tensor) -> Tensor:
            return F.layer_norm(h, h.shape[-1:], gain, shift)

        def think(h: Tensor) -> Tensor:
            return F.linear(F.linear(h, w_up.t()).clamp(min=0), w_down.t())

        return norm(x + think(x)) if place == "post" else think(norm(x)) + x

    return made


def einsums(place: str) -> Layer:
    def made(
        x: Tensor, w_up: Tensor, w_down: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        h = layer_norm(x, gain, shift) if place == "pre" else x
        hidden = torch.einsum("...d,df->...f", h, w_up)
        total = torch.einsum("...f,fd->...d", hidden * (hidden > 0), w_down) + x
        return total if place == "pre" else layer_norm(total, gain, shift)

    return made


SUBLAYER_MISTAKES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "no activation": (
        linear,
        "The ReLU is missing: two matrices in a row are one matrix. f(h) = relu(h W_up) W_down.",
    ),
    "activation at the end": (
        relu_last,
        "The ReLU stands behind both matrices, so that f can only add and never take away from the stream. It stands "
        "between them.",
    ),
    "activation in front": (
        relu_first,
        "The ReLU stands in front of both matrices: the negative half of f's input is thrown away. It stands between "
        "them.",
    ),
    "another activation": (with_gelu, "That is a GELU. The formula here has a ReLU, as in the paper of 2017."),
}

# ---- post_norm_layer

POST_NORM = exercise(
    "post_norm_layer",
    reference=block.post_norm_layer,
    oracle=modules("post"),
    requirements=[
        requires("norm(x + f(x)), and what leaves is normed", 2, layer, law=stream_normed),
        requires("the norm's gain and shift", 1, layer_gained),
        requires("a single token, double precision", 1, one_token, run=with_dtype),
        requires("no batch, a gain alone, and its gradient", 1, tokens, run=with_gradients),
    ],
    wrong={
        "norm in front of the sublayer": (
            PRE,
            "This is pre-norm, x + f(norm(x)), which comes next. In the paper of 2017 the norm stands behind the "
            "addition.",
        ),
        "no residual": (
            layered(lambda x, n, f: n(f(x))),
            "The stream ends here: norm(f(x)) forgets x. Add what the sublayer computes to x.",
        ),
        "no norm": (
            layered(lambda x, n, f: x + f(x)),
            "The sum is not normed. Post-norm is norm(x + f(x)).",
        ),
        "only what is added is normed": (
            layered(lambda x, n, f: x + n(f(x))),
            "You norm what the sublayer adds, and not the sum. The norm stands behind the addition: norm(x + f(x)).",
        ),
        "only the stream is normed": (
            layered(lambda x, n, f: n(x) + f(x)),
            "x is normed and f(x) is not. First the sum, then its norm.",
        ),
        "residual from the normed stream": (
            layered(lambda x, n, f: n(x) + f(n(x))),
            "The norm comes first and both branches start behind it. x itself is added, and the sum is normed.",
        ),
        "normed at both ends": (
            layered(lambda x, n, f: n(x + f(n(x)))),
            "There are two norms, in front of the sublayer and behind the addition. Post-norm has the second alone.",
        ),
        "added again behind the norm": (
            layered(lambda x, n, f: x + n(x + f(x))),
            "x is added twice, once in front of the norm and once behind it.",
        ),
        "the sum of both goes on through the sublayer": (
            layered(lambda x, n, f: n(x + f(x + f(x)))),
            "The sublayer is applied twice. Once is enough: norm(x + f(x)).",
        ),
        "no gain and shift": (
            normed_by(no_affine, block.post_norm),
            "gain and shift are not handed on to the norm.",
        ),
        "gain and shift only together": (
            normed_by(both_or_none, block.post_norm),
            "A gain without a shift is forgotten. Each of the two may be given alone: hand both on as they come.",
        ),
        "another norm": (
            normed_by(root_mean_square, block.post_norm),
            "That is an RMS norm: the mean is still in there. Use your layer_norm.",
        ),
        "gradient cut off": (
            layered(lambda x, n, f: n(x.detach() + f(x))),
            "The values are right, but no gradient goes along the residual. Is there a `detach` or `.data`?",
        ),
        "added in place": (
            adding_in_place("post"),
            "x += ... writes into the caller's tensor. Write x + ..., which makes a new one.",
        ),
        **{name: (with_sublayer(f, block.post_norm), text) for name, (f, text) in SUBLAYER_MISTAKES.items()},
    },
    right={
        "torch's functions": modules("post"),
        "einsum": einsums("post"),
        "norm of both parts": lambda x, w_up, w_down, gain=None, shift=None: layer_norm(
            torch.stack([x, torch.relu(x @ w_up) @ w_down]).sum(0), gain, shift
        ),
    },
)

# ---- pre_norm_layer

PRE_NORM = exercise(
    "pre_norm_layer",
    reference=block.pre_norm_layer,
    oracle=modules("pre"),
    requirements=[
        requires("x + f(norm(x))", 2, layer),
        requires("the norm's gain and shift", 1, layer_gained),
        requires("where the sublayer adds nothing, x comes out as it went in", 1, adds_nothing, law=stream_unharmed),
        requires("a single token, double precision", 1, one_token, run=with_dtype),
        requires("no batch, a gain alone, and its gradient", 1, tokens, run=with_gradients),
    ],
    wrong={
        "norm behind the addition": (
            POST,
            "This is post-norm, norm(x + f(x)): the norm lies across the stream. In pre-norm it stands in front of the "
            "sublayer only, and nothing lies across the stream.",
        ),
        "no residual": (
            layered(lambda x, n, f: f(n(x))),
            "Only f(norm(x)) goes on: x is lost, and with it the direct way for the gradient. Add it.",
        ),
        "residual from the normed stream": (
            layered(lambda x, n, f: n(x) + f(n(x))),
            "You add to the *normed* x. That looks harmless, for the sublayer's input is right, but the norm now lies "
            "across the stream. Keep x itself for the addition.",
        ),
        "no norm": (
            layered(lambda x, n, f: x + f(x)),
            "The sublayer reads x as it is. It should read norm(x).",
        ),
        "only what is added is normed": (
            layered(lambda x, n, f: x + n(f(x))),
            "The norm stands behind the sublayer; in front of it, it keeps the sublayer's input at one scale.",
        ),
        "the wrong one is normed": (
            layered(lambda x, n, f: n(x) + f(x)),
            "The norm is on the wrong branch: the stream is normed and the sublayer reads the raw x. It is the other "
            "way round.",
        ),
        "normed at both ends": (
            layered(lambda x, n, f: n(x + f(n(x)))),
            "There is a second norm behind the addition, which lies across the stream. Pre-norm has only the one in "
            "front of the sublayer; a single final norm follows at the end of the whole stack.",
        ),
        "normed on both sides of the sublayer": (
            layered(lambda x, n, f: x + n(f(n(x)))),
            "What the sublayer adds is normed once more. Some models do that; pre-norm is x + f(norm(x)).",
        ),
        "subtracted": (
            layered(lambda x, n, f: x - f(n(x))),
            "The sign: the sublayer's output is added to the stream.",
        ),
        "x twice": (
            layered(lambda x, n, f: x + x + f(n(x))),
            "x is added twice, so the stream doubles at each layer.",
        ),
        "no gain and shift": (
            normed_by(no_affine, block.pre_norm),
            "gain and shift are not handed on to the norm.",
        ),
        "gain and shift only together": (
            normed_by(both_or_none, block.pre_norm),
            "A gain without a shift is forgotten. Each of the two may be given alone: hand both on as they come.",
        ),
        "another norm": (
            normed_by(root_mean_square, block.pre_norm),
            "That is an RMS norm, which takes no mean off. Use your layer_norm.",
        ),
        "gradient cut off": (
            layered(lambda x, n, f: x.detach() + f(n(x))),
            "The values are right, but the gradient's direct way is closed: something like `detach` or `.data` stands "
            "on the residual. It is this way that the residual is there for.",
        ),
        "added in place": (
            adding_in_place("pre"),
            "x += ... writes into the caller's tensor. Write x + ..., which makes a new one.",
        ),
        **{name: (with_sublayer(f, block.pre_norm), text) for name, (f, text) in SUBLAYER_MISTAKES.items()},
    },
    right={
        "torch's functions": modules("pre"),
        "einsum": einsums("pre"),
        "step by step": layered(lambda x, n, f: torch.add(f(n(x.clone())), x)),
    },
)

# ---- deep_stack

LAYERS: dict[str, Layer] = {"pre": PRE, "post": POST}


def stacked(
    *,
    layers: dict[str, Layer] | None = None,
    pairs: Callable[[Tensor, Tensor], Any] = lambda up, down: zip(up, down, strict=True),
    begin: Callable[[Tensor, str], Tensor] = lambda x, _place: x,
    end: Callable[[Tensor, str], Tensor] = lambda x, place: layer_norm(x) if place == "pre" else x,
) -> Callable[..., Tensor]:
    """A stack out of parts: its layers, the order of the weights, what stands in front and behind."""

    def made(x: Tensor, w_up: Tensor, w_down: Tensor, place: str = "pre") -> Tensor:
        x = begin(x, place)
        for up, down in pairs(w_up, w_down):
            x = (layers or LAYERS)[place](x, up, down)
        return end(x, place)

    return made


def parallel(x: Tensor, w_up: Tensor, w_down: Tensor, place: str = "pre") -> Tensor:
    y = x
    for up, down in zip(w_up, w_down, strict=True):
        y = LAYERS[place](x, up, down)
    return layer_norm(y) if place == "pre" else y


def by_index(x: Tensor, w_up: Tensor, w_down: Tensor, place: str = "pre") -> Tensor:
    """Everything written out, with torch's norm."""

    def norm(h: Tensor) -> Tensor:
        return (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    for i in range(w_up.shape[0]):
        h = norm(x) if place == "pre" else x
        x = x + torch.relu(h.matmul(w_up[i])).matmul(w_down[i])
        x = norm(x) if place != "pre" else x
    return x if place != "pre" else norm(x)


def recursive(x: Tensor, w_up: Tensor, w_down: Tensor, place: str = "pre") -> Tensor:
    if len(w_up) == 0:
        return layer_norm(x) if place == "pre" else x
    return recursive(LAYERS[place](x, w_up[0], w_down[0]), w_up[1:], w_down[1:], place)


STACK = exercise(
    "deep_stack",
    reference=block.deep_stack,
    oracle=by_index,
    requirements=[
        requires("post-norm layers behind each other", 2, stack_of("post")),
        requires("pre-norm layers and a final norm", 2, stack_of("pre")),
        requires('a place that is not given is "pre"', 1, stack_by_default),
        requires("a single layer and a single token, double precision", 1, single_layer, run=with_dtype),
        requires("its gradient", 1, stack_of("pre"), run=with_gradients),
    ],
    wrong={
        "a norm behind the last of both": (
            stacked(end=lambda x, _place: layer_norm(x)),
            "With post-norm, too, you norm once more at the end. There the last layer has done so already: only "
            "pre-norm leaves a stream that nothing has normed.",
        ),
        "no final norm": (
            stacked(end=lambda x, _place: x),
            "After pre-norm layers the sum is handed on as it is, as large as all additions have made it. One final "
            "norm stands behind the last layer.",
        ),
        "norm in front instead of at the end": (
            stacked(begin=lambda x, place: layer_norm(x) if place == "pre" else x, end=lambda x, _place: x),
            "The extra norm of pre-norm stands in front of the first layer. Each layer norms its own input already; "
            "what nobody norms is what comes out at the end.",
        ),
        "norm also in front": (
            stacked(begin=lambda x, _place: layer_norm(x)),
            "There is a norm in front of the first layer. The stream starts as it comes in.",
        ),
        "always pre": (
            lambda x, w_up, w_down, place="pre": block.deep_stack(x, w_up, w_down, "pre"),
            'The place is not looked at: with "post" the layers should be post-norm layers.',
        ),
        "always post": (
            lambda x, w_up, w_down, place="pre": block.deep_stack(x, w_up, w_down, "post"),
            'The place is not looked at: with "pre" the layers should be pre-norm layers, and a norm follows them.',
        ),
        "pre and post exchanged": (
            lambda x, w_up, w_down, place="pre": block.deep_stack(x, w_up, w_down, "post" if place == "pre" else "pre"),
            '"pre" and "post" are exchanged.',
        ),
        "post unless told": (
            lambda x, w_up, w_down, place="post": block.deep_stack(x, w_up, w_down, place),
            'The default is "pre".',
        ),
        "the first layer again and again": (
            stacked(pairs=lambda up, down: [(up[0], down[0])] * len(up)),
            "All layers use the weights of the first. Layer l has w_up[l] and w_down[l].",
        ),
        "one layer too few": (
            stacked(pairs=lambda up, down: zip(up[:-1], down[:-1], strict=True)),
            "The last layer is missing: there are L of them.",
        ),
        "the first layer skipped": (
            stacked(pairs=lambda up, down: zip(up[1:], down[1:], strict=True)),
            "The first layer, number 0, is missing.",
        ),
        "only one layer": (
            stacked(pairs=lambda up, down: [(up[0], down[0])]),
            "Only the first layer is used. Does a `return` stand inside of the loop?",
        ),
        "back to front": (
            stacked(pairs=lambda up, down: zip(up.flip(0), down.flip(0), strict=True)),
            "The layers come in reverse order.",
        ),
        "every layer reads the input": (
            parallel,
            "Each layer starts from the input again, so that only the last one counts. A layer reads what the one "
            "before has made: x = layer(x, ...).",
        ),
        "norm behind every pre-norm layer": (
            stacked(layers={"pre": layered(lambda x, n, f: n(x + f(n(x)))), "post": POST}),
            "The final norm stands inside of the loop, so that it lies across the stream at each layer. It stands "
            "behind the loop.",
        ),
        "no residuals": (
            stacked(layers={"pre": layered(lambda x, n, f: f(n(x))), "post": layered(lambda x, n, f: n(f(x)))}),
            "The layers have no residual: what they compute replaces the stream. Use your own pre_norm_layer and "
            "post_norm_layer.",
        ),
    },
    right={
        "by index": by_index,
        "recursion": recursive,
        "choose the layer first": stacked(
            layers={"pre": modules("pre"), "post": modules("post")},
            end=lambda x, place: F.layer_norm(x, x.shape[-1:]) if place == "pre" else x,
        ),
    },
)

# ---- gradient_norms


def pulled(
    *,
    at: str = "down",
    stack: Callable[..., Tensor] = block.deep_stack,
    size: Callable[[Tensor], Tensor] = lambda gradient: gradient.flatten(1).norm(dim=1),
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Callable[..., Tensor]:
    """Gradient norms out of parts: of what, through which stack, by which size, of which loss."""

    def made(x: Tensor, w_up: Tensor, w_down: Tensor, head: Tensor, targets: Tensor, place: str = "pre") -> Tensor:
        with torch.enable_grad():
            up, down = w_up.detach().requires_grad_(), w_down.detach().requires_grad_()
            value = loss(stack(x, up, down, place) @ head, targets)
            return size(torch.autograd.grad(value, {"up": up, "down": down}[at])[0])

    return made


def layerwise(x: Tensor, w_up: Tensor, w_down: Tensor, head: Tensor, targets: Tensor, place: str = "pre") -> Tensor:
    """One leaf a layer, and `backward`."""
    downs = [down.clone().requires_grad_() for down in w_down]
    out = by_index(x, w_up, torch.stack(downs), place) @ head
    (-out.log_softmax(-1)[torch.arange(len(targets)), targets].mean()).backward()
    return torch.stack([down.grad.square().sum().sqrt() for down in downs])


def differences(x: Tensor, w_up: Tensor, w_down: Tensor, head: Tensor, targets: Tensor, place: str = "pre") -> Tensor:
    """No autograd at all: each weight is moved a little up and down, in double precision."""
    x, w_up, w_down, head = (t.double() for t in (x, w_up, w_down, head))
    step, sums = 1e-6, torch.zeros(len(w_down), dtype=torch.float64)
    for at in torch.cartesian_prod(*(torch.arange(n) for n in w_down.shape)).tolist():
        values = []
        for sign in (1, -1):
            moved = w_down.clone()
            moved[tuple(at)] += sign * step
            values.append(F.cross_entropy(by_index(x, w_up, moved, place) @ head, targets))
        sums[at[0]] += ((values[0] - values[1]) / (2 * step)) ** 2
    return sums.sqrt().float()


def local(x: Tensor, w_up: Tensor, w_down: Tensor, place: str = "pre") -> Tensor:
    """The stream is cut between layers: only the last one learns of the loss, the others get zeros."""
    for up, down in zip(w_up, w_down, strict=True):
        x = LAYERS[place](x.detach(), up, down)
    return layer_norm(x) if place == "pre" else x


GRADIENTS = exercise(
    "gradient_norms",
    reference=block.gradient_norms,
    oracle=layerwise,
    requirements=[
        requires("one norm a layer, through post-norm layers", 2, judged("post")),
        requires("one norm a layer, through pre-norm layers", 2, judged("pre")),
        requires('a place that is not given is "pre"', 1, judged_by_default),
    ],
    wrong={
        "of w_up": (
            pulled(at="up"),
            "These are the gradients of w_up. The second matrices, w_down, are asked for.",
        ),
        "one norm for all layers": (
            pulled(size=lambda g: g.norm()),
            "All layers together give one number. One number a layer is asked for, shape (L,): flatten all axes but "
            "the first.",
        ),
        "squares": (
            pulled(size=lambda g: g.square().flatten(1).sum(1)),
            "The root is missing: these are the squared norms.",
        ),
        "sum of absolute values": (
            pulled(size=lambda g: g.abs().flatten(1).sum(1)),
            "You add absolute values. The norm is the root of the sum of the squares.",
        ),
        "root mean square": (
            pulled(size=lambda g: g.square().flatten(1).mean(1).sqrt()),
            "You take the mean of the squares, not their sum: each number is too small by the root of F * D.",
        ),
        "largest number": (
            pulled(size=lambda g: g.abs().flatten(1).amax(1)),
            "That is the largest gradient of each layer. The norm counts all of them: root of the sum of squares.",
        ),
        "spectral norm": (
            pulled(size=lambda g: torch.linalg.matrix_norm(g, 2)),
            "That is the largest singular value. The root of the sum of all squares is asked for, which is what "
            "`norm` gives for a *flattened* matrix.",
        ),
        "of each row": (
            pulled(size=lambda g: g.norm(dim=-1)),
            "There is a norm for each row of each matrix. Flatten a layer's matrix first: shape (L,).",
        ),
        "of the weights": (
            lambda x, w_up, w_down, head, targets, place="pre": w_down.flatten(1).norm(dim=1),
            "These are the norms of the weights themselves, not of the loss's gradient with regard to them.",
        ),
        "summed loss": (
            pulled(loss=lambda logits, targets: F.cross_entropy(logits, targets, reduction="sum")),
            "The losses of the N rows are added, so that every norm is N times too large. The mean is asked for.",
        ),
        "softmax twice": (
            pulled(loss=lambda logits, targets: F.cross_entropy(logits.softmax(-1), targets)),
            "`cross_entropy` wants logits and does the softmax itself; you hand it probabilities.",
        ),
        "the gradient is cut between layers": (
            pulled(stack=local),
            "Only the last layer gets a gradient, all others 0: something cuts the graph between the layers, such as "
            "`detach` or `.data`.",
        ),
        "always pre": (
            lambda x, w_up, w_down, head, targets, place="pre": block.gradient_norms(
                x, w_up, w_down, head, targets, "pre"
            ),
            "The place is not handed on to the stack: the norms are those of pre-norm in both cases.",
        ),
        "always post": (
            lambda x, w_up, w_down, head, targets, place="pre": block.gradient_norms(
                x, w_up, w_down, head, targets, "post"
            ),
            "The place is not handed on to the stack: the norms are those of post-norm in both cases.",
        ),
        "back to front": (
            pulled(size=lambda g: g.flatten(1).norm(dim=1).flip(0)),
            "The layers come in reverse order: number 0 is the one next to the input.",
        ),
        "relative to the largest": (
            pulled(size=lambda g: g.flatten(1).norm(dim=1) / g.flatten(1).norm(dim=1).max()),
            "You divide by the largest of them. The norms themselves are asked for.",
        ),
        "written into the caller's weights": (
            lambda x, w_up, w_down, head, targets, place="pre": w_down.copy_(
                block.gradient_norms(x, w_up, w_down, head, targets, place)[:, None, None].expand_as(w_down)
            )[:, 0, 0],
            "One of the inputs was written to. Take a copy: w_down.detach().clone().",
        ),
    },
    right={
        "a leaf for each layer": layerwise,
        "finite differences": differences,
        "linalg": pulled(size=lambda g: torch.linalg.matrix_norm(g)),
    },
    equivalent={
        "gradient.flatten(1).norm(dim=1) -> gradient.flatten(1).norm(dim=-1)": "the same axis from the other end",
        "w_down.detach().requires_grad_() -> w_down.requires_grad_()": "what no graph leads to is a leaf already",
    },
)

# ---- dropout


def dropped(
    keeps: Callable[[Tensor, float], Tensor] = lambda noise, p: noise >= p,
    factor: Callable[[float], float] = lambda p: 1 / (1 - p),
    in_use: Callable[[Tensor, float], Tensor] = lambda x, _p: x,
) -> Callable[..., Tensor]:
    """Dropout out of parts: what stays, by which factor, and what happens outside of training."""
    return lambda x, noise, p, training=True: x * keeps(noise, p) * factor(p) if training else in_use(x, p)


def whole_vectors(noise: Tensor, p: float) -> Tensor:
    return (noise[..., :1] >= p).expand_as(noise)


DROPOUT = exercise(
    "dropout",
    reference=block.dropout,
    oracle=lambda x, noise, p, training=True: (
        torch.where(noise < p, torch.zeros_like(x), x * (1 / (1 - p))) if training else x.clone()
    ),
    requirements=[
        requires("each number by its own noise, what stays scaled up", 2, noisy, law=spares_or_drops),
        requires("training is said aloud", 1, noisy_in_training, law=spares_or_drops),
        requires("outside of training nothing happens", 1, noisy_in_use),
        requires("p = 0 drops nothing; a batch of a single token, double precision", 1, never, run=with_dtype),
        requires("its gradient", 1, noisy, run=with_gradients),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: block.dropout(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a batch of one loses its axis, and so does a "
            "single token.",
        ),
        "not scaled": (
            dropped(factor=lambda _p: 1.0),
            "What stays is not scaled up. With p = 0.25 a quarter is missing from every sum, in training and only "
            "there: divide what stays by 1 - p.",
        ),
        "scaled by 1 / p": (
            dropped(factor=lambda p: 1 / p if p else 1.0),
            "You divide by p. What stays is a share of 1 - p, and that is what brings the mean back.",
        ),
        "scaled down": (
            dropped(factor=lambda p: 1 - p),
            "You multiply what stays by 1 - p, so that even more is missing. Divide.",
        ),
        "keeps with probability p": (
            dropped(keeps=lambda noise, p: noise < p),
            "You keep what should go: a number goes where its noise is below p. p is the share that is dropped.",
        ),
        "keeps and scales with p": (
            dropped(keeps=lambda noise, p: noise < p, factor=lambda p: 1 / p if p else 1.0),
            "Your p is the probability to *keep*, as in the paper. Here, as in torch, it is the probability to drop.",
        ),
        "0 is dropped": (
            dropped(keeps=lambda noise, p: noise > p),
            "A noise of exactly p counts as dropped, so that p = 0 drops where the noise is 0. It stays where the "
            "noise is *at least* p.",
        ),
        "drops in use": (
            lambda x, noise, p, training=True: block.dropout(x, noise, p),
            "It drops outside of training as well, so the model answers differently each time. There it does nothing.",
        ),
        "only in use": (
            lambda x, noise, p, training=True: block.dropout(x, noise, p, not training),
            "The two cases are exchanged: it drops in use and not in training.",
        ),
        "scaled in use instead": (
            dropped(factor=lambda _p: 1.0, in_use=lambda x, p: x * (1 - p)),
            "That is dropout as first published: nothing is scaled in training, and in use everything is multiplied by "
            "1 - p. On average it is the same; here the scaling is done in training, so that use costs nothing.",
        ),
        "scaled in both": (
            dropped(in_use=lambda x, p: x * (1 - p)),
            "The scaling is done twice: up in training and down in use. In use nothing happens.",
        ),
        "whole vectors": (
            dropped(keeps=whole_vectors),
            "A vector goes or stays as a whole. Each number has a noise of its own.",
        ),
        "noise added": (
            lambda x, noise, p, training=True: x + noise * p if training else x,
            "The noise is added to x. It only decides what is set to 0.",
        ),
        "multiplied by the noise": (
            dropped(keeps=lambda noise, p: noise * (noise >= p)),
            "What stays is multiplied by its noise. The noise only decides: x * (noise >= p).",
        ),
        "smallest numbers dropped": (
            dropped(keeps=lambda noise, p: noise >= torch.quantile(noise, p)),
            "You drop the share p of the noise exactly, by its rank. Each number is dropped by itself, where its noise "
            "is below p; how many these are is chance.",
        ),
        "bools": (
            lambda x, noise, p, training=True: (noise >= p) if training else x,
            "You return which numbers stay. Multiply x by it, and divide by 1 - p.",
        ),
    },
    right={
        "masked_fill": lambda x, noise, p, training=True: x.masked_fill(noise < p, 0.0) / (1 - p) if training else x,
        "where": lambda x, noise, p, training=True: (
            torch.where(noise >= p, x / (1 - p), torch.tensor(0.0)) if training else x
        ),
    },
)

# ---- questions

HIGHWAY = question(
    "highway",
    "Residual connections make deep networks easier to learn: a layer only has to learn a correction. Do they also "
    "keep gradients from vanishing?",
    choices={
        "a": "No: the gradient still has to pass through every layer's weights, one layer after the other.",
        "b": "No, that is what norms are for: without them a residual network has the same gradients as a plain one.",
        "c": "Only in the first layer, which is the only one that gets x itself.",
        "d": "Yes: the derivative of x + f(x) is I + J, so one way leads straight back, whatever the layers do.",
    },
    explanations={
        "a": "It does that, too. But the product of the factors I + J, multiplied out, is the sum over *all* "
        "selections of layers, and the selection of none is the identity.",
        "b": "You have just measured it: without any norm, the residual alone carries the gradient through 32 layers "
        "where the plain network loses it. It may grow too large, however, and that is what the norm is needed for.",
        "c": "Every layer adds to the same stream; the direct way leads past all of them.",
        "d": "Yes. A plain network multiplies J_L ... J₂ J₁, and if each shrinks a little, nothing is left. With "
        "residuals the identity is among the summands. Section 6 shows how a norm in the wrong place narrows this way "
        "again.",
    },
    answer="d",
)

WHERE_NORM = question(
    "where_norm",
    "Where does the layer norm stand in most language models of today: before or after the activation, before or after "
    "the residual, separately for each head?",
    choices={
        "a": "Once in front of each sublayer, over all D numbers of a token, outside of the residual stream; the "
        "activation and the heads are inside of the sublayer and have no part in it.",
        "b": "Directly in front of the activation, so that ReLU gets numbers around 0, where its slope changes.",
        "c": "In each head separately, over its K numbers, in place of the norm over D.",
        "d": "Behind each residual addition, as in the paper of 2017; nothing has changed since.",
    },
    explanations={
        "a": "Yes: x + attention(norm(x)), then x + feedforward(norm(x)), and one more norm behind the last layer. "
        "Each sublayer has a norm of its own. Some models also norm queries and keys in each head (QK-norm), but that "
        "is an addition and bounds the scores.",
        "b": "That was the place of BatchNorm in image networks. In a transformer the norm stands in front of the "
        "whole sublayer, and the activation is between its two matrices.",
        "c": "Queries and keys may be normed in each head in addition (QK-norm). The norm of the block goes over all D "
        "numbers, before they are split into heads.",
        "d": "That is post-norm: the original, still trained with a warm-up. Most models since GPT-2 put it in front.",
    },
    answer="a",
)

ATTENTION_DROPOUT = question(
    "attention_dropout",
    "Many implementations drop some of the attention *weights* while training (`dropout` on the softmax's output). "
    "What is that for?",
    choices={
        "a": "It hides the future at random, in place of the causal mask.",
        "b": "It makes attention cheaper, because dropped weights need not be computed.",
        "c": "A query must not rely on a single key: now and then its favourite is missing, so others must be able to "
        "stand in. It is regularisation, for small data.",
        "d": "It takes the place of the scaling by √K, because it keeps the softmax from saturating.",
    },
    explanations={
        "a": "Dropout only takes away from what may be seen, at random and in training alone. The mask is needed "
        "always.",
        "b": "The whole matrix is computed and then multiplied by zeros. It costs a little more.",
        "c": "Yes. It comes after the softmax, so a row no longer sums to 1 exactly, only on average, thanks to the "
        "factor 1 / (1 - p). Large language models that see each text about once are often trained without any "
        "dropout.",
        "d": "It comes after the softmax and changes no score. A saturated softmax stays saturated.",
    },
    answer="c",
)

RELU_OR_DROPOUT = question(
    "relu_or_dropout",
    "ReLU sets about half of the numbers to 0; dropout sets some to 0 as well. Could one drop the ReLU from the "
    "feed-forward layer and keep dropout in its place?",
    choices={
        "a": "Yes: both make the hidden layer sparse, and that is what it needs.",
        "b": "No: what ReLU zeroes depends on the input and makes the layer non-linear; dropout's choice is chance, "
        "and in use it does nothing, so that two matrices would be left that are one.",
        "c": "Yes, as long as p = 0.5, so that as many numbers are set to 0.",
        "d": "No: dropout has no gradient, and the layers below would not learn.",
    },
    explanations={
        "a": "Sparse alike, but for different reasons. Without a function that bends, x W_up W_down is a single "
        "matrix.",
        "b": "Yes. They serve different ends, and a layer may well have both: the activation always, dropout while "
        "training, behind it or on what the sublayer adds.",
        "c": "The share is not the point. ReLU decides by the sign of each number, dropout by a coin.",
        "d": "Its gradient is 0 where it drops and 1 / (1 - p) where it does not: that is all that is needed.",
    },
    answer="b",
)

EXERCISES = [
    DROPOUT, POST_NORM, PRE_NORM, STACK, GRADIENTS, HIGHWAY, WHERE_NORM, ATTENTION_DROPOUT, RELU_OR_DROPOUT,
]  # fmt: skip
