"""Prose: Python source files -> the English paragraphs of their documentation, without importing anything."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

SKIPPED_FOLDERS = {"test", "tests", "testing", "idle_test", "lib2to3", "site-packages", "dist-packages", "_vendor"}
_WORD = re.compile(r"[A-Za-z][a-z'-]*[.,;:!?]?")
_HEADING = re.compile(r"\s*(?:\w+:\s|[^\n]*\n\s*[-=~^]{3,}\s*\n)")  # "Returns: ...", or a line and its underline
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def source_files(root: Path) -> list[Path]:
    """The Python files below a folder in a fixed order, tests and other people's packages left out."""
    files = (path for path in root.rglob("*.py") if SKIPPED_FOLDERS.isdisjoint(path.relative_to(root).parts))
    return sorted(files, key=lambda path: path.relative_to(root).parts)


def documentation(file: Path) -> Iterator[str]:
    """The docstrings of a file, the texts that it hands to functions like `add_docstr`, and pydoc's topics.

    A file that this Python cannot parse has none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in somebody's docstring is not our reader's concern
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    yield from _in_body(tree)
    if file.parts[-2:] == ("pydoc_data", "topics.py"):
        yield from _strings(tree)


def _in_body(node: ast.AST) -> Iterator[str]:
    """The docstrings of a node and of the statements in it; expressions, the most of a tree, are passed by."""
    if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
        yield text
    for field in ("body", "orelse", "handlers", "finalbody"):
        for child in getattr(node, field, ()):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
                if re.search(r"add_?(new)?doc", ast.unparse(child.value.func)):
                    yield from _strings(child.value)
            else:
                yield from _in_body(child)


def _strings(node: ast.AST) -> Iterator[str]:
    """The texts of several words below a node."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str) and " " in child.value:
            yield child.value


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a text that read as English prose, each on one line.

    Prose starts with a capital, ends with . ! or ?, is 40 characters long or more, and more than three quarters
    of it are plain words, so headings, lists, tables, formulas and code are left out.
    """
    for part in re.split(r"\n\s*\n", text):
        words = _HEADING.sub("", part, count=1).split() if _HEADING.match(part) else part.split()
        line = " ".join(words)
        if len(line) < 40 or not line[0].isupper() or line[-1] not in ".!?" or "---" in line:
            continue
        if sum(map(bool, map(_WORD.fullmatch, words))) > 0.75 * len(words):
            yield line
