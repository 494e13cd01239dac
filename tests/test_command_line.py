"""Laws of the command line: it trains, stops, resumes and speaks; a user's mistake costs one line and no traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinytrans.__main__ import main
from tinytrans.config import PRESETS, GPTConfig
from tinytrans.data.batches import Batch, PaddedBatches
from tinytrans.tokenizers import load_tokenizer
from tinytrans.training.checkpoint import load
from tinytrans.training.journal import read_records

ROOT = Path(__file__).parents[1]
TINY = GPTConfig(vocab_size=300, n_layers=1, d_model=16, n_heads=2, max_len=64, qk_norm=True, embedding_norm=True)
Train = Callable[..., int]


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of a user's own."""
    path = tmp_path_factory.mktemp("data") / "notes.txt"
    path.write_text("".join(f"{i} is one less than {i + 1}. " for i in range(900)))
    return path


@pytest.fixture(scope="module")
def train(notes: Path) -> Train:
    """Train a model of the preset "tiny" on the notes into a folder."""

    def run(out: Path, *options: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(PRESETS, "tiny", TINY)
            given = [] if "--resume" in options else ["--preset", "tiny", "--data", str(notes), "--steps", "12"]
            return main(["train", "--device", "cpu", "--out", str(out), *given, *options])

    return run


@pytest.fixture(scope="module")
def trained(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train(out) == 0
    return out


def test_help_needs_no_torch() -> None:
    """The help of every command is there without torch being imported."""
    code = (
        "import sys; from tinytrans.options import parser; print(parser().format_help()); print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.endswith("False\n")
    assert all(word in shown for word in ("train", "sample", "params", "tokenize", "--resume"))


@pytest.mark.parametrize("command", ["train", "sample", "params", "tokenize", "tokenize train", "tokenize show"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` exits with 0 and explains each option."""
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert f"usage: tinytrans {command}" in capsys.readouterr().out


def test_a_run_leaves_all_that_is_needed(trained: Path) -> None:
    """After training the folder has model, tokenizer, checkpoint, log and settings, and the log has every record."""
    names = {"config.json", "model.safetensors", "tokenizer.json", "checkpoint.safetensors", "log.jsonl", "run.json"}
    assert {path.name for path in trained.iterdir()} == names
    assert json.loads((trained / "run.json").read_text())["steps"] == 12
    assert [record["step"] for record in read_records(trained / "log.jsonl")] == [12]


def test_a_sample_is_its_seeds(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The prompt stands in front, the same seed gives the same text, another another; temperature 0 needs no seed."""

    def speak(*options: str) -> str:
        command = ["sample", "--model", str(trained), "--prompt", "17 is", "--tokens", "30", "--device", "cpu"]
        assert main([*command, *options]) == 0
        return capsys.readouterr().out

    first = speak("--seed", "1", "--top-k", "50", "--top-p", "0.99", "--temperature", "1")
    assert first.startswith("17 is")
    assert first == speak("--seed", "1", "--top-k", "50", "--top-p", "0.99", "--temperature", "1")
    assert first != speak("--seed", "2", "--top-k", "50", "--top-p", "0.99", "--temperature", "1")
    assert speak("--temperature", "0") == speak("--temperature", "0", "--seed", "5")


def test_ctrl_c_then_resume_is_the_whole_run(
    train: Train, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in training ends with 130 and the words to go on with; resumed without options, nothing is different."""
    draw = PaddedBatches.__getitem__

    def interrupted(batches: PaddedBatches, step: int) -> Batch:
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        return draw(batches, step)

    with monkeypatch.context() as patch:
        patch.setattr(PaddedBatches, "__getitem__", interrupted)
        assert train(tmp_path / "run") == 130
    assert "stopped after step 6; go on with: tinytrans train --resume --out" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert train(tmp_path / "run", "--resume") == 0
    mine, whole = (
        load(folder / "checkpoint.safetensors")["history"]["losses"] for folder in (tmp_path / "run", trained)
    )
    assert mine.tolist() == whole.tolist()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_gpt2_is_counted_to_the_last_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    """GPT-2 has 124,439,808 parameters, its parts add up to them, and the table says the same as the JSON."""
    assert main(["params", "gpt2", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts.pop("total") == sum(counts.values()) == 124_439_808
    assert counts["embedding"] == 50257 * 768
    assert main(["params", "gpt2"]) == 0
    table = capsys.readouterr().out
    assert "124,439,808" in table
    assert all(f"{number:,}" in table for number in counts.values())


def test_a_tokenizer_is_learnt_and_shown(notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `tokenize train` wrote, `encode` and `show` use: ids that decode to the text, and the tokens in quotes."""
    file = tmp_path / "deep" / "tokenizer.json"
    assert main(["tokenize", "train", "--data", str(notes), "--vocab-size", "290", "--out", str(file)]) == 0
    assert "290 tokens" in capsys.readouterr().out
    assert main(["tokenize", "encode", "--tokenizer", str(file), "7 is żółw"]) == 0
    ids = [int(number) for number in capsys.readouterr().out.split()]
    assert load_tokenizer(file).decode(ids) == "7 is żółw"
    assert main(["tokenize", "show", "--tokenizer", str(file), "17 is one"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith('"1')
    assert '" is"' in shown.out
    assert "tokens for 9 characters" in shown.err


MISTAKES = {
    "sample --model nowhere": "no saved model in 'nowhere'",
    "sample --model {trained} --prompt=": "the prompt is empty",
    "sample --model {trained} --temperature -1": "temperature",
    "train --out {trained}": "holds a run: --resume goes on with it",
    "train --out {trained} --resume --seed 7": "has --seed 0, not 7: leave it out",
    "train --out {new} --resume": "no run to resume in",
    "train --out {new} --data tails": "no data set and no file '",
    "train --out {new} --data {short}": "too few to learn from: 12,000 is the least",
    "tokenize show --tokenizer nowhere.json x": "nowhere.json",
    "tokenize train --out {new} --data {short} --vocab-size 100": "too few",
}


@pytest.mark.parametrize(("command", "reason"), MISTAKES.items())
def test_a_mistake_costs_one_line(
    command: str, reason: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's mistake ends with 1 and one line that names it, and nothing is written."""
    (tmp_path / "short.txt").write_text("too short")
    places = {"{trained}": trained, "{new}": tmp_path / "new", "{short}": tmp_path / "short.txt"}
    before = {path: path.read_bytes() for path in trained.iterdir()}
    for name, path in places.items():
        command = command.replace(name, str(path))
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert error.startswith(f"tinytrans {command.split()[0]}: ")
    assert not (tmp_path / "new").exists()
    assert {path: path.read_bytes() for path in trained.iterdir()} == before


@pytest.mark.parametrize(
    "command", ["", "train", "train --out x --steps 0", "params gpt9", "sample --model x --top-k 0"]
)
def test_what_is_mistyped_exits_with_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """argparse answers a missing or impossible option with the usage and 2."""
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2
    assert "usage: tinytrans" in capsys.readouterr().err
