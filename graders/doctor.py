"""What grading needs on this machine: what is there, what is missing, and the line that mends it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from graders.levels import missing
from graders.sandbox import IsolationError
from graders.selftest import strongest

MEND_NAMESPACES = (
    "Ubuntu 24.04 and later forbid it by AppArmor: allow it for bwrap with `sudo apt install apparmor-profiles`, "
    "`sudo ln -s /usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/` and "
    "`sudo systemctl reload apparmor`; in a container, grade outside of it or give it --security-opt seccomp=unconfined"
)


def examine(root: Path) -> Iterator[tuple[bool, str]]:
    """(good, sentence) for each thing that grading needs."""
    for package in ("torch", "nbformat", "nbgrader"):
        try:
            yield True, f"{package} {version(package)}"
        except PackageNotFoundError:
            yield False, f'{package} is not installed: pip install -e ".[course]"'
    yield _alembic()
    releases = sorted(p.parent.name for p in root.glob("course/*/*.ipynb") if p.stem == p.parent.name)
    yield bool(releases), f"{len(releases)} released lessons" if releases else "no released lessons: make course"
    yield from _box(root)


def _alembic() -> tuple[bool, str]:
    found = shutil.which(
        "alembic", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    mend = "alembic, which nbgrader runs, is not installed: pip install alembic"
    return bool(found), "alembic" if found else mend


def _box(root: Path) -> Iterator[tuple[bool, str]]:
    if why := missing():
        yield False, why
        return
    try:
        level, complaints = strongest(root)
    except IsolationError as error:
        yield False, f"{error}. {MEND_NAMESPACES}"
        return
    yield True, "; ".join([f"level {level} holds (tried)", *complaints])
