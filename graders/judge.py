"""An exercise and an answer -> an Outcome: points for each requirement, and the mistake by its name.

The judge owns the reference, the wrong answers and the seeds. It sees the answer only as a subject that turns inputs
into values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from graders.compare import agree, difference
from graders.draw import Draw
from graders.exercise import Exercise, Refusal, Requirement, with_dtype, with_gradients
from graders.subject import Failure, Here, copied

UNWRITTEN = "not written yet: replace the line `raise NotImplementedError()` with your own code"

REFUSES_ALL = "refusing what makes no sense counts once something that makes sense is answered right"

ROOM = 16  # a law looks into an answer of at most so many times the right one's numbers: it may multiply them


@dataclass(frozen=True)
class Part:
    """One requirement and what became of it; `message` is empty where it is met."""

    title: str
    points: int
    earned: int
    message: str


@dataclass(frozen=True)
class Outcome:
    """The verdict on one exercise. `mistake` is the name of the wrong answer that the learner's equals, if any."""

    exercise: str
    score: int
    points: int
    parts: tuple[Part, ...]
    mistake: str | None
    message: str

    @property
    def full(self) -> bool:
        return self.score == self.points


@dataclass(frozen=True)
class Trial:
    """One requirement on one draw of inputs, and what the answer gave: a value or a Failure."""

    requirement: Requirement
    seed: int
    inputs: tuple[Any, ...]
    given: Any


def observe(requirement: Requirement, answer: Any, inputs: tuple[Any, ...]) -> Any:
    """What an answer gives on inputs: its value, or the Failure that it ended in."""
    try:
        return requirement.run(answer, *copied(inputs))
    except Failure as failure:
        return failure
    except Exception as error:  # the run looks into values, and an answer's value may be of any form
        return Failure("Form", f"what it gives has not the form that was asked for ({type(error).__name__})")


def same(a: Any, b: Any) -> bool:
    """Whether two observations are the same: equal values, or failures of one kind, on one argument if it is named."""
    if isinstance(a, Failure) or isinstance(b, Failure):
        alike = isinstance(a, Failure) and isinstance(b, Failure) and a.kind == b.kind
        return alike and (a.kind != "InputChanged" or a.text == b.text)
    return agree(a, b) or agree(b, a)  # a float is no whole number, but it may be the same mistake


def try_all(exercise: Exercise, answer: Any, seeds: Sequence[int]) -> list[Trial]:
    """Every requirement on every seed. After a failure that ended the answer's process the rest is not tried again."""
    trials: list[Trial] = []
    for requirement in exercise.requirements:
        for seed in seeds:
            inputs = requirement.inputs(Draw(seed))
            trials.append(Trial(requirement, seed, inputs, observe(requirement, answer, inputs)))
    return trials


def fault(exercise: Exercise, trial: Trial) -> str | None:
    """What is wrong with one trial, as a sentence; None where it is right."""
    if isinstance(trial.given, Failure):
        return UNWRITTEN if trial.given.kind == "NotImplementedError" else str(trial.given)
    if exercise.question:  # a difference would show the right letter
        choices = ", ".join(exercise.question.choices)
        return (
            None
            if trial.given == exercise.question.answer
            else f"the answer is one of the letters {choices}, and not {trial.given!r}"
        )
    expected = observe(trial.requirement, Here(exercise.reference), trial.inputs)
    found = difference(expected, trial.given)
    if found is None:
        return None
    room = bulk(expected)
    if isinstance(trial.requirement.run, Refusal) and expected == "refused":
        found, room = "an error is asked for, and a value came back", bulk(trial.inputs)
    if trial.requirement.run is with_dtype and same(expected[0], trial.given[0]):
        found = f"the value is right, but not its precision: {trial.given[1]}"
    if trial.requirement.run is with_gradients:
        found = gradients_apart(exercise, trial.inputs, expected, trial.given) or found
    law = trial.requirement.law
    try:
        violated = law(trial.given, *trial.inputs) if law and bulk(trial.given) <= ROOM * room else None
    except Exception:  # a law reads shapes that a wrong answer need not have; the difference stands either way
        violated = None
    return f"{violated} ({found})" if violated else found


def gradients_apart(exercise: Exercise, inputs: tuple[Any, ...], expected: Any, given: Any) -> str | None:
    """What differs between two runs `with_gradients`: the value, or the gradient of an input, which is named.

    None where what was given has another form.
    """
    if not isinstance(given, list | tuple) or len(given) != 2 or not isinstance(given[1], list | tuple):
        return None
    if (found := difference(expected[0], given[0])) is not None:
        return found
    for name, wanted, got in zip(float_inputs(exercise.reference, inputs), expected[1], given[1], strict=False):
        if wanted is None and got is not None:
            return f"the value is right, but a gradient reaches `{name}`, and none is to: `detach` it"
        if wanted is not None and got is None:
            lost = "look for `detach`, `.data`, `.item()`, `torch.tensor(...)` or `no_grad`"
            return f"the value is right, but no gradient reaches `{name}`: {lost}"
        if (found := difference(wanted, got)) is not None:
            return f"the value is right, but not the gradient of `{name}`: {found}"
    return None


def float_inputs(function: Callable[..., Any], inputs: tuple[Any, ...]) -> list[str]:
    """The names of those parameters that take a float tensor of these inputs."""
    names: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        many = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        names += [f"{parameter.name}[{i}]" for i in range(len(inputs) - len(names))] if many else [parameter.name]
    return [
        name
        for name, value in zip(names, inputs, strict=False)
        if isinstance(value, Tensor) and value.is_floating_point()
    ]


def bulk(value: Any) -> int:
    """How many numbers and other plain values a value holds."""
    if isinstance(value, Tensor):
        return value.numel() + 1
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return 1 + sum(map(bulk, inner))


def matches(exercise: Exercise, trials: Sequence[Trial]) -> list[str]:
    """The names of the wrong answers that give what was given in every one of these trials."""
    return [wrong.name for wrong in exercise.wrong if equals(exercise, Here(wrong.function), trials)]


def equals(exercise: Exercise, wrong: Here, trials: Sequence[Trial]) -> bool:
    """Whether a wrong answer gives what was given in every one of these trials.

    Errors of one kind may have any cause. So somewhere both must be wrong in a value, or end in the same words.
    """
    values = []
    for t in trials:
        values.append(observe(t.requirement, wrong, t.inputs))
        if not same(values[-1], t.given):
            return False
    return any(telling(exercise, value, trial) for value, trial in zip(values, trials, strict=True))


def telling(exercise: Exercise, value: Any, trial: Trial) -> bool:
    """Whether a wrong answer's value, the same as what was given, is a wrong one, or an error in the same words."""
    if isinstance(value, Failure) and isinstance(trial.given, Failure):
        return value.text.partition(" (in the line")[0] == trial.given.text.partition(" (in the line")[0]
    return fault(exercise, trial) is not None


def name_mistake(exercise: Exercise, trials: Sequence[Trial], failed: Sequence[Requirement]) -> str | None:
    """The wrong answer that the learner's equals: everywhere, or, where mistakes mix, in what failed first.

    Then it must be right where the learner's is: who makes a mistake makes it wherever it shows.
    """
    for some in (trials, [t for t in trials if t.requirement is failed[0] or t.requirement not in failed]):
        found = matches(exercise, some)
        if len(found) == 1:
            return found[0]
    return None


def judge(exercise: Exercise, answer: Any, seeds: Sequence[int]) -> Outcome:
    """Judge one answer: a requirement is met when it holds on every seed (two at least, so that luck does not pass)."""
    trials = try_all(exercise, answer, seeds)
    parts: list[Part] = []
    failed: list[Requirement] = []
    for requirement in exercise.requirements:
        faults = [(t, f) for t in trials if t.requirement is requirement and (f := fault(exercise, t)) is not None]
        text = f"{faults[0][1]} [seed {faults[0][0].seed}]" if faults and faults[0][1] != UNWRITTEN else UNWRITTEN
        parts.append(
            Part(requirement.title, requirement.points, 0 if faults else requirement.points, text if faults else "")
        )
        if faults:
            failed.append(requirement)
    mistake = name_mistake(exercise, trials, failed) if failed else None
    return _outcome(exercise, beside_values(exercise, parts), mistake)


def beside_values(exercise: Exercise, parts: Sequence[Part]) -> list[Part]:
    """The parts, where a refusal earns nothing unless a requirement of another kind is met: see `Refusal`."""
    refusals = {r.title for r in exercise.requirements if isinstance(r.run, Refusal)}
    if any(part.earned for part in parts if part.title not in refusals):
        return list(parts)
    return [replace(p, earned=0, message=REFUSES_ALL) if p.title in refusals and p.earned else p for p in parts]


def _outcome(exercise: Exercise, parts: Sequence[Part], mistake: str | None) -> Outcome:
    score = sum(part.earned for part in parts)
    if score == exercise.points:
        message = (
            exercise.question.explanations[exercise.question.answer]
            if exercise.question
            else "everything asked for holds"
        )
    elif mistake is not None:
        message = next(wrong.sentence for wrong in exercise.wrong if wrong.name == mistake)
    else:
        message = next(part.message for part in parts if part.message)
    return Outcome(exercise.name, score, exercise.points, tuple(parts), mistake, message)
