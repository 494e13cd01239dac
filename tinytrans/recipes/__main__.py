"""The command line of the recipes: `python -m tinytrans.recipes NAME` -> a table, or one JSON object."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tinytrans import checkpoints
from tinytrans.device import pick
from tinytrans.models import load_model
from tinytrans.recipes import KEPT, RECIPES, recipe
from tinytrans.recipes.report import Run, as_json, as_table, measured
from tinytrans.tokenizers import load_tokenizer


def parser() -> argparse.ArgumentParser:
    """The options, with their help."""
    made = argparse.ArgumentParser("python -m tinytrans.recipes", description="Run a recipe and print what it reached.")
    made.add_argument("name", choices=RECIPES, metavar="NAME", help=", ".join(RECIPES))
    made.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    made.add_argument("--quick", action="store_true", help="the same code in a few steps; the figures mean nothing")
    made.add_argument("--seed", type=int, default=0, help="the chance of weights, data order and sampling (default: 0)")
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
    options = parser()
    args = options.parse_args(argv)
    if args.keep and (args.quick or args.name not in KEPT):
        options.error(f"--keep is for a full run of {' or '.join(KEPT)}, not {args.name}{' --quick' * args.quick}")
    try:
        run = Run(seed=args.seed, quick=args.quick, device=pick(args.device), out=args.out, progress=not args.json)
        report = measured(recipe(args.name), run)
    except KeyboardInterrupt:
        return 130
    except (ImportError, OSError, ValueError) as error:
        print(f"tinytrans.recipes {args.name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(as_json(args.name, run, report) if args.json else as_table(args.name, run, report))
    reached = all(report.aims.values())
    if args.keep and reached:
        folder = run.folder(args.name)
        checkpoints.keep(args.name, load_model(folder), load_tokenizer(folder), as_json(args.name, run, report))
    return 0 if run.quick or reached else 1


if __name__ == "__main__":
    sys.exit(main())
