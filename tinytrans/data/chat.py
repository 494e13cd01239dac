"""Chat form: who speaks -> text with special tokens by name.

A tokenizer is trained with SPECIAL_TOKENS; from then on each of them is one id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinytrans.tokenizers import Tokenizer

END, USER, ASSISTANT, PAD = "<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"
SPECIAL_TOKENS = (END, USER, ASSISTANT, PAD)


def render(turns: Sequence[tuple[str, str]]) -> str:
    """A dialogue -> what a model reads: each turn behind the sign of who speaks, each answer with its end.

    turns are (role, text), "user" and "assistant" in turn, the user first. The sign of a role is <|role|>,
    and <|end|> closes what the assistant said. Where the user spoke last, the assistant's sign follows:
    the answer may begin. Raises ValueError where somebody else speaks, or out of turn.

    >>> render([("user", "Say hello."), ("assistant", "Hello!")])
    '<|user|>Say hello.<|assistant|>Hello!<|end|>'
    >>> render([("user", "Say hello.")])
    '<|user|>Say hello.<|assistant|>'
    """
    text = ""
    for number, (role, said) in enumerate(turns):
        if role != (expected := ("user", "assistant")[number % 2]):
            raise ValueError(f"turn {number} is the {expected}'s, not the {role}'s")
        text += f"<|{role}|>{said}" if role == "user" else f"<|{role}|>{said}<|end|>"
    return text + "<|assistant|>" if len(turns) % 2 else text


def prompt(instruction: str) -> str:
    """What a model is given to answer: the instruction, then the sign that it is the assistant's turn.

    >>> prompt("Say hello.")
    '<|user|>Say hello.<|assistant|>'
    """
    return render([("user", instruction)])


def turn(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of `prompt(text)`, where nobody's text can end a turn; raises as `dialogue` does."""
    return dialogue(tokenizer, [("user", text)])[0]


def dialogue(tokenizer: Tokenizer, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[bool]]:
    """The ids of `render(turns)`, and of each whether the assistant says it: what instruction tuning teaches.

    The end of an answer is said too, or a model never learns to stop; the sign that it may begin is not. Nobody's
    text can end a turn: special tokens in it are plain text. Raises ValueError as `render` does, and KeyError where
    the tokenizer does not know the signs.
    """
    render(turns)  # refuses who speaks out of turn
    ids: list[int] = []
    said: list[bool] = []
    for role, text in turns:
        words = tokenizer.encode(text, special=False)
        if role == "assistant":
            words = [*words, tokenizer.token_to_id(END)]
        ids += [tokenizer.token_to_id(f"<|{role}|>"), *words]
        said += [False, *[role == "assistant"] * len(words)]
    if len(turns) % 2:
        ids.append(tokenizer.token_to_id(ASSISTANT))
        said.append(False)
    return ids, said
