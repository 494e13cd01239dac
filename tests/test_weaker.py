# ruff: noqa: E501  (an attempt reads best as the line that it is)
"""Levels for machines without bubblewrap: what they keep, what they do not, and that nobody takes one unknowingly."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from boxes import needs_box

from graders import levels, selftest, weaker
from graders.doctor import IN_A_CONTAINER, mends
from graders.levels import IsolationError
from graders.sandbox import LIMITS, RemoteSubject, Sandbox, Stopped
from graders.selftest import escapes, strongest
from graders.subject import Failure
from graders.warm import boxes
from graders.weaker import Lonely, Pool, apart, container_command, missing_container, missing_landlock

SHORT = replace(LIMITS, start=300, cells=60, call=30, exercise=90, server=30, memory=1 << 28)
needs_landlock = pytest.mark.skipif(missing_landlock() is not None, reason=f"no Landlock here: {missing_landlock()}")
DOUBLE = ("double", "import torch\ndef double(x):\n    return 2 * x")
HOME = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A box at level "landlock"."""
    with Lonely(limits=SHORT, hidden=[HOME]) as made:
        yield made


def works(made: Sandbox) -> bool:
    """Whether a fresh fork answers."""
    child = made.fork()
    child.run([DOUBLE], 1)
    return torch.equal(RemoteSubject(child, "double")(torch.ones(2)), 2 * torch.ones(2))


@needs_landlock
def test_what_landlock_does_not_keep(box: Sandbox) -> None:
    """Without namespaces the names of files can be seen; that is all that the self-test finds."""
    assert escapes(box, [HOME, Path.home()]) == ["see names of files outside"] == [*selftest.GRANTED["landlock"]]


REFUSED = {
    "a file of the course": f"open({str(HOME / 'README.md')!r})",
    "a file of the system": "open('/etc/hostname')",
    "its own memory": "open('/proc/self/mem', 'rb')",
    "a new file": "open('/tmp/new', 'w')",
    "shared memory": "open('/dev/shm/new', 'w')",
    "rights of a file": "os.chmod('/tmp', 0o777)",
    "times of a file": "os.utime('/tmp')",
    "a signal": "os.kill(os.getppid(), 0)",
    "a signal to all": "os.kill(-1, 9)",
    "a local socket": "socket.socket(socket.AF_UNIX)",
    "the network": "socket.socket()",
    "priorities": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "limits of others": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (1, 1))",
    "memory without a process": "os.memfd_create('x')",
}


@needs_landlock
@pytest.mark.parametrize("name", REFUSED)
def test_refused(box: Sandbox, name: str) -> None:
    """What Landlock leaves open the filter of calls refuses."""
    note = box.fork().run([("attempt", f"import os, resource, socket\n{REFUSED[name]}\nattempt = 1")], 1)[0]
    assert not note.defined
    assert note.error is not None
    assert note.error[0] in ("PermissionError", "OSError")


@needs_landlock
def test_ordinary_code_runs(box: Sandbox) -> None:
    """Packages that nobody loaded yet can be imported, and a helper process be started."""
    source = "import subprocess, numpy, sqlite3, xml.dom.minidom\nok = subprocess.run(['true']).returncode == 0"
    child = box.fork()
    assert child.run([("ok", source)], 1)[0].error is None
    assert child.ask("value", "ok") is True


@needs_landlock
def test_what_holds_the_answers_is_not_there(box: Sandbox) -> None:
    """The library, the tables and the lessons cannot be imported, though they are installed."""
    for name in ("tinytrans", "graders.judge", "graders.checks", "solutions"):
        note = box.fork().run([("attempt", f"import {name}")], 1)[0]
        assert note.error is not None
        assert note.error[0] in ("ModuleNotFoundError", "PermissionError")


@needs_landlock
def test_nothing_is_made_among_the_machines_files(box: Sandbox) -> None:
    """What torch and matplotlib want to write when they load is not written to this machine's /tmp."""
    source = (
        "import os, sys\nours = [v for v in os.environ.values() if v.startswith('/tmp/') and v != os.environ['HOME']]"
    )
    child = box.fork()
    child.run([("ours", source + "\nloaded = 'matplotlib.pyplot' in sys.modules")], 1)
    assert child.ask("value", "ours") == []
    assert child.ask("value", "loaded") is True


@needs_landlock
def test_daemons_end(box: Sandbox) -> None:
    """A process that left its session is dead before the next fork, and so are those of a fork bomb."""
    bomb = "import os\nif os.fork() == 0:\n    os.setsid()\n    while True:\n        try: os.fork()\n        except OSError: pass\n"
    child = box.fork()
    child.run([("bomb", bomb + "import time\ntime.sleep(0.5)")], 1)
    assert box.clear()
    assert weaker.alive_below(box.process.pid) == []
    assert works(box)


@needs_landlock
def test_a_pool_gives_a_box_again() -> None:
    """The next submission gets the same box, with its own count of time; a box that died is replaced."""
    made: list[Sandbox] = []

    def make() -> Sandbox:
        made.append(Lonely(limits=SHORT))
        return made[-1]

    pool = Pool(make)
    with pool.box() as first:
        child = first.fork()
        child.run([("burn", "import time\nwhile time.process_time() < 0.6: pass")], 1)
        first.clear()
        assert first.cpu() > 0.3
    with pool.box() as second:
        assert second is first
        assert second.cpu() < 0.3
        second.process.kill()
        second.process.wait()
    with pool.box() as third:
        assert third is not first
        assert works(third)
    pool.close()
    assert [one.alive for one in made] == [False, False]
    assert not [one._home for one in made if one._home and os.path.exists(one._home)]


def test_apart(tmp_path: Path) -> None:
    """The places to read are all but what is masked, also where a link leads there."""
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b" / "c")
    masked = [(tmp_path / "a" / "b").resolve(), (tmp_path / "a" / "b" / "c").resolve()]
    assert apart(tmp_path, []) == [tmp_path]
    assert {p.relative_to(tmp_path).as_posix() for p in apart(tmp_path, masked)} == {"a/d", "e"}


def test_never_weaker_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bubblewrap and a container grading refuses, and names what would let it go on; told so, it does."""
    monkeypatch.setattr(selftest, "_open", {})
    monkeypatch.setattr(levels.shutil, "which", lambda *_, **__: None)
    with pytest.raises(IsolationError, match=r"apt install bubblewrap.*podman nor docker") as refused:
        strongest(HOME)
    if missing_landlock() is None:
        assert "--accept-weaker" in str(refused.value)
        monkeypatch.undo()
        monkeypatch.setattr(selftest, "_open", {})
        monkeypatch.setattr("graders.sandbox.missing", lambda: "no bubblewrap")
        monkeypatch.setattr(weaker, "missing_container", lambda: "no container")
        level, complaints = strongest(HOME, weaker=True)
        assert level == "landlock"
        assert [complaint.split(":")[0] for complaint in complaints] == [
            "level 'full'",
            "level 'bwrap'",
            "level 'container'",
        ]


def test_a_container_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a container shows is this machine's Python: where that is none of Linux's, no image helps."""
    monkeypatch.setattr(weaker.sys, "platform", "darwin")
    assert "grade in Linux" in str(missing_container())


def test_the_engine_that_has_the_image(podman: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Podman has no image and Docker has it, Docker is taken."""
    docker = podman.parent / "bin" / "docker"
    docker.write_text("#!/bin/sh\nexit 0\n")
    docker.chmod(0o755)
    assert weaker.engine() == "podman"
    monkeypatch.setenv("PODMAN_RC", "125")
    assert missing_container() is None
    assert weaker.engine() == "docker"


def test_old_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Landlock is missing or too old, the level cannot be had."""
    monkeypatch.setattr(weaker, "landlock_version", lambda: 2)
    assert "Linux 6.2" in str(missing_landlock())
    with pytest.raises(IsolationError, match="this kernel has 2"):
        Lonely()


PODMAN = """
#!PYTHON
import json, os, sys
arguments = sys.argv[1:]
open(os.environ["PODMAN_LOG"], "a").write(json.dumps(arguments) + "\\n")
if arguments[:2] == ["image", "inspect"]:
    print("Error: no such image", file=sys.stderr)
    sys.exit(int(os.environ.get("PODMAN_RC", "0")))
if arguments[0] == "run":
    shown = [a.removeprefix("--volume=").split(":") for a in arguments if a.startswith("--volume=")]
    command = arguments[arguments.index(os.environ["IMAGE"]) + 1:]
    places = {inside: outside for outside, inside, _ in shown if inside.startswith(("/player", "/packages"))}
    for inside, outside in places.items():  # there is no container here: each place is where it comes from
        command = ["|".join(p.replace(inside, outside, 1) if p.startswith(inside) else p for p in c.split("|")) for c in command]
    os.execv(command[0], command)
"""


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program named podman that starts the command of the container without one, and the log of its arguments."""
    program, log = tmp_path / "bin" / "podman", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(textwrap.dedent(PODMAN).strip().replace("PYTHON", sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PODMAN_LOG", str(log))
    monkeypatch.setenv("IMAGE", weaker.IMAGE)
    monkeypatch.delenv("TINYTRANS_IMAGE", raising=False)
    return log


def test_a_container_is_spoken_to(podman: Path) -> None:
    """The Player in a container is reached over a socket in a folder; at the end the container is removed by its name."""
    with boxes("container", limits=SHORT) as start:
        with start() as made:
            assert made.level == "container"
            assert works(made)
            child = made.fork()
            child.run([("end", "import os\ndef end():\n    os._exit(0)\n")], 1)
            with pytest.raises(Stopped):
                RemoteSubject(child, "end")()
            assert not Path(str(made._home)).exists()  # so kill -9 leaves none
        with start() as again:
            assert again is made
            assert works(again)
    asked = ["image", "inspect"]
    calls = [json.loads(line) for line in podman.read_text().split("\n") if line]
    name = next(a for a in calls[-2] if a.startswith("player-"))
    assert [call[:2] for call in calls] == [asked, asked, ["run", "--rm"], ["rm", "--force"]]
    assert calls[-1] == ["rm", "--force", name]
    assert not made.alive


@pytest.mark.skipif(missing_container() is not None, reason=f"no container here: {missing_container()}")
def test_a_container_holds() -> None:
    """In a real container the self-test finds no way out, and no folder that a later submission could look into."""
    with boxes("container", limits=SHORT, hidden=[HOME]) as start, start() as made:
        assert escapes(made, [HOME, Path.home()]) == []
        assert works(made)


def test_the_container_that_does_not_start(podman: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that is missing, and a container that ends at once, are errors that name the cause."""
    monkeypatch.setenv("PODMAN_RC", "125")
    assert f"podman pull {weaker.IMAGE}" in str(missing_container())
    monkeypatch.setenv("PODMAN_RC", "0")
    monkeypatch.setattr(weaker, "container_command", lambda *_: ["sh", "-c", "echo no cgroup >&2; exit 1"])
    with pytest.raises(IsolationError, match="no cgroup"), boxes("container", limits=SHORT) as start, start():
        pass


def test_the_containers_command(tmp_path: Path) -> None:
    """The container has no network, no right, nothing to write, and shows only what runs the Player, read-only."""
    command = container_command("podman", "player-1", str(tmp_path), SHORT, [])
    flags = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pull=never"]
    assert set(flags) <= set(command)
    assert "--read-only-tmpfs=false" in command  # Podman's own word: Docker does not know it, nor have such folders
    assert "--read-only-tmpfs=false" not in container_command("docker", "player-1", str(tmp_path), SHORT, [])
    assert f"--user={levels.NOBODY}:{levels.NOBODY}" in command
    volumes = [a for a in command if a.startswith("--volume=")]
    assert all(volume.endswith(":ro") for volume in volumes)
    assert not [v for v in volumes if v.split("=")[1].startswith(f"{HOME}:")]
    assert not [a for a in command if "privileged" in a and "no-new" not in a]


def test_mends(tmp_path: Path) -> None:
    """The doctor reads from the kernel's settings what keeps bubblewrap from its namespaces, and says the line."""
    assert mends(tmp_path) == [IN_A_CONTAINER]
    for name, value, line in [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "bwrap-userns-restrict"),
        ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(value + "\n")
        assert line in mends(tmp_path)[-1]


@needs_box
@pytest.mark.parametrize("level", ["full", "bwrap"])
def test_memory_without_a_process(level: str) -> None:
    """Memory that is no process's, and so counted by no limit of one, cannot be had at any level."""
    with boxes(level, limits=SHORT) as start, start() as made:
        child = made.fork()
        child.run(
            [
                (
                    "keep",
                    "import ctypes, os\ndef keep():\n    return ctypes.CDLL(None).shmget(0, 4096, 0o1600)\ndef file():\n    os.memfd_create('x')",
                )
            ],
            1,
        )
        assert child.ask("call", "keep") == -1
        with pytest.raises(Failure, match="PermissionError"):
            child.ask("call", "file")
