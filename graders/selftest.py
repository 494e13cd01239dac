"""Does the box hold? Code inside it tries to get out: the level that a verdict records is one that was tried."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from graders.sandbox import IsolationError, Sandbox

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
            "see a network interface": any(name != "lo" for _, name in socket.if_nameindex()),
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

_done: set[str] = set()


def once(level: str, root: str | Path) -> None:
    """Try the box, once in this process; level "none" promises nothing.

    Raises IsolationError that says what could be reached.
    """
    if level != "none" and level not in _done:
        with Sandbox(level) as sandbox:
            if reached := escapes(sandbox, [Path(root).resolve(), Path.home()]):
                raise IsolationError(f"level {level!r} does not hold here: code inside can {', '.join(reached)}")
        _done.add(level)


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
