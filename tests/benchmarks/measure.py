"""Measuring: a contest of callables -> rows of medians, the contestants taking turns so that all meet the same load."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median

from torch.profiler import ProfilerActivity, profile

Run = Callable[[], object]


@dataclass(frozen=True)
class Contest:
    """One thing that several can do: a callable each, ours first; `amount` of `unit` is what a run gets done.

    target    how many times faster than a contestant ours should be; it is shown, never demanded.
    missing   contestant -> why it cannot run here.
    warmup    whether all run once before it counts.
    result    reads from what a run returns what the table should say beside its time.
    memory    whether each runs once more, at the end, for the most memory that its tensors take.
    """

    name: str
    unit: str
    amount: float
    runs: dict[str, Run]
    rounds: int
    target: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    warmup: bool = True
    result: Callable[[object], str] = lambda value: ""  # noqa: ARG005
    memory: bool = False


@dataclass(frozen=True)
class Row:
    """A contestant's medians: seconds of wall and processor, `speed` in amount per second, how often ours is faster."""

    contest: str
    contestant: str
    unit: str
    rounds: int = 0
    seconds: float | None = None
    cpu_seconds: float | None = None
    speed: float | None = None
    ratio: float | None = None
    cpu_ratio: float | None = None
    target: float | None = None
    megabytes: float | None = None
    note: str = ""


def clock() -> tuple[float, float]:
    """Seconds of wall and of processor so far, those of finished child processes included."""
    children = os.times()
    return time.perf_counter(), time.process_time() + children.children_user + children.children_system


def timed(run: Run) -> tuple[float, float, object]:
    """Seconds of wall, seconds of processor, and what the run returned."""
    wall, cpu = clock()
    value = run()
    wall_after, cpu_after = clock()
    return wall_after - wall, cpu_after - cpu, value


def measure(contest: Contest) -> list[Row]:
    """Every contestant once a round, each round beginning with another; ratios are paired within a round.

    Every second round goes the other way round: who comes behind whom matters, for it finds memory as that one left it.
    """
    names = list(contest.runs)
    if contest.warmup:
        for run in contest.runs.values():
            run()
    walls: dict[str, list[float]] = {name: [] for name in names}
    cpus: dict[str, list[float]] = {name: [] for name in names}
    notes: dict[str, str] = {}
    for i in range(contest.rounds):
        first = i // 2 % len(names)
        order = names[first:] + names[:first]
        for name in order if i % 2 == 0 else reversed(order):
            wall, cpu, value = timed(contest.runs[name])
            walls[name].append(wall)
            cpus[name].append(cpu)
            notes[name] = contest.result(value)
    rows = [row(contest, name, walls, cpus, notes[name]) for name in names]
    if contest.memory:
        rows = [replace(r, megabytes=peak_memory(contest.runs[r.contestant]) / 1e6) for r in rows]
    return rows + [Row(contest.name, name, contest.unit, note=why) for name, why in contest.missing.items()]


def row(contest: Contest, name: str, walls: dict[str, list[float]], cpus: dict[str, list[float]], note: str) -> Row:
    """One contestant's row."""
    ours = next(iter(contest.runs))
    seconds = median(walls[name])
    return Row(
        contest=contest.name,
        contestant=name,
        unit=contest.unit,
        rounds=contest.rounds,
        seconds=seconds,
        cpu_seconds=median(cpus[name]),
        speed=contest.amount / seconds,
        ratio=paired(walls[name], walls[ours]),
        cpu_ratio=paired(cpus[name], cpus[ours]),
        target=contest.target.get(name),
        note=note,
    )


def paired(theirs: list[float], ours: list[float]) -> float:
    """The median over rounds of their time by ours; a clock that did not tick counts as one thousandth of a second.

    >>> paired([2.0, 9.0, 4.0], [1.0, 1.0, 1.0])
    4.0
    """
    return median(a / max(b, 1e-3) for a, b in zip(theirs, ours, strict=True))


def peak_memory(run: Run) -> int:
    """The most bytes that tensors on the CPU hold during a run, beyond what they hold before it.

    >>> import torch
    >>> peak_memory(lambda: torch.zeros(1000) + torch.zeros(1000))
    12000
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    assert seen.profiler is not None
    changes = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    level = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        level += change.nbytes()
        peak = max(peak, level)
    return peak
