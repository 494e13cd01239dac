"""Many submissions -> their verdicts, over any concurrent.futures executor; what came too late is tried again alone.

Only a `Job` travels, paths and hashes, and a verdict of plain values comes back: threads, processes and the workers of
a cluster that see the same files do equally well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from graders import selftest
from graders.grade import Verdict, grade, unjudged
from graders.rebuild import Submission, rebuild
from graders.release import Release, load

_loading = threading.Lock()


@dataclass(frozen=True)
class Job:
    """One submission to grade: the file and its hash, and how."""

    course: Path
    assignment: str
    path: Path
    digest: str
    level: str
    hidden: tuple[Path, ...] = ()
    seeds: tuple[int, ...] | None = None

    def release_path(self) -> Path:
        """The lesson as it was handed out."""
        return self.course / "course" / self.assignment / f"{self.assignment}.ipynb"


def work(job: Job) -> tuple[dict[str, Any], bool]:
    """(the verdict with its details, whether it should be tried again alone) on one submission."""
    with _loading:
        release = _release(job.release_path(), job.release_path().stat().st_mtime_ns)
    submission = rebuild(release, job.path)
    if submission.digest != job.digest:
        return _changed(release, job).as_dict(details=True), False
    boxes = selftest.opened(job.level, job.course, job.hidden)
    verdict = grade(release, submission, boxes, seeds=job.seeds)
    return verdict.as_dict(details=True), verdict.starved


@cache
def _release(path: Path, _when: int) -> Release:
    return load(path)


def _changed(release: Release, job: Job) -> Verdict:
    why = "its file was changed while the class was being graded: grade it again"
    return Verdict("not executed", (), {item.name: unjudged(item, why) for item in release.items}, (why,), job.digest)


Progress = Callable[[str], object]


def grade_all(
    jobs: Mapping[str, Job],
    executor: Executor,
    *,
    keep: Callable[[str, dict[str, Any]], None],
    progress: Progress = lambda _student: None,
    alone: bool = False,
) -> dict[str, BaseException]:
    """Grade all jobs and hand each verdict to `keep` as it comes; the errors of those that could not be graded.

    A submission that timed out beside others (`alone` is False) is tried once more when nothing else runs.
    """
    errors: dict[str, BaseException] = {}
    late: dict[str, dict[str, Any]] = {}
    for student, result in _results(jobs, executor):
        if isinstance(result, BaseException):
            errors[student] = result
            continue
        verdict, starved = result
        if starved and not alone:
            late[student] = verdict
            continue
        keep(student, verdict)
        progress(student)
    for student in [*late, *errors]:
        result = next(_results({student: jobs[student]}, executor))[1]
        if isinstance(result, BaseException) and student in late:
            keep(student, late[student])
        elif isinstance(result, BaseException):
            errors[student] = result
            continue
        else:
            errors.pop(student, None)
            keep(student, max(late.get(student, result[0]), result[0], key=lambda verdict: verdict["score"]))
        progress(student)
    return errors


def _results(jobs: Mapping[str, Job], executor: Executor) -> Iterator[tuple[str, Any]]:
    futures = {executor.submit(work, job): student for student, job in jobs.items()}
    try:
        for future in as_completed(futures):
            yield futures[future], future.exception() or future.result()
    finally:  # who is interrupted waits for what runs, and not for all of the class
        for future in futures:
            future.cancel()


def rebuilt(release: Release, files: Mapping[str, Path]) -> dict[str, Submission]:
    """Each student's submission, read once: its hash is what a verdict is about."""
    return {student: rebuild(release, path) for student, path in files.items()}


def jobs_for(
    submissions: Mapping[str, Submission], files: Mapping[str, Path], like: Job, done: Sequence[str] = ()
) -> dict[str, Job]:
    """A job like `like` for each submission that is not done."""
    return {
        student: replace(like, path=files[student], digest=submission.digest)
        for student, submission in submissions.items()
        if student not in done
    }
