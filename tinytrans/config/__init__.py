"""Configs: a few numbers and names -> all that is needed to build a model, checked at birth.

`PRESETS` are ready-made ones; `dataclasses.replace(PRESETS["tales"], n_layers=2)` makes a variant.
"""

from tinytrans.config.base import Config
from tinytrans.config.models import (
    BERTConfig,
    EncDecConfig,
    FeedForward,
    GPTConfig,
    Head,
    JointConfig,
    ModelConfig,
    MultimodalConfig,
    Norm,
    ReaderConfig,
    Residual,
    RNNConfig,
    ViTConfig,
    Word2VecConfig,
)
from tinytrans.config.presets import PRESETS
from tinytrans.config.rope import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling

__all__ = [
    "PRESETS",
    "BERTConfig",
    "Config",
    "EncDecConfig",
    "FeedForward",
    "GPTConfig",
    "Head",
    "JointConfig",
    "LinearScaling",
    "Llama3Scaling",
    "ModelConfig",
    "MultimodalConfig",
    "Norm",
    "RNNConfig",
    "ReaderConfig",
    "Residual",
    "RopeScaling",
    "ViTConfig",
    "Word2VecConfig",
    "YarnScaling",
]
