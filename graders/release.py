"""A release notebook -> what a submission consists of: the learner's cells, the judged ones, and their points.

The release is the one source of roles, order and points. Nothing that a submission says about itself is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from graders.exercise import Exercise, find
from graders.judge import try_all
from graders.subject import Here


class ReleaseError(Exception):
    """The release notebook and the exercise tables do not fit together; the message names both."""


@dataclass(frozen=True)
class Item:
    """One judged exercise of a lesson: its test cell, its table, and the solution cells that come before it."""

    grade_id: str  # of the test cell
    exercise: Exercise
    cells: tuple[str, ...]  # grade_ids of the solution cells above it, in order

    @property
    def name(self) -> str:
        return self.exercise.name

    @cached_property
    def seconds(self) -> float:
        """Processor time of this thread that the reference takes for all calls of one draw, measured here and once.

        The least of three: the first call of a kind loads what the later ones use.
        """

        def taken() -> float:
            start = time.thread_time()
            try_all(self.exercise, Here(self.exercise.reference), (0,))
            return time.thread_time() - start

        return min(taken() for _ in range(3))


@dataclass(frozen=True)
class Written:
    """An answer in words that an instructor grades by hand: its cell as handed out, and its points."""

    stub: str
    points: float


@dataclass(frozen=True)
class Release:
    """A lesson as it is handed out."""

    name: str
    notebook: NotebookNode
    setup: tuple[str, ...]  # sources of the cells tagged "setup"
    stubs: dict[str, str]  # grade_id of each solution cell -> its source as handed out
    items: tuple[Item, ...]
    written: dict[str, Written] = field(default_factory=dict)  # by grade_id

    @property
    def answers(self) -> dict[str, str]:
        """grade_id of every cell that is the learner's, code or words -> its source as handed out."""
        return self.stubs | {grade_id: written.stub for grade_id, written in self.written.items()}

    @property
    def points(self) -> int:
        """What can be earned without an instructor's hand."""
        return sum(item.exercise.points for item in self.items)


def load(path: Path, find_exercise: Callable[[str], Exercise] = find) -> Release:
    """Read the release notebook at `path`.

    Raises ReleaseError where it does not exist, or a test cell and its table differ.
    """
    if not path.is_file():
        raise ReleaseError(f"there is no release notebook {path}: build the course first (make course)")
    notebook = nbformat.read(path, as_version=4)
    setup = tuple(cell.source for cell in notebook.cells if "setup" in cell.metadata.get("tags", []))
    stubs: dict[str, str] = {}
    items: list[Item] = []
    written: dict[str, Written] = {}
    for cell in notebook.cells:
        role = cell.metadata.get("nbgrader", {})
        if role.get("solution") and cell.cell_type == "code":
            stubs[role["grade_id"]] = cell.source
        elif role.get("solution") and role.get("grade"):
            written[role["grade_id"]] = Written(cell.source, float(role["points"]))
        elif role.get("grade"):
            items.append(_item(cell, tuple(stubs), find_exercise))
    return Release(path.stem, notebook, setup, stubs, tuple(items), written)


def _item(cell: NotebookNode, above: tuple[str, ...], find_exercise: Callable[[str], Exercise]) -> Item:
    role = cell.metadata.nbgrader
    id = cell.metadata.get("tinytrans", {}).get("exercise")
    if id is None:
        raise ReleaseError(f"the test cell {role['grade_id']!r} names no exercise in its metadata")
    exercise = find_exercise(id)
    if float(role["points"]) != exercise.points:
        raise ReleaseError(f"{role['grade_id']!r} has {role['points']} points, the table of {id!r} {exercise.points}")
    if exercise.name not in above:
        raise ReleaseError(f"no solution cell {exercise.name!r} comes before the test cell {role['grade_id']!r}")
    return Item(role["grade_id"], exercise, above)
