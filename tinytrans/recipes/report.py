"""What goes into a recipe and what comes out: a Run -> a Report, as a table or as one JSON object."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tinytrans.data.cache import cache_folder
from tinytrans.training.journal import History

Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a recipe is told: its chance, its device, where models are kept, and whether a few steps are enough.

    The quick way is the same code on less of everything; its figures mean nothing.
    """

    seed: int = 0
    quick: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    out: Path | None = None
    progress: bool = False

    def pick(self, full: int, quick: int) -> int:
        """How much of something: the first number, or the second if this is a quick run."""
        return quick if self.quick else full

    def folder(self, name: str) -> Path:
        """Where the model of that name is kept between recipes: in `out`, else in this user's cache."""
        place = cache_folder() / "recipes" if self.out is None else self.out
        return place / f"{name}-{self.seed}{'-quick' if self.quick else ''}"

    def generator(self, salt: int = 0) -> torch.Generator:
        """A fresh source of chance: the same for the same seed and salt."""
        return torch.Generator(self.device).manual_seed(1000 * self.seed + salt)


@dataclass(kw_only=True)
class Report:
    """A recipe's result: rows of measures, controls among them; what was aimed at and whether it came."""

    rows: dict[str, Row]
    figures: Row = field(default_factory=dict)  # single numbers: parameters, tokens, losses
    aims: dict[str, bool] = field(default_factory=dict)
    records: list[Row] = field(default_factory=list)  # along the way, for a curve
    cost: dict[str, float] = field(default_factory=dict)


def measured(recipe: Callable[[Run], Report], run: Run) -> Report:
    """The recipe's report with what it cost: seconds, the process's peak memory in megabytes, threads."""
    torch.manual_seed(run.seed)
    began = time.perf_counter()
    report = recipe(run)
    report.cost = {
        "seconds": round(time.perf_counter() - began, 1),
        "memory_mb": round(peak_memory() / 1e6),
        "threads": torch.get_num_threads(),
    }
    return report


def to_the_end(history: History) -> History:
    """What a training left to read, if it came to its end; KeyboardInterrupt where Ctrl-C has stopped it.

    So nothing half-trained is measured, or kept for other recipes to start from.
    """
    if history.interrupted:
        raise KeyboardInterrupt
    return history


def peak_memory() -> float:
    """The most bytes that this process has held so far, 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0.0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def as_json(name: str, run: Run, report: Report) -> str:
    """The whole result as one line of JSON."""
    told: dict[str, Any] = {"recipe": name, "seed": run.seed, "quick": run.quick, "device": str(run.device)}
    return json.dumps(told | rounded(asdict(report)))


def as_table(name: str, run: Run, report: Report) -> str:
    """The result for a person: one line a row, then figures, aims and cost."""
    columns = list(dict.fromkeys(column for row in report.rows.values() for column in row))
    lines = [[name, *columns]]
    lines += [[label, *(show(row.get(column)) for column in columns)] for label, row in report.rows.items()]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    notes = [f"{what}: {show(number)}" for what, number in (report.figures | report.cost).items()]
    aims = [] if run.quick else [f"{'reached' if done else 'MISSED '}  {what}" for what, done in report.aims.items()]
    return "\n".join([*table, "", *notes, *aims])


def show(number: float | None) -> str:
    """A number in as many digits as one reads; nothing where there is none.

    >>> show(0.98765), show(1234567), show(None)
    ('0.988', '1,234,567', '')
    """
    if number is None:
        return ""
    return f"{number:,}" if isinstance(number, int) else f"{number:.3f}" if abs(number) < 100 else f"{number:,.0f}"


def rounded(value: Any) -> Any:
    """The same tree with every fraction cut to six digits after the point, and null for what JSON has no number for.

    >>> rounded({"loss": 1 / 3, "perplexity": float("inf")})
    {'loss': 0.333333, 'perplexity': None}
    """
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
