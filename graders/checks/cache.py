"""Checks of the KV cache: attention of new positions with what was kept of the old ones, and the memory it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires
from tinytrans.nn import cache as C
from tinytrans.nn.masks import causal

INF = float("inf")
Found = tuple[Tensor, Tensor, Tensor]

# ---- inputs: seed -> what the learner's function is called with. All sizes differ, and no root of one is another.


def sizes(draw: Draw) -> list[int]:
    """B, H, K and d_v."""
    order = draw.permutation(4).tolist()
    return [(2, 3, 5, 7)[i] for i in order]


def parts(draw: Draw, T: int, P: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """q, k, v of T new positions and the keys and values of P old ones."""
    B, H, K, d_v = sizes(draw)
    shapes = ((T, K), (T, K), (T, d_v), (P, K), (P, d_v))
    return tuple(draw.normal(B, H, n, width, dtype=dtype) for n, width in shapes)


def one_new(draw: Draw) -> tuple[Tensor, ...]:
    return parts(draw, 1, 6)


def several_new(draw: Draw) -> tuple[Tensor, ...]:
    return parts(draw, 4, 6)


def nothing_yet(draw: Draw) -> tuple[Tensor, ...]:
    """Keys so long that what is hidden may fit better than all that is seen, by far."""
    q, k, *rest = parts(draw, 4, 0)
    return q, 20 * k, *rest


def odd(draw: Draw) -> tuple[Tensor, ...]:
    """A batch of one with one head, in double precision, nothing contiguous."""
    return tuple(x[:1, :1].transpose(2, 3).contiguous().transpose(2, 3) for x in parts(draw, 4, 9, dtype=torch.float64))


def sequence(draw: Draw) -> tuple[Tensor, ...]:
    """A whole sequence, to be handed in piece by piece."""
    return parts(draw, 8, 0)[:3]


# ---- ways to run an answer, and laws: the sentence that says what is violated


def piece_by_piece(answer: Any, q: Tensor, k: Tensor, v: Tensor) -> Any:
    """The outputs of all positions where three come first and then one after the other, and the last keys."""
    keys, values, outputs = k[:, :, :0], v[:, :, :0], []
    for start, stop in ((0, 3), *((t, t + 1) for t in range(3, q.shape[2]))):
        at = slice(start, stop)
        output, keys, values = answer(q[:, :, at], k[:, :, at], v[:, :, at], keys, values)
        outputs.append(output)
    return torch.cat(outputs, dim=2), keys


def with_dtypes(answer: Any, *inputs: Any) -> Any:
    """The values and the dtype of each: what comes in double must go out double."""
    found = answer(*inputs)
    return found, [str(getattr(x, "dtype", None)) for x in found]


def sound(found: Any, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> str | None:
    """Three tensors; the kept keys and values with the new ones behind them; outputs that are means of values."""
    if isinstance(found, tuple) and len(found) == 2:  # with the dtypes
        found = found[0]
    if not isinstance(found, list | tuple) or len(found) != 3:
        return "three things are asked for: the output, all keys, all values"
    y, all_keys, all_values = found
    for name, got, old, new in (("keys", all_keys, keys, k), ("values", all_values, values, v)):
        P, T = old.shape[2], new.shape[2]
        if got.shape != (*old.shape[:2], P + T, old.shape[3]):
            return f"the {name} come out as {tuple(got.shape)}; there were {P} and {T} are new"
        if not (torch.equal(got[:, :, :P], old) and torch.equal(got[:, :, P:], new)):
            return f"the {name} are not the old ones with the new ones behind them"
    if y.shape != (*q.shape[:3], v.shape[3]):
        return None
    if y.isnan().any():
        return "there is NaN in the output: is there a position that may look nowhere?"
    first = attention(q, all_keys, all_values, None)[:, :, 0]
    if q.shape[2] > 1 and (y[:, :, 0] - first).abs().max() < 1e-4:
        return "the first of the new positions sees the ones that come after it"
    return None


def as_at_once(found: Any, q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """The law of the cache: it changes nothing."""
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if not isinstance(found[0], Tensor) or found[0].shape != expected.shape:
        return None
    off = (found[0] - expected).abs().amax((0, 1, 3)) > 1e-4
    if off.any():
        return f"position {int(off.nonzero()[0])} differs from what causal attention over all 8 at once gives there"
    return None


# ---- ways to go wrong, as parts: the mask, and what becomes of the cache


def attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    scores = q @ keys.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return (scores if mask is None else scores.masked_fill(~mask, -INF)).softmax(-1) @ values


def masked(mask: Callable[[int, int], Tensor | None]) -> Callable[..., Found]:
    """Right, but with another mask, from T and S."""

    def made(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
        keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
        return attention(q, keys, values, mask(q.shape[2], keys.shape[2])), keys, values

    return made


def scaled(scale: Callable[[Tensor, Tensor, Tensor], float]) -> Callable[..., Found]:
    def made(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
        keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
        mask = causal(q.shape[2], keys.shape[2])
        return attention(q, keys, values, mask, scale(q, keys, values)), keys, values

    return made


def then(change: Callable[..., Any]) -> Callable[..., Any]:
    """Right, and then something is done to what comes out: (output, keys, values, q, k, v, old keys, old values)."""
    return lambda q, k, v, keys, values: change(*C.cached_attend(q, k, v, keys, values), q, k, v, keys, values)


def new_in_front(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
    keys, values = torch.cat((k, keys), 2), torch.cat((v, values), 2)
    return attention(q, keys, values, causal(q.shape[2], keys.shape[2])), keys, values


def only_the_new(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
    own = attention(q, k, v, causal(q.shape[2]))
    return own, torch.cat((keys, k), 2), torch.cat((values, v), 2)


def only_the_old(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
    if not keys.shape[2]:
        return only_the_new(q, k, v, keys, values)
    return attention(q, keys, values, None), torch.cat((keys, k), 2), torch.cat((values, v), 2)


def over_queries(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
    keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
    scores = q @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
    mask = causal(q.shape[2], keys.shape[2])
    return scores.masked_fill(~mask, -INF).softmax(-2) @ values, keys, values


def masked_by_little(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
    keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
    scores = q @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return (scores - 20.0 * ~causal(q.shape[2], keys.shape[2])).softmax(-1) @ values, keys, values


def masked_by_zero(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
    keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
    scores = q @ keys.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~causal(q.shape[2], keys.shape[2]), 0.0).softmax(-1) @ values, keys, values


def one_by_one(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
    """Position by position, each with what is there by then."""
    outputs = [q[:, :, :0] @ values.new_zeros(q.shape[-1], values.shape[-1])]
    for t in range(q.shape[2]):
        keys, values = torch.cat((keys, k[:, :, t : t + 1]), 2), torch.cat((values, v[:, :, t : t + 1]), 2)
        outputs.append(attention(q[:, :, t : t + 1], keys, values, None))
    return torch.cat(outputs, 2), keys, values


def fused(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> list[Tensor]:
    keys, values = torch.cat([keys, k], dim=-2), torch.cat([values, v], dim=-2)
    mask = causal(q.shape[-2], keys.shape[-2])
    return [F.scaled_dot_product_attention(q, keys, values, mask), keys, values]


def in_a_room(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Found:
    """Room for all is taken first and filled from the left; the mask is added as 0 and -inf."""
    (B, H, T, K), P = q.shape, keys.shape[2]
    room, tell = keys.new_empty(B, H, P + T, K), values.new_empty(B, H, P + T, values.shape[3])
    room[:, :, :P], room[:, :, P:], tell[:, :, :P], tell[:, :, P:] = keys, k, values, v
    bias = torch.full((T, P + T), -INF, dtype=q.dtype).triu(P + 1)
    scores = torch.einsum("bhtk,bhsk->bhts", q, room) / K**0.5 + bias
    return torch.einsum("bhts,bhsv->bhtv", scores.softmax(-1), tell), room, tell


ATTEND = exercise(
    "cached_attend",
    reference=C.cached_attend,
    oracle=fused,
    requirements=[
        requires("one new position sees all old ones and itself", 2, one_new, law=sound),
        requires("several new positions do not see each other's future", 2, several_new, law=sound),
        requires("nothing cached yet", 1, nothing_yet, law=sound),
        requires("piece by piece is the same as at once", 1, sequence, run=piece_by_piece, law=as_at_once),
        requires("a batch of one, double precision", 1, odd, run=with_dtypes, law=sound),
    ],
    wrong={
        "the mask not moved": (
            masked(lambda T, S: torch.ones(T, S, dtype=torch.bool).tril()),
            "The triangle begins at the first key, so the new positions are taken for the first ones of the text: a "
            "single new one sees one old key. They are the *last* T of the S positions: move the diagonal by S - T.",
        ),
        "no mask": (
            masked(lambda _T, _S: None),
            "Right for a single new position. Several at once see each other's future, and a prompt is several at "
            "once.",
        ),
        "not itself": (
            masked(lambda T, S: causal(T, S) & ~torch.eye(S, dtype=torch.bool)[S - T :]),
            "A new position does not see itself. Its own key and value belong to what it looks at.",
        ),
        "one place into the future": (
            masked(lambda T, S: torch.ones(T, S, dtype=torch.bool).tril(S - T + 1)),
            "Each new position sees one that comes after it: the diagonal is one too far.",
        ),
        "the past turned round": (
            masked(lambda T, S: torch.ones(T, S, dtype=torch.bool).triu(S - T)),
            "The triangle is the wrong way round: new positions see themselves and what comes after, and nothing old.",
        ),
        "only the old ones": (
            only_the_old,
            "The new positions look at the old ones only. Append the new keys and values first, then attend.",
        ),
        "only the new ones": (
            only_the_new,
            "The new positions look at themselves only: what was cached is kept and never looked at.",
        ),
        "the new ones in front": (
            new_in_front,
            "The new keys and values stand in front of the old ones. Positions follow each other: behind.",
        ),
        "the cache does not grow": (
            then(lambda y, K, V, q, k, v, keys, values: (y, keys, values)),
            "The output is right, but the old keys and values come back: the next step will know nothing of this one.",
        ),
        "only the new kept": (
            then(lambda y, K, V, q, k, v, keys, values: (y, k, v)),
            "The output is right, but only the new keys and values come back: the next step will have forgotten the "
            "text.",
        ),
        "values not kept": (
            then(lambda y, K, V, q, k, v, keys, values: (y, K, values)),
            "The keys grow and the values do not: the next step will have more of one than of the other.",
        ),
        "the oldest dropped": (
            then(
                lambda y, K, V, q, k, v, keys, values: (
                    y,
                    K[:, :, -max(keys.shape[2], 1) :],
                    V[:, :, -max(keys.shape[2], 1) :],
                )
            ),
            "The cache keeps its length: for each new position an old one is dropped. That is a sliding window; here "
            "all are kept.",
        ),
        "kept twice": (
            then(lambda y, K, V, q, k, v, keys, values: (y, torch.cat((K, k), 2), torch.cat((V, v), 2))),
            "The new keys and values are appended twice.",
        ),
        "keys and values exchanged": (
            then(lambda y, K, V, *_: (y, V, K)),
            "Values and keys come back in each other's place: output, keys, values.",
        ),
        "the cache first": (
            then(lambda y, K, V, *_: (K, V, y)),
            "The order of what comes back is output, keys, values.",
        ),
        "only the last output": (
            then(lambda y, K, V, *_: (y[:, :, -1:], K, V)),
            "Only the last position's output comes back. The layers above need those of all T new ones.",
        ),
        "no scaling": (
            scaled(lambda _q, _k, _v: 1.0),
            "The scores are not divided by the root of K.",
        ),
        "scaled by the number of keys": (
            scaled(lambda _q, keys, _v: keys.shape[2] ** -0.5),
            "You divide by the root of how many keys there are. It is the root of their width K.",
        ),
        "scaled by the width of the values": (
            scaled(lambda _q, _k, values: values.shape[-1] ** -0.5),
            "You divide by the root of the values' width. The scores are sums over K numbers.",
        ),
        "shared out over the queries": (
            over_queries,
            "The softmax goes over the queries. Each query shares itself out over the keys: the last axis.",
        ),
        "20 less where it is hidden": (
            masked_by_little,
            "From hidden scores something is subtracted, and they are not set to -inf. Beside ordinary scores that is "
            "enough, but a hidden key that fits very well comes through.",
        ),
        "masked with 0": (
            masked_by_zero,
            "Hidden scores become 0, and exp(0) = 1. They must be -inf in front of the softmax.",
        ),
    },
    right={"position by position": one_by_one, "torch's kernel": fused, "into a room": in_a_room},
    equivalent={
        "(q.shape[-2], -> (q.shape[--2],": "of four axes the third is the last but one",
        "(q.shape[-2], -> (q.shape[2],": "of four axes the third is the last but one",
        "dim=-2)) -> dim=--2))": "of four axes the third is the last but one",
        "dim=-2)) -> dim=2))": "of four axes the third is the last but one",
        "dim=-2), -> dim=--2),": "of four axes the third is the last but one",
        "dim=-2), -> dim=2),": "of four axes the third is the last but one",
        "keys.shape[-2]) -> keys.shape[--2])": "of four axes the third is the last but one",
        "keys.shape[-2]) -> keys.shape[2])": "of four axes the third is the last but one",
        "keys.transpose(-2, -> keys.transpose(--2,": "of four axes the third is the last but one",
        "keys.transpose(-2, -> keys.transpose(2,": "of four axes the third is the last but one",
    },
)

# ---- cache_bytes


def model(draw: Draw) -> tuple[int, ...]:
    """n_layers, batch, length, d_model, n_heads, n_kv_heads; as many key heads as heads."""
    L, B, S, H, K = draw.sizes(5, 5, 30)
    return L, B, S, H * K, H, H


def model_grouped(draw: Draw) -> tuple[int, ...]:
    """Two to four heads share keys; the numbers take 2 bytes or 1."""
    L, B, S, G, K = draw.sizes(5, 5, 30)
    H = G * draw.integer(2, 4)
    return L, B, S, H * K, H, G, (1, 2)[draw.integer(0, 1)]


def model_grouped_single(draw: Draw) -> tuple[int, ...]:
    return model_grouped(draw)[:-1]


def allocated(L: int, B: int, S: int, D: int, H: int, G: int, itemsize: int = 4) -> int:
    """What torch would allocate for such a cache."""
    dtype = {1: torch.int8, 2: torch.bfloat16, 4: torch.float32}[itemsize]
    return C.KVCache(L, B, S, G, D // H, "meta", dtype).nbytes


def counted(n: Callable[..., float]) -> Callable[..., float]:
    """From L, B, S, D, H, G, itemsize; itemsize 4 unless given."""
    return lambda L, B, S, D, H, G, itemsize=4: n(L, B, S, D, H, G, itemsize)


BYTES = exercise(
    "cache_bytes",
    reference=C.cache_bytes,
    oracle=allocated,
    requirements=[
        requires("a key and a value for every head", 1, model),
        requires("heads that share keys", 1, model_grouped_single),
        requires("numbers of another size", 1, model_grouped),
    ],
    wrong={
        "a float": (
            lambda *sizes: float(C.cache_bytes(*sizes)),
            "The number is right, and a float, as `/` gives it. D is a multiple of H: divide with `//`.",
        ),
        "keys only": (
            counted(lambda L, B, S, D, H, G, i: L * B * S * G * (D // H) * i),
            "Half of it: keys are counted, or values, and both are kept.",
        ),
        "queries too": (
            counted(lambda L, B, S, D, H, G, i: 3 * L * B * S * G * (D // H) * i),
            "You keep queries as well. An old position never asks again; only its key and its value are needed.",
        ),
        "one layer": (
            counted(lambda L, B, S, D, H, G, i: 2 * B * S * G * (D // H) * i),
            "That is one layer. Each has keys and values of its own.",
        ),
        "one sequence": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * S * G * (D // H) * i),
            "That is one sequence. Each of the batch has a cache of its own.",
        ),
        "one position": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * B * G * (D // H) * i),
            "That is one position. The cache holds all of them, and grows with the text.",
        ),
        "one head": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * B * S * (D // H) * i),
            "That is one head. Each key head has keys and values of its own.",
        ),
        "every head its own": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * B * S * D * i),
            "You count keys and values for all H heads, D numbers in all. With grouped heads there are only n_kv_heads "
            "of them: that is what they were invented for.",
        ),
        "the model's width for every head": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * B * S * G * D * i),
            "Each head takes the whole width. A head is D / H wide.",
        ),
        "the keys' heads share the width": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * B * S * H * (D // G) * i),
            "Heads and key heads are exchanged: there are n_kv_heads of them, each D / n_heads wide.",
        ),
        "the square of the length": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * B * S * S * G * (D // H) * i),
            "The cache grows with the length, not with its square: it holds keys and values, and no attention matrix.",
        ),
        "numbers, not bytes": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * B * S * G * (D // H)),
            "That is how many numbers there are; each takes itemsize bytes.",
        ),
        "two bytes unless told": (
            lambda L, B, S, D, H, G, itemsize=2: 2 * L * B * S * G * (D // H) * itemsize,
            "Right where itemsize is given. Where it is not, 4 bytes are meant: single precision.",
        ),
        "always four bytes": (
            counted(lambda L, B, S, D, H, G, i: 8 * L * B * S * G * (D // H)),
            "Right in single precision; itemsize is not used, so half precision seems to save nothing.",
        ),
        "bytes counted twice": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * B * S * G * (D // H) * i * i),
            "itemsize is in there twice.",
        ),
        "bits": (
            counted(lambda L, B, S, D, H, G, i: 16 * L * B * S * G * (D // H) * i),
            "Eight times too much: these are bits.",
        ),
        "in kibibytes": (
            counted(lambda L, B, S, D, H, G, i: 2 * L * B * S * G * (D // H) * i // 1024),
            "That is in KiB; bytes are asked for.",
        ),
    },
    right={
        "torch's own count": allocated,
        "layer by layer": lambda L, B, S, D, H, G, itemsize=4: sum(2 * B * S * G * D // H * itemsize for _ in range(L)),
        "a product": lambda L, B, S, D, H, G, itemsize=4: math.prod((2, L, B, S, G, itemsize)) * D // H,
    },
)

# ---- questions

MASK_IN_USE = question(
    "mask_in_use",
    "At inference nothing stands behind the newest token. Is the causal mask still needed, once training is over?",
    choices={
        "a": "No. It was there to hide the answers, and at inference there are none.",
        "b": "Yes. While a prompt is read, and without a cache at every step, earlier positions would otherwise look "
        "at later ones, which in training they never could, and their vectors would be others. And it is because of "
        "the mask that keys and values can be kept.",
        "c": "Only for the newest token, so that it does not look ahead.",
        "d": "Only with a cache: without one the whole text is read anew, and everything may see everything.",
    },
    explanations={
        "a": "Hiding the answers is its purpose in training. But the weights are made for vectors that have seen only "
        "what came before; feed them others, and the model is no longer the one that was trained. Section 9 "
        "measures it.",
        "b": "Yes. The one case where no mask must be written down is a single new token with a cache: it may see all "
        "that is there, and a row of the mask with nothing hidden can be left out.",
        "c": "The newest one is just the one that has nothing to look at ahead.",
        "d": "It is the other way round: a single token with a cache needs none, a whole text does.",
    },
    answer="b",
)

HIDDEN_STATE = question(
    "hidden_state",
    "While a GPT predicts token 7, the text is `t1 ... t6`; later, while it predicts token 100, there are 99. Does the "
    "hidden state of `t3` depend on which output token we are at?",
    choices={
        "a": "Yes: with six tokens the weights are shared out over six, with 99 over 99, so they are smaller.",
        "b": "No: t3 shares its attention out over t1, t2 and t3, in every layer and at every time. Its hidden states "
        "are computed once and for all.",
        "c": "Only in the first layer, since above it everything has been mixed.",
        "d": "It depends on whether a cache is used.",
    },
    explanations={
        "a": "That would be so in an encoder. Under the causal mask t3's weights are shared out over the first three "
        "tokens, however long the text becomes: `t1` alone always has weight 1 on itself. What differs from step to "
        "step is the position that asks, and the last one's state is a new state of a new position.",
        "b": "Yes. In an encoder, where everybody sees everybody, it would be different: one more word, and all hidden "
        "states move.",
        "c": "By induction from layer to layer: the first one's outputs at t1 to t3 are fixed, so the second one's "
        "are, and so on.",
        "d": "The cache is possible *because* it does not depend; it changes no number.",
    },
    answer="b",
)

EXERCISES = [ATTEND, BYTES, MASK_IN_USE, HIDDEN_STATE]
