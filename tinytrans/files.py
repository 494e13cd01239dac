"""Files written whole or not at all: a reader, a crash or a full disk never leaves half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE = 3600  # seconds: no file takes so long to write


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place beside `path` to write to; when the block ends it takes the name, when it fails it is gone.

    The folder is made where it is missing. The old file stays as it was until the new one is on the disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, f".{path.name}-", ".part")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        to_disk(part)
        part.chmod(0o644)  # mkstemp makes it private
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sweep(folder: Path, prefix: str, suffix: str) -> None:
    """Remove what a killed writer has left in the folder under such a name, an hour ago or longer: nobody writes it."""
    for left in folder.iterdir():
        if left.name.startswith(prefix) and left.name.endswith(suffix):
            with suppress(OSError):  # another sweeps as well, or its writer has just ended
                if left.lstat().st_mtime < time.time() - STALE:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8 with the newlines that it has."""
    with whole(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def to_disk(path: Path) -> None:
    """Wait until a file is on the disk, so that not even a power cut can rename an empty one into place."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
