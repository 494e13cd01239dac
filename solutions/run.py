"""Solved lessons, run in full -> how long each took, how much memory, and the figures that it reached.

    python -m solutions.run [--only 04 ...] [--quick]

A cell tagged `measured` prints a lesson's figures. The table goes to the screen, it and the executed notebooks into
.build/lessons/, where the prose can be read beside the outputs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from tqdm import tqdm

from solutions import build
from solutions.paste import LessonError
from tinytrans.files import write_whole

KEPT = build.ROOT / ".build" / "lessons"
LONGEST = 900  # seconds of one cell
MEMORY = new_code_cell("from tinytrans.recipes.report import peak_memory\nprint(round(peak_memory() / 1e6))")


@dataclass(frozen=True)
class Reached:
    """What one run of a lesson cost and what its `measured` cells printed; `error` is empty where all cells ran."""

    lesson: str
    seconds: float
    memory_mb: int
    threads: int
    measured: tuple[str, ...]
    error: str = ""


def run(name: str, *, quick: bool = False, kept: Path = KEPT) -> Reached:
    """Run a solved lesson from top to bottom in a fresh kernel; the executed notebook is kept."""
    lesson = build.solved(name)
    lesson.cells.append(new_code_cell(MEMORY.source))
    os.environ["TINYTRANS_QUICK"] = "1" if quick else "0"
    began, error = time.perf_counter(), ""
    client = NotebookClient(lesson, timeout=LONGEST, kernel_name="python3", resources={"metadata": {"path": "."}})
    try:
        client.execute()
    except CellExecutionError as failed:
        error = f"{failed.ename}: {failed.evalue}"
    seconds = round(time.perf_counter() - began, 1)
    memory = printed(lesson.cells.pop()).strip()
    write_whole(kept / f"{name}.ipynb", build.to_bytes(lesson))
    told = [line for cell in lesson.cells if "measured" in cell.metadata.get("tags", []) for line in lines(cell)]
    return Reached(name, seconds, int(memory or 0), threads(), tuple(told), error)


def printed(cell: NotebookNode) -> str:
    """All that a cell printed to the standard output."""
    streams = [output for output in cell.outputs if output.output_type == "stream" and output.name == "stdout"]
    return "".join(output.text for output in streams)


def lines(cell: NotebookNode) -> list[str]:
    """The lines that a cell printed, empty ones left out."""
    return [line.rstrip() for line in printed(cell).split("\n") if line.strip()]


def threads() -> int:
    """How many threads the kernels' torch may take."""
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def table(reached: Sequence[Reached]) -> str:
    """The runs as a Markdown table, each lesson's figures below it."""
    rows = ["| lesson | seconds | memory, MB |", "|---|---|---|"]
    rows += [f"| `{one.lesson}` | {one.seconds:.0f} | {one.memory_mb} |" for one in reached]
    for one in reached:
        rows += ["", f"**{one.lesson}**" + (f" stopped: {one.error}" if one.error else "")]
        rows += ["", "```", *one.measured, "```"] if one.measured else []
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lessons one after another; exit 1 where one did not come to its end."""
    parser = argparse.ArgumentParser(prog="python -m solutions.run", description="Run the solved lessons.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="lessons whose names start so")
    parser.add_argument("--quick", action="store_true", help="the same code with fewer steps; the figures mean nothing")
    options = parser.parse_args(arguments)
    try:
        names = build.names(only=options.only)
    except LessonError as error:
        print(error)
        return 1
    reached = [run(name, quick=options.quick) for name in tqdm(names, disable=not sys.stderr.isatty())]
    print(text := table(reached))
    write_whole(KEPT / "lessons.md", text + "\n")
    write_whole(KEPT / "lessons.json", json.dumps([asdict(one) for one in reached], indent=2) + "\n")
    return 1 if any(one.error for one in reached) else 0


if __name__ == "__main__":
    raise SystemExit(main())
