"""Checks of heads: splitting and merging the width, weights in every head, the whole layer, its size, shared keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graders.draw import Draw
from graders.exercise import exercise, question, refusal, requires, with_dtype, with_gradients
from tinytrans.nn import heads as N

INF = float("inf")
UNEVEN = (
    (6, 4),
    (8, 5),
    (10, 6),
    (10, 7),
)  # width and heads that torch.chunk and torch.split cut otherwise, without a word

# ---- inputs: seed -> what the learner's function is called with. All sizes differ, and no root of one is another.


def sizes(draw: Draw, n: int) -> list[int]:
    """A number of heads H, a head width K, and n other sizes, all different."""
    H, K = (2, 3, 4)[draw.integer(0, 2)], (5, 6, 7)[draw.integer(0, 2)]
    others = [size for size in range(2, 10) if size not in (H, K)]
    return [H, K, *(others[i] for i in draw.permutation(len(others))[:n].tolist())]


def open_mask(draw: Draw, *shape: int) -> Tensor:
    """A mask whose every row shows some keys and hides some."""
    mask = draw.coins(*shape, p=0.6)
    order = draw.uniform(*shape).argsort(dim=-1)
    return mask.scatter(-1, order[..., :1], True).scatter(-1, order[..., 1:2], False)


def matrix(draw: Draw, rows: int, columns: int) -> Tensor:
    """Weights that keep the variance of what they are applied to: scores stay near 1, where rounding does no harm."""
    return draw.normal(rows, columns) / math.sqrt(rows)


def whole(draw: Draw) -> tuple[Tensor, int]:
    H, K, B, T = sizes(draw, 2)
    return draw.normal(B, T, H * K), H


def whole_odd(draw: Draw) -> tuple[Tensor, int]:
    """A batch of one, double precision, not contiguous."""
    H, K, T = sizes(draw, 1)
    return draw.normal(1, H * K, T, dtype=torch.float64).transpose(1, 2), H


def whole_one(draw: Draw) -> tuple[Tensor, int]:
    """Texts of a single token."""
    B, D = draw.sizes(2)
    return draw.normal(B, 1, D), 1


def undivided(draw: Draw) -> tuple[Tensor, int]:
    """A width that its heads don't divide."""
    D, H = UNEVEN[draw.integer(0, len(UNEVEN) - 1)]
    return draw.normal(2, 3, D), H


def parts(draw: Draw) -> tuple[Tensor]:
    H, K, B, T = sizes(draw, 2)
    return (draw.normal(B, H, T, K),)


def parts_odd(draw: Draw) -> tuple[Tensor]:
    H, K = sizes(draw, 0)
    return (draw.normal(1, 1, H, K, dtype=torch.float64).transpose(1, 2),)


def parts_strided(draw: Draw) -> tuple[Tensor]:
    H, K, B, T = sizes(draw, 2)
    return (draw.normal(T, B, H, K).permute(1, 2, 0, 3),)


def parts_one(draw: Draw) -> tuple[Tensor]:
    B, T, K = draw.sizes(3)
    return (draw.normal(B, 1, T, K),)


def pair(draw: Draw) -> tuple[Tensor, Tensor]:
    H, K, B, T, S = sizes(draw, 3)
    return draw.normal(B, H, T, K), draw.normal(B, H, S, K)


def pair_masked(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """One mask for the whole batch, which has as many rows as there are queries."""
    H, K, T, S = sizes(draw, 2)
    S += 1 if S == 2 else 0
    return draw.normal(T, H, T, K), draw.normal(T, H, S, K), open_mask(draw, T, S)


def pair_square_batch(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """As many rows in the batch as heads, and a mask for each row: a forgotten axis goes through and is wrong."""
    H, K, T, S = sizes(draw, 2)
    return draw.normal(H, H, T, K), draw.normal(H, H, S, K), open_mask(draw, H, T, S)


def pair_padded(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    H, K, B, T, S = sizes(draw, 3)
    return draw.normal(B, H, T, K), draw.normal(B, H, S, K), open_mask(draw, B, 1, S)


def pair_hidden(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """A row of the batch that is padding altogether."""
    q, k, mask = pair_padded(draw)
    mask[-1] = False
    return q, k, mask


def pair_loud(draw: Draw) -> tuple[Tensor, Tensor]:
    """A single query of a batch of one with one head, with scores in the thousands, in double precision."""
    _, K, S = sizes(draw, 1)
    return tuple(60 * draw.normal(1, 1, n, K, dtype=torch.float64) for n in (1, S))  # type: ignore[return-value]


def even(draw: Draw) -> tuple[Any, ...]:
    """Three inputs of one shape, so that mixed-up ones give a value; a batch of one, in double precision."""
    H, K, T = sizes(draw, 1)
    D = H * K
    inputs = *(draw.normal(1, T, D) for _ in range(3)), *(matrix(draw, D, D) for _ in range(4))
    return *(tensor.double() for tensor in inputs), H


def uneven(draw: Draw) -> tuple[Any, ...]:
    """Keys and values of widths of their own, as from an encoder of another size."""
    H, K, B, T, S = sizes(draw, 3)
    D, D_k, D_v = H * K, H * K + 3, H * K - 2
    inputs = draw.normal(B, T, D), draw.normal(B, S, D_k), draw.normal(B, S, D_v)
    return *inputs, matrix(draw, D, D), matrix(draw, D_k, D), matrix(draw, D_v, D), matrix(draw, D, D), H


def itself_causal(draw: Draw) -> tuple[Any, ...]:
    """One x three times, as in a decoder, under a causal mask."""
    H, K, B, T = sizes(draw, 2)
    x = draw.normal(B, T, H * K)
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    return x, x, x, *(matrix(draw, H * K, H * K) for _ in range(4)), H, causal


def uneven_padded(draw: Draw) -> tuple[Any, ...]:
    inputs = uneven(draw)
    return *inputs, open_mask(draw, inputs[1].shape[0], 1, inputs[1].shape[1])


def itself_alone(draw: Draw) -> tuple[Any, ...]:
    """Texts of a single token."""
    x, _, _, *rest = itself_causal(draw)
    x = x[:, :1]
    return x, x, x, *rest[:-1]


def layer(draw: Draw) -> tuple[int, int]:
    H, K = sizes(draw, 0)
    return H * K, H


def layer_biased(draw: Draw) -> tuple[int, int, None, bool]:
    return *layer(draw), None, True


def layer_grouped(draw: Draw) -> tuple[int, int, int]:
    H, G, K = ((6, 2, 4), (6, 3, 5), (8, 2, 5), (8, 4, 3), (9, 3, 4))[draw.integer(0, 4)]
    return H * K, H, G


def layer_grouped_biased(draw: Draw) -> tuple[int, int, int, bool]:
    return *layer_grouped(draw), True


def shared(draw: Draw) -> tuple[Tensor, int]:
    """Keys or values of G heads, at least two, for at least twice as many queries."""
    G, R, K, B, S = (2, 3)[draw.integer(0, 1)], (2, 4)[draw.integer(0, 1)], *draw.sizes(3, 5, 9)
    return draw.normal(B, G, S, K), G * R


def shared_odd(draw: Draw) -> tuple[Tensor, int]:
    G, R, K, S = 2, 3, *draw.sizes(2, 4, 9)
    return draw.normal(1, S, G, K, dtype=torch.float64).transpose(1, 2), G * R


def shared_by_all(draw: Draw) -> tuple[Tensor, int]:
    """A single key."""
    H, K = draw.sizes(2, 3, 9)
    return draw.normal(2, 1, 1, K), H


def shared_unevenly(draw: Draw) -> tuple[Tensor, int]:
    """3 heads for 7 or 8."""
    return draw.normal(2, 3, 4, 5), 7 + draw.integer(0, 1)


def grouped(draw: Draw) -> tuple[Any, ...]:
    """G key/value heads, at least two, each for two or three query heads."""
    H, G, K = ((4, 2, 6), (6, 2, 9), (6, 3, 4))[draw.integer(0, 2)]  # H divides G K, so that a wrong cut goes through
    B, T = draw.permutation(7)[:2].add(2).tolist()
    D = H * K
    matrices = matrix(draw, D, D), matrix(draw, D, G * K), matrix(draw, D, G * K), matrix(draw, D, D)
    return draw.normal(B, T, D), *matrices, H, G


def grouped_masked(draw: Draw) -> tuple[Any, ...]:
    inputs = grouped(draw)
    B, T = inputs[0].shape[:2]
    return *inputs, open_mask(draw, B, T, T)


def grouped_ends(draw: Draw) -> tuple[Any, ...]:
    """G = 1, multi-query; a batch of one, in double precision."""
    H, K, T = sizes(draw, 1)
    D = H * K
    matrices = matrix(draw, D, D), matrix(draw, D, K), matrix(draw, D, K), matrix(draw, D, D)
    return *(tensor.double() for tensor in (draw.normal(1, T, D), *matrices)), H, 1


def grouped_alone(draw: Draw) -> tuple[Any, ...]:
    """Texts of a single token."""
    x, *rest = grouped(draw)
    return x[:, :1], *rest


def grouped_whole(draw: Draw) -> tuple[Any, ...]:
    """G = H, multi-head."""
    _, _, x, *matrices, H, mask = itself_causal(draw)
    return x, *matrices, H, H, mask


# ---- ways to run an answer, and laws


def even_share(H: int, G: int) -> int:
    """H / G, or an error."""
    share, rest = divmod(H, G)
    if rest:
        raise ValueError(f"{H} over {G}")
    return share


def first(found: Any) -> Any:
    return found[0] if isinstance(found, tuple) else found


def keeps_every_number(found: Any, x: Tensor, *_rest: Any) -> str | None:
    """The law of splitting and merging: the same numbers, in other places."""
    y = first(found)
    if y.numel() != x.numel():
        return f"{x.numel()} numbers went in and {y.numel()} came out: nothing may be lost, mixed or doubled"
    if not torch.allclose(y.double().flatten().sort().values, x.double().flatten().sort().values):
        return "the numbers that came out are not those that went in: they may only move"
    return None


def keeps_tokens(found: Any, x: Tensor, *_rest: Any) -> str | None:
    """The law of splitting: what a head holds for token t comes from token t."""
    if (lost := keeps_every_number(found, x)) is not None:
        return lost
    y = first(found)
    if y.dim() == 4 and y.shape[2] == x.shape[1]:
        for t in range(x.shape[1]):
            if not torch.isin(y[0, 0, t], x[0, t]).all():
                return f"head 0 at position {t} holds numbers of another token: only the width may be cut"
    return None


def must_refuse(found: Any, bad: Tensor, heads: int) -> str | None:
    """The sentence for sizes that were let through."""
    if isinstance(found, str) and found == "refused":
        return None
    given = f"but shape {tuple(found.shape)}" if isinstance(found, Tensor) else "but something"
    return f"shape {tuple(bad.shape)} and {heads} heads do not fit, and no error was raised, {given} returned"


def sound_weights(found: Any, q: Tensor, k: Tensor, mask: Tensor | None = None) -> str | None:
    """The law of attention weights: no NaN, nothing hidden, rows sum to 1."""
    weights = first(found)
    shape = (*q.shape[:-1], k.shape[-2])
    if weights.shape != shape:
        return None
    spread = None if mask is None else mask if mask.dim() == 2 else mask[:, None]
    visible = torch.ones(shape, dtype=torch.bool) if spread is None else spread.expand(shape)
    if weights.isnan().any():
        b, h, t = weights.isnan().nonzero()[0].tolist()[:-1]
        return f"row {b}, head {h}, query {t} holds NaN; it may look at {int(visible[b, h, t].sum())} keys"
    if (leak := (weights != 0) & ~visible).any():
        b, h, t, s = leak.nonzero()[0].tolist()
        return f"in row {b} of the batch head {h} lets query {t} look at key {s}, which is hidden"
    sums = weights.sum(dim=-1)
    if (off := (sums - visible.any(dim=-1).to(sums)).abs() > 1e-3).any():
        b, h, t = off.nonzero()[0].tolist()
        where = f"row {b} of the batch, head {h}, query {t}"
        return f"{where}: the weights sum to {sums[b, h, t]:.4g}. Over which axis is it shared out?"
    return None


# ---- splitting


def split_loops(x: Tensor, H: int) -> Tensor:
    """Head by head, by slices."""
    B, T, D = x.shape
    K = D // H
    y = torch.empty(B, H, T, K, dtype=x.dtype)
    assert H * K == D
    for h in range(H):
        for t in range(T):
            y[:, h, t] = x[:, t, h * K : (h + 1) * K]
    return y


def cut(x: Tensor, H: int) -> Tensor:
    """The width in two axes, (B, T, H, K); an error where it does not fit."""
    return x.unflatten(-1, (H, x.shape[-1] // H))


SPLIT = exercise(
    "split_heads",
    reference=N.split_heads,
    oracle=split_loops,
    requirements=[
        requires("one head, a single token: a new axis, and nothing moves", 1, whole_one, law=keeps_tokens),
        requires("several heads, and the gradient", 2, whole, run=with_gradients, law=keeps_tokens),
        requires("a batch of one, double precision, not contiguous", 1, whole_odd, run=with_dtype, law=keeps_tokens),
        requires("a width that the heads do not divide is refused", 1, undivided, run=refusal, law=must_refuse),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: N.split_heads(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single token loses its axis, and so does a "
            "single head.",
        ),
        "viewed straight into (B, H, T, K)": (
            lambda x, H: x.reshape(x.shape[0], H, x.shape[1], x.shape[2] // H),
            "The shape is right and the contents are not: reshaping straight into (B, H, T, K) hands the first tokens "
            "to head 0, the next ones to head 1. Every head should see every token, a part of its width: cut the "
            "last axis in two first, then swap two axes.",
        ),
        "the axes not swapped": (
            cut,
            "You stop at (B, T, H, K). That is the right cut, with the heads behind the tokens; attention multiplies "
            "the last two axes, "
            "so it would compare heads of one token instead of tokens. Swap T and H.",
        ),
        "every H-th number": (
            lambda x, H: x.unflatten(-1, (x.shape[-1] // H, H)).permute(0, 3, 1, 2),
            "Head h gets every H-th number of a token instead of a block of K neighbours. It would train all the same, "
            "but "
            "weights from elsewhere come in blocks: in the split of the width the head is the outer axis.",
        ),
        "heads of width H": (
            lambda x, H: x.unflatten(-1, (x.shape[-1] // H, H)).transpose(1, 2),
            "H and K are exchanged: these are K heads of width H.",
        ),
        "transposed, then viewed": (
            lambda x, H: x.transpose(1, 2).reshape(x.shape[0], H, x.shape[1], x.shape[2] // H),
            "Tokens and width are swapped before the cut, and the reshape then cuts through tokens. The other way "
            "round: cut, then swap.",
        ),
        "width before tokens": (
            lambda x, H: cut(x, H).permute(0, 2, 3, 1),
            "Each head is (K, T): its tokens have become columns. (T, K) is asked for.",
        ),
        "heads joined to the batch": (
            lambda x, H: cut(x, H).transpose(1, 2).flatten(0, 1),
            "Batch and heads are one axis, (B H, T, K). Some code does that on purpose; here the heads keep an axis of "
            "their own.",
        ),
        "the whole width for every head": (
            lambda x, H: x.unsqueeze(1).expand(-1, H, -1, -1),
            "Every head gets the whole width D. Heads share the width out: K = D / H for each.",
        ),
        "the first block for all": (
            lambda x, H: x[..., : x.shape[-1] // H].unsqueeze(1).expand(-1, H, -1, -1),
            "All heads get the first block of the width; the rest is lost.",
        ),
        "heads from behind": (
            lambda x, H: cut(x, H).transpose(1, 2).flip(1),
            "The heads are in reverse order: head 0 is the first block.",
        ),
        "a list of heads": (
            lambda x, H: list(x.chunk(H, dim=-1)),
            "That is a list of H tensors. One tensor (B, H, T, K) lets one product serve all heads: "
            "`torch.stack` makes an axis out of a list.",
        ),
        "chunks": (
            lambda x, H: torch.stack(x.chunk(H, dim=-1), dim=1),
            "Right where H divides the width. Where it does not, `torch.chunk` gives fewer heads than you asked for "
            "and says "
            "nothing: 6 numbers in 4 chunks are three chunks of 2. Raise a ValueError.",
        ),
        "pieces": (
            lambda x, H: torch.stack(x.split(x.shape[-1] // H, dim=-1), dim=1),
            "Right where H divides the width. Where it does not, pieces of the rounded width make more heads than you "
            "asked for: 6 "
            "numbers for 4 heads become 6 pieces of 1. Raise a ValueError.",
        ),
        "the remainder dropped": (
            lambda x, H: cut(x[..., : x.shape[-1] // H * H], H).transpose(1, 2),
            "Right where H divides the width. Where it does not, the last numbers of every token are dropped without a "
            "word. Raise a ValueError.",
        ),
        "cut off from the gradient": (
            lambda x, H: N.split_heads(x.detach(), H),
            "The values are right, but no gradient flows back to x. Look for `detach`, `.data`, or a new tensor that "
            "is filled in.",
        ),
    },
    right={
        "unflatten": lambda x, H: cut(x, H).movedim(-2, 1),
        "stacked pieces": lambda x, H: torch.stack(x.split(even_share(x.shape[-1], H), dim=-1), dim=1),
        "permuted": lambda x, H: x.reshape(x.shape[0], x.shape[1], H, x.shape[2] // H).permute(0, 2, 1, 3),
    },
    equivalent={
        "D % H: -> False:": "reshape refuses such a width too",
        "2) -> -2)": "the same axis from the other end",
    },
)

# ---- merging


def merge_loops(x: Tensor) -> Tensor:
    return torch.stack([torch.stack([torch.cat(list(row[:, t])) for t in range(x.shape[2])]) for row in x])


MERGE = exercise(
    "merge_heads",
    reference=N.merge_heads,
    oracle=merge_loops,
    requirements=[
        requires("one head: its axis goes, and nothing moves", 1, parts_one, law=keeps_every_number),
        requires("several heads, and the gradient", 2, parts, run=with_gradients, law=keeps_every_number),
        requires("not contiguous", 1, parts_strided, law=keeps_every_number),
        requires("a batch of one, a single token, double precision", 1, parts_odd, run=with_dtype),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: N.merge_heads(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single token loses its axis, and so does a "
            "batch of one.",
        ),
        "not swapped back": (
            lambda x: x.reshape(x.shape[0], x.shape[2], -1),
            "The shape is right and the contents are not: without swapping heads and tokens back first, the first "
            "tokens' "
            "findings of head 0 end up in token 0, and later tokens leak into earlier ones.",
        ),
        "every H-th number": (
            lambda x: x.permute(0, 2, 3, 1).flatten(2),
            "The heads are shuffled into each other: number 0 of every head, then number 1. Concatenated means all of "
            "head 0, then "
            "all of head 1.",
        ),
        "the mean of the heads": (
            lambda x: x.mean(dim=1),
            "The heads are averaged, so that nobody can tell any more who found what. They stand side by side in the "
            "width: K becomes H K.",
        ),
        "the sum of the heads": (
            lambda x: x.sum(dim=1),
            "The heads are added. Summing comes later, by W_O, with weights for each head; here they are concatenated.",
        ),
        "swapped only": (
            lambda x: x.transpose(1, 2),
            "You stop at (B, T, H, K). Heads and width still have to become one axis.",
        ),
        "the first head only": (
            lambda x: x[:, 0],
            "That is head 0 alone.",
        ),
        "heads as tokens": (
            lambda x: x.flatten(1, 2),
            "Heads and tokens have become one axis, (B, H T, K): the sequence got longer. The width should grow.",
        ),
        "heads beside tokens": (
            lambda x: x.transpose(1, 2).flatten(1, 2),
            "T and H have become one axis, (B, T H, K). Join the last two instead.",
        ),
        "heads from behind": (
            lambda x: x.flip(1).transpose(1, 2).flatten(2),
            "The heads are in reverse order, so W_O meets the wrong ones.",
        ),
        "tokens before the batch": (
            lambda x: x.permute(2, 0, 1, 3).flatten(2),
            "Batch and tokens are exchanged: (T, B, H K).",
        ),
        "view": (
            lambda x: x.transpose(1, 2).view(x.shape[0], x.shape[2], -1),
            "The order is right, but `view` cannot join axes that do not lie side by side in memory after the swap. "
            "`reshape` and "
            "`flatten` copy where they must; `contiguous()` does it by hand.",
        ),
        "cut off from the gradient": (
            lambda x: N.merge_heads(x.detach()),
            "The values are right, but no gradient flows back to the heads. Look for `detach`, `.data`, or a new "
            "tensor that is "
            "filled in.",
        ),
    },
    right={
        "contiguous": lambda x: x.transpose(1, 2).contiguous().view(x.shape[0], x.shape[2], -1),
        "concatenated": lambda x: torch.cat(list(x.unbind(1)), dim=-1),
        "einsum": lambda x: torch.einsum("bhtk->bthk", x).flatten(2),
    },
    equivalent={
        "2).flatten(2) -> -2).flatten(2)": "the same axis from the other end",
        "2).flatten(2) -> 2).flatten(-2)": "the same axis from the other end",
    },
)

# ---- weights in all heads

Weigh = Callable[..., Tensor]


def spread(mask: Tensor | None) -> Tensor | None:
    """A mask with an axis for heads where it has one for the batch."""
    return mask if mask is None or mask.dim() == 2 else mask.unsqueeze(1)


def weights_sdpa(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's attention, head by head, with one-hot values: what comes out are the weights."""
    one_hot = torch.eye(k.shape[-2], dtype=q.dtype).expand(q.shape[0], -1, -1)
    per_head = [F.scaled_dot_product_attention(q[:, h], k[:, h], one_hot, mask) for h in range(q.shape[1])]
    return torch.stack(per_head, dim=1)


def weights_rows(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Row of the batch by row, each with its own mask: exp, zero what is hidden, share out."""
    rows = []
    for b in range(q.shape[0]):
        scores = torch.einsum("htk,hsk->hts", q[b], k[b]) * q.shape[-1] ** -0.5
        sees = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask if mask.dim() == 2 else mask[b]
        raised = (scores - scores.amax(-1, keepdim=True).detach()).exp() * sees
        rows.append(raised / raised.sum(-1, keepdim=True).clamp(min=1e-30))
    return torch.stack(rows)


def weigh(
    by: Callable[[Tensor, Tensor], float] = lambda q, k: q.shape[-1] ** 0.5,
    axis: int = -1,
    placed: Callable[..., Any] = lambda mask, q: spread(mask),
    fill: float = -INF,
    empty: float = 0.0,
) -> Weigh:
    """Weights with another divisor, another axis, the mask placed otherwise, another fill."""

    def weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = q @ k.transpose(-2, -1) / by(q, k)
        mask = None if mask is None else placed(mask, q)
        scores = scores if mask is None else scores.masked_fill(~mask, fill)
        return scores.softmax(axis) if math.isnan(empty) else scores.softmax(axis).nan_to_num(empty)

    return weights


def afterwards(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    weights = N.head_weights(q, k)
    return weights if mask is None else weights * spread(mask)


def first_head_masked(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    return torch.cat([N.head_weights(q[:, :1], k[:, :1], mask), N.head_weights(q[:, 1:], k[:, 1:])], dim=1)


NO_SCALE = weigh(by=lambda q, k: 1.0)
BY_MODEL = weigh(by=lambda q, k: math.sqrt(q.shape[1] * q.shape[-1]))
BY_HEADS = weigh(by=lambda q, k: math.sqrt(q.shape[1]))
BY_WIDTH = weigh(by=lambda q, k: q.shape[-1])
BY_KEYS = weigh(by=lambda q, k: math.sqrt(k.shape[-2]))
OVER_QUERIES, OVER_HEADS = weigh(axis=-2), weigh(axis=1)
IGNORED = weigh(placed=lambda mask, q: None)
INVERTED = weigh(placed=lambda mask, q: ~spread(mask))
ZEROED = weigh(fill=0.0)

WEIGHTS = exercise(
    "head_weights",
    reference=N.head_weights,
    oracle=weights_sdpa,
    forbidden=("F.scaled_dot_product_attention", "nn.MultiheadAttention"),
    requirements=[
        requires("every head's weights, and the gradients", 2, pair, run=with_gradients, law=sound_weights),
        requires("one mask for the whole batch", 1, pair_masked, law=sound_weights),
        requires("a mask for each row, with as many rows as heads", 1, pair_square_batch, law=sound_weights),
        requires("the mask of a padded batch, (B, 1, S)", 1, pair_padded, law=sound_weights),
        requires("a row of nothing but padding gives zeros", 1, pair_hidden, run=with_gradients, law=sound_weights),
        requires(
            "one head, a single query, huge scores, double precision", 1, pair_loud, run=with_dtype, law=sound_weights
        ),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: N.head_weights(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single query loses its axis, and so does a "
            "single head.",
        ),
        "no scaling": (NO_SCALE, "The scores are not divided by √K, the width of a head."),
        "divided by the root of the model width": (
            BY_MODEL,
            "You divide by √D, the width of the model. A head's dot product sums over K = D / H numbers, so √K keeps "
            "its scores near "
            "1; with √D they are smaller by √H, and all heads look almost evenly at everything.",
        ),
        "divided by the root of H": (BY_HEADS, "You divide by √H. What the dot product sums over is K, the last axis."),
        "divided by K": (BY_WIDTH, "You divide by K instead of √K: the root is missing."),
        "divided by the root of S": (
            BY_KEYS,
            "You divide by the root of the number of keys. It is the width of a head that counts.",
        ),
        "over the queries": (
            OVER_QUERIES,
            "The softmax runs over the queries: the columns sum to 1. Each query shares out its attention over the "
            "keys, the last axis.",
        ),
        "over the heads": (
            OVER_HEADS,
            "The softmax runs over the heads, so they compete for each key. Heads are independent: each has a softmax "
            "of its own over "
            "the keys.",
        ),
        "the mask ignored": (IGNORED, "The mask is accepted and not used: hidden keys get weight."),
        "the mask turned round": (
            INVERTED,
            "The mask is read the wrong way: True means may look. In `nn.MultiheadAttention` True means hidden.",
        ),
        "no axis for the heads": (
            weigh(placed=lambda mask, q: mask),
            "A mask (B, T, S) meets scores (B, H, T, S), and broadcasting aligns from the right: its batch axis lands "
            "on "
            "the heads. With as many rows as heads that goes through and hides the wrong keys; otherwise it is an "
            "error. Give the "
            "mask an axis for the heads.",
        ),
        "the first row's mask for all": (
            weigh(placed=lambda mask, q: mask if mask.dim() == 2 else mask[0]),
            "Every row of the batch is masked like row 0. Each has its own padding.",
        ),
        "an axis for the heads behind the queries": (
            weigh(placed=lambda mask, q: mask.unsqueeze(-2)),
            "The new axis of the mask stands between T and S, where the queries of the scores are. It belongs behind "
            "the "
            "batch.",
        ),
        "an axis for a mask without a batch": (
            weigh(placed=lambda mask, q: mask.unsqueeze(1)),
            "Right for a mask with a batch axis. A mask (T, S) becomes (T, 1, S) this way, and its queries are taken "
            "for heads: it needs no new axis.",
        ),
        "only the first head masked": (
            first_head_masked,
            "The mask reaches head 0 only: the others see what is hidden. It holds for every head.",
        ),
        "hidden scores set to 0": (
            ZEROED,
            "Hidden scores are set to 0, but exp(0) = 1: hidden keys still get a share.",
        ),
        "hidden after the softmax": (
            afterwards,
            "Weights are zeroed after the softmax, and what hidden keys had taken is missing: the rows sum to less "
            "than 1.",
        ),
        "NaN where nothing is visible": (
            weigh(empty=float("nan")),
            "Right, except for a row that may look nowhere, where 0 / 0 gives NaN. Padding makes such rows: they get "
            "zeros.",
        ),
        "equal weights where nothing is visible": (
            weigh(fill=-1e9),
            "A query that may look nowhere gets equal weights: all its scores are the same -1e9. With -∞ they are NaN, "
            "and NaN you can turn into 0.",
        ),
        "heads of one token compared": (
            lambda q, k, mask=None: N.head_weights(q.transpose(1, 2), k[:, :, : q.shape[2]].transpose(1, 2)),
            "The heads of one token are compared with each other. Within a head, tokens are compared: the product runs "
            "over the last two axes, T and K.",
        ),
        "keys cut off from the gradient": (
            lambda q, k, mask=None: N.head_weights(q, k.detach(), mask),
            "The weights are right, but no gradient reaches the keys. Look for `detach` or `.data`.",
        ),
    },
    right={
        "row by row": weights_rows,
        "fused": weights_sdpa,
        "logsumexp": lambda q, k, mask=None: (lambda s: (s - s.logsumexp(-1, keepdim=True).clamp(min=-1e30)).exp())(
            (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(
                torch.zeros((), dtype=torch.bool) if mask is None else ~spread(mask), -INF
            )
        ),
        "queries scaled": lambda q, k, mask=None: weights_rows(q * 2, k / 2, mask),
    },
    equivalent={
        "dim=-1).nan_to_num(0.0) -> dim=-1).nan_to_num()": "0 is the default",
        "k.transpose(-2, -> k.transpose(--2,": "the same axis from the other end",
        "k.transpose(-2, -> k.transpose(2,": "the same axis from the other end",
    },
)

# ---- the whole layer


def torchs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    w_o: Tensor,
    H: int,
    mask: Tensor | None = None,
) -> Tensor:
    """nn.MultiheadAttention with these weights; in its masks True means hidden."""
    D, S = query.shape[-1], key.shape[1]
    made = nn.MultiheadAttention(D, H, bias=False, kdim=key.shape[-1], vdim=value.shape[-1], batch_first=True)
    if mask is not None:
        mask = ~(mask if mask.dim() == 2 else mask.expand(-1, query.shape[1], S).repeat_interleave(H, dim=0))
    split = made.q_proj_weight is not None
    owned = {"out_proj.weight": w_o.T} | (
        {"q_proj_weight": w_q.T, "k_proj_weight": w_k.T, "v_proj_weight": w_v.T}
        if split
        else {"in_proj_weight": torch.cat([w_q.T, w_k.T, w_v.T])}
    )
    call = {"attn_mask": mask, "need_weights": True, "average_attn_weights": False}
    return torch.func.functional_call(made, owned, (query, key, value), call)[0]


def by_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    w_o: Tensor,
    H: int,
    mask: Tensor | None = None,
) -> Tensor:
    """A sum over heads, each with its own block of columns, and of rows of W_O."""
    K, y = w_q.shape[1] // H, 0
    for h in range(H):
        own = slice(h * K, (h + 1) * K)
        found = F.scaled_dot_product_attention(query @ w_q[:, own], key @ w_k[:, own], value @ w_v[:, own], mask)
        y = y + found @ w_o[own]
    return y


def by_einsum(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    w_o: Tensor,
    H: int,
    mask: Tensor | None = None,
) -> Tensor:
    q, k, v, o = (w.unflatten(1, (H, -1)) for w in (w_q, w_k, w_v, w_o.T))
    weights = weights_rows(torch.einsum("btd,dhk->bhtk", query, q), torch.einsum("bsd,dhk->bhsk", key, k), mask)
    return torch.einsum("bhts,bsd,dhv,ehv->bte", weights, value, v, o)


def whole_layer(
    weights: Weigh = N.head_weights,
    split: Callable[[Tensor, int], Tensor] = N.split_heads,
    merge: Callable[[Tensor], Tensor] = N.merge_heads,
) -> Callable[..., Tensor]:
    """The layer out of parts."""

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        w_q: Tensor,
        w_k: Tensor,
        w_v: Tensor,
        w_o: Tensor,
        H: int,
        mask: Tensor | None = None,
    ) -> Tensor:
        q, k, v = split(query @ w_q, H), split(key @ w_k, H), split(value @ w_v, H)
        return merge(weights(q, k, mask) @ v) @ w_o

    return attention


MHA = N.multi_head_attention
viewed = next(wrong.function for wrong in SPLIT.wrong if wrong.name == "viewed straight into (B, H, T, K)")
unswapped = next(wrong.function for wrong in MERGE.wrong if wrong.name == "not swapped back")

WHOLE = exercise(
    "multi_head_attention",
    reference=MHA,
    oracle=torchs,
    forbidden=("F.scaled_dot_product_attention", "nn.MultiheadAttention"),
    requirements=[
        requires("three inputs of one shape, a batch of one, double precision", 2, even, run=with_dtype),
        requires("as many keys as you like, of any width, and all gradients", 2, uneven, run=with_gradients),
        requires("a decoder's self-attention, with a causal mask", 1, itself_causal),
        requires("the mask of a padded memory", 1, uneven_padded),
        requires("texts of a single token", 1, itself_alone),
    ],
    wrong={
        "the axis of the tokens dropped": (
            lambda *inputs: MHA(*inputs).squeeze(1),
            "`squeeze(1)` drops the axis of the tokens where there is a single one. A decoder that writes has just "
            "one query.",
        ),
        "no output projection": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: MHA(
                q, k, v, w_q, w_k, w_v, torch.eye(len(w_o), dtype=w_o.dtype), H, mask
            ),
            "The heads are concatenated and returned. W_O is missing: it is what mixes the findings of one head with "
            "those of another.",
        ),
        "W_O transposed": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: MHA(q, k, v, w_q, w_k, w_v, w_o.T, H, mask),
            "W_O is applied transposed, the way `nn.Linear` stores it. Here it is used as it stands: rows times the "
            "matrix.",
        ),
        "one head": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: MHA(q, k, v, w_q, w_k, w_v, w_o, 1, mask),
            "This is one head of the full width: H is not used. There is one softmax per query where there should be "
            "H.",
        ),
        "viewed without swapping": (
            whole_layer(split=viewed),
            "The width is reshaped straight into (B, H, T, K), so each head holds other tokens instead of another part "
            "of each token.",
        ),
        "merged without swapping": (
            whole_layer(merge=unswapped),
            "The heads are not swapped back before they are merged: findings land at the wrong tokens, and with a "
            "causal mask "
            "the future leaks into the past. Use `merge_heads`.",
        ),
        "viewed and merged without swapping": (
            whole_layer(split=viewed, merge=unswapped),
            "Neither the split nor the merge swaps heads and tokens. Everything fits together again, which makes this "
            "so hard to "
            "see, but each head reads a part of the text instead of a part of the width.",
        ),
        "heads averaged": (
            whole_layer(merge=lambda x: x.mean(dim=1).repeat(1, 1, x.shape[1])),
            "The heads are averaged before W_O, so it gets H copies of one vector and cannot tell them apart.",
        ),
        "divided by the root of the model width": (
            whole_layer(BY_MODEL),
            "The scores are divided by √D, the width of the model, instead of √K, the width of a head.",
        ),
        "no scaling": (whole_layer(NO_SCALE), "The scores are not divided by √K."),
        "over the queries": (whole_layer(OVER_QUERIES), "The softmax runs over the queries instead of the keys."),
        "over the heads": (
            whole_layer(OVER_HEADS),
            "The softmax runs over the heads: each should have one of its own.",
        ),
        "one view for keys and values": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: MHA(q, k, k, w_q, w_k, w_k, w_o, H, mask),
            "The keys serve as values too, and neither value nor w_v is used. What makes a token findable need not be "
            "what it has to say.",
        ),
        "values from the keys' input": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: MHA(q, k, k, w_q, w_k, w_v, w_o, H, mask),
            "The third input is not used: values are made from `key`. Often they are the same tensor, but the layer "
            "has three inputs because they "
            "need not be.",
        ),
        "everything from the query": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: MHA(q, q, q, w_q, w_k, w_v, w_o, H, mask),
            "All three projections read the query: that is self-attention, and the other two inputs are ignored.",
        ),
        "keys and values exchanged": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: MHA(q, v, k, w_q, w_k, w_v, w_o, H, mask),
            "`key` and `value` are exchanged: keys are made from `key`, values from `value`.",
        ),
        "queries and keys exchanged": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: MHA(q, k, v, w_k, w_q, w_v, w_o, H, mask),
            "w_q and w_k are exchanged: each token asks with its key.",
        ),
        "the same first head for all": (
            whole_layer(lambda q, k, mask=None: N.head_weights(q, k, mask)[:, :1]),
            "All heads use the weights of head 0: they look at the same places, and nothing is gained over one head.",
        ),
        "returns the query": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: q + MHA(q, k, v, w_q, w_k, w_v, w_o, H, mask),
            "The query is added to the result. That residual belongs to the block around this layer (lesson 07).",
        ),
        "the mask ignored": (
            whole_layer(IGNORED),
            "The mask is not handed on to `head_weights`: every query sees every key.",
        ),
        "the mask turned round": (
            whole_layer(INVERTED),
            "The mask is read the wrong way: here True means may look, in torch's layer it means hidden.",
        ),
        "keys cut off from the gradient": (
            lambda q, k, v, w_q, w_k, w_v, w_o, H, mask=None: MHA(
                q, k.detach(), v, w_q, w_k.detach(), w_v, w_o, H, mask
            ),
            "The output is right, but no gradient reaches the keys and W_K. Look for `detach` or `.data`.",
        ),
    },
    right={"head by head": by_head, "einsum": by_einsum, "torch's layer": torchs},
)

# ---- how many numbers


def stored(D: int, H: int, G: int | None = None, bias: bool = False) -> int:
    """Layers of that size, which hold no memory; their numbers counted."""
    if G is None:
        made: nn.Module = nn.MultiheadAttention(D, H, bias=bias, device="meta")
    else:
        shapes = (D, D), (D, D // H * G), (D, D // H * G), (D, D)
        made = nn.ModuleList(nn.Linear(*shape, bias=bias, device="meta") for shape in shapes)
    return sum(p.numel() for p in made.parameters())


def counted(
    weights: Callable[[int, int, int], float],
    biases: Callable[[int, int, int], float] = lambda D, K, G: 2 * D + 2 * G * K,
) -> Callable[..., Any]:
    """A count out of two formulas in D, K and G (which is H where it is not given)."""

    def count(D: int, H: int, G: int | None = None, bias: bool = False) -> float:
        G = H if G is None else G
        return weights(D, D // H, G) + (biases(D, D // H, G) if bias else 0)

    return count


def right_weights(D: int, K: int, G: int) -> int:
    return 2 * D * D + 2 * D * G * K


PARAMETERS = exercise(
    "attention_parameters",
    reference=N.attention_parameters,
    oracle=stored,
    requirements=[
        requires("four matrices", 1, layer),
        requires("with a bias each", 1, layer_biased),
        requires("with fewer key/value heads", 1, layer_grouped),
        requires("with both", 1, layer_grouped_biased),
    ],
    wrong={
        "a float": (
            lambda *sizes: float(N.attention_parameters(*sizes)),
            "The count is right, and a float, as `/` gives it. D is a multiple of H: divide with `//`.",
        ),
        "W_O forgotten": (
            counted(lambda D, K, G: D * D + 2 * D * G * K, lambda D, K, G: D + 2 * G * K),
            "Three matrices are counted: W_O, the output projection, is missing.",
        ),
        "full width for every head": (
            lambda D, H, G=None, bias=False: H * N.attention_parameters(D, H, G, bias),
            "You count four D × D matrices for each head. A head's matrices are D × K with K = D / H, so that all "
            "heads together "
            "fill one D × D matrix each for Q, K and V.",
        ),
        "one head's worth": (
            counted(lambda D, K, G: 4 * D * K, lambda D, K, G: 4 * K),
            "These are the matrices of one head. There are H of them side by side.",
        ),
        "matrices of K by K": (
            lambda D, H, G=None, bias=False: 4 * H * (D // H) ** 2 + (4 * D if bias else 0),
            "Each head's matrices are taken as K × K, as if a head read only its own part of the input. A head reads "
            "all D numbers of a "
            "token and makes K of them: D × K.",
        ),
        "biases forgotten": (
            counted(right_weights, lambda D, K, G: 0),
            "`bias` is not used: each matrix has as many biases as it has outputs.",
        ),
        "a bias of D for all four": (
            counted(right_weights, lambda D, K, G: 4 * D),
            "The biases are counted as 4 D. With fewer key/value heads W_K and W_V have only G K outputs, and a bias "
            "for each.",
        ),
        "one bias": (
            counted(right_weights, lambda D, K, G: D),
            "One bias is counted. Each of the four projections has its own.",
        ),
        "no bias for W_O": (
            counted(right_weights, lambda D, K, G: D + 2 * G * K),
            "The bias of W_O is missing.",
        ),
        "always with biases": (
            lambda D, H, G=None, bias=False: N.attention_parameters(D, H, G, True),
            "Biases are counted even where there are none.",
        ),
        "groups ignored": (
            lambda D, H, G=None, bias=False: N.attention_parameters(D, H, None, bias),
            "`G` is not used. With G key/value heads W_K and W_V have G K columns instead of D.",
        ),
        "only the keys grouped": (
            counted(lambda D, K, G: 3 * D * D + D * G * K, lambda D, K, G: 3 * D + G * K),
            "W_K shrinks and W_V does not: a group shares its values as well as its keys.",
        ),
        "the queries grouped too": (
            counted(lambda D, K, G: D * D + 3 * D * G * K, lambda D, K, G: D + 3 * G * K),
            "W_Q shrinks too. There are still H heads of queries: only keys and values are shared.",
        ),
        "everything grouped": (
            counted(lambda D, K, G: 4 * D * G * K, lambda D, K, G: 4 * G * K),
            "All four matrices shrink. Queries keep H heads, and W_O takes in what H heads found.",
        ),
        "keys of G numbers": (
            counted(lambda D, K, G: 2 * D * D + 2 * D * (K if G * K == D else G), lambda D, K, G: 2 * D + 2 * G),
            "G is taken for the width of keys and values. It is their number of heads: their width is G K.",
        ),
    },
    right={
        "counted by torch": stored,
        "head by head": lambda D, H, G=None, bias=False: (
            sum((D + bias) * (D // H) for _ in range(H))
            + 2 * sum((D + bias) * (D // H) for _ in range(G or H))
            + D * (D + bias)
        ),
        "a product": lambda D, H, G=None, bias=False: 2 * (D + int(bias)) * (D + (G or H) * D // H),
    },
)

# ---- shared keys and values


def shared_loops(x: Tensor, H: int) -> Tensor:
    G = x.shape[1]
    assert H % G == 0
    return torch.stack([x[:, h * G // H] for h in range(H)], dim=1)


REPEAT = exercise(
    "repeat_kv",
    reference=N.repeat_kv,
    oracle=shared_loops,
    requirements=[
        requires("one head for all, a single key", 1, shared_by_all),
        requires("several heads, neighbours share one, and the gradient", 2, shared, run=with_gradients),
        requires("a batch of one, double precision, not contiguous", 1, shared_odd, run=with_dtype),
        requires("heads that cannot be shared evenly are refused", 1, shared_unevenly, run=refusal, law=must_refuse),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: N.repeat_kv(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single key loses its axis, and so does a "
            "batch of one.",
        ),
        "tiled": (
            lambda x, H: x.repeat(1, N.repeat_kv(x[:1], H).shape[1] // x.shape[1], 1, 1),
            "The heads are tiled: 0, 1, 0, 1. Groups are neighbours: 0, 0, 1, 1. Models that were trained the one way "
            "talk nonsense "
            "when run the other way.",
        ),
        "H times each": (
            lambda x, H: x.repeat_interleave(H, dim=1),
            "Each head is repeated H times, so there are G H of them. H / G copies of each make H.",
        ),
        "G times each": (
            lambda x, H: x.repeat_interleave(x.shape[1], dim=1),
            "Each head is repeated G times. H / G copies of each make H.",
        ),
        "not repeated": (lambda x, H: x, "Nothing is repeated: G heads go in and G come out."),
        "the first head for all": (
            lambda x, H: x[:, :1].expand(-1, H, -1, -1),
            "All queries get head 0. That is multi-query attention, G = 1; here each group has its own.",
        ),
        "the mean for all": (
            lambda x, H: x.mean(dim=1, keepdim=True).expand(-1, H, -1, -1),
            "The heads are averaged into one. Nothing is averaged here: a group shares a head, other groups have "
            "others.",
        ),
        "along the sequence": (
            lambda x, H: x.repeat_interleave(H // x.shape[1], dim=2),
            "The tokens are repeated instead of the heads: the sequence got longer.",
        ),
        "along the width": (
            lambda x, H: x.repeat_interleave(H // x.shape[1], dim=3),
            "The numbers of each key are repeated: its width grew. It is the heads, axis 1, that are handed out "
            "several times.",
        ),
        "along the batch": (
            lambda x, H: x.repeat_interleave(H // x.shape[1], dim=0),
            "The batch is repeated instead of the heads.",
        ),
        "an axis of its own": (
            lambda x, H: x.unsqueeze(2).expand(-1, -1, H // x.shape[1], -1, -1),
            "The copies stand in an axis of their own, (B, G, H / G, S, K). Join it with the heads.",
        ),
        "groups from behind": (
            lambda x, H: N.repeat_kv(x.flip(1), H),
            "The groups are in reverse order: the first query heads share head 0.",
        ),
        "uneven shares accepted": (
            lambda x, H: x.repeat_interleave(H // x.shape[1], dim=1),
            "Right where G divides H. Where it does not, you return fewer than H heads without a word. Raise a "
            "ValueError.",
        ),
        "uneven shares rounded": (
            lambda x, H: x[:, [h * x.shape[1] // H for h in range(H)]],
            "Right where G divides H. Where it does not, some groups are larger than others, and nobody was told. "
            "Raise a ValueError.",
        ),
        "cut off from the gradient": (
            lambda x, H: N.repeat_kv(x.detach(), H),
            "The values are right, but no gradient flows back: the keys of a group learn from all queries that share "
            "them.",
        ),
    },
    right={
        "head by head": shared_loops,
        "expanded": lambda x, H: x.unsqueeze(2).expand(-1, -1, even_share(H, x.shape[1]), -1, -1).flatten(1, 2),
        "by index": lambda x, H: x[:, torch.arange(x.shape[1]).repeat_interleave(even_share(H, x.shape[1]))],
    },
)


def grouped_sdpa(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, H: int, G: int, mask: Tensor | None = None
) -> Tensor:
    """torch's kernel, which knows groups itself."""
    q, k, v = ((x @ w).unflatten(-1, (n, -1)).movedim(-2, 1) for w, n in ((w_q, H), (w_k, G), (w_v, G)))
    y = F.scaled_dot_product_attention(q, k, v, spread(mask), enable_gqa=True)
    return y.movedim(1, -2).flatten(-2) @ w_o


def grouped_by_head(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, H: int, G: int, mask: Tensor | None = None
) -> Tensor:
    """Multi-head attention whose matrices repeat the columns of a group."""
    K = w_q.shape[1] // H
    of_group = torch.cat([torch.arange(K) + (h * G // H) * K for h in range(H)])
    return by_head(x, x, x, w_q, w_k[:, of_group], w_v[:, of_group], w_o, H, mask)


def grouped_layer(
    weights: Weigh = N.head_weights,
    keys: Callable[[Tensor, int], Tensor] = N.repeat_kv,
    values: Callable[[Tensor, int], Tensor] | None = None,
    merge: Callable[[Tensor], Tensor] = N.merge_heads,
    split: Callable[[Tensor, int], Tensor] = N.split_heads,
    out: Callable[[Tensor, Tensor], Tensor] = torch.matmul,
) -> Callable[..., Tensor]:
    """The grouped layer out of parts; values are handed out as the keys are, unless said otherwise."""

    def attention(
        x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, H: int, G: int, mask: Tensor | None = None
    ) -> Tensor:
        k, v = keys(split(x @ w_k, G), H), (values or keys)(split(x @ w_v, G), H)
        return out(merge(weights(split(x @ w_q, H), k, mask) @ v), w_o)

    return attention


def tiled(x: Tensor, H: int) -> Tensor:
    return x.repeat(1, H // x.shape[1], 1, 1)


def flattened_keys(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, H: int, _G: int, mask: Tensor | None = None
) -> Tensor:
    """Keys cut into H narrow heads, and the queries' heads cut down to fit."""
    q, k, v = N.split_heads(x @ w_q, H), N.split_heads(x @ w_k, H), N.split_heads(x @ w_v, H)
    y = N.head_weights(q[..., : k.shape[-1]], k, mask) @ v  # G K / H numbers of each
    return N.merge_heads(y) @ w_o[: w_v.shape[1]]


GROUPED = exercise(
    "grouped_attention",
    reference=N.grouped_attention,
    oracle=grouped_sdpa,
    forbidden=("F.scaled_dot_product_attention", "nn.MultiheadAttention"),
    requirements=[
        requires("several groups, and all gradients", 2, grouped, run=with_gradients),
        requires("one group: multi-query; a batch of one, double precision", 1, grouped_ends, run=with_dtype),
        requires("as many groups as heads: multi-head", 1, grouped_whole),
        requires("with a mask for each row", 1, grouped_masked),
        requires("texts of a single token", 1, grouped_alone),
    ],
    wrong={
        "the axis of the tokens dropped": (
            lambda *inputs: N.grouped_attention(*inputs).squeeze(1),
            "`squeeze(1)` drops the axis of the tokens where there is a single one. A decoder that writes has just "
            "one query.",
        ),
        "tiled": (
            grouped_layer(keys=tiled),
            "Keys and values are handed out in turn, 0, 1, 0, 1. Neighbouring queries share a head: 0, 0, 1, 1.",
        ),
        "only the keys tiled": (
            grouped_layer(keys=tiled, values=N.repeat_kv),
            "Keys and values are handed out differently: a query finds by one group's keys and gets another's values.",
        ),
        "the first group for all": (
            grouped_layer(keys=lambda x, H: x[:, :1].expand(-1, H, -1, -1)),
            "All queries use the keys and values of group 0, as in multi-query attention. There are G groups.",
        ),
        "groups averaged": (
            grouped_layer(keys=lambda x, H: x.mean(dim=1, keepdim=True).expand(-1, H, -1, -1)),
            "Keys and values are averaged over the groups. A group has its own.",
        ),
        "H narrow heads of keys": (
            flattened_keys,
            "Keys and values are cut into H heads, which are narrower than those of the queries. They are G heads of "
            "the full head width K.",
        ),
        "no output projection": (
            grouped_layer(out=lambda y, w_o: y),
            "W_O is missing: the heads are concatenated and returned.",
        ),
        "W_O transposed": (
            grouped_layer(out=lambda y, w_o: y @ w_o.T),
            "W_O is applied transposed, the way `nn.Linear` stores it.",
        ),
        "divided by the root of the model width": (
            grouped_layer(BY_MODEL),
            "The scores are divided by √D instead of √K, the width of a head.",
        ),
        "no scaling": (grouped_layer(NO_SCALE), "The scores are not divided by √K."),
        "merged without swapping": (
            grouped_layer(merge=unswapped),
            "Heads and tokens are not swapped back before merging: use `merge_heads`.",
        ),
        "viewed without swapping": (
            grouped_layer(split=viewed),
            "The widths are reshaped straight into heads, which cuts through tokens: use `split_heads`.",
        ),
        "values from W_K": (
            lambda x, w_q, w_k, w_v, w_o, H, G, mask=None: N.grouped_attention(x, w_q, w_k, w_k, w_o, H, G, mask),
            "The keys serve as values too, and w_v is never used.",
        ),
        "keys and values exchanged": (
            lambda x, w_q, w_k, w_v, w_o, H, G, mask=None: N.grouped_attention(x, w_q, w_v, w_k, w_o, H, G, mask),
            "w_k and w_v are exchanged.",
        ),
        "over the queries": (grouped_layer(OVER_QUERIES), "The softmax runs over the queries instead of the keys."),
        "the mask ignored": (grouped_layer(IGNORED), "The mask is not handed on: every token sees every other."),
        "the mask turned round": (grouped_layer(INVERTED), "The mask is read the wrong way: True = may look."),
        "values cut off from the gradient": (
            lambda x, w_q, w_k, w_v, w_o, H, G, mask=None: N.grouped_attention(
                x, w_q, w_k, w_v.detach(), w_o, H, G, mask
            ),
            "The output is right, but W_V gets no gradient. Look for `detach` or `.data`.",
        ),
    },
    right={
        "fused": grouped_sdpa,
        "columns repeated": grouped_by_head,
        "group by group": lambda x, w_q, w_k, w_v, w_o, H, G, mask=None: sum(
            by_head(
                x,
                x,
                x,
                w_q.chunk(G, 1)[g],
                w_k.chunk(G, 1)[g].repeat(1, H // G),
                w_v.chunk(G, 1)[g].repeat(1, H // G),
                w_o.chunk(G, 0)[g],
                H // G,
                mask,
            )
            for g in range(G)
        ),
    },
)

# ---- questions

LIKE_FILTERS = question(
    "like_filters",
    "Are the heads of an attention layer like the filters of a convolutional layer?",
    choices={
        "a": "No, they have nothing in common: filters are learned, while heads only compute averages.",
        "b": "Yes, they are the same: each head is a filter with its own fixed weights for the neighbours to the left "
        "and right.",
        "c": "In part: both are learned side by side, run at every position and put their results next to each other. "
        "But a filter's weights "
        "belong to offsets and stay as they are, a head's are computed from the content.",
        "d": "Yes: as with filters, adding more heads makes the output wider and adds parameters.",
    },
    explanations={
        "a": "A head is learned too: its matrices W_Q, W_K and W_V decide what it looks for and what it passes on.",
        "b": "A head has no weight for *the neighbour to the left*. Its weights are made anew for each query, from "
        "what stands there, and may "
        "reach any distance. A head can *learn* to look always at the previous token (if it is told positions), and is "
        "then one tap of a filter.",
        "c": "Yes. Several detectors in parallel and concatenation as channels are common to both; weights that depend "
        "on the content are "
        "what attention adds. With relative positions, enough heads can express any convolution (Cordonnier et al. "
        "2020).",
        "d": "More filters do that. More heads share out the same width: each becomes narrower, and the number of "
        "parameters stays $4d^2$.",
    },
    answer="c",
)

WHY_NARROW = question(
    "why_narrow",
    "Why is a head given the width $d/h$ and not the full width $d$?",
    choices={
        "a": "So that $h$ heads together cost what one head of width $d$ costs, in parameters and in operations, and "
        "their concatenation has the "
        "input's width again.",
        "b": "Because each head may only read its own $d/h$ numbers of a token: head 1 the first ones, head 2 the "
        "next.",
        "c": "Because a narrower head is always more accurate: it has less to learn.",
        "d": "Because the softmax works only for small widths.",
    },
    explanations={
        "a": "Yes. It is a budget, not a law: the width of a head may be chosen freely, if $W_O$ has $h K$ rows. Some "
        "models take heads wider than "
        "$d/h$, for a head's scores are a bilinear form of rank at most $K$, and too small a $K$ is a bottleneck.",
        "b": "Every head reads all $d$ numbers of a token, through its own $W_Q^i$, $W_K^i$, $W_V^i$ of shape $(d, "
        "d/h)$. What is cut is what the "
        "projections have made, not the token.",
        "c": "A narrow head is weaker: it can tell fewer keys apart. What pays is that there are several. The "
        "experiment with 32 heads of "
        "width 1 shows the price.",
        "d": "The division by $\\sqrt K$ makes the softmax work at any width.",
    },
    answer="a",
)

WHAT_COUNTS = question(
    "what_counts",
    "You double the length of the texts and the number of heads, and keep the model's width $d$. What becomes of the "
    "number of "
    "parameters of the attention layer?",
    choices={
        "a": "It doubles, because of the heads.",
        "b": "It doubles twice, because of the heads and of the length.",
        "c": "It grows by four, because the attention matrix is $T \\times T$.",
        "d": "Nothing: $4d^2$ contains neither.",
    },
    explanations={
        "a": "Twice the heads are half as wide each: $h$ matrices of $d \\times d/h$ are $d^2$ numbers for any $h$.",
        "b": "Neither does anything: heads share out a fixed width, and the same matrices are applied to every token "
        "of a text of any length.",
        "c": "The attention matrix is not a parameter: it is computed anew for each text, from the text. It costs time "
        "and memory, and in "
        "those both the length (by four) and the heads (by two) can be felt.",
        "d": "Yes. $W_Q$, $W_K$, $W_V$ are $h$ blocks of $d \\times d/h$, and $W_O$ is $d \\times d$. What does grow "
        "is the work, and the attention "
        "matrices: $h$ of $T \\times T$ each.",
    },
    answer="d",
)

WHAT_SHARING_SAVES = question(
    "what_sharing_saves",
    "A model has 32 heads of queries that share 8 heads of keys and values. What does that save above all?",
    choices={
        "a": "Attention matrices: there are 8 instead of 32.",
        "b": "Memory while text is generated: the keys and values of all earlier tokens, which are kept, take a "
        "quarter.",
        "c": "Three quarters of all the parameters of the layer.",
        "d": "The causal mask: shared keys cannot see the future.",
    },
    explanations={
        "a": "Every head of queries still has a softmax of its own, so there are 32 attention matrices. Only what they "
        "look at is shared.",
        "b": "Yes. For each new token the keys and values of all earlier ones are read again, in every layer, and "
        "reading is what takes the time "
        "(lesson 10). A quarter of them is a quarter of the reading, or four times the texts at once.",
        "c": "$W_K$ and $W_V$ shrink to a quarter, $W_Q$ and $W_O$ stay: $4d^2$ becomes $2d^2 + 2 d^2 / 4 = 2.5 d^2$. "
        "Welcome, but not the point.",
        "d": "Keys of later tokens are keys of later tokens, shared or not: the mask is as necessary as before.",
    },
    answer="b",
)

EXERCISES = [
    SPLIT, MERGE, WEIGHTS, WHOLE, PARAMETERS, REPEAT, GROUPED,
    LIKE_FILTERS, WHY_NARROW, WHAT_COUNTS, WHAT_SHARING_SAVES,
]  # fmt: skip
