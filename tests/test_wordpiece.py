"""Laws of WordPiece: the trainer is the definition, the ids are Rust's, so are the pieces where determined."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytrans.data.tales import Tales
from tinytrans.tokenizers.base import Tokenizer
from tinytrans.tokenizers.pair_scores import PairScores, Score, association, frequency, merge
from tinytrans.tokenizers.wordpiece import (
    BERT_SPECIAL_TOKENS,
    WordPieceTokenizer,
    alphabet,
    characters,
    longest_match,
    split,
    train_wordpiece,
)

HUGS = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
TRICKY = ["[UNK]", "[CLS", "##", "##s", "Zoë", "ÉÉ", "字漢", "don't", "…", "\u00a0", "\x00", "\t", "x" * 101, "ﬁ", "٣"]
texts = st.lists(st.sampled_from(TRICKY) | st.text(max_size=8), max_size=8).map(" ".join)
small_words = st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 9), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer.train((tale.text for tale in Tales(300)), 400)


def by_definition(words: Mapping[str, int], size: int, score: Score) -> list[str]:
    """Count everything, merge the best pair everywhere as one joins strings, and count again."""
    pieces = alphabet(words)
    rows = [(["##" * (i > 0) + c for i, c in enumerate(word)], count) for word, count in words.items()]
    while len(pieces) < size:
        singles: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        for row, count in rows:
            for piece in row:
                singles[piece] += count
            for pair in pairwise(row):
                pairs[pair] += count
        if not pairs:
            break
        ranked = sorted((-score(n, singles[a], singles[b]), (a, b)) for (a, b), n in pairs.items())
        a, b = ranked[0][1]
        new = a + b.replace("##", "", 1)
        for row, _ in rows:
            i = 0
            while i + 1 < len(row):
                if (row[i], row[i + 1]) == (a, b):
                    row[i : i + 2] = [new]
                i += 1
        if new not in pieces:
            pieces.append(new)
    return pieces


@settings(max_examples=80, deadline=None)
@given(small_words, st.sampled_from([association, frequency]))
def test_the_trainer_is_the_definition(words: dict[str, int], score: Score) -> None:
    """Keeping scores up to date learns the same pieces, in the same order, as counting everything again each time."""
    size = len(alphabet(words)) + 12
    assert train_wordpiece(words, size, score=score) == by_definition(words, size, score)


def test_the_score_is_not_the_frequency() -> None:
    """By hand: `##u ##g` stands 20 times, but `##g ##s` is merged first, for 5 / (20 * 5) beats 20 / (36 * 20)."""
    assert association(5, 20, 5) == 0.05 > association(20, 36, 20)
    size = len(alphabet(HUGS)) + 1
    assert train_wordpiece(HUGS, size)[-1] == "##gs"
    assert train_wordpiece(HUGS, size, score=frequency)[-1] == "##ug"


def test_a_merge_makes_other_pairs_better() -> None:
    """When `##g` has gone into `##gs` there are fewer of it, so what it still meets is worth more."""
    scores = PairScores({characters(word): count for word, count in HUGS.items()}, association)
    before = scores._score(("##u", "##g"))
    pair = scores.best()
    assert pair == ("##g", "##s")
    scores.merge(pair)
    assert scores.pieces["##g"] == 15
    assert scores._score(("##u", "##g")) == pytest.approx(before)  # 15 / (36 * 15): as many pairs went as pieces
    assert scores.pairs["##u", "##gs"] == 5


def untied_words(seed: int) -> dict[str, int]:
    """Words whose counts are so different that two pairs of neighbours seldom have the same count."""
    chance = random.Random(seed)
    words = {"".join(chance.choice("abcd") for _ in range(chance.randrange(2, 8))) for _ in range(150)}
    return {word: chance.randrange(1, 400) for word in sorted(words)}


def has_ties(words: dict[str, int], size: int) -> bool:
    """Whether the best count is ever shared by two pairs on the way to that size."""
    scores = PairScores({characters(word): count for word, count in words.items()}, frequency)
    pieces = set(alphabet(words))
    while len(pieces) < size and (pair := scores.best()):
        if sum(count == scores.pairs[pair] for count in scores.pairs.values()) > 1:
            return True
        pieces.add(pair[0] + pair[1].removeprefix("##"))
        scores.merge(pair)
    return False


def test_by_frequency_it_is_the_rust_trainer() -> None:
    """Where no two pairs tie, `score=frequency` learns the Rust trainer's pieces in its order."""
    compared = 0
    for seed in range(8):
        words = untied_words(seed)
        size = len(alphabet(words)) + 20
        if has_ties(words, size):
            continue
        rust = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        rust.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=size, show_progress=False)
        rust.train_from_iterator((" ".join([word] * count) for word, count in words.items()), trainer)
        ours = train_wordpiece(words, size, score=frequency)
        assert set(rust.get_vocab()) == set(ours)
        learned = sorted(rust.get_vocab(), key=rust.get_vocab().get)[len(alphabet(words)) :]
        assert learned == ours[len(alphabet(words)) :]
        assert set(ours) != set(train_wordpiece(words, size))
        compared += 1
    assert compared >= 4


@settings(max_examples=80, deadline=None)
@given(small_words, st.text("abc", min_size=1, max_size=9))
def test_every_piece_is_the_longest_that_fits(words: dict[str, int], word: str) -> None:
    """The pieces join to the word, only the first is unmarked, and none could be longer where it begins."""
    pieces = train_wordpiece(words, len(alphabet(words)) + 8)
    found = longest_match(word, dict.fromkeys(pieces, 0))
    if found is None:
        assert not all(c in pieces and f"##{c}" in pieces for c in word)
        return
    assert "".join([found[0], *(piece.removeprefix("##") for piece in found[1:])]) == word
    assert [piece.startswith("##") for piece in found] == [False] + [True] * (len(found) - 1)
    start = 0
    for piece in found:
        mark = "##" if start else ""
        length = len(piece) - len(mark)
        assert not any(mark + word[start:end] in pieces for end in range(start + length + 1, len(word) + 1))
        start += length


@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_ids_are_those_of_rust(tokenizer: WordPieceTokenizer, text: str) -> None:
    """Any text has the ids that Rust gives with the same vocabulary, special tokens spelled out or meant."""
    for special in (True, False):
        assert tokenizer.encode(text, special=special) == tokenizer.encode_batch([text], special=special)[0]


def test_a_word_is_unknown_as_a_whole(tokenizer: WordPieceTokenizer) -> None:
    """One character that no piece covers makes one [UNK] of the whole word; so do 101 characters."""
    unknown = tokenizer.token_to_id("[UNK]")
    assert longest_match("foxЖ", tokenizer.vocab) is None
    assert tokenizer.encode("foxЖ") == [unknown] == tokenizer.encode("a" * 101)
    assert unknown not in tokenizer.encode("a" * 100)


def test_encoding_knows_no_merges() -> None:
    """`abc` is `ab ##c` by the longest match, although `##bc` was learned before `ab`."""
    assert longest_match("abc", {"a": 0, "##b": 1, "##c": 2, "##bc": 3, "ab": 4}) == ["ab", "##c"]


def test_merging_is_from_left_to_right_and_never_one_piece_twice() -> None:
    """In `a ##a ##a ##a` the pair `##a ##a` is found once, as its second `##a` is taken."""
    assert merge(("a", "##a", "##a", "##a"), ("##a", "##a")) == ("a", "##aa", "##a")


def test_decoding_gives_the_words(tokenizer: WordPieceTokenizer) -> None:
    """Known words come back, in lower case, with one space between; special tokens only when wanted."""
    text = Tales(5)[4].text
    ids = [tokenizer.token_to_id("[CLS]"), *tokenizer.encode(text)]
    assert tokenizer.decode(ids, special=False) == " ".join(split(text))
    assert tokenizer.decode(ids).startswith("[CLS] ")


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_file_is_read_by_ours_and_by_rust(tmp_path: Path, lowercase: bool) -> None:
    """Saved and loaded, here or by Rust alone, it gives the same ids, letter case and all."""
    own = WordPieceTokenizer.train((tale.text for tale in Tales(50)), 200, lowercase=lowercase)
    own.save(tmp_path)
    text = "[CLS] Mei met a Fox. [SEP] wow"
    for loaded in (WordPieceTokenizer.load(tmp_path), Tokenizer.load(tmp_path)):
        assert loaded.encode(text) == own.encode(text)
        assert loaded.special_tokens == {name: i for i, name in enumerate(BERT_SPECIAL_TOKENS)}
    assert WordPieceTokenizer.load(tmp_path).lowercase is lowercase


def test_only_its_own_kind_is_loaded(tmp_path: Path) -> None:
    """A WordPiece with another split, or another algorithm, raises ValueError, so nothing is read wrongly."""
    fast = WordPieceTokenizer(["a"]).fast
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="pre_tokenizer"):
        WordPieceTokenizer.from_fast(fast)
    with pytest.raises(ValueError, match="BPE"):
        WordPieceTokenizer.from_fast(tokenizers.Tokenizer(tokenizers.models.BPE()))
    with pytest.raises(ValueError, match="UNK"):
        WordPieceTokenizer(["a"], ["[PAD]"])


def test_the_alphabet_must_fit() -> None:
    """A vocabulary smaller than the characters raises ValueError and names both numbers."""
    with pytest.raises(ValueError, match=r"3 is less than the alphabet's 11"):
        train_wordpiece(HUGS, 3)
    assert len(WordPieceTokenizer.train(["hugs pugs"], 10_000).vocab) < 40  # no pair is left: fewer pieces, no error


@pytest.mark.oracle
def test_ids_are_those_of_transformers(tokenizer: WordPieceTokenizer, tmp_path: Path) -> None:
    """Hugging Face's BERT tokenizer with our vocabulary gives our ids."""
    transformers = pytest.importorskip("transformers")
    bert = transformers.BertTokenizer(vocab=dict(tokenizer.vocab))
    for tale in Tales(30, seed=5):
        assert bert(tale.text, add_special_tokens=False)["input_ids"] == tokenizer.encode(tale.text)
