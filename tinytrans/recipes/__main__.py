"""The command line of the recipes: `python -m tinytrans.recipes NAME` -> a table, or one JSON object."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from tinytrans.commands.options import one_of, seed
from tinytrans.commands.outcome import Work, outcome
from tinytrans.recipes import KEPT, RECIPES


def parser() -> argparse.ArgumentParser:
    """The options, with their help."""
    made = argparse.ArgumentParser("python -m tinytrans.recipes", description="Run a recipe and print what it reached.")
    made.add_argument("name", type=one_of(RECIPES), metavar="NAME", help=", ".join(RECIPES))
    made.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    made.add_argument("--quick", action="store_true", help="the same code in a few steps; the figures mean nothing")
    made.add_argument("--seed", type=seed, default=0, help="the chance of weights, data and sampling (default: 0)")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where models are kept (default: this user's cache)")
    made.add_argument(
        "--keep",
        action="store_true",
        help=f"put the model among those that come with the library, if all aims are reached ({', '.join(KEPT)})",
    )
    made.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
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
