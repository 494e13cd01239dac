"""Answers in words: from the lesson to the learner, through the rebuilder, to the instructor's hand and back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_markdown_cell
from nbgrader.api import Gradebook
from nbgrader.utils import compute_checksum
from tiny_course import NAME, RIGHT, notebook

from graders import bridge
from graders.grade import by_hand, grade
from graders.rebuild import Submission, rebuild, rebuilt_notebook
from graders.release import Release, Written, load
from graders.sandbox import Sandbox
from graders.written import inert
from solutions import notebook as lesson
from solutions.paste import LessonError
from solutions.release import release as released

TEXT = """
# %% tags=["setup"]
import torch

# %% tags=["tools"]
from graders.check import check

# %% [markdown] written="attention.report" points=4
# **Write.** What did you see?

# %% [markdown] tags=["instructor"]
# One point for the picture, three for the reason.
"""
HOSTILE = r"""# <script>run('md')</script>
<img src=x onerror="run('img')">
[click](javascript:run('link')) ![x](https://example.org/x.png)

[ref]: javascript:run('ref')

$\href{javascript:run('math')}{x}$ and $a < b$
"""


def test_a_lesson_asks_for_words() -> None:
    """The task is locked, the answer is the learner's and carries points, and the rubric stays with the instructor."""
    source = lesson.source("01_x", TEXT)
    task, answer, rubric = source.cells[-3:]
    assert task.metadata.nbgrader.locked
    assert (answer.id, answer.cell_type, answer.source) == ("report", "markdown", lesson.WRITE_HERE)
    role = answer.metadata.nbgrader
    assert (role.grade, role.solution, role.locked, role.points) == (True, True, False, 4)
    assert rubric.metadata.tags == ["instructor"]
    made = dict(released({"01_x": source}))["01_x"]
    assert made.cells[-1].source == lesson.WRITE_HERE
    assert made.cells[-1].metadata.nbgrader.points == 4
    assert "three for the reason" not in json.dumps(made)


WRONG = {
    "no rubric": (TEXT.split("# %% [markdown] tags")[0], "is its rubric"),
    "no points": (TEXT.replace(" points=4", ""), "points from 1 on"),
    "no task": (TEXT.replace("# **Write.** What did you see?\n", ""), "says what to write about"),
    "a code cell": (TEXT.replace("[markdown] written", "written"), "written task is"),
    "no name": (TEXT.replace("attention.report", "report"), "written task is"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_task_that_is_none(name: str) -> None:
    """A written task without rubric, points, text or name is refused with the sentence that mends it."""
    text, said = WRONG[name]
    with pytest.raises(LessonError, match=said):
        lesson.source("01_x", text)


@pytest.fixture(scope="module")
def asked(tiny: Path) -> Release:
    """The tiny lesson with a written task at its end."""
    path = tiny / "course" / NAME / f"{NAME}.ipynb"
    made = nbformat.read(path, as_version=4)
    role = {"grade": True, "solution": True, "locked": False, "task": False, "grade_id": "report", "points": 4}
    role |= {"schema_version": 3, "cell_type": "markdown"}
    cell = new_markdown_cell(lesson.WRITE_HERE, id="report", metadata={"nbgrader": role})
    cell.metadata.nbgrader["checksum"] = compute_checksum(cell)
    made.cells.append(cell)
    nbformat.write(made, path)
    return load(path)


def test_words_cross(asked: Release, tiny: Path, tmp_path: Path) -> None:
    """A written answer crosses as it is, is not executed, and counts nothing until a hand gives its points."""
    assert asked.written == {"report": Written(lesson.WRITE_HERE, 4)}
    assert (asked.points, "report" in asked.stubs) == (8, False)
    (tmp_path / "x.ipynb").write_text(json.dumps(notebook(tiny, RIGHT | {"report": HOSTILE})))
    submission = rebuild(asked, tmp_path / "x.ipynb")
    assert submission.sources["report"] == HOSTILE
    assert rebuilt_notebook(asked, submission.sources).cells[-1].source == HOSTILE
    verdict = grade(asked, submission, lambda: Sandbox("none"))
    assert (verdict.score, verdict.points) == (8, 8)
    assert "report: its 4 points are given by hand" in verdict.notes
    assert by_hand(asked, Submission(RIGHT | {"report": lesson.WRITE_HERE + " "})) == []


LIVE = re.compile(r"<[A-Za-z/!?]|\][\[(:]|\\(?:href|let)(?![a-z])")


def test_pages_of_words_are_inert(asked: Release) -> None:
    """On pages nothing of a written answer is a tag, a link, an image, or a formula that reaches out of itself."""
    shown = bridge.shown(asked, {"report": HOSTILE + "\u202e", "double": "a <b"})
    assert shown["double"] == "a <b"
    assert LIVE.search(HOSTILE)
    assert not LIVE.search(shown["report"])
    assert "\u202e" not in shown["report"]
    assert bridge.shown(asked, {"report": lesson.WRITE_HERE}) == {"report": lesson.WRITE_HERE}


@given(st.text(alphabet="<>[]()!/\\:$ahreflt\n`"))
def test_any_words(text: str) -> None:
    """Of any text no tag, link or reaching command is left, and making it inert again changes nothing."""
    shown = inert(text)
    assert not LIVE.search(shown)
    assert inert(shown).replace("\u200b", "") == shown.replace("\u200b", "")


def points(out: Path) -> tuple[float, bool]:
    """The written answer's score in a gradebook, and whether it waits for a hand."""
    with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as gradebook:
        found = gradebook.find_grade("report", NAME, NAME, "ann")
        return found.score, bool(found.needs_manual_grade)


def test_a_hand_gives_points_that_stay(asked: Release, tiny: Path, tmp_path: Path) -> None:
    """A written answer waits for a hand; points and comment stay when it is autograded again; feedback shows both."""
    verdict = grade(asked, Submission(RIGHT), lambda: Sandbox("none"))
    verdicts = {"ann": verdict.as_dict(details=True)}
    (tmp_path / "verdicts.json").write_text(json.dumps({"students": verdicts}))
    submissions = {"ann": Submission(RIGHT | {"report": HOSTILE})}
    bridge.post(asked, submissions, verdicts, root=tiny, out=tmp_path, feedback=False)
    assert points(tmp_path) == (0, True)
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        found = gradebook.find_grade("report", NAME, NAME, "ann")
        found.manual_score, found.needs_manual_grade = 3, False
        gradebook.find_comment("report", NAME, NAME, "ann").manual_comment = "the reason is missing"
        gradebook.db.commit()
    bridge.post(asked, submissions, verdicts, root=tiny, out=tmp_path, feedback=True)
    assert points(tmp_path)[0] == 3
    page = (tmp_path / "feedback" / "ann" / NAME / f"{NAME}.html").read_text()
    assert "the reason is missing" in page
    assert not re.search(r"<script>run|<img[^>]*src=.?x|href=.?javascript", page)
