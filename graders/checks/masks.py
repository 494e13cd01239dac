"""Checks of the masks: who may look where, as bool tensors, True = may look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires
from tinytrans.nn import masks

# ---- inputs: seed -> what the learner's function is called with


def square(draw: Draw) -> tuple[int]:
    return (draw.integer(3, 9),)


def single(_draw: Draw) -> tuple[int]:
    return (1,)


def cached(draw: Draw) -> tuple[int, int]:
    T = draw.integer(2, 5)
    return T, T + draw.integer(1, 4)


def one_query(draw: Draw) -> tuple[int, int]:
    return 1, draw.integer(3, 9)


def long(draw: Draw) -> tuple[int]:
    return (draw.integer(130, 200),)


def lengths_of(draw: Draw, B: int, low: int, high: int) -> Tensor:
    """B lengths from low to high, both among them; the first row is neither the shortest nor the longest."""
    rest = draw.integers(low, high + 1, B - 1)
    rest[0], rest[-1] = low, high
    return torch.cat([draw.integers(low + 1, high, 1), rest[draw.permutation(B - 1)]])


def ragged(draw: Draw) -> tuple[Tensor, int]:
    B, S = draw.sizes(2, 4, 9)
    return lengths_of(draw, B, 1, S - 1), S


def one_key(draw: Draw) -> tuple[Tensor, int]:
    """Rows of a single place, which is padding in one of them."""
    return torch.tensor([1, 0, 1])[draw.permutation(3)], 1


def empty_and_full(draw: Draw) -> tuple[Tensor, int]:
    B, S = draw.sizes(2, 4, 9)
    return lengths_of(draw, B, 0, S), S


def batch_of_one(draw: Draw) -> tuple[Tensor, int]:
    S = draw.integer(4, 9)
    return draw.integers(2, S, 1), S


def windowed(draw: Draw) -> tuple[int, int]:
    T = draw.integer(6, 9)
    return T, draw.integer(2, T - 3)


def windowed_one(draw: Draw) -> tuple[int, int]:
    """A single position."""
    return 1, draw.integer(2, 4)


def windowed_cached(draw: Draw) -> tuple[int, int, int]:
    T, width = draw.integer(3, 5), draw.integer(2, 3)
    return T, width, T + draw.integer(2, 4)


def windowed_single(draw: Draw) -> tuple[int, int, int]:
    """A single query, the last one."""
    S = draw.integer(5, 9)
    return 1, draw.integer(2, S - 2), S


def itself_alone(draw: Draw) -> tuple[int, int]:
    return draw.integer(3, 9), 1


def wider_than_all(draw: Draw) -> tuple[int, int]:
    T = draw.integer(3, 6)
    return T, T + draw.integer(2, 5)


def ragged_windowed(draw: Draw) -> tuple[Tensor, int, int]:
    lengths, S = ragged(draw)
    return lengths, S + 2, draw.integer(2, 3)


def alone_windowed(draw: Draw) -> tuple[Tensor, int, int]:
    """A batch of one, in which each query sees itself alone."""
    return *batch_of_one(draw), 1


# ---- laws: the sentence that says which place is wrong


def places(truth: Callable[..., Tensor]) -> Callable[..., str | None]:
    """A law that names the first query and key at which a mask of the right shape and kind is wrong."""

    def law(mask: Any, *inputs: Any) -> str | None:
        right = truth(*inputs)
        if mask.shape != right.shape or mask.dtype != torch.bool:
            return None
        leak, missing = mask & ~right, ~mask & right
        for wrong, what in (
            (leak, "may look at key {s}, which must stay hidden"),
            (missing, "cannot see key {s}, which it may"),
        ):
            if wrong.any():
                *row, t, s = wrong.nonzero()[0].tolist()
                return "".join(f"row {b}: " for b in row) + f"query {t} {what.format(s=s)}"
        return None

    return law


# ---- causal


def causal_by_hand(T: int, S: int | None = None) -> Tensor:
    S = S or T
    return torch.tensor([[s - (S - T) <= t for s in range(S)] for t in range(T)])


def shifted(by: int) -> Callable[..., Tensor]:
    """The causal mask with its diagonal moved by so many keys."""
    return lambda T, S=None: torch.ones(T, S or T, dtype=torch.bool).tril((S or T) - T + by)


CAUSAL = exercise(
    "causal",
    reference=masks.causal,
    oracle=causal_by_hand,
    requirements=[
        requires("as many queries as keys", 1, square, law=places(masks.causal)),
        requires("a single position", 1, single, law=places(masks.causal)),
        requires("fewer queries than keys: the queries are the last ones", 1, cached, law=places(masks.causal)),
        requires("a single query, the last one, sees every key", 1, one_query, law=places(masks.causal)),
        requires("long sequences", 1, long, law=places(masks.causal)),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: masks.causal(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single query loses its axis.",
        ),
        "sees only the future": (
            lambda T, S=None: torch.ones(T, S or T, dtype=torch.bool).triu((S or T) - T),
            "The triangle points the wrong way: each query sees itself and what comes after, and nothing of what "
            "came before. Print the mask of 4 positions: row 0 should have a single True, the last row four.",
        ),
        "cannot see itself": (
            shifted(-1),
            "The diagonal is hidden: a query may not look at its own position, and the first one sees nothing at "
            "all. Position t is known when t + 1 is predicted, so key t is allowed. Is your comparison strict?",
        ),
        "sees one step ahead": (
            shifted(1),
            "Each query also sees the next position, which is exactly the one that it has to predict. Training looks "
            "wonderful and generation fails. Move the diagonal back by one.",
        ),
        "sees everything": (
            lambda T, S=None: torch.ones(T, S or T, dtype=torch.bool),
            "Nothing is hidden: every query sees every key, the future included. Compare the position of the key "
            "with the position of the query.",
        ),
        "True means hidden": (
            lambda T, S=None: ~masks.causal(T, S),
            "The mask is turned round: True stands where looking is forbidden. Here True = may look (some libraries "
            "say the opposite, so check each time); as it stands, a model would see only the future.",
        ),
        "aligned to the first key": (
            lambda T, S=None: torch.ones(T, S or T, dtype=torch.bool).tril(),
            "Square masks are right; with fewer queries than keys the queries are taken for the first positions. "
            "During decoding they are the last ones: the newest query sees every key. At which position does query 0 "
            "stand when T < S?",
        ),
        "ignores S": (
            lambda T, S=None: masks.causal(T),
            "S is accepted and not used: the mask is T x T even when there are more keys than queries. The second "
            "axis belongs to the keys.",
        ),
        "S queries": (
            lambda T, S=None: masks.causal(S or T),
            "The mask has S rows, one for each key. There are only T queries, the last T positions: keep their rows.",
        ),
        "queries on the second axis": (
            lambda T, S=None: masks.causal(T, S).T.contiguous(),
            "The axes are swapped: rows should be queries and columns keys, as in the scores Q Kᵀ. In a square mask "
            "this turns the past into the future.",
        ),
        "numbers instead of bools": (
            lambda T, S=None: masks.causal(T, S).float(),
            "The places are right but the mask holds 1.0 and 0.0. We use bool: it cannot be mistaken for something "
            "to add, and `~` and `&` work on it.",
        ),
        "0 and -inf": (
            lambda T, S=None: torch.zeros(T, S or T).masked_fill(~masks.causal(T, S), float("-inf")),
            "This is the additive form, 0 where looking is allowed and -inf where it is not. The places are right; "
            "return the bool that says where it is allowed, so that masks combine with `&`.",
        ),
        "a table of fixed size": (
            lambda T, S=None: torch.ones(128, 128, dtype=torch.bool).tril()[(S or T) - T : S or T, : S or T],
            "Cut from a table of fixed size: right for short sequences, and the wrong shape beyond the table. Build "
            "the mask from T and S.",
        ),
    },
    right={
        "tril": shifted(0),
        "loops": causal_by_hand,
        "cumulative": lambda T, S=None: torch.eye(S or T).flip(1).cumsum(1).flip(1)[-T:].bool(),
        "not triu": lambda T, S=None: ~torch.ones(T, S or T).triu((S or T) - T + 1).bool(),
    },
    equivalent={
        "keys[None, :] -> keys": "broadcasting adds the axis in front",
    },
)

# ---- padding


def padding_by_hand(lengths: Tensor, S: int) -> Tensor:
    return torch.tensor([[[s < n for s in range(S)]] for n in lengths.tolist()])


PADDING = exercise(
    "padding",
    reference=masks.padding,
    oracle=padding_by_hand,
    requirements=[
        requires("the first lengths[b] keys of row b", 1, ragged, law=places(masks.padding)),
        requires("a single key", 1, one_key, law=places(masks.padding)),
        requires("an empty row and a full one", 1, empty_and_full, law=places(masks.padding)),
        requires("a batch of one", 1, batch_of_one, law=places(masks.padding)),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: masks.padding(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: the one that stands for the queries must stay, "
            "for any number of them fits it.",
        ),
        "no axis for the queries": (
            lambda lengths, S: masks.padding(lengths, S)[:, 0],
            "The mask is (B, S). Next to scores (B, T, S) its B would be lined up with the T queries: an error if "
            "you are lucky, silence if B = T. Insert an axis of size 1 for the queries.",
        ),
        "an axis too many": (
            lambda lengths, S: masks.padding(lengths, S)[:, None],
            "The mask has four axes, one of them for heads. There are no heads yet: (B, 1, S) is asked for, and an "
            "axis for them can be added where they are.",
        ),
        "hides queries instead of keys": (
            lambda lengths, S: masks.padding(lengths, S).transpose(1, 2),
            "The rows of padding are hidden, not the columns: padding still gets looked at by every real token. What "
            "is a key runs along the last axis.",
        ),
        "one row for each query": (
            lambda lengths, S: masks.padding(lengths, S).expand(-1, S, -1).contiguous(),
            "The right places, repeated for S queries. All queries of a row see the same keys, so the middle axis is "
            "1 and broadcasts, also where there are fewer queries than keys.",
        ),
        "True means padding": (
            lambda lengths, S: ~masks.padding(lengths, S),
            "The mask is turned round: True marks the padding. Here True = may look; as it stands the model would "
            "read nothing but padding.",
        ),
        "one key too many": (
            lambda lengths, S: masks.padding(lengths + 1, S),
            "The first place of padding may still be seen. A row of length 3 has the keys 0, 1, 2: is key number "
            "`length` one of them?",
        ),
        "one key too few": (
            lambda lengths, S: masks.padding(lengths - 1, S),
            "The last real token of each row is hidden. A row of length 3 has the keys 0, 1, 2: check what your "
            "comparison does with key 2.",
        ),
        "padding in front": (
            lambda lengths, S: masks.padding(lengths, S).flip(-1),
            "Your rows end with the real tokens. Here padding stands at the end, so the first lengths[b] keys are "
            "the real ones.",
        ),
        "the longest length for all": (
            lambda lengths, S: masks.padding(lengths.max().expand(lengths.shape[0]), S),
            "Every row gets the length of the longest one, so that shorter rows look at their padding. Compare each "
            "row with its own length: which axis does `lengths` need to broadcast along the keys?",
        ),
        "the first length for all": (
            lambda lengths, S: masks.padding(lengths[:1].expand(lengths.shape[0]), S),
            "Every row gets the length of row 0. It works for a batch of one; compare each row with its own length.",
        ),
        "as wide as the longest": (
            lambda lengths, S: masks.padding(lengths, int(lengths.max())),
            "The last axis is as long as the longest row. The keys are S wide even where every row is shorter than S.",
        ),
        "numbers instead of bools": (
            lambda lengths, S: masks.padding(lengths, S).float(),
            "The places are right, but they hold 1.0 and 0.0. Return bools, so that this mask combines with others "
            "by `&`.",
        ),
    },
    right={
        "loops": padding_by_hand,
        "stacked rows": lambda lengths, S: torch.stack([torch.arange(S) < n for n in lengths])[:, None],
        "expanded": lambda lengths, S: torch.arange(S).expand(len(lengths), 1, S) < lengths.view(-1, 1, 1),
    },
    equivalent={
        "(keys[None, :] -> (keys": "broadcasting adds the axis in front",
    },
)

# ---- window


def window_by_hand(T: int, width: int, S: int | None = None) -> Tensor:
    S = S or T
    return torch.tensor([[0 <= t + S - T - s < width for s in range(S)] for t in range(T)])


def both_sides(T: int, width: int, S: int | None = None) -> Tensor:
    return (torch.arange((S or T) - T, S or T)[:, None] - torch.arange(S or T)).abs() < width


def in_chunks(T: int, width: int, S: int | None = None) -> Tensor:
    at, keys = torch.arange((S or T) - T, S or T)[:, None], torch.arange(S or T)
    return (at // width == keys // width) & (keys <= at)


WINDOW = exercise(
    "window",
    reference=masks.window,
    oracle=window_by_hand,
    requirements=[
        requires("itself and the width - 1 positions before it", 1, windowed, law=places(masks.window)),
        requires("a single position", 1, windowed_one, law=places(masks.window)),
        requires(
            "fewer queries than keys: the queries are the last ones", 1, windowed_cached, law=places(masks.window)
        ),
        requires("a single query, the last one", 1, windowed_single, law=places(masks.window)),
        requires("width 1 sees itself alone", 1, itself_alone, law=places(masks.window)),
        requires("a window wider than the sequence is the causal mask", 1, wider_than_all, law=places(masks.window)),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: masks.window(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a single query loses its axis.",
        ),
        "one position too wide": (
            lambda T, width, S=None: masks.window(T, width + 1, S),
            "Your window holds width + 1 positions: the query itself and width more. The query counts as one of "
            "them, so that width 1 sees itself alone. Look at where your comparison says 'or equal'.",
        ),
        "one position too narrow": (
            lambda T, width, S=None: masks.window(T, width - 1, S),
            "Your window holds one position too few: with width 1 a query sees nothing at all. The query itself is "
            "one of the width positions.",
        ),
        "looks ahead as well": (
            both_sides,
            "The window reaches to both sides, so that a query sees the future. An encoder may do that; this mask is "
            "for decoders: only what stands before, and itself.",
        ),
        "the future is open": (
            lambda T, width, S=None: masks.window(T, width, S) | ~masks.causal(T, S),
            "What lies too far back is hidden, and everything ahead is open: a negative distance is also smaller "
            "than the width. Two conditions are needed.",
        ),
        "no window": (
            lambda T, width, S=None: masks.causal(T, S),
            "This is the plain causal mask: the width is not used and a query sees the whole past.",
        ),
        "a window of the future": (
            lambda T, width, S=None: (
                masks.window(T, width, T).T.contiguous() if S is None else masks.window(S, width).T[-T:]
            ),
            "The window lies on the wrong side: a query sees itself and what comes next. Check the sign of query "
            "minus key.",
        ),
        "aligned to the first key": (
            lambda T, width, S=None: masks.window(S or T, width)[:T],
            "Right when T = S; with fewer queries than keys yours stand at the first positions. In decoding the "
            "queries are the last T of the S positions, and their window ends at the newest key.",
        ),
        "ignores S": (
            lambda T, width, S=None: masks.window(T, width),
            "S is accepted and not used: the mask is T x T even when there are more keys than queries.",
        ),
        "separate chunks": (
            in_chunks,
            "The sequence is cut into chunks of the width, and no query sees beyond its own chunk. A window slides: "
            "it moves on by one with each query.",
        ),
        "True means hidden": (
            lambda T, width, S=None: ~masks.window(T, width, S),
            "The mask is turned round: True stands where looking is forbidden. Here True = may look.",
        ),
        "numbers instead of bools": (
            lambda T, width, S=None: masks.window(T, width, S).float(),
            "The places are right, but the mask holds 1.0 and 0.0 instead of bools.",
        ),
        "without itself": (
            lambda T, width, S=None: masks.window(T, width, S) & ~masks.window(T, 1, S),
            "The query does not see itself. Its own position is the first of the width positions in its window.",
        ),
    },
    right={
        "loops": window_by_hand,
        "tril and triu": lambda T, width, S=None: (
            torch.ones(T, S or T).tril((S or T) - T).triu((S or T) - T - width + 1).bool()
        ),
        "causal without the far past": lambda T, width, S=None: masks.causal(T, S) & both_sides(T, width, S),
    },
    equivalent={
        "keys[None, :] -> keys": "broadcasting adds the axis in front",
    },
)

# ---- all together


def decoder_by_hand(lengths: Tensor, S: int, width: int | None = None) -> Tensor:
    width = S if width is None else width
    return torch.tensor(
        [[[s <= t and s < n and t - s < width for s in range(S)] for t in range(S)] for n in lengths.tolist()]
    )


def no_width(lengths: Tensor, S: int, width: int | None = None) -> Tensor:  # noqa: ARG001 (that is the mistake)
    return masks.decoder_mask(lengths, S)


DECODER = exercise(
    "decoder_mask",
    reference=masks.decoder_mask,
    oracle=decoder_by_hand,
    requirements=[
        requires("causal and never padding", 1, ragged, law=places(masks.decoder_mask)),
        requires("a single position", 1, one_key, law=places(masks.decoder_mask)),
        requires("with a sliding window", 1, ragged_windowed, law=places(masks.decoder_mask)),
        requires("an empty row, a full row", 1, empty_and_full, law=places(masks.decoder_mask)),
        requires("a batch of one, a window of 1", 1, alone_windowed, law=places(masks.decoder_mask)),
    ],
    wrong={
        "axes of size 1 dropped": (
            lambda *inputs: masks.decoder_mask(*inputs).squeeze(),
            "`squeeze()` without a number drops every axis of size 1: a batch of one loses its axis, and so does a "
            "single query.",
        ),
        "a window of 1 taken for none": (
            lambda lengths, S, width=None: masks.decoder_mask(lengths, S, None if width == 1 else width),
            "A window of width 1 is ignored. It is the narrowest there is: each query sees itself alone.",
        ),
        "padding replaces causality": (
            lambda lengths, S, width=None: (
                masks.padding(lengths, S).expand(-1, S, -1) & (masks.window(S, width) if width else torch.tensor(True))
            ),
            "The padding is hidden, but the future is open: as soon as there are lengths the causal mask is gone. "
            "Both conditions must hold at once.",
        ),
        "causality replaces padding": (
            lambda lengths, S, width=None: (masks.window(S, width) if width else masks.causal(S)).expand(
                len(lengths), S, S
            ),
            "The mask is causal, but later queries of a short row look at its padding. Use the lengths as well.",
        ),
        "either instead of both": (
            lambda lengths, S, width=None: (
                masks.causal(S) | masks.padding(lengths, S) | (masks.window(S, width) if width else torch.tensor(False))
            ),
            "A place is open when any one of the masks allows it. It must be allowed by each of them: which operator "
            "is 'and'?",
        ),
        "hides queries instead of keys": (
            lambda lengths, S, width=None: (
                (masks.window(S, width) if width else masks.causal(S)) & masks.padding(lengths, S).transpose(1, 2)
            ),
            "Whole rows are empty: the queries at padding are hidden, where the keys at padding were meant. Under a "
            "causal mask no real query could reach them anyway, but rows that may look nowhere are not what is asked "
            "for. Padding is about keys: the last axis.",
        ),
        "ignores the width": (
            no_width,
            "Right without a window; with one, the width is not used and the far past stays visible.",
        ),
        "the window replaces the rest": (
            lambda lengths, S, width=None: (
                masks.decoder_mask(lengths, S) if width is None else masks.window(S, width).expand(len(lengths), S, S)
            ),
            "As soon as there is a window, padding may be seen again. The window is one more condition, not another "
            "mask.",
        ),
        "always the first row's length": (
            lambda lengths, S, width=None: masks.decoder_mask(lengths[:1].expand(len(lengths)), S, width),
            "Every row of the batch is masked by the length of row 0. Each has its own.",
        ),
        "one mask for the batch": (
            lambda lengths, S, width=None: masks.decoder_mask(lengths, S, width)[0],
            "The mask has no batch axis: one (S, S) table cannot fit rows of different lengths. The middle axis of "
            "the padding mask makes the broadcast work.",
        ),
        "True means hidden": (
            lambda lengths, S, width=None: ~masks.decoder_mask(lengths, S, width),
            "The mask is turned round: True stands where looking is forbidden. Here True = may look.",
        ),
        "a window one too wide": (
            lambda lengths, S, width=None: masks.decoder_mask(lengths, S, None if width is None else width + 1),
            "The window reaches one position too far back: the query itself is one of the width positions.",
        ),
        "with an axis for heads": (
            lambda lengths, S, width=None: masks.decoder_mask(lengths, S, width).unsqueeze(1),
            "The places are right, with an axis for heads in between. (B, S, S) is asked for.",
        ),
    },
    right={
        "loops": decoder_by_hand,
        "products of numbers": lambda lengths, S, width=None: (
            masks.causal(S).int() * masks.padding(lengths, S).int() * masks.window(S, width or S).int()
        ).bool(),
        "hidden places united": lambda lengths, S, width=None: (
            ~(~masks.causal(S) | ~masks.padding(lengths, S) | ~masks.window(S, width or S))
        ),
    },
)

BEFORE_SOFTMAX = question(
    "before_softmax",
    "Why does the mask act on the scores *before* the softmax, by setting them to -∞, and not on the weights after it?",
    choices={
        "a": "It is a matter of taste: setting weights to zero after the softmax gives the same output.",
        "b": "The softmax shares out a total of 1. Hidden keys must not take part in the sharing, or what they took "
        "is missing.",
        "c": "After the softmax the weights are read-only for autograd, so the gradient would be lost.",
        "d": "A score of 0 would do as well; -∞ is only used because it is easy to see in a debugger.",
    },
    explanations={
        "a": "Not the same: zeroing afterwards leaves rows that sum to less than 1, by an amount that depends on the "
        "hidden tokens. Those who must not be seen then still set the volume of what is seen, and a model can read "
        "the future from that.",
        "b": "Yes. With -∞ a hidden key adds exp(-∞) = 0 to the denominator, so the weights of the visible keys sum "
        "to 1 and nothing about the hidden ones can be read from them, neither forwards nor in the gradient.",
        "c": "Autograd has no objection to a multiplication after the softmax; the trouble is what the numbers then "
        "mean. Work out a row with two equal scores, one of them hidden.",
        "d": "A score of 0 is an ordinary score: exp(0) = 1, often more than a visible key gets. A key is hidden "
        "only when its exp is 0.",
    },
    answer="b",
)

TOO_GOOD = question(
    "too_good",
    "You train a language model. After a few hundred steps the loss is 0.02, far below what the same model reached "
    "last week, and the text that it writes is nonsense. What do you look at first?",
    choices={
        "a": "The learning rate: the loss fell too fast, so the optimiser is skipping over good minima.",
        "b": "The sampling: a model with such a loss must be good, so the temperature is too high.",
        "c": "The size of the model: it has learned the training text by heart and a smaller one would generalise.",
        "d": "The mask and the shift of the targets: the model may be reading the very token that it is asked to "
        "predict.",
    },
    explanations={
        "a": "A learning rate that is too high shows as a loss that rises or jitters, hardly as one that no model "
        "could honestly reach.",
        "b": "With such a loss the model puts 98 % on the right token, so any moderate temperature would give good "
        "text, if the loss were honest. During generation the future is not there; a loss that needs it means "
        "nothing.",
        "c": "Learning by heart takes many passes over the text, and the text that is then written is a copy of it, "
        "not nonsense. A loss near zero within a few hundred steps points to something simpler.",
        "d": "Yes. A loss below the entropy of the language is a leak until proven otherwise. Change the future of "
        "an input and see whether earlier outputs move: with a sound causal mask they do not, to the last bit.",
    },
    answer="d",
)

EXERCISES = [CAUSAL, PADDING, WINDOW, DECODER, BEFORE_SOFTMAX, TOO_GOOD]
