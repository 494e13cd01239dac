"""Source notebooks -> the learners' notebooks, made by nbgrader's own generate_assignment, and checked for leaks."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters.exporter import ResourcesDict
from nbconvert.preprocessors import TagRemovePreprocessor
from nbformat import NotebookNode
from nbgrader.apps import NbGraderAPI
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearSolutions
from traitlets.config import Config

from solutions.paste import BEGIN, LessonError, code_lines, solutions

SHORT = 5  # a line of fewer tokens, such as `return x`, gives nothing away


class ClearAnswers(ClearSolutions):
    """nbgrader's ClearSolutions; a cell may say what is left of it: `why_values = None`, which `check` understands."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: ResourcesDict, cell_index: int
    ) -> tuple[NotebookNode, ResourcesDict]:
        """The cell without its solution."""
        if "stub" not in cell.metadata.get("tinytrans", {}):
            return super().preprocess_cell(cell, resources, cell_index)
        cell.source = cell.metadata.pop("tinytrans").stub
        return cell, resources


def config(root: Path) -> Config:
    """nbgrader's settings for a course in the folder `root`: source/ -> release/, without the instructor's cells."""
    c = Config()
    c.CourseDirectory.root = str(root)
    usual = GenerateAssignment(coursedir=CourseDirectory(config=c)).preprocessors
    ours = [ClearAnswers if step is ClearSolutions else step for step in usual]
    c.GenerateAssignment.preprocessors = [TagRemovePreprocessor, *ours]
    c.GenerateAssignment.no_database = (
        True  # as `nbgrader generate_assignment --no-db`: a build leaves no gradebook behind
    )
    c.SaveCells.enabled = False
    c.TagRemovePreprocessor.enabled = True
    c.TagRemovePreprocessor.remove_cell_tags = {"instructor"}
    return c


def release(sources: Mapping[str, NotebookNode]) -> Iterator[tuple[str, NotebookNode]]:
    """Source notebooks by name -> (name, the notebook that learners get), made in a throw-away course.

    Raises LessonError where nbgrader refuses a notebook, or where a solution is left in one.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings = config(root)
        api = NbGraderAPI(CourseDirectory(config=settings), config=settings)
        for name, notebook in sources.items():
            place = root / "source" / name / f"{name}.ipynb"
            place.parent.mkdir(parents=True)
            nbformat.write(notebook, place)
            result = api.generate_assignment(name)
            if not result["success"]:
                raise LessonError(f"{name}: nbgrader refused it:\n{result.get('log', '')}{result['error']}")
            made = nbformat.read(root / "release" / name / f"{name}.ipynb", as_version=4)
            if found := leaks(notebook, made):
                raise LessonError(f"{name}: {len(found)} secrets would be in the release, the first is `{found[0]}`")
            yield name, made


def leaks(source: NotebookNode, released: NotebookNode) -> list[str]:
    """What a release must not hold, and does: a line of a solution, an answer, a note of the instructor's, a marker.

    Looked for without regard to spaces in every text of the notebook: cells, metadata, outputs, attachments.
    """
    everything = "\0".join(squeezed(text) for text in texts(released))
    return [secret for secret in secrets(source) if squeezed(secret) in everything]


def secrets(source: NotebookNode) -> Iterator[str]:
    """Solution lines of five tokens or more, the answers to questions, the instructor's notes, the marker."""
    yield BEGIN
    for cell in source.cells:
        if "instructor" in cell.metadata.get("tags", []) and cell.source.strip():
            yield cell.source
        shortest = 1 if "stub" in cell.metadata.get("tinytrans", {}) else SHORT
        for solution in solutions(cell.source) if cell.cell_type == "code" else []:
            yield from (" ".join(tokens) for tokens in code_lines(solution) if len(tokens) >= shortest)


def squeezed(text: str) -> str:
    """A text without its spaces and line ends."""
    return "".join(text.split())


def texts(value: Any) -> Iterator[str]:
    """Every string inside a notebook, keys included; what is base64 also as what it stands for."""
    if isinstance(value, str):
        yield value
        try:
            yield base64.b64decode(value, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(key)
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
