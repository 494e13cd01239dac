"""A folder of submissions -> each student's file: nbgrader's ID/NAME/NAME.ipynb, or plain ID.ipynb."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Container
from itertools import count
from pathlib import Path
from typing import Any

UNUSUAL = re.compile(r"[^\w.,@+() -]")  # what an ID is shown with instead: pages and spreadsheets may read more into it


def collect(folder: Path, assignment: str) -> dict[str, Path]:
    """Each student's file, sorted by ID, whose unusual characters become `_`.

    A folder without such a file counts too: its file is then noted as missing. Hidden entries, links to
    folders and other files are passed over.
    Raises FileNotFoundError where `folder` is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder of submissions {folder}")
    found: dict[str, Path] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                found[_id(entry.name, found)] = _in_folder(Path(entry.path), assignment)
            elif entry.name.endswith(".ipynb") and entry.name.removesuffix(".ipynb") not in found:
                found[_id(entry.name.removesuffix(".ipynb"), found)] = Path(entry.path)
    return found


def _id(name: str, taken: Container[str]) -> str:
    """The name as an ID that no other student has."""
    plain = UNUSUAL.sub("_", name)[:100]
    if plain == name:
        return name
    return next(one for n in count(1) if (one := plain if n == 1 else f"{plain}_{n}") not in taken)


def _in_folder(student: Path, assignment: str) -> Path:
    """ID/NAME/NAME.ipynb, or where a link stands in the way, the link itself: it will be noted and not be followed."""
    lesson = student / assignment
    return lesson if lesson.is_symlink() else lesson / f"{assignment}.ipynb"


def rematch(converter: Any) -> None:
    """Find an nbgrader converter's notebooks anew: it takes a `[` in a student's folder for a pattern, and finds none.

    A folder whose name has more than one line is passed over, and said so: nbgrader would end the class's run there.
    """
    course = converter.coursedir
    for folder in glob.glob(converter._format_source(course.assignment_id, course.student_id)):
        if "\n" in folder:
            converter.log.error("passed over, for its name has more than one line: %r", folder)
            converter.assignments.pop(folder, None)
        elif found := glob.glob(os.path.join(glob.escape(folder), f"{course.notebook_id}.ipynb")):
            converter.assignments[folder] = found
