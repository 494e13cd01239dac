"""Checks of GRPO's advantages: each answer beside the other answers to its own prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_dtype
from tinytrans.training import grpo

# ---- inputs: (B, G), prompts and answers to each, B and G never equal


def groups(draw: Draw) -> tuple[Tensor]:
    B, G = draw.sizes(2, 3, 7)
    return (3 * draw.normal(B, G) + torch.arange(B)[:, None],)


def one_group(draw: Draw) -> tuple[Tensor]:
    return (2 * draw.normal(1, draw.integer(4, 7)) + 1,)


def some_equal(draw: Draw) -> tuple[Tensor]:
    """Among other groups two in which every answer got the same."""
    (rewards,) = groups(draw)
    rewards[0], rewards[-1] = 0.5, float(draw.integer(1, 3))
    return (rewards,)


def small(draw: Draw) -> tuple[Tensor]:
    """Rewards that differ by little: the scale of a reward must not matter."""
    return (groups(draw)[0] / 20,)


def double(draw: Draw) -> tuple[Tensor]:
    return (groups(draw)[0].double().T.contiguous().T,)


def standard(found: Any, rewards: Tensor) -> str | None:
    """The law of a group: its advantages have mean 0 and mean square 1, or all are 0."""
    advantages = found[0] if isinstance(found, tuple) else found
    if advantages.shape != rewards.shape:
        return None
    if advantages.isnan().any():
        row = int(advantages.isnan().any(-1).nonzero()[0])
        return f"group {row} holds NaN; its rewards are {[round(x, 3) for x in rewards[row].tolist()]}"
    for row, (mean, square) in enumerate(zip(advantages.mean(-1), advantages.square().mean(-1), strict=True)):
        if abs(float(mean)) > 1e-3:
            return f"the advantages of group {row} have the mean {float(mean):.3g}, not 0"
        if (rewards[row] != rewards[row, 0]).any() and abs(float(square) - 1) > 1e-3:
            return f"the advantages of group {row} have the mean square {float(square):.3g}, not 1"
    return None


# ---- other ways


def normed(
    mean: Callable[[Tensor], Tensor] = lambda r: r.mean(-1, keepdim=True),
    spread: Callable[[Tensor], Tensor] = lambda r: r.std(-1, correction=0, keepdim=True),
    eps: float = 1e-8,
) -> Callable[[Tensor], Tensor]:
    return lambda r: (r - mean(r)) / (spread(r) + eps)


def by_loop(rewards: Tensor) -> Tensor:
    rows = []
    for group in rewards.tolist():
        mean = sum(group) / len(group)
        std = (sum((r - mean) ** 2 for r in group) / len(group)) ** 0.5
        rows.append([0.0 if max(group) == min(group) else (r - mean) / std for r in group])
    return torch.tensor(rows, dtype=rewards.dtype)


ADVANTAGES = exercise(
    "group_advantages",
    reference=grpo.group_advantages,
    oracle=by_loop,
    requirements=[
        requires("one group: mean 0, mean square 1", 1, one_group, law=standard),
        requires("every group by itself", 1, groups, law=standard),
        requires("a group of equal rewards: zeros", 1, some_equal, law=standard),
        requires("whatever the rewards' scale", 1, small, law=standard),
        requires("double precision, not contiguous", 1, double, run=with_dtype, law=standard),
    ],
    wrong={
        "std divided by G - 1": (
            normed(spread=lambda r: r.std(-1, keepdim=True)),
            "Your standard deviation divides by G - 1, as `std` does unless told otherwise. The G answers are all "
            "there are: divide by G (`correction=0`).",
        ),
        "over all groups": (
            normed(mean=lambda r: r.mean(), spread=lambda r: r.std(correction=0)),
            "Mean and deviation run over all prompts. Then answers to an easy prompt all look good: each answer is "
            "compared with the others to *its own* prompt.",
        ),
        "own mean, common std": (
            normed(spread=lambda r: r.std(correction=0)),
            "The mean is the group's own, the deviation that of all groups. Both belong to the group.",
        ),
        "over the prompts": (
            normed(mean=lambda r: r.mean(0), spread=lambda r: r.std(0, correction=0)),
            "Mean and deviation run down the columns, over different prompts. A row is a group: dim=-1.",
        ),
        "not divided": (
            lambda r: r - r.mean(-1, keepdim=True),
            "The mean is subtracted and nothing divided. Dr. GRPO leaves it at that, with reasons; here the paper's "
            "formula is asked for.",
        ),
        "divided by the variance": (
            normed(spread=lambda r: r.var(-1, correction=0, keepdim=True)),
            "You divide by the variance; its root is the standard deviation.",
        ),
        "mean left in": (
            normed(mean=lambda r: torch.zeros_like(r[:, :1])),
            "The mean is not subtracted: where all rewards are positive, even the worst answer is made likelier.",
        ),
        "the others' mean": (
            lambda r: grpo.leave_one_out_advantages(r),
            "Each reward is compared with the mean of the *others* and not scaled: that is RLOO. GRPO takes the whole "
            "group's mean and divides by its deviation.",
        ),
        "NaN for equal rewards": (
            normed(eps=0.0),
            "Where all answers got the same reward, this is 0 / 0 = NaN, and one NaN spoils all weights. Such a group "
            "teaches nothing: zeros.",
        ),
        "a large eps": (
            normed(eps=1e-4),
            "What you add to the deviation is too large beside rewards that differ by little: their advantages "
            "shrink. Take care of equal rewards another way, or take 1e-8.",
        ),
        "eps under the root": (
            normed(spread=lambda r: (r.var(-1, correction=0, keepdim=True) + 1e-5).sqrt(), eps=0.0),
            "1e-5 is added to the *variance*, which for small rewards is smaller still. The formula has no eps; only "
            "equal rewards need care.",
        ),
        "worst first": (
            lambda r: -by_loop(r),
            "The sign is turned: the worst answer has the highest advantage.",
        ),
        "ranks": (
            lambda r: normed()(r.argsort(-1).argsort(-1).to(r.dtype)),
            "You take the ranks: by how much an answer is better plays no part then.",
        ),
        "the best alone": (
            lambda r: (r == r.amax(-1, keepdim=True)).to(r.dtype),
            "Only the best answer of a group gets an advantage. The bad ones teach as much, with a minus.",
        ),
        "softmax": (
            lambda r: r.softmax(-1),
            "A softmax gives every answer a positive share, so that all are made likelier.",
        ),
        "from 0 to 1": (
            lambda r: (r - r.amin(-1, keepdim=True)) / (r.amax(-1, keepdim=True) - r.amin(-1, keepdim=True) + 1e-8),
            "Rewards are stretched to 0 ... 1: no answer would ever be discouraged. Subtract the mean.",
        ),
        "written in place": (
            lambda r: r.sub_(r.mean(-1, keepdim=True)).div_(r.std(-1, correction=0, keepdim=True) + 1e-8),
            "The rewards that you were given were written to. `-` and `/` make new tensors.",
        ),
        "single precision": (
            lambda r: by_loop(r).float(),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "a loop": by_loop,
        "a small eps": normed(),
        "an eps of 1e-6": normed(
            spread=lambda r: (r - r.mean(-1, keepdim=True)).square().mean(-1, True).sqrt(), eps=1e-6
        ),
        "nan_to_num": lambda r: normed(eps=0.0)(r).nan_to_num(0.0),
        "var_mean": lambda r: (
            (r - r.mean(1, keepdim=True)) / r.var(1, correction=0, keepdim=True).sqrt().clamp(min=1e-12)
        ),
    },
    equivalent={
        "1)) -> -1))": "what a row of zeros is divided by does not matter",
        "1)) -> 0))": "what a row of zeros is divided by does not matter",
        "1)) -> 2))": "what a row of zeros is divided by does not matter",
        "std.masked_fill(equal, 1)) -> std)": "where() drops the NaN",
        ":1]).all(dim=-1, -> :1]).all(dim=--1,": "of two axes the last is axis 1",
        ":1]).all(dim=-1, -> :1]).all(dim=1,": "of two axes the last is axis 1",
        "centred.square().mean(dim=-1, -> centred.square().mean(dim=--1,": "of two axes the last is axis 1",
        "centred.square().mean(dim=-1, -> centred.square().mean(dim=1,": "of two axes the last is axis 1",
        "rewards.mean(dim=-1, -> rewards.mean(dim=--1,": "of two axes the last is axis 1",
        "rewards.mean(dim=-1, -> rewards.mean(dim=1,": "of two axes the last is axis 1",
    },
)

# ---- questions

ALL_EQUAL = question(
    "all_equal",
    "In GRPO all eight answers to a prompt got the same, highest reward. What does this group teach?",
    choices={
        "a": "Much: all eight are made likelier, for all are perfect.",
        "b": "Its gradient is infinite, since the deviation is 0.",
        "c": "Nothing: each is as good as its group, so every advantage is 0. Prompts that are always solved (or "
        "never) cost time and teach nothing.",
        "d": "The policy is pulled back to the reference, since only the KL is left, so the model gets worse at it.",
    },
    explanations={
        "a": "An advantage compares. Plain policy gradient with the raw reward would indeed push all eight up, and "
        "every noisy detail in them.",
        "b": "0 / 0 is NaN, not infinite, and your function returns zeros there.",
        "c": "Yes. It is why one chooses prompts of middling difficulty, or drops such groups (Yu et al. 2025, DAPO).",
        "d": "With a KL penalty it is pulled a little, yes; but the other groups of the batch set the direction, and "
        "with beta = 0 there is no pull at all.",
    },
    answer="c",
)

EXERCISES = [ADVANTAGES, ALL_EQUAL]
