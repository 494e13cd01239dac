"""Laws of the KV cache. Oracle: concatenation. What models do with it stands in test_gpt.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tinytrans.nn.cache import KVCache, RollingCache, cache_bytes, cached_attend

L, B, S, G, K = 2, 3, 8, 4, 5


def draw(T: int, seed: int) -> Tensor:
    return torch.randn(B, G, T, K, generator=torch.Generator().manual_seed(seed))


def fill(cache: KVCache, T: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Write T positions into both layers, advance, and hand back what layer 0 then knows."""
    known = [cache[layer].update(draw(T, seed + layer), draw(T, seed + 10 + layer)) for layer in range(L)]
    cache.advance(T)
    return known[0]


def test_update_is_concatenation() -> None:
    """After chunks of 3, 1 and 2 positions every layer knows the 6 in order, each layer its own."""
    cache = KVCache(L, B, S, G, K)
    chunks = [(3, 100), (1, 200), (2, 300)]
    for T, seed in chunks:
        keys, values = fill(cache, T, seed)
    assert torch.equal(keys, torch.cat([draw(T, seed) for T, seed in chunks], dim=2))
    assert torch.equal(values, torch.cat([draw(T, seed + 10) for T, seed in chunks], dim=2))
    assert torch.equal(cache.keys[1][:, :, :6], torch.cat([draw(T, seed + 1) for T, seed in chunks], dim=2))
    assert cache.length == 6
    assert len(cache) == L


def test_length_waits_for_all_layers() -> None:
    """Layers write at the same place until the model advances."""
    cache = KVCache(L, B, S, G, K)
    cache[0].update(draw(2, 0), draw(2, 1))
    assert cache.length == 0
    keys, _ = cache[1].update(draw(2, 2), draw(2, 3))
    assert torch.equal(keys, draw(2, 2))


def test_too_much_is_refused() -> None:
    """More positions than there is room for, or another batch, raise an error that names both numbers."""
    cache = KVCache(L, B, S, G, K)
    fill(cache, 6)
    with pytest.raises(ValueError, match=r"6 positions and 3 new .* 8"):
        cache.check(B, 3)
    with pytest.raises(ValueError, match=r"6 positions and 3 new .* 8"):
        cache.advance(3)
    with pytest.raises(ValueError, match=r"batch of 2 .* batch of 3"):
        cache.check(2, 1)
    assert cache.length == 6


def test_rewind_forgets_the_tail() -> None:
    """After a rewind to 2 the next positions follow the first two; one cannot rewind forward."""
    cache = KVCache(L, B, S, G, K)
    fill(cache, 5, seed=100)
    cache.rewind(2)
    keys, _ = fill(cache, 1, seed=200)
    assert torch.equal(keys, torch.cat((draw(5, 100)[:, :, :2], draw(1, 200)), dim=2))
    with pytest.raises(ValueError, match=r"rewind to 4: .* 3"):
        cache.rewind(4)
    cache.reset()
    assert cache.length == 0


def test_reorder_moves_whole_rows() -> None:
    """Row b becomes row index[b] in every layer; rows copied from one part afterwards."""
    cache = KVCache(L, B, S, G, K)
    keys, values = (x.clone() for x in fill(cache, 4))
    cache.reorder(torch.tensor([2, 2, 0, 1]))
    assert cache.batch == 4
    assert torch.equal(cache.keys[0][:, :, :4], keys[[2, 2, 0, 1]])
    assert torch.equal(cache.values[0][:, :, :4], values[[2, 2, 0, 1]])
    cache.keys[0][0] = 0
    assert torch.equal(cache.keys[0][1, :, :4], keys[2])


def test_memory_is_counted() -> None:
    """Two tensors a layer, and only as many heads as keys have: 2 L B S G K numbers."""
    assert KVCache(L, B, S, G, K).nbytes == 2 * L * B * S * G * K * 4
    assert KVCache(L, B, S, G, K, dtype=torch.bfloat16).nbytes == 2 * L * B * S * G * K * 2


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("rewind", [0, 2])
def test_a_rolling_cache_knows_what_a_window_sees(width: int, rewind: int) -> None:
    """Whatever the chunks, new positions come with exactly the width - 1 before them, in order, in every layer."""
    full, rolling = KVCache(L, B, 99, G, K), RollingCache(L, B, width, G, K, rewind=rewind)
    for step, T in enumerate([1, 3, 1, 1, 1, 1, 9, 1, 2, 2, 2, 1, 1, 20, 1, 4]):
        before = min(full.length, width - 1)
        for layer in range(L):
            k, v = draw(T, 100 * step + layer), draw(T, 100 * step + 10 + layer)
            everything, seen = full[layer].update(k, v), rolling[layer].update(k, v)
            for all_of_it, part in zip(everything, seen, strict=True):
                assert torch.equal(part, all_of_it[:, :, -(before + T) :])
        full.advance(T)
        rolling.advance(T)
        assert rolling.length == full.length


def test_a_rolling_cache_does_not_grow() -> None:
    """Its memory is that of two windows, after thousands of positions as before the first."""
    rolling = RollingCache(L, B, 6, G, K, rewind=1)
    before = rolling.nbytes
    assert before == 2 * 2 * L * B * (6 - 1 + 1) * G * K * 4
    for seed in range(300):
        fill(rolling, 10, seed)
    assert rolling.length == 3000
    assert rolling.nbytes == before
    rolling.check(B, 10**6)


@pytest.mark.parametrize("chunks", [[1] * 9, [9], [4, 5], [8, 1]])
def test_a_rolling_cache_goes_back_as_far_as_promised(chunks: list[int]) -> None:
    """A rewind by what was promised leaves what the window saw there; a longer one that would not is refused."""
    width, back = 4, 3
    full, rolling = KVCache(L, B, 99, G, K), RollingCache(L, B, width, G, K, rewind=back)
    for cache in (full, rolling):
        for step, T in enumerate(chunks):
            fill(cache, T, seed=100 * step)
        cache.rewind(9 - back)
    for a, b in zip(fill(full, 2, seed=7777), fill(rolling, 2, seed=7777), strict=True):
        assert torch.equal(b, a[:, :, -(width - 1 + 2) :])
    fill(rolling, 30)
    with pytest.raises(ValueError, match=r"rewind to 5: .* of 38 positions, .* window is 4"):
        rolling.rewind(5)
    with pytest.raises(ValueError, match="rewind to 39"):
        rolling.rewind(39)
    rolling.reset()
    assert torch.equal(fill(rolling, 2, seed=5)[0], draw(2, 5))


def test_a_rolling_cache_is_reordered_too() -> None:
    """Row b of a rolling cache becomes row index[b], as in a full one."""
    full, rolling = KVCache(L, B, 99, G, K), RollingCache(L, B, 4, G, K)
    for cache in (full, rolling):
        fill(cache, 11)
        cache.reorder(torch.tensor([2, 0, 0]))
    for a, b in zip(fill(full, 1, seed=50), fill(rolling, 1, seed=50), strict=True):
        assert torch.equal(b, a[:, :, -4:])


@pytest.mark.parametrize("chunks", [[7], [1] * 7, [3, 1, 2, 1]])
def test_attention_with_a_cache_is_causal_attention(chunks: list[int]) -> None:
    """However the sequence is cut, the outputs are those of causal attention over all of it; the cache holds it all."""
    q, k, v = (torch.randn(B, G, 7, width, dtype=torch.float64) for width in (K, K, K + 1))
    keys, values, found = k[:, :, :0], v[:, :, :0], []
    for new in zip(*(x.split(chunks, dim=2) for x in (q, k, v)), strict=True):
        output, keys, values = cached_attend(*new, keys, values)
        found.append(output)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(torch.cat(found, dim=2), expected)
    assert torch.equal(keys, k)
    assert torch.equal(values, v)


def test_the_formula_is_what_is_allocated() -> None:
    """cache_bytes counts what a KVCache of that many positions takes up, grouped heads and half precision included."""
    for dtype in (torch.float32, torch.bfloat16):
        cache = KVCache(L, B, S, G, K, dtype=dtype)
        assert cache.nbytes == cache_bytes(L, B, S, 4 * G * K, 4 * G, G, dtype.itemsize)


def test_no_cache_has_less_than_no_room() -> None:
    """Sizes below 0 are refused by name."""
    with pytest.raises(ValueError, match="room for -1 positions of 2 sequences"):
        KVCache(L, 2, -1, G, K)


def test_a_window_of_one_needs_nothing_behind() -> None:
    """Where a query sees itself alone, one can go back to any place, however little is kept."""
    rolling = RollingCache(L, B, 1, G, K)
    fill(rolling, 9)
    rolling.rewind(4)
    assert rolling.length == 4
    assert torch.equal(fill(rolling, 1, seed=7)[0], draw(1, 7))
