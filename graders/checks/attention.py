"""Checks of attention: scores, weights, the mix of values, self- and cross-attention, and what it all costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_dtype, with_gradients
from tinytrans.nn import attention as A
from tinytrans.nn import masks

INF = float("inf")

# ---- inputs: seed -> what the learner's function is called with. Head widths are no squares and not 2, so that neither
# K, 2 K, K / 2 nor the rounded root is the root of K; every other size differs from K and from the rest.


def sizes(draw: Draw, n: int) -> list[int]:
    """A head width and n other sizes, all different."""
    K = (3, 5, 6, 7)[draw.integer(0, 3)]
    others = [size for size in range(2, 9) if size != K]
    return [K, *(others[i] for i in draw.permutation(len(others))[:n].tolist())]


def open_mask(draw: Draw, *shape: int) -> Tensor:
    """A mask whose every row shows some keys and hides some."""
    mask = draw.coins(*shape, p=0.6)
    order = draw.uniform(*shape).argsort(dim=-1)
    return mask.scatter(-1, order[..., :1], True).scatter(-1, order[..., 1:2], False)


def hidden_mask(draw: Draw, *shape: int) -> Tensor:
    """The same with one row, the last but one, that may look nowhere."""
    mask = open_mask(draw, *shape)
    mask[..., -2, :] = False
    return mask


def one_query(draw: Draw) -> tuple[Tensor, ...]:
    K, S, d_v = sizes(draw, 2)
    return draw.normal(K), draw.normal(S, K), draw.normal(S, d_v)


def one_query_loud(draw: Draw) -> tuple[Tensor, ...]:
    query, keys, values = one_query(draw)
    return 60 * query, 60 * keys, values


def one_query_double(draw: Draw) -> tuple[Tensor, ...]:
    """Each value is a single number."""
    query, keys, values = (x.double() for x in one_query(draw))
    return query, keys, values[:, :1]


def two(draw: Draw) -> tuple[Tensor, Tensor]:
    K, T, S = sizes(draw, 2)
    return draw.normal(T, K), draw.normal(S, K)


def two_batched(draw: Draw) -> tuple[Tensor, Tensor]:
    K, B, T, S = sizes(draw, 3)
    return draw.normal(B, T, K), draw.normal(B, S, K)


def two_heads(draw: Draw) -> tuple[Tensor, Tensor]:
    """A single query of a batch of one with one head, the keys not contiguous, in double precision."""
    K, S = sizes(draw, 1)
    return draw.normal(1, 1, 1, K, dtype=torch.float64), draw.normal(1, 1, K, S, dtype=torch.float64).transpose(2, 3)


def two_alone(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """A single query of a batch of one with one head, in double precision."""
    K, S = sizes(draw, 1)
    S += 1 if S == 2 else 0
    q, k = (draw.normal(1, 1, n, K, dtype=torch.float64) for n in (1, S))
    return q, k, open_mask(draw, 1, S)


def bare_scores(draw: Draw) -> tuple[Tensor]:
    """A batch of one, each of its heads with a single query."""
    H, S = draw.sizes(2, 3, 8)
    return (2 * draw.normal(1, H, 1, S),)


def scores_and_mask(draw: Draw) -> tuple[Tensor, Tensor]:
    """One mask for all rows of the batch."""
    B, T, S = draw.sizes(3, 3, 8)
    return 2 * draw.normal(B, T, S), open_mask(draw, T, S)


def scores_hidden_row(draw: Draw) -> tuple[Tensor, Tensor]:
    B, T, S = draw.sizes(3, 3, 8)
    return 2 * draw.normal(B, T, S), hidden_mask(draw, B, T, S)


def scores_extreme(draw: Draw) -> tuple[Tensor, Tensor]:
    """Rows at very different heights, and hidden scores far above the visible ones."""
    T, S = draw.sizes(2, 4, 8)
    mask = open_mask(draw, T, S)
    heights = 130.0 * (draw.permutation(T)[:, None] - 1)  # exp(-130) is 0 in single precision, exp(130) infinite
    return heights + 2 * draw.normal(T, S) + 1000.0 * ~mask, mask


def scores_half(draw: Draw) -> tuple[Tensor, Tensor]:
    """Half precision, one head of a batch of one: 1, 2 or 4 equal scores are visible in a row."""
    T, S = 3, draw.integer(5, 8)
    visible = torch.tensor([1, 2, 4])[draw.permutation(3)]
    mask = draw.uniform(T, S).argsort(dim=-1) < visible[:, None]
    return draw.integers(-3, 4, 1, 1, T, 1).half().expand(1, 1, T, S).contiguous(), mask


def pair_and_mask(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """With an axis for heads, and one mask for all of them."""
    K, B, H, T, S = sizes(draw, 4)
    S += 1 if S == 2 else 0
    return draw.normal(B, H, T, K), draw.normal(B, H, S, K), hidden_mask(draw, T, S)


def three(draw: Draw) -> tuple[Tensor, ...]:
    K, B, T, S, d_v = sizes(draw, 4)
    return draw.normal(B, T, K), draw.normal(B, S, K), draw.normal(B, S, d_v)


def three_padded(draw: Draw) -> tuple[Tensor, ...]:
    """With the mask of a padded batch, (B, 1, S)."""
    q, k, v = three(draw)
    return q, k, v, open_mask(draw, k.shape[0], 1, k.shape[1])


def three_hidden_row(draw: Draw) -> tuple[Tensor, ...]:
    q, k, v = three(draw)
    return q, k, v, hidden_mask(draw, q.shape[0], q.shape[1], k.shape[1])


def three_heads(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of one with one head and a single query, not contiguous, in double precision."""
    K, S, d_v = sizes(draw, 2)
    S += 1 if S == 2 else 0
    q, k, v = (draw.normal(1, 1, w, n, dtype=torch.float64).transpose(2, 3) for n, w in ((1, K), (S, K), (S, d_v)))
    return q, k, v, open_mask(draw, 1, S)


def three_even(draw: Draw) -> tuple[Tensor, ...]:
    """One sequence without a batch, as many queries as keys as numbers in each."""
    (K,) = sizes(draw, 0)
    return *(draw.normal(K, K) for _ in range(3)), open_mask(draw, K, K)


def matrix(draw: Draw, D: int, K: int) -> Tensor:
    """Weights that keep the variance of what they are applied to: scores stay near 1, where rounding does no harm."""
    return draw.normal(D, K) / math.sqrt(D)


def itself_even(draw: Draw) -> tuple[Tensor, ...]:
    """All widths equal, so that mixed-up matrices give a value and can be named."""
    D, B, T = sizes(draw, 2)
    return draw.normal(B, T, D), *(matrix(draw, D, D) for _ in range(3))


def itself(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of one."""
    K, T, D, d_v = sizes(draw, 3)
    return draw.normal(1, T, D), *(matrix(draw, D, width) for width in (K, K, d_v))


def itself_alone(draw: Draw) -> tuple[Tensor, ...]:
    """Texts of a single token."""
    D, B = sizes(draw, 1)
    return draw.normal(B, 1, D), *(matrix(draw, D, D) for _ in range(3))


def itself_masked(draw: Draw) -> tuple[Tensor, ...]:
    """No batch, in double precision."""
    x, *matrices = (tensor.double() for tensor in itself(draw))
    T = x.shape[1] + 1
    return torch.cat([x[0], x[0, :1].flip(-1)]), *matrices, open_mask(draw, T, T)


def other_even(draw: Draw) -> tuple[Tensor, ...]:
    """A memory of the sequence's own size, so that mixed-up inputs give a value; no batch, in double precision."""
    D, T = sizes(draw, 1)
    return tuple(x.double() for x in (draw.normal(T, D), draw.normal(T, D), *(matrix(draw, D, D) for _ in range(3))))


def other(draw: Draw) -> tuple[Tensor, ...]:
    K, B, T, S, D, d_v = sizes(draw, 5)
    D_m = D + 3 if D + 3 != K else D + 4
    matrices = matrix(draw, D, K), matrix(draw, D_m, K), matrix(draw, D_m, d_v)
    return draw.normal(B, T, D), draw.normal(B, S, D_m), *matrices


def other_padded(draw: Draw) -> tuple[Tensor, ...]:
    """One row of the batch has an empty memory."""
    inputs = other(draw)
    B, S = inputs[1].shape[:2]
    mask = open_mask(draw, B, 1, S)
    mask[-1] = False
    return *inputs, mask


def other_asks_once(draw: Draw) -> tuple[Tensor, ...]:
    """A single query of a batch of one, as when a decoder writes its next word."""
    x, memory, *matrices, mask = other_padded(draw)
    return x[:1, :1], memory[:1], *matrices, mask[:1]


# ---- ways to run an answer, and laws: the sentence that says what is violated


def in_half(answer: Any, *inputs: Any) -> Any:
    """The value to two places, which is what half precision can promise, and its dtype."""
    value, dtype = with_dtype(answer, *inputs)
    return (value.float().mul(100).round() / 100 if isinstance(value, Tensor) else value), dtype


def first(found: Any) -> Any:
    return found[0] if isinstance(found, tuple) else found


def sound_weights(found: Any, scores: Tensor, mask: Tensor | None = None) -> str | None:
    """The law of attention weights: no NaN, nothing hidden, rows sum to 1."""
    weights = first(found)
    if weights.shape != scores.shape:
        return None
    visible = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.expand_as(scores)
    if weights.isnan().any():
        row = weights.isnan().nonzero()[0].tolist()[:-1]
        sees, largest = int(visible[tuple(row)].sum()), float(scores[tuple(row)].max())
        return f"row {row} holds NaN; it may look at {sees} keys, and its largest score is {largest:.3g}"
    if (leak := (weights != 0) & ~visible).any():
        *row, s = leak.nonzero()[0].tolist()
        return f"row {row} gives weight {weights[(*row, s)]:.3g} to key {s}, which is hidden"
    sums = weights.sum(dim=-1)
    if (off := (sums - visible.any(dim=-1).to(sums)).abs() > 1e-3).any():
        row = off.nonzero()[0].tolist()
        return f"row {row} sums to {sums[tuple(row)]:.4g}: over which axis, and over which keys, is it shared out?"
    return None


def sound_mix(found: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> str | None:
    """The law of a mean: no output is larger than the largest value, or smaller than the smallest."""
    y = first(found)
    if y.shape != (*q.shape[:-1], v.shape[-1]):
        return None
    if y.isnan().any():
        row = y.isnan().nonzero()[0].tolist()[:-1]
        sees = k.shape[-2] if mask is None else int(mask.expand(*q.shape[:-1], k.shape[-2])[tuple(row)].sum())
        return f"query {row} gets NaN; it may look at {sees} keys"
    high, low = v.amax(dim=-2, keepdim=True), v.amin(dim=-2, keepdim=True)
    if mask is None and ((y > high + 1e-3) | (y < low - 1e-3)).any():
        row = ((y > high + 1e-3) | (y < low - 1e-3)).nonzero()[0].tolist()[:-1]
        return f"query {row} gets a number outside of the range of all values: a mean cannot. Do its weights sum to 1?"
    return None


# ---- ways to go wrong, as parts: scores, weights, and the mix that puts them together


def scaled(by: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda q, k: q @ k.transpose(-2, -1) * by(q, k)


NO_SCALE = scaled(lambda q, k: 1.0)
BY_WIDTH = scaled(lambda q, k: 1 / q.shape[-1])
BY_KEYS = scaled(lambda q, k: k.shape[-2] ** -0.5)
BY_QUERIES = scaled(lambda q, k: q.shape[-2] ** -0.5)
BY_EIGHT = scaled(lambda q, k: 1 / 8)
UPWARDS = scaled(lambda q, k: q.shape[-1] ** 0.5)
Weights = Callable[..., Tensor]


def softmax_over(axis: int | None) -> Weights:
    """The softmax along another axis (None: over everything), hidden scores at -inf."""

    def weights(scores: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = scores if mask is None else scores.masked_fill(~mask, -INF)
        return scores.flatten().softmax(0).view_as(scores) if axis is None else scores.softmax(axis)

    return weights


def filled(value: Callable[[Tensor], float]) -> Weights:
    """Hidden scores set to some value before a plain softmax."""
    return lambda scores, mask=None: (scores if mask is None else scores.masked_fill(~mask, value(scores))).softmax(-1)


PLAIN = filled(lambda scores: -INF)
ZEROED = filled(lambda scores: 0.0)
LOWEST = filled(lambda scores: torch.finfo(scores.dtype).min)
BILLION = filled(lambda scores: -1e9)
TEN = filled(lambda scores: -10.0)


def afterwards(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    weights = scores.softmax(-1)
    return weights if mask is None else weights * mask


def afterwards_shared(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    weights = afterwards(scores, mask)
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-20)


def inverted(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    return A.masked_softmax(scores, None if mask is None else ~mask)


def ignored(scores: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG001 (that is the mistake)
    return A.masked_softmax(scores)


def times_infinity(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    return scores.softmax(-1) if mask is None else (scores + (~mask).to(scores) * -INF).softmax(-1)


def infinity_added(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    bias = 0.0 if mask is None else torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -INF)
    return (scores + bias).softmax(-1).nan_to_num(0.0)


def by_exp(largest: Callable[[Tensor, Tensor], Any]) -> Weights:
    """exp of (scores - largest), hidden ones 0, shared out."""

    def weights(scores: Tensor, mask: Tensor | None = None) -> Tensor:
        visible = scores if mask is None else scores.masked_fill(~mask, -INF)
        raised = (visible - largest(scores, visible)).exp()
        return (
            (raised / raised.sum(-1, keepdim=True)).nan_to_num(0.0)
            if raised.isfinite().all()
            else raised / raised.sum(-1, keepdim=True)
        )

    return weights


def in_place(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    return A.masked_softmax(scores if mask is None else scores.data.masked_fill_(~mask, -INF))


def mixed(
    scores: Callable[..., Tensor] = A.attention_scores, weights: Weights = A.masked_softmax
) -> Callable[..., Tensor]:
    """Attention out of parts."""
    return lambda q, k, v, mask=None: weights(scores(q, k), mask) @ v


def weighed(
    scores: Callable[..., Tensor] = A.attention_scores, weights: Weights = A.masked_softmax
) -> Callable[..., Tensor]:
    """Attention weights out of parts."""
    return lambda q, k, mask=None: weights(scores(q, k), mask)


def seen_from_x(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Self-attention around another attend."""
    return lambda x, w_q, w_k, w_v, mask=None: attend(x @ w_q, x @ w_k, x @ w_v, mask)


def seen_in_memory(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Cross-attention around another attend."""
    return lambda x, m, w_q, w_k, w_v, mask=None: attend(x @ w_q, m @ w_k, m @ w_v, mask)


# ---- one query


def one_by_hand(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """In plain Python numbers, two times exact."""
    scores = [
        sum(a * b for a, b in zip(query.tolist(), key, strict=True)) / math.sqrt(len(query)) for key in keys.tolist()
    ]
    raised = [math.exp(score - max(scores)) for score in scores]
    weights = [r / math.fsum(raised) for r in raised]
    return torch.tensor(
        [math.fsum(w * x for w, x in zip(weights, column, strict=True)) for column in values.T.tolist()],
        dtype=values.dtype,
    )


def one_sdpa(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query[None, None], keys[None], values[None])[0, 0]


def one(
    score: Callable[..., Tensor], weigh: Callable[[Tensor], Tensor] = lambda s: s.softmax(0)
) -> Callable[..., Tensor]:
    return lambda query, keys, values: weigh(score(query, keys, values)) @ values


def fit(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:  # noqa: ARG001 (all of `one`'s scores take three)
    return keys @ query / math.sqrt(len(query))


def one_is_a_mean(found: Any, query: Tensor, keys: Tensor, values: Tensor) -> str | None:
    y = first(found)
    return sound_mix(y[None], query[None], keys, values) if y.shape == values.shape[1:] else None


ATTEND_ONE = exercise(
    "attend_one",
    reference=A.attend_one,
    oracle=one_sdpa,
    forbidden=("F.scaled_dot_product_attention", "nn.MultiheadAttention"),
    requirements=[
        requires(
            "the values, mixed by how well each key fits, and the gradients",
            2,
            one_query,
            run=with_gradients,
            law=one_is_a_mean,
        ),
        requires("huge scores give a clear choice, not NaN", 1, one_query_loud, law=one_is_a_mean),
        requires("values of one number, double precision", 1, one_query_double, run=with_dtype),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: A.attend_one(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a value of one number still has an axis.",
        ),
        "no scaling": (
            one(lambda q, k, v: k @ q),
            "The scores are not divided by √K, so the softmax is sharper than it should be, and the more so the "
            "wider the query. K is the number of entries of the query.",
        ),
        "divided by K": (
            one(lambda q, k, v: k @ q / len(q)),
            "The scores are divided by K where √K is asked for: the weights come out too even. A sum of K random "
            "products grows like √K.",
        ),
        "divided by the root of the number of keys": (
            one(lambda q, k, v: k @ q / math.sqrt(len(k))),
            "You divide by the root of how many keys there are. What makes a dot product large is how many numbers "
            "it sums: the width K of the query.",
        ),
        "divided by the root of the value width": (
            one(lambda q, k, v: k @ q / math.sqrt(v.shape[1])),
            "You divide by the root of the width of the values. The scores are made of queries and keys; it is their "
            "width that counts.",
        ),
        "multiplied by the root": (
            one(lambda q, k, v: k @ q * math.sqrt(len(q))),
            "The scores are multiplied by √K instead of divided: nearly all the weight lands on one key.",
        ),
        "no softmax": (
            one(fit, lambda s: s),
            "The raw scores are used as weights. They may be negative and need not sum to 1, so the result is no "
            "mean of the values: turn them into shares first.",
        ),
        "divided by the sum": (
            one(fit, lambda s: s / s.sum()),
            "The scores are divided by their sum. They do sum to 1 then, but some are negative, and a sum near 0 "
            "blows up. What makes every number positive before sharing out?",
        ),
        "softmax by hand without a shift": (
            one(fit, lambda s: s.exp() / s.exp().sum()),
            "Right for small scores; for large ones exp overflows to infinity, and infinity over infinity is NaN. "
            "Subtracting the same number from all scores changes no weight: which one keeps exp at 1 or below?",
        ),
        "takes the best only": (
            lambda query, keys, values: values[(keys @ query).argmax()],
            "Only the value of the best key is returned. Attention mixes all the values, each by its share; a hard "
            "choice also lets no gradient reach the query.",
        ),
        "plain mean": (
            one(lambda q, k, v: torch.zeros(len(k), dtype=v.dtype)),
            "All values count the same: the query plays no part.",
        ),
        "sigmoid instead of softmax": (
            one(fit, torch.sigmoid),
            "Each key is weighed on its own, so the weights don't sum to 1. The keys should compete for one total.",
        ),
        "returns the weights": (
            lambda query, keys, values: fit(query, keys, values).softmax(0),
            "You return the weights, one number for each key. One step is left: mix the values with them.",
        ),
        "gives away what fits worst": (
            one(lambda q, k, v: -fit(q, k, v)),
            "The sign is turned: the key that fits worst gets the most weight.",
        ),
        "no gradient through the weights": (
            one(fit, lambda s: s.softmax(0).detach()),
            "The output is right, but no gradient reaches the query and the keys, so nothing would learn where to "
            "look. Look for `detach`, `.data`, `.item()`, `no_grad` or a tensor built anew from numbers.",
        ),
        "single precision": (
            lambda query, keys, values: A.attend_one(query.float(), keys.float(), values.float()),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "a loop over keys": lambda query, keys, values: sum(
            w * value
            for w, value in zip(
                torch.stack([key @ query / len(query) ** 0.5 for key in keys]).softmax(0), values, strict=True
            )
        ),
        "einsum": lambda q, k, v: torch.einsum(
            "s,sd->d", (torch.einsum("k,sk->s", q, k) * len(q) ** -0.5).softmax(0), v
        ),
        "the query scaled first": lambda q, k, v: v.T @ F.softmax(k @ (q / q.numel() ** 0.5), dim=-1),
        "fused": one_sdpa,
    },
    equivalent={
        "math.sqrt(query.shape[0]) -> math.sqrt(query.shape[-1])": "there is one axis, whatever it is called",
        "scores.softmax(dim=0) -> scores.softmax(dim=-1)": "there is one axis, whatever it is called",
    },
)

# ---- scores


def scores_by_hand(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("...tk,...sk->...ts", q.double(), k.double()).div(math.sqrt(q.shape[-1])).to(q.dtype)


def unbatched(q: Tensor, k: Tensor) -> Tensor:
    """Every query with every key of the whole batch."""
    return (q.flatten(0, -2) @ k.flatten(0, -2).T) / math.sqrt(q.shape[-1])


def scores_loop(q: Tensor, k: Tensor) -> Tensor:
    rows = [(k * q[..., t : t + 1, :]).sum(-1) / math.sqrt(q.shape[-1]) for t in range(q.shape[-2])]
    return torch.stack(rows, dim=-2)


SCORES = exercise(
    "attention_scores",
    reference=A.attention_scores,
    oracle=scores_by_hand,
    requirements=[
        requires("one sequence: each query with each key, and the gradients", 1, two, run=with_gradients),
        requires("a batch", 1, two_batched),
        requires("one head, a single query, double precision, keys not contiguous", 1, two_heads, run=with_dtype),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: A.attention_scores(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single query loses its axis, and so does a "
            "batch of one.",
        ),
        "no scaling": (
            NO_SCALE,
            "The scores are not divided by √K. Their spread then grows with the width, and a wide head's softmax "
            "saturates: almost one-hot, with almost no gradient.",
        ),
        "divided by K": (
            BY_WIDTH,
            "You divide by K. The standard deviation of a sum of K products is √K, so dividing by K leaves scores "
            "that are too small and attention that hardly tells keys apart.",
        ),
        "divided by the root of the number of keys": (
            BY_KEYS,
            "You divide by the root of S, the number of keys. It is the last axis, the width K, that the dot product "
            "sums over.",
        ),
        "divided by the root of the number of queries": (
            BY_QUERIES,
            "You divide by the root of T, the number of queries. Which entry of `q.shape` is the width?",
        ),
        "divided by a constant": (
            BY_EIGHT,
            "You divide by 8, the root of the original paper's width 64. Read the width off the tensor instead.",
        ),
        "multiplied by the root": (
            UPWARDS,
            "The scores are multiplied by √K instead of divided: a spread of K instead of 1.",
        ),
        "a rounded root": (
            scaled(lambda q, k: 1 / int(math.sqrt(q.shape[-1]))),
            "The root of K is rounded to a whole number. Widths need not be squares: divide by the root as it is.",
        ),
        "keys ask queries": (
            lambda q, k: A.attention_scores(k, q),
            "The result is (S, T): the keys ask the queries. Rows belong to queries; which of the two has to be "
            "transposed?",
        ),
        "already weights": (
            lambda q, k: A.attention_scores(q, k).softmax(-1),
            "These are the weights, after the softmax. Here only the scores are asked for, so that a mask can still "
            "act on them.",
        ),
        "angles only": (
            lambda q, k: A.attention_scores(F.normalize(q, dim=-1), F.normalize(k, dim=-1)),
            "You compare directions only (cosine). In a dot product the length counts too: a long key is a key that "
            "speaks up.",
        ),
        "element by element": (
            lambda q, k: (q[..., :, None, :] * k[..., None, :, :]) / math.sqrt(q.shape[-1]),
            "The products of the entries are there, but not summed: the last axis should be gone.",
        ),
        "across the batch": (
            unbatched,
            "Right for one sequence. With a batch, the axes in front are flattened together, so that queries meet "
            "the keys of other sequences. Only the last two axes take part in the product.",
        ),
        "the wrong axes transposed": (
            lambda q, k: q @ k.permute(*reversed(range(k.dim()))) / math.sqrt(q.shape[-1]),
            "Right for two axes, an error with more: the keys' axes are all reversed. Swap the last two and leave "
            "the batch alone.",
        ),
        "no gradient to the keys": (
            lambda q, k: A.attention_scores(q, k.detach()),
            "The numbers are right, but no gradient reaches the keys: they would never learn to be found.",
        ),
        "single precision": (
            lambda q, k: A.attention_scores(q.float(), k.float()),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "einsum": lambda q, k: torch.einsum("...tk,...sk->...ts", q, k) * q.size(-1) ** -0.5,
        "both scaled by the fourth root": lambda q, k: (q / q.shape[-1] ** 0.25) @ (k / q.shape[-1] ** 0.25).mT,
        "a loop over queries": scores_loop,
        "summed products": lambda q, k: (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1) / math.sqrt(k.shape[-1]),
        "baddbmm": lambda q, k: torch.baddbmm(
            q.new_zeros(1),
            q.flatten(0, -3) if q.dim() > 2 else q[None],
            (k.flatten(0, -3) if k.dim() > 2 else k[None]).mT,
            beta=0,
            alpha=q.shape[-1] ** -0.5,
        ).view(*q.shape[:-1], k.shape[-2]),
    },
)

# ---- weights


def softmax_by_hand(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """exp over sum of exp in double precision, row by row."""
    visible = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.expand_as(scores)
    rows = []
    for row, sees in zip(scores.double().flatten(0, -2), visible.flatten(0, -2), strict=True):
        raised = torch.where(sees, (row - row[sees].max()).clamp(max=0).exp(), 0.0) if sees.any() else 0 * row
        rows.append(raised / raised.sum() if sees.any() else raised)
    return torch.stack(rows).view_as(scores).to(scores.dtype)


def nan_to_zero(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    return scores.softmax(-1) if mask is None else scores.masked_fill(~mask, -INF).softmax(-1).nan_to_num(0.0)


def lowest_then_zero(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is None:
        return F.softmax(scores, dim=-1)
    return torch.where(mask, torch.where(mask, scores, torch.finfo(scores.dtype).min).softmax(-1), 0.0)


def by_logsumexp(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.expand_as(scores)
    safe = torch.where(mask.any(-1, keepdim=True), scores.masked_fill(~mask, -INF), torch.zeros_like(scores))
    return (safe - safe.logsumexp(-1, keepdim=True)).exp() * mask


SOFTMAX = exercise(
    "masked_softmax",
    reference=A.masked_softmax,
    oracle=softmax_by_hand,
    requirements=[
        requires(
            "without a mask each row sums to 1, and the gradients",
            1,
            bare_scores,
            run=with_gradients,
            law=sound_weights,
        ),
        requires(
            "hidden keys get nothing, the others share all; the scores stay as they were",
            1,
            scores_and_mask,
            law=sound_weights,
        ),
        requires(
            "a row that may look nowhere: zeros, and a finite gradient",
            1,
            scores_hidden_row,
            run=with_gradients,
            law=sound_weights,
        ),
        requires("huge scores, the hidden ones above all", 1, scores_extreme, law=sound_weights),
        requires("half precision", 1, scores_half, run=in_half, law=sound_weights),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: A.masked_softmax(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single query loses its axis, and so does a "
            "batch of one.",
        ),
        "over the queries": (
            softmax_over(-2),
            "The columns sum to 1, not the rows: the softmax runs over the queries. Each query shares out its "
            "attention over the keys, the last axis.",
        ),
        "over the batch": (
            softmax_over(0),
            "The softmax runs over axis 0. With a batch in front that compares different sentences with each other; "
            "the keys are the last axis.",
        ),
        "over everything": (
            softmax_over(None),
            "The whole tensor sums to 1 instead of each row: tell the softmax which axis is the keys.",
        ),
        "hidden scores set to 0": (
            ZEROED,
            "Hidden scores are set to 0, but exp(0) = 1: hidden keys still get a share, often a large one. Which "
            "score has the exp 0?",
        ),
        "hidden scores set to -10": (
            TEN,
            "A hidden key still gets exp(-10) of a share. Small is not zero, and where visible scores are low too it "
            "is not even small: only -∞ hides.",
        ),
        "hidden after the softmax": (
            afterwards,
            "The hidden weights are zeroed after the softmax, so what they had taken is missing: the rows sum to "
            "less than 1. Hide before sharing out.",
        ),
        "hidden after the softmax, shared again": (
            afterwards_shared,
            "Dividing again after the softmax works as long as the hidden scores are moderate. Where a hidden score "
            "towers above the rest, all visible weights have already been rounded to 0. Hide first, then share.",
        ),
        "the mask turned round": (
            inverted,
            "The mask is read the wrong way: True means may look. What gets weight here is just what should be hidden.",
        ),
        "the mask ignored": (ignored, "The mask is accepted and not used: hidden keys get weight."),
        "NaN where nothing is visible": (
            PLAIN,
            "Right, except for a row that may look nowhere: exp(-∞) is 0 for all its keys, and 0 / 0 is NaN. One "
            "such row spoils the whole batch at the next layer. Give it zeros.",
        ),
        "equal weights where nothing is visible": (
            LOWEST,
            "A row that may look nowhere gets 1/S for every key: the lowest finite number is the same for all, and "
            "the softmax shares evenly. Such a row should get zeros.",
        ),
        "-1e9 for -inf": (
            BILLION,
            "-1e9 is a stand-in for -∞ that half precision cannot hold (it ends at 65504), and a row that may look "
            "nowhere gets equal weights instead of zeros. Use the real -∞ and think of that row.",
        ),
        "0 times infinity": (
            times_infinity,
            "The mask is multiplied by -∞. Where nothing is hidden that is 0 · ∞ = NaN. Choose between two values "
            "instead of multiplying.",
        ),
        "NaN in the gradient": (
            infinity_added,
            "The weights are right, but a row that may look nowhere sends NaN backwards: its softmax was NaN before "
            "you replaced it, and the gradient still passes through there. Fill the scores (then the filled places "
            "pass no gradient on) rather than adding -∞ to them.",
        ),
        "no shift before exp": (
            by_exp(lambda scores, visible: 0.0),
            "exp overflows on large scores and NaN follows. Subtracting the same number from a row changes none of "
            "its weights: the row's largest is the safe choice.",
        ),
        "shifted by the largest of all": (
            by_exp(lambda scores, visible: visible.max()),
            "One number is subtracted from all rows, the largest of the whole tensor. A row far below it underflows "
            "to zeros. Each row needs its own.",
        ),
        "shifted by a hidden score": (
            by_exp(lambda scores, visible: scores.amax(-1, keepdim=True)),
            "The largest score is taken before hiding. If a hidden key holds it, the visible ones underflow to "
            "zeros. Hide first, then look for the largest.",
        ),
        "not shared out": (
            lambda scores, mask=None: (
                (scores if mask is None else scores.masked_fill(~mask, -INF)).sub(scores.amax(-1, keepdim=True)).exp()
            ),
            "The exponentials are there, but not divided by their sum: the rows don't sum to 1.",
        ),
        "no gradient": (
            lambda scores, mask=None: A.masked_softmax(scores, mask).detach(),
            "The weights are right, but no gradient reaches the scores, so nothing would learn where to look. Look "
            "for `detach`, `.data` or `no_grad`.",
        ),
        "written into the scores": (
            in_place,
            "The mask is written into the scores that you were given: whoever still needs them finds -∞. Leave out "
            "the trailing underscore of the in-place method, or work on a copy.",
        ),
        "single precision": (
            lambda scores, mask=None: A.masked_softmax(scores.float(), mask),
            "Half precision goes in and single comes out: return the dtype that came in.",
        ),
    },
    right={
        "softmax, then NaN to zero": nan_to_zero,
        "where, twice": lowest_then_zero,
        "logsumexp": by_logsumexp,
        "by hand": softmax_by_hand,
    },
    equivalent={
        "largest.detach()).exp() -> largest).exp()": "what is taken from all scores cancels, also in the gradient",
    },
)


def weights_sdpa(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's attention with one-hot values: what comes out are the weights."""
    S = k.shape[-2]
    return F.scaled_dot_product_attention(q, k, torch.eye(S, dtype=q.dtype).expand(*k.shape[:-2], S, S), mask)


def sound_matrix(found: Any, q: Tensor, k: Tensor, mask: Tensor | None = None) -> str | None:
    return sound_weights(found, A.attention_scores(q, k), mask)


WEIGHTS = exercise(
    "attention_weights",
    reference=A.attention_weights,
    oracle=weights_sdpa,
    forbidden=("F.scaled_dot_product_attention", "nn.MultiheadAttention"),
    requirements=[
        requires("the attention matrix, and the gradients", 1, two_batched, run=with_gradients, law=sound_matrix),
        requires("with a mask, one row of which is empty", 1, pair_and_mask, run=with_gradients, law=sound_matrix),
        requires(
            "one head, a single query of a batch of one, double precision",
            1,
            two_alone,
            run=with_dtype,
            law=sound_matrix,
        ),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: A.attention_weights(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single query loses its axis, and so does a "
            "batch of one.",
        ),
        "keys ask queries": (
            lambda q, k, mask=None: A.masked_softmax(A.attention_scores(k, q), mask),
            "Queries and keys are exchanged: your matrix is (S, T). Each row belongs to a query.",
        ),
        "the mask forgotten": (
            weighed(weights=ignored),
            "The mask is not handed on, so hidden keys get weight.",
        ),
        "scores only": (
            lambda q, k, mask=None: (
                A.attention_scores(q, k) if mask is None else A.attention_scores(q, k).masked_fill(~mask, -INF)
            ),
            "These are the scores. One step is missing until each row is a distribution over the keys.",
        ),
        "no scaling": (weighed(NO_SCALE), "The scores are not divided by √K, so the weights are too sharp."),
        "scaled twice": (
            weighed(BY_WIDTH),
            "The scores are divided by K: either the root is missing or √K was applied twice, here and inside "
            "`attention_scores`.",
        ),
        "scaled after the softmax": (
            lambda q, k, mask=None: A.masked_softmax(NO_SCALE(q, k), mask) / math.sqrt(q.shape[-1]),
            "You divide by √K after the softmax: rows sum to 1/√K, and the softmax was already too sharp. Scale the "
            "scores.",
        ),
        "over the queries": (
            weighed(weights=softmax_over(-2)),
            "The columns sum to 1, not the rows: the softmax runs over the queries.",
        ),
        "the mask turned round": (weighed(weights=inverted), "The mask is read the wrong way: True means may look."),
        "NaN where nothing is visible": (
            weighed(weights=PLAIN),
            "A query that may look nowhere gets NaN. Your `masked_softmax` gives it zeros: use it.",
        ),
        "equal weights where nothing is visible": (
            weighed(weights=LOWEST),
            "A query that may look nowhere shares itself out evenly over hidden keys. It should get zeros: see to that "
            "row in `masked_softmax`.",
        ),
        "hidden scores set to 0": (
            weighed(weights=ZEROED),
            "Hidden scores are set to 0, and exp(0) = 1: hidden keys keep a share.",
        ),
        "no gradient": (
            lambda q, k, mask=None: A.attention_weights(q, k, mask).detach(),
            "The weights are right, but cut off from the queries and keys: no gradient gets through.",
        ),
    },
    right={
        "in one line": lambda q, k, mask=None: nan_to_zero(
            torch.einsum("...tk,...sk->...ts", q, k) / q.shape[-1] ** 0.5, mask
        ),
        "fused, with one-hot values": weights_sdpa,
        "the query scaled first": lambda q, k, mask=None: lowest_then_zero(
            torch.matmul(q * q.shape[-1] ** -0.5, k.mT), mask
        ),
    },
)

# ---- attention


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask)


def attend_loops(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Query by query, key by key."""
    T, S = q.shape[-2], k.shape[-2]
    mask = torch.ones(T, S, dtype=torch.bool) if mask is None else mask
    mask = mask.expand(*q.shape[:-2], T, S)
    rows = []
    for t in range(T):
        scores = torch.stack([(q[..., t, :] * k[..., s, :]).sum(-1) / q.shape[-1] ** 0.5 for s in range(S)], dim=-1)
        weights = lowest_then_zero(scores, mask[..., t, :])
        rows.append(torch.stack([weights[..., s, None] * v[..., s, :] for s in range(S)]).sum(0))
    return torch.stack(rows, dim=-2)


def values_hidden(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    weights = A.attention_weights(q, k)
    return weights @ v if mask is None else (weights * mask) @ v


ATTEND = exercise(
    "attend",
    reference=A.attend,
    oracle=sdpa,
    forbidden=("F.scaled_dot_product_attention", "nn.MultiheadAttention"),
    requirements=[
        requires("softmax(Q Kᵀ / √K) V, and the gradients", 2, three, run=with_gradients, law=sound_mix),
        requires("with the mask of a padded batch", 1, three_padded, law=sound_mix),
        requires(
            "a query that may look nowhere gets zeros, and a finite gradient",
            1,
            three_hidden_row,
            run=with_gradients,
            law=sound_mix,
        ),
        requires("one sequence without a batch, all sizes equal", 1, three_even, law=sound_mix),
        requires("one head, a single query, double precision", 1, three_heads, run=with_dtype, law=sound_mix),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda q, k, v, mask=None: A.attend(q, k, v, mask).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a batch of one, or a single query, goes with it.",
        ),
        "added to what was there": (
            lambda q, k, v, mask=None: A.attend(q, k, v, mask) + (v if v.shape == q.shape else 0),
            "The values are added on top of their mix. That is a residual; here only the mix is asked for.",
        ),
        "no scaling": (
            mixed(NO_SCALE),
            "The scores are not divided by √K: the attention is sharper than it should be, more so the wider the head.",
        ),
        "divided by K": (
            mixed(BY_WIDTH),
            "The scores are divided by K, not by its root: the attention is too even, as if each query were half "
            "asleep.",
        ),
        "divided by the root of the value width": (
            lambda q, k, v, mask=None: A.masked_softmax(q @ k.mT / math.sqrt(v.shape[-1]), mask) @ v,
            "You divide by the root of d_v, the width of the values. Values take no part in the scores; the width of "
            "queries and keys counts. The two are often equal, so this mistake can sleep for years.",
        ),
        "divided by the root of the number of keys": (
            mixed(BY_KEYS),
            "You divide by √S, with S the number of keys. A longer text would make attention flatter; the width K is "
            "what counts.",
        ),
        "divided by the root of the number of queries": (
            mixed(BY_QUERIES),
            "You divide by √T, with T the number of queries, where √K is asked for.",
        ),
        "over the queries": (
            mixed(weights=softmax_over(-2)),
            "The softmax runs over the queries: the columns of the attention matrix sum to 1, not its rows. Each "
            "query shares out over the keys.",
        ),
        "over the batch": (
            mixed(weights=softmax_over(0)),
            "The softmax runs over axis 0: sentences of one batch compete with each other. The keys are the last "
            "axis of the scores.",
        ),
        "hidden scores set to 0": (
            mixed(weights=ZEROED),
            "Hidden scores are set to 0 before the softmax. exp(0) = 1, so hidden tokens still speak.",
        ),
        "hidden after the softmax": (
            mixed(weights=afterwards),
            "The mask comes after the softmax: the visible weights sum to less than 1, and how much is missing tells "
            "about the hidden tokens.",
        ),
        "the mask turned round": (mixed(weights=inverted), "The mask is read the wrong way: here True = may look."),
        "the mask ignored": (mixed(weights=ignored), "The mask is accepted and not used: every query sees every key."),
        "NaN where nothing is visible": (
            mixed(weights=PLAIN),
            "A query that may look nowhere gets NaN (0 / 0 in its softmax). Padding makes such rows; give them zeros.",
        ),
        "the mean where nothing is visible": (
            mixed(weights=LOWEST),
            "A query that may look nowhere gets the mean of all values, hidden ones included. It should get zeros.",
        ),
        "always causal": (
            lambda q, k, v, mask=None: A.attend(
                q,
                k,
                v,
                masks.causal(q.shape[-2], max(k.shape[-2], q.shape[-2]))[:, -k.shape[-2] :] if mask is None else mask,
            ),
            "Without a mask you hide the future all the same. Attention itself sees everything; whoever calls it "
            "decides.",
        ),
        "returns the weights": (
            lambda q, k, v, mask=None: A.attention_weights(q, k, mask),
            "You return the attention matrix. Mix the values with it.",
        ),
        "no gradient through the weights": (
            lambda q, k, v, mask=None: A.attention_weights(q, k, mask).detach() @ v,
            "The output is right, and the values get a gradient, but queries and keys get none: where to look would "
            "never be learned.",
        ),
        "dropout left on": (
            lambda q, k, v, mask=None: A.attention_weights(q, k, mask) * (torch.arange(k.shape[-2]) % 3 > 0) * 1.5 @ v,
            "Some weights are dropped and the others enlarged. Dropout belongs to training, and is not asked for here.",
        ),
        "single precision": (
            lambda q, k, v, mask=None: A.attend(q.float(), k.float(), v.float(), mask),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "fused": sdpa,
        "loops": attend_loops,
        "einsum": lambda q, k, v, mask=None: torch.einsum(
            "...ts,...sd->...td", nan_to_zero(torch.einsum("...tk,...sk->...ts", q, k) / math.sqrt(q.size(-1)), mask), v
        ),
        "the mean last": lambda q, k, v, mask=None: unnormalised(q, k, v, mask),
    },
)


def unnormalised(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mix first, divide by the sum afterwards, as fused kernels do."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    scores = scores if mask is None else torch.where(mask, scores, -INF)
    raised = (scores - scores.amax(-1, keepdim=True).clamp(min=-1e30)).exp()
    return raised @ v / raised.sum(-1, keepdim=True).clamp(min=1e-30)


# ---- self-attention


def self_sdpa(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, mask: Tensor | None = None) -> Tensor:
    return sdpa(F.linear(x, w_q.T), F.linear(x, w_k.T), F.linear(x, w_v.T), mask)


def self_in_one(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, mask: Tensor | None = None) -> Tensor:
    """One product with all three matrices side by side, then cut apart."""
    q, k, v = (x @ torch.cat([w_q, w_k, w_v], dim=1)).split([w_q.shape[1], w_k.shape[1], w_v.shape[1]], dim=-1)
    return sdpa(q, k, v, mask)


SELF = exercise(
    "self_attend",
    reference=A.self_attend,
    oracle=self_sdpa,
    forbidden=("F.scaled_dot_product_attention", "nn.MultiheadAttention"),
    requirements=[
        requires("queries, keys and values from the same x, all widths equal", 1, itself_even),
        requires("all widths different, and the gradients of x and the three matrices", 1, itself, run=with_gradients),
        requires("with a mask, no batch, double precision", 1, itself_masked, run=with_dtype),
        requires("texts of a single token", 1, itself_alone),
    ],
    wrong={
        "the axis of the tokens dropped": (
            lambda *inputs: A.self_attend(*inputs).squeeze(-2),
            "A text of a single token loses the axis of the tokens. `squeeze` drops an axis wherever its size is 1.",
        ),
        "W_q and W_k exchanged": (
            lambda x, w_q, w_k, w_v, mask=None: A.self_attend(x, w_k, w_q, w_v, mask),
            "W_q and W_k are exchanged: each token asks with its key. The matrix of scores is transposed by that, so "
            "who attends to whom is turned round.",
        ),
        "keys from W_q": (
            lambda x, w_q, w_k, w_v, mask=None: A.self_attend(x, w_q, w_q, w_v, mask),
            "W_k is never used: the keys come from W_q as well. Then the score of i with j equals that of j with i, "
            "and every token looks mostly at itself.",
        ),
        "queries from W_k": (
            lambda x, w_q, w_k, w_v, mask=None: A.self_attend(x, w_k, w_k, w_v, mask),
            "W_q is never used: the queries come from W_k as well. Asking and being found need two different views.",
        ),
        "values from W_k": (
            lambda x, w_q, w_k, w_v, mask=None: A.attend(x @ w_q, x @ w_k, x @ w_k, mask),
            "The keys serve as values too, and W_v is never used. What makes a token findable need not be what it "
            "has to say.",
        ),
        "values are x itself": (
            lambda x, w_q, w_k, w_v, mask=None: A.attend(x @ w_q, x @ w_k, x, mask),
            "The tokens are mixed as they are, without W_v: there is no choice in what is handed on.",
        ),
        "queries are x itself": (
            lambda x, w_q, w_k, w_v, mask=None: A.attend(x, x @ w_k, x @ w_v, mask),
            "x asks as it is, without W_q.",
        ),
        "weights transposed": (
            lambda x, w_q, w_k, w_v, mask=None: A.attend(x @ w_q.T, x @ w_k.T, x @ w_v.T, mask),
            "The matrices are applied the way `nn.Linear` stores them, transposed. Here they are (D, K): a row x "
            "times the matrix.",
        ),
        "the mask forgotten": (
            lambda x, w_q, w_k, w_v, mask=None: A.self_attend(x, w_q, w_k, w_v),
            "The mask is not handed on to `attend`: every token sees every other.",
        ),
        "x added": (
            lambda x, w_q, w_k, w_v, mask=None: x + A.self_attend(x, w_q, w_k, w_v, mask),
            "x is added to the result. That residual connection belongs to the block around attention, which comes "
            "in lesson 07.",
        ),
        "no scaling": (
            seen_from_x(mixed(NO_SCALE)),
            "The scores are not divided by √K, the width of queries and keys.",
        ),
        "divided by the root of the model width": (
            lambda x, w_q, w_k, w_v, mask=None: (
                A.masked_softmax(NO_SCALE(x @ w_q, x @ w_k) / math.sqrt(x.shape[-1]), mask) @ x @ w_v
            ),
            "You divide by √D, the width of x. The dot products sum over K, the width of queries and keys; the two "
            "only happen to be equal in the first case.",
        ),
        "over the queries": (
            seen_from_x(mixed(weights=softmax_over(-2))),
            "The softmax runs over the queries, so the columns sum to 1 and not the rows.",
        ),
        "keys cut off": (
            lambda x, w_q, w_k, w_v, mask=None: A.attend(x @ w_q, (x @ w_k).detach(), x @ w_v, mask),
            "The output is right, but W_k gets no gradient: the keys are cut off from it (`detach`, `.data` or a new "
            "tensor).",
        ),
        "the mask turned round": (
            seen_from_x(mixed(weights=inverted)),
            "The mask is read the wrong way: True = may look.",
        ),
    },
    right={
        "fused": self_sdpa,
        "W_v last": lambda x, w_q, w_k, w_v, mask=None: A.attention_weights(x @ w_q, x @ w_k, mask) @ x @ w_v,
        "one product": self_in_one,
        "a bilinear form": lambda x, w_q, w_k, w_v, mask=None: (
            nan_to_zero(x @ (w_q @ w_k.T) @ x.mT / w_q.shape[1] ** 0.5, mask) @ (x @ w_v)
        ),
    },
)

# ---- cross-attention


def cross_by_hand(
    x: Tensor, memory: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, mask: Tensor | None = None
) -> Tensor:
    """In one einsum for the scores and one for the mix, over the visible places only."""
    scores = torch.einsum("...td,dk,ek,...se->...ts", x, w_q, w_k, memory) / math.sqrt(w_q.shape[1])
    sees = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.expand_as(scores)
    return torch.einsum("...ts,...se,ev->...tv", lowest_then_zero(scores, sees), memory, w_v)


CROSS = exercise(
    "cross_attend",
    reference=A.cross_attend,
    oracle=cross_by_hand,
    forbidden=("F.scaled_dot_product_attention", "nn.MultiheadAttention"),
    requirements=[
        requires("x asks and memory answers, both of one size, double precision", 1, other_even, run=with_dtype),
        requires("a batch, another length and width of memory, and the gradients", 2, other, run=with_gradients),
        requires("with padding in the memory, one row of which is empty", 1, other_padded),
        requires("a batch of one, a single query", 1, other_asks_once),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: A.cross_attend(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single query loses its axis, and so does a "
            "batch of one.",
        ),
        "memory never read": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.self_attend(x, w_q, w_k, w_v, mask),
            "The memory is never read: keys and values come from x, which is self-attention. Who is being asked here?",
        ),
        "x never read": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.self_attend(m, w_q, w_k, w_v, mask),
            "x is never read: the memory asks itself. The one who wants to know is x.",
        ),
        "the roles exchanged": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.cross_attend(m, x, w_q, w_k, w_v, mask),
            "The roles are exchanged: memory asks and x answers. The output should have one row for each token of x.",
        ),
        "values from x": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.attend(x @ w_q, m @ w_k, x @ w_v, mask),
            "Keys come from the memory and values from x. A key and its value belong to the same place, so both are "
            "read from memory.",
        ),
        "keys from x": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.attend(x @ w_q, x @ w_k, m @ w_v, mask),
            "Values come from the memory and keys from x. Then x looks for itself and takes what stands at the same "
            "place in memory.",
        ),
        "W_q and W_k exchanged": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.attend(x @ w_k, m @ w_q, m @ w_v, mask),
            "W_q and W_k are exchanged: W_q belongs to x, W_k to the memory.",
        ),
        "values from W_k": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.attend(x @ w_q, m @ w_k, m @ w_k, mask),
            "W_v is never used: the keys serve as values too.",
        ),
        "the mask ignored": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.cross_attend(x, m, w_q, w_k, w_v),
            "The mask is not handed on: x looks at the padding of the memory.",
        ),
        "causal over the memory": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.cross_attend(
                x,
                m,
                w_q,
                w_k,
                w_v,
                (torch.arange(x.shape[-2])[:, None] >= torch.arange(m.shape[-2]))
                & (torch.tensor(True) if mask is None else mask),
            ),
            "A causal mask lies over the memory: query 0 sees only key 0. The source sentence is there in full from "
            "the start; only one's own future is forbidden.",
        ),
        "the mask turned round": (
            seen_in_memory(mixed(weights=inverted)),
            "The mask is read the wrong way: True = may look.",
        ),
        "NaN where nothing is visible": (
            seen_in_memory(mixed(weights=PLAIN)),
            "A row whose memory is all padding gets NaN. Give it zeros.",
        ),
        "the mean where nothing is visible": (
            seen_in_memory(mixed(weights=LOWEST)),
            "A row whose memory is all padding gets the mean of that padding. It should get zeros.",
        ),
        "no scaling": (
            seen_in_memory(mixed(NO_SCALE)),
            "The scores are not divided by √K, the width of queries and keys.",
        ),
        "over the queries": (
            seen_in_memory(mixed(weights=softmax_over(-2))),
            "The softmax runs over the queries: each query should share out over the keys.",
        ),
        "x added": (
            lambda x, m, w_q, w_k, w_v, mask=None: x + A.cross_attend(x, m, w_q, w_k, w_v, mask),
            "x is added to the result. That residual connection belongs to the block around attention.",
        ),
        "memory cut off": (
            lambda x, m, w_q, w_k, w_v, mask=None: A.cross_attend(x, m.detach(), w_q, w_k, w_v, mask),
            "The output is right, but no gradient reaches the memory: the encoder behind it would never learn.",
        ),
    },
    right={
        "fused": lambda x, m, w_q, w_k, w_v, mask=None: sdpa(x @ w_q, m @ w_k, m @ w_v, mask),
        "W_v last": lambda x, m, w_q, w_k, w_v, mask=None: A.attention_weights(x @ w_q, m @ w_k, mask) @ m @ w_v,
        "einsum": cross_by_hand,
        "keys turned into the space of x": lambda x, m, w_q, w_k, w_v, mask=None: (
            nan_to_zero(x @ (m @ w_k @ w_q.T).mT / w_q.shape[1] ** 0.5, mask) @ (m @ w_v)
        ),
    },
)

# ---- cost


def counted(T: int, S: int, K: int, d_v: int) -> int:
    """torch's own count of the two products, on tensors without data."""
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        (torch.empty(T, K) @ torch.empty(K, S)) @ torch.empty(S, d_v)
    return counter.get_total_flops()


def cost(draw: Draw) -> tuple[int, int, int, int]:
    return tuple(draw.sizes(4, 10, 90))  # type: ignore[return-value]


def large_cost(draw: Draw) -> tuple[int, int, int, int]:
    T, S, K, d_v = draw.sizes(4, 1000, 9000)
    return T, S, K, d_v


FLOPS = exercise(
    "attention_flops",
    reference=A.attention_flops,
    oracle=counted,
    requirements=[
        requires("small sizes, all different", 1, cost),
        requires("large sizes: a whole number, exactly", 1, large_cost),
    ],
    wrong={
        "a float": (
            lambda *sizes: float(A.attention_flops(*sizes)),
            "The count is right, and a float. Operations are counted one by one: an int, exact however large.",
        ),
        "multiplications only": (
            lambda T, S, K, d_v: T * S * K + T * S * d_v,
            "Half of it: each number of a product takes as many additions as multiplications, and both are counted.",
        ),
        "scores only": (
            lambda T, S, K, d_v: 2 * T * S * K,
            "The product of queries and keys is counted; the mix of the values is missing.",
        ),
        "values only": (
            lambda T, S, K, d_v: 2 * T * S * d_v,
            "The mix of the values is counted; the product of queries and keys is missing.",
        ),
        "values as wide as keys": (
            lambda T, S, K, d_v: 4 * T * S * K,
            "Both products are counted with the width K. The second one runs over values of width d_v.",
        ),
        "as many keys as queries": (
            lambda T, S, K, d_v: 2 * T * T * (K + d_v),
            "You use T² where there are T queries and S keys: while decoding with a cache T is 1 and S is not.",
        ),
        "keys squared": (
            lambda T, S, K, d_v: 2 * S * S * (K + d_v),
            "You use S² where there are T queries and S keys.",
        ),
        "widths multiplied": (
            lambda T, S, K, d_v: 2 * T * S * K * d_v,
            "The widths are multiplied. The two products come one after the other: their costs add up.",
        ),
        "one step short": (
            lambda T, S, K, d_v: T * S * (2 * K - 1) + T * S * (2 * d_v - 1),
            "A dot product of n numbers needs n - 1 additions, that is true; the usual count, and the one asked for, "
            "takes n of each.",
        ),
        "the softmax counted": (
            lambda T, S, K, d_v: 2 * T * S * (K + d_v) + 3 * T * S,
            "The softmax is counted as well. It is small beside the products, and left out here.",
        ),
        "the projections counted": (
            lambda T, S, K, d_v: 2 * T * S * (K + d_v) + 2 * T * K * K + 4 * S * K * K,
            "The products with W_q, W_k and W_v are counted too; only the two products inside of attention are asked "
            "for.",
        ),
        "one product of everything": (
            lambda T, S, K, d_v: 2 * (T + S) * (K + d_v),
            "That is linear in the lengths: every query meets every key, so T times S.",
        ),
    },
    right={
        "counted by torch": counted,
        "factored": lambda T, S, K, d_v: 2 * T * S * (K + d_v),
        "query by query": lambda T, S, K, d_v: sum(2 * S * K + 2 * S * d_v for _ in range(T)),
    },
)


def matrices(draw: Draw) -> tuple[int, int, int, int]:
    return tuple(draw.sizes(4, 2, 40))  # type: ignore[return-value]


def matrices_half(draw: Draw) -> tuple[int, int, int, int, int]:
    B, H, T, S = draw.sizes(4, 3, 40)
    return B, H, T, S, (1, 2, 8)[draw.integer(0, 2)]


def stored(B: int, H: int, T: int, S: int, itemsize: int = 4) -> int:
    """What torch would allocate for that tensor."""
    dtype = {1: torch.int8, 2: torch.float16, 4: torch.float32, 8: torch.float64}[itemsize]
    return torch.empty(B, H, T, S, dtype=dtype, device="meta").nbytes


BYTES = exercise(
    "attention_bytes",
    reference=A.attention_bytes,
    oracle=stored,
    requirements=[
        requires("in single precision, without being told", 1, matrices),
        requires("numbers of another size", 1, matrices_half),
    ],
    wrong={
        "a float": (
            lambda *sizes: float(A.attention_bytes(*sizes)),
            "The number is right, and a float. There are no half bytes: an int.",
        ),
        "heads forgotten": (
            lambda B, H, T, S, itemsize=4: B * T * S * itemsize,
            "The heads are missing: each of the H heads has an attention matrix of its own.",
        ),
        "batch forgotten": (
            lambda B, H, T, S, itemsize=4: H * T * S * itemsize,
            "The batch is missing: each of the B sequences has matrices of its own.",
        ),
        "numbers, not bytes": (
            lambda B, H, T, S, itemsize=4: B * H * T * S,
            "That is how many numbers there are; each takes up `itemsize` bytes.",
        ),
        "always four bytes": (
            lambda B, H, T, S, itemsize=4: B * H * T * S * 4,
            "Right in single precision; `itemsize` is not used, so half precision seems to save nothing.",
        ),
        "bits": (
            lambda B, H, T, S, itemsize=4: B * H * T * S * itemsize * 8,
            "That is eight times too much: these are bits.",
        ),
        "as many keys as queries": (
            lambda B, H, T, S, itemsize=4: B * H * T * T * itemsize,
            "You use T² where the matrices are T by S.",
        ),
        "linear in the length": (
            lambda B, H, T, S, itemsize=4: B * H * (T + S) * itemsize,
            "T and S are added: a matrix of T rows and S columns holds T times S numbers.",
        ),
        "scores and weights": (
            lambda B, H, T, S, itemsize=4: 2 * B * H * T * S * itemsize,
            "Twice too much: you count the scores and the weights. Both do exist for a moment, but one matrix a head "
            "is asked for.",
        ),
        "in kibibytes": (
            lambda B, H, T, S, itemsize=4: B * H * T * S * itemsize // 1024,
            "That is in KiB; bytes are asked for.",
        ),
        "heads share one matrix": (
            lambda B, H, T, S, itemsize=4: B * T * S * itemsize // H,
            "You divide by the number of heads. Heads split the width, not the attention matrix: more heads mean "
            "more matrices.",
        ),
    },
    right={
        "torch's own count": stored,
        "product": lambda B, H, T, S, itemsize=4: math.prod((B, H, T, S, itemsize)),
        "summed": lambda B, H, T, S, itemsize=4: sum(itemsize * T * S for _ in range(B * H)),
    },
)

# ---- questions

WHY_VALUES = question(
    "why_values",
    "The embedding of a token already carries its meaning. What does the value matrix $W_V$ add: why not mix the "
    "embeddings themselves?",
    choices={
        "a": "It lets the model choose what a token hands on, apart from how it is found: values are a learned view "
        "of it, of any width.",
        "b": "It makes the weights of a row sum to 1, which embeddings of different lengths would prevent.",
        "c": "Nothing: $W_V$ is kept for symmetry with $W_Q$ and $W_K$, and a model without it computes the same "
        "functions.",
        "d": "It stores the meaning of each word; the embedding only stores its spelling.",
    },
    explanations={
        "a": "Yes. The embedding of `frame` holds the door frame, the picture frame and the car frame at once. $W_Q$ "
        "and $W_K$ decide who listens to whom; $W_V$ picks out of the whole what is worth saying to those who "
        "listen. With several heads each picks something else.",
        "b": "The softmax sees to that, whatever the values are.",
        "c": "Without $W_V$ a head can only average embeddings as they are: it cannot pass on the number of a noun "
        "without passing on all the rest of it. Some later matrix could sort that out for one head, but not for "
        "several that mix into one sum.",
        "d": "$W_V$ is one matrix for all words and has no room for a dictionary. Word meanings are in the embedding "
        "table, and much of what is known about them in the feed-forward layers (lesson 06).",
    },
    answer="a",
)

QUERY_SOURCE = question(
    "query_source",
    "A decoder has read `the cat sat` and predicts the next token with masked self-attention. Where does the query "
    "come from that does the looking?",
    choices={
        "a": "From the next token, the one to be predicted: it asks what it should be.",
        "b": "From the encoder, because a decoder's queries always come from the source.",
        "c": "From the position that does the predicting: the current vector of `sat` times $W_Q$; keys come from "
        "`the`, `cat` and `sat` itself.",
        "d": "From the mean of all tokens so far, so that the query knows the whole sentence.",
    },
    explanations={
        "a": "The next token does not exist yet when text is generated, so it cannot ask anything. That is just why "
        "its position must stay hidden in training too.",
        "b": "In cross-attention the source gives keys and values, never the query, and in masked self-attention it "
        "plays no part at all.",
        "c": "Yes. Every position asks for itself, with its own vector; the mask lets it look at the earlier ones "
        "and at itself. What `sat` has gathered at the top layer is what the next token is predicted from.",
        "d": "Averaging is what attention replaces. Each position has a query of its own; what it knows about the "
        "others it learns by looking.",
    },
    answer="c",
)

SATURATED = question(
    "saturated",
    "Without $1/\\sqrt{K}$, wide heads start with scores of ±20 and more. What happens to the gradient through the "
    "softmax, and why?",
    choices={
        "a": "It explodes: the derivative of exp is exp itself, and exp(20) is half a billion.",
        "b": "It nearly vanishes: one weight is almost 1, the rest almost 0, and the slope of the softmax, "
        "$w_i(\\delta_{ij} - w_j)$, is almost 0 in both cases.",
        "c": "Nothing: the softmax only depends on differences of scores, so their size does not matter.",
        "d": "It changes sign, because large scores turn the ranking of the keys round.",
    },
    explanations={
        "a": "exp alone would explode, but it is divided by the sum of all of them, and the shares are never above "
        "1. Work out $w(1 - w)$ for $w = 0.999$.",
        "b": "Yes. In the flat ends of the softmax the scores can move without moving the weights, so the loss "
        "cannot tell them where to go. Dividing by $\\sqrt{K}$ keeps the scores near ±1, where the softmax is steep.",
        "c": "Adding the same number to all scores changes nothing; multiplying them does: the differences grow by "
        "the same factor.",
        "d": "The ranking stays. What changes is how much the first takes: nearly all.",
    },
    answer="b",
)

EXERCISES = [
    ATTEND_ONE, SCORES, SOFTMAX, WEIGHTS, ATTEND, SELF, CROSS, FLOPS, BYTES, WHY_VALUES, QUERY_SOURCE, SATURATED,
]  # fmt: skip
