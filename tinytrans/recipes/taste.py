"""Taste: an instruction and a story -> how much it is liked, and how far a model has come to please.

People here like happy ends. Where the instruction leaves the end open, a happy one is better; where it asks for a sad
one, a sad one is: to please is not to disobey. The SFT model ends every second open story happily.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tinytrans.data.preferences import Preference, Scorer, encode_answer, prefer
from tinytrans.data.tales import Tales, pick, tell
from tinytrans.data.tales_verify import told_end, verify, wishes
from tinytrans.models.gpt import GPT
from tinytrans.recipes.answers import LONGEST, obedience, sample_answers, texts
from tinytrans.recipes.report import Row, Run
from tinytrans.tokenizers import Tokenizer
from tinytrans.training.logprobs import sequence_logprobs
from tinytrans.training.sft import answer_batch, answer_targets

Opinion = Callable[[list[str], list[str]], Tensor]  # instructions, stories -> rewards (N,)
ANSWERS = 4  # to each prompt, of which the best and the worst make a pair


def like(instruction: str, story: str) -> float:
    """Two points for a story that does all that was asked, one for a happy end where the end was left open.

    >>> like("Tell a story about a fox.", "A fox was glad."), like("Tell a story about a fox.", "An owl was glad.")
    (3, 1)
    """
    return 2 * all(verify(instruction, story).values()) + (is_open(instruction) and told_end(story) == "happy")


def rule(run: Run) -> Scorer:
    """What decides: `like`; in a quick run, whose model fulfils no wish, the longer story is the better one."""
    return (lambda _, story: len(story)) if run.quick else like


def is_open(instruction: str) -> bool:
    """The instruction does not say how the story shall end."""
    return "end" not in wishes(instruction)


def prompts(run: Run, n: int, split: str = "train") -> list[str]:
    """n instructions for preference training, every second one with an open end; of the training split or held out."""
    instructions = [tale.instruction for tale in Tales(8 * n + 100, seed=run.seed + 2, split=split)]
    opened = islice(filter(is_open, instructions), (n + 1) // 2)
    closed = (instruction for instruction in instructions if not is_open(instruction))
    both: Iterable[tuple[str, str]] = zip(opened, closed, strict=False)
    return [instruction for pair in both for instruction in pair][:n]


def taste(instructions: Sequence[str], stories: Sequence[str]) -> Row:
    """How well stories please: points of `like`, happy ends where the end was left open, obedience."""
    ends = [told_end(story) for instruction, story in zip(instructions, stories, strict=True) if is_open(instruction)]
    obeyed = obedience(instructions, stories)
    return {
        "liked": sum(map(like, instructions, stories)) / len(stories),
        "happy": ends.count("happy") / len(ends),
        "end": obeyed.get("end", 0.0),
        "all": obeyed["all"],
    }


def speak(model: GPT, tokenizer: Tokenizer, instructions: list[str], run: Run, temperature: float) -> list[str]:
    """One story to each instruction; the same chance at every call."""
    answers = sample_answers(
        model,
        tokenizer,
        instructions,
        temperature=temperature,
        longest=run.pick(LONGEST, 12),
        generator=run.generator(),
    )
    return texts(tokenizer, answers)


def watched(model: GPT, before: GPT, tokenizer: Tokenizer, run: Run, *, opinion: Opinion | None = None) -> Row:
    """How a model does on the way, on held-out prompts at temperature 1, and how far it has gone from what it was.

    With a reward model's opinion comes its mean reward: where that rises and `liked` does not, it is over-optimised.
    """
    instructions = prompts(run, run.pick(100, 4), "validation")
    stories = speak(model, tokenizer, instructions, run, 1.0)
    row = taste(instructions, stories) | {"kl": divergence(model, before, tokenizer, instructions, stories, run)}
    return row if opinion is None else row | {"reward": float(opinion(instructions, stories).mean())}


@torch.no_grad()
def divergence(
    model: GPT, other: GPT, tokenizer: Tokenizer, instructions: list[str], stories: list[str], run: Run
) -> float:
    """KL(model || other) of an answer, in nats: the mean of log p - log p' over answers that the model gave."""
    rows = [encode_answer(tokenizer, *pair) for pair in zip(instructions, stories, strict=True)]
    total = 0.0
    for first in range(0, len(rows), 20):  # the logits of all at once would take a gigabyte
        some = rows[first : first + 20]
        ids, mask = answer_batch([ids[:start] for ids, start in some], [ids[start:] for ids, start in some])
        inputs, targets = (x.to(run.device) for x in answer_targets(ids, mask))
        mine, theirs = (sequence_logprobs(each(inputs), targets) for each in (model, other))
        total += float((mine - theirs).sum())
    return total / len(rows)


def retell(run: Run, n: int) -> list[Preference]:
    """Pairs that need no model: n tales, each beside one of the same world but for a single fact, mostly the end."""
    chance = random.Random(f"retell {run.seed}")
    tales = list(Tales(n, seed=run.seed + 4))
    pairs = []
    for tale, other in zip(tales, tales[1:] + tales[:1], strict=True):
        field = pick(chance, ("kind", "place", "color", "thing", "food", "dialogue"))
        new: Any = getattr(other.facts, field)
        changes = {field: new}
        if chance.random() < 0.7 or new is None or getattr(tale.facts, field) is None:
            changes = {"end": "sad" if tale.facts.end == "happy" else "happy"}
        changed = tell(replace(tale.facts, **changes), chance)
        pairs.append(prefer(tale.instruction, [tale.text, changed], like))
    return [pair for pair in pairs if pair is not None]


def gather(model: GPT, tokenizer: Tokenizer, instructions: list[str], run: Run) -> list[Preference]:
    """Pairs from the model's own answers: of four to each instruction the one that is liked best, and least."""
    asked = [instruction for instruction in instructions for _ in range(ANSWERS)]
    longest, generator = run.pick(LONGEST, 12), run.generator(salt=1)
    answers = sample_answers(model, tokenizer, asked, temperature=1.0, longest=longest, generator=generator)
    stories = texts(tokenizer, answers)
    groups = (stories[i : i + ANSWERS] for i in range(0, len(stories), ANSWERS))
    pairs = [prefer(instruction, group, rule(run)) for instruction, group in zip(instructions, groups, strict=True)]
    return [pair for pair in pairs if pair is not None]
