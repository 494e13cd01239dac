"""The gradebook in one transaction: the rows, notebooks and pages that nbgrader itself would write, or none of them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import warnings
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from nbgrader.api import Gradebook
from nbgrader.preprocessors import GetGrades
from tiny_course import NAME, RIGHT, STUBS, cell_of, nbgrader, notebook, submit

from graders import bridge, gradebook
from graders.bridge import at_peace
from graders.grade import Graded, Verdict, unjudged
from graders.gradebook import Entry, enter, register, transaction
from graders.judge import Outcome
from graders.rebuild import rebuild
from graders.release import Release, ReleaseError, load

ANSWERS = {
    "ann": RIGHT,
    "bob": RIGHT | {"double": "def double(x):\n    print('<b>mine</b>')\n    return x * x", "why": "why = 'c'"},
    "dan": RIGHT | {"total": STUBS["total"], "why": STUBS["why"]},
    "eve": {},
    "fay": RIGHT,
}
LOST = {
    "ann": {},
    "bob": {"double": 1, "why": 1},
    "dan": {"total": 2, "why": 1},
    "eve": dict.fromkeys(STUBS, 9),
    "fay": {},
}
WHEN = {"ann": "2026-02-28 12:00:00", "fay": "2026-03-02 12:00:00"}
DUE = datetime(2026, 3, 1)
PENALTY = "c = get_config()\nc.LateSubmissionPlugin.penalty_method = 'zero'\n"


@pytest.fixture(scope="module")
def release(tiny: Path) -> Release:
    """The tiny lesson."""
    return load(tiny / "course" / NAME / f"{NAME}.ipynb")


@pytest.fixture(scope="module")
def handed_in(tiny: Path) -> dict[str, Path]:
    """A class with right, wrong, empty, broken and late submissions, in a course that penalises the late ones."""
    (tiny / "nbgrader_config.py").write_text(PENALTY)
    files = {}
    for student, answers in ANSWERS.items():
        files[student] = submit(tiny, tiny / "submitted" / student / NAME / f"{NAME}.ipynb")
        files[student].write_text(json.dumps(notebook(tiny, answers)))
        if student in WHEN:
            (files[student].parent / "timestamp.txt").write_text(f"{WHEN[student]} UTC")
    files["eve"].write_bytes(b"{")
    return files


@pytest.fixture(scope="module")
def verdicts(release: Release) -> dict[str, dict[str, Any]]:
    """What the class earned, as if it had been graded."""
    found = {}
    for student in ANSWERS:
        lost, outcomes = LOST.get(student, {}), {}
        for item in release.items:
            points = item.exercise.points
            earned = max(0, points - lost.get(item.name, 0))
            said = "everything asked for holds" if earned == points else "not <i>quite</i>: [seed 7]"
            outcomes[item.name] = Graded(Outcome(item.name, earned, points, (), None, said), "printed <b>\n")
        found[student] = Verdict("none", (7, 8), outcomes, (f"a note on {student}",)).as_dict(details=True)
    return found


def human(database: Path) -> None:
    """What people add: a due date, a score, a comment."""
    with Gradebook(f"sqlite:///{database}", "tinytrans") as book:
        book.update_or_create_assignment(NAME, duedate=DUE)
        book.find_grade("check_double", NAME, NAME, "bob").manual_score = 1.5
        book.find_comment("double", NAME, NAME, "bob").manual_comment = "see *me*"
        book.db.commit()


@pytest.fixture(scope="module")
def ours(release: Release, tiny: Path, handed_in: Any, verdicts: Any, tmp_path_factory: Any) -> Path:
    """A folder that was graded into twice by us, with a human in between."""
    out = tmp_path_factory.mktemp("ours")
    submissions = {student: rebuild(release, file) for student, file in handed_in.items()}
    when = bridge.moments(NAME, handed_in)
    bridge.post(release, submissions, verdicts, root=tiny, out=out, when=when)
    human(out / "gradebook.db")
    bridge.post(release, submissions, verdicts, root=tiny, out=out, when=when, feedback=True)
    return out


@pytest.fixture(scope="module")
def stock(tiny: Path, handed_in: Any, verdicts: Any) -> Path:
    """The course root, where nbgrader's own autograde posted the same verdicts, twice, with a human in between."""
    posted = tiny / "verdicts.json"
    posted.write_text(json.dumps({"students": verdicts}))
    with pytest.MonkeyPatch.context() as patch:
        nbgrader(tiny, patch, "autograde", NAME, f"--SubmissionExporter.verdicts={posted}")
        human(tiny / "gradebook.db")
        nbgrader(tiny, patch, "autograde", NAME, f"--SubmissionExporter.verdicts={posted}", "--force")
    return tiny


def tables(database: Path) -> dict[str, list[str]]:
    """Every row of every table; in the place of random ids stand the names of what they are about."""
    with sqlite3.connect(database) as db:
        db.row_factory = sqlite3.Row
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: [dict(row) for row in db.execute(f"SELECT * FROM {name}")] for name in names}
    called: dict[Any, str] = {}
    for table, column in [("assignment", "name"), ("notebook", "name"), ("base_cell", "name")]:
        called |= {row["id"]: f"{table} {row[column]}" for row in found[table]}
    called |= {row["id"]: f"of {row['student_id']}" for row in found["submitted_assignment"]}
    called |= {row["id"]: f"notebook {called[row['assignment_id']]}" for row in found["submitted_notebook"]}
    for rows in found.values():
        for row in rows:
            if len(str(row.get("id"))) == 32 and row["id"] not in called:
                del row["id"]  # of a grade, a comment or a source cell: nothing speaks of it
    return {t: sorted(str({k: called.get(v, v) for k, v in r.items()}) for r in rows) for t, rows in found.items()}


def test_the_rows_are_those_of_nbgrader(ours: Path, stock: Path) -> None:
    """Every row of the gradebook equals the one that nbgrader's own autograde writes for the same verdicts."""
    mine, theirs = tables(ours / "gradebook.db"), tables(stock / "gradebook.db")
    theirs["course"].remove("{'id': 'default_course'}")  # nbgrader's preprocessors open the gradebook without a course
    assert mine.keys() == theirs.keys()
    for table, rows in theirs.items():
        assert mine[table] == rows, table
    assert len(mine["grade"]) == len(ANSWERS) * 4
    assert any("No response." in row for row in mine["comment"])
    assert any("'late_submission_penalty': 8.0" in row for row in mine["submitted_notebook"])


def test_the_notebooks_are_those_of_nbgrader(ours: Path, stock: Path) -> None:
    """The autograded notebooks and timestamps are the same bytes with the same rights."""
    files = sorted(p.relative_to(stock) for p in (stock / "autograded").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(ours) for p in (ours / "autograded").rglob("*") if p.is_file())
    for file in files:
        assert (ours / file).read_bytes() == (stock / file).read_bytes()
        assert (ours / file).stat().st_mode == (stock / file).stat().st_mode


def test_the_pages_are_those_of_nbgrader(ours: Path, tiny: Path) -> None:
    """A page is the document that nbgrader's own feedback makes, but for the names of the exercises at the top."""
    config = bridge.configuration(tiny, ours)
    config.GenerateFeedback.exporter_class = HTMLExporter
    config.GenerateFeedback.preprocessors = [GetGrades, "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor"]
    config.CourseDirectory.feedback_directory = "theirs"
    course = bridge.CourseDirectory(config=config, assignment_id=NAME)
    with at_peace():
        bridge.GenerateFeedback(coursedir=course, config=config).start()
    pages = sorted((ours / "theirs").rglob("*.html"))
    assert len(pages) == len(ANSWERS)
    for page in pages:
        mine = (ours / "feedback" / page.relative_to(ours / "theirs")).read_text()
        for name in STUBS:
            mine = mine.replace(f"✓ {name}</a>", "Test cell</a>").replace(f"✗ {name}</a>", "Test cell</a>")
        assert BeautifulSoup(mine, "html.parser") == BeautifulSoup(page.read_text(), "html.parser"), page


def test_an_error_leaves_the_gradebook_as_it_was(release: Release, tmp_path: Path) -> None:
    """What is not committed at the end is not there, registered lesson and all."""
    path = tmp_path / "gradebook.db"
    with transaction(path, "tinytrans"):
        pass
    before = tables(path)
    config = bridge.configuration(tmp_path, tmp_path)

    def fail() -> None:
        with transaction(path, "tinytrans") as book:
            register(release, book)
            enter(release, book, {"ann": Entry({}, {})}, config)

    with pytest.raises(KeyError):
        fail()
    assert tables(path) == before


DIES = {
    "make": (gradebook.Gradebook, "check_course"),
    "notebooks": (bridge, "transaction"),
    "register": (bridge, "enter"),
    "enter": (gradebook, "penalise"),
}


@pytest.mark.parametrize("moment", DIES)
def test_killed_in_the_middle(
    tiny: Path, release: Release, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After kill -9 at any moment the gradebook is as it was before, and the next run completes it."""
    path = tmp_path / "gradebook.db"
    if moment != "make":
        with transaction(path, "tinytrans"):
            pass
    before = tables(path) if path.exists() else None
    nothing = Verdict("none", (1, 2), {item.name: unjudged(item, "no") for item in release.items}, ())
    submissions = {f"s{i}": bridge.Submission() for i in range(20)}
    verdicts = dict.fromkeys(submissions, nothing.as_dict(details=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons advise against a fork beside threads
        process = os.fork()
    if process == 0:
        try:
            monkeypatch.setattr(*DIES[moment], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            bridge.post(release, submissions, verdicts, root=tiny, out=tmp_path)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    assert (tables(path) if path.exists() else None) == before
    bridge.post(release, submissions, verdicts, root=tiny, out=tmp_path)
    rows = tables(path)
    assert [len(rows[table]) for table in ("student", "submitted_assignment", "grade")] == [20, 20, 80]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["autograded", "gradebook.db"]


def test_another_version_of_the_lesson(tiny: Path, release: Release, tmp_path: Path) -> None:
    """New points are taken over; a lesson with other cells than those that were submitted to is refused, and named."""
    path = tmp_path / "gradebook.db"
    scores = {item.grade_id: 1.0 for item in release.items}
    entries = {"ann": Entry(scores, dict.fromkeys(STUBS))}
    config = bridge.configuration(tiny, tmp_path)
    with transaction(path, "tinytrans") as book:
        register(release, book)
        enter(release, book, entries, config)
    changed = nbformat.from_dict(release.notebook)
    cell_of(changed, "check_double").metadata.nbgrader.points = 7
    with transaction(path, "tinytrans") as book:
        register(replace(release, notebook=changed), book)
    with Gradebook(f"sqlite:///{path}", "tinytrans") as book:
        assert book.find_submission(NAME, "ann").max_score == release.points + 4
    changed.cells = [c for c in changed.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "check_why"]
    with transaction(path, "tinytrans"), pytest.raises(ReleaseError, match="check_why"):
        register(replace(release, notebook=changed), book)


def test_a_locked_gradebook(release: Release, tmp_path: Path) -> None:
    """Where another program holds the gradebook, that is one sentence, and the gradebook is as it was."""
    path = tmp_path / "gradebook.db"
    with transaction(path, "tinytrans") as book:
        register(release, book)
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    said = r"gradebook.db could not be written and is as it was: .*locked"
    with pytest.raises(OSError, match=said), transaction(path, "tinytrans") as book:
        register(release, book)
    other.rollback()
    with transaction(path, "tinytrans") as book:
        assert book.find_notebook(NAME, NAME).submissions == []
