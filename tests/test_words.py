"""Laws of words: sentences end where they end, ids and words are each other, rare words are left out."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tinytrans.data.tales import Tales
from tinytrans.data.words import Words, sentences


def test_sentences_are_words_in_lower_case() -> None:
    """Signs and numbers are left out, apostrophes and hyphens within a word stay, empty sentences are none."""
    text = "The well-known Owl said: “I don't know 12 of them!” ... Été, 狐? "
    assert sentences(text) == [["the", "well-known", "owl", "said", "i", "don't", "know", "of", "them"], ["été", "狐"]]
    assert sentences(" ... 12 !") == []


@given(st.text(alphabet="ab c.!'-"))
def test_a_word_is_never_torn(text: str) -> None:
    """What is no sign is in some word, in its order."""
    letters = [char for char in text if char.isalpha()]
    assert [char for words in sentences(text) for word in words for char in word if char.isalpha()] == letters


def test_ids_are_words_by_frequency() -> None:
    """The most frequent word is 0, counts are those of the texts, and ids lead back to the words."""
    tales = [tale.text for tale in Tales(30)]
    known = Words(tales, least=1)
    assert known.counts.tolist() == sorted(known.counts.tolist(), reverse=True)
    told = [words for text in tales for words in sentences(text)]
    assert [[known.words[i] for i in ids] for ids in known.sentences] == told
    assert int(known.counts.sum()) == sum(map(len, told))
    assert torch.equal(torch.tensor([i for ids in known.sentences for i in ids]).bincount(), known.counts)
    assert all(known.index[word] == i for i, word in enumerate(known.words))


def test_rare_words_are_left_out() -> None:
    """Words below the least count have no id, and sentences close up over them."""
    known = Words(["A fox ran. A fox sat. A hen ran."], least=2)
    assert known.words == ["a", "fox", "ran"]
    assert known.sentences == [[0, 1, 2], [0, 1], [0, 2]]
    assert len(known) == 3
