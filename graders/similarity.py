"""Submissions -> pairs whose answers are alike once names, comments and layout are gone. Advice: no score knows of it.

Winnowing (Schleimer, Wilkerson and Aiken 2003): of all runs of RUN tokens a few are kept as fingerprints, and any
passage of RUN + WINDOW - 1 tokens that two answers share is found. Fingerprints that the lesson itself holds, or that
many of the class have, say nothing and are left out. Tokens, and not syntax trees: nobody's code is parsed here.
"""

from __future__ import annotations

import inspect
import io
import keyword
import tokenize
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from graders.release import Release

RUN, WINDOW = 12, 6
LONGEST = 20_000  # characters of a cell that is looked at
FEWEST = 10  # fingerprints of one's own that both must have, so that a short answer is no evidence
SHARE = 0.6  # of the smaller one's fingerprints
COMMON = 0.2  # of the class: what so many wrote is the natural way to write it
_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)

Print = tuple[str, int]  # an exercise and a fingerprint


@dataclass(frozen=True)
class Pair:
    """Two students, the share of the smaller one's fingerprints that both have, how many, and in which exercises."""

    students: tuple[str, str]
    share: float
    prints: int
    exercises: tuple[str, ...]

    def __str__(self) -> str:
        both = " and ".join(self.students)
        return f"{both}: {self.share:.0%} alike ({self.prints} fingerprints) in {', '.join(self.exercises)}"


def plain(source: str) -> list[str]:
    """The tokens of a source, every name of its own as `v` and every text as `s`; names after a dot stay.

    What is no Python gives the tokens up to there.

    >>> plain("y = x.softmax(-1)  # rows") == plain("weights = scores.softmax(-1)")
    True
    """
    found: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                found.append(token.string if found[-1:] == ["."] else "v")
            elif token.type == tokenize.STRING:
                found.append("s")
            elif token.type not in _LAYOUT:
                found.append(token.string)
    except (tokenize.TokenError, SyntaxError):
        pass
    return found


@lru_cache(maxsize=4096)
def fingerprints(source: str) -> frozenset[int]:
    """The winnowed hashes of a source: of each window of runs the smallest."""
    words = plain(source) if len(source) <= LONGEST else []
    runs = [zlib.crc32("\0".join(words[i : i + RUN]).encode()) for i in range(len(words) - RUN + 1)]
    return frozenset(min(runs[i : i + WINDOW]) for i in range(max(1, len(runs) - WINDOW + 1)) if runs)


def alike(
    answers: Mapping[str, Mapping[str, str]], base: Mapping[str, Sequence[str]], *, share: float = SHARE
) -> list[Pair]:
    """Pairs of students (answers by student and exercise) with that share in common, the most alike first.

    `base`: for each exercise the sources that anybody may have: what was handed out, and the reference.
    """
    known = {(name, f) for name, sources in base.items() for source in sources for f in fingerprints(source)}
    all_of = {student: _prints(sources, known) for student, sources in answers.items()}
    counts = Counter(p for prints in all_of.values() for p in prints)
    most = max(2, COMMON * len(answers))
    own = {student: {p for p in prints if counts[p] <= most} for student, prints in all_of.items()}
    shared = Counter(pair for students in _holders(own).values() for pair in combinations(students, 2))
    pairs = [_pair(a, b, own[a], own[b]) for (a, b), n in shared.items() if n >= FEWEST]
    return sorted((p for p in pairs if p.share >= share), key=lambda p: (-p.share, -p.prints, p.students))


def _prints(sources: Mapping[str, str], known: set[Print]) -> set[Print]:
    return {(name, f) for name, source in sources.items() for f in fingerprints(source)} - known


def _holders(own: Mapping[str, Iterable[Print]]) -> dict[Print, list[str]]:
    found: dict[Print, list[str]] = {}
    for student in sorted(own):
        for one in own[student]:
            found.setdefault(one, []).append(student)
    return found


def _pair(a: str, b: str, first: set[Print], second: set[Print]) -> Pair:
    both = first & second
    names = tuple(sorted({name for name, _ in both}))
    return Pair((a, b), len(both) / min(len(first), len(second)), len(both), names)


def handed_out(release: Release) -> dict[str, list[str]]:
    """For each exercise what every learner may have: the cell as it was released, and the reference."""
    found = {name: [stub, *release.setup] for name, stub in release.stubs.items()}
    for item in release.items:
        for function in (item.exercise.reference, item.exercise.oracle, *item.exercise.right.values()):
            try:
                found[item.name].append(inspect.getsource(function))  # type: ignore[arg-type]
            except (OSError, TypeError):  # none, or made at run time
                continue
    return found
