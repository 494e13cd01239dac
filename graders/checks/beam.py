"""Checks of beam search: the best ways on from several texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, requires, with_dtype
from tinytrans.sampling import beam

# ---- inputs: seed -> what the learner's function is called with. One text leads, so that several ways on are its own.


def texts(draw: Draw, *front: int, W: int = 3, V: int = 7) -> tuple[Tensor, Tensor]:
    scores = -2 - draw.uniform(*front, W) * 2
    return scores, (1.2 * draw.normal(*front, W, V)).log_softmax(-1)


def one_search(draw: Draw) -> tuple[Tensor, Tensor, int]:
    return *texts(draw, W=4, V=9), 4


def some_searches(draw: Draw) -> tuple[Tensor, Tensor, int]:
    return *texts(draw, 2, W=3, V=8), 5


def from_one(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """The first step of a single search: there is a single text, in double precision."""
    scores, log_p = texts(draw, 1, W=1, V=6)
    return 0 * scores.double(), log_p.double(), 4


def some_forbidden(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """A token that may not come has -inf, and so has a text that does not exist."""
    scores, log_p = texts(draw, 2, W=3, V=7)
    log_p[..., 2], scores[:, 1] = float("-inf"), float("-inf")
    return scores, log_p, 4


# ---- laws


def sound(found: Any, scores: Tensor, log_p: Tensor, n: int) -> str | None:
    """Three tensors of n, the sums as they are, the best first."""
    if isinstance(found, tuple) and len(found) == 2:  # with the precisions
        found = found[0]
    if not isinstance(found, list | tuple) or len(found) != 3:
        return "three things are asked for: the scores, the texts and the tokens"
    sums, parents, tokens = found
    if sums.shape != (*scores.shape[:-1], n) or parents.shape != sums.shape or tokens.shape != sums.shape:
        return None
    if parents.max() >= log_p.shape[-2] or tokens.max() >= log_p.shape[-1]:
        return f"there is no such text or token: texts go up to {log_p.shape[-2] - 1}, tokens to {log_p.shape[-1] - 1}"
    ways = scores[..., None] + log_p
    told = ways.flatten(-2).gather(-1, parents * log_p.shape[-1] + tokens)
    if (told - sums).abs().max() > 1e-4:
        return "a score is not that of its text and its token: score of the text plus log-probability of the token"
    if (sums[..., 1:] > sums[..., :-1] + 1e-6).any():
        return "the scores are not in order, best first"
    best = ways.flatten(-2).topk(n, dim=-1).values
    return "there are better ways on than those" if (best - sums).abs().max() > 1e-4 else None


# ---- ways to go wrong


def flat(sums: Tensor, V: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    top = sums.flatten(-2).topk(n)
    return top.values, top.indices // V, top.indices % V


def one_each(scores: Tensor, log_p: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Only the best token of each text, as often as there is room for."""
    ways = scores[..., None] + log_p
    per = -(-n // log_p.shape[-2])
    best = ways.topk(per, dim=-1)
    parents = torch.arange(log_p.shape[-2])[:, None].expand(best.indices.shape)
    order = best.values.flatten(-2).argsort(-1, descending=True)[..., :n]
    return tuple(x.flatten(-2).gather(-1, order) for x in (best.values, parents, best.indices))  # type: ignore[return-value]


def from_the_best_text(scores: Tensor, log_p: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    best = scores.argmax(-1, keepdim=True)
    top = (
        scores.amax(-1, keepdim=True)
        + log_p.gather(-2, best[..., None].expand(*best.shape, log_p.shape[-1]))[..., 0, :]
    )
    values = top.topk(n)
    return values.values, best.expand(values.indices.shape), values.indices


def in_order_of_texts(scores: Tensor, log_p: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    sums, parents, tokens = beam.extend_beams(scores, log_p, n)
    order = (parents * log_p.shape[-1] + tokens).argsort(-1)
    return sums.gather(-1, order), parents.gather(-1, order), tokens.gather(-1, order)


def by_loop(scores: Tensor, log_p: Tensor, n: int) -> tuple[Tensor, ...]:
    """All ways on in a list, sorted, in plain Python."""
    W, V = log_p.shape[-2:]
    rows = []
    for own, next_ones in zip(scores.reshape(-1, W).tolist(), log_p.reshape(-1, W, V).tolist(), strict=True):
        ways = sorted(((own[w] + next_ones[w][t], w, t) for w in range(W) for t in range(V)), key=lambda way: -way[0])
        rows.append(ways[:n])
    columns = [[[way[i] for way in row] for row in rows] for i in range(3)]
    values = torch.tensor(columns[0], dtype=log_p.dtype), torch.tensor(columns[1]), torch.tensor(columns[2])
    return tuple(x.reshape(*scores.shape[:-1], n) for x in values)


def transposed(scores: Tensor, log_p: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens outside, texts inside: another layout, the same answer."""
    ways = (scores[..., None] + log_p).transpose(-2, -1)
    top, W = ways.flatten(-2).topk(n), log_p.shape[-2]
    return top.values, top.indices % W, top.indices // W


def by_sort(scores: Tensor, log_p: Tensor, n: int) -> list[Tensor]:
    V = log_p.shape[-1]
    found = (scores.unsqueeze(-1) + log_p).flatten(-2).sort(-1, descending=True)
    at = found.indices[..., :n]
    return [found.values[..., :n], torch.div(at, V, rounding_mode="floor"), at - V * (at // V)]


EXTEND = exercise(
    "extend_beams",
    reference=beam.extend_beams,
    oracle=by_loop,
    requirements=[
        requires("the best ways on, from whichever text", 2, one_search, law=sound),
        requires("several searches side by side", 1, some_searches, law=sound),
        requires("from a single text, double precision", 1, from_one, run=with_dtype, law=sound),
        requires("what is impossible is not chosen", 1, some_forbidden, law=sound),
    ],
    wrong={
        "one way for each text": (
            one_each,
            "You let each text go on by its own best tokens. The best ways on may all come from one text: compare all "
            "W V of them at once.",
        ),
        "only the best text": (
            from_the_best_text,
            "Only the text that leads goes on. Another one may overtake it with its next token: that is what the beam "
            "is for.",
        ),
        "the past forgotten": (
            lambda scores, log_p, n: flat(log_p, log_p.shape[-1], n),
            "Only the next token counts, and not what the text had gathered before. Add its score.",
        ),
        "the next token forgotten": (
            lambda scores, log_p, n: flat(scores[..., None].expand(log_p.shape) + 0 * log_p, log_p.shape[-1], n),
            "Only the texts' old scores are compared. Add the log-probability of the next token.",
        ),
        "multiplied": (
            lambda scores, log_p, n: flat(scores[..., None] * log_p, log_p.shape[-1], n),
            "You multiply log-probabilities. Probabilities are multiplied, so their logarithms are added.",
        ),
        "probabilities": (
            lambda scores, log_p, n: flat((scores[..., None] + log_p).exp(), log_p.shape[-1], n),
            "The probabilities come out, and no logarithms. After a hundred tokens they would all be 0.",
        ),
        "a mean": (
            lambda scores, log_p, n: flat((scores[..., None] + log_p) / 2, log_p.shape[-1], n),
            "You take a mean of the old score and the new token. The score is the sum over all tokens.",
        ),
        "shared out anew": (
            lambda scores, log_p, n: flat(
                (scores[..., None] + log_p).flatten(-2).log_softmax(-1).view(log_p.shape), log_p.shape[-1], n
            ),
            "You share the scores out anew. They are log-probabilities of whole texts, and stay as they are.",
        ),
        "the worst": (
            lambda scores, log_p, n: (
                lambda low: (low.values, low.indices // log_p.shape[-1], low.indices % log_p.shape[-1])
            )((scores[..., None] + log_p).flatten(-2).topk(n, largest=False)),
            "These are the n least likely ways on.",
        ),
        "text and token exchanged": (
            lambda scores, log_p, n: (lambda s, p, t: (s, t, p))(*beam.extend_beams(scores, log_p, n)),
            "Texts and tokens are exchanged: with rows of V, // V is the row, that is the text, and % V the token.",
        ),
        "divided by the number of texts": (
            lambda scores, log_p, n: (
                lambda top: (top.values, top.indices // log_p.shape[-2], top.indices % log_p.shape[-2])
            )((scores[..., None] + log_p).flatten(-2).topk(n)),
            "You take a flat index apart by the number of texts. A row of the table has V entries: divide by V.",
        ),
        "not in order": (
            in_order_of_texts,
            "The right ways on, not in order. The best one comes first.",
        ),
        "flat places": (
            lambda scores, log_p, n: (lambda top: (top.values, top.indices, top.indices))(
                (scores[..., None] + log_p).flatten(-2).topk(n)
            ),
            "These are places in the flat table of W V ways. Take them apart: which text, which token?",
        ),
        "one too few": (
            lambda scores, log_p, n: beam.extend_beams(scores, log_p, n - 1),
            "One way on is missing: n are asked for.",
        ),
    },
    right={"by a loop": by_loop, "tokens outside": transposed, "by sorting": by_sort},
)

EXERCISES = [EXTEND]
