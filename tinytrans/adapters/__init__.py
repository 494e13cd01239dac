"""Around a model, never inside it: a trained model -> the same model with a few weights left to train.

`lora` puts two thin matrices beside chosen linear layers, `bitfit` trains the biases alone; neither needs to know the
model's class.
"""

from tinytrans.adapters.bitfit import bias_names, bitfit
from tinytrans.adapters.lora import (
    LoRALinear,
    adapter_state,
    base_only,
    lora,
    merge,
    unmerge,
    unwrap,
)
from tinytrans.adapters.saved import load_adapter, save_adapter
from tinytrans.adapters.split import Split, join, split
from tinytrans.adapters.trainable import freeze, trainable_parameters

__all__ = [
    "LoRALinear",
    "Split",
    "adapter_state",
    "base_only",
    "bias_names",
    "bitfit",
    "freeze",
    "join",
    "load_adapter",
    "lora",
    "merge",
    "save_adapter",
    "split",
    "trainable_parameters",
    "unmerge",
    "unwrap",
]
