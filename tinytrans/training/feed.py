"""Where batches come from: a function, a list, a stream -> one batch after the other, from any number on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any, Protocol

import torch
from torch import Tensor


class Indexed(Protocol):
    """Batches by number: a list, or an endless stream such as those of `tinytrans.data.batches`."""

    def __getitem__(self, number: int, /) -> Any: ...


Batches = Callable[[int], Any] | Indexed | Iterable[Any]


def draw(batches: Batches, start: int, stride: int = 1) -> Iterator[Any]:
    """The batches number start, start + stride, ... without end; what has an end begins anew.

    A function is called and a list indexed for what is needed; of a mere iterable the other batches are read and
    dropped. Raises ValueError for an iterator that runs out, and for no batches at all.
    """
    if callable(batches):
        return map(batches, count(start, stride))
    if hasattr(batches, "__getitem__"):
        return _by_number(batches, start, stride)
    return islice(_over_and_over(batches), start, None, stride)


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch of tensors, tuples, lists and dicts comes to the device; whatever else is in it stays as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        values = [to_device(value, device) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)  # a NamedTuple takes each
    return batch


def _by_number(batches: Any, start: int, stride: int) -> Iterator[Any]:
    size = len(batches) if hasattr(batches, "__len__") else None
    if size == 0:
        raise ValueError("there are no batches")
    for number in count(start, stride):
        yield batches[number if size is None else number % size]


def _over_and_over(batches: Iterable[Any]) -> Iterator[Any]:
    for turn in count():
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                f"the batches ran out after {turn} turns: hand in a function of the batch's number or a list"
            )
