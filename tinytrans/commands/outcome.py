"""Outcome: the work of a command line -> its exit status, and one line where it did not come to its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tinytrans.interrupt import held

Work = Callable[[], int]


def outcome(find: Callable[[], tuple[str, Work]]) -> int:
    """Find what to do and do it -> its status; 1 after a mistake named in one line; 130 after Ctrl-C.

    `find` imports what is needed and gives the command's name and its work. A reader that leaves early, `head` for
    one, is no mistake: 0.
    """
    name = "tinytrans"
    try:
        with held() as pressed:  # packages that are broken off while they are imported may swallow it, or go on halved
            name, work = find()
        if pressed():
            raise KeyboardInterrupt
        speak_plainly()
        status = work()
        if sys.stdout is not None:
            sys.stdout.flush()  # what nobody has taken shows here, and not at the end of the process
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"\n{name}: stopped", file=sys.stderr)
        return 130
    except (ImportError, ValueError, OSError, ArithmeticError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return status


def speak_plainly() -> None:
    """What a terminal has no letters for is written as its number, rather than that a long run ends in an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
