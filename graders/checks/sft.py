"""Checks of instruction tuning: which tokens are the answer's, what each place is asked, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_gradients
from tinytrans.training import sft

NOT_ASKED = -100

# ---- inputs


def dialogues(draw: Draw, B: int) -> tuple[Tensor, Tensor, int]:
    """Lengths of B prompts, of prompts with answers (2 tokens at least), and T > the longest: all rows have padding."""
    prompts, answers = draw.integers(1, 5, B), draw.integers(2, 6, B)
    lengths = prompts + answers
    return prompts, lengths, int(lengths.max()) + draw.integer(1, 3)


def several(draw: Draw) -> tuple[Tensor, Tensor, int]:
    return dialogues(draw, draw.integer(3, 5))


def alone(draw: Draw) -> tuple[Tensor, Tensor, int]:
    prompts, lengths, _ = dialogues(draw, 1)
    return prompts, lengths, int(lengths)


def odd_rows(draw: Draw) -> tuple[Tensor, Tensor, int]:
    """One row without an answer, one that is all answer, one that fills the width."""
    T = draw.integer(6, 9)
    return torch.tensor([4, 0, 2]), torch.tensor([4, draw.integer(2, 5), T]), T


def ids_and_mask(draw: Draw, B: int) -> tuple[Tensor, Tensor]:
    prompts, lengths, T = dialogues(draw, B)
    ids = draw.integers(3, 90, B, T)
    return ids, sft.answer_mask(prompts, lengths, T)


def batch_ids(draw: Draw) -> tuple[Tensor, Tensor]:
    """The first answer begins with the id 0, which is a word like others."""
    ids, answer = ids_and_mask(draw, draw.integer(2, 4))
    ids[0, answer[0].int().argmax()] = 0
    return ids, answer


def one_id_row(draw: Draw) -> tuple[Tensor, Tensor]:
    return ids_and_mask(draw, 1)


def two_answers(draw: Draw) -> tuple[Tensor, Tensor]:
    """A dialogue of two rounds: the mask is True in two places, once up to the very end."""
    T = 12
    mask = torch.zeros(2, T, dtype=torch.bool)
    first = draw.integer(2, 4)
    mask[0, first : first + 2] = mask[0, 9:] = mask[1, first + 1 : 7] = True
    return draw.integers(3, 90, 2, T), mask


def asked(draw: Draw) -> tuple[Tensor, Tensor]:
    """Logits and targets of answers of unequal length; id 0 is a word like others."""
    B, T, V = draw.integer(2, 4), 9, draw.integer(5, 7)
    mask = sft.answer_mask(draw.integers(1, 4, B), torch.tensor([9, 5, 7, 8])[:B], T)
    return 2 * draw.normal(B, T, V), draw.integers(0, V, B, T).masked_fill(~mask, NOT_ASKED)


def asked_everywhere(draw: Draw) -> tuple[Tensor, Tensor]:
    T, V = draw.sizes(2, 4, 8)
    return 2 * draw.normal(1, T, V), draw.integers(0, V, 1, T)


def asked_loud(draw: Draw) -> tuple[Tensor, Tensor]:
    logits, targets = asked(draw)
    return 100 * logits, targets


def asked_once(draw: Draw) -> tuple[Tensor, Tensor]:
    logits, targets = asked_nothing(draw)
    targets[0, 3] = draw.integer(0, 4)
    return logits, targets


def asked_nothing(draw: Draw) -> tuple[Tensor, Tensor]:
    logits, targets = asked(draw)
    return logits, torch.full_like(targets, NOT_ASKED)


# ---- answer_mask


def between(start: Callable[..., Tensor], stop: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A mask that is True from one place to before another, both worked out from (prompt_lengths, lengths, T)."""

    def mask(prompts: Tensor, lengths: Tensor, T: int) -> Tensor:
        positions = torch.arange(T)
        return (start(prompts, lengths, T)[:, None] <= positions) & (positions < stop(prompts, lengths, T)[:, None])

    return mask


def from_prompt(prompts: Tensor, _lengths: Tensor, _T: int) -> Tensor:
    return prompts


def to_length(_prompts: Tensor, lengths: Tensor, _T: int) -> Tensor:
    return lengths


def mask_by_loop(prompts: Tensor, lengths: Tensor, T: int) -> Tensor:
    mask = torch.zeros(len(prompts), T, dtype=torch.bool)
    for row, (start, stop) in enumerate(zip(prompts.tolist(), lengths.tolist(), strict=True)):
        mask[row, start:stop] = True
    return mask


def only_answers(found: Any, prompts: Tensor, lengths: Tensor, T: int) -> str | None:
    """The law of the mask: as many places as the answer has tokens, none of the prompt's, none of the padding's."""
    if found.shape != (len(prompts), T):
        return None
    for row, (start, stop) in enumerate(zip(prompts.tolist(), lengths.tolist(), strict=True)):
        true = found[row].nonzero().flatten().tolist()
        if true != list(range(start, stop)):
            return f"row {row} has a prompt of {start} and ends at {stop}, and the mask is True at {true}"
    return None


MASK = exercise(
    "answer_mask",
    reference=sft.answer_mask,
    oracle=mask_by_loop,
    requirements=[
        requires("from the prompt's end to the answer's", 1, several, law=only_answers),
        requires("a single dialogue without padding", 1, alone, law=only_answers),
        requires("no answer, nothing but an answer, a full row", 1, odd_rows, law=only_answers),
    ],
    wrong={
        "the prompt's last token too": (
            between(lambda p, n, T: p - 1, to_length),
            "One token too early: the prompt's last is in the mask. A prompt of n tokens has the places 0 to n - 1, so "
            "the answer begins at n. That the place before it is asked for it comes with the shift, later.",
        ),
        "the first answer token lost": (
            between(lambda p, n, T: p + 1, to_length),
            "The answer's first token is not in the mask: nobody would learn how to begin. The answer begins at place "
            "prompt_length, not behind it.",
        ),
        "the end lost": (
            between(from_prompt, lambda p, n, T: n - 1),
            "The last token of each answer is left out. It is the end sign: a model that never learns it talks on "
            "without end. The places run up to lengths - 1, included.",
        ),
        "one token of padding": (
            between(from_prompt, lambda p, n, T: n + 1),
            "One place behind the answer is still in the mask. A row of n tokens ends at place n - 1.",
        ),
        "padding too": (
            between(from_prompt, lambda p, n, T: torch.full_like(n, T)),
            "Everything behind the prompt is in the mask, padding included: the model would learn to write padding. "
            "`lengths` says where each row ends.",
        ),
        "the prompt too": (
            between(lambda p, n, T: torch.zeros_like(p), to_length),
            "The prompt is in the mask as well. What somebody asks is not to be learned; `prompt_lengths` says where "
            "the answer begins.",
        ),
        "the prompt instead": (
            between(lambda p, n, T: torch.zeros_like(p), from_prompt),
            "You marked the prompts. The answers are wanted: from prompt_lengths to lengths.",
        ),
        "turned round": (
            lambda p, n, T: ~mask_by_loop(p, n, T),
            "The mask is False at the answers and True elsewhere. Here True means: this token is learned.",
        ),
        "lengths of the answers alone": (
            between(from_prompt, lambda p, n, T: (p + n).clamp(max=T)),
            "You add the prompt's length to `lengths`, but it counts prompt and answer together already.",
        ),
        "shifted already": (
            between(lambda p, n, T: p - 1, lambda p, n, T: n - 1),
            "The mask is shifted by one, to the places that are *asked* for the answer. That shift comes later, with "
            "the targets; made twice it would be wrong. Here the answer's own places are meant.",
        ),
        "the first row's for all": (
            lambda p, n, T: mask_by_loop(p[:1].expand_as(p), n[:1].expand_as(n), T),
            "All rows get the places of the first. Each has its own lengths: compare (B, 1) with (T,).",
        ),
        "as wide as the longest row": (
            lambda p, n, T: mask_by_loop(p, n, int(n.max())),
            "The mask is as wide as the longest row. It should have T columns, like the batch that it is for.",
        ),
        "numbers": (
            lambda p, n, T: mask_by_loop(p, n, T).long(),
            "Zeros and ones come back. A mask is of type bool: `~mask` of a 1 is -2.",
        ),
    },
    right={
        "a loop": mask_by_loop,
        "two comparisons multiplied": lambda p, n, T: (
            (torch.arange(T).expand(len(p), T) >= p.unsqueeze(1)) * (torch.arange(T).expand(len(p), T) < n.unsqueeze(1))
        ),
        "exclusive or": lambda p, n, T: (torch.arange(T) < n[:, None]) ^ (torch.arange(T) < p[:, None]),
    },
)

# ---- answer_targets

Pair = tuple[Tensor, Tensor]


def hidden(targets: Tensor, keep: Tensor, value: int = NOT_ASKED) -> Tensor:
    return torch.where(keep, targets, value)


def in_place(ids: Tensor, answer: Tensor) -> Pair:
    targets = ids[:, 1:]
    targets[~answer[:, 1:]] = NOT_ASKED
    return ids[:, :-1], targets


def targets_by_loop(ids: Tensor, answer: Tensor) -> Pair:
    rows = []
    for row, said in zip(ids.tolist(), answer.tolist(), strict=True):
        rows.append([token if mine else NOT_ASKED for token, mine in zip(row, said, strict=True)][1:])
    return torch.stack([row[: ids.shape[1] - 1] for row in ids]), torch.tensor(rows)


def asks_for_answers(found: Any, ids: Tensor, answer: Tensor) -> str | None:
    """The law of targets: the t-th is the token at t + 1 if that is the answer's."""
    inputs, targets = found
    if inputs.shape != targets.shape or inputs.shape != (ids.shape[0], ids.shape[1] - 1):
        return (
            f"inputs {tuple(inputs.shape)}, targets {tuple(targets.shape)}: one place less than ids {tuple(ids.shape)}"
        )
    wanted = hidden(ids[:, 1:], answer[:, 1:])
    if (off := targets != wanted).any():
        row, t = off.nonzero()[0].tolist()
        then = "is the answer's" if answer[row, t + 1] else "is not the answer's"
        token, asked = int(ids[row, t + 1]), int(targets[row, t])
        return f"row {row}, place {t}: the next token, {token}, {then}, and the target is {asked}"
    return None


TARGETS = exercise(
    "answer_targets",
    reference=sft.answer_targets,
    oracle=targets_by_loop,
    requirements=[
        requires("one dialogue", 1, one_id_row, law=asks_for_answers),
        requires("a batch with padding", 1, batch_ids, law=asks_for_answers),
        requires("two answers in one dialogue", 1, two_answers, law=asks_for_answers),
    ],
    wrong={
        "not shifted": (
            lambda ids, answer: (ids[:, :-1], hidden(ids, answer)[:, :-1]),
            "Each place is asked for the very token that it reads: the loss falls to 0, and nothing is learned. The "
            "target at t is the token at t + 1.",
        ),
        "shifted twice": (
            lambda ids, answer: (ids[:, :-1], F.pad(hidden(ids, answer)[:, 2:], (0, 1), value=NOT_ASKED)),
            "Each place is asked for the token after the next one. One shift is enough.",
        ),
        "shifted backwards": (
            lambda ids, answer: (ids[:, 1:], hidden(ids, answer)[:, :-1]),
            "Inputs and targets are exchanged: each place is asked for the token *before* it.",
        ),
        "the mask not shifted": (
            lambda ids, answer: (ids[:, :-1], hidden(ids[:, 1:], answer[:, :-1])),
            "The ids are shifted, the mask is not: the answer's first token is never asked for, and a token of padding "
            "is. Ids and mask must move together.",
        ),
        "the mask turned round": (
            lambda ids, answer: (ids[:, :-1], hidden(ids[:, 1:], ~answer[:, 1:])),
            "The answers are left out and all else is learned: the mask is turned round. True marks what is learned.",
        ),
        "everything asked": (
            lambda ids, answer: (ids[:, :-1], ids[:, 1:]),
            "Prompts and padding are targets too: the mask is not used.",
        ),
        "0 for not asked": (
            lambda ids, answer: (ids[:, :-1], hidden(ids[:, 1:], answer[:, 1:], 0)),
            "Places that are not asked have the target 0, and 0 is a token: the model would learn to write it there. "
            "-100 is the number that `cross_entropy` leaves out.",
        ),
        "-1 for not asked": (
            lambda ids, answer: (ids[:, :-1], hidden(ids[:, 1:], answer[:, 1:], -1)),
            "-1 is not what torch leaves out: its `cross_entropy` knows -100.",
        ),
        "inputs hidden as well": (
            lambda ids, answer: (hidden(ids, answer)[:, :-1], hidden(ids, answer)[:, 1:]),
            "The prompt is taken out of the inputs too. It is not learned, but it must be read.",
        ),
        "only the answer read": (
            lambda ids, answer: (torch.where(answer, ids, 0)[:, :-1], hidden(ids, answer)[:, 1:]),
            "The prompt's tokens are replaced in the inputs. It is not learned, but it must be read.",
        ),
        "uncut": (
            lambda ids, answer: (ids, F.pad(hidden(ids, answer)[:, 1:], (0, 1), value=NOT_ASKED)),
            "Inputs and targets are as long as the ids. The last token has nobody behind it to be asked for: both are "
            "one place shorter.",
        ),
        "0 not asked": (
            lambda ids, answer: (ids[:, :-1], hidden(ids[:, 1:], answer[:, 1:] & (ids[:, 1:] != 0))),
            "Targets with the id 0 are left out. It may be a word like others: the mask alone says what is learned.",
        ),
        "the end not asked": (
            lambda ids, answer: (ids[:, :-1], hidden(ids[:, 1:], answer[:, 1:] & F.pad(answer[:, 2:], (0, 1)))),
            "Each answer's last token, its end, is no target: the model would never learn to stop.",
        ),
        "targets first": (
            lambda ids, answer: sft.answer_targets(ids, answer)[::-1],
            "Targets come first and inputs second: the other way round is asked for.",
        ),
        "written into ids": (
            in_place,
            "`ids[:, 1:]` is a view, no copy: the -100 are written into the ids that you were given, and so into the "
            "inputs too. `masked_fill` without the underscore makes a new tensor.",
        ),
    },
    right={
        "where": lambda ids, answer: (ids[:, :-1], torch.where(answer, ids, -100)[:, 1:]),
        "a clone written to": lambda ids, answer: (ids[:, :-1], in_place(ids.clone(), answer)[1]),
        "a loop": targets_by_loop,
    },
)

# ---- sft_loss

WIDER = "logits.to(torch.promote_types(logits.dtype, torch.float32))"
SINGLE = "the logits are of single precision where answers are graded"


def surprises(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p of each target, 0 where nothing is asked."""
    kept = targets.clamp(min=0).unsqueeze(-1)
    found = -logits.log_softmax(-1).gather(-1, kept).squeeze(-1)
    return torch.where(targets == NOT_ASKED, 0.0, found)


def count(targets: Tensor) -> Tensor:
    return (targets != NOT_ASKED).sum()


def loss_by_hand(logits: Tensor, targets: Tensor) -> Tensor:
    picked = [
        logits[b, t].logsumexp(0) - logits[b, t, targets[b, t]] for b, t in (targets != NOT_ASKED).nonzero().tolist()
    ]
    return torch.stack(picked).mean() if picked else (logits * 0).sum()


def by_row(logits: Tensor, targets: Tensor) -> Tensor:
    each = surprises(logits, targets).sum(-1) / (targets != NOT_ASKED).sum(-1).clamp(min=1)
    return each.mean()


LOSS = exercise(
    "sft_loss",
    reference=sft.sft_loss,
    oracle=loss_by_hand,
    requirements=[
        requires("every place asked, and the gradient", 1, asked_everywhere, run=with_gradients),
        requires("the mean over the answers' tokens of a batch, and the gradient", 2, asked, run=with_gradients),
        requires("large logits", 1, asked_loud),
        requires("a batch in which a single token is asked", 1, asked_once),
        requires("a batch in which nothing is asked costs 0", 1, asked_nothing),
    ],
    wrong={
        "mean over all places": (
            lambda z, y: surprises(z, y).sum() / y.numel(),
            "You divide by all places, prompts and padding included. The more of them stand in a batch, the smaller "
            "the loss and its gradient. Divide by the number of targets that are not -100.",
        ),
        "sum": (
            lambda z, y: surprises(z, y).sum(),
            "This is the sum. Then a batch of long answers takes larger steps than one of short ones; the mean over "
            "the answers' tokens is asked for.",
        ),
        "mean of the rows' means": (
            by_row,
            "You average within each answer and then over answers: a token of a short answer weighs more than one of a "
            "long answer. Here every answer token of the batch weighs the same.",
        ),
        "by rows": (
            lambda z, y: surprises(z, y).sum() / len(y),
            "You divide by the number of dialogues. It is the number of answer tokens in the batch.",
        ),
        "prompts too": (
            lambda z, y: F.cross_entropy(z.flatten(0, 1), y.clamp(min=0).flatten()),
            "Places that are not asked count as if their target were token 0. Leave out those whose target is -100.",
        ),
        "cross entropy of probabilities": (
            lambda z, y: (
                F.cross_entropy(z.softmax(-1).flatten(0, 1), y.flatten(), reduction="sum") / count(y).clamp(min=1)
            ),
            "`cross_entropy` takes logits and does the softmax itself. You hand it probabilities, so there are two "
            "softmaxes, and the loss hardly moves.",
        ),
        "log of the softmax": (
            lambda z, y: (
                torch.where(
                    y == NOT_ASKED, 0.0, -z.softmax(-1).gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1).log()
                ).sum()
                / count(y).clamp(min=1)
            ),
            "Right for small logits. For large ones a probability is rounded to 0 and its log is -∞: `log_softmax` or "
            "`cross_entropy` never form the probability.",
        ),
        "shifted again": (
            lambda z, y: surprises(z[:, :-1], y[:, 1:]).sum() / count(y[:, 1:]).clamp(min=1),
            "You shift logits against targets. That was done when the targets were made: place t of the logits is "
            "asked for place t of the targets.",
        ),
        "no minus": (
            lambda z, y: -surprises(z, y).sum() / count(y).clamp(min=1),
            "The sign is turned: training would make the right answers less likely.",
        ),
        "the probability": (
            lambda z, y: torch.where(y == NOT_ASKED, 0.0, 1 - (-surprises(z, y)).exp()).sum() / count(y).clamp(min=1),
            "This is 1 - p, not -log p. Its gradient dies out just where the model is most wrong.",
        ),
        "the raw logit": (
            lambda z, y: (
                torch.where(y == NOT_ASKED, 0.0, -z.gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)).sum()
                / count(y).clamp(min=1)
            ),
            "The target's logit alone is taken. Without the log of the sum over the vocabulary all logits could simply "
            "grow.",
        ),
        "in bits": (
            lambda z, y: sft.sft_loss(z, y) / 0.6931471805599453,
            "The logarithm is to base 2. Losses are in nats here, by the natural logarithm.",
        ),
        "NaN where nothing is asked": (
            lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten()),
            "Right but for a batch in which nothing is asked: its mean is 0 / 0 = NaN, which would spoil every weight "
            "at the next step. Sum, and divide by the number of targets, at least 1.",
        ),
        "no gradient": (
            lambda z, y: sft.sft_loss(z.detach(), y),
            "The number is right, but no gradient reaches the logits. Look for `detach`, `.item()` or `no_grad`.",
        ),
        "an eps inside the log": (
            lambda z, y: (
                -(
                    (z.softmax(-1).gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1) + 1e-9).log() * (y != NOT_ASKED)
                ).sum()
                / (y != NOT_ASKED).sum().clamp(min=1)
            ),
            "1e-9 inside the log keeps it finite and caps what a mistake can cost at 20.7. `log_softmax` needs no "
            "such help.",
        ),
    },
    right={
        "by hand": loss_by_hand,
        "log_softmax and gather": lambda z, y: surprises(z, y).sum() / count(y).clamp(min=1),
        "picked by the mask": lambda z, y: (
            F.cross_entropy(z[y != -100], y[y != -100]) if (y != -100).any() else z.sum() * 0
        ),
        "channels second": lambda z, y: F.cross_entropy(z.transpose(1, 2), y, reduction="sum") / max(1, int(count(y))),
    },
    equivalent={
        f"{WIDER} -> logits": SINGLE,
        f"{WIDER} -> logits.to()": SINGLE,
        f"{WIDER} -> logits.to(logits.dtype)": SINGLE,
        f"{WIDER} -> logits.to(torch.promote_types(torch.float32, logits.dtype))": (
            "the wider of two types is the same in either order"
        ),
        "targets.flatten().long(), -> targets.flatten(),": "targets are int64 where answers are graded",
    },
)

# ---- questions

NEVER_STOPS = question(
    "never_stops",
    "After instruction tuning a model answers well, and then goes on: it writes another request and answers that too, "
    "until it is cut off. The batches were padded with the id of <|end|>. What is the likeliest cause?",
    choices={
        "a": "The learning rate was too large for the end sign.",
        "b": "The temperature: at 0 it would stop.",
        "c": "The model is too small to count tokens.",
        "d": "The loss left out all targets that equal the padding's id, and with them every true end.",
    },
    explanations={
        "a": "Every token shares the learning rate; the end sign, which stands in every dialogue, is among the "
        "easiest to learn, if it is a target.",
        "b": "If the end was never a target, its probability is low at any temperature.",
        "c": "It need not count. In a tale the end follows a last sentence that is easy to recognise.",
        "d": "Yes, a classic. What is padding must be told by lengths or a mask, not by the id; your `answer_mask` "
        "does just this.",
    },
    answer="d",
)

EXERCISES = [MASK, TARGETS, LOSS, NEVER_STOPS]
