"""The one training loop: a model, batches and a loss -> a trained model and its History.

A phase brings its loss and its batches; gradients, schedule, evaluation, checkpoints and the log are here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinytrans.device import autocast, pick
from tinytrans.interrupt import held
from tinytrans.training import ranks, runs, shards
from tinytrans.training.display import READ_EVERY, Display
from tinytrans.training.feed import Batches, draw, to_device
from tinytrans.training.journal import History, Record, append_record, ready
from tinytrans.training.runs import Stepper

Loss = Callable[[nn.Module, Any], Tensor | tuple[Tensor, Tensor | int]]


def fit(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    steps: int,
    optimizer: Stepper,
    schedule: Callable[[int], float] | None = None,
    clip: float | None = 1.0,
    accumulate: int = 1,
    evaluate: Callable[[nn.Module], Record] | None = None,
    every: int = 100,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    log: str | Path | None = None,
    watch: Callable[[Record], None] | None = None,
    device: torch.device | str | None = None,
    compile: bool = False,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> History:
    """The model is trained in place until `steps` steps are done, those before a resume included; -> what happened.

    batches     a function or a list of the batch's number, or an iterable: see `tinytrans.training.feed.draw`.
    loss        (model, batch) -> a mean; or -> (sum, count): then the `accumulate` batches of a step weigh by count,
                as one large batch would.
    schedule    step -> factor of the optimiser's learning rates, which are themselves again afterwards.
    clip        the largest norm of all gradients together (Pascanu et al. 2013, arXiv 1211.5063), or None.
    evaluate    model -> numbers for the record, in eval mode without gradients, every `every` steps and at the end.
    checkpoint  a file written every `every` steps, at the end and at Ctrl-C; with `resume` the run goes on from it.
    log         a JSONL file that gets each record (`tinytrans.training.journal.History`).
    watch       is given each record too, as it is made: `tinytrans.training.board.tensorboard(folder)`, for one.
    device      where the model goes first, or None. Batches follow the model; CUDA computes under bfloat16 autocast.
    compile     whether `model(...)` is fused by torch.compile while the run lasts: its parameters keep their names,
                so a checkpoint fits the model with and without it.
    generator   the loss's own source of chance, if it has one; the checkpoint keeps it beside the global ones.

    Under `torchrun`, within `ranks.joined()`, the processes share the work: each step takes `accumulate` batches for
    each of them, in turn, and is that of one process which accumulates them all. The first begins with its weights for
    all, and it alone shows, logs and saves; all evaluate. Each has the whole model, unless that is a `shards.shard`.

    Ctrl-C ends the run after the step in progress (`History.interrupted`), a second one at once. Raises
    FloatingPointError at a loss that is not finite, FileExistsError at a checkpoint without `resume`.
    """
    if steps < 0:
        raise ValueError(f"steps {steps} counts from 0")
    if min(accumulate, every) < 1:
        raise ValueError(f"accumulate and every count from 1, not {accumulate} and {every}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip {clip} is not positive: no gradient would be left")
    if device is not None:
        model.to(pick(device))
    _check_optimizer(model, optimizer)
    if log is not None and ranks.rank() == 0:
        ready(log)
    history, rates = runs.begin(model, optimizer, checkpoint, resume, generator)
    stream = draw(batches, history.steps * accumulate * ranks.size() + ranks.rank(), ranks.size())
    pending: list[tuple[Tensor, Tensor]] = []
    model.train()
    first = ranks.rank() == 0
    weights = list(model.parameters())  # walked once: a step of a small model is short
    with held() as asked, _compiled(model, compile), Display(history, steps, progress and first) as display:
        try:
            for step in range(history.steps, steps):
                _set_rates(optimizer, rates, 1.0 if schedule is None else schedule(step))
                some = islice(stream, accumulate)
                pending.append(gradient(model, some, loss, weights=weights, check=step == history.steps))
                if clip is not None:
                    shorten(weights, clip)
                optimizer.step()
                due = (step + 1) % every == 0 or step + 1 == steps
                look = due or len(pending) == READ_EVERY
                history.interrupted = step + 1 < steps and _agreed(asked, look)
                due = due or history.interrupted
                if due or look:
                    history.read(pending)
                lr = float(optimizer.param_groups[0]["lr"])
                display.update(lr)
                if due:
                    record = display.record(lr)
                    if evaluate is not None and not history.interrupted:
                        with evaluating(model):
                            record |= {name: float(number) for name, number in evaluate(model).items()}
                    history.records.append(record)
                    if log is not None and first:
                        append_record(log, record)
                    if watch is not None and first:
                        watch(record)
                    if checkpoint is not None:
                        runs.save(checkpoint, model, optimizer, history, rates, generator)
                if history.interrupted:
                    break
        finally:
            _set_rates(optimizer, rates, 1.0)
    return history


def pooled(means: Tensor, counts: Tensor) -> Tensor:
    """Means over batches of unequal size -> that over all tokens: means (n, ...), counts (n,) -> (...).

    Losses or gradients, each the mean over its own counts[i] targets. Without any target it is 0.

    >>> pooled(torch.tensor([1.0, 5.0]), torch.tensor([3, 1]))
    tensor(2.)
    """
    weights = counts / counts.sum().clamp(min=1)
    return torch.einsum("n,n...->...", weights.to(means.dtype), means)


def gradient(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    weights: Sequence[nn.Parameter] | None = None,
    check: bool = False,
) -> tuple[Tensor, Tensor]:
    """Every `.grad` becomes that of the mean loss over all batches taken as one: -> (mean loss, count), shapes ().

    The sums are differentiated one after the other, all in the same unit, the first count, and brought to the common
    count at the end: divided each by its own, a token of a short batch would weigh more. A loss that gives a mean alone
    counts 1 a batch. Where several processes train together, sums and counts are those of all, and the unit is 1;
    `check` makes sure that all reach the same parameters. `weights` are the model's parameters, for who has them.
    """
    weights = list(model.parameters()) if weights is None else weights
    for weight in weights:
        weight.grad = None
    device = weights[0].device
    total = torch.zeros((), device=device)
    count = torch.zeros((), device=device)
    unit, done = torch.ones((), device=device), 0
    for done, batch in enumerate(batches, start=1):
        with autocast(device):
            value = loss(model, to_device(batch, device))
        part, number = value if isinstance(value, tuple) else (value, 1)
        if not isinstance(part, Tensor) or part.shape != ():
            what = f"has shape {tuple(part.shape)}" if isinstance(part, Tensor) else f"is a {type(part).__name__}"
            raise ValueError(f"the loss {what}, not a tensor of shape (): a mean, or a sum and its count")
        if not part.requires_grad:
            raise ValueError(f"the loss depends on no trainable parameter of this {type(model).__name__}")
        total = total + part.detach()
        count = count + number
        if done == 1 and ranks.size() == 1:
            unit = count.clamp(min=1)
        (part / unit).backward()
    if ranks.size() > 1:
        if check:
            ranks.same_parts(model)
        shards.sum_gradients(model, [total, count])
    count = count.clamp(min=1)  # a batch of nothing but padding teaches nothing: gradient 0, not 0 / 0
    several = done > 1 or ranks.size() > 1  # one batch alone is in its own unit already
    if several and (gradients := [weight.grad for weight in weights if weight.grad is not None]):
        torch._foreach_mul_(gradients, unit / count)
    return total / count, count


def shorten(weights: Sequence[nn.Parameter], longest: float) -> None:
    """Where all `.grad` together, as one vector, are longer than `longest`, they are shortened to it.

    What is short enough is not touched, except where to ask would make a GPU or other processes wait: there it is
    multiplied by 1. Source: Pascanu et al. 2013, arXiv 1211.5063.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if norm.device.type != "cpu" or ranks.size() > 1 or not norm + 1e-6 <= longest:  # torch's own 1e-6, and NaN
        nn.utils.clip_grads_with_norm_(weights, longest, norm)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within, the model is in eval mode and records no gradients; afterwards each module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _check_optimizer(model: nn.Module, optimizer: Stepper) -> None:
    """Raise ValueError where the optimiser moves none of the model's parameters: it would train, and learn nothing."""
    moved = {id(weight) for group in optimizer.param_groups for weight in group.get("params", ())}
    if moved and not moved & {id(weight) for weight in model.parameters()}:
        raise ValueError(
            f"the optimiser moves {len(moved)} tensors, none of which is a parameter of this {type(model).__name__}: "
            "make it of this model, after whatever replaces its parameters"
        )


def _agreed(asked: Callable[[], bool], look: bool) -> bool:
    """Whether to stop: at once for a process alone; of several all stop at the same step, when losses are read."""
    return asked() if ranks.size() == 1 else look and any(ranks.gather(asked()))


def _set_rates(optimizer: Stepper, rates: list[float], factor: float) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


@contextmanager
def _compiled(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Within, calling the model runs what torch.compile made of it, if wanted; afterwards it is called as before."""
    before = model._compiled_call_impl
    if wanted:
        model.compile(dynamic=True)  # the same kernels whichever length comes first: a resumed run has the same losses
    try:
        yield
    finally:
        model._compiled_call_impl = before
