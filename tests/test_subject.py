# ruff: noqa: E501  (an answer reads best as the few lines that it is)
"""Answers that are classes and generators: judged alike in the learner's notebook and in the Player."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from boxes import NO_BOX
from torch import nn

from graders.compare import agree
from graders.draw import Draw
from graders.exercise import (
    Exercise,
    exercise,
    first,
    parameters,
    plainly,
    requires,
    with_weights,
    with_weights_and_gradients,
)
from graders.judge import Outcome, judge
from graders.sandbox import LIMITS, RemoteSubject, Sandbox
from graders.subject import Failure, Here

SETUP = "import torch\nfrom torch import nn"


class Affine(nn.Module):
    """The reference: x -> x w + b, with a count of its calls."""

    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The image of x."""
        self.calls += 1
        return x * self.weight + (0 if self.bias is None else self.bias)


def running(xs: torch.Tensor) -> Iterator[torch.Tensor]:
    """The running sums of xs."""
    total = torch.zeros(())
    for x in xs:
        total = total + x
        yield total


def made(draw: Draw) -> tuple[Any, ...]:
    width = draw.integer(3, 5)
    return {"width": width}, draw.weights(Affine(width)), draw.normal(2, width)


def calls(answer: Any, arguments: dict[str, Any], weights: dict[str, Any], x: Any) -> Any:
    """What an instance remembers of two calls, the second without training."""
    steps = [("load", weights), ("call", "", x), ("train", False), ("call", "forward", x), ("tensors",)]
    return answer.use(arguments, steps)[-1]["calls"]


AFFINE = exercise(
    "Affine",
    reference=Affine,
    requirements=[
        requires("names", 1, lambda draw: ({"width": draw.integer(3, 5), "bias": draw.integer(0, 1) == 1},), run=parameters),
        requires("values", 2, made, run=with_weights),
        requires("gradients", 1, made, run=with_weights_and_gradients),
        requires("memory", 1, made, run=calls),
    ],
    wrong={},
    right={},
)  # fmt: skip
RUNNING = exercise(
    "running",
    reference=running,
    requirements=[requires("sums", 2, lambda draw: (draw.normal(draw.integer(3, 6)),), run=first(9))],
    wrong={},
    right={},
)
HEAD = "class Affine(nn.Module):\n    def __init__(self, width, bias=True):\n        super().__init__()\n"
WEIGHT = "        self.weight = nn.Parameter(torch.rand(width))\n"
BIAS = "        self.bias = nn.Parameter(torch.rand(width)) if bias else None\n"
COUNT = "        self.register_buffer('calls', torch.zeros(()))\n"
FORWARD = (
    "    def forward(self, x):\n        self.calls = self.calls + 1\n        y = x * self.weight\n"
    "        return y + self.bias if self.bias is not None else y\n"
)
RIGHT = HEAD + WEIGHT + BIAS + COUNT + FORWARD
LAZY = "class Lazy:\n    def __init__(self, f): self.f = f\n    def __getattr__(self, name): return getattr(self.f(), name)\n"
SUMS = "def running(xs):\n    total = torch.zeros(())\n    for x in xs:\n"

# source, points earned, what is said
CLASSES = {
    "right": (RIGHT, 5, "everything"),
    "another base": (RIGHT.replace("(nn.Module)", "(nn.Identity)"), 5, "everything"),
    "another name": (RIGHT.replace("self.weight", "self.scale"), 0, "weight is missing and scale is not asked for"),
    "no bias": (HEAD + WEIGHT + "        self.bias = None\n" + COUNT + FORWARD, 0, "bias is missing (expected weight, bias)"),
    "one too many": (RIGHT.replace(COUNT, COUNT + "        self.more = nn.Parameter(torch.rand(2))\n"), 0, "more is not asked for"),
    "another shape": (RIGHT.replace("torch.rand(width))\n        self.bias", "torch.rand(width, 1))\n        self.bias"), 0, "value 0: expected 1 values, got 2"),
    "a tensor for a parameter": (RIGHT.replace("nn.Parameter(torch.rand(width))\n        self.bias", "torch.rand(width)\n        self.bias"), 0, "weight is missing"),
    "a list of tensors": (RIGHT.replace("nn.Parameter(torch.rand(width))\n        self.bias", "[torch.rand(width)]\n        self.bias"), 0, "weight is missing"),
    "no gradient of the bias": (RIGHT.replace("y + self.bias if", "y + self.bias.detach() if"), 4, "value 2"),
    "no memory": (RIGHT.replace("self.calls = self.calls + 1", "pass"), 4, "expected 2, got 0"),
    "no super": (RIGHT.replace("        super().__init__()\n", ""), 0, "AttributeError"),
    "no module": (RIGHT.replace("(nn.Module)", "").replace("        super().__init__()\n", "").replace(COUNT, "        self.calls = 0\n"), 0, "no nn.Module"),
    "other arguments": (RIGHT.replace("self, width, bias=True", "self, bias=True"), 0, "unexpected keyword argument 'width'"),
    "a function": ("def Affine(width, bias=True):\n    return nn.Identity()", 0, "a class is asked for"),
    "an instance": (RIGHT + "Affine = Affine(4)", 0, "a class is asked for"),
    "writes to its input": (RIGHT.replace("y = x * self.weight", "y = x.mul_(self.weight)"), 1, "changed in place"),
    "unwritten": (HEAD + "        raise NotImplementedError()", 0, "not written yet"),
    "a finalizer": (RIGHT + "    def __del__(self):\n        import os\n        os._exit(0)\n", 0, "process of your code ended"),
    "a finalizer that raises": (RIGHT + "    def __del__(self):\n        raise ValueError\n", 5, "everything"),
    "a metaclass": ("class Meta(type):\n    __name__ = property(lambda self: 1 / 0)\n    def __instancecheck__(cls, x): return True\n    def __call__(cls, *a, **k): return 7\n" + RIGHT.replace("nn.Module)", "nn.Module, metaclass=Meta)"), 0, "no nn.Module"),
    "a metaclass that ends": ("class Meta(type):\n    def __call__(cls, *a, **k): raise SystemExit\n" + RIGHT.replace("nn.Module)", "nn.Module, metaclass=Meta)"), 0, "SystemExit"),
    "properties that raise": (RIGHT + "    weight = property(lambda self: 1 / 0)\n", 0, "ZeroDivisionError"),
    "names that lie": (RIGHT.replace("self.weight", "self.scale") + "    def named_parameters(self, *a, **k): return iter([('weight', 1)])\n", 0, "scale is not asked for"),
    "a lazy answer": (LAZY + RIGHT.replace("return y + self.bias if self.bias is not None else y", "return Lazy(lambda: y)"), 1, "a Lazy is no plain value"),
    "a lazy parameter": (RIGHT.replace("nn.Parameter(torch.rand(width))\n        self.bias", "nn.UninitializedParameter()\n        self.bias"), 0, ""),
    "a loop in the constructor": (HEAD + "        while True: pass\n", 0, "does not end"),
}  # fmt: skip
GENERATORS = {
    "right": (SUMS + "        total = total + x\n        yield total", 2, "everything"),
    "one tensor again and again": (SUMS + "        total += x\n        yield total", 2, "everything"),
    "a list": (SUMS + "        total = total + x\n    return [total]", 0, "use `yield`"),
    "endless": ("def running(xs):\n    while True: yield xs[0]", 0, "got 9"),
    "too short": (SUMS + "        yield total + x\n        return", 0, "got 1"),
    "raises in the midst": (SUMS + "        yield total + x\n        raise ValueError('enough')", 0, "ValueError: enough"),
    "an iterator of its own": ("class running:\n    def __init__(self, xs): self.xs, self.n = xs, 0\n    def __iter__(self): return self\n    def __next__(self):\n        self.n += 1\n        if self.n > len(self.xs): raise StopIteration\n        return self.xs[:self.n].sum()", 2, "everything"),
    "hangs after one": (SUMS + "        yield total + x\n        while True: pass", 0, "does not end"),
}  # fmt: skip
RUIN = ("a finalizer", "a metaclass that ends", "a loop", "hangs", "a lazy answer")  # not in this process


@pytest.fixture(scope="module", params=["none", "bwrap"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A box at each level."""
    if request.param == "bwrap" and NO_BOX:
        pytest.skip(f"no isolation here: {NO_BOX}")
    with Sandbox(request.param, limits=replace(LIMITS, call=2)) as found:
        yield found


def there(box: Sandbox, asked: Exercise, source: str) -> Outcome:
    """The outcome of a learner's cell in the Player."""
    child = box.fork()
    child.run([("setup", SETUP), (asked.name, source)], 1)
    return judge(asked, RemoteSubject(child, asked.name), (1, 2))


def here(asked: Exercise, source: str) -> Outcome:
    """The outcome of the same cell in this process."""
    filename = "<the cell of this test>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    found: dict[str, Any] = {"torch": torch, "nn": nn, "__name__": "__main__"}
    exec(compile(source, filename, "exec"), found)
    return judge(asked, Here(found[asked.name]), (1, 2))


ASKED = [(AFFINE, name) for name in CLASSES] + [(RUNNING, name) for name in GENERATORS]


@pytest.mark.parametrize(("asked", "name"), ASKED)
def test_in_the_player(box: Sandbox, asked: Exercise, name: str) -> None:
    """A class or generator earns the points of what holds, and the sentence says what does not."""
    source, points, said = (CLASSES if asked is AFFINE else GENERATORS)[name]
    outcome = there(box, asked, source)
    assert outcome.score == points, outcome.message
    assert said in "\n".join([outcome.message, *(part.message for part in outcome.parts)])


@pytest.mark.parametrize(("asked", "name"), [a for a in ASKED if not a[1].startswith(RUIN)])
def test_here(asked: Exercise, name: str) -> None:
    """The learner's own notebook says the same."""
    source, points, said = (CLASSES if asked is AFFINE else GENERATORS)[name]
    outcome = here(asked, source)
    assert outcome.score == points, outcome.message
    assert said in "\n".join([outcome.message, *(part.message for part in outcome.parts)])


def test_lacks() -> None:
    """Loading weights says which parameter is missing, has another shape, is none, or is too many."""
    layer = nn.Linear(2, 3)
    assert agree(
        Here(nn.Linear).use({"in_features": 2, "out_features": 3}, [("load", dict(layer.named_parameters()))]), [None]
    )

    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.ones(2)
            self.other = nn.Parameter(torch.ones(2))

    def complaint(weights: dict[str, torch.Tensor]) -> str:
        with pytest.raises(Failure) as failure:
            Here(Listed).use({}, [("load", weights)])
        return failure.value.text

    two = torch.ones(2)
    assert complaint({"weight": two}) == "its `weight` is a tensor and no parameter: wrap it, nn.Parameter(...)"
    assert complaint({"scale": two}).startswith("it has no parameter `scale`; it has other, and")
    assert complaint({"other": torch.ones(3)}) == "its parameter `other` has the shape (2,), and (3,) is asked for"
    assert complaint({}) == "its parameter `other` is not asked for; asked for: none"


def test_a_step_that_does_not_exist() -> None:
    """A table that asks for an unknown step is told which there are."""
    with pytest.raises(ValueError, match="no step 'fly'; there are load, train"):
        Here(nn.Identity).use({}, [("fly",)])


def test_a_class_needs_a_run_that_makes_instances() -> None:
    """A table whose reference is a class, and whose requirement would call it, is refused."""
    with pytest.raises(ValueError, match="'values' needs run=with_weights"):
        exercise(
            "Affine", reference=Affine, requirements=[requires("values", 1, made, run=plainly)], wrong={}, right={}
        )
