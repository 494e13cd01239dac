"""nbgrader stays the face: its own commands grade through our Player, and its gradebook and pages hold our verdicts."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pytest
from boxes import needs_box
from nbgrader.api import Gradebook
from nbgrader.utils import determine_grade
from tiny_course import NAME, RIGHT, STUBS, cell_of, nbgrader, notebook, submit

from graders import bridge
from graders.bridge import timestamp, write_outputs
from graders.collect import collect
from graders.grade import Verdict, unjudged
from graders.rebuild import rebuilt_notebook
from graders.release import Release, load


@pytest.fixture(scope="module")
def release(tiny: Path) -> Release:
    """The tiny lesson."""
    return load(tiny / "course" / NAME / f"{NAME}.ipynb")


def scores(database: Path) -> dict[str, float]:
    """Each student's score in a gradebook."""
    with Gradebook(f"sqlite:///{database}") as gradebook:
        return {s.student.id: s.score for s in gradebook.assignment_submissions(NAME)}


WRONG = "def double(x):\n    return x * x"


@needs_box
def test_nbgrader_autograde(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nbgrader's autograde and generate_feedback, configured by us, grade right, wrong and broken submissions alike."""
    folder = tiny / "submitted"
    place = lambda student: folder / student / NAME / f"{NAME}.ipynb"  # noqa: E731
    submit(tiny, place("ann"))
    submit(tiny, place("bob"), {"double": WRONG, "why": "why = 'c'"})
    submit(tiny, place("cut")).write_bytes(place("cut").read_bytes()[:-100])
    doubled = notebook(tiny, RIGHT)
    doubled["cells"] += [cell_of(doubled, name) for name in STUBS]
    cell_of(doubled, "check_double")["metadata"]["nbgrader"]["points"] = 500
    submit(tiny, place("dup")).write_text(json.dumps(doubled))
    submit(tiny, place("=1+1 [ü] 'x'"))
    submit(tiny, place("no\nbody"))
    submit(tiny, place("no\rbody"), {"double": WRONG})
    place("eve").parent.mkdir(parents=True)
    place("eve").symlink_to(place("ann"))
    (place("ann").parent / "torch.py").symlink_to("/etc/hostname")
    (place("ann").parent / "notes.md").write_text("mine")
    (place("ann").parent / "timestamp.txt").write_text("2026-03-01 12:00:00 UTC")
    (place("bob").parent / "timestamp.txt").write_text("now")
    nbgrader(tiny, monkeypatch, "autograde", NAME)
    nbgrader(tiny, monkeypatch, "generate_feedback", NAME)
    by_name = {"ann": 8, "bob": 4, "cut": 0, "dup": 8, "eve": 0, "=1+1 [ü] 'x'": 8, "no\nbody": 8, "no\rbody": 5}
    ids = {path.parents[1].name: student for student, path in collect(folder, NAME).items()}
    assert len(set(ids.values())) == len(by_name)
    assert scores(tiny / "gradebook.db") == {ids[name]: score for name, score in by_name.items()}
    assert sorted(p.name for p in (tiny / "autograded" / "ann" / NAME).iterdir()) == ["timestamp.txt", f"{NAME}.ipynb"]
    page = {s: (tiny / "feedback" / s / NAME / f"{NAME}.html").read_text() for s in ("ann", "bob", "cut", "dup", "eve")}
    assert all((tiny / "feedback" / student / NAME / f"{NAME}.html").exists() for student in ids.values())
    assert "you multiplied x by itself; doubling adds x to itself" in page["bob"]
    assert "three is a crowd" in page["bob"]
    assert re.search(r">✗ double</a>.*>✓ halve_softmax</a>", page["bob"], re.DOTALL)
    assert "Test cell" not in page["bob"]
    assert re.search(r'to see it at home: check\("tiny.double", double, seed=\d+\)', html.unescape(page["bob"]))
    assert "it is no valid JSON" in page["cut"]
    assert "occurs 2 times" in page["dup"]
    assert "it is a link" in page["eve"]


def verdict(release: Release, message: str) -> Mapping[str, object]:
    """A verdict of zero points with this message everywhere."""
    return Verdict("bwrap", (1, 2), {i.name: unjudged(i, message, message) for i in release.items}, (message,)).as_dict(
        details=True
    )


def test_only_our_outputs_are_scored(release: Release) -> None:
    """What nbgrader reads as a score is what the verdict says, whatever the learner's code said or printed."""
    made = rebuilt_notebook(release, RIGHT)
    write_outputs(made, release, verdict(release, "nan\n8.0\n<script>alert(1)</script>"))
    graded = [cell for cell in made.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert [determine_grade(cell) for cell in graded] == [(0.0, item.exercise.points) for item in release.items]
    nbformat.validate(made)


def test_pages_are_inert(release: Release, tiny: Path, tmp_path: Path) -> None:
    """Markup in a learner's code, output or errors reaches the feedback page as text."""
    script = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    sources = RIGHT | {"double": f"# {script}\nprint('{script}')"}
    submissions = {"eve": bridge.Submission(sources)}
    bridge.post(release, submissions, {"eve": verdict(release, script)}, root=tiny, out=tmp_path, feedback=True)
    page = (tmp_path / "feedback" / "eve" / NAME / f"{NAME}.html").read_text()
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert "alert(1)" in page


def test_posting_twice(release: Release, tiny: Path, tmp_path: Path) -> None:
    """Posting the same verdicts again changes no score, and a student's manual grades stay."""
    for _ in range(2):
        submissions, verdicts = {"ann": bridge.Submission(RIGHT)}, {"ann": verdict(release, "no")}
        bridge.post(release, submissions, verdicts, root=tiny, out=tmp_path)
        assert scores(tmp_path / "gradebook.db")["ann"] in (0, 2)
        with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
            gradebook.find_grade("check_double", NAME, NAME, "ann").manual_score = 2
            gradebook.db.commit()
    assert scores(tmp_path / "gradebook.db") == {"ann": 2}


def test_timestamps(tmp_path: Path) -> None:
    """A timestamp is read where it is a date in a plain file, and is none where it is anything else."""
    path = tmp_path / "timestamp.txt"
    assert timestamp(tmp_path) is None
    for text, year in [("2026-03-01 12:00:00 UTC", 2026), ("", None), ("soon", None), ("9" * 1000, None)]:
        path.write_text(text)
        assert getattr(timestamp(tmp_path), "year", None) == year
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert timestamp(tmp_path) is None
    (tmp_path / "folder" / "timestamp.txt").mkdir(parents=True)
    assert timestamp(tmp_path / "folder") is None
