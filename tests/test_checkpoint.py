"""Laws of checkpoints: what is saved comes back to the bit, a file is whole or not there, a killed run goes on."""

from __future__ import annotations

import json
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import RMSprop

from tinytrans.config import GPTConfig
from tinytrans.models.gpt import GPT
from tinytrans.training.checkpoint import FORMAT, CheckpointError, chance, load, load_weights, restore_chance, save
from tinytrans.training.journal import read_records
from tinytrans.training.loop import fit
from tinytrans.training.optim import adamw, muon

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ROOT = Path(__file__).parents[1]
TINY = GPTConfig(vocab_size=40, n_layers=1, d_model=16, n_heads=2)
FULL = """
import resource, sys
sys.path[:0] = ["tests", "."]
from test_checkpoint import TINY, GPT, save, torch
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file may grow larger, as on a full disk
for write in (
    lambda: save(f"{sys.argv[1]}/c", {"step": torch.ones(1000)}),
    lambda: GPT(TINY).save_pretrained(f"{sys.argv[1]}/model"),
):
    try:
        write()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    LEAVES, lambda tree: st.lists(tree) | st.lists(tree).map(tuple) | st.dictionaries(st.text() | st.integers(), tree)
)


@settings(max_examples=50, deadline=None)
@given(tree=TREES)
def test_a_tree_comes_back(tree: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Numbers, text, None, lists, tuples, dicts with keys of text or integers come back equal and of the same kind."""
    path = tmp_path_factory.mktemp("tree") / "c"
    save(path, {"tree": tree})
    assert repr(load(path)["tree"]) == repr(tree)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_come_back_to_the_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    """Scalars, empty, transposed tensors and views into larger ones come back equal, of the same shape and dtype."""
    table = (torch.randn(5, 7) * 50).abs().to(dtype)
    tensors = {
        "table": table,
        "turned": table.mT,
        "view": table[1:3, 2:],
        "scalar": table[0, 0],
        "empty": table[:0],
        "row": table[2],
    }
    save(tmp_path / "c", tensors)
    for name, tensor in load(tmp_path / "c").items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, tensors[name])


def test_one_tensor_under_two_names_is_stored_once(tmp_path: Path) -> None:
    """A tied matrix costs its size once and comes back under both names."""
    table = torch.randn(300, 100)
    save(tmp_path / "c", {"model": {"embedding": table, "head": table}})
    assert (tmp_path / "c").stat().st_size < 1.1 * table.nbytes
    assert all(torch.equal(tensor, table) for tensor in load(tmp_path / "c")["model"].values())


def test_a_checkpoint_is_a_safetensors_file(tmp_path: Path) -> None:
    """Any safetensors reader finds the tensors under their path in the tree."""
    save(tmp_path / "c", {"model": {"a.weight": torch.ones(2)}, "history": [3, torch.zeros(1)]})
    assert set(load_file(tmp_path / "c")) == {"model/a.weight", "history/1"}


def test_what_is_not_data_is_refused(tmp_path: Path) -> None:
    """An object that neither safetensors nor JSON holds is refused by its path and type, and no file appears."""
    with pytest.raises(TypeError, match=r"optimizer/hook is a Linear"):
        save(tmp_path / "c", {"optimizer": {"hook": nn.Linear(2, 3)}})
    assert list(tmp_path.iterdir()) == []


def test_a_torn_file_is_named_not_read(tmp_path: Path) -> None:
    """A checkpoint cut anywhere, down to nothing, raises a CheckpointError with the file's name, never half a state."""
    path = tmp_path / "run.checkpoint"
    save(path, {"model": {"a": torch.randn(50, 7)}})
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"run\.checkpoint is not a whole safetensors file"):
            load(path)


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    """Another program's safetensors file is no checkpoint; a missing file is missing."""
    save_file({"a": torch.ones(2)}, tmp_path / "theirs", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="theirs is of the format 'pt'"):
        load(tmp_path / "theirs")
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("protocol", [None, 4, 5])
def test_a_pickle_is_not_opened(protocol: int | None, tmp_path: Path) -> None:
    """What `torch.save` or `pickle.dump` wrote is named as that, and nothing in it is run."""
    state = {"harm": Harm(tmp_path / "harm"), "weights": torch.ones(3)}
    if protocol is None:
        torch.save(state, tmp_path / "c")
    else:
        (tmp_path / "c").write_bytes(pickle.dumps(state, protocol))
    with pytest.raises(CheckpointError, match="c is not a whole safetensors file, but a pickle, which is not opened"):
        load(tmp_path / "c")
    assert not (tmp_path / "harm").exists()


class Harm:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


TREES = ("", "{", "5", "[]", "{}", '{"tensor": "zz"}', '{"dict": 5}', '{"dict": [["k"]]}', '{"foo": [1]}', "[" * 50_000)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree[:20])
def test_a_damaged_tree_is_named(tree: str, tmp_path: Path) -> None:
    """A checkpoint whose tree is torn, foreign or built to harm raises a CheckpointError with the file's name."""
    save_file({"a": torch.ones(2)}, tmp_path / "c", metadata={"format": FORMAT, "tree": tree})
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/c (has a damaged tree|holds a)"):
        load(tmp_path / "c")


def test_no_two_tensors_share_a_name(tmp_path: Path) -> None:
    """Keys whose paths coincide, 3 and "3", "a/b" and the b of a, keep a tensor each; a tuple is no key."""
    state = {3: torch.ones(1), "3": torch.zeros(1), "a/b": torch.ones(2), "a": {"b": torch.zeros(2)}}
    save(tmp_path / "c", state)
    assert repr(load(tmp_path / "c")) == repr(state)
    with pytest.raises(TypeError, match=r"\(1, 2\) is a tuple"):
        save(tmp_path / "c", {(1, 2): 3})


def test_another_models_weights_change_nothing() -> None:
    """Weights of another shape or under other names are refused by name and shapes, before any weight has changed."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    other = {name: torch.zeros_like(weight) for name, weight in before.items()} | {"1.weight": torch.zeros(2, 5)}
    with pytest.raises(
        CheckpointError, match=r"run is of another model: 1\.weight is \(2, 5\) there and \(2, 4\) here"
    ):
        load_weights(model, other, "run")
    with pytest.raises(CheckpointError, match=r"1\.bias is missing there and \(2,\) here"):
        load_weights(model, {name: weight for name, weight in before.items() if name != "1.bias"}, "run")
    with pytest.raises(CheckpointError, match=r"0\.bias is float16 there and float32 here"):
        load_weights(model, before | {"0.bias": before["0.bias"].half()}, "run")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_failed_save_keeps_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing breaks off, the checkpoint is the one before."""
    save(tmp_path / "c", {"step": 1})

    def full_disk(_tensors: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half a fi")
        raise OSError("No space left on device")

    monkeypatch.setattr("tinytrans.training.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path / "c", {"step": 2})
    assert load(tmp_path / "c") == {"step": 1}


@pytest.mark.skipif(resource is None, reason="this system sets no limits")
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """Where a file cannot be written, OSError names it; the one before is there, and no scrap beside it."""
    save(tmp_path / "c", {"step": 1})
    GPT(TINY).save_pretrained(tmp_path / "model")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for said, file in zip(done.stdout.splitlines(), ("c", "model.safetensors"), strict=True):
        assert said.startswith(f"OSError: {tmp_path}")
        assert f"{file} could not be written" in said
    assert load(tmp_path / "c") == {"step": 1}
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_another_runs_checkpoint_is_named(tmp_path: Path) -> None:
    """A checkpoint of no run, or of another optimiser, raises a CheckpointError with its name and what is wrong."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    options = {"batches": [torch.ones(2, 3)], "loss": lambda model, x: model(x).square().mean(), "progress": False}
    save(tmp_path / "c", {"weights": torch.ones(2)})
    with pytest.raises(CheckpointError, match="is of no run of fit: it lacks chances, history, model, optimizer"):
        fit(model, steps=2, optimizer=adamw(model, 0.1), checkpoint=tmp_path / "c", resume=True, **options)
    fit(model, steps=1, optimizer=adamw(model, 0.1), checkpoint=tmp_path / "run", **options)
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(CheckpointError, match="is of another optimiser than this Optimizers"):
        fit(model, steps=2, optimizer=muon(model, 0.1, 0.1), checkpoint=tmp_path / "run", resume=True, **options)
    groups = [{"params": group["params"]} for group in adamw(model, 0.1).param_groups]
    with pytest.raises(CheckpointError, match="another optimiser than this RMSprop: it has no alpha"):
        fit(model, steps=2, optimizer=RMSprop(groups), checkpoint=tmp_path / "run", resume=True, **options)
    with pytest.raises(CheckpointError, match=r"another model: 0\.bias is float32 there and float64 here"):
        fit(model.double(), steps=2, optimizer=adamw(model, 1), checkpoint=tmp_path / "run", resume=True, **options)
    assert (tmp_path / "run").read_bytes() == before


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("history", {}, "holds no history"),
        ("history", 5, "holds no history"),
        ("history", {"losses": torch.ones(2), "tokens": torch.ones(1), "records": []}, "holds no history: .*2 losses"),
        ("rates", ["fast"], "holds no history: ValueError .*'fast'"),
        ("rates", [0.1], "is of another optimiser than this AdamW: it has 1 learning rates for 2 groups"),
        ("model", 5, "holds no tensors by name, but a int"),
        ("model", {"0.weight": 5}, "holds no tensors by name"),
        ("optimizer", 5, "is of another optimiser than this AdamW"),
        ("chances", [{}], "holds no state of chance"),
        ("chances", [{"global": {"python": 3}}], "holds no state of chance"),
    ],
)
def test_a_hollow_run_is_named(part: str, value: object, message: str, tmp_path: Path) -> None:
    """A run's checkpoint of which a part holds something else raises a CheckpointError that says which."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    options = {"batches": [torch.ones(2, 3)], "loss": lambda model, x: model(x).square().mean(), "progress": False}
    fit(model, steps=1, optimizer=adamw(model, 0.1), checkpoint=tmp_path / "run", **options)
    save(tmp_path / "run", load(tmp_path / "run") | {part: value})
    with pytest.raises(CheckpointError, match=f"run {message}"):
        fit(model, steps=2, optimizer=adamw(model, 0.1), checkpoint=tmp_path / "run", resume=True, **options)


def test_chance_goes_on_where_it_was(tmp_path: Path) -> None:
    """After a round trip through a file, torch and Python draw what they would have drawn."""
    save(tmp_path / "c", chance())
    expected = (torch.rand(5).tolist(), random.random(), random.gauss(0, 1))
    restore_chance(load(tmp_path / "c"))
    assert (torch.rand(5).tolist(), random.random(), random.gauss(0, 1)) == expected


RUN = """
import sys, time
import torch
from torch import nn
from tinytrans.training.checkpoint import save
from tinytrans.training.loop import fit
from tinytrans.training.optim import muon

torch.set_num_threads(1)
torch.manual_seed(5)
model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8), nn.Dropout(0.3), nn.Linear(8, 9))

def batch(number):
    time.sleep(0.002)
    ids = torch.randint(9, (4, 6), generator=torch.Generator().manual_seed(number))
    return ids, ids.flip(1)

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

history = fit(model, batch, loss, steps=120, optimizer=muon(model, 0.02, 0.01), every=3, checkpoint=sys.argv[1] + "/c",
    resume=True, log=sys.argv[1] + "/log.jsonl", progress=False)
save(sys.argv[1] + "/end", {"losses": history.losses, "weights": model.state_dict()})
"""


def test_a_killed_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    """A run with dropout and Muon, killed twice by SIGKILL, ends with the losses and weights of one that never was."""
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, killed):
        folder.mkdir()
    command = [sys.executable, "-W", "error", "-c", RUN]
    undisturbed = subprocess.Popen([*command, str(calm)], cwd=ROOT)
    for least in (10, 50):  # killed at some moment after that many steps
        process = subprocess.Popen([*command, str(killed)], cwd=ROOT)
        log = killed / "log.jsonl"
        while process.poll() is None and not (
            log.exists() and any(record["step"] > least for record in read_records(log))
        ):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert 3 <= len(load(killed / "c")["history"]["losses"]) < 120
    subprocess.run([*command, str(killed)], cwd=ROOT, check=True)
    assert undisturbed.wait() == 0
    end, expected = load(killed / "end"), load(calm / "end")
    assert len(end["losses"]) == 120
    assert end["losses"] == expected["losses"]
    assert all(torch.equal(end["weights"][name], weight) for name, weight in expected["weights"].items())
    records = [{**record, "seconds": 0} for record in read_records(killed / "log.jsonl")]
    assert records == [{**record, "seconds": 0} for record in read_records(calm / "log.jsonl")]
    assert all(json.loads(line) for line in (calm / "log.jsonl").read_text().splitlines())
