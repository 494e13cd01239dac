"""The verdicts of a class -> report.html and scores.png: what `graders.summary` says, with the scores as a picture.

The page stands alone, holds no script and allows none; whatever a student wrote is text in it.
"""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graders.similarity import Pair
from graders.summary import BINS, Verdicts, bins, cost, for_review, mistakes
from tinytrans.files import write_whole
from tinytrans.plots import Picture, bars

STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 0.2rem 1rem 0.2rem 0; vertical-align: top; }
td.n, th.n { text-align: right; } tr { border-bottom: 1px solid #ddd; } img { max-width: 100%; }"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(out: Path, whole: Mapping[str, Any]) -> Path:
    """Write report.html and scores.png beside the verdicts.json that held this, and give the page's path."""
    picture = scores(whole["assignment"], whole["students"])
    picture.save(out / "scores.png")
    write_whole(out / "report.html", page(whole, picture))
    return out / "report.html"


def scores(assignment: str, verdicts: Verdicts) -> Picture:
    """The histogram of the scores; its text gives every number that it shows."""
    counts = bins(verdicts)
    title = f"{assignment}: {len(verdicts)} submissions"
    drawn = bars({"": counts}, BINS, title=title, x_label="share of the points", y_label="submissions")
    told = ", ".join(f"{count} with {label}" for count, label in zip(counts, BINS, strict=True) if count)
    return replace(
        drawn, alt=f"Histogram of the scores of {len(verdicts)} submissions to {assignment}: {told or 'none'}."
    )


def page(whole: Mapping[str, Any], picture: Picture) -> str:
    """The page: scores, what to teach next week, what to look at, notes, time and memory, a line a student."""
    name, verdicts = whole["assignment"], whole["students"]
    alike = [Pair(**pair | {k: tuple(pair[k]) for k in ("students", "exercises")}) for pair in whole.get("alike", ())]
    png = base64.b64encode(picture.png()).decode()
    body = [f"<h1>{_(name)}: {len(verdicts)} submissions</h1>"]
    body += [f'<p><img alt="{_(picture.alt)}" src="data:image/png;base64,{png}"></p>']
    body += _counted("Mistakes, the most frequent first", mistakes(verdicts))
    body += _counted("Notes", Counter(note for verdict in verdicts.values() for note in verdict["notes"]))
    for title, *lines in for_review(verdicts, alike):
        body += [f"<h2>{_(title[:1].upper() + title[1:].rstrip(':'))}</h2>", _list(lines)]
    took = [line[0].upper() + line[1:] for line in cost(verdicts, whole.get("seconds", 0.0))]
    body += ["<h2>Time and memory</h2>", _list([*took, f"Level of isolation: {whole['isolation']}"])]
    head = [("student", ""), ("points", "n"), ("of", "n"), ("seconds", "n"), ("MB", "n"), ("mistakes and notes", "")]
    body += ["<h2>Students</h2>", _table(head, [_row(s, v) for s, v in verdicts.items()])]
    first = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_(POLICY)}">'
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en"><head>{first}',
            f"<title>{_(name)}</title><style>{STYLE}</style></head><body>",
        ]
        + [*body, "</body></html>\n"]
    )


def _(text: object) -> str:
    return html.escape(str(text))


def _row(student: str, verdict: Mapping[str, Any]) -> Sequence[object]:
    used = verdict.get("used") or {}
    said = [f"{name}: {e['mistake']}" for name, e in verdict["exercises"].items() if e["mistake"]]
    memory = int(used.get("memory", 0)) >> 20
    return (
        student,
        verdict["score"],
        verdict["max"],
        used.get("wall", ""),
        memory or "",
        "; ".join([*said, *verdict["notes"]]),
    )


def _counted(title: str, counts: Counter[str]) -> list[str]:
    """A heading and a table; nothing where nothing was counted."""
    rows = [(n, text) for text, n in counts.most_common()]
    return [f"<h2>{_(title)}</h2>", _table([("submissions", "n"), ("", "")], rows)] if rows else []


def _table(head: Sequence[tuple[str, str]], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    top = "".join(f'<th scope="col" class="{kind}">{_(name)}</th>' for name, kind in head)
    text.write(f"<table><thead><tr>{top}</tr></thead><tbody>\n")
    for row in rows:
        cells = "".join(f'<td class="{kind}">{_(cell)}</td>' for cell, (_name, kind) in zip(row, head, strict=True))
        text.write(f"<tr>{cells}</tr>\n")
    return text.getvalue() + "</tbody></table>"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_(line.strip())}</li>\n" for line in lines) + "</ul>"
