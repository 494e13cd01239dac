"""Files written whole or not at all: a reader, a crash or a full disk never leaves half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE = 600  # seconds without a change: whoever wrote it is gone


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place beside `path` to write to; when the block ends it takes the name, when it fails it is gone.

    The folder is made where it is missing. The old file stays as it was until the new one is on the disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix, suffix = f".{path.name}-", ".part"
    sweep(path.parent, prefix, suffix)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix, suffix=suffix))  # a folder: a writer may use more
    part = aside / path.name
    try:
        part.touch(mode=0o644)
        yield part
        to_disk(part)
        part.chmod(0o644)  # some writers make it private
        os.replace(part, path)
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = os.fspath(path)  # a full disk does not say which file it had no room for
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Make the folder where it is missing; raises OSError, naming it, where nothing could be written into it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = os.fspath(folder)
        raise


def sweep(folder: Path, prefix: str, suffix: str = "") -> None:
    """Remove what killed writers have left in the folder under such names, ten minutes ago or longer."""
    for left in folder.iterdir():
        if left.name.startswith(prefix) and left.name.endswith(suffix):
            with suppress(OSError):  # its writer has just ended, or another sweeps as well
                if max(one.stat().st_mtime for one in (left, *left.iterdir())) < time.time() - STALE:
                    shutil.rmtree(left)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8 with the newlines that it has."""
    with whole(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def to_disk(path: Path) -> None:
    """Wait until a file is on the disk, so that not even a power cut can rename an empty one into place."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
