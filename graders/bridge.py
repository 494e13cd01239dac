"""Verdicts -> nbgrader: its gradebook, its autograded notebooks, its feedback pages. Stock nbgrader stays the face.

Two parts are exchanged, both named in `nbgrader_config.py`: the exporter that opens a submitted file (ours rebuilds it
from the release), and the preprocessor that executes it (ours judges, and alone writes what nbgrader reads as a score).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import nbformat
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import Autograde, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import NbGraderPreprocessor, SaveCells
from nbgrader.utils import parse_utc
from sqlalchemy.exc import SAWarning
from traitlets import Bool, Unicode
from traitlets.config import Config

from graders import selftest
from graders.grade import grade
from graders.nbgrader_config import configure
from graders.pages import at_home
from graders.rebuild import Submission, rebuild, rebuilt_notebook
from graders.release import Release, load
from graders.written import inert

TIMESTAMP = "timestamp.txt"


class SubmissionExporter(NotebookExporter):
    """Opens a submitted file as the release's notebook with the learner's sources, whatever the file holds."""

    verdicts = Unicode("", help="a verdicts.json to post; without it every submission is judged").tag(config=True)
    accept_weaker = Bool(False, help="take Landlock without namespaces where nothing else can be had").tag(config=True)
    trust = Bool(False, help="run submitted code WITHOUT isolation: only for code that is trusted").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.converter = cast(Any, self.parent)  # nbgrader's Autograde
        self.coursedir: CourseDirectory = self.converter.coursedir
        self.posted: dict[str, Any] = json.loads(Path(self.verdicts).read_text())["students"] if self.verdicts else {}
        self.release: Release | None = None
        self.submission = Submission()
        self.coursedir.ignore = ["*"]  # nbgrader would copy what lies beside the notebook, and follow links doing so
        self.coursedir.get_existing_timestamp = timestamp  # nbgrader's own ends the run at one that is no date
        self._register()

    def _release_path(self, assignment: str, notebook: str) -> Path:
        folder = self.coursedir.format_path(self.coursedir.release_directory, ".", assignment)
        return Path(folder) / f"{notebook}.ipynb"

    def _register(self) -> None:
        """Take the assignment into the gradebook where it is not there yet."""
        assignment = self.coursedir.assignment_id
        with Gradebook(self.coursedir.db_url, self.coursedir.course_id) as gradebook:
            try:
                gradebook.find_notebook(assignment, assignment)
            except MissingEntry:
                if (path := self._release_path(assignment, assignment)).is_file():
                    register(nbformat.read(path, as_version=4), assignment, gradebook, self.coursedir.db_url)

    def from_filename(self, filename: str, resources: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        """nbgrader asks twice: for the submitted file, then for the sanitized one, which the release gives again."""
        about = resources["nbgrader"]
        if self.converter._sanitizing:
            self.release = load(self._release_path(about["assignment"], about["notebook"]))
            self.submission = rebuild(self.release, Path(filename))
        assert self.release is not None
        resources = {**resources, "metadata": {"name": about["notebook"], "path": ""}}
        if when := timestamp(Path(filename).parent):
            resources["outputs"] = {TIMESTAMP: str(when).encode()}  # so that a later submission is seen to be newer
        notebook = rebuilt_notebook(self.release, shown(self.release, self.submission.sources))
        return self.from_notebook_node(notebook, resources=resources, **kwargs)

    def verdict(self, student: str) -> dict[str, Any]:
        """The student's verdict with its details: the posted one, or a fresh one."""
        if self.verdicts:
            return self.posted[student]
        assert self.release is not None
        root, hidden = self.coursedir.root, [Path(self.coursedir.root)]
        level = "none" if self.trust else selftest.strongest(root, hidden, weaker=self.accept_weaker)[0]
        return grade(self.release, self.submission, selftest.opened(level, root, hidden)).as_dict(details=True)


def shown(release: Release, sources: Mapping[str, str]) -> dict[str, str]:
    """The sources as pages may render them: answers in words, which are markdown, with nothing in them that runs."""
    words = {name for name, written in release.written.items() if sources.get(name, written.stub) != written.stub}
    return {name: inert(source) if name in words else source for name, source in sources.items()}


def timestamp(folder: str | Path) -> datetime | None:
    """The moment that a submission's timestamp.txt names; None where there is none, or it is no such file."""
    try:
        fd = os.open(Path(folder) / TIMESTAMP, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found: datetime = parse_utc(os.read(fd, 100).decode())
        return found
    except (ValueError, OverflowError, OSError):
        return None
    finally:
        os.close(fd)


class JudgeCells(NbGraderPreprocessor):
    """In the place of nbgrader's `Execute`: writes the verdict as outputs of the test cells, and executes nothing."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Write the outputs of every code cell."""
        verdict = self.parent.verdict(resources["nbgrader"]["student"])
        write_outputs(nb, self.parent.release, verdict)
        return nb, resources


def write_outputs(notebook: NotebookNode, release: Release, verdict: Mapping[str, Any]) -> None:
    """Each test cell gets its report and, as its result, its score; an answer cell what it printed; else nothing."""
    names = {item.grade_id: item.name for item in release.items}
    notes = list(verdict["notes"])
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.outputs = []
        if grade_id in names:
            graded = verdict["exercises"][names[grade_id]]
            again = "" if graded["score"] == graded["max"] else at_home(cell.source, _all_of(graded))
            text = graded["report"] + again + "".join(f"\n  note: {note}" for note in notes)
            cell.outputs = [
                new_output("stream", name="stdout", text=text + "\n"),
                new_output("execute_result", data={"text/plain": repr(float(graded["score"]))}, execution_count=None),
            ]
            notes = []  # they concern the whole file: said once, at the first exercise
        elif printed := verdict["exercises"].get(grade_id, {}).get("printed"):
            cell.outputs = [new_output("stream", name="stdout", text=printed)]


def _all_of(graded: Mapping[str, Any]) -> str:
    return "\n".join([graded["report"], *(part["message"] for part in graded["parts"])])


def register(notebook: NotebookNode, assignment: str, gradebook: Gradebook, db_url: str) -> None:
    """Take an assignment and its cells into the gradebook, as `nbgrader generate_assignment` does."""
    gradebook.update_or_create_assignment(assignment)
    resources = {"nbgrader": {"assignment": assignment, "notebook": assignment, "db_url": db_url}}
    SaveCells().preprocess(notebook, resources)


def configuration(root: Path, out: Path, submitted: Path) -> Config:
    """nbgrader's configuration for a run that writes below `out`; nbgrader_config.py holds what both ways share."""
    config = configure(Config())
    config.CourseDirectory.root = str(out)
    config.CourseDirectory.db_url = f"sqlite:///{out / 'gradebook.db'}"
    config.CourseDirectory.release_directory = str(root / "course")
    config.CourseDirectory.submitted_directory = str(submitted)
    config.SubmissionExporter.verdicts = str(out / "verdicts.json")
    config.BaseConverter.force = True
    return config


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


def post(release: Release, submissions: Mapping[str, Submission], *, root: Path, out: Path, feedback: bool) -> None:
    """Post the verdicts of out/verdicts.json: to out/gradebook.db, out/autograded/, and out/feedback/ if wanted."""
    if not submissions:
        return
    with tempfile.TemporaryDirectory(prefix="submitted-") as folder, at_peace():
        for student, submission in submissions.items():
            place = Path(folder) / student / release.name
            place.mkdir(parents=True)
            nbformat.write(rebuilt_notebook(release, submission.sources), place / f"{release.name}.ipynb")
        config = configuration(root, out, Path(folder))
        Autograde(coursedir=CourseDirectory(config=config, assignment_id=release.name), config=config).start()
    if feedback:
        write_feedback(release.name, root=root, out=out)


def write_feedback(assignment: str, *, root: Path, out: Path) -> None:
    """The pages out/feedback/ID/NAME/NAME.html from out/autograded/ and the gradebook."""
    config = configuration(root, out, out / "submitted")
    with at_peace():
        GenerateFeedback(coursedir=CourseDirectory(config=config, assignment_id=assignment), config=config).start()
