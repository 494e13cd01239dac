"""Checks of batches: windows of a long text and their targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, refusal, requires
from tinytrans.data import batches

# ---- inputs: seed -> what the learner's function is called with


def text(draw: Draw) -> tuple[Tensor, int]:
    """A text in which no two ids are equal, and the length of a window."""
    return draw.permutation(60) + 100, draw.integer(4, 7)


def somewhere(draw: Draw) -> tuple[Tensor, Tensor, int]:
    ids, T = text(draw)
    starts = draw.permutation(45)[:3] + 2
    return ids, starts, T


def both_ends(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """The first window that there is, and the last, of a single position each."""
    ids, _ = text(draw)
    return ids, torch.tensor([len(ids) - 2, 0]), 1


def one_window(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """A text that holds a single window."""
    ids, T = text(draw)
    return ids[: T + 1], torch.zeros(1, dtype=torch.int64), T


def too_late(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """By one: the inputs fit, the last target does not."""
    ids, T = text(draw)
    return ids, torch.tensor([len(ids) - T]), T


def one_too_late(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """The first of three."""
    ids, T = text(draw)
    return ids, torch.tensor([len(ids) - T, len(ids) - T - 1, draw.integer(2, 9)]), T


def too_early(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """The last of three."""
    ids, T = text(draw)
    return ids, torch.tensor([draw.integer(2, 9), 0, -1]), T


# ---- laws


def one_further(found: Any, ids: Tensor, starts: Tensor, T: int) -> str | None:
    if not isinstance(found, list | tuple) or len(found) != 2:
        return "two things are asked for: inputs and targets"
    inputs, targets = found
    if inputs.shape != (len(starts), T) or targets.shape != inputs.shape:
        return (
            f"inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}, where ({len(starts)}, {T}) is asked for"
        )
    if not torch.equal(inputs[:, 0], ids[starts]):
        return "a window does not begin at its start"
    return None if torch.equal(targets[:, :-1], inputs[:, 1:]) else "a target is not the id behind its input"


def must_refuse(found: Any, ids: Tensor, starts: Tensor, T: int) -> str | None:
    if found == "refused":
        return None
    last = len(ids) - T - 1
    return f"starts {starts.tolist()} are not all between 0 and {last}, and there is no error: raise a ValueError"


# ---- ways to go wrong


def checked(ids: Tensor, starts: Tensor, T: int) -> None:
    if bool((starts < 0).any() | (starts > len(ids) - T - 1).any()):
        raise ValueError(f"{starts.tolist()}")


def cut(
    first: Callable[[int, int], int] = lambda start, _i: start, behind: int = 1, length: int = 0
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Windows out of parts: where one begins, how far behind its targets are, how much longer it is than T."""

    def made(ids: Tensor, starts: Tensor, T: int) -> tuple[Tensor, Tensor]:
        checked(ids, starts, T)
        at = torch.stack([torch.arange(T + length) + first(int(s), i) for i, s in enumerate(starts)]) % len(ids)
        return ids[at], ids[(at + behind) % len(ids)]

    return made


def sliced(ids: Tensor, starts: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """As most published code has it."""
    inputs = torch.stack([ids[s : s + T] for s in starts.tolist()])
    return inputs, torch.stack([ids[s + 1 : s + T + 1] for s in starts.tolist()])


def sliced_checked(ids: Tensor, starts: Tensor, T: int) -> tuple[Tensor, Tensor]:
    checked(ids, starts, T)
    return sliced(ids, starts, T)


def unfolded(ids: Tensor, starts: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """All windows at once, some of them taken."""
    checked(ids, starts, T)
    rows = ids.unfold(0, T + 1, 1)[starts]
    return rows[:, :-1], rows[:, 1:]


def in_lists(ids: Tensor, starts: Tensor, T: int) -> list[Tensor]:
    checked(ids, starts, T)
    plain = ids.tolist()
    rows = torch.tensor([plain[s : s + T + 1] for s in starts.tolist()])
    return [rows[:, :T], rows[:, 1:]]


def pushed_back(ids: Tensor, starts: Tensor, T: int) -> tuple[Tensor, Tensor]:
    return unfolded(ids, starts.clamp(0, len(ids) - T - 1), T)


def refusing(condition: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Right windows, another idea of which starts there are; what it lets through wraps round."""

    def made(ids: Tensor, starts: Tensor, T: int) -> tuple[Tensor, Tensor]:
        if condition(ids, starts, T).any():
            raise ValueError
        at = (starts[:, None] + torch.arange(T)) % len(ids)
        return ids[at], ids[(at + 1) % len(ids)]

    return made


def by_index(ids: Tensor, starts: Tensor, T: int) -> tuple[Tensor, Tensor]:
    at = starts[:, None] + torch.arange(T)
    return ids[at], ids[at + 1]


WINDOWS = exercise(
    "windows",
    reference=batches.windows,
    oracle=sliced_checked,
    requirements=[
        requires("windows at their starts, targets one further", 2, somewhere, law=one_further),
        requires("the first and the last window of the text", 1, both_ends, law=one_further),
        requires("a text of a single window", 1, one_window, law=one_further),
        requires("a start that is too late is refused", 1, too_late, run=refusal, law=must_refuse),
        requires("one among others that is too late is refused", 1, one_too_late, run=refusal, law=must_refuse),
        requires("one among others that is below 0 is refused", 1, too_early, run=refusal, law=must_refuse),
    ],
    wrong={
        "targets are the inputs": (
            cut(behind=0),
            "Targets and inputs are the same. A position is asked for the id behind it.",
        ),
        "targets before the inputs": (
            cut(behind=-1),
            "A position is asked for the id in front of it, which it can see.",
        ),
        "targets two further": (cut(behind=2), "A position is asked for the id two places on. One is enough."),
        "one id too many": (
            cut(length=1),
            "Windows are T + 1 long. That many ids are needed, for T inputs and T targets.",
        ),
        "one id too few": (cut(length=-1), "Windows are T - 1 long; T inputs are asked for, and T targets."),
        "starts by blocks": (
            cut(first=lambda start, _i: 2 * start),
            "A start is multiplied. It is the place of an id, and not the number of a block.",
        ),
        "one start for all": (
            lambda ids, starts, T: sliced_checked(ids, starts[:1].expand(len(starts)), T),
            "All windows begin at the first start.",
        ),
        "behind its start": (
            cut(first=lambda start, _i: start + 1),
            "Each window begins one id late: its first id is the one at its start.",
        ),
        "one behind the other": (
            cut(first=lambda start, i: start + i),
            "Each row begins one further than it should. Was the row's number added?",
        ),
        "windows in columns": (
            lambda ids, starts, T: tuple(x.T for x in sliced_checked(ids, starts, T)),
            "Each window stands in a column. A row is a window: (B, T).",
        ),
        "targets as one id": (
            lambda ids, starts, T: (sliced_checked(ids, starts, T)[0], sliced_checked(ids, starts, T)[1][:, -1]),
            "One target for each window. Every position has its own: that is what makes training efficient.",
        ),
        "inputs and targets exchanged": (
            lambda ids, starts, T: sliced_checked(ids, starts, T)[::-1],
            "Inputs and targets are exchanged.",
        ),
        "slices do not complain": (
            sliced,
            "Right where the windows fit. A slice beyond the end is short and says nothing, and a negative start "
            "counts "
            "from the end. Check the starts.",
        ),
        "round the end": (
            refusing(lambda _ids, starts, _T: starts < -99),
            "A window beyond the end goes on at the beginning of the text: its targets are of another place. Refuse.",
        ),
        "negative starts": (
            by_index,
            "Right where the windows fit, and too late a start fails by itself. But a negative index counts from the "
            "end without a word. Check the starts.",
        ),
        "one window too many allowed": (
            refusing(lambda ids, starts, T: (starts < 0) | (starts > len(ids) - T)),
            "A start of N - T is let through: the inputs fit, and their last target does not exist.",
        ),
        "the last window refused": (
            refusing(lambda ids, starts, T: (starts < 0) | (starts >= len(ids) - T - 1)),
            "The last window is refused. It begins at N - T - 1, and its last target is the text's last id.",
        ),
        "the last start alone looked at": (
            refusing(lambda ids, starts, T: (starts[-1:] < 0) | (starts[-1:] > len(ids) - T - 1)),
            "Only the last of the starts is looked at, perhaps behind a loop. A single wrong one, wherever it stands, "
            "is one too many.",
        ),
        "refused where all are wrong": (
            refusing(lambda ids, starts, T: ((starts < 0) | (starts > len(ids) - T - 1)).all()),
            "You refuse where *all* starts are wrong. A single one is enough: `any`.",
        ),
        "pushed back": (
            pushed_back,
            "Starts that do not fit are moved to where they do. That hides the mistake of whoever drew them: refuse.",
        ),
    },
    right={"by slices": sliced_checked, "all windows unfolded": unfolded, "by lists": in_lists},
    equivalent={
        "- -> +": "an index beyond the end raises an error by itself",
        "1 -> -1": "an index beyond the end raises an error by itself",
        "1 -> 0": "an index beyond the end raises an error by itself",
        "T - 1 -> 1": "an index beyond the end raises an error by itself",
        "T - 1 -> T": "an index beyond the end raises an error by itself",
        "int(starts.max()) -> starts.max()": "a tensor of one number compares as the number",
        "int(starts.min()) -> starts.min()": "a tensor of one number compares as the number",
        "len(starts) and (not 0 <= int(starts.min()) <= int(starts.max()) <= last): -> not 0 <= "
        "int(starts.min()) <= int(starts.max()) <= last:": "a batch has a window at least",
    },
)

EXERCISES = [WINDOWS]
