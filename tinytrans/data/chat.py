"""Chat form: who speaks -> text with special tokens by name.

A tokenizer is trained with SPECIAL_TOKENS; from then on each of them is one id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinytrans.tokenizers import Tokenizer

END, USER, ASSISTANT, PAD = "<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"
SPECIAL_TOKENS = (END, USER, ASSISTANT, PAD)


def prompt(instruction: str) -> str:
    """What a model is given to answer: the instruction, then the sign that it is the assistant's turn.

    >>> prompt("Say hello.")
    '<|user|>Say hello.<|assistant|>'
    """
    return f"{USER}{instruction}{ASSISTANT}"


def turn(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of `prompt(text)`, where nobody's text can end a turn: special tokens in it are plain text.

    Raises KeyError where the tokenizer does not know the signs.
    """
    user, assistant = tokenizer.token_to_id(USER), tokenizer.token_to_id(ASSISTANT)
    return [user, *tokenizer.encode(text, special=False), assistant]
