"""A library object's dotted name -> the cell that asks for it: signature and docstring, the body marked as solution."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import io
import symtable
import textwrap
import tokenize
from pathlib import Path

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
QUIET = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


class LessonError(ValueError):
    """A lesson cannot be built; the sentence says which, where and what to do."""


def paste(dotted: str) -> str:
    """`package.module.name` -> the source of that function or class, each of its bodies between BEGIN and END.

    The text is taken from the file, so that comments survive. Raises LessonError where there is no such object.
    """
    module, _, name = dotted.rpartition(".")
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None:
        raise LessonError(f"`# from: {dotted}`: there is no module {module!r}")
    lines = Path(found.origin).read_text(encoding="utf-8").split("\n")
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return marked(node, lines)
    raise LessonError(f"`# from: {dotted}`: {module} defines no function or class {name!r}")


def marked(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> str:
    """The lines of a function or class with BEGIN and END around its body, or around the body of each method."""
    if ast.get_docstring(node) is None:
        raise LessonError(f"{node.name} has no docstring, and the docstring is what tells a learner what to write")
    methods = [n for n in node.body if isinstance(n, ast.FunctionDef)] if isinstance(node, ast.ClassDef) else [node]
    out, at = [], first_line(node)
    for method in methods:
        start, end = body(method, lines)
        indent = " " * method.body[0].col_offset
        out += [*lines[at - 1 : start - 1], indent + BEGIN, *lines[start - 1 : end], indent + END]
        at = end + 1
    out += lines[at - 1 : node.end_lineno]
    return "\n".join(out)


def first_line(node: ast.stmt) -> int:
    """The line on which a statement starts, its decorators included."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def body(function: ast.FunctionDef, lines: list[str]) -> tuple[int, int]:
    """The first and last line of a function's body after its docstring, comments above the first statement included."""
    rest = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not rest or first_line(rest[0]) == function.lineno:
        raise LessonError(f"{function.name} has no body on lines of its own to leave to the learner")
    start = first_line(rest[0])
    while lines[start - 2].lstrip().startswith("#"):
        start -= 1
    return start, function.end_lineno or start


def unmarked(source: str) -> str:
    """A solution cell as it runs: without its markers."""
    return "\n".join(line for line in source.split("\n") if line.strip() not in (BEGIN, END))


def solutions(source: str) -> list[str]:
    """The texts between the markers of a cell, dedented."""
    return [textwrap.dedent(part.split(END)[0].strip("\n").rstrip(" ")) for part in source.split(BEGIN)[1:]]


def code_lines(source: str) -> list[list[str]]:
    """The tokens of each line of a piece of Python, comments left out."""
    rows: dict[int, list[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in QUIET:
            rows.setdefault(token.start[0], []).append(token.string)
    return list(rows.values())


def defined(source: str) -> set[str]:
    """The names that a cell binds: imports, functions, assignments. Magics (`%matplotlib inline`) are skipped."""
    python = "\n".join(line for line in source.split("\n") if not line.startswith(("%", "!")))
    symbols = symtable.symtable(python, "cell", "exec").get_symbols()
    return {s.get_name() for s in symbols if s.is_imported() or s.is_assigned()}


def wanted(source: str) -> set[str]:
    """The names that a cell reads and neither binds nor finds among the builtins, annotations and defaults included."""
    top = symtable.symtable(source, "cell", "exec")
    names, tables = set(), [top]
    while tables:
        scope = tables.pop()
        tables += scope.get_children()
        names |= {s.get_name() for s in scope.get_symbols() if s.is_referenced() and (scope is top or s.is_global())}
    return names - defined(source) - set(dir(builtins))
