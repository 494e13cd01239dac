"""Makes the tiny course, and submissions to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_core.application import NoStart
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.apps import NbGraderApp
from nbgrader.utils import compute_checksum

from graders import nbgrader_config
from graders.gradebook import at_peace

STUBS = {
    "double": "def double(x):\n    raise NotImplementedError()",
    "halve_softmax": "def halve_softmax(x):\n    raise NotImplementedError()",
    "total": "def total(xs):\n    raise NotImplementedError()",
    "why": "why = None",
}
RIGHT = {
    "double": "def double(x):\n    return x + x",
    "halve_softmax": "def halve_softmax(x):\n    return torch.softmax(double(x), -1) / 2",
    "total": "def total(xs):\n    return {'sum': sum(x.sum() for x in xs), 'n': len(xs)}",
    "why": "why = 'B'",
}
POINTS = {"double": 3, "halve_softmax": 2, "total": 2, "why": 1}
NAME = "tiny"


def build(root: Path) -> Path:
    """Write course/tiny/tiny.ipynb below `root` and give its path."""
    cells = [new_markdown_cell("# A tiny lesson"), _setup("import math\nimport torch", "setup")]
    cells.append(_setup("from graders.check import check", "tools"))
    for name, stub in STUBS.items():
        cells.append(_graded(stub, name, solution=True))
        cells.append(
            _graded(f'check("tiny.{name}", {name})', f"check_{name}", points=POINTS[name], exercise=f"tiny.{name}")
        )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    path = root / "course" / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    return path


def _setup(source: str, tag: str) -> Any:
    return new_code_cell(source, metadata={"tags": [tag]})


def _graded(source: str, grade_id: str, *, solution: bool = False, points: int = 0, exercise: str = "") -> Any:
    role: dict[str, Any] = {"grade_id": grade_id, "solution": solution, "grade": not solution, "locked": not solution}
    role |= {"schema_version": 3, "task": False, "cell_type": "code"} | ({} if solution else {"points": points})
    cell = new_code_cell(
        source, metadata={"nbgrader": role} | ({"tinytrans": {"exercise": exercise}} if exercise else {})
    )
    cell.metadata.nbgrader["checksum"] = compute_checksum(cell)
    return cell


def notebook(root: Path, sources: Mapping[str, str]) -> dict[str, Any]:
    """The release as JSON, with these sources in its solution cells."""
    found = json.loads((root / "course" / NAME / f"{NAME}.ipynb").read_text())
    for name, source in sources.items():
        cell_of(found, name)["source"] = source
    return found


def cell_of(found: Mapping[str, Any], grade_id: str) -> dict[str, Any]:
    """The cell of this grade_id."""
    return next(c for c in found["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == grade_id)


def submit(root: Path, path: Path, changes: Mapping[str, str] | None = None) -> Path:
    """Write a submission at `path`: the right answers, but for these changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook(root, RIGHT | dict(changes or {}))))
    return path


def nbgrader(root: Path, patch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run one nbgrader command in the course root with our configuration, as its command line does."""
    patch.setenv("JUPYTER_CONFIG_PATH", str(Path(nbgrader_config.__file__).parent))
    patch.chdir(root)
    with at_peace():
        app = NbGraderApp()
        app.initialize([*arguments, "--log-level=CRITICAL"])
        try:
            with pytest.raises(NoStart):  # so ends an application whose subcommand did the work
                app.start()
        finally:
            app.reset()
