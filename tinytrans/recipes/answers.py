"""Instructions -> a model's answers, many at once, and how well they obey."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinytrans.data.chat import END, prompt
from tinytrans.data.tales_verify import verify
from tinytrans.models.gpt import GPT
from tinytrans.nn.cache import KVCache
from tinytrans.recipes.report import Row
from tinytrans.sampling import generate
from tinytrans.tokenizers import Tokenizer

LONGEST = 200  # tokens of an answer; the longest of 30,000 tales has 174
WISHES = {  # as the verifiers call it -> as a table calls it
    "kind": "kind",
    "hero": "name",
    "place": "place",
    "end": "end",
    "four": "these four",
    "dialogue": "dialogue",
    "thing": "thing",
    "food": "food",
    "color": "color",
    "all": "all",
}


class LeftPadded:
    """A model that does not see the padding in front of its prompts: what `generate` asks for, with a mask.

    pads (B,) says how many tokens of padding each row has. Positions are relative in RoPE: only the mask is needed.
    """

    def __init__(self, model: GPT, pads: Tensor) -> None:
        self.model, self.pads, self.config = model, pads, model.config

    def __call__(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        S = ids.shape[1] + (0 if cache is None else cache.length)
        real = torch.arange(S, device=ids.device) >= self.pads[:, None]
        logits: Tensor = self.model(ids, mask=real.unsqueeze(1), cache=cache)
        return logits

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        """As the model's own."""
        return self.model.new_cache(batch, max_len)

    def modules(self) -> Iterator[nn.Module]:
        """As the model's own."""
        return self.model.modules()


def prompt_ids(tokenizer: Tokenizer, instruction: str, asked: Callable[[str], str] = prompt) -> list[int]:
    """What the model is given to answer."""
    return tokenizer.encode(asked(instruction))


def sample_answers(
    model: GPT,
    tokenizer: Tokenizer,
    instructions: Sequence[str],
    *,
    generator: torch.Generator,
    temperature: float = 0.7,
    longest: int = LONGEST,
    batch: int = 200,
    asked: Callable[[str], str] = prompt,
) -> list[list[int]]:
    """One answer to each instruction as ids, with the end sign where the model came to it."""
    end = tokenizer.token_to_id(END)
    answers: list[list[int]] = []
    for start in range(0, len(instructions), batch):
        prompts = [prompt_ids(tokenizer, instruction, asked) for instruction in instructions[start : start + batch]]
        T = max(map(len, prompts))
        pads = torch.tensor([T - len(ids) for ids in prompts], device=generator.device)
        rows = torch.tensor([[end] * (T - len(ids)) + ids for ids in prompts], device=generator.device)
        options: dict[str, Any] = {"temperature": temperature, "stop": end, "generator": generator}
        said = generate(LeftPadded(model, pads), rows, max_new_tokens=longest, **options)[:, T:].tolist()
        answers += [row[: row.index(end) + 1] if end in row else row for row in said]
    return answers


def texts(tokenizer: Tokenizer, answers: Sequence[Sequence[int]]) -> list[str]:
    """The answers as plain text, special tokens left out."""
    return [tokenizer.decode(ids, special=False) for ids in answers]


def obedience(instructions: Sequence[str], answers: Sequence[str]) -> Row:
    """The share of answers that do what was asked: wish by wish where it was asked, and `all` that was asked for.

    `these four` is all that was asked of kind, name, place and end.
    """
    done: dict[str, list[bool]] = {wish: [] for wish in WISHES}
    for instruction, answer in zip(instructions, answers, strict=True):
        fulfilled = verify(instruction, answer)
        four = all(fulfilled.get(wish, True) for wish in ("kind", "hero", "place", "end"))
        for wish, kept in (fulfilled | {"four": four, "all": all(fulfilled.values())}).items():
            done[wish].append(kept)
    return {WISHES[wish]: sum(kept) / len(kept) for wish, kept in done.items() if kept}
