"""Chat: lines of standard input -> to each what a saved model answers, as it is made; it remembers what was said."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from tinytrans.commands.speech import Speaker
from tinytrans.commands.texts import standard_input
from tinytrans.data.chat import ASSISTANT, END, USER, turn


def run(args: argparse.Namespace) -> int:
    """Answer line after line, until /quit or the end of the input."""
    speaker = Speaker(args)
    if missing := [name for name in (USER, ASSISTANT, END) if name not in speaker.tokenizer.special_tokens]:
        raise ValueError(f"the model in {args.model} cannot chat: its tokenizer has no {', '.join(missing)}")
    max_len = speaker.model.config.max_len
    turns: list[list[int]] = []
    for line in spoken():
        if line == "/quit":
            break
        if line == "/new":
            turns = []
        elif line:
            said = turn(speaker.tokenizer, line)
            if len(said) >= max_len:
                print(f"that is {len(said)} tokens, and the model reads {max_len}: say it shorter", file=sys.stderr)
                continue
            turns = latest([*turns, said], max_len - min(args.tokens, max_len // 2))
            turns.append(speaker.shows([i for one in turns for i in one]))
    return 0


def latest(turns: list[list[int]], room: int) -> list[list[int]]:
    """The last turns that fit the room, question and answer together, and in any case the very last.

    >>> latest([[1, 1], [2, 2], [3, 3], [4, 4], [5]], room=6)
    [[3, 3], [4, 4], [5]]
    """
    while len(turns) > 2 and sum(map(len, turns)) > room:
        turns = turns[2:]
    return turns


def spoken() -> Iterator[str]:
    """The lines of standard input, without the white space around them; a person at a terminal is asked for each."""
    lines = standard_input()
    asked = lines.isatty() and sys.stdout.isatty()
    while True:
        if asked:
            print("> ", end="", flush=True)
        if not (line := lines.readline()):
            return
        yield line.strip()
