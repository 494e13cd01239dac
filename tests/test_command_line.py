"""Laws of the command line: it trains, stops, resumes and speaks; a user's mistake costs one line and no traceback."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tinytrans import checkpoints
from tinytrans.__main__ import main
from tinytrans.commands import eval as eval_command
from tinytrans.commands.options import TRAINED
from tinytrans.commands.texts import read_pieces, read_texts
from tinytrans.commands.train import how_to_go_on, rows_of
from tinytrans.config import PRESETS, GPTConfig
from tinytrans.data.batches import Batch, PaddedBatches
from tinytrans.models.gpt import GPT
from tinytrans.tokenizers import CharacterTokenizer, load_tokenizer
from tinytrans.training.checkpoint import load
from tinytrans.training.journal import read_records
from tinytrans.training.pretrain import perplexity

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
    code = "import sys, tinytrans.__main__ as t\ntry: t.main(['--help'])\nfinally: print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.endswith("False\n")
    assert all(word in shown for word in ("train", "sample", "chat", "eval", "params", "tokenize", "--resume"))


@pytest.mark.parametrize(
    "command", ["train", "sample", "chat", "eval", "params", "tokenize", "tokenize train", "tokenize show"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` exits with 0 and explains each option."""
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: tinytrans {command}" in shown
    assert command != "params" or all(f"  {name} " in shown for name in PRESETS)


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
    assert speak("--temperature", "5", "--min-p", "1", "--seed", "3") == speak("--temperature", "0")
    assert speak("--temperature", "0", "--repetition-penalty", "9") != speak("--temperature", "0")


def stop_in_step_6(train: Train, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that gets Ctrl-C as its sixth batch is drawn."""
    draw = PaddedBatches.__getitem__

    def interrupted(batches: PaddedBatches, step: int) -> Batch:
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        return draw(batches, step)

    with monkeypatch.context() as patch:
        patch.setattr(PaddedBatches, "__getitem__", interrupted)
        assert train(out) == 130


def test_ctrl_c_then_resume_is_the_whole_run(
    train: Train, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in training ends with 130 and the words to go on with; resumed without options, nothing is different."""
    stop_in_step_6(train, tmp_path / "run", monkeypatch)
    assert "stopped after step 6; go on with: tinytrans train --resume --out" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert train(tmp_path / "run", "--resume") == 0
    mine, whole = (
        load(folder / "checkpoint.safetensors")["history"]["losses"] for folder in (tmp_path / "run", trained)
    )
    assert mine.tolist() == whole.tolist()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


TWO = """
import sys
sys.path[:0] = ["tests", "."]
import torch
torch.set_num_threads(1)
from test_command_line import TINY
from tinytrans.__main__ import main
from tinytrans.config import PRESETS
PRESETS["tiny"] = TINY
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_train_one_model(trained: Path, notes: Path, tmp_path: Path) -> None:
    """Under torchrun each step takes a batch from each process, and the first alone writes and speaks."""
    out = tmp_path / "two"
    (tmp_path / "run.py").write_text(TWO)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "run.py")]
    options = ["--preset", "tiny", "--data", str(notes), "--steps", "3", "--out", str(out), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, *start, "train", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("guessing blindly") == done.stdout.count("validation loss") == 1
    assert {path.name for path in out.iterdir()} == {path.name for path in trained.iterdir()}
    state = load(out / "checkpoint.safetensors")
    assert len(state["chances"]) == 2
    documents = rows_of(load_tokenizer(out), read_texts(str(notes))[0], TINY.max_len)
    drawn = PaddedBatches(documents, 12, max_len=TINY.max_len)
    sizes = [int((drawn[i].targets >= 0).sum()) for i in range(6)]
    assert state["history"]["tokens"].tolist() == [sizes[0] + sizes[1], sizes[2] + sizes[3], sizes[4] + sizes[5]]


def converse(trained: Path, words: str, *options: str) -> str:
    """What `chat` prints when these words are piped into it."""
    command = ["chat", "--model", str(trained), "--tokens", "12", "--device", "cpu", *options]
    code = [sys.executable, "-m", "tinytrans", *command]
    return subprocess.run(code, cwd=ROOT, input=words, capture_output=True, text=True, check=True).stdout


def test_a_chat_is_piped(trained: Path) -> None:
    """A line is a turn, the same seed answers the same; empty lines are none, /quit and the end of the input end."""
    answers = converse(trained, "17 is\n\n  8 is \n/quit\n9 is\n", "--seed", "1", "--temperature", "1")
    assert answers.count("\n") >= 2
    assert answers == converse(trained, "17 is\n8 is", "--seed", "1", "--temperature", "1")
    assert answers != converse(trained, "17 is\n8 is\n", "--seed", "2", "--temperature", "1")
    assert converse(trained, "/quit\n") == converse(trained, "") == ""


Talk = Callable[..., tuple[list[str], list[int]]]


@pytest.fixture
def talk(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Say lines to a model that always answers "yes" -> the texts that it was given, and how many tokens each has."""
    tokenizer = load_tokenizer(trained)
    answer = [*tokenizer.encode("yes"), tokenizer.special_tokens["<|end|>"]]

    def run(lines: str, *options: str) -> tuple[list[str], list[int]]:
        read: list[list[int]] = []

        def answers(model: GPT, ids: torch.Tensor, **options: object) -> Iterator[torch.Tensor]:
            read.append(ids[0].tolist())
            return iter(torch.tensor(answer)[:, None])

        monkeypatch.setattr("tinytrans.commands.speech.stream", answers)
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        assert main(["chat", "--model", str(trained), "--device", "cpu", *options]) == 0
        return [tokenizer.decode(ids) for ids in read], [len(ids) for ids in read]

    return run


def test_a_chat_remembers(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    """The model reads every turn in the form of its training, its own answers too; /new forgets them."""
    read, _ = talk("17 is\n8 is\n/new\n9 is\n")
    first = "<|user|>17 is<|assistant|>"
    assert read == [first, f"{first}yes<|user|>8 is<|assistant|>", "<|user|>9 is<|assistant|>"]
    assert capsys.readouterr().out == "yes\n" * 3


def test_a_chat_forgets_whole_turns(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    """What no longer fits max_len beside an answer is forgotten, oldest turns first; too long a turn is not taken."""
    read, sizes = talk("".join(f"{i} is one\n" for i in range(20)), "--tokens", "8")
    assert max(sizes) <= TINY.max_len - 8
    assert read[-1].startswith("<|user|>")
    assert read[-1].endswith("<|user|>19 is one<|assistant|>")
    assert "yes<|user|>18 is one" in read[-1]
    assert talk("word " * 100 + "\n7 is\n")[0] == ["<|user|>7 is<|assistant|>"]
    assert "tokens, and the model reads 64: say it shorter" in capsys.readouterr().err


def test_nobody_ends_a_turn_by_its_name(talk: Talk, trained: Path) -> None:
    """`<|end|>` and `<|assistant|>` in what a user says are plain text, not the signs."""
    tokenizer = load_tokenizer(trained)
    _, [size] = talk("<|end|><|assistant|>\n")
    assert size == 2 + len(tokenizer.encode("<|end|><|assistant|>", special=False)) > 4


def test_eval_is_the_validation_of_training(trained: Path, notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the data of its training a model's loss is the last validation loss of its log; the line says the same."""
    last = read_records(trained / "log.jsonl")[-1]
    for data in ([], ["--data", str(notes)]):
        assert main(["eval", "--model", str(trained), "--device", "cpu", "--json", *data]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["validation"] == pytest.approx(last["validation"], rel=1e-6)
        assert found["perplexity"] == pytest.approx(last["perplexity"], rel=1e-6)
        assert found["texts"] == len(read_texts(str(notes))[1])
    assert main(["eval", "--model", str(trained), "--device", "cpu", "--batch", "5"]) == 0
    shown = capsys.readouterr().out
    assert f"loss {last['validation']:.3f}, perplexity {last['perplexity']:.2f} over {found['tokens']:,} tok" in shown


def test_what_eval_prints_is_json(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A perplexity that no float can hold is null: JSON has no infinity."""
    monkeypatch.setattr(eval_command, "evaluate", lambda *_: {"validation": 900.0, "perplexity": perplexity(900.0)})
    assert main(["eval", "--model", str(trained), "--device", "cpu", "--json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=pytest.fail)["perplexity"] is None
    assert json.loads(printed)["validation"] == 900.0


@pytest.mark.parametrize("place", ["meta", "meta:0"])
def test_nothing_is_computed_without_numbers(place: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The device "meta" is refused by its name, and no file is called damaged."""
    with pytest.raises(SystemExit):
        main(["eval", "--model", str(trained), "--device", place])
    assert f"on '{place}' there are no numbers to compute with" in capsys.readouterr().err


def test_eval_reads_all_of_another_file(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a file that training has not read every token counts but the first of each piece."""
    (tmp_path / "other.txt").write_text("7 is one less than 8.")
    assert (
        main(["eval", "--model", str(trained), "--data", str(tmp_path / "other.txt"), "--device", "cpu", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == len(load_tokenizer(trained).encode("7 is one less than 8.")) - 1
    assert found["texts"] == 1


def test_models_that_come_along_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Each checkpoint of the library is known to `sample` by its name, and the help names it."""
    for name in checkpoints.names():
        assert main(["sample", "--model", name, "--tokens", "5", "--temperature", "0", "--device", "cpu"]) == 0
        assert capsys.readouterr().out.startswith("Once")
        assert name in TRAINED


def test_what_cannot_chat_says_so(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model whose tokenizer has no signs for turns is refused by name; so is one smaller than its tokenizer."""
    tokenizer = CharacterTokenizer.train(["17 is one less than 18."])
    GPT(replace(TINY, vocab_size=tokenizer.vocab_size)).save_pretrained(tmp_path, tokenizer)
    assert main(["chat", "--model", str(tmp_path), "--device", "cpu"]) == 1
    assert f"{tmp_path} cannot chat: its tokenizer has no <|user|>, <|assistant|>, <|end|>" in capsys.readouterr().err
    GPT(replace(TINY, vocab_size=3)).save_pretrained(tmp_path, tokenizer)
    assert main(["sample", "--model", str(tmp_path), "--device", "cpu"]) == 1
    assert f"has {tokenizer.vocab_size} tokens, the model beside it only 3" in capsys.readouterr().err


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


PUBLISHED = {
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "gpt2": 124_439_808,
    "transformer-base": 63_082_496,
    "transformer-big": 214_245_376,
    "vit-b-16": 86_567_656,
}


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "tiny"])
def test_every_preset_is_counted(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each preset's parts add up to its total, which is the published one; the tiny ones are tiny."""
    assert main(["params", preset, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    total = counts.pop("total")
    assert total == sum(counts.values()) == PUBLISHED.get(preset, total)
    assert preset in PUBLISHED or total < 3_000_000


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
    "sample --model tails": "no saved model in 'tails'",
    "chat --model nowhere": "no saved model in 'nowhere'",
    "eval --model nowhere": "no saved model in 'nowhere'",
    "eval --model {trained} --data tails": "no data set and no file '",
    "eval --model {trained} --data {empty}": "in none of 0 texts a token follows another",
    "train --out {new} --data {bytes}": "is no text in UTF-8: invalid start byte at byte 0",
    "sample --model nowhere": "no saved model in 'nowhere'",
    "sample --model {trained} --prompt=": "the prompt is empty",
    "sample --model {trained} --temperature -1": "temperature",
    "sample --model {trained} --min-p 2": "min_p 2.0 is not in [0, 1]",
    "sample --model {trained} --repetition-penalty 0": "repetition_penalty 0.0 is not positive",
    "train --out {trained}": "holds a run: --resume goes on with it",
    "train --out {trained} --resume --seed 7": "has --seed 0, not 7: leave it out",
    "train --out {new} --resume": "no run to resume in",
    "train --out {model}": "model.safetensors is of no run of `train`, and would be lost: take another --out",
    "train --out {new} --data tails": "no data set and no file '",
    "train --out {new} --data {notes} --batch 99999": " texts, which do not fill one --batch of 99999",
    "train --out {new} --data {short}": "too few to learn from: 12,000 is the least",
    "tokenize show --tokenizer nowhere.json x": "nowhere.json",
    "tokenize train --out {new} --data {short} --vocab-size 100": "too few",
}


@pytest.mark.parametrize(("command", "reason"), MISTAKES.items())
def test_a_mistake_costs_one_line(
    command: str, reason: str, trained: Path, notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's mistake ends with 1 and one line that names it; nothing is written, and nothing was said before."""
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    places = {f"{{{name}}}": tmp_path / f"{name}.txt" for name in ("short", "empty", "bytes")}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"somebody's")
    places |= {"{model}": tmp_path / "model", "{trained}": trained, "{notes}": notes, "{new}": tmp_path / "new"}
    before = {path: path.read_bytes() for path in trained.iterdir()}
    for name, path in places.items():
        command = command.replace(name, str(path))
    assert main(command.split()) == 1
    said, error = capsys.readouterr()
    assert said == ""
    assert reason in error
    assert error.count("\n") == 1
    assert error.startswith(f"tinytrans {command.split()[0]}: ")
    assert not (tmp_path / "new").exists()
    assert [path.read_bytes() for path in (tmp_path / "model").iterdir()] == [b"somebody's"]
    assert {path: path.read_bytes() for path in trained.iterdir()} == before


MISTYPED = {
    "": "required",
    "train": "required: --out",
    "train --out x --steps 0": "--steps: 0 is not positive",
    "train --out x --seed -1": "--seed: -1 does not lie in 0 ... 4294967295",
    "sample --model x --seed 1180591620717411303424": "--seed: 1180591620717411303424 does not lie in 0 ... 4294967295",
    "sample --model x --top-k 0": "--top-k: 0 is not positive",
    "params gpt9": "no 'gpt9'; did you mean gpt2? There are ",
    "params vit-b": "no 'vit-b'; did you mean vit-b-16",
    "params zebra": "no 'zebra'; There are bert-base, ",
    "train --out x --preset bert-base": "no 'bert-base'; ",
}


@pytest.mark.parametrize(("command", "reason"), MISTYPED.items())
def test_what_is_mistyped_exits_with_2(command: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing or impossible option gets the usage, its own name, perhaps the name that was meant, and 2."""
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "usage: tinytrans" in error
    assert reason in error


def test_a_run_that_was_stopped_at_its_end_is_finished(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever says after Ctrl-C that these steps are enough gets the model, and what it costs on held-out texts."""
    stop_in_step_6(train, tmp_path / "run", monkeypatch)
    capsys.readouterr()
    assert train(tmp_path / "run", "--resume", "--steps", "6") == 0
    assert "validation loss " in capsys.readouterr().out
    assert GPT.from_pretrained(tmp_path / "run").config.d_model == TINY.d_model


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("tokenizer_for", "stopped before the run began: the same command starts it"),
        ("PaddedBatches", "stopped before the run began: the same command starts it"),
        ("pretrain", "stopped; go on with: tinytrans train --resume --out "),
    ],
)
def test_ctrl_c_at_any_moment_says_how_to_go_on(
    moment: str,
    words: str,
    train: Train,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where Ctrl-C breaks in before or beside a step, 130, what to type, and nothing that is in the way of it."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"tinytrans.commands.train.{moment}", stop)
        assert train(tmp_path / "run") == 130
    error = capsys.readouterr().err
    assert words in error
    assert train(tmp_path / "run", *(["--resume"] if "--resume" in error else [])) == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_two_processes_go_on_as_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to type names torchrun where torchrun had started it, and a folder's name in quotes where it needs them."""
    (tmp_path / "my run").mkdir()
    (tmp_path / "my run" / "run.json").write_text("{}")
    assert how_to_go_on(tmp_path / "my run").endswith(f": tinytrans train --resume --out '{tmp_path}/my run'")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ": torchrun --nproc-per-node 2 -m tinytrans train --resume --out " in how_to_go_on(tmp_path / "my run")


def test_ctrl_c_while_packages_come_in_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that catches everything while it is imported does not keep a command from being stopped."""

    def greedy(name: str) -> object:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        return importlib.import_module(name)

    monkeypatch.setattr("tinytrans.__main__.import_module", greedy)
    assert main(["params", "tales"]) == 130


def test_a_preset_without_room_for_bytes_reads_characters(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A vocabulary as small as that of `nano-shakespeare` is of all characters of the texts; such a model speaks."""
    monkeypatch.setitem(PRESETS, "letters", replace(TINY, vocab_size=PRESETS["nano-shakespeare"].vocab_size))
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", *out, "--data", str(notes), "--preset", "letters", "--steps", "2", "--device", "cpu"]) == 0
    tokenizer = load_tokenizer(tmp_path / "run")
    assert isinstance(tokenizer, CharacterTokenizer)
    assert {*notes.read_text()} <= tokenizer.vocab.keys()
    capsys.readouterr()
    assert (
        main(["sample", "--model", str(tmp_path / "run"), "--prompt", "7 is", "--tokens", "3", "--device", "cpu"]) == 0
    )
    assert capsys.readouterr().out.startswith("7 is")


@pytest.mark.parametrize("max_len", [1, 5, 64, 1000])
def test_no_token_of_a_long_text_is_lost(max_len: int, notes: Path, trained: Path) -> None:
    """Cut to what the model reads, texts ask once for each of their tokens but the first, in its place."""
    tokenizer, texts = load_tokenizer(trained), [*read_texts(str(notes))[0][:5], "7", ""]
    rows = rows_of(tokenizer, texts, max_len)
    assert max(map(len, rows)) <= max_len + 1
    wanted = [pair for ids in tokenizer.encode_batch(texts) for pair in pairwise(ids)]
    assert [pair for row in rows for pair in pairwise(row)] == wanted


def test_a_text_of_single_tokens_is_refused_before_training(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no token follows another there is nothing to learn: no run begins that could not go on."""
    (tmp_path / "same.txt").write_text("a" * 13_000)
    assert train(tmp_path / "run", "--data", str(tmp_path / "same.txt")) == 1
    assert "a token follows another" in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("command", ["chat --model {trained}", "tokenize show --tokenizer {trained}"])
def test_a_closed_input_is_named(
    command: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a shell has closed standard input (`<&-`) there is one line, no traceback."""
    monkeypatch.setattr("sys.stdin", None)
    assert main(command.format(trained=trained).split()) == 1
    assert "standard input is closed" in capsys.readouterr().err


def test_bytes_that_are_no_text_can_be_typed(trained: Path) -> None:
    """What is no UTF-8 comes in as U+FFFD, in whatever locale; a chat goes on."""
    for locale in ("C", "C.UTF-8"):
        command = [sys.executable, "-m", "tinytrans", "tokenize", "show", "--tokenizer", str(trained)]
        environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run(command, cwd=ROOT, input=b"7\xff", capture_output=True, check=True, env=environment)
        assert done.stderr == b"4 tokens for 2 characters\n"


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_file_from_another_system_is_the_same_text(bom: str, tmp_path: Path) -> None:
    """CRLF and a mark at the file's beginning are no part of its text."""
    text = "one line\nand another\n"
    (tmp_path / "theirs.txt").write_bytes((bom + text.replace("\n", "\r\n")).encode())
    assert read_pieces(str(tmp_path / "theirs.txt")) == [text]


def test_a_reader_may_leave_early() -> None:
    """`tinytrans params gpt2 | head -1`: no traceback, and 0; on a full disk one line, and 1."""
    command = [sys.executable, "-m", "tinytrans", "params", "tales"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stderr is not None
        one.stdout.close()
        assert one.stderr.read() == b""
        assert one.wait() == 0
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 1
        assert done.stderr == b"tinytrans params: [Errno 28] No space left on device\n"
