"""A submitted file -> the sources of its solution cells, and notes on what was odd. Executes nothing, never fails.

Only text crosses: the source of a cell whose `grade_id` the release calls a solution, in code or in words. Roles,
points, order, outputs, ids, kernel and all other cells come from the release. The sources are not even parsed here,
where a deep nest of brackets could hurt: the Player does that.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from graders.release import Release

MAX_FILE = 10 << 20  # bytes
MAX_CELLS = 5_000
MAX_SOURCE = 100_000  # characters of one cell
MAX_NODES = 1_000_000  # brackets and braces: even an empty list takes 56 bytes
UNSEEN = frozenset("\u061c\u200b\u200e\u200f\u2060\ufeff") | {
    chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class UnreadableError(Exception):
    """The file is no notebook; the message says why."""


@dataclass(frozen=True)
class Submission:
    """What a submitted file holds: sources by grade_id, notes by grade_id, and notes on the file as a whole.

    `added`: the sources of other code cells by the grade_id of the answer that they stand behind, "" before the first.
    """

    sources: dict[str, str] = field(default_factory=dict)
    cell_notes: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    readable: bool = True
    added: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digest: str = field(default="", compare=False)  # SHA-256 of the file, where it could be read; says who, not what


def rebuild(release: Release, path: Path) -> Submission:
    """The submission at `path`. A file that is no notebook gives one without sources, whose note says why."""
    digest = ""
    try:
        content = _bytes(path)
        digest = hashlib.sha256(content).hexdigest()
        cells, notes = _cells(_json(content))
    except UnreadableError as error:
        return Submission(notes=(f"the file could not be graded: {error}",), readable=False, digest=digest)
    return replace(_matched(release, cells, notes), digest=digest)


def rebuilt_notebook(release: Release, sources: Mapping[str, str]) -> NotebookNode:
    """The release's own notebook, with these sources in its solution cells and no outputs."""
    notebook = copy.deepcopy(release.notebook)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        if grade_id in release.answers and grade_id in sources:
            cell.source = sources[grade_id]
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _bytes(path: Path) -> bytes:
    """The content of a regular file of a bearable size; a link is not followed, a pipe not waited for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else (error.strerror or "it cannot be opened").lower()
        raise UnreadableError(reason) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnreadableError("it is no regular file")
    with open(fd, "rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise UnreadableError(f"it is larger than {MAX_FILE >> 20} MB: clear its outputs and save it again")
    return content


def _json(content: bytes) -> tuple[Any, bool]:
    """(the JSON document, whether some object repeats a key; the last one counts, as it does for Jupyter)."""
    repeated = False

    def as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        found = dict(pairs)
        repeated = repeated or len(found) < len(pairs)
        return found

    if content.count(b"[") + content.count(b"{") > MAX_NODES:
        raise UnreadableError(f"it holds more than {MAX_NODES} lists and objects: clear its outputs and save it again")
    try:
        text = content.decode("utf-8-sig")
        # numbers stay text: nothing here needs them, and one of a million digits would take long
        document = json.loads(text, object_pairs_hook=as_dict, parse_int=str, parse_float=str, parse_constant=str)
        return document, repeated
    except UnicodeDecodeError as error:
        raise UnreadableError(f"it is not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise UnreadableError(
            f"it is no valid JSON (line {error.lineno}): was it cut off or edited by hand?"
        ) from error
    except (RecursionError, ValueError, MemoryError) as error:
        raise UnreadableError("its JSON is nested too deeply") from error


def _cells(document: tuple[Any, bool]) -> tuple[list[dict[str, Any]], list[str]]:
    """The entries of its list of cells that are objects, and what to note."""
    notebook, repeated = document
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise UnreadableError("it has no list of cells: is it a notebook of version 4?")
    if len(cells) > MAX_CELLS:
        raise UnreadableError(f"it has {len(cells)} cells; at most {MAX_CELLS} are read")
    notes = ["the file repeats a key within one of its objects; the last value counted"] if repeated else []
    good = [cell for cell in cells if isinstance(cell, dict)]
    if len(good) < len(cells):
        notes.append(f"{len(cells) - len(good)} entries in its list of cells are no cells")
    return good, notes


def _grade_id(cell: Mapping[str, Any]) -> str | None:
    for key in ("metadata", "nbgrader"):
        cell = cell.get(key, {})
        if not isinstance(cell, dict):
            return None
    found = cell.get("grade_id")
    return found if isinstance(found, str) else None


def _source(cell: Mapping[str, Any]) -> str | None:
    """The text of a cell, which Jupyter writes as a string or a list of lines; None where it is neither, or long."""
    source = cell.get("source")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str) or len(source) > MAX_SOURCE:
        return None
    source = source.removeprefix("\ufeff").replace("\r\n", "\n")
    return source.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _matched(release: Release, cells: Sequence[Mapping[str, Any]], notes: list[str]) -> Submission:
    sources, cell_notes = {}, {}
    for grade_id, stub in release.answers.items():
        source, note = choose([cell for cell in cells if _grade_id(cell) == grade_id], stub)
        if source is not None:
            sources[grade_id] = source
        if note:
            cell_notes[grade_id] = note
    added, extra = _added(release, cells)
    if extra:
        cells_were = "1 cell" if extra == 1 else f"{extra} cells"
        what = "of them an answer has the functions, classes and imports that it names; nothing else is executed"
        notes.append(f"{cells_were} beside the answer cells, added or changed: {what}")
    return Submission(sources, cell_notes, tuple(notes), added=added)


def _added(release: Release, cells: Sequence[Mapping[str, Any]]) -> tuple[dict[str, tuple[str, ...]], int]:
    """(sources of code cells that are no answers, by the answer that they stand behind; how many such cells)."""
    handed_out = {cell.source.strip() for cell in release.notebook.cells} | {""}
    found: dict[str, tuple[str, ...]] = {}
    behind, count, room = "", 0, MAX_SOURCE
    for cell in cells:
        if (grade_id := _grade_id(cell)) in release.answers:
            behind = str(grade_id)
        elif cell.get("cell_type") == "code":
            source = _source(cell)
            if source is None or source.strip() not in handed_out:
                count += 1
            if source and source.strip() not in handed_out and len(source) <= room:
                room -= len(source)
                found[behind] = (*found.get(behind, ()), source)
    return found, count


def choose(cells: Sequence[Mapping[str, Any]], stub: str) -> tuple[str | None, str | None]:
    """Of the cells with one grade_id: (the source that counts, a note where anything was odd).

    Where a cell was duplicated, or split in two, all that was written counts, in its order: as a notebook runs it.
    """
    if not cells:
        return None, "its cell is missing from the notebook"
    sources = [source for source in map(_source, cells) if source is not None]
    if not sources:
        return None, f"its cell holds no text, or more than {MAX_SOURCE} characters"
    changed = [source for source in sources if source.strip() != stub.strip()]
    source = "\n\n".join(dict.fromkeys(changed)) or sources[0]
    if len(source) > MAX_SOURCE:
        source = changed[0]
    if len(cells) > 1:
        return source, f"its cell occurs {len(cells)} times; what was written in them counts together, in its order"
    return source, unseen(source)


def unseen(source: str) -> str | None:
    """A note on characters that show a text otherwise than Python reads it (Boucher and Anderson 2021); None: none."""
    found = sorted({f"U+{ord(c):04X}" for c in UNSEEN.intersection(source)})
    return f"its text holds characters that are not seen and may mislead: {', '.join(found)}" if found else None
