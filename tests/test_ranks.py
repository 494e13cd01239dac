"""Laws of training in several processes: two that share the batches are one that has them all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tinytrans.training import ranks
from tinytrans.training.checkpoint import load
from tinytrans.training.journal import read_records
from tinytrans.training.loop import fit
from tinytrans.training.optim import adamw

ROOT = Path(__file__).parents[1]
CODE = """
import json, sys
sys.path[:0] = ["tests", "."]
import torch
torch.set_num_threads(1)
from pathlib import Path
from test_ranks import scenario
from tinytrans.training import ranks
with ranks.joined() as rank:
    result = scenario(Path(sys.argv[1]), seed=rank)
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(result))
"""


def batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a length that depends on its number, so that tokens weigh differently from batches."""
    ids = torch.randint(7, (3, 1 + 3 * (number % 4)), generator=torch.Generator().manual_seed(number))
    return ids, (ids + 1) % 7


def total(model: nn.Module, batch: Any) -> Any:
    ids, targets = batch
    lost = nn.functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="sum")
    return lost, targets.numel()


def build(seed: int, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 6), nn.Dropout(dropout), nn.Linear(6, 7))


def train(model: nn.Module, steps: int, accumulate: int = 1, **options: Any) -> Any:
    options = {"progress": False, "batches": batch} | options
    return fit(model, loss=total, steps=steps, accumulate=accumulate, optimizer=adamw(model, 0.01), **options)


def scenario(folder: Path, seed: int) -> Any:
    """What one of several processes does, begun with weights of its own seed -> what it has seen."""
    share = 2 // ranks.size()  # the same batches a step, whatever the number of processes
    model = build(seed)
    saved: dict[str, Any] = {"every": 2, "checkpoint": folder / "c.safetensors", "log": folder / "log.jsonl"}
    history = train(model, 6, share, **saved)
    listed = train(build(seed), 6, share, batches=[batch(i) for i in range(5)])
    noisy = train(build(seed, dropout=0.5), 4, share, checkpoint=folder / "whole")
    train(build(seed, dropout=0.5), 2, share, checkpoint=folder / "part")
    torch.manual_seed(99)  # whatever chance did meanwhile, the checkpoint knows better
    resumed = train(build(seed, dropout=0.5), 4, share, checkpoint=folder / "part", resume=True)
    return {
        "uneven": uneven(seed),
        "losses": history.losses,
        "tokens": history.tokens,
        "weights": [weight.flatten().tolist() for weight in model.parameters()],
        "listed": listed.losses,
        "noisy": noisy.losses,
        "resumed": resumed.losses,
    }


def uneven(seed: int) -> str:
    """What a process is told that trains a parameter which another has frozen."""
    model = build(seed)
    model[1].weight.requires_grad_(seed == 0)  # type: ignore[operator]
    try:
        train(model, 1)
    except RuntimeError as error:
        return str(error)
    return "nothing"


def torchrun(folder: Path) -> list[Any]:
    """What two processes have seen."""
    (folder / "run.py").write_text(CODE)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(folder / "run.py")]
    done = subprocess.run(
        [sys.executable, *command, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Path]:
    """What two processes have seen, and the folder with what they wrote."""
    folder = tmp_path_factory.mktemp("two")
    return torchrun(folder), folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a process alone sees that takes the batches of both."""
    return scenario(tmp_path_factory.mktemp("one"), seed=0)


@pytest.mark.parametrize("what", ["losses", "listed"])
def test_two_processes_are_one(two: tuple[list[Any], Path], one: Any, what: str) -> None:
    """Two processes have the losses of one that takes all batches, though these are of unequal length."""
    first, second = two[0]
    assert first[what] == second[what] == pytest.approx(one[what], rel=1e-5)
    assert first["tokens"] == one["tokens"]


def test_weights_stay_the_same(two: tuple[list[Any], Path], one: Any) -> None:
    """Begun with different weights, the processes end with those of the first, as one process would have them."""
    first, second = two[0]
    assert first["weights"] == second["weights"]
    for mine, whole in zip(first["weights"], one["weights"], strict=True):
        assert mine == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_only_the_first_writes(two: tuple[list[Any], Path]) -> None:
    """The log has each record once, and the checkpoint is whole, with the chance of both processes."""
    folder = two[1]
    assert len((folder / "log.jsonl").read_text().splitlines()) == 3
    assert [record["step"] for record in read_records(folder / "log.jsonl")] == [2, 4, 6]
    assert len(load(folder / "c.safetensors")["chances"]) == 2


def test_dropout_differs_and_is_resumed(two: tuple[list[Any], Path]) -> None:
    """A resumed run has the losses of an uninterrupted one: each process goes on with its own chance."""
    for seen in two[0]:
        assert seen["resumed"] == seen["noisy"]
    mine, theirs = (state["global"]["cpu"] for state in load(two[1] / "whole")["chances"])
    assert not torch.equal(mine, theirs)


def test_other_parameters_are_named(two: tuple[list[Any], Path], one: Any) -> None:
    """Where the processes train different parameters, both raise RuntimeError and name them; one alone may freeze."""
    assert all("gradients of different parameters: ['1.weight']" in seen["uneven"] for seen in two[0])
    assert one["uneven"] == "nothing"


def test_alone_nothing_happens() -> None:
    """A process that nobody has started with others is the first of one, and sums are its own."""
    tensor = torch.tensor([3.0])
    with ranks.joined() as rank:
        ranks.add_up([tensor])
        assert (rank, ranks.size(), tensor.item(), ranks.gather("x")) == (0, 1, 3.0, ["x"])
