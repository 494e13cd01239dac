"""The command line: `tinytrans train | sample | chat | eval | params | tokenize`; words in, text and files out.

A command's file is imported when it is asked for, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from tinytrans.interrupt import held


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command -> 0; 1 after a mistake named in one line; 130 after Ctrl-C. argparse itself exits with 2."""
    name = "tinytrans"
    try:
        with held() as pressed:  # packages that are broken off while they are imported may swallow it, or go on halved
            args = import_module("tinytrans.commands.options").parser().parse_args(argv)
            name = f"tinytrans {args.command}"
            command = import_module(f"tinytrans.commands.{args.command}")
        if pressed():
            raise KeyboardInterrupt
        speak_plainly()
        status: int = command.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()  # what a reader has not taken shows here, and not at the end of the process
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"\n{name}: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return status


def speak_plainly() -> None:
    """What a terminal has no letters for is written as its number, rather than that a long run ends in an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
