"""Filters: logits (..., V) -> logits (..., V), where what must not be drawn has become -inf, or less likely.

They leave the caller's logits as they are and may be chained; softmax shares the probability out among what is left.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def temperature(logits: Tensor, t: float) -> Tensor:
    """Sharpen (t < 1) or flatten (t > 1) the distribution: logits / t.

    Raises ValueError unless t > 0: the limit t = 0 is the argmax, not a division.
    Source: Ackley et al. 1985.

    >>> temperature(torch.tensor([1.0, 2.0]), 0.5)
    tensor([2., 4.])
    """
    if not t > 0:
        raise ValueError(f"temperature {t} is not positive")
    return logits / t


def top_k(logits: Tensor, k: int) -> Tensor:
    """Only the k largest stay, all V of them if k > V; the rest becomes -inf.

    Of equals at the border as many stay as there is room for (all of them would be as good).
    Raises ValueError unless k >= 1. Source: Fan et al. 2018, arXiv 1805.04833.

    >>> top_k(torch.tensor([1.0, 3.0, 2.0]), 2)
    tensor([-inf, 3., 2.])
    """
    if k < 1:
        raise ValueError(f"top_k {k} is less than 1: nothing would be left")
    values, ids = logits.topk(min(k, logits.shape[-1]), dim=-1)
    return torch.full_like(logits, float("-inf")).scatter(-1, ids, values)


def top_p(logits: Tensor, p: float) -> Tensor:
    """The nucleus stays: of the most probable tokens, the fewest that together reach probability p.

    The rest becomes -inf; what stays keeps its logit and its place. The token that crosses p is in, so
    there is always one; p = 1 keeps all. Raises ValueError unless 0 < p <= 1.
    Source: Holtzman et al. 2019, section 3.1, arXiv 1904.09751.

    >>> top_p(torch.tensor([0.2, 0.5, 0.3]).log(), 0.6).exp()
    tensor([0.0000, 0.5000, 0.3000])
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p {p} is not in (0, 1]")
    if p == 1:
        return logits  # rounding must not cut the tail off
    sorted_logits, ids = logits.sort(dim=-1, descending=True)
    probabilities = sorted_logits.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # of all more probable ones; 0 for the first
    kept = sorted_logits.masked_fill(before >= p, float("-inf"))
    return kept.scatter(-1, ids, kept)  # back to the order of the vocabulary


def min_p(logits: Tensor, p: float) -> Tensor:
    """Only tokens at least p times as probable as the most probable one stay.

    Raises ValueError unless 0 <= p <= 1. Source: Nguyen et al. 2024, arXiv 2407.01082.

    >>> min_p(torch.tensor([0.1, 0.6, 0.3]).log(), 0.5).exp()
    tensor([0.0000, 0.6000, 0.3000])
    """
    if not 0 <= p <= 1:
        raise ValueError(f"min_p {p} is not in [0, 1]")
    floor = logits.amax(dim=-1, keepdim=True) + (math.log(p) if p > 0 else float("-inf"))
    return logits.masked_fill(logits < floor, float("-inf"))


def repetition_penalty(logits: Tensor, ids: Tensor, penalty: float, seen: Tensor | None = None) -> Tensor:
    """What has been said becomes less likely: logits (B, V), ids so far (B, T) -> logits (B, V).

    A said token's logit is divided by the penalty where positive and multiplied where negative,
    once, however often it was said; 1 changes nothing. `seen` (B, T) says which ids count, all
    unless given (padding was never said). Raises ValueError unless penalty > 0.
    Source: Keskar et al. 2019 (CTRL), section 4.1, arXiv 1909.05858, who divide negative logits, too, which makes
    them likelier; multiplied as in most later code.

    >>> repetition_penalty(torch.tensor([[3.0, -1.0, 2.0]]), torch.tensor([[0, 1, 0]]), 2.0)
    tensor([[ 1.5000, -2.0000,  2.0000]])
    """
    if not penalty > 0:
        raise ValueError(f"repetition_penalty {penalty} is not positive")
    seen = torch.ones_like(ids) if seen is None else seen.long()
    times = torch.zeros_like(logits, dtype=torch.long).scatter_add(-1, ids, seen)  # (B, V)
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(times > 0, lowered, logits)
