"""The command line of the recipes: `python -m tinytrans.recipes NAME` -> a table, or one JSON object."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from tinytrans.commands.options import device, one_of, seed
from tinytrans.commands.outcome import Work, outcome
from tinytrans.recipes import KEPT, RECIPES

ABOUT = """recipes, each beside a control:
  tales      a GPT of a million parameters learns to tell tales and to do as it is told
  stories    the same from books, where nobody chats: what instruction tuning starts from
  sft        instruction tuning of all weights; of thin matrices beside them: lora; of biases alone: bitfit
  reward     a reward model, from pairs of answers of which one is liked better
  dpo, orpo  a model is taught to please by such pairs alone
  grpo, ppo  the same by rewards for what it says: from a rule, from the reward model
  dates      dates in sixteen languages -> ISO 8601, by a GRU with attention and without
  numbers    number words in English -> in three languages, by an encoder-decoder
  mlm, bert  an encoder guesses hidden words; fine-tuned, it tells which library a paragraph is from
  vit        handwritten digits, by a vision transformer
  captions   the same digits, their names spelt by a decoder that reads pictures
  words      word vectors: are the neighbours of an animal animals?
"""


def parser() -> argparse.ArgumentParser:
    """The options, with their help."""
    made = argparse.ArgumentParser(
        "python -m tinytrans.recipes",
        description="Run a recipe and print what it reached, what it aimed at and what that cost.",
        epilog=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("name", type=one_of(RECIPES), metavar="NAME", help="the name of one of those below")
    made.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    made.add_argument("--quick", action="store_true", help="the same code in a few steps; the figures mean nothing")
    made.add_argument("--seed", type=seed, default=0, help="the chance of weights, data and sampling (default: 0)")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where models are kept (default: this user's cache)")
    made.add_argument(
        "--keep",
        action="store_true",
        help=f"put the model among those that come with the library, if all aims are reached ({', '.join(KEPT)})",
    )
    made.add_argument("--device", type=device, help="cpu, cuda, ... (default: a GPU if there is one)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one recipe -> 0; 1 where an aim was missed (a quick run has none) or a need; 130 after Ctrl-C."""
    return outcome(partial(asked, argv))


def asked(argv: Sequence[str] | None) -> tuple[str, Work]:
    """The words of the command line -> the recipe's name, and its work; torch comes with the work."""
    options = parser()
    args = options.parse_args(argv)
    if args.keep and (args.quick or args.name not in KEPT):
        options.error(f"--keep is for a full run of {' or '.join(KEPT)}, not {args.name}{' --quick' * args.quick}")
    return f"tinytrans.recipes {args.name}", partial(import_module("tinytrans.recipes.command").run, args)


if __name__ == "__main__":
    sys.exit(main())
