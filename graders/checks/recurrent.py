"""Checks of recurrent cells and additive attention: two kinds of step, the loop, scores, the mix, a step that looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_dtype, with_gradients
from tinytrans.nn import recurrent as R

INF = float("inf")

# ---- inputs: seed -> what the learner's function is called with. Where sizes are equal, a mix-up of two weights or of
# two inputs gives a value, and so can be named; elsewhere all sizes differ.


def weights(draw: Draw, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A matrix or a bias, not so large that a tanh hides what went into it."""
    return 0.6 * draw.normal(*shape, dtype=dtype)


def plain_cell(draw: Draw, B: int, E: int, D: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    x, h = draw.normal(B, E, dtype=dtype), weights(draw, B, D, dtype=dtype)
    return x, h, *(weights(draw, *shape, dtype=dtype) for shape in ((D, E), (D, D), (D,)))


def gates(draw: Draw, E: int, D: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """The four weights of a gated cell."""
    return tuple(weights(draw, *shape, dtype=dtype) for shape in ((3 * D, E), (3 * D, D), (3 * D,), (3 * D,)))


def plain(draw: Draw) -> tuple[Tensor, ...]:
    return plain_cell(draw, *draw.sizes(3))


def plain_even(draw: Draw) -> tuple[Tensor, ...]:
    B, D = draw.sizes(2, 3)
    return plain_cell(draw, B, D, D)


def plain_single(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of one, and a state of one number."""
    return plain_cell(draw, 1, draw.integer(2, 9), 1, dtype=torch.float64)


def gated(draw: Draw) -> tuple[Tensor, ...]:
    B, E, D = draw.sizes(3, 2, 6)
    return draw.normal(B, E), draw.normal(B, D), *gates(draw, E, D)


def gated_even(draw: Draw) -> tuple[Tensor, ...]:
    B, D = draw.sizes(2, 3, 6)
    return draw.normal(B, D), draw.normal(B, D), *gates(draw, D, D)


def gated_single(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of one, and a state of one number."""
    E, D = draw.integer(2, 6), 1
    double = torch.float64
    return draw.normal(1, E, dtype=double), draw.normal(1, D, dtype=double), *gates(draw, E, D, double)


def sequences(draw: Draw, lengths: Tensor | None = None, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Three rows of up to five places, with a first state that is not 0."""
    lengths = torch.tensor([5, 5, 5]) if lengths is None else lengths
    E, D = draw.sizes(2, 2, 4)
    xs, h = draw.normal(len(lengths), 5, E, dtype=dtype), draw.normal(len(lengths), D, dtype=dtype)
    return xs, h, lengths, *gates(draw, E, D, dtype)


def padded(draw: Draw) -> tuple[Tensor, ...]:
    """Rows of five, three and one places, in any order; what stands in the padding is large."""
    lengths = torch.tensor([5, 3, 1])[draw.permutation(3)]
    xs, *rest = sequences(draw, lengths)
    return torch.where((torch.arange(5) < lengths[:, None])[..., None], xs, 30 * xs), *rest


def one_place(draw: Draw) -> tuple[Tensor, ...]:
    """Texts of a single token."""
    xs, h, _, *cell = sequences(draw)
    return xs[:, :1], h, torch.ones(len(xs), dtype=torch.long), *cell


def short_alone(draw: Draw) -> tuple[Tensor, ...]:
    """A single row that does not fill the width, in double precision."""
    return sequences(draw, torch.tensor([draw.integer(2, 4)]), torch.float64)


def additive(
    draw: Draw, B: int, S: int, D: int, M: int, A: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    query, keys = draw.normal(B, D, dtype=dtype), draw.normal(S, B, M, dtype=dtype).transpose(0, 1)
    return query, keys, *(weights(draw, *shape, dtype=dtype) for shape in ((A, D), (A, M), (A,)))


def scored(draw: Draw) -> tuple[Tensor, ...]:
    return additive(draw, *draw.sizes(5, 2, 7))


def scored_even(draw: Draw) -> tuple[Tensor, ...]:
    """As many rows as places, and all widths equal."""
    B, D = draw.sizes(2, 3, 6)
    return additive(draw, B, B, D, D, D)


def scored_single(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of one, and a single place."""
    return additive(draw, 1, 1, *draw.sizes(3, 2, 7), dtype=torch.float64)


def visible(draw: Draw, B: int, S: int) -> Tensor:
    """Rows of different lengths, one of them in full."""
    lengths = 1 + draw.integers(0, max(S - 1, 1), B)
    lengths[0] = S
    return torch.arange(S) < lengths[draw.permutation(B)][:, None]


def pooled(draw: Draw) -> tuple[Tensor, ...]:
    B, S, M = draw.sizes(3, 3, 7)
    return 2 * draw.normal(B, S), draw.normal(B, S, M)


def pooled_even(draw: Draw) -> tuple[Tensor, ...]:
    """As many rows as places as numbers in a value."""
    (B,) = draw.sizes(1, 3, 6)
    return 2 * draw.normal(B, B), draw.normal(B, B, B)


def pooled_masked(draw: Draw) -> tuple[Tensor, ...]:
    scores, values = pooled(draw)
    return scores, values, visible(draw, *scores.shape)


def pooled_loud(draw: Draw) -> tuple[Tensor, ...]:
    """Large scores, and hidden ones far above the visible."""
    scores, values, mask = pooled_masked(draw)
    return 90 * scores + 1000 * ~mask, values, mask


def pooled_single(draw: Draw) -> tuple[Tensor, ...]:
    """A single place of a batch of one, whose value is one number."""
    double = torch.float64
    return draw.normal(1, 1, dtype=double), draw.normal(1, 1, 1, dtype=double), torch.ones(1, 1, dtype=torch.bool)


def stepping(
    draw: Draw, B: int, S: int, E: int, D: int, M: int, A: int, dtype: torch.dtype = torch.float32
) -> tuple[Any, ...]:
    s, memory, *look = additive(draw, B, S, D, M, A, dtype)
    x, mask = draw.normal(B, E, dtype=dtype), visible(draw, B, S)
    return x, s, memory.contiguous(), mask, tuple(look), gates(draw, E + M, D, dtype)


def looked(draw: Draw) -> tuple[Any, ...]:
    return stepping(draw, *draw.sizes(6, 2, 8))


def looked_even(draw: Draw) -> tuple[Any, ...]:
    B, S, D = draw.sizes(3, 3, 6)
    return stepping(draw, B, S, D, D, D, D)


def looked_alone(draw: Draw) -> tuple[Any, ...]:
    """A batch of one, a single place, a state of one number."""
    E, M, A = draw.sizes(3, 3, 8)
    return stepping(draw, 1, 1, E, 1, M, A, torch.float64)


# ---- ways to run an answer, and laws: the sentence that says what is violated


def within_tanh(found: Any, *_: Any) -> str | None:
    """The law of the plain cell: a tanh lies between -1 and 1."""
    h = found[0] if isinstance(found, tuple) else found
    if h.isfinite().all() and h.abs().max() <= 1:
        return None
    return f"a number of the new state is {h.abs().max().item():.3g} in size: a tanh lies between -1 and 1"


def sound_shares(found: Any, scores: Tensor, values: Tensor, mask: Tensor | None = None) -> str | None:
    """The law of attention weights: no NaN, nothing hidden, rows sum to 1."""
    shares = found[0][1] if isinstance(found[0], tuple) else found[1]
    if shares.shape != scores.shape or len(values) != len(scores):
        return None
    seen = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    if shares.isnan().any():
        row = int(shares.isnan().any(dim=1).nonzero()[0])
        return f"row {row} of the weights holds NaN; its largest score is {scores[row].max():.3g}"
    if (leak := (shares != 0) & ~seen).any():
        row, place = leak.nonzero()[0].tolist()
        return f"row {row} gives the weight {shares[row, place]:.3g} to place {place}, which is hidden"
    sums = shares.sum(dim=1)
    if ((sums - 1).abs() > 1e-3).any():
        row = int((sums - 1).abs().argmax())
        return f"the weights of row {row} sum to {sums[row]:.4g}, not to 1"
    return None


# ---- the plain cell


def bend(bent: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The plain cell with another function around the sum."""
    return lambda x, h, w_x, w_h, b: bent(x @ w_x.T + h @ w_h.T + b)


def torchs_cell(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor) -> Tensor:
    return torch.rnn_tanh_cell(x, h, w_x, w_h, b, torch.zeros_like(b))


def over_rows(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor) -> Tensor:
    return torch.stack([torch.tanh(w_x @ one + w_h @ old + b) for one, old in zip(x, h, strict=True)])


RNN_STEP = exercise(
    "rnn_step",
    reference=R.rnn_step,
    oracle=torchs_cell,
    requirements=[
        requires("the new state, and the gradients", 2, plain, run=with_gradients, law=within_tanh),
        requires("an input as wide as the state", 1, plain_even, law=within_tanh),
        requires(
            "a batch of one, a state of one number, double precision", 1, plain_single, run=with_dtype, law=within_tanh
        ),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: R.rnn_step(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a batch of one loses its axis, and so does a "
            "state of one number.",
        ),
        "no tanh": (
            bend(lambda a: a),
            "The sum is not bent: tanh is missing. Without it a whole sequence is one linear map, and the state may "
            "grow without end.",
        ),
        "sigmoid for tanh": (
            bend(torch.sigmoid),
            "You bend with a sigmoid, so that no number of the state is ever negative. The cell takes tanh, which is "
            "centred on 0.",
        ),
        "ReLU for tanh": (
            bend(F.relu),
            "You bend with ReLU. The cell takes tanh: it keeps the state between -1 and 1 however long the text is.",
        ),
        "two tanhs": (
            lambda x, h, w_x, w_h, b: torch.tanh(x @ w_x.T + b) + torch.tanh(h @ w_h.T),
            "Each part is bent by itself and then added. Add first and bend the sum: that is where what comes in and "
            "what was remembered meet.",
        ),
        "state outside of the tanh": (
            lambda x, h, w_x, w_h, b: torch.tanh(x @ w_x.T + b) + h @ w_h.T,
            "The old state's part is added after the tanh. It belongs inside, beside W_x x.",
        ),
        "bias left out": (
            lambda x, h, w_x, w_h, b: torch.tanh(x @ w_x.T + h @ w_h.T),
            "The bias is not used: add b before the tanh.",
        ),
        "bias outside of the tanh": (
            lambda x, h, w_x, w_h, b: torch.tanh(x @ w_x.T + h @ w_h.T) + b,
            "The bias is added after the tanh. It shifts the point where tanh bends, so it belongs inside.",
        ),
        "bias twice": (
            lambda x, h, w_x, w_h, b: R.rnn_step(x, h, w_x, w_h, 2 * b),
            "The bias goes in twice, once with each product. torch's own cell has two biases; here there is one.",
        ),
        "forgets the past": (
            lambda x, h, w_x, w_h, b: torch.tanh(x @ w_x.T + b),
            "The old state plays no part: each step forgets all that came before.",
        ),
        "does not listen": (
            lambda x, h, w_x, w_h, b: torch.tanh(h @ w_h.T + b),
            "The input plays no part: whatever is read, the state goes its own way.",
        ),
        "weights swapped": (
            lambda x, h, w_x, w_h, b: R.rnn_step(x, h, w_h, w_x, b),
            "w_x meets the state and w_h the input, or x and h have changed places. The index says whose a matrix is.",
        ),
        "not transposed": (
            lambda x, h, w_x, w_h, b: torch.tanh(x @ w_x + h @ w_h + b),
            "The matrices are not transposed. They are stored as in torch, (D, E): one row for each number that comes "
            "out. For rows of a batch that is x @ w_x.T.",
        ),
        "w_x alone transposed": (
            lambda x, h, w_x, w_h, b: torch.tanh(x @ w_x.T + h @ w_h + b),
            "w_h is not transposed. It is square, so nothing complains; but its rows are what comes out, as in w_x.",
        ),
        "old state added": (
            lambda x, h, w_x, w_h, b: h + R.rnn_step(x, h, w_x, w_h, b),
            "The old state is added on top. The plain cell replaces its state; what you built is a residual.",
        ),
        "no gradient to the past": (
            lambda x, h, w_x, w_h, b: R.rnn_step(x, h.detach(), w_x, w_h, b),
            "The value is right, but no gradient reaches the old state: the cell could not learn what to remember. "
            "Look for `detach` or `.data`.",
        ),
        "single precision": (
            lambda x, h, w_x, w_h, b: R.rnn_step(x.float(), h.float(), w_x.float(), w_h.float(), b.float()),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "torch's own cell": torchs_cell,
        "row by row": over_rows,
        "one matrix for both": lambda x, h, w_x, w_h, b: F.linear(
            torch.cat((x, h), dim=1), torch.cat((w_x, w_h), dim=1), b
        ).tanh(),
        "einsum": lambda x, h, w_x, w_h, b: torch.tanh(
            torch.einsum("be,de->bd", x, w_x) + torch.einsum("bd,ed->be", h, w_h) + b
        ),
    },
)

# ---- the gated cell


def gru(
    *,
    order: tuple[int, int, int] = (0, 1, 2),
    gate: Callable[[Tensor], Tensor] = torch.sigmoid,
    candidate: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda n_x, r, n_h: torch.tanh(n_x + r * n_h),
    mix: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda z, n, h: (1 - z) * n + z * h,
    parts: Callable[[Tensor], tuple[Tensor, ...]] = lambda a: a.chunk(3, dim=-1),
) -> Callable[..., Tensor]:
    """A gated cell out of parts: which third is r, z, n, how gates bend, the candidate, the mix of old and new."""

    def step(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
        of_x, of_h = parts(x @ w_x.T + b_x), parts(h @ w_h.T + b_h)
        (r_x, z_x, n_x), (r_h, z_h, n_h) = ([part[i] for i in order] for part in (of_x, of_h))
        return mix(gate(z_x + z_h), candidate(n_x, gate(r_x + r_h), n_h), h)

    return step


def reset_before(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """As first published: the reset acts on the state, before the product."""
    r_x, z_x, n_x = (x @ w_x.T + b_x).chunk(3, dim=-1)
    r_w, z_w, n_w = w_h.chunk(3)
    r_b, z_b, n_b = b_h.chunk(3)
    r, z = torch.sigmoid(r_x + h @ r_w.T + r_b), torch.sigmoid(z_x + h @ z_w.T + z_b)
    return (1 - z) * torch.tanh(n_x + (r * h) @ n_w.T + n_b) + z * h


def bias_outside(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """The state's third bias is not reset."""
    D = h.shape[-1]
    moved = torch.cat((torch.zeros_like(b_h[: 2 * D]), b_h[2 * D :]))
    return R.gru_step(x, h, w_x, w_h, b_x + moved, b_h - moved)


def gru_over_rows(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """Row by row and part by part."""
    D, rows = h.shape[1], []
    for one, old in zip(x, h, strict=True):
        r, z = (torch.sigmoid(w_x[p] @ one + b_x[p] + w_h[p] @ old + b_h[p]) for p in (slice(0, D), slice(D, 2 * D)))
        n = torch.tanh(w_x[2 * D :] @ one + b_x[2 * D :] + r * (w_h[2 * D :] @ old + b_h[2 * D :]))
        rows.append(n + z * (old - n))
    return torch.stack(rows)


def gru_by_names(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """Every third cut out by itself."""
    D = h.shape[1]
    left, right = F.linear(x, w_x, b_x), F.linear(h, w_h, b_h)
    r = 1 / (1 + torch.exp(-left[:, :D] - right[:, :D]))
    z = (left[:, D:-D] + right[:, D:-D]).sigmoid()
    return torch.lerp((left[:, -D:] + r * right[:, -D:]).tanh(), h, z)


GRU_STEP = exercise(
    "gru_step",
    reference=R.gru_step,
    oracle=torch.gru_cell,
    requirements=[
        requires("the new state, and the gradients", 2, gated, run=with_gradients),
        requires("an input as wide as the state", 1, gated_even),
        requires("a batch of one, a state of one number, double precision", 1, gated_single, run=with_dtype),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: R.gru_step(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a batch of one loses its axis, and so does a "
            "state of one number.",
        ),
        "z turned round": (
            gru(mix=lambda z, n, h: z * n + (1 - z) * h),
            "z and 1 - z have changed places. Here, as in torch, z is how much of the *old* state stays: "
            "(1 - z) n + z h. Some papers write it the other way.",
        ),
        "r and z swapped": (
            gru(order=(1, 0, 2)),
            "The first third is taken for z and the second for r. The order is r, z, n.",
        ),
        "candidate first": (
            gru(order=(1, 2, 0)),
            "The first third is taken for the candidate n. The order is r, z, n.",
        ),
        "thirds interleaved": (
            gru(parts=lambda a: (a[..., ::3], a[..., 1::3], a[..., 2::3])),
            "You take every third number for one gate. The three parts stand below each other in blocks of D: "
            "`chunk(3, dim=-1)`.",
        ),
        "reset before the product": (
            reset_before,
            "r multiplies the state before U_n. So it stood in the first paper; here, as in cuDNN and torch, r "
            "multiplies what came out, U_n h + c_n.",
        ),
        "no reset": (
            gru(candidate=lambda n_x, _r, n_h: torch.tanh(n_x + n_h)),
            "The reset gate r is not used: the candidate always sees the whole old state.",
        ),
        "reset of everything": (
            gru(candidate=lambda n_x, r, n_h: torch.tanh(r * (n_x + n_h))),
            "r also multiplies the input's part of the candidate. It gates the old state alone: n_x + r * n_h.",
        ),
        "the state's third bias not reset": (
            bias_outside,
            "The bias c_n stands outside of the reset. It belongs to the state's part: r * (U_n h + c_n).",
        ),
        "no update gate": (
            gru(mix=lambda _z, n, _h: n),
            "You return the candidate: z is not used, and nothing of the old state stays as it was. That is what the "
            "gate is for.",
        ),
        "old state not scaled": (
            gru(mix=lambda z, n, h: (1 - z) * n + h),
            "The old state is added in full. New and old share one total: (1 - z) n + z h.",
        ),
        "candidate not scaled": (
            gru(mix=lambda z, n, h: n + z * h),
            "The candidate is added in full. New and old share one total: (1 - z) n + z h.",
        ),
        "candidate not bent": (
            gru(candidate=lambda n_x, r, n_h: n_x + r * n_h),
            "The candidate has no tanh, so the state can grow without end.",
        ),
        "sigmoid candidate": (
            gru(candidate=lambda n_x, r, n_h: torch.sigmoid(n_x + r * n_h)),
            "The candidate goes through a sigmoid and is never negative. Gates take the sigmoid, the candidate tanh.",
        ),
        "tanh gates": (
            gru(gate=torch.tanh),
            "The gates go through tanh and may be negative. A share lies between 0 and 1: sigmoid.",
        ),
        "gates not bent": (
            gru(gate=lambda a: a),
            "The gates are not bent: a share must lie between 0 and 1. Send r and z through a sigmoid.",
        ),
        "state's biases left out": (
            lambda x, h, w_x, w_h, b_x, b_h: R.gru_step(x, h, w_x, w_h, b_x, 0 * b_h),
            "b_h is not used. It is no twin of b_x: its last third stands under the reset.",
        ),
        "input's biases left out": (
            lambda x, h, w_x, w_h, b_x, b_h: R.gru_step(x, h, w_x, w_h, 0 * b_x, b_h),
            "b_x is not used.",
        ),
        "biases swapped": (
            lambda x, h, w_x, w_h, b_x, b_h: R.gru_step(x, h, w_x, w_h, b_h, b_x),
            "b_x and b_h have changed places. In the gates that makes no difference; in the candidate only b_h's part "
            "is reset.",
        ),
        "weights swapped": (
            lambda x, h, w_x, w_h, b_x, b_h: R.gru_step(x, h, w_h, w_x, b_x, b_h),
            "w_x meets the state and w_h the input.",
        ),
        "input and state swapped": (
            lambda x, h, w_x, w_h, b_x, b_h: R.gru_step(h, x, w_x, w_h, b_x, b_h),
            "x and h have changed places: the arguments are x first, then h.",
        ),
        "gates from the input alone": (
            lambda x, h, w_x, w_h, b_x, b_h: gates_from(x, h, w_x, w_h, b_x, b_h, 0.0, 1.0),
            "The gates do not see the old state: r and z are each a sum of two parts, one of x and one of h.",
        ),
        "gates from the state alone": (
            lambda x, h, w_x, w_h, b_x, b_h: gates_from(x, h, w_x, w_h, b_x, b_h, 1.0, 0.0),
            "The gates do not see the input: r and z are each a sum of two parts, one of x and one of h.",
        ),
        "no gradient to the past": (
            lambda x, h, w_x, w_h, b_x, b_h: R.gru_step(x, h.detach(), w_x, w_h, b_x, b_h),
            "The value is right, but no gradient reaches the old state. Look for `detach` or `.data`.",
        ),
        "single precision": (
            lambda *inputs: R.gru_step(*(one.float() for one in inputs)),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "torch's own cell": torch.gru_cell,
        "row by row": gru_over_rows,
        "slices and lerp": gru_by_names,
        "split": gru(parts=lambda a: a.split(a.shape[-1] // 3, dim=-1)),
    },
    equivalent={
        "dim=-1) -> dim=--1)": "the same axis from the other end",
        "dim=-1) -> dim=1)": "the same axis from the other end",
    },
)


def gates_from(
    x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor, of_h: float, of_x: float
) -> Tensor:
    """A gated cell whose gates weigh the state's part and the input's."""
    r_x, z_x, n_x = (x @ w_x.T + b_x).chunk(3, dim=-1)
    r_h, z_h, n_h = (h @ w_h.T + b_h).chunk(3, dim=-1)
    r, z = torch.sigmoid(of_x * r_x + of_h * r_h), torch.sigmoid(of_x * z_x + of_h * z_h)
    return (1 - z) * torch.tanh(n_x + r * n_h) + z * h


# ---- the loop

Run = Callable[..., tuple[Tensor, Tensor]]


def looped(
    *,
    reads: Callable[[int, Tensor], Tensor] = lambda t, lengths: t < lengths,
    carry: Callable[[Tensor, Tensor], Tensor] = lambda new, _first: new,
    shows: Callable[[Tensor, Tensor], Tensor] = lambda real, h: torch.where(real, h, torch.zeros_like(h)),
    start: Callable[[Tensor], Tensor] = lambda h: h,
) -> Run:
    """The loop out of parts: which rows read at t, what is carried on, what is shown, the start."""

    def run(xs: Tensor, h: Tensor, lengths: Tensor, *cell: Tensor) -> tuple[Tensor, Tensor]:
        h = first = start(h)
        states = []
        for t in range(xs.shape[1]):
            real = reads(t, lengths)[:, None]
            h = torch.where(real, R.gru_step(xs[:, t], carry(h, first), *cell), h)
            states.append(shows(real, h))
        return torch.stack(states, dim=1), h

    return run


def packed(xs: Tensor, h: Tensor, lengths: Tensor, *cell: Tensor) -> tuple[Tensor, Tensor]:
    """torch's own GRU on a packed batch."""
    T, E = xs.shape[1:]
    gru = nn.GRU(E, h.shape[1], batch_first=True).to(xs.dtype)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    sequence = pack_padded_sequence(xs, lengths, batch_first=True, enforce_sorted=False)
    states, last = torch.func.functional_call(gru, dict(zip(names, cell, strict=True)), (sequence, h[None]))
    return pad_packed_sequence(states, batch_first=True, total_length=T)[0], last[0]


def each_row(xs: Tensor, h: Tensor, lengths: Tensor, *cell: Tensor) -> tuple[Tensor, Tensor]:
    """Every row by itself, as far as it goes."""
    rows, ends = [], []
    for row, state, n in zip(xs, h, lengths.tolist(), strict=True):
        said = []
        for x in row[:n]:
            state = torch.gru_cell(x[None], state[None], *cell)[0]
            said.append(state)
        rows.append(F.pad(torch.stack(said), (0, 0, 0, len(row) - n)))
        ends.append(state)
    return torch.stack(rows), torch.stack(ends)


def all_then_picked(xs: Tensor, h: Tensor, lengths: Tensor, *cell: Tensor) -> tuple[Tensor, Tensor]:
    """Everything is read, padding too; what counts is picked afterwards."""
    states = []
    for x in xs.unbind(1):
        h = R.gru_step(x, h, *cell)
        states.append(h)
    every = torch.stack(states, dim=1)
    last = every[torch.arange(len(xs)), lengths - 1]
    return every.masked_fill((torch.arange(xs.shape[1]) >= lengths[:, None])[..., None], 0.0), last


def by_multiplying(xs: Tensor, h: Tensor, lengths: Tensor, *cell: Tensor) -> tuple[Tensor, Tensor]:
    """Masks as numbers."""
    keep = (torch.arange(xs.shape[1])[None] < lengths[:, None]).to(xs.dtype)[..., None]
    out = xs.new_zeros(len(xs), xs.shape[1], h.shape[1])
    for t in range(xs.shape[1]):
        h = keep[:, t] * R.gru_step(xs[:, t], h, *cell) + (1 - keep[:, t]) * h
        out = out.index_copy(1, torch.tensor([t]), (keep[:, t] * h)[:, None])
    return out, h


def changed_run(change: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> Callable[..., Any]:
    """The loop, and then something else with (states, last, first state, lengths)."""
    return lambda xs, h, lengths, *cell: change(*R.unroll(xs, h, lengths, *cell), h, lengths)


UNROLL = exercise(
    "unroll",
    reference=R.unroll,
    oracle=packed,
    requirements=[
        requires("full rows: every state in order, and the last", 1, sequences),
        requires("a single place", 1, one_place),
        requires("short rows: their state stays, their outputs at padding are 0", 2, padded),
        requires("a batch of one that does not fill the width, double precision", 1, short_alone, run=with_dtype),
        requires("the gradient goes back through all steps", 1, padded, run=with_gradients),
    ],
    wrong={
        "the axis of the places dropped": (
            changed_run(lambda states, last, _h, _n: (states.squeeze(1), last)),
            "`squeeze(1)` drops the axis of the places where there is a single one. A text of one token still has "
            "that axis.",
        ),
        "axes of size 1 dropped": (
            changed_run(lambda states, last, _h, _n: (states.squeeze(), last.squeeze())),
            "`squeeze()` without a number drops every axis of size 1: with a batch of one the batch itself goes.",
        ),
        "padding is read": (
            looped(reads=lambda _t, lengths: lengths > 0),
            "The lengths are not used: the cell goes on reading padding, so that the last state of a short row depends "
            "on how long its neighbours in the batch are.",
        ),
        "state not carried on": (
            looped(carry=lambda _new, first: first),
            "Each step begins with the first state again: nothing is remembered from one place to the next. Hand the "
            "new state on.",
        ),
        "starts from zeros": (
            looped(start=torch.zeros_like),
            "You begin with zeros. The first state is given: a decoder begins where the encoder ended.",
        ),
        "padding repeats the state": (
            looped(shows=lambda _real, h: h),
            "At padding the outputs repeat the last state. They should be 0 there; only the state itself stays.",
        ),
        "last place for last state": (
            changed_run(lambda states, _last, _h, _n: (states, states[:, -1])),
            "A short row ends with zeros: its state was lost at padding, or taken from the last place of the outputs. "
            "Each row ends at its own length, and its state then stays.",
        ),
        "one place too far": (
            looped(reads=lambda t, lengths: t <= lengths),
            "One place of padding is read: place t is real where t is *smaller* than the length, since places count "
            "from 0.",
        ),
        "one place short": (
            looped(reads=lambda t, lengths: t < lengths - 1),
            "The last real place of each row is not read.",
        ),
        "the state before the step": (
            lambda xs, h, lengths, *cell: before_step(xs, h, lengths, *cell),
            "The output at t is the state *before* x_t was read: everything is one place late.",
        ),
        "from the end": (
            lambda xs, h, lengths, *cell: R.unroll(xs.flip(1), h, lengths, *cell),
            "The sequence is read from its end. Place 0 comes first.",
        ),
        "no gradient between the steps": (
            looped(carry=lambda new, _first: new.detach()),
            "The values are right, but the gradient stops at every step, so nothing is learned about what to remember. "
            "Look for `detach` or `.data`.",
        ),
        "time before batch": (
            changed_run(lambda states, last, _h, _n: (states.transpose(0, 1), last)),
            "The outputs are (T, B, D): the batch comes first here. `torch.stack(states, dim=1)`.",
        ),
        "the last state first": (
            changed_run(lambda states, last, _h, _n: (last, states)),
            "The two results have changed places: first all states, then the last.",
        ),
        "only the states": (
            changed_run(lambda states, _last, _h, _n: states),
            "The last state is missing. Return both: the states of all places, and the state at each row's end.",
        ),
        "only the last": (
            changed_run(lambda _states, last, _h, _n: last),
            "The states of all places are missing. Return both: (states, last).",
        ),
        "first state among the outputs": (
            changed_run(lambda states, last, h, _n: (torch.cat((h[:, None], states), dim=1), last)),
            "There is one output too many: the first state is in front. It was not made here.",
        ),
        "the mean for the last": (
            changed_run(lambda states, _last, _h, n: (states, states.sum(1) / n[:, None])),
            "You return the mean of all states. What is handed on is the state after the last real place.",
        ),
        "cut to the shortest": (
            lambda xs, h, lengths, *cell: R.unroll(xs[:, : int(lengths.min())], h, lengths, *cell),
            "All rows are cut to the shortest one: real places of the longer ones are lost.",
        ),
    },
    right={
        "packed, torch's own": packed,
        "row by row": each_row,
        "all, then picked": all_then_picked,
        "masks as numbers": by_multiplying,
    },
    equivalent={
        "lengths).unsqueeze(-1) -> lengths).unsqueeze(--1)": "the same axis from the other end",
        "lengths).unsqueeze(-1) -> lengths).unsqueeze(1)": "the same axis from the other end",
    },
)


def before_step(xs: Tensor, h: Tensor, lengths: Tensor, *cell: Tensor) -> tuple[Tensor, Tensor]:
    """Each place shows the state that it found."""
    states, last = R.unroll(xs, h, lengths, *cell)
    found = torch.cat((h[:, None], states[:, :-1]), dim=1)
    return found * (torch.arange(xs.shape[1]) < lengths[:, None])[..., None], last


# ---- additive scores


def scores_one_by_one(query: Tensor, keys: Tensor, w_q: Tensor, w_k: Tensor, v: Tensor) -> Tensor:
    rows = [
        [sum(v[a] * torch.tanh(w_q[a] @ q + w_k[a] @ key) for a in range(len(v))) for key in row]
        for q, row in zip(query, keys, strict=True)
    ]
    return torch.stack([torch.stack(row) for row in rows])


def fit(hidden: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Additive scores from (W_q query (B, 1, A), W_k keys (B, S, A)) -> what v is multiplied with."""
    return lambda query, keys, w_q, w_k, v: hidden((query @ w_q.T).unsqueeze(1), keys @ w_k.T) @ v


def one_matrix(query: Tensor, keys: Tensor, w_q: Tensor, w_k: Tensor, v: Tensor) -> Tensor:
    """FC of query and key joined, as the notes write it."""
    joined = torch.cat((query[:, None].expand(-1, keys.shape[1], -1), keys), dim=-1)
    return torch.tanh(joined @ torch.cat((w_q, w_k), dim=1).T) @ v


ADDITIVE = exercise(
    "additive_scores",
    reference=R.additive_scores,
    oracle=scores_one_by_one,
    requirements=[
        requires("how well each key fits, and the gradients", 2, scored, run=with_gradients),
        requires("all widths equal, as many rows as places", 1, scored_even),
        requires("a batch of one, a single place, double precision", 1, scored_single, run=with_dtype),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: R.additive_scores(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single place loses its axis, and so does a "
            "batch of one.",
        ),
        "query left out": (
            fit(lambda _q, k: torch.tanh(k)),
            "The query plays no part: every step of the decoder would look at the same places.",
        ),
        "keys left out": (
            fit(lambda q, k: torch.tanh(q + 0 * k)),
            "The keys play no part: all places get the same score, whatever stands there. A widely read tutorial has "
            "just this mistake.",
        ),
        "no tanh": (
            fit(lambda q, k: q + k),
            "There is no tanh between the layers. Then the query adds the same number to all scores, and the softmax "
            "takes that away again: nothing depends on the query.",
        ),
        "each bent by itself": (
            fit(lambda q, k: torch.tanh(q) + torch.tanh(k)),
            "Query and key are bent separately and then added: v sees no meeting of the two. Add first, then tanh.",
        ),
        "multiplied": (
            fit(lambda q, k: torch.tanh(q * k)),
            "The two parts are multiplied. Additive attention adds them: tanh(W_q q + W_k k).",
        ),
        "dot product of the views": (
            lambda query, keys, w_q, w_k, v: ((query @ w_q.T)[:, None] * (keys @ w_k.T)).sum(-1),
            "This is the dot product of W_q q and W_k k, the attention of lesson 04. Here they are added, bent by tanh "
            "and weighed by v.",
        ),
        "tanh last": (
            lambda query, keys, w_q, w_k, v: torch.tanh(((query @ w_q.T)[:, None] + keys @ w_k.T) @ v),
            "The tanh comes after v. It belongs between the two layers; a score may be any number.",
        ),
        "tanh twice": (
            lambda *inputs: torch.tanh(R.additive_scores(*inputs)),
            "There is a second tanh around the score, which keeps it between -1 and 1 and the weights nearly even.",
        ),
        "ReLU for tanh": (
            fit(lambda q, k: F.relu(q + k)),
            "You bend with ReLU; Bahdanau et al. take tanh.",
        ),
        "summed without v": (
            lambda query, keys, w_q, w_k, v: torch.tanh((query @ w_q.T)[:, None] + keys @ w_k.T).sum(-1),
            "The A hidden numbers are summed, each counting the same. v weighs them.",
        ),
        "already shared out": (
            lambda *inputs: R.additive_scores(*inputs).softmax(-1),
            "These are weights, after the softmax. Here only the scores are asked for, so that padding can still be "
            "hidden.",
        ),
        "divided by the root of the width": (
            lambda query, keys, w_q, w_k, v: R.additive_scores(query, keys, w_q, w_k, v) / len(v) ** 0.5,
            "The scores are divided by √A. That belongs to the dot product (lesson 04); here v finds its own scale.",
        ),
        "matrices swapped": (
            lambda query, keys, w_q, w_k, v: R.additive_scores(query, keys, w_k, w_q, v),
            "w_q meets the keys and w_k the query.",
        ),
        "not transposed": (
            lambda query, keys, w_q, w_k, v: torch.tanh((query @ w_q)[:, None] + keys @ w_k) @ v,
            "The matrices are not transposed. They are stored as in torch, one row for each number that comes out.",
        ),
        "a row meets another's keys": (
            lambda query, keys, w_q, w_k, v: torch.tanh((query @ w_q.T)[None] + keys @ w_k.T) @ v,
            "The new axis stands in front, so that the queries run along the places instead of the rows. For (B, A) "
            "beside (B, S, A) it belongs in the middle: `unsqueeze(1)`.",
        ),
        "an axis of one left over": (
            lambda *inputs: R.additive_scores(*inputs).unsqueeze(-1),
            "The scores have a last axis of 1. One number for each key: (B, S).",
        ),
        "no gradient to the query": (
            lambda query, *rest: R.additive_scores(query.detach(), *rest),
            "The values are right, but no gradient reaches the query: the decoder would not learn what to look for.",
        ),
        "no gradient to the keys": (
            lambda query, keys, *rest: R.additive_scores(query, keys.detach(), *rest),
            "The values are right, but no gradient reaches the keys: the encoder would not learn to be found.",
        ),
        "single precision": (
            lambda *inputs: R.additive_scores(*(one.float() for one in inputs)),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "one by one": scores_one_by_one,
        "FC of both joined": one_matrix,
        "einsum": lambda query, keys, w_q, w_k, v: torch.einsum(
            "bsa,a->bs",
            torch.tanh(torch.einsum("bd,ad->ba", query, w_q)[:, None] + torch.einsum("bsm,am->bsa", keys, w_k)),
            v,
        ),
        "place by place": lambda query, keys, w_q, w_k, v: torch.stack(
            [(F.linear(query, w_q) + F.linear(key, w_k)).tanh().mul(v).sum(1) for key in keys.unbind(1)], dim=1
        ),
    },
)

# ---- pooling

Pooled = tuple[Tensor, Tensor]


def pool(
    share: Callable[[Tensor, Tensor | None], Tensor],
    mix: Callable[[Tensor, Tensor], Tensor] = lambda w, v: torch.einsum("bs,bsm->bm", w, v),
) -> Callable[..., Pooled]:
    """Pooling out of parts: how scores become weights, and how those mix the values."""

    def pooling(scores: Tensor, values: Tensor, mask: Tensor | None = None) -> Pooled:
        shares = share(scores, mask)
        return mix(shares, values), shares

    return pooling


def hidden_at(value: float, axis: int = -1) -> Callable[[Tensor, Tensor | None], Tensor]:
    """A softmax along an axis, hidden scores set to some value before."""
    return lambda scores, mask: (scores if mask is None else scores.masked_fill(~mask, value)).softmax(axis)


def zeroed_after(scores: Tensor, mask: Tensor | None) -> Tensor:
    return scores.softmax(-1) if mask is None else scores.softmax(-1) * mask


def zeroed_and_shared(scores: Tensor, mask: Tensor | None) -> Tensor:
    shares = zeroed_after(scores, mask)
    return shares / shares.sum(-1, keepdim=True)


def exp_over_sum(scores: Tensor, mask: Tensor | None) -> Tensor:
    raised = scores.exp() if mask is None else scores.exp() * mask
    return raised / raised.sum(-1, keepdim=True)


def exp_shifted(scores: Tensor, mask: Tensor | None) -> Tensor:
    scores = scores if mask is None else torch.where(mask, scores, -INF)
    raised = (scores - scores.max(dim=-1, keepdim=True).values).exp()
    return raised / raised.sum(-1, keepdim=True)


def hidden_in_place(scores: Tensor, values: Tensor, mask: Tensor | None = None) -> Pooled:
    return R.attention_pool(scores if mask is None else scores.data.masked_fill_(~mask, -INF), values)


def pool_by_hand(scores: Tensor, values: Tensor, mask: Tensor | None = None) -> Pooled:
    """Row by row, what is hidden left out altogether."""
    contexts, rows = [], []
    for b, row in enumerate(scores):
        seen = torch.arange(len(row)) if mask is None else mask[b].nonzero().flatten()
        shares = (row[seen] - row[seen].logsumexp(0)).exp()
        contexts.append(sum(w * values[b, s] for w, s in zip(shares, seen.tolist(), strict=True)))
        rows.append(torch.zeros_like(row).index_copy(0, seen, shares))
    return torch.stack(contexts), torch.stack(rows)


SOFTMAX = hidden_at(-INF)

POOL = exercise(
    "attention_pool",
    reference=R.attention_pool,
    oracle=pool_by_hand,
    requirements=[
        requires("as many rows as places as numbers", 1, pooled_even, law=sound_shares),
        requires("the mean of the values and the weights, and the gradients", 2, pooled, run=with_gradients),
        requires("padding gets nothing, what is real shares all", 2, pooled_masked, law=sound_shares),
        requires("large scores, and larger ones at padding", 1, pooled_loud, law=sound_shares),
        requires("a batch of one, a single place, double precision", 1, pooled_single, run=with_dtype),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: tuple(part.squeeze() for part in R.attention_pool(*inputs)),
            "`squeeze()` without a number drops every axis of size 1: a single place loses its axis, and so does a "
            "batch of one.",
        ),
        "padding not hidden": (
            pool(lambda scores, _mask: scores.softmax(-1)),
            "The mask is not used: the weights go to padding as well, and the result depends on how much there is.",
        ),
        "mask turned round": (
            pool(lambda scores, mask: SOFTMAX(scores, None if mask is None else ~mask)),
            "The mask is used the wrong way round: True says where one *may* look.",
        ),
        "hidden scores set to 0": (
            pool(hidden_at(0.0)),
            "Hidden scores become 0, and exp(0) = 1 is not nothing. What has the exponential 0?",
        ),
        "hidden scores set to -10": (
            pool(hidden_at(-10.0)),
            "Hidden scores become -10. That is little beside usual scores but not nothing, and much beside very "
            "negative ones. Only -∞ is always nothing.",
        ),
        "mask after the softmax": (
            pool(zeroed_after),
            "Padding is zeroed after the softmax, so that the rest no longer sums to 1. Hide it before.",
        ),
        "mask after the softmax, shared anew": (
            pool(zeroed_and_shared),
            "Zeroing after the softmax and sharing anew is right on paper. But a hidden score that is much larger than "
            "the others has taken everything by then, and 0 / 0 is NaN. Hide it before.",
        ),
        "softmax over the batch": (
            pool(hidden_at(-INF, 0)),
            "The softmax runs over the rows of the batch, so that sentences compete with each other. It runs over the "
            "places: dim=-1.",
        ),
        "softmax by hand without a shift": (
            pool(exp_over_sum),
            "Right for small scores; for large ones exp overflows, and infinity over infinity is NaN. Subtract each "
            "row's largest visible score first, or let `softmax` do it.",
        ),
        "no softmax": (
            pool(lambda scores, mask: scores if mask is None else scores * mask),
            "The raw scores are used as weights. They may be negative and need not sum to 1.",
        ),
        "divided by the sum": (
            pool(lambda scores, mask: exp_free(scores, mask)),
            "The scores are divided by their sum. Some are negative, and a sum near 0 blows up: softmax makes them "
            "positive first.",
        ),
        "sigmoid for softmax": (
            pool(lambda scores, mask: torch.sigmoid(scores) if mask is None else torch.sigmoid(scores) * mask),
            "Each place is weighed on its own, so the weights don't sum to 1.",
        ),
        "the best place alone": (
            pool(lambda scores, mask: hard(scores, mask)),
            "Only the best place counts. A hard choice lets no gradient reach the scores: all places take part, each "
            "by its share.",
        ),
        "all places alike": (
            pool(lambda scores, mask: SOFTMAX(0 * scores, mask)),
            "All places count the same: the scores play no part.",
        ),
        "weights times scores": (
            lambda scores, values, mask=None: times_scores(scores, values, mask),
            "The weights multiply the scores they came from. They belong to the values: what is mixed is what the "
            "encoder said.",
        ),
        "divided by the number of places": (
            pool(SOFTMAX, lambda w, v: (w[..., None] * v).mean(1)),
            "The weighted values are averaged, which divides by the number of places once more. The weights already "
            "sum to 1: add up.",
        ),
        "weights along the wrong axis": (
            pool(SOFTMAX, lambda w, v: (w[:, None] * v).sum(1)),
            "The weights are laid along the numbers of a value instead of along the places. `weights.unsqueeze(-1) * "
            "values`, or a product of (B, 1, S) with (B, S, M).",
        ),
        "weighted, not summed": (
            pool(SOFTMAX, lambda w, v: w[..., None] * v),
            "The values are weighted but not added up: the axis of the places should be gone.",
        ),
        "scaled by the width": (
            lambda scores, values, mask=None: R.attention_pool(scores / values.shape[-1] ** 0.5, values, mask),
            "The scores are divided by the root of the values' width. Here they come as they are to be used.",
        ),
        "weights first": (
            lambda *inputs: R.attention_pool(*inputs)[::-1],
            "The two results have changed places: first the context, then the weights.",
        ),
        "the weights are missing": (
            lambda *inputs: R.attention_pool(*inputs)[0],
            "Only the context is returned. The weights go with it: they are what the heat map shows.",
        ),
        "scores for weights": (
            lambda scores, values, mask=None: (R.attention_pool(scores, values, mask)[0], scores),
            "The second result is the scores. The weights are asked for, after the softmax.",
        ),
        "no gradient through the weights": (
            pool(lambda scores, mask: SOFTMAX(scores, mask).detach()),
            "The values are right, but no gradient reaches the scores: nothing would learn where to look.",
        ),
        "written into the scores": (
            hidden_in_place,
            "The scores that you were given were written to: `masked_fill_` with the underscore works in place, "
            "`masked_fill` makes a copy.",
        ),
        "single precision": (
            lambda scores, values, mask=None: R.attention_pool(scores.float(), values.float(), mask),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "row by row": pool_by_hand,
        "weighted sum": pool(SOFTMAX, lambda w, v: (w[..., None] * v).sum(1)),
        "bmm": pool(SOFTMAX, lambda w, v: torch.bmm(w[:, None], v)[:, 0]),
        "exp by hand, shifted": pool(exp_shifted),
        "an added mask": pool(
            lambda scores, mask: (
                scores if mask is None else scores + torch.zeros_like(scores).masked_fill(~mask, -INF)
            ).softmax(1)
        ),
        "the lowest number": pool(hidden_at(torch.finfo(torch.float32).min)),
    },
    equivalent={
        "scores.softmax(dim=-1) -> scores.softmax(dim=--1)": "the same axis from the other end",
        "scores.softmax(dim=-1) -> scores.softmax(dim=1)": "the same axis from the other end",
    },
)


def exp_free(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The scores over their sum."""
    seen = scores if mask is None else scores * mask
    return seen / seen.sum(-1, keepdim=True)


def hard(scores: Tensor, mask: Tensor | None) -> Tensor:
    """1 at the best place that is visible."""
    seen = scores if mask is None else scores.masked_fill(~mask, -INF)
    return F.one_hot(seen.argmax(-1), scores.shape[-1]).to(scores)


def times_scores(scores: Tensor, values: Tensor, mask: Tensor | None) -> Pooled:
    """The weights weigh what they came from; the number is spread to the width that was asked for."""
    _, shares = R.attention_pool(scores, values, mask)
    return (shares * scores).sum(-1, keepdim=True).expand(-1, values.shape[-1]), shares


# ---- a step that looks back

Step = tuple[Tensor, Tensor, Tensor]


def look_back(
    *,
    asks: Callable[[Tensor, Tensor], Tensor] = lambda _x, s: s,
    pools: Callable[..., Pooled] = R.attention_pool,
    joins: Callable[[Tensor, Tensor], Tensor] = lambda x, c: torch.cat((x, c), dim=-1),
    moves: Callable[[Tensor], Tensor] = lambda s: s,
) -> Callable[..., Step]:
    """A step out of parts: who asks, how it is pooled, what the cell reads, from which state it moves."""

    def step(x: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any) -> Step:
        context, shares = pools(R.additive_scores(asks(x, s), memory, *look), memory, mask)
        return R.gru_step(joins(x, context), moves(s), *cell), context, shares

    return step


def moves_then_looks(x: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any) -> Step:
    """The state after the step asks."""
    after, _, _ = R.attentive_step(x, s, memory, mask, look, cell)
    context, shares = R.attention_pool(R.additive_scores(after, memory, *look), memory, mask)
    return R.gru_step(torch.cat((x, context), dim=-1), s, *cell), context, shares


def looks_again(x: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any) -> Step:
    """The step is right, but what is returned was looked up afterwards."""
    after, _, _ = R.attentive_step(x, s, memory, mask, look, cell)
    return after, *R.attention_pool(R.additive_scores(after, memory, *look), memory, mask)


def rows_step(x: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any) -> Step:
    """Every row alone, without its padding."""
    found = []
    for b in range(len(x)):
        real = memory[b][mask[b]]
        scores = torch.tanh(look[0] @ s[b] + real @ look[1].T) @ look[2]
        shares = scores.softmax(0)
        context = shares @ real
        after = torch.gru_cell(torch.cat((x[b], context))[None], s[b : b + 1], *cell)[0]
        found.append((after, context, torch.zeros_like(memory[b, :, 0]).masked_scatter(mask[b], shares)))
    after, context, shares = (torch.stack(part) for part in zip(*found, strict=True))
    return after, context, shares


def changed_step(change: Callable[..., Any]) -> Callable[..., Any]:
    """The right step, and then something else with what came out."""
    return lambda *inputs: change(*R.attentive_step(*inputs))


STEP = exercise(
    "attentive_step",
    reference=R.attentive_step,
    oracle=rows_step,
    requirements=[
        requires("state, context and weights, and the gradients", 3, looked, run=with_gradients),
        requires("all widths equal", 1, looked_even),
        requires("a batch of one, a single place, double precision", 1, looked_alone, run=with_dtype),
    ],
    wrong={
        "axes of size 1 dropped": (
            changed_step(lambda s, c, w: (s.squeeze(), c.squeeze(), w.squeeze())),
            "`squeeze()` without a number drops every axis of size 1: a single place loses its axis, and so does a "
            "batch of one.",
        ),
        "context first": (
            look_back(joins=lambda x, c: torch.cat((c, x), dim=-1)),
            "The cell reads the context before the token. Its weights expect the other order: torch.cat((x, context)).",
        ),
        "the new state asks": (
            moves_then_looks,
            "The query is the state after the step, and so depends on a context that is only now being looked up. The "
            "state *before* the step asks.",
        ),
        "looks again afterwards": (
            looks_again,
            "The new state is right, but context and weights come from a second look, by the new state. Return what "
            "the step has used.",
        ),
        "the token asks": (
            look_back(asks=lambda x, _s: x),
            "The token x is the query. The decoder's state asks: it knows what has been written so far.",
        ),
        "padding is looked at": (
            look_back(pools=lambda scores, memory, _mask: R.attention_pool(scores, memory)),
            "The mask does not reach the softmax: padding gets a share.",
        ),
        "mask turned round": (
            look_back(pools=lambda scores, memory, mask: R.attention_pool(scores, memory, ~mask)),
            "The mask is handed on the wrong way round: True says where one *may* look.",
        ),
        "all places alike": (
            look_back(pools=lambda scores, memory, mask: R.attention_pool(0 * scores, memory, mask)),
            "The context is the plain mean of the memory: the scores play no part.",
        ),
        "context not read": (
            look_back(joins=lambda x, c: torch.cat((x, 0 * c), dim=-1)),
            "The cell does not read the context, so that looking has no effect on what comes next.",
        ),
        "token not read": (
            look_back(joins=lambda x, c: torch.cat((0 * x, c), dim=-1)),
            "The cell does not read the token x: the decoder would not know what it has just written.",
        ),
        "starts from zeros": (
            look_back(moves=torch.zeros_like),
            "The cell moves from zeros instead of from the state s: all that was written before is forgotten.",
        ),
        "state unchanged": (
            lambda x, s, *rest: (s, *R.attentive_step(x, s, *rest)[1:]),
            "The state comes back as it went in: the step was looked up but not made.",
        ),
        "weights of the look in another order": (
            lambda x, s, memory, mask, look, cell: R.attentive_step(
                x, s, memory, mask, (look[1], look[0], look[2]), cell
            ),
            "The memory meets w_q and the state w_k: hand on look as w_q, w_k, v.",
        ),
        "memory asks": (
            lambda x, s, memory, mask, look, cell: R.attentive_step(x, memory[:, 0], memory, mask, look, cell),
            "The query comes from the memory. It is the decoder that asks, with its state s.",
        ),
        "context before state": (
            changed_step(lambda s, c, w: (c, s, w)),
            "The results have changed places: first the new state, then the context, then the weights.",
        ),
        "only the state": (
            changed_step(lambda s, _c, _w: s),
            "Only the new state is returned. The context goes to the head, the weights to the heat map: return all "
            "three.",
        ),
        "the weights are missing": (
            changed_step(lambda s, c, _w: (s, c)),
            "The weights are missing: return state, context, weights.",
        ),
        "no gradient through the look": (
            look_back(pools=lambda *inputs: tuple(part.detach() for part in R.attention_pool(*inputs))),
            "The values are right, but no gradient goes through the context: the encoder would learn nothing from it.",
        ),
        "single precision": (
            lambda x, s, memory, mask, look, cell: R.attentive_step(
                x.float(), s.float(), memory.float(), mask, [w.float() for w in look], [w.float() for w in cell]
            ),
            "Double precision goes in and single comes out: leave the dtype as it is.",
        ),
    },
    right={
        "row by row": rows_step,
        "torch's own cell": lambda x, s, memory, mask, look, cell: own_cell(x, s, memory, mask, look, cell),
        "the cell's matrix cut in two": lambda x, s, memory, mask, look, cell: cut_cell(x, s, memory, mask, look, cell),
    },
    equivalent={
        "dim=-1), -> dim=--1),": "the same axis from the other end",
        "dim=-1), -> dim=1),": "the same axis from the other end",
    },
)


def own_cell(x: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any) -> Step:
    """In torch's own words."""
    w_q, w_k, v = look
    scores = one_matrix(s, memory, w_q, w_k, v)
    shares = torch.where(mask, scores, torch.finfo(scores.dtype).min).softmax(-1)
    context = torch.einsum("bs,bsm->bm", shares, memory)
    return torch.gru_cell(torch.hstack([x, context]), s, *cell), context, shares


def cut_cell(x: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any) -> Step:
    """Token and context each have a part of the cell's matrix."""
    w_x, w_h, b_x, b_h = cell
    context, shares = pool_by_hand(R.additive_scores(s, memory, *look), memory, mask)
    E = x.shape[-1]
    of_x = x @ w_x[:, :E].T + context @ w_x[:, E:].T + b_x
    r_x, z_x, n_x = of_x.chunk(3, dim=-1)
    r_h, z_h, n_h = (s @ w_h.T + b_h).chunk(3, dim=-1)
    z = torch.sigmoid(z_x + z_h)
    return (1 - z) * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h) + z * s, context, shares


# ---- questions

PARAMETERS = question(
    "longer_text",
    "You want your cell to read texts of 1000 characters instead of 20. How many more weights does it need?",
    choices={
        "a": "50 times as many: one set for each place.",
        "b": "None: the same weights are used at every step.",
        "c": "980 more, one bias for each new place.",
        "d": "As many as the wider state needs: D must grow in proportion to the length.",
    },
    explanations={
        "a": "That would be a layer for each place. It could read nothing longer than it was built for, and what it "
        "learned about place 3 would be of no use at place 4.",
        "b": "Yes. The weights are shared by all steps, which is what lets one cell read any length. What does grow "
        "with the length is the work, and the number of factors in the gradient.",
        "c": "A recurrent cell does not know at which place it is; nothing in it is counted by place.",
        "d": "The cell runs with any D, and nothing forces D to grow. Whether D numbers can hold a longer text is "
        "another matter: see section 5.",
    },
    answer="b",
)

FORGETS = question(
    "why_gates",
    "Why does a GRU remember over more steps than the plain cell?",
    choices={
        "a": "It has three times as many weights, and so three times the memory.",
        "b": "Its sigmoids have larger slopes than tanh.",
        "c": "It reads the text from both ends.",
        "d": "Where the gate z is near 1 the old state is copied: value and gradient pass the step nearly unchanged.",
    },
    explanations={
        "a": "A plain cell with three times as many weights forgets just as fast: section 3 measures how the gradient "
        "shrinks, and that is a matter of the factor at each step.",
        "b": "A sigmoid's slope is at most 1/4, that of tanh at most 1. If the state went through it at each step, "
        "things would be worse.",
        "c": "Any cell can be run from both ends; a GRU as such reads forwards.",
        "d": "Yes. h' = (1 - z) n + z h has the factor z on the direct way back, and the cell may learn to hold it "
        "near 1. Lesson 07 finds the same idea again along the depth: the residual.",
    },
    answer="d",
)

WHO_ASKS = question(
    "who_asks",
    "Your decoder has just written `2026-1` and is about to write the next digit. Which vector asks where to look?",
    choices={
        "a": "The state after `1` was written and before the next digit is: all that the decoder knows so far.",
        "b": "The embedding of the digit that is about to be written.",
        "c": "The encoder's state at the place that will be looked at.",
        "d": "The encoder's last state, since it holds the whole source.",
    },
    explanations={
        "a": "Yes. s_(t-1) knows what has been written, so it can tell which part of the date comes next. It asks, the "
        "answer goes into the cell, and then the state moves on.",
        "b": "That digit is what we want to find out. In training it would be the answer itself: a leak.",
        "c": "The encoder's states are what is asked (the keys), and each place's score is how well it fits.",
        "d": "It is the same at every step, so the decoder would look at the same places for the year as for the day.",
    },
    answer="a",
)

ENCODERS = question(
    "encoder_or_rnn",
    "*What tells an encoder from an RNN?* Lecture notes ask this of a transformer's encoder.",
    choices={
        "a": "Nothing: both read a sequence and give one vector for each token.",
        "b": "An encoder has weights of its own for each place, an RNN shares them.",
        "c": "*Encoder* is a role, reading a source into vectors; a recurrent network can play it, step after step "
        "through one state. A transformer's encoder plays it without recurrence: each token looks at all others.",
        "d": "An encoder cannot be trained by gradients through time, because it has no loss of its own.",
    },
    explanations={
        "a": "Seen from outside, yes. Inside, an RNN hands what it knows from place to place, and T places take T "
        "steps; in self-attention any two places are one step apart, and all are computed at once.",
        "b": "Both share their weights over all places. That is why a transformer needs positions handed in (lesson "
        "08), while the RNN gets its order from the order of its steps.",
        "c": "Yes. In this lesson the encoder is an RNN. From lesson 04 on, attention takes over what the recurrence "
        "did, and a feed-forward layer (06) what the cell did to each token.",
        "d": "The decoder's loss reaches the encoder through the last state and through attention, as your training "
        "here shows.",
    },
    answer="c",
)

EXERCISES = [RNN_STEP, GRU_STEP, UNROLL, ADDITIVE, POOL, STEP, PARAMETERS, FORGETS, WHO_ASKS, ENCODERS]
