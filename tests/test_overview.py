"""The page on a class: every score in the picture's words, every mistake counted, and nothing in it that runs."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from graders.__main__ import main
from graders.overview import scores

SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def verdict(score: int, mistake: str | None = None, **more: Any) -> dict[str, Any]:
    """A verdict of one exercise with two points."""
    exercise = {"score": score, "max": 2, "mistake": mistake, "message": "no result after 5 seconds"}
    found = {"score": score, "max": 2, "exercises": {"f": exercise}, "notes": []}
    return found | {"used": {"wall": 0.25, "cpu": 0.1, "memory": 300 << 20}} | more


class Page(HTMLParser):
    """The tags of a page and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What autograde left of a class in which somebody's texts are markup."""
    students = {
        "ann": verdict(2),
        "bob": verdict(1, "no scaling"),
        "cid": verdict(1, "no scaling"),
        SCRIPT: verdict(0, SCRIPT, notes=[SCRIPT]) | {"used": {}},
    }
    students["bob"]["exercises"]["f"]["review"] = [f"line 1 names softmax: {SCRIPT}"]
    alike = [{"students": ["bob", "cid"], "share": 0.9, "prints": 12, "exercises": ["f"]}]
    whole = {"assignment": "lesson", "isolation": "full", "seconds": 12.3, "students": students, "alike": alike}
    (tmp_path / "verdicts.json").write_text(json.dumps(whole))
    return tmp_path


def test_the_page(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`graders report` writes the scores as a picture with words, mistakes by frequency, what is alike, the cost."""
    assert main(["report", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    page = Page((out / "report.html").read_text())
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [p["alt"] for p in pictures] == [
        "Histogram of the scores of 4 submissions to lesson: 1 with 0-9 %, 2 with 50-59 %, 1 with 100 %."
    ]
    assert str(pictures[0]["src"]).startswith("data:image/png;base64,")
    assert (out / "scores.png").read_bytes().startswith(b"\x89PNG")
    for part in ("2f: no scaling", "bob and cid: 90% alike", "Took 12.3 s", "at most 300 MB", "line 1 names softmax"):
        assert part in page.text


def test_nothing_in_it_runs(out: Path) -> None:
    """Names, mistakes and notes are text, whatever they hold; the page forbids scripts besides."""
    main(["report", "--out", str(out)])
    page = Page((out / "report.html").read_text())
    assert page.text.count(SCRIPT) == 6  # mistakes, notes, what to look at, and thrice in its own row
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "img", "ul", "li"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert str(policy).startswith("default-src 'none'")


def test_a_class_of_nobody(tmp_path: Path) -> None:
    """A folder without submissions has a page too, and no share of no points is asked for."""
    whole = {"assignment": "lesson", "isolation": "full", "students": {}}
    (tmp_path / "verdicts.json").write_text(json.dumps(whole))
    assert main(["report", "--out", str(tmp_path)]) == 0
    assert scores("lesson", {"ann": {"score": 0, "max": 0}}).alt.endswith("1 with 0-9 %.")


def test_before_anything_was_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where autograde has not been the command ends with 1 and names the file that it misses."""
    assert main(["report", "--out", str(tmp_path)]) == 1
    assert "verdicts.json" in capsys.readouterr().err
