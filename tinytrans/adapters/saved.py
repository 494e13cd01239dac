"""Adapters on disk: the few weights that trained <-> one small safetensors file, whole or not there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from tinytrans.adapters.lora import LoRALinear, adapter_state, adapters, adapters_in, unmerge, wrap
from tinytrans.adapters.trainable import Model
from tinytrans.files import write_whole

FORMAT = "tinytrans lora 1"


def save_adapter(model: nn.Module, path: str | Path) -> None:
    """The model's adapter alone becomes the file `path`, written beside its place and renamed: whole or not there.

    Raises ValueError where the model has none.
    """
    alphas = {name: layer.alpha for name, layer in adapters_in(model).items()}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in adapter_state(model).items()}
    write_whole(path, to_bytes(tensors, metadata={"format": FORMAT, "alpha": json.dumps(alphas)}))


def load_adapter(model: Model, path: str | Path) -> Model:
    """A base model and an adapter's file -> the model itself, adapted; one that `lora` has prepared gets the numbers.

    Raises FileNotFoundError where there is no file, and ValueError, leaving the model as it was, where it is no adapter
    or one for another model.
    """
    alphas, tensors = _read(path)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    layers: dict[str, Any] = adapters(model) or {name: linear[name] for name in alphas if name in linear}
    if layers.keys() != alphas.keys():
        raise ValueError(f"{path} adapts {', '.join(alphas)}; of the model's layers: {', '.join(layers) or 'none'}")
    for name, layer in layers.items():
        _check(path, name, layer, tensors[f"{name}.a"], tensors[f"{name}.b"], alphas[name])
    if not adapters(model):
        ranks = {name: len(tensors[f"{name}.a"]) for name in alphas}
        wrap(model, {layers[name]: {"rank": ranks[name], "alpha": alphas[name]} for name in alphas})
    with torch.no_grad():
        for name, layer in adapters(unmerge(model)).items():
            layer.a.copy_(tensors[f"{name}.a"])
            layer.b.copy_(tensors[f"{name}.b"])
    return model


def _check(path: str | Path, name: str, layer: nn.Linear | LoRALinear, a: Tensor, b: Tensor, alpha: float) -> None:
    """Raise ValueError unless the file's A and B fit the layer, and the adapter that the layer may already have."""
    if a.dim() != 2 or b.dim() != 2 or not 1 <= len(a) == b.shape[1]:
        raise ValueError(f"{path} holds no (r, D_in) and (D_out, r) for {name}, but {tuple(a.shape)}, {tuple(b.shape)}")
    if wrong := [tensor.dtype for tensor in (a, b) if not tensor.is_floating_point()]:
        raise ValueError(f"{path} holds numbers of dtype {wrong[0]} for {name}, which are no weights")
    (rank, d_in), d_out = a.shape, len(b)
    if (d_out, d_in) != (layer.out_features, layer.in_features):
        here = f"{layer.out_features} x {layer.in_features}"
        raise ValueError(f"{path} adapts a {d_out} x {d_in} layer as {name}, here it is {here}")
    if isinstance(layer, LoRALinear) and (layer.rank, layer.alpha) != (rank, alpha):
        here = f"rank {layer.rank} and alpha {layer.alpha}"
        raise ValueError(f"{path} has rank {rank} and alpha {alpha} at {name}, the model {here}")


def _read(path: str | Path) -> tuple[dict[str, float], dict[str, Tensor]]:
    """An adapter's file -> the alpha of each layer, and the tensors A and B of each; raises as `load_adapter`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no adapter {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} is of the format {header.get('format')!r}, not {FORMAT!r}")
    alphas = _alphas(path, header.get("alpha", ""))
    wanted = {f"{name}.{key}" for name in alphas for key in ("a", "b")}
    if wanted != tensors.keys():
        raise ValueError(f"{path} names the tensors {sorted(wanted)} and holds {sorted(tensors)}")
    return alphas, tensors


def _alphas(path: str | Path, text: str) -> dict[str, float]:
    """What the header says of each layer's alpha: JSON, by name a finite number; raises ValueError for other things."""
    try:
        alphas: dict[str, float] = json.loads(text)
        if not all(math.isfinite(alpha) for alpha in alphas.values()):
            raise ValueError(f"one of {list(alphas.values())} is not finite")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} has damaged alphas: {error}") from error
    return alphas
