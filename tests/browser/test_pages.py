"""What a learner sees: the lesson in JupyterLab, and the feedback in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

ROOT = Path(__file__).resolve().parents[2]
LESSON = "04_attention"
SECONDS = 1000
WIDER_THAN_THE_PAGE = """() => [...document.querySelectorAll('.jp-Notebook .jp-Cell, .jp-Notebook .jp-MarkdownOutput')]
    .filter(e => e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > window.innerWidth)
    .map(e => e.innerText.slice(0, 80))"""
GO_TO_THE_FIRST_CHECK = """() => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    const index = notebook.widgets.findIndex(cell => cell.model.sharedModel.source.startsWith('check('));
    notebook.deselectAll();
    notebook.activeCellIndex = index;
    return index;
}"""

pytestmark = pytest.mark.browser


@pytest.fixture
def lesson(page: Page, lab: str) -> Page:
    """The lesson, open in JupyterLab, its formulas set."""
    page.goto(f"{lab}/lab/tree/{LESSON}/{LESSON}.ipynb?reset")
    expect(page.locator(".jp-Notebook .jp-MarkdownOutput").first).to_be_visible(timeout=30 * SECONDS)
    expect(page.locator(".jp-Notebook mjx-container").first).to_be_attached(timeout=20 * SECONDS)
    expect(page.get_by_text("Python 3 (ipykernel) | Idle").first).to_be_visible(timeout=30 * SECONDS)
    return page


@pytest.mark.skipif(not (ROOT / "course" / LESSON).exists(), reason=f"course/{LESSON} is not built yet: make course")
def test_a_lesson_reads_well_and_its_check_speaks_kindly(lesson: Page, picture: Callable[[str], Path]) -> None:
    """Formulas are set, nothing is wider than the page, and the check of an unwritten exercise says what to do."""
    picture("lesson")
    prose = "\n".join(lesson.locator(".jp-Notebook .jp-MarkdownOutput").all_inner_texts())
    assert not re.search(r"\$\$|\\\(|\\frac|\\begin", prose), "a formula is not set: is its LaTeX between dollars?"
    assert lesson.locator(".jp-Notebook mjx-merror, .jp-Notebook [data-mjx-error]").count() == 0, (
        "MathJax found an error"
    )
    assert lesson.evaluate(WIDER_THAN_THE_PAGE) == [], "a cell is wider than the page: break its lines"

    hint = lesson.locator(".jp-Notebook details").first
    expect(hint).not_to_have_attribute("open", "")
    hint.locator("summary").click()
    expect(hint).to_have_attribute("open", "")
    picture("hint")
    hints = "\n".join(lesson.locator(".jp-Notebook details").all_text_contents())
    assert "`" not in hints, "code in a fold is set as code: is there an empty line below its summary?"

    index = lesson.evaluate(GO_TO_THE_FIRST_CHECK)
    lesson.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-above')")
    lesson.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
    output = lesson.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-OutputArea-output")
    expect(output.first).to_contain_text("not written yet", timeout=40 * SECONDS)
    said = "\n".join(output.all_inner_texts())
    assert "Traceback" not in said, "an unwritten exercise ends in its sentence alone"
    assert "0 of" in said
    output.first.scroll_into_view_if_needed()
    picture("check")


def test_feedback_reads_well(page: Page, picture: Callable[[str], Path]) -> None:
    """A feedback page shows its points and formulas, and is not wider than the window."""
    pages = sorted(ROOT.glob(f"feedback/*/{LESSON}/*.html")) or sorted(ROOT.glob(f"demo/**/feedback/**/{LESSON}*.html"))
    if not pages:
        pytest.skip("no feedback here yet: make demo")
    page.goto(pages[0].as_uri())
    picture("feedback")
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), f"{pages[0]} is too wide"
    expect(page.locator("body")).to_contain_text("Score")
