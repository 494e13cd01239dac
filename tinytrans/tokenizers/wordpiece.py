"""WordPiece: texts -> pieces, word -> the longest pieces that fit; `##` marks a piece that continues a word.

BPE merges the pair seen most often; WordPiece the one seen most often *for how frequent its two parts are*.
And it forgets the merges: a word is encoded with the vocabulary alone, longest match first, or is [UNK] as a whole.
Source: Schuster & Nakajima 2012; Wu et al. 2016, arXiv 1609.08144; with these special tokens Devlin et al. 2018 (BERT).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import tokenizers

from tinytrans.tokenizers.base import add_special_tokens, check_special, several
from tinytrans.tokenizers.pair_scores import CONTINUES, PairScores, Score, association, merged
from tinytrans.tokenizers.readable import ReadableTokenizer, special_names

UNKNOWN = "[UNK]"
BERT_SPECIAL_TOKENS = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
LONGEST_WORD = 100  # characters; a longer word is unknown, as in BERT

_SPLIT = tokenizers.pre_tokenizers.BertPreTokenizer()


def normalizer(lowercase: bool) -> tokenizers.normalizers.Normalizer:
    """BERT's clean-up: no control characters, Chinese characters stand alone; in lower case also without accents."""
    return tokenizers.normalizers.BertNormalizer(lowercase=lowercase)


def split(text: str, *, lowercase: bool = True) -> list[str]:
    """The words of a text as BERT splits it: at white space, and every punctuation mark is a word.

    >>> split("Don't stop, Zoë!")
    ['don', "'", 't', 'stop', ',', 'zoe', '!']
    """
    return [word for word, _ in _SPLIT.pre_tokenize_str(normalizer(lowercase).normalize_str(text))]


def characters(word: str) -> tuple[str, ...]:
    """A word's characters as pieces: the first as it is, the others marked.

    >>> characters("hug")
    ('h', '##u', '##g')
    """
    return (word[0], *(CONTINUES + char for char in word[1:]))


def alphabet(words: Iterable[str]) -> list[str]:
    """The first pieces: every character, then, marked, those that stand inside a word; each group sorted.

    >>> alphabet(["ab", "ba"])
    ['a', 'b', '##a', '##b']
    """
    words = list(words)
    return sorted({c for word in words for c in word}) + sorted({CONTINUES + c for word in words for c in word[1:]})


def train_wordpiece(words: Mapping[str, int], vocab_size: int, *, score: Score = association) -> list[str]:
    """Words and their counts -> vocab_size pieces, or fewer when no pair is left: the alphabet, then as learned.

    With `score=frequency` the pieces are those of the Rust trainer wherever no two pairs have the same count; where
    they have, Rust decides by ids that change from run to run. Raises ValueError when the alphabet does not fit.

    >>> train_wordpiece({"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}, 13)[-2:]
    ['##gs', '##ug']
    """
    pieces = dict.fromkeys(alphabet(words))
    if vocab_size < len(pieces):
        raise ValueError(f"vocab_size {vocab_size} is less than the alphabet's {len(pieces)} pieces")
    scores = PairScores({characters(word): count for word, count in words.items()}, score)
    while len(pieces) < vocab_size and (pair := scores.best()):
        pieces[merged(pair)] = None  # another pair may have made this piece before
        scores.merge(pair)
    return list(pieces)


def longest_match(word: str, vocab: Mapping[str, int], *, longest: int = LONGEST_WORD) -> list[str] | None:
    """The pieces of a word, each the longest in the vocabulary that fits; None when some rest has none.

    >>> longest_match("hugs", {"hug": 0, "h": 1, "##ugs": 2, "##s": 3})
    ['hug', '##s']
    """
    if len(word) > longest:
        return None
    pieces: list[str] = []
    start = 0
    while start < len(word):
        mark = CONTINUES if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if mark + word[start:end] in vocab), None)
        if end is None:
            return None
        pieces.append(mark + word[start:end])
        start = end
    return pieces


class WordPieceTokenizer(ReadableTokenizer):
    """BERT's tokenizer: text -> pieces of words; where words ended and what they looked like is partly lost.

    Ids: the special tokens first, then the pieces. Decoding puts one space between words. Raises ValueError where [UNK]
    is not among the special tokens.
    """

    def __init__(
        self, pieces: Iterable[str], special_tokens: Sequence[str] = BERT_SPECIAL_TOKENS, *, lowercase: bool = True
    ) -> None:
        check_special(special_tokens)
        if UNKNOWN not in special_tokens:
            raise ValueError(f"the special tokens {list(special_tokens)} lack {UNKNOWN}")
        self.vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*special_tokens, *pieces]))}
        self.lowercase = lowercase
        super().__init__(build_fast(self.vocab, special_tokens, lowercase))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = BERT_SPECIAL_TOKENS,
        *,
        lowercase: bool = True,
        score: Score = association,
    ) -> Self:
        """Learn from texts; the vocab_size counts special tokens too.

        Raises ValueError where it leaves no room for these and the alphabet of the texts.
        """
        check_special(special_tokens)
        words = Counter(word for text in several(texts) for word in split(text, lowercase=lowercase))
        least = len(alphabet(words)) + len(special_tokens)
        if vocab_size < least:
            raise ValueError(f"vocab_size {vocab_size} is less than the {least} of alphabet and special tokens")
        pieces = train_wordpiece(words, vocab_size - len(special_tokens), score=score)
        return cls(pieces, special_tokens, lowercase=lowercase)

    def split(self, text: str) -> list[str]:
        """The words of a text as BERT splits it."""
        return split(text, lowercase=self.lowercase)

    def encode_word(self, word: str) -> list[int]:
        """The ids of a word's longest pieces; the one id of [UNK] when the pieces do not cover it."""
        return [self.vocab[piece] for piece in longest_match(word, self.vocab) or [UNKNOWN]]

    @classmethod
    def from_fast(cls, fast: tokenizers.Tokenizer) -> Self:
        """The tokenizer with this twin, BERT's own for one; raises ValueError unless it is such a WordPiece.

        The post-processor stays: it is the twin's business, and `encode` here never adds a token.
        """
        spec = json.loads(fast.to_str())
        if spec["model"].get("type") != "WordPiece" or (spec["normalizer"] or {}).get("type") != "BertNormalizer":
            raise ValueError(f"not a WordPiece of BERT's kind: {spec['model'].get('type')}, {spec['normalizer']}")
        pieces = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
        special = special_names(spec)
        tokenizer = cls(pieces, special, lowercase=spec["normalizer"]["lowercase"])
        tokenizer.vocab = spec["model"]["vocab"]
        own = json.loads(build_fast(tokenizer.vocab, special, tokenizer.lowercase).to_str())
        for part in ("normalizer", "pre_tokenizer", "model", "added_tokens", "truncation", "padding"):
            if own[part] != spec[part]:
                raise ValueError(f"not a WordPiece of BERT's kind: its {part} is {str(spec[part])[:200]}")
        tokenizer.fast = fast
        tokenizer._special = tokenizer.special_tokens  # with the ids of the file, which may lie behind the pieces
        return tokenizer


def build_fast(vocab: Mapping[str, int], special_tokens: Sequence[str], lowercase: bool) -> tokenizers.Tokenizer:
    """The same tokenizer for the Rust package."""
    model = tokenizers.models.WordPiece(
        dict(vocab), unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD, continuing_subword_prefix=CONTINUES
    )
    fast = tokenizers.Tokenizer(model)
    fast.normalizer = normalizer(lowercase)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    fast.decoder = tokenizers.decoders.WordPiece(prefix=CONTINUES, cleanup=False)
    return add_special_tokens(fast, special_tokens)
