"""A whole class with broken and hostile files among it: a verdict for everyone, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.grading import LESSON, graded, leftovers, run, write_class
from boxes import needs_box

from graders.release import load
from graders.signing import genuine, key
from solutions import build


@needs_box
@pytest.mark.slow
def test_a_class(tmp_path: Path) -> None:
    """Killed in the middle and started again: everybody has one signed verdict, the honest keep their points.

    No process, no temporary file and no mount is left, neither by the run that was killed nor by the one after it.
    """
    nothing = {"processes": [], "files": [], "mounts": []}
    mounts = Path("/proc/mounts").read_text()
    points = load(build.ROOT / "course" / LESSON / f"{LESSON}.ipynb").points
    kinds = write_class(tmp_path / "in", 20)
    killed = run(tmp_path, 2, kill_after=5)
    assert killed.returncode == -9
    assert 5 <= len(graded(tmp_path)) < 20
    assert leftovers(tmp_path, killed, mounts) == nothing
    ran = run(tmp_path, 2)
    assert ran.returncode == 0, (tmp_path / "log").read_text()
    assert leftovers(tmp_path, ran, mounts) == nothing
    assert sorted(graded(tmp_path)) == sorted(kinds)
    verdicts = json.loads((tmp_path / "out" / "verdicts.json").read_text())["students"]
    secret = key(tmp_path / "key")
    assert all(genuine(v, student, LESSON, secret) for student, v in verdicts.items())
    scores = {student: verdict["score"] for student, verdict in verdicts.items()}
    assert [scores[s] for s, kind in kinds.items() if kind != "honest"] == [0, 0]
    assert min(scores[s] for s, kind in kinds.items() if kind == "honest") > 0.3 * points
