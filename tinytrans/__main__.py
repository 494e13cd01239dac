"""The command line: `tinytrans train | sample | params | tokenize`; words of the user in, text and files out.

torch and what needs it are imported inside the commands, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinytrans.config import PRESETS, GPTConfig
from tinytrans.data import TEXTS
from tinytrans.options import DEFAULTS, parser

if TYPE_CHECKING:
    from tinytrans.tokenizers import Tokenizer

PIECE = 600  # characters of a user's file that make one text: about 200 tokens


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command -> 0; 1 after a mistake named in one line; 130 after Ctrl-C. argparse itself exits with 2."""
    args = parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"tinytrans {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def train(args: argparse.Namespace) -> int:
    """Data, tokenizer, model, `pretrain`: everything that a later `--resume` or `sample` needs lies in the folder."""
    from dataclasses import replace

    from tinytrans import device
    from tinytrans.data.batches import PaddedBatches, pad
    from tinytrans.models.gpt import GPT
    from tinytrans.tokenizers import load_tokenizer
    from tinytrans.training.pretrain import pretrain

    out = Path(args.out)
    settings = run_settings(args, out / "run.json")
    preset = PRESETS[settings["preset"]]
    if not isinstance(preset, GPTConfig):
        raise ValueError(f"the preset {settings['preset']!r} is a {preset.model}, and only a gpt is trained on texts")
    texts, held_out = read_texts(settings["data"])
    if not (out / "run.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        train_tokenizer(texts, preset.vocab_size).save(out / "tokenizer.json")
        (out / "run.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(out)
    device.seed(settings["seed"])
    model = GPT(replace(preset, vocab_size=tokenizer.vocab_size))
    ids, unseen = ([tokenizer.encode(text) for text in part] for part in (texts, held_out))
    B, max_len = settings["batch"], preset.max_len
    print(f"{model.n_params:,} parameters, {len(texts):,} texts, {tokenizer.vocab_size:,} tokens to choose from")
    print(f"guessing blindly costs ln V = {math.log(tokenizer.vocab_size):.3f} a token; that is where the loss begins")
    history = pretrain(
        model,
        PaddedBatches(ids, B, max_len=max_len, seed=settings["seed"]),
        steps=settings["steps"],
        validation=[pad(unseen[i : i + B], max_len=max_len) for i in range(0, len(unseen), B)],
        checkpoint=out / "checkpoint.safetensors",
        resume=args.resume,
        log=out / "log.jsonl",
        device=device.pick(args.device),
    )
    if history.interrupted:
        print(f"stopped after step {history.steps}; go on with: tinytrans train --resume --out {out}", file=sys.stderr)
        return 130
    model.save_pretrained(out, tokenizer)
    last = history.records[-1]
    print(
        f"{out}: validation loss {last['validation']:.3f}, perplexity {last['perplexity']:.2f}, {last['seconds']:.0f} s"
    )
    return 0


def sample(args: argparse.Namespace) -> int:
    """A trained model goes on from the prompt; the text appears as it is made."""
    import torch

    from tinytrans import device
    from tinytrans.data.chat import END, USER
    from tinytrans.models.gpt import GPT
    from tinytrans.sampling import stream
    from tinytrans.tokenizers import load_tokenizer

    place = device.pick(args.device)
    model = GPT.from_pretrained(args.model, device=place)
    tokenizer = load_tokenizer(args.model)
    stops = [i for name, i in tokenizer.special_tokens.items() if name in (END, USER)]  # the text, or its turn, is over
    ids = tokenizer.encode(args.prompt)
    if not ids:
        raise ValueError("the prompt is empty: a model goes on from at least one token")
    generator = None if args.seed is None else torch.Generator(place).manual_seed(args.seed)
    filters = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p}
    begin = torch.tensor([ids], device=place)
    shown = tokenizer.decode(ids)
    print(shown, end="", flush=True)
    for new in stream(model, begin, max_new_tokens=args.tokens, stop=stops or None, generator=generator, **filters):
        if int(new) in stops:
            break
        ids.append(int(new))
        text = tokenizer.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # half a character: its other bytes come with the next token
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print()
    return 0


def params(args: argparse.Namespace) -> int:
    """A preset's parameters, counted on the meta device: nothing is allocated, and a tied matrix counts once."""
    import torch

    from tinytrans.models import build

    with torch.device("meta"):
        model = build(PRESETS[args.preset])
    parts = Counter({"total": model.n_params})
    for name, weight in model.named_parameters():
        inside = [part for part in ("attention", "cross", "feedforward") if part in name.split(".")]
        parts["norms" if "norm" in name else inside[0] if inside else name.split(".")[0]] += weight.numel()
    if args.json:
        print(json.dumps(parts))
        return 0
    for part, number in parts.items():
        print(f"{part:<12}{number:>16,}{number / parts['total']:>8.1%}")
    return 0


def tokenize(args: argparse.Namespace) -> int:
    """Learn a tokenizer from data; or show how one takes a text apart, as ids or token by token."""
    from tinytrans.tokenizers import load_tokenizer

    if args.action == "train":
        tokenizer: Tokenizer = train_tokenizer(read_texts(args.data)[0], args.vocab_size)
        file = Path(args.out)
        file.parent.mkdir(parents=True, exist_ok=True)
        print(f"{tokenizer.save(file)}: {tokenizer.vocab_size:,} tokens")
        return 0
    tokenizer = load_tokenizer(args.tokenizer)
    text = sys.stdin.read() if args.text is None else args.text
    ids = tokenizer.encode(text)
    if args.action == "encode":
        print(*ids)
    else:
        print(*(json.dumps(tokenizer.decode([i]), ensure_ascii=False) for i in ids))
        print(f"{len(ids)} tokens for {len(text)} characters", file=sys.stderr)
    return 0


COMMANDS = {"train": train, "sample": sample, "params": params, "tokenize": tokenize}


def run_settings(args: argparse.Namespace, file: Path) -> dict[str, Any]:
    """What a run is made of: defaults and what was given; for a resume what its run.json says, but for new steps."""
    given = {name: getattr(args, name) for name in DEFAULTS if getattr(args, name) is not None}
    if "data" in given and given["data"] not in TEXTS:
        given["data"] = str(Path(given["data"]).resolve())
    if not file.exists():
        if args.resume:
            raise FileNotFoundError(f"no run to resume in {file.parent}")
        return DEFAULTS | given
    if not args.resume:
        raise FileExistsError(f"{file.parent} holds a run: --resume goes on with it, another --out begins anew")
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for name in given.keys() - {"steps"}:
        if given[name] != settings[name]:
            raise ValueError(f"the run in {file.parent} has --{name} {settings[name]}, not {given[name]}: leave it out")
    return settings | given


def read_texts(data: str) -> tuple[list[str], list[str]]:
    """The name of a data set or of a text file -> texts to train on, texts held out (of a file every tenth piece)."""
    from tinytrans.data import load

    if data in TEXTS:
        few = {"n": 300} if data == "tales" else {}
        return load(data).documents(), load(data, split="validation", **few).documents()[:300]
    if not Path(data).is_file():
        raise FileNotFoundError(f"no data set and no file {data!r}; those with texts are {', '.join(TEXTS)}")
    text = Path(data).read_text(encoding="utf-8")
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    if len(pieces) < 20:
        raise ValueError(f"{data} has {len(text):,} characters, too few to learn from: {20 * PIECE:,} is the least")
    return [piece for i, piece in enumerate(pieces) if i % 10], pieces[::10]


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer from about 5,000 of the texts, spread over all."""
    from tinytrans.data.chat import SPECIAL_TOKENS
    from tinytrans.tokenizers import BPETokenizer

    return BPETokenizer.train(texts[:: max(1, len(texts) // 5000)], vocab_size, SPECIAL_TOKENS)


if __name__ == "__main__":
    sys.exit(main())
