"""Does the box hold? Code inside it tries to get out: the level that a verdict records is one that was tried."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from graders.sandbox import IsolationError, Sandbox
from graders.warm import boxes

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

    def probe(outside, port):
        libc = ctypes.CDLL(None, use_errno=True)
        mounted = libc.mount(b"none", b"/", b"no-such-file-system", 0, None)  # EPERM, or without a box ENODEV
        refused = mounted != 0 and ctypes.get_errno() == errno.EPERM
        system = ["/", "/usr", "/etc", "/dev", "/player", *(p for p in sys.path if "packages" in p)]
        status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
        reached = {
            "reach a port of this machine": _can(lambda: _connect(socket.SOCK_STREAM, ("127.0.0.1", port))),
            "reach the network": _can(lambda: _connect(socket.SOCK_DGRAM, ("1.1.1.1", 53))),
            "see a network interface": _can(lambda: any(name != "lo" for _, name in socket.if_nameindex())),
            "reach the machine's host": _can(lambda: socket.socket(40, socket.SOCK_STREAM)),  # AF_VSOCK
            "see files outside": any(os.path.exists(path) for path in outside),
            "write to the system": any(os.access(path, os.W_OK) for path in system),
            "change a kernel setting": os.access("/proc/sys/kernel/core_pattern", os.W_OK),
            "see other processes": len([p for p in os.listdir("/proc") if p.isdigit()]) > 8,
            "mount": not refused,
            "make a namespace": libc.unshare(0x10000000) == 0,  # of this child alone
            "use capabilities": int(status["CapEff"], 16) != 0 or status["NoNewPrivs"].strip() != "1",
            "read the environment of its parent": _can(lambda: open(f"/proc/{os.getppid()}/environ").read()),
            "be root": os.getuid() == 0,
        }
        return [what for what, happened in reached.items() if happened]
""")

_open: dict[tuple[str, tuple[Path, ...]], Callable[[], Sandbox]] = {}
_lock = threading.Lock()
_stack = ExitStack()
atexit.register(_stack.close)


def strongest(root: str | Path, hidden: Sequence[Path] = ()) -> tuple[str, list[str]]:
    """(the strongest level that holds here, why each stronger one does not): tried, not assumed.

    Raises IsolationError where none holds.
    """
    complaints: list[str] = []
    for level in ("full", "bwrap"):
        try:
            opened(level, root, hidden)
            return level, complaints
        except IsolationError as error:
            complaints.append(f"level {level!r}: {error}")
    raise IsolationError(complaints[-1])


def opened(level: str, root: str | Path, hidden: Sequence[Path] = ()) -> Callable[[], Sandbox]:
    """What starts a box at this level, kept warm until this process ends, and tried before it is given out.

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
    if reached := escapes(box, [Path(root).resolve(), Path.home()]):
        raise IsolationError(f"level {box.level!r} does not hold here: code inside can {', '.join(reached)}")


def escapes(sandbox: Sandbox, folders: Sequence[Path]) -> list[str]:
    """What code inside can do that it must not, tried there; `folders` must not be seen. Empty where the box holds."""
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.NamedTemporaryFile(prefix="probe-") as secret:
        os.chmod(secret.name, 0o644)  # readable by anyone who sees it
        child = sandbox.fork()
        child.run([("probe", PROBE)], 0)
        found = child.ask("call", "probe", ([secret.name, *_contents(folders)], server.getsockname()[1]))
        child.close()
    return [str(what) for what in found]


def _contents(folders: Sequence[Path]) -> list[str]:
    """The entries of these folders, but for those on the way to the interpreter, which the box has to show."""
    shown = Path(sys.base_prefix).resolve()
    entries = [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    return [str(entry) for entry in entries if not shown.is_relative_to(entry.resolve())][:1000]
