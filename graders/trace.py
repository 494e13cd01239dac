"""A learner's source and calls -> which functions that would give an answer away it names, and which it runs.

Advisory: both are found in the Player. The source is read before any of it runs; what a call ran is told by a process
that runs a learner's code, and so may be a lie.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MOST = 500  # names of one call
# What runs below a name, where it is called otherwise.
RUNS = {
    "LayerNorm": ("layer_norm",),
    "RMSNorm": ("rms_norm",),
    "BatchNorm1d": ("batch_norm",),
    "MultiheadAttention": ("multi_head_attention_forward", "multi_head_attention"),
    "scaled_dot_product_attention": ("scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention_math"),
    "Softmax": ("softmax",),
    "Embedding": ("embedding",),
    "CrossEntropyLoss": ("cross_entropy", "cross_entropy_loss"),
    "cross_entropy": ("cross_entropy_loss",),
}


def last(name: str) -> str:
    """`nn.functional.layer_norm` -> `layer_norm`."""
    return name.rpartition(".")[2]


def named(source: str, forbidden: Sequence[str]) -> list[tuple[int, str]]:
    """(line, forbidden name) wherever a source speaks of one: as an attribute, in an import, as text for getattr.

    A name that the source or the lesson defines itself is not meant. Raises SyntaxError as `compile` does.
    """
    wanted = {last(name): name for name in forbidden}
    return sorted({(line, wanted[name]) for line, name in _names(ast.parse(source)) if name in wanted})


def _names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from ((node.lineno, last(alias.name)) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 100:
            yield node.lineno, last(node.value)


class _Functions(TorchFunctionMode):
    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.add(str(getattr(func, "__name__", "")))
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@contextmanager
def traced() -> Iterator[set[str]]:
    """Within, the names of all of torch's functions, and of the operations below them, are added to the set."""
    found: set[str] = set()
    with _Functions(found), _Operations(found):
        yield found


def ran(operations: Iterable[str], forbidden: Sequence[str]) -> list[str]:
    """Which of the forbidden names are among the operations that ran.

    >>> ran(["matmul", "native_layer_norm"], ["nn.LayerNorm", "F.softmax"])
    ['nn.LayerNorm']
    """
    plain = {name.removeprefix("_").removeprefix("native_") for name in operations}
    return [name for name in forbidden if not plain.isdisjoint((last(name), *RUNS.get(last(name), ())))]
