"""Rows -> a table to read, and a JSON that says on which machine they were measured."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.measure import Row
from tinytrans.files import write_whole

PACKAGES = ("tinytrans", "torch", "transformers", "tokenizers")
HEADS = ("contest", "contestant", "median", "ours is faster", "by processor", "target", "memory", "note")


def machine() -> dict[str, Any]:
    """What a figure depends on: versions, processors, threads, and how busy the machine was."""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES if importlib.util.find_spec(name)},
        "processor": processor(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def processor() -> str:
    """The processor's name, as far as the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def figure(row: Row) -> str:
    """A row's median: work a second where that says something, and the seconds."""
    if row.seconds is None or row.speed is None:
        return "-"
    return f"{row.seconds:.3f} s" if row.unit == "/s" else f"{row.speed:,.{0 if row.speed > 100 else 2}f} {row.unit}"


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of HEADS."""
    times = ("-" if value is None else f"{value:.2f}x" for value in (row.ratio, row.cpu_ratio))
    target = "" if row.target is None else f">= {row.target:.2f}x"
    memory = "" if row.megabytes is None else f"{row.megabytes:,.1f} MB"
    return (row.contest, row.contestant, figure(row), *times, target, memory, row.note)


def table(rows: Sequence[Row]) -> str:
    """All rows as a Markdown table."""
    lines = [HEADS, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (shown[0], rule, *shown[1:]))


def save(file: Path, rows: Sequence[Row], before: dict[str, Any], *, quick: bool) -> None:
    """Write rows and machine whole; its load is that of the beginning and, beside it, of the end."""
    content = {
        "machine": {**before, "load_after": machine()["load"]},
        "quick": quick,
        "rows": [asdict(r) for r in rows],
    }
    write_whole(file, json.dumps(content, indent=2) + "\n")
