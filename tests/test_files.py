"""Files are written whole or not at all."""

import errno
import os
import time
from pathlib import Path

import pytest

from tinytrans.files import check_writable, whole, write_whole


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    """A writer that fails in the middle changes nothing."""
    file = tmp_path / "kept.txt"
    write_whole(file, "old")

    def fail() -> None:
        with whole(file) as part:
            part.write_text("half of the n")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    assert file.read_text() == "old"


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """An error of the system that names no file is raised with the name of the one that could not be written."""
    with pytest.raises(OSError, match=r"No space left on device: .*kept\.txt"), whole(tmp_path / "kept.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is made and left empty; a file in its place, and a system that refuses to write, raise OSError."""
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            check_writable(path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "tmp1234"))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(PermissionError) as caught:
        check_writable(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_text_and_bytes_arrive_as_they_are(tmp_path: Path) -> None:
    """Newlines and characters of any script are not translated, and missing folders are made."""
    file = tmp_path / "new" / "folder" / "text"
    write_whole(file, "ä\r\nб\n")
    assert file.read_bytes() == "ä\r\nб\n".encode()
    write_whole(file, b"\x00\xff")
    assert file.read_bytes() == b"\x00\xff"
    assert file.stat().st_mode & 0o777 == 0o644


def test_what_a_killed_writer_left_is_swept_up(tmp_path: Path) -> None:
    """An unfinished part of an hour ago is gone after the next write of its file; what still grows and others' stay."""
    ages = {".text-old.part": 4000, ".text-new.part": 10, ".other-old.part": 4000, "text-x.part": 4000}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").write_bytes(b"half")
        os.utime(tmp_path / name / "text", (time.time() - age,) * 2)
        os.utime(tmp_path / name, (time.time() - 4000,) * 2)
    write_whole(tmp_path / "text", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {".text-new.part", ".other-old.part", "text-x.part", "text"}
