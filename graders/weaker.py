"""Boxes for machines where bubblewrap cannot run: Landlock and seccomp without namespaces, and a container.

Both keep one Player for many submissions, since nothing in them can be written: a submission finds nothing of the one
before. `graders.selftest` decides whether they hold here.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from graders.confine import OLDEST_LANDLOCK, call_filter, landlock_version
from graders.levels import BOOT, HERE, MASKED, NOBODY, VISIBLE, Box, IsolationError, environment, interpreter, packages
from graders.levels import base as base_folder
from graders.sandbox import LIMITS, Limits, Sandbox
from graders.watch import Watch, alive_below, state

SYSTEM: tuple[str, ...] = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
SYSTEM += ("/etc/localtime", "/sys/devices/system/cpu")
PATIENT = 30.0  # seconds until a swarm has ended on a machine that is busy
ENGINES = ("podman", "docker")
IMAGE = "docker.io/library/debian:stable-slim"  # any with /bin, /lib and /lib64 as links into /usr: that is the host's
_CREDENTIALS = struct.Struct("3i")


def missing_landlock() -> str | None:
    """What keeps the level "landlock" from being had here; None where nothing does."""
    if landlock_version() < OLDEST_LANDLOCK:
        return f"Landlock {OLDEST_LANDLOCK} is needed (Linux 6.2), this kernel has {landlock_version() or 'none'}"
    return None if call_filter() else "no filter of system calls is known for this kind of processor"


def apart(place: Path, masked: Sequence[Path]) -> list[Path]:
    """The fewest places that hold all of `place` but what is masked: Landlock allows, and cannot take back.

    A folder with a masked one in it is then no place of its own: its files can be opened, and not listed.
    """
    real = place.resolve()
    inside = [path for path in masked if path.is_relative_to(real)]
    if not inside:
        return [real]
    return [] if real in inside else [found for entry in sorted(real.iterdir()) for found in apart(entry, inside)]


def masked(hidden: Sequence[Path]) -> list[Path]:
    """What must not be read: these folders, and installed packages that hold what a learner is asked for."""
    found = [path for folder in packages() for pattern in MASKED for path in Path(folder).glob(pattern)]
    return [path.resolve() for path in (*hidden, *found)]


class Lonely(Sandbox):
    """A Player at level "landlock": no file to write, no socket, no signal to others; names of files can be seen."""

    def __init__(self, *, limits: Limits = LIMITS, hidden: Sequence[Path] = ()) -> None:
        if why := missing_landlock():
            raise IsolationError(why)
        self.level, self.limits, self.hidden = "landlock", limits, tuple(hidden)
        self._home, self._child, self._watch = None, None, None
        self._start()

    def _box(self, theirs: socket.socket) -> Box:
        self._home = tempfile.mkdtemp(prefix="player-")
        os.chmod(self._home, 0o755)
        (Path(self._home) / "graders").mkdir()
        for name in VISIBLE:
            shutil.copy(HERE / name, Path(self._home) / "graders" / name)
        places = [Path(p) for p in (*SYSTEM, base_folder(), *packages(), self._home) if os.path.exists(p)]
        found = [str(p) for place in places for p in apart(place, masked(self.hidden))]
        (Path(self._home) / "places").write_text("\n".join(dict.fromkeys(found)))
        search = "|".join([self._home, *packages()])
        command = [interpreter(), "-I", "-S", "-B", "-c", BOOT, search]
        command += [str(theirs.fileno()), "landlock", f"{self._home}/places"]
        if os.geteuid() == 0:
            command = [*as_nobody([base_folder(), *packages(), self._home]), *command]
        return Box(tuple(command), environment=environment(self._home))

    def _start(self) -> None:
        super()._start()
        forget(self._home)

    def clear(self) -> bool:
        """Kill every process but the server: without a namespace none ends by itself. False where one lives on."""
        return self._end_all() and super().clear()

    def close(self) -> None:
        """Kill all of it while orphans still belong to the server, then the server, and remove what it read."""
        self._end_all()
        super().close()

    def _kill(self) -> None:
        self._end_all()
        super()._kill()

    def _end_all(self) -> bool:
        """Whether no process is left. All are stopped first: of a swarm that is killed singly, the others fork on."""
        until = time.monotonic() + max(self.limits.server, PATIENT)
        while (alive := alive_below(self.process.pid)) and time.monotonic() < until:
            running = [pid for pid in alive if state(pid) != "T"]  # one in the midst of a fork stops after it
            _signal(running or alive, signal.SIGSTOP if running else signal.SIGKILL)
            time.sleep(0.01)
        return not alive


def forget(folder: str | None) -> None:
    """Remove what a Player that has started has read, and needs no more: so kill -9 of the grader leaves no folder."""
    shutil.rmtree(str(folder), ignore_errors=True)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def as_nobody(folders: Sequence[str]) -> list[str]:
    """The prefix with which root starts a process as nobody that can read these folders, under closed homes too."""
    change = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    change += ["--bounding-set=-all", "--"]
    shut = sorted({found for folder in folders if (found := closed(Path(folder)))})
    if not shut:
        return change
    script = "mount -t tmpfs -o mode=0755,size=1m tmpfs /run; i=0\n"
    script += 'while [ "$1" != "--" ]; do mount_over="$mount_over $1"; shift; done; shift; n=0\n'
    script += 'for f; do [ "$f" = "--" ] && break; mkdir /run/$n; mount --bind "$f" /run/$n; n=$((n+1)); done\n'
    script += "for c in $mount_over; do mount -t tmpfs -o mode=0755,size=1m tmpfs $c; done; n=0\n"
    script += 'while [ "$1" != "--" ]; do mkdir -p "$1"; mount --bind /run/$n "$1"; n=$((n+1)); shift; done; shift\n'
    script += 'exec "$@"'
    start = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-e", "-c", script, "sh"]
    return [*start, *map(str, shut), "--", *folders, "--", *change]


def closed(folder: Path) -> Path | None:
    """The topmost folder on the way that others may not pass."""
    way = [*reversed(folder.resolve().parents), folder.resolve()]
    return next((place for place in way[1:] if not place.stat().st_mode & 0o001), None)


def image() -> str:
    """The image that containers start from."""
    return os.environ.get("TINYTRANS_IMAGE", IMAGE)


def engine() -> str | None:
    """The program that runs containers here: of those that are installed the first that has the image, if any."""
    return next((name for name in ENGINES if shutil.which(name) and _lacks_image(name) is None), None)


def missing_container() -> str | None:
    """What keeps the level "container" from being had here; None where nothing does."""
    if not sys.platform.startswith("linux"):
        return "a container is given this machine's own Python and packages, which are none of Linux's: grade in Linux"
    installed = [name for name in ENGINES if shutil.which(name)]
    if not installed:
        return "neither podman nor docker is installed: sudo apt install podman"
    found = [_lacks_image(name) for name in installed]
    return None if None in found else found[0]


def _lacks_image(program: str) -> str | None:
    """Why this program cannot start a container from the image; None where it can."""
    try:
        asked = [program, "image", "inspect", image()]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not answer: {error}"
    if done.returncode == 0:
        return None
    said = (done.stderr.strip().split("\n") or [""])[-1]
    return f"{program} has no image to start from ({said}): {program} pull {image()}"


def container_command(program: str, name: str, folder: str, limits: Limits, hidden: Sequence[Path] = ()) -> list[str]:
    """The command line of a container with this name: nothing to write, no network, no right, the Player's folder."""
    command = [program, "run", "--rm", "--name", name, "--pull=never", "--network=none", "--read-only"]
    if Path(program).name == "podman":  # it puts a tmpfs over /tmp and others, which would outlive a submission
        command += ["--read-only-tmpfs=false"]
    command += ["--cap-drop=ALL", "--security-opt=no-new-privileges", f"--user={NOBODY}:{NOBODY}", "--ipc=private"]
    command += [f"--pids-limit={limits.processes + 8}", f"--memory={limits.together}"]
    command += [f"--memory-swap={limits.together}", "--hostname=player", "--workdir=/"]
    command += [f"--mount=type=tmpfs,destination=/dev/{one},tmpfs-mode=0555" for one in ("shm", "mqueue")]
    shown = [("/usr", "/usr"), *((place, place) for place in [base_folder()] if place != "/usr")]
    shown += [(place, f"/packages/{i}") for i, place in enumerate(packages())]
    for outside, inside in [*shown, (folder, "/player")]:
        command += [f"--volume={outside}:{inside}:ro"]
    for path in masked(hidden):
        real = [(Path(outside).resolve(), inside) for outside, inside in shown]
        places = [f"{inside}/{path.relative_to(o)}" for o, inside in real if path.is_relative_to(o)]
        command += [f"--mount=type=tmpfs,destination={p},tmpfs-mode=0555" for p in places if path.is_dir()]
    for variable, value in environment("/").items():
        command += [f"--env={variable}={value}"]
    search = "|".join(["/player", *(f"/packages/{i}" for i in range(len(packages())))])
    command += [image(), interpreter(), "-I", "-S", "-B", "-c", BOOT, search]
    return [*command, "/player/socket", "container", "alone"]


class Container(Sandbox):
    """A Player in a container of Podman's or Docker's, at level "container"."""

    def __init__(self, *, limits: Limits = LIMITS, hidden: Sequence[Path] = ()) -> None:
        if why := missing_container():
            raise IsolationError(why)
        self.level, self.limits, self.hidden = "container", limits, tuple(hidden)
        self._home, self._child, self._watch = None, None, None
        self.program = str(engine())
        self._start()

    def _start(self) -> None:
        self.name = f"player-{secrets.token_hex(8)}"
        self._home = tempfile.mkdtemp(prefix="player-")  # closed: only the engine passes through it
        shown = Path(self._home) / "player"
        (shown / "graders").mkdir(parents=True)
        for name in VISIBLE:
            shutil.copy(HERE / name, shown / "graders" / name)
        for path in (shown, *shown.rglob("*")):  # nobody reads them, whatever this process's umask is
            path.chmod(0o755 if path.is_dir() else 0o644)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(f"{shown}/socket")
            os.chmod(f"{shown}/socket", 0o666)
            door.listen(1)
            self.process = subprocess.Popen(
                container_command(self.program, self.name, str(shown), self.limits, self.hidden),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True,
                cwd=self._home,  # where Podman writes a file when memory ran out
            )  # fmt: skip
            self.control = self._entered(door)
        if not self._answers(self.limits.start):
            said = self._complaint()
            self.close()
            raise IsolationError(f"the Player did not start at level 'container': {said}")
        forget(self._home)
        self._watched()

    def _entered(self, door: socket.socket) -> socket.socket:
        """The connection of the Player; one that leads nowhere where none comes in time, or the engine gives up."""
        until = time.monotonic() + self.limits.start
        door.settimeout(0.2)
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(TimeoutError):
                return door.accept()[0]
        return socket.socket()

    def _watched(self) -> None:
        passed = self.control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid = _CREDENTIALS.unpack(passed)[0]  # of the Player, as this side knows it
        self._watch = Watch(pid, self._kill, self.limits.together, self.limits.processes)

    def _kill(self) -> None:
        with suppress(OSError, subprocess.TimeoutExpired):
            remove = [self.program, "rm", "--force", self.name]
            subprocess.run(remove, capture_output=True, check=False, timeout=self.limits.server * 4)
        super()._kill()


class Pool:
    """Boxes that are used again: each submission gets one in which no process of the submission before is left."""

    def __init__(self, make: Callable[[], Sandbox]) -> None:
        self.make = make
        self._free: list[Sandbox] = []
        self._lock = threading.Lock()

    @contextmanager
    def box(self) -> Iterator[Sandbox]:
        """A free box, or a new one. Raises IsolationError where it cannot be had."""
        with self._lock:
            found = self._free.pop() if self._free else None
        found = found or self.make()
        found.renew()
        try:
            yield found
        finally:
            if found.alive and found.clear():
                with self._lock:
                    self._free.append(found)
            else:
                found.close()

    def close(self) -> None:
        """End all that are free."""
        while self._free:
            self._free.pop().close()
