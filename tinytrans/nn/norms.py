"""Normalisation: x (..., D) -> (..., D), each vector brought to one scale, then stretched by learned gains.

The readable functions come first, the way the papers write them; the modules give the same numbers from fused kernels.
Batch normalisation is here to be compared: it brings each number to one scale over the batch, and so ties its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tinytrans.nn.gradients import by_hand

WIDE = (torch.float32, torch.float64)  # whose squares neither overflow nor vanish


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Each vector gets mean 0 and variance 1, then a gain and a shift for each of its D numbers.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and var over the last axis; var divides
    by D, not D - 1. x (..., D), weight and bias (D,) -> (..., D).
    Source: Ba et al. 2016, arXiv 1607.06450.

    >>> layer_norm(torch.tensor([1.0, 3.0]), eps=0.0)
    tensor([-1.,  1.])
    """
    mean = x.mean(dim=-1, keepdim=True)
    var = (x - mean).square().mean(dim=-1, keepdim=True)
    y = (x - mean) / torch.sqrt(var + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Each vector gets a mean square of 1, then a gain for each of its D numbers; no mean is taken off.

    y = x / sqrt(mean(x^2) + eps) * weight, the mean over the last axis.
    x (..., D), weight (D,) -> (..., D). Source: Zhang and Sennrich 2019, arXiv 1910.07467.

    >>> rms_norm(torch.tensor([3.0, 3.0]), eps=0.0)
    tensor([1., 1.])
    """
    y = x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each of D numbers gets mean 0 and variance 1 over the batch: (N, D) -> y, next running mean, var.

    y = (x - mean) / sqrt(var + eps). In training, mean (D,) and var (D,) are those of the N rows, var
    divided by N; and running = (1 - momentum) * running + momentum * batch, where the batch's var is
    divided by N - 1, as in torch. Otherwise mean and var are the running ones, which stay as they are.
    The running ones carry no gradient. Source: Ioffe and Szegedy 2015, arXiv 1502.03167.

    >>> x, zero, one = torch.tensor([[1.0], [3.0]]), torch.zeros(1), torch.ones(1)
    >>> [z.tolist() for z in batch_norm(x, zero, one, True, momentum=0.5, eps=0.0)]
    [[[-1.0], [1.0]], [1.0], [1.5]]
    """
    if not training:
        return (x - running_mean) / torch.sqrt(running_var + eps), running_mean, running_var
    N = x.shape[0]
    mean = x.mean(dim=0)
    var = (x - mean).square().mean(dim=0)
    y = (x - mean) / torch.sqrt(var + eps)
    running_mean = (1 - momentum) * running_mean + momentum * mean.detach()
    running_var = (1 - momentum) * running_var + momentum * var.detach() * N / (N - 1)
    return y, running_mean, running_var


class FusedRMSNorm(torch.autograd.Function):
    """`rms_norm` with its gradient written out: on a CPU, torch differentiates its own step by step, at twice the time.

    With g = dL/dy * weight and r = 1 / sqrt(mean(x^2) + eps): dL/dx = r (g - x r mean(g x r)). The backward kernel of
    layer normalisation, told that the mean is 0, computes r (g - mean(g) - x r mean(g x r)); we add r mean(g) again.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = (norm.square_() / x.shape[-1]).add_(eps).rsqrt_()
        return (x * scale).mul_(weight), scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        x, weight, _ = inputs
        _, scale = output
        ctx.mark_non_differentiable(scale)
        ctx.save_for_backward(x, weight, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        D, wanted = x.shape[-1], [True, ctx.needs_input_grad[1], False]
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, [D], torch.zeros_like(scale), scale, weight, None, wanted
        )
        return grad_x.addcmul_(scale, (grad @ weight).unsqueeze(-1), value=1 / D), grad_weight, None


def fused_rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """`rms_norm` by the fastest way there is: the same numbers and gradients (first order on a CPU).

    A GPU has a fused kernel for both directions, and a CPU one for the forward direction. Numbers of half precision are
    squared in single precision: from 256 on, a float16's own square is infinite.
    """
    if x.dtype == weight.dtype and x.dtype in WIDE and by_hand(x):
        y, _ = FusedRMSNorm.apply(x, weight, eps)
        return y
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


class LayerNorm(nn.Module):
    """`layer_norm` with its gains, and with shifts unless bias=False: x (..., D) -> (..., D)."""

    def __init__(self, d_model: int, *, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}, bias={self.bias is not None}"


class RMSNorm(nn.Module):
    """`rms_norm` with its gains, and with shifts if bias=True: x (..., D) -> (..., D)."""

    def __init__(self, d_model: int, *, eps: float = 1e-5, bias: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = fused_rms_norm(x, self.weight, self.eps)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}, bias={self.bias is not None}"


class BatchNorm(nn.Module):
    """`batch_norm` with gains, shifts and running statistics: x (..., D) -> (..., D), not the same in train and eval.

    Not among NORMS: in training a text's numbers depend on the other texts of its batch, in evaluation on all of the
    training's; with causal attention, even on its own future. Raises ValueError in training for less than 2 rows.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, d_model: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.register_buffer("mean", torch.zeros(d_model))
        self.register_buffer("var", torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, D): padding, where there is some, counts like text
        if self.training and len(rows) < 2:
            raise ValueError(
                f"a batch of {len(rows)} row has no variance: batch normalisation needs 2 at least to train"
            )
        y, mean, var = batch_norm(rows, self.mean, self.var, self.training, self.momentum, self.eps)
        if self.training:
            self.mean.copy_(mean)
            self.var.copy_(var)
        return y.view_as(x) * self.weight + self.bias

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}, momentum={self.momentum}"


NORMS: dict[str, Callable[..., nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm}
"""name -> builder (d_model, *, eps, bias) -> module."""
