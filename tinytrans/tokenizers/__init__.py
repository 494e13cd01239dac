"""Text -> ids -> text: readable tokenizers, each with a twin of equal ids run by the Rust package `tokenizers`."""

from __future__ import annotations

import os

from tinytrans.tokenizers.base import Tokenizer
from tinytrans.tokenizers.bpe import BPETokenizer
from tinytrans.tokenizers.characters import CharacterTokenizer, WordTokenizer
from tinytrans.tokenizers.unigram import UnigramTokenizer
from tinytrans.tokenizers.wordpiece import WordPieceTokenizer

READABLE: tuple[type[Tokenizer], ...] = (
    BPETokenizer, WordPieceTokenizer, UnigramTokenizer, CharacterTokenizer, WordTokenizer,
)  # fmt: skip
"""The classes whose ids Python finds, each step to be read; `load_tokenizer` tries them in this order."""

__all__ = [
    "READABLE",
    "BPETokenizer",
    "CharacterTokenizer",
    "Tokenizer",
    "UnigramTokenizer",
    "WordPieceTokenizer",
    "WordTokenizer",
    "load_tokenizer",
]


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Open any `tokenizer.json`, or the one in a folder: readable when it is one of ours, else run by Rust alone.

    Raises as `Tokenizer.load` does.
    """
    plain = Tokenizer.load(path)
    for kind in READABLE:
        try:
            return kind.from_fast(plain.fast)
        except ValueError:
            continue
    return plain
