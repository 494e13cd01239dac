"""Laws of the two easy tokenizers: exact, Rust's ids, and what each costs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrans.data.tales import Tales
from tinytrans.tokenizers.base import Tokenizer
from tinytrans.tokenizers.bpe import BPETokenizer
from tinytrans.tokenizers.characters import (
    CharacterTokenizer,
    ListedTokenizer,
    WordTokenizer,
    most_common,
    vocabulary_growth,
)
from tinytrans.tokenizers.unigram import UnigramTokenizer
from tinytrans.tokenizers.wordpiece import WordPieceTokenizer

KINDS = [CharacterTokenizer, WordTokenizer]
TRICKY = ["<unk>", "<|end|>", "<|end", "'s", "  ", "\r\n", "\x85", "\u00a0", "e\u0301", "字", "👩‍👩‍👧", "a\nb"]
texts = st.lists(st.sampled_from(TRICKY) | st.text(max_size=8), max_size=8).map("".join)


@settings(max_examples=100, deadline=None)
@given(texts, texts, st.sampled_from(KINDS))
def test_ids_are_those_of_rust(known: str, text: str, kind: type[ListedTokenizer]) -> None:
    """Any text has Rust's ids, met in training or not, special tokens spelled out or meant."""
    own = kind.train([known], special_tokens=["<|end|>"])
    for special in (True, False):
        assert own.encode(text, special=special) == own.encode_batch([text], special=special)[0]


def test_the_longest_special_token_is_meant() -> None:
    """Where one special token begins with another the longer one is read, in whichever order they were named."""
    for names in (["<|end", "<|end|>"], ["<|end|>", "<|end"]):
        own = CharacterTokenizer.train(["a|>"], special_tokens=names)
        text = "a<|end|><|end<|end|>|>"
        assert own.encode(text) == own.encode_batch([text])[0]
        assert own.encode("<|end|>") == [own.token_to_id("<|end|>")]


@settings(max_examples=100, deadline=None)
@given(texts, st.sampled_from(KINDS))
def test_what_was_met_comes_back(text: str, kind: type[ListedTokenizer]) -> None:
    """A text of known tokens is decoded exactly, here and by Rust."""
    own = kind.train([text])
    ids = own.encode(text, special=False)
    assert own.decode(ids) == text == own.fast.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_never_met_is_unknown(kind: type[ListedTokenizer]) -> None:
    """A token that is not in the list becomes <unk>, id 0, each by itself, and its text is lost."""
    own = kind.train(["a b a"])
    assert own.encode("Ж") == [0]
    assert own.encode("aЖ" if kind is CharacterTokenizer else "a Ж") == [own.vocab["a"], 0]
    assert own.decode([0]) == "<unk>"
    assert own.decode([0], special=False) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_the_list_keeps_the_most_frequent(kind: type[ListedTokenizer]) -> None:
    """vocab_size counts <unk> and the special tokens; the rest goes to the most frequent, ties by the alphabet."""
    own = kind.train([tale.text for tale in Tales(50)], 30, ["<|end|>"])
    assert own.vocab_size == 30
    assert own.special_tokens == {"<unk>": 0, "<|end|>": 29}
    assert most_common("cabbac") == ["a", "b", "c"]
    with pytest.raises(ValueError, match="1 has no room"):
        kind.train(["a"], 1, ["<|end|>"])


def test_words_never_end_and_characters_do() -> None:
    """A twentieth of the text shows most of its characters, and far fewer of its words; growth never falls."""
    text = " ".join(tale.text for tale in Tales(300))
    words, characters = (vocabulary_growth(kind.tokens(text)) for kind in (WordTokenizer, CharacterTokenizer))
    for sizes in (words, characters):
        assert all(0 <= after - before <= 1 for before, after in pairwise(sizes))
    assert characters[len(characters) // 20] > 0.85 * characters[-1]
    assert words[len(words) // 20] < 0.75 * words[-1]


def test_subwords_lie_between() -> None:
    """A text is longest in characters, shorter in BPE, shortest in words; only words meet the unknown in new names."""
    train, new = [tale.text for tale in Tales(200)], "Once there was an otterfox named Aikolina."
    characters, words = CharacterTokenizer.train(train), WordTokenizer.train(train)
    bpe = BPETokenizer.train(train, 500)
    lengths = [len(own.encode(train[0])) for own in (characters, bpe, words)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 2 * lengths[1] > 2 * lengths[2]
    assert 0 in words.encode(new)
    assert 0 not in characters.encode(new)
    assert bpe.decode(bpe.encode(new)) == new


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_read_by_ours_and_by_rust(tmp_path: Path, kind: type[ListedTokenizer]) -> None:
    """Saved and loaded, here or by Rust alone, it gives the same ids; the other kind refuses the file."""
    own = kind.train([tale.text for tale in Tales(20)], special_tokens=["<|end|>"])
    own.save(tmp_path)
    text = "Mei met a fox.<|end|> Жук"
    for loaded in (kind.load(tmp_path), Tokenizer.load(tmp_path)):
        assert loaded.encode(text) == own.encode(text)
    for other in KINDS:
        if other is not kind:
            with pytest.raises(ValueError, match="split"):
                other.load(tmp_path)


@pytest.mark.parametrize(
    "kind", [BPETokenizer, WordPieceTokenizer, UnigramTokenizer, CharacterTokenizer, WordTokenizer]
)
def test_one_text_is_not_many_letters(kind: Any) -> None:
    """No tokenizer learns from a lone str, of which each letter would be a text: a list of one is meant."""
    with pytest.raises(ValueError, match=r"texts is one str of 11 characters, not several: hand in a list, \[text\]"):
        kind.train("hello world", vocab_size=300)
