"""A folder of submissions -> signed verdicts, gradebook and pages: the run that the command `autograde` is."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from graders import selftest, signing, similarity
from graders.cluster import cluster
from graders.collect import collect
from graders.fleet import Job, grade_all, jobs_for, rebuilt
from graders.journal import Journal
from graders.release import Release
from graders.similarity import Pair
from graders.summary import for_review
from tinytrans.files import write_whole

JOURNAL = "journal.jsonl"
BRIEF = ("score", "max", "mistake", "message", "on_own", "on_reference", "review")


@dataclass
class Graded:
    """A graded class: signed verdicts by student, the level, seconds, and the errors of what could not be graded."""

    verdicts: dict[str, dict[str, Any]]
    level: str
    seconds: float = 0.0
    errors: Mapping[str, BaseException] = field(default_factory=dict)
    alike: Sequence[Pair] = ()


def autograde(
    release: Release, course: Path, folder: Path, out: Path, *,
    trust: bool = False, weaker: bool = False, seeds: tuple[int, ...] | None = None, workers: int = 0,
    key: Path | None = None, feedback: bool = False, dask: str | None = None,
) -> Graded:  # fmt: skip
    """Grade what is in `folder`, then write out/verdicts.json, review.txt, gradebook.db and autograded/.

    A run that was killed goes on where it was. Raises IsolationError where nothing isolates and `trust` is False;
    `weaker` lets it go on at level "landlock". `dask` is the address of a scheduler whose workers grade instead of
    `workers` threads here; raises ClusterError where they cannot.
    """
    from graders.bridge import moments, post  # nbgrader takes seconds to import, and other commands can do without

    start = time.monotonic()
    files = collect(folder, release.name)
    hidden = (course.resolve(), folder.resolve(), out.resolve())
    level = "none" if trust else _strongest(course, hidden, weaker)
    workers = workers or min(4, os.cpu_count() or 1)
    out.mkdir(parents=True, exist_ok=True)
    submissions = rebuilt(release, files)
    secret = signing.key(key)
    like = Job(course.resolve(), release.name, Path(), "", level, hidden, seeds)
    with Journal(out / JOURNAL, run_key(release, level, seeds)) as journal:
        known = {s: v for s in submissions if (v := journal.done.get((s, submissions[s].digest)))}
        jobs = jobs_for(submissions, files, like, list(known))
        pool = cluster(dask, (like.release_path(), folder)) if dask else ThreadPoolExecutor(workers)
        with pool as executor, progress_bar(release.name, len(files), len(known)) as bar:
            alone = workers == 1 and not dask
            errors = grade_all(jobs, executor, keep=journal.write, progress=lambda _: bar.update(), alone=alone)
        verdicts = {
            student: signing.signed(journal.done[student, submission.digest], student, release.name, secret)
            for student, submission in submissions.items()
            if student not in errors
        }
        alike = similarity.alike({s: submissions[s].sources for s in verdicts}, similarity.handed_out(release))
        write_whole(out / "verdicts.json", as_json(release.name, level, verdicts, alike, time.monotonic() - start))
        sections = ["\n".join(section) for section in for_review(verdicts, alike)]
        write_whole(out / "review.txt", "\n\n".join(sections or ["nothing to look at"]) + "\n")
        with redirect_stdout(sys.stderr):
            posted = {student: submissions[student] for student in verdicts}
            when = moments(release.name, files)
            post(release, posted, verdicts, root=course.resolve(), out=out.resolve(), when=when, feedback=feedback)
        journal.finish()
    return Graded(verdicts, level, time.monotonic() - start, errors, alike)


def progress_bar(name: str, total: int, done: int, file: TextIO | None = None) -> tqdm[Any]:
    """On a terminal a bar with pace and time to go; in a pipe or a file a line with the same every ten seconds."""
    file = file or sys.stderr
    pace = "{n_fmt} of {total_fmt} [{elapsed}, {remaining} to go, {rate_inv_fmt}]"
    how: dict[str, Any] = {"file": Lines(file), "mininterval": 10, "bar_format": "{desc}: " + pace}
    if file.isatty():
        how = {"file": file, "bar_format": "{l_bar}{bar}| " + pace}
    return tqdm(total=total, initial=done, desc=name, unit="submission", smoothing=0.1, **how)


class Lines:
    """A file to which a progress bar writes whole lines, where it would go back to the beginning of its own."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write a line where there is anything to read in it."""
        if plain := text.replace("\r", "").strip():
            self.file.write(plain + "\n")

    def flush(self) -> None:
        """Have it written."""
        self.file.flush()


def _strongest(course: Path, hidden: tuple[Path, ...], weaker: bool) -> str:
    level, complaints = selftest.strongest(course, hidden, weaker=weaker)
    for complaint in complaints:
        print(f"graders: {complaint}; going on at level {level!r}", file=sys.stderr)
    return level


def run_key(release: Release, level: str, seeds: tuple[int, ...] | None) -> str:
    """What a verdict depends on beside the submission: the lesson, the grader, the level and the seeds asked for."""
    about = [json.dumps(release.notebook, sort_keys=True), signing.version(), level, str(seeds)]
    return hashlib.sha256("\0".join(about).encode()).hexdigest()[:16]


def brief(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict without its details."""
    exercises = {n: {k: v for k, v in e.items() if k in BRIEF} for n, e in verdict["exercises"].items()}
    return {"score": verdict["score"], "max": verdict["max"], "exercises": exercises, "notes": verdict["notes"]}


def as_json(
    assignment: str, level: str, students: Mapping[str, Mapping[str, Any]], alike: Sequence[Pair] = (),
    seconds: float = 0.0,
) -> str:  # fmt: skip
    """All verdicts, the pairs of students whose answers are alike, and what the run took, as one JSON object."""
    found: dict[str, Any] = {"assignment": assignment, "isolation": level, "seconds": round(seconds, 1)}
    found |= {"students": students}
    found |= {"alike": [asdict(pair) for pair in alike]}
    return json.dumps(found, indent=2, ensure_ascii=False)
