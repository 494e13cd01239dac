"""Verdicts of a class -> what an instructor reads first: scores, what to teach next week, notes, what it cost."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Verdicts = Mapping[str, Mapping[str, Any]]
MOST = 8  # rows of a list by frequency


def summary(
    assignment: str, verdicts: Verdicts, level: str, *, seconds: float = 0.0, alike: Sequence[object] = ()
) -> str:
    """One line a student, the histogram, mistakes and notes by frequency, what to look at, time and memory."""
    lines = [f"{student}: {verdict['score']} of {verdict['max']}" for student, verdict in verdicts.items()]
    lines += histogram(verdicts)
    lines += by_frequency("mistakes, the most frequent first", mistakes(verdicts))
    lines += by_frequency("notes", Counter(note for verdict in verdicts.values() for note in verdict["notes"]))
    lines += [line for section in for_review(verdicts, alike) for line in shortened(section)]
    lines += cost(verdicts, seconds)
    return "\n".join([*lines, f"{assignment}: {len(verdicts)} submissions at level {level}"])


BINS = [*(f"{10 * i}-{10 * i + 9} %" for i in range(10)), "100 %"]


def bins(verdicts: Verdicts) -> list[int]:
    """How many have which share of the points, for each of BINS; the last one holds full points alone."""
    counts = Counter(10 * v["score"] // v["max"] if v["max"] else 0 for v in verdicts.values())
    return [counts[i] for i in range(len(BINS))]


def histogram(verdicts: Verdicts) -> list[str]:
    """The share of points in bins, a bar each.

    >>> print(*histogram({"a": {"score": 1, "max": 2}, "b": {"score": 2, "max": 2}})[-6::5], sep=chr(10))
        50-59 %    1 █
          100 %    1 █
    """
    counts = bins(verdicts)
    wide = max(max(counts) / 40, 1)
    return ["scores:", *(f"  {b:>9} {n:>4} {'█' * round(n / wide)}" for b, n in zip(BINS, counts, strict=True))]


def mistakes(verdicts: Verdicts) -> Counter[str]:
    """How many learners made each named mistake, by exercise."""
    found = ((name, e["mistake"]) for v in verdicts.values() for name, e in v["exercises"].items())
    return Counter(f"{name}: {mistake}" for name, mistake in found if mistake)


def by_frequency(title: str, counts: Counter[str]) -> list[str]:
    """A title and the most frequent entries; nothing where there are none."""
    rows = [f"  {n:>4} x {text}" for text, n in counts.most_common(MOST)]
    more = [f"  ... and {len(counts) - MOST} more"] if len(counts) > MOST else []
    return [f"{title}:", *rows, *more] if rows else []


def for_review(verdicts: Verdicts, alike: Sequence[object] = ()) -> list[list[str]]:
    """What an instructor should look at, a title and lines each: forbidden functions, and pairs that are alike."""
    forbidden = [
        f"  {student} {name}: {'; '.join(exercise['review'])}"
        for student, verdict in verdicts.items()
        for name, exercise in verdict["exercises"].items()
        if exercise.get("review")
    ]
    sections = [
        ["to look at, functions that would give an answer away (no score depends on it):", *forbidden],
        ["to look at, answers that are alike (no score depends on it):", *(f"  {pair}" for pair in alike)],
    ]
    return [section for section in sections if len(section) > 1]


def shortened(section: list[str]) -> list[str]:
    """A section's first lines."""
    more = [f"  ... and {len(section) - 1 - MOST} more in review.txt"] if len(section) - 1 > MOST else []
    return [*section[: MOST + 1], *more]


def cost(verdicts: Verdicts, seconds: float) -> list[str]:
    """What the run took, and a submission of it."""
    walls = [v["used"]["wall"] for v in verdicts.values() if v.get("used")]
    if not walls:
        return []
    memory = max(v["used"]["memory"] for v in verdicts.values() if v.get("used")) >> 20
    late = sum("no result after" in e["message"] for v in verdicts.values() for e in v["exercises"].values())
    each = f"p50 {statistics.median(walls):.2f} s, slowest {max(walls):.2f} s a submission"
    return [f"took {seconds:.1f} s: {each}; at most {memory} MB at once; {late} exercises timed out"]
