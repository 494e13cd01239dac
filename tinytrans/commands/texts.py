"""Texts: the name of a data set, or a file of the user's -> texts to learn from and texts held out; and a tokenizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from tinytrans.data import TEXTS, load
from tinytrans.data.chat import SPECIAL_TOKENS
from tinytrans.tokenizers import BPETokenizer

PIECE = 600  # characters of a user's file that make one text: about 200 tokens
FEWEST = 20  # pieces from which something can be learnt


def read_texts(data: str) -> tuple[list[str], list[str]]:
    """The name of a data set or of a text file -> texts to train on, texts held out (of a file every tenth piece)."""
    if data in TEXTS:
        few = {"n": 300} if data == "tales" else {}
        return load(data).documents(), load(data, split="validation", **few).documents()[:300]
    pieces = read_pieces(data)
    if len(pieces) < FEWEST:
        length = sum(map(len, pieces))
        raise ValueError(f"{data} has {length:,} characters, too few to learn from: {FEWEST * PIECE:,} is the least")
    return [piece for i, piece in enumerate(pieces) if i % 10], pieces[::10]


def read_pieces(file: str) -> list[str]:
    """A text file in pieces of PIECE characters; raises FileNotFoundError, or ValueError where it is not UTF-8."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"no data set and no file {file!r}; those with texts are {', '.join(TEXTS)}")
    try:
        text = Path(file).read_text(encoding="utf-8-sig")  # some editors begin a file with a mark of their own
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def place_of(data: str) -> str:
    """A file's full name, so that it is found from everywhere; a data set's name as it is."""
    return data if data in TEXTS else str(Path(data).resolve())


def standard_input() -> TextIO:
    """What is typed or piped in, as UTF-8; a byte that is none becomes U+FFFD. Raises ValueError where it is closed."""
    if sys.stdin is None:
        raise ValueError("standard input is closed: there is nothing to read")
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return sys.stdin


def train_tokenizer(texts: list[str], vocab_size: int) -> BPETokenizer:
    """A byte-level BPE tokenizer from about 5,000 of the texts, spread over all."""
    return BPETokenizer.train(texts[:: max(1, len(texts) // 5000)], vocab_size, SPECIAL_TOKENS)
