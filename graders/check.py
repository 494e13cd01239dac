"""check("concept.name", answer): the learner's own check, in the notebook, from the same table that grades.

Grading never believes what this prints or returns: it calls the answer again, elsewhere, with other seeds.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

from graders.exercise import find
from graders.judge import UNWRITTEN, Outcome, judge
from graders.subject import Here

VISIBLE_SEEDS = (1, 2)
WIDTH = 96  # characters of a line: what a notebook and a feedback page show without scrolling

SIGNS = {
    r"\times": "×",
    r"\delta": "δ",
    r"\lambda": "λ",
    "^2": "²",
    "^i": "ⁱ",
    "{": "",
    "}": "",
}  # what LaTeX writes so


class NotThereYet(Exception):
    """Raised by `check` where an answer earns nothing yet: a notebook shows its sentences and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return str(self).split("\n")


def report(outcome: Outcome) -> str:
    """The outcome as lines to read: the verdict, what it means, and each requirement."""
    mark = "✓" if outcome.full else "✗"
    lines = [f"{mark} {outcome.exercise}: {outcome.score} of {outcome.points} points", *wrapped(outcome.message, "  ")]
    if len(outcome.parts) > 1:
        for part in outcome.parts:
            lines.append(f"  {'✓' if part.earned else '✗'} {part.title} ({part.earned}/{part.points})")
            if part.message not in ("", outcome.message, UNWRITTEN):
                lines += wrapped(part.message, "      ")
    return "\n".join(lines)


def wrapped(text: str, indent: str) -> list[str]:
    """A message as lines that fit on a page."""
    return textwrap.wrap(spoken(text), WIDTH, initial_indent=indent, subsequent_indent=indent)


def spoken(text: str) -> str:
    """Markdown as plain text, which is how a notebook prints: formulas without their dollars, *stress* without stars.

    >>> spoken(r"It is *not* $4d^2$: divide by $\\sqrt{K}$")
    'It is not 4d²: divide by √K'
    """
    text = re.sub(r"\$([^$]+)\$", lambda found: _unset(found[1]), text)
    return re.sub(r"(?<![\w*`(])\*([^\s*`][^*`]*)\*(?![\w*`])", r"\1", text)


def _unset(formula: str) -> str:
    formula = re.sub(r"\\sqrt *", "√", formula)
    for latex, sign in SIGNS.items():
        formula = formula.replace(latex, sign)
    return formula


def check(id: str, answer: Any, *, seed: int | Sequence[int] = VISIBLE_SEEDS) -> float:
    """Judge an answer to the exercise `concept.name` here and now, print the report and return the points.

    An answer that earns nothing raises NotThereYet with the report, so that running a whole notebook stops there.
    With `seed` you try the inputs that a graded submission failed on.
    """
    exercise = find(id)
    subject = Here(answer if callable(answer) else lambda: answer)
    seeds = (seed,) if isinstance(seed, int) else tuple(seed)
    if exercise.question and answer is None:
        raise NotThereYet(f"✗ {exercise.name}: not answered yet: write the letter of your choice")
    outcome = judge(exercise, subject, seeds)
    if outcome.score == 0:
        raise NotThereYet(report(outcome))
    print(report(outcome))
    return float(outcome.score)
