"""Preferences: prompts, answers and a scorer -> pairs (prompt, chosen, rejected), and batches of them.

The scorer is any function (prompt, answer) -> number: a rule that can be checked, a reward model, a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tinytrans.data.batches import IGNORED, Batch, Batches, Shuffled, pad
from tinytrans.data.chat import dialogue
from tinytrans.tokenizers.base import Tokenizer

Scorer = Callable[[str, str], float]


class Preference(NamedTuple):
    """Of two answers to a prompt the better and the worse one, and how much more the scorer gives the better."""

    prompt: str
    chosen: str
    rejected: str
    margin: float


def prefer(prompt: str, answers: Sequence[str], score: Scorer) -> Preference | None:
    """The best and the worst of the answers; None when all score the same, for then nobody prefers anything.

    Among equals the earlier one counts. Raises ValueError on a score that is not a number.

    >>> prefer("Hi.", ["Hello!", "Go away."], lambda prompt, answer: answer.count("!"))
    Preference(prompt='Hi.', chosen='Hello!', rejected='Go away.', margin=1)
    """
    scores = [score(prompt, answer) for answer in answers]
    if any(value != value for value in scores):
        raise ValueError(f"the scores of the answers to {prompt!r} are {scores}")
    if not scores or max(scores) == min(scores):
        return None
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    return Preference(prompt, answers[best], answers[worst], scores[best] - scores[worst])


def preferences(
    prompts: Iterable[str], answer: Callable[[str, int], str], score: Scorer, *, answers: int = 4
) -> list[Preference]:
    """The pairs of prompts, each from so many answers: `answer(prompt, i)` gives the i-th, a model's sample for one.

    A prompt whose answers all score the same gives no pair.
    """
    if answers < 2:
        raise ValueError(f"{answers} answers to a prompt make no pair")
    pairs = (prefer(prompt, [answer(prompt, i) for i in range(answers)], score) for prompt in prompts)
    return [pair for pair in pairs if pair is not None]


def win_rate(prompts: Sequence[str], ours: Sequence[str], theirs: Sequence[str], score: Scorer) -> float:
    """The share of prompts where our answer scores higher; an equal score counts half.

    >>> win_rate(["a", "b"], ["long", "x"], ["s", "y"], lambda prompt, answer: len(answer))
    0.75
    """
    differences = [score(p, a) - score(p, b) for p, a, b in zip(prompts, ours, theirs, strict=True)]
    if not differences:
        raise ValueError("no prompts to compare on")
    return sum(0.5 + 0.5 * (d > 0) - 0.5 * (d < 0) for d in differences) / len(differences)


def encode_answer(tokenizer: Tokenizer, prompt: str, answer: str) -> tuple[list[int], int]:
    """A dialogue of one turn as ids, its end token included, and the place where the answer begins.

    Nobody's text can end a turn: the names of special tokens in it are plain text.
    """
    ids, said = dialogue(tokenizer, [("user", prompt), ("assistant", answer)])
    return ids, said.index(True)


class PreferenceBatches(Batches):
    """Batches of B pairs as 2 B rows: the chosen answers first, in the same order the rejected ones.

    One pass through the model serves both; `chosen, rejected = row_values.chunk(2)`. Targets are the answer's tokens
    and its end alone, elsewhere -100. Batch `step` depends on (seed, step) alone. Raises ValueError on a prompt that
    fills max_len positions.
    """

    def __init__(
        self,
        pairs: Sequence[Preference],
        tokenizer: Tokenizer,
        batch_size: int,
        *,
        max_len: int | None = None,
        pad_id: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.pairs, self.max_len, self.pad_id = pairs, max_len, pad_id
        self._rows = [
            [encode_answer(tokenizer, pair.prompt, text) for text in (pair.chosen, pair.rejected)] for pair in pairs
        ]
        longest = max((start for rows in self._rows for _, start in rows), default=0)
        if max_len is not None and longest > max_len:
            raise ValueError(f"a prompt of {longest} ids leaves no room for an answer in max_len {max_len}")
        self._order = Shuffled([len(rows[0][0]) for rows in self._rows], batch_size, seed=seed)
        self.per_epoch = self._order.per_epoch

    def numbers(self, step: int) -> list[int]:
        """The numbers of the pairs in the batch of a step."""
        return self._order[step]

    def __getitem__(self, step: int) -> Batch:
        numbers = self.numbers(step)
        rows = [self._rows[i][side] for side in (0, 1) for i in numbers]
        batch = pad([ids for ids, _ in rows], max_len=self.max_len, pad_id=self.pad_id)
        for row, (_, start) in enumerate(rows):
            batch.targets[row, : start - 1] = IGNORED
        return batch
