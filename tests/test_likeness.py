"""Laws of likeness: who says nearly the same word for word is a twin, whichever signs and capitals are used."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinytrans.data.likeness import runs, twins

words = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]), max_size=12).map(" ".join)
texts = st.lists(words, max_size=6)


@given(texts, texts, st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_twins_are_their_definition(some: list[str], others: list[str], share: float) -> None:
    """A text is a twin of one that has so large a share of all their runs with it in common, pair by pair."""

    def alike(one: str, other: str) -> bool:
        shared = runs(one) & runs(other)
        return bool(shared) and len(shared) >= share * len(runs(one) | runs(other))

    assert twins(some, others, share=share) == {
        i for i, text in enumerate(some) if any(alike(text, other) for other in others)
    }


def test_signs_and_capitals_make_no_difference() -> None:
    """The same words are the same, also where there are less than five."""
    assert twins(["Give it back, please!", "Give it away."], ["GIVE IT BACK - please"]) == {0}


def test_one_word_of_many_is_no_difference() -> None:
    """A long sentence with another word in it is a twin; a short one is not."""
    long = "this is a sentence of so many words that one of them hardly counts at all"
    assert twins(
        [long, "one two three four five six"], [long.replace("hardly", "never"), "one two three for five six"]
    ) == {0}
