"""Verdicts -> files that a learning platform or a spreadsheet reads. No cell of them is a formula."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

Verdicts = Mapping[str, Mapping[str, Any]]


def inert(text: object) -> object:
    """A cell that no spreadsheet executes: text that begins like a formula gets an apostrophe, a number stays one.

    >>> inert("=1+1"), inert("ann"), inert(3)
    ("'=1+1", 'ann', 3)
    """
    if isinstance(text, int | float):
        return text
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    # full-width forms too: spreadsheets in some languages read them as the sign itself
    return f"'{plain}" if plain.lstrip()[:1] in tuple("=+-@|%\uff1d\uff0b\uff0d\uff20") and plain.strip() else plain


def _table(rows: list[list[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    writer.writerows([[inert(cell) for cell in row] for row in rows])
    return file.getvalue()


def _names(verdicts: Verdicts) -> list[str]:
    return list(dict.fromkeys(name for verdict in verdicts.values() for name in verdict["exercises"]))


def as_csv(assignment: str, verdicts: Verdicts) -> str:
    """A row a student: score, each exercise's score and the mistake's name, notes."""
    names = _names(verdicts)
    rows: list[list[object]] = [["student", "assignment", "score", "max", *names, "mistakes", "notes"]]
    for student, verdict in verdicts.items():
        earned = verdict["exercises"]
        mistakes = "; ".join(f"{name}: {e['mistake']}" for name, e in earned.items() if e["mistake"])
        scores = [earned[name]["score"] for name in names]
        notes = "; ".join(verdict["notes"])
        rows.append([student, assignment, verdict["score"], verdict["max"], *scores, mistakes, notes])
    return _table(rows)


def as_canvas(assignment: str, verdicts: Verdicts) -> str:
    """Canvas' gradebook import: matched by SIS Login ID; the second line holds the points possible."""
    most = max((verdict["max"] for verdict in verdicts.values()), default=0)
    rows: list[list[object]] = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", assignment]]
    rows.append(["    Points Possible", "", "", "", "", most])
    return _table([*rows, *([student, "", "", student, "", v["score"]] for student, v in verdicts.items())])


def as_moodle(assignment: str, verdicts: Verdicts) -> str:
    """Moodle's grade import: matched by username, with a comment for the learner."""
    rows: list[list[object]] = [["username", assignment, f"{assignment} (feedback)"]]
    for student, verdict in verdicts.items():
        lost = [f"{n}: {e['message']}" for n, e in verdict["exercises"].items() if e["score"] < e["max"]]
        rows.append([student, verdict["score"], " | ".join([*verdict["notes"], *lost]) or "everything asked for holds"])
    return _table(rows)


def as_json(assignment: str, verdicts: Verdicts) -> str:
    """The scores alone, by student."""
    scores = {student: {"score": v["score"], "max": v["max"]} for student, v in verdicts.items()}
    return json.dumps({"assignment": assignment, "students": scores}, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[str, Verdicts], str]] = {
    "csv": as_csv, "canvas": as_canvas, "moodle": as_moodle, "json": as_json,
}  # fmt: skip
