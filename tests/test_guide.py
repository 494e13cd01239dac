"""The instructors' guide keeps its word: who follows it has an exercise, and its syllabus has every lesson."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import graders.checks
from graders import survivors
from graders.exercise import find
from graders.judge import judge
from graders.mutants import prove
from graders.subject import Here
from solutions import build
from solutions.build import Places

GUIDE = (build.ROOT / "solutions" / "README.md").read_text(encoding="utf-8")
HEAD = """
# %% tags=["setup"]
import torch
from torch import Tensor

# %% tags=["tools"]
from graders.check import check

"""


def section(title: str) -> str:
    """The text under a heading of the guide."""
    return GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A course in which somebody did what the guide says, in a file of its own."""
    table, cell = re.findall(r"```(?:python)?\n(.*?)```", section("Adding an exercise"), re.DOTALL)[:2]
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "guide_example.py").write_text(table)
    monkeypatch.setattr(graders.checks, "__path__", [*graders.checks.__path__, str(tmp_path / "checks")])
    places = Places(tmp_path / "lessons", tmp_path / "source", tmp_path / "course")
    places.lessons.mkdir()
    (places.lessons / "01_example.py").write_text(
        HEAD + cell.replace("positions.alibi_slopes", "guide_example.alibi_slopes", 1)
    )
    return places


def test_who_follows_the_guide_has_an_exercise(followed: Places) -> None:
    """The table is proven, the lesson is built, the solution earns all points, and no mutation of it slips through."""
    exercise = find("guide_example.alibi_slopes")
    proof = prove(exercise)
    assert (proof.wrong, proof.named, proof.accepted) == (3, 3, 2), proof
    assert build.build(places=followed) == ["01_example"]
    made = (followed.course / "01_example" / "01_example.ipynb").read_text(encoding="utf-8")
    assert "def alibi_slopes" in made
    assert "bit_length" not in made
    world: dict[str, object] = {"torch": torch, "Tensor": torch.Tensor}
    exec(build.answers("01_example", followed)["alibi_slopes"], world)
    assert judge(exercise, Here(world["alibi_slopes"]), seeds=(1, 2)).full
    assert survivors.survey(exercise).survivors == ()


@pytest.mark.parametrize("weeks", [6, 10, 14])
def test_the_syllabus_has_every_lesson(weeks: int) -> None:
    """Each form of the course names every lesson that there is and no other, in so many weeks."""
    rows = [line.split("|")[1:-1] for line in section("Syllabus").split("\n") if line.startswith("|")]
    column = next(i for i, title in enumerate(rows[0]) if title.split()[:1] == [str(weeks)])
    planned = [row[column].strip() for row in rows[2:]]
    assert sum(bool(week) for week in planned) == weeks
    assert set(re.findall(r"\b\d\d\b", " ".join(planned))) == {name[:2] for name in build.names()}


def test_every_header_is_explained() -> None:
    """The guide's table of headers has every tag that a lesson may use."""
    from solutions.notebook import TAGS

    assert all(f'tags=["{tag}"]' in section("A lesson's source") for tag in TAGS)
