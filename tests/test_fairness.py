"""A mistake costs its own points only: later answers are tried on the reference's earlier functions too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_course import NAME, RIGHT

from graders.exercise import find
from graders.fairness import better, second, stand_in
from graders.grade import Verdict, grade
from graders.judge import Outcome, Part, judge
from graders.rebuild import Submission
from graders.release import Release, load
from graders.sandbox import Sandbox
from graders.subject import Here
from solutions import build

SQUARED = "def double(x):\n    return x * x"


@pytest.fixture(scope="module")
def release(tiny: Path) -> Release:
    """The tiny lesson."""
    return load(tiny / "course" / NAME / f"{NAME}.ipynb")


def verdict_on(release: Release, sources: dict[str, str]) -> Verdict:
    """The verdict on these sources, without a box."""
    missing = {name: "missing" for name in RIGHT if name not in sources}
    return grade(release, Submission(sources, missing), lambda: Sandbox("none"))


def test_a_mistake_costs_once(release: Release) -> None:
    """An answer that is right on the reference's earlier function has its points; both scores are told."""
    verdict = verdict_on(release, RIGHT | {"double": SQUARED})
    assert {name: g.outcome.score for name, g in verdict.exercises.items()} == {
        "double": 0, "halve_softmax": 2, "total": 2, "why": 1,
    }  # fmt: skip
    told = verdict.as_dict()["exercises"]["halve_softmax"]
    assert (told["on_own"], told["on_reference"]) == (0, 2)
    assert told["message"].startswith("on the reference's double it is right; with your own: ")
    assert "on_own" not in verdict.as_dict()["exercises"]["total"]


@pytest.mark.parametrize("early", ["raise ValueError", "def double(x:", "import os; os._exit(0)", None])
def test_whatever_became_of_the_earlier_one(release: Release, early: str | None) -> None:
    """It does not matter how the earlier exercise failed: left out, broken, or ending its process."""
    sources = {k: v for k, v in RIGHT.items() if k != "double"} | ({"double": early} if early else {})
    assert verdict_on(release, sources).exercises["halve_softmax"].outcome.full


def test_the_asked_reference_never_enters(release: Release) -> None:
    """In the second try a process knows the earlier reference, and neither the asked one nor a word of it gets out."""
    spy = (
        "import linecache\ndef halve_softmax(x):\n    double\n"
        "    raise ValueError(str([v[2] for k, v in linecache.cache.items() if '<the cell' in k]))"
    )
    outcome = verdict_on(release, RIGHT | {"double": SQUARED, "halve_softmax": spy}).exercises["halve_softmax"].outcome
    assert outcome.score == 0
    assert "2 * x" not in str(outcome)
    assert "softmax(double" not in str(outcome)


def test_a_wrong_answer_stays_wrong(release: Release) -> None:
    """The reference's earlier functions do not make a wrong answer right."""
    wrong = "def halve_softmax(x):\n    return torch.softmax(double(x), 0)"
    verdict = verdict_on(release, RIGHT | {"double": SQUARED, "halve_softmax": wrong})
    outcome = verdict.exercises["halve_softmax"].outcome
    assert (outcome.score, "on the reference" in outcome.message) == (0, False)


def test_needed_is_found_through_others() -> None:
    """A failed exercise is stood in for where the answer reaches it, through others too, and nowhere else."""
    failed = {name: find(f"attention.{name}") for name in ("attention_scores", "masked_softmax", "attend_one")}
    sources = {
        "attention_weights": "masked_softmax(attention_scores(q, k), mask)",
        "attend": "attention_weights(q, k) @ v",
    }
    cells = ["attend_one", "attention_scores", "masked_softmax", "attention_weights", "attend"]
    found = second(failed, cells, sources)
    assert (set(found.stand_ins), found.idle) == ({"attention_scores", "masked_softmax"}, ("attend_one",))
    nothing = second(failed, cells, sources | {"attend": "q @ k"})
    assert (nothing.stand_ins, nothing.idle) == ({}, ("attend_one", "attention_scores", "masked_softmax"))
    assert not second({}, cells, sources)


@pytest.mark.parametrize("path", sorted((build.ROOT / "course").glob("*/*.ipynb")), ids=lambda path: path.stem)
def test_every_reference_can_stand_in(path: Path) -> None:
    """In what a learner's process knows, the stand-ins of a lesson define its exercises, and are right answers."""
    lesson = load(path)
    known: dict[str, object] = {}
    for source in lesson.setup:
        exec(compile(source, "setup", "exec", dont_inherit=True), known)
    for exercise in (item.exercise for item in lesson.items if not item.exercise.question):
        source = stand_in(exercise)
        assert source is not None, exercise.id
        exec(compile(source, exercise.id, "exec", dont_inherit=True), known)
        outcome = judge(exercise, Here(known[exercise.name]), (1,))
        assert outcome.full, (exercise.id, outcome.message)


def test_the_better_counts() -> None:
    """Part by part the second outcome is taken where it has more points in all, and its words are our own."""
    own = Outcome("f", 0, 3, (Part("a", 2, 0, "own a"), Part("b", 1, 0, "own b")), "slip", "own a")
    again = replace(own, score=2, parts=(Part("a", 2, 2, ""), Part("b", 1, 0, "secret")), mistake=None)
    best = better(own, again, "on the reference's g")
    assert (best.score, best.mistake) == (2, None)
    assert best.message == "on the reference's g it earns 2 of 3 points; with your own: own a"
    assert [part.message for part in best.parts] == ["met on the reference's g", "own b"]
    assert better(again, own, "on the reference's g") is again
