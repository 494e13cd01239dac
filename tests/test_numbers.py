"""Laws of the number words: English by hand and by CLDR, every language is one to one, nothing leaks between splits."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytrans.data.numbers import Numbers, english, languages, spell, speller
from tinytrans.data.splits import SPLITS, split_of


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra `data`."""
    speller.cache_clear()
    monkeypatch.setitem(sys.modules, "unicode_rbnf", None)


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (1_000_010, "one million ten"),
        (12_345, "twelve thousand three hundred forty-five"),
    ],
)
def test_english_by_hand(n: int, words: str) -> None:
    """English is spelled as an American says it."""
    assert english(n) == words


@given(st.integers(0, 10**12 - 1) | st.integers(0, 2000))
def test_english_is_that_of_cldr(n: int) -> None:
    """Our own English is the English of Unicode's CLDR, for every number it spells."""
    rbnf = pytest.importorskip("unicode_rbnf")
    assert english(n) == _cldr(rbnf).format_number(n, ruleset_names=["spellout-numbering"]).text


def _cldr(rbnf: object, made: dict[str, object] = {}) -> object:  # noqa: B006 - made once
    return made.setdefault("en", rbnf.RbnfEngine.for_language("en"))


def test_every_language_is_one_to_one() -> None:
    """In each of more than 80 languages different numbers have different words, without digits or invisible breaks."""
    pytest.importorskip("unicode_rbnf")
    numbers = [*range(0, 130), *range(130, 10_000, 331)]
    assert len(languages()) > 80
    for language in languages():
        words = [spell(n, language) for n in numbers]
        assert len(set(words)) == len(words), language
        assert all(text and text == text.strip() for text in words), language
        assert not any(char in "\u00ad\u200b0123456789" for char in "".join(words)), language
        assert not any(unicodedata.category(char) in ("Cc", "Cs", "Co") for char in "".join(words)), language


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("de", "dreihundertzweiundfünfzig"),
        ("fr", "trois cent cinquante-deux"),
        ("es", "trescientos cincuenta y dos"),
        ("pl", "trzysta pięćdziesiąt dwa"),
        ("zh", "三百五十二"),
        ("digits", "352"),
    ],
)
def test_352_by_hand(language: str, words: str) -> None:
    """352 is spelled as its speakers do."""
    pytest.importorskip("unicode_rbnf")
    assert spell(352, language) == words


def test_the_splits_part_the_numbers() -> None:
    """Every number is in exactly one split, about one in ten in each that is held out, in every language the same."""
    pytest.importorskip("unicode_rbnf")
    parts = [Numbers("en", "de", limit=2000, split=split) for split in SPLITS]
    assert sorted(n for part in parts for n in part.numbers) == list(range(2000))
    assert all(150 < len(part) < 250 for part in parts[1:])
    assert Numbers("fr", "pl", limit=2000, split="test").numbers == parts[2].numbers
    assert not {pair.target for pair in parts[0]} & {pair.target for pair in parts[2]}
    assert not {pair.source for pair in parts[0]} & {pair.source for pair in parts[1]}


def test_a_split_does_not_move() -> None:
    """The split of a number is fixed for ever: by its CRC-32, and a larger limit moves none."""
    small, large = Numbers("digits", "en", limit=100, split="test"), Numbers("digits", "en", limit=900, split="test")
    assert large.numbers[: len(small)] == small.numbers
    assert small.numbers == [n for n in range(100) if split_of(f"number {n}") == "test"]
    assert [split_of(f"number {n}") for n in (2, 7)] == [split_of("number 2"), "train"]


def test_a_pair_is_one_number() -> None:
    """Source and target are the words of the same number, at every place, in slices and from the end."""
    pairs = Numbers("digits", "en", limit=300)
    assert all(english(int(source)) == target for source, target in pairs)
    assert pairs[-1] == pairs[len(pairs) - 1] == pairs[-1:][0]
    assert [pair.source for pair in pairs[:3]] == [str(n) for n in pairs.numbers[:3]]
    with pytest.raises(IndexError):
        pairs[len(pairs)]


def test_without_the_extra_there_is_english(bare: None) -> None:
    """Without unicode-rbnf English and digits work; another language says what to install."""
    assert languages() == ("en",)
    assert spell(7) == "seven"
    assert Numbers(limit=10)[0].source == english(Numbers(limit=10).numbers[0])
    with pytest.raises(ImportError, match=r'pip install "tinytrans\[data\]"'):
        spell(7, "de")


def test_errors_name_what_there_is() -> None:
    """An unknown language or split, and a number out of range, raise ValueError, which names them."""
    pytest.importorskip("unicode_rbnf")
    with pytest.raises(ValueError, match=r"no language 'xx'.*fr"):
        spell(1, "xx")
    with pytest.raises(ValueError, match="no split 'dev'"):
        Numbers(split="dev")
    with pytest.raises(ValueError, match="-1"):
        spell(-1)
