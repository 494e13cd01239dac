"""Widgets: numbers -> a picture with a slider, and the same as a still picture where no slider runs (extra `viz`).

The still picture is always shown first, so that a printed page, a web page and a grading run lose nothing.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
from IPython.display import display
from torch import Tensor

from tinytrans.plots import Picture, heat_map, strip

BLUE = (0, 114, 178)  # Okabe and Ito 2008; only its opacity carries the number, which is written beside it as well


@dataclass(frozen=True)
class Explorer:
    """A still picture and its moving twin: `show` turns a choice into HTML."""

    picture: Picture
    choices: Sequence[tuple[str, int]]
    show: Callable[[int], str]
    label: str

    def widget(self) -> ipywidgets.VBox:
        """The slider and what it shows; the arrow keys move it."""
        slider = ipywidgets.SelectionSlider(options=list(self.choices), description=self.label, continuous_update=True)
        view = ipywidgets.HTML(self.show(slider.value))
        slider.observe(lambda change: setattr(view, "value", self.show(change["new"])), names="value")
        return ipywidgets.VBox([slider, view])

    def _ipython_display_(self, **_: Any) -> None:
        display(self.picture)
        display(self.widget())


def look_around(
    weights: Tensor, tokens: Sequence[str], keys: Sequence[str] | None = None, *, title: str = ""
) -> Explorer:
    """Attention weights (T, S) to walk through: choose the query, and see how much of each key it takes.

    `tokens` name the T queries, `keys` the S keys (the same tokens unless given).
    """
    names = tokens if keys is None else keys
    rows = weights.detach().float().cpu()
    if rows.shape != (len(tokens), len(names)):
        raise ValueError(f"weights have shape {tuple(rows.shape)}, not ({len(tokens)}, {len(names)}) for these tokens")
    choices = [(f"{t}: {token}", t) for t, token in enumerate(tokens)]

    def show(t: int) -> str:
        shaded = " ".join(shade(name, weight) for name, weight in zip(names, rows[t].tolist(), strict=True))
        return f'<p style="line-height:2.6">{html.escape(tokens[t])} looks at: {shaded}</p>'

    return Explorer(heat_map(rows, tokens, names, title=title), choices, show, "query")


def read_along(tokens: Sequence[str], shades: Tensor, notes: Sequence[str], *, title: str = "") -> Explorer:
    """Text to walk through, token by token: each the darker the nearer its shade (T,) is to 1, and a note on each.

    Raises ValueError where tokens, shades and notes differ in number.
    """
    if len(notes) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens and {len(notes)} notes")
    picture, depth = strip(tokens, shades, title=title), shades.detach().float().cpu().tolist()

    def show(t: int) -> str:
        shaded = [shade(token, weight) for token, weight in zip(tokens, depth, strict=True)]
        shaded[t] = f'<b style="outline:2px solid black">{shaded[t]}</b>'
        return f'<p style="line-height:2.6">{" ".join(shaded)}</p><p>{html.escape(notes[t])}</p>'

    return Explorer(picture, [(f"{t}: {token}", t) for t, token in enumerate(tokens)], show, "place")


def shade(name: str, weight: float) -> str:
    """One token as HTML, the darker the more it weighs, its weight in per cent below it.

    >>> shade("cat", 0.5)
    '<span style="background:rgba(0,114,178,0.35);padding:2px 4px">cat<sub>50</sub></span>'
    """
    opacity = 0.7 * min(max(weight, 0.0), 1.0)  # dark text stays readable on the darkest shade
    red, green, blue = BLUE
    style = f"background:rgba({red},{green},{blue},{opacity:.2f});padding:2px 4px"
    return f'<span style="{style}">{html.escape(name)}<sub>{100 * weight:.0f}</sub></span>'
