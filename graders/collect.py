"""A folder of submissions -> each student's file: nbgrader's ID/NAME/NAME.ipynb, or plain ID.ipynb."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Container
from itertools import count
from pathlib import Path
from typing import Any

UNUSUAL = re.compile(r"[^\w.,@+() -]")  # what an ID is shown with instead: pages and spreadsheets may read more into it
LONGEST = 100  # characters of an ID


def collect(folder: Path, assignment: str) -> dict[str, Path]:
    """Each student's file by ID, see `student_id`, sorted by name.

    A folder without such a file counts too: its file is then noted as missing. Hidden entries, links to
    folders and other files are passed over.
    Raises FileNotFoundError where `folder` is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder of submissions {folder}")
    found: dict[str, Path] = {}
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda e: e.name)
    names = {entry.name.removesuffix(".ipynb") for entry in entries}
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            found[student_id(entry.name, names)] = _in_folder(Path(entry.path), assignment)
        elif entry.name.endswith(".ipynb"):
            found.setdefault(student_id(entry.name.removesuffix(".ipynb"), names), Path(entry.path))
    return found


def student_id(name: str, names: Container[str]) -> str:
    """The ID of whose folder or file has this name, the same whenever it is asked, of a class or of one alone.

    A usual name is its own ID, and so is any ID. Else unusual characters are shown as `_`, and a part of the name's
    hash keeps it apart from others; `names` are all that are there: an odd name takes nobody's.
    """
    plain = UNUSUAL.sub("_", name)
    if plain == name and len(name) <= LONGEST:
        return name
    hashes = (hashlib.sha256(os.fsencode(name) + b"\0" * n).hexdigest()[:16] for n in count())
    return next(one for one in (f"{plain[: LONGEST - 17]}-{part}" for part in hashes) if one not in names)


def _in_folder(student: Path, assignment: str) -> Path:
    """ID/NAME/NAME.ipynb, or where a link stands in the way, the link itself: it will be noted and not be followed."""
    lesson = student / assignment
    return lesson if lesson.is_symlink() else lesson / f"{assignment}.ipynb"


def rematch(converter: Any) -> dict[str, str]:
    """Find an nbgrader converter's notebooks anew: it takes a `[` in a student's folder for a pattern, and finds none.

    Folders count as if their names were the students' IDs, see `student_id`; the result says where each one is.
    """
    course, format_source, real = converter.coursedir, converter._format_source, {}
    for folder in glob.glob(format_source(course.assignment_id, course.student_id)):
        converter.assignments.pop(folder, None)
        student = Path(folder).parent
        place = format_source(course.assignment_id, student_id(student.name, os.listdir(student.parent)))
        if found := glob.glob(os.path.join(glob.escape(folder), f"{course.notebook_id}.ipynb")):
            real[place] = folder
            converter.assignments[place] = [os.path.join(place, os.path.basename(path)) for path in found]
    converter._format_source = lambda *a, **k: real.get(where := format_source(*a, **k), where)
    return real
