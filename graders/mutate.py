"""A function's source -> its mutations: the same with one constant, axis, sign, term, argument or step changed.

Tools that mutate (mutmut, cosmic-ray) change files and run a test suite for each change; a check needs neither. The
rules are those of a learner's slips, few and blunt; what matters is that no one chose them for a given check.
"""

from __future__ import annotations

import ast
import copy
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SWAPS: dict[type[Any], tuple[type[Any], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}


@dataclass(frozen=True)
class Mutation:
    """One change of a function: its line before and after, and the whole source with it."""

    was: str
    now: str
    source: str

    @property
    def label(self) -> str:
        """The words in which the lines differ, before and after: `softmax(dim=0) -> softmax(dim=1)`."""
        was, now = self.was.split(" "), self.now.split(" ")
        while was[:1] == now[:1] and len(was) > 1 < len(now):
            was, now = was[1:], now[1:]
        while was[-1:] == now[-1:] and len(was) > 1 < len(now):
            was, now = was[:-1], now[:-1]
        return f"{' '.join(was)} -> {' '.join(now)}"


def mutations(source: str) -> Iterator[Mutation]:
    """All mutations of a function's source, each text once; docstring, annotations and decorators stay."""
    tree = bare(source)
    seen = {ast.unparse(tree)}
    for i, node in enumerate(ast.walk(tree)):
        for j in range(len(list(replacements(node)))):
            twin = copy.deepcopy(tree)
            old = list(ast.walk(twin))[i]
            Put(old, list(replacements(old))[j]).visit(twin)
            text = ast.unparse(ast.fix_missing_locations(twin))
            if text not in seen:
                seen.add(text)
                yield Mutation(*changed(ast.unparse(tree), text), text)


def bare(source: str) -> ast.FunctionDef:
    """The function without what a mutation shall not touch."""
    function = ast.parse(textwrap.dedent(source)).body[0]
    if not isinstance(function, ast.FunctionDef):
        raise ValueError(f"only a function can be mutated, not a {type(function).__name__}")
    function.decorator_list, function.returns = [], None
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    if ast.get_docstring(function) is not None:
        function.body = function.body[1:]
    return function


def replacements(node: ast.AST) -> Iterator[ast.AST | None]:
    """What may stand in a node's place; None where nothing may, and the statement goes."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield from (ast.Constant(new) for new in (value + 1, value - 1, -value) if new != value)
        case ast.BinOp(left=left, op=op, right=right):
            yield from (ast.BinOp(left, new(), right) for new in SWAPS.get(type(op), ()))
            yield from (left, right)
            if not isinstance(op, ast.Add | ast.Mult | ast.BitAnd | ast.BitOr):
                yield ast.BinOp(right, op, left)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(SWAPS[type(op)][0](), values)
            yield from values
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Compare(left=left, ops=[op], comparators=right):
            yield from (ast.Compare(left, [new()], right) for new in SWAPS.get(type(op), ()))
        case ast.Call():
            yield from calls(node)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.If(body=body, orelse=orelse):
            yield from (ast.If(ast.Constant(value), body, orelse) for value in (True, False))
        case ast.Slice(lower=lower, upper=upper, step=step):
            yield from [ast.Slice(None, upper, step)] if lower else []
            yield from [ast.Slice(lower, None, step)] if upper else []
        case ast.Subscript(value=value):
            yield value
        case ast.AugAssign() | ast.Expr() | ast.Assign():
            yield None


def calls(node: ast.Call) -> Iterator[ast.AST]:
    """A call without itself, without one of its arguments, or with two of them exchanged."""
    if isinstance(node.func, ast.Attribute):
        yield node.func.value  # x.detach() -> x
    yield from node.args[:1]  # f(x) -> x
    for i in range(len(node.args) - 1):
        first, second = node.args[i : i + 2]
        yield ast.Call(node.func, [*node.args[:i], second, first, *node.args[i + 2 :]], node.keywords)
    for i in range(len(node.args)):
        yield ast.Call(node.func, node.args[:i] + node.args[i + 1 :], node.keywords)
    for i in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])


class Put(ast.NodeTransformer):
    """A tree with one node replaced; a body that would be left empty passes."""

    def __init__(self, old: ast.AST, new: ast.AST | None) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST | None:
        """The node itself, or what stands in its place."""
        if node is self.old:
            return ast.Pass() if self.new is None else self.new
        return self.generic_visit(node)


def changed(before: str, after: str) -> tuple[str, str]:
    """The first line in which two texts differ, before and after."""
    pairs = zip(before.split("\n"), [*after.split("\n"), ""], strict=False)
    return next((a.strip(), b.strip()) for a, b in pairs if a != b)
