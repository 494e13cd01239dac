"""Checkpoints: a tree of tensors, numbers and text <-> one safetensors file, whole or not there.

The tensors lie in the file under their path in the tree (`model/blocks.0.attention.qkv.weight`), for any safetensors
reader; the tree itself is JSON in the file's header. Nothing is pickled: opening a stranger's checkpoint runs no code.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tinytrans.files import whole
from tinytrans.training import shards

FORMAT = "tinytrans checkpoint 1"
PICKLES = b"PK\x03\x04", b"\x80\x02\x8a", b"\x80\x04\x95", b"\x80\x05\x95"  # a zip of them, and those themselves


class CheckpointError(ValueError):
    """The file is no checkpoint, not a whole one, or one of another model."""


def save(path: str | Path, state: dict[str, Any]) -> None:
    """A tree of dicts, lists, tuples, tensors, numbers, text and None becomes the file `path`.

    Written beside its place, flushed to the disk and renamed: a kill at any moment leaves the previous file or the new
    one. Tied tensors are stored once. Raises TypeError for what neither safetensors nor JSON can hold.
    """
    tensors: dict[str, Tensor] = {}
    tree = _encode(state, "", tensors, {})
    with whole(path) as part:
        try:
            save_file(tensors, part, metadata={"format": FORMAT, "tree": json.dumps(tree)})
        except SafetensorError as error:  # it says so of a full disk, too
            raise OSError(f"{path} could not be written: {error}") from error


def load(path: str | Path) -> dict[str, Any]:
    """The file `path` becomes the tree that was saved, equal to the bit, its tensors on the CPU.

    Raises FileNotFoundError, or CheckpointError for a truncated file and for one that `save` did not write.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        told = ", but a pickle, which is not opened: it could run code" if _pickled(path) else f": {error}"
        raise CheckpointError(f"{path} is not a whole safetensors file{told}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is of the format {header.get('format')!r}, not {FORMAT!r}")
    try:
        state = _decode(json.loads(header["tree"]), tensors)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged tree: {type(error).__name__} {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a dict")
    return state


def _pickled(path: str | Path) -> bool:
    """Whether a file begins as those of `torch.save` and `pickle.dump` do."""
    with open(path, "rb") as file:
        return file.read(4).startswith(PICKLES)


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """A model takes all weights of a checkpoint, or none and a CheckpointError where names, shapes or types differ."""
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError(f"{source} holds no tensors by name, but a {type(weights).__name__}")
    mine = model.state_dict()
    for name in sorted(mine.keys() | weights.keys()):
        there, here = weights.get(name), mine.get(name)
        for kind in (_shape, _type):
            if kind(there) != kind(here):
                told = f"{name} is {kind(there)} there and {kind(here)} here"
                raise CheckpointError(f"{source} is of another model: {told}")
    shards.take(model, weights)


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))


def _type(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(tensor.dtype).removeprefix("torch.")


def chance() -> dict[str, Any]:
    """The state of every global source of chance: Python's `random`, torch on the CPU and on each CUDA device."""
    return {"python": random.getstate(), "cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def restore_chance(state: dict[str, Any]) -> None:
    """Draws after this call are those that followed the call of `chance` that gave the state."""
    random.setstate(state["python"])
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():  # a run may go on elsewhere; its draws then differ
        torch.cuda.set_rng_state_all(state["cuda"])


def _encode(tree: Any, path: str, tensors: dict[str, Tensor], names: dict[tuple[Any, ...], str]) -> Any:
    """A tree -> JSON in which {"tensor": name} stands for a tensor and every container says its own kind."""
    if isinstance(tree, Tensor):
        same = (tree.data_ptr(), tree.shape, tree.stride(), tree.dtype, tree.device)
        if same not in names:
            while path in tensors:  # "a/b" and the b in a: names are for readers, the tree knows which is which
                path += "'"
            names[same] = path
            tensors[path] = _own(tree)
        return {"tensor": names[same]}
    if isinstance(tree, dict):
        if wrong := [key for key in tree if not (key is None or isinstance(key, (bool, int, float, str)))]:
            raise TypeError(f"a checkpoint's keys are numbers or text; {wrong[0]!r} is a {type(wrong[0]).__name__}")
        return {
            "dict": [[key, _encode(value, f"{path}/{key}".strip("/"), tensors, names)] for key, value in tree.items()]
        }
    if isinstance(tree, (list, tuple)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_encode(value, f"{path}/{i}".strip("/"), tensors, names) for i, value in enumerate(tree)]}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise TypeError(
        f"a checkpoint holds tensors, numbers, text, lists, tuples and dicts; {path} is a {type(tree).__name__}"
    )


def _decode(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    [(kind, content)] = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(value, tensors) for key, value in content}
    if kind not in ("list", "tuple"):
        raise ValueError(f"there is no {kind!r} in a tree")
    values = [_decode(value, tensors) for value in content]
    return values if kind == "list" else tuple(values)


def _own(tensor: Tensor) -> Tensor:
    """The tensor on the CPU in memory of its own: safetensors takes no view into a larger storage."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
