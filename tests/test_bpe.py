"""Laws of byte-level BPE: equal to the Rust package in merges and in ids, and lossless."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrans.data.chat import SPECIAL_TOKENS
from tinytrans.data.docs import Docs
from tinytrans.data.tales import Tales
from tinytrans.tokenizers import BPETokenizer, Tokenizer, bpe, load_tokenizer
from tinytrans.tokenizers.bpe import (
    decode,
    encode,
    encode_word,
    merge,
    most_frequent,
    pair_counts,
    token_bytes,
    train_bpe,
    train_bpe_by_recounting,
)
from tinytrans.tokenizers.split import byte_ids, chunks, invisible, join, split, visible

TRICKY = ["<|end|>", "<|end", "|>", "'s", "'S", "  ", "\n\n", "\r\n", "\x1c", "\x85", "\u00a0", "\u3000", "_", "٣"]
TRICKY += ["Ⅷ", "²", "e\u0301", "ß", "字", "👩‍👩‍👧", "\u0378", "\U00010d40", "a\nb", "é\nb", " x", "\t"]
texts = st.lists(st.sampled_from(TRICKY) | st.text(max_size=8), max_size=8).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train((tale.text for tale in Tales(500)), 700, SPECIAL_TOKENS)


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYTRANS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return [part.text for part in Docs(libraries=("python",))]


def rust_merges(texts: list[str], vocab_size: int) -> list[tuple[str, str]]:
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    rust = tokenizers.Tokenizer(tokenizers.models.BPE())
    rust.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.train_from_iterator(texts, trainer)
    return [(a, b) for a, b in json.loads(rust.to_str())["model"]["merges"]]


def written(merges: dict[tuple[int, int], int]) -> list[tuple[str, str]]:
    tokens = [visible(token) for token in token_bytes(merges)]
    return [(tokens[a], tokens[b]) for a, b in merges]


def test_pairs_overlap_when_counted():
    """Three equal neighbours are two pairs, and a word counts as often as it occurs."""
    assert pair_counts({(7, 7, 7): 10, (7, 8): 3}) == {(7, 7): 20, (7, 8): 3}


def test_merge_never_takes_an_id_twice():
    """Merging goes from left to right without overlap."""
    assert merge([7, 7, 7, 7, 7, 8], (7, 7), 9) == [9, 9, 7, 8]


def test_ties_go_to_the_smallest_ids():
    """Among equally frequent pairs the smallest ids win, whatever came first."""
    assert most_frequent({(5, 1): 4, (2, 9): 4, (2, 3): 4, (0, 0): 3}) == (2, 3)


@given(st.lists(st.text(alphabet="abé ", max_size=12), max_size=6))
def test_fast_training_is_training(samples: list[str]):
    """The pair index learns what counting everything again after each merge learns."""
    assert list(train_bpe(samples, 280).items()) == list(train_bpe_by_recounting(samples, 280).items())


@given(st.lists(texts, max_size=6))
@settings(max_examples=50, deadline=None)
def test_training_equals_rust_on_any_text(samples: list[str]):
    """On any texts the merges are those of the Rust trainer, until no pair is left."""
    assert written(train_bpe(samples, 300)) == rust_merges(samples, 300)


def test_training_equals_rust_on_documentation(prose: list[str]):
    """On a megabyte of real English the first 1,500 merges are those of the Rust trainer, in order."""
    assert sum(map(len, prose)) > 900_000
    assert written(train_bpe(prose, 1756)) == rust_merges(prose, 1756)


def test_vocabulary_must_hold_the_bytes():
    """A vocabulary smaller than 256 is refused, and the number is named."""
    with pytest.raises(ValueError, match="255 is less than the 256 bytes"):
        train_bpe(["a"], 255)


@given(texts)
@settings(max_examples=300, deadline=None)
def test_words_are_those_of_rust(text: str):
    """The split is Rust's on any Unicode text, also where Python's own tables are older."""
    rust = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert [visible(word.encode()) for word in split(text)] == [word for word, _ in rust]


@given(texts)
@settings(max_examples=300, deadline=None)
def test_a_chunk_has_the_same_words_anywhere(text: str):
    """No word reaches across two chunks: the words of the chunks, one after the other, are those of the text."""
    rust = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    words = [word for chunk in chunks(text) for word, _ in rust(chunk)]
    assert words == [word for word, _ in rust(text)]
    assert "".join(chunks(text)) == text


def test_white_space_is_rusts():
    """Of all characters there are, `chunks` takes those for white space that Rust does."""
    characters = [chr(i) for i in range(sys.maxunicode + 1) if not 0xD800 <= i < 0xE000]
    rust = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\s"), "removed")
    white = set(characters) - {char for word, _ in rust.pre_tokenize_str("".join(characters)) for char in word}
    assert white == {char for char in characters if len(chunks(f"a{char}b")) > 1}
    assert len(white) == 25


@given(texts)
@settings(max_examples=300, deadline=None)
def test_ids_are_those_of_rust(tokenizer: BPETokenizer, text: str):
    """The readable path, the remembering one and Rust give the same ids."""
    by_rust = Tokenizer(tokenizer.fast)
    plain = encode(text, tokenizer.merges)
    assert tokenizer.encode(text, special=False) == by_rust.encode(text, special=False) == plain
    assert tokenizer.encode(text) == by_rust.encode(text) == tokenizer.fast.encode(text).ids
    assert tokenizer.encode_batch([text, ""]) == by_rust.encode_batch([text, ""])


@given(texts)
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back(tokenizer: BPETokenizer, text: str):
    """Decoding undoes encoding, with special tokens and without."""
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert decode(encode(text, tokenizer.merges), tokenizer.merges) == text


@given(st.lists(st.integers(0, 699), max_size=12), st.booleans())
@settings(deadline=None)
def test_any_ids_decode_as_rust_decodes_them(tokenizer: BPETokenizer, ids: list[int], special: bool):
    """Any ids have a text, also those that are no UTF-8, and it is Rust's."""
    assert tokenizer.decode(ids, special=special) == tokenizer.fast.decode(ids, skip_special_tokens=not special)


def test_lowest_rank_merges_first():
    """The pair learned first is merged first, not the one that stands first."""
    a, b, c = byte_ids("abc")
    assert encode_word("abc", {(b, c): 256, (a, b): 257}) == [a, 256]


def test_characters_may_lie_in_two_tokens():
    """Bytes are joined before they are decoded, and what is no UTF-8 becomes U+FFFD."""
    assert join([b"\xc3", b"\xa9", b"\xff"]) == "é\ufffd"


def test_every_byte_is_visible_once():
    """The 256 bytes are written with 256 characters of Rust's alphabet, and come back."""
    every = bytes(range(256))
    assert set(visible(every)) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert invisible(visible(every)) == every
    with pytest.raises(ValueError, match="'字', which stands for no byte"):
        invisible("a字")


def test_special_tokens_stand_behind(tokenizer: BPETokenizer):
    """Special tokens have the last ids, one each, and can be left out or be plain text."""
    assert list(tokenizer.special_tokens.values()) == [696, 697, 698, 699]
    assert tokenizer.vocab_size == len(tokenizer) == 700
    assert tokenizer.encode("<|user|>") == [tokenizer.token_to_id("<|user|>")] == [697]
    assert tokenizer.id_to_token(699) == "<|pad|>"
    assert len(tokenizer.encode("<|user|>", special=False)) > 1
    assert tokenizer.decode(tokenizer.encode("a<|end|>b"), special=False) == "ab"


def test_the_longest_special_token_wins():
    """Where one special token begins another, the longer is read, as in Rust."""
    tokenizer = BPETokenizer({}, ["<|a|>", "<|a|>b"])
    assert tokenizer.encode("<|a|>b<|a|>") == tokenizer.fast.encode("<|a|>b<|a|>").ids == [257, 256]


@pytest.mark.parametrize("i", [-1, 700])
def test_unknown_tokens_are_named(tokenizer: BPETokenizer, i: int):
    """An unknown id or token is an error that names it."""
    with pytest.raises(IndexError, match=f"no token has the id {i}; there are 700"):
        tokenizer.decode([i])
    with pytest.raises(KeyError, match="no token '<\\|nobody\\|>' among 700"):
        tokenizer.token_to_id("<|nobody|>")


def test_long_words_take_no_quadratic_time(tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch):
    """A text without a space is left to Rust, whose time does not grow with the square of a word."""
    monkeypatch.setattr(bpe, "encode_word", lambda *_: pytest.fail("a long word was merged pair by pair"))
    text = "ab" * 50_000
    assert tokenizer.encode(text) == tokenizer.fast.encode(text).ids


def test_a_word_is_worked_out_once(prose: list[str], monkeypatch: pytest.MonkeyPatch):
    """Words that were met before are remembered: the second time through a text nothing is merged."""
    tokenizer = BPETokenizer.train(prose[:200], 700)
    ids = [tokenizer.encode(text) for text in prose[:200]]
    monkeypatch.setattr(bpe, "encode_word", lambda *_: pytest.fail("a word was worked out again"))
    assert [tokenizer.encode(text) for text in prose[:200]] == ids
    assert ids == [tokenizer.fast.encode(text).ids for text in prose[:200]]


def test_saved_is_loaded(tokenizer: BPETokenizer, tmp_path):
    """A saved tokenizer comes back from its file or folder, readable, and Rust opens the file too."""
    file = tokenizer.save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]
    text = "Do you know Mei, the shy fox?<|end|>"
    for opened in (BPETokenizer.load(file), load_tokenizer(tmp_path)):
        assert isinstance(opened, BPETokenizer)
        assert opened.merges == tokenizer.merges
        assert opened.encode(text) == tokenizer.encode(text)
    assert tokenizers.Tokenizer.from_file(str(file)).encode(text).ids == tokenizer.encode(text)


def test_any_file_opens(tmp_path):
    """A `tokenizer.json` of another algorithm is opened too, and run by Rust; as BPE it is refused."""
    rust = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    rust.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    rust.save(str(tmp_path / "tokenizer.json"))
    opened = load_tokenizer(tmp_path)
    assert type(opened) is Tokenizer
    assert opened.encode("a b a") == [0, 1, 0]
    with pytest.raises(ValueError, match="not a byte-level BPE split as GPT-2 does: WordLevel"):
        BPETokenizer.load(tmp_path)


def test_other_numberings_open(tmp_path):
    """A byte-level BPE whose ids begin with special tokens is not ours, but opens, and keeps its ids."""
    rust = tokenizers.Tokenizer(tokenizers.models.BPE())
    rust.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    rust.train_from_iterator(["the cat and the hat " * 9], trainer)
    rust.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode("<s>the hat") == rust.encode("<s>the hat").ids
    with pytest.raises(ValueError, match="gives 257, but 256 is the next id"):
        BPETokenizer.load(tmp_path)


def test_a_failed_save_leaves_the_old_file(tokenizer: BPETokenizer, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A save is whole or not at all."""
    file = tmp_path / "tokenizer.json"
    file.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        tokenizer.save(file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]
    assert file.read_text() == "old"


def test_unknown_ids_are_refused() -> None:
    """An id that no token has raises IndexError, instead of being left out of the text."""
    tokenizer = BPETokenizer.train(["a story about a fox"] * 3, 270)
    for i in (tokenizer.vocab_size, -1):
        with pytest.raises(IndexError, match=f"no token has the id {i}; there are {tokenizer.vocab_size}"):
            tokenizer.decode([1, i, 2])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"model": {}}'])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    """A tokenizer.json that is none raises ValueError, which names it."""
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer"):
        load_tokenizer(tmp_path)
