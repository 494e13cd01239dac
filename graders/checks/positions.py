"""Checks of the positions: sinusoids and adding them, learned tables and where they end, RoPE and its cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.exercise import Refusal, exercise, question, requires, with_dtype, with_gradients
from tinytrans.nn import positions as P

# ---- inputs: seed -> what the learner's function is called with. No width is 2, where there is only one pair and every
# exponent is 0, nor 4, where halves and neighbours share a pair; positions stay below 40, where single precision still
# knows its angles to 1e-5.

BASES = (16.0, 100.0, 500.0)


def even(draw: Draw) -> int:
    return 2 * draw.integer(3, 6)


def other_base(draw: Draw) -> float:
    return BASES[draw.integer(0, 2)]


def width(draw: Draw) -> tuple[int]:
    return (even(draw),)


def width_and_base(draw: Draw) -> tuple[int, float]:
    return even(draw), other_base(draw)


def odd_width_alone(draw: Draw) -> tuple[int]:
    return (even(draw) + 1,)


def from_zero(draw: Draw) -> tuple[Tensor, int]:
    D = even(draw)
    return torch.arange(D + draw.integer(1, 4)), D


def from_elsewhere(draw: Draw) -> tuple[Tensor, int]:
    """Positions in no order, the first of them not 0."""
    D = even(draw)
    return draw.permutation(30)[: D + 1] + 3, D


def several_texts(draw: Draw) -> tuple[Tensor, int]:
    """Positions (B, T): each text of a batch has its own."""
    D = even(draw)
    return torch.stack([draw.permutation(30)[: D + 1] + 3 for _ in range(3)]), D


def odd_width(draw: Draw) -> tuple[Tensor, int]:
    D = even(draw) + 1
    return torch.arange(D + draw.integer(1, 4)), D


def places_and_base(draw: Draw) -> tuple[Tensor, int, float]:
    """A single position of a single text."""
    places, D = from_elsewhere(draw)
    return places[None, :1], D, other_base(draw)


def embedded(draw: Draw) -> tuple[Tensor]:
    B, T = draw.sizes(2, 3, 5)
    return (draw.normal(B, T, even(draw)),)


def embedded_later(draw: Draw) -> tuple[Tensor, int]:
    return *embedded(draw), draw.integer(3, 20)


def embedded_double(draw: Draw) -> tuple[Tensor, int]:
    """A single token, in double precision."""
    return draw.normal(1, 1, even(draw), dtype=torch.float64), draw.integer(3, 20)


def tables(draw: Draw, low: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (B, T) and the two tables. There are fewer tokens than places, so that a mixed-up index gives a value."""
    B, T, V = draw.sizes(3, low, 6)
    D, max_len = 7, V + T + 6 + draw.integer(0, 3)
    ids = draw.integers(0, V, B, T)
    ids[0, :2] = torch.tensor([V - 1, V - 1])  # one word twice: what sets the two apart is their place
    return ids, draw.normal(V, D), draw.normal(max_len, D)


def at_the_start(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    return tables(draw)


def further_on(draw: Draw) -> tuple[Tensor, Tensor, Tensor, int]:
    """The last position is the table's last."""
    ids, tokens, places = tables(draw)
    return ids, tokens, places, len(places) - ids.shape[1]


def one_text_further_on(draw: Draw) -> tuple[Tensor, Tensor, Tensor, int]:
    """A single token."""
    ids, tokens, places, start = further_on(draw)
    return ids[:1, :1], tokens, places, start


def beyond(draw: Draw) -> tuple[Tensor, Tensor, Tensor, int]:
    """The last position but one is the table's last."""
    ids, tokens, places, start = further_on(draw)
    return ids, tokens, places, start + 1


def only_one_left(draw: Draw) -> tuple[Tensor, Tensor, Tensor, int]:
    """All but the first lie beyond the table's end: the one row that is left would broadcast."""
    ids, tokens, places = tables(draw, 3)
    return ids, tokens, places, len(places) - 1


def pairs(draw: Draw) -> tuple[Tensor, Tensor]:
    T, K = draw.integer(3, 5), even(draw)
    return draw.normal(T, K), 6 * draw.uniform(T, K // 2) - 3


def quarter_turns(draw: Draw) -> tuple[Tensor, Tensor]:
    K = even(draw)
    return draw.normal(1, K), (torch.pi / 2) * draw.integers(1, 4, 1, K // 2)


def pairs_of_heads(draw: Draw) -> tuple[Tensor, Tensor]:
    """With axes for batch and heads, not contiguous, in double precision; one set of angles for them all."""
    B, H, T = draw.sizes(3, 2, 5)
    K = even(draw)
    x = draw.normal(B, T, H, K, dtype=torch.float64).transpose(1, 2)
    return x, 6 * draw.uniform(T, K // 2).double() - 3


def placed(draw: Draw) -> tuple[Tensor, Tensor]:
    T, K = draw.integer(3, 5), even(draw)
    return draw.normal(T, K), torch.arange(T)


def placed_elsewhere(draw: Draw) -> tuple[Tensor, Tensor]:
    T, K = draw.integer(3, 5), even(draw)
    return draw.normal(T, K), draw.permutation(30)[:T] + 3


def placed_with_base(draw: Draw) -> tuple[Tensor, Tensor, float]:
    """A single token."""
    x, places = placed_elsewhere(draw)
    return x[:1], places[:1], other_base(draw)


def placed_heads(draw: Draw) -> tuple[Tensor, Tensor]:
    """With axes for batch and heads, not contiguous; each row of the batch has positions of its own, (B, 1, T)."""
    B, H, T = draw.sizes(3, 2, 5)
    K = even(draw)
    x = draw.normal(B, T, H, K).transpose(1, 2)
    return x, torch.stack([draw.permutation(30)[:T] + 3 for _ in range(B)]).unsqueeze(1)


def two_texts(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """Queries, keys, and by how much both are shifted."""
    T, S = draw.sizes(2, 3, 6)
    K = even(draw)
    return draw.normal(T, K), draw.normal(S, K), draw.integer(5, 20)


def one_step(draw: Draw) -> tuple[Tensor, ...]:
    """A cache of S turned keys."""
    K, d_v, S = even(draw), 4, draw.integer(3, 6)
    q, k, v = draw.normal(1, K), draw.normal(1, K), draw.normal(1, d_v)
    return q, k, v, P.rope(draw.normal(S, K), torch.arange(S)), draw.normal(S, d_v)


def one_step_of_heads(draw: Draw) -> tuple[Tensor, ...]:
    """With axes for batch and heads, in double precision."""
    B, H, S = draw.sizes(3, 2, 5)
    K, d_v, double = even(draw), 4, torch.float64
    q, k, v = (draw.normal(B, H, 1, width, dtype=double) for width in (K, K, d_v))
    keys, values = (draw.normal(B, H, S, width, dtype=double) for width in (K, d_v))
    return q, k, v, P.rope(keys, torch.arange(S)), values


def a_text(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a whole text, none of them turned."""
    T, K = draw.integer(4, 6), even(draw)
    return draw.normal(T, K), draw.normal(T, K), draw.normal(T, 4)


# ---- ways to run an answer, and laws: the sentence that says what is violated


NAMED = Refusal(("ValueError",))  # what torch complains of by itself is an IndexError here, and worse on a GPU


def learning(answer: Any, x: Tensor, *others: Any) -> Any:
    """The value, and the gradient that arrives at x: the matrices that made it learn through the turn."""
    value, (arrived, *_) = answer.gradients(x, *others)
    return value, arrived


def way_back(found: Any, *_inputs: Any) -> str | None:
    return "no gradient arrives at x: what made it would never learn" if found[1] is None else None


def must_refuse(found: Any, ids: Tensor, _tokens: Tensor, places: Tensor, start: int) -> str | None:
    if found == "refused":
        return None
    last = start + ids.shape[1] - 1
    return f"positions {start} to {last} of a table of {len(places)}, and there is no error: raise a ValueError"


def products(answer: Any, q: Tensor, k: Tensor, shift: int) -> Any:
    """All products of turned queries and turned keys, with both at the front of the text and both further back."""
    at_q, at_k = torch.arange(len(q)), torch.arange(len(k))
    front = answer(q, at_q) @ answer(k, at_k).mT
    return front, answer(q, at_q + shift) @ answer(k, at_k + shift).mT


def distance_alone(found: Any, _q: Tensor, _k: Tensor, shift: int) -> str | None:
    moved = float((found[0] - found[1]).abs().max())
    if moved < 1e-3:
        return None
    return (
        f"queries and keys both moved on by {shift}, and their products change by up to {moved:.3g}: they should stay"
    )


def lengths_kept(y: Any, x: Tensor, *_where: Any) -> str | None:
    """The law of a turn: it keeps the length of each pair."""
    y = y[0] if isinstance(y, tuple) else y  # with the precisions
    if y.shape != x.shape:
        return None
    before, after = (z.unflatten(-1, (2, -1)).norm(dim=-2) for z in (x, y))
    if ((before - after).abs() > 1e-3).any():
        *row, i = ((before - after).abs() > 1e-3).nonzero()[0].tolist()
        return (
            f"row {row}: the pair of numbers {i} and {i + x.shape[-1] // 2} had the length "
            f"{before[(*row, i)]:.3g} and has {after[(*row, i)]:.3g} now: a turn keeps it"
        )
    return None


def one_length(y: Tensor, positions: Tensor, D: int, *_base: Any) -> str | None:
    """The law of a sinusoidal table: a sine and a cosine of one angle have squares that add up to 1."""
    if D % 2 or y.shape != (*positions.shape, D):
        return None
    if (off := ((y**2).sum(dim=-1) - D / 2).abs() > 1e-3).any():
        t = off.nonzero()[0].tolist()
        total = float((y[tuple(t)] ** 2).sum())
        return f"row {t}: the squares add up to {total:.4g}; {D // 2} pairs of sine and cosine give {D // 2}"
    return None


def written(answer: Any, q: Tensor, k: Tensor, v: Tensor) -> Any:
    """A text token by token, the cache handed on from an empty one: what each gathered, the last keys and values."""
    keys, values, gathered = k[:0], v[:0], []
    for t in range(len(q)):
        y, keys, values = answer(q[t : t + 1], k[t : t + 1], v[t : t + 1], keys, values)
        gathered.append(y)
    return torch.cat(gathered), keys, values


def as_at_once(found: Any, q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """The law of a cache: token by token gives what the whole text gives at once."""
    if found[0].shape != v.shape:
        return None
    whole = torch.stack([look_by_hand(q[t], k[: t + 1], v[: t + 1]) for t in range(len(q))])
    off = ((found[0] - whole).abs().amax(dim=-1) > 1e-3).nonzero()
    return f"position {int(off[0])} gathers something else than in the whole text at once" if len(off) else None


# ---- independent oracles: Python's math, complex numbers, one number at a time


def frequencies_by_hand(width: int, base: float = 10000.0) -> Tensor:
    return torch.tensor([math.exp(-2 * i * math.log(base) / width) for i in range((width + 1) // 2)])


def sinusoid_by_hand(positions: Tensor, D: int, base: float = 10000.0) -> Tensor:
    def number(t: int, d: int) -> float:
        angle = t / math.pow(base, (d - d % 2) / D)
        return math.cos(angle) if d % 2 else math.sin(angle)

    rows = [[number(t, d) for d in range(D)] for t in positions.flatten().tolist()]
    return torch.tensor(rows).view(*positions.shape, D)


def added_by_hand(x: Tensor, start: int = 0) -> Tensor:
    D, y = x.shape[-1], x.clone()
    for t in range(x.shape[1]):
        y[:, t] = x[:, t] * D**0.5 + sinusoid_by_hand(torch.tensor([start + t]), D)[0]
    return y


def embedded_by_hand(ids: Tensor, tokens: Tensor, places: Tensor, start: int = 0) -> Tensor:
    B, T = ids.shape
    if start + T > places.shape[0]:
        raise ValueError("too long")
    return torch.stack([torch.stack([tokens[ids[b, t]] + places[start + t] for t in range(T)]) for b in range(B)])


def turned_as_complex(x: Tensor, angles: Tensor) -> Tensor:
    """Each pair as one complex number, times e^(j angle)."""
    K = x.shape[-1]
    y = torch.complex(x[..., : K // 2], x[..., K // 2 :]) * torch.polar(torch.ones_like(angles), angles).to(
        torch.complex128 if x.dtype == torch.float64 else torch.complex64
    )
    return torch.cat((y.real, y.imag), dim=-1)


def matrix_of(angles: list[float]) -> Tensor:
    """The rotation matrix R (K, K) of one position, its pairs i and i + K/2."""
    n = len(angles)
    R = torch.zeros(2 * n, 2 * n)
    for i, angle in enumerate(angles):
        R[i, i] = R[n + i, n + i] = math.cos(angle)
        R[i, n + i], R[n + i, i] = -math.sin(angle), math.sin(angle)
    return R


def turned_by_matrices(x: Tensor, angles: Tensor) -> Tensor:
    """R x for the matrix of each position."""
    flat = angles.reshape(-1, angles.shape[-1])
    R = torch.stack([matrix_of(row.tolist()) for row in flat]).view(*angles.shape[:-1], x.shape[-1], x.shape[-1])
    return (R.to(x.dtype) @ x[..., None])[..., 0]


def rope_by_hand(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """One number after the other."""
    K, y = x.shape[-1], x.clone()
    where = positions.expand(x.shape[:-1])
    for index in torch.cartesian_prod(*(torch.arange(n) for n in x.shape[:-1])).view(-1, x.dim() - 1).tolist():
        row, p = x[tuple(index)], int(where[tuple(index)])
        for i in range(K // 2):
            angle, a, b = p / base ** (2 * i / K), row[i], row[i + K // 2]
            y[(*index, i)] = a * math.cos(angle) - b * math.sin(angle)
            y[(*index, i + K // 2)] = a * math.sin(angle) + b * math.cos(angle)
    return y


def look_by_hand(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What the last position gathers: every key seen from its distance, so that the query need not turn at all."""
    S, K = keys.shape
    behind = torch.arange(S) - (S - 1)
    weights = torch.tensor([float(query @ rope_by_hand(keys[s : s + 1], behind[s])[0]) for s in range(S)]) / K**0.5
    return weights.softmax(0).to(values.dtype) @ values


def step_by_hand(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With the angle of the newest position as an explicit matrix."""
    S, K = keys.shape[-2:]
    R = matrix_of([S / 10000 ** (2 * i / K) for i in range(K // 2)]).to(q.dtype)
    keys, values = torch.cat([keys, k @ R.T], dim=-2), torch.cat([values, v], dim=-2)
    raised = ((q @ R.T) @ keys.transpose(-1, -2) * K**-0.5).exp()
    return raised / raised.sum(-1, keepdim=True) @ values, keys, values


# ---- frequencies


def spaced(exponent: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """base to the power of minus something of the pair's number i and the width."""
    return lambda width, base=10000.0: base ** -exponent(torch.arange((width + 1) // 2), width)


FREQUENCIES = exercise(
    "frequencies",
    reference=P.frequencies,
    oracle=frequencies_by_hand,
    requirements=[
        requires("one for each pair, base 10000", 2, width),
        requires("another base", 1, width_and_base),
        requires("an odd width: the last number is a pair by itself", 1, odd_width_alone),
    ],
    wrong={
        "exponent i / width": (
            spaced(lambda i, n: i / n),
            "Your exponent runs over i / width where 2i / width is asked for: the slowest pair then turns about 100 "
            "times too fast (base 10000). Does your i count pairs or numbers?",
        ),
        "exponent 4i / width": (
            spaced(lambda i, n: 4 * i / n),
            "The factor 2 is in your exponent twice: if your i already goes in steps of two, i / width is the whole "
            "exponent.",
        ),
        "one for each number": (
            lambda width, base=10000.0: base ** -(torch.arange(width) / width),
            "You give a frequency to each number. Two numbers make a pair and share one: width / 2 of them.",
        ),
        "each twice": (
            lambda width, base=10000.0: P.frequencies(width, base).repeat_interleave(2),
            "The values are right, but each is there twice. One for each pair is asked for.",
        ),
        "base 1000": (
            lambda width, base=1000.0: P.frequencies(width, base),
            "Your base is 1000 unless another is given: a zero is missing.",
        ),
        "the base ignored": (
            lambda width, base=10000.0: P.frequencies(width),
            "Right for base 10000; another base changes nothing. Use the argument.",
        ),
        "rising": (
            lambda width, base=10000.0: 1 / P.frequencies(width, base),
            "The sign of the exponent is lost: your frequencies rise from 1 to almost the base. These are the periods "
            "(over 2π), not the speeds.",
        ),
        "the other way round": (
            lambda width, base=10000.0: P.frequencies(width, base).flip(0),
            "The order is turned round: pair 0 is the fast one, with 1 radian a position.",
        ),
        "one for all pairs": (
            lambda width, base=10000.0: torch.ones((width + 1) // 2),
            "All pairs turn at the same speed. After 2π, some six positions, everything would look as at the start; "
            "did an integer division make all exponents 0?",
        ),
        "down to the last": (
            spaced(lambda i, n: i / ((n + 1) // 2 - 1)),
            "You divide by the last pair's number, so that the slowest is exactly 1/base. The formula divides 2i by "
            "the width: the slowest stays a little faster than 1/base.",
        ),
        "counted from 1": (
            spaced(lambda i, n: 2 * (i + 1) / n),
            "You count pairs from 1, and the fastest pair is missing. Pair 0 has the exponent 0: it turns by a full "
            "radian a position.",
        ),
        "the last number without a pair": (
            lambda width, base=10000.0: P.frequencies(width, base)[: width // 2],
            "Right for even widths. Five numbers are two pairs and a single one, which has a frequency too: three.",
        ),
        "evenly spaced": (
            lambda width, base=10000.0: torch.linspace(1, 1 / base, (width + 1) // 2),
            "Your frequencies fall in equal steps, so nearly all of them are fast. They should fall by equal factors.",
        ),
        "turns, not radians": (
            lambda width, base=10000.0: 2 * math.pi * P.frequencies(width, base),
            "You count in whole turns: everything is 2π times too fast. The formula gives radians.",
        ),
    },
    right={
        "exp and log": lambda width, base=10000.0: torch.exp(-math.log(base) * torch.arange(0, width, 2) / width),
        "one over the power": lambda width, base=10000.0: 1 / base ** (2 * torch.arange((width + 1) // 2) / width),
        "factor by factor": lambda width, base=10000.0: torch.tensor(
            [(base ** (-2 / width)) ** i for i in range((width + 1) // 2)]
        ),
    },
    equivalent={
        "base=10000.0, -> base=10001.0,": "a base off by 1 in 10,000 turns no pair by more than rounding may",
        "base=10000.0, -> base=9999.0,": "a base off by 1 in 10,000 turns no pair by more than rounding may",
    },
)

# ---- the sinusoidal table


def sinusoid(
    angles: Callable[[Tensor, int, float], Tensor] | None = None,
    pair: Callable[[Tensor], tuple[Tensor, Tensor]] = lambda a: (a.sin(), a.cos()),
    *,
    halves: bool = False,
) -> Callable[..., Tensor]:
    """A table from its angles and from what becomes of each, in turn or in halves."""

    def table(positions: Tensor, D: int, base: float = 10000.0) -> Tensor:
        a = positions[..., None] * P.frequencies(D, base) if angles is None else angles(positions, D, base)
        numbers = torch.cat(pair(a), dim=-1) if halves else torch.stack(pair(a), dim=-1).flatten(-2)
        return numbers[..., :D]

    return table


def a_number_each(positions: Tensor, D: int, base: float = 10000.0) -> Tensor:
    angles = positions[..., None] / base ** (torch.arange(D) / D)
    return torch.where(torch.arange(D) % 2 == 0, angles.sin(), angles.cos())


def slots(positions: Tensor, D: int, base: float = 10000.0) -> Tensor:
    """The annotated code's way: columns 0, 2, ... and 1, 3, ... of an empty table."""
    table, angles = torch.zeros(*positions.shape, D), positions[..., None] / base ** (torch.arange(0, D, 2) / D)
    table[..., 0::2], table[..., 1::2] = angles.sin(), angles.cos()[..., : D // 2]
    return table


SINUSOIDAL = exercise(
    "sinusoidal",
    reference=P.sinusoidal,
    oracle=sinusoid_by_hand,
    requirements=[
        requires("positions 0, 1, 2 ...", 2, from_zero, law=one_length),
        requires("positions that start elsewhere, in any order", 1, from_elsewhere, law=one_length),
        requires("a batch of texts, each with positions of its own", 1, several_texts, law=one_length),
        requires("an odd width ends on a sine", 1, odd_width, law=one_length),
        requires("another base", 1, places_and_base, law=one_length),
    ],
    wrong={
        "sines first, then cosines": (
            sinusoid(halves=True),
            "All sines come first, then all cosines. A model could live with that order, but weights trained with "
            "the other could not: in the paper sine and cosine take turns.",
        ),
        "cosine first": (
            sinusoid(pair=lambda a: (a.cos(), a.sin())),
            "Each pair is turned round: the sine stands at the even places, the cosine at the odd ones. Position 0 "
            "is 0, 1, 0, 1 ...",
        ),
        "sines only": (
            sinusoid(pair=lambda a: (a.sin(), a.sin())),
            "There are sines only. An angle and its mirror image, θ and π - θ, have the same sine; the cosine tells "
            "them apart.",
        ),
        "cosines only": (
            sinusoid(pair=lambda a: (a.cos(), a.cos())),
            "There are cosines only: the sine belongs at the even places.",
        ),
        "a frequency for each number": (
            a_number_each,
            "Sine and cosine of a pair have different angles: your exponent is d / D for each column d. Columns 2i and "
            "2i + 1 share the exponent 2i / D, or a shift of the text is no longer a rotation.",
        ),
        "exponent i / D": (
            sinusoid(lambda p, D, base: p[..., None] * base ** -(torch.arange((D + 1) // 2) / D)),
            "Your exponent is i / D; the formula has 2i / D. With half the exponent the slowest wave has a period of "
            "some 600 positions instead of 60,000.",
        ),
        "one frequency": (
            sinusoid(lambda p, D, base: p[..., None].expand(*p.shape, (D + 1) // 2)),
            "All pairs have the same frequency: the row says only where in a circle of 2π the position stands, and "
            "0, 44 and 710 look alike.",
        ),
        "base 1000": (
            lambda positions, D, base=1000.0: P.sinusoidal(positions, D, base),
            "Your base is 1000 unless another is given: a zero is missing.",
        ),
        "the base ignored": (
            lambda positions, D, base=10000.0: P.sinusoidal(positions, D),
            "Right for base 10000; another base changes nothing. Hand it on to the frequencies.",
        ),
        "divided by the frequency": (
            sinusoid(lambda p, D, base: p[..., None] / P.frequencies(D, base)),
            "Positions are divided by the frequencies where they should be multiplied: the last waves turn thousands "
            "of radians a position, which is noise.",
        ),
        "always from 0": (
            lambda positions, D, base=10000.0: P.sinusoidal(torch.arange(positions.shape[-1]), D, base),
            "The positions given are not read, only how many there are: your rows are those of 0, 1, 2 ... While "
            "decoding, the next token stands at position 17, say, and not at 0.",
        ),
        "counted from 1": (
            lambda positions, D, base=10000.0: P.sinusoidal(positions + 1, D, base),
            "Every position is one too far: position 0 has the row 0, 1, 0, 1 ...",
        ),
        "a single text": (
            lambda positions, D, base=10000.0: P.sinusoidal(positions.flatten(), D, base),
            "Right for the positions of one text, (T,). Those of a batch, (B, T), want a table each, (B, T, D): give "
            "the positions a last axis, `positions[..., None]`, and leave the others alone.",
        ),
        "a share of the length": (
            lambda positions, D, base=10000.0: P.sinusoidal(positions / positions.shape[-1], D, base),
            "Positions are divided by the length of the text. Then the same place has another vector in every text, "
            "and two neighbours are nearer to each other in a long one.",
        ),
        "radians taken for degrees": (
            sinusoid(lambda p, D, base: torch.deg2rad(p[..., None] * P.frequencies(D, base))),
            "Your angles are degrees, turned into radians: 57 times too slow. The formula gives radians.",
        ),
        "columns for rows": (
            lambda positions, D, base=10000.0: P.sinusoidal(positions, D, base).mT.contiguous(),
            "The table lies on its side: a row for each position, a column for each of the D numbers.",
        ),
        "an odd width filled up": (
            lambda positions, D, base=10000.0: P.sinusoidal(positions, D + D % 2, base),
            "Right for even widths. An odd D ends with a sine whose cosine is left out, or the table does not fit the "
            "embeddings.",
        ),
        "counted from the first": (
            lambda positions, D, base=10000.0: P.sinusoidal(positions - positions[..., :1], D, base),
            "The first position counts as 0, wherever it stands. Take the positions as they are handed in.",
        ),
    },
    right={
        "columns filled in": slots,
        "complex": lambda positions, D, base=10000.0: torch.view_as_real(
            1j * torch.exp(-1j * positions[..., None] * P.frequencies(D, base))
        ).flatten(-2)[..., :D],
        "cosine as a shifted sine": lambda positions, D, base=10000.0: torch.sin(
            positions[..., None] / base ** ((torch.arange(D) // 2) * 2 / D) + (torch.arange(D) % 2) * torch.pi / 2
        ),
    },
)

# ---- adding it


def added(x: Tensor, start: int = 0, *, scale: float | None = None, first: int | None = None) -> Tensor:
    """x times something, plus the rows from `first` on."""
    T, D = x.shape[-2:]
    begin = start if first is None else first
    return x * (D**0.5 if scale is None else scale) + P.sinusoidal(torch.arange(begin, begin + T), D)


def same_row(x: Tensor, start: int = 0) -> Tensor:
    D = x.shape[-1]
    return x * D**0.5 + P.sinusoidal(torch.tensor(start), D)


def by_row_of_batch(x: Tensor, start: int = 0) -> Tensor:
    B, _, D = x.shape
    return x * D**0.5 + P.sinusoidal(torch.arange(start, start + B), D)[:, None]


def rows(x: Tensor, start: int = 0) -> Tensor:
    return P.sinusoidal(torch.arange(start, start + x.shape[-2]), x.shape[-1])


ADD = exercise(
    "add_sinusoidal",
    reference=P.add_sinusoidal,
    oracle=added_by_hand,
    requirements=[
        requires("the first token at position 0, and the gradient", 2, embedded, run=learning, law=way_back),
        requires("the first token further on, as in decoding", 1, embedded_later),
        requires("a single token, double precision", 1, embedded_double, run=with_dtype),
    ],
    wrong={
        "not scaled": (
            lambda x, start=0: added(x, start, scale=1.0),
            "The embeddings are not multiplied by √D. With numbers near 1/√D they would drown in sines of size 1: "
            "the model would hear where it is, and hardly which word.",
        ),
        "divided by √D": (
            lambda x, start=0: added(x, start, scale=x.shape[-1] ** -0.5),
            "The embeddings are divided by √D, as scores are in attention. Here they are multiplied: they are to "
            "become as large as the sines.",
        ),
        "multiplied by D": (
            lambda x, start=0: added(x, start, scale=float(x.shape[-1])),
            "The factor is √D, and you multiply by D.",
        ),
        "scaled by the length": (
            lambda x, start=0: added(x, start, scale=x.shape[-2] ** 0.5),
            "The factor is the root of the width D; you take that of the number of tokens.",
        ),
        "the sum scaled": (
            lambda x, start=0: (x + rows(x, start)) * x.shape[-1] ** 0.5,
            "You multiply the sum by √D, positions and all. Only the embeddings are too small.",
        ),
        "the positions scaled": (
            lambda x, start=0: x + rows(x, start) * x.shape[-1] ** 0.5,
            "The positions are multiplied, not the embeddings: what was too loud becomes louder.",
        ),
        "restarts at 0": (
            lambda x, start=0: added(x, first=0),
            "`start` is not used: the first token of each call stands at 0. When text is written token by token, "
            "every token would stand at the very beginning.",
        ),
        "one too far": (
            lambda x, start=0: added(x, start + 1),
            "Every token is one position too far: the first stands at `start` itself.",
        ),
        "added twice": (
            lambda x, start=0: added(x, start) + rows(x, start),
            "The positions are added twice.",
        ),
        "the positions alone": (
            lambda x, start=0: rows(x, start).expand(x.shape).contiguous(),
            "The words are gone: these are the positions alone. They are added to the embeddings.",
        ),
        "no positions": (
            lambda x, start=0: x * x.shape[-1] ** 0.5,
            "The embeddings are scaled, and no position is added.",
        ),
        "no gradient": (
            lambda x, start=0: added(x.detach(), start),
            "The numbers are right, but the way back is cut (`detach`, `no_grad`, `item` or a new tensor made of "
            "numbers): the embeddings would never learn.",
        ),
        "multiplied": (
            lambda x, start=0: x * x.shape[-1] ** 0.5 * rows(x, start),
            "Positions are multiplied in. Where a sine is 0 the word would be wiped out; they are added.",
        ),
        "side by side": (
            lambda x, start=0: torch.cat((x * x.shape[-1] ** 0.5, rows(x, start).expand(x.shape)), dim=-1),
            "Words and positions stand side by side, 2D wide. That would work in a wider model; here they are added, "
            "and the width stays.",
        ),
        "one row for all": (
            same_row,
            "All tokens get the vector of the first position, so that nothing tells them apart. Each has its own.",
        ),
        "along the batch": (
            by_row_of_batch,
            "The position grows from one text of the batch to the next. It should grow from token to token: the "
            "middle axis.",
        ),
    },
    right={
        "token by token": lambda x, start=0: torch.stack(
            [
                x[:, t] * x.shape[-1] ** 0.5 + P.sinusoidal(torch.tensor([start + t]), x.shape[-1])
                for t in range(x.shape[1])
            ],
            dim=1,
        ),
        "cut from a longer table": lambda x, start=0: (
            P.sinusoidal(torch.arange(99), x.shape[-1])[start : start + x.shape[1]] + math.sqrt(x.shape[-1]) * x
        ),
        "text by text": lambda x, start=0: torch.stack([added(one, start) for one in x]),
    },
)

# ---- a learned table


def looked_up(where: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """The token's row plus the row that `where` picks for (ids, places, start), however long the text."""
    return lambda ids, tokens, places, start=0: tokens[ids] + places[where(ids, places, start)]


def here(ids: Tensor, start: int) -> Tensor:
    return torch.arange(start, start + ids.shape[-1])


def guarded(
    answer: Callable[..., Tensor], stop: Callable[[Tensor, int], int] = lambda ids, start: start + ids.shape[1]
) -> Callable[..., Tensor]:
    """The answer behind the check of the table's end."""

    def checked(ids: Tensor, tokens: Tensor, places: Tensor, start: int = 0) -> Tensor:
        if stop(ids, start) > len(places):
            raise ValueError("too long")
        return answer(ids, tokens, places, start)

    return checked


def zeros_beyond(ids: Tensor, tokens: Tensor, places: Tensor, start: int = 0) -> Tensor:
    longer = torch.cat([places, torch.zeros(start + ids.shape[1], places.shape[1])])
    return tokens[ids] + longer[start : start + ids.shape[1]]


def cut(ids: Tensor, tokens: Tensor, places: Tensor, start: int = 0) -> Tensor:
    kept = max(0, min(ids.shape[1], len(places) - start))
    return tokens[ids[:, :kept]] + places[start : start + kept]


def by_batch_row(ids: Tensor, tokens: Tensor, places: Tensor, start: int = 0) -> Tensor:
    return tokens[ids] + places[start : start + len(ids)][:, None]


EMBED = exercise(
    "embed_at",
    reference=P.embed_at,
    oracle=embedded_by_hand,
    requirements=[
        requires("the first token at position 0", 1, at_the_start),
        requires("the first token further on, up to the table's last place", 1, further_on),
        requires("a position beyond the table is refused", 1, beyond, run=NAMED, law=must_refuse),
        requires("also where a single row is left", 1, only_one_left, run=NAMED, law=must_refuse),
        requires("a single token: gradients reach both tables", 1, one_text_further_on, run=with_gradients),
    ],
    wrong={
        "indexed by token id": (
            guarded(lambda ids, tokens, places, start=0: tokens[ids] + places[ids]),
            "The table of places is asked for the token's number: the same word gets the same vector wherever it "
            "stands. Ask it for the position.",
        ),
        "sliced, and never checked": (
            lambda ids, tokens, places, start=0: tokens[ids] + places[start : start + ids.shape[1]],
            "A slice never complains about the end of a table, it just gets shorter. Mostly the addition then fails "
            "with a riddle; where one row is left, it broadcasts, and all tokens stand at the same place. Check, and "
            "raise ValueError.",
        ),
        "looked up, and never checked": (
            looked_up(lambda ids, places, start: here(ids, start)),
            "Beyond the table you leave it to torch to complain: IndexError here, on a GPU an assertion that kills "
            "the process. Check first, and raise ValueError with both numbers.",
        ),
        "the last place for all beyond": (
            looked_up(lambda ids, places, start: here(ids, start).clamp(max=len(places) - 1)),
            "Everything beyond the table stands at its last place. No error, and wrong answers: text of that kind "
            "was never seen in training. Raise ValueError.",
        ),
        "round and round": (
            looked_up(lambda ids, places, start: here(ids, start) % len(places)),
            "Beyond the table you begin again at its first row: two tokens then stand at one place. Raise ValueError.",
        ),
        "nothing beyond": (
            zeros_beyond,
            "Tokens beyond the table get no position at all. Raise ValueError instead.",
        ),
        "cut off": (
            cut,
            "The text is cut where the table ends, and nobody is told. Who calls may decide to cut; raise ValueError.",
        ),
        "restarts at 0": (
            lambda ids, tokens, places, start=0: P.embed_at(ids, tokens, places),
            "`start` is not used: the first token of each call stands at 0, also where the text goes on from an "
            "earlier call.",
        ),
        "one too far": (
            lambda ids, tokens, places, start=0: P.embed_at(ids, tokens, places, start + 1),
            "Every token is one place too far: the first stands at `start` itself, and row 0 of the table is in use.",
        ),
        "the last place refused": (
            guarded(P.embed_at, lambda ids, start: start + ids.shape[1] + 1),
            "You refuse a text that just fits. A table of n rows has places 0 to n - 1; the last token stands at "
            "start + T - 1.",
        ),
        "the words alone": (
            guarded(lambda ids, tokens, places, start=0: tokens[ids]),
            "These are the words; no place is added to them.",
        ),
        "the places alone": (
            guarded(lambda ids, tokens, places, start=0: 0 * tokens[ids] + places[here(ids, start)]),
            "These are the places; the words are missing.",
        ),
        "one place for all": (
            guarded(lambda ids, tokens, places, start=0: tokens[ids] + places[start]),
            "All tokens get the place of the first. Each has its own: start, start + 1, start + 2 ...",
        ),
        "along the batch": (
            guarded(by_batch_row),
            "The place grows from one text of the batch to the next. It should grow from token to token.",
        ),
        "the places never learn": (
            lambda ids, tokens, places, start=0: P.embed_at(ids, tokens, places.detach(), start),
            "The sum is right, but no gradient reaches the table of places: it would stay as random as it began.",
        ),
        "scaled": (
            guarded(
                lambda ids, tokens, places, start=0: tokens[ids] * tokens.shape[1] ** 0.5 + places[here(ids, start)]
            ),
            "The words are multiplied by √D. That belongs to sinusoids, whose size is fixed; a learned table finds "
            "its own size.",
        ),
    },
    right={
        "embedding layers": guarded(
            lambda ids, tokens, places, start=0: (
                torch.nn.functional.embedding(ids, tokens) + torch.nn.functional.embedding(here(ids, start), places)
            )
        ),
        "one-hot products": guarded(
            lambda ids, tokens, places, start=0: (
                torch.nn.functional.one_hot(ids, len(tokens)).float() @ tokens
                + torch.eye(len(places))[here(ids, start)] @ places
            )
        ),
        "loops": embedded_by_hand,
    },
    equivalent={
        "ids.shape[-1] -> ids.shape[--1]": "the same axis from the other end",
        "ids.shape[-1] -> ids.shape[1]": "the same axis from the other end",
    },
)

# ---- a turn

Turned = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def by_halves(change: Turned) -> Callable[..., Tensor]:
    """A way to change the halves of x, given (first, second, cos, sin)."""

    def turned(x: Tensor, angles: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat(change(first, second, angles.cos(), angles.sin()), dim=-1)

    return turned


def neighbours(x: Tensor, angles: Tensor) -> Tensor:
    """The paper's pairs: (0, 1), (2, 3) ..."""
    first, second = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)


def one_after_the_other(x: Tensor, angles: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    first = first * angles.cos() - second * angles.sin()
    second = second * angles.cos() + first * angles.sin()
    return torch.cat((first, second), dim=-1)


TURN = exercise(
    "turn",
    reference=P.turn,
    oracle=turned_by_matrices,
    requirements=[
        requires("any angles", 2, pairs, law=lengths_kept),
        requires("the gradient comes back turned", 1, pairs, run=learning, law=way_back),
        requires("quarter turns of a single token", 1, quarter_turns, law=lengths_kept),
        requires("several heads, one set of angles", 1, pairs_of_heads, run=with_dtype, law=lengths_kept),
    ],
    wrong={
        "no gradient": (
            lambda x, angles: P.turn(x.detach(), angles),
            "The numbers are right, but the way back is cut (`detach`, `no_grad`, `item` or a new tensor made of "
            "numbers): the matrices that made x would never learn.",
        ),
        "never turned": (
            lambda x, angles: x.clone(),
            "Nothing has turned: x comes out as it went in. Lengths are kept, that is true.",
        ),
        "the other way": (
            by_halves(lambda a, b, cos, sin: (a * cos + b * sin, b * cos - a * sin)),
            "You turn clockwise, by minus the angle: check which of the two sines has the minus. (1, 0) turned by a "
            "quarter is (0, 1).",
        ),
        "neighbours as pairs": (
            neighbours,
            "Your pairs are neighbours, (0, 1), (2, 3) ..., as in the paper. Here numbers i and i + K/2 are a pair, as "
            "in Llama's published weights. Both are rotations; weights trained with one are noise to the other.",
        ),
        "pairs mixed up": (
            by_halves(
                lambda a, b, cos, sin: tuple(
                    torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2).chunk(2, dim=-1)
                )
            ),
            "The pairs are turned rightly and then put down in another order: read from halves, written to "
            "neighbours. What came from i and i + K/2 goes back there.",
        ),
        "both signs plus": (
            by_halves(lambda a, b, cos, sin: (a * cos + b * sin, b * cos + a * sin)),
            "Both sines have a plus: that is no rotation, it stretches. One of them has a minus; the squares of cos "
            "and sin then add up to 1.",
        ),
        "both signs minus": (
            by_halves(lambda a, b, cos, sin: (a * cos - b * sin, b * cos - a * sin)),
            "Both sines have a minus: that is no rotation. Turn (1, 0) and (0, 1) by a quarter and draw them.",
        ),
        "sine and cosine exchanged": (
            by_halves(lambda a, b, cos, sin: (a * sin - b * cos, b * sin + a * cos)),
            "Sine and cosine are exchanged: an angle of 0 should change nothing, and cos 0 = 1.",
        ),
        "one after the other": (
            one_after_the_other,
            "The second number is computed from the first one's new value. Both need the old ones: keep them until "
            "both are done.",
        ),
        "half of it turned": (
            by_halves(lambda a, b, cos, sin: (a * cos - b * sin, b)),
            "The first number of each pair is turned, the second stays as it was.",
        ),
        "shrunk by the cosine": (
            by_halves(lambda a, b, cos, sin: (a * cos, b * cos)),
            "Only the cosines are there: each pair shrinks and keeps its direction. What is missing is the share of "
            "its partner.",
        ),
        "the halves exchanged": (
            by_halves(lambda a, b, cos, sin: (b * cos + a * sin, a * cos - b * sin)),
            "The right numbers, the two halves in the wrong order.",
        ),
        "the angles added": (
            lambda x, angles: x + torch.cat((angles, angles), dim=-1),
            "The angles are added to the numbers. A vector turns when its pairs are mixed by cosine and sine.",
        ),
        "one angle for all pairs": (
            lambda x, angles: P.turn(x, angles[..., :1].expand(angles.shape)),
            "All pairs turn by the angle of pair 0. Each has its own.",
        ),
        "one row for all positions": (
            lambda x, angles: P.turn(x, angles[..., :1, :]),
            "Every row is turned by the angles of the first. Each has its own.",
        ),
        "degrees": (
            lambda x, angles: P.turn(x, torch.deg2rad(angles)),
            "The angles are radians already, and you convert them as if they were degrees.",
        ),
        "twice the angle": (
            lambda x, angles: P.turn(x, 2 * angles),
            "Everything turns by twice the angle.",
        ),
    },
    right={
        "complex": turned_as_complex,
        "matrices": turned_by_matrices,
        "the swapped half": lambda x, angles: (
            x * torch.cat((angles, angles), -1).cos()
            + torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), -1)
            * torch.cat((angles, angles), -1).sin()
        ),
        "pair by pair": lambda x, angles: torch.stack(
            [
                x[..., i] * angles[..., i % angles.shape[-1]].cos()
                + (1 if i >= angles.shape[-1] else -1)
                * x[..., (i + angles.shape[-1]) % x.shape[-1]]
                * angles[..., i % angles.shape[-1]].sin()
                for i in range(x.shape[-1])
            ],
            dim=-1,
        ),
    },
)

# ---- RoPE


def at(
    where: Callable[[Tensor, Tensor], Tensor] = lambda x, positions: positions,
    speeds: Callable[[int, float], Tensor] = P.frequencies,
    turned: Callable[[Tensor, Tensor], Tensor] = P.turn,
) -> Callable[..., Tensor]:
    """RoPE out of parts: positions, speeds, the turn."""
    return lambda x, positions, base=10000.0: turned(x, where(x, positions)[..., None] * speeds(x.shape[-1], base))


ROPE = exercise(
    "rope",
    reference=P.rope,
    oracle=rope_by_hand,
    requirements=[
        requires("positions 0, 1, 2 ...", 1, placed, law=lengths_kept),
        requires("the gradient comes back turned", 1, placed, run=learning, law=way_back),
        requires("positions that start elsewhere, in any order", 1, placed_elsewhere, law=lengths_kept),
        requires("products depend on the distance alone", 1, two_texts, run=products, law=distance_alone),
        requires("another base", 1, placed_with_base, law=lengths_kept),
        requires(
            "several heads, each text with positions of its own", 1, placed_heads, run=with_dtype, law=lengths_kept
        ),
    ],
    wrong={
        "no gradient": (
            lambda x, positions, base=10000.0: P.rope(x.detach(), positions, base),
            "The numbers are right, but the way back is cut (`detach`, `no_grad`, `item` or a new tensor made of "
            "numbers): the matrices that made x would never learn.",
        ),
        "never turned": (
            lambda x, positions, base=10000.0: x.clone(),
            "Nothing is turned. Lengths are kept and products do not depend on where the text begins, as it should "
            "be; they do not depend on the distance either.",
        ),
        "restarts at 0": (
            at(lambda x, positions: torch.arange(x.shape[-2])),
            "The positions given are not read: your rows stand at 0, 1, 2 ... While decoding, a single new token "
            "would stand at 0 each time.",
        ),
        "counted from the first": (
            at(lambda x, positions: positions - positions[..., :1]),
            "Positions are counted from the first one given. Queries and keys that come in different calls would no "
            "longer fit each other: positions are those in the whole text.",
        ),
        "one too far": (
            at(lambda x, positions: positions + 1),
            "Every position is one too far. The products are the same, so a model would not notice, until its cache "
            "was filled by somebody else's code: position 0 is not turned.",
        ),
        "the other way": (
            at(lambda x, positions: -positions),
            "You turn clockwise: by minus the angle. A model trained that way would work as well, but no published "
            "weights fit it.",
        ),
        "one frequency": (
            at(speeds=lambda K, base: torch.ones(K // 2)),
            "All pairs turn at the same speed. Distances 0, 44 and 710, nearly multiples of 2π, would look alike.",
        ),
        "exponent i / K": (
            at(speeds=lambda K, base: base ** -(torch.arange(K // 2) / K)),
            "The exponents run to 1/2 only: i / K where 2i / K is asked for. Use your `frequencies`.",
        ),
        "frequencies of half the width": (
            at(speeds=lambda K, base: base ** -(torch.arange(0, K, 2) / (K / 2))),
            "Your exponents run to 2: they are divided by K/2, the number of pairs, instead of the width K.",
        ),
        "slow pairs first": (
            at(speeds=lambda K, base: P.frequencies(K, base).flip(0)),
            "The frequencies are in the wrong order: pair 0 is the fastest.",
        ),
        "multiplied by the period": (
            at(speeds=lambda K, base: 1 / P.frequencies(K, base)),
            "Positions are divided by the frequencies where they should be multiplied.",
        ),
        "base 1000": (
            lambda x, positions, base=1000.0: P.rope(x, positions, base),
            "Your base is 1000 unless another is given: a zero is missing.",
        ),
        "the base ignored": (
            lambda x, positions, base=10000.0: P.rope(x, positions),
            "Right for base 10000; another base changes nothing. Models for long texts use larger ones, Llama 3 has "
            "500,000.",
        ),
        "neighbours as pairs": (
            at(turned=neighbours),
            "Your pairs are neighbours, (0, 1), (2, 3) ..., as in the paper; here they are i and i + K/2. Use your "
            "`turn`.",
        ),
        "no rotation": (
            at(turned=by_halves(lambda a, b, cos, sin: (a * cos + b * sin, b * cos + a * sin))),
            "Lengths change: both sines have a plus. One of them has a minus.",
        ),
        "a vector added": (
            lambda x, positions, base=10000.0: x + P.sinusoidal(positions, x.shape[-1], base),
            "A sinusoidal vector is added: that is the absolute way. RoPE adds nothing, it turns what is there.",
        ),
        "a share of the length": (
            at(lambda x, positions: positions / x.shape[-2]),
            "Positions are divided by the number of tokens, so that one step is another angle in every text.",
        ),
        "along the wrong axis": (
            lambda x, positions, base=10000.0: P.turn(
                x, (positions[..., :1].unsqueeze(-1) * P.frequencies(x.shape[-1], base))
            ),
            "All rows are turned by the first position. Each has its own.",
        ),
    },
    right={
        "complex": lambda x, positions, base=10000.0: turned_as_complex(
            x, positions[..., None] * P.frequencies(x.shape[-1], base)
        ),
        "matrices": lambda x, positions, base=10000.0: turned_by_matrices(
            x, (positions[..., None] * P.frequencies(x.shape[-1], base))
        ),
        "pair by pair": rope_by_hand,
        "the library's fast way": lambda x, positions, base=10000.0: P.rotate(
            x, P.rotation_at(positions, x.shape[-1], base=base, dtype=x.dtype)
        ),
    },
)

# ---- with a cache


def stepped(
    place_q: Callable[[int], int] = lambda S: S,
    place_k: Callable[[int], int] | None = None,
    *,
    scale: Callable[[int, int], float] = lambda K, S: K**-0.5,
    again: Callable[[Tensor], Tensor] = lambda keys: keys,
    front: bool = False,
) -> Callable[..., Any]:
    """A step out of parts: where the new query and key stand, what is done to the cache."""

    def step(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        S, K = keys.shape[-2:]
        new = P.rope(k, torch.tensor([(place_k or place_q)(S)])), v
        both = ((new[0], again(keys)), (new[1], values)) if front else ((again(keys), new[0]), (values, new[1]))
        keys, values = (torch.cat(pair, dim=-2) for pair in both)
        scores = P.rope(q, torch.tensor([place_q(S)])) @ keys.mT * scale(K, S)
        return scores.softmax(-1) @ values, keys, values

    return step


def turned_again(keys: Tensor) -> Tensor:
    return P.rope(keys, torch.arange(keys.shape[-2]))


def turned_to_here(keys: Tensor) -> Tensor:
    return P.rope(keys, torch.tensor([keys.shape[-2]]))


def not_turned_in_cache(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y, _, values_now = P.rope_step(q, k, v, keys, values)
    return y, torch.cat((keys, k), dim=-2), values_now


def not_cached(
    keep: Callable[..., tuple[Tensor, Tensor]],
) -> Callable[..., Any]:
    return lambda q, k, v, keys, values: (
        P.rope_step(q, k, v, keys, values)[0],
        *keep(*P.rope_step(q, k, v, keys, values)[1:], keys, values),
    )


def blind_to_itself(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _, keys_now, values_now = P.rope_step(q, k, v, keys, values)
    scores = P.rope(q, torch.tensor([keys.shape[-2]])) @ keys.mT / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ values, keys_now, values_now


def by_distance(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The query stays as it is, and the keys turn back to their distance from it."""
    S = torch.tensor([keys.shape[-2]])
    keys, values = torch.cat((keys, P.rope(k, S)), dim=-2), torch.cat((values, v), dim=-2)
    scores = torch.einsum("...tk,...sk->...ts", q, P.rope(keys, -S)) / math.sqrt(q.shape[-1])
    return torch.einsum("...ts,...sv->...tv", scores.softmax(-1), values), keys, values


STEP = exercise(
    "rope_step",
    reference=P.rope_step,
    oracle=step_by_hand,
    requirements=[
        requires("one token behind a cache", 2, one_step),
        requires("a text from the empty cache on: as if computed at once", 2, a_text, run=written, law=as_at_once),
        requires("several texts and heads, double precision", 1, one_step_of_heads, run=with_dtype),
    ],
    wrong={
        "restarts at 0": (
            stepped(lambda S: 0),
            "The new token stands at position 0, whatever is in the cache: every token is taken for the first. The "
            "cache has S positions, so where does the next one stand?",
        ),
        "one too far": (
            stepped(lambda S: S + 1),
            "The new token stands one too far: S tokens hold the positions 0 to S - 1, and the next one is S.",
        ),
        "one too near": (
            stepped(lambda S: max(S - 1, 0)),
            "The new token stands where the last one stood: S tokens hold the positions 0 to S - 1.",
        ),
        "the query not turned": (
            stepped(lambda S: 0, lambda S: S),
            "The key is turned and the query is not. Then products depend on where the keys stand and not on how far "
            "away they are.",
        ),
        "the key not turned": (
            stepped(lambda S: S, lambda S: 0),
            "The query is turned to its place and its own key is not: to later queries it will seem to stand at 0.",
        ),
        "opposite signs": (
            stepped(lambda S: -S, lambda S: S),
            "Query and key turn in opposite directions, so that their angles add up: products depend on m + n. Turn "
            "both the same way, and the dot product takes the difference.",
        ),
        "the cache turned again": (
            stepped(again=turned_again),
            "The keys of the cache are turned a second time. They were turned when they came in; only the new one is "
            "left to do.",
        ),
        "the cache turned to here": (
            stepped(again=turned_to_here),
            "The whole cache is turned by the new token's angle. Every key keeps the angle of its own position.",
        ),
        "an unturned key cached": (
            not_turned_in_cache,
            "This step is right, but the cache keeps the key as it was before the turn. From the next step on it "
            "stands at position 0.",
        ),
        "values turned": (
            lambda q, k, v, keys, values: P.rope_step(q, k, P.rope(v, torch.tensor([keys.shape[-2]])), keys, values),
            "The value is turned as well. Positions decide who is looked at; what is told stays the same.",
        ),
        "the new key in front": (
            stepped(front=True),
            "The new token is put in front of the cache. Attention does not mind, its keys are turned already; but "
            "whoever reads the cache takes row s for position s. Append at the end.",
        ),
        "the cache not grown": (
            not_cached(lambda keys_now, values_now, keys, values: (keys.clone(), values.clone())),
            "What it gathers is right; the cache is handed back without the new token, so that nobody will see it "
            "again.",
        ),
        "the value not cached": (
            not_cached(lambda keys_now, values_now, keys, values: (keys_now, values.clone())),
            "The key is cached and the value is not: from the next step on keys and values no longer match.",
        ),
        "blind to itself": (
            blind_to_itself,
            "The new token does not see itself: put its key and value into the cache first, then look.",
        ),
        "no scaling": (
            stepped(scale=lambda K, S: 1.0),
            "The scores are not divided by √K.",
        ),
        "scaled by the length": (
            stepped(scale=lambda K, S: (S + 1) ** -0.5),
            "The scores are divided by the root of the number of keys; it is the width K.",
        ),
    },
    right={
        "explicit matrix": step_by_hand,
        "keys turned back": by_distance,
        "fused": lambda q, k, v, keys, values: (
            lambda ks, vs: (
                torch.nn.functional.scaled_dot_product_attention(P.rope(q, torch.tensor([ks.shape[-2] - 1])), ks, vs),
                ks,
                vs,
            )
        )(torch.cat((keys, P.rope(k, torch.tensor([keys.shape[-2]]))), -2), torch.cat((values, v), -2)),
    },
)

# ---- questions

SHUFFLED = question(
    "shuffled",
    "An encoder without any positions reads `dog bites man`, then `man bites dog`. How does what self-attention gives "
    "for the word `man` differ between the two?",
    choices={
        "a": "It differs: *bites* stood before it and now stands behind it.",
        "b": "It differs a little, because its row of the attention matrix moved from the bottom to the top.",
        "c": "Not at all: the same query meets the same set of keys, and the weighted sum of the values has no order.",
        "d": "Not in an untrained model; training teaches $W_Q$ and $W_K$ to find the order.",
    },
    explanations={
        "a": "Attention knows no before and behind. It compares *man* with each of the three words by their vectors, "
        "and nothing in these says where they stand.",
        "b": "Rows of the matrix move along with their words, columns too. That is all that happens: the numbers in "
        "them are the same.",
        "c": "Yes. The sum runs over a set. The output of each word is the same vector, at another place: shuffled "
        "in, shuffled out. No depth of such layers can tell who was bitten.",
        "d": "Training changes the matrices, but for *any* matrices the two sentences give the same vectors. There "
        "is nothing for the gradient to take hold of.",
    },
    answer="c",
)

NO_POSITIONS = question(
    "no_positions",
    "A *decoder* with a causal mask, and without any positions: can it know anything about the order of its words?",
    choices={
        "a": "Yes: the mask lets each word see only those before it, so that sets of growing size differ, and later "
        "layers can work out places from that.",
        "b": "No: what holds for the encoder holds for every attention layer.",
        "c": "Yes, but only if it has as many layers as there are words, like a recurrent network unrolled.",
        "d": "No, because the mask hides keys and never changes a score.",
    },
    explanations={
        "a": "Yes. Word 3 averages over three words, word 50 over fifty: a head that looks at all alike already "
        "counts. Such decoders do learn (Haviv et al. 2022, Kazemnejad et al. 2023), as our measurement shows; "
        "given positions, they learn faster.",
        "b": "The proof for the encoder needs that every word sees the same set. Under a causal mask each sees "
        "another one.",
        "c": "Two layers are enough: the first can count, the second can use the count. Depth helps, but nothing has "
        "to be unrolled.",
        "d": "It changes no score, but it changes which scores are shared out. Compare the weights in row 2 and row "
        "50 when all scores are equal.",
    },
    answer="a",
)

WHY_NOT_VALUES = question(
    "why_not_values",
    "RoPE turns queries and keys in every layer. Why does it leave the values alone?",
    choices={
        "a": "To save time: turning the values would be right as well, and make no difference.",
        "b": "Because values have no pairs: their width may be odd.",
        "c": "Because the output projection $W_O$ turns the values already.",
        "d": "Because position is to decide *who* is looked at. A turned value would tell the same word differently at "
        "every place, and no dot product is there to take the difference of two angles.",
    },
    explanations={
        "a": "It would make a difference: the mix would then hold vectors turned by absolute angles, and the next "
        "layer would have to undo them.",
        "b": "They could be made even, like those of queries and keys. The reason lies in what values are for.",
        "c": "$W_O$ is one matrix for all places; it cannot turn by an angle that depends on the place.",
        "d": "Yes. In a score two turns meet, and only their difference is left, the distance. A value meets no second "
        "turn: its absolute angle would stay in the output for good.",
    },
    answer="d",
)

TOO_LONG = question(
    "too_long",
    "A model was trained on 1024 positions. Asked for position 1500, what stands in the way, for each of the three?",
    choices={
        "a": "Nothing, for any of them: attention works for every length.",
        "b": "The learned table has no such row. Sinusoids and RoPE can be computed for it, but the model has never "
        "seen their values, or such distances: expect it to do worse.",
        "c": "Only RoPE works: its products depend on distances alone, so length does not matter to it.",
        "d": "The learned table has no such row; sinusoids and RoPE were made to extrapolate, so nothing changes.",
    },
    explanations={
        "a": "The matrices do. But a table of 1024 rows has no row 1500, and a model does not know what it was never "
        "shown.",
        "b": "Yes. *Can be computed* and *was learned* are two things. What does carry over is a distance that was "
        "seen in training: RoPE with a window keeps all distances small, at any length of the text.",
        "c": "Distances beyond 1023 are new as well: the slow pairs reach angles that no training example showed. "
        "Measure it.",
        "d": "Vaswani et al. hoped that sinusoids might extrapolate; Press et al. 2022 measured it, and so do we: "
        "they hardly do.",
    },
    answer="b",
)

EXERCISES = [
    FREQUENCIES, SINUSOIDAL, ADD, EMBED, TURN, ROPE, STEP, SHUFFLED, NO_POSITIONS, WHY_NOT_VALUES, TOO_LONG,
]  # fmt: skip
