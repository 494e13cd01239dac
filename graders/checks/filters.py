"""Checks of the filters: temperature, top-k and top-p on logits of any shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, refusal, requires, with_dtype
from tinytrans.sampling import filters

INF = float("inf")
CLOSE = 0.01  # how near a sum of probabilities may come to p: nearer, and rounding would decide who stays

# ---- inputs: seed -> what the learner's function is called with. No two logits of a row are equal or nearly so.


def apart(draw: Draw, *shape: int) -> Tensor:
    """Logits whose values in a row differ by 0.1 at least, of both signs."""
    ranks = draw.uniform(*shape).argsort(dim=-1).argsort(dim=-1)
    return 0.6 * (ranks - shape[-1] / 2) + 0.25 * draw.uniform(*shape) * 2


def one_row(draw: Draw) -> Tensor:
    return apart(draw, draw.integer(7, 9))


def rows(draw: Draw) -> Tensor:
    B, V = draw.integer(3, 4), draw.integer(7, 9)
    return apart(draw, B, V)


def alone(draw: Draw) -> Tensor:
    """One position of one text."""
    return one_row(draw)[None, None]


def stacked(draw: Draw) -> Tensor:
    """Logits (B, T, V) in double precision, not contiguous; every size another."""
    return apart(draw, 2, 3, 7).double().transpose(0, 1)


def crowd(draw: Draw) -> Tensor:
    return apart(draw, 9, 8)


def tempered(shape: Callable[[Draw], Tensor], cold: float, hot: float) -> Callable[[Draw], tuple[Tensor, float]]:
    return lambda draw: (shape(draw), (cold, hot)[draw.integer(0, 1)])


def top(shape: Callable[[Draw], Tensor]) -> Callable[[Draw], tuple[Tensor, int]]:
    return lambda draw: (shape(draw), draw.integer(3, 5))


def more_than_there_are(draw: Draw) -> tuple[Tensor, int]:
    logits = rows(draw)
    return logits, logits.shape[-1] + draw.integer(1, 5)


def only_one(draw: Draw) -> tuple[Tensor, int]:
    return alone(draw), 1


def sums(logits: Tensor) -> Tensor:
    """The probability of the most probable token, of the two most probable ones, and so on."""
    return logits.double().softmax(-1).sort(-1, descending=True).values.cumsum(-1)


def nucleus(shape: Callable[[Draw], Tensor], low: float = 0.7, high: float = 0.9) -> Callable[[Draw], tuple[Any, ...]]:
    """Logits and a p that no sum of probabilities comes near to; the last token of the nucleus crosses it."""

    def inputs(draw: Draw) -> tuple[Tensor, float]:
        while True:
            logits = 1.2 * shape(draw)
            p = round(low + (high - low) * float(draw.uniform(1)), 3)
            if float((sums(logits) - p).abs().min()) > CLOSE:
                return logits, p

    return inputs


def nearly_nothing(draw: Draw) -> tuple[Tensor, float]:
    """A p far below the largest probability: one token stays."""
    return alone(draw), 0.05


def everything(draw: Draw) -> tuple[Tensor, float]:
    return rows(draw) / 4, 1.0


def meaningless(value: float) -> Callable[[Draw], tuple[Tensor, float]]:
    return lambda draw: (rows(draw), value)


# ---- ways to run an answer, and laws: the sentence that says what is violated


def first(found: Any) -> Any:
    return found[0] if isinstance(found, tuple) else found


def must_refuse(found: Any, _logits: Tensor, value: float) -> str | None:
    return None if found == "refused" else f"{value:g} has no meaning here, and there is no error: raise a ValueError"


def only_removes(found: Any, logits: Tensor) -> str | None:
    """The law of filters: what stays keeps its logit, something stays in every row."""
    y = first(found)
    if not isinstance(y, Tensor) or y.shape != logits.shape or y.dtype == torch.bool:
        return None
    if y.isnan().any():
        return "there is NaN in it"
    gone = y == -INF
    if gone.all(dim=-1).any():
        return f"row {gone.all(dim=-1).nonzero()[0].tolist()} has nothing left: its softmax would be 0 / 0"
    if (odd := ~gone & ((y - logits).abs() > 1e-4)).any():
        at = tuple(odd.nonzero()[0].tolist())
        return f"at {list(at)} stands {y[at]:.3g}; the logit was {logits[at]:.3g}, and what goes becomes -inf"
    return None


def keeps_k(found: Any, logits: Tensor, k: int) -> str | None:
    if (told := only_removes(found, logits)) is not None:
        return told
    y, most = first(found), min(k, logits.shape[-1])
    stay = (y > -INF).sum(dim=-1)
    if (stay != most).any():
        at = tuple((stay != most).nonzero()[0].tolist())
        return f"{int(stay[at])} tokens stay where {most} should"
    if (y.masked_fill(y == -INF, INF).amin(-1) < logits.masked_fill(y > -INF, -INF).amax(-1)).any():
        return "as many stay as should, but others than the most probable ones"
    return None


def keeps_the_nucleus(found: Any, logits: Tensor, p: float) -> str | None:
    if (told := only_removes(found, logits)) is not None:
        return told
    kept = logits.softmax(-1).masked_fill(first(found) == -INF, 0.0)
    reached = kept.sum(-1)
    if (reached < p - 1e-5).any():
        at = tuple((reached < p - 1e-5).nonzero()[0].tolist())
        return f"row {list(at)}: what stays has {reached[at]:.3f} of the probability together, less than p = {p}"
    least = kept.masked_fill(kept == 0, INF).amin(-1)
    if (reached - least >= p).any():
        at = tuple((reached - least >= p).nonzero()[0].tolist())
        return f"row {list(at)}: even without the least token that stays, {reached[at] - least[at]:.3f} >= p = {p}"
    return None


# ---- ways to go wrong that filters share

Filter = Callable[[Tensor, Any], Tensor]


def guarded(function: Filter, valid: Callable[[Any], bool]) -> Filter:
    """The same function, which refuses meaningless values."""

    def made(logits: Tensor, value: Any) -> Tensor:
        if not valid(value):
            raise ValueError(f"{value}")
        return function(logits, value)

    return made


def in_place(right: Filter) -> Filter:
    """Writes what is right into the caller's tensor."""
    return lambda logits, value: logits.copy_(right(logits, value))


def hidden_by(right: Filter, value: Callable[[Tensor], float]) -> Filter:
    """Something else than -inf where something is to go."""

    def made(logits: Tensor, of: Any) -> Tensor:
        y = right(logits, of)
        return y.masked_fill(y == -INF, value(logits))

    return made


def over_first_axis(right: Filter) -> Filter:
    """Right, along the first axis instead of the last."""
    return lambda logits, value: right(logits.transpose(0, -1), value).transpose(0, -1)


def over_all(right: Filter) -> Filter:
    """Right, for all rows taken as one."""
    return lambda logits, value: right(logits.flatten(), value).view(logits.shape)


def shares(right: Filter) -> Filter:
    """Probabilities instead of logits."""
    return lambda logits, value: right(logits, value).softmax(-1)


def log_shares(right: Filter) -> Filter:
    return lambda logits, value: right(logits, value).log_softmax(-1)


AS_FILTER = {
    "zero instead of -inf": (
        lambda right: hidden_by(right, lambda _logits: 0.0),
        "What is to go gets the logit 0, and exp(0) = 1 is a good deal of probability. -inf is what becomes 0.",
    ),
    "a large negative number": (
        lambda right: hidden_by(right, lambda _logits: -1e9),
        "-1e9 is nearly right, but half precision can't hold it, and where all logits are small it is a number like "
        "another. Take -inf.",
    ),
    "the least number of the dtype": (
        lambda right: hidden_by(right, lambda logits: torch.finfo(logits.dtype).min),
        "The least finite number is nearly right; divided by a temperature below 1 it overflows. Take -inf, as asked.",
    ),
    "over the wrong axis": (
        over_first_axis,
        "You filter along the first axis: rows of a batch compete with each other. The tokens are on the last axis.",
    ),
    "one filter for the whole batch": (
        over_all,
        "All rows are filtered as if they were one. Each row is a distribution of its own.",
    ),
    "probabilities instead of logits": (
        shares,
        "Probabilities come out. A filter hands logits on, so that another one may follow; the softmax comes last.",
    ),
    "log-probabilities": (
        log_shares,
        "What stays is shared out anew: these are log-probabilities. Drawn from, they are the same, but the function "
        "is to leave the logits of what stays as they are.",
    ),
    "in place": (in_place, "You write into the caller's logits. Work on a copy."),
}


def shared(right: Filter, *without: str) -> dict[str, tuple[Filter, str]]:
    return {name: (make(right), text) for name, (make, text) in AS_FILTER.items() if name not in without}


# ---- temperature


def positive(t: float) -> bool:
    return t > 0


def at(function: Filter) -> Filter:
    return guarded(function, positive)


TEMPERATURE = exercise(
    "temperature",
    reference=filters.temperature,
    oracle=at(lambda logits, t: torch.div(logits, torch.tensor(t, dtype=logits.dtype))),
    requirements=[
        requires("a batch", 1, tempered(rows, 0.4, 0.6)),
        requires("one position of one text", 1, tempered(alone, 0.3, 0.7)),
        requires("any shape, double precision", 1, tempered(stacked, 1.5, 2.5), run=with_dtype),
        requires("a temperature of 0 is refused", 1, meaningless(0.0), run=refusal, law=must_refuse),
        requires("a negative one, too", 1, meaningless(-0.5), run=refusal, law=must_refuse),
    ],
    wrong={
        "multiplied": (
            at(lambda logits, t: logits * t),
            "You multiply by t. A high temperature is to flatten the distribution, so it must make the differences "
            "smaller: divide.",
        ),
        "behind the softmax": (
            at(lambda logits, t: logits.softmax(-1) / t),
            "Probabilities divided by t sum to 1 / t and keep their proportions: nothing gets flatter. The temperature "
            "acts on the logits.",
        ),
        "probabilities instead of logits": (
            at(lambda logits, t: (logits / t).softmax(-1)),
            "Probabilities come out. Hand logits on, so that a filter may follow; the softmax comes last.",
        ),
        "log-probabilities": (
            at(lambda logits, t: (logits / t).log_softmax(-1)),
            "These are log-probabilities. The distribution is right; asked for are the logits divided by t, no more.",
        ),
        "softmax first, then its root": (
            at(lambda logits, t: logits.softmax(-1) ** (1 / t)),
            "p^(1/t) has the right proportions, but these are neither logits nor probabilities that sum to 1. Divide "
            "the logits by t.",
        ),
        "ignored": (at(lambda logits, t: logits.clone()), "The temperature is accepted and not used."),
        "by the root": (at(lambda logits, t: logits / t**0.5), "You divide by the root of t. Divide by t itself."),
        "squared": (at(lambda logits, t: logits / t**2), "You divide by t². Divide by t itself."),
        "subtracted": (
            at(lambda logits, t: logits - t),
            "Subtracting the same number from all logits changes no probability. Divide.",
        ),
        "only where positive": (
            at(lambda logits, t: torch.where(logits > 0, logits / t, logits)),
            "Negative logits stay as they were. All of them are divided, so that all differences shrink alike.",
        ),
        "never above 1": (
            at(lambda logits, t: logits / min(t, 1.0)),
            "Temperatures above 1 are cut down to 1: nothing can be flattened.",
        ),
        "never below 1": (
            at(lambda logits, t: logits / max(t, 1.0)),
            "Temperatures below 1 are raised to 1: nothing can be sharpened.",
        ),
        "a small number against 0": (
            lambda logits, t: logits / max(t, 1e-8),
            "At t = 0 you divide by something tiny instead. Logits of 1e8 are no distribution to draw from in half "
            "precision; the limit is the argmax. Refuse t = 0.",
        ),
        "only 0 refused": (
            lambda logits, t: logits / t if t != 0 else checked(t),
            "Only 0 is refused. A negative temperature turns the order round: the least likely token becomes the "
            "favourite. Refuse whatever is not above 0.",
        ),
        "a shifted temperature": (
            lambda logits, t: logits / (t + 0.1),
            "Something is added to t so that 0 does no harm. It makes all other temperatures wrong: refuse 0 instead.",
        ),
        "division by zero": (
            lambda logits, t: logits / t,
            "Right for t > 0. At t = 0 you divide by 0, and out come infinities and NaN. Raise a ValueError.",
        ),
        "in place": (
            at(lambda logits, t: logits.div_(t)),
            "You write into the caller's logits. Work on a copy: logits / t makes one.",
        ),
    },
    right={
        "times the inverse": at(lambda logits, t: logits * (1 / t)),
        "row by row": at(lambda logits, t: torch.stack([row / t for row in logits])),
        "by assertion": lambda logits, t: logits / torch.full_like(logits, checked(t)),
    },
)


def checked(t: float) -> float:
    assert t > 0
    return t


# ---- top_k


def at_least_one(k: int) -> bool:
    return k >= 1


def k_guard(function: Filter) -> Filter:
    return guarded(function, at_least_one)


def clamped(function: Callable[[Tensor, int], Tensor]) -> Filter:
    """With a k that is never more than there are."""
    return k_guard(lambda logits, k: function(logits, min(k, logits.shape[-1])))


def by_border(logits: Tensor, k: int) -> Tensor:
    """What is less than the k-th largest goes, as most published code has it: equals at the border all stay."""
    border = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < border, -INF)


def by_sorting(logits: Tensor, k: int) -> Tensor:
    ranks = logits.argsort(dim=-1, descending=True).argsort(dim=-1)
    return torch.where(ranks < k, logits, torch.full_like(logits, -INF))


def by_loop(logits: Tensor, k: int) -> Tensor:
    """Row by row in plain Python."""
    out = []
    for row in logits.reshape(-1, logits.shape[-1]).tolist():
        best = sorted(range(len(row)), key=lambda i: -row[i])[:k]
        out.append([x if i in best else -INF for i, x in enumerate(row)])
    return torch.tensor(out, dtype=logits.dtype).reshape(logits.shape)


TOP_K = exercise(
    "top_k",
    reference=filters.top_k,
    oracle=clamped(by_loop),
    requirements=[
        requires("the k largest of each row stay", 2, top(rows), law=keeps_k),
        requires("a single row", 1, top(one_row), law=keeps_k),
        requires("k = 1", 1, only_one, law=keeps_k),
        requires("a k larger than the vocabulary keeps all", 1, more_than_there_are, law=keeps_k),
        requires("any shape, double precision", 1, top(stacked), run=with_dtype, law=keeps_k),
        requires("a k of 0 is refused", 1, meaningless(0), run=refusal, law=must_refuse),
    ],
    wrong={
        "one too many": (
            k_guard(lambda logits, k: by_border(logits, min(k + 1, logits.shape[-1]))),
            "k + 1 tokens stay. Which one is the k-th when one counts from 0?",
        ),
        "one too few": (
            clamped(
                lambda logits, k: by_border(logits, k).masked_fill(logits <= logits.topk(k).values[..., -1:], -INF)
            ),
            "k - 1 tokens stay: the k-th largest itself is to stay. Compare with < and not with <=.",
        ),
        "the smallest": (
            clamped(lambda logits, k: -by_border(-logits, k)),
            "The k least probable tokens stay, and the rest became +inf.",
        ),
        "the smallest stay": (
            clamped(
                lambda logits, k: logits.masked_fill(logits > logits.topk(k, largest=False).values[..., -1:], -INF)
            ),
            "The k least probable tokens stay. `topk` finds the largest unless told otherwise.",
        ),
        "the top ones removed": (
            clamped(lambda logits, k: logits.masked_fill(logits >= logits.topk(k).values[..., -1:], -INF)),
            "The k most probable tokens are what you remove. They are to stay.",
        ),
        "only what stays": (
            clamped(lambda logits, k: logits.topk(k).values),
            "These are the k largest logits by themselves. Which tokens do they belong to? Every token keeps its "
            "place.",
        ),
        "sorted": (
            clamped(lambda logits, k: by_border(logits, k).sort(-1, descending=True).values),
            "The logits come out in sorted order: they no longer stand where their token does.",
        ),
        "the border of the first row": (
            clamped(
                lambda logits, k: logits.masked_fill(
                    logits < logits.reshape(-1, logits.shape[-1])[0].topk(k).values[-1], -INF
                )
            ),
            "The k-th largest of the first row is the border for all rows. Each row has its own.",
        ),
        "always 3": (
            clamped(lambda logits, k: by_border(logits, min(3, logits.shape[-1]))),
            "k is accepted and not used.",
        ),
        "ignored": (k_guard(lambda logits, k: logits.clone()), "Nothing is removed: k is accepted and not used."),
        "k must fit": (
            k_guard(by_border),
            "Right, unless k is larger than the vocabulary: `topk` then raises an error. Take the smaller of the two.",
        ),
        "nothing refused": (
            lambda logits, k: by_border(logits, min(k, logits.shape[-1])) if k else torch.full_like(logits, -INF),
            "Right for k >= 1. With k = 0 nothing is left to draw from: raise a ValueError.",
        ),
        "0 keeps all": (
            lambda logits, k: by_border(logits, min(k or logits.shape[-1], logits.shape[-1])),
            'Right for k >= 1. Some programs take k = 0 for "no filter"; here it is refused with a ValueError.',
        ),
        **shared(clamped(by_border)),
    },
    right={
        "by the border": clamped(by_border),
        "by ranks": clamped(by_sorting),
        "in a loop": clamped(by_loop),
        "scattered": clamped(
            lambda logits, k: torch.full_like(logits, -INF).scatter(-1, logits.topk(k).indices, logits.topk(k).values)
        ),
    },
    equivalent={
        "logits.shape[-1]), dim=-1) -> logits.shape[-1]))": "topk takes the last axis unless told otherwise",
        "logits.topk(min(k, logits.shape[-1]), -> logits.topk(min(logits.shape[-1], k),": (
            "the smaller of two, in either order"
        ),
    },
)

# ---- top_p


def in_range(p: float) -> bool:
    return 0 < p <= 1


def p_guard(function: Filter) -> Filter:
    return guarded(function, in_range)


def sorted_filter(keep: Callable[[Tensor, float, Tensor], Tensor], back: str = "scatter") -> Filter:
    """A filter on the sorted row: `keep` gets the sorted probabilities, p and the sorted logits."""

    def made(logits: Tensor, p: float) -> Tensor:
        ordered, ids = logits.sort(dim=-1, descending=True)
        y = ordered.masked_fill(~keep(ordered.softmax(-1), p, ordered), -INF)
        if back == "no":
            return y
        return y.gather(-1, ids) if back == "gather" else torch.empty_like(y).scatter(-1, ids, y)

    return p_guard(made)


def crossing(chances: Tensor, p: float, _logits: Tensor) -> Tensor:
    """What is right: the sum before a token is still below p."""
    before = chances.cumsum(-1) - chances
    return (before < p) | (p == 1)


def one_short(chances: Tensor, p: float, _logits: Tensor) -> Tensor:
    return chances.cumsum(-1) <= p


def one_short_but_one(chances: Tensor, p: float, _logits: Tensor) -> Tensor:
    keep = chances.cumsum(-1) <= p
    keep[..., 0] = True
    return keep


def one_more(chances: Tensor, p: float, _logits: Tensor) -> Tensor:
    keep = crossing(chances, p, _logits)
    return torch.cat((keep[..., :1], keep[..., :-1]), dim=-1)


def not_sorted(logits: Tensor, p: float) -> Tensor:
    chances = logits.softmax(-1)
    return logits.masked_fill(chances.cumsum(-1) - chances >= p, -INF)


def upwards(logits: Tensor, p: float) -> Tensor:
    """The least probable tokens up to p."""
    ordered, ids = logits.sort(dim=-1)
    chances = ordered.softmax(-1)
    y = ordered.masked_fill(chances.cumsum(-1) - chances >= p, -INF)
    return torch.empty_like(y).scatter(-1, ids, y)


def tail_off(logits: Tensor, p: float) -> Tensor:
    """The usual code with an ascending sort: what lies in the lowest 1 - p goes."""
    ordered, ids = logits.sort(dim=-1)
    gone = ordered.softmax(-1).cumsum(-1) <= 1 - p
    gone[..., -1] = False
    return logits.masked_fill(torch.zeros_like(gone).scatter(-1, ids, gone), -INF)


def by_least(logits: Tensor, p: float) -> Tensor:
    """The nucleus by its least logit: what is smaller goes."""
    ordered = logits.sort(dim=-1, descending=True).values
    chances = ordered.softmax(-1)
    n = (chances.cumsum(-1) - chances < p).sum(-1, keepdim=True)
    return logits.masked_fill(logits < ordered.gather(-1, n - 1), -INF)


def nucleus_by_loop(logits: Tensor, p: float) -> Tensor:
    """Token by token in plain Python, in double precision."""
    out = []
    for row in logits.reshape(-1, logits.shape[-1]):
        chances, total, kept = row.double().softmax(0).tolist(), 0.0, set()
        for i in sorted(range(len(chances)), key=lambda i: -chances[i]):
            if total >= p and p < 1:
                break
            kept.add(i)
            total += chances[i]
        out.append([x if i in kept else -INF for i, x in enumerate(row.tolist())])
    return torch.tensor(out, dtype=logits.dtype).reshape(logits.shape)


def first_axis_softmax(logits: Tensor, p: float) -> Tensor:
    """Sorted along the last axis, but shared out over the first."""
    ordered, ids = logits.sort(dim=-1, descending=True)
    chances = ordered.softmax(0)
    y = ordered.masked_fill(chances.cumsum(-1) - chances >= p, -INF)
    return torch.empty_like(y).scatter(-1, ids, y)


RIGHT_P = p_guard(nucleus_by_loop)
TOP_P = exercise(
    "top_p",
    reference=filters.top_p,
    oracle=RIGHT_P,
    requirements=[
        requires(
            "the nucleus of each row stays, the crossing token included", 3, nucleus(crowd), law=keeps_the_nucleus
        ),
        requires("a single row", 1, nucleus(one_row, 0.4, 0.7), law=keeps_the_nucleus),
        requires("a small p keeps the most probable token", 1, nearly_nothing, law=keeps_the_nucleus),
        requires("p = 1 keeps all", 1, everything, law=keeps_the_nucleus),
        requires("any shape, double precision", 1, nucleus(stacked), run=with_dtype, law=keeps_the_nucleus),
        requires("a p of 0 is refused", 1, meaningless(0.0), run=refusal, law=must_refuse),
        requires("a p above 1, too", 1, meaningless(1.5), run=refusal, law=must_refuse),
    ],
    wrong={
        "the crossing token dropped": (
            sorted_filter(one_short),
            "The token with which the sum crosses p is dropped, so that what stays has less than p; where the first "
            "token alone has more than p, nothing is left. It belongs to the nucleus: look at the sum *before* a "
            "token.",
        ),
        "the crossing token dropped, the first one saved": (
            sorted_filter(one_short_but_one),
            "The token with which the sum crosses p is dropped (except the very first one). It belongs to the nucleus: "
            "look at the sum *before* a token.",
        ),
        "one token too many": (
            sorted_filter(one_more),
            "One token too many stays, the one behind the one that crosses p. Was the shift by one made twice?",
        ),
        "not sorted": (
            p_guard(not_sorted),
            "You add up the probabilities in the order of the vocabulary. The nucleus is of the *most probable* "
            "tokens: sort first.",
        ),
        "the order not undone": (
            sorted_filter(crossing, back="no"),
            "The logits come out sorted: a logit no longer stands at its token's place. Undo the sort.",
        ),
        "the order undone the wrong way": (
            sorted_filter(crossing, back="gather"),
            "`gather` with the sorting order sorts a second time. To go back, value i goes *to* place ids[i]: "
            "`scatter`.",
        ),
        "from the least probable": (
            p_guard(upwards),
            "You collect the least probable tokens up to p. Begin with the most probable one.",
        ),
        "the complement": (
            sorted_filter(lambda chances, p, ordered: ~crossing(chances, p, ordered)),
            "The nucleus is what you remove. It is to stay.",
        ),
        "1 - p": (
            sorted_filter(lambda chances, p, ordered: crossing(chances, 1 - p if p < 1 else 1, ordered)),
            "What stays reaches 1 - p together: p is how much is to stay, not how much is to go.",
        ),
        "logits added up": (
            sorted_filter(lambda chances, p, ordered: (ordered.cumsum(-1) - ordered < p) | (p == 1)),
            "You add up logits. It is probabilities that sum to 1: softmax first.",
        ),
        "probabilities over the batch": (
            p_guard(first_axis_softmax),
            "The softmax goes over the first axis. A row of tokens is a distribution: the last axis.",
        ),
        "each probability against p": (
            sorted_filter(
                lambda chances, p, ordered: (chances >= p) | (torch.arange(chances.shape[-1]) == 0) | (p == 1)
            ),
            "You compare each token's own probability with p. It is the sum from the most probable one on.",
        ),
        "relative to the most probable": (
            sorted_filter(lambda chances, p, ordered: chances >= (1 - p) * chances[..., :1]),
            "That compares each token with the most probable one, as min-p does. Top-p looks at the sum.",
        ),
        "a share of the vocabulary": (
            sorted_filter(
                lambda chances, p, ordered: (
                    torch.arange(chances.shape[-1]) < max(1, round(p * chances.shape[-1]))
                ).expand_as(chances)
            ),
            "You keep the share p of the *tokens*. It is of the probability.",
        ),
        "ignored": (p_guard(lambda logits, p: logits.clone()), "Nothing is removed: p is accepted and not used."),
        "0 keeps one": (
            lambda logits, p: by_least(logits, max(p, 1e-9)) if p < 1 else RIGHT_P(logits, p),
            "Right for 0 < p <= 1. p = 0 asks for a nucleus without probability: raise a ValueError.",
        ),
        "more than 1 keeps all": (
            lambda logits, p: RIGHT_P(logits, min(p, 1.0)),
            "Right for 0 < p <= 1. No nucleus holds more than all of the probability: whoever asks for p = 1.5 has "
            "mixed something up, a k or a temperature perhaps. Raise a ValueError.",
        ),
        "0 leaves nothing": (
            lambda logits, p: RIGHT_P(logits, p) if p else torch.full_like(logits, -INF),
            "Right for 0 < p <= 1. With p = 0 nothing is left, and the softmax of that is NaN: raise a ValueError.",
        ),
        "0 keeps all": (
            lambda logits, p: RIGHT_P(logits, p) if p else logits.clone(),
            "Right for 0 < p <= 1. With p = 0 nothing is removed at all: raise a ValueError.",
        ),
        **shared(RIGHT_P, "over the wrong axis"),
    },
    right={
        "the tail cut off": p_guard(tail_off),
        "by the least logit": p_guard(lambda logits, p: logits if p == 1 else by_least(logits, p)),
        "token by token": RIGHT_P,
        "masked in sorted order": sorted_filter(crossing),
    },
    equivalent={
        "1: -> -1:": "only a vocabulary of thousands makes the sum round past 1",
        "1: -> 0:": "only a vocabulary of thousands makes the sum round past 1",
        "1: -> 2:": "only a vocabulary of thousands makes the sum round past 1",
        "p == 1: -> False:": "only a vocabulary of thousands makes the sum round past 1",
        ">= -> >": "where a sum meets p exactly rounding decides, so no input has such a sum",
        "logits.sort(dim=-1, descending=True) -> logits.sort(descending=True)": (
            "sort takes the last axis unless told otherwise"
        ),
    },
)

# ---- questions

ORDER = question(
    "flat_or_peaked",
    "In one place the model gives one token 0.95 (after *once upon a*), in another 40 tokens about 0.025 each (after "
    "*a fox named*). How do top-k with k = 10 and top-p with p = 0.9 differ there?",
    choices={
        "a": "Not at all: both keep the same number of tokens, since k = 10 is about p = 0.9.",
        "b": "Top-p keeps 1 token in the first place and about 36 in the second; top-k keeps 10 in both: nine unlikely "
        "ones in the first, and in the second only a quarter of the good ones.",
        "c": "Top-k adapts to the place, top-p keeps the same number everywhere.",
        "d": "Both only matter at high temperature; at temperature 1 they change nothing.",
    },
    explanations={
        "a": "A number of tokens and a share of probability measure different things; they agree only by chance.",
        "b": "Yes. The nucleus grows where the model is unsure and shrinks where it is sure. That is why Holtzman et "
        "al. (2019) introduced it; k must be a compromise.",
        "c": "It is the other way round: k is fixed, and the nucleus has as many tokens as it takes to reach p.",
        "d": "At temperature 1 the tail is drawn from as well: that is what the filters are for.",
    },
    answer="b",
)

EXERCISES = [TEMPERATURE, TOP_K, TOP_P, ORDER]
