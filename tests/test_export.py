"""Exports: what a spreadsheet or a platform reads is data, whatever a student is called or wrote."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from graders.__main__ import main
from graders.export import FORMATS, inert
from graders.summary import histogram, summary

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1", "%0A=1", "|x"]


def verdict(score: int, mistake: str | None = None, note: str = "") -> dict[str, Any]:
    """A verdict on one exercise of two points."""
    exercises = {"double": {"score": score, "max": 2, "mistake": mistake, "message": "=HYPERLINK(1)"}}
    return {"score": score, "max": 2, "exercises": exercises, "notes": [note] if note else []}


VERDICTS = {"ann": verdict(2), '=cmd|"x"!A1': verdict(1, "squared", "=1"), 'bob, "b"\n': verdict(0, "squared")}


@pytest.mark.parametrize("text", FORMULAS)
def test_no_formula(text: str) -> None:
    """Text that a spreadsheet would execute begins with an apostrophe and holds no line break."""
    cell = str(inert(text))
    assert cell[0] == "'"
    assert not set("\t\r\n") & set(cell)


@pytest.mark.parametrize("name", ["csv", "canvas", "moodle"])
def test_tables(name: str) -> None:
    """Every cell is a number or inert text, and every row is as long as the first."""
    rows = list(csv.reader(io.StringIO(FORMATS[name]("tiny", VERDICTS)), strict=True))
    assert len({len(row) for row in rows}) == 1
    assert not [cell for row in rows for cell in row if cell.lstrip()[:1] in set("=+-@|%")]
    assert len(rows) == 4 + (name == "canvas")


def test_what_the_platforms_ask_for() -> None:
    """Canvas finds its columns and the points possible, Moodle its username and feedback."""
    canvas = list(csv.reader(io.StringIO(FORMATS["canvas"]("tiny", VERDICTS))))
    assert canvas[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "tiny"]
    assert (canvas[1][0].strip(), canvas[1][-1]) == ("Points Possible", "2")
    assert canvas[2] == ["ann", "", "", "ann", "", "2"]
    moodle = list(csv.reader(io.StringIO(FORMATS["moodle"]("tiny", VERDICTS))))
    assert moodle[0] == ["username", "tiny", "tiny (feedback)"]
    assert moodle[2][1:] == ["1", "'=1 | double: =HYPERLINK(1)"]
    assert json.loads(FORMATS["json"]("tiny", VERDICTS))["students"]["ann"] == {"score": 2, "max": 2}


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the verdicts of an earlier run."""
    (tmp_path / "verdicts.json").write_text(json.dumps({"assignment": "tiny", "students": VERDICTS}))
    assert main(["export", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith('"student","assignment","score","max","double","mistakes","notes"')


def test_summary() -> None:
    """The summary counts mistakes and notes, and its histogram every student once."""
    said = summary("tiny", VERDICTS, "full")
    assert "     2 x double: squared" in said
    assert said.endswith("tiny: 3 submissions at level full")
    assert sum(int(row.split("%")[1].split()[0]) for row in histogram(VERDICTS)[1:]) == 3
    assert summary("tiny", {}, "full").endswith("0 submissions at level full")
