"""Config: fields with their kinds -> frozen values, checked at birth, written and read as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every config can do: check its choices and its sizes at birth, and be written and read as plain values.

    An `int` is a size and must be positive, or as `..._id` a token's, from 0; a `float` is finite, `dropout` in [0, 1),
    a `Literal` one of its choices, a config one of its kind. Raises ValueError, naming the value, for anything else.
    """

    model: ClassVar[str]

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            check(field.name, getattr(self, field.name), hints[field.name])
        if not 0 <= (dropout := getattr(self, "dropout", 0.0)) < 1:
            raise ValueError(f"dropout {dropout} is not in [0, 1)")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values for a config.json, with the model's name in front: "model": "gpt"."""
        return {"model": self.model, **{field.name: plain(getattr(self, field.name)) for field in fields(self)}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that `to_dict` wrote; raises ValueError for another model, a foreign field or a missing one."""
        given = dict(values)
        if (model := given.pop("model", None)) != cls.model:
            raise ValueError(f"a config of the model {model!r}, not of {cls.model!r}")
        if foreign := given.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"unknown fields: {', '.join(sorted(foreign))}")
        kinds = get_type_hints(cls)
        given = {name: revived(value, configs_of(kinds[name])) for name, value in given.items()}
        try:
            return cls(**given)
        except TypeError as error:
            raise ValueError(str(error)) from error


def check(name: str, value: Any, kind: Any) -> None:
    """Raise ValueError, naming it, unless the value is one that a field of this kind may hold, as `Config` says."""
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ValueError(f"{name} {value!r} is not one of {', '.join(get_args(kind))}")
    if (configs := configs_of(kind)) and not (value is None and type(None) in get_args(kind)):
        check_configs(name, value, configs, several=get_origin(kind) is tuple)
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{name} {value!r} is neither True nor False")
    if (kind is float or (kind == float | None and value is not None)) and (
        isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
    ):
        raise ValueError(f"{name} {value!r} is not a finite number")
    if name.endswith("_id"):
        check_id(name, value)
    elif kind is int or (kind == int | None and value is not None):
        check_size(name, value)


def check_positive(config: Config, *names: str) -> None:
    """Raise ValueError, naming the value, where one of these fields is a number that is not positive; None is fine."""
    for name in names:
        if (value := getattr(config, name)) is not None and not value > 0:
            raise ValueError(f"{name} {value} is not positive")


def configs_of(kind: Any) -> tuple[type[Config], ...]:
    """Of which classes the configs are that a field of this kind holds: `A`, `A | B` or `tuple[A | B, ...]`."""
    if isinstance(kind, type) and issubclass(kind, Config):
        return (kind,)
    return tuple(config for part in get_args(kind) for config in configs_of(part))


def check_configs(name: str, value: Any, configs: tuple[type[Config], ...], *, several: bool) -> None:
    """Raise ValueError unless the value is a config of one of these classes, or a tuple of such."""
    if several and not isinstance(value, tuple):
        raise ValueError(f"{name} is of type {type(value).__name__}, not a tuple of configs")
    for one in value if several else (value,):
        if not isinstance(one, configs):
            names = " or ".join(config.__name__ for config in configs)
            raise ValueError(f"{name} is of type {type(one).__name__}, not a {names}")


def plain(value: Any) -> Any:
    """A field's value as JSON has it: configs as dicts, tuples as lists."""
    if isinstance(value, Config):
        return value.to_dict()
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def revived(value: Any, configs: tuple[type[Config], ...]) -> Any:
    """What `plain` wrote of a config, or of several -> itself; raises ValueError for none of these classes."""
    if not configs or isinstance(value, Config):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(revived(one, configs) for one in value)
    if not isinstance(value, Mapping):
        return value
    named = [config for config in configs if config.model == value.get("model")]
    return (named or configs)[0].from_dict(value)


def check_id(name: str, value: Any) -> None:
    """Raise ValueError unless the value is an integer from 0 on, as a token's id."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} {value!r} is no id: those count from 0")


def check_size(name: str, value: Any) -> None:
    """Raise ValueError unless the value is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} {value!r} is not a positive integer")
