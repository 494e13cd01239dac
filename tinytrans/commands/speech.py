"""Speech: a folder -> a model that speaks; ids -> what it says after them, on the screen as it is made."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tinytrans import checkpoints, device
from tinytrans.data.chat import END, USER
from tinytrans.models.gpt import GPT
from tinytrans.sampling import sample, stream
from tinytrans.sampling.filters import repetition_penalty
from tinytrans.tokenizers import Tokenizer, load_tokenizer

FILTERS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
TORN = "\N{REPLACEMENT CHARACTER}"  # what a character looks like of which not all bytes are there


class Speaker:
    """A model with its tokenizer, on its device, with the chance and the filters that were asked for."""

    def __init__(self, args: argparse.Namespace) -> None:
        place = device.pick(args.device)
        self.model, self.tokenizer = opened(args.model, place)
        self.tokens = args.tokens
        self.filters = {name: getattr(args, name) for name in FILTERS}
        check(self.filters)
        self.generator = None if args.seed is None else torch.Generator(place).manual_seed(args.seed)
        self.stops = [i for name, i in self.tokenizer.special_tokens.items() if name in (END, USER)]  # the turn is over

    def says(self, ids: list[int]) -> Iterator[int]:
        """What the model says after ids, token by token, up to a stop."""
        begin = torch.tensor([ids], device=self.model.embedding.weight.device)
        options = {"stop": self.stops or None, "generator": self.generator, **self.filters}
        for new in stream(self.model, begin, max_new_tokens=self.tokens, **options):
            if int(new) in self.stops:
                return
            yield int(new)

    def shows(self, ids: list[int], *, echo: bool = False) -> list[int]:
        """Print what the model says after ids, as it is made, and a newline -> its ids; `echo` prints ids first."""
        said: list[int] = []
        before = ids if echo else []
        shown = self.tokenizer.decode(before)
        print(shown, end="", flush=True)
        for new in self.says(ids):
            said.append(new)
            text = self.tokenizer.decode(before + said)
            if not text.endswith(TORN):  # its other bytes come with the next token
                print(text[len(shown) :], end="", flush=True)
                shown = text
        print(flush=True)
        return said


def check(filters: dict[str, Any]) -> None:
    """Try the filters on two tokens: raises ValueError at one that makes no sense, before anything is said."""
    others = {name: value for name, value in filters.items() if name != "repetition_penalty"}
    logits = repetition_penalty(torch.zeros(1, 2), torch.zeros(1, 1).long(), filters["repetition_penalty"])
    sample(logits, generator=torch.Generator(), **others)


def opened(folder: str, place: torch.device) -> tuple[GPT, Tokenizer]:
    """The GPT in a folder, or of a name that comes with the library, and its tokenizer.

    Raises ValueError where the one does not know all tokens of the other.
    """
    if folder in checkpoints.names() and not Path(folder).exists():
        return checkpoints.load(folder, device=place)
    model, tokenizer = GPT.from_pretrained(folder, device=place), load_tokenizer(folder)
    if tokenizer.vocab_size > (V := model.config.vocab_size):
        raise ValueError(f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens, the model beside it only {V}")
    return model, tokenizer
