"""RoPE scaling: how a model's rotations are slowed down for texts longer than those it was first trained on.

`tinytrans.nn.rope_scaling` has what each one computes.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinytrans.config.base import Config, check_positive


@dataclass(frozen=True, kw_only=True)
class LinearScaling(Config):
    """Every rotation `factor` times slower: positions come closer together, as many as are needed.

    Raises ValueError unless factor > 0.
    """

    model = "linear"

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "factor")


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling(Config):
    """As Llama 3.1: pairs that turn less than `low` times within `trained_len` positions become `factor` times slower.

    Those that turn more than `high` times stay. Raises ValueError unless factor > 0 and low < high.
    """

    model = "llama3"

    factor: float
    trained_len: int
    low: float = 1.0
    high: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "factor")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")


@dataclass(frozen=True, kw_only=True)
class YarnScaling(Config):
    """As YaRN: pairs that turn less than `slow` times within `trained_len` positions become `factor` times slower.

    Those that turn more than `fast` times stay; `truncate` puts both borders on whole pairs. Queries and keys become
    `amplitude` times longer, 1 + 0.1 ln factor unless given. Raises ValueError unless factor and amplitude are positive
    and 0 < slow < fast.
    """

    model = "yarn"

    factor: float
    trained_len: int
    slow: float = 1.0
    fast: float = 32.0
    truncate: bool = True
    amplitude: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "factor", "slow", "amplitude")
        if not self.slow < self.fast:
            raise ValueError(f"slow {self.slow} is not below fast {self.fast}")


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling
"""Any of the three."""
