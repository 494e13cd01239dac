"""Laws of preferences: the better answer is the chosen one, batches ask for answers alone, everything repeats."""

from __future__ import annotations

import pytest

from tinytrans.data.batches import IGNORED
from tinytrans.data.chat import ASSISTANT, END, SPECIAL_TOKENS, USER
from tinytrans.data.preferences import (
    Preference,
    PreferenceBatches,
    encode_answer,
    prefer,
    preferences,
    win_rate,
)
from tinytrans.data.tales import Tales
from tinytrans.data.tales_verify import verify
from tinytrans.tokenizers.bpe import BPETokenizer


def length(prompt: str, answer: str) -> float:
    return len(answer)


def obeys(prompt: str, answer: str) -> float:
    return sum(verify(prompt, answer).values())


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer({}, SPECIAL_TOKENS)


@pytest.fixture(scope="module")
def pairs() -> list[Preference]:
    return [Preference(f"prompt {i}", "good " * (1 + i % 4), "bad " * (1 + i % 3), 1.0) for i in range(11)]


def test_the_best_is_chosen_and_the_worst_rejected() -> None:
    """Of many answers the highest and the lowest score make the pair, the earlier among equals."""
    assert prefer("p", ["bb", "a", "ccc", "ddd", "e"], length) == Preference("p", "ccc", "a", 2)


def test_nobody_prefers_one_of_two_equals() -> None:
    """Answers that score the same make no pair, nor does a single one; a score that is no number raises ValueError."""
    assert prefer("p", ["aa", "bb"], length) is None
    assert prefer("p", ["aa"], length) is None
    assert prefer("p", [], length) is None
    with pytest.raises(ValueError, match="nan"):
        prefer("p", ["a", "b"], lambda *_: float("nan"))


def test_a_rule_on_tales_makes_pairs() -> None:
    """By the rule "obeys the instruction" a tale beats another instruction's tale; the margin says by how much."""
    tales = Tales(40)
    prompts = [tale.instruction for tale in tales]
    made = preferences(prompts, lambda prompt, i: tales[(prompts.index(prompt) + i) % 40].text, obeys, answers=2)
    assert len(made) > 35
    for pair in made:
        assert pair.chosen == tales[prompts.index(pair.prompt)].text
        assert pair.margin == obeys(pair.prompt, pair.chosen) - obeys(pair.prompt, pair.rejected) > 0
    with pytest.raises(ValueError, match="1 answers"):
        preferences(prompts, lambda *_: "", obeys, answers=1)


def test_the_win_rate_counts_ties_half() -> None:
    """By hand: a win, a loss and a tie make one half; against oneself it is one half, and the two sides sum to one."""
    ours, theirs = ["aaa", "b", "cc"], ["a", "bbb", "dd"]
    assert win_rate("xyz", ours, theirs, length) == 0.5
    assert win_rate("xyz", ours, ours, length) == 0.5
    assert win_rate("xy", ours[:2], ["", ""], length) == 1 - win_rate("xy", ["", ""], ours[:2], length) == 1
    with pytest.raises(ValueError, match="no prompts"):
        win_rate([], [], [], length)


def test_nobody_can_end_a_turn(tokenizer: BPETokenizer) -> None:
    """A dialogue has one end token, its own, whatever prompt and answer spell out."""
    ids, start = encode_answer(tokenizer, f"a{END}{ASSISTANT}b", f"c{END}{USER}")
    special = [i for i in ids if i in tokenizer.special_tokens.values()]
    assert special == [tokenizer.token_to_id(name) for name in (USER, ASSISTANT, END)]
    assert tokenizer.decode(ids[start:-1]) == f"c{END}{USER}"


def test_a_batch_holds_the_chosen_then_the_rejected(tokenizer: BPETokenizer, pairs: list[Preference]) -> None:
    """Row b and row B + b are the two answers to one prompt, and the targets are the answer and its end alone."""
    batches = PreferenceBatches(pairs, tokenizer, 3)
    batch = batches[0]
    for half, name in enumerate(("chosen", "rejected")):
        for b, number in enumerate(batches.numbers(0)):
            row, pair = 3 * half + b, pairs[number]
            asked = batch.targets[row] != IGNORED
            assert tokenizer.decode(batch.targets[row][asked].tolist()) == getattr(pair, name) + END
            first = int(asked.nonzero()[0])
            assert batch.ids[row, first] == tokenizer.token_to_id(ASSISTANT)
            assert tokenizer.decode(batch.ids[row, : first + 1].tolist()) == f"{USER}{pair.prompt}{ASSISTANT}"


def test_an_epoch_meets_every_pair_once_and_repeats(tokenizer: BPETokenizer, pairs: list[Preference]) -> None:
    """In an epoch no pair comes twice; a batch depends on (seed, step) alone, so a run can go on where it stopped."""
    batches = PreferenceBatches(pairs, tokenizer, 5, seed=3)
    numbers = [number for step in range(batches.per_epoch) for number in batches.numbers(step)]
    assert len(set(numbers)) == len(numbers) == 10
    again = PreferenceBatches(pairs, tokenizer, 5, seed=3)
    next(again)
    later = next(again)
    assert later.ids.equal(batches[1].ids)
    assert PreferenceBatches(pairs, tokenizer, 5, seed=4).numbers(0) != batches.numbers(0)
    again.load_state_dict({"seed": 3, "step": 1})
    assert next(again).targets.equal(later.targets)


def test_a_prompt_must_leave_room(tokenizer: BPETokenizer, pairs: list[Preference]) -> None:
    """Rows are cut to max_len; where not one token of the answer is left ValueError names both lengths."""
    prompt = len(encode_answer(tokenizer, pairs[10].prompt, "")[0]) - 1
    batch = PreferenceBatches(pairs, tokenizer, 3, max_len=prompt)[0]
    assert batch.ids.shape == (6, prompt)
    assert ((batch.targets != IGNORED).sum(1) >= 1).all()
    with pytest.raises(ValueError, match=f"{prompt} ids leaves no room for an answer in max_len {prompt - 1}"):
        PreferenceBatches(pairs, tokenizer, 3, max_len=prompt - 1)
