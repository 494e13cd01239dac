"""The common interface: text -> ids -> text, kept in a Hugging Face `tokenizer.json`.

Every tokenizer here has a twin that the Rust package `tokenizers` runs, `tokenizer.fast`, with equal ids.
A class for one algorithm adds the readable path; this one opens a file of any.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from operator import index
from pathlib import Path
from typing import Self

import tokenizers

from tinytrans.files import write_whole

FILE = "tokenizer.json"


def tokenizer_file(path: str | os.PathLike[str]) -> Path:
    """The file that a path means: itself, or the `tokenizer.json` in the folder that it names."""
    path = Path(path)
    return path / FILE if path.is_dir() else path


def one_text(text: str) -> str:
    """A text as it is; raises ValueError for what is none, UnicodeEncodeError for half a surrogate pair in it."""
    if not isinstance(text, str):
        raise ValueError(f"a text is of type str, not {type(text).__name__}: {text!r:.60}")
    text.encode()
    return text


def several(texts: Iterable[str]) -> Iterator[str]:
    """Texts as they are; raises ValueError for a single one, which would be read as many texts of one letter."""
    if isinstance(texts, str):
        raise ValueError(f"texts is one str of {len(texts)} characters, not several: hand in a list, [text]")
    return map(one_text, texts)


def one_row(ids: Iterable[int]) -> list[int]:
    """Ids of one text from a list, a tensor or an array; raises ValueError for a batch of them, or other things."""
    try:
        return [index(i) for i in (ids.tolist() if hasattr(ids, "tolist") else ids)]
    except TypeError as error:
        raise ValueError(f"ids are one row of integers, not {ids!r:.60}: of a batch decode each row") from error


def check_special(names: Sequence[str]) -> None:
    """Raise ValueError for names of special tokens that are no list of texts, or empty, or not all different."""
    if isinstance(names, str):
        raise ValueError(f"special_tokens is one str, {names!r}, not several: hand in a list, [{names!r}]")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise ValueError(f"special token {i} is {name!r}, and no text can hold it")
        if name in names[:i]:
            raise ValueError(f"special token {i}, {name!r}, has the name of another")


def add_special_tokens(fast: tokenizers.Tokenizer, names: Iterable[str]) -> tokenizers.Tokenizer:
    """The twin, knowing these names as special tokens: ids as in its vocabulary, else the next free ones."""
    fast.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in names])
    return fast


class Tokenizer:
    """A tokenizer run by Rust; `Tokenizer.load(path)` opens any `tokenizer.json`."""

    def __init__(self, fast: tokenizers.Tokenizer) -> None:
        self.fast = fast
        self._literal: tuple[int, tokenizers.Tokenizer] | None = None

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included."""
        return self.fast.get_vocab_size(with_added_tokens=True)

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens, name -> id, in the order of their ids."""
        added = self.fast.get_added_tokens_decoder()
        return {token.content: i for i, token in sorted(added.items()) if token.special}

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, special_tokens={list(self.special_tokens)})"

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text; with `special=False` the name of a special token in it is plain text.

        Text from strangers belongs into the second form: there nobody can type an `<|end|>`. (A special token that is
        also a word of the vocabulary has the word's id, and so has the word.) Raises ValueError for what is no text.
        """
        return self.encode_batch([text], special=special)[0]

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """The ids of each text, by Rust, on all processors; raises ValueError for a single text in their place."""
        fast = self.fast if special else self.literal
        return [encoding.ids for encoding in fast.encode_batch_fast(list(several(texts)), add_special_tokens=False)]

    @property
    def literal(self) -> tokenizers.Tokenizer:
        """A second twin, to whom the name of a special token is plain text: a switch would turn for all threads."""
        if self._literal is None or self._literal[0] != self.vocab_size:  # or the first has learnt more tokens since
            twin = tokenizers.Tokenizer.from_str(self.fast.to_str())
            twin.encode_special_tokens = True
            self._literal = self.vocab_size, twin
        return self._literal[1]

    def decode(self, ids: Iterable[int], *, special: bool = True) -> str:
        """The text of ids; with `special=False` the special tokens are left out.

        Raises IndexError for an id that no token has, ValueError for more than one row of them.
        """
        known = one_row(ids)
        for extreme in (min(known, default=0), max(known, default=0)):
            if not 0 <= extreme < self.vocab_size:
                self.id_to_token(extreme)
        return self.fast.decode(known, skip_special_tokens=not special)

    def token_to_id(self, token: str) -> int:
        """The id of a token as it is written in the file; raises KeyError when there is none."""
        i = self.fast.token_to_id(token)
        if i is None:
            raise KeyError(f"no token {token!r} among {self.vocab_size}")
        return i

    def id_to_token(self, i: int) -> str:
        """The token of an id as it is written in the file; raises IndexError when there is none."""
        token = self.fast.id_to_token(i) if 0 <= i < 2**32 else None
        if token is None:
            raise IndexError(f"no token has the id {i}; there are {self.vocab_size}")
        return token

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the tokenizer whole into a file, or into `tokenizer.json` in an existing folder; returns the file."""
        file = tokenizer_file(path)
        write_whole(file, self.fast.to_str(pretty=True))
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Open a file, or the `tokenizer.json` in a folder; raises ValueError, naming it, where it is damaged.

        Raises OSError where there is none, and in a subclass ValueError for another kind of tokenizer. What it says of
        truncation and padding is left out: `encode` gives all the ids of a text, and no others.
        """
        file = tokenizer_file(path)
        text = file.read_bytes()
        try:
            fast = tokenizers.Tokenizer.from_buffer(text)
        except Exception as error:  # the package raises no kind of its own
            raise ValueError(f"{file} is no tokenizer: {error}") from error
        fast.no_truncation()
        fast.no_padding()
        return cls.from_fast(fast)

    @classmethod
    def from_fast(cls, fast: tokenizers.Tokenizer) -> Self:
        """The tokenizer with this twin; a subclass raises ValueError when the twin is of another algorithm."""
        return cls(fast)
