"""Saved models: a model and its tokenizer -> a folder with config.json, model.safetensors, tokenizer.json, and back.

Plain JSON and safetensors: reading them runs no code, so a model from a stranger can be opened.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tinytrans.config import Config as AnyConfig
from tinytrans.device import pick
from tinytrans.files import sweep, to_disk

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # in which a model can compute
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


class Savable(Protocol):
    """What a tokenizer must know: how to write itself into a file."""

    def save(self, path: Path, /) -> object: ...


class Pretrained(nn.Module):
    """A model that is built from a config alone, knows its size, and can be saved and opened again."""

    Config: ClassVar[type[AnyConfig]]
    config: Any  # an instance of Config

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.register_load_state_dict_post_hook(tie_equals)

    def tie(self) -> None:
        """Make one parameter of those that the model's config lets share; here there are none."""

    @property
    def n_params(self) -> int:
        """How many numbers training may change; a matrix that two parts share counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def save_pretrained(self, folder: str | os.PathLike[str], tokenizer: Savable | None = None) -> None:
        """Write config.json, model.safetensors and, if given, tokenizer.json into the folder: whole or not at all.

        Raises ValueError where `from_pretrained` could not read it: a model with other parts than its config says.
        """
        config = self.as_is()
        check_readable(self, config)
        save(self, config, folder, tokenizer)

    def as_is(self) -> AnyConfig:
        """The config that describes the model: its own, but not tied where its matrices have come apart."""
        config: AnyConfig = self.config
        return config

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Self:
        """The model that `save_pretrained` wrote, ready to use (in eval mode).

        Raises FileNotFoundError where a file is missing, ValueError where one is damaged or they do not fit each other,
        and for a device that is not there.
        """
        values, weights = read(folder, device)
        return cls.from_weights(cls.Config.from_dict(values), weights)

    @classmethod
    def from_weights(cls, config: AnyConfig, weights: dict[str, Tensor]) -> Self:
        """The model of this config with these weights, in eval mode.

        Raises ValueError as `fill` does, and for a config of a depth or a size that no such weights can have.
        """
        check_depth(config, len(weights))
        try:
            with torch.device("meta"):  # no memory and no chance spent on weights that are about to be replaced
                model = cls(config)
        except RuntimeError as error:
            raise ValueError(f"no model can be as large as this config: {error}") from error
        fill(model, weights)
        model.tie()
        return model.eval()


def tie_equals(model: Pretrained, _: object) -> None:
    """What the config ties, and loading has parted (`assign=True`, or onto "meta"), is one again, if it is the same."""
    apart = dict(model.named_parameters(remove_duplicate=False))
    model.tie()
    for name, tied in model.named_parameters(remove_duplicate=False):
        own = apart[name]
        if tied is not own and (own.is_meta or tied.is_meta or not torch.equal(own, tied)):
            home, _, last = name.rpartition(".")
            setattr(model.get_submodule(home), last, own)


def check_depth(config: AnyConfig, tensors: int) -> None:
    """Raise ValueError for a config of more layers than it has tensors: a stranger's must not keep us building."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name.endswith("_layers") and value is not None and value > tensors:
            raise ValueError(f"{field.name} {value} is more than the {tensors} weights that there are")
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, AnyConfig):
                check_depth(part, tensors)


def check_readable(model: Pretrained, config: AnyConfig) -> None:
    """Raise ValueError, naming a tensor, unless a model built from the config has the same tensors."""
    with torch.device("meta"):
        expected = {name: tuple(weight.shape) for name, weight in own_weights(type(model)(config)).items()}
    mine = {name: tuple(weight.shape) for name, weight in own_weights(model).items()}
    for name in sorted(mine.keys() | expected.keys()):
        if mine.get(name) != expected.get(name):
            here, there = mine.get(name, "missing"), expected.get(name, "missing")
            raise ValueError(
                f"{name} is {here} in the model and {there} in what its config describes: "
                "it could not be read again (adapters are merged and unwrapped, or saved by save_adapter)"
            )


def tied_as(config: Any, model: Any) -> Any:
    """The config with `tie` as it is in the model: a correction that was merged into the head parts it for good."""
    tied = model.head.weight is model.embedding.weight
    return config if tied == config.tie else replace(config, tie=tied)


def save(model: nn.Module, config: AnyConfig, folder: str | os.PathLike[str], tokenizer: Savable | None = None) -> None:
    """Write the folder's files, each whole or not at all; a failure leaves an older model there as it was.

    Everything is first written aside, then renamed into place, config.json last. Raises OSError, naming it,
    where one could not be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, ".saving-")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as aside:
        if tokenizer is not None:
            tokenizer.save(Path(aside, TOKENIZER))
        try:
            save_file({name: weight.contiguous() for name, weight in own_weights(model).items()}, Path(aside, WEIGHTS))
        except SafetensorError as error:  # it says so of a full disk, too
            raise OSError(f"{folder / WEIGHTS} could not be written: {error}") from error
        Path(aside, CONFIG).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
        for name in (TOKENIZER, WEIGHTS, CONFIG):
            if (part := Path(aside, name)).exists():
                to_disk(part)
                part.chmod(0o644)  # safetensors writes private files
                os.replace(part, folder / name)


def read(
    folder: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The folder's config as plain values, and its weights by name.

    Raises FileNotFoundError where a file is missing, ValueError where one is damaged; both name the file.
    """
    for name in (CONFIG, WEIGHTS):
        if not Path(folder, name).is_file():
            raise FileNotFoundError(f"no saved model in {str(folder)!r}: it has no {name}")
    return read_config(Path(folder, CONFIG)), read_weights(Path(folder, WEIGHTS), device)


def read_config(path: Path) -> dict[str, Any]:
    """The values in a config.json; raises ValueError where it is not one JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not even text, or brackets without end
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{str(path)!r} holds a value of type {type(values).__name__}, not a config")
    if "model" not in values and "model_type" in values:
        theirs = f"{str(path)!r} is of Hugging Face's {values['model_type']!r}"
        raise ValueError(f"{theirs}: open it with transformers and hand the model to from_transformers")
    return values


def read_weights(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The tensors in a safetensors file by name; raises ValueError where it is damaged, and as `device.pick` does."""
    place = pick(device)
    try:
        if place.type == "meta":  # which safetensors does not know
            return {name: weight.to(place) for name, weight in load_file(path).items()}
        return load_file(path, device=str(place))
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error


def fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put the weights into a model, which may have been built on the meta device; shared ones need only stand once.

    Raises ValueError, naming the tensors, where names or shapes are not the model's own, and for whole numbers.
    """
    shapes = {name: tuple(weight.shape) for name, weight in own_weights(model).items()}
    if missing := sorted(shapes.keys() - weights.keys()):
        raise ValueError(f"the weights lack {', '.join(missing)}")
    if foreign := sorted(weights.keys() - shapes.keys()):
        raise ValueError(f"the weights hold {', '.join(foreign)}, which this model does not have")
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"{name} has shape {tuple(weights[name].shape)}, but the config asks for {shape}")
        if weights[name].dtype not in DTYPES:
            raise ValueError(f"{name} is of dtype {weights[name].dtype}, not one of {', '.join(map(str, DTYPES))}")
    model.load_state_dict(weights, strict=False, assign=True)


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors by name, one that is shared only under its first name."""
    firsts: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        firsts.setdefault(id(tensor), (name, tensor.detach()))
    return dict(firsts.values())
