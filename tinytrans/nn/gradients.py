"""Gradients written by hand: a tensor -> whether one serves, or torch has to take the formula apart itself."""

from __future__ import annotations

import torch
from torch import Tensor


def by_hand(x: Tensor) -> bool:
    """Whether a first gradient by x, written by hand, is what is asked for: on a CPU, where it is the faster one.

    A compiler fuses by itself, and `torch.func` wants what it can batch and differentiate again.
    """
    wanted = x.device.type == "cpu" and torch.is_grad_enabled() and x.requires_grad
    return wanted and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
