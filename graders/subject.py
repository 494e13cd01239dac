"""An answer under judgement: called with values, it gives a value or says how it failed.

`Here` calls a function, class or generator of this process: the learner's own notebook, the reference, a wrong answer.
Its twin `graders.sandbox.RemoteSubject` calls the learner's in the Player. Both keep the same promises, so one judge
serves both.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn


class Failure(Exception):
    """An answer gave no value. `kind`: the error's type ("NotImplementedError", "Timeout"), `text`: what to tell."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind, self.text = kind, text


def copied(value: Any) -> Any:
    """The value with tensors of its own, so that an answer cannot touch the judge's."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple):
        return [*map(copied, value)] if isinstance(value, list) else (*map(copied, value),)
    return {key: copied(item) for key, item in value.items()} if isinstance(value, dict) else value


def changed(before: tuple[Any, ...], after: tuple[Any, ...]) -> list[int]:
    """Which of the inputs were written to: positions of the tensors that are no longer equal."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor):
            return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return True

    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if not same(a, b)]


def cotangent(value: Tensor) -> Tensor:
    """The gradient that is sent back into an output: fixed, and different at every element."""
    return torch.cos(torch.arange(value.numel(), dtype=value.dtype, device=value.device) + 1).view_as(value)


def backward(function: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[Any, list[Tensor | None]]:
    """The value of the function, and the gradient of each float tensor among the inputs; None where none arrived.

    Where the value is a list or tuple, a gradient is sent into each tensor in it that takes one. Some functions of
    torch refuse inputs that want a gradient, as its batch norm does for statistics: then only the first one wants it.
    """
    leaves = [x.requires_grad_() for x in inputs if isinstance(x, Tensor) and x.is_floating_point()]
    with torch.enable_grad():
        try:
            value = function(*inputs)
        except RuntimeError:
            if len(leaves) < 2:
                raise
            for leaf in leaves[1:]:
                leaf.requires_grad_(False)
            value = function(*inputs)
    values = value if isinstance(value, list | tuple) else [value]
    ends = [v for v in values if isinstance(v, Tensor) and v.requires_grad]
    if ends:
        torch.autograd.backward(ends, [cotangent(end) for end in ends])
    return value, [leaf.grad for leaf in leaves]


class Instance:
    """What a class makes of arguments by value, and the steps that it can be asked for; each step's name is a method.

    Names are those of parameters and buffers: `weight`, `norm.weight`.
    """

    def __init__(self, made: Any) -> None:
        self.made = made

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Set every parameter by its name. Raises Failure where one is missing, has another shape, or is too many."""
        own = self.tensors()
        for name, weight in weights.items():
            if name not in own:
                raise Failure("Names", _lacks(self.made, name, own))
            if own[name].shape != weight.shape:
                shapes = f"the shape {tuple(own[name].shape)}, and {tuple(weight.shape)} is asked for"
                raise Failure("Shape", f"its parameter `{name}` has {shapes}")
            with torch.no_grad():
                own[name].copy_(weight)
        if more := [name for name in self.parameters() if name not in weights]:
            asked = ", ".join(weights) or "none"
            raise Failure("Names", f"its parameter `{more[0]}` is not asked for; asked for: {asked}")

    def train(self, on: bool) -> None:
        """Training mode, or evaluation mode."""
        nn.Module.train(self._module(), on)

    def parameters(self) -> dict[str, list[int]]:
        """The shape of every parameter by its name."""
        return {name: list(p.shape) for name, p in nn.Module.named_parameters(self._module())}

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter and buffer by its name, as it is now."""
        module = self._module()
        return {**dict(nn.Module.named_parameters(module)), **dict(nn.Module.named_buffers(module))}

    def call(self, method: str, *inputs: Any) -> Any:
        """The value of a method, or of the instance itself where its name is ""."""
        return (getattr(self.made, method) if method else self.made)(*inputs)

    def gradients(self, method: str, *inputs: Any) -> tuple[Any, list[Tensor | None], dict[str, Tensor | None]]:
        """(value, gradients of the float inputs, gradients of the parameters by their names)."""
        value, arrived = backward(lambda *own: self.call(method, *own), inputs)
        return value, arrived, {name: p.grad for name, p in nn.Module.named_parameters(self._module())}

    def values(self, method: str, most: int, *inputs: Any) -> list[Any]:
        """The first values of a generator method, one after another."""
        return first(self.call(method, *inputs), most)

    def _module(self) -> nn.Module:
        if not isinstance(self.made, nn.Module):
            raise Failure("NotAModule", "it is no nn.Module: write `(nn.Module)` behind the name of your class")
        return self.made


def _lacks(made: Any, name: str, own: Mapping[str, Any]) -> str:
    attribute = getattr(made, "__dict__", {}).get(name)
    if attribute is not None:
        what = "a tensor" if isinstance(attribute, Tensor) else f"a {type(attribute).__name__}"
        return f"its `{name}` is {what} and no parameter: wrap it, nn.Parameter(...)"
    return f"it has no parameter `{name}`; it has {', '.join(own) or 'none'}, and the attribute's name is what counts"


STEPS = ("load", "train", "parameters", "tensors", "call", "gradients", "values")


def first(values: Any, most: int) -> list[Any]:
    """The first values of a generator, each copied when it comes. Raises Failure where it is no generator."""
    if not isinstance(values, Iterator):
        raise Failure("NotAGenerator", f"it gives a {type(values).__name__}, not one value after another: use `yield`")
    return [copied(value) for value in islice(values, most)]


class Here:
    """A function, class or generator of this process as an answer under judgement."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *inputs: Any) -> Any:
        """The function's value. Raises Failure where the function raises, or writes to its inputs."""
        return self._watched(lambda own: self.function(*own), inputs)

    def gradients(self, *inputs: Any) -> Any:
        """(value, gradients of the float inputs). Raises Failure like a call."""
        return self._watched(lambda own: backward(self.function, own), inputs)

    def values(self, inputs: Sequence[Any], most: int) -> list[Any]:
        """The first `most` values of a generator, or all where they are fewer. Raises Failure like a call."""
        return self._watched(lambda own: first(self.function(*own), most), tuple(inputs))

    def use(self, arguments: Mapping[str, Any], steps: Sequence[Sequence[Any]]) -> list[Any]:
        """What each step gives on one instance of a class, made of arguments by name: see `Instance`.

        Raises Failure like a call, and where the answer is no class.
        """
        if not isinstance(self.function, type):
            raise Failure("NotAClass", f"it is a {type(self.function).__name__}, and a class is asked for")

        if unknown := [step[0] for step in steps if step[0] not in STEPS]:
            raise ValueError(f"there is no step {unknown[0]!r}; there are {', '.join(STEPS)}")

        def run(own: tuple[Any, ...]) -> list[Any]:
            instance = Instance(self.function(**own[0]))
            return [copied(getattr(instance, step[0])(*step[1:])) for step in own[1]]  # a later step may write to it

        return self._watched(run, (dict(arguments), [tuple(step) for step in steps]), "an argument")

    def _watched(self, run: Callable[[tuple[Any, ...]], Any], inputs: tuple[Any, ...], what: str = "") -> Any:
        own = copied(inputs)
        try:
            value = run(own)
        except (KeyboardInterrupt, SystemExit, Failure):
            raise
        except BaseException as error:
            raise Failure(type(error).__name__, describe(error)) from error
        if written := changed(inputs, own):
            what = what or f"argument {written[0] + 1}"
            raise Failure("InputChanged", f"{what} was changed in place: work on a copy of it")
        return value


def describe(error: BaseException) -> str:
    """The error's message, and the line of the learner's code in which it arose."""
    text = str(error).strip().split("\n")[0][:300]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.line and "graders" not in f.filename]
    return f"{text} (in the line `{frames[-1].line}`)" if frames and frames[-1].line else text
