"""Widgets: numbers -> a picture with a slider, and the same as a still picture where no slider runs (extra `viz`).

The still picture is always shown first, so that a printed page, a web page and a grading run lose nothing.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
from IPython.display import display
from torch import Tensor

from tinytrans.plots import Picture, bars, curves, heat_map, strip

ROOMY: dict[str, Any] = {"style": {"description_width": "90px"}, "layout": {"width": "460px"}}  # labels in full
BLUE = (0, 114, 178)  # Okabe and Ito 2008; only its opacity carries the number, which is written beside it as well


STILL = "Run this cell to get a slider here."  # what a saved page says in the slider's place


@dataclass(frozen=True)
class Explorer:
    """A still picture and its moving twin: `show` turns a choice into HTML."""

    picture: Picture
    choices: Sequence[tuple[str, int]]
    show: Callable[[int], str]
    label: str

    def widget(self) -> ipywidgets.VBox:
        """The slider and what it shows; the arrow keys move it."""
        slider = ipywidgets.SelectionSlider(options=list(self.choices), description=self.label, **ROOMY)
        view = ipywidgets.HTML(self.show(slider.value))
        slider.observe(lambda change: setattr(view, "value", self.show(change["new"])), names="value")
        return ipywidgets.VBox([slider, view])

    def _ipython_display_(self, **_: Any) -> None:
        display(self.picture)
        display_moving(self.widget())


def display_moving(widget: ipywidgets.VBox) -> None:
    """Show a widget, and where none runs a sentence instead of its name."""
    display({**widget._repr_mimebundle_(), "text/plain": STILL}, raw=True)


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


@dataclass(frozen=True)
class Panel:
    """A still picture and its moving twin with several sliders: `show` turns their values, in order, into HTML."""

    picture: Picture
    sliders: Mapping[str, tuple[Sequence[Any], Any]]  # label -> its values, and the one that it starts at
    show: Callable[..., str]

    def widget(self) -> ipywidgets.VBox:
        """The sliders and what they show; the arrow keys move them."""
        rows = [
            ipywidgets.SelectionSlider(options=list(values), value=start, description=label, **ROOMY)
            for label, (values, start) in self.sliders.items()
        ]
        view = ipywidgets.HTML(self.show(*(row.value for row in rows)))
        for row in rows:
            row.observe(lambda _: setattr(view, "value", self.show(*(row.value for row in rows))), names="value")
        return ipywidgets.VBox([*rows, view])

    def _ipython_display_(self, **_: Any) -> None:
        display(self.picture)
        display_moving(self.widget())


def shape_chances(
    shape: Callable[[float, int, float], Tensor],
    tokens: Sequence[str],
    *,
    temperatures: Sequence[float] = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0),
    ks: Sequence[int] | None = None,
    ps: Sequence[float] = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0),
    title: str = "",
) -> Panel:
    """The chances of the next token under sliders: `shape` turns temperature, k and p into probabilities (n,).

    `tokens` name the n places that are shown, most probable first. The still picture shows four settings.
    """
    n = len(tokens)
    ks = sorted({1, 2, 3, 5, 8, n // 2, n}) if ks is None else ks

    def chances(t: float, k: int, p: float) -> list[float]:
        found = shape(t, k, p).detach().float().cpu()
        if found.shape != (n,):
            raise ValueError(f"{tuple(found.shape)} chances for {n} tokens")
        return found.tolist()

    def show(t: float, k: int, p: float) -> str:
        rows = "".join(bar(token, chance) for token, chance in zip(tokens, chances(t, k, p), strict=True))
        return f'<table style="line-height:1.3">{rows}</table>'

    most = max(ks)
    settings = {
        "as it is": (1.0, most, 1.0),
        f"temperature {temperatures[0]:g}": (temperatures[0], most, 1.0),
        f"temperature {temperatures[-1]:g}": (temperatures[-1], most, 1.0),
        "p = 0.9": (1.0, most, 0.9),
    }
    picture = bars(
        {name: chances(*setting) for name, setting in settings.items()}, tokens, title=title, y_label="chance"
    )
    sliders = {"temperature": (temperatures, 1.0), "top-k": (ks, most), "top-p": (ps, 1.0)}
    return Panel(picture, sliders, show)


def bar(name: str, share: float) -> str:
    """One row of a table: a name, a bar as long as its share, and the share in per cent, or that nothing is left of it.

    >>> bar("cat", 0.5)
    '<tr><td>cat</td><td><div style="background:rgb(0,114,178);height:12px;width:120px"></div></td><td>50.0 %</td></tr>'
    """
    red, green, blue = BLUE
    style = f"background:rgb({red},{green},{blue});height:12px;width:{240 * share:.0f}px"
    told = f"{100 * share:.1f} %" if share > 0 else "cut off"
    return f'<tr><td>{html.escape(name)}</td><td><div style="{style}"></div></td><td>{told}</td></tr>'


def kept_or_read(name: str, read: bool) -> str:
    """One token as HTML: on blue where it is read in this step, in brackets where a cache has kept it.

    >>> kept_or_read("cat", False)
    '<span style="padding:2px 4px">[cat]</span>'
    """
    if not read:
        return f'<span style="padding:2px 4px">[{html.escape(name)}]</span>'
    red, green, blue = BLUE
    return f'<span style="background:rgba({red},{green},{blue},0.35);padding:2px 4px">{html.escape(name)}</span>'


def cache_growth(tokens: Sequence[str], prompt: int, token_bytes: int) -> Explorer:
    """Generation step by step: which tokens are read with a cache and without one, and how much is kept.

    The first `prompt` tokens are there from the start; each position takes token_bytes in the cache.
    """
    lengths = range(prompt, len(tokens) + 1)
    read_again = [sum(range(prompt, n + 1)) for n in lengths]  # each step reads all that there is

    def show(n: int) -> str:
        new = prompt if n == prompt else 1
        without = " ".join(kept_or_read(token, True) for token in tokens[:n])
        cached = " ".join(kept_or_read(token, i >= n - new) for i, token in enumerate(tokens[:n]))
        told = f"{sum(range(prompt, n + 1))} tokens read so far without a cache, {n} with one"
        kept = f"which keeps {n * token_bytes:,} bytes"
        rows = f"read without a cache: {without}<br>read with one: {cached}"
        return f'<p style="line-height:2.6">{rows}<br>{told}, {kept}</p>'

    picture = curves(
        {"without a cache": (lengths, read_again), "with a cache": (lengths, list(lengths))},
        title="Tokens read until the text has n tokens",
        x_label="tokens in the text",
        y_label="tokens read",
    )
    return Explorer(picture, [(str(n), n) for n in lengths], show, "tokens")
