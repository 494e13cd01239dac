"""An append-only file of verdicts: a run that was killed goes on where it was, and grades nothing twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """The verdicts of one run, a line each, on the disk before they count. Use it in a `with` block.

    `run` tells what a verdict depends on beside the submission: those of another run, or of one that was finished, are
    not taken over.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.run = run
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.done: dict[tuple[str, str], dict[str, Any]] = {}
        content = path.read_bytes()
        for line in content.split(b"\n"):
            self._read(line)
        if content and not content.endswith(b"\n"):  # the last line was cut off when its run was killed
            os.write(self._file, b"\n")

    def _read(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if entry["finished"]:
                self.done.clear()
            elif entry["run"] == self.run:
                self.done[entry["student"], entry["verdict"]["submission"]] = entry["verdict"]
        except (ValueError, KeyError, TypeError):  # cut off
            return

    def write(self, student: str, verdict: dict[str, Any]) -> None:
        """Keep a verdict."""
        self.done[student, verdict["submission"]] = verdict
        self._append({"finished": False, "run": self.run, "student": student, "verdict": verdict})

    def finish(self) -> None:
        """The run is complete: the next one starts afresh."""
        self._append({"finished": True})

    def _append(self, entry: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        os.fsync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
