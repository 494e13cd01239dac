"""The command `graders`: submissions in, verdicts, gradebook and pages out; nothing that a student wrote stops it."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest
from boxes import needs_box
from tiny_course import NAME, POINTS, submit

from graders import __main__, levels
from graders.__main__ import main
from graders.collect import collect, student_id
from graders.fleet import rebuilt
from graders.levels import IsolationError
from graders.release import load

WRONG = {"double": "def double(x):\n    return x * x", "why": "why = None"}


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Submissions in both shapes, broken ones among them."""
    made = tmp_path_factory.mktemp("submissions")
    submit(tiny, made / "ann" / NAME / f"{NAME}.ipynb")
    submit(tiny, made / "bob.ipynb", WRONG)
    (made / "cut.ipynb").write_text('{"cells": [')
    (made / "dan").mkdir()
    (made / "eve.ipynb").symlink_to("/etc/passwd")
    (made / ".hidden.ipynb").write_text("")
    (made / "notes.txt").write_text("")
    return made


@needs_box
def test_autograde(tiny: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """autograde grades every submission, prints one JSON object, and writes verdicts, gradebook and pages."""
    out = tmp_path / "out"
    command = [
        "autograde",
        "--course",
        str(tiny),
        "--assignment",
        NAME,
        "--submissions",
        str(folder),
        "--out",
        str(out),
    ]
    assert main([*command, "--json", "--feedback", "--seed", "7", "--seed", "8"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["assignment"], printed["isolation"]) == (NAME, "full")
    students = printed["students"]
    assert {s: (v["score"], v["max"]) for s, v in students.items()} == {
        "ann": (8, 8),
        "bob": (4, 8),
        "cut": (0, 8),
        "dan": (0, 8),
        "eve": (0, 8),
    }
    assert set(students["ann"]) == {"score", "max", "exercises", "notes"}
    assert students["ann"]["exercises"]["double"] == {
        "score": 3,
        "max": 3,
        "mistake": None,
        "message": "everything asked for holds",
    }
    assert students["bob"]["exercises"]["double"]["mistake"] == "squared"
    assert students["bob"]["exercises"]["why"]["message"].startswith("not answered yet")
    assert "no such file" in students["dan"]["notes"][0]
    assert "root:" not in json.dumps(printed)
    written = json.loads((out / "verdicts.json").read_text())["students"]
    assert (written["ann"]["isolation"], written["ann"]["seeds"]) == ("full", [7, 8])
    assert {name: e["max"] for name, e in written["bob"]["exercises"].items()} == POINTS
    assert (out / "gradebook.db").is_file()
    assert "you multiplied x by itself" in (out / "feedback" / "bob" / NAME / f"{NAME}.html").read_text()


@needs_box
def test_check(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """check prints a learner's own report."""
    path = submit(tiny, tmp_path / f"{NAME}.ipynb", WRONG)
    assert main(["check", "--course", str(tiny), str(path)]) == 0
    said = capsys.readouterr().out
    assert "✗ double: 0 of 3 points\n  you multiplied x by itself" in said
    assert said.endswith("tiny: 4 of 8 points\n")


def test_without_a_box(
    tiny: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without bubblewrap autograde refuses and says what to install, and nothing of a submission runs."""
    monkeypatch.setattr(levels.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr("graders.selftest._open", {})
    command = [
        "autograde",
        "--course",
        str(tiny),
        "--assignment",
        NAME,
        "--submissions",
        str(folder),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(command) == 1
    assert "apt install bubblewrap" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_trust(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--trust grades without isolation, and every verdict says so."""
    monkeypatch.setattr(levels.shutil, "which", lambda *_, **__: None)
    submit(tiny, tmp_path / "in" / "ann.ipynb")
    command = [
        "autograde",
        "--course",
        str(tiny),
        "--assignment",
        NAME,
        "--submissions",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--trust", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["isolation"], printed["students"]["ann"]["score"]) == ("none", 8)
    assert json.loads((tmp_path / "out" / "verdicts.json").read_text())["students"]["ann"]["isolation"] == "none"


@pytest.mark.parametrize(
    "arguments", [["--assignment", "none", "--submissions", "."], ["--assignment", NAME, "--submissions", "none"]]
)
def test_what_is_not_there(
    tiny: Path, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A lesson or a folder that does not exist is one sentence on stderr."""
    assert main(["autograde", "--course", str(tiny), *arguments, "--trust", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("graders: there is no ")


@pytest.mark.parametrize("command", ["export", "report"])
def test_what_was_not_graded(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing was graded yet, one sentence says what to run first."""
    assert main([command, "--out", str(tmp_path)]) == 1
    assert "`graders autograde --out" in capsys.readouterr().err


def test_collect(folder: Path, tmp_path: Path) -> None:
    """Both shapes are found; hidden entries, other files and links to folders are not."""
    found = collect(folder, NAME)
    assert list(found) == ["ann", "bob", "cut", "dan", "eve"]
    (tmp_path / "fay").symlink_to(folder / "ann")
    (tmp_path / "gus").mkdir()
    (tmp_path / "gus" / NAME).symlink_to(folder / "ann" / NAME)
    assert collect(tmp_path, NAME) == {"gus": tmp_path / "gus" / NAME}


def test_ids_of_odd_names() -> None:
    """Names that differ are never one ID, and each has the same ID in a class and alone; usual names stay."""
    names = [
        "ann",
        "Ann",
        "a<b",
        "a>b",
        "a_b",
        "a\nb",
        "é",
        "e\u0301",
        "\udc80",
        "x" * 200,
        "x" * 201,
        "<script>",
        "\x1b[2J",
    ]
    ids = [student_id(name, names) for name in names]
    assert len(set(ids)) == len(set(names))
    assert ids == [student_id(name, [name]) for name in names]
    assert [ids[names.index(name)] for name in ("ann", "Ann", "a_b", "é")] == ["ann", "Ann", "a_b", "é"]
    assert all(re.fullmatch(r"[\w-]{1,100}", one) for one in ids)
    long = ["<" * 300, "x" * 101, "é" * 99]
    assert [student_id(one, []) for one in ids] == ids, "an ID is its own"
    again = [student_id(one, long) for one in long]
    assert [student_id(one, []) for one in again] == again
    assert max(map(len, again)) <= 100
    taken = student_id("a<b", [])
    assert student_id("a<b", [taken]) != taken  # who calls a folder so takes nobody's place


ODD_FILES = ("fifo", "socket", "folder", "sparse", "linked")


def test_what_is_no_file_in_the_inbox(folder: Path, tiny: Path, tmp_path: Path) -> None:
    """A pipe, a socket, a folder, a hole of 100 GB and a hard link are each read or noted, and hold nothing up."""
    for name in ODD_FILES:
        (tmp_path / name / NAME).mkdir(parents=True)
    path = {name: tmp_path / name / NAME / f"{NAME}.ipynb" for name in ODD_FILES}
    os.mkfifo(path["fifo"])
    with socket.socket(socket.AF_UNIX) as door:
        monkey = os.getcwd()
        os.chdir(path["socket"].parent)  # its path may be longer than a socket's may be
        door.bind(path["socket"].name)
        os.chdir(monkey)
    path["folder"].mkdir()
    with path["sparse"].open("wb") as file:
        file.truncate(100 << 30)
    os.link(folder / "ann" / NAME / f"{NAME}.ipynb", path["linked"])
    release = load(tiny / "course" / NAME / f"{NAME}.ipynb")
    read = rebuilt(release, collect(tmp_path, NAME))
    assert {name: one.readable for name, one in read.items()} == dict.fromkeys(ODD_FILES, False) | {"linked": True}


def test_doctor(tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """doctor names what is missing and the line that mends it, and returns 1."""
    monkeypatch.setattr(levels.shutil, "which", lambda *_, **__: None)
    assert main(["doctor", "--course", str(tiny)]) == 1
    said = capsys.readouterr().out
    assert "✗ level full: bubblewrap is not installed: sudo apt install bubblewrap" in said
    assert "✗ level container: neither podman nor docker is installed: sudo apt install podman" in said
    assert "✓ 1 released lessons" in said


def test_isolation_error_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A box that does not hold stops the command with the reason."""

    def refuse(_: object) -> int:
        raise IsolationError("level 'bwrap' does not hold here")

    monkeypatch.setattr(__main__, "run_doctor", refuse)
    assert main(["doctor"]) == 1
    assert "does not hold" in capsys.readouterr().err
