"""Runs: model, optimiser and history -> a checkpoint, and a checkpoint -> the run that goes on as if never ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from tinytrans.training import checkpoint as checkpoints
from tinytrans.training import ranks, shards
from tinytrans.training.journal import History


class Stepper(Protocol):
    """What the loop asks of an optimiser; torch's have it, and so have `Optimizers`."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...
    def step(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


def begin(
    model: nn.Module, optimizer: Stepper, checkpoint: str | Path | None, resume: bool, generator: torch.Generator | None
) -> tuple[History, list[float]]:
    """A run's history and learning rates: empty and the optimiser's own, or all as in the checkpoint."""
    if checkpoint is not None and Path(checkpoint).is_dir():
        raise IsADirectoryError(f"{checkpoint} is a folder, and a checkpoint is a file: {checkpoint}/run.safetensors")
    found = ranks.gather(checkpoint is not None and Path(checkpoint).exists())[0]  # one answer for all processes
    if checkpoint is None or not found:
        if not shards.sharded(model):
            ranks.same_start(model)
        return History(), [float(group["lr"]) for group in optimizer.param_groups]
    if not resume:
        raise FileExistsError(
            f"{checkpoint} holds a run already: resume=True goes on with it, another name begins anew"
        )
    state = checkpoints.load(checkpoint)
    if missing := {"model", "optimizer", "history", "chances", "rates"} - state.keys():
        raise checkpoints.CheckpointError(f"{checkpoint} is of no run of fit: it lacks {', '.join(sorted(missing))}")
    try:
        history, rates = History.restore(state["history"]), [float(rate) for rate in state["rates"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise checkpoints.CheckpointError(f"{checkpoint} holds no history: {type(error).__name__} {error}") from error
    checkpoints.load_weights(model, state["model"], checkpoint)
    settings = [set(group) for group in optimizer.param_groups]
    try:
        shards.take_state(optimizer, state["optimizer"])
        for wanted, group in zip(settings, optimizer.param_groups, strict=True):
            if missing := wanted - set(group):
                raise ValueError(f"it has no {', '.join(sorted(missing))}")
        if len(rates) != len(settings):
            raise ValueError(f"it has {len(rates)} learning rates for {len(settings)} groups of parameters")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        kind = type(optimizer).__name__
        raise checkpoints.CheckpointError(f"{checkpoint} is of another optimiser than this {kind}: {error}") from error
    if ranks.rank() < len(state["chances"]):  # of more processes than before, the new ones keep their own chance
        own = state["chances"][ranks.rank()]
        try:
            checkpoints.restore_chance(own["global"])
            if generator is not None:
                generator.set_state(own["generator"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise checkpoints.CheckpointError(f"{checkpoint} holds no state of chance: {error}") from error
    return history, rates


def save(
    path: str | Path,
    model: nn.Module,
    optimizer: Stepper,
    history: History,
    rates: list[float],
    generator: torch.Generator | None,
) -> None:
    """All that a run needs to go on becomes the file `path`, written by the first of the processes that share it."""
    state: dict[str, Any] = {
        "model": shards.whole(model.state_dict()),
        "optimizer": shards.whole(optimizer.state_dict()),
        "history": history.state(),
    }
    generated = None if generator is None else generator.get_state()
    chances = ranks.gather({"global": checkpoints.chance(), "generator": generated})
    if ranks.rank() == 0:
        checkpoints.save(path, state | {"chances": chances, "rates": rates})
    ranks.gather(None)  # nobody goes on before the file is whole: the next may look for it
