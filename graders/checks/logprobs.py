"""Checks of log-probabilities: how likely a whole answer was, and nothing but the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, requires, with_gradients
from tinytrans.training import logprobs
from tinytrans.training.sft import answer_mask

NOT_ASKED = -100
Logprobs = Callable[..., Tensor]
WIDE = "logits.to(torch.promote_types(logits.dtype, torch.float32))"
NARROW = (
    "logits",
    "logits.to()",
    "logits.to(logits.dtype)",
    WIDE.replace("logits.dtype, torch.float32", "torch.float32, logits.dtype"),
)

# ---- inputs


def sizes(draw: Draw) -> tuple[int, int, int]:
    return draw.integer(3, 4), 7, draw.integer(5, 6)  # B, T, V, all different


def whole(draw: Draw) -> tuple[Tensor, Tensor]:
    B, T, V = sizes(draw)
    return 2 * draw.normal(B, T, V), draw.integers(0, V, B, T)


def places(draw: Draw, B: int, T: int) -> Tensor:
    """Answers of different lengths at different places."""
    return answer_mask(draw.integers(1, 3, B), torch.tensor([7, 4, 6, 5])[:B], T)


def answers(draw: Draw) -> tuple[Tensor, Tensor]:
    logits, targets = whole(draw)
    return logits, targets.masked_fill(~places(draw, *targets.shape), NOT_ASKED)


def masked(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """In one row the targets say so too, in the others they do not."""
    logits, targets = whole(draw)
    mask = places(draw, *targets.shape)
    targets[0] = targets[0].masked_fill(~mask[0], NOT_ASKED)
    return logits, targets, mask


def means(draw: Draw) -> tuple[Tensor, Tensor, None, bool]:
    return *answers(draw), None, True


def masked_means(draw: Draw) -> tuple[Tensor, Tensor, Tensor, bool]:
    return *masked(draw), True


def one_empty(draw: Draw) -> tuple[Tensor, Tensor, Tensor, bool]:
    logits, targets, mask = masked(draw)
    mask[1] = False
    mask[2] = torch.arange(targets.shape[1]) == 3  # a single token
    return logits, targets, mask, True


def loud(draw: Draw) -> tuple[Tensor, Tensor]:
    """A batch of one."""
    logits, targets = answers(draw)
    return 200 * logits[:1], targets[:1]


# ---- other ways


def token(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)


def keep(targets: Tensor, mask: Tensor | None) -> Tensor:
    return targets != NOT_ASKED if mask is None else mask


def built(
    each: Callable[[Tensor, Tensor], Tensor] = token,
    seen: Callable[[Tensor, Tensor | None], Tensor] = keep,
    together: Callable[[Tensor, Tensor, bool], Tensor] | None = None,
) -> Logprobs:
    """Log-probabilities out of parts: each token's, which count, and how they are brought together."""

    def join(values: Tensor, mask: Tensor, mean: bool) -> Tensor:
        return values.sum(-1) / mask.sum(-1).clamp(min=1) if mean else values.sum(-1)

    def sequence(z: Tensor, y: Tensor, mask: Tensor | None = None, mean: bool = False) -> Tensor:
        kept = seen(y, mask)
        return (together or join)(torch.where(kept, each(z, y), 0.0), kept, mean)

    return sequence


def by_loop(logits: Tensor, targets: Tensor, mask: Tensor | None = None, mean: bool = False) -> Tensor:
    rows = []
    for z, y, use in zip(logits, targets, keep(targets, mask), strict=True):
        said = [z[t, y[t]] - z[t].logsumexp(0) for t in use.nonzero().flatten().tolist()]
        total = torch.stack(said).sum() if said else z.sum() * 0
        rows.append(total / max(1, len(said)) if mean else total)
    return torch.stack(rows)


def shifted(z: Tensor, y: Tensor, mask: Tensor | None = None, mean: bool = False) -> Tensor:
    return by_loop(z[:, :-1], y[:, 1:], None if mask is None else mask[:, 1:], mean)


def not_above_zero(found: Any, *_: Any) -> str | None:
    """The law of log-probabilities: none is above 0."""
    value = (found[0] if isinstance(found, tuple) else found).detach()
    return f"a log-probability of {float(value.max()):.3g}: p would be above 1" if (value > 1e-4).any() else None


SEQUENCE = exercise(
    "sequence_logprobs",
    reference=logprobs.sequence_logprobs,
    oracle=by_loop,
    requirements=[
        requires("every token counts, and the gradient", 1, whole, run=with_gradients, law=not_above_zero),
        requires("targets of -100 don't, and the gradient", 2, answers, run=with_gradients, law=not_above_zero),
        requires("a mask says which count", 1, masked, law=not_above_zero),
        requires("the mean over the answer's tokens, and the gradient", 1, means, run=with_gradients),
        requires("the mean under a mask", 1, masked_means, law=not_above_zero),
        requires("an answer of no token has 0, one of a single token its own", 1, one_empty),
        requires("large logits", 1, loud, law=not_above_zero),
    ],
    wrong={
        "mean for sum": (
            lambda z, y, mask=None, mean=False: by_loop(z, y, mask, True),
            "The mean comes back where the sum is asked for. The probability of a whole answer is the product of its "
            "tokens', so its log is the sum.",
        ),
        "sum for mean": (
            lambda z, y, mask=None, mean=False: by_loop(z, y, mask, False),
            "`mean` is accepted and not used.",
        ),
        "mean over all places": (
            built(together=lambda values, mask, mean: values.mean(-1) if mean else values.sum(-1)),
            "The mean divides by all T places. Divide by the number of places that count, else padding makes an answer "
            "likelier.",
        ),
        "prompts and padding too": (
            built(seen=lambda y, mask: torch.ones_like(y, dtype=torch.bool) if mask is None else mask),
            "Targets of -100 count as if they were token 0. Nothing was asked there: leave them out.",
        ),
        "the mask not used": (
            built(seen=lambda y, mask: y != NOT_ASKED),
            "`mask` is accepted and not used.",
        ),
        "the mask turned round": (
            built(seen=lambda y, mask: y != NOT_ASKED if mask is None else ~mask),
            "The mask is read the wrong way: True marks the tokens that count.",
        ),
        "shifted again": (
            shifted,
            "You shift logits against targets. The caller has done that: place t of the logits is about place t of the "
            "targets.",
        ),
        "probabilities": (
            built(each=lambda z, y: token(z, y).exp()),
            "Probabilities are added up. Their product is the answer's, and the log turns it into a sum of logs.",
        ),
        "no softmax": (
            built(each=lambda z, y: z.gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)),
            "The raw logits are added. A log-probability is the logit minus the log of the sum of exp over the "
            "vocabulary.",
        ),
        "softmax over time": (
            built(each=lambda z, y: z.log_softmax(1).gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)),
            "The softmax runs over the places of the sequence. At each place it is the vocabulary, the last axis, that "
            "shares a probability of 1.",
        ),
        "log of the softmax": (
            built(each=lambda z, y: z.softmax(-1).gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1).log()),
            "Right for small logits. For large ones a probability is rounded to 0 and its log is -∞; `log_softmax` "
            "never forms it.",
        ),
        "the surprise": (
            lambda z, y, mask=None, mean=False: -by_loop(z, y, mask, mean),
            "The sign is turned: this is the surprise, -log p, as a loss has it. A log-probability is never above 0.",
        ),
        "one number for the batch": (
            lambda z, y, mask=None, mean=False: by_loop(z, y, mask, mean).sum(),
            "All answers are added up. One number for each row is asked for, (B,).",
        ),
        "one number a token": (
            lambda z, y, mask=None, mean=False: torch.where(keep(y, mask), token(z, y), 0.0),
            "One number for each token comes back: add up along the sequence.",
        ),
        "NaN for no token": (
            built(together=lambda v, m, mean: v.sum(-1) / m.sum(-1) if mean else v.sum(-1)),
            "An answer of no token gets 0 / 0 = NaN. Divide by at least 1.",
        ),
        "the best token's": (
            built(each=lambda z, y: z.log_softmax(-1).amax(-1)),
            "The likeliest token's log-probability is taken. It is the token that came, the target, that counts.",
        ),
        "no gradient": (
            lambda z, y, mask=None, mean=False: by_loop(z, y, mask, mean).detach(),
            "The numbers are right, but no gradient reaches the logits, so nothing would learn from them.",
        ),
        "taken back": (
            lambda z, y, mask=None, mean=False: logprobs.sequence_logprobs(z, y, mask, mean).exp(),
            "The logarithm was taken back: the probability of a whole answer underflows. Its *log* is asked for.",
        ),
    },
    right={
        "a loop": by_loop,
        "log_softmax and gather": built(),
        "cross entropy, channels second": built(
            each=lambda z, y: -F.cross_entropy(z.transpose(1, 2), y, reduction="none", ignore_index=NOT_ASKED)
        ),
        "one-hot": built(
            each=lambda z, y: (F.one_hot(y.clamp(min=0), z.shape[-1]) * (z - z.logsumexp(-1, keepdim=True))).sum(-1)
        ),
    },
    equivalent={
        "0).sum(dim=-1) -> 0).sum(dim=--1)": "of two axes the last is axis 1",
        "0).sum(dim=-1) -> 0).sum(dim=1)": "of two axes the last is axis 1",
        "mask.sum(dim=-1).clamp(min=1) -> mask.sum(dim=--1).clamp(min=1)": "of two axes the last is axis 1",
        "mask.sum(dim=-1).clamp(min=1) -> mask.sum(dim=1).clamp(min=1)": "of two axes the last is axis 1",
        **{f"{WIDE} -> {other}": "the logits are of single precision where answers are graded" for other in NARROW},
    },
)

EXERCISES = [SEQUENCE]
