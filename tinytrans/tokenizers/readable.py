"""Readable tokenizers: text -> words between special tokens -> ids.

A subclass says how a text is split into words, and how a word is encoded.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any

import tokenizers

from tinytrans.tokenizers.base import Tokenizer, one_text


class ReadableTokenizer(Tokenizer, ABC):
    """A tokenizer whose ids come from Python, word by word, and equal those of its twin `fast`.

    A word is encoded when it is met for the first time and then remembered, up to LIMIT words.
    """

    LIMIT = 2**18

    def __init__(self, fast: tokenizers.Tokenizer) -> None:
        super().__init__(fast)
        self._special = self.special_tokens
        # the longest name first: where one begins with another, the longer is meant, as in Rust
        self._parts = re.compile("|".join(map(re.escape, sorted(self._special, key=len, reverse=True))) or r"(?!)")
        self._cache: dict[str, list[int]] = {}

    @abstractmethod
    def split(self, text: str) -> list[str]:
        """The words of a text that holds no special token."""

    @abstractmethod
    def encode_word(self, word: str) -> list[int]:
        """The ids of one word."""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text; with `special=False` the name of a special token in it is plain text."""
        ids: list[int] = []
        start = 0
        one_text(text)
        for found in self._parts.finditer(text) if special else ():
            ids += self._encode_plain(text[start : found.start()])
            ids.append(self._special[found.group()])
            start = found.end()
        return ids + self._encode_plain(text[start:])

    def _encode_plain(self, text: str) -> list[int]:
        return [i for word in self.split(text) for i in self._remembered(word)]

    def _remembered(self, word: str) -> list[int]:
        ids = self._cache.get(word)
        if ids is None:
            ids = self.encode_word(word)
            if len(self._cache) < self.LIMIT:
                self._cache[word] = ids
        return ids


def special_names(spec: dict[str, Any]) -> list[str]:
    """The special tokens that a `tokenizer.json` names, in the order of the file."""
    return [token["content"] for token in spec["added_tokens"] if token["special"]]
