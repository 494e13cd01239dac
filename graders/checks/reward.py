"""Checks of the reward model's loss: preferences explained by differences, and nothing but differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_gradients
from tinytrans.training import reward

Loss = Callable[..., Tensor]

# ---- inputs


def pairs(draw: Draw) -> tuple[Tensor, Tensor]:
    B = draw.integer(3, 7)
    return 2 * draw.normal(B), 2 * draw.normal(B) - 0.5


def equal(draw: Draw) -> tuple[Tensor, Tensor]:
    chosen, _ = pairs(draw)
    return chosen, chosen.clone()


def hopeless(draw: Draw) -> tuple[Tensor, Tensor]:
    """Pairs a thousand apart, on the wrong side and on the right one."""
    far = torch.tensor([-1000.0, 1000.0, -200.0, 0.5])[draw.permutation(4)]
    return far, torch.zeros(4)


def margins(draw: Draw) -> tuple[Tensor, Tensor, float]:
    return *pairs(draw), 0.75


def own_margins(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """A margin for each pair."""
    chosen, rejected = pairs(draw)
    return chosen, rejected, draw.uniform(len(chosen)) + 0.5


# ---- other ways


def of_difference(loss: Callable[[Tensor], Tensor]) -> Loss:
    return lambda c, r, margin=0.0: loss(c - r - margin)


def by_hand(chosen: Tensor, rejected: Tensor, margin: Any = 0.0) -> Tensor:
    gaps = (chosen - rejected - margin).unbind()
    return sum(torch.logaddexp(torch.zeros(()), -gap) for gap in gaps) / len(gaps)


def begins_at_ln_2(found: Any, *_: Any) -> str | None:
    """The law of equal rewards: they cost ln 2."""
    return (
        None if abs(float(found) - math.log(2)) < 1e-4 else f"equal rewards cost ln 2 = 0.693, not {float(found):.4g}"
    )


PAIRWISE = exercise(
    "pairwise_loss",
    reference=reward.pairwise_loss,
    oracle=by_hand,
    requirements=[
        requires("the mean of -log σ of the difference, and its gradient", 2, pairs, run=with_gradients),
        requires("equal rewards cost ln 2", 1, equal, law=begins_at_ln_2),
        requires("hopeless pairs: a finite loss with a gradient", 1, hopeless, run=with_gradients),
        requires("a margin", 1, margins, run=with_gradients),
        requires("a margin for each pair", 1, own_margins),
    ],
    wrong={
        "turned round": (
            lambda c, r, margin=0.0: reward.pairwise_loss(r, c, margin),
            "The rejected answer is rewarded: σ takes the chosen reward minus the rejected one, and not the other way "
            "round.",
        ),
        "no log": (
            of_difference(lambda d: 1 - d.sigmoid().mean()),
            "This is 1 - σ, without the logarithm. For a pair that is badly wrong σ is flat, so just there the "
            "gradient vanishes.",
        ),
        "minus the probability": (
            of_difference(lambda d: -d.sigmoid().mean()),
            "This is -σ without the logarithm: the likelihood of *all* the preferences is a product, and its log a sum "
            "of logs.",
        ),
        "log of the sigmoid": (
            of_difference(lambda d: -d.sigmoid().log().mean()),
            "Right for small differences. Where a pair is far on the wrong side, σ is rounded to 0 (or e^-d "
            "overflows): the loss is infinite and the gradient NaN. `F.logsigmoid` knows how.",
        ),
        "no minus": (
            of_difference(lambda d: F.logsigmoid(d).mean()),
            "The sign is missing: a loss falls where things get better, and log σ rises.",
        ),
        "difference of sigmoids": (
            lambda c, r, margin=0.0: -(c.sigmoid() - r.sigmoid() - margin).mean(),
            "Each reward goes through a sigmoid of its own. Only the difference has a meaning: take it first.",
        ),
        "sigmoid, then log-sigmoid": (
            lambda c, r, margin=0.0: -F.logsigmoid(c.sigmoid() - r.sigmoid() - margin).mean(),
            "Rewards are squeezed into 0 to 1 before they are compared, so no pair can be told apart by more than 1.",
        ),
        "sum": (
            of_difference(lambda d: -F.logsigmoid(d).sum()),
            "The sum over the pairs comes back. The mean is asked for: a batch of another size should not change the "
            "step.",
        ),
        "one number a pair": (
            of_difference(lambda d: -F.logsigmoid(d)),
            "One loss for each pair comes back. Average them.",
        ),
        "averaged first": (
            lambda c, r, margin=0.0: -F.logsigmoid(torch.as_tensor(c - r - margin).mean()),
            "The differences are averaged before σ. Then a pair that is far on the right side makes up for one on the "
            "wrong side. σ first, for every pair.",
        ),
        "margin added": (
            lambda c, r, margin=0.0: reward.pairwise_loss(c, r, -1 * margin),
            "The margin is added to the difference, which makes the task easier. It is subtracted: the chosen answer "
            "must lead by that much.",
        ),
        "margin not used": (
            lambda c, r, margin=0.0: reward.pairwise_loss(c, r),
            "`margin` is accepted and not used.",
        ),
        "margin outside": (
            lambda c, r, margin=0.0: (-F.logsigmoid(c - r) + margin).mean(),
            "The margin is added to the loss, where it changes no gradient. It belongs into the σ.",
        ),
        "hinge": (
            of_difference(lambda d: F.relu(1 - d).mean()),
            "This is a hinge: it asks for a lead of 1 and is then content. Bradley and Terry's model gives -log σ.",
        ),
        "squared": (
            of_difference(lambda d: (1 - d).square().mean()),
            "Differences are drawn to 1 by a square: a pair that is *clearly* right would be punished for it.",
        ),
        "in bits": (
            of_difference(lambda d: -F.logsigmoid(d).mean() / math.log(2)),
            "The logarithm is to base 2: equal rewards cost 1 instead of ln 2. The natural logarithm is meant.",
        ),
        "no gradient to the rejected": (
            lambda c, r, margin=0.0: reward.pairwise_loss(c, r.detach(), margin),
            "The numbers are right, but no gradient reaches the rejected rewards: only praise would be learned.",
        ),
        "chosen alone": (
            lambda c, r, margin=0.0: -F.logsigmoid(c - margin).mean(),
            "The rejected answer plays no part. What is known is which of the two is better, not how good either is.",
        ),
        "the margin outside": (
            lambda c, r, margin=0.0: (-F.logsigmoid(c - r) - margin).mean(),
            "The margin is subtracted from the loss, where it moves no weight. It belongs inside, beside the "
            "difference.",
        ),
        "everyone against everyone": (
            lambda c, r, margin=0.0: -F.logsigmoid(c[:, None] - r[None] - torch.as_tensor(margin)[..., None]).mean(),
            "Every chosen answer is compared with every rejected one. Answer i has one opponent, the other answer to "
            "its own prompt.",
        ),
        "margins averaged": (
            lambda c, r, margin=0.0: reward.pairwise_loss(c, r, torch.as_tensor(margin).mean()),
            "The margins are averaged first. Each pair has its own.",
        ),
    },
    right={
        "by hand": by_hand,
        "softplus": of_difference(lambda d: F.softplus(-d).mean()),
        "binary cross entropy": of_difference(lambda d: F.binary_cross_entropy_with_logits(d, torch.ones_like(d))),
        "two classes": lambda c, r, margin=0.0: F.cross_entropy(
            torch.stack([c - margin, r], dim=1), torch.zeros(len(c), dtype=torch.long)
        ),
    },
)

# ---- questions

HIGH_REWARD = question(
    "high_reward",
    "A reward model orders 95 % of unseen pairs rightly. You train a policy on its reward, without any penalty, until "
    "the mean reward is twice that of the best human answer. What have you got?",
    choices={
        "a": "Answers twice as good as a person's, with an error of 5 %.",
        "b": "Nothing can be said: rewards have no unit, but more is never worse.",
        "c": "A model that has learned the 5 % of pairs that were mislabelled.",
        "d": "Most likely worse answers than half way: the reward model was measured on answers of the old model, and "
        "the policy has gone where it is high for wrong reasons.",
    },
    explanations={
        "a": "A reward is a number that was fitted to differences between ordinary answers. Its value far outside says "
        "nothing.",
        "b": "They have no unit indeed. But the policy searches for what is high, and errors that are high are found "
        "first.",
        "c": "The policy never sees the pairs. It finds answers that no pair was about.",
        "d": "Yes: *when a measure becomes a target, it ceases to be a good measure*. Gao et al. 2022 measured it; the "
        "picture of your own run shows it.",
    },
    answer="d",
)

EXERCISES = [PAIRWISE, HIGH_REWARD]
