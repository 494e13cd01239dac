"""Checks of learning to translate by recurrence: the loss up to the stop, and a decoder that is told the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_dtype, with_gradients
from tinytrans.models import rnn
from tinytrans.nn.recurrent import additive_scores, attention_pool, attentive_step, gru_step

# ---- inputs: seed -> what the learner's function is called with


def until_stop(draw: Draw, T: int, V: int, stop: int, ends: Sequence[int]) -> Tensor:
    """Rows whose first stop stands at `ends`; anything may stand behind it, more stops among that."""
    targets = draw.integers(0, V, len(ends), T)
    for row, end in zip(targets, ends, strict=True):
        row[:end] = torch.where(row[:end] == stop, (stop + 1) % V, row[:end])
        row[end] = stop
    return targets


def judged(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """Three rows of one, three and five tokens, which all end with the stop."""
    V, stop = draw.integer(4, 8), draw.integer(1, 3)
    ends = [(0, 2, 4)[i] for i in draw.permutation(3)]
    targets = until_stop(draw, 7, V, stop, ends)
    targets[:, 5:] = torch.tensor([stop, (stop + 1) % V])  # a second stop, and not at the end
    return 2 * draw.normal(3, 7, V), targets, stop


def judged_full(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """Every row goes on to the end; as many classes as places, so that a wrong axis gives a value."""
    stop = draw.integer(0, 3)
    return 2 * draw.normal(2, 5, 5), until_stop(draw, 5, 5, stop, (4, 4)), stop


def judged_loud(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """Huge logits of a batch of one, in double precision."""
    logits, targets, stop = judged(draw)
    return 300 * logits[:1].double(), targets[:1], stop


def unsure(draw: Draw) -> tuple[Tensor, Tensor, int]:
    logits, targets, stop = judged(draw)
    return torch.zeros_like(logits), targets, stop


def small(draw: Draw, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return 0.6 * draw.normal(*shape, dtype=dtype)


def taught(
    draw: Draw, B: int = 3, T: int = 4, dtype: torch.dtype = torch.float32, *, S: int | None = None
) -> tuple[Any, ...]:
    """All of a decoder; the classes are more than four."""
    several, E, D, M, A = draw.sizes(5, 2, 7)
    S, V = S or several, 9
    start = draw.integer(0, V - 1)
    targets = draw.integers(0, V - 1, B, T)
    targets = targets + (targets >= start)  # the start is never a target
    mask = torch.arange(S) < (1 + draw.integers(0, S, B))[:, None]
    look = small(draw, A, D, dtype=dtype), small(draw, A, M, dtype=dtype), small(draw, A, dtype=dtype)
    shapes = ((3 * D, E + M), (3 * D, D), (3 * D,), (3 * D,))
    cell = tuple(small(draw, *shape, dtype=dtype) for shape in shapes)
    words, s = draw.normal(V, E, dtype=dtype), draw.normal(B, D, dtype=dtype)
    memory, head = draw.normal(B, S, M, dtype=dtype), draw.normal(V, D + M, dtype=dtype)
    return targets, start, words, s, memory, mask, look, cell, head


def taught_alone(draw: Draw) -> tuple[Any, ...]:
    """A batch of one, a single step that looks at a single place, in double precision."""
    return taught(draw, 1, 1, torch.float64, S=1)


# ---- ways to run an answer, and laws


def logits_twice(answer: Any, targets: Tensor, *rest: Any) -> Any:
    """The logits, and those for targets whose last two differ: what is said earlier must not move."""
    V = rest[1].shape[0]
    changed = targets.clone()
    changed[:, -2:] = (changed[:, -2:] + 1) % V
    return answer(targets, *rest)[0], answer(changed, *rest)[0]


def no_peeking(found: Any, targets: Tensor, *_: Any) -> str | None:
    """The law of teacher forcing: the logits at t depend on the targets before t, and on no later one."""
    one, other = found
    if one.shape != other.shape or one.dim() != 3 or one.shape[1] != targets.shape[1]:
        return None
    moved = (one - other).abs().amax(dim=(0, 2)) > 1e-6
    t = targets.shape[1] - 2
    if moved[: t + 1].any():
        place = int(moved.nonzero()[0])
        return f"the logits at step {place} change with target {t}: a step may know only the targets before it"
    return (
        None if moved[t + 1] else f"the logits at step {t + 1} don't change with target {t}, which it should have read"
    )


def mean_of_ln(loss: Any, logits: Tensor, *_: Any) -> str | None:
    """The law of knowing nothing: equal logits cost ln V a token."""
    expected = math.log(logits.shape[-1])
    if isinstance(loss, Tensor) and loss.dim() == 0 and abs(float(loss) - expected) > 1e-3:
        return (
            f"with equal logits every token costs ln {logits.shape[-1]} = {expected:.3f}; the mean is {float(loss):.3f}"
        )
    return None


# ---- the loss

Counts = Callable[[Tensor, int], Tensor]


def first_stop(targets: Tensor, stop: int) -> Tensor:
    """Bool (B, T): up to the first stop and with it."""
    stops = (targets == stop).long()
    return stops.cumsum(1) - stops == 0


def losing(
    *,
    counts: Counts = first_stop,
    each: Callable[[Tensor, Tensor], Tensor] = lambda logits, targets: (
        -logits.log_softmax(-1).gather(2, targets[..., None]).squeeze(2)
    ),
    mean: Callable[[Tensor, Tensor], Tensor] = lambda losses, counted: losses[counted].mean(),
) -> Callable[..., Tensor]:
    """The loss out of parts: what counts, what each token costs, how the mean is taken."""
    return lambda logits, targets, stop: mean(each(logits, targets), counts(targets, stop))


def places(targets: Tensor) -> Tensor:
    return torch.arange(targets.shape[1]).expand_as(targets)


def ends(targets: Tensor, stop: int) -> Tensor:
    """Where the first stop stands: (B, 1)."""
    return (targets == stop).long().argmax(dim=1, keepdim=True)


def last_stop(targets: Tensor, stop: int) -> Tensor:
    end = targets.shape[1] - 1 - (targets == stop).flip(1).long().argmax(dim=1, keepdim=True)
    return places(targets) <= end


def by_rows(logits: Tensor, targets: Tensor, stop: int) -> Tensor:
    """Token by token, in plain Python's order."""
    costs = []
    for row, said in zip(logits, targets.tolist(), strict=True):
        for scores, token in zip(row, said, strict=True):
            costs.append(scores.logsumexp(0) - scores[token])
            if token == stop:
                break
    return torch.stack(costs).mean()


def wrong_axis(logits: Tensor, targets: Tensor) -> Tensor:
    """The classes are taken to be the axis in the middle; an error unless there are as many."""
    return F.cross_entropy(logits, targets, reduction="none")


def shuffled_view(logits: Tensor, targets: Tensor) -> Tensor:
    B, T, V = logits.shape
    return F.cross_entropy(logits.transpose(1, 2).reshape(B * T, V), targets.flatten(), reduction="none").view(B, T)


LOSS = exercise(
    "teacher_forced_loss",
    reference=rnn.teacher_forced_loss,
    oracle=by_rows,
    requirements=[
        requires("the mean up to each row's first stop and with it", 2, judged),
        requires("rows that go on to the end", 1, judged_full),
        requires("equal logits cost ln V", 1, unsure, law=mean_of_ln),
        requires("huge logits, a batch of one, double precision", 1, judged_loud, run=with_dtype),
        requires("its gradient", 1, judged, run=with_gradients),
    ],
    wrong={
        "axes of size 1 dropped": (
            losing(each=lambda logits, targets: -logits.log_softmax(-1).gather(2, targets[..., None]).squeeze()),
            "`squeeze()` without a number drops every axis of size 1: a batch of one loses its axis. `squeeze(-1)` "
            "drops the one that `gather` left.",
        ),
        "padding counted": (
            losing(counts=lambda targets, _stop: torch.ones_like(targets, dtype=torch.bool)),
            "What stands behind the stop counts as well. The model is then trained to predict padding.",
        ),
        "the stop left out": (
            losing(counts=lambda targets, stop: places(targets) < ends(targets, stop)),
            "The stop itself does not count, so that the model is never taught to stop and will write for ever.",
        ),
        "all that is no stop": (
            losing(counts=lambda targets, stop: targets != stop),
            "You leave out the tokens equal to the stop: what stands behind the first one still counts, and the model "
            "is never taught to stop.",
        ),
        "up to the last stop": (
            losing(counts=last_stop),
            "You count up to a row's *last* stop. The text ends with the first; later ones are padding.",
        ),
        "later stops as well": (
            losing(counts=lambda targets, stop: first_stop(targets, stop) | (targets == stop)),
            "Every stop counts, also those behind the first one: they are padding.",
        ),
        "up to the second stop": (
            losing(counts=lambda targets, stop: (targets == stop).cumsum(1) <= 1),
            "You go on counting until there is a *second* stop. What counts has no stop before it.",
        ),
        "one too many": (
            losing(counts=lambda targets, stop: places(targets) <= ends(targets, stop) + 1),
            "One token behind the stop still counts.",
        ),
        "the stops only": (
            losing(counts=lambda targets, stop: places(targets) == ends(targets, stop)),
            "Only the stops count: which condition is turned round?",
        ),
        "what stands behind": (
            losing(counts=lambda targets, stop: ~first_stop(targets, stop) | (places(targets) == 0)),
            "What counts is turned round: the padding is in, the text is out.",
        ),
        "zeros in the mean": (
            losing(mean=lambda losses, counted: (losses * counted).mean()),
            "Padding is set to 0 and then averaged over: the more padding, the smaller the loss. Divide by how many "
            "tokens count.",
        ),
        "summed": (
            losing(mean=lambda losses, counted: losses[counted].sum()),
            "The losses are summed. The mean is asked for, so that the loss does not grow with the batch.",
        ),
        "divided by the rows": (
            losing(mean=lambda losses, counted: losses[counted].sum() / len(losses)),
            "You divide by the number of rows. Divide by the number of tokens that count.",
        ),
        "row by row": (
            losing(mean=lambda losses, counted: ((losses * counted).sum(1) / counted.sum(1)).mean()),
            "You take each row's mean and then the mean of those, so that a token of a short row weighs more. All "
            "tokens of the batch weigh alike.",
        ),
        "softmax twice": (
            losing(
                each=lambda logits, targets: -logits.softmax(-1).log_softmax(-1).gather(2, targets[..., None])[..., 0]
            ),
            "`cross_entropy` wants logits and does the softmax itself; you hand it probabilities, so that even a "
            "perfect model keeps a loss.",
        ),
        "no logarithm": (
            losing(each=lambda logits, targets: -logits.softmax(-1).gather(2, targets[..., None])[..., 0]),
            "The loss is minus the probability. Its logarithm is asked for: being surely wrong must cost much more "
            "than being unsure.",
        ),
        "log of the softmax": (
            losing(each=lambda logits, targets: -logits.softmax(-1).log().gather(2, targets[..., None])[..., 0]),
            "For large logits the softmax is 0 in floating point, and its logarithm -∞. `log_softmax` and "
            "`cross_entropy` take both at once.",
        ),
        "the other sign": (
            lambda *inputs: -rnn.teacher_forced_loss(*inputs),
            "The sign is turned round: a gradient step would make the targets less likely.",
        ),
        "in bits": (
            lambda *inputs: rnn.teacher_forced_loss(*inputs) / math.log(2),
            "The logarithm is to the base 2. Nats are asked for: the natural logarithm.",
        ),
        "shifted once more": (
            lambda logits, targets, stop: by_shift(logits, targets, stop),
            "The targets are moved by one place: logits at t are compared with target t + 1. Here they already belong "
            "together.",
        ),
        "the classes in the middle": (
            losing(each=wrong_axis),
            "`cross_entropy` takes the axis behind the batch for the classes. Here it is the last one: flatten batch "
            "and places first, or `logits.transpose(1, 2)`.",
        ),
        "classes and places mixed up": (
            losing(each=shuffled_view),
            "The axes are exchanged and then flattened, so that numbers of different places land in one row. "
            "`flatten(0, 1)` as it is keeps the classes together.",
        ),
        "one number for each token": (
            losing(mean=lambda losses, counted: losses[counted]),
            "This is one loss for each token. Their mean is asked for.",
        ),
        "no gradient": (
            lambda logits, targets, stop: rnn.teacher_forced_loss(logits.detach(), targets, stop),
            "The value is right, but no gradient reaches the logits. Look for `detach`, `.data` or `.item()`.",
        ),
    },
    right={
        "token by token": by_rows,
        "ignored targets": lambda logits, targets, stop: F.cross_entropy(
            logits.flatten(0, 1), targets.masked_fill(~first_stop(targets, stop), -100).flatten()
        ),
        "sum over number": losing(mean=lambda losses, counted: (losses * counted).sum() / counted.sum()),
        "places up to the first stop": losing(counts=lambda targets, stop: places(targets) <= ends(targets, stop)),
        "transposed": losing(each=lambda logits, targets: F.cross_entropy(logits.mT, targets, reduction="none")),
    },
    equivalent={
        "stops.cumsum(dim=1) - stops.long() -> stops.long() - stops.cumsum(dim=1)": "only whether it is 0 counts",
        "stops.cumsum(dim=1) -> stops.cumsum(dim=-1)": "the same axis from the other end",
    },
)


def by_shift(logits: Tensor, targets: Tensor, stop: int) -> Tensor:
    """The loss of the next target's."""
    return losing()(logits[:, :-1], targets[:, 1:], stop)


# ---- the decoder that is told


def telling(
    *,
    reads: Callable[[Tensor, int, int], Tensor] = lambda targets, start, t: (
        targets[:, t - 1] if t else torch.full_like(targets[:, 0], start)
    ),
    carry: Callable[[Tensor, Tensor], Tensor] = lambda s, _first: s,
    step: Callable[..., tuple[Tensor, Tensor, Tensor]] = attentive_step,
    predicts: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda s, c, head: torch.cat((s, c), dim=-1) @ head.T,
    steps: Callable[[int], range] = range,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A told decoder out of parts: what step t reads, what is carried on, the step, the logits, how many steps."""

    def tell(
        targets: Tensor, start: int, words: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any,
        head: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        first, logits, shares = s, [], []
        for t in steps(targets.shape[1]):
            s, context, share = step(words[reads(targets, start, t)], carry(s, first), memory, mask, look, cell)
            logits.append(predicts(s, context, head))
            shares.append(share)
        return torch.stack(logits, dim=1), torch.stack(shares, dim=1)

    return tell


def free(
    targets: Tensor, start: int, words: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any,
    head: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Each step reads what the last one found likeliest."""
    token, logits, shares = torch.full_like(targets[:, 0], start), [], []
    for _ in range(targets.shape[1]):
        s, context, share = attentive_step(words[token], s, memory, mask, look, cell)
        logits.append(torch.cat((s, context), dim=-1) @ head.T)
        shares.append(share)
        token = logits[-1].argmax(-1)
    return torch.stack(logits, dim=1), torch.stack(shares, dim=1)


def by_rows_told(
    targets: Tensor, start: int, words: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any,
    head: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Every row alone, in torch's own words."""
    rows = []
    for b, row in enumerate(targets.tolist()):
        state, said, shares = s[b : b + 1], [], []
        for token in [start, *row[:-1]]:
            scores = (torch.tanh(look[0] @ state[0] + memory[b] @ look[1].T) @ look[2]).masked_fill(~mask[b], -math.inf)
            share = scores.softmax(0)
            context = share @ memory[b]
            state = torch.gru_cell(torch.cat((words[token], context))[None], state, *cell)
            said.append(head @ torch.cat((state[0], context)))
            shares.append(share)
        rows.append((torch.stack(said), torch.stack(shares)))
    return torch.stack([said for said, _ in rows]), torch.stack([shares for _, shares in rows])


def shifted_first(
    targets: Tensor, start: int, words: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any,
    head: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The inputs moved as a whole, the head once for all steps."""
    outputs, shares = [], []
    for x in F.embedding(F.pad(targets, (1, -1), value=start), words).unbind(1):
        context, share = attention_pool(additive_scores(s, memory, *look), memory, mask)
        s = gru_step(torch.cat((x, context), dim=-1), s, *cell)
        outputs.append(torch.cat((s, context), dim=-1))
        shares.append(share)
    return F.linear(torch.stack(outputs, dim=1), head), torch.stack(shares, dim=1)


def preallocated(
    targets: Tensor, start: int, words: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any,
    head: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Into tensors that are there from the start; state and context have each a part of the head."""
    B, T = targets.shape
    logits, shares = memory.new_zeros(B, T, len(head)), memory.new_zeros(B, T, memory.shape[1])
    D = s.shape[1]
    for t in range(T):
        before = words[start].expand(B, -1) if t == 0 else words[targets[:, t - 1]]
        s, context, shares[:, t] = attentive_step(before, s, memory, mask, look, cell)
        logits[:, t] = s @ head[:, :D].T + context @ head[:, D:].T
    return logits, shares


def changed_told(change: Callable[[Tensor, Tensor], Any]) -> Callable[..., Any]:
    return lambda *inputs: change(*rnn.told(*inputs))


TOLD = exercise(
    "told",
    reference=rnn.told,
    oracle=by_rows_told,
    requirements=[
        requires("logits and weights of every step", 2, taught),
        requires(
            "no step knows its own target, each knows the one before", 1, taught, run=logits_twice, law=no_peeking
        ),
        requires("a batch of one, a single step, double precision", 1, taught_alone, run=with_dtype),
        requires("the gradient goes back through all steps", 1, taught, run=with_gradients),
    ],
    wrong={
        "the axis of the steps dropped": (
            changed_told(lambda logits, shares: (logits.squeeze(1), shares.squeeze(1))),
            "`squeeze(1)` drops the axis of the steps where there is a single one. A text of one token still has "
            "that axis.",
        ),
        "reads the target it has to predict": (
            telling(reads=lambda targets, _start, t: targets[:, t]),
            "Step t reads target t, the very token that it has to predict: a leak. It will learn to copy its input. "
            "Step t reads target t - 1.",
        ),
        "two behind": (
            telling(
                reads=lambda targets, start, t: targets[:, t - 2] if t > 1 else torch.full_like(targets[:, 0], start)
            ),
            "Step t reads target t - 2: the targets are moved by one place too many.",
        ),
        "reads its own guess": (
            free,
            "Each step reads what the last one found likeliest. That is how the model is used; in training it is told "
            "the truth, target t - 1.",
        ),
        "start at every step": (
            telling(reads=lambda targets, start, _t: torch.full_like(targets[:, 0], start)),
            "Every step reads the start token: the targets are never told.",
        ),
        "token 0 for the start": (
            telling(reads=lambda targets, _start, t: targets[:, t - 1] if t else torch.zeros_like(targets[:, 0])),
            "The first step reads token 0. The start token has its own number, `start`.",
        ),
        "nothing for the start": (
            lambda *inputs: nothing_first(*inputs),
            "The first step reads zeros. The start token has an embedding like any other: words[start].",
        ),
        "the last target wraps round": (
            telling(reads=lambda targets, _start, t: targets[:, t - 1]),
            "At t = 0 the index t - 1 is -1, the *last* target. The first step reads the start token.",
        ),
        "the first state again": (
            telling(carry=lambda _s, first: first),
            "Each step moves from the first state: nothing is remembered of what was written. Hand the new state on.",
        ),
        "the old state predicts": (
            lambda *inputs: before_moving(*inputs),
            "The logits come from the state *before* the step, which has not read the token yet. Use the new one.",
        ),
        "context before state": (
            telling(predicts=lambda s, c, head: torch.cat((c, s), dim=-1) @ head.T),
            "The head reads the context before the state. Its weights expect the other order: torch.cat((s, context)).",
        ),
        "the state alone": (
            telling(predicts=lambda s, c, head: torch.cat((s, 0 * c), dim=-1) @ head.T),
            "The head does not read the context. It gets both: what was written so far, and what was just looked up.",
        ),
        "the context alone": (
            telling(predicts=lambda s, c, head: torch.cat((0 * s, c), dim=-1) @ head.T),
            "The head does not read the state. It gets both: what was written so far, and what was just looked up.",
        ),
        "already probabilities": (
            changed_told(lambda logits, shares: (logits.softmax(-1), shares)),
            "The logits went through a softmax. The loss does that itself: return them as they are.",
        ),
        "already log-probabilities": (
            changed_told(lambda logits, shares: (logits.log_softmax(-1), shares)),
            "The logits went through a log_softmax. They are asked for as they are.",
        ),
        "one step short": (
            telling(steps=lambda T: range(T - 1)),
            "The last step is missing: there are as many predictions as targets.",
        ),
        "one step too many": (
            telling(steps=lambda T: range(T + 1)),
            "There is one step too many: after the last target nothing more has to be predicted.",
        ),
        "time before batch": (
            changed_told(lambda logits, shares: (logits.transpose(0, 1), shares.transpose(0, 1))),
            "The steps come before the batch: `torch.stack(..., dim=1)`.",
        ),
        "weights first": (
            changed_told(lambda logits, shares: (shares, logits)),
            "The two results have changed places: first the logits, then the weights.",
        ),
        "the weights are missing": (
            changed_told(lambda logits, _shares: logits),
            "Only the logits are returned. The weights go with them, for the heat map.",
        ),
        "padding is looked at": (
            telling(
                step=lambda x, s, memory, mask, look, cell: attentive_step(
                    x, s, memory, torch.ones_like(mask), look, cell
                )
            ),
            "The mask does not reach the step: padding gets a share of the weights.",
        ),
        "no gradient between the steps": (
            telling(carry=lambda s, first: s if s is first else s.detach()),
            "The values are right, but the gradient stops at every step. Look for `detach` or `.data`.",
        ),
    },
    right={
        "row by row": by_rows_told,
        "moved as a whole": shifted_first,
        "into given tensors": preallocated,
    },
    equivalent={
        "0], -> -1],": "only its shape is taken",
        "dim=-1) -> dim=--1)": "the same axis from the other end",
        "dim=-1) -> dim=1)": "the same axis from the other end",
        "range(targets.shape[1]): -> range(targets.shape[-1]):": "the same axis from the other end",
    },
)


def nothing_first(targets: Tensor, start: int, words: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """A start token that is nothing; it occurs nowhere else."""
    return rnn.told(targets, start, words.index_fill(0, torch.tensor([start]), 0.0), *rest)


def before_moving(
    targets: Tensor, start: int, words: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Any, cell: Any,
    head: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The state that a step found makes its logits."""
    logits, shares, token = [], [], torch.full_like(targets[:, 0], start)
    for t in range(targets.shape[1]):
        after, context, share = attentive_step(words[token], s, memory, mask, look, cell)
        logits.append(torch.cat((s, context), dim=-1) @ head.T)
        shares.append(share)
        s, token = after, targets[:, t]
    return torch.stack(logits, dim=1), torch.stack(shares, dim=1)


# ---- questions

TRUTH = question(
    "told_the_truth",
    "In training the decoder is told the true token before each step. What is different when the model is used?",
    choices={
        "a": "Nothing: there, too, it reads the true tokens, one after the other.",
        "b": "It reads its own tokens, the wrong ones included, which it never met in training. One error may bring "
        "more.",
        "c": "It works backwards from the stop.",
        "d": "It reads no tokens at all, for the state holds everything.",
    },
    explanations={
        "a": "In use there are none: finding them is the task.",
        "b": "Yes, this is called exposure bias. The price is paid for a great gain: told the truth, a model learns "
        "from every step, also from those after its errors, and need not find a whole right answer by chance.",
        "c": "The stop is the last thing that it writes, and it tells nothing about what comes before.",
        "d": "The state does not know which of the likely tokens was chosen. Its own choice must be told to it, as the "
        "input of the next step.",
    },
    answer="b",
)

EXERCISES = [LOSS, TOLD, TRUTH]
