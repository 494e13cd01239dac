"""Checks of DPO: only the movement away from the reference counts, and a pair's two movements are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_gradients
from tinytrans.training import dpo

Loss = Callable[..., Tensor]

# ---- inputs: log-probabilities of whole answers, which are far below 0


def pairs(draw: Draw) -> tuple[Tensor, ...]:
    B = draw.integer(3, 6)
    policy = [-30 - 5 * draw.uniform(B) for _ in range(2)]
    return *policy, *(x + 3 * draw.normal(B) for x in policy)


def with_beta(draw: Draw) -> tuple[Any, ...]:
    return *pairs(draw), (0.5, 0.3, 2.0)[draw.integer(0, 2)]


def at_the_start(draw: Draw) -> tuple[Any, ...]:
    chosen, rejected, *_ = pairs(draw)
    return chosen, rejected, chosen.clone(), rejected.clone(), 0.4


def hopeless(draw: Draw) -> tuple[Any, ...]:
    """Pairs thousands of nats on the wrong side, and on the right one."""
    far = torch.tensor([-5000.0, -20.0, -3000.0])[draw.permutation(3)]
    return far, far.flip(0), torch.full((3,), -20.0), torch.full((3,), -30.0), 0.5


# ---- other ways


def moved(f: Callable[..., Tensor]) -> Loss:
    """A loss of how far the chosen and the rejected answer have moved, and beta; no gradient into the reference."""
    return lambda c, r, ref_c, ref_r, beta=0.1: f(c - ref_c.detach(), r - ref_r.detach(), beta)


def by_hand(c: Tensor, r: Tensor, ref_c: Tensor, ref_r: Tensor, beta: float = 0.1) -> Tensor:
    """The ratio of the two ratios, pair by pair."""
    losses = []
    for i in range(len(c)):
        gap = beta * ((c[i] - r[i]) - (ref_c[i].detach() - ref_r[i].detach()))
        losses.append(torch.logaddexp(torch.zeros(()), -gap))
    return torch.stack(losses).mean()


def begins_at_ln_2(found: Any, *_: Any) -> str | None:
    """The law of the beginning: where the policy is the reference, the loss is ln 2."""
    value = float((found[0] if isinstance(found, tuple) else found).detach())
    return None if abs(value - math.log(2)) < 1e-4 else f"at the start the loss is ln 2 = 0.693, not {value:.4g}"


LOSS = exercise(
    "dpo_loss",
    reference=dpo.dpo_loss,
    oracle=by_hand,
    requirements=[
        requires("at the start: ln 2, and already a gradient", 1, at_the_start, run=with_gradients, law=begins_at_ln_2),
        requires("the loss and its gradients, none of them into the reference", 2, with_beta, run=with_gradients),
        requires("beta is 0.1 unless given", 1, pairs),
        requires("hopeless pairs: a finite loss with a gradient", 1, hopeless, run=with_gradients),
    ],
    wrong={
        "no reference": (
            lambda c, r, ref_c, ref_r, beta=0.1: -F.logsigmoid(beta * (c - r)).mean(),
            "The reference plays no part. Then an answer that was always likelier counts as preferred, and nothing "
            "holds the model near what it was.",
        ),
        "turned round": (
            moved(lambda c, r, beta: -F.logsigmoid(beta * (r - c)).mean()),
            "The rejected answer is made likelier: chosen minus rejected, not the other way round.",
        ),
        "reference minus policy": (
            lambda c, r, ref_c, ref_r, beta=0.1: -F.logsigmoid(beta * ((ref_c - c) - (ref_r - r))).mean(),
            "The ratios stand upside down: it is log π - log π_ref that grows when the model likes an answer better "
            "than before.",
        ),
        "beta left out": (
            moved(lambda c, r, beta: -F.logsigmoid(c - r).mean()),
            "`beta` is not used. It says how many nats of movement make a difference of 1 in reward.",
        ),
        "beta outside": (
            moved(lambda c, r, beta: -beta * F.logsigmoid(c - r).mean()),
            "beta multiplies the loss. It belongs inside the σ, where it sets how far the model may move; outside it "
            "is just a learning rate.",
        ),
        "divided by beta": (
            moved(lambda c, r, beta: -F.logsigmoid((c - r) / beta).mean()),
            "You divide by beta. The implicit reward is beta times the log-ratio.",
        ),
        "beta on one side": (
            moved(lambda c, r, beta: -F.logsigmoid(beta * c - r).mean()),
            "Only one of the two log-ratios is multiplied by beta: brackets are missing.",
        ),
        "no log": (
            moved(lambda c, r, beta: 1 - torch.sigmoid(beta * (c - r)).mean()),
            "This is 1 - σ without the logarithm: the gradient vanishes on the worst pairs.",
        ),
        "no minus": (
            moved(lambda c, r, beta: F.logsigmoid(beta * (c - r)).mean()),
            "The minus is missing: a loss must fall as the preferences are explained better.",
        ),
        "log of the sigmoid": (
            moved(lambda c, r, beta: -torch.sigmoid(beta * (c - r)).log().mean()),
            "Right until a pair is far on the wrong side: then σ is rounded to 0 and the log is -∞. Your pairwise loss "
            "knows better.",
        ),
        "ratios instead of their logs": (
            moved(lambda c, r, beta: -F.logsigmoid(beta * (c.exp() - r.exp())).mean()),
            "The probability ratios are compared, not their logs. The implicit reward is beta log(π / π_ref).",
        ),
        "references exchanged": (
            lambda c, r, ref_c, ref_r, beta=0.1: dpo.dpo_loss(c, r, ref_r, ref_c, beta),
            "The references enter with the wrong sign: they are exchanged, or added where they should be subtracted. "
            "Each answer is compared with the reference's opinion of *that* answer: log π - log π_ref.",
        ),
        "sum": (
            moved(lambda c, r, beta: -F.logsigmoid(beta * (c - r)).sum()),
            "The sum over the pairs comes back; the mean is asked for.",
        ),
        "averaged first": (
            moved(lambda c, r, beta: -F.logsigmoid(beta * (c - r).mean())),
            "The pairs are averaged before σ: one that is far ahead makes up for one that is wrong.",
        ),
        "gradient into the reference": (
            lambda c, r, ref_c, ref_r, beta=0.1: -F.logsigmoid(beta * ((c - ref_c) - (r - ref_r))).mean(),
            "The number is right, but a gradient flows into the reference: the yardstick would move along. `detach` "
            "it.",
        ),
        "nothing learns": (
            lambda *inputs: dpo.dpo_loss(*inputs).detach(),
            "The number is right, but no gradient flows into the policy.",
        ),
        "no gradient to the rejected": (
            lambda c, r, ref_c, ref_r, beta=0.1: dpo.dpo_loss(c, r.detach(), ref_c, ref_r, beta),
            "The number is right, but no gradient reaches the rejected answers: detach the reference, not the policy.",
        ),
        "chosen alone": (
            moved(lambda c, r, beta: -F.logsigmoid(beta * c).mean()),
            "The rejected answer plays no part. A preference is about two answers.",
        ),
        "squared": (
            moved(lambda c, r, beta: (c - r - 1 / (2 * beta)).square().mean()),
            "This is IPO, which draws the distance to 1 / (2 beta). DPO's loss is -log σ.",
        ),
        "a hinge": (
            moved(lambda better, worse, beta: F.relu(1 - beta * (better - worse)).mean()),
            "That is the hinge loss of SLiC, max(0, 1 - β difference). DPO takes -log σ of it.",
        ),
    },
    right={
        "by hand": by_hand,
        "softplus": moved(lambda c, r, beta: F.softplus(beta * (r - c)).mean()),
        "pairs of log-ratios": lambda c, r, ref_c, ref_r, beta=0.1: (
            -F.logsigmoid(beta * ((c - r) - (ref_c - ref_r).detach())).mean()
        ),
    },
)

# ---- questions

BOTH_FALL = question(
    "both_fall",
    "In another run, while DPO's loss falls, you look at the log-probabilities themselves: that of the rejected "
    "answers falls steeply, and that of the *chosen* ones falls too, a little. What do you think of it?",
    choices={
        "a": "The loss asks only for the distance between the two. Answers of a pair share most of their words, so "
        "pushing one down drags the other; it is common, and a reason to watch, or to add the chosen answers' own "
        "loss, as ORPO has it.",
        "b": "There is a bug: DPO raises the chosen answers.",
        "c": "beta is too small: with a larger one both would rise.",
        "d": "The reference is trained along.",
    },
    explanations={
        "a": "Yes. Where does the probability go? To answers that are in no pair, good or bad: see Pal et al. 2024.",
        "b": "The gradient does push up each chosen answer *by itself*. But all answers share one set of weights.",
        "c": "beta scales how much distance is enough. It gives no preference to rising over falling.",
        "d": "It is not: it is another model, and detached.",
    },
    answer="a",
)

EXERCISES = [LOSS, BOTH_FALL]
