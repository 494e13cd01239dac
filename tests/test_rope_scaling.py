"""Laws of RoPE scaling. Oracles: the paper's words, pair by pair, and transformers' own frequencies."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from tinytrans.config import GPTConfig, LinearScaling, Llama3Scaling, YarnScaling
from tinytrans.models.gpt import GPT
from tinytrans.nn.positions import frequencies, rotation_at
from tinytrans.nn.rope_scaling import linear, llama3, yarn, yarn_amplitude

K, BASE, LEN = 64, 10000.0, 2048


def test_linear_brings_positions_closer() -> None:
    """Position p turns as position p / factor did."""
    slow = rotation_at(torch.arange(0, 40, 4), K, speeds=partial(linear, factor=4.0))
    plain = rotation_at(torch.arange(10), K)
    torch.testing.assert_close(slow.cos, plain.cos, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(slow.sin, plain.sin, atol=1e-6, rtol=0.0)


def test_llama3_pair_by_pair() -> None:
    """Pairs of many turns stay, those of few become slower by the factor, and between the two nothing jumps."""
    before, after = frequencies(K, BASE), llama3(K, BASE, factor=8.0, trained_len=LEN, low=1.0, high=4.0)
    kinds = set()
    for old, new in zip(before.tolist(), after.tolist(), strict=True):
        turns = LEN * old / (2 * math.pi)
        kinds.add(1 if turns < 1 else 4 if turns > 4 else 2)
        stays = min(max((turns - 1) / 3, 0), 1)
        assert new == pytest.approx(stays * old + (1 - stays) * old / 8, rel=1e-5)
    assert kinds == {1, 2, 4}
    assert (after.diff() < 0).all()


@pytest.mark.parametrize("truncate", [True, False])
def test_yarn_pair_by_pair(truncate: bool) -> None:
    """Pairs before the first border stay, those behind the last are slower by the factor, evenly more so in between."""
    before, after = frequencies(K, BASE), yarn(K, BASE, factor=8.0, trained_len=LEN, truncate=truncate)
    turns = LEN * before / (2 * math.pi)
    torch.testing.assert_close(after[turns > 32 * 1.5], before[turns > 32 * 1.5])
    torch.testing.assert_close(after[turns < 1 / 1.5], before[turns < 1 / 1.5] / 8)
    kept = (after / before - 1 / 8) / (1 - 1 / 8)
    inner = kept[(kept > 1e-4) & (kept < 1 - 1e-4)]
    assert len(inner) > 8
    torch.testing.assert_close(inner.diff(), inner.diff()[:1].expand(len(inner) - 1), atol=1e-4, rtol=0.0)


def test_a_factor_of_one_changes_nothing() -> None:
    """Texts no longer than before need no other angles, and no other lengths."""
    for speeds in (linear(K, BASE, factor=1.0), *(f(K, BASE, factor=1.0, trained_len=LEN) for f in (llama3, yarn))):
        torch.testing.assert_close(speeds, frequencies(K, BASE))
    assert yarn_amplitude(1.0) == yarn_amplitude(0.5) == 1.0


@pytest.mark.parametrize(
    "scaling",
    [
        LinearScaling(factor=4.0),
        Llama3Scaling(factor=8.0, trained_len=16, low=0.5, high=1.5),
        YarnScaling(factor=4.0, trained_len=16),
    ],
)
def test_a_model_uses_it(scaling: Any) -> None:
    """A model with a scaling says something else, the same with and without a cache, and can be trained."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=11, n_layers=2, d_model=12, n_heads=3, d_head=8)
    plain, scaled = GPT(config), GPT(replace(config, rope_scaling=scaling))
    for weight in plain.parameters():
        torch.nn.init.normal_(weight, std=0.8)
    scaled.load_state_dict(plain.state_dict())  # a scaling has no weights
    ids = torch.randint(11, (2, 40))
    logits = scaled(ids)
    assert (logits - plain(ids)).abs().max() > 0.01
    cache = scaled.new_cache(2, 40)
    pieces = [scaled(piece, cache=cache) for piece in ids.split((17, 1, 22), dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), logits)
    logits.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in scaled.parameters())


@pytest.mark.parametrize("base", [1.0, 0.5])
def test_yarn_wants_pairs_of_different_speeds(base: float) -> None:
    """With a base of 1 or less no pair turns more slowly than the one before, and YaRN's borders lie nowhere."""
    values: dict[str, Any] = {"vocab_size": 11, "n_layers": 1, "d_model": 8, "n_heads": 2, "rope_base": base}
    with pytest.raises(ValueError, match=f"rope_base {base} is not above 1"):
        GPTConfig(**values, rope_scaling=YarnScaling(factor=2.0, trained_len=16))
    assert GPT(GPTConfig(**values))(torch.tensor([[1, 2]])).isfinite().all()


@pytest.mark.oracle
@pytest.mark.parametrize("width", [2, 6, 64, 128])
@pytest.mark.parametrize("base", [500.0, 10000.0, 500000.0])
def test_transformers_turns_as_fast(width: int, base: float) -> None:
    """Each pair's speed is the one that transformers gives it, to the last bit: a position far away multiplies it."""
    transformers: Any = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    cases: list[tuple[torch.Tensor, dict[str, Any]]] = [
        (frequencies(width, base), {"rope_type": "linear", "factor": 1.0}),
        (linear(width, base, factor=3.0), {"rope_type": "linear", "factor": 3.0}),
        (
            llama3(width, base, factor=8.0, trained_len=8192),
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        ),
        (yarn(width, base, factor=4.0, trained_len=8192), {"rope_type": "yarn", "factor": 4.0}),
        (
            yarn(width, base, factor=4.0, trained_len=8192, slow=2.0, fast=9.0, truncate=False),
            {"rope_type": "yarn", "factor": 4.0, "beta_slow": 2.0, "beta_fast": 9.0, "truncate": False},
        ),
    ]
    for ours, rope in cases:
        rope |= {"rope_theta": base, "original_max_position_embeddings": 8192}
        config = transformers.LlamaConfig(head_dim=width, rope_parameters=rope)
        theirs, amplitude = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config)
        assert torch.equal(ours, theirs)
        assert amplitude == (yarn_amplitude(4.0) if rope["rope_type"] == "yarn" else 1.0)
