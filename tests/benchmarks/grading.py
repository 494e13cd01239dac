"""A generated class on a real lesson -> how fast it is graded, and whether anything was lost or left behind.

python -m tests.benchmarks.grading --students 300 --jobs 2 --kill-after 120
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graders.autograde import JOURNAL
from graders.release import load
from graders.watch import below
from solutions import build, demo

LESSON = demo.LESSON
BOMBS = (
    "while True: pass",
    "import time\ntime.sleep(1e9)",
    "import os\nos._exit(0)",
    "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "kept = []\nwhile True: kept.append(bytearray(1 << 26))",
    "print('x' * (1 << 24))\nraise SystemExit(0)",
)
SLIPS = {"attention_scores": demo.NO_SCALING, "causal": demo.OFF_BY_ONE}


def write_class(folder: Path, students: int, *, seed: int = 0, odd: bool = True) -> dict[str, str]:
    """Write a class and give student -> what became of the file: 5 % broken, 5 % hostile, the rest honest.

    Without `odd` all are honest: right, mistaken, unfinished.
    """
    chance, solved = random.Random(seed), build.answers(LESSON)
    kinds: dict[str, str] = {}
    for i in range(students):
        kind = {3: "broken", 13: "hostile"}.get(i % 20, "honest") if odd else "honest"
        student = f"{kind}{i:03}"
        path = folder / student / LESSON / f"{LESSON}.ipynb"
        path.parent.mkdir(parents=True)
        answers = hostile(solved, i) if kind == "hostile" else honest(solved, chance)
        content = build.to_bytes(build.submission(LESSON, answers))
        if kind == "broken":
            spoil(path, content, i // 20)
        else:
            path.write_bytes(content)
        kinds[student] = kind
    return kinds


def honest(solved: dict[str, str], chance: random.Random) -> dict[str, str]:
    """Right answers, but for some that are mistaken, unfinished or do not compile."""
    answers = {name: text for name, text in solved.items() if chance.random() < 0.9}
    for name, slip in SLIPS.items():
        if chance.random() < 0.3:
            answers[name] = slip
    if chance.random() < 0.1:
        answers[chance.choice(list(solved))] = "def unfinished(:\n"
    return answers


def hostile(solved: dict[str, str], i: int) -> dict[str, str]:
    """The demo's forger, or right answers with a bomb in the first cell."""
    first = next(iter(solved))
    if i // 20 % 2:
        return solved | {first: BOMBS[i // 40 % len(BOMBS)]}
    return {name: demo.STEAL.format(name=name) for name in solved} | {first: demo.HOSTILE}


def spoil(path: Path, content: bytes, which: int) -> None:
    """Write a file that is no notebook, in one of six ways."""
    ways = [content[:-500], b"", content.replace(b"a", b"\xff"), b"[" * 100_000, b"x" * (11 << 20)]
    if which % 6 < 5:
        path.write_bytes(ways[which % 6])
    else:
        path.symlink_to("/etc/passwd")


@dataclass
class Ran:
    """What a run of the command left: its return code, and what was seen of its processes while it ran."""

    returncode: int
    seconds: float
    family: set[tuple[int, str]]  # (pid, when it started) of every process below it

    def left(self, seconds: float = 10) -> list[int]:
        """Which of them still run, after some seconds of grace."""
        until = time.monotonic() + seconds
        while (alive := [pid for pid, begun in self.family if born(pid) == begun]) and time.monotonic() < until:
            time.sleep(0.2)
        return alive


def born(pid: int) -> str:
    """When a process started, in the kernel's ticks; nothing where it is gone, or only its entry is left."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""


def run(place: Path, jobs: int, *, kill_after: int = 0, feedback: bool = False) -> Ran:
    """`graders autograde` from place/in into place/out; with `kill_after`, kill -9 after so many verdicts."""
    command = [sys.executable, "-m", "graders", "autograde", "--assignment", LESSON, "--jobs", str(jobs), "--json"]
    command += ["--submissions", str(place / "in"), "--out", str(place / "out"), "--key", str(place / "key")]
    (place / "tmp").mkdir(exist_ok=True)
    start, family = time.monotonic(), set()
    with (place / "log").open("a") as log:
        grader = subprocess.Popen(
            command + ["--feedback"] * feedback, cwd=build.ROOT, stdout=subprocess.DEVNULL, stderr=log,
            env=os.environ | {"TMPDIR": str(place / "tmp")},
        )  # fmt: skip
        while grader.poll() is None:
            family |= {(pid, begun) for pid in below(grader.pid) if (begun := born(pid))}
            if kill_after and len(graded(place)) >= kill_after:
                grader.kill()
            time.sleep(0.1)
    return Ran(grader.returncode, time.monotonic() - start, family)


def graded(place: Path) -> list[str]:
    """The students whose verdicts the journal holds, in the order in which they were written."""
    try:
        lines = (place / "out" / JOURNAL).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [entry["student"] for entry in map(json.loads, filter(None, lines)) if not entry["finished"]]


def leftovers(place: Path, ran: Ran, mounts: str) -> dict[str, list[Any]]:
    """What a run left behind that it should not have: processes, temporary files, mounts."""
    now = set(Path("/proc/mounts").read_text().split("\n")) - set(mounts.split("\n"))
    return {"processes": ran.left(), "files": sorted(os.listdir(place / "tmp")), "mounts": sorted(now)}


def measure(students: int, jobs: int, *, kill_after: int = 0, feedback: bool = False) -> dict[str, Any]:
    """Grade a class in a folder of its own by the command, killed and started again if wanted, and give the figures."""
    items = len(load(build.ROOT / "course" / LESSON / f"{LESSON}.ipynb").items)
    mounts = Path("/proc/mounts").read_text()
    with tempfile.TemporaryDirectory(prefix="class-") as name:
        place = Path(name)
        kinds = write_class(place / "in", students)
        found: dict[str, Any] = {"students": students, "jobs": jobs}
        if kill_after:
            first = run(place, jobs, kill_after=kill_after, feedback=feedback)
            found["killed"] = {"with": first.returncode, "after verdicts": len(graded(place))}
            found["killed"] |= {"seconds": round(first.seconds, 1), "left": leftovers(place, first, mounts)}
        ran = run(place, jobs, feedback=feedback)
        whole = json.loads((place / "out" / "verdicts.json").read_text())
        verdicts, counts = whole["students"], Counter(graded(place))
        found |= {"returncode": ran.returncode, "left": leftovers(place, ran, mounts), "verdicts": len(verdicts)}
        found["graded once"] = sum(counts[student] == 1 for student in kinds)
    walls = {s: v["used"].get("wall", 0.0) for s, v in verdicts.items()}
    good = sorted(w for s, w in walls.items() if kinds[s] == "honest")
    return found | {
        "level": whole["isolation"], "seconds": round(ran.seconds, 1),
        "submission_p50": round(statistics.median(good), 3), "submission_p95": round(good[int(0.95 * len(good))], 3),
        "exercise_p50": round(statistics.median(good) / items, 4),
        "memory_max_mb": max(v["used"].get("memory", 0) for v in verdicts.values()) >> 20,
        "hostile": {s: [v["score"], round(walls[s], 1)] for s, v in verdicts.items() if kinds[s] == "hostile"},
        "broken": {s: v["score"] for s, v in verdicts.items() if kinds[s] == "broken"},
    }  # fmt: skip


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kill-after", type=int, default=0, metavar="N", help="kill -9 after N verdicts, then go on")
    parser.add_argument("--feedback", action="store_true")
    options = parser.parse_args()
    figures = measure(options.students, options.jobs, kill_after=options.kill_after, feedback=options.feedback)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
