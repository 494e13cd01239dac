"""Each lesson as it is used: it runs from top to bottom, and the real grading path gives it what it deserves."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from boxes import needs_box
from nbclient import NotebookClient

from graders.grade import Verdict, grade_submission
from graders.judge import UNWRITTEN
from graders.release import Release, load
from graders.sandbox import Sandbox
from solutions import build
from tinytrans.files import write_whole

LESSONS = build.names()
pytestmark = pytest.mark.parametrize("name", LESSONS)


@pytest.mark.slow
def test_a_solved_lesson_runs_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh kernel, in quick mode, no cell fails, every picture has its words, every check gives all points."""
    monkeypatch.setenv("TINYTRANS_QUICK", "1")
    made = build.solved(name)
    NotebookClient(made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [(cell, output) for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]
    for cell, output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            assert "Warning" not in output.text, f"{cell.id} warns: {output.text}"
        if points := cell.metadata.get("nbgrader", {}).get("points"):
            assert output.output_type == "stream" or output.data["text/plain"] == f"{float(points)}"
    pictures = [output for _, output in outputs if "image/png" in output.get("data", {})]
    assert pictures, "a lesson has at least one picture from its own run"
    for picture in pictures:
        assert len(picture.data["text/plain"].split()) > 8, "a picture's text says what is to be seen in it"
        assert picture.metadata["image/png"]["alt"] == picture.data["text/plain"]


def test_tables_keep_their_columns(name: str) -> None:
    """Every row of a Markdown table has as many cells as its head: a bar in a row's text is escaped."""
    for cell in build.solved(name).cells:
        if cell.cell_type == "markdown":
            for is_table, rows in groupby(cell.source.split("\n"), key=lambda line: line.startswith("|")):
                bars = {row: len(re.findall(r"(?<!\\)\|", row)) for row in rows} if is_table else {}
                assert len(set(bars.values())) <= 1, bars


def graded(name: str, tmp_path: Path, content: bytes) -> tuple[Release, Verdict]:
    """A file's verdict by the path that grades a class."""
    release = load(build.HERE.course / name / f"{name}.ipynb")
    path = tmp_path / f"{name}.ipynb"
    write_whole(path, content)
    return release, grade_submission(release, path, Sandbox)


@needs_box
def test_a_solved_lesson_earns_every_point(name: str, tmp_path: Path) -> None:
    """The library's own answers, handed in by a learner, get full marks and no note."""
    release, verdict = graded(name, tmp_path, build.to_bytes(build.submission(name, build.answers(name))))
    assert verdict.score == verdict.points == sum(item.exercise.points for item in release.items)
    assert verdict.notes == ()


@needs_box
def test_an_unsolved_lesson_earns_nothing_and_says_why(name: str, tmp_path: Path) -> None:
    """The untouched notebook gets 0, with a message for each exercise."""
    _, verdict = graded(name, tmp_path, build.to_bytes(build.submission(name, {})))
    assert verdict.score == 0
    for graded_one in verdict.exercises.values():
        said = graded_one.outcome.message
        assert said == UNWRITTEN or "not answered yet" in said


@needs_box
def test_a_broken_cell_costs_its_own_points_only(name: str, tmp_path: Path) -> None:
    """A syntax error in the last function's cell is named, and every other exercise keeps its points."""
    release, _ = graded(name, tmp_path, b"{}")
    last = [item for item in release.items if item.exercise.question is None][-1].name
    answers = build.answers(name) | {last: f"def {last}(:\n    pass\n"}
    _, verdict = graded(name, tmp_path, build.to_bytes(build.submission(name, answers)))
    lost = {item: one.outcome for item, one in verdict.exercises.items() if not one.outcome.full}
    assert list(lost) == [last]
    assert "SyntaxError" in lost[last].message


def test_an_empty_notebook_is_a_note(name: str, tmp_path: Path) -> None:
    """A file without a single cell, or without a notebook in it, gets 0 and a note, never an exception."""
    for content in (b"", b"{}", b"{", nbformat.writes(nbformat.v4.new_notebook()).encode()):
        _, verdict = graded(name, tmp_path, content)
        assert verdict.score == 0
        assert verdict.notes
