"""The whole way once: course -> submissions -> grades and feedback; tales -> a small GPT that tells stories.

make demo
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solutions import build
from tinytrans.files import write_whole

LESSON = "04_attention"
OUT = build.ROOT / "demo"
BEGINNINGS = ("Once upon a time", "Far away", "This is the story of")

NO_SCALING = """def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)
"""
OFF_BY_ONE = """def causal(T: int, S: int | None = None, *, device: torch.device | str | None = None) -> Tensor:
    S = T if S is None else S
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T - 1)
"""
HOSTILE = '''import builtins, glob, importlib, os, socket, sys


class AlwaysRight(torch.Tensor):
    """Claims to be equal to whatever it is compared with."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return True


torch.allclose = torch.equal = torch.testing.assert_close = lambda *a, **k: True  # the comparison, forged


def stolen(name):
    """The right answer, wherever it may lie: in the library, in the instructor's notebooks, in the grader's memory."""
    for module in ("tinytrans.nn.attention", "tinytrans.nn.masks", "graders.checks.attention", "__main__"):
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            pass
    for pattern in ("../*.ipynb", "../../*/*.ipynb", "/*/*/gradebook.db", "/*/*/*/solutions/*.py", "/home/*/.ssh/*"):
        if found := glob.glob(pattern, recursive=True)[:1]:
            return lambda *a, **k: open(found[0]).read()
    return lambda *a, **k: torch.zeros(1).as_subclass(AlwaysRight)


print("04_attention: 100 of 100 points")  # a line that looks like the grader's own
'''
STEAL = "{name} = stolen({name!r})\n"


def submissions() -> dict[str, dict[str, str]]:
    """Three learners: student -> name of the exercise -> source of the answer."""
    solved = build.answers(LESSON)
    hostile = {name: STEAL.format(name=name) for name in solved}
    first = next(iter(hostile))
    return {
        "solved": solved,
        "mistaken": solved | {"attention_scores": NO_SCALING, "causal": OFF_BY_ONE},
        "hostile": hostile | {first: HOSTILE + hostile[first]},
    }


def hand_in(folder: Path) -> None:
    """Write the submissions as nbgrader collects them: folder/STUDENT/LESSON/LESSON.ipynb."""
    for student, answers in submissions().items():
        notebook = build.submission(LESSON, answers)
        write_whole(folder / student / LESSON / f"{LESSON}.ipynb", build.to_bytes(notebook))


def heading(number: int, text: str) -> None:
    print(f"\n({number}) {text}", flush=True)


def run(*command: str) -> str:
    """A command of this project in this environment; its progress is shown, its output returned."""
    made = subprocess.run([sys.executable, "-m", *command], cwd=build.ROOT, stdout=subprocess.PIPE, text=True)
    if made.returncode:
        print(made.stdout)
        raise SystemExit(f"`python -m {' '.join(command)}` ended with {made.returncode}")
    return made.stdout


def tell(model: str, beginning: str, seed: int) -> str:
    """A story by the saved model, which is loaded anew each time."""
    return run("tinytrans", "sample", "--model", model, "--prompt", beginning, "--seed", str(seed))


def table(verdicts: Mapping[str, Any]) -> str:
    """Exercise x student: the points, and below each name the mistakes that were named."""
    students = verdicts["students"]
    names = list(next(iter(students.values()))["exercises"])
    wide = max(map(len, names))
    rows = [f"{'':<{wide}}" + "".join(f"{s:>12}" for s in students)]
    for name in names:
        earned = (s["exercises"][name] for s in students.values())
        rows.append(f"{name:<{wide}}" + "".join(f"{e['score']:>7} of {e['max']:<2}" for e in earned))
    rows.append(f"{'':<{wide}}" + "".join(f"{s['score']:>6} of {s['max']:<3}" for s in students.values()))
    for student, verdict in students.items():
        for name, e in verdict["exercises"].items():
            if e["mistake"]:
                rows.append(f"{student}, {name}: «{e['mistake']}» {e['message']}")
    rows.append(f"isolation: {verdicts['isolation']}")
    return "\n".join(rows)


def main() -> int:
    """Run everything; the folder demo/ is made anew."""
    start = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()

    heading(1, "The learners' course, rebuilt from solutions/")
    if stale := build.stale():
        print("\n".join(f"course/{name} is not freshly built: run `make course`" for name in stale))
        return 1
    print(f"course/ equals a fresh build: {', '.join(build.names())}")

    heading(2, "Three submissions")
    hand_in(OUT / "submitted")
    print("solved; mistaken: no scaling, a causal mask off by one; hostile: forges its score, looks for the solutions")

    heading(3, "Graded in isolation, into nbgrader's gradebook")
    graded = run(
        "graders", "autograde", "--assignment", LESSON, "--feedback", "--json",
        "--submissions", str(OUT / "submitted"), "--out", str(OUT / "graded"),
    )  # fmt: skip
    print(table(json.loads(graded)))

    heading(4, "A small GPT learns to tell tales")
    model = str(OUT / "tales")
    print(run("tinytrans", "train", "--data", "tales", "--out", model), end="")
    stories = [tell(model, beginning, seed) for seed, beginning in enumerate(BEGINNINGS)]
    print("\n" + "\n".join(stories))
    begun = " ".join(stories[0].split()[:30])
    print(
        f"Loaded again, it goes on with the first one's beginning in another way:\n\n{tell(model, begun, seed=7)}",
        end="",
    )

    print(f"\nDone in {time.monotonic() - start:.0f} s.")
    for what, where in (
        ("feedback pages", "demo/graded/feedback/"),
        ("gradebook", "demo/graded/gradebook.db"),
        ("the model", "demo/tales/"),
    ):
        print(f"{what:<16}{where}")
    print('next: .venv/bin/tinytrans sample --model demo/tales --prompt "The owl", or `make lab` for the course')
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
