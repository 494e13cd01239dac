"""What a run leaves to read: losses as they come -> a History, records -> lines of a JSONL file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Record = dict[str, float]


@dataclass
class History:
    """A run so far: loss and tokens of each step, a record now and then, and how many tokens were seen in all.

    A record is a dict: step, loss (the mean since the last record), lr, tokens, seconds, and what `evaluate` said.
    """

    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    seen: int = 0
    interrupted: bool = False

    @property
    def steps(self) -> int:
        """How many steps are done and read."""
        return len(self.losses)

    @property
    def seconds(self) -> float:
        """How long the run took up to its last record, over all its resumptions."""
        return self.records[-1]["seconds"] if self.records else 0.0

    def column(self, name: str) -> list[float]:
        """One name's values over the records that have it: `plot(history.column("step"), history.column("loss"))`."""
        return [record[name] for record in self.records if name in record]

    def read(self, pending: list[tuple[Tensor, Tensor]]) -> None:
        """The pending (mean loss, tokens) of the last steps become numbers, with one wait for the device for all.

        Raises FloatingPointError at the first loss that is not finite.
        """
        if not pending:
            return
        losses = torch.stack([loss.double() for loss, _ in pending]).tolist()
        tokens = torch.stack([count for _, count in pending]).tolist()
        pending.clear()
        for loss, count in zip(losses, tokens, strict=True):
            if not math.isfinite(loss):
                last = (
                    f"the last finite one was {self.losses[-1]:.4g}"
                    if self.losses
                    else "there was no finite one before"
                )
                advice = "try a lower learning rate, a longer warm-up or clipping"
                raise FloatingPointError(f"the loss is {loss} at step {self.steps}; {last}: {advice}")
            self.losses.append(loss)
            self.tokens.append(round(count))
            self.seen += round(count)

    def mean(self, steps: int) -> float:
        """The loss of the last steps, each token weighing the same."""
        losses, tokens = self.losses[-steps:], self.tokens[-steps:]
        return sum(loss * count for loss, count in zip(losses, tokens, strict=True)) / max(1, sum(tokens))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "tokens": torch.tensor(self.tokens, dtype=torch.int64),
            "records": self.records,
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> History:
        """The history whose `state` it was; ValueError where it has not as many losses as counts of tokens."""
        losses, tokens = state["losses"].tolist(), state["tokens"].tolist()
        if len(losses) != len(tokens):
            raise ValueError(f"{len(losses)} losses and {len(tokens)} counts of tokens")
        return cls(losses, tokens, state["records"], sum(tokens))


def ready(path: str | Path) -> None:
    """Raise OSError where no record could be appended to this file: at once, not after the first hundred steps."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("ab"):
        pass


def append_record(path: str | Path, record: Record) -> None:
    """One record becomes one line at the end of a JSONL file, in one write; a line torn by a kill is ended first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record).encode() + b"\n"
    with path.open("a+b") as file:
        if file.tell() and path.read_bytes()[-1:] != b"\n":
            line = b"\n" + line
        file.write(line)


def read_records(path: str | Path) -> list[Record]:
    """A JSONL log -> its records, without torn lines; a step gone through again after a resume counts the last time."""
    records: list[Record] = []
    for line in Path(path).read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # not JSON, or not even text
            continue
        if not isinstance(record, dict) or "step" not in record:
            continue
        while records and records[-1]["step"] >= record["step"]:
            records.pop()
        records.append(record)
    return records
