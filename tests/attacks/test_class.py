"""A whole class with broken and hostile files among it: a verdict for everyone, and nothing left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from benchmarks.grading import LESSON, around, write_class
from boxes import needs_box

from graders.autograde import autograde
from graders.release import load
from graders.signing import genuine, key
from solutions import build


@needs_box
@pytest.mark.slow
def test_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody gets a signed verdict, the honest keep their points, and no mount or file is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # others work in the usual place meanwhile
    before = around()
    release = load(build.ROOT / "course" / LESSON / f"{LESSON}.ipynb")
    with tempfile.TemporaryDirectory(prefix="class-") as place:
        kinds = write_class(Path(place) / "in", 20)
        graded = autograde(
            release, build.ROOT, Path(place) / "in", Path(place) / "out", workers=2, key=Path(place) / "key"
        )
        assert (set(graded.verdicts), graded.errors) == (set(kinds), {})
        secret = key(Path(place) / "key")
        assert all(genuine(v, student, LESSON, secret) for student, v in graded.verdicts.items())
        scores = {student: verdict["score"] for student, verdict in graded.verdicts.items()}
        assert [scores[s] for s, kind in kinds.items() if kind != "honest"] == [0, 0]
        assert min(scores[s] for s, kind in kinds.items() if kind == "honest") > 0.3 * release.points
    after = around()
    assert after["files"] <= before["files"]
    assert after["mounts"] == before["mounts"]
