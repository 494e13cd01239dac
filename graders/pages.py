"""An autograded notebook -> its page of feedback: nbgrader's own, whose list at the top names the exercises.

A class has most of its cells in common: each is rendered once, and the gradebook is asked once.
"""

from __future__ import annotations

import html
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from bs4 import BeautifulSoup
from jinja2 import Environment
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from nbgrader.api import BaseCell, Comment, Grade, Gradebook, SubmittedAssignment, SubmittedNotebook
from nbgrader.preprocessors import GetGrades
from nbgrader.utils import is_grade, is_solution, is_task
from traitlets import Unicode

from graders.collect import rematch

ENTRY = re.compile(r'(<li><a href="#([\w-]+)">)Test cell(</a> \(Score: ([\d.]+) / ([\d.]+)\))')
SEED = re.compile(r"\[seed (\d+)\]")
PLACE = re.compile(r"<!--cell (\d+)-->")
TEMPLATE = "{% extends 'index.html.j2' %}{% block any_cell scoped %}{{ place(cell, super) }}{% endblock %}"


class FeedbackExporter(HTMLExporter):
    """nbgrader's page, with ✓ or ✗ and the exercise's name where it says "Test cell"."""

    raw_template = Unicode(TEMPLATE, help="nbgrader's template; what it makes of a cell is kept").tag(
        affects_environment=True
    )

    def __init__(self, **kwargs: Any) -> None:
        self._rendered: dict[str, str] = {}
        self._places: list[str] = []
        super().__init__(**kwargs)
        if hasattr(self.parent, "assignments"):  # nbgrader's GenerateFeedback
            rematch(self.parent)

    def _create_environment(self) -> Environment:
        environment = super()._create_environment()
        environment.globals["place"] = self._place
        return environment

    def _place(self, cell: NotebookNode, render: Callable[[], str]) -> str:
        """A mark where the cell will stand; a cell as it was seen before is not rendered again."""
        key = json.dumps(cell, sort_keys=True)
        if key not in self._rendered:
            self._rendered[key] = with_alternatives(render())
        self._places.append(self._rendered[key])
        return f"<!--cell {len(self._places) - 1}-->"

    def _preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """The preprocessors one after the other, without a copy and a validation around each: the notebook is ours."""
        for preprocessor in self._preprocessors:
            nb, resources = preprocessor(nb, resources)
        return nb, resources

    def from_notebook_node(self, nb: NotebookNode, resources: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        """The page and its resources. The marks are filled last, all at once: no cell's text is taken for one."""
        self._places.clear()
        page, resources = super().from_notebook_node(nb, resources, **kwargs)
        page = PLACE.sub(lambda mark: self._places[int(mark[1])], named(page, titles(nb)))
        return page, resources


def with_alternatives(fragment: str) -> str:
    """The HTML of a cell, in which every picture has an alternative text, as nbconvert does it with whole pages.

    >>> with_alternatives('<p><img src="x.png"></p>')
    '<p><img alt="No description has been provided for this image" src="x.png"/></p>'
    """
    if "<img" not in fragment:
        return fragment
    soup = BeautifulSoup(fragment, features="html.parser")
    for picture in soup.select("img:not([alt])"):
        picture.attrs["alt"] = "No description has been provided for this image"
    return str(soup)


class Grades(GetGrades):
    """In the place of nbgrader's: scores and comments -> the notebook; one question to the gradebook for a class."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._all: dict[str, _Of] = {}

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Write score, points and comment into the cells' metadata, and the sums into the resources."""
        about = resources["nbgrader"]
        if not self._all:
            with Gradebook(about["db_url"], "") as gradebook:  # "": no course is added to it
                self._all = _of_class(gradebook, about["assignment"], about["notebook"])
        of = self._all[about["student"]]
        for cell in nb.cells:
            if is_solution(cell) or is_task(cell):
                cell.metadata.nbgrader["comment"] = of.comments[cell.metadata.nbgrader.grade_id]
            if is_grade(cell) or is_task(cell):
                score, points = of.scores[cell.metadata.nbgrader.grade_id]
                cell.metadata.nbgrader |= {"score": score, "points": points}
        late = of.late or 0
        total, most = (sum(numbers) for numbers in zip(*of.scores.values(), strict=True))
        about |= {"score": total - late, "max_score": most, "late_penalty": late}
        return nb, resources


class _Of:
    """What the gradebook holds of one submission, by grade_id."""

    def __init__(self) -> None:
        self.scores: dict[str, tuple[float, float]] = {}
        self.comments: dict[str, str | None] = {}
        self.late: float | None = None


def _of_class(gradebook: Gradebook, assignment: str, notebook: str) -> dict[str, _Of]:
    """Student -> what the gradebook holds of a notebook."""
    found: dict[str, _Of] = defaultdict(_Of)
    source = gradebook.find_notebook(notebook, assignment)
    most = {cell.name: cell.max_score for cell in source.grade_cells + source.task_cells}

    def rows(kind: Any, *columns: Any) -> Any:
        chosen = gradebook.db.query(SubmittedAssignment.student_id, BaseCell.name, *columns)
        chosen = chosen.select_from(kind).join(BaseCell, BaseCell.id == kind.cell_id)
        chosen = chosen.join(SubmittedNotebook, SubmittedNotebook.id == kind.notebook_id)
        chosen = chosen.join(SubmittedAssignment, SubmittedAssignment.id == SubmittedNotebook.assignment_id)
        return chosen.filter(SubmittedNotebook.notebook_id == source.id)

    for student, name, score, late in rows(Grade, Grade.score, SubmittedNotebook.late_submission_penalty):
        found[student].scores[name], found[student].late = (score, most[name]), late
    for student, name, comment in rows(Comment, Comment.comment):
        found[student].comments[name] = comment
    return found


def titles(notebook: NotebookNode) -> dict[str, str]:
    """The grade_id of each test cell -> the name of its exercise."""
    cells = [cell.metadata for cell in notebook.cells if "tinytrans" in cell.metadata and "nbgrader" in cell.metadata]
    return {cell.nbgrader.grade_id: str(cell.tinytrans.get("exercise")).rpartition(".")[2] for cell in cells}


def named(page: str, names: Mapping[str, str]) -> str:
    """The page with marks and names in its list. A learner's own text holds no tag, so that no such entry is theirs.

    >>> named('<li><a href="#check_f">Test cell</a> (Score: 2.0 / 2.0)</li>', {"check_f": "f"})
    '<li><a href="#check_f">✓ f</a> (Score: 2.0 / 2.0)</li>'
    """

    def entry(found: re.Match[str]) -> str:
        mark = "✓" if float(found[4]) >= float(found[5]) else "✗"
        return f"{found[1]}{mark} {html.escape(names.get(found[2], 'Test cell'))}{found[3]}"

    return ENTRY.sub(entry, page)


def at_home(source: str, report: str) -> str:
    """The line with which a learner sees the same inputs: the test cell's call with the report's seed, if any."""
    seed = SEED.search(report)
    call = source.strip()
    if seed is None or not call.endswith(")"):
        return ""
    return f"\n  to see it at home: {call[:-1]}, seed={seed[1]})"
