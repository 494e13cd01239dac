"""Display: a run's History as it grows -> a bar on the screen, and a record of what came since the last one."""

from __future__ import annotations

import time

from tqdm import tqdm

from tinytrans.training.journal import History, Record

READ_EVERY = 10  # steps between two looks at the losses: on a GPU each look waits for the device


class Display:
    """The bar, and the record of what came since the last one."""

    def __init__(self, history: History, steps: int, progress: bool) -> None:
        self.history = history
        self.bar = tqdm(total=max(steps, history.steps), initial=history.steps, disable=not progress, mininterval=0.5)
        self.began = time.perf_counter()
        self.seconds_before, self.tokens_before = history.seconds, history.seen

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, lr: float) -> None:
        """One step more on the bar, with the figures that are known by now."""
        self.bar.update()
        seconds = time.perf_counter() - self.began
        if self.history.steps and self.bar.n == self.history.steps:
            speed = (self.history.seen - self.tokens_before) / seconds
            self.bar.set_postfix_str(
                f"loss {self.history.mean(READ_EVERY):.3f}, {speed:,.0f} tokens/s, lr {lr:.2g}", refresh=False
            )

    def record(self, lr: float) -> Record:
        """The steps since the last record in five numbers; tokens and seconds are those of the whole run."""
        history = self.history
        since = history.steps - (int(history.records[-1]["step"]) if history.records else 0)
        seconds = self.seconds_before + time.perf_counter() - self.began
        return {
            "step": history.steps,
            "loss": history.mean(since),
            "lr": lr,
            "tokens": history.seen,
            "seconds": round(seconds, 3),
        }
