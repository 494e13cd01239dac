"""An autograded notebook -> its page of feedback: nbgrader's own, whose list at the top names the exercises."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode

ENTRY = re.compile(r'(<li><a href="#([\w-]+)">)Test cell(</a> \(Score: ([\d.]+) / ([\d.]+)\))')
SEED = re.compile(r"\[seed (\d+)\]")


class FeedbackExporter(HTMLExporter):
    """nbgrader's page, with ✓ or ✗ and the exercise's name where it says "Test cell"."""

    def from_notebook_node(self, nb: NotebookNode, resources: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        """The page and its resources."""
        page, resources = super().from_notebook_node(nb, resources, **kwargs)
        return named(page, titles(nb)), resources


def titles(notebook: NotebookNode) -> dict[str, str]:
    """The grade_id of each test cell -> the name of its exercise."""
    cells = [cell.metadata for cell in notebook.cells if "tinytrans" in cell.metadata and "nbgrader" in cell.metadata]
    return {cell.nbgrader.grade_id: str(cell.tinytrans.get("exercise")).rpartition(".")[2] for cell in cells}


def named(page: str, names: Mapping[str, str]) -> str:
    """The page with marks and names in its list. A learner's own text holds no tag, so that no such entry is theirs.

    >>> named('<li><a href="#check_f">Test cell</a> (Score: 2.0 / 2.0)</li>', {"check_f": "f"})
    '<li><a href="#check_f">✓ f</a> (Score: 2.0 / 2.0)</li>'
    """

    def entry(found: re.Match[str]) -> str:
        mark = "✓" if float(found[4]) >= float(found[5]) else "✗"
        return f"{found[1]}{mark} {html.escape(names.get(found[2], 'Test cell'))}{found[3]}"

    return ENTRY.sub(entry, page)


def at_home(source: str, report: str) -> str:
    """The line with which a learner sees the same inputs: the test cell's call with the report's seed, if any."""
    seed = SEED.search(report)
    call = source.strip()
    if seed is None or not call.endswith(")"):
        return ""
    return f"\n  to see it at home: {call[:-1]}, seed={seed[1]})"
