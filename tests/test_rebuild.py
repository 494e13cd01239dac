"""The Rebuilder: whatever a file holds, sources of solution cells come out, and notes, and never an exception."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_course import NAME, RIGHT, STUBS, cell_of, notebook

from graders.rebuild import MAX_FILE, Submission, choose, rebuild, rebuilt_notebook
from graders.release import Release, ReleaseError, load


@pytest.fixture(scope="module")
def release(tiny: Path) -> Release:
    """The tiny lesson."""
    return load(tiny / "course" / NAME / f"{NAME}.ipynb")


def rebuilt(release: Release, tmp_path: Path, document: Any) -> Submission:
    """The submission that a file of this content, or this JSON, is rebuilt to."""
    path = tmp_path / "x.ipynb"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return rebuild(release, path)


def test_release(release: Release) -> None:
    """A release says what is setup, the learner's, and judged, and which cells come before each exercise."""
    assert release.setup == ("import math\nimport torch",)
    assert release.stubs == STUBS
    assert [(item.name, item.grade_id, len(item.cells)) for item in release.items] == [
        ("double", "check_double", 1),
        ("halve_softmax", "check_halve_softmax", 2),
        ("total", "check_total", 3),
        ("why", "check_why", 4),
    ]
    assert release.points == 8


def test_release_and_table_agree(tiny: Path, tmp_path: Path) -> None:
    """A release whose points differ from the table's is refused, with both numbers."""
    document = notebook(tiny, {})
    cell_of(document, "check_double")["metadata"]["nbgrader"]["points"] = 500
    (tmp_path / "x.ipynb").write_text(json.dumps(document))
    with pytest.raises(ReleaseError, match=r"500 points.* 3"):
        load(tmp_path / "x.ipynb")


def test_a_submission(release: Release, tiny: Path, tmp_path: Path) -> None:
    """A plain submission gives its sources and no note, as strings or as lists of lines."""
    document = notebook(tiny, RIGHT)
    assert rebuilt(release, tmp_path, document) == Submission(RIGHT)
    for cell in document["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True) if isinstance(cell["source"], str) else cell["source"]
    assert rebuilt(release, tmp_path, document) == Submission(RIGHT)


def test_rebuilding_twice_changes_nothing(release: Release, tiny: Path, tmp_path: Path) -> None:
    """The rebuilt notebook is a valid one, and a submission that gives the same sources."""
    made = rebuilt_notebook(release, RIGHT)
    nbformat.validate(made)
    assert rebuilt(release, tmp_path, nbformat.writes(made).encode()).sources == RIGHT
    assert release.notebook == nbformat.read(tiny / "course" / NAME / f"{NAME}.ipynb", 4)


Change = Callable[[dict[str, Any]], None]


def _locked(d: dict[str, Any]) -> None:
    cell_of(d, "check_double")["source"] = "print('full marks')"


def _roles(d: dict[str, Any]) -> None:
    cell_of(d, "check_double")["metadata"]["nbgrader"] |= {"solution": True, "grade": False, "points": 500}
    cell_of(d, "double")["metadata"]["nbgrader"] |= {
        "solution": False,
        "grade": True,
        "points": "nan",
        "schema_version": 99,
    }


def _types(d: dict[str, Any]) -> None:
    for cell in d["cells"]:
        cell["cell_type"] = "markdown"


def _ids(d: dict[str, Any]) -> None:
    for cell in d["cells"]:
        cell["id"] = "same"


def _outputs(d: dict[str, Any]) -> None:
    for cell in d["cells"]:
        cell["outputs"] = [
            {"output_type": "execute_result", "data": {"text/plain": "nan"}, "metadata": {}, "execution_count": 1}
        ]


def _kernel(d: dict[str, Any]) -> None:
    d["metadata"] = {"kernelspec": {"name": "bash"}}
    d["nbformat"] = 17


def _order(d: dict[str, Any]) -> None:
    d["cells"].reverse()


def _deleted_tests(d: dict[str, Any]) -> None:
    d["cells"] = [cell for cell in d["cells"] if "check" not in cell["source"]]


@pytest.mark.parametrize("change", [_roles, _ids, _outputs, _kernel, _order, _deleted_tests])
def test_only_sources_cross(release: Release, tiny: Path, tmp_path: Path, change: Change) -> None:
    """Roles, points, ids, outputs, kernels, order and test cells of a submission change nothing, and cost nothing."""
    document = notebook(tiny, RIGHT)
    change(document)
    assert rebuilt(release, tmp_path, document) == Submission(RIGHT)


@pytest.mark.parametrize("change", [_locked, _types])
def test_locked_cells(release: Release, tiny: Path, tmp_path: Path, change: Change) -> None:
    """An edited test cell, or a cell of another type, leaves the sources as they are."""
    document = notebook(tiny, RIGHT)
    change(document)
    submission = rebuilt(release, tmp_path, document)
    assert submission.sources == RIGHT
    assert rebuilt_notebook(release, submission.sources) == rebuilt_notebook(release, RIGHT)


def test_missing(release: Release, tiny: Path, tmp_path: Path) -> None:
    """A deleted answer cell is a note on its exercise; all others keep theirs."""
    document = notebook(tiny, RIGHT)
    document["cells"].remove(cell_of(document, "total"))
    submission = rebuilt(release, tmp_path, document)
    assert set(submission.sources) == set(RIGHT) - {"total"}
    assert submission.cell_notes == {"total": "its cell is missing from the notebook"}


def test_duplicated(release: Release, tiny: Path, tmp_path: Path) -> None:
    """Of cells with one grade_id all that was written counts, in its order and once, with a note."""
    document = notebook(tiny, RIGHT)
    twin = json.loads(json.dumps(cell_of(document, "double")))
    document["cells"].insert(0, twin | {"source": STUBS["double"] + "\n"})
    document["cells"].append(twin | {"source": "later"})
    document["cells"].append(twin)
    submission = rebuilt(release, tmp_path, document)
    assert submission.sources == RIGHT | {"double": RIGHT["double"] + "\n\nlater"}
    assert "occurs 4 times" in submission.cell_notes["double"]


def test_choose() -> None:
    """A cell without text is no source; of two unwritten ones the first counts."""
    assert choose([], "stub") == (None, "its cell is missing from the notebook")
    assert choose([{"source": 3}, {"source": ["a", 1]}, {}], "stub")[0] is None
    assert choose([{"source": "x" * 200_000}], "stub")[0] is None
    assert choose([{"source": "stub"}, {"source": "stub "}], "stub")[0] == "stub"
    assert choose([{"source": "\ufeffx = 1\r\n"}], "stub") == ("x = 1\n", None)
    assert choose([{"source": "x" * 90_000}, {"source": "y" * 90_000}], "stub")[0] == "x" * 90_000


def test_extra_cells(release: Release, tiny: Path, tmp_path: Path) -> None:
    """Cells that the learner added are counted in a note, and kept by the answer that they stand behind."""
    document = notebook(tiny, RIGHT)
    document["cells"].insert(0, {"cell_type": "code", "source": "import os", "metadata": {}})
    document["cells"].append({"cell_type": "code", "source": "import sys", "metadata": {}})
    document["cells"].insert(0, {"cell_type": "code", "source": "  ", "metadata": {}})
    submission = rebuilt(release, tmp_path, document)
    assert submission.sources == RIGHT
    assert len(submission.notes) == 1
    assert submission.notes[0].startswith("2 cells beside")
    assert submission.added == {"": ("import os",), "why": ("import sys",)}
    long = {"cell_type": "code", "source": "x = 1" + " " * 60_000 + "#", "metadata": {}}
    document["cells"] += [long, long, long]
    assert len(rebuilt(release, tmp_path, document).added["why"]) == 2


BROKEN = {
    "empty": b"",
    "cut off": b'{"cells": [',
    "not UTF-8": b"\xff\xfe\x00",
    "no object": b"[1]",
    "no cells": b"{}",
    "cells of another kind": b'{"cells": 3}',
    "nested": b'{"cells":' + b"[" * 200_000,
    "nested whole": b"[" * 50_000 + b"]" * 50_000,
    "many cells": b'{"cells": [' + b"{}," * 6000 + b"{}]}",
    "an archive": b"PK\x03\x04" + b"\0" * 100,
    "compressed": b"\x1f\x8b\x08" + b"\0" * 100,
    "large": b" " * (MAX_FILE + 1),
    "version 3": b'{"worksheets": [{"cells": []}], "nbformat": 3}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(release: Release, tmp_path: Path, name: str) -> None:
    """A file that is no notebook is a submission without sources, whose note says why."""
    submission = rebuilt(release, tmp_path, BROKEN[name])
    assert not submission.readable
    assert submission.sources == {}
    assert submission.notes[0].startswith("the file could not be graded: ")


def test_odd_cells(release: Release, tiny: Path, tmp_path: Path) -> None:
    """Entries that are no cells, metadata that is none, giant numbers and repeated keys cost nothing."""
    document = notebook(tiny, RIGHT)
    document["cells"] += [
        3,
        None,
        [],
        {"metadata": 3},
        {"metadata": {"nbgrader": []}},
        {"metadata": {"nbgrader": {"grade_id": ["double"]}}},
    ]
    text = json.dumps(document)[:-1] + ', "n": ' + "9" * 100_000 + ', "x": 1, "x": NaN}'
    submission = rebuilt(release, tmp_path, text.encode())
    assert submission.sources == RIGHT
    assert len(submission.notes) == 2


def test_links_and_pipes(release: Release, tmp_path: Path) -> None:
    """A link is not followed, a pipe not waited for, a folder not read, a missing file noted."""
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name, why in [
        ("link", "a link"),
        ("pipe", "no regular file"),
        (".", "no regular file"),
        ("none", "no such file"),
        ("secret/x", ""),
    ]:
        submission = rebuild(release, tmp_path / name)
        assert not submission.readable
        assert why in submission.notes[0]


KEYS = st.sampled_from(["source", "metadata", "nbgrader", "grade_id", "cells", "x"])
TEXTS = st.text(max_size=6) | st.sampled_from(["\ud800", "\u202e", "double"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON document."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_change(release: Release, tiny: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever stands in the place of any values of a good notebook, a valid notebook comes of it."""
    document = notebook(tiny, RIGHT)
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(places(document)[1:] or [("cells",)]))
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = data.draw(JSON)
    submission = rebuilt(release, tmp_path, document)
    assert set(submission.sources) <= set(STUBS)
    made = rebuilt_notebook(release, submission.sources)
    nbformat.validate(made)
    nbformat.writes(made).encode()


FLOODS = {
    "empty lists": b"[],",
    "empty objects": b"{},",
    "nested pairs": b'{"a":[]},',
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(release: Release, tmp_path: Path, name: str) -> None:
    """A file of millions of tiny values is refused before it is parsed: each would take a hundred bytes."""
    flood = b'{"cells": [], "x": [' + FLOODS[name] * ((MAX_FILE - 100) // len(FLOODS[name])) + b"0]}"
    submission = rebuilt(release, tmp_path, flood)
    assert "lists and objects" in submission.notes[0]


def test_text_that_runs_backwards(release: Release, tiny: Path, tmp_path: Path) -> None:
    """Characters that turn the direction of text around, or that nobody sees, are noted, and left as they are."""
    document = notebook(tiny, RIGHT | {"double": "def double(x):\n    return x  # \u202e + x"})
    submission = rebuilt(release, tmp_path, document)
    assert "\u202e" in submission.sources["double"]
    assert "U+202E" in submission.cell_notes["double"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_bytes(release: Release, tiny: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Any bytes, and any damage to a good file, give a submission whose notebook is valid."""
    good = json.dumps(notebook(tiny, RIGHT)).encode()
    start, stop = sorted((data.draw(st.integers(0, len(good))), data.draw(st.integers(0, len(good)))))
    submission = rebuilt(
        release,
        tmp_path,
        data.draw(st.sampled_from([b"", good[:start]])) + data.draw(st.binary(max_size=20)) + good[stop:],
    )
    assert set(submission.sources) <= set(STUBS)
    nbformat.validate(rebuilt_notebook(release, submission.sources))


def elsewhere(tiny: Path, editor: str) -> bytes:
    """The right answers as another program would have saved them."""
    document = notebook(tiny, RIGHT)
    for cell in document["cells"]:
        if editor in ("an old Jupyter", "Colab"):
            cell.pop("id", None)
        if editor == "Colab":
            cell["metadata"] |= {"id": "AbC-1", "colab": {"base_uri": "https://localhost/"}}
        if editor == "VS Code":
            cell |= {"id": "W0sZmlsZQ%3D%3D", "source": "".join(cell["source"]).splitlines(keepends=True)}
            cell["metadata"]["vscode"] = {"languageId": "python"}
    document["nbformat_minor"] = {"an old Jupyter": 2, "Colab": 0}.get(editor, 5)
    document["metadata"] = {"colab": {"provenance": []}} if editor == "Colab" else document["metadata"]
    text = json.dumps(document)
    text = text.replace("\\n", "\\r\\n") if editor == "Windows" else text
    return text.encode("utf-8-sig" if editor == "Windows" else "utf-8")


@pytest.mark.parametrize("editor", ["an old Jupyter", "Colab", "VS Code", "Windows"])
def test_saved_elsewhere(release: Release, tiny: Path, tmp_path: Path, editor: str) -> None:
    """Which program saved a notebook makes no difference: its answers cross, and nothing is noted."""
    assert rebuilt(release, tmp_path, elsewhere(tiny, editor)) == Submission(RIGHT)


def test_ids_that_look_alike(release: Release, tiny: Path, tmp_path: Path) -> None:
    """An id that only looks like an answer's, or is no text, is another cell's; the answer is then missing."""
    for other in ("\uff44ouble", "double ", "d\u043euble", ["double"], {"double": 1}, 1e999, None):
        document = notebook(tiny, RIGHT)
        cell_of(document, "double")["metadata"]["nbgrader"]["grade_id"] = other
        found = rebuilt(release, tmp_path, document)
        assert "double" not in found.sources
        assert found.cell_notes == {"double": "its cell is missing from the notebook"}


def test_other_forms(release: Release, tiny: Path, tmp_path: Path) -> None:
    """Notebooks of version 3, in UTF-16 or with a zero byte behind them are notes; a zero within an answer is shown."""
    document = notebook(tiny, RIGHT)
    old = {**document, "nbformat": 3, "worksheets": [{"cells": document["cells"]}]}
    del old["cells"]
    text = json.dumps(document)
    for content in (json.dumps(old).encode(), text.encode("utf-16"), text.encode() + b"\0"):
        found = rebuilt(release, tmp_path, content)
        assert not found.readable
        assert found.notes[0].startswith("the file could not be graded")
    cell_of(document, "double")["source"] += "  # \0 \ud800"
    assert rebuilt(release, tmp_path, document).sources["double"] == RIGHT["double"] + "  # \N{REPLACEMENT CHARACTER} ?"
