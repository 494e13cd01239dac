"""Recipes: a name -> a result that anyone can run again, with its measure and its control.

`python -m tinytrans.recipes dpo` trains, measures and prints. Here, in lessons and on the command line models and
training meet; a recipe builds nothing that the library does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytrans.recipes.report import Report, Run

RECIPES = {  # name, which is also the function -> module
    "tales": "tales",
    "stories": "tales",
    "sft": "instruct",
    "lora": "instruct",
    "bitfit": "instruct",
    "reward": "reward",
    "dpo": "pairs",
    "orpo": "pairs",
    "grpo": "rewarded",
    "ppo": "rewarded",
    "dates": "dates",
    "numbers": "numbers",
    "mlm": "mlm",
    "bert": "bert",
    "vit": "vit",
    "captions": "captions",
    "words": "words",
}

KEPT = ("tales", "stories", "sft", "mlm")  # whose models may come with the library: those that other recipes start from

__all__ = ["KEPT", "RECIPES", "Report", "Run", "recipe"]


def recipe(name: str) -> Callable[[Run], Report]:
    """The recipe of that name, a function of a Run. Raises ValueError on an unknown name.

    >>> recipe("tales").__name__
    'tales'
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    found: Callable[[Run], Report] = getattr(import_module(f"{__name__}.{RECIPES[name]}"), name)
    return found


def __getattr__(name: str) -> Any:
    """Report and Run when first asked for (PEP 562): torch comes with them, and help does without."""
    if name not in ("Report", "Run"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.report"), name)
