"""The command line: `tinytrans train | sample | chat | eval | params | tokenize`; words in, text and files out.

A command's file is imported when it is asked for, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from tinytrans.commands.outcome import Work, outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command -> 0; 1 after a mistake named in one line; 130 after Ctrl-C. argparse itself exits with 2."""
    return outcome(partial(asked, argv))


def asked(argv: Sequence[str] | None) -> tuple[str, Work]:
    """The words of the command line -> the command's name, and its work."""
    args = import_module("tinytrans.commands.options").parser().parse_args(argv)
    return f"tinytrans {args.command}", partial(import_module(f"tinytrans.commands.{args.command}").run, args)


if __name__ == "__main__":
    sys.exit(main())
