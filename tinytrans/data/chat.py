"""Chat form: who speaks -> text with special tokens by name.

A tokenizer is trained with SPECIAL_TOKENS; from then on each of them is one id.
"""

from __future__ import annotations

END, USER, ASSISTANT, PAD = "<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"
SPECIAL_TOKENS = (END, USER, ASSISTANT, PAD)


def prompt(instruction: str) -> str:
    """What a model is given to answer: the instruction, then the sign that it is the assistant's turn.

    >>> prompt("Say hello.")
    '<|user|>Say hello.<|assistant|>'
    """
    return f"{USER}{instruction}{ASSISTANT}"
