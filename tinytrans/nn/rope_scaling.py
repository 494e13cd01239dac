"""RoPE scaling: a head's width K -> how fast its pairs turn (K/2,) where texts are longer than once trained.

A pair that turns slowly never came round in training: a longer text brings it to angles that no one has seen. Slowed
down by the factor by which texts grow, it stays among those it knows. A pair that turns fast has seen them all, and
tells neighbours apart: it stays as it is. Each function here stands in the place of `positions.frequencies`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tinytrans.nn.positions import frequencies


def linear(K: int, base: float = 10000.0, *, factor: float, device: torch.device | str | None = None) -> Tensor:
    """All pairs factor times slower, so that position p turns as p / factor did: (K/2,) radians per position.

    Source: Chen et al. 2023 (position interpolation), section 2.3, arXiv 2306.15595.

    >>> linear(4, factor=2.0)
    tensor([0.5000, 0.0050])
    """
    return frequencies(K, base, device=device) / factor


def llama3(
    K: int,
    base: float = 10000.0,
    *,
    factor: float,
    trained_len: int,
    low: float = 1.0,
    high: float = 4.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Pairs of less than `low` turns within trained_len positions become factor times slower, those above `high` stay.

    Between the two, the more turns, the more stays: share (turns - low) / (high - low) of the old speed, the rest of
    the new. -> (K/2,) radians per position.
    Sources: Peng et al. 2023 (YaRN), section 3.2, definition 2, arXiv 2309.00071; Meta's code of Llama 3.1 (2024).

    >>> llama3(4, 100.0, factor=8.0, trained_len=10, low=0.5, high=1.5)  # 1.59 and 0.16 turns
    tensor([1.0000, 0.0125])
    """
    speeds = frequencies(K, base, device=device)
    turns = trained_len / (2 * math.pi / speeds)
    return mixed(speeds, factor, ((turns - low) / (high - low)).clamp(0, 1))


def yarn(
    K: int,
    base: float = 10000.0,
    *,
    factor: float,
    trained_len: int,
    slow: float = 1.0,
    fast: float = 32.0,
    truncate: bool = True,
    device: torch.device | str | None = None,
) -> Tensor:
    """Pairs of less than `slow` turns within trained_len positions become factor times slower, those above `fast` stay.

    Between the two the share of the old speed falls evenly from pair to pair, as in all code that is called YaRN (the
    paper has `llama3`'s way); with `truncate` it begins and ends at whole pairs. The base is above 1.
    -> (K/2,) radians per position.
    Source: Peng et al. 2023, section 3.2, arXiv 2309.00071, and its authors' code.

    >>> yarn(8, 10000.0, factor=10.0, trained_len=1000, slow=1.0, fast=100.0)  # shares 1, 2/3, 1/3, 0
    tensor([1.0000e+00, 7.0000e-02, 4.0000e-03, 1.0000e-04])
    """

    def pair(turns: float) -> float:
        """The pair, were there fractions of pairs, that turns so often within trained_len positions."""
        return K * math.log(trained_len / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair(fast), pair(slow)
    if truncate:
        first, last = float(math.floor(first)), float(math.ceil(last))
    first, last = max(first, 0.0), min(last, K - 1.0)
    fallen = (torch.arange(K // 2, device=device) - first) / (last - first if last != first else 0.001)
    return mixed(frequencies(K, base, device=device), factor, 1 - fallen.clamp(0, 1))


def mixed(speeds: Tensor, factor: float, kept: Tensor) -> Tensor:
    """Speeds (n,) of which the shares kept (n,) stay, while the rest becomes factor times slower: (n,)."""
    return kept * speeds + (1 - kept) * speeds / factor


def yarn_amplitude(factor: float, slope: float = 1.0) -> float:
    """How much longer YaRN makes queries and keys, so that attention over more positions stays as sharp.

    0.1 slope ln(factor) + 1, and 1 where the factor is below 1; their products grow by its square.
    Source: Peng et al. 2023, equation 22, arXiv 2309.00071.

    >>> round(yarn_amplitude(4.0), 4)
    1.1386
    """
    return 0.1 * slope * math.log(factor) + 1 if factor > 1 else 1.0
