"""RoPE: their `rope_parameters` <-> our base and scaling."""

from __future__ import annotations

from typing import Any

from tinytrans.config import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from tinytrans.nn.rope_scaling import yarn_amplitude

LENGTH = "original_max_position_embeddings"
NAMES: dict[str, dict[str, str]] = {
    "linear": {"factor": "factor"},
    "llama3": {"factor": "factor", "low_freq_factor": "low", "high_freq_factor": "high", LENGTH: "trained_len"},
    "yarn": {
        "factor": "factor",
        "beta_slow": "slow",
        "beta_fast": "fast",
        "truncate": "truncate",
        "attention_factor": "amplitude",
        LENGTH: "trained_len",
    },
}
"""type -> their names for its numbers -> ours."""
KINDS: dict[str, type[RopeScaling]] = {kind.model: kind for kind in (LinearScaling, Llama3Scaling, YarnScaling)}


def read_rope(config: Any) -> tuple[float, RopeScaling | None]:
    """Their config -> base and scaling; raises ValueError, naming it, for what ours cannot do the same way."""
    rope = {name: value for name, value in config.rope_parameters.items() if value is not None}
    rope.pop("type", None)  # an older name of rope_type, which stands beside it
    kind, base = rope.pop("rope_type"), float(rope.pop("rope_theta"))
    if (part := rope.pop("partial_rotary_factor", 1.0)) != 1:
        raise ValueError(f"partial_rotary_factor is {part}, and only 1 can be carried over")
    if kind != "default" and kind not in NAMES:
        raise ValueError(f"rope of type {kind!r} cannot be carried over, only 'default', {', '.join(map(repr, NAMES))}")
    if kind in ("default", "linear"):
        rope.pop(LENGTH, None)  # which plays no part in these
    if kind == "yarn":
        rope = settled(rope, config.max_position_embeddings)
    names = NAMES.get(kind, {})
    if foreign := sorted(rope.keys() - names):
        raise ValueError(f"rope of type {kind!r} with {', '.join(foreign)} cannot be carried over")
    return base, KINDS[kind](**{names[name]: value for name, value in rope.items()}) if names else None


def settled(yarn: dict[str, Any], max_len: int) -> dict[str, Any]:
    """Their numbers for YaRN, where some stand for others -> those alone that ours are made of."""
    yarn = {name: value for name, value in yarn.items() if value or not name.startswith("beta")}  # 0 is their default
    yarn.setdefault("factor", max_len / yarn[LENGTH])
    above, below = yarn.pop("mscale", 0), yarn.pop("mscale_all_dim", 0)
    if above and below:
        amplitude = yarn_amplitude(yarn["factor"], above) / yarn_amplitude(yarn["factor"], below)
        yarn.setdefault("attention_factor", amplitude)
    return yarn


def write_rope(base: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """Our base and scaling -> their rope_parameters."""
    if scaling is None:
        return {"rope_type": "default", "rope_theta": base}
    numbers = {name: getattr(scaling, ours) for name, ours in NAMES[scaling.model].items()}
    numbers = {name: value for name, value in numbers.items() if value is not None}
    return {"rope_type": scaling.model, "rope_theta": base, **numbers}
