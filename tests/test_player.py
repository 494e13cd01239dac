"""The Player answers as the learner's own notebook does: RemoteSubject and Here keep the same promises."""

from __future__ import annotations

import linecache
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from boxes import NO_BOX
from hypothesis import given, settings
from hypothesis import strategies as st

from graders.compare import difference
from graders.player import PRINTED_CAP, compiled, without_commands
from graders.sandbox import LIMITS, Child, RemoteSubject, Sandbox
from graders.subject import Failure, Here
from graders.watch import below
from graders.wire import send

CELL = """
import random
import sys

def double(x):
    return 2 * x

def square_sum(x, n):
    return (x ** 2).sum() * n

def constant(x):
    return torch.ones(3)

def nested(x, more):
    return {"both": [x, more["y"]], 3: (True, None, "text")}

def unwritten(x):
    raise NotImplementedError()

def raises(x):
    return x / "two"

def writes(x):
    x += 1
    return x

def writes_deep(xs):
    xs[0][0] = 7
    return 1

def leaves(x):
    sys.exit(3)

def gives_a_generator(x):
    return (i for i in x)

def chance(x):
    return torch.rand(3), random.random()

class Evil(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def evil(x):
    raise Evil

not_a_function = 3
answer = "B"
"""
X = torch.tensor([1.0, 2.0, 3.0])


@pytest.fixture(scope="module", params=["bwrap", "none"])
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    """A child with CELL executed, at each level."""
    if request.param == "bwrap" and NO_BOX:
        pytest.skip(f"no isolation here: {NO_BOX}")
    with Sandbox(request.param) as sandbox:
        child = sandbox.fork()
        notes = child.run([("setup 1", "import torch"), ("cell", CELL)], 1)
        assert [note.error for note in notes] == [None, None]
        yield child


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """The names that CELL defines, in this process."""
    filename = "<the cell cell>"
    linecache.cache[filename] = (len(CELL), None, CELL.splitlines(keepends=True), filename)
    found: dict[str, Any] = {"torch": torch, "__name__": "__main__"}
    exec(compile(CELL, filename, "exec"), found)
    return found


CALLS = [
    ("double", (X,)), ("double", (torch.tensor(3),)), ("double", (True,)), ("square_sum", (X, 2)),
    ("nested", (X, {"y": [1.5, "z", None]})), ("unwritten", (X,)), ("raises", (X,)), ("writes", (X,)),
    ("writes_deep", ([X, X],)), ("double", ()), ("constant", (X,)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "inputs"), CALLS)
@pytest.mark.parametrize("op", ["call", "gradients"])
def test_like_here(child: Child, names: dict[str, Any], name: str, inputs: tuple[Any, ...], op: str) -> None:
    """A call, with gradients or without, gives the value or the failure, kind and text, that the notebook gives."""
    here, there = Here(names[name]), RemoteSubject(child, name)

    def outcome(subject: Any) -> Any:
        try:
            return subject.gradients(*inputs) if op == "gradients" else subject(*inputs)
        except Failure as failure:
            return (failure.kind, failure.text)

    assert difference(outcome(here), outcome(there)) is None
    assert torch.equal(X, torch.tensor([1.0, 2.0, 3.0]))


def test_a_variable(child: Child) -> None:
    """A question's answer is the variable's value."""
    assert RemoteSubject(child, "answer", op="value")() == "B"


FAILURES = {
    "gone": ("Missing", "there is no `gone`"),
    "not_a_function": ("NotCallable", "no function"),
    "leaves": ("SystemExit", "3"),
    "gives_a_generator": ("NotPlain", "a generator is no plain value"),
    "evil": ("RuntimeError", "no text"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures(child: Child, name: str) -> None:
    """A call that gives no plain value raises Failure of a telling kind, and the next call is answered."""
    kind, text = FAILURES[name]
    with pytest.raises(Failure, match=text) as failure:
        RemoteSubject(child, name)(X)
    assert failure.value.kind == kind
    assert torch.equal(RemoteSubject(child, "double")(X), 2 * X)


def test_chance(child: Child) -> None:
    """The same seed draws the same numbers in a learner's function, another seed others."""
    first, again, other = (RemoteSubject(child, "chance", seed=seed)(X) for seed in (1, 1, 2))
    assert difference(first, again) is None
    assert difference(first, other) is not None


def test_cells() -> None:
    """A cell that raises is noted and the next ones run; commands are left out; output is kept up to a cap."""
    cells = [
        ("first", "print('hello')\n1 / 0\nfirst = 1"),
        ("second", "%matplotlib inline\n!ls\nsecond = 2\nprint('x' * 100_000)"),
        ("third", "def third(:\n"),
        ("fourth", "fourth = second\nimport sys; sys.exit()"),
    ]
    with Sandbox("none") as sandbox:
        child = sandbox.fork()
        first, second, third, fourth = child.run(cells, 1)
    assert (first.defined, first.printed) == (False, "hello\n")
    assert first.error == ("ZeroDivisionError", "division by zero (in the line `1 / 0`)")
    assert (second.defined, second.error, second.commands) == (True, None, ("%matplotlib inline", "!ls"))
    assert len(second.printed) <= PRINTED_CAP
    assert third.error is not None
    assert third.error[0] == "SyntaxError"
    assert fourth.error is not None
    assert (fourth.defined, fourth.error[0]) == (True, "SystemExit")


def test_commands_within_python() -> None:
    """A line that starts with % within valid Python is no notebook command."""
    code, commands = compiled("x = (7\n% 4)\ny = '''\n!not a command\n'''", "<cell>")
    found: dict[str, Any] = {}
    exec(code, found)
    assert commands == []
    assert (found["x"], found["y"]) == (3, "\n!not a command\n")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=3) | st.just(torch.ones(2)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["n", "value", "error", "cell", "commands", "printed", "ops"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN, PLAIN)
def test_any_reply(first: Any, second: Any) -> None:
    """Whatever a process answers to cells and to a call, this side raises Failure or takes it for a note or a value."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = Child(ours, LIMITS, "none", time.monotonic() + 5)
        for reply in (first, second):
            send(theirs, reply)
        theirs.shutdown(socket.SHUT_WR)
        with suppress(Failure):
            notes = child.run([("cell", "")], 1)
            assert [type(note.printed) for note in notes] == [str]
        with suppress(Failure):
            child.ask("call", "f")


def test_commands_leave_a_statement() -> None:
    """In the place of a notebook command stands a statement, so that a block that held nothing else still is one."""
    source = "if x:\n    !ls \\\n  -l\nfiles = !ls\na, b = %timeit -o 1\nhelp?\n%%time\ny = 1"
    plain, commands = without_commands(source)
    assert plain == "if x:\n    pass\n\nfiles = None\na, b = None\npass\npass\ny = 1"
    assert commands == ["!ls \\", "files = !ls", "a, b = %timeit -o 1", "help?", "%%time"]


HOARDS = """
import time
def hoards(x):
    kept = bytearray(b"1") * (1 << 30)
    time.sleep(60)
"""


def test_a_box_that_is_being_killed_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog ends one exercise; the next gets a server that lives, however slowly the old one dies."""
    kill = Sandbox._kill

    def end_children(box: Sandbox) -> None:
        for pid in below(box.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def slowly(box: Sandbox) -> None:
        """Its children first, and the server when the next exercise may have begun."""
        end_children(box)
        time.sleep(1)
        end_children(box)
        kill(box)

    monkeypatch.setattr(Sandbox, "_kill", slowly)
    with Sandbox("none", limits=replace(LIMITS, together=1 << 30)) as box:
        child = box.fork()
        child.run([("hoards", HOARDS)], seed=0)
        with pytest.raises(Failure, match="more memory"):
            RemoteSubject(child, "hoards")(1)
        child = box.fork()
        time.sleep(1.5)  # by now the old server would be gone
        child.run([("halve", "def halve(x):\n    return x / 2")], seed=0)
        assert RemoteSubject(child, "halve")(3) == 1.5
