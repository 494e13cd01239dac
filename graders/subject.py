"""An answer under judgement: called with values, it gives a value or says how it failed.

`Here` calls a function of this process: the learner's own notebook, the reference, a wrong answer. Its twin
`graders.sandbox.RemoteSubject` calls the learner's function in the Player. Both keep the same promises, so one judge
serves both.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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
        return type(value)(copied(item) for item in value)
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

    Where the value is a list or tuple, a gradient is sent into each tensor in it that takes one.
    """
    leaves = [x.requires_grad_() for x in inputs if isinstance(x, Tensor) and x.is_floating_point()]
    with torch.enable_grad():
        value = function(*inputs)
    values = value if isinstance(value, list | tuple) else [value]
    ends = [v for v in values if isinstance(v, Tensor) and v.requires_grad]
    if ends:
        torch.autograd.backward(ends, [cotangent(end) for end in ends])
    return value, [leaf.grad for leaf in leaves]


class Here:
    """A function of this process as an answer under judgement."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *inputs: Any) -> Any:
        """The function's value. Raises Failure where the function raises, or writes to its inputs."""
        return self._watched(lambda own: self.function(*own), inputs)

    def gradients(self, *inputs: Any) -> Any:
        """(value, gradients of the float inputs). Raises Failure like a call."""
        return self._watched(lambda own: backward(self.function, own), inputs)

    def _watched(self, run: Callable[[tuple[Any, ...]], Any], inputs: tuple[Any, ...]) -> Any:
        own = copied(inputs)
        try:
            value = run(own)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise Failure(type(error).__name__, describe(error)) from error
        if written := changed(inputs, own):
            raise Failure("InputChanged", f"argument {written[0] + 1} was changed in place: work on a copy of it")
        return value


def describe(error: BaseException) -> str:
    """The error's message, and the line of the learner's code in which it arose."""
    text = str(error).strip().split("\n")[0][:300]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.line and "graders" not in f.filename]
    return f"{text} (in the line `{frames[-1].line}`)" if frames and frames[-1].line else text
