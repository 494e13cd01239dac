"""Feed-forward: x (..., D) -> (..., D), each position thinking on its own through a wider layer of F numbers.

Activations are functions first; `FeedForward` (two matrices) and `SwiGLU` (three, one of them a gate) own the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tinytrans.nn.gradients import by_hand


def gelu(x: Tensor) -> Tensor:
    """The Gaussian error linear unit: x times the chance that a standard normal number is below x.

    gelu(x) = x/2 (1 + erf(x / sqrt(2))), exactly. Source: Hendrycks and Gimpel 2016, arXiv 1606.08415.

    >>> gelu(torch.tensor([-100.0, 0.0, 100.0]))
    tensor([ -0.,   0., 100.])
    """
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    """The approximation of `gelu` that GPT-2 was trained with; it differs by less than 0.0005.

    x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    Source: Hendrycks and Gimpel 2016, section 2, arXiv 1606.08415.

    >>> gelu_tanh(torch.tensor([-100.0, 0.0, 100.0]))
    tensor([ -0.,   0., 100.])
    """
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def relu2(x: Tensor) -> Tensor:
    """The square of the positive part: max(x, 0)^2. Source: So et al. 2021 (Primer), arXiv 2109.08668.

    >>> relu2(torch.tensor([-3.0, 3.0]))
    tensor([0., 9.])
    """
    return F.relu(x).square()


def silu(x: Tensor) -> Tensor:
    """x times its sigmoid, x / (1 + e^-x); also called Swish.

    Source: Ramachandran et al. 2017, arXiv 1710.05941.

    >>> silu(torch.tensor([-100.0, 0.0, 100.0]))
    tensor([ -0.,   0., 100.])
    """
    return x * torch.sigmoid(x)


def feed_forward(
    x: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    b_up: Tensor | None = None,
    b_down: Tensor | None = None,
    activation: Callable[[Tensor], Tensor] = gelu,
) -> Tensor:
    """Widen, bend, narrow: activation(x W_up + b_up) W_down + b_down, for each position alone.

    x (..., D), w_up (D, F), w_down (F, D), and where they are given b_up (F,), b_down (D,) -> (..., D).
    Source: Vaswani et al. 2017, equation 2 (there with ReLU), arXiv 1706.03762.

    >>> feed_forward(torch.tensor([2.0]), torch.ones(1, 3), torch.ones(3, 1), activation=torch.square)
    tensor([12.])
    """
    hidden = x @ w_up if b_up is None else x @ w_up + b_up
    y = activation(hidden) @ w_down
    return y if b_down is None else y + b_down


def feed_forward_parameters(d_model: int, d_ff: int, bias: bool = True) -> int:
    """How many numbers a feed-forward layer learns: two matrices, and with bias F + D more.

    (D F + F) + (F D + D), whatever the length of the text.

    >>> feed_forward_parameters(512, 2048)  # of each of the original's twelve
    2099712
    """
    return 2 * d_model * d_ff + (d_ff + d_model if bias else 0)


def swiglu(x: Tensor, w_gate: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """A gated feed-forward layer: (silu(x W_gate) * x W_up) W_down; the gate decides how much passes.

    x (..., D), w_gate and w_up (D, F), w_down (F, D) -> (..., D). Three matrices of F = 8/3 D have as
    many parameters as two of F = 4 D. Source: Shazeer 2020, equation 6, arXiv 2002.05202.

    >>> swiglu(torch.tensor([100.0]), torch.ones(1, 1), torch.full((1, 1), 0.5), torch.ones(1, 1))
    tensor([5000.])
    """
    return (silu(x @ w_gate) * (x @ w_up)) @ w_down


class Gate(torch.autograd.Function):
    """Both halves of h (..., 2 F), gate and what passes -> silu(gate) * up (..., F), its gradient written out.

    dL/dgate = silu'(gate) g up and dL/dup = silu(gate) g, each written where it belongs: torch on its own keeps
    silu(gate) until then, and makes the two halves first and puts them together after.
    """

    @staticmethod
    def forward(h: Tensor) -> Tensor:
        gate, up = h.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (h,) = ctx.saved_tensors
        gate, up = h.chunk(2, dim=-1)
        grad_h = torch.empty_like(h)
        grad_gate, grad_up = grad_h.chunk(2, dim=-1)
        torch.mul(grad, F.silu(gate), out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return grad_h


def gated(h: Tensor) -> Tensor:
    """What a gate lets pass: h (..., 2 F), the gate's F numbers first -> silu(gate) * up (..., F)."""
    if by_hand(h):
        y: Tensor = Gate.apply(h)
        return y
    gate, up = h.chunk(2, dim=-1)
    return F.silu(gate) * up


def gated_width(d_ff: int, multiple: int = 1) -> int:
    """The width that gives three matrices as many parameters as two of width d_ff: 2/3 of it, rounded up.

    To the next whole multiple of `multiple`, which suits the hardware. Source: Shazeer 2020, section 3,
    arXiv 2002.05202.

    >>> gated_width(4 * 4096, multiple=256)  # Llama 7B
    11008
    """
    return -(-2 * d_ff // (3 * multiple)) * multiple


def neuron_triggers(hidden: Tensor, neuron: int, k: int) -> Tensor:
    """The k places where one hidden number was largest, largest first: hidden (N, F) -> places (k,).

    What they have in common is what the neuron's key, column `neuron` of W_up, looks for.
    Source: Geva et al. 2020, section 3, arXiv 2012.14913.

    >>> neuron_triggers(torch.tensor([[0.0, 1.0], [5.0, 3.0], [9.0, 2.0]]), neuron=1, k=2)
    tensor([1, 2])
    """
    return hidden[:, neuron].topk(k).indices


def neuron_words(w_down: Tensor, words: Tensor, neuron: int, k: int) -> Tensor:
    """The k words that a neuron promotes, strongest first: w_down (F, D), words (V, D) -> ids (k,).

    Its value, row `neuron` of W_down, is read as if it were the whole stream: one score for each word,
    whose row in `words` is that of the matrix that makes logits.
    Source: Geva et al. 2020, section 4, arXiv 2012.14913.

    >>> w_down, words = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 9.0]])
    >>> neuron_words(w_down, words, neuron=1, k=1)
    tensor([0])
    """
    return (words @ w_down[neuron]).topk(k).indices


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # the fused kernels of the functions above
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": relu2,
    "silu": F.silu,
}
"""name -> function, number by number: (...) -> (...)."""


class FeedForward(nn.Module):
    """`feed_forward` with its weights: x (..., D) -> (..., D); dropout acts on the F hidden numbers.

    Raises ValueError for an activation that is not in ACTIVATIONS.

    >>> FeedForward(d_model=6, d_ff=24)(torch.zeros(5, 6)).shape
    torch.Size([5, 6])
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: str = "gelu", *, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        self.activation, self.dropout = activation, dropout
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = ACTIVATIONS[self.activation](self.up(x))
        return self.down(F.dropout(hidden, self.dropout, self.training))


class SwiGLU(nn.Module):
    """`swiglu` with its weights: x (..., D) -> (..., D); one matrix `up` holds W_gate above W_up.

    Dropout acts on the F numbers that the gate lets pass.

    >>> SwiGLU(d_model=6, d_ff=16)(torch.zeros(5, 6)).shape
    torch.Size([5, 6])
    """

    def __init__(self, d_model: int, d_ff: int, *, bias: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.up = nn.Linear(d_model, 2 * d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.dropout(gated(self.up(x)), self.dropout, self.training))


FEEDFORWARDS: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(FeedForward, activation=name) for name in ACTIVATIONS},
    "swiglu": SwiGLU,
}
"""name -> builder (d_model, d_ff, *, bias, dropout) -> module."""
