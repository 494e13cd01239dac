"""Unigram: texts -> pieces with probabilities; a word -> its most probable segmentation.

The other way round than BPE: begin with far too many pieces, learn how probable each is, drop those that cost least.
As in SentencePiece a space is written `▁` in front of its word, so the text comes back exactly.
Source: Kudo 2018, arXiv 1804.10959; Kudo & Richardson 2018 (SentencePiece), arXiv 1808.06226.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

import tokenizers
import torch

from tinytrans.tokenizers.base import add_special_tokens, check_special, one_row, several
from tinytrans.tokenizers.lattice import LONGEST, Scores, piece_counts, viterbi
from tinytrans.tokenizers.readable import ReadableTokenizer, special_names

SPACE = "▁"
UNKNOWN = "<unk>"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
UNKNOWN_PENALTY = 10.0  # an unknown character is e^10 times less probable than the rarest piece, as in SentencePiece
NEVER = -1e9  # the score of a piece that no text may spell out: the bytes and <unk>

# With these characters known, a text that spells out the name of a byte is segmented into them, not taken for the byte.
SPELLING = tuple(sorted(set("".join(BYTES) + UNKNOWN)))

_SPLIT = tokenizers.pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True)


def split(text: str) -> list[str]:
    """The words of a text, each with its space in front written as ▁.

    >>> split("to be, or")
    ['to', '▁be,', '▁or']
    """
    return [word for word, _ in _SPLIT.pre_tokenize_str(text)]


def expected_counts(words: Mapping[str, int], scores: Mapping[str, float]) -> tuple[Scores, float]:
    """The E-step: how often each piece is expected in the words, over all segmentations, and their log-likelihood.

    Raises ValueError on a word that the pieces cannot build.
    """
    total: defaultdict[str, float] = defaultdict(float)
    likelihood = 0.0
    for word, count in words.items():
        counts, log_probability = piece_counts(word, scores)
        for piece, expected in counts.items():
            total[piece] += count * expected
        likelihood += count * log_probability
    return dict(total), likelihood


def relative(counts: Mapping[str, float]) -> Scores:
    """The M-step of maximum likelihood: p(piece) = count / sum of the counts. It never lowers the likelihood."""
    total = math.log(math.fsum(counts.values()))
    return {piece: math.log(count) - total for piece, count in counts.items() if count > 0}


def bayesian(counts: Mapping[str, float]) -> Scores:
    """SentencePiece's M-step: log p = digamma(count) - digamma(sum), which takes rare pieces for rarer still.

    digamma(c) is about log(c - 1/2): a sparse Dirichlet prior by variational Bayes (Liang & Klein 2007, tutorial).
    """
    values = torch.tensor([*counts.values(), math.fsum(counts.values())], dtype=torch.float64)
    *logs, total = torch.digamma(values).tolist()
    return {piece: log - total for piece, log in zip(counts, logs, strict=True)}


def seed_pieces(words: Mapping[str, int], size: int, longest: int = LONGEST) -> Scores:
    """The pieces to begin with: every character, and the substrings seen twice or more with the largest count * length.

    Probabilities are relative counts. Ties go to the first in alphabetical order.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(start + longest, len(word)) + 1):
                counts[word[start:end]] += count
    several = [piece for piece, count in counts.items() if len(piece) > 1 and count > 1]
    several.sort(key=lambda piece: (-counts[piece] * len(piece), piece))
    characters = sorted(piece for piece in counts if len(piece) == 1)
    kept = [*characters, *several[: max(0, size - len(characters))]]
    return relative({piece: float(counts[piece]) for piece in kept})


def removal_costs(words: Mapping[str, int], scores: Mapping[str, float]) -> Scores:
    """What the best segmentations lose in log-likelihood if a piece goes: count * (score - score of its replacement).

    The count is in the best segmentations of the words; the replacement is the piece's own best segmentation without
    it. Never less than the true loss, as a word may find an even better way round; single characters stay out: they
    cannot be replaced.
    """
    used: Counter[str] = Counter()
    for word, count in words.items():
        for piece in viterbi(word, scores):
            used[piece] += count
    costs = {}
    for piece in scores:
        if len(piece) > 1:
            others = Without(scores, piece)
            instead = math.fsum(scores[part] for part in viterbi(piece, others))
            costs[piece] = used[piece] * (scores[piece] - instead)
    return costs


class Without(dict[str, float]):
    """Scores without one piece, at no cost: a view for `viterbi`."""

    def __init__(self, scores: Mapping[str, float], piece: str) -> None:
        super().__init__()
        self.scores, self.piece = scores, piece

    def get(self, key: str, default: float | None = None) -> float | None:  # type: ignore[override]
        """The score of a piece, unless it is the one left out."""
        return default if key == self.piece else self.scores.get(key, default)


def prune(words: Mapping[str, int], scores: Mapping[str, float], size: int) -> Scores:
    """Keep the pieces whose removal costs most, and every single character: size pieces, the scores as they were."""
    costs = removal_costs(words, scores)
    characters = [piece for piece in scores if len(piece) == 1]
    by_cost = sorted(costs, key=lambda piece: (-costs[piece], piece))
    kept = {*characters, *by_cost[: max(0, size - len(characters))]}
    return {piece: score for piece, score in scores.items() if piece in kept}


def em_step(words: Mapping[str, int], scores: Scores, maximize: Callable[[Mapping[str, float]], Scores]) -> Scores:
    """One step of expectation-maximization that drops pieces expected less than half a time, but no character.

    A character that no segmentation needs counts as half a time, so that it stays possible.
    """
    counts, _ = expected_counts(words, scores)
    kept = {piece: max(counts.get(piece, 0.0), 0.5) for piece in scores if len(piece) == 1}
    kept |= {piece: count for piece, count in counts.items() if len(piece) > 1 and count >= 0.5}
    return maximize(kept)


def train_unigram(
    words: Mapping[str, int],
    vocab_size: int,
    *,
    seed_size: int | None = None,
    shrink: float = 0.75,
    steps: int = 2,
    maximize: Callable[[Mapping[str, float]], Scores] = bayesian,
) -> Scores:
    """Words and their counts -> vocab_size pieces with scores, the most probable first.

    From seed_size pieces (eight times as many unless given): `steps` of EM, keep the share `shrink`, again.
    Fewer pieces come out when the words have no more. Raises ValueError when their characters do not fit.
    """
    scores = seed_pieces(words, seed_size or 8 * vocab_size)
    characters = sum(len(piece) == 1 for piece in scores)
    if vocab_size < characters:
        raise ValueError(f"vocab_size {vocab_size} is less than the {characters} characters of the texts")
    while True:
        for _ in range(steps):
            scores = em_step(words, scores, maximize)
        if len(scores) <= vocab_size:
            break
        scores = prune(words, scores, max(vocab_size, int(shrink * len(scores))))
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


class UnigramTokenizer(ReadableTokenizer):
    """Text -> the most probable pieces -> the same text; only a literal `▁` comes back as a space.

    A character that is no piece becomes its UTF-8 bytes, or with `byte_fallback=False` <unk>, one for a whole run.
    Ids: <unk>, the 256 bytes if they are used, the pieces, the special tokens. Raises ValueError for a special token
    with the name of a byte, `<0x41>`, where bytes are used.
    """

    def __init__(
        self, scores: Mapping[str, float], special_tokens: Sequence[str] = (), *, byte_fallback: bool = True
    ) -> None:
        check_special(special_tokens)
        if byte_fallback and (taken := set(special_tokens) & set(BYTES)):
            raise ValueError(f"special token {min(taken)!r} is the name of a byte: rename it, or use no byte_fallback")
        self.byte_fallback = byte_fallback
        first = [UNKNOWN, *(BYTES if byte_fallback else ())]
        self.scores = dict.fromkeys(first, NEVER) | {k: v for k, v in scores.items() if k not in first}
        self.vocab = {piece: i for i, piece in enumerate(self.scores)}
        self.longest = max(map(len, self.scores))
        super().__init__(build_fast(self.scores, special_tokens, byte_fallback))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        *,
        byte_fallback: bool = True,
        maximize: Callable[[Mapping[str, float]], Scores] = bayesian,
    ) -> Self:
        """Learn from texts; the vocab_size counts <unk>, the bytes and the special tokens too.

        Raises ValueError where it leaves no room for these and the characters of the texts.
        """
        check_special(special_tokens)
        words = Counter(word for text in several(texts) for word in split(text))
        extra = 1 + (len(BYTES) if byte_fallback else 0) + len(set(special_tokens) - {UNKNOWN})
        if byte_fallback:
            words.update(SPELLING)
        least = extra + len(set("".join(words)))
        if vocab_size < least:
            raise ValueError(f"vocab_size {vocab_size} is less than the {least} of characters and special tokens")
        return cls(
            train_unigram(words, vocab_size - extra, maximize=maximize), special_tokens, byte_fallback=byte_fallback
        )

    def split(self, text: str) -> list[str]:
        """The words of a text, each with its space in front."""
        return split(text)

    def segment(self, word: str) -> list[str]:
        """The most probable pieces of a word; characters that are no piece stand alone."""
        return viterbi(word, self.scores, NEVER - UNKNOWN_PENALTY, self.longest)

    def encode_word(self, word: str) -> list[int]:
        """The ids of the most probable pieces; a character that is no piece falls back to its bytes, or to <unk>."""
        ids: list[int] = []
        unknown = False
        for piece in self.segment(word):
            if piece in self.vocab:
                ids.append(self.vocab[piece])
            elif self.byte_fallback:
                ids += [1 + byte for byte in piece.encode()]
            elif not unknown:
                ids.append(self.vocab[UNKNOWN])
            unknown = piece not in self.vocab
        return ids

    def decode(self, ids: Iterable[int], *, special: bool = True) -> str:
        """The text of ids, the bytes of a character taken together; with `special=False` without special tokens.

        Raises as `Tokenizer.decode` does.
        """
        special_ids, first = set(self._special.values()), 1
        last = len(BYTES) if self.byte_fallback else 0
        parts: list[bytes] = []
        for i in one_row(ids):
            if first <= i <= last:
                parts.append(bytes([i - first]))
            elif i in special_ids:
                parts.append(self.id_to_token(i).encode() if special else b"")
            else:
                parts.append(self.id_to_token(i).replace(SPACE, " ").encode())
        return b"".join(parts).decode("utf-8", errors="replace")

    @classmethod
    def from_fast(cls, fast: tokenizers.Tokenizer) -> Self:
        """The tokenizer with this twin; raises ValueError unless it is a Unigram as `build_fast` makes them."""
        spec = json.loads(fast.to_str())
        if spec["model"].get("type") != "Unigram":
            raise ValueError(f"not a Unigram: {spec['model'].get('type')}")
        tokenizer = cls(dict(spec["model"]["vocab"]), special_names(spec), byte_fallback=spec["model"]["byte_fallback"])
        own = json.loads(tokenizer.fast.to_str())
        for part in own:
            if own[part] != spec[part]:
                raise ValueError(f"not a Unigram of this kind: its {part} is {str(spec[part])[:200]}")
        return tokenizer


def build_fast(scores: Mapping[str, float], special_tokens: Sequence[str], byte_fallback: bool) -> tokenizers.Tokenizer:
    """The same tokenizer for the Rust package: pieces with scores, <unk> first, then the bytes."""
    fast = tokenizers.Tokenizer(tokenizers.models.Unigram(list(scores.items()), 0, byte_fallback))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True)
    bytes_back = [tokenizers.decoders.ByteFallback()] if byte_fallback else []  # else a piece "<0x41>" is no letter A
    fast.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace(SPACE, " "), *bytes_back, tokenizers.decoders.Fuse()]
    )
    return add_special_tokens(fast, dict.fromkeys([UNKNOWN, *special_tokens]))
