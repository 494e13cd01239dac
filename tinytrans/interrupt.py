"""Ctrl-C, pressed at any moment -> heard at a good one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C waits until it is asked for; a second press breaks in as KeyboardInterrupt.

    Only the main thread gets signals: in another nothing is held, and the answer is always no.
    """
    presses: list[int] = []

    def press(number: int, _frame: object) -> None:
        presses.append(number)
        if len(presses) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(presses)
    finally:
        signal.signal(signal.SIGINT, before)
