"""One class, three graders -> seconds a submission: ours, stock nbgrader, otter-grader, in turns within one run.

python -m tests.benchmarks.rivals --students 50 --rounds 2 --block 4 --otter VENV/bin/python

Each grader lives in one process for the whole contest, so that its start, measured apart, is paid once. A round is a
block of submissions for each rival, none of them graded before, and the whole class for ours; the next round begins
with another. All grade the same honest, mistaken and unfinished notebooks; nothing hostile, since the rivals would
run it on this machine. Ours runs the answers and judges them in a box. The rivals execute the notebook as it is, with
the checks that stand in it: its experiments too, as theirs is the way to execute a notebook from top to bottom.

stock    nbgrader's own Autograde and GenerateFeedback with its own preprocessors; only its time limit is raised.
otter    the same cells, but for the test cells: in their place stands an otter test that calls the same check. Its
         `grade_submission` is measured, which needs no container and is what its containers run. The interpreter must
         have otter-grader beside this project's requirements.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Row

ROOT = Path(__file__).resolve().parents[2]
OURS, STOCK, OTTER = "graders autograde", "nbgrader autograde", "otter grade_submission"
TARGETS = {"graded": 20.0, "with pages": 8.0}


@dataclass
class Worker:
    """A grader in a process of its own, which answers a line of JSON with a line of JSON."""

    name: str
    python: str
    place: Path
    process: subprocess.Popen[str] = field(init=False)
    cold: float = 0.0

    def __post_init__(self) -> None:
        command = [self.python, "-W", "ignore", "-m", "tests.benchmarks.graders", self.name.split()[0], str(self.place)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(self.place / "data")}
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=(self.place / f"{self.name.split()[0]}.log").open("w"), text=True,
        )  # fmt: skip
        self.read()
        self.cold = time.perf_counter() - begun

    def ask(self, students: Sequence[str] = (), **about: object) -> dict[str, Any]:
        """Grade these students' notebooks."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"students": list(students), **about}) + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """Its next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            said = (self.place / f"{self.name.split()[0]}.log").read_text()[-2000:]
            raise RuntimeError(f"{self.name} ended: {said}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def contest(students: int, rounds: int, block: int, jobs: int, otter: str | None) -> dict[str, Any]:
    """The figures of all graders: lists of seconds by submission and by block, and what the start took."""
    from tests.benchmarks import grading

    with tempfile.TemporaryDirectory(prefix="rivals-") as name:
        place = Path(name)
        everyone = list(grading.write_class(place / "class", students, odd=False))
        blocks = [everyone[i * block : (i + 1) * block] for i in range(rounds)]
        if len(blocks[-1]) < block:
            raise SystemExit(f"{rounds} rounds of {block} submissions are more than a class of {students}")
        names = {OURS: sys.executable, STOCK: sys.executable} | ({OTTER: otter} if otter else {})
        workers = [Worker(name, python, place) for name, python in names.items()]
        asked: dict[str, Callable[[int], dict[str, Any]]] = {
            w.name: (lambda i, w=w: w.ask(everyone if w.name == OURS else blocks[i], jobs=jobs)) for w in workers
        }
        try:
            found: dict[str, list[dict[str, Any]]] = {w.name: [] for w in workers}
            for i in range(rounds):
                turn = i % len(workers)
                for worker in workers[turn:] + workers[:turn]:
                    found[worker.name].append(asked[worker.name](i))
                    said = {k: v for k, v in found[worker.name][-1].items() if isinstance(v, float)}
                    print(f"round {i + 1}: {worker.name}: {said}", file=sys.stderr, flush=True)
            exercises = workers[0].ask(exercises=3)
        finally:
            for worker in workers:
                worker.close()
    return {
        "students": students, "rounds": rounds, "block": block, "jobs": jobs, "items": exercises.pop("items"),
        "cold": {w.name: round(w.cold, 2) for w in workers}, "blocks": found, "exercise": exercises,
    }  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed.

    >>> quantile([3.0, 1.0, 2.0, 4.0], 0.5), quantile([1.0, 2.0], 0.95)
    (2.0, 2.0)
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def rows(figures: dict[str, Any]) -> list[Row]:
    """A row for each grader and for what it writes: the medians over the rounds of seconds a submission."""
    made: list[Row] = []
    for what in TARGETS:
        each = {name: [per_submission(b, what) for b in blocks] for name, blocks in figures["blocks"].items()}
        each = {name: [s for s in seconds if s is not None] for name, seconds in each.items()}
        for name, seconds in each.items():
            if not seconds:
                continue
            blocks = figures["blocks"][name]
            alone = [s for b in blocks for s in b["each"]]
            cpu = statistics.median(b["cpu"] / b["n"] for b in blocks)
            ours = statistics.median(b["cpu"] / b["n"] for b in figures["blocks"][OURS])
            note = f"cold start {figures['cold'][name]:.1f} s; one submission p50 {quantile(alone, 0.5):.2f} s"
            note += f", p95 {quantile(alone, 0.95):.2f} s; an exercise {quantile(alone, 0.5) / figures['items']:.3f} s"
            made.append(
                Row(
                    contest=f"{figures['students']} submissions, {what}", contestant=name, unit="submissions/s",
                    rounds=len(seconds), seconds=statistics.median(seconds), speed=1 / statistics.median(seconds),
                    ratio=statistics.median(s / o for s, o in zip(seconds, each[OURS], strict=True)),
                    cpu_seconds=cpu if what == "graded" else None, cpu_ratio=cpu / ours if what == "graded" else None,
                    target=TARGETS[what] if name == STOCK else None, note=note if what == "graded" else "",
                )
            )  # fmt: skip
    if OTTER not in figures["blocks"]:
        made.append(Row("graded", OTTER, "submissions/s", note="no interpreter with otter-grader: --otter PYTHON"))
    return made


def per_submission(block: dict[str, Any], what: str) -> float | None:
    """Seconds of wall a submission; None where the grader makes no pages."""
    if what == "graded":
        return float(block["seconds"] / block["n"])
    return None if block["pages"] is None else float((block["seconds"] + block["pages"]) / block["n"])


def grading(quick: bool, otter: str | None = None) -> list[Row]:
    """The contest as `python -m tests.benchmarks grading` knows it: rows alone."""
    jobs = min(2, os.cpu_count() or 1)
    return rows(contest(2, 1, 1, jobs, otter) if quick else contest(50, 2, 4, jobs, otter))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=50, help="the class that ours grades, once a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--block", type=int, default=4, help="submissions that a rival grades a round; others are its")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--otter", metavar="PYTHON", default=os.environ.get("OTTER_PYTHON"), help="or $OTTER_PYTHON")
    parser.add_argument("--json", type=Path, default=Path("runs/rivals.json"), metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Print the table and what an exercise, the grader's process and a Player take; write everything as JSON."""
    from tests.benchmarks.table import machine, table
    from tinytrans.files import write_whole

    options = parse(arguments)
    if options.otter and shutil.which(options.otter) is None:
        raise SystemExit(f"there is no interpreter {options.otter}")
    before = machine()
    figures = contest(options.students, options.rounds, options.block, options.jobs, options.otter)
    made = rows(figures)
    shown = [row.__dict__ for row in made]
    text = json.dumps({"machine": before | {"load_after": machine()["load"]}, "rows": shown} | figures, indent=2)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.json, text + "\n")
    print(table(made))
    print("\nthe warm Player:", "; ".join(f"{key} {value}" for key, value in figures["exercise"].items()))
    measured = options.rounds * options.block
    print(f"the rivals graded {measured} submissions each; load {before['load']} at the beginning; {options.json}")


if __name__ == "__main__":
    main(sys.argv[1:])
