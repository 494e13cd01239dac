"""How a process is confined: a command -> the command that runs it in a box, for each level of isolation.

"bwrap": bubblewrap, every namespace of its own, a minimal read-only file system. "full": the same around one warm
server, and in it again namespaces for every submission. "none": no box, for trusted code. `graders.weaker` has
"container", and "landlock" without namespaces.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graders.confine import call_filter

HERE = Path(__file__).parent
VISIBLE = (
    "__init__.py",
    "wire.py",
    "subject.py",
    "trace.py",
    "confine.py",
    "added.py",
    "player.py",
)  # all of the graders that the box shows
MASKED = ("tinytrans*", "graders*", "solutions*")  # installed packages that hold what a learner is asked for
NOBODY = 65534
NEUTRAL = "/run"  # covered by a private tmpfs before anything is bound there: the host's own is not touched
OLDEST_BWRAP = (0, 8)  # the first with --disable-userns
# torch asks for a folder for temporary files, which has to be writable, and is not in every box: it is told one
BOOT = (
    "import sys, tempfile; tempfile.tempdir = '/tmp'; sys.path[:0] = sys.argv[1].split('|'); del sys.argv[1]; "
    "from graders.player import main; main()"
)


class IsolationError(RuntimeError):
    """The isolation that was asked for cannot be had here; the message says what mends it."""


@dataclass(frozen=True)
class Box:
    """A command that starts the Player, the files that it inherits, and whether the pid namespace is its own."""

    command: tuple[str, ...]
    files: tuple[int, ...] = ()
    alone: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def environment(home: str) -> dict[str, str]:
    """All that a learner's code finds in its environment."""
    names = {
        "PATH": "/usr/bin:/bin",
        "HOME": home,
        "USER": "learner",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TORCHINDUCTOR_CACHE_DIR": home,  # torch makes this folder when it loads: one that is there already
    }
    return names | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TMPDIR": "/tmp", "MPLBACKEND": "Agg"}


def interpreter() -> str:
    """The base interpreter behind a virtual environment, which is started without site: no .pth file is executed."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def base() -> str:
    """The folder of the base interpreter."""
    return os.path.realpath(sys.base_prefix)


def packages() -> list[str]:
    """The folders of installed packages that this interpreter searches, the one that torch comes from among them."""
    known = {*site.getsitepackages(), site.getusersitepackages()}
    known |= {p for p in sys.path if p.endswith(("site-packages", "dist-packages"))}
    return [p for p in dict.fromkeys(os.path.abspath(p) for p in sys.path) if p in known and os.path.isdir(p)]


def missing() -> str | None:
    """What keeps bubblewrap from being used here, and the line that mends it; None where nothing does."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap runs on Linux only: grade in a Linux container or virtual machine (WSL 2 on Windows)"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed: sudo apt install bubblewrap (or dnf, pacman, zypper)"
    said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout.split()
    version = tuple(int(part) for part in said[-1].split(".")[:2]) if said else ()
    if version < OLDEST_BWRAP:
        return f"bubblewrap {'.'.join(map(str, version))} is too old: 0.8 or newer is needed"
    if os.geteuid() == 0 and not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        return "as root, unshare, setpriv and mount are needed: apt install util-linux mount"
    return None


def plain_box(arguments: Sequence[str], home: str) -> Box:
    """No box: the interpreter with a clean environment."""
    search = "|".join([str(HERE.parent), *packages()])
    return Box((interpreter(), "-I", "-S", "-B", "-c", BOOT, search, *arguments), environment=environment(home))


def bwrap_box(arguments: Sequence[str], tmpfs: int, hidden: Sequence[Path] = (), *, warm: bool = False) -> Box:
    """bubblewrap around the Player. `hidden`: folders that must not be seen, even inside of one that is shown.

    A `warm` one may make namespaces: its servers confine themselves before they run a learner's code.
    """
    given = tuple((HERE / name, f"/player/graders/{name}") for name in VISIBLE)
    program = b"" if warm else call_filter()
    return bwrap_around(BOOT, arguments, tmpfs, hidden, search=["/player"], given=given, program=program, warm=warm)


def bwrap_around(
    boot: str, arguments: Sequence[str], tmpfs: int, hidden: Sequence[Path] = (), *, search: Sequence[str],
    given: Sequence[tuple[Path, str]] = (), shown: Sequence[tuple[str, str]] = (),
    shared: Sequence[tuple[str, str]] = (),
    program: bytes = b"", warm: bool = False,
) -> Box:  # fmt: skip
    """bubblewrap around the interpreter, which executes `boot` with the path of its packages and the arguments.

    `given`: (file here, its place in the box); `shown`: the same of folders; `shared`: of those that it may write to.
    """
    binds = _binds()
    places = [inside for _, inside in binds]
    folders = [*binds, *shown]
    if os.geteuid() == 0:
        sources = [f"{NEUTRAL}/player-{i}" for i in range(len(folders))]
    else:
        sources = [outside for outside, _ in folders]
    files = tuple(os.open(path, os.O_RDONLY) for path, _ in given)
    command = ["bwrap", *(_walls(tmpfs) if warm else _last_walls(tmpfs))]
    if program:
        files += (_as_file(program),)
        command += ["--seccomp", str(files[-1])]
    for (_, inside), source in zip(folders, sources, strict=True):
        command += ["--ro-bind", source, inside]
    for path in _masks(binds, hidden):
        command += ["--tmpfs", path, "--remount-ro", path]
    for fd, (_, inside) in zip(files, given, strict=False):
        command += ["--perms", "0444", "--ro-bind-data", str(fd), inside]
    for outside, inside in shared:
        command += ["--bind", outside, inside]
    for name, value in environment("/home/learner").items():
        command += ["--setenv", name, value]
    command += ["--remount-ro", "/", "--chdir", "/home/learner"]  # the root is a tmpfs without a size
    command += ["--", interpreter(), "-I", "-S", "-B", "-c", boot, "|".join([*search, *_search(places)]), *arguments]
    if os.geteuid() == 0:
        command = [*_as_nobody([outside for outside, _ in folders], sources), *command]
    return Box(tuple(command), files, alone=True, environment=environment("/"))


def _binds() -> list[tuple[str, str]]:
    """(folder here, its place in the box): the interpreter at its own place, packages at a neutral one."""
    binds = [] if base() == "/usr" else [(base(), base())]
    for i, folder in enumerate(packages()):
        if not any(Path(folder).is_relative_to(shown) for shown in ("/usr", base())):
            binds.append((folder, f"/packages/{i}"))
    return binds


def _search(shown: Sequence[str]) -> list[str]:
    """Where Python looks for packages in the box."""
    kept = ("/usr", base())
    moved = [place for place in shown if place.startswith("/packages/")]
    return moved + [p for p in packages() if any(Path(p).is_relative_to(place) for place in kept)]


def _as_file(content: bytes) -> int:
    """A descriptor from which this content can be read."""
    fd = os.memfd_create("content")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _last_walls(tmpfs: int) -> list[str]:
    """Walls for what runs a learner's code itself: it makes no namespace, and sees the kernel's settings read-only."""
    return [*_walls(tmpfs), "--disable-userns", "--ro-bind", "/proc/sys", "/proc/sys"]


def _walls(tmpfs: int) -> list[str]:
    """Namespaces, no capability, and a file system of which only the sized tmpfs can be written."""
    walls = ["--unshare-all", "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    walls += ["--cap-drop", "ALL", "--clearenv", "--hostname", "player", "--new-session", "--die-with-parent"]
    walls += ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            walls += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            walls += ["--ro-bind", name, name]
    for path in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/sys/devices/system/cpu"):
        walls += ["--ro-bind-try", path, path]
    walls += ["--proc", "/proc", "--dev", "/dev"]
    walls += ["--remount-ro", "/dev"]  # it is a tmpfs without a size, as the root is
    for path in ("/tmp", "/home/learner", "/dev/shm"):
        walls += ["--size", str(tmpfs), "--tmpfs", path]
    return walls


def _masks(binds: Sequence[tuple[str, str]], hidden: Sequence[Path]) -> list[str]:
    """The places in the box that get an empty folder put over them."""
    found: list[str] = []
    both = [*binds, ("/usr", "/usr")]
    for folder in packages():
        hidden = [*hidden, *(p for pattern in MASKED for p in Path(folder).glob(pattern) if p.is_dir())]
    for path in dict.fromkeys(p.resolve() for p in hidden):
        for outside, inside in both:
            if path.is_relative_to(outside) and path != Path(outside):
                found.append(str(Path(inside) / path.relative_to(outside)))
    return found


def _as_nobody(folders: Sequence[str], places: Sequence[str]) -> list[str]:
    """The prefix that root needs: a box made by uid 0 is none, since files of the kernel still see uid 0 behind it.

    In a mount namespace of its own the folders, which may lie under a closed home, are bound to places that anyone may
    read; then the user changes, and only then does bubblewrap run.
    """
    script = f"mount -t tmpfs -o mode=0755,size=1m tmpfs {NEUTRAL}\n"
    script += 'while [ "$1" != "--" ]; do mkdir "$2" && mount --bind "$1" "$2" || exit 1; shift 2; done; shift\n'
    script += f"exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --inh-caps=-all --bounding-set=-all"
    script += ' -- "$@"\n'
    pairs = [part for pair in zip(folders, places, strict=True) for part in pair]
    return ["unshare", "--mount", "--propagation", "private", "--", "sh", "-e", "-c", script, "sh", *pairs, "--"]
