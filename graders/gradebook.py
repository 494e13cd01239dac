"""Verdicts of a class -> nbgrader's gradebook, in one transaction: it is as it was before, or complete.

The rows are those that nbgrader's own autograde writes, by its own objects; it takes a session and a commit for every
cell where this takes one of each for the class.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.api import (
    Comment,
    Grade,
    Gradebook,
    MissingEntry,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
    new_uuid,
)
from nbgrader.preprocessors import AssignLatePenalties
from nbgrader.utils import compute_checksum, determine_grade, is_grade, is_locked, is_solution, is_task
from sqlalchemy.exc import OperationalError, SAWarning
from traitlets.config import Config

from graders.release import Release, ReleaseError


@dataclass(frozen=True)
class Entry:
    """What the gradebook keeps of one graded submission: scores and comments by grade_id, and when it was handed in."""

    scores: Mapping[str, float | None]
    comments: Mapping[str, str | None]
    when: datetime | None = None


def entry(notebook: NotebookNode, when: datetime | None = None) -> Entry:
    """A notebook with our outputs -> what nbgrader reads in it."""
    scores, comments = {}, {}
    for cell in notebook.cells:
        if is_grade(cell):
            scores[cell.metadata.nbgrader.grade_id] = determine_grade(cell)[0]
        if is_solution(cell) or is_task(cell):
            comments[cell.metadata.nbgrader.grade_id] = _comment(cell)
    return Entry(scores, comments, when)


def _comment(cell: NotebookNode) -> str | None:
    untouched = cell.metadata.nbgrader.get("checksum") == compute_checksum(cell)
    return "No response." if untouched and not is_task(cell) else None


@contextmanager
def at_peace() -> Iterator[None]:
    """Within, nbgrader finds this environment's alembic on PATH, and its way with SQLAlchemy brings no warnings."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            yield
    finally:
        os.environ["PATH"] = before


@contextmanager
def transaction(path: Path, course: str) -> Iterator[Gradebook]:
    """The gradebook at `path`, made where there is none; what is done within is committed at the end, all of it.

    Raises OSError where it cannot be written: another program holds it, or the disk is full.
    """
    try:
        with at_peace():
            if not path.exists():
                _make(path, course)
            with Gradebook(f"sqlite:///{path}", course) as gradebook:
                commit = gradebook.db.commit
                gradebook.db.commit = gradebook.db.flush  # its methods commit, each of them
                try:
                    yield gradebook
                    commit()
                except BaseException:
                    gradebook.db.rollback()
                    raise
    except OperationalError as error:  # locked by another program, or the disk is full
        raise OSError(f"the gradebook {path} could not be written and is as it was: {error.orig}") from error


def _make(path: Path, course: str) -> None:
    """An empty gradebook, whole or not at all: nbgrader takes one without a version for one of an old version."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    Gradebook(f"sqlite:///{part}", course).close()
    part.replace(path)


def register(release: Release, gradebook: Gradebook) -> None:
    """Take the lesson and its cells in as `nbgrader generate_assignment` does; one that is there is brought up to date.

    Raises ReleaseError where there are submissions to a version of the lesson with other cells.
    """
    name = release.name
    _same_cells(release, gradebook)
    gradebook.update_or_create_assignment(name)
    kernel = json.dumps(release.notebook.metadata.get("kernelspec", {}))
    gradebook.update_or_create_notebook(name, name, kernelspec=kernel)
    for cell in _cells(release):
        role = cell.metadata.nbgrader
        if is_grade(cell) or is_task(cell):
            add = gradebook.update_or_create_grade_cell if is_grade(cell) else gradebook.update_or_create_task_cell
            add(role.grade_id, name, name, max_score=float(role.points), cell_type=cell.cell_type)
        if is_solution(cell):
            gradebook.update_or_create_solution_cell(role.grade_id, name, name)
        source = {"cell_type": cell.cell_type, "locked": is_locked(cell), "source": cell.source}
        gradebook.update_or_create_source_cell(role.grade_id, name, name, checksum=role.get("checksum"), **source)


def _cells(release: Release) -> list[NotebookNode]:
    return [c for c in release.notebook.cells if is_grade(c) or is_solution(c) or is_locked(c) or is_task(c)]


def _same_cells(release: Release, gradebook: Gradebook) -> None:
    try:
        known = gradebook.find_notebook(release.name, release.name)
    except MissingEntry:
        return
    now = {cell.metadata.nbgrader.grade_id for cell in _cells(release)}
    if known.submissions and (other := now ^ {cell.name for cell in known.source_cells}):
        raise ReleaseError(
            f"the gradebook holds submissions to another version of {release.name}, which differs in the cells "
            f"{', '.join(sorted(other))}: grade into another folder"
        )


def enter(release: Release, gradebook: Gradebook, entries: Mapping[str, Entry], config: Config) -> None:
    """Write scores, comments and late penalties of these students. What a human graded or wrote stays."""
    assignment = gradebook.find_assignment(release.name)
    notebook = gradebook.find_notebook(release.name, release.name)
    cells = {cell.id: cell.name for cell in notebook.grade_cells + notebook.solution_cells + notebook.task_cells}
    submitted = _submitted(gradebook, assignment.id, notebook, entries)
    mine = {of.id: student for student, (_, of) in submitted.items()}
    for grade in _of(gradebook, Grade, notebook.id):
        if grade.notebook_id in mine:
            score(grade, entries[mine[grade.notebook_id]].scores[cells[grade.cell_id]])
    for comment in _of(gradebook, Comment, notebook.id):
        if comment.notebook_id in mine:
            comment.auto_comment = entries[mine[comment.notebook_id]].comments[cells[comment.cell_id]]
    gradebook.db.flush()
    penalise(gradebook, submitted.values(), config)


def _submitted(
    gradebook: Gradebook, assignment: str, notebook: Any, entries: Mapping[str, Entry]
) -> dict[str, tuple[SubmittedAssignment, SubmittedNotebook]]:
    """Student -> what the gradebook keeps of the submission; where it has none yet, with a grade for each cell."""
    db = gradebook.db
    students = {id for (id,) in db.query(Student.id)}
    rows = db.query(SubmittedAssignment, SubmittedNotebook).join(
        SubmittedNotebook, SubmittedNotebook.assignment_id == SubmittedAssignment.id
    )
    known = {row[0].student_id: tuple(row) for row in rows.filter(SubmittedAssignment.assignment_id == assignment)}
    db.add_all(Student(id=student) for student in entries if student not in students)
    for student in entries:
        if student not in known:
            known[student] = _mirror(gradebook, assignment, notebook, student)
        if when := entries[student].when:
            known[student][0].timestamp = when
    db.flush()
    return {student: known[student] for student in entries}


def _mirror(
    gradebook: Gradebook, assignment: str, notebook: Any, student: str
) -> tuple[SubmittedAssignment, SubmittedNotebook]:
    """A new submission, as `Gradebook.add_submission` makes it, without its questions to the database."""
    submission = SubmittedAssignment(id=new_uuid(), assignment_id=assignment, student_id=student)
    of = SubmittedNotebook(id=new_uuid(), assignment_id=submission.id, notebook_id=notebook.id)
    rows: list[Any] = [Grade(cell_id=c.id, notebook_id=of.id) for c in notebook.grade_cells + notebook.task_cells]
    rows += [Comment(cell_id=c.id, notebook_id=of.id) for c in notebook.solution_cells + notebook.task_cells]
    gradebook.db.add_all([submission, of, *rows])
    return submission, of


def _of(gradebook: Gradebook, kind: Any, notebook: str) -> Iterable[Any]:
    """All grades, or all comments, of a notebook's submissions."""
    rows = gradebook.db.query(kind).join(SubmittedNotebook, SubmittedNotebook.id == kind.notebook_id)
    return rows.filter(SubmittedNotebook.notebook_id == notebook)


def score(grade: Grade, earned: float | None) -> None:
    """Set the score; one that a human gave stays, and is to be looked at again."""
    grade.auto_score = earned
    grade.needs_manual_grade = grade.manual_score is not None or earned is None


def penalise(
    gradebook: Gradebook, submitted: Iterable[tuple[SubmittedAssignment, SubmittedNotebook]], config: Config
) -> None:
    """Set the penalty of those that are late, by the plugin that nbgrader's configuration names."""
    rule = AssignLatePenalties(config=config)
    rule.init_plugin()
    for submission, of in submitted:
        of.late_submission_penalty = None
        if (late := submission.total_seconds_late) > 0:
            penalty = rule.plugin_inst.late_submission_penalty(submission.student_id, of.score, late)
            if penalty is not None:
                of.late_submission_penalty = rule._check_late_penalty(of, penalty)
    gradebook.db.flush()
