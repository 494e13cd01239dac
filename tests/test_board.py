"""Laws of the curves in TensorBoard: every number of every record, at its step; who does without misses nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tinytrans.training.board import tensorboard
from tinytrans.training.loop import fit
from tinytrans.training.optim import adamw


class Writer:
    """What stands for TensorBoard's own writer."""

    made: list[Writer]

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.points, self.flushed = folder, purge_step, [], 0
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.points.append((name, value, step))

    def flush(self) -> None:
        self.flushed += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The writers that are made where TensorBoard is installed."""
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.made = []
    return Writer.made


def train(steps: int, **options: Any) -> Any:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    batches = [torch.ones(3, 2)]
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    return fit(model, batches, loss, steps=steps, optimizer=adamw(model, 0.1), every=2, progress=False, **options)


def test_every_number_becomes_a_point(made: list[Any], tmp_path: Path) -> None:
    """All that a record holds stands in the curves at its step, and is there to be seen at once."""
    history = train(4, watch=tensorboard(tmp_path), evaluate=lambda _: {"validation": 0.5})
    [writer] = made
    expected = [(name, record[name], record["step"]) for record in history.records for name in list(record)[1:]]
    assert writer.points == expected
    assert {"loss", "validation"} <= {name for name, _, _ in writer.points}
    assert writer.flushed == len(history.records) == 2
    assert writer.folder == str(tmp_path)


def test_a_resumed_run_draws_on(made: list[Any], tmp_path: Path) -> None:
    """After a resume the points from its first record on replace what stood there."""
    train(2, watch=tensorboard(tmp_path), checkpoint=tmp_path / "c")
    train(6, watch=tensorboard(tmp_path), checkpoint=tmp_path / "c", resume=True)
    assert [writer.purge_step for writer in made] == [2, 4]
    assert {step for _, _, step in made[1].points} == {4, 6}


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Asked for where TensorBoard is missing, ImportError names what to install; nobody else misses it."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(1)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        tensorboard(tmp_path)
