"""Pretraining: ids -> the loss of predicting each next token, and a base model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.device import autocast
from tinytrans.training.feed import Batches, to_device
from tinytrans.training.journal import History, Record
from tinytrans.training.loop import evaluating, fit
from tinytrans.training.optim import muon, wsd

IGNORED = -100  # a target that no position has to predict: padding, a prompt; torch's own default
Batch = (  # ids, targets, mask, positions
    tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None] | tuple[Tensor, Tensor, Tensor | None, Tensor | None]
)


def shift(ids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Every position is asked for the token after it: ids (B, T + 1) -> inputs (B, T), targets (B, T).

    With lengths (B,), how many ids of each row are real, targets past the end are -100, which the loss
    leaves out. The padding's id could not tell: where it is also the end token, the end stays a target.

    >>> shift(torch.tensor([[5, 6, 7, 0]]), torch.tensor([3]))
    (tensor([[5, 6, 7]]), tensor([[   6,    7, -100]]))
    """
    inputs, targets = ids[:, :-1], ids[:, 1:]
    if lengths is not None:
        positions = torch.arange(1, ids.shape[1], device=ids.device)
        targets = targets.masked_fill(positions >= lengths[:, None], -100)
    return inputs, targets


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """How surprised the model is: logits (B, T, V), targets (B, T) -> the mean of -log p(target), scalar.

    In nats. Targets of -100 do not count. A model that knows nothing scores ln V; without any target
    the loss is 0. Raises ValueError where the shapes disagree.

    >>> round(next_token_loss(torch.zeros(1, 2, 10), torch.tensor([[3, -100]])).item(), 4)  # ln 10
    2.3026
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} want targets {tuple(logits.shape[:-1])}, not {tuple(targets.shape)}"
        )
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half would round small surprises to 0
    real = targets != -100
    surprise = -exact.log_softmax(dim=-1).gather(-1, targets.masked_fill(~real, 0).unsqueeze(-1)).squeeze(-1)  # (B, T)
    return surprise.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)


def next_token_sum(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same surprise as a sum, and the number of targets in it, by which batches of unequal size weigh.

    From one fused kernel: what `fit` differentiates. Raises ValueError where the shapes disagree, and for a target that
    is none of the V (`cross_entropy`).
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} want targets {tuple(logits.shape[:-1])}, not {tuple(targets.shape)}"
        )
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half would lose the sum's small parts
    return cross_entropy(exact.flatten(0, -2), targets.flatten().long(), reduction="sum"), (targets != IGNORED).sum()


def cross_entropy(logits: Tensor, targets: Tensor, *, reduction: str, what: str = "vocabulary") -> Tensor:
    """torch's cross-entropy: logits (N, V), targets (N,) -> -log p(target) of each, (N,), or their sum or mean, ().

    `reduction` is "none", "sum" or "mean"; targets of -100 do not count. Raises ValueError, naming both numbers, for a
    target that is none of V; on a GPU, which would have to wait for the answer, torch ends the process.

    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([3, -100]), reduction="none").exp()
    tensor([4., 1.])
    """
    try:
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction=reduction)
    except IndexError as error:  # asked only now: looking at the targets of each step takes time
        V = logits.shape[-1]
        wrong = targets[(targets != IGNORED) & ((targets < 0) | (targets >= V))]
        raise ValueError(f"target {int(wrong[0])} is outside the {what} of {V}") from error


def language_model_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """What `fit` differentiates in pretraining: (ids, targets), mask and positions behind -> (sum, number) of targets.

    Mask and positions may be None or left out; a packed batch has both.
    """
    ids, targets, *others = batch
    given = {name: part for name, part in zip(("mask", "positions"), others, strict=False) if part is not None}
    return next_token_sum(model(ids, **given), targets)


def perplexity(loss: float) -> float:
    """How many equally likely tokens a model is torn between: a mean loss in nats -> exp(loss).

    It is 1 at best and about V at first.

    >>> round(perplexity(math.log(50)), 6)
    50.0
    """
    return math.exp(loss) if loss < 700 else math.inf  # exp(710) is past the largest float


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], tuple[Tensor, Tensor]] = language_model_loss,
) -> Record:
    """A fixed set of batches -> {"validation": mean loss, "perplexity": its exp}, each token weighing the same.

    In eval mode and without gradients; the model is left in the mode it was in.
    Raises ValueError where the batches hold no target.
    """
    device = next(model.parameters()).device
    totals, counts = [], []
    with evaluating(model), autocast(device):
        for batch in batches:
            total, count = loss(model, to_device(batch, device))
            totals.append(total.double())
            counts.append(count)
    number = int(sum(counts))
    if number == 0:
        raise ValueError(f"{len(counts)} batches hold no target to evaluate on")
    mean = float(sum(totals)) / number
    return {"validation": mean, "perplexity": perplexity(mean)}


def pretrain(
    model: nn.Module,
    batches: Batches,
    *,
    steps: int,
    validation: Iterable[Batch] | None = None,
    lr: float = 0.03,
    adamw_lr: float = 6e-3,
    momentum: float = 0.95,
    warmup: int = 15,
    stable: float = 0.4,
    **options: Any,
) -> History:
    """`fit` with the recipe that makes a small model fluent soon: Muon beside AdamW, a short warm-up, a long fall.

    `stable` is the share of the steps before the fall, `momentum` Muon's: over a few hundred steps 0.9 learns more.
    Other options are those of `fit`. The rates suit a model whose queries, keys and embeddings are normalised and whose
    output projections begin at zero, as in the preset "tales".
    """
    return fit(
        model,
        batches,
        language_model_loss,
        steps=steps,
        optimizer=muon(model, lr, adamw_lr, betas=(0.9, 0.99), momentum=momentum, iterations=4),
        schedule=partial(wsd, warmup=warmup, total=steps, decay=max(1, round((1 - stable) * steps))),
        evaluate=None if validation is None else partial(evaluate, batches=validation),
        **options,
    )
