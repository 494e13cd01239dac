"""What grading needs on this machine: what is there, what is missing, and the line that mends it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from graders.levels import NOBODY, IsolationError, interpreter, missing
from graders.selftest import STRONG, opened
from graders.warm import WEAKER
from graders.weaker import closed, missing_container, missing_landlock

UBUNTU = (
    "AppArmor keeps programs from making user namespaces (Ubuntu 23.10 and later): allow it to bwrap with "
    "`sudo apt install apparmor-profiles`, `sudo ln -s /usr/share/apparmor/extra-profiles/bwrap-userns-restrict "
    "/etc/apparmor.d/` and `sudo systemctl reload apparmor`"
)
# a file below /proc/sys, the value that forbids user namespaces, what mends it
SETTINGS = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", UBUNTU),
    ("kernel/unprivileged_userns_clone", "0", "`sudo sysctl -w kernel.unprivileged_userns_clone=1`"),
    ("user/max_user_namespaces", "0", "`sudo sysctl -w user.max_user_namespaces=15000`"),
)
IN_A_CONTAINER = (
    "inside of a container: grade outside of it, or start it, not as root, with `--security-opt seccomp=unconfined` "
    "and `--security-opt systempaths=unconfined` (Podman: `unmask=ALL`)"
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
    if missing() is None:
        yield True, "a kernel in a sandbox for plain nbgrader can be installed: python -m graders.provisioner"


def _alembic() -> tuple[bool, str]:
    found = shutil.which(
        "alembic", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    mend = "alembic, which nbgrader runs, is not installed: pip install alembic"
    return bool(found), "alembic" if found else mend


def mends(settings: Path = Path("/proc/sys")) -> list[str]:
    """What lets bubblewrap make namespaces where this kernel's settings forbid it."""
    found = [mend for name, bad, mend in SETTINGS if _read(settings / name) == bad]
    return found or [IN_A_CONTAINER]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _box(root: Path) -> Iterator[tuple[bool, str]]:
    """Each level from the strongest on, tried, until one holds."""
    lacking = {"full": missing(), "bwrap": missing(), "container": missing_container(), "landlock": missing_landlock()}
    if os.geteuid() == 0:
        yield True, f"run by root: submitted code runs as user {NOBODY}, nobody{_bound()}"
    for level in STRONG:
        why = lacking[level] or _fails(level, root)
        if not why:
            yield True, f"level {level} holds (tried)"
            return
        yield False, f"level {level}: {why}"
    why = lacking["landlock"] or _fails("landlock", root)
    yield False, why or "level landlock, which is weaker, holds (tried): graders autograde --accept-weaker"


def _fails(level: str, root: Path) -> str:
    """Why a level does not hold, and what mends it; nothing where it holds."""
    try:
        opened(level, root)
    except IsolationError as error:
        return str(error) if level in WEAKER else f"{error}. {'; '.join(mends())}"
    return ""


def _bound() -> str:
    shut = closed(Path(interpreter()))
    return f"; Python lies in {shut}, which is closed to others, and is shown to it from elsewhere" if shut else ""
