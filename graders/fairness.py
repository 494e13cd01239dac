"""A mistake costs once: earlier exercises that went wrong -> the reference's source, for a second try at later ones.

The second try counts where it is better. The reference of an exercise enters the sandbox only after that exercise was
judged, and never for its own judgement. The second try's process knows a reference, so that none of its own words reach
a verdict: points, and sentences of our own, alone.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

from graders.exercise import Exercise
from graders.judge import Outcome, Part


def stand_in(exercise: Exercise) -> str | None:
    """The source of the exercise's reference, as a cell of its own; None where it is no plain function of that name."""
    if exercise.question or getattr(exercise.reference, "__name__", None) != exercise.name:
        return None
    try:
        source = inspect.getsource(exercise.reference)
    except (OSError, TypeError):  # made at run time, or written in C
        return None
    return "from __future__ import annotations\n" + textwrap.dedent(source)


def needed(failed: Mapping[str, Exercise], cells: Sequence[str], sources: Mapping[str, str]) -> dict[str, str]:
    """Name -> stand-in of the failed exercises that the last of these cells, or one that it needs, speaks of.

    >>> from graders.exercise import find
    >>> failed = {"attend": find("attention.attend")}
    >>> list(needed(failed, ["attend", "mine"], {"mine": "def mine(q, k, v): return attend(q, k, v)"}))
    ['attend']
    """
    reached: list[str] = [cells[-1]]
    found: dict[str, str] = {}
    for name in reached:  # grows as names are found
        words = set(re.findall(r"\w+", found.get(name) or sources.get(name, "")))
        for earlier in cells[: cells.index(name)]:
            if earlier in words and earlier not in reached:
                reached.append(earlier)
                source = stand_in(failed[earlier]) if earlier in failed else None
                if source is not None:
                    found[earlier] = source
    return found


def better(own: Outcome, second: Outcome, names: Sequence[str]) -> Outcome:
    """The outcome that counts: the learner's own, or with more points the one on the reference's functions `names`."""
    if second.score <= own.score:
        return own
    ground = f"on the reference's {' and '.join(names)}"
    holds = f"{ground} it is right" if second.full else f"{ground} it earns {second.score} of {second.points} points"
    parts = tuple(_part(one, two, ground) for one, two in zip(own.parts, second.parts, strict=True))
    message = f"{holds}; with your own: {own.message}"
    return replace(own, score=second.score, parts=parts, mistake=second.mistake, message=message)


def _part(own: Part, second: Part, ground: str) -> Part:
    if second.earned:
        return replace(second, message=f"met {ground}" if not own.earned else "")
    return replace(second, message=own.message or f"not met {ground}")
