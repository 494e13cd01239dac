"""Board: the records of a run -> curves in TensorBoard, beside the JSONL log or instead of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinytrans.training.journal import Record


def tensorboard(folder: str | Path) -> Callable[[Record], None]:
    """A `watch` for `fit`: every number of a record becomes a point at its step, for `tensorboard --logdir FOLDER`.

    A resumed run goes on with the curves: what stands there from its first step on is drawn anew. Raises ImportError
    where the package tensorboard is not installed; nothing else here needs it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("curves in TensorBoard need its package: pip install tensorboard") from error
    writers: list[Any] = []

    def watch(record: Record) -> None:
        step = int(record["step"])
        if not writers:
            writers.append(SummaryWriter(str(folder), purge_step=step))
        for name, value in record.items():
            if name != "step":
                writers[0].add_scalar(name, value, step)
        writers[0].flush()

    return watch
