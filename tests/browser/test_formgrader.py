# ruff: noqa: E501  (what a hostile file holds reads best in one line)
"""What an instructor sees of a submission full of scripts: all of it as text, and the place to grade words by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell
from nbgrader.api import Gradebook
from nbgrader.utils import compute_checksum
from playwright.sync_api import Page, expect
from tiny_course import NAME, RIGHT, cell_of, notebook

from graders.autograde import autograde
from graders.collect import collect
from graders.release import Release, load
from solutions.notebook import WRITE_HERE

pytestmark = pytest.mark.browser
SECONDS = 1000
LIVE = "<script>run('{0}')</script><img src=x onerror=\"run('{0}')\"><svg onload=\"run('{0}')\"></svg>"
WORDS = f"""# Report {LIVE.format("words")}
[link](javascript:run('link')) ![picture](https://evil.example/x.png) <javascript:run('auto')>
[reference][r] $\\href{{javascript:run('math')}}{{x}}$

[r]: javascript:run('ref')
"""
CODE = f"""# {LIVE.format("comment")}
print('''{LIVE.format("printed")}\\x1b[31mred\\x1b]0;title\\x07''')
def double(x):
    raise ValueError('''{LIVE.format("error")}''')
"""
STUDENT = LIVE.format("name").replace("/", "")
STUB_OF_MATHJAX = "window.MathJax = {Hub: {Startup: {signal: {Interest() {}}}, Config() {}, Queue() {}}, loaded: true}"


def with_task(root: Path) -> Release:
    """The tiny lesson with a written task at its end."""
    path = root / "course" / NAME / f"{NAME}.ipynb"
    made = nbformat.read(path, as_version=4)
    role = {"grade": True, "solution": True, "locked": False, "task": False, "grade_id": "report", "points": 4}
    role |= {"schema_version": 3, "cell_type": "markdown"}
    cell = new_markdown_cell(WRITE_HERE, id="report", metadata={"nbgrader": role})
    cell.metadata.nbgrader["checksum"] = compute_checksum(cell)
    made.cells.append(cell)
    nbformat.write(made, path)
    return load(path)


def hostile(root: Path) -> dict[str, Any]:
    """A submission with scripts in code, words, metadata, attachments and outputs of every kind."""
    made = notebook(root, RIGHT | {"double": CODE, "report": WORDS, "why": f"why = '''{LIVE.format('answer')}'''"})
    for kind in ("text/html", "image/svg+xml", "application/javascript", "text/markdown", "text/latex"):
        data = {kind: LIVE.format(kind), "text/plain": "x"}
        shown = {"output_type": "display_data", "data": data, "metadata": {}}
        cell_of(made, "total").setdefault("outputs", []).append(shown)
    cell_of(made, "report")["attachments"] = {"x.svg": {"image/svg+xml": LIVE.format("attached")}}
    made["metadata"]["title"] = LIVE.format("title")
    made["cells"].insert(0, {"cell_type": "markdown", "source": LIVE.format("extra"), "metadata": {}})
    return made


@pytest.fixture(scope="module")
def graded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Path, Path]:
    """The lesson, a folder with one hostile submission, and what grading it wrote."""
    release = with_task(tiny)
    folder, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    (folder / f"{STUDENT}.ipynb").write_text(json.dumps(hostile(tiny)))
    regrade(release, tiny, folder, out)
    return release, folder, out


def regrade(release: Release, root: Path, folder: Path, out: Path) -> None:
    """Grade the folder, without a box: what the pages show is looked at, not what the code may do."""
    autograde(release, root, folder, out, trust=True, seeds=(1, 2), workers=1, key=out / "key", feedback=True)


@pytest.fixture(scope="module")
def formgrader(
    graded: tuple[Release, Path, Path], serving: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of nbgrader's formgrader on what grading wrote."""
    out, home = graded[2], tmp_path_factory.mktemp("home")
    (home / "config").mkdir()
    settings = {"root": str(out), "db_url": f"sqlite:///{out / 'gradebook.db'}", "course_id": "tinytrans"}
    lines = [f"c.CourseDirectory.{name} = {value!r}" for name, value in settings.items()]
    (home / "config" / "nbgrader_config.py").write_text("\n".join(["c = get_config()", *lines]))
    with serving("jupyter_server", out, home) as address:
        yield f"{address}/formgrader"


@pytest.fixture
def watched(page: Page) -> Callable[[str], None]:
    """Opens a page and fails where anything of the submission ran there or asked for another machine."""
    asked: list[str] = []

    def route(call: Any) -> None:
        address = call.request.url
        if address.startswith(("http://127.0.0.1", "file:", "data:")):
            call.continue_()
            return
        asked.append(address)
        call.fulfill(body=STUB_OF_MATHJAX if "mathjax" in address.lower() else "", content_type="text/javascript")

    page.set_default_timeout(300 * SECONDS)  # on a machine that is busy
    page.add_init_script("window.ran = []; window.run = what => window.ran.push(what)")
    page.route("**/*", route)
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))

    def look(address: str) -> None:
        page.goto(address)
        page.wait_for_load_state("networkidle", timeout=300 * SECONDS)
        for link in page.get_by_text("link", exact=True).all():
            link.click(force=True)
        assert page.evaluate("() => window.ran") == [], address
        assert not [a for a in asked if "evil.example" in a]
        live = '() => document.querySelectorAll(\'[onerror*="run("], [onload*="run("], a[href^=javascript]\').length'
        foreign = "() => [...document.querySelectorAll('script')].filter(s => s.textContent.includes('run(')).length"
        assert (page.evaluate(live), page.evaluate(foreign)) == (0, 0), address

    return look


def test_the_watch_can_fail(page: Page, watched: Callable[[str], None], tmp_path: Path) -> None:
    """A page on which a script of a submission runs is found."""
    (tmp_path / "x.html").write_text(f"<body>{LIVE.format('here')}</body>")
    with pytest.raises(AssertionError):
        watched((tmp_path / "x.html").as_uri())


def test_nothing_runs_in_the_feedback(
    graded: tuple[Release, Path, Path], watched: Callable[[str], None], page: Page, picture: Callable[[str], Path]
) -> None:
    """The page of feedback shows a hostile submission as text."""
    student = next(iter(collect(graded[1], NAME)))
    watched((graded[2] / "feedback" / student / NAME / f"{NAME}.html").as_uri())
    picture("hostile-feedback")
    expect(page.locator("body")).to_contain_text("run('printed')")
    expect(page.locator("body")).to_contain_text("run('words')")


def submission_id(out: Path, student: str) -> str:
    """The id under which formgrader shows a student's notebook."""
    with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as gradebook:
        return str(gradebook.find_submission_notebook(NAME, NAME, student).id)


def test_words_are_graded_by_hand(
    graded: tuple[Release, Path, Path],
    tiny: Path,
    formgrader: str,
    watched: Callable[[str], None],
    page: Page,
    picture: Callable[[str], Path],
) -> None:
    """Nothing runs in formgrader; points and a comment given there stay when it is autograded again, and feedback shows them."""
    release, folder, out = graded
    student = next(iter(collect(folder, NAME)))
    for place in ("manage_students", "gradebook", f"gradebook/{NAME}/{NAME}", f"manage_submissions/{NAME}"):
        watched(f"{formgrader}/{place}")
    watched(f"{formgrader}/submissions/{submission_id(out, student)}")
    picture("hostile-formgrader")
    expect(page.locator("#notebook").first).to_contain_text("run('words')")
    for box, value, kept in (("#report", "3", "grade"), ("#report-comment", "the reason is missing", "comment")):
        page.locator(box).fill(value)
        with page.expect_response(re.compile(f"/formgrader/api/{kept}/")):
            page.locator(box).dispatch_event("change")
    assert by_hand(out, student) == (3, "the reason is missing")
    regrade(release, tiny, folder, out)
    assert by_hand(out, student) == (3, "the reason is missing")
    watched((out / "feedback" / student / NAME / f"{NAME}.html").as_uri())
    expect(page.locator("body")).to_contain_text("the reason is missing")


def by_hand(out: Path, student: str) -> tuple[float, str]:
    """The points and the comment that the gradebook holds for the written answer."""
    with Gradebook(f"sqlite:///{out / 'gradebook.db'}") as gradebook:
        grade = gradebook.find_grade("report", NAME, NAME, student)
        return grade.manual_score, gradebook.find_comment("report", NAME, NAME, student).manual_comment
