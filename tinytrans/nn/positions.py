"""Positions: places in a sequence (T,) -> something by which attention can tell them apart.

Two ways add a vector to each embedding: `add_sinusoidal` computes it, `embed_at` has it from a learned table. RoPE adds
nothing: it turns queries and keys, so that their products depend on the distance alone. `turn`, `rope` and `rope_step`
say it the way the paper does; `rotation_at` computes the angles once, for all layers, and `rotate` turns by them, with
the same numbers as `rope` and sooner.
`alibi` adds nothing either: it lowers the scores of what stands far away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tinytrans.nn.gradients import by_hand


def frequencies(width: int, base: float = 10000.0, *, device: torch.device | str | None = None) -> Tensor:
    """How many radians each pair of numbers turns per position, from 1 to almost 1/base: (width / 2,).

    theta_i = base^(-2i/width) for pair i = 0, 1, ...; in an odd width the last number is a pair by
    itself. Source: Vaswani et al. 2017, section 3.5, arXiv 1706.03762.

    >>> frequencies(4)
    tensor([1.0000, 0.0100])
    """
    return 1 / base ** (torch.arange(0, width, 2, device=device) / width)  # bit for bit as others: far away it counts


def sinusoidal(positions: Tensor, D: int, base: float = 10000.0) -> Tensor:
    """Each position as D numbers, sines and cosines in turn, ever slower: (..., T) -> (..., T, D).

    PE(t, 2i) = sin(t / base^(2i/D)), PE(t, 2i + 1) = cos(t / base^(2i/D)); an odd D ends on a sine.
    Source: Vaswani et al. 2017, section 3.5, arXiv 1706.03762.

    >>> sinusoidal(torch.arange(2), 2)
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """
    angles = positions[..., None] * frequencies(D, base, device=positions.device)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :D]


def add_sinusoidal(x: Tensor, start: int = 0) -> Tensor:
    """Embeddings (B, T, D) -> sqrt(D) times each, plus the sinusoidal vector of its position (B, T, D).

    The first of the T stands at position `start`. Embeddings are small at first, with numbers near 1 /
    sqrt(D); multiplied, they weigh as much as the sines.
    Source: Vaswani et al. 2017, sections 3.4 and 3.5, arXiv 1706.03762.

    >>> add_sinusoidal(torch.ones(1, 2, 4))[0, 1]
    tensor([2.8415, 2.5403, 2.0100, 2.9999])
    """
    T, D = x.shape[-2:]
    positions = torch.arange(start, start + T, device=x.device)
    return x * math.sqrt(D) + sinusoidal(positions, D)


def embed_at(ids: Tensor, tokens: Tensor, places: Tensor, start: int = 0) -> Tensor:
    """What a token is plus where it stands: ids (B, T) -> (B, T, D).

    The tables tokens (V, D) and places (max_len, D) are learned. The first of the T ids stands at
    position `start`. Raises ValueError, naming both numbers, where a position lies beyond the end of
    the table. Source: Gehring et al. 2017, section 3.1, arXiv 1705.03122; so do BERT and GPT-2.

    >>> embed_at(torch.tensor([[1, 1]]), torch.tensor([[0.0], [10.0]]), torch.tensor([[0.1], [0.2]]))
    tensor([[[10.1000],
             [10.2000]]])
    """
    stop = start + ids.shape[-1]
    if stop > len(places):
        raise ValueError(f"{stop} positions are more than the {len(places)} that the table has learned")
    return tokens[ids] + places[start:stop]


def turn(x: Tensor, angles: Tensor) -> Tensor:
    """Pairs of numbers, each turned by its own angle: x (..., T, K), angles (..., T, K/2) -> (..., T, K).

    Numbers i and i + K/2 of x are pair i, turned by angle i, in radians:
    (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin): anticlockwise, lengths stay.

    >>> turn(torch.tensor([[1.0, 0.0]]), torch.tensor([[torch.pi / 6]]))
    tensor([[0.8660, 0.5000]])
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def rope(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Queries or keys (..., T, K), each turned by where it stands: pair i at position p by p theta_i.

    The positions, (T,) or whatever broadcasts to (..., T), are places in the whole text, not in x. The
    product of a query at m and a key at n, both so turned, depends on the two and on n - m alone.
    Source: Su et al. 2021 (RoPE), section 3.2, arXiv 2104.09864.

    >>> rope(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    tensor([[1.0000, 0.0000],
            [0.5403, 0.8415]])
    """
    angles = positions[..., None] * frequencies(x.shape[-1], base, device=positions.device)
    return turn(x, angles)


def rope_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """One new token looks back over a cache -> (what it gathers (..., 1, d_v), keys, values).

    q, k (..., 1, K) and v (..., 1, d_v) are the new token's, not turned yet. keys (..., S, K), turned
    already, and values (..., S, d_v) are those of positions 0 to S - 1; S may be 0. The new token sees
    them all, and itself; its own key and value come back at the end of the grown ones.

    >>> one, none = torch.ones(1, 2), torch.empty(0, 2)
    >>> [x.tolist() for x in rope_step(one, one, one, none, none)]
    [[[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]]]
    """
    here = torch.tensor([keys.shape[-2]], device=q.device)
    keys = torch.cat((keys, rope(k, here)), dim=-2)
    values = torch.cat((values, v), dim=-2)
    scores = rope(q, here) @ keys.mT / math.sqrt(q.shape[-1])
    return scores.softmax(dim=-1) @ values, keys, values


class Rotation(NamedTuple):
    """The cosine and the signed sine by which each number of a head turns at each position: both (..., T, K).

    The K/2 angles stand twice, for numbers i and i + K/2 of a pair; the sine is negative in the first half.
    """

    cos: Tensor
    sin: Tensor


def rotation_at(
    positions: Tensor,
    K: int,
    *,
    base: float = 10000.0,
    dtype: torch.dtype | None = None,
    speeds: Callable[..., Tensor] = frequencies,
    amplitude: float = 1.0,
) -> Rotation:
    """The rotation of heads of even width K at absolute positions (..., T): pair i turns by position * base^(-2i/K).

    Where each row of a batch has positions of its own, they are (B, 1, T): the same for every head. Other `speeds` than
    those of the paper, and lengths times an `amplitude`, are those of `tinytrans.nn.rope_scaling`.
    Angles are computed in float32, whatever the dtype of the result: a half-precision angle loses its whole circles.
    Raises ValueError where K is odd. Source: Su et al. 2021 (RoPE), section 3.2, arXiv 2104.09864.

    >>> rotation_at(torch.tensor([0, 1]), 2).cos
    tensor([[1.0000, 1.0000],
            [0.5403, 0.5403]])
    """
    if K % 2:
        raise ValueError(f"a head of width {K} has no pairs to rotate: the width must be even")
    angles = positions[..., None] * speeds(K, base, device=positions.device)
    cos, sin = angles.cos(), angles.sin()
    if amplitude != 1:
        cos, sin = cos * amplitude, sin * amplitude
    return Rotation(torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys (..., T, K), each turned to its position: numbers i and i + K/2 are one pair (x1, x2).

    (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin). Lengths stay, and the product of a query at t and a key at s, so
    turned, depends on t - s alone. The paper pairs neighbours; halves are how GPT-NeoX and Hugging Face's Llama do it.
    Source: Su et al. 2021 (RoPE), equation 34, arXiv 2104.09864.

    >>> rotate(torch.tensor([[1.0, 0.0]]), rotation_at(torch.tensor([1]), 2))
    tensor([[0.5403, 0.8415]])
    """
    if by_hand(x):
        y: Tensor = Turn.apply(x, *rotation)
        return y
    return turned(x, *rotation)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` itself, in three kernels: x (..., T, K), cos and signed sin (..., T, K) -> (..., T, K)."""
    swapped = x.roll(x.shape[-1] // 2, dims=-1)  # (x2, x1), a copy, so we may work in place
    return swapped.mul_(sin).addcmul_(x, cos)


class Turn(torch.autograd.Function):
    """`rotate` with its gradient written out: a turn's transpose is the turn back.

    For torch it is a sum of products to be taken apart, at twice the time. Angles have no gradient.
    """

    @staticmethod
    def forward(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return turned(x, cos, sin)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotate(grad, Rotation(cos, -sin)), None, None


def alibi_slopes(H: int, *, device: torch.device | str | None = None) -> Tensor:
    """How fast each head loses sight of what is far: H heads -> slopes (H,), each between 0 and 1.

    2^(-8 h / H) for h = 1 ... H where H is a power of two: they fall to 2^-8. Other H take the slopes of the power
    below and, of those of the power above, every other one from the first.
    Source: Press et al. 2021, section 3, arXiv 2108.12409.

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
