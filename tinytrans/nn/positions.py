"""Positions: places in a sequence (T,) -> something by which attention can tell them apart.

`sinusoidal` gives vectors to add to the embeddings. RoPE adds nothing: `rotation_at` computes once, for all layers, by
which angles the places turn, and `rotate` turns queries and keys, so that their products depend on the distance alone.
`alibi` adds nothing either: it lowers the scores of what stands far away.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def frequencies(width: int, base: float = 10000.0, *, device: torch.device | str | None = None) -> Tensor:
    """How far each pair of numbers turns per position, from 1 radian down to almost 1/base: base^(-2i/width).

    >>> frequencies(4)
    tensor([1.0000, 0.0100])
    """
    return base ** -(torch.arange(0, width, 2, device=device) / width)


def sinusoidal(positions: Tensor, D: int, *, base: float = 10000.0) -> Tensor:
    """Each position as D numbers, sines and cosines in turn, of falling frequency: positions (..., T) -> (..., T, D).

    PE(t, 2i) = sin(t / base^(2i/D)), PE(t, 2i + 1) = cos(t / base^(2i/D)); an odd D ends on a sine.
    Source: Vaswani et al. 2017, section 3.5, arXiv 1706.03762.

    >>> sinusoidal(torch.arange(2), 2)
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """
    angles = positions[..., None] * frequencies(D, base, device=positions.device)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :D]


class Rotation(NamedTuple):
    """The cosine and the signed sine by which each number of a head turns at each position: both (..., T, K).

    The K/2 angles stand twice, for numbers i and i + K/2 of a pair; the sine is negative in the first half.
    """

    cos: Tensor
    sin: Tensor


def rotation_at(positions: Tensor, K: int, *, base: float = 10000.0, dtype: torch.dtype | None = None) -> Rotation:
    """The rotation of heads of even width K at absolute positions (..., T): pair i turns by position * base^(-2i/K).

    Where each row of a batch has positions of its own, they are (B, 1, T): the same for every head.
    Angles are computed in float32, whatever the dtype of the result: a half-precision angle loses its whole circles.
    Raises ValueError where K is odd. Source: Su et al. 2021 (RoPE), section 3.2, arXiv 2104.09864.

    >>> rotation_at(torch.tensor([0, 1]), 2).cos
    tensor([[1.0000, 1.0000],
            [0.5403, 0.5403]])
    """
    if K % 2:
        raise ValueError(f"a head of width {K} has no pairs to rotate: the width must be even")
    angles = positions[..., None] * frequencies(K, base, device=positions.device)
    cos, sin = angles.cos(), angles.sin()
    return Rotation(torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys (..., T, K), each turned to its position: numbers i and i + K/2 are one pair (x1, x2).

    (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin). Lengths stay, and the product of a query at t and a key at s, so
    turned, depends on t - s alone. The paper pairs neighbours; halves are how GPT-NeoX and Hugging Face's Llama do it.
    Source: Su et al. 2021 (RoPE), equation 34, arXiv 2104.09864.

    >>> rotate(torch.tensor([[1.0, 0.0]]), rotation_at(torch.tensor([1]), 2))
    tensor([[0.5403, 0.8415]])
    """
    swapped = x.roll(x.shape[-1] // 2, dims=-1)  # (x2, x1), a copy, so we may work in place
    return swapped.mul_(rotation.sin).addcmul_(x, rotation.cos)


def alibi_slopes(H: int, *, device: torch.device | str | None = None) -> Tensor:
    """How fast each head loses sight of what is far: (H,), a falling geometric sequence that ends at 2^-8.

    2^(-8 h / H) for h = 1 ... H where H is a power of two; other H take the slopes of the power below and, of those of
    the power above, every other one from the first. Source: Press et al. 2021, section 3, arXiv 2108.12409.

    >>> alibi_slopes(2).tolist(), alibi_slopes(3).tolist()
    ([0.0625, 0.00390625], [0.0625, 0.00390625, 0.25])
    """
    power = 1 << (H.bit_length() - 1)
    slopes = 2.0 ** (-8 * torch.arange(1, power + 1, device=device) / power)
    between = 2.0 ** (-4 * (1 + 2 * torch.arange(H - power, device=device)) / power)
    return torch.cat((slopes, between))


def alibi(H: int, T: int, S: int | None = None, *, device: torch.device | str | None = None) -> Tensor:
    """Attention with linear biases: what is added to the scores of T queries, the last of S positions: (H, T, S).

    -slope_h |t - s|, so that a longer text than was ever seen is nothing new: no table, no angle, no limit.
    Source: Press et al. 2021, section 3, arXiv 2108.12409.

    >>> alibi(1, 2, 3) * 256
    tensor([[[-1.,  0., -1.],
             [-2., -1.,  0.]]])
    """
    S = T if S is None else S
    queries, keys = torch.arange(S - T, S, device=device), torch.arange(S, device=device)
    return alibi_slopes(H, device=device)[:, None, None] * -(queries[:, None] - keys[None, :]).abs()
