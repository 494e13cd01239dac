"""A mistake costs once: earlier exercises that went wrong -> the reference's source, for a second try at later ones.

The second try counts where it is better. What went wrong may also have spoiled the process that runs it all (a limit, a
signal, a hook): the second try leaves out the cells of failed exercises that the answer does not speak of.
The reference of an exercise enters the sandbox only after that exercise was judged, and never for its own judgement.
The second try's process may know a reference, so that none of its own words reach a verdict: points, and sentences of
our own, alone.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Second:
    """What a second try stands on: name -> stand-in of what the answer uses and went wrong, and cells left out."""

    stand_ins: Mapping[str, str]
    idle: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.stand_ins or self.idle)

    @property
    def ground(self) -> str:
        """It in words.

        >>> Second({"double": ""}, ("halve", "third")).ground
        "on the reference's double and without the cells of halve and third"
        """
        used = [f"on the reference's {' and '.join(self.stand_ins)}"] if self.stand_ins else []
        left = [f"without the cell{'s' * (len(self.idle) > 1)} of {' and '.join(self.idle)}"] if self.idle else []
        return " and ".join(used + left)


def second(failed: Mapping[str, Exercise], cells: Sequence[str], sources: Mapping[str, str]) -> Second:
    """The second try at the last of these cells: it, and what it needs, speak of some of the failed, and of others not.

    >>> from graders.exercise import find
    >>> failed = {name: find(f"attention.{name}") for name in ("attend_one", "attend")}
    >>> cells, sources = ["attend_one", "attend", "mine"], {"mine": "def mine(q, k, v): return attend(q, k, v)"}
    >>> found = second(failed, cells, sources)
    >>> list(found.stand_ins), found.idle
    (['attend'], ('attend_one',))
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
    return Second(found, tuple(name for name in cells if name in failed and name not in reached))


def better(own: Outcome, second: Outcome, ground: str) -> Outcome:
    """The outcome that counts: the learner's own, or with more points the one on that ground."""
    if second.score <= own.score:
        return own
    holds = f"{ground} it is right" if second.full else f"{ground} it earns {second.score} of {second.points} points"
    parts = tuple(_part(one, two, ground) for one, two in zip(own.parts, second.parts, strict=True))
    message = f"{holds}; with your own: {own.message}"
    return replace(own, score=second.score, parts=parts, mistake=second.mistake, message=message)


def _part(own: Part, second: Part, ground: str) -> Part:
    if second.earned:
        return replace(second, message=f"met {ground}" if not own.earned else "")
    return replace(second, message=own.message or f"not met {ground}")
