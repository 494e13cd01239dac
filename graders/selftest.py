"""Does the box hold? Code inside it tries to get out: the level that a verdict records is one that was tried."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import tempfile
import textwrap
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from graders.sandbox import IsolationError, Sandbox
from graders.subject import Failure
from graders.warm import Boxes, boxes
from graders.weaker import missing_landlock

# No attempt changes anything where it succeeds: the same probe runs without a box, to show that it can fail.
PROBE = textwrap.dedent("""
    import ctypes, errno, os, socket, sys

    def _can(attempt):
        try:
            return attempt() is not False
        except BaseException:
            return False

    def _connect(kind, address):  # a datagram socket asks for a route only, and sends nothing
        with socket.socket(type=kind) as s:
            s.settimeout(2)
            s.connect(address)

    def _write(folder):  # a file without a name, which ends with its descriptor
        try:
            os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            os.close(os.open(f"{folder}/probe-{os.getpid()}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            os.unlink(f"{folder}/probe-{os.getpid()}")

    def _read(path):
        os.close(os.open(path, os.O_RDONLY))

    def _signal(pid, space):  # in another namespace the number is another process's, if any's
        try:
            other = os.stat("/proc/self/ns/pid").st_ino != space
        except OSError:
            other = False
        return not other and os.kill(pid, 0) is None

    def probe(outside, port, pid, space):
        libc = ctypes.CDLL(None, use_errno=True)
        mounted = libc.mount(b"none", b"/", b"no-such-file-system", 0, None)  # EPERM, or without a box ENODEV
        refused = mounted != 0 and ctypes.get_errno() == errno.EPERM
        system = ["/", "/usr", "/etc", "/dev", "/player", *(p for p in sys.path if "packages" in p)]
        shared = ["/tmp", "/var/tmp", "/run", "/dev/shm", "/dev/mqueue", os.environ["HOME"]]
        header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        capable = libc.capget(header, rights) != 0 or rights[0] or rights[3]  # effective, low and high
        reached = {
            "reach a port of this machine": _can(lambda: _connect(socket.SOCK_STREAM, ("127.0.0.1", port))),
            "reach the network": _can(lambda: _connect(socket.SOCK_DGRAM, ("1.1.1.1", 53))),
            "see a network interface": _can(lambda: any(name != "lo" for _, name in socket.if_nameindex())),
            "reach the machine's host": _can(lambda: socket.socket(40, socket.SOCK_STREAM)),  # AF_VSOCK
            "read files outside": any(_can(lambda: _read(path)) for path in outside),
            "see names of files outside": any(os.path.exists(path) for path in outside),
            "write to the system": any(_can(lambda: _write(path)) for path in system),
            "leave a file to those that come after": any(_can(lambda: _write(path)) for path in shared),
            "change a kernel setting": os.access("/proc/sys/kernel/core_pattern", os.W_OK),
            "see other processes": _can(lambda: len([p for p in os.listdir("/proc") if p.isdigit()]) > 8),
            "signal other processes": _can(lambda: _signal(pid, space)),
            "mount": not refused,
            "make a namespace": libc.unshare(0x10000000) == 0,  # of this child alone
            "use capabilities": capable or libc.prctl(39, 0, 0, 0, 0) != 1,  # no_new_privs
            "keep memory that no limit counts": libc.memfd_create(b"probe", 0) >= 0,
            "read the environment of its parent": _can(lambda: open(f"/proc/{os.getppid()}/environ").read()),
            "be root": os.getuid() == 0,
        }
        return [what for what, happened in reached.items() if happened]
""")

STRONG = ("full", "bwrap", "container")
GRANTED = {"landlock": {"see names of files outside"}}  # what a level does not promise to keep
LEFT = "leave a file to those that come after"  # where many use one box; who has one alone may write in it

_open: dict[tuple[str, tuple[Path, ...]], Boxes] = {}
_lock = threading.Lock()
_stack = ExitStack()
atexit.register(_stack.close)


def strongest(root: str | Path, hidden: Sequence[Path] = (), *, weaker: bool = False) -> tuple[str, list[str]]:
    """(the strongest level that holds here, why each stronger one does not): tried, not assumed.

    The level "landlock" is tried only where `weaker` allows it. Raises IsolationError where none holds.
    """
    complaints: list[str] = []
    for level in (*STRONG, "landlock") if weaker else STRONG:
        try:
            opened(level, root, hidden)
            return level, complaints
        except IsolationError as error:
            complaints.append(f"level {level!r}: {error}")
    if not weaker and missing_landlock() is None:
        complaints.append("level 'landlock', without namespaces, could be tried: --accept-weaker")
    raise IsolationError("; ".join(dict.fromkeys(complaints)))


def opened(level: str, root: str | Path, hidden: Sequence[Path] = ()) -> Boxes:
    """What gives a box at this level, kept warm until this process ends, and tried before it is given out.

    Level "none" promises nothing. Raises IsolationError that says what could be reached.
    """
    key = (level, tuple(hidden))
    with _lock:
        if key not in _open:
            with ExitStack() as stack:
                start = stack.enter_context(boxes(level, hidden=hidden))
                if level != "none":
                    with start() as box:
                        _hold(box, root)
                _stack.push(stack.pop_all())
            _open[key] = start
        return _open[key]


def _hold(box: Sandbox, root: str | Path) -> None:
    try:
        reached = escapes(box, [Path(root).resolve(), Path.home()])
    except Failure as failure:
        raise IsolationError(f"the self-test did not run at level {box.level!r}: {failure}") from failure
    if broken := [what for what in reached if what not in GRANTED.get(box.level, ())]:
        raise IsolationError(f"level {box.level!r} does not hold here: code inside can {', '.join(broken)}")


def escapes(sandbox: Sandbox, folders: Sequence[Path]) -> list[str]:
    """What code inside can do that it must not, tried there; `folders` must not be seen. Empty where the box holds."""
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.NamedTemporaryFile(prefix="probe-") as secret:
        os.chmod(secret.name, 0o644)  # readable by anyone who sees it
        child = sandbox.fork()
        child.run([("probe", PROBE)], 0)
        here = (server.getsockname()[1], os.getpid(), os.stat("/proc/self/ns/pid").st_ino)
        found = child.ask("call", "probe", ([secret.name, *_contents(folders)], *here))
        child.close()
    alone = sandbox.level in ("full", "bwrap")
    return [str(what) for what in found if not (alone and what == LEFT)]


def _contents(folders: Sequence[Path]) -> list[str]:
    """The entries of these folders, but for those on the way to the interpreter, which the box has to show."""
    shown = Path(sys.base_prefix).resolve()
    entries = [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    return [str(entry) for entry in entries if not shown.is_relative_to(entry.resolve())][:1000]
