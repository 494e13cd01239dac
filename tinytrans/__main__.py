"""The command line: `tinytrans train | sample | chat | eval | params | tokenize`; words in, text and files out.

A command's file is imported when it is asked for, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from tinytrans.commands.options import parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command -> 0; 1 after a mistake named in one line; 130 after Ctrl-C. argparse itself exits with 2."""
    args = parser().parse_args(argv)
    try:
        status: int = import_module(f"tinytrans.commands.{args.command}").run(args)
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"tinytrans {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
