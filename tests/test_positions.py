"""Laws of the positions. Oracles: the papers' formulas with Python's math, complex numbers."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor

from tinytrans.nn.attention import attend
from tinytrans.nn.masks import causal
from tinytrans.nn.positions import (
    add_sinusoidal,
    alibi,
    alibi_slopes,
    embed_at,
    frequencies,
    rope,
    rope_step,
    rotate,
    rotation_at,
    sinusoidal,
)

B, H, T, K = 2, 3, 5, 8


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("D", [8, 7])
def test_sinusoidal_by_hand(D: int) -> None:
    """PE(t, 2i) = sin(t / 10000^(2i/D)) and PE(t, 2i + 1) is the cosine of the same angle; odd widths end on a sine."""
    table = sinusoidal(torch.arange(20), D)
    assert table.shape == (20, D)
    for t in (0, 1, 19):
        for d in range(D):
            angle = t / 10000 ** (2 * (d // 2) / D)
            assert table[t, d].item() == pytest.approx(math.cos(angle) if d % 2 else math.sin(angle), abs=1e-5)


def test_a_shift_of_sinusoids_is_a_rotation() -> None:
    """The product of two positions' sinusoids depends on their distance alone."""
    table = sinusoidal(torch.arange(50), 16)
    products = table @ table.T
    for distance in (0, 1, 7):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=0)


def test_rotation_is_multiplication_by_a_complex_number() -> None:
    """Numbers i and i + K/2 are one complex number, turned by e^(j t base^(-2i/K)): Hugging Face's Llama convention."""
    base, x = 500.0, draw(T, K)
    y = rotate(x, rotation_at(torch.arange(T), K, base=base, dtype=x.dtype))
    for t in range(T):
        for i in range(K // 2):
            turned = complex(x[t, i], x[t, i + K // 2]) * cmath.exp(1j * t * base ** (-2 * i / K))
            assert y[t, i].item() == pytest.approx(turned.real, abs=1e-5)
            assert y[t, i + K // 2].item() == pytest.approx(turned.imag, abs=1e-5)


def test_rotation_is_relative() -> None:
    """Queries and keys shifted together keep their products; shifted apart they do not."""
    q, k = draw(H, T, K), draw(H, T, K, seed=1)

    def product(query_start: int, key_start: int) -> Tensor:
        turns = (rotation_at(torch.arange(T) + start, K, dtype=q.dtype) for start in (query_start, key_start))
        return rotate(q, next(turns)) @ rotate(k, next(turns)).mT

    torch.testing.assert_close(product(0, 0), product(13, 13), atol=1e-5, rtol=0)
    assert (product(0, 0) - product(13, 11)).abs().max() > 0.1


def test_rotation_keeps_lengths_and_place_zero() -> None:
    """A turn changes no length, does nothing at position 0, and something at every other."""
    x = draw(B, H, T, K)
    y = rotate(x, rotation_at(torch.arange(T), K, dtype=x.dtype))
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), atol=1e-6, rtol=0)
    assert torch.equal(y[:, :, 0], x[:, :, 0])
    assert ((y - x)[:, :, 1:].abs().amax(dim=-1) > 0.1).all()


def test_rotation_does_not_touch_its_input_and_passes_gradients() -> None:
    """The input stays as it was, and the gradient is the turn backwards."""
    x = draw(B, H, T, K).requires_grad_()
    before = x.detach().clone()
    rotation = rotation_at(torch.arange(T), K, dtype=x.dtype)
    assert torch.autograd.gradcheck(lambda x: rotate(x, rotation), (x,))
    assert torch.equal(x.detach(), before)


def test_rotation_reads_strided_inputs() -> None:
    """Heads cut from one projection are turned like their copies."""
    x = draw(B, T, H, K).transpose(1, 2)
    rotation = rotation_at(torch.arange(T), K, dtype=x.dtype)
    assert torch.equal(rotate(x, rotation), rotate(x.contiguous(), rotation))


def test_positions_may_start_anywhere() -> None:
    """The rotation at positions 3 and 4 is the tail of that at 0 ... 4: decoding needs no table from the start."""
    whole, tail = rotation_at(torch.arange(5), K), rotation_at(torch.tensor([3, 4]), K)
    assert torch.equal(whole.cos[3:], tail.cos)
    assert torch.equal(whole.sin[3:], tail.sin)
    assert torch.equal(sinusoidal(torch.arange(5), K)[3:], sinusoidal(torch.tensor([3, 4]), K))


def test_half_precision_keeps_its_angles() -> None:
    """In bfloat16 the angle is computed in full before it is rounded: position 1001 is told from 1000."""
    rotation = rotation_at(torch.tensor([1000, 1001]), K, dtype=torch.bfloat16)
    assert rotation.cos.dtype == torch.bfloat16
    assert rotation.cos[:, 0].tolist() == pytest.approx([math.cos(1000), math.cos(1001)], abs=0.01)
    assert rotate(draw(2, K, dtype=torch.bfloat16), rotation).dtype == torch.bfloat16


def test_frequencies_fall_from_one() -> None:
    """The first pair turns a radian per position, each next one slower by the same factor."""
    turn = frequencies(K, base=16.0)
    assert turn.tolist() == pytest.approx([1, 1 / 2, 1 / 4, 1 / 8])


def test_odd_heads_are_refused() -> None:
    """A head of odd width has no pairs, and the message names the width."""
    with pytest.raises(ValueError, match="width 5"):
        rotation_at(torch.arange(3), 5)


def test_each_row_may_have_its_own_positions() -> None:
    """Rows at other places are turned, and get sinusoids, as each would alone."""
    positions = torch.tensor([[0, 1, 2, 3, 4], [7, 3, 0, 0, 1]])
    x = draw(B, H, T, K)
    together = rotate(x, rotation_at(positions[:, None], K, dtype=x.dtype))
    for b in range(B):
        assert torch.equal(together[b], rotate(x[b], rotation_at(positions[b], K, dtype=x.dtype)))
        assert torch.equal(sinusoidal(positions, 7)[b], sinusoidal(positions[b], 7))


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12])
def test_alibi_by_hand(heads: int) -> None:
    """Head h's score falls by its slope for every place of distance; the paper's slopes, also between powers of two."""
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    slopes += [2 ** (-8 * h / (2 * power)) for h in range(1, 2 * power + 1)][::2][: heads - power]
    assert alibi_slopes(heads).tolist() == pytest.approx(slopes)
    bias = alibi(heads, 3, 5)
    assert bias.shape == (heads, 3, 5)
    for h in range(heads):
        for t in range(3):
            assert bias[h, t].tolist() == pytest.approx([-slopes[h] * abs(t + 2 - s) for s in range(5)])


def test_the_readable_way_gives_the_fast_way_numbers() -> None:
    """`rope` turns as `rotation_at` and `rotate` do, wherever the positions start and whatever the base."""
    x, positions = draw(B, H, T, K), torch.tensor([3, 1, 4, 15, 9])
    fast = rotate(x, rotation_at(positions, K, base=500.0, dtype=x.dtype))
    torch.testing.assert_close(rope(x, positions, 500.0), fast, atol=1e-6, rtol=0)


def test_turns_undo_each_other() -> None:
    """R_m^T R_n = R_(n-m): turned back by m and on by n is turned by n - m."""
    m, n, unit = 3, 11, torch.eye(K)
    there, back = rope(unit, torch.tensor([n])), rope(unit, torch.tensor([-m]))
    torch.testing.assert_close(back @ there, rope(unit, torch.tensor([n - m])), atol=1e-5, rtol=0)


def test_a_step_with_a_cache_is_attention_at_once() -> None:
    """Word by word over a cache of turned keys gives what causal attention gives for the whole text."""
    q, k, v = draw(B, T, K), draw(B, T, K, seed=1), draw(B, T, 3, seed=2)
    places = torch.arange(T)
    whole = attend(rope(q, places), rope(k, places), v, causal(T))
    keys, values, found = k[:, :0], v[:, :0], []
    for t in range(T):
        y, keys, values = rope_step(q[:, t : t + 1], k[:, t : t + 1], v[:, t : t + 1], keys, values)
        found.append(y)
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(keys, rope(k, places), atol=1e-6, rtol=0)


def test_sinusoids_are_added_to_scaled_embeddings() -> None:
    """Embeddings come sqrt(D) times as long, with the rows of positions start, start + 1, ... added."""
    x = draw(B, T, K)
    expected = x * math.sqrt(K) + sinusoidal(torch.arange(7, 7 + T), K)
    assert torch.equal(add_sinusoidal(x, 7), expected)


def test_a_learned_table_ends() -> None:
    """The last row may be used, one more position is refused, and the message names both numbers."""
    ids, tokens, places = torch.tensor([[1, 0, 1]]), draw(2, K), draw(6, K)
    assert torch.equal(embed_at(ids, tokens, places, 3), tokens[ids] + places[3:])
    with pytest.raises(ValueError, match=r"7 positions .* 6"):
        embed_at(ids, tokens, places, 4)
