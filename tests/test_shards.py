"""Laws of sharded training: two processes that hold half a model each are one that holds it all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import BERTConfig, EncDecConfig, GPTConfig, ViTConfig
from tinytrans.models import build
from tinytrans.models.pretrained import own_weights
from tinytrans.training import ranks
from tinytrans.training.checkpoint import load
from tinytrans.training.loop import fit
from tinytrans.training.optim import adamw, muon
from tinytrans.training.runs import Stepper
from tinytrans.training.shards import shard, sharded, whole

ROOT = Path(__file__).parents[1]
CODE = """
import json, sys
sys.path[:0] = ["tests", "."]
import torch
torch.set_num_threads(1)
from pathlib import Path
from test_shards import scenario
from tinytrans.training import ranks
with ranks.joined() as rank:
    result = scenario(Path(sys.argv[1]), seed=rank)
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(result))
"""
V = 13  # an odd number of rows: the two parts differ
SHAPE: dict[str, Any] = {"n_layers": 2, "d_model": 12, "n_heads": 2}
CONFIGS = {
    "gpt": GPTConfig(vocab_size=V, max_len=16, **SHAPE),
    "encdec": EncDecConfig(vocab_size=V, max_len=16, **SHAPE),
    "bert": BERTConfig(vocab_size=V, max_len=16, **SHAPE, head="pretraining"),
    "vit": ViTConfig(image_size=4, patch_size=2, n_channels=1, n_classes=V, **SHAPE),
}
OPTIMIZERS: dict[str, Callable[[nn.Module], Stepper]] = {
    "adamw": lambda model: adamw(model, 0.01),
    "muon": lambda model: muon(model, 0.02, 0.01),
}


def batch(number: int) -> tuple[Tensor, Tensor]:
    """Of a length that depends on its number, so that tokens weigh differently from batches."""
    ids = torch.randint(V, (3, 2 + 3 * (number % 4)), generator=torch.Generator().manual_seed(number))
    return ids, (ids + 1) % V


def surprise(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """What each kind of model makes of the same ids."""
    ids, targets = batch
    kind = model.config.model  # type: ignore[union-attr]
    if kind == "vit":
        images = F.pad(ids.double().float(), (0, 16))[:, :16].reshape(3, 1, 4, 4) / V
        logits, targets = model(images), targets[:, 0]
    elif kind == "encdec":
        logits = model(ids, targets)
    else:
        logits = model(ids)[0] if kind == "bert" else model(ids)
    lost = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")
    return lost, targets.numel()


def train(steps: int, seed: int, kind: str = "gpt", by: str = "adamw", **options: Any) -> tuple[nn.Module, Any]:
    """A model begun with weights of this seed, sharded among the processes that there are, trained."""
    torch.manual_seed(seed)
    model = shard(build(CONFIGS[kind]))
    options = {"accumulate": 2 // ranks.size(), "clip": 0.5, "progress": False} | options
    return model, fit(model, batch, surprise, steps=steps, optimizer=OPTIMIZERS[by](model), **options)


def scenario(folder: Path, seed: int) -> Any:
    """What one of several processes sees."""
    seen: dict[str, Any] = {}
    for kind in CONFIGS:
        seen[kind] = train(4, seed, kind)[1].losses
    seen["muon"] = train(4, seed, by="muon", checkpoint=folder / "muon")[1].losses
    model, history = train(6, seed, checkpoint=folder / "c")
    seen["whole"] = history.losses
    seen["sharded"] = sharded(model)
    seen["held"] = sum(parameter.to_local().numel() for parameter in model.parameters()) if sharded(model) else 0
    weights = whole(own_weights(model))
    seen["weights"] = {name: None if weight is None else weight.tolist() for name, weight in weights.items()}
    for by in OPTIMIZERS:
        train(3, seed, by=by, checkpoint=folder / f"part-{by}")
        torch.manual_seed(99)
        again = train(6, seed + 5, by=by, checkpoint=folder / f"part-{by}", resume=True)
        seen[f"resumed-{by}"] = again[1].losses
        seen[f"unbroken-{by}"] = train(6, seed, by=by)[1].losses
    return seen


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Path]:
    """What two processes have seen, and the folder with what they wrote."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "run.py").write_text(CODE)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(folder / "run.py")]
    done = subprocess.run(
        [sys.executable, *command, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """What a process alone sees that takes the batches of both."""
    folder = tmp_path_factory.mktemp("one")
    return scenario(folder, seed=0), folder


@pytest.mark.parametrize("what", [*CONFIGS, "muon", "whole"])
def test_two_halves_are_one(two: tuple[list[Any], Path], one: tuple[Any, Path], what: str) -> None:
    """Clipped and begun with different weights, two halves have the losses of one process, whatever the model."""
    first, second = two[0]
    assert first[what] == second[what] == pytest.approx(one[0][what], rel=1e-5)


def test_each_holds_its_part(two: tuple[list[Any], Path], one: tuple[Any, Path]) -> None:
    """Each process holds about half of the numbers, together all; a process alone holds them as ever."""
    total = sum(parameter.numel() for parameter in build(CONFIGS["gpt"]).parameters())
    held = [seen["held"] for seen in two[0]]
    assert sum(held) == total
    assert max(held) < 0.6 * total
    assert [seen["sharded"] for seen in two[0]] == [True, True]
    assert not one[0]["sharded"]


def test_the_whole_is_with_the_first(two: tuple[list[Any], Path], one: tuple[Any, Path]) -> None:
    """The first process gets the whole weights, those of the run in one process; the other gets none."""
    first, second = (seen["weights"] for seen in two[0])
    assert first.keys() == second.keys()
    assert all(weight is None for weight in second.values())
    for name, weight in first.items():
        expected = torch.tensor(one[0]["weights"][name])
        torch.testing.assert_close(torch.tensor(weight), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("by", OPTIMIZERS)
def test_a_sharded_run_is_resumed(two: tuple[list[Any], Path], by: str) -> None:
    """Stopped and resumed, a sharded run has the very losses of an uninterrupted one."""
    for seen in two[0]:
        assert seen[f"resumed-{by}"] == seen[f"unbroken-{by}"]


def test_the_checkpoint_is_one_processes(two: tuple[list[Any], Path], one: tuple[Any, Path]) -> None:
    """The file has the names, shapes and, within rounding, the numbers of a run in one process, the optimiser's too."""
    for file in ("c", "muon"):
        mine, other = load(two[1] / file), load(one[1] / file)
        compare(mine["model"], other["model"])
        compare(mine["optimizer"], other["optimizer"])


def compare(mine: Any, other: Any) -> None:
    if isinstance(other, Tensor):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)
    elif isinstance(other, dict):
        assert mine.keys() == other.keys()
        for key, value in other.items():
            compare(mine[key], value)
    elif isinstance(other, (list, tuple)):
        assert len(mine) == len(other)
        for a, b in zip(mine, other, strict=True):
            compare(a, b)
    else:
        assert mine == pytest.approx(other)


@pytest.mark.parametrize("by", OPTIMIZERS)
def test_one_process_goes_on_with_it(two: tuple[list[Any], Path], tmp_path: Path, by: str) -> None:
    """A process alone resumes what two halves have begun, and has the losses that they would have had."""
    _, history = train(6, 3, by=by, checkpoint=two[1] / f"part-{by}", resume=True)
    assert len(history.losses) == 6
    assert history.losses == pytest.approx(two[0][0][f"unbroken-{by}"], rel=1e-5)
