"""A watchdog over one submission: the memory and the number of all its processes, seen from outside.

The kernel's limits hold for one process each; what many of them take together is counted here.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from graders.confine import WRITABLE

EVERY = 0.25  # seconds: what grows by a gigabyte in that time is still found before it hurts
TICK = os.sysconf("SC_CLK_TCK")


class Watch:
    """A thread that calls `kill` where the processes below `pid` become too many or need too much together.

    `files`: the most that they may have in the folders of their own; None where the kernel counts them, or has none.
    """

    def __init__(
        self, pid: int, kill: Callable[[], None], memory: int, processes: int, files: int | None = None
    ) -> None:
        self.pid, self.kill, self.memory, self.processes, self.files = pid, kill, memory, processes, files
        self.peak = 0
        self._before = processor([pid])  # what it took to start is not the learner's
        self.why: str | None = None
        self._look = threading.Lock()  # held from a look at the processes to the end of what follows from it
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def struck(self) -> bool:
        """Whether it has killed, or is about to: a look that is under way is waited for."""
        with self._look:
            return self.why is not None

    def cpu(self) -> float:
        """Seconds of processor time since the start, of all processes, those that have ended too."""
        return processor([self.pid, *listed(self.pid)]) - self._before

    def delayed(self) -> float:
        """Seconds that the processes below, those that still run, were ready to run and had no processor."""
        return delayed(listed(self.pid))

    def sample(self, find: Callable[[int], list[int]] | None = None) -> tuple[int, int]:
        """(processes, bytes of memory together) at this moment, of all that are `below`, or that `find` gives."""
        family = [self.pid, *(find or below)(self.pid)]
        used = resident(family)
        if used > self.memory:  # resident counts what forks share once for each: ask again, exactly and slowly
            used = proportional(family)
        self.peak = max(self.peak, used)
        return len(family), used

    def _run(self) -> None:
        while not self._over.wait(EVERY):
            with self._look:
                processes, used = self.sample()
                files = kept(listed(self.pid)) if self.files is not None else 0
                if used > self.memory or processes > self.processes + 8 or files > (self.files or 0):  # 8: our own
                    self.why = f"{processes} processes with {used >> 20} MB together and {files} files"
                    self.kill()
                    return


def kept(pids: list[int]) -> int:
    """How many files the processes have in the folders that they may write to, where these are not this machine's."""
    found: dict[int, int] = {}
    for pid in pids:
        for folder in WRITABLE:
            with suppress(OSError):
                place = f"/proc/{pid}/root{folder}"
                if (device := os.stat(place).st_dev) not in found and device not in _ours():
                    about = os.statvfs(place)
                    found[device] = about.f_files - about.f_ffree
    return sum(found.values())


def _ours() -> set[int]:
    """The devices of this process's own folders: a process outside of the box has the same."""
    return {os.stat(folder).st_dev for folder in ("/", *WRITABLE) if os.path.exists(folder)}


def below(pid: int) -> list[int]:
    """All descendants of a process. One that lost its parent belongs to the first process of its pid namespace."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = list(children.get(pid, []))
    for one in found:  # grows as it is walked
        found += children.get(one, [])
    return found


def listed(pid: int) -> list[int]:
    """All descendants of a process by the kernel's own lists, which cost nothing beside a walk over every process.

    A list may lack one while another ends: good for accounts, not for a guard. `below` where the kernel has no lists.
    """
    found = [pid]
    for one in found:  # grows as it is walked
        with suppress(ProcessLookupError, FileNotFoundError):
            for task in os.listdir(f"/proc/{one}/task"):
                try:
                    found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
                except FileNotFoundError:
                    if not os.path.exists("/proc/thread-self/children"):
                        return below(pid)
    return found[1:]


def alive_below(pid: int) -> list[int]:
    """The descendants of a process that still run: of a dead one only its entry is left until its parent asks."""
    return [one for one in below(pid) if state(one) not in ("Z", "X", "")]


def state(pid: int) -> str:
    """The letter by which the kernel calls what a process does: "R" runs, "T" was stopped; nothing where it is gone."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    return ""


def tasks(uid: int) -> int:
    """How many processes and threads a user has, as the kernel's limit on them counts."""
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:
                    total += len(os.listdir(f"/proc/{name}/task"))
    return total


def _parents() -> Iterator[tuple[int, int]]:
    """(process, its parent) for every process that can be seen."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])


def processor(pids: list[int]) -> float:
    """Seconds of processor time of these processes and of the children that they waited for."""
    ticks = 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICK


def delayed(pids: list[int]) -> float:
    """Seconds that the threads of these processes were ready to run and had no processor; inf where nobody counts them.

    What sleeps is not ready to run: it waits for nothing that the machine owes it.
    """
    if not os.path.exists("/proc/self/schedstat"):
        return math.inf
    nanoseconds = 0
    for pid in pids:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError, ValueError, IndexError):
                    nanoseconds += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[1])
    return nanoseconds / 1e9


def resident(pids: list[int]) -> int:
    """Bytes of memory that is no file's, shared or not, the sum over these processes."""
    total = 0
    for pid in pids:
        with suppress(OSError, ValueError):
            lines = Path(f"/proc/{pid}/status").read_text(errors="replace").split("\n")
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return total


def proportional(pids: list[int]) -> int:
    """Bytes of memory of these processes, each page divided among those that share it; resident where it is refused."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().split("\n")
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10
        except PermissionError:
            total += resident([pid])
        except (OSError, ValueError, StopIteration):  # it is gone
            continue
    return total
