"""Characters and words: the two easy tokenizers, and what each costs.

Characters are few, so a text is long; words are many, so the text is short and full of words never seen.
The subwords of BPE, WordPiece and Unigram lie between.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Self

import tokenizers

from tinytrans.tokenizers.base import add_special_tokens, check_special, several
from tinytrans.tokenizers.readable import ReadableTokenizer, special_names
from tinytrans.tokenizers.split import PATTERN, split

UNKNOWN = "<unk>"


def most_common(tokens: Iterable[str], size: int | None = None) -> list[str]:
    """The tokens by how often they stand, the most frequent first; among equals the first in alphabetical order.

    >>> most_common("banana", 2)
    ['a', 'n']
    """
    counts = Counter(tokens)
    return sorted(counts, key=lambda token: (-counts[token], token))[:size]


def vocabulary_growth(tokens: Iterable[str]) -> list[int]:
    """How many different tokens have been met after each: for words it never stops growing (Heaps' law).

    >>> vocabulary_growth(["to", "be", "or", "not", "to", "be"])
    [1, 2, 3, 4, 4, 4]
    """
    seen: set[str] = set()
    sizes = []
    for token in tokens:
        seen.add(token)
        sizes.append(len(seen))
    return sizes


class ListedTokenizer(ReadableTokenizer):
    """Text -> tokens by a fixed split -> ids by a list; a token that is not in the list is <unk>.

    Ids: <unk>, the tokens, the special tokens. What the list holds comes back exactly.
    """

    PATTERN: str  # what one token looks like, for Rust

    def __init__(self, tokens: Iterable[str], special_tokens: Sequence[str] = ()) -> None:
        check_special(special_tokens)
        self.vocab = {token: i for i, token in enumerate(dict.fromkeys([UNKNOWN, *tokens]))}
        super().__init__(build_fast(self.vocab, self.PATTERN, special_tokens))

    @staticmethod
    def tokens(text: str) -> list[str]:
        """The tokens of a text in order: joined together they are the text again."""
        raise NotImplementedError

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None = None, special_tokens: Sequence[str] = ()) -> Self:
        """List the tokens of the texts, all or the most frequent; vocab_size counts <unk> and special tokens too.

        Raises ValueError where it leaves no room for these.
        """
        check_special(special_tokens)
        room = None if vocab_size is None else vocab_size - 1 - len(set(special_tokens) - {UNKNOWN})
        if room is not None and room < 0:
            raise ValueError(f"vocab_size {vocab_size} has no room for {UNKNOWN} and {list(special_tokens)}")
        return cls(most_common(chain.from_iterable(map(cls.tokens, several(texts))), room), special_tokens)

    def split(self, text: str) -> list[str]:
        """The tokens of a text in order."""
        return self.tokens(text)

    def encode_word(self, word: str) -> list[int]:
        """The one id of a token."""
        return [self.vocab.get(word, self.vocab[UNKNOWN])]

    @classmethod
    def from_fast(cls, fast: tokenizers.Tokenizer) -> Self:
        """The tokenizer with this twin; raises ValueError unless it is a list with the same split."""
        spec = json.loads(fast.to_str())
        if spec["model"].get("type") != "WordLevel":
            raise ValueError(f"not a list of tokens: {spec['model'].get('type')}")
        vocab = spec["model"]["vocab"]
        tokenizer = cls(sorted(vocab, key=vocab.get), special_names(spec))
        if json.loads(tokenizer.fast.to_str()) != spec:
            raise ValueError(f"not the {cls.__name__}'s split, or not its ids: {spec['pre_tokenizer']}")
        return tokenizer


class CharacterTokenizer(ListedTokenizer):
    """One id for each character (code point) of the training texts."""

    PATTERN = r"[\s\S]"

    @staticmethod
    def tokens(text: str) -> list[str]:
        """The characters of a text."""
        return list(text)


class WordTokenizer(ListedTokenizer):
    """One id for each word of the training texts, split as for BPE: spaces stand in front of their word."""

    PATTERN = PATTERN

    @staticmethod
    def tokens(text: str) -> list[str]:
        """The words of a text, spaces kept in front."""
        return split(text)


def build_fast(vocab: Mapping[str, int], pattern: str, special_tokens: Sequence[str]) -> tokenizers.Tokenizer:
    """The same tokenizer for the Rust package."""
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(dict(vocab), unk_token=UNKNOWN))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    fast.decoder = tokenizers.decoders.Fuse()
    return add_special_tokens(fast, dict.fromkeys([UNKNOWN, *special_tokens]))
