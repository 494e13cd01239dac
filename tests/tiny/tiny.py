"""The tables of the tiny lesson: a function, a function that needs it, a module-like one, a question."""

from __future__ import annotations

import torch

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_gradients


def double(x):
    return 2 * x


def halve_softmax(x):
    return torch.softmax(double(x), dim=-1) / 2


def total(xs):
    return {"sum": sum(x.sum() for x in xs), "n": len(xs)}


def vector(draw: Draw):
    return (draw.normal(draw.integer(3, 6)),)


def matrix(draw: Draw):
    return (draw.normal(*draw.sizes(2)),)


EXERCISES = [
    exercise(
        "double",
        reference=double,
        requirements=[
            requires("values", 2, vector),
            requires("gradients", 1, matrix, run=with_gradients),
        ],
        wrong={
            "squared": (lambda x: x * x, "you multiplied x by itself; doubling adds x to itself"),
            "no gradient": (lambda x: (2 * x).detach(), "the gradient stops at your result: why detach?"),
        },
        right={"a sum": lambda x: x + x},
    ),
    exercise(
        "halve_softmax",
        reference=halve_softmax,
        requirements=[requires("values", 2, matrix)],
        wrong={
            "wrong axis": (
                lambda x: torch.softmax(2 * x, 0) / 2,
                "the rows must sum to one half, yours are columns: over which axis?",
            )
        },
        right={},
        forbidden=("F.softmin", "nn.Softmin"),
    ),
    exercise(
        "total",
        reference=total,
        requirements=[requires("values", 2, lambda draw: ([draw.normal(3), draw.normal(2, 2), draw.normal(1)],))],
        wrong={
            "mean": (lambda xs: {"sum": sum(x.mean() for x in xs), "n": len(xs)}, "you averaged where a sum is asked")
        },
        right={},
    ),
    question(
        "why",
        "Why?",
        choices={"a": "one", "b": "two", "c": "three"},
        explanations={"a": "no, since one is odd", "b": "yes, two it is", "c": "no, three is a crowd"},
        answer="b",
    ),
]
