"""The pair index: words and their counts -> the most frequent pair, quickly, after every merge.

A merge touches only the words that hold its pair. So the index knows those words, keeps the counts up to date,
and keeps the pairs in a heap whose entries may be stale: an entry counts only if its number is still right.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from itertools import pairwise

Pair = tuple[int, int]


class PairIndex:
    """Words as lists of ids, how often each occurs, and where each pair of neighbours stands."""

    def __init__(self, words: list[list[int]], counts: list[int]) -> None:
        self.words, self.counts = words, counts
        self.frequency: defaultdict[Pair, int] = defaultdict(int)
        self.holders: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> words that hold it, or once did
        for i, (word, count) in enumerate(zip(words, counts, strict=True)):
            for pair in pairwise(word):
                self.frequency[pair] += count
                self.holders[pair].add(i)
        self.heap = [(-count, pair) for pair, count in self.frequency.items()]
        heapq.heapify(self.heap)

    def pop_most_frequent(self) -> Pair | None:
        """Take out the most frequent pair, among equals the one of the smallest ids; None when no pair is left."""
        while self.heap:
            count, pair = heapq.heappop(self.heap)
            now = self.frequency.get(pair, 0)
            if now == -count:
                return pair
            if now > 0:
                heapq.heappush(self.heap, (-now, pair))
        return None

    def merge(self, pair: Pair, new_id: int) -> None:
        """Replace the pair by the new id in every word that holds it."""
        born: set[Pair] = set()
        for i in self.holders.pop(pair):
            self._merge_in_word(i, pair, new_id, born)
        del self.frequency[pair]
        for fresh in born:
            if self.frequency[fresh] > 0:
                heapq.heappush(self.heap, (-self.frequency[fresh], fresh))

    def _merge_in_word(self, i: int, pair: Pair, new_id: int, born: set[Pair]) -> None:
        """Replace the pair in word i from left to right and keep the counts; adds the new pairs to `born`."""
        left, right = pair
        word, count, frequency = self.words[i], self.counts[i], self.frequency
        at = 0
        while (at := _find(word, left, right, at)) >= 0:
            if at > 0:
                before = word[at - 1]
                frequency[before, left] -= count
                frequency[before, new_id] += count
                self.holders[before, new_id].add(i)
                born.add((before, new_id))
            if at + 2 < len(word):
                after = word[at + 2]
                frequency[right, after] -= count
                frequency[new_id, after] += count
                self.holders[new_id, after].add(i)
                born.add((new_id, after))
            word[at : at + 2] = [new_id]
            at += 1


def _find(word: list[int], left: int, right: int, start: int) -> int:
    """Where `left, right` stands next in the word, from `start` on; -1 when nowhere."""
    while True:
        try:
            start = word.index(left, start)
        except ValueError:
            return -1
        if start + 1 < len(word) and word[start + 1] == right:
            return start
        start += 1
