"""Verdicts -> nbgrader: its gradebook, its autograded notebooks, its feedback pages. Stock nbgrader stays the face.

Two parts are exchanged, both named in `nbgrader_config.py`: the exporter that opens a submitted file (ours rebuilds it
from the release), and the preprocessor that executes it (ours judges, and alone writes what nbgrader reads as a score).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import nbformat
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import parse_utc
from traitlets import Bool, Unicode
from traitlets.config import Config, PyFileConfigLoader

from graders import selftest
from graders.collect import rematch
from graders.grade import grade
from graders.gradebook import Entry, at_peace, enter, entry, register, transaction
from graders.nbgrader_config import configure
from graders.pages import at_home
from graders.rebuild import Submission, rebuild, rebuilt_notebook
from graders.release import Release, load
from graders.written import inert
from tinytrans.files import write_whole

TIMESTAMP = "timestamp.txt"
OWN = "nbgrader_config.py"  # a course's own settings, below the course root: late penalties, for one


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
        self.places = rematch(self.converter)
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
                    register(load(path), gradebook)

    def from_filename(self, filename: str, resources: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        """nbgrader asks twice: for the submitted file, then for the sanitized one, which the release gives again."""
        about = resources["nbgrader"]
        folder, name = os.path.split(filename)
        filename = os.path.join(self.places.get(folder, folder), name)
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


def moments(assignment: str, files: Mapping[str, Path]) -> dict[str, datetime]:
    """When each submission came in, as far as a timestamp.txt beside ID/NAME/NAME.ipynb tells."""
    folders = {s: path.parent for s, path in files.items() if path.parent.name == path.stem == assignment}
    return {student: when for student, folder in folders.items() if (when := timestamp(folder))}


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


def configuration(root: Path, out: Path) -> Config:
    """nbgrader's configuration for a run that writes below `out`, with what the course's nbgrader_config.py adds."""
    config = configure(Config())
    if (root / OWN).is_file():
        config.merge(PyFileConfigLoader(OWN, path=str(root)).load_config())
    config.CourseDirectory.root = str(out)
    config.CourseDirectory.db_url = f"sqlite:///{out / 'gradebook.db'}"
    config.BaseConverter.force = True
    return config


def post(
    release: Release, submissions: Mapping[str, Submission], verdicts: Mapping[str, Mapping[str, Any]], *,
    root: Path, out: Path, when: Mapping[str, datetime] = MappingProxyType({}), feedback: bool = False,
) -> None:  # fmt: skip
    """Write out/autograded/, then out/gradebook.db all at once, and out/feedback/ if wanted. `when` they came in."""
    config = configuration(root, out)
    entries: dict[str, Entry] = {}
    for student, submission in submissions.items():
        notebook = rebuilt_notebook(release, shown(release, submission.sources))
        write_outputs(notebook, release, verdicts[student])
        keep(out / "autograded" / student / release.name, release.name, notebook, when.get(student))
        entries[student] = entry(notebook, when.get(student))
    with transaction(out / "gradebook.db", config.CourseDirectory.course_id) as gradebook:
        register(release, gradebook)
        enter(release, gradebook, entries, config)
    if feedback and entries:
        write_feedback(release.name, root=root, out=out)


def keep(folder: Path, name: str, notebook: NotebookNode, when: datetime | None) -> None:
    """Write an autograded notebook as nbgrader does: read-only, and nothing beside it but the moment it came in."""
    files = {f"{name}.ipynb": nbformat.writes(notebook).rstrip("\n") + "\n"}
    if when:
        files[TIMESTAMP] = str(when)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        elif old.name not in files:
            old.unlink()
    for file, text in files.items():
        write_whole(folder / file, text)
        (folder / file).chmod(0o444)


def write_feedback(assignment: str, *, root: Path, out: Path) -> None:
    """The pages out/feedback/ID/NAME/NAME.html from out/autograded/ and the gradebook."""
    config = configuration(root, out)
    with at_peace():
        GenerateFeedback(coursedir=CourseDirectory(config=config, assignment_id=assignment), config=config).start()
