"""Checks of ORPO: odds, finite near certainty, and a loss that learns the chosen answer and shuns the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, requires, with_gradients
from tinytrans.training import orpo

Odds = Callable[[Tensor], Tensor]
HELD = "mean_logprobs.clamp(max=-torch.finfo(mean_logprobs.dtype).tiny)"

# ---- inputs: mean log-probabilities, of tokens that are fairly likely


def some(draw: Draw) -> tuple[Tensor]:
    """From likely ones to one of p = 0.0025, where log(1 - p) is small and not yet nothing."""
    return (torch.cat([-0.05 - 2 * draw.uniform(draw.integer(3, 6)), torch.tensor([-6.0])]),)


def unlikely(draw: Draw) -> tuple[Tensor]:
    return (torch.tensor([-30.0, -90.0, -200.0, -12.0])[draw.permutation(4)],)


def nearly_certain(draw: Draw) -> tuple[Tensor]:
    """Probabilities that single precision cannot tell from 1, though their logs it can tell from 0."""
    return (-torch.tensor([1e-3, 1e-6, 1e-9, 1e-12])[draw.permutation(4)] * (1 + draw.uniform(4)),)


def certain(draw: Draw) -> tuple[Tensor]:
    return (torch.tensor([0.0, -0.7, -1e-3])[draw.permutation(3)],)


def losses(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    B = draw.integer(3, 6)
    return 1 + draw.uniform(1)[0], -0.05 - 2 * draw.uniform(B), -0.05 - 2 * draw.uniform(B)


def with_lam(draw: Draw) -> tuple[Any, ...]:
    return *losses(draw), (0.3, 0.5, 2.0)[draw.integer(0, 2)]


def equal(draw: Draw) -> tuple[Any, ...]:
    nll, chosen, _ = losses(draw)
    return nll, chosen, chosen.clone(), 0.7


def by_heart(draw: Draw) -> tuple[Any, ...]:
    """Answers that the model knows by heart, log p = 0: the chosen one, the rejected one, both."""
    chosen, rejected = torch.tensor([0.0, -1.0, 0.0]), torch.tensor([-1.0, -2.0, 0.0])
    return losses(draw)[0], chosen, rejected, 0.4


def hopeless(draw: Draw) -> tuple[Any, ...]:
    far = torch.tensor([-500.0, -1.0, -0.1])[draw.permutation(3)]
    return losses(draw)[0], far, far.roll(1), 0.4


# ---- ways to run, laws


def all_finite(answer: Any, *inputs: Any) -> Any:
    """Whether what comes out, and the gradient, is finite everywhere."""
    value, gradients = answer.gradients(*inputs)
    return bool(value.isfinite().all()) and all(g is None or bool(g.isfinite().all()) for g in gradients)


def stays_finite(finite: Any, *_: Any) -> str | None:
    return None if finite else "a probability of exactly 1 gives an infinite value or gradient: NaN at the next step"


# ---- log_odds


def odds_by_hand(x: Tensor) -> Tensor:
    """In double precision, number by number; a certainty counts as the least of all doubts."""
    tiny = torch.finfo(x.dtype).tiny
    return torch.stack([v - (-torch.expm1(v)).log() for v in x.double().clamp(max=-tiny)]).to(x.dtype)


ODDS = exercise(
    "log_odds",
    reference=orpo.log_odds,
    oracle=odds_by_hand,
    requirements=[
        requires("log p - log(1 - p), and its gradient", 1, some, run=with_gradients),
        requires("very unlikely answers", 1, unlikely, run=with_gradients),
        requires("nearly certain ones keep their digits", 1, nearly_certain),
        requires("a certain one stays finite", 1, certain, run=all_finite, law=stays_finite),
    ],
    wrong={
        "log p": (
            lambda x: x.clone(),
            "This is log p itself. Odds are p against 1 - p: subtract log(1 - p).",
        ),
        "1 - p by subtraction": (
            lambda x: x - (1 - x.clamp(max=-torch.finfo(x.dtype).tiny).exp()).clamp(min=1e-30).log(),
            "1 - exp(x) loses its digits near p = 1: 1 - 0.9999999 in single precision is rounding and little else. "
            "-expm1(x) is the same number, exact.",
        ),
        "infinite at certainty": (
            lambda x: x - torch.log1p(-x.exp()),
            "`log1p(-exp(x))` is -∞ as soon as exp(x) rounds to 1, which it does from about -3e-8 on, and the gradient "
            "is NaN. -expm1(x) keeps its digits; and hold x a hair below 0.",
        ),
        "a magic number": (
            lambda x: x - (1.0001 - x.exp()).log(),
            "1.0001 - p avoids the infinity and changes every number near p = 1. It is not needed: -expm1(x) is exact.",
        ),
        "held too far below 0": (
            lambda x: (lambda held: held - (-torch.expm1(held)).log())(x.clamp(max=-1e-6)),
            "You hold x below -1e-6, and all answers that are more certain become alike. `-torch.finfo(x.dtype).tiny` "
            "is nearer to 0.",
        ),
        "taken for unlikely": (
            lambda x: torch.where(x < -5, x, x - (-torch.expm1(x)).log()),
            "For small p you leave out log(1 - p). It is small there, and not 0.",
        ),
        "NaN at certainty alone": (
            lambda x: x - (-torch.expm1(x)).log(),
            "Right but for x = 0, where 1 - p is 0 and its log infinite. Hold x just below 0: "
            "`clamp(max=-torch.finfo(x.dtype).tiny)`.",
        ),
        "the odds": (
            lambda x: (x - (-torch.expm1(x.clamp(max=-1e-30))).log()).exp(),
            "These are the odds, p / (1 - p). Their logarithm is asked for.",
        ),
        "odds against": (
            lambda x: (-torch.expm1(x.clamp(max=-1e-30))).log() - x,
            "The odds stand upside down: (1 - p) / p.",
        ),
        "x taken for p": (
            lambda x: (x / (1 - x)).abs().log(),
            "x is log p, not p.",
        ),
        "plus": (
            lambda x: x + (-torch.expm1(x.clamp(max=-1e-30))).log(),
            "log p + log(1 - p) is the log of a product. Odds are a quotient: minus.",
        ),
        "logit of the log": (
            lambda x: torch.logit(x.exp(), eps=1e-6),
            "An eps of 1e-6 cuts off both ends: what is unlikelier than a millionth, and what is nearly certain, all "
            "become alike.",
        ),
        "no gradient": (
            lambda x: orpo.log_odds(x).detach(),
            "The numbers are right, but no gradient reaches x.",
        ),
        "an eps inside the log": (
            lambda x: x - (1 - x.exp() + 1e-9).log(),
            "1e-9 inside the log keeps it finite, and spoils every answer that is nearly certain. `torch.expm1` loses"
            " no digits.",
        ),
        "p left out": (
            lambda x: -(-torch.expm1(x)).log(),
            "log p is missing: odds are p / (1 - p), and you have 1 / (1 - p).",
        ),
    },
    right={
        "by hand": odds_by_hand,
        "in double precision": lambda x: (
            x.double().clamp(max=-1e-300) - (-torch.expm1(x.double().clamp(max=-1e-300))).log()
        ).to(x.dtype),
        "two branches": lambda x: (
            x.clamp(max=-1e-37)
            - torch.where(
                x > -0.69,
                (-torch.expm1(x.clamp(max=-1e-37))).log(),
                torch.log1p(-x.clamp(max=-0.5).exp()),
            )
        ),
    },
    equivalent={
        f"{HELD} -> {HELD.replace('mean_logprobs.dtype', '')}": "the inputs are of single precision, torch's default",
    },
)

# ---- orpo_loss


def built(gap: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A loss that compares chosen and rejected in another way."""
    return lambda nll, c, r, lam=0.1: nll + lam * gap(c, r)


def ratio(c: Tensor, r: Tensor) -> Tensor:
    return orpo.log_odds(c) - orpo.log_odds(r)


def by_hand(nll: Tensor, c: Tensor, r: Tensor, lam: float = 0.1) -> Tensor:
    odds = [(x - (-torch.expm1(x)).log()) for x in (c.clamp(max=-1e-37), r.clamp(max=-1e-37))]
    each = [torch.logaddexp(torch.zeros(()), b - a) for a, b in zip(*odds, strict=True)]
    return nll + lam * torch.stack(each).mean()


def equal_costs_ln_2(found: Any, nll: Tensor, _c: Tensor, _r: Tensor, lam: float) -> str | None:
    wanted = float(nll) + lam * math.log(2)
    value = float(found)
    return (
        None
        if abs(value - wanted) < 1e-4
        else f"equally likely answers cost nll + λ ln 2 = {wanted:.4g}, not {value:.4g}"
    )


LOSS = exercise(
    "orpo_loss",
    reference=orpo.orpo_loss,
    oracle=by_hand,
    requirements=[
        requires("equal answers: nll + λ ln 2", 1, equal, law=equal_costs_ln_2),
        requires("the loss, and the gradients of all three", 2, with_lam, run=with_gradients),
        requires("λ is 0.1 unless given", 1, losses),
        requires("hopeless pairs", 1, hopeless, run=with_gradients),
        requires("answers known by heart: no NaN, nor in the gradient", 1, by_heart, run=with_gradients),
    ],
    wrong={
        "nll left out": (
            lambda nll, c, r, lam=0.1: orpo.orpo_loss(0 * nll, c, r, lam),
            "The instruction loss is missing: with the odds alone the model need not write well, only differently.",
        ),
        "λ left out": (
            lambda nll, c, r, lam=0.1: orpo.orpo_loss(nll, c, r, 1.0),
            "λ is not used: the two losses are simply added.",
        ),
        "λ on the other": (
            lambda nll, c, r, lam=0.1: lam * nll - F.logsigmoid(ratio(c, r)).mean(),
            "λ weighs the instruction loss. It weighs the odds ratio: first of all the model should learn the answer.",
        ),
        "λ on both": (
            lambda nll, c, r, lam=0.1: lam * (nll - F.logsigmoid(ratio(c, r)).mean()),
            "λ weighs both parts. Then it is a learning rate; it belongs to the odds ratio alone.",
        ),
        "a convex mix": (
            lambda nll, c, r, lam=0.1: (1 - lam) * nll - lam * F.logsigmoid(ratio(c, r)).mean(),
            "You weigh the instruction loss by 1 - λ. It keeps its full weight.",
        ),
        "turned round": (
            lambda nll, c, r, lam=0.1: orpo.orpo_loss(nll, r, c, lam),
            "The rejected answer's odds are raised: chosen minus rejected.",
        ),
        "rewarded": (
            built(lambda c, r: F.logsigmoid(ratio(c, r)).mean()),
            "The sign is turned: log σ is added where -log σ should be.",
        ),
        "probabilities for odds": (
            built(lambda c, r: -F.logsigmoid(c - r).mean()),
            "The log-probabilities are compared, not the log-odds: the parts with 1 - p are missing.",
        ),
        "no log": (
            built(lambda c, r: 1 - torch.sigmoid(ratio(c, r)).mean()),
            "The logarithm of σ is missing.",
        ),
        "log of the sigmoid": (
            built(lambda c, r: -torch.sigmoid(ratio(c, r)).log().mean()),
            "Right until a pair is far on the wrong side: σ rounds to 0, its log is -∞. `F.logsigmoid` knows better.",
        ),
        "no sigmoid": (
            built(lambda c, r: -ratio(c, r).mean()),
            "The log odds ratio itself is taken: it has no end, and the rejected answer would be pushed down for ever.",
        ),
        "sum": (
            built(lambda c, r: -F.logsigmoid(ratio(c, r)).sum()),
            "The sum over the pairs comes back; the mean is asked for.",
        ),
        "averaged first": (
            built(lambda c, r: -F.logsigmoid(ratio(c, r).mean())),
            "The pairs are averaged before σ: a pair far ahead makes up for one that is wrong.",
        ),
        "one number a pair": (
            built(lambda c, r: -F.logsigmoid(ratio(c, r))),
            "One loss for each pair comes back: average them.",
        ),
        "no gradient to the rejected": (
            built(lambda c, r: -F.logsigmoid(ratio(c, r.detach())).mean()),
            "The number is right, but no gradient reaches the rejected answer: nothing would be shunned.",
        ),
        "nll without gradient": (
            lambda nll, c, r, lam=0.1: orpo.orpo_loss(nll.detach(), c, r, lam),
            "The number is right, but no gradient flows into the instruction loss.",
        ),
        "nll of both": (
            lambda nll, c, r, lam=0.1: orpo.orpo_loss(nll - c.mean() - r.mean(), c, r, lam),
            "The answers' own log-probabilities are subtracted once more: the rejected one would be learned as well. "
            "nll comes in ready, of the chosen answers alone.",
        ),
    },
    right={
        "by hand": by_hand,
        "softplus": built(lambda c, r: F.softplus(-ratio(c, r)).mean()),
        "logits of both": built(lambda c, r: F.binary_cross_entropy_with_logits(ratio(c, r), torch.ones_like(c))),
    },
)

EXERCISES = [ODDS, LOSS]
