"""Tokenizers, all five kinds and files of others: what goes in is checked, and a file is read as Rust reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import AddedToken

from tinytrans.tokenizers import (
    BPETokenizer,
    CharacterTokenizer,
    Tokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
    WordTokenizer,
    load_tokenizer,
)

TEXTS = ["the cat sat on the mat, the hat", "a cat and a dog <mask> hello", "Once there was é ü 日本語 🙂  <s> a</s>"]
ODD = [*TEXTS, "", "cats concat cat  <mask>  x [MASK] [NEW]", "a" * 120, "Hello  World <mask>b  "]
KINDS: list[Any] = [BPETokenizer, WordPieceTokenizer, UnigramTokenizer, CharacterTokenizer, WordTokenizer]
every_kind = pytest.mark.parametrize("kind", KINDS)


def trained(kind: Any, special: Any = ()) -> Tokenizer:
    """A tokenizer of this kind, with these special tokens beside those that it always has."""
    always = ["[UNK]"] if kind is WordPieceTokenizer and not isinstance(special, str) else []
    return kind.train(TEXTS, 400, [*always, *special] if not isinstance(special, str) else special)


@every_kind
@pytest.mark.parametrize(
    ("special", "message"),
    [
        ("<end>", r"one str, '<end>'"),
        (["<end>", ""], "special token . is ''"),
        (["<end>", 3], "special token . is 3"),
        (["<end>", "<end>"], "'<end>', has the name of another"),
    ],
)
def test_special_tokens_have_names_of_their_own(kind: Any, special: Any, message: str) -> None:
    """Special tokens are a list of different texts; anything else is refused before a tokenizer is trained on it."""
    with pytest.raises(ValueError, match=message):
        trained(kind, special)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_vocabulary_that_is_too_small_is_named_as_given(kind: Any) -> None:
    """The error has the number that was asked for, not what is left of it behind the special tokens."""
    with pytest.raises(ValueError, match="vocab_size 7 is less than the"):
        kind.train(TEXTS, 7, ["[UNK]", "<end>"])


@every_kind
@pytest.mark.parametrize("text", [None, 3, b"cat", ["cat"], ("a", "b")])
def test_a_text_is_a_str(kind: Any, text: Any) -> None:
    """What is no text has no ids: alone, in a batch, or among those to learn from; the error names its type."""
    known, message = trained(kind), f"not {type(text).__name__}"
    for tokenizer in (known, Tokenizer(known.fast)):
        for encode in (tokenizer.encode, lambda text, tokenizer=tokenizer: tokenizer.encode_batch(["a", text])):
            with pytest.raises(ValueError, match=message):
                encode(text)
    with pytest.raises(ValueError, match=message):
        kind.train(["a", text], 400)


def test_threads_do_not_share_a_switch() -> None:
    """While one thread reads special tokens, another that takes their names for text gets what it gets alone."""
    fast = BPETokenizer.train(TEXTS, 300, ["<|end|>"]).fast
    tokenizer, text = Tokenizer(fast), "a cat <|end|> "
    alone = {special: Tokenizer(fast).encode(text, special=special) for special in (True, False)}
    assert alone[True] != alone[False]

    def same(special: bool) -> bool:
        return all(tokenizer.encode(text, special=special) == alone[special] for _ in range(10_000))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(same, [True, False, True, False]))
    fast.add_special_tokens(["cat"])  # what the twin learns later counts in both ways of reading
    assert fast.token_to_id("cat") in tokenizer.encode(text)
    assert fast.token_to_id("cat") not in tokenizer.encode(text, special=False)


@every_kind
def test_a_batch_is_several_texts(kind: Any) -> None:
    """A single text is no batch of its letters; a generator of texts is one."""
    tokenizer = trained(kind)
    with pytest.raises(ValueError, match="one str of 3"):
        tokenizer.encode_batch("cat")  # type: ignore[arg-type]
    assert tokenizer.encode_batch(text for text in TEXTS) == [tokenizer.encode(text) for text in TEXTS]


@every_kind
def test_half_a_character_is_no_text(kind: Any) -> None:
    """Half a surrogate pair has no UTF-8, and every tokenizer says so, Rust's alone too."""
    tokenizer = trained(kind)
    for attempt in (tokenizer.encode, Tokenizer(tokenizer.fast).encode, lambda text: kind.train([text], 400)):
        with pytest.raises(UnicodeEncodeError):
            attempt("a\ud800")


@every_kind
@pytest.mark.parametrize("rows", [[[1, 2]], torch.tensor([[1], [2]]), 5, "5", [1.5], torch.tensor([2.0]), None])
def test_ids_are_one_row(kind: Any, rows: Any) -> None:
    """A batch of rows, a number alone and fractions are not the ids of a text."""
    tokenizer = trained(kind)
    for reader in (tokenizer, Tokenizer(tokenizer.fast)):
        with pytest.raises(ValueError, match="one row of integers"):
            reader.decode(rows)


@every_kind
def test_ids_come_as_they_are(kind: Any) -> None:
    """A list, a tensor, an array and a generator of the same ids are the same text."""
    tokenizer = trained(kind)
    ids = tokenizer.encode(TEXTS[0])
    said = tokenizer.decode(ids)
    assert tokenizer.decode(torch.tensor(ids)) == said  # type: ignore[arg-type]
    assert tokenizer.decode(np.array(ids)) == said
    assert tokenizer.decode(iter(ids)) == said


@every_kind
@pytest.mark.parametrize("i", [-1, 10**6, 2**70])
@pytest.mark.parametrize("special", [True, False])
def test_an_unknown_id_is_never_passed_over(kind: Any, i: int, special: bool) -> None:
    """An id that no token has is an error, also where special tokens are left out."""
    tokenizer = trained(kind)
    with pytest.raises(IndexError, match=f"no token has the id {i}"):
        tokenizer.decode([1, i], special=special)


@every_kind
def test_a_special_token_may_be_a_word(kind: Any) -> None:
    """A special token that was a token before keeps that id, and is left out as every special one is."""
    tokenizer = trained(kind, ["a"])
    ids = tokenizer.encode("a cat")
    assert ids == tokenizer.fast.encode("a cat", add_special_tokens=False).ids
    assert tokenizer.decode(ids, special=False) == tokenizer.fast.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["¶", "é", "Ġthe"])
def test_a_special_token_is_not_written_like_other_bytes(name: str) -> None:
    """In a BPE's file "¶" is the byte 0xB6: as a special token it would be decoded to half a character."""
    with pytest.raises(ValueError, match=f"special token '{name}' is how a file writes the bytes b'"):
        BPETokenizer.train([*TEXTS, "the the the"], 300, [name])
    tokenizer = BPETokenizer.train(TEXTS, 300, ["␤", "a", "<¶>"])
    text = "a ¶␤<¶> é"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_special_token_is_no_byte() -> None:
    """Where characters fall back to bytes, their names are taken."""
    with pytest.raises(ValueError, match="'<0x41>' is the name of a byte"):
        UnigramTokenizer.train(TEXTS, 400, ["<0x41>"])
    tokenizer = UnigramTokenizer.train(TEXTS, 100, ["<0x41>"], byte_fallback=False)
    assert tokenizer.decode(tokenizer.encode("a <0x41> cat")) == "a <0x41> cat"


def byte_level(**options: Any) -> tokenizers.Tokenizer:
    """A byte-level BPE trained by Rust."""
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    fast = tokenizers.Tokenizer(tokenizers.models.BPE(**options))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(TEXTS, trainer)
    return fast


def with_token(fast: tokenizers.Tokenizer, **flags: bool) -> tokenizers.Tokenizer:
    """The same, and `<mask>` is one token in it, with these flags."""
    (fast.add_special_tokens if flags.get("special") else fast.add_tokens)([AddedToken("<mask>", **flags)])
    return fast


def pieces() -> tokenizers.Tokenizer:
    """A WordPiece of our own kind."""
    return tokenizers.Tokenizer.from_str(WordPieceTokenizer.train(TEXTS, 80).fast.to_str())


def changed(fast: tokenizers.Tokenizer, change: Callable[[dict[str, Any]], object]) -> tokenizers.Tokenizer:
    """The same, with a change in its file."""
    spec = json.loads(fast.to_str())
    change(spec)
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


FILES: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "a token that takes the space before it": lambda: with_token(byte_level(), special=True, lstrip=True),
    "one that takes the space behind it": lambda: with_token(byte_level(), special=True, rstrip=True),
    "one that must stand alone": lambda: with_token(byte_level(), special=True, single_word=True),
    "one that is not special": lambda: with_token(byte_level()),
    "a plain special one": lambda: with_token(byte_level(), special=True),
    "pieces, a token that takes the space": lambda: with_token(pieces(), special=True, lstrip=True),
    "pieces, a special token behind them": lambda: with_token(pieces(), special=True),
    "pieces, one that is not special": lambda: with_token(pieces()),
    "shorter longest words": lambda: changed(pieces(), lambda s: s["model"].update(max_input_chars_per_word=3)),
    "accents kept": lambda: changed(pieces(), lambda s: s["normalizer"].update(strip_accents=False)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_rust_reads_it(name: str, tmp_path: Path) -> None:
    """Whatever its added tokens do, a file opened here has the ids and the texts that Rust finds with it."""
    fast = FILES[name]()
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    for special in (True, False):
        fast.encode_special_tokens = not special
        for text in ODD:
            ids = fast.encode(text, add_special_tokens=False).ids
            assert tokenizer.encode(text, special=special) == ids, text
            assert tokenizer.decode(ids, special=special) == fast.decode(ids, skip_special_tokens=not special), text


def test_a_bpe_of_chance_stays_one(tmp_path: Path) -> None:
    """A BPE that leaves out merges by chance (Provilkov et al. 2019, arXiv 1910.13267) is not read as one without."""
    byte_level(dropout=0.5).save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert len({tuple(tokenizer.encode(TEXTS[0])) for _ in range(20)}) > 1


@pytest.mark.parametrize("make", [byte_level, pieces])
def test_an_opened_tokenizer_neither_cuts_nor_fills(make: Callable[[], tokenizers.Tokenizer], tmp_path: Path) -> None:
    """What a file says of truncation and padding does not touch the ids of a text."""
    fast = make()
    whole = fast.encode(TEXTS[0]).ids
    fast.enable_truncation(3)
    fast.enable_padding(length=30)
    fast.save(str(tmp_path / "tokenizer.json"))
    for tokenizer in (load_tokenizer(tmp_path), Tokenizer.load(tmp_path)):
        assert tokenizer.encode_batch([TEXTS[0], "a"])[0] == whole
