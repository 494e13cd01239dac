"""Options: the words of a command line -> their values, and the help that explains them.

Nothing here needs torch, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from textwrap import fill

from tinytrans import __version__
from tinytrans.config import PRESETS, GPTConfig
from tinytrans.data import TEXTS

DEFAULTS = {"data": "tales", "preset": "tales", "steps": 800, "batch": 12, "seed": 0}
DESCRIPTION = "Train a small transformer on this machine and let it speak."
TRAINED = "what `train` left behind, or tales, stories or sft: small models that come with the library"
EXAMPLES = """examples:
  tinytrans sample --model tales                       a story, at once, by a model that comes with the library
  tinytrans train --out runs/tales                     a story-teller, in about two minutes on two CPU cores
  tinytrans train --out runs/tales --resume            go on after Ctrl-C or a crash, with the same losses
  tinytrans train --out runs/mine --data notes.txt     your own text
  torchrun --nproc-per-node 2 -m tinytrans train --out runs/two   two processes, or two GPUs, train one model
  tinytrans sample --model runs/tales --prompt "Once"  a story
  tinytrans chat --model runs/tales                    say what to tell, then ask about it
  tinytrans eval --model runs/tales                    loss and perplexity on held-out texts
  tinytrans params gpt2                                124,439,808, and where they are
  tinytrans tokenize show --tokenizer runs/tales "A rabbit."
"""


def parser() -> argparse.ArgumentParser:
    """The options of all commands, with their help."""
    plain = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("tinytrans", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=plain)
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="train | sample | chat | eval | params | tokenize"
    )
    sources = f"{', '.join(sorted(TEXTS))} or a text file (default: tales)"
    shapes = [name for name, config in PRESETS.items() if isinstance(config, GPTConfig)]
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--device", type=device, help="cpu, cuda, ... (default: a GPU if there is one)")

    voice = argparse.ArgumentParser(add_help=False)
    add = voice.add_argument
    add("--model", required=True, metavar="FOLDER", help=TRAINED)
    add("--tokens", type=positive, default=200, help="how many at most (default: 200)")
    add("--temperature", type=float, default=0.7, help="0 takes the likeliest, 1 draws as learnt (default: 0.7)")
    add("--top-k", type=positive, help="only the k likeliest tokens")
    add("--top-p", type=float, help="only the likeliest tokens that together have the probability p")
    add("--min-p", type=float, help="only tokens at least p times as likely as the likeliest")
    add("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1: less of what was said already")
    add("--seed", type=seed, help="the same seed gives the same text")

    about = """Learn a tokenizer from texts, and with it a model that predicts each next token: byte-level BPE, or
    characters with the preset nano-shakespeare. A bar shows the loss, in nats a token. In the folder are then
    model.safetensors, config.json and tokenizer.json for `sample`, `chat` and `eval`, a checkpoint for --resume,
    log.jsonl with the measures over time, and run.json with these settings."""
    add = commands.add_parser(
        "train", parents=[place], help="pretrain a model on stories or other texts", description=about
    ).add_argument
    add("--out", required=True, metavar="FOLDER", help="where model, tokenizer, checkpoint and log go")
    add("--data", help=sources)
    add("--preset", type=one_of(shapes), help=f"the model's shape: {', '.join(shapes)} (default: tales)")
    add("--steps", type=positive, help=f"how long to train (default: {DEFAULTS['steps']})")
    add("--batch", type=positive, help=f"texts a step and process (default: {DEFAULTS['batch']})")
    add("--seed", type=seed, help="the chance of weights and batches (default: 0)")
    add("--resume", action="store_true", help="go on with the run in the folder, with its own settings")
    add("--compile", action="store_true", help="torch.compile fuses the model's operations: slow to start, then faster")

    about = """Print the prompt and what the model says after it, token by token, until it ends its turn or has said
    --tokens. The filters act one after the other: temperature, top-k, top-p, min-p; then chance draws."""
    said = commands.add_parser(
        "sample", parents=[voice, place], help="let a trained model go on from a prompt", description=about
    )
    said.add_argument("--prompt", default="Once", help='or an instruction, "<|user|>...<|assistant|>" (default: Once)')

    about = """Say something to a trained model, line by line; the answer appears as it is made, and the model remembers
    what was said before, as far back as it can read. /new begins anew, /quit or the end of the input ends. Where the
    input is a file or a pipe, each line is a turn, and only the answers are printed."""
    commands.add_parser("chat", parents=[voice, place], help="talk with a trained model", description=about)

    about = """How well a model predicts held-out texts: the mean loss in nats a token, and the
    perplexity, among how many equally likely tokens it is torn. Of the data that it was trained with, the texts held
    out count; of any other file, all."""
    add = commands.add_parser("eval", parents=[place], help="measure a trained model", description=about).add_argument
    add("--model", required=True, metavar="FOLDER", help=TRAINED)
    add("--data", help=f"{', '.join(sorted(TEXTS))} or a text file (default: what it was trained with)")
    add("--batch", type=positive, default=DEFAULTS["batch"], help=f"texts at once (default: {DEFAULTS['batch']})")
    add("--json", action="store_true", help='{"validation": loss, "perplexity": p (infinite: null), "texts": n, ...}')

    about = """How many numbers a preset's model learns, and where they are. Nothing is allocated: the largest is
    counted as fast as the smallest. A matrix that two parts share counts once."""
    there_are = "presets:\n" + "\n".join(f"  {name:<24} {config.model}" for name, config in PRESETS.items())
    counted = commands.add_parser(
        "params",
        help="count a model's parameters, part by part",
        description=fill(" ".join(about.split()), 78),
        epilog=there_are,
        formatter_class=plain,
    )
    add = counted.add_argument
    add("preset", type=one_of(PRESETS), metavar="PRESET", help="the name of one of those below")
    add("--json", action="store_true", help='{"total": n, ...}')

    about = """A tokenizer turns text into the numbers that a model reads: `train` learns one, `encode` prints the
    numbers, `show` the pieces of text that they stand for."""
    actions = commands.add_parser(
        "tokenize", help="learn a tokenizer, or see what it makes of a text", description=about
    ).add_subparsers(dest="action", required=True, metavar="train | encode | show")
    add = actions.add_parser("train", help="learn a byte-level BPE tokenizer from data").add_argument
    add("--data", default="tales", help=sources)
    add("--vocab-size", type=positive, default=2048, help="256 bytes, special tokens, the rest merges (default: 2048)")
    add("--out", required=True, metavar="FILE", help="a tokenizer.json")
    for name, purpose in (("encode", "print the ids of a text"), ("show", "print a text's tokens, each in quotes")):
        add = actions.add_parser(name, help=purpose).add_argument
        add("text", nargs="?", help="left out: standard input")
        add("--tokenizer", required=True, metavar="PATH", help="a tokenizer.json or its folder")
    return top


def positive(text: str) -> int:
    """A positive integer, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def seed(text: str) -> int:
    """A seed that every source of chance takes, for argparse: from 0 to 2^32 - 1."""
    number = int(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{number} does not lie in 0 ... {2**32 - 1}")
    return number


def device(text: str) -> str:
    """The name of a device, for argparse; whether it is there, `tinytrans.device.pick` says.

    Not "meta": what lies there has a shape and no numbers.
    """
    if text.partition(":")[0] == "meta":
        raise argparse.ArgumentTypeError(f"on {text!r} there are no numbers to compute with")
    return text


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """One of the names, for argparse; of a mistyped one it is said which was perhaps meant, and which there are."""
    known = list(names)

    def name(text: str) -> str:
        if text not in known:
            near = get_close_matches(text, known, n=2, cutoff=0.5)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise argparse.ArgumentTypeError(f"no {text!r}; {meant}There are {', '.join(known)}")
        return text

    return name
