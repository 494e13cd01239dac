"""Running the solved lessons: what it costs and what was reached is told, also of a lesson that stops."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from solutions import build
from solutions import run as running
from solutions.run import Reached, run, table


@pytest.fixture
def lesson(monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """A lesson of two cells, the second of which is measured."""
    made = new_notebook(cells=[new_code_cell("print('not this')"), new_code_cell("print('loss 0.5\\n')")])
    made.cells[1].metadata.tags = ["measured"]
    monkeypatch.setattr(build, "solved", lambda _name: made)
    return made


def test_a_run_tells_what_was_reached(lesson: nbformat.NotebookNode, tmp_path: Path) -> None:
    """Seconds, the kernel's peak memory and the measured cells' lines; the executed notebook is kept, as it was."""
    reached = run("00_any", quick=True, kept=tmp_path)
    assert reached.measured == ("loss 0.5",)
    assert (reached.error, reached.seconds > 0) == ("", True)
    assert 50 < reached.memory_mb < 2000
    kept = nbformat.read(tmp_path / "00_any.ipynb", as_version=4)
    assert [cell.source for cell in kept.cells] == [cell.source for cell in lesson.cells]
    assert kept.cells[1].outputs


def test_a_lesson_that_stops_is_told(lesson: nbformat.NotebookNode, tmp_path: Path) -> None:
    """An exception in a cell is the lesson's error, and what was printed before it stays."""
    lesson.cells.insert(1, new_code_cell("1 / 0"))
    reached = run("00_any", quick=True, kept=tmp_path)
    assert reached.error.startswith("ZeroDivisionError")
    assert reached.measured == ()
    assert "stopped: ZeroDivisionError" in table([reached])


def test_the_table_has_a_row_for_each_lesson() -> None:
    """Time and memory in the table, figures below it."""
    text = table([Reached("04_any", 12.3, 700, 2, ("loss 0.5",)), Reached("05_any", 1, 60, 2, ())])
    assert "| `04_any` | 12 | 700 |\n| `05_any` | 1 | 60 |" in text
    assert "loss 0.5" in text


def test_an_unknown_lesson_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for a lesson that is not there says which are."""
    assert running.main(["--only", "99"]) == 1
    assert "no lesson starts with '99'" in capsys.readouterr().out
