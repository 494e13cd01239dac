"""Laws of the KV cache. Oracle: concatenation. What models do with it stands in test_gpt.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tinytrans.nn.cache import KVCache

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
