"""A learner's prose -> markdown that shows it and runs nothing, wherever a page is made of it.

Formgrader renders markdown in the instructor's own browser, with raw HTML, links and formulas. Nothing is taken away:
a character of no width is put where a tag, a link, an image or a command of MathJax would begin.
"""

from __future__ import annotations

import re

GAP = "\N{ZERO WIDTH SPACE}"
UNSEEN = f"\n\t{GAP}\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # harmless; languages and emoji need them
TAG = re.compile(r"<(?=[A-Za-z/!?])")
# Where a link or an image, by address or by reference, and the definition of a reference go on.
LINK = re.compile(r"\](?=[\[(:])")
# What in a formula reaches out of it: addresses, styles, names in the page, and definitions, which hold for all of it.
COMMAND = re.compile(
    r"\\(?=(?:href|url|style|class|cssId|data|html\w*|require|unicode|includegraphics|mmlToken|bbox|tooltip|texttip"
    r"|g?def|xdef|edef|let|futurelet|newcommand|renewcommand|providecommand|newenvironment|renewenvironment"
    r"|DeclareMathOperator)(?![a-z]))"
)


def inert(text: str) -> str:
    """The text as markdown without tags, links, images, or formulas that reach out of themselves.

    >>> inert("x <b>y</b>").replace(GAP, "|")
    'x <|b>y<|/b>'
    """
    shown = "".join(c if c.isprintable() or c in UNSEEN else "\N{REPLACEMENT CHARACTER}" for c in text)
    for pattern in (TAG, LINK, COMMAND):
        shown = pattern.sub(lambda found: found[0] + GAP, shown)
    return shown
