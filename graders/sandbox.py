"""The Player from outside: start it in a box, ask for a child with a learner's cells, call into it, be done with it.

Every wait has a deadline by this side's clock. Where a child dies or is late, its exercise ends in a Failure, and the
next exercise gets a child of its own.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from graders.levels import NOBODY, Box, IsolationError, bwrap_box, missing, plain_box
from graders.player import FORK, KILL, READY
from graders.subject import Failure
from graders.trace import MOST
from graders.watch import Watch, listed, tasks
from graders.wire import OUTWARD, WireError, receive, send

LEVELS = ("bwrap", "none")


# How many times as slow as the reference an answer may be. Of the tables' right answers, those of references that take
# a millisecond or more are at most 46 times as slow; none takes more than 0.3 s (all calls of a draw, one core), and
# no reference more than 0.01 s: for these the least times below are what counts.
SLOWER = 100


@dataclass(frozen=True)
class Limits:
    """What one submission may use. Sizes in bytes, times in seconds of this side's clock.

    The times of a call, an exercise and a submission are the least that each gets: see `allowing`.
    """

    start: float = 120.0  # until torch is loaded, on a machine that is busy
    server: float = 5.0  # until it has killed a child; one that a child stopped does not answer
    cells: float = 10.0  # one fork: all cells up to an exercise
    call: float = 5.0
    exercise: float = 20.0  # one fork with all its calls
    submission: float = 60.0  # a class waits for no one longer than this
    memory: int = 2 << 30  # address space of one process, beyond what torch has mapped
    processes: int = 32
    file: int = 64 << 20
    tmpfs: int = 64 << 20  # each of /tmp, /home/learner, /dev/shm
    files: int = 16_384  # in all of them
    together: int = 4 << 30  # memory of all processes of a submission
    cpu: int = 20  # seconds of one process, which serves one exercise

    def allowing(self, seconds: float) -> Limits:
        """The same for an exercise whose reference takes so long: time enough to be SLOWER times as slow, twice."""
        need = SLOWER * seconds
        exercise = max(self.exercise, 2 * need)
        return replace(self, call=max(self.call, need), exercise=exercise, cpu=max(self.cpu, math.ceil(exercise)))

    def hurried(self, share: float) -> Limits:
        """The same with less time for cells and calls, but no less than what others need on a busy machine."""
        cells, call = max(self.cells * share, min(self.cells, 2.0)), max(self.call * share, min(self.call, 1.0))
        return replace(self, cells=cells, call=call, exercise=max(self.exercise * share, cells + call))

    def resources(self, level: str) -> dict[str, int]:
        """The kernel's limits for a child. Without a user namespace, NPROC counts all of the user's processes."""
        own = {"AS": self.memory, "FSIZE": self.file, "NOFILE": 128, "CORE": 0, "CPU": self.cpu}
        others = {"landlock": tasks(os.geteuid() or NOBODY), "bwrap": 0, "full": 0}
        return own | {"NPROC": others[level] + self.processes} if level in others else own


LIMITS = Limits()


@dataclass(frozen=True)
class CellNote:
    """What became of one cell: is its name defined now, its error as (kind, text), commands left out, its output."""

    name: str
    defined: bool = False
    error: tuple[str, str] | None = None
    commands: tuple[str, ...] = ()
    printed: str = ""


@dataclass(frozen=True)
class Times:
    """Seconds of processor time that a learner's code had so far, and seconds that it was ready to run and had none."""

    cpu: float = math.inf
    delayed: float = 0.0

    def starved(self, before: Times, seconds: float) -> bool:
        """Whether it was the machine that took most of these seconds. Who sleeps through them waits for no machine."""
        delayed = self.delayed - before.delayed
        return self.cpu - before.cpu < seconds / 2 and (delayed > seconds / 4 or math.isnan(delayed))  # nan: not told


class Stopped(Failure):
    """The child is gone, or its time is over. `cell` is the name of the cell that was running, if any."""

    def __init__(self, kind: str, text: str, cell: str | None = None) -> None:
        super().__init__(kind, text)
        self.cell = cell


class Child:
    """A fork with a learner's cells executed. After it stopped, every call repeats why."""

    def __init__(
        self, sock: socket.socket, limits: Limits, level: str, until: float, times: Callable[[], Times] = Times
    ) -> None:
        self.sock, self.limits, self.level, self.until = sock, limits, level, until
        self.times, self.before = times, times()
        self.stopped: Stopped | None = None
        self.starved = False  # it ran out of time and had little of it: the machine may be to blame
        self.numbers = itertools.count()

    def run(self, cells: Sequence[tuple[str, str]], seed: int, *, added: Sequence[str] = ()) -> list[CellNote]:
        """Execute cells (name, source) in their order; of those in `added` only what the others need.

        Raises Stopped, with the name of the cell that did not end.
        """
        start = {"cells": [list(cell) for cell in cells], "added": list(added), "seed": seed}
        start["limits"] = self.limits.resources(self.level)
        until = min(time.monotonic() + self.limits.cells, self.until)
        notes: list[CellNote] = []
        self._send(start, until, cells[0][0] if cells else None)
        for name, _ in cells:
            reply = self._receive(until, self.limits.cells, name)
            said = _text(reply, "cell")
            if said != name:  # a cell spoke for itself, and its reply comes late
                late = [note.name for note in notes if note.name == said]
                self._stop("Malformed", "your code wrote on the socket of its process", (late or [name])[0])
            notes.append(_cell_note(name, reply))
        return notes

    def ask(
        self, op: str, name: str, inputs: tuple[Any, ...] = (), *, seed: int = 0, ran: set[str] | None = None
    ) -> Any:
        """What the Player gives for an operation ("value", "call", "gradients", ...) on a name. Raises Failure.

        With `ran` the call is traced, and the names of what it says that it ran are added there.
        """
        if self.stopped:
            raise self.stopped
        number = next(self.numbers)
        until = min(time.monotonic() + self.limits.call, self.until)
        asked = {"op": op, "name": name, "inputs": list(inputs), "n": number, "seed": seed, "trace": ran is not None}
        self._send(asked, until)
        reply = self._receive(until, self.limits.call)
        if not isinstance(reply, dict) or type(reply.get("n")) is not int or reply["n"] != number:
            self._stop("Malformed", "your process answered something else than what was asked")
        if "value" in reply:
            if ran is not None and isinstance(names := reply.get("ops"), list):
                ran |= {readable(name, 80) for name in names[:MOST] if isinstance(name, str)}
            return reply["value"]
        raise Failure(*_error(reply.get("error")) or ("Error", ""))

    def close(self) -> None:
        """Hang up; its server kills the child before the next fork."""
        self.sock.close()

    def _send(self, message: Any, until: float, cell: str | None = None) -> None:
        try:
            self.sock.settimeout(max(0.01, until - time.monotonic()))
            send(self.sock, message, OUTWARD)
        except TimeoutError:
            self._stop("Timeout", "your code did not take the next question in time", cell)
        except OSError:
            self._stop("Stopped", _GONE, cell)

    def _receive(self, until: float, seconds: float, cell: str | None = None) -> Any:
        try:
            return receive(self.sock, until=until)
        except TimeoutError:
            self.starved = self.times().starved(self.before, seconds)
            self._stop("Timeout", f"no result after {seconds:g} seconds: is there a loop that does not end?", cell)
        except WireError as error:
            self._stop("Malformed", f"your process sent what is no answer ({error})", cell)
        except (EOFError, OSError):
            self._stop("Stopped", _GONE, cell)

    def _stop(self, kind: str, text: str, cell: str | None = None) -> NoReturn:
        self.stopped = Stopped(kind, text, cell)
        self.close()
        raise self.stopped


_GONE = "the process of your code ended: it left Python, or used more memory or time than it may"


def readable(text: Any, most: int = 500) -> str:
    """Text of a learner's process, safe to show: not long, no control characters, none that change the direction."""
    kept = (c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(text)[:most])
    return "".join(kept)


def _text(reply: Any, key: str) -> str | None:
    found = reply.get(key) if isinstance(reply, dict) else None
    return found if isinstance(found, str) else None


def _error(error: Any) -> tuple[str, str] | None:
    if error is None:
        return None
    kind, text = error if isinstance(error, list) and len(error) == 2 else ("Error", "")
    return readable(kind, 80), readable(text)


def _cell_note(name: str, reply: dict[str, Any]) -> CellNote:
    commands = reply.get("commands")
    lines = tuple(readable(c, 80) for c in commands[:20]) if isinstance(commands, list) else ()
    printed = readable(reply.get("printed", ""), 64 << 10)
    return CellNote(name, reply.get("defined") is True, _error(reply.get("error")), lines, printed)


class Sandbox:
    """A Player server in a box. Use it in a `with` block: at its end no process, mount or file is left.

    Level "bwrap" isolates; "none" does not: it is for one's own code.
    Raises IsolationError where the level cannot be had.
    """

    _delayed = _at_fork = (
        0.0  # seconds without a processor: of the children before, and counted when the last one began
    )

    def __init__(self, level: str = "bwrap", *, limits: Limits = LIMITS, hidden: Sequence[Path] = ()) -> None:
        if level not in LEVELS:
            raise ValueError(f"there is no level {level!r}; there are {', '.join(LEVELS)}")
        if level == "bwrap" and (why := missing()):
            raise IsolationError(why)
        self.level, self.limits, self.hidden = level, limits, tuple(hidden)
        self._home: str | None = None
        self._child: Child | None = None
        self._watch: Watch | None = None
        self._start()

    def _start(self) -> None:
        self.control, theirs = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        box = self._box(theirs)
        try:
            self.process = subprocess.Popen(
                box.command, pass_fds=(theirs.fileno(), *box.files), env=box.environment, cwd=self._home or "/",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True,
            )  # fmt: skip
        finally:
            theirs.close()
            for fd in box.files:
                os.close(fd)
        if not self._answers(self.limits.start):
            said = self._complaint()
            self.close()
            raise IsolationError(f"the Player did not start at level {self.level!r}: {said}")
        self._watched()

    def _watched(self) -> None:
        files = self.limits.files if self.level == "bwrap" else None  # bubblewrap sets no number of files
        self._watch = Watch(self.process.pid, self._kill, self.limits.together, self.limits.processes, files)

    def renew(self) -> None:
        """Count from here on: the next submission's time and memory are not those of the one before."""
        if self._watch:
            self._watch.end()
            self._watched()

    def _box(self, theirs: socket.socket) -> Box:
        if self.level == "bwrap":
            return bwrap_box([str(theirs.fileno()), "alone"], self.limits.tmpfs, self.hidden)
        self._home = tempfile.mkdtemp(prefix="player-")
        return plain_box([str(theirs.fileno())], self._home)

    def _complaint(self) -> str:
        self._said.seek(0)
        said = self._said.read()[-2000:].decode(errors="replace").strip().split("\n")[-1]
        if "uid map" in said or "RTM_NEWADDR" in said or "namespace" in said:
            said += " (this machine forbids user namespaces to bwrap; `graders doctor` says how to allow them)"
        return said or "it said nothing"

    def _answers(self, seconds: float) -> bool:
        self.control.settimeout(seconds)
        with suppress(OSError):
            return self.control.recv(1) == READY
        return False

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self.process.poll() is None

    def fork(self, until: float | None = None, patience: float = 1.0, *, seconds: float = 0.0) -> Child:
        """A fresh child, once every process of the one before is dead. A server that does not answer is replaced.

        It has until that moment, and for each cell and call that share of the usual time, for an exercise whose
        reference takes so many `seconds`.
        """
        if not self.clear():
            self.close()
            self._start()
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.control, [FORK], [theirs.fileno()])
        limits, now = self.limits.allowing(seconds).hurried(patience), time.monotonic()
        until = min(until or now + limits.submission, now + limits.exercise)
        self._at_fork = self._watch.delayed() if self._watch else 0.0
        self._child = Child(ours, limits, self.level, until, self.times)
        return self._child

    def times(self) -> Times:
        """What the learner's code had of the processor so far, and how long it waited for it."""
        if not self._watch:
            return Times()
        now = self._watch.delayed()
        return Times(self.cpu(), now if math.isinf(now) else self._delayed + max(0.0, now - self._at_fork))

    def cpu(self) -> float:
        """Seconds of processor time that the learner's code took so far."""
        return self._watch.cpu() if self._watch else 0.0

    @property
    def memory(self) -> int:
        """The most bytes that its processes were seen to need together; what forks share is counted for each."""
        return self._watch.peak if self._watch else 0

    def clear(self) -> bool:
        """Kill every process but the server. False where the server is gone, about to be killed, or does not answer."""
        if self._child and self._watch:
            self._watch.sample(listed)
            self._delayed, self._at_fork = self.times().delayed, self._watch.delayed()
        if self._child:
            self._child.close()
        with suppress(OSError):
            self.control.sendall(KILL)
            return self._answers(self.limits.server) and not (self._watch and self._watch.struck())
        return False

    def close(self) -> None:
        """Kill the server, and with it all of its pid namespace, and remove what it wrote."""
        if self._watch:
            self._watch.end()
        if self._child:
            self._child.close()
        if self.level == "none":
            self.clear()  # without a namespace only the server knows its children
        self.control.close()
        self._kill()
        self.process.wait()
        self._said.close()
        if self._home:
            shutil.rmtree(self._home, ignore_errors=True)

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class RemoteSubject:
    """The learner's `name` in a child, as an answer under judgement: the twin of `graders.subject.Here`."""

    child: Child
    name: str
    op: str = "call"  # "value" where the answer is a variable
    seed: int = 0
    ran: set[str] | None = None  # where it is a set, calls are traced, and the names of what they ran go there
    _seeds: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._seeds = random.Random(self.seed)

    def __call__(self, *inputs: Any) -> Any:
        """The function's value. Raises Failure as `Here` does, and where the process of the learner's code ended."""
        return self._ask(self.op, *inputs)

    def gradients(self, *inputs: Any) -> Any:
        """(value, gradients of the float inputs). Raises Failure like a call."""
        return self._ask("gradients", *inputs)

    def values(self, inputs: Sequence[Any], most: int) -> Any:
        """The first `most` values of a generator. Raises Failure like a call."""
        return self._ask("values", list(inputs), most)

    def use(self, arguments: Mapping[str, Any], steps: Sequence[Sequence[Any]]) -> Any:
        """What each step gives on one instance of a class. Raises Failure like a call."""
        return self._ask("use", dict(arguments), [tuple(step) for step in steps])

    def _ask(self, op: str, *inputs: Any) -> Any:
        return self.child.ask(op, self.name, inputs, seed=self._seeds.getrandbits(62), ran=self.ran)
