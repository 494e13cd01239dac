"""Train: data, a preset and a folder -> a model and all that a later `--resume` or `sample` needs.

Started by `torchrun --nproc-per-node N -m tinytrans train ...`, N processes train one model, each on its own batches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinytrans import device
from tinytrans.commands.options import DEFAULTS
from tinytrans.commands.texts import place_of, read_texts, train_tokenizer
from tinytrans.config import PRESETS, GPTConfig
from tinytrans.data.batches import Batch, PaddedBatches, pad
from tinytrans.files import write_whole
from tinytrans.models.gpt import GPT
from tinytrans.tokenizers import Tokenizer, load_tokenizer
from tinytrans.training import ranks
from tinytrans.training.pretrain import evaluate, pretrain


def run(args: argparse.Namespace) -> int:
    """Train as told -> 0, or 130 where Ctrl-C has stopped it; of several processes the first writes and speaks."""
    place = device.pick(args.device)
    try:
        with ranks.joined():
            return train(args, place, speaks=ranks.rank() == 0)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print(f"\nstopped{how_to_go_on(Path(args.out))}", file=sys.stderr)
        return 130


def how_to_go_on(out: Path) -> str:
    """What to type where Ctrl-C has stopped a run."""
    if not (out / "run.json").exists():
        return " before the run began: the same command starts it"
    return f"; go on with: tinytrans train --resume --out {shlex.quote(str(out))}"


def train(args: argparse.Namespace, place: Any, speaks: bool) -> int:
    """Data, tokenizer, model, `pretrain`."""
    out = Path(args.out)
    settings = run_settings(args, out / "run.json")
    preset = PRESETS[settings["preset"]]
    if not isinstance(preset, GPTConfig):
        raise ValueError(f"the preset {settings['preset']!r} is a {preset.model}, and only a gpt is trained on texts")
    texts, held_out = read_texts(settings["data"])
    B, max_len = settings["batch"], preset.max_len
    if len(texts) < B:
        raise ValueError(f"{settings['data']} makes {len(texts)} texts, which do not fill one --batch of {B}")
    tokenizer = begin(out, texts, preset.vocab_size)
    batches = PaddedBatches(followed(tokenizer, texts), B, max_len=max_len, seed=settings["seed"])
    validation = held_out_batches(tokenizer, held_out, B, max_len)
    write_settings(out, settings)
    device.seed(settings["seed"])
    model = GPT(replace(preset, vocab_size=tokenizer.vocab_size))
    if speaks:
        V = tokenizer.vocab_size
        print(f"{model.n_params:,} parameters, {len(texts):,} texts, {V:,} tokens to choose from")
        print(f"guessing blindly costs ln V = {math.log(V):.3f} a token; that is where the loss begins")
    history = pretrain(
        model,
        batches,
        steps=settings["steps"],
        validation=validation,
        checkpoint=out / "checkpoint.safetensors",
        resume=args.resume,
        log=out / "log.jsonl",
        compile=args.compile,
        device=place,
    )
    if history.interrupted:
        if speaks:
            print(f"stopped after step {history.steps}{how_to_go_on(out)}", file=sys.stderr)
        return 130
    if speaks:
        model.save_pretrained(out, tokenizer)
        last = history.records[-1]
        if "validation" not in last:  # Ctrl-C had ended the run at this very step
            last = last | evaluate(model, validation)
        figures = f"validation loss {last['validation']:.3f}, perplexity {last['perplexity']:.2f}"
        print(f"{out}: {figures}, {last['seconds']:.0f} s")
    return 0


def begin(out: Path, texts: list[str], vocab_size: int) -> Tokenizer:
    """The run's tokenizer; a new run's folder gets it first, by the first process while others wait."""
    ranks.gather(None)  # all have seen whether there is a run already
    if ranks.rank() == 0 and not (out / "run.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        train_tokenizer(texts, vocab_size).save(out / "tokenizer.json")
    ranks.gather(None)
    return load_tokenizer(out)


def write_settings(out: Path, settings: dict[str, Any]) -> None:
    """A new run's folder gets run.json, which makes it one that can be resumed."""
    if ranks.rank() == 0 and not (out / "run.json").exists():
        write_whole(out / "run.json", json.dumps(settings, indent=2) + "\n")


def followed(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Texts as ids, those left out in which no token follows another; raises ValueError where no other is left."""
    ids = [row for row in tokenizer.encode_batch(texts) if len(row) > 1]
    if not ids:
        raise ValueError(f"in none of {len(texts)} texts a token follows another")
    return ids


def held_out_batches(tokenizer: Tokenizer, texts: list[str], B: int, max_len: int) -> list[Batch]:
    """Texts as batches for `evaluate`."""
    ids = followed(tokenizer, texts)
    return [pad(ids[i : i + B], max_len=max_len) for i in range(0, len(ids), B)]


def run_settings(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """What a run is made of: defaults and what was given; for a resume what its run.json says, but for new steps."""
    given = {name: getattr(args, name) for name in DEFAULTS if getattr(args, name) is not None}
    if "data" in given:
        given["data"] = place_of(given["data"])
    if not file.exists():
        if args.resume:
            raise FileNotFoundError(f"no run to resume in {file.parent}")
        if (model := file.with_name("model.safetensors")).exists():
            raise FileExistsError(f"{model} is of no run of `train`, and would be lost: take another --out")
        return DEFAULTS | given
    if not args.resume:
        raise FileExistsError(f"{file.parent} holds a run: --resume goes on with it, another --out begins anew")
    settings = read_settings(file)
    for name in given.keys() - {"steps"}:
        if given[name] != settings[name]:
            raise ValueError(f"the run in {file.parent} has --{name} {settings[name]}, not {given[name]}: leave it out")
    return settings | given


def read_settings(file: Path) -> dict[str, Any]:
    """What run.json says; raises ValueError where it is damaged or lacks a setting."""
    try:
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if missing := DEFAULTS.keys() - settings:
        raise ValueError(f"{file} lacks {', '.join(sorted(missing))}")
    return settings
