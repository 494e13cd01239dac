"""One warm server for a whole class -> a box of its own for each submission within milliseconds, at level "full".

The warm server stands in bubblewrap's box with torch loaded. For each submission it forks a server that goes into
namespaces of its own (`graders.confine`) before it hears of any learner's code.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from graders.levels import Box, IsolationError, bwrap_box
from graders.player import READY, SERVER
from graders.sandbox import LIMITS, Limits, Sandbox
from graders.watch import Watch
from graders.weaker import Container, Lonely, Pool

WEAKER: dict[str, Callable[..., Sandbox]] = {"container": Container, "landlock": Lonely}
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid, as this side's namespaces call them


class Nursery(Sandbox):
    """The warm server. It runs no learner's code itself; its boxes do. Use it in a `with` block."""

    def __init__(self, *, limits: Limits = LIMITS, hidden: Sequence[Path] = ()) -> None:
        self._lock = threading.Lock()
        super().__init__("bwrap", limits=limits, hidden=hidden)

    def _box(self, theirs: socket.socket) -> Box:
        return bwrap_box([str(theirs.fileno()), "warm", str(self.limits.tmpfs)], 1 << 20, self.hidden, warm=True)

    def box(self) -> Sandbox:
        """A box for one submission. Raises IsolationError where it cannot be had."""
        return _WarmBox(self)

    def server(self) -> socket.socket:
        """The control socket of a new server, which may not be ready yet. A warm server that died is replaced."""
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs, self._lock:
            if not self.alive:
                self.close()
                self._start()
            socket.send_fds(self.control, [SERVER], [theirs.fileno()])
        return ours

    def _watched(self) -> None:
        """Each box is watched, and the warm server runs nobody's code."""


class _WarmBox(Sandbox):
    """A server forked from the warm one: the same promises as `Sandbox`, at level "full"."""

    def __init__(self, nursery: Nursery) -> None:
        self.nursery, self.level, self.limits = nursery, "full", nursery.limits
        self._child = None
        self._start()

    def _start(self) -> None:
        self.control = self.nursery.server()
        self.control.settimeout(self.limits.start)
        self.init = -1
        said, pid = b"", 0
        with suppress(OSError):
            said, passed, _, _ = self.control.recvmsg(1000, socket.CMSG_SPACE(_CREDENTIALS.size))
            pid = _CREDENTIALS.unpack(passed[0][2])[0] if passed else 0
        if said != READY or not pid:
            self.control.close()
            raise IsolationError(f"no server of its own at level 'full': {said.decode(errors='replace') or 'it died'}")
        self.init = os.pidfd_open(pid)
        self._watch = Watch(pid, self._kill, self.limits.together, self.limits.processes)

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return not select.select([self.init], [], [], 0)[0]

    def close(self) -> None:
        """Kill the first process of the submission's namespace, and with it every other one and the mounts."""
        if self._watch:
            self._watch.end()
        if self._child:
            self._child.close()
        self.control.close()
        if self.init >= 0:
            self._kill()
            select.select([self.init], [], [], self.limits.server)
            os.close(self.init)
            self.init = -1

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.init, signal.SIGKILL)


Boxes = Callable[[], AbstractContextManager[Sandbox]]


@contextmanager
def boxes(level: str, *, limits: Limits = LIMITS, hidden: Sequence[Path] = ()) -> Iterator[Boxes]:
    """Within, what gives a box for one submission at this level."""
    if level == "full":
        with Nursery(limits=limits, hidden=hidden) as nursery:
            yield nursery.box
    elif level in WEAKER:
        with closing(Pool(partial(WEAKER[level], limits=limits, hidden=hidden))) as pool:
            yield pool.box
    else:
        yield partial(Sandbox, level, limits=limits, hidden=hidden)
