"""Many submissions at once: each is graded exactly once, whatever is killed, late or broken."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_course import NAME, submit

from graders import fleet
from graders.__main__ import main
from graders.autograde import JOURNAL, autograde, progress_bar
from graders.fleet import Job, grade_all, jobs_for, rebuilt, work
from graders.journal import Journal
from graders.release import Release, load


@pytest.fixture(scope="module")
def release(tiny: Path) -> Release:
    """The tiny lesson."""
    return load(tiny / "course" / NAME / f"{NAME}.ipynb")


def job(**changes: Any) -> Job:
    """A job, but for these changes."""
    return Job(**{"course": Path(), "assignment": NAME, "path": Path(), "digest": "", "level": "none"} | changes)


class Here(Executor):
    """Runs each job where it stands, and remembers in which order."""

    def __init__(self) -> None:
        self.ran: list[Job] = []

    def submit(self, function: Any, job: Any, /) -> Future[Any]:  # type: ignore[override]
        self.ran.append(job)
        future: Future[Any] = Future()
        try:
            future.set_result(function(job))
        except Exception as error:
            future.set_exception(error)
        return future


def test_a_timeout_is_tried_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What timed out beside others runs again after all others, and the better of its two verdicts counts."""
    scores = {Path("late"): iter([(0, True), (5, False)]), Path("good"): iter([(3, False)])}
    monkeypatch.setattr(fleet, "work", lambda j: (lambda s, again: ({"score": s}, again))(*next(scores[j.path])))
    kept: list[tuple[str, int]] = []
    executor = Here()
    jobs = {"late": job(path=Path("late")), "good": job(path=Path("good"))}
    assert grade_all(jobs, executor, keep=lambda s, v: kept.append((s, v["score"]))) == {}
    assert kept == [("good", 3), ("late", 5)]
    assert [j.path.name for j in executor.ran] == ["late", "good", "late"]


def test_an_error_is_tried_again_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that raises is tried twice; it costs no other its verdict, and gets none itself."""

    def fail(j: Job) -> tuple[dict[str, int], bool]:
        if j.path.name == "bad":
            raise OSError("no memory")
        return {"score": 1}, False

    monkeypatch.setattr(fleet, "work", fail)
    kept: list[str] = []
    executor = Here()
    errors = grade_all({n: job(path=Path(n)) for n in ("bad", "good")}, executor, keep=lambda s, _: kept.append(s))
    assert (kept, list(errors), str(errors["bad"])) == (["good"], ["bad"], "no memory")
    assert len(executor.ran) == 3


def test_an_interrupted_class_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who presses Ctrl-C waits for the submissions that run, and no further one is begun."""
    begun: list[str] = []

    def slow(j: Job) -> tuple[dict[str, int], bool]:
        begun.append(j.path.name)
        time.sleep(0.05)
        return {"score": 1}, False

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fleet, "work", slow)
    with pytest.raises(KeyboardInterrupt), ThreadPoolExecutor(1) as executor:
        grade_all({str(i): job(path=Path(str(i))) for i in range(50)}, executor, keep=interrupt)
    assert len(begun) < 5


def test_the_command_says_how_to_go_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted command ends with 130 and a sentence, without a traceback; the same one goes on."""
    nothing = SimpleNamespace(post=lambda *_, **__: None, moments=lambda *_: {})
    monkeypatch.setitem(sys.modules, "graders.bridge", nothing)
    for name in ("ann", "bob", "cid"):
        submit(tiny, tmp_path / "in" / f"{name}.ipynb")
    command = ["autograde", "--course", str(tiny), "--assignment", NAME, "--submissions", str(tmp_path / "in")]
    command += ["--out", str(tmp_path / "out"), "--trust", "--jobs", "1", "--key", str(tmp_path / "key")]
    real, worked = fleet.work, []

    def work_twice(j: Job) -> Any:
        if len(worked) == 2:
            raise KeyboardInterrupt
        worked.append(j.path.stem)
        return real(j)

    monkeypatch.setattr(fleet, "work", work_twice)
    monkeypatch.setattr("graders.autograde.ThreadPoolExecutor", lambda _: Here())
    assert main(command) == 130
    assert "the same command goes on where it was" in capsys.readouterr().err
    monkeypatch.setattr(fleet, "work", real)
    assert main(command) == 0
    lines = (tmp_path / "out" / JOURNAL).read_text().splitlines()
    assert sorted(json.loads(line)["student"] for line in lines[:-1]) == ["ann", "bob", "cid"]


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("file", [Terminal(), io.StringIO()])
def test_progress(file: io.StringIO) -> None:
    """A bar goes back on a terminal, and is whole lines elsewhere; both end on what is done of all, with the pace."""
    with progress_bar("lesson", 10, 4, file) as bar:
        for _ in range(6):
            bar.update()
    shown = file.getvalue()
    assert ("\r" in shown) == file.isatty()
    last = shown.replace("\r", "\n").strip().split("\n")[-1]
    assert last.startswith("lesson: ")
    assert re.search(r"10 of 10 \[.* to go, .*s/submission\]", last)


@pytest.mark.parametrize("pool", [ThreadPoolExecutor])
def test_any_executor(tiny: Path, release: Release, tmp_path: Path, pool: type[Executor]) -> None:
    """Jobs are paths and hashes, and what comes back are plain values."""
    files = {name: submit(tiny, tmp_path / f"{name}.ipynb") for name in ("ann", "bob")}
    jobs = jobs_for(rebuilt(release, files), files, job(course=tiny))
    kept: dict[str, Any] = {}
    with pool(2) as executor:  # type: ignore[call-arg]
        assert grade_all(jobs, executor, keep=kept.__setitem__) == {}
    assert {student: verdict["score"] for student, verdict in kept.items()} == {"ann": 8, "bob": 8}
    assert json.loads(json.dumps(kept)) == kept


def test_a_job_can_travel() -> None:
    """A job reaches another process and its verdict comes back: here, an error that names the missing lesson."""
    with ProcessPoolExecutor(1) as executor:
        errors = grade_all({"ann": job(assignment="nowhere")}, executor, keep=lambda *_: None)
    assert "nowhere" in str(errors["ann"])


def test_a_file_that_changes_is_not_graded(tiny: Path, tmp_path: Path) -> None:
    """A file that is not the one that was read first earns a note."""
    path = submit(tiny, tmp_path / "ann.ipynb")
    verdict, again = work(job(course=tiny, path=path, digest="0" * 64))
    assert (verdict["score"], again) == (0, False)
    assert "was changed" in verdict["notes"][0]


def test_a_journal_survives_a_cut(tmp_path: Path) -> None:
    """Whole lines of the same run are taken over, cut ones, other runs' and finished ones are not."""
    path = tmp_path / JOURNAL
    with Journal(path, "run") as journal:
        journal.write("ann", {"submission": "1", "score": 1})
        journal.write("bob", {"submission": "2", "score": 2})
    path.write_bytes(path.read_bytes()[:-7])
    with Journal(path, "run") as journal:
        assert list(journal.done) == [("ann", "1")]
        journal.write("bob", {"submission": "2", "score": 3})
    with Journal(path, "other") as journal:
        assert journal.done == {}
    with Journal(path, "run") as journal:
        assert journal.done["bob", "2"]["score"] == 3
        journal.finish()
    with Journal(path, "run") as journal:
        assert journal.done == {}


SCRIPT = """
import sys, time, types
from pathlib import Path
bridge = sys.modules["graders.bridge"] = types.ModuleType("graders.bridge")  # it takes seconds to import
bridge.post, bridge.moments = lambda *_, **__: None, lambda *_: {{}}
sys.path.insert(0, {tests!r})
from graders import autograde, checks, fleet
checks.__path__.append(str(Path({tests!r}) / "tiny"))
from graders.release import load
course, folder, out = map(Path, sys.argv[1:4])
real = fleet.work
def slow(job):
    with open(out.parent / "graded.txt", "a") as file:
        file.write(job.path.name + "\\n")
    time.sleep(0.15)
    return real(job)
fleet.work = slow
release = load(course / "course" / "tiny" / "tiny.ipynb")
graded = autograde.autograde(release, course, folder, out, trust=True, workers=1)
print({{student: verdict["score"] for student, verdict in graded.verdicts.items()}})
"""


def test_killed_in_the_middle(tiny: Path, tmp_path: Path) -> None:
    """After kill -9 the same command goes on; a verdict that was written is not made again."""
    folder, out = tmp_path / "in", tmp_path / "out"
    for i in range(4):
        submit(tiny, folder / f"s{i}.ipynb")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parent)))
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-W", "ignore", str(script), str(tiny), str(folder), str(out)]
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not ((out / JOURNAL).exists() and (out / JOURNAL).read_bytes().count(b"\n") >= 1):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    written = (out / JOURNAL).read_bytes().count(b"\n")
    begun = (tmp_path / "graded.txt").read_text().split()
    assert written < 4
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(str({f"s{i}": 8 for i in range(4)}))
    again = (tmp_path / "graded.txt").read_text().split()[len(begun) :]
    assert len(again) == 4 - written
    lines = [json.loads(line) for line in (out / JOURNAL).read_text().splitlines() if line]
    assert sorted(line["student"] for line in lines if not line["finished"]) == [f"s{i}" for i in range(4)]


def test_a_second_run_is_a_fresh_one(
    tiny: Path, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was finished is not taken over: seeds are drawn anew."""
    nothing = SimpleNamespace(post=lambda *_, **__: None, moments=lambda *_: {})
    monkeypatch.setitem(sys.modules, "graders.bridge", nothing)
    submit(tiny, tmp_path / "in" / "ann.ipynb")
    first, second = (autograde(release, tiny, tmp_path / "in", tmp_path / "out", trust=True) for _ in range(2))
    assert first.verdicts["ann"]["seeds"] != second.verdicts["ann"]["seeds"]
