"""Laws of the configs: what cannot be built is refused at birth, and what is written down is read back the same."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any, get_args

import pytest

from tinytrans import config
from tinytrans.config import PRESETS, GPTConfig, LinearScaling, Llama3Scaling, YarnScaling
from tinytrans.nn.block import RESIDUALS
from tinytrans.nn.feedforward import FEEDFORWARDS
from tinytrans.nn.norms import NORMS

TINY = GPTConfig(vocab_size=11, n_layers=2, d_model=12, n_heads=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 10}, r"d_model 10 .* n_heads 3"),
        ({"n_kv_heads": 2}, r"n_heads 3 .* n_kv_heads 2"),
        ({"d_model": 9}, r"d_model 9 / n_heads 3"),
        ({"n_layers": 0}, "n_layers 0"),
        ({"vocab_size": -1}, "vocab_size -1"),
        ({"max_len": None}, "max_len None"),
        ({"d_ff": 2.5}, "d_ff 2.5"),
        ({"window": 0}, "window 0"),
        ({"n_heads": True}, "n_heads True"),
        ({"positions": "rotary"}, "'rotary' is not one of rope, learned, sinusoidal"),
        ({"residual": "both"}, "'both' is not one of pre, post"),
        ({"norm": "batch"}, "'batch' is not one of layer, rms"),
        ({"feedforward": "silux"}, "'silux' is not one of gelu"),
        ({"dropout": 1.0}, r"dropout 1.0 is not in \[0, 1\)"),
        ({"dropout": float("nan")}, "dropout nan"),
        ({"dropout": "0.1"}, "dropout '0.1' is not a finite number"),
        ({"bias": "no"}, "bias 'no' is neither True nor False"),
        ({"vocab_size": 2.0}, "vocab_size 2.0"),
        ({"rope_base": 0.0}, "rope_base 0.0"),
        ({"rope_base": float("inf")}, "rope_base inf is not a finite number"),
        ({"norm_eps": -1e-5}, "norm_eps -1e-05"),
        ({"d_head": 0}, "d_head 0"),
        ({"d_head": 5}, "d_head 5 is odd"),
        ({"rope_scaling": "linear"}, "rope_scaling is of type str"),
        ({"rope_scaling": LinearScaling(factor=2.0), "positions": "learned"}, "'linear' .* positions are 'learned'"),
    ],
)
def test_impossible_numbers_are_refused(wrong: dict[str, Any], message: str) -> None:
    """A config that no model can have raises ValueError and names the values."""
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)


def test_odd_heads_are_fine_without_rope() -> None:
    """Only rope needs heads of even width."""
    assert replace(TINY, d_model=9, positions="learned").head_width == 3


def test_a_config_is_frozen() -> None:
    """Nobody changes a config; `replace` makes another."""
    with pytest.raises(FrozenInstanceError):
        TINY.n_layers = 3  # type: ignore[misc]
    assert replace(TINY, n_layers=3) != TINY
    assert hash(replace(TINY, n_layers=3)) != hash(TINY)


def test_widths_are_derived() -> None:
    """F is 4 D, or for SwiGLU 8/3 D rounded up to a multiple of 16, unless given; G is H unless given; K is D / H."""
    assert TINY.feedforward_width == 48
    assert replace(TINY, d_ff=7).feedforward_width == 7
    widths = {D: replace(TINY, d_model=D, feedforward="swiglu").feedforward_width for D in (6, 18, 24, 384, 768)}
    assert widths == {6: 16, 18: 48, 24: 64, 384: 1024, 768: 2048}
    assert (TINY.kv_heads, replace(TINY, n_kv_heads=1).kv_heads) == (3, 1)
    assert TINY.head_width == 4
    assert replace(TINY, d_model=10, d_head=6).head_width == 6  # which d_model need then not divide


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (LinearScaling, {"factor": 0.0}, "factor 0.0 is not positive"),
        (LinearScaling, {"factor": "2"}, "factor '2' is not a finite number"),
        (Llama3Scaling, {"factor": 8.0, "trained_len": 0}, "trained_len 0"),
        (Llama3Scaling, {"factor": 8.0, "trained_len": 9, "low": 4.0}, "low 4.0 is not below high 4.0"),
        (YarnScaling, {"factor": 8.0, "trained_len": 9, "slow": 0.0}, "slow 0.0 is not positive"),
        (YarnScaling, {"factor": 8.0, "trained_len": 9, "slow": 40}, "slow 40 is not below fast 32.0"),
        (YarnScaling, {"factor": 8.0, "trained_len": 9, "amplitude": float("nan")}, "amplitude nan"),
    ],
)
def test_impossible_scalings_are_refused(kind: Any, values: dict[str, Any], message: str) -> None:
    """A scaling that slows nothing down, or of which no pair could be in between, raises ValueError."""
    with pytest.raises(ValueError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    "scaling",
    [
        LinearScaling(factor=2.0),
        Llama3Scaling(factor=8.0, trained_len=8192),
        YarnScaling(factor=4.0, trained_len=512, truncate=False, amplitude=1.5),
    ],
)
def test_a_scaling_survives_json(scaling: Any) -> None:
    """A config's rope_scaling is read back as what it was, and a config of before there was one as without."""
    scaled = replace(TINY, rope_scaling=scaling, d_head=8)
    assert GPTConfig.from_dict(json.loads(json.dumps(scaled.to_dict()))) == scaled
    old = {name: value for name, value in TINY.to_dict().items() if name not in ("rope_scaling", "d_head")}
    assert GPTConfig.from_dict(old) == TINY


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name: str) -> None:
    """Written as JSON and read back, a config is the same."""
    kind, values = type(PRESETS[name]), PRESETS[name].to_dict()
    assert values["model"] == kind.model
    assert kind.from_dict(json.loads(json.dumps(values))) == PRESETS[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "bert"}, "'bert'"),
        ({"heads": 3, "depth": 2}, "unknown fields: depth, heads"),
        ({"n_layers": 0}, "n_layers 0"),
        ({"n_layers": "2"}, "n_layers '2'"),
    ],
)
def test_foreign_values_are_refused(change: dict[str, Any], message: str) -> None:
    """Another model's config, unknown fields and impossible values raise ValueError and are named."""
    with pytest.raises(ValueError, match=message):
        GPTConfig.from_dict({**TINY.to_dict(), **change})


@pytest.mark.parametrize("name", ["model", "vocab_size"])
def test_missing_values_are_refused(name: str) -> None:
    """A config without its model's name or without a needed field raises ValueError."""
    values = TINY.to_dict()
    del values[name]
    with pytest.raises(ValueError, match="'gpt'" if name == "model" else name):
        GPTConfig.from_dict(values)


def test_choices_are_the_tables() -> None:
    """The names a config allows are exactly those that nn can build."""
    assert set(get_args(config.Norm)) == set(NORMS)
    assert set(get_args(config.FeedForward)) == set(FEEDFORWARDS)
    assert set(get_args(config.Residual)) == set(RESIDUALS)
