"""Every reference, mutated by rule: which wrong answers that no table lists does its check let through?

python -m graders.survivors [--json] [--one-in N] [concept ...]

A survivor is either equivalent (the exercise's table says so, with the reason) or a gap in the check.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import signal
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tqdm import tqdm

from graders.exercise import Exercise, concepts, table
from graders.judge import judge
from graders.mutants import SEEDS
from graders.mutate import Mutation, mutations
from graders.subject import Here

SECONDS = 5  # a mutation may loop for ever

# What is no mistake in any exercise: two lines that are equal once the pattern is replaced -> the reason.
ALWAYS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str], str], ...] = (
    (re.compile(r"(, )?device=[\w.]+"), "", "there is one device where answers are graded"),
    (re.compile(r"^raise .*"), "raise", "an error and its words are free"),
    (
        re.compile(r"^if (False|.*(\.shape|\.dim\(\)).* != .*):$"),
        "if shapes differ:",
        "shapes fit together where answers are graded",
    ),
    (re.compile(r", strict=\w+"), "", "the inputs are of one length"),
    (
        re.compile(r"transpose\((-?\d), (-?\d)\)"),
        lambda found: f"transpose{sorted(found.groups())}",
        "two axes are exchanged in either order",
    ),
)


class TooLong(KeyboardInterrupt):
    """A mutation did not come to an end. An interrupt, for all else the judge takes for the answer's own failure."""


@dataclass(frozen=True)
class Survey:
    """What an exercise's check does with the mutations of its reference."""

    exercise: str
    mutations: int
    rejected: int
    equivalent: dict[str, str]  # survivors that are no mistake -> the reason
    survivors: tuple[str, ...]  # the others
    outdated: tuple[str, ...]  # said to be equivalent, but rejected or not among the mutations


def survey(exercise: Exercise, one_in: int = 1) -> Survey:
    """Judge the mutations of an exercise's reference; of many only one in N, chosen by their text."""
    source = inspect.getsource(exercise.reference)
    tried = [m for m in mutations(source) if zlib.crc32(m.source.encode()) % one_in == 0]
    accepted = [m for m in tried if survives(exercise, m.source)]
    passed = {m.label for m in accepted}
    known = {m.label: why for m in accepted if (why := always(m))} | dict(exercise.equivalent)
    return Survey(
        exercise=exercise.id,
        mutations=len(tried),
        rejected=len(tried) - len(accepted),
        equivalent={label: known[label] for label in sorted(passed & known.keys())},
        survivors=tuple(sorted(passed - known.keys())),
        outdated=tuple(sorted(known.keys() - passed)) if one_in == 1 else (),
    )


def always(mutation: Mutation) -> str | None:
    """Why a mutation is no mistake in any exercise; None where it may be one."""
    lines = mutation.was, mutation.now
    return next((why for what, by, why in ALWAYS if len({what.sub(by, line) for line in lines}) == 1), None)


def survives(exercise: Exercise, source: str) -> bool:
    """Whether the check takes a mutation for a right answer."""
    try:
        with at_most(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a mutation may well use what is deprecated, or look silly: (-2)[..., 0]
            return judge(exercise, Here(made(exercise.reference, source)), SEEDS).full
    except TooLong:
        return False


def made(reference: Callable[..., Any], source: str) -> Callable[..., Any]:
    """The function of a source text, in the world of the reference's module."""
    world = dict(inspect.getmodule(reference).__dict__)
    exec(compile(source, "<mutation>", "exec"), world)
    function: Callable[..., Any] = world[reference.__name__]
    return function


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TooLong in a block that takes longer; where there are no alarms (Windows), let it run."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one row an exercise (one JSON object a line with --json); exit 1 where a survivor is not explained."""
    parser = argparse.ArgumentParser(prog="python -m graders.survivors", description=__doc__.split("\n")[0])
    parser.add_argument("concepts", nargs="*", help="the stems of graders/checks/ (all unless given)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--one-in", type=int, default=1, metavar="N", help="try one mutation in N (default: all)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # tensors this small gain nothing from a second thread
    chosen = [e for concept in options.concepts or concepts() for e in table(concept).values() if e.question is None]
    surveys = []
    for exercise in tqdm(chosen, disable=options.json or not sys.stderr.isatty()):
        surveys.append(found := survey(exercise, options.one_in))
        tqdm.write(json.dumps(asdict(found)) if options.json else line(found))
    if not options.json:
        total, rejected = sum(s.mutations for s in surveys), sum(s.rejected for s in surveys)
        gaps = sum(len(s.survivors) for s in surveys)
        print(f"{rejected} of {total} mutations rejected, {total - rejected - gaps} are equivalent, {gaps} gaps")
    return 1 if any(s.survivors or s.outdated for s in surveys) else 0


def line(found: Survey) -> str:
    """One survey as a line of the table, with what is amiss below it."""
    row = f"{found.exercise:<36}rejected {found.rejected}/{found.mutations}  equivalent {len(found.equivalent)}"
    amiss = [f"    survives: {label}" for label in found.survivors]
    return "\n".join([row, *amiss, *(f"    not so any more: {label}" for label in found.outdated)])


if __name__ == "__main__":
    raise SystemExit(main())
