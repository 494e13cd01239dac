"""Plots: numbers -> a Picture that carries a description of itself, for those who cannot see it (extra `viz`).

Colours are viridis for heat and Okabe and Ito's for lines, safe for colour-blind readers; lines also differ in dash and
marker.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from torch import Tensor

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
HATCHES = ("", "//", "..", "xx", "\\\\", "--", "oo")
DASHES, MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P", "X")
SHADE = (0.0, 114 / 255, 178 / 255)  # COLOURS[0], for backgrounds; its opacity carries the number
MOST_ROWS = 12  # of a heat map that its description goes through one by one
Line = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Picture:
    """A figure and its description, which stands in for it wherever it cannot be seen."""

    figure: Figure
    alt: str

    def png(self) -> bytes:
        """The figure as a PNG file's bytes."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight", metadata={"Description": self.alt})
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the figure to a PNG file."""
        Path(path).write_bytes(self.png())

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """What a notebook shows: the picture with its alt text, or the text alone."""
        png = base64.b64encode(self.png()).decode()
        image = f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{png}">'
        return {"text/html": image, "image/png": png, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def heat_map(
    matrix: Tensor,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    title: str = "",
    row_label: str = "query",
    column_label: str = "key",
) -> Picture:
    """A matrix (T, S) as colours, its numbers written in where there is room; rows run down, columns across."""
    return heat_maps({title: matrix}, rows, columns, row_label=row_label, column_label=column_label)


def heat_maps(
    matrices: Mapping[str, Tensor],
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    row_label: str = "query",
    column_label: str = "key",
) -> Picture:
    """Title -> matrix (T, S), two in a row, with the same scale of colours for all."""
    numbers = {title: matrix.detach().float().cpu() for title, matrix in matrices.items()}
    T, S = next(iter(numbers.values())).shape
    low, high = limits(numbers.values())
    width, height = max(2.6, 0.34 * S + 1), max(2.2, 0.34 * T + 1)
    across = min(len(numbers), 2)  # with more the letters are too small in a notebook's column
    down = math.ceil(len(numbers) / across)
    figure = Figure(figsize=(width * across + 0.6, height * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis in axes[len(numbers) :]:
        axis.remove()
    for n, (axis, (title, matrix)) in enumerate(zip(axes, numbers.items(), strict=False)):
        image = axis.imshow(matrix.numpy(), cmap="viridis", vmin=low, vmax=high)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(column_label)
        axis.set_ylabel("" if n % across else row_label)
        label_axis(axis.xaxis, columns, S, rotation=90)
        label_axis(axis.yaxis, rows, T)
        if T * S <= 100:
            write_numbers(axis, matrix, (low + high) / 2)
    if high - low not in (0.0, 1.0) or T * S > 100:
        figure.colorbar(image, ax=list(axes[: len(numbers)]), shrink=0.8 / down)
    told = " ".join(describe_matrix(t, m, rows, columns, row_label, column_label) for t, m in numbers.items())
    return Picture(figure, told)


def curves(
    lines: Mapping[str, Line],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
) -> Picture:
    """Name -> (xs, ys) as lines in one frame; each has its own colour, dash and marker."""
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axis = figure.subplots()
    styles = zip(cycle(COLOURS), cycle(DASHES), cycle(MARKERS), strict=False)  # without end
    for (name, (xs, ys)), (colour, dash, marker) in zip(lines.items(), styles, strict=False):
        axis.plot(xs, ys, dash, color=colour, marker=marker if len(xs) <= 20 else None, markersize=4, label=name)
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    axis.title.set_fontsize(10)
    if log_x:
        axis.set_xscale("log", base=2)
    if log_y:
        axis.set_yscale("log")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    told = " ".join(describe_line(name, xs, ys) for name, (xs, ys) in lines.items())
    return Picture(figure, f"Lines, {title or y_label}: {y_label} over {x_label}. {told}")


def bars(
    groups: Mapping[str, Sequence[float]],
    labels: Sequence[str],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
) -> Picture:
    """Name -> one number for each label, side by side; each name has its own colour and hatching."""
    figure = Figure(figsize=(max(5.6, 0.5 * len(labels) + 1.6), 3.4), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(groups)
    styles = zip(cycle(COLOURS), cycle(HATCHES), strict=False)  # without end
    for i, ((name, numbers), (colour, hatch)) in enumerate(zip(groups.items(), styles, strict=False)):
        if len(numbers) != len(labels):
            raise ValueError(f"{name} has {len(numbers)} numbers for {len(labels)} labels")
        places = [at + (i - (len(groups) - 1) / 2) * width for at in range(len(labels))]
        axis.bar(places, numbers, width, color=colour, hatch=hatch, edgecolor="white", linewidth=0.3, label=name)
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    axis.title.set_fontsize(10)
    axis.set_xticks(
        range(len(labels)), labels=list(labels), rotation=45 if len(labels) > 6 else 0, ha="right", fontsize=8
    )
    axis.grid(axis="y", alpha=0.3)
    if len(groups) > 1:
        axis.legend(fontsize=9)
    told = " ".join(describe_bars(name, numbers, labels) for name, numbers in groups.items())
    return Picture(figure, f"Bars, {title or y_label}: {y_label} for {len(labels)} labels. {told}")


def strip(tokens: Sequence[str], shades: Tensor, *, title: str = "", width: int = 76) -> Picture:
    """Tokens as running text, each the darker the nearer its shade (T,) is to 1; below 0 and above 1 is cut off.

    Raises ValueError where tokens and shades differ in number.
    """
    depth = shades.detach().float().cpu().clamp(0, 1).tolist()
    if len(depth) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens and {len(depth)} shades")
    places = laid_out(tokens, width)
    rows = 1 + max((row for row, _ in places), default=0)
    figure = Figure(figsize=(0.088 * width, 0.32 * rows + 0.5), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(0, width), ylim=(rows - 0.1, -0.6), xticks=[], yticks=[])
    axis.set_title(title, fontsize=10)
    axis.set_frame_on(False)
    for token, shade, (row, column) in zip(tokens, depth, places, strict=True):
        box = {
            "boxstyle": "round,pad=0.15",
            "facecolor": (*SHADE, 0.6 * shade),
            "edgecolor": "#888888",
            "linewidth": 0.5,
        }
        axis.text(column, row, token, family="monospace", fontsize=8, va="center", bbox=box)
    return Picture(figure, describe_strip(title, tokens, depth))


def laid_out(tokens: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Where each token stands, (row, column), in lines of so many characters.

    >>> laid_out(["once", "upon", "a"], 10)
    [(0, 0), (0, 6), (1, 0)]
    """
    places, row, column = [], 0, 0
    for token in tokens:
        if column and column + len(token) > width:
            row, column = row + 1, 0
        places.append((row, column))
        column += len(token) + 2
    return places


def describe_strip(title: str, tokens: Sequence[str], depth: Sequence[float]) -> str:
    """Shaded text in words: which tokens are shaded, or where there are shades between, which are the darkest."""
    head = f"Text of {len(tokens)} tokens{f', {title}' if title else ''}."
    if all(shade in (0.0, 1.0) for shade in depth):
        dark = " ".join(token for token, shade in zip(tokens, depth, strict=True) if shade)
        light = " ".join(token for token, shade in zip(tokens, depth, strict=True) if not shade)
        return f"{head} Shaded: {dark or 'none'}. Not shaded: {light or 'none'}."
    darkest = sorted(range(len(tokens)), key=lambda i: -depth[i])[:MOST_ROWS]
    return f"{head} Darkest: {', '.join(f'{tokens[i]} ({depth[i]:.2f})' for i in sorted(darkest))}."


def limits(matrices: Iterable[Tensor]) -> tuple[float, float]:
    """The least and the greatest finite number of some matrices, and never twice the same."""
    finite = torch.cat([m[m.isfinite()] for m in matrices])
    low, high = float(finite.min()), float(finite.max())
    return (min(low, 0.0), 1.0) if low >= 0.0 and high <= 1.0 else (low, high if high > low else low + 1)


def label_axis(axis: Any, names: Sequence[str] | None, n: int, rotation: int = 0) -> None:
    """Words along an axis, or a number now and then."""
    if names is not None and n <= 40:
        axis.set_ticks(range(n), labels=drawable(names), rotation=rotation, fontsize=8)
    else:
        axis.set_ticks(range(0, n, max(1, n // 8)))


def drawable(names: Sequence[str]) -> list[str]:
    """Names as the font can draw them: one with a letter that it has not becomes its number, as in "#4"."""
    font = get_font(findfont(FontProperties()))
    held = [all(letter.isspace() or font.get_char_index(ord(letter)) for letter in name) for name in names]
    return [name if all_there else f"#{n}" for n, (name, all_there) in enumerate(zip(names, held, strict=True))]


def write_numbers(axis: Axes, matrix: Tensor, middle: float) -> None:
    """Every number in its cell, black where it is bright and white where it is dark."""
    for t, row in enumerate(matrix.tolist()):
        for s, number in enumerate(row):
            text = short(number)
            axis.text(s, t, text, ha="center", va="center", fontsize=7, color="black" if number > middle else "white")


def short(number: float) -> str:
    """A number in few characters.

    >>> short(0.25), short(1.0), short(float("-inf"))
    ('.25', '1', '-∞')
    """
    if math.isinf(number):
        return "-∞" if number < 0 else "∞"
    return f"{number:.2f}".replace("0.", ".", 1).removesuffix("0").removesuffix("0").removesuffix(".") or "0"


def describe_matrix(
    title: str,
    matrix: Tensor,
    rows: Sequence[str] | None,
    columns: Sequence[str] | None,
    row_label: str,
    column_label: str,
) -> str:
    """A heat map in words: its size, and for each row the greatest number, or in a mask the columns that are 1."""
    T, S = matrix.shape
    head = f"Heat map{f', {title}' if title else ''}: {T} rows ({row_label}) by {S} columns ({column_label})."
    shown = range(T) if T <= MOST_ROWS else range(0, T, -(-T // MOST_ROWS))
    names = columns or [str(s) for s in range(S)]
    mask = bool(((matrix == 0) | (matrix == 1)).all())
    parts = []
    for t in shown:
        s = int(matrix[t].argmax())
        ones = ", ".join(names[i] for i in matrix[t].nonzero().flatten().tolist())
        told = f"1 at {ones or 'none'}" if mask else f"most at {names[s]} ({float(matrix[t, s]):.2f})"
        parts.append(f"{rows[t] if rows else t}: {told}")
    return f"{head} {'; '.join(parts)}."


def describe_line(name: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    """A line in words: where it starts and ends, its lowest and its highest point."""
    low, high = min(range(len(ys)), key=lambda i: ys[i]), max(range(len(ys)), key=lambda i: ys[i])
    return (
        f"{name}: from {ys[0]:.3g} at {xs[0]:.3g} to {ys[-1]:.3g} at {xs[-1]:.3g}, "
        f"lowest {ys[low]:.3g} at {xs[low]:.3g}, highest {ys[high]:.3g} at {xs[high]:.3g}."
    )


def describe_bars(name: str, numbers: Sequence[float], labels: Sequence[str]) -> str:
    """Bars in words: the greatest numbers with their labels, and how many there are of 0.

    >>> describe_bars("now", [0.5, 0.0], ["cat", "dog"])
    'now: cat 0.5; 1 of 2 are 0.'
    """
    order = sorted(range(len(numbers)), key=lambda i: -numbers[i])
    greatest = ", ".join(f"{labels[i]} {numbers[i]:.3g}" for i in order[:5] if numbers[i])
    return f"{name}: {greatest}; {sum(not number for number in numbers)} of {len(numbers)} are 0."
