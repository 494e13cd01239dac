"""Tokenizing: the documentation on this machine -> byte-level BPE learned, and texts encoded, in MB a second."""

from __future__ import annotations

from functools import partial

import tokenizers

from tests.benchmarks.measure import Contest
from tinytrans import BPETokenizer, load

MEGABYTE = 1_000_000
VOCAB = 4096
RUST = "tokenizers (Rust)"


def texts(quick: bool) -> list[str]:
    """Paragraphs of documentation: all of Python's and numpy's, or a few for a quick look."""
    if quick:
        return [f"A paragraph on number {n}, and what it is good for." for n in range(200)]
    return [part.text for part in load("docs", libraries=("python", "numpy"))]


def size(lines: list[str]) -> float:
    """Megabytes of UTF-8."""
    return sum(len(line.encode()) for line in lines) / MEGABYTE


def train_rust(lines: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    """The same training by the Rust package."""
    fast = tokenizers.Tokenizer(tokenizers.models.BPE())
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(lines, trainer)
    return fast


def bpe_training(quick: bool) -> Contest:
    """The readable trainer and the Rust one, to the same merges."""
    lines, vocab_size = texts(quick), 300 if quick else VOCAB
    return Contest(
        name="BPE training",
        unit="MB/s",
        amount=size(lines),
        runs={
            "tinytrans, readable": partial(BPETokenizer.train, lines, vocab_size),
            RUST: partial(train_rust, lines, vocab_size),
        },
        rounds=1 if quick else 3,
        target={RUST: 1 / 1.5},
        warmup=False,
    )


def bpe_encoding(quick: bool) -> Contest:
    """Text by text: ours when it has met the words, ours when each is new, and the Rust package's `encode`."""
    lines = texts(quick)
    ours = BPETokenizer.train(lines, 300 if quick else VOCAB)

    def cold() -> list[list[int]]:
        ours._cache.clear()
        return [ours.encode(line) for line in lines]

    return Contest(
        name="BPE encoding",
        unit="MB/s",
        amount=size(lines),
        runs={
            "tinytrans, words met before": lambda: [ours.encode(line) for line in lines],
            "tinytrans, every word new": cold,
            f"{RUST}, encode": lambda: [ours.fast.encode(line).ids for line in lines],
        },
        rounds=1 if quick else 5,
        target={f"{RUST}, encode": 4.0},
    )
