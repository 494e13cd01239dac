"""`python -m tests.benchmarks [NAME ...]`: names of contests -> a table, and a JSON beside it."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from tests.benchmarks.generation import generation, generation_of_eight
from tests.benchmarks.importing import importing
from tests.benchmarks.measure import Contest, Row, measure
from tests.benchmarks.rivals import grading
from tests.benchmarks.shakespeare import shakespeare
from tests.benchmarks.table import machine, save, table
from tests.benchmarks.tokenizing import bpe_encoding, bpe_training
from tests.benchmarks.training import training, training_llama

CONTESTS: dict[str, Callable[[bool], Contest | list[Row]]] = {
    "training": training,
    "training-llama": training_llama,
    "generation": generation,
    "generation8": generation_of_eight,
    "bpe-training": bpe_training,
    "bpe-encoding": bpe_encoding,
    "import": importing,
    "shakespeare": shakespeare,
    "grading": grading,
}
LONG = {"shakespeare", "grading"}  # minutes: only when asked for by name


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="tinytrans beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(CONTESTS)}")
    parser.add_argument("--quick", action="store_true", help="once each, as little as possible: figures mean nothing")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks.json"), metavar="FILE")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), metavar="N")
    parser.add_argument("--text", type=Path, metavar="FILE", help="tinyshakespeare, for the contest shakespeare")
    parser.add_argument("--otter", metavar="PYTHON", default=os.environ.get("OTTER_PYTHON"), help="for grading")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - CONTESTS.keys():
        parser.error(f"no contest {', '.join(sorted(unknown))}; there are {', '.join(CONTESTS)}")
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the contests one after the other, keep the rows in the JSON, and show them all."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # what the Rust package computes with
    before = machine()
    contests: dict[str, Callable[[bool], Contest | list[Row]]] = {
        **CONTESTS,
        "shakespeare": partial(shakespeare, text=options.text),
        "grading": partial(grading, otter=options.otter),
    }
    rows = []
    for name in options.names or [name for name in CONTESTS if name not in LONG]:
        contest = contests[name](options.quick)
        rows += measure(contest) if isinstance(contest, Contest) else contest
        save(options.json, rows, before, quick=options.quick)  # so far: whoever breaks off keeps what is measured
        gc.collect()  # a contest's models are not kept for the next
    print(table(rows))
    print(f"\n{before['threads']} threads, load {before['load']} at the beginning; {options.json}")


if __name__ == "__main__":
    main(sys.argv[1:])
