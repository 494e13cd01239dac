"""Cells that a learner added -> what of them the answers need: functions, classes, imports, plain values by name.

An answer may lean on a helper from a cell beside it. Experiments, plots and trainings in such cells are not repeated.
Used in the Player alone, where a source may be parsed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence

Part = tuple[str, ast.stmt]  # the name of its cell, and one statement of it


def needed(added: Iterable[tuple[str, str]], answers: Iterable[str], taken: Sequence[str]) -> dict[str, list[ast.stmt]]:
    """Cell -> its statements that bind a name which the answers, or others of these statements, speak of.

    `added`: (name of the cell, its source); what is no Python gives nothing. Names in `taken` are the answers' own.

    >>> mine = "import os\\nx = print(os)\\ndef f(): return g()\\ndef g(): return 1"
    >>> [part.name for part in needed([("added 1", mine)], ["f()"], [])["added 1"]]
    ['f', 'g']
    """
    left = [part for name, source in added for part in _parts(name, source, taken)]
    words = {word for source in answers for word in _words(source)}
    chosen: list[Part] = []
    while found := [part for part in left if not words.isdisjoint(_binds(part[1]))]:
        chosen += found
        left = [part for part in left if part not in found]
        words |= {word for _, statement in found for word in _words(ast.unparse(statement))}
    kept: dict[str, list[ast.stmt]] = {}
    for name, statement in sorted(chosen, key=lambda part: part[1].lineno):
        kept.setdefault(name, []).append(statement)
    return kept


def _words(source: str) -> list[str]:
    return re.findall(r"\w+", source)


def _parts(name: str, source: str, taken: Sequence[str]) -> Iterator[Part]:
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for statement in statements:
        binds = _binds(statement)
        if binds and not set(taken) & set(binds):
            yield name, statement


def _binds(statement: ast.stmt) -> list[str]:
    """The names that a statement binds, if it is of a kind that is taken over."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
    if isinstance(statement, ast.Assign) and _plain(statement.value):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return []


def _plain(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True
