"""A verdict -> a signed one, and whether a signature is ours: nobody edits a verdict, or hands in an old one, unseen.

HMAC-SHA256 over the student, the lesson, the submission's hash, the grader's version, seeds, isolation, scores and use.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def key_path() -> Path:
    """Where the key lies unless told otherwise: in the user's data folder, outside of every course."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "tinytrans" / "verdicts.key"


def key(path: Path | None = None) -> bytes:
    """The key at `path`, made where there is none yet, readable by its owner alone.

    Raises PermissionError where others may read it.
    """
    path = path or key_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(secrets.token_bytes(32).hex().encode())
    except FileExistsError:
        pass
    if path.stat().st_mode & 0o077:
        raise PermissionError(f"the key {path} is open to others: chmod 600 {path}")
    return bytes.fromhex(path.read_text())


@cache
def version() -> str:
    """The grader's version: a hash of its sources, tables included."""
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob("*.py")):
        digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def signed(verdict: Mapping[str, Any], student: str, assignment: str, secret: bytes) -> dict[str, Any]:
    """The verdict with whom it is about, the grader's version, and a signature over all of it."""
    whole = dict(verdict) | {"student": student, "assignment": assignment, "grader": version()}
    return whole | {"signature": _signature(whole, secret)}


def genuine(verdict: Mapping[str, Any], student: str, assignment: str, secret: bytes) -> bool:
    """Whether the verdict on this student and lesson is as it was signed."""
    rest = {name: value for name, value in verdict.items() if name != "signature"}
    about = (rest.get("student"), rest.get("assignment")) == (student, assignment)
    return about and hmac.compare_digest(str(verdict.get("signature")), _signature(rest, secret))


def _signature(verdict: Mapping[str, Any], secret: bytes) -> str:
    text = json.dumps(verdict, sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(secret, text, hashlib.sha256).hexdigest()
