"""Splits: what an example is about -> "train", "validation" or "test", by its hash, the same on every machine."""

from __future__ import annotations

import zlib
from typing import NamedTuple

SPLITS = ("train", "validation", "test")


class Pair(NamedTuple):
    """Something to translate: the source text and the target text."""

    source: str
    target: str


def split_of(key: str) -> str:
    """One in ten keys validates, one in ten tests, the others train.

    The key is what the example is *about*: every wording of it then falls into the same split, so none can leak.

    >>> split_of("number 7")
    'train'
    """
    return {0: "test", 1: "validation"}.get(zlib.crc32(key.encode()) % 10, "train")


def check_split(split: str) -> str:
    """The split, if there is one of that name; else ValueError."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    return split
