"""Splitting: text -> words, as GPT-2 splits it, and words -> ids of bytes.

A merge never crosses a word, so the split decides what a token can be: `" the"` yes, `"of the"` never.
Source: Radford et al. 2019 (GPT-2), the released encoder; the `ByteLevel` of the Rust package `tokenizers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import tokenizers

PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# Python's `re` has no \p{L}, and its own Unicode tables are of another year than Rust's. So `re` splits ASCII,
# where both agree by definition, and Rust splits the rest.
_ASCII = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII)

# White space is another matter: Unicode has not changed it since 2013, and `re` can be told what it is.
_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CHUNK = re.compile(rf" ?[^{_SPACE}]+|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+")
_UNICODE = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")

# The 188 bytes that print come first, as in GPT-2: id 0 is "!", id 220 is the space.
_PRINTING = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_OF_ID = bytes(_PRINTING + [byte for byte in range(256) if byte not in _PRINTING])
_ID_OF_BYTE = bytes(BYTE_OF_ID.index(byte) for byte in range(256))
_VISIBLE = [chr(byte) for byte in _PRINTING] + [chr(256 + i) for i in range(256 - len(_PRINTING))]
_ID_OF_VISIBLE = {char: i for i, char in enumerate(_VISIBLE)}


def split(text: str) -> list[str]:
    """The words of a text in order, spaces kept in front: joined together they are the text again.

    >>> split("It's 2 cats!")
    ['It', "'s", ' 2', ' cats', '!']
    """
    if text.isascii():
        return _ASCII.findall(text)
    return [word for chunk in chunks(text) for word in _split_chunk(chunk)]


def _split_chunk(chunk: str) -> list[str]:
    if chunk.isascii():
        return _ASCII.findall(chunk)
    return [word for word, _ in _UNICODE.pre_tokenize_str(chunk)]


def chunks(text: str) -> list[str]:
    """A text cut at white space alone: every chunk is one word or several, the same ones wherever it stands.

    It is PATTERN for whom letters, digits and all else that is no white space are one. So what is known of a chunk,
    its words or their ids, need not be found again.

    >>> chunks("It's 2 cats!")
    ["It's", ' 2', ' cats!']
    """
    return _CHUNK.findall(text)


def byte_ids(word: str) -> list[int]:
    """The ids, 0 to 255, of a word's UTF-8 bytes; raises UnicodeEncodeError on half a surrogate pair.

    >>> byte_ids("é!")
    [127, 102, 0]
    """
    return list(word.encode().translate(_ID_OF_BYTE))


def visible(token: bytes) -> str:
    """A token's bytes written with one printing character each, as `tokenizer.json` wants them.

    >>> visible(b" cat")
    'Ġcat'
    """
    return "".join(_VISIBLE[i] for i in token.translate(_ID_OF_BYTE))


def invisible(token: str) -> bytes:
    """The bytes of a token written by `visible`; raises ValueError on any other character."""
    unknown = set(token) - _ID_OF_VISIBLE.keys()
    if unknown:
        raise ValueError(f"token {token!r} holds {''.join(sorted(unknown))!r}, which stands for no byte")
    return bytes(BYTE_OF_ID[_ID_OF_VISIBLE[char]] for char in token)


def join(tokens: Iterable[bytes]) -> str:
    """The text of the tokens' bytes *together*: one character's bytes may lie in two tokens.

    Bytes that are no UTF-8 become U+FFFD, the replacement character.

    >>> join([b"caf\\xc3", b"\\xa9"])
    'café'
    """
    return b"".join(tokens).decode("utf-8", errors="replace")
