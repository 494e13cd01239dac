"""Laws of the unrolled GPT. Oracle: the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tinytrans.adapters.lora import lora
from tinytrans.config import GPTConfig, YarnScaling
from tinytrans.models.gpt import GPT
from tinytrans.nn.cache import RollingCache
from tinytrans.sampling import generate

V = 17
IDS = torch.tensor([[1, 2, 3, 9, 4, 4, 0, 5], [4, 5, 6, 16, 2, 1, 1, 8]])


def model(**changes: Any) -> GPT:
    """A tiny GPT whose weights are large enough to have opinions."""
    torch.manual_seed(0)
    config = {"vocab_size": V, "n_layers": 2, "d_model": 16, "n_heads": 4, "max_len": 16}
    gpt = GPT(GPTConfig(**{**config, **changes}))
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return gpt


@pytest.mark.parametrize("positions", ["rope", "learned", "none"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "rms", "feedforward": "swiglu", "n_kv_heads": 2, "tie": False},
        {"bias": True, "norm": "rms", "feedforward": "gelu_tanh", "dropout": 0.5},
        {"qk_norm": True, "embedding_norm": True, "n_kv_heads": 1, "bias": True},
        {"window": 3, "feedforward": "relu2"},
        {"window": 7},
        {"d_head": 6, "n_kv_heads": 2, "rope_scaling": YarnScaling(factor=4.0, trained_len=4)},
    ],
)
def test_read_one_by_one_the_numbers_are_the_models(positions: str, changes: dict[str, Any]) -> None:
    """After any prompt, each token read alone has the logits that the model gives it, and so has the next."""
    if positions != "rope":
        changes = {**changes, "rope_scaling": None}
    gpt = model(positions=positions, **changes)
    gpt.train()  # of which the unrolled one takes no notice
    cache = gpt.new_cache(2, 16)
    read = gpt.one_by_one(cache)
    assert read is not None
    gpt.eval()
    with torch.no_grad():
        expected = gpt(IDS)
        gpt(IDS[:, :3], cache=cache)
    for t in range(3, IDS.shape[1]):
        torch.testing.assert_close(read(IDS[:, t : t + 1]), expected[:, t])
    assert cache.length == IDS.shape[1]


@pytest.mark.parametrize("positions", ["rope", "learned", "none"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "rms", "feedforward": "swiglu", "n_kv_heads": 2, "tie": False},
        {"bias": True, "window": 3},
        {"qk_norm": True, "n_kv_heads": 1, "norm": "rms", "bias": True},
        {"d_head": 6, "window": 5},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_row_alone_has_the_models_numbers(positions: str, changes: dict[str, Any], dtype: torch.dtype) -> None:
    """One row looks back by other kernels: the numbers stay the model's, in each dtype, behind a window too.

    Of the windows one is so small that the cache rolls, with the other it does not.
    """
    gpt = model(positions=positions, **changes).to(dtype).eval()
    cache = gpt.new_cache(1, IDS.shape[1])
    assert isinstance(cache, RollingCache) == (changes.get("window") == 3)
    read = gpt.one_by_one(cache)
    assert read is not None
    with torch.no_grad():
        expected = gpt(IDS[:1])
    tolerance: dict[str, float] = {"rtol": 0.1, "atol": 0.5} if dtype == torch.bfloat16 else {}
    for t in range(IDS.shape[1]):
        torch.testing.assert_close(read(IDS[:1, t : t + 1]), expected[:, t], **tolerance)


@pytest.mark.parametrize("order", [[0], [0, 0, 0], [1, 0], [1]])
def test_rows_reordered_are_read_from_their_new_rooms(order: list[int]) -> None:
    """A cache whose rows were put into another order, or made fewer or more, is read as it now is."""
    gpt = model().eval()
    rows = IDS[: 1 if max(order) == 0 else 2]
    cache = gpt.new_cache(len(rows))
    read = gpt.one_by_one(cache)
    assert read is not None
    for t in range(4):
        read(rows[:, t : t + 1])
    cache.reorder(torch.tensor(order))
    chosen = rows[order]
    with torch.no_grad():
        expected = gpt(chosen)
        for t in range(4, IDS.shape[1] - 1):
            torch.testing.assert_close(read(chosen[:, t : t + 1]), expected[:, t])
        last = gpt(chosen[:, -1:], cache=cache)  # which finds there what was read one by one
    torch.testing.assert_close(last[:, -1], expected[:, -1])


def test_weights_that_move_are_read_anew() -> None:
    """A weight changed in place, as an optimiser does, changes what is read."""
    gpt = model()
    read = gpt.one_by_one(gpt.new_cache(1))
    assert read is not None
    before = read(IDS[:1, :1])
    with torch.no_grad():
        gpt.blocks[0].feedforward.up.weight.add_(1.0)
    other = gpt.one_by_one(cache := gpt.new_cache(1))
    assert other is not None
    torch.testing.assert_close(other(IDS[:1, :1]), gpt.eval()(IDS[:1, :1])[:, -1])
    assert not torch.equal(before, other(IDS[:1, :1]))
    assert cache.length == 2


def test_what_is_not_known_is_left_to_the_model() -> None:
    """Adapters, hooks, ALiBi, sines and norms behind the sublayers are not unrolled, and generation goes on."""
    hooked = model()
    seen: list[int] = []
    hooked.blocks[1].register_forward_hook(lambda *_: seen.append(1))
    adapted = lora(model(), rank=2)
    watched = model()
    watched.register_forward_pre_hook(lambda *_: seen.append(1))
    others = [watched, model(positions="alibi"), model(positions="sinusoidal"), model(residual="post")]
    for gpt in (hooked, adapted, *others):
        assert gpt.one_by_one(gpt.new_cache(1)) is None
        generate(gpt, IDS, max_new_tokens=3)
    assert len(seen) == 6


def test_generation_reads_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`generate` asks the model for the prompt alone; each new token is read by the unrolled one."""
    gpt = model()
    expected = generate(gpt, IDS, max_new_tokens=20, temperature=0.0, use_cache=False)
    lengths: list[int] = []
    forward = gpt.forward
    monkeypatch.setattr(gpt, "forward", lambda ids, **kwargs: lengths.append(ids.shape[1]) or forward(ids, **kwargs))
    assert torch.equal(generate(gpt, IDS, max_new_tokens=20, temperature=0.0), expected)
    assert 1 not in lengths
    assert lengths[0] == IDS.shape[1]


def test_the_end_of_what_was_learned_is_named() -> None:
    """Past the last learned position, and past the cache's room, there is an error with both numbers."""
    gpt = model(positions="learned", max_len=2)
    read = gpt.one_by_one(gpt.new_cache(1, 4))
    assert read is not None
    read(IDS[:1, :1])
    read(IDS[:1, :1])
    with pytest.raises(ValueError, match="3 positions are more than max_len 2"):
        read(IDS[:1, :1])
