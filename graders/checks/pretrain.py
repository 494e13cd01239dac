"""Checks of pretraining: targets, the loss over a batch with padding, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, refusal, requires, with_dtype, with_gradients
from tinytrans.training import pretrain as P

IGNORED = -100

# ---- inputs: seed -> what the learner's function is called with


def ids(draw: Draw) -> tuple[Tensor]:
    B, T = draw.sizes(2, 3, 8)
    return (draw.integers(0, 30, B, T + 1),)


def two_ids(draw: Draw) -> tuple[Tensor]:
    return (draw.permutation(30)[None, :2],)


def padded(draw: Draw) -> tuple[Tensor, Tensor]:
    """Rows of different lengths, one of them full, one of a single id; behind the end stands anything."""
    T = draw.integer(6, 8)
    rows = draw.integers(1, 30, 4, T + 1)
    lengths = torch.tensor([T + 1, 1, 3, 5])[draw.permutation(4)]
    rows[:, 1] = 0  # a word like others
    return rows, lengths


def none_full(draw: Draw) -> tuple[Tensor, Tensor]:
    """The last columns are padding in every row."""
    rows, lengths = padded(draw)
    return rows, lengths.clamp(max=5)


def predictions(draw: Draw) -> tuple[Tensor, Tensor]:
    B, T, V = draw.sizes(3, 3, 8)
    return 2 * draw.normal(B, T, V), draw.integers(0, V, B, T)


def predictions_padded(draw: Draw) -> tuple[Tensor, Tensor]:
    """Rows of unequal numbers of targets, so that a mean of means is another number."""
    logits, targets = predictions(draw)
    T = targets.shape[1]
    lengths = torch.tensor([1, T, *[2] * (len(targets) - 2)])
    return logits, targets.masked_fill(torch.arange(T) >= lengths[:, None], IGNORED)


def no_targets(draw: Draw) -> tuple[Tensor, Tensor]:
    logits, targets = predictions(draw)
    return logits, torch.full_like(targets, IGNORED)


def certain(draw: Draw) -> tuple[Tensor, Tensor]:
    """A model that is very sure, and wrong at the one place that counts: its probability underflows."""
    logits, targets = predictions(draw)
    logits = 200 * F.one_hot(targets, logits.shape[-1]).float()
    wrong = torch.full_like(targets, IGNORED)
    wrong[1, 1] = (targets[1, 1] + 1) % logits.shape[-1]
    return logits, wrong


def halves(draw: Draw) -> tuple[Tensor, Tensor]:
    """In bfloat16, and a single position in each row."""
    logits, targets = predictions(draw)
    return logits[:, :1].bfloat16(), targets[:, :1]


def misfit(draw: Draw) -> tuple[Tensor, Tensor]:
    """A column of targets is missing."""
    logits, targets = predictions(draw)
    return logits, targets[:, 1:]


def some_loss(draw: Draw) -> tuple[float]:
    return (round(0.5 + 4 * float(draw.uniform(1)), 3),)


def bad(draw: Draw) -> tuple[float]:
    """The perplexity is far beyond what single precision holds, and a number like any other."""
    return (100.0 + draw.integer(0, 500),)


def hopeless(draw: Draw) -> tuple[float]:
    return (1000.0 + draw.integer(0, 9),)


# ---- ways to run an answer, and laws


def next_ones(found: Any, ids: Tensor, lengths: Tensor | None = None) -> str | None:
    """The law of targets: one further, -100 behind the end, and the inputs as they are."""
    if not isinstance(found, list | tuple) or len(found) != 2:
        return "two things are asked for: inputs and targets"
    inputs, targets = found
    if inputs.shape != (len(ids), ids.shape[1] - 1) or targets.shape != inputs.shape:
        return None
    if lengths is None:
        return None
    count = (targets != IGNORED).sum(1)
    if (count != lengths - 1).any():
        row = int((count != lengths - 1).nonzero()[0])
        return f"row {row} has {int(lengths[row])} ids and {int(count[row])} targets; each id but the first is one"
    return None


def must_refuse(found: Any, logits: Tensor, targets: Tensor) -> str | None:
    shapes = f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}"
    return None if found == "refused" else f"{shapes} do not fit, and there is no error: raise a ValueError"


def surprise(found: Any, _logits: Tensor, targets: Tensor) -> str | None:
    """The law of the loss: one number, not below 0."""
    loss = found[0] if isinstance(found, tuple | list) else found
    value = torch.as_tensor(loss).detach()
    if value.numel() != 1:
        return f"one number is asked for, and not a tensor of shape {tuple(value.shape)}"
    if value.isnan().any() or value.isinf().any():
        n = int((targets != IGNORED).sum())
        return f"the loss is {float(value)}; there are {n} targets"
    return "the loss is negative: log-probabilities are, surprises are not" if float(value) < -1e-6 else None


# ---- shift


def shifted(
    targets: Callable[[Tensor], Tensor] = lambda ids: ids[:, 1:],
    inputs: Callable[[Tensor], Tensor] = lambda ids: ids[:, :-1],
    end: Callable[[Tensor], Tensor] = lambda lengths: lengths,
    fill: int = IGNORED,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Targets out of parts: which ids, from where on they are left out, and what stands there."""

    def made(ids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        wanted = targets(ids)
        if lengths is not None:
            at = torch.arange(1, wanted.shape[1] + 1)
            wanted = wanted.masked_fill(at >= end(lengths)[:, None], fill)
        return inputs(ids), wanted

    return made


def by_padding_id(ids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    targets = ids[:, 1:]
    return ids[:, :-1], targets if lengths is None else targets.masked_fill(targets == 0, IGNORED)


def inputs_too(ids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    inputs, targets = P.shift(ids, lengths)
    return inputs.masked_fill(targets == IGNORED, IGNORED), targets


def in_place(ids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    if lengths is not None:
        ids[:, 1:].masked_fill_(torch.arange(1, ids.shape[1]) >= lengths[:, None], IGNORED)
    return ids[:, :-1], ids[:, 1:]


def cut_to_longest(ids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    inputs, targets = P.shift(ids, lengths)
    return (inputs, targets) if lengths is None else (inputs[:, :-1], targets[:, :-1])


def by_rows(ids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Row by row, in plain Python."""
    counts = [ids.shape[1]] * len(ids) if lengths is None else lengths.tolist()
    rows = [[*row[1:n], *[IGNORED] * (len(row) - max(n, 1))] for row, n in zip(ids.tolist(), counts, strict=True)]
    return ids[:, :-1], torch.tensor(rows)


def by_where(ids: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
    targets = ids.narrow(1, 1, ids.shape[1] - 1).clone()
    if lengths is not None:
        real = torch.arange(targets.shape[1]).expand_as(targets) < (lengths - 1).unsqueeze(1)
        targets = torch.where(real, targets, IGNORED)
    return [ids[:, : targets.shape[1]], targets]


def by_rolling(ids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    targets = ids.roll(-1, dims=1)[:, :-1]
    if lengths is not None:
        for row, n in enumerate(lengths.tolist()):
            targets[row, n - 1 :] = IGNORED
    return ids[:, :-1], targets


SHIFT = exercise(
    "shift",
    reference=P.shift,
    oracle=by_rows,
    requirements=[
        requires("every position is asked for the next id", 1, ids, law=next_ones),
        requires("a single row of two ids", 1, two_ids, law=next_ones),
        requires("nothing behind the end of a row is a target, its last id is", 2, padded, law=next_ones),
        requires("no row is full: the shapes stay", 1, none_full, law=next_ones),
    ],
    wrong={
        "not shifted": (
            shifted(targets=lambda ids: ids[:, :-1]),
            "Targets and inputs are the same ids: the model learns to repeat what it is given, and its loss falls to "
            "nothing. Position t is asked for the id at t + 1.",
        ),
        "shifted the wrong way": (
            shifted(targets=lambda ids: ids[:, :-1], inputs=lambda ids: ids[:, 1:]),
            "Position t is asked for the id *before* it, which it can see. Or have inputs and targets been exchanged?",
        ),
        "shifted twice": (
            shifted(targets=lambda ids: ids[:, 2:], inputs=lambda ids: ids[:, :-2]),
            "Position t is asked for the id at t + 2. Some libraries shift inside of their loss; here it happens once.",
        ),
        "inputs not cut": (
            shifted(inputs=lambda ids: ids),
            "The inputs still have T + 1 ids. The last one has no target.",
        ),
        "rolled round": (
            shifted(targets=lambda ids: ids.roll(-1, dims=1), inputs=lambda ids: ids),
            "`roll` brings each row's first id round to its end: the last position is asked for what the row began "
            "with.",
        ),
        "shifted along the batch": (
            shifted(targets=lambda ids: ids[1:], inputs=lambda ids: ids[:-1]),
            "You shift along the first axis: a text is asked for another text's ids. Positions are the second axis.",
        ),
        "the end is no target": (
            shifted(end=lambda lengths: lengths - 1),
            "The last real id of a row is left out. It is often the end token: a model that is never asked for it does "
            "not learn to stop.",
        ),
        "the first padding is a target": (
            shifted(end=lambda lengths: lengths + 1),
            "One padding id too many is a target: the model learns to say padding behind the end.",
        ),
        "lengths ignored": (
            shifted(end=lambda lengths: lengths + 10_000),
            "The lengths are accepted and not used: the model is asked for padding.",
        ),
        "by the padding's id": (
            by_padding_id,
            "You leave out every target with the id 0. It may stand in the text as well (and where padding and end "
            "token are one id, the model would never learn to stop). Go by the lengths.",
        ),
        "0 instead of -100": (
            shifted(fill=0),
            "Padding's targets become 0, and that is a token like others: the model learns to say it. -100 is what the "
            "loss leaves out.",
        ),
        "-1 instead of -100": (
            shifted(fill=-1),
            "Padding's targets become -1, which torch's loss takes for an error. -100 is what it leaves out.",
        ),
        "inputs left out too": (
            inputs_too,
            "The inputs have become -100 as well: no embedding has such a row. Only targets are left out.",
        ),
        "in place": (
            in_place,
            "You write into the caller's ids: inputs and targets are views of the same memory. `masked_fill` "
            "without an "
            "underscore makes a copy.",
        ),
        "cut by one more": (
            cut_to_longest,
            "With lengths, a column is lost. T inputs and T targets are asked for.",
        ),
        "cut to the longest": (
            lambda ids, lengths=None: tuple(
                x if lengths is None else x[:, : int(lengths.max()) - 1] for x in P.shift(ids, lengths)
            ),
            "Right numbers, and columns are missing: you cut to the longest row. The shape stays (B, T), whatever the"
            " lengths.",
        ),
    },
    right={"row by row": by_rows, "by where": by_where, "by rolling": by_rolling},
    equivalent={
        "ids.shape[1], -> ids.shape[-1],": "the last of two axes is the second",
    },
)

# ---- next_token_loss

WIDER = "logits.to(torch.promote_types(logits.dtype, torch.float32))"


def averaged(
    surprises: Callable[[Tensor, Tensor], Tensor], mean: Callable[[Tensor, Tensor], Tensor]
) -> Callable[..., Any]:
    """A loss out of parts: the surprise at each place (B, T), and how it is averaged over what is real."""

    def made(logits: Tensor, targets: Tensor) -> Tensor:
        if logits.shape[:-1] != targets.shape:
            raise ValueError(f"{tuple(logits.shape)} and {tuple(targets.shape)}")
        real = targets != IGNORED
        return mean(surprises(logits.float(), targets.clamp(min=0)), real)

    return made


def right_surprise(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def right_mean(surprises: Tensor, real: Tensor) -> Tensor:
    return (surprises * real).sum() / real.sum().clamp(min=1)


def of(surprises: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    return averaged(surprises, right_mean)


def by(mean: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    return averaged(right_surprise, mean)


def again_softmaxed(logits: Tensor, targets: Tensor) -> Tensor:
    return right_surprise(logits.softmax(-1), targets)


def shifted_again(logits: Tensor, targets: Tensor) -> Tensor:
    if logits.shape[:-1] != targets.shape:
        raise ValueError
    return P.next_token_loss(logits[:, :-1], targets[:, 1:])


def wrongly_viewed(logits: Tensor, targets: Tensor) -> Tensor:
    """The axes swapped and then viewed back: every number elsewhere."""
    B, T, V = logits.shape
    return right_surprise(logits.transpose(1, 2).reshape(B, T, V), targets)


def fused(logits: Tensor, targets: Tensor) -> Tensor:
    total = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="sum", ignore_index=IGNORED)
    return total / max(int((targets != IGNORED).sum()), 1)


def by_channels(logits: Tensor, targets: Tensor) -> Tensor:
    """torch's own layout, classes on the second axis."""
    each = F.cross_entropy(logits.float().movedim(-1, 1), targets, reduction="none")
    return each.sum() / (targets >= 0).sum().clamp(min=1)


def selected(logits: Tensor, targets: Tensor) -> Tensor:
    """Only the real places, taken out first."""
    if logits.shape[:-1] != targets.shape:
        raise ValueError
    real = targets != IGNORED
    logits, chosen = logits[real].float(), targets[real]
    each = torch.logsumexp(logits, dim=-1) - logits[torch.arange(len(chosen)), chosen]
    return each.mean() if len(chosen) else each.sum()


def zero_free(surprises: Tensor, real: Tensor) -> Tensor:
    return (surprises * real).sum() / real.sum()


LOSS = exercise(
    "next_token_loss",
    reference=P.next_token_loss,
    oracle=fused,
    requirements=[
        requires("the mean over all targets, and the gradient", 2, predictions, run=with_gradients, law=surprise),
        requires("targets of -100 do not count", 2, predictions_padded, run=with_gradients, law=surprise),
        requires("a sure and wrong prediction costs much, but not infinity", 1, certain, law=surprise),
        requires("without any target the loss is 0", 1, no_targets, law=surprise),
        requires("half-precision logits give a loss in single precision", 1, halves, run=with_dtype),
        requires("shapes that do not fit are refused", 1, misfit, run=refusal, law=must_refuse),
    ],
    wrong={
        "a softmax too many": (
            of(again_softmaxed),
            "Two softmaxes: the second one sees numbers between 0 and 1 and makes them nearly equal. The loss cannot "
            "fall far, and learning crawls.",
        ),
        "over the positions": (
            of(lambda logits, targets: -logits.log_softmax(1).gather(-1, targets[..., None])[..., 0]),
            "The softmax goes over the positions. Each position is a distribution over the vocabulary: the last axis.",
        ),
        "the probability itself": (
            of(lambda logits, targets: 1 - logits.softmax(-1).gather(-1, targets[..., None])[..., 0]),
            "You use 1 - p. A surprise is -log p: it grows without bound as p goes to 0, and so does its gradient.",
        ),
        "the sign": (
            of(lambda logits, targets: -right_surprise(logits, targets)),
            "The sign is wrong: minimising this makes the right tokens *less* likely.",
        ),
        "bits": (
            of(lambda logits, targets: right_surprise(logits, targets) / math.log(2)),
            "These are bits (the logarithm to base 2); nats are asked for, with the natural logarithm.",
        ),
        "the log of a rounded probability": (
            of(lambda logits, targets: -(logits.softmax(-1).gather(-1, targets[..., None])[..., 0]).log()),
            "Softmax first and log then: where a probability underflows to 0 the loss is infinite. `log_softmax` does "
            "both at once.",
        ),
        "a small number in the log": (
            of(lambda logits, targets: -(logits.softmax(-1).gather(-1, targets[..., None])[..., 0] + 1e-9).log()),
            "The 1e-9 saves you from infinity, but bounds the surprise at 20.7, and there the gradient is gone. "
            "`log_softmax` needs no such help.",
        ),
        "the logit alone": (
            of(lambda logits, targets: -logits.gather(-1, targets[..., None])[..., 0]),
            "You take the logit as it is. Without the softmax the model could raise all logits alike.",
        ),
        "axes mixed up": (
            of(wrongly_viewed),
            "A transpose followed by a reshape to the old shape mixes positions and vocabulary. Flatten (B, T, V) to "
            "(B T, V) directly.",
        ),
        "a sum": (
            by(lambda surprises, real: (surprises * real).sum()),
            "That is the sum. Divide by the number of targets: else the loss, and the gradient, grow with the batch.",
        ),
        "over padding as well": (
            by(lambda surprises, real: (surprises * real).sum() / real.numel()),
            "Padding costs nothing, and yet you divide by all positions: a batch with much padding seems to be easy. "
            "Divide by the number of real targets.",
        ),
        "padding is a target": (
            by(lambda surprises, _real: surprises.mean()),
            "Targets of -100 are taken for the token 0. They do not count.",
        ),
        "a mean of means": (
            by(lambda surprises, real: ((surprises * real).sum(-1) / real.sum(-1).clamp(min=1)).mean()),
            "You average each row and then the rows: a token of a short text weighs more than one of a long text. "
            "Every "
            "target weighs the same.",
        ),
        "by the number of rows": (
            by(lambda surprises, real: (surprises * real).sum() / len(real)),
            "You divide by the number of rows. It is the number of targets.",
        ),
        "not averaged": (
            by(lambda surprises, real: surprises * real),
            "That is the loss of each position. One number is asked for: their mean.",
        ),
        "the last position alone": (
            lambda logits, targets: P.next_token_loss(logits[:, -1:], targets[:, -1:]),
            "Only the last position counts, as in generation. In training every position has its target.",
        ),
        "shifted again": (
            shifted_again,
            "You shift once more. The targets that come in are those of these logits.",
        ),
        "0 / 0": (
            by(zero_free),
            "Right, unless a batch has no target at all: 0 / 0 is NaN, and one NaN in a gradient ruins all weights.",
        ),
        "perplexity": (
            by(lambda surprises, real: right_mean(surprises, real).exp()),
            "That is the perplexity, exp of the loss.",
        ),
        "no gradient": (
            by(lambda surprises, real: right_mean(surprises, real).detach()),
            "The value is right, and no gradient flows back. Look for `detach`, `.item()` or `.data`.",
        ),
        "softmax over the positions": (
            lambda z, y: P.next_token_loss(z.log_softmax(1), y),
            "The logits are normalised over the positions (axis 1) first. A distribution runs over the vocabulary, "
            "the last axis.",
        ),
    },
    right={"torch's kernel": fused, "classes on the second axis": by_channels, "only the real places": selected},
    equivalent={
        "0).unsqueeze(-1)).squeeze(-1) -> 1).unsqueeze(-1)).squeeze(-1)": "any id will do where nothing counts",
        f"{WIDER} -> logits.to(torch.promote_types(torch.float32, logits.dtype))": (
            "the wider of two types is the same in either order"
        ),
    },
)

# ---- perplexity


PERPLEXITY = exercise(
    "perplexity",
    reference=P.perplexity,
    oracle=lambda loss: float(torch.tensor(loss, dtype=torch.float64).exp()),
    requirements=[
        requires("exp of the loss", 1, some_loss),
        requires("a bad loss is a number like any other", 1, bad),
        requires("a hopeless loss gives infinity, and no error", 1, hopeless),
    ],
    wrong={
        "two to the loss": (
            lambda loss: 2.0**loss,
            "2 to the loss is right for a loss in bits. Ours is in nats: e to the loss.",
        ),
        "ten to the loss": (lambda loss: 10.0**loss if loss < 300 else math.inf, "The base is e, as in the loss."),
        "the inverse": (
            lambda loss: math.exp(-loss),
            "exp(-loss) is the (geometric) mean probability of a token. The perplexity is one over that.",
        ),
        "the loss itself": (lambda loss: loss, "That is the loss. The perplexity is e to the loss."),
        "one less": (
            lambda loss: math.expm1(loss) if loss < 700 else math.inf,
            "One is missing: a model that is always right has the perplexity 1.",
        ),
        "a whole number": (
            lambda loss: round(math.exp(loss)) if loss < 700 else math.inf,
            "Rounded to a whole number. Between how many tokens a model is torn need not be whole.",
        ),
        "an error": (
            math.exp,
            "Right, but `math.exp` raises an error above 709: a run that goes astray would die in its evaluation. "
            "Infinity is what it is.",
        ),
        "infinite too soon": (
            lambda loss: math.exp(loss) if loss < 88 else math.inf,
            "Right for small losses; yours is infinite where exp(loss) is not: a Python float bears a little over 709, "
            "a tensor in single precision 88.",
        ),
        "a bound": (
            lambda loss: math.exp(min(loss, 100.0)),
            "Bounded: a hopeless model seems to have a finite perplexity. Return infinity.",
        ),
    },
    right={
        "by torch": lambda loss: torch.tensor(loss, dtype=torch.float64).exp().item(),
        "by a try": lambda loss: float(torch.exp(torch.as_tensor(loss).double())),
        "a power of e": lambda loss: math.e**loss if loss < 709 else float("inf"),
    },
    equivalent={
        "700 -> 699": "exp is finite up to 709, so the border may lie anywhere near",
        "700 -> 701": "exp is finite up to 709, so the border may lie anywhere near",
        "< -> <=": "exp is finite up to 709, so the border may lie anywhere near",
    },
)

# ---- questions

IN_PARALLEL = question(
    "in_parallel",
    "In training a GPT predicts all T next tokens of a text in one pass; when it writes, it needs one pass for every "
    "token. Why can't it write in one pass, too?",
    choices={
        "a": "Because in training the right tokens are all there: position t reads the true tokens up to t. When it "
        "writes, token t + 1 must be chosen before anybody can read it.",
        "b": "Because the causal mask is removed at inference, and without it the positions depend on each other.",
        "c": "It could, but sampling needs random numbers, and these come one after the other.",
        "d": "Because training runs on many texts at once and generation on one.",
    },
    explanations={
        "a": "Yes. That the true past is put in, whatever the model would have said, is called teacher forcing. The "
        "mask "
        "makes the T predictions honest though the answers stand in the same row.",
        "b": "The mask stays (lesson 10). And it is the mask that makes parallel training possible.",
        "c": "A computer can draw any number of random numbers at once. But the distribution of token t + 1 is not "
        "known "
        "before token t is.",
        "d": "Generation can be done for a whole batch as well; each of its rows still goes step by step.",
    },
    answer="a",
)

USE_OF_A_GPT = question(
    "use_of_a_gpt",
    "A base model has learned nothing but to continue texts. Which of these ways to use it change its weights?",
    choices={
        "a": "All three: prompting, examples in the context, and fine-tuning teach it something.",
        "b": "Only fine-tuning. A prompt, and a few solved examples in front of the question, only change the text "
        "that it continues.",
        "c": "Examples in the context and fine-tuning; a plain prompt does not.",
        "d": "None. After pretraining the weights are fixed for good.",
    },
    explanations={
        "a": "A prompt and the examples in it pass through the model as any other text does. When the answer is out, "
        "nothing of it stays.",
        "b": "Yes. With examples in the context (Brown et al. 2020 call it few-shot learning) the model infers the "
        "task from "
        "the text and goes on in the same way. Fine-tuning continues the training on other texts; lesson 12 does that.",
        "c": "It is called in-context *learning*, but no gradient is computed: the examples act through attention, "
        "as long "
        "as they stand in the context.",
        "d": "They can be trained further at any time, all of them or a few (lesson 12).",
    },
    answer="b",
)

FIRST_LOSS = question(
    "first_loss",
    "Three runs of a GPT with V = 2048 begin. Run A starts at a loss of 7.6, run B at 31, run C at 7.6 as well but "
    "is at "
    "0.01 after 100 steps. What do you say?",
    choices={
        "a": "C is the best one, B needs patience.",
        "b": "A is as it should be (ln 2048 = 7.62: it knows nothing). B is worse than knowing nothing: its logits "
        "are too "
        "large at birth. C sees its answers: look at the mask and at the shift of the targets.",
        "c": "All are fine; first losses depend on chance.",
        "d": "A and C are broken, because a fresh model cannot have exactly the same loss twice.",
    },
    explanations={
        "a": "A loss near 0 on stories in which names and colours are drawn at random is impossible without cheating.",
        "b": "Yes. Guessing evenly costs ln V, whatever the data. It is the cheapest test there is of a new model, "
        "and a "
        "loss that is too good is the symptom of a leak.",
        "c": "Chance moves the first loss by hundredths, not by factors.",
        "d": "Every fresh model spreads its probability nearly evenly, so its loss is nearly ln V.",
    },
    answer="b",
)

EXERCISES = [SHIFT, LOSS, PERPLEXITY, IN_PARALLEL, USE_OF_A_GPT, FIRST_LOSS]
