"""What is watched: all processes of a submission, by either way of finding them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from graders import watch
from graders.watch import below, listed


def test_the_kernels_lists_hold_all_descendants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick way finds what a walk over every process finds, children of children too; nothing where none is."""
    family = subprocess.Popen(["sh", "-c", "sleep 60 & (sleep 60 & sleep 60; true) & wait"], start_new_session=True)
    try:
        until = time.monotonic() + 20
        while len(below(family.pid)) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        assert sorted(listed(family.pid)) == sorted(below(family.pid))
        assert len(listed(family.pid)) == 4
        monkeypatch.setattr(watch.os.path, "exists", lambda path: path != "/proc/thread-self/children")
        monkeypatch.setattr(watch.Path, "read_text", lambda _: Path("/nowhere").read_bytes().decode())
        assert sorted(listed(family.pid)) == sorted(below(family.pid))  # of a kernel without such lists
    finally:
        monkeypatch.undo()
        subprocess.run(["kill", "--", f"-{family.pid}"], check=False)
        family.wait()
    assert listed(family.pid) == []
