"""A generated class on a real lesson -> how fast it is graded, and whether anything was lost or left behind.

python -m tests.benchmarks.grading --students 300 --jobs 2
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from graders.autograde import autograde
from graders.release import load
from solutions import build, demo

LESSON = demo.LESSON
BOMBS = (
    "while True: pass",
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


def around() -> dict[str, set[str]]:
    """What a run could leave behind: processes of the Player, temporary entries, mounts."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    processes = {line.split()[0] for line in listed.split("\n") if "graders.player" in line}
    ours = ("player-", "probe-", "submitted-", "class-")
    entries = {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(ours)}
    return {"processes": processes, "files": entries, "mounts": set(Path("/proc/mounts").read_text().split("\n"))}


def measure(students: int, jobs: int, *, feedback: bool = False) -> dict[str, Any]:
    """Grade a class in a folder of its own and give the figures."""
    release = load(build.ROOT / "course" / LESSON / f"{LESSON}.ipynb")
    with tempfile.TemporaryDirectory(prefix="class-") as place:
        kinds = write_class(Path(place) / "in", students)
        start = time.monotonic()
        graded = autograde(
            release, build.ROOT, Path(place) / "in", Path(place) / "out",
            workers=jobs, key=Path(place) / "key", feedback=feedback,
        )  # fmt: skip
        seconds = time.monotonic() - start
    walls = {s: v["used"].get("wall", 0.0) for s, v in graded.verdicts.items()}
    good = sorted(w for s, w in walls.items() if kinds[s] == "honest")
    return {
        "students": students, "verdicts": len(graded.verdicts), "errors": len(graded.errors), "level": graded.level,
        "jobs": jobs, "seconds": round(seconds, 1), "seconds_per_submission": round(seconds / students, 3),
        "submission_p50": round(statistics.median(good), 3), "submission_p95": round(good[int(0.95 * len(good))], 3),
        "exercise_p50": round(statistics.median(good) / len(release.items), 4),
        "memory_max_mb": max(v["used"].get("memory", 0) for v in graded.verdicts.values()) >> 20,
        "hostile": {s: [v["score"], round(walls[s], 1)] for s, v in graded.verdicts.items() if kinds[s] == "hostile"},
        "broken": {s: v["score"] for s, v in graded.verdicts.items() if kinds[s] == "broken"},
    }  # fmt: skip


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--feedback", action="store_true")
    options = parser.parse_args()
    print(json.dumps(measure(options.students, options.jobs, feedback=options.feedback), indent=2))


if __name__ == "__main__":
    main()
