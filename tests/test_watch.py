"""What is watched: all processes of a submission, by either way of finding them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_course import NAME, submit

from graders import watch
from graders.grade import grade_submission
from graders.release import load
from graders.sandbox import LIMITS, Sandbox, Times
from graders.watch import below, delayed, listed


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


def spun(code: str, cpu: int, n: int) -> float:
    """The most seconds without a processor of n processes that share one and run this code for a second each."""
    command = [sys.executable, "-c", f"import os, time\nos.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\n{code}"]
    family = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(n)]
    for process in family:
        process.stdout.readline()  # type: ignore[union-attr]
    before = delayed([process.pid for process in family])
    time.sleep(1)
    waited = delayed([process.pid for process in family]) - before
    for process in family:
        process.kill()
        process.communicate()
    return waited


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count it")
def test_who_sleeps_waits_for_no_processor() -> None:
    """Three processes that spin on one processor wait for it two seconds of three; sleeping ones hardly ever."""
    cpu = min(os.sched_getaffinity(0))
    assert spun("while True: pass", cpu, 3) > 1
    assert spun("time.sleep(60)", cpu, 3) < 0.2


@pytest.mark.parametrize(
    ("cpu", "waited", "starved"),
    [(1, 4, True), (1, 0.1, False), (6, 4, False), (1, math.nan, True), (6, math.nan, False)],
)
def test_starved(cpu: float, waited: float, starved: bool) -> None:
    """Of ten seconds, the machine took most where the code had little of them and was ready to run for long."""
    assert Times(3 + cpu, 2 + waited).starved(Times(3, 2), 10) is starved


def test_where_nobody_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a kernel that tells of no waiting, having had little of the processor counts as having waited for it."""
    monkeypatch.setattr(watch, "delayed", lambda _: math.inf)
    with Sandbox("none") as box:
        before = box.times()
        assert box.times().starved(before, 1e6)
        assert not box.times().starved(before, 0)


def test_who_sleeps_is_not_tried_again(tiny: Path, tmp_path: Path) -> None:
    """A function that sleeps costs its submission time and points, and no one else a second trial of it."""
    sleeps = {name: f"import time\ndef {name}(x):\n    time.sleep(60)" for name in ("double", "total")}
    release = load(tiny / "course" / NAME / f"{NAME}.ipynb")
    limits = replace(LIMITS, call=1.0)
    verdict = grade_submission(
        release, submit(tiny, tmp_path / "a.ipynb", sleeps), lambda: Sandbox("none", limits=limits)
    )
    assert "no result after 1 seconds" in verdict.exercises["double"].outcome.message
    assert not verdict.starved
