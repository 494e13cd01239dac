"""A name -> the data set: `load("tales")`, `load("docs")`; made or read on this machine, downloaded only if asked."""

from __future__ import annotations

from importlib import import_module
from typing import Any

DATA_SETS = {  # name, which is also the module -> class
    "dates": "Dates",
    "digits": "Digits",
    "docs": "Docs",
    "numbers": "Numbers",
    "scenes": "Scenes",
    "tales": "Tales",
}

TEXTS = ("docs", "tales")  # those with documents(): texts for a language model

DOWNLOADED = ("mnist", "tinyshakespeare", "tinystories")  # functions of `tinytrans.data.downloads`

__all__ = ["DATA_SETS", "TEXTS", "load"]


def load(name: str, **options: Any) -> Any:
    """The data set of that name; the options go to its class. Raises ValueError on an unknown name.

    >>> load("tales", n=5)
    Tales(n=5, seed=0, split='train')
    """
    if name not in DATA_SETS:
        more = f"; tinytrans.data.downloads has {', '.join(DOWNLOADED)}"
        raise ValueError(f"no data set {name!r}; there are {', '.join(sorted(DATA_SETS))}{more}")
    return getattr(import_module(f"tinytrans.data.{name}"), DATA_SETS[name])(**options)
