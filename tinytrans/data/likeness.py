"""Likeness: texts and others -> which of them say nearly the same, word for word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

RUN = 5  # words
_WORD = re.compile(r"\w+")


def runs(text: str) -> frozenset[tuple[str, ...]]:
    """All runs of five words of a text, in lower case; of a shorter text all of it.

    >>> sorted(runs("One two three four five, six."))
    [('one', 'two', 'three', 'four', 'five'), ('two', 'three', 'four', 'five', 'six')]
    """
    words = _WORD.findall(text.lower())
    return frozenset(tuple(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1)))


def twins(texts: Sequence[str], others: Iterable[str], *, share: float = 0.5) -> set[int]:
    """The numbers of the texts that have a near twin among the others: half of their runs of words are the same.

    Of all runs that the two have, as large a share as `share` is in both (Jaccard's index; Broder 1997, "On the
    resemblance and containment of documents").

    >>> twins(["One two three four five six.", "Something else."], ["Zero one two three four five six."])
    {0}
    """
    own = [runs(text) for text in texts]
    where: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, mine in enumerate(own):
        for run in mine:
            where[run].append(i)
    found: set[int] = set()
    for text in others:
        theirs = runs(text)
        shared = Counter(i for run in theirs & where.keys() for i in where[run])
        found |= {i for i, n in shared.items() if n >= share * (len(theirs) + len(own[i]) - n)}
    return found
