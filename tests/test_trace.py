"""Forbidden functions: what a source names and what a call runs is shown for review, and costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from boxes import NO_BOX
from tiny_course import NAME, RIGHT
from torch import nn

from graders.draw import Draw
from graders.exercise import Exercise, concepts, table
from graders.grade import grade, lines_of
from graders.judge import observe
from graders.rebuild import Submission
from graders.release import load
from graders.sandbox import Sandbox
from graders.subject import Here
from graders.trace import named, ran, traced

LEVEL = "none" if NO_BOX else "bwrap"
FORBIDDEN = ("F.layer_norm", "nn.LayerNorm")
SOURCES = {
    "y = F.layer_norm(x, (3,))": [(1, "F.layer_norm")],
    "import torch.nn.functional as G\ny = G.layer_norm": [(2, "F.layer_norm")],
    "from torch.nn.functional import layer_norm as f": [(1, "F.layer_norm")],
    "f = getattr(torch.nn, 'LayerNorm')": [(1, "nn.LayerNorm")],
    "class A(nn.Module):\n    def __init__(self):\n        self.norm = nn.LayerNorm(3)": [(3, "nn.LayerNorm")],
    "def layer_norm(x):\n    return x\ny = layer_norm(1)": [],
    "class A:\n    def f(self):\n        return self.layer_norm": [],
    "# F.layer_norm would be easier\ny = 1": [],
}


@pytest.mark.parametrize("source", SOURCES)
def test_named(source: str) -> None:
    """A forbidden name is found as an attribute, an import and a text, and not where the learner defines it."""
    assert named(source, FORBIDDEN) == SOURCES[source]


X = torch.randn(2, 4, 8)
CALLS = {
    "F.layer_norm": lambda: F.layer_norm(X, (8,)),
    "nn.LayerNorm": lambda: nn.LayerNorm(8)(X),
    "nn.RMSNorm": lambda: nn.RMSNorm(8)(X),
    "nn.MultiheadAttention": lambda: nn.MultiheadAttention(8, 2, batch_first=True)(X, X, X),
    "F.scaled_dot_product_attention": lambda: torch.ops.aten.scaled_dot_product_attention(X, X, X),
    "torch.softmax": lambda: X.softmax(-1),
    "F.cross_entropy": lambda: nn.CrossEntropyLoss()(X.transpose(1, 2), torch.zeros(2, 4).long()),
    "nn.BatchNorm1d": lambda: nn.BatchNorm1d(4)(X),
}


@pytest.mark.parametrize("name", CALLS)
def test_ran(name: str) -> None:
    """What runs is found by its name, whichever way it was reached; what does not run is not."""
    with traced() as operations:
        CALLS[name]()
    assert ran(operations, [name]) == [name]
    assert ran(operations, ["F.conv1d"]) == []


SOFTMIN = "import torch.nn.functional as F\ndef halve_softmax(x):\n    return F.softmin(-double(x), -1) / 2"
HIDDEN = "import importlib\ndef halve_softmax(x):\n    f = getattr(importlib.import_module('torch.nn.functional'), 'soft' + 'min')\n    return f(-double(x), -1) / 2"  # noqa: E501
REVIEWS = {
    SOFTMIN: ["line 3 names F.softmin: return F.softmin(-double(x), -1) / 2", "its process says that it ran F.softmin"],
    HIDDEN: ["its process says that it ran F.softmin"],
    RIGHT["halve_softmax"]: None,
    "def halve_softmax(:": None,
    "-" * 50_000 + "1": None,
}


@pytest.mark.parametrize("source", REVIEWS, ids=range(len(REVIEWS)))
def test_reviewed(tiny: Path, source: str) -> None:
    """A submission with a forbidden function keeps its points, and its verdict holds the evidence."""
    release = load(tiny / "course" / NAME / f"{NAME}.ipynb")
    verdict = grade(
        release, Submission(RIGHT | {"halve_softmax": source}), lambda: Sandbox("none" if NO_BOX else "bwrap")
    )
    found = verdict.as_dict()["exercises"]["halve_softmax"]
    assert found.get("review") == REVIEWS[source]
    assert found["score"] == (2 if source in (SOFTMIN, HIDDEN, RIGHT["halve_softmax"]) else 0)
    assert sum(e["score"] for e in verdict.as_dict()["exercises"].values()) == 6 + found["score"]


def test_evidence_of_another_form() -> None:
    """What a process answers in another form than asked is no evidence, and no error."""
    for found in (None, 3, [3], [("a", 1)], [(10**9, "x")], [(0, "x")], {"x": 1}, [(True, "x")]):
        assert lines_of("x", found) == ()
    assert lines_of("a\n\x1b", [(2, "b")]) == ("line 2 names b: \N{REPLACEMENT CHARACTER}",)


FORBIDDING = [e for concept in concepts() for e in table(concept).values() if e.forbidden]


@pytest.mark.parametrize("exercise", FORBIDDING, ids=[e.id for e in FORBIDDING])
def test_the_reference_does_without(exercise: Exercise) -> None:
    """What a table forbids its own reference does not run, and where another right answer does, it is seen."""
    for function in (exercise.reference, exercise.right.get("torch's own")):
        operations: set[str] = set()

        def followed(*inputs: Any, function: Any = function, operations: set[str] = operations) -> Any:
            with traced() as found:
                value = function(*inputs)
            operations |= found
            return value

        if function is not None:
            for requirement in exercise.requirements:
                observe(requirement, Here(followed), requirement.inputs(Draw(1)))
            assert bool(ran(operations, exercise.forbidden)) is (function is not exercise.reference)
