"""Checks of generation: one greedy step, and drawing a token from its distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires
from tinytrans.sampling.generate import draw as drawn
from tinytrans.sampling.generate import greedy_step

# ---- inputs: seed -> what the learner's function is called with


def text(draw: Draw) -> tuple[Tensor, Tensor]:
    """Ids and logits; all sizes differ, and so do the likeliest tokens of all positions, seen from either end."""
    B, T, V = 3, draw.integer(4, 5), draw.integer(17, 19)
    best = draw.permutation(V)[: B * T].view(B, T)
    logits = (3 * draw.normal(B, T, V)).clamp(-9, 2).scatter(-1, best[..., None], 3.0 + draw.uniform(B, T, 1))
    return draw.integers(0, V, B, T), logits


def lone(draw: Draw) -> tuple[Tensor, Tensor]:
    """A batch of one in double precision, its logits not contiguous."""
    ids, logits = text(draw)
    return ids[:1], logits[:1].double().transpose(1, 2).contiguous().transpose(1, 2)


def first_word(draw: Draw) -> tuple[Tensor, Tensor]:
    ids, logits = text(draw)
    return ids[:, :1], logits[:, :1]


def with_ends(stop: int) -> Callable[[Draw], tuple[Tensor, Tensor, int]]:
    """Row 0 ends with the stop, row 1 met it earlier, row 2 never did; for row 1 the stop is not what is likeliest."""

    def inputs(draw: Draw) -> tuple[Tensor, Tensor, int]:
        ids, logits = text(draw)
        V = logits.shape[-1]
        ids = torch.where(ids == stop, V - 1, ids)
        ids[0, -1], ids[1, 1] = stop, stop
        logits[:, -1, stop] = -3.0
        return ids, logits, stop

    return inputs


def about_to_end(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """No row has ended, and for row 1 the stop is what is likeliest."""
    ids, logits = text(draw)
    stop = int(logits[1, -1].argmax())
    return torch.where(ids == stop, (stop + 1) % logits.shape[-1], ids), logits, stop


def all_ended(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """Every row ends with the stop, which is 0."""
    ids, logits, stop = with_ends(0)(draw)
    ids[:, -1] = stop
    return ids, logits, stop


def pieces(draw: Draw, *shape: int) -> Tensor:
    """Distributions of which some tokens, the first and the last among them, are impossible."""
    V = shape[-1]
    weights = 0.05 + draw.uniform(*shape) ** 2
    impossible = torch.zeros(V, dtype=torch.bool)
    impossible[[0, V // 2, V - 1]] = True
    weights = weights.masked_fill(impossible, 0.0)
    return weights / weights.sum(-1, keepdim=True)


def within(draw: Draw, probabilities: Tensor) -> Tensor:
    """Chances that fall well inside of some possible token's piece."""
    ends = probabilities.cumsum(-1)
    possible = (probabilities > 0).to(torch.float64)
    ids = (draw.uniform(*probabilities.shape) * possible).argmax(-1, keepdim=True)
    inside = ends.gather(-1, ids) - probabilities.gather(-1, ids) * (0.2 + 0.6 * draw.uniform(*ids.shape))
    return inside.squeeze(-1).to(probabilities.dtype)


def some_rows(draw: Draw) -> tuple[Tensor, Tensor]:
    probabilities = pieces(draw, 5, 8)
    return probabilities, within(draw, probabilities)


def one_row(draw: Draw) -> tuple[Tensor, Tensor]:
    probabilities = pieces(draw, 9)
    return probabilities, within(draw, probabilities)


def of_positions(draw: Draw) -> tuple[Tensor, Tensor]:
    """Of every position of a batch, in double precision."""
    probabilities = pieces(draw, 2, 3, 7).double()
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities, within(draw, probabilities)


def no_chance(draw: Draw) -> tuple[Tensor, Tensor]:
    """A chance of exactly 0, and a first token that is impossible."""
    return pieces(draw, 3, 7), torch.zeros(3)


def on_edges(draw: Draw) -> tuple[Tensor, Tensor]:
    """Sixteenths, which floats add up exactly, and chances on which one piece ends and the next begins."""
    sixteenths = torch.stack([draw.permutation(5) + 1 for _ in range(4)])  # 1 to 5: together 15
    probabilities = torch.cat((sixteenths, torch.ones(4, 1)), dim=-1) / 16
    return probabilities, probabilities.cumsum(-1).gather(-1, draw.integers(0, 5, 4, 1)).squeeze(-1)


def rounded(draw: Draw) -> tuple[Tensor, Tensor]:
    """A chance just below 1, and a sum that rounding has left below it; the last token is impossible. One position."""
    return pieces(draw, 1, 1, 7) * 0.999, torch.full((1, 1), 1 - 2**-20)


# ---- laws: the sentence that says what is violated


def grown_by_one(found: Any, ids: Tensor, _logits: Tensor, stop: int | None = None) -> str | None:
    B, T = ids.shape
    if found.shape != (B, T + 1):
        return f"from ids of shape ({B}, {T}) come {tuple(found.shape)}: each row grows by one id"
    if not torch.equal(found[:, :T], ids):
        return "the ids that were there have changed: the new one goes behind them"
    if stop is not None and (ended := ids[:, -1] == stop).any() and (found[ended, -1] != stop).any():
        return f"row {int(ended.nonzero()[0])} has ended with {stop} and goes on with {int(found[ended, -1][0])}"
    return None


def possible_ids(found: Any, probabilities: Tensor, chance: Tensor) -> str | None:
    ids, V = torch.as_tensor(found), probabilities.shape[-1]
    if ids.shape != chance.shape or ids.is_floating_point():
        return None
    if ((ids < 0) | (ids >= V)).any():
        bad = ids[(ids < 0) | (ids >= V)].flatten()[0]
        return f"id {int(bad)} comes out, and there are ids 0 to {V - 1} only"
    taken = probabilities.gather(-1, ids[..., None].long()).squeeze(-1)
    if (taken == 0).any():
        at = tuple((taken == 0).nonzero()[0].tolist())
        return f"row {list(at)}: id {int(ids[at])} is drawn, whose probability is 0 (the chance was {chance[at]:.6f})"
    return None


# ---- greedy_step


def appended(choose: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A step that chooses in another way, with the stop as it should be."""

    def step(ids: Tensor, logits: Tensor, stop: int | None = None) -> Tensor:
        new = choose(ids, logits)
        new = new if stop is None else torch.where(ids[:, -1] == stop, stop, new)
        return torch.cat((ids, new[:, None]), dim=1)

    return step


def stopped(end: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """A step that treats the stop in another way: (ids, new, stop) -> new."""

    def step(ids: Tensor, logits: Tensor, stop: int | None = None) -> Tensor:
        new = logits[:, -1].argmax(-1)
        return torch.cat((ids, (new if stop is None else end(ids, new, stop))[:, None]), dim=1)

    return step


def never_ending(ids: Tensor, logits: Tensor, stop: int | None = None) -> Tensor:
    if stop is None:
        return greedy_step(ids, logits)
    without = logits.index_fill(-1, torch.tensor([stop]), float("-inf"))
    return greedy_step(ids, without, stop)


def placed(put: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A step that puts the right id into another place."""

    def step(ids: Tensor, logits: Tensor, stop: int | None = None) -> Tensor:
        grown = greedy_step(ids, logits, stop)
        return put(grown[:, :-1], grown[:, -1:])

    return step


def greedy_in_a_loop(ids: Tensor, logits: Tensor, stop: int | None = None) -> Tensor:
    """Row by row, in plain Python."""
    grown = []
    for row, each in zip(ids.tolist(), logits.tolist(), strict=True):
        last = each[-1]
        grown.append([*row, stop if stop is not None and row[-1] == stop else last.index(max(last))])
    return torch.tensor(grown)


def falsy_stop(ids: Tensor, logits: Tensor, stop: int | None = None) -> Tensor:
    return greedy_step(ids, logits, stop or None)


def written_in(ids: Tensor, logits: Tensor, stop: int | None = None) -> Tensor:
    grown = greedy_step(ids, logits, stop)
    ids[:, -1] = grown[:, -1]
    return grown


def by_top(ids: Tensor, logits: Tensor, stop: int | None = None) -> Tensor:
    new = logits[:, -1, :].softmax(-1).topk(1).indices
    if stop is not None:
        ended = ids[:, -1:] == stop
        new = new * ~ended + stop * ended
    return torch.hstack((ids, new))


GREEDY = exercise(
    "greedy_step",
    reference=greedy_step,
    oracle=greedy_in_a_loop,
    requirements=[
        requires("the likeliest token of the last position, behind each row", 2, text, law=grown_by_one),
        requires("a batch of one, double precision", 1, lone, law=grown_by_one),
        requires("behind a single token", 1, first_word, law=grown_by_one),
        requires("a row that has ended repeats its stop", 1, with_ends(5), law=grown_by_one),
        requires("a row ends where the stop is likeliest", 1, about_to_end, law=grown_by_one),
        requires("all rows have ended, with a stop id of 0", 1, all_ended, law=grown_by_one),
    ],
    wrong={
        "the first position": (
            appended(lambda ids, logits: logits[:, 0].argmax(-1)),
            "You ask the first position. What comes next is what the *last* one predicts.",
        ),
        "the last but one": (
            appended(lambda ids, logits: logits[:, max(logits.shape[1] - 2, 0)].argmax(-1)),
            "You ask the last position but one: it predicts the token that is already there. The logits at t are for "
            "token t + 1.",
        ),
        "the likeliest of all positions": (
            appended(lambda ids, logits: logits.flatten(1).argmax(-1) % logits.shape[-1]),
            "You take the largest logit of all positions. Only the last position speaks about the next token.",
        ),
        "the sum over positions": (
            appended(lambda ids, logits: logits.sum(1).argmax(-1)),
            "You add up the logits of all positions. Only the last one speaks about the next token.",
        ),
        "the least likely": (
            appended(lambda ids, logits: logits[:, -1].argmin(-1)),
            "That is the least likely token.",
        ),
        "a position instead of a token": (
            appended(lambda ids, logits: logits.amax(-1).argmax(-1)),
            "You search along the positions: what you append is the number of a position and no token.",
        ),
        "one for all rows": (
            appended(lambda ids, logits: logits[0, -1].argmax(-1).expand(len(ids))),
            "All rows get the token of the first one. Each row has its own.",
        ),
        "the last row of the batch": (
            appended(lambda ids, logits: logits[-1, -1].argmax(-1).expand(len(ids))),
            "`logits[-1]` is the last row of the batch. Positions are the second axis: `logits[:, -1]`.",
        ),
        "all positions appended": (
            lambda ids, logits, stop=None: torch.cat((ids, logits.argmax(-1)), dim=1),
            "You append what every position predicts. What follows the earlier ones is known; only the last one is "
            "asked.",
        ),
        "only the predictions": (
            lambda ids, logits, stop=None: logits.argmax(-1),
            "These are the predictions of all positions, without the text. What stays is the text, with one id more.",
        ),
        "only the new id": (
            placed(lambda ids, new: new),
            "Only the new id comes out. The whole text is asked for, since the model reads it again.",
        ),
        "in front": (
            placed(lambda ids, new: torch.cat((new, ids), dim=1)),
            "The new id stands in front. A text grows at its end.",
        ),
        "the last one replaced": (
            placed(lambda ids, new: torch.cat((ids[:, :-1], new), dim=1)),
            "You replace the last id instead of appending one.",
        ),
        "the first one dropped": (
            placed(lambda ids, new: torch.cat((ids[:, 1:], new), dim=1)),
            "The text keeps its length: its first id was dropped. It grows by one.",
        ),
        "stop ignored": (
            stopped(lambda ids, new, stop: new),
            "A row that has ended goes on. Its last id is the stop: give it the stop again.",
        ),
        "stopped by any stop": (
            stopped(lambda ids, new, stop: torch.where((ids == stop).any(1), stop, new)),
            "A stop anywhere in the row ends it. It may stand in a prompt; only the last id counts.",
        ),
        "one stop ends all": (
            stopped(lambda ids, new, stop: torch.full_like(new, stop) if (ids[:, -1] == stop).any() else new),
            "As soon as one row has ended, all of them do. Each row ends by itself.",
        ),
        "ends when all have ended": (
            stopped(lambda ids, new, stop: torch.full_like(new, stop) if (ids[:, -1] == stop).all() else new),
            "You wait until all rows have ended. A row that has ended must not go on meanwhile.",
        ),
        "never an end": (
            never_ending,
            "The stop is never chosen, so that no text can end. It is a token like the others: where it is the "
            "likeliest, it comes.",
        ),
        "ended rows get 0": (
            stopped(lambda ids, new, stop: torch.where(ids[:, -1] == stop, 0, new)),
            "Rows that have ended get the id 0. They repeat their stop.",
        ),
        "a stop of 0 is none": (
            falsy_stop,
            "`if stop:` is False for the id 0 as well. Ask `if stop is not None`.",
        ),
        "in place": (written_in, "You write into the caller's ids. `torch.cat` makes a new tensor."),
    },
    right={
        "in a loop": greedy_in_a_loop,
        "by the top one": by_top,
        "argmax of everything, then the last": lambda ids, logits, stop=None: greedy_step(
            ids, logits.argmax(-1, keepdim=True).eq(torch.arange(logits.shape[-1])).float(), stop
        ),
    },
    equivalent={
        "-1].argmax(dim=-1) -> -1].argmax(dim=--1)": "the last of two axes is the second",
        "-1].argmax(dim=-1) -> -1].argmax(dim=1)": "the last of two axes is the second",
        "dim=1) -> dim=-1)": "the last of two axes is the second",
    },
)

# ---- draw


def counted(ends: Callable[[Tensor], Tensor], below: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """How many pieces end before the chance."""
    return lambda probabilities, chance: below(ends(probabilities), chance[..., None]).sum(-1)


def whole(probabilities: Tensor) -> Tensor:
    ends = probabilities.cumsum(-1)
    return ends / ends[..., -1:]


def by_search(probabilities: Tensor, chance: Tensor) -> Tensor:
    return torch.searchsorted(whole(probabilities), chance[..., None].contiguous(), right=True).squeeze(-1)


def drawn_in_a_loop(probabilities: Tensor, chance: Tensor) -> Tensor:
    """Walk along the line until the chance is behind."""
    found = []
    for row, u in zip(
        probabilities.reshape(-1, probabilities.shape[-1]).tolist(), chance.flatten().tolist(), strict=True
    ):
        total, at = 0.0, 0
        for i, p in enumerate(row):
            if p > 0:
                at, total = i, total + p / sum(row)
                if u < total:
                    break
        found.append(at)
    return torch.tensor(found).reshape(chance.shape)


def sorted_first(probabilities: Tensor, chance: Tensor) -> Tensor:
    return (whole(probabilities.sort(-1, descending=True).values) <= chance[..., None]).sum(-1)


def sorted_and_back(probabilities: Tensor, chance: Tensor) -> Tensor:
    rank = sorted_first(probabilities, chance)
    return probabilities.argsort(-1, descending=True).gather(-1, rank[..., None]).squeeze(-1)


def at_most(left: Tensor, right: Tensor) -> Tensor:
    return left <= right


def less(left: Tensor, right: Tensor) -> Tensor:
    return left < right


DRAW = exercise(
    "draw",
    reference=drawn,
    oracle=drawn_in_a_loop,
    requirements=[
        requires("each row by its own chance", 2, some_rows, law=possible_ids),
        requires("a single row and a single chance", 1, one_row, law=possible_ids),
        requires("every position of a batch, double precision", 1, of_positions, law=possible_ids),
        requires("a chance of 0 falls on the first possible token", 1, no_chance, law=possible_ids),
        requires("on an edge: the piece that begins there", 1, on_edges, law=possible_ids),
        requires("a sum that rounding left below 1", 1, rounded, law=possible_ids),
    ],
    wrong={
        "always the likeliest": (
            lambda probabilities, chance: probabilities.argmax(-1),
            "The chance is not used: the likeliest token comes every time. That is greedy again.",
        ),
        "one too far": (
            lambda probabilities, chance: (by_search(probabilities, chance) + 1).clamp(max=probabilities.shape[-1] - 1),
            "That is the token behind the right one. How many pieces end before the chance?",
        ),
        "one too early": (
            lambda probabilities, chance: (by_search(probabilities, chance) - 1).clamp(min=0),
            "That is the token in front of the right one: the last piece that ends before the chance. It falls on the "
            "next.",
        ),
        "from the other end": (
            lambda probabilities, chance: by_search(probabilities, 1 - chance - 2**-21),
            "You count from 1 - chance, so the line is read from its other end.",
        ),
        "each probability against the chance": (
            lambda probabilities, chance: (probabilities > chance[..., None]).int().argmax(-1),
            "You look for a token whose own probability exceeds the chance. The pieces lie one behind the other: sum "
            "them up first.",
        ),
        "all tokens alike": (
            lambda probabilities, chance: (chance * probabilities.shape[-1]).long(),
            "Every token gets a piece of the same length: the probabilities are not used.",
        ),
        "a rank instead of an id": (
            sorted_first,
            "You sort and return a place in the sorted order. The id that stands there is asked for (and no sort is "
            "needed).",
        ),
        "in sorted order": (
            sorted_and_back,
            "You lay the tokens along the line by their probability. As often, and yet for a given chance another "
            "token: the order is that of the ids.",
        ),
        "summed over the rows": (
            lambda probabilities, chance: (
                whole(probabilities.transpose(0, -1)).transpose(0, -1) <= chance[..., None]
            ).sum(-1),
            "You add up along the first axis. The tokens are on the last one.",
        ),
        "one chance for all": (
            lambda probabilities, chance: by_search(probabilities, chance.flatten()[0].expand(chance.shape)),
            "All rows use the first row's chance. Each has its own.",
        ),
        "the edge belongs to the earlier one": (
            counted(whole, less),
            "Right but for a chance of exactly 0, which `torch.rand` does give: it falls on the first token even where "
            "that one is impossible. Compare with <=.",
        ),
        "beyond the vocabulary": (
            counted(lambda p: p.cumsum(-1), at_most),
            "Right, until rounding leaves the sum below the chance: then the id behind the last one comes out, and the "
            "embedding fails, once in a million tokens. Divide by the sum.",
        ),
        "held within the vocabulary": (
            lambda probabilities, chance: counted(lambda p: p.cumsum(-1), at_most)(probabilities, chance).clamp(
                max=probabilities.shape[-1] - 1
            ),
            "Where rounding leaves the sum below the chance you take the last id. It may be one that a filter has "
            "removed. Divide by the sum, so that the last *possible* piece ends at 1.",
        ),
        "a probability instead of an id": (
            lambda probabilities, chance: probabilities.gather(-1, by_search(probabilities, chance)[..., None]).squeeze(
                -1
            ),
            "The probability of the right token comes out. Its id is asked for.",
        ),
        "a float": (
            lambda probabilities, chance: by_search(probabilities, chance).float(),
            "The right ids, as floats. An id is an integer: an embedding takes nothing else.",
        ),
        "one-hot": (
            lambda probabilities, chance: torch.nn.functional.one_hot(
                by_search(probabilities, chance), probabilities.shape[-1]
            ),
            "A one-hot vector comes out. The id itself is asked for.",
        ),
    },
    right={
        "by binary search": by_search,
        "in a loop": drawn_in_a_loop,
        "the first piece that ends behind": lambda probabilities, chance: (
            (whole(probabilities) > chance[..., None]).int().argmax(-1)
        ),
    },
)

# ---- questions

CAN_CHANGE = question(
    "can_change",
    "A GPT has written *the fox found a red* and now appends *kite*. Can appending *kite* change any of the words that "
    "are already there, or what the model has computed for them?",
    choices={
        "a": "Yes: the whole text is read again at every step, so earlier positions may now predict other words, and "
        "the text is corrected.",
        "b": "No: the words were put out and stay; and under the causal mask no earlier position can see *kite*, so "
        "their vectors stay the same to the last.",
        "c": "The words stay, but the vectors of all earlier positions change, since attention weights must sum to 1 "
        "over more tokens.",
        "d": "Only the last word before it can change, because that one attends to *kite*.",
    },
    explanations={
        "a": "Reading again changes nothing: the earlier positions see what they saw before. What they predict is not "
        "used a second time either; the ids are there. Search methods such as beam search may drop a whole text for "
        "another one, but no text is edited.",
        "b": "Yes. Each position is a function of itself and what stands before it. That is why their keys and values "
        "can be kept, which is the KV cache of section 8.",
        "c": "Their weights are shared out over the tokens up to themselves. For *red* these are the same five as "
        "before. Only the new position has one more key to look at.",
        "d": "Attention under the causal mask only looks back. *red* does not attend to *kite*; *kite* attends to "
        "*red*.",
    },
    answer="b",
)

FUTURE = question(
    "see_the_future",
    "Suppose one removes the causal mask, so that every position of a generator may look ahead, too. What would become "
    "of it?",
    choices={
        "a": "It would write better, since it could look at the words to come and correct its own errors.",
        "b": "Nothing changes at inference, because there is no future to be seen yet.",
        "c": "It would be another kind of model: trained as before it learns to copy the next token and cannot write. "
        "Trained to restore hidden words, as BERT is, it may revise its text, but then every position is recomputed "
        "after each change, there is no KV cache, and no simple product of probabilities belongs to a text.",
        "d": "It would train more slowly, and apart from that be the same model.",
    },
    explanations={
        "a": "Looking ahead alone corrects nothing: while it writes there is nothing ahead, and in training it has "
        "only learned to copy. To revise, a model must be trained to revise.",
        "b": "The earlier positions would see the later ones, and all their vectors would change with each new token. "
        "And the weights were trained in the presence of an answer that is now missing.",
        "c": "Yes. Lesson 04 showed the copying. Models that restore or denoise a whole text in rounds exist; they "
        "trade the cache and the simple probability for the possibility to change their mind.",
        "d": "The speed is the smallest of the differences. The loss falls to nearly nothing, and that is the symptom "
        "of the leak.",
    },
    answer="c",
)

EXERCISES = [GREEDY, DRAW, CAN_CHANGE, FUTURE]
