"""The box: what is in it can neither get out nor stay, and without a box nothing runs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from boxes import needs_box

from graders import levels, sandbox
from graders.levels import IsolationError
from graders.sandbox import LIMITS, SLOWER, RemoteSubject, Sandbox, Stopped, readable
from graders.selftest import escapes
from graders.subject import Failure
from graders.warm import Nursery, boxes

SHORT = replace(LIMITS, server=2, cells=3, call=2, submission=60)
DOUBLE = ("double", "import torch\ndef double(x):\n    return 2 * x")


@pytest.fixture(scope="module", params=["bwrap", "full"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A box with short times, at each level that isolates."""
    with boxes(request.param, limits=SHORT) as start, start() as made:
        yield made


def works(made: Sandbox) -> bool:
    """Whether a fresh fork answers."""
    child = made.fork()
    child.run([DOUBLE], 1)
    return torch.equal(RemoteSubject(child, "double")(torch.ones(2)), 2 * torch.ones(2))


@needs_box
def test_the_box_holds(box: Sandbox) -> None:
    """Code in the box reaches no file, network, process, mount or capability outside."""
    assert escapes(box, [Path(__file__).parents[1], Path.home()]) == []


def test_the_self_test_can_fail() -> None:
    """Without a box the same self-test finds the ways out."""
    with Sandbox("none") as made:
        reached = escapes(made, [Path(__file__).parents[1]])
    found = {"read files outside", "reach a port of this machine", "see other processes", "signal other processes"}
    assert found <= set(reached)


LOOK = """
import os, sys
def look(path):
    return os.listdir(path)
def read(path):
    return open(path).read()
def environment():
    return dict(os.environ)
def loaded():
    return sorted(sys.modules)
"""


@needs_box
def test_what_is_visible(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the graders the box shows three files, of the course and its libraries nothing, of the environment nothing."""
    monkeypatch.setenv("SECRET_TOKEN", "x")
    child = box.fork()
    child.run([("look", LOOK)], 1)
    assert sorted(child.ask("call", "look", ("/player/graders",))) == sorted(levels.VISIBLE)
    with pytest.raises(Failure, match="No such file"):
        child.ask("call", "read", (str(Path(__file__)),))
    assert "SECRET_TOKEN" not in child.ask("call", "environment")
    loaded = child.ask("call", "loaded")
    assert not [
        name
        for name in loaded
        if name.startswith("graders") and name.count(".") and name.split(".")[1] + ".py" not in levels.VISIBLE
    ]
    assert not [name for name in loaded if name.startswith("tinytrans")]


@needs_box
def test_deadline_of_a_call(box: Sandbox) -> None:
    """A call that does not end is stopped at its deadline, as is every later one; the next fork is fresh."""
    child = box.fork()
    child.run(
        [
            (
                "spin",
                "def spin():\n    while True:\n        try: pass\n        except BaseException: pass",
            )
        ],
        1,
    )
    start = time.monotonic()
    for _ in range(3):
        with pytest.raises(Stopped, match="2 seconds") as stopped:
            RemoteSubject(child, "spin")()
        assert stopped.value.kind == "Timeout"
    assert time.monotonic() - start < 5.5  # three deadlines would take 6: the child is not asked again
    assert works(box)


@needs_box
def test_deadline_of_a_cell(box: Sandbox) -> None:
    """A cell that does not end is named."""
    with pytest.raises(Stopped) as stopped:
        box.fork().run([("good", "x = 1"), ("bad", "while True: pass"), ("later", "y = 1")], 1)
    assert (stopped.value.kind, stopped.value.cell) == ("Timeout", "bad")
    assert works(box)


@needs_box
@pytest.mark.parametrize(
    "end",
    [
        "os._exit(0)",
        "os.kill(os.getpid(), 9)",
        "os.kill(os.getppid(), 9)",
        "os.kill(os.getppid(), 19)",
        "os.kill(-1, 9)",
    ],
)
def test_death(box: Sandbox, end: str) -> None:
    """A child that ends itself, or tries to end its server, fails with a sentence; the next fork works."""
    child = box.fork()
    child.run([("end", f"import os\ndef end():\n    {end}\n    while True: pass")], 1)
    with pytest.raises(Failure):
        RemoteSubject(child, "end")()
    assert works(box)


@needs_box
def test_helpers_die(box: Sandbox) -> None:
    """Processes that a learner's code leaves behind are dead before the next fork starts."""
    child = box.fork()
    leave = "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(1000)"
    child.run([("leave", leave)], 1)
    child = box.fork()
    child.run([("look", LOOK)], 1)
    deadline = time.monotonic() + 5
    while (alive := [p for p in child.ask("call", "look", ("/proc",)) if p.isdigit()]) and len(alive) > 3:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


@needs_box
def test_a_helper_does_not_speak(box: Sandbox) -> None:
    """A process that learner's code forks cannot answer in its parent's place."""
    child = box.fork()
    source = (
        "import os\ndef both():\n    pid = os.fork()\n    if pid:\n        os.waitpid(pid, 0)\n    return bool(pid)"
    )
    child.run([("both", source)], 1)
    assert RemoteSubject(child, "both")() is True
    assert RemoteSubject(child, "both")() is True


BOMBS = {
    "memory": ("x = bytearray(1 << 36)", "MemoryError"),
    "tensor": ("import torch\nx = torch.ones(1 << 34)", "RuntimeError"),
    "file": (
        "with open('/tmp/x', 'wb') as f:\n    for _ in range(1 << 12):\n        f.write(b'x' * (1 << 20))",
        "OSError",
    ),
    "files": ("for i in range(1 << 12):\n    open(f'/tmp/y{i}', 'wb').write(b'x' * (1 << 20))", "OSError"),
    "shared memory": ("for i in range(1 << 12):\n    open(f'/dev/shm/y{i}', 'wb').write(b'x' * (1 << 20))", "OSError"),
    "root": ("open('/x', 'w')", "OSError"),
    "descriptors": ("import os\nx = [os.open('/', 0) for _ in range(10_000)]", "OSError"),
    "processes": (
        "import os, time\nfor _ in range(1000):\n    if os.fork() == 0:\n        time.sleep(100)\n        os._exit(0)",
        "BlockingIOError",
    ),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "brackets": ("x = " + "(" * 5000 + ")" * 5000, "SyntaxError"),
}


@needs_box
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(box: Sandbox, name: str) -> None:
    """What would exhaust the machine is an error in the cell, and the cells after it run."""
    source, kind = BOMBS[name]
    notes = box.fork().run([("bomb", source), DOUBLE], 1)
    assert notes[0].error is not None
    assert notes[0].error[0] in (kind, "MemoryError")
    assert notes[1].defined
    assert works(box)


@needs_box
def test_forged_frames(box: Sandbox) -> None:
    """A cell that writes on the socket is named as the culprit; a call that does so is no answer."""
    speak = "import os\nos.write(3, b'\\x02\\0\\0\\0\\0\\0\\0\\0{}')\nspeak = 1"
    with pytest.raises(Stopped) as stopped:
        box.fork().run([("speak", speak), DOUBLE], 1)
    assert (stopped.value.kind, stopped.value.cell) == ("Malformed", "speak")
    child = box.fork()
    child.run([("f", "import os\ndef f():\n    os.write(3, b'\\xff' * 100)\n    return 1")], 1)
    with pytest.raises(Stopped, match="no answer"):
        RemoteSubject(child, "f")()
    assert works(box)


def leftovers() -> tuple[set[str], set[str], str]:
    """The Player processes, the temporary entries, and the mounts of this machine."""
    found = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    processes = {line.split()[0] for line in found.split("\n") if "graders.player" in line}
    return (
        processes,
        {p for p in os.listdir("/tmp") if p.startswith(("player-", "probe-", "submitted-"))},
        Path("/proc/mounts").read_text(),
    )


@pytest.mark.parametrize("level", ["full", "bwrap", "none"])
def test_nothing_is_left(level: str) -> None:
    """After a box is closed, its processes, mounts and files are gone, those of a daemon in it too."""
    if level != "none" and levels.missing():
        pytest.skip("no isolation here")
    before = leftovers()
    with boxes(level) as start, start() as made:
        child = made.fork()
        helper = (
            "import os, time\nif os.fork() == 0:\n    "
            + ("os.setsid()\n    " if level != "none" else "")
            + "time.sleep(1000)"
        )
        child.run([("daemon", helper)], 1)
        assert leftovers()[0] - before[0]
    deadline = time.monotonic() + 5
    while (after := leftovers())[0] - before[0] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert after[0] <= before[0]
    assert after[1] <= before[1]
    assert after[2] == before[2]


def test_fail_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bubblewrap is missing nothing starts, and the error names the line that installs it."""
    monkeypatch.setattr(levels.shutil, "which", lambda *_, **__: None)
    with pytest.raises(IsolationError, match="apt install bubblewrap"):
        Sandbox("bwrap")


def test_fail_closed_on_a_broken_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the box cannot be made, its complaint is told and nothing runs outside of it."""
    broken = levels.Box(("sh", "-c", "echo setting up uid map: Permission denied >&2; exit 1"))
    monkeypatch.setattr(sandbox, "bwrap_box", lambda *_: broken)
    monkeypatch.setattr(sandbox, "missing", lambda: None)
    with pytest.raises(IsolationError, match=r"uid map.*graders doctor"):
        Sandbox("bwrap")


def test_no_such_level() -> None:
    """A level that does not exist is an error that lists those that do."""
    with pytest.raises(ValueError, match="bwrap, none"):
        Sandbox("landlock")


def test_readable() -> None:
    """Text of a learner loses control and direction characters, and what is too long."""
    assert readable("\x1b[31mred\u202e ok\n") == "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER} ok\n"
    assert len(readable("x" * 9999)) == 500


TOGETHER = replace(SHORT, together=1 << 30)
SWARM = """
import os, time, torch
def swarm():
    for _ in range(8):
        if os.fork() == 0:
            kept = torch.ones(1 << 26)  # 256 MB
            time.sleep(100)
    time.sleep(100)
"""


@needs_box
@pytest.mark.parametrize("level", ["bwrap", "full"])
def test_many_processes_together(level: str) -> None:
    """Processes that each keep to their limit and together do not are all killed; the box works on, as a fresh one."""
    with boxes(level, limits=replace(TOGETHER, call=20)) as start, start() as made:
        child = made.fork()
        child.run([("swarm", SWARM)], 1)
        began = time.monotonic()
        with pytest.raises(Stopped, match="more memory"):
            RemoteSubject(child, "swarm")()
        assert time.monotonic() - began < 15
        assert works(made)


@needs_box
def test_submissions_do_not_meet() -> None:
    """Two boxes of one warm server share no file and no process, and what one does ends with it."""
    meet = "import os\ndef write():\n    open('/tmp/mine', 'w').write('x')\n    return os.listdir('/tmp')"
    with Nursery(limits=SHORT) as nursery, nursery.box() as one, nursery.box() as two:
        first, second = one.fork(), two.fork()
        for child in (first, second):
            child.run([("meet", meet), ("look", LOOK)], 1)
        assert first.ask("call", "write") == ["mine"]
        assert second.ask("call", "look", ("/tmp",)) == []
        assert [p for p in second.ask("call", "look", ("/proc",)) if p.isdigit()] == ["1", "2"]


@needs_box
def test_the_warm_server_is_replaced() -> None:
    """Where the warm server died, the next box gets a new one."""
    with Nursery(limits=SHORT) as nursery:
        nursery.process.kill()
        nursery.process.wait()
        with nursery.box() as made:
            assert works(made)


@needs_box
def test_what_came_of_a_box_is_counted() -> None:
    """A box knows the processor time and the memory that a learner's code took."""
    with Nursery(limits=SHORT) as nursery, nursery.box() as made:
        child = made.fork()
        child.run([("burn", "import time\nwhile time.process_time() < 0.5: pass\nx = bytearray(1 << 27)")], 1)
        assert made.clear()
        assert 0.4 < made.cpu() < 5
        assert made.memory > 1 << 27


def test_times_follow_the_reference() -> None:
    """An exercise whose reference takes long gives an answer more time; less than the least is never given."""
    quick, slow = LIMITS.allowing(0.001), LIMITS.allowing(2.0)
    assert quick == LIMITS
    assert (slow.call, slow.exercise, slow.cpu) == (2 * SLOWER, 4 * SLOWER, 4 * SLOWER)
    assert slow.hurried(0.5).exercise == 2 * SLOWER
    assert (LIMITS.hurried(0.001).cells, LIMITS.hurried(0.001).call) == (2.0, 1.0)


@needs_box
def test_files_without_end(box: Sandbox) -> None:
    """Who makes more files than may be is stopped, by the kernel or by the watchdog; the next fork finds none."""
    flood = "import time\nfor i in range(60_000): open(f'/tmp/{i}', 'w').close()\ntime.sleep(2.5)\nmade = True"
    child = box.fork()
    try:
        note = child.run([("made", flood)], 1)[0]
    except Stopped:
        pass
    else:
        assert note.error is not None
        assert "No space" in note.error[1]
    child = box.fork()
    child.run([("left", "import os\nleft = os.listdir('/tmp')")], 1)
    if box.level == "bwrap":  # a new box
        assert child.ask("value", "left") == []
    assert works(box)
