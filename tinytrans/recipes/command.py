"""A recipe's options -> its report on the screen, and its model among those that come with the library if wanted."""

from __future__ import annotations

import argparse
import sys

from tinytrans import checkpoints
from tinytrans.device import pick
from tinytrans.files import check_writable
from tinytrans.models import load_model
from tinytrans.recipes import recipe
from tinytrans.recipes.report import Run, as_json, as_table, measured
from tinytrans.tokenizers import load_tokenizer


def run(args: argparse.Namespace) -> int:
    """Run one recipe -> 0; 1 where an aim was missed, of which a quick run has none; 130 after Ctrl-C.

    Raises OSError at once, not after minutes of training, where nothing can be written into `--out`.
    """
    if args.out is not None:
        check_writable(args.out)
    told = Run(seed=args.seed, quick=args.quick, device=pick(args.device), out=args.out, progress=not args.json)
    try:
        report = measured(recipe(args.name), told)
    except KeyboardInterrupt:
        done = f"{told.folder('*').parent} keeps what was finished before"
        print(f"\ntinytrans.recipes {args.name}: stopped; {done}, the same command goes on from it", file=sys.stderr)
        return 130
    print(as_json(args.name, told, report) if args.json else as_table(args.name, told, report), flush=True)
    reached = all(report.aims.values())
    if args.keep and reached:
        folder = told.folder(args.name)
        checkpoints.keep(args.name, load_model(folder), load_tokenizer(folder), as_json(args.name, told, report))
    return 0 if told.quick or reached else 1
