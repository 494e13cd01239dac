"""The sandboxed process: cells of a learner and calls in -> plain values out. It holds nothing worth stealing.

A server with torch loaded forks one child for each exercise; the child executes cells and answers calls over a socket
of its own. A warm server also forks further servers, one for each submission, in namespaces of their own. Of the
graders only `wire`, `subject`, `trace`, `added`, `confine` and this file are visible: no reference, no wrong answer,
no seed.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import gc
import importlib
import io
import linecache
import os
import random
import re
import resource
import signal
import socket
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from graders import confine
from graders.added import needed
from graders.subject import Failure, Here, backward, describe
from graders.trace import MOST, named, traced
from graders.wire import OUTWARD, NotPlainError, WireError, receive, send, to_frame

Walls = Callable[[], object]
PRINTED_CAP = 64 << 10  # characters of the learner's output that are kept
FORK, KILL, READY, SERVER = b"F", b"K", b"R", b"S"
OPS = {"call": "__call__", "gradients": "gradients", "values": "values", "use": "use"}  # of `Here`
# As they were before a learner's code could replace them. torch.manual_seed asks every kind of device beside.
_seed_torch, _seed_python = torch.default_generator.manual_seed, random.seed
LATE = 0x1000000  # compile's flag of `from __future__ import annotations`
# A line that is a notebook's and no Python: %magic, !shell, ?help, help?, `x = %magic`, `x = !shell`.
COMMAND = re.compile(r"(?P<indent>\s*)(?:(?P<name>[\w ,]+=\s*)[%!]|[%!?]|[\w.]+\?\??\s*$)")
_SET_DUMPABLE = 4  # prctl's number for it


def warm(control: socket.socket, tmpfs: int) -> None:
    """Wait for SERVER with a socket: a server of its own in namespaces of its own answers there."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the process between this one and the server
    control.sendall(READY)
    while True:
        command, fds, _, _ = socket.recv_fds(control, 1, 1)
        if command != SERVER or not fds:
            return
        if os.fork() == 0:
            _become_server(control, fds[0], tmpfs)
        os.close(fds[0])


def _become_server(control: socket.socket, fd: int, tmpfs: int) -> None:
    """Confine this process, then serve; it never returns. What fails is told on the socket in the place of READY."""
    try:
        os.setsid()
        control.close()
        sock = socket.socket(fileno=os.dup2(fd, 3))
        os.closerange(4, 1 << 12)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            confine.enter(tmpfs)
            if os.fork():
                os._exit(0)
            confine.confine()
        except OSError as error:
            sock.sendall(str(error).encode())
            os._exit(1)
        serve(sock, alone=True)
    finally:
        os._exit(0)


def serve(control: socket.socket, *, alone: bool, walls: Walls = lambda: None) -> None:
    """Wait for commands: FORK with a socket for the child, or KILL. `alone`: all of the pid namespace may be killed.

    A child puts up `walls` around itself before it runs anything.
    """
    ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)  # no child may trace the server or read its memory
    control.sendall(READY)
    children: set[int] = set()
    while True:
        command, fds, _, _ = socket.recv_fds(control, 1, 1)
        if command == FORK and fds:
            pid = os.fork()
            if pid == 0:
                _become_child(control, fds[0], walls)
            os.close(fds[0])
            children.add(pid)
            continue
        _kill(children, alone)
        if command != KILL:  # the host is gone
            return
        control.sendall(READY)


def _warm_up() -> None:
    """Load what torch loads lazily, on one thread: with more of them, a fork would wait for threads that it has not."""
    torch.set_num_threads(1)
    x = torch.ones(1, 2, 2)
    backward(lambda x: torch.softmax(x @ x, -1) + torch.nn.functional.layer_norm(x, (2,)), (x,))  # loads sympy
    with traced():  # the first trace of a process loads half of torch's compiler
        torch.nn.functional.scaled_dot_product_attention(x, x, x)
    with contextlib.suppress(Exception), _no_new_folder():
        importlib.import_module("matplotlib.pyplot")  # who draws in an answer's cell would load it in every exercise


@contextlib.contextmanager
def _no_new_folder() -> Iterator[None]:
    """Within, who asks for a temporary folder gets the name of none: matplotlib wants one, and does without."""
    make = tempfile.mkdtemp
    tempfile.mkdtemp = lambda *_, **__: "/nowhere"  # type: ignore[assignment]
    try:
        yield
    finally:
        tempfile.mkdtemp = make


def _kill(children: set[int], alone: bool) -> None:
    if alone and os.getpid() < 10:  # a number of our own namespace: anywhere else -1 would mean everybody
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        while os.getpid() == 1:  # the first process of a namespace has to bury the others
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
    for pid in children:
        for kill in (os.kill, os.killpg):  # the group exists once the child has called setsid
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    children.clear()
    with contextlib.suppress(ChildProcessError):  # orphans that became ours
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _become_child(control: socket.socket, fd: int, walls: Walls) -> None:
    """The child's life; it never returns."""
    try:
        os.setsid()
        control.close()
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        sock = socket.socket(fileno=os.dup2(fd, 3))
        os.closerange(4, 1 << 12)
        os.register_at_fork(after_in_child=sock.close)  # a helper process must not speak for its parent
        Child(sock).serve(walls)
    finally:
        os._exit(0)  # whatever happened, the host sees the socket close


class Printed(io.TextIOBase):
    """Standard output in memory: the first PRINTED_CAP characters."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.room = PRINTED_CAP

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.room > 0:
            self.parts.append(str(text)[: self.room])
            self.room -= len(self.parts[-1])
        return len(text)

    def take(self) -> str:
        """What was printed since the last take."""
        text, self.parts = "".join(self.parts), []
        return text


class Child:
    """One learner's module, and the answers to the requests about it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.module = sys.modules["__main__"] = types.ModuleType("__main__")
        self.module.__dict__["display"] = print  # a notebook has it too
        self.printed = Printed()

    def serve(self, walls: Walls) -> None:
        """First the cells, then calls, until the host has no more."""
        start = receive(self.sock, caps=OUTWARD)
        limit(start["limits"])
        walls()
        sys.stdout = sys.stderr = self.printed
        helpers = self.helpers(start["cells"], start["added"])
        for name, source in start["cells"]:
            reseed(start["seed"])
            said = self.help(name, helpers.get(name, [])) if name in start["added"] else self.execute(name, source)
            said |= {"cell": name, "defined": name in self.module.__dict__, "printed": self.printed.take()}
            send(self.sock, said)
        while True:
            self.sock.sendall(self.reply(receive(self.sock, caps=OUTWARD)))

    def helpers(self, cells: list[list[str]], added: list[str]) -> dict[str, list[ast.stmt]]:
        """What the learner's added cells hold that the others need, by the name of the added cell."""
        if not added:
            return {}
        beside = [(name, without_commands(source)[0]) for name, source in cells if name in added]
        for name, source in beside:
            linecache.cache[_file(name)] = (len(source), None, source.splitlines(keepends=True), _file(name))
        answers = {name: source for name, source in cells if name not in added}
        return needed(beside, answers.values(), list(answers))

    def help(self, name: str, statements: list[ast.stmt]) -> dict[str, Any]:
        """Execute each of these statements, whatever becomes of the others."""
        for statement in statements:
            with contextlib.suppress(Exception):
                exec(compile(ast.Module([statement], []), _file(name), "exec", LATE), self.module.__dict__)
        return {"error": None, "commands": []}

    def execute(self, name: str, source: str) -> dict[str, Any]:
        """Execute a cell: its error as [kind, text] or None, and the notebook commands in it that were left out."""
        filename = _file(name)
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        commands: list[str] = []
        try:
            code, commands = compiled(source, filename)
            exec(code, self.module.__dict__)
        except BaseException as error:  # a learner's SystemExit too: the next cells run
            return {"error": explained(error), "commands": commands}
        return {"error": None, "commands": commands}

    def reply(self, request: dict[str, Any]) -> bytes:
        """The answer to one request as a frame: {"n", "value"}, or {"n", "error": [kind, text]}; traced, with "ops"."""
        try:
            reseed(request["seed"])
            if not request.get("trace"):
                return to_frame({"n": request["n"], "value": self.value(request)})
            with traced() as ran:
                value = self.value(request)
            return to_frame({"n": request["n"], "value": value, "ops": sorted(ran)[:MOST]})
        except BaseException as error:  # a learner's SystemExit too: it ends the call, not the child
            return to_frame({"n": request["n"], "error": explained(error)})

    def value(self, request: dict[str, Any]) -> Any:
        """What is asked for: a variable, a call, one with gradients, a generator's values, a class's steps.

        "read": where a source, which is not executed, speaks of some names.
        """
        name = request["name"]
        if request["op"] == "read":
            return named(*request["inputs"])
        if name not in self.module.__dict__:
            raise Failure("Missing", f"there is no `{name}`: is it still called so, and does its cell run?")
        found = self.module.__dict__[name]
        if request["op"] == "value":
            return found
        if not callable(found):
            raise Failure("NotCallable", f"`{name}` is no function any more")
        return getattr(Here(found), OPS[request["op"]])(*request["inputs"])


def _file(cell: str) -> str:
    return f"<the cell {cell}>"


def compiled(source: str, filename: str) -> tuple[types.CodeType, list[str]]:
    """A cell as plain Python, and the notebook commands (`%timeit ...`, `!pip ...`) that had to be left out for it.

    Annotations are not evaluated: they may name what nobody imported.
    """
    try:
        return compile(source, filename, "exec", LATE, dont_inherit=True), []
    except SyntaxError:
        plain, commands = without_commands(source)
        if not commands:
            raise
        return compile(plain, filename, "exec", LATE, dont_inherit=True), commands


def without_commands(source: str) -> tuple[str, list[str]]:
    """A source with `pass`, or None for a value, in the place of each notebook command, and the commands."""
    kept: list[str] = []
    commands: list[str] = []
    goes_on = False
    for line in source.split("\n"):
        found = goes_on or COMMAND.match(line)
        if not found:
            kept.append(line)
            continue
        if not goes_on:
            commands.append(line.strip()[:80])
        named = None if found is True else found["name"]
        kept.append("" if found is True else f"{found['indent']}{named}None" if named else f"{found['indent']}pass")
        goes_on = line.rstrip().endswith("\\")
    return "\n".join(kept), commands


def explained(error: BaseException) -> list[str]:
    """[kind, text] of an error, whatever its class does when it is asked."""
    if isinstance(error, Failure):
        return [error.kind, error.text[:1000]]
    if isinstance(error, NotPlainError):
        return ["NotPlain", f"the answer cannot be judged: {error}"]
    if isinstance(error, WireError):
        return ["TooLarge", f"the answer cannot be judged: {error}"]
    try:
        return [type(error).__name__[:80], describe(error)[:1000]]
    except BaseException:
        return ["Error", "an error that cannot be shown"]


def reseed(seed: int) -> None:
    """Every generator from one seed: forks of one server would otherwise all draw the same numbers."""
    _seed_torch(seed)
    _seed_python(seed)


def limit(limits: dict[str, int]) -> None:
    """Set this process's limits, by name ("AS", "CPU", ...), soft and hard; AS counts from what torch has mapped."""
    for name, most in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        if name == "AS":
            with open("/proc/self/statm") as pages:
                most += int(pages.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def connected(where: str) -> socket.socket:
    """The socket of this number, or a connection to the one at this path."""
    if where.isdigit():
        return socket.socket(fileno=int(where))
    control = socket.socket(socket.AF_UNIX)
    control.connect(where)
    return control


def walls_of(options: list[str]) -> Walls:
    """What a child puts up around itself: "landlock FILE", whose lines it may read; "container"; or nothing."""
    if options[:1] == ["container"]:
        return confine.within_container
    if options[:1] != ["landlock"]:
        return lambda: None
    with open(options[1], encoding="utf-8") as file:
        places = file.read().split("\n")
    confine.gather_orphans()
    return lambda: confine.alone(places)


def main() -> None:
    """Serve on the socket that the first argument names; "warm BYTES": servers, each with tmpfs of that size."""
    control, options = connected(sys.argv[1]), sys.argv[2:]
    _warm_up()
    if options[:1] == ["warm"]:
        gc.collect()
        gc.freeze()  # a collection in a fork would write to, and so copy, every page
        warm(control, int(options[1]))
    else:
        serve(control, alone="alone" in options, walls=walls_of(options))
