"""The warm Player on its own -> milliseconds of one isolated exercise, and megabytes of the processes involved."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from graders.grade import Grading, fresh_seeds
from graders.rebuild import rebuild
from graders.release import Release
from graders.warm import Boxes
from graders.watch import below


def figures(release: Release, boxes: Boxes, folder: Path, repeats: int) -> dict[str, Any]:
    """Each exercise of a right submission `repeats` times, each time in a fork of its own; then what memory it took."""
    from solutions import build

    path = folder.parent / "solved.ipynb"
    path.write_bytes(build.to_bytes(build.submission(release.name, build.answers(release.name))))
    submission, milliseconds = rebuild(release, path), []
    servers = [pid for pid in below(os.getpid()) if of_player(pid)]
    with boxes() as box:
        for _ in range(repeats):
            grading = Grading(release, submission, box, fresh_seeds())
            for item in release.items:
                begun = time.perf_counter()
                assert grading.item(item).outcome.full, item.name
                milliseconds.append(1000 * (time.perf_counter() - begun))
        grading = Grading(release, submission, box, fresh_seeds())
        child, _ = grading._child(release.items[-1])
        extra = [pid for pid in below(os.getpid()) if of_player(pid) and pid not in servers]
        own = [private(pid) for pid in extra]
        warm = [memory(pid, "Rss") for pid in servers]
        child.close()
    ordered = sorted(milliseconds)
    return {
        "items": len(release.items),
        "exercise p50 (ms)": round(ordered[len(ordered) // 2], 1),
        "exercise p95 (ms)": round(ordered[int(0.95 * len(ordered))], 1),
        "warm parent, resident (MB)": round(max(warm) / 1024),
        "extra Player, private, all its processes (MB)": round(sum(own) / 1024, 1),
        "its processes, private (MB)": [round(kb / 1024, 1) for kb in own],
        "grader's own process, resident (MB)": round(memory(os.getpid(), "Rss") / 1024),
    }


def of_player(pid: int) -> bool:
    """Whether a process is the warm parent, or a fork of it."""
    try:
        return b"player" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def private(pid: int) -> int:
    """Kilobytes of a process that no other shares."""
    return memory(pid, "Private_Clean") + memory(pid, "Private_Dirty")


def memory(pid: int, what: str) -> int:
    """Kilobytes, by the kernel's own sum over the mappings of a process."""
    found = re.search(rf"^{what}: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
