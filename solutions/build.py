"""Builds the course: solutions/NN_name.py -> .build/source (nbgrader's) -> course/NN_name/NN_name.ipynb (learners').

    python -m solutions.build [--only 04 ...] [--check]

Two builds give the same bytes. Nothing in course/ is edited by hand.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from solutions import notebook
from solutions.paste import LessonError, unmarked
from solutions.release import release
from tinytrans.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
LESSON = "[0-9][0-9]_*"


@dataclass(frozen=True)
class Places:
    """Where lessons are read, and where the source notebooks and the learners' notebooks are written."""

    lessons: Path = ROOT / "solutions"
    source: Path = ROOT / ".build" / "source"
    course: Path = ROOT / "course"


HERE = Places()


def names(places: Places = HERE, only: Sequence[str] = ()) -> list[str]:
    """The lessons in order, or those whose name starts with one of `only`. Raises LessonError where none does."""
    found = sorted(path.stem for path in places.lessons.glob(f"{LESSON}.py"))
    for start in only:
        if not any(name.startswith(start) for name in found):
            raise LessonError(f"no lesson starts with {start!r}; there are {', '.join(found) or 'none'}")
    return [name for name in found if not only or name.startswith(tuple(only))]


def source(name: str, places: Places = HERE) -> NotebookNode:
    """The source notebook of a lesson, solutions between their markers."""
    return notebook.source(name, (places.lessons / f"{name}.py").read_text(encoding="utf-8"))


def answers(name: str, places: Places = HERE) -> dict[str, str]:
    """The right answers of a lesson: name of the exercise -> source of its solution cell."""
    cells = source(name, places).cells
    asked = [c for c in cells if c.cell_type == "code" and c.metadata.get("nbgrader", {}).get("solution")]
    return {c.id: unmarked(c.source) for c in asked}


def solved(name: str, places: Places = HERE) -> NotebookNode:
    """The lesson with every solution in it, as one runs it: without markers, without the instructor's notes."""
    made = source(name, places)
    made.cells = [cell for cell in made.cells if "instructor" not in cell.metadata.get("tags", [])]
    for cell in made.cells:
        cell.source = unmarked(cell.source)
    return made


def submission(name: str, answers: Mapping[str, str], places: Places = HERE) -> NotebookNode:
    """The learners' notebook with these answers in it (name of the exercise -> source), as a learner would hand it in.

    Raises KeyError where the lesson asks for no such exercise.
    """
    made = nbformat.read(places.course / name / f"{name}.ipynb", as_version=4)
    cells = {c.id: c for c in made.cells if c.metadata.get("nbgrader", {}).get("solution")}
    for exercise, text in answers.items():
        if exercise not in cells:
            raise KeyError(f"{name} asks for no {exercise!r}; it asks for {', '.join(cells)}")
        cells[exercise].source = text
    return made


def to_bytes(made: NotebookNode) -> bytes:
    """A notebook as it is kept: keys sorted, one final newline."""
    return (nbformat.writes(made, version=4).rstrip("\n") + "\n").encode()


def build(only: Sequence[str] = (), places: Places = HERE) -> list[str]:
    """Write the source and the learners' notebooks of all lessons, or of some; the names of what was built.

    Nothing is written for a lesson that cannot be built. A build of all removes the folders of those that are gone.
    """
    chosen = names(places, only)
    sources = {name: source(name, places) for name in chosen}
    for name, made in release(sources):
        write_whole(places.source / name / f"{name}.ipynb", to_bytes(sources[name]))
        write_whole(places.course / name / f"{name}.ipynb", to_bytes(made))
        tests = [c.metadata.nbgrader.points for c in made.cells if c.metadata.get("nbgrader", {}).get("grade")]
        print(f"{name}: {len(made.cells)} cells, {len(tests)} exercises, {sum(tests)} points")
    for folder in [] if only else [f for root in (places.source, places.course) for f in root.glob(LESSON)]:
        if folder.is_dir() and folder.name not in chosen:
            shutil.rmtree(folder)
            print(f"{folder.name}: removed, there is no such lesson any more")
    return chosen


def stale(only: Sequence[str] = (), places: Places = HERE) -> list[str]:
    """The files of course/ that differ from a fresh build, are missing, or belong to no lesson, sorted."""
    made = {f"{n}/{n}.ipynb": to_bytes(nb) for n, nb in release({n: source(n, places) for n in names(places, only)})}
    notebooks = [p for p in places.course.rglob("*") if p.suffix in (".ipynb", ".py") and p.parent.name[0] != "."]
    kept = {n: p for p in notebooks if (n := p.relative_to(places.course).as_posix()).startswith(tuple(only) or "")}
    changed = [name for name, content in made.items() if name not in kept or kept[name].read_bytes() != content]
    return sorted([*changed, *(name for name in kept if name not in made)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, or with --check say which files are not freshly built; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m solutions.build", description="Build course/ from solutions/.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="lessons whose names start so")
    parser.add_argument("--check", action="store_true", help="write nothing; say whether course/ equals a fresh build")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            build(options.only)
            return 0
        found = stale(options.only)
    except LessonError as error:
        print(error)
        return 1
    for name in found:
        print(f"course/{name} is not freshly built: run `make course`")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
