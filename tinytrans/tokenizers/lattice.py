"""Lattice: a word and the scores of pieces -> its best segmentation, the sum over all of them, a random one.

A segmentation is a path from the word's begin to its end along the pieces; dynamic programming walks all of them at
once. Source: Kudo 2018, arXiv 1804.10959; forward-backward: Baum 1972; Viterbi 1967.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

Scores = dict[str, float]
"""piece -> log of its probability."""

LONGEST = 16  # characters of a piece


def pieces_at(word: str, scores: Mapping[str, float], longest: int = LONGEST) -> Iterator[tuple[int, int, float]]:
    """Every place where a piece fits: (start, end, its score), by start, then by end."""
    for start in range(len(word)):
        for end in range(start + 1, min(start + longest, len(word)) + 1):
            score = scores.get(word[start:end])
            if score is not None:
                yield start, end, score


def viterbi(word: str, scores: Mapping[str, float], unknown: float = -math.inf, longest: int = LONGEST) -> list[str]:
    """The most probable segmentation: argmax over segmentations of the sum of scores, by dynamic programming.

    best[end] = max over pieces word[start:end] of best[start] + score; among equals the longest last piece wins.
    A character that is no piece scores `unknown`; with -inf a word that cannot be segmented raises ValueError.

    >>> viterbi("abc", {"a": -1.0, "b": -1.0, "c": -1.0, "ab": -1.5, "abc": -9.0})
    ['ab', 'c']
    """
    best, back = [0.0] + [-math.inf] * len(word), [0] * (len(word) + 1)
    for start in range(len(word)):
        for end in range(start + 1, min(start + longest, len(word)) + 1):
            score = scores.get(word[start:end], unknown if end == start + 1 else -math.inf)
            if best[start] + score > best[end]:
                best[end], back[end] = best[start] + score, start
    if best[-1] == -math.inf:
        raise ValueError(f"no segmentation of {word!r} into the {len(scores)} pieces")
    pieces, end = [], len(word)
    while end:
        pieces.append(word[back[end] : end])
        end = back[end]
    return pieces[::-1]


def log_add(a: float, b: float) -> float:
    """log(e^a + e^b), without overflow; log of zero is -inf."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def forward_sums(word: str, scores: Mapping[str, float]) -> list[float]:
    """For every end, the log of the summed probability of all segmentations of word[:end]; log p(word) is the last.

    Raises ValueError when there is no segmentation.
    """
    forward = [0.0] + [-math.inf] * len(word)
    for start, end, score in pieces_at(word, scores):
        forward[end] = log_add(forward[end], forward[start] + score)
    if forward[-1] == -math.inf:
        raise ValueError(f"no segmentation of {word!r} into the {len(scores)} pieces")
    return forward


def piece_counts(word: str, scores: Mapping[str, float]) -> tuple[Scores, float]:
    """How often each piece is expected in a word, over *all* its segmentations, and log p(word): forward-backward.

    count(piece) = sum over its places of forward[start] * p(piece) * backward[end] / p(word). Raises ValueError when
    there is no segmentation.

    >>> piece_counts("ab", {"a": math.log(0.5), "b": math.log(0.5), "ab": math.log(0.25)})[0]
    {'b': 0.5, 'ab': 0.5, 'a': 0.5}
    """
    counts: Scores = {}
    forward = forward_sums(word, scores)
    backward = [-math.inf] * len(word) + [0.0]
    for start, end, score in reversed(list(pieces_at(word, scores))):  # from behind: backward[end] is complete
        behind = score + backward[end]
        backward[start] = log_add(backward[start], behind)
        piece = word[start:end]
        counts[piece] = counts.get(piece, 0.0) + math.exp(forward[start] + behind - forward[-1])
    return counts, forward[-1]


def sample_segmentation(
    word: str, scores: Mapping[str, float], *, alpha: float = 1.0, generator: torch.Generator | None = None
) -> list[str]:
    """A random segmentation, with probability proportional to p(segmentation)^alpha: subword regularization.

    Backwards from the end, each last piece is drawn by its share of the forward sum. Raises ValueError when there is no
    segmentation. Source: Kudo 2018, section 3, arXiv 1804.10959.
    """
    scores = {word[start:end]: alpha * score for start, end, score in pieces_at(word, scores)}
    forward = forward_sums(word, scores)
    pieces, end = [], len(word)
    while end:
        starts = [start for start in range(max(0, end - LONGEST), end) if word[start:end] in scores]
        logs = torch.tensor([forward[start] + scores[word[start:end]] for start in starts], dtype=torch.float64)
        start = starts[int(torch.multinomial(logs.softmax(0), 1, generator=generator))]
        pieces.append(word[start:end])
        end = start
    return pieces[::-1]
