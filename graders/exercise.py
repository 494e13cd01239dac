"""An exercise is one table: points, inputs, reference, right answers, wrong answers with a sentence for the learner.

From the table come the visible check, the grading with secret seeds, the feedback that names the mistake, partial
credit, the proof that the check rejects every wrong answer, and the lesson's list of pitfalls.
solutions/README.md, "Adding an exercise", is the guide.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.subject import Failure

Inputs = Callable[[Draw], tuple[Any, ...]]
PRECISIONS = {torch.float16: "half", torch.float32: "single", torch.float64: "double"}


def plainly(answer: Callable[..., Any], *inputs: Any) -> Any:
    """The usual run of an answer: call it once."""
    return answer(*inputs)


def with_gradients(answer: Any, *inputs: Any) -> Any:
    """Call the answer and send a gradient back: (value, gradient of each float tensor among the inputs)."""
    return answer.gradients(*inputs)


def with_dtype(answer: Any, *inputs: Any) -> Any:
    """(value, "double in, double out; single in, single out"): the answer on its inputs, and once more in single."""
    value, single = answer(*inputs), _single(inputs)
    precisions = f"{_precision(inputs)} in, {_precision(value)} out; single in, {_precision(answer(*single))} out"
    return value, precisions


def _single(value: Any) -> Any:
    """The inputs in single precision."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    return tuple(map(_single, value)) if isinstance(value, list | tuple) else value


def _precision(value: Any) -> str:
    """In which precisions a value holds its floats; where it holds no tensor, what it is instead."""
    held = {PRECISIONS[t.dtype] for t in _tensors(value) if t.dtype in PRECISIONS}
    return " and ".join(sorted(held)) or type(value).__name__


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return [value] if isinstance(value, Tensor) else []


@dataclass(frozen=True)
class Refusal:
    """The run on inputs that make no sense: "refused" where an error of these kinds says so, else what is given.

    Who refuses everything refuses these too: such a requirement earns only beside one that was met with a value.
    """

    kinds: tuple[str, ...] = ("ValueError", "AssertionError", "IndexError", "RuntimeError")

    def __call__(self, answer: Callable[..., Any], *inputs: Any) -> Any:
        """What the answer gives, or "refused". Raises Failure for errors of other kinds."""
        try:
            return answer(*inputs)
        except Failure as failure:
            if failure.kind in self.kinds:
                return "refused"
            raise


refusal = Refusal()


def first(most: int) -> Callable[..., Any]:
    """The run of a generator: its first `most` values, one after another, as a list."""
    return lambda answer, *inputs: answer.values(inputs, most)


def parameters(answer: Any, arguments: Mapping[str, Any]) -> Any:
    """The run of a class that asks how its parameters are called: name -> shape. Its inputs: the arguments by name."""
    return answer.use(arguments, [("parameters",)])[0]


def with_weights(answer: Any, arguments: Mapping[str, Any], weights: Mapping[str, Any], *inputs: Any) -> Any:
    """The usual run of a class: make an instance of arguments by name, set its weights by name, call it."""
    return answer.use(arguments, [("load", weights), ("call", "", *inputs)])[-1]


def with_weights_and_gradients(
    answer: Any, arguments: Mapping[str, Any], weights: Mapping[str, Any], *inputs: Any
) -> Any:
    """As `with_weights`: (value, gradients of the float inputs, gradient of each parameter by its name)."""
    return answer.use(arguments, [("load", weights), ("gradients", "", *inputs)])[-1]


@dataclass(frozen=True)
class Requirement:
    """One thing that is asked, with its points: the inputs it is tried on and, where values alone don't tell, a law."""

    title: str
    points: int
    inputs: Inputs
    run: Callable[..., Any] = plainly  # (answer, *inputs) -> the value that is compared with the reference's
    law: Callable[..., str | None] | None = (
        None  # (value, *inputs) -> the sentence that names what is violated, or None
    )


@dataclass(frozen=True)
class Wrong:
    """A classic mistake: how it computes, and what to tell the learner who made it."""

    name: str
    function: Callable[..., Any]
    sentence: str


@dataclass(frozen=True)
class Question:
    """A concept question: the text, its choices (letter -> text) and the explanation of each (letter -> text)."""

    text: str
    choices: Mapping[str, str]
    explanations: Mapping[str, str]
    answer: str


@dataclass(frozen=True)
class Exercise:
    """What a learner is asked for, by name; `concept` is the stem of the file in `graders/checks/` that holds it."""

    name: str
    reference: Callable[..., Any]
    requirements: tuple[Requirement, ...]
    wrong: tuple[Wrong, ...]
    right: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: MappingProxyType({}))
    oracle: Callable[..., Any] | None = None  # an implementation that is independent of the reference
    equivalent: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # see graders/survivors.py
    question: Question | None = None
    concept: str = ""
    forbidden: tuple[str, ...] = ()  # what would give the answer away, "F.layer_norm": its use is shown for review

    @property
    def points(self) -> int:
        return sum(requirement.points for requirement in self.requirements)

    @property
    def id(self) -> str:
        return f"{self.concept}.{self.name}"


def requires(
    title: str,
    points: int,
    inputs: Inputs,
    *,
    run: Callable[..., Any] = plainly,
    law: Callable[..., str | None] | None = None,
) -> Requirement:
    """One row of an exercise's requirements; see `Requirement`."""
    return Requirement(title, points, inputs, run, law)


def exercise(
    name: str,
    *,
    reference: Callable[..., Any],
    requirements: Sequence[Requirement],
    wrong: Mapping[str, tuple[Callable[..., Any], str]],
    right: Mapping[str, Callable[..., Any]],
    oracle: Callable[..., Any] | None = None,
    equivalent: Mapping[str, str] | None = None,
    forbidden: Sequence[str] = (),
) -> Exercise:
    """An exercise on a function, or on a class where the reference is one: then it needs runs that make instances.

    `wrong` maps the mistake's name to (implementation, sentence to the learner); `equivalent` maps a mutation of the
    reference that is no mistake, `words before -> words after`, to the reason. `forbidden` names the functions and
    classes that would give the answer away: who uses one loses nothing, and is shown to the instructor.
    Raises ValueError where a requirement on a class would call it like a function, and where refusing is all that is
    asked.
    """
    if isinstance(reference, type) and (plain := [r.title for r in requirements if r.run in (plainly, with_gradients)]):
        raise ValueError(
            f"{name} is a class: the requirement {plain[0]!r} needs run=with_weights, or another of its kind"
        )
    if all(isinstance(r.run, Refusal) for r in requirements):
        raise ValueError(f"{name} asks for refusals alone: who refuses everything would have all of its points")
    return Exercise(
        name,
        reference,
        tuple(requirements),
        tuple(Wrong(mistake, function, sentence) for mistake, (function, sentence) in wrong.items()),
        MappingProxyType(dict(right)),
        oracle,
        equivalent=MappingProxyType(dict(equivalent or {})),
        forbidden=tuple(forbidden),
    )


def question(
    name: str, text: str, *, choices: Mapping[str, str], explanations: Mapping[str, str], answer: str, points: int = 1
) -> Exercise:
    """A concept question: the learner's answer is a letter, and every choice, right or wrong, has its explanation.

    Raises ValueError where a choice has no explanation or the answer is no choice.
    """
    if set(choices) != set(explanations):
        raise ValueError(f"{name}: choices {sorted(choices)} and explanations {sorted(explanations)} differ")
    if answer not in choices:
        raise ValueError(f"{name}: the answer {answer!r} is not among the choices {sorted(choices)}")

    def letter(choice: str) -> Callable[[], str]:
        return lambda: choice

    def chosen(given: Callable[[], Any]) -> Any:
        value = given()
        return value.strip().lower() if isinstance(value, str) else value

    return Exercise(
        name,
        letter(answer),
        (Requirement("the right choice", points, lambda _draw: (), run=chosen),),
        tuple(Wrong(f"choice {c}", letter(c), explanations[c]) for c in choices if c != answer),
        MappingProxyType({"in upper case": letter(answer.upper()), "with a space": letter(f" {answer} ")}),
        question=Question(text, MappingProxyType(dict(choices)), MappingProxyType(dict(explanations)), answer),
    )


def concepts() -> list[str]:
    """The stems of `graders/checks/`, sorted: one file a concept."""
    package = importlib.import_module("graders.checks")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def table(concept: str) -> dict[str, Exercise]:
    """The exercises of one concept, by name, in the order of their file."""
    if concept not in concepts():
        raise KeyError(f"no checks for {concept!r}; there are {', '.join(concepts())}")
    module = importlib.import_module(f"graders.checks.{concept}")
    found: dict[str, Exercise] = {}
    for entry in module.EXERCISES:
        if entry.name in found:
            raise ValueError(f"{concept} has two exercises named {entry.name!r}")
        found[entry.name] = Exercise(**{**vars(entry), "concept": concept})
    return found


def find(id: str) -> Exercise:
    """The exercise `concept.name`.

    Raises KeyError that lists what there is.
    """
    concept, _, name = id.partition(".")
    exercises = table(concept)
    if name not in exercises:
        raise KeyError(f"no exercise {name!r} in {concept!r}; there are {', '.join(exercises)}")
    return exercises[name]
