"""Pair scores: words in pieces and their counts -> the pair that WordPiece merges next.

BPE asks only how often a pair stands there, so its scores fall and never rise; here a merge makes other pairs *better*.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

Pair = tuple[str, str]
Score = Callable[[int, int, int], float]
"""Counts of a pair, its left part, its right part -> how soon it is merged: the highest first."""

CONTINUES = "##"  # begins a piece that continues a word


def association(pair: int, left: int, right: int) -> float:
    """WordPiece's score: count(ab) / (count(a) count(b)), how much oftener two pieces meet than chance would have it.

    It loves rare parts: two characters seen once each, and together, beat any frequent pair.
    """
    return pair / (left * right)


def frequency(pair: int, left: int, right: int) -> float:  # noqa: ARG001 - one signature for all scores
    """BPE's score, and that of the Rust package's `WordPieceTrainer` despite its name: the count of the pair."""
    return pair


def merged(pair: Pair) -> str:
    """The piece that two neighbours make: the second loses its mark.

    >>> merged(("##u", "##g"))
    '##ug'
    """
    return pair[0] + pair[1].removeprefix(CONTINUES)


def merge(word: Sequence[str], pair: Pair) -> tuple[str, ...]:
    """The pieces of a word with every occurrence of the pair merged, from left to right.

    >>> merge(("h", "##u", "##g"), ("##u", "##g"))
    ('h', '##ug')
    """
    pieces: list[str] = []
    i = 0
    while i < len(word):
        found = tuple(word[i : i + 2]) == pair
        pieces.append(merged(pair) if found else word[i])
        i += 2 if found else 1
    return tuple(pieces)


class PairScores:
    """Words in pieces, and how often each occurs -> the best pair, quickly, after every merge.

    A merge changes the counts of two pieces, hence the score of every pair that holds one of them; these go onto the
    heap again, and an entry there counts only if its score is still right.
    """

    def __init__(self, words: Mapping[tuple[str, ...], int], score: Score) -> None:
        self.words, self.counts, self.score = list(words), list(words.values()), score
        self.pieces: Counter[str] = Counter()
        self.pairs: Counter[Pair] = Counter()
        self.holders: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> words that hold it, or once did
        self.partners: defaultdict[str, set[Pair]] = defaultdict(set)  # piece -> pairs that it is in, or once was
        self.heap: list[tuple[float, Pair]] = []
        for i in range(len(self.words)):
            self._count(i, self.counts[i])
        self._push(self.pairs)

    def best(self) -> Pair | None:
        """The pair of the highest score, among equals the first in alphabetical order; None when no pair is left."""
        while self.heap:
            minus, pair = heapq.heappop(self.heap)
            if self.pairs[pair] and minus == -self._score(pair):
                return pair
        return None

    def merge(self, pair: Pair) -> None:
        """Merge the pair in every word that holds it."""
        for i in self.holders.pop(pair):
            self._count(i, -self.counts[i])
            self.words[i] = merge(self.words[i], pair)
            self._count(i, self.counts[i])
        self._push(set().union(*(self.partners[piece] for piece in (*pair, merged(pair)))))

    def _count(self, i: int, count: int) -> None:
        """Count the pieces and pairs of word i so many times; a negative count takes them away."""
        for piece in self.words[i]:
            self.pieces[piece] += count
        for pair in pairwise(self.words[i]):
            self.pairs[pair] += count
            self.holders[pair].add(i)
            self.partners[pair[0]].add(pair)
            self.partners[pair[1]].add(pair)

    def _score(self, pair: Pair) -> float:
        return self.score(self.pairs[pair], self.pieces[pair[0]], self.pieces[pair[1]])

    def _push(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            if self.pairs[pair]:
                heapq.heappush(self.heap, (-self._score(pair), pair))
