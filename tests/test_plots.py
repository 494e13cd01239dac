"""Pictures: each carries a true description of itself, and nothing hangs on colour alone."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from tinytrans import plots, widgets

WORDS = ["the", "cat", "sat"]
WEIGHTS = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.1, 0.7, 0.2]])


def test_heat_map_tells_its_numbers() -> None:
    """The description of a heat map names its size and where each row is greatest."""
    alt = plots.heat_map(WEIGHTS, WORDS, WORDS, title="weights").alt
    assert alt.startswith("Heat map, weights: 3 rows (query) by 3 columns (key).")
    assert "sat: most at cat (0.70)" in alt


def test_mask_tells_its_ones() -> None:
    """The description of a mask says which columns each row may see."""
    alt = plots.heat_map(torch.ones(3, 3).tril().bool(), WORDS, WORDS).alt
    assert "the: 1 at the; cat: 1 at the, cat; sat: 1 at the, cat, sat" in alt
    assert "0: 1 at none" in plots.heat_map(torch.zeros(2, 2)).alt


def test_large_map_is_told_in_parts() -> None:
    """The description of a large map stays short enough to be read aloud."""
    assert len(plots.heat_map(torch.rand(200, 200)).alt) < 600


def test_maps_stand_two_in_a_row() -> None:
    """Five maps fill three rows of two, so that their letters stay readable; no frame is left empty."""
    one, five = (plots.heat_maps({f"head {h}": WEIGHTS for h in range(n)}) for n in (2, 5))
    assert [axis.get_title() for axis in five.figure.axes if axis.get_title()] == [f"head {h}" for h in range(5)]
    assert five.figure.get_figwidth() == one.figure.get_figwidth()
    assert five.figure.get_figheight() == 3 * one.figure.get_figheight()
    assert all(axis.images or axis.get_label() == "<colorbar>" for axis in five.figure.axes)


def test_a_letter_that_cannot_be_drawn_has_its_number() -> None:
    """Letters of a script that the font has not are numbers in the picture, and themselves in its description."""
    picture = plots.heat_map(WEIGHTS, ["8", "月", "é"], ["日", "\ufffe", " "])
    assert picture.png()  # a glyph that is missing would warn, and a warning is an error
    labels = [
        label.get_text()
        for axis in (picture.figure.axes[0].yaxis, picture.figure.axes[0].xaxis)
        for label in axis.get_ticklabels()
    ]
    assert labels == ["8", "#1", "é", "#0", "#1", " "]
    assert "月: most at" in picture.alt


def test_curves_tell_their_ends() -> None:
    """The description of lines gives each one's ends and extremes."""
    alt = plots.curves({"loss": ([1, 2, 3], [4.0, 1.0, 2.0])}, title="run", x_label="step", y_label="nats").alt
    assert "nats over step" in alt
    assert "loss: from 4 at 1 to 2 at 3, lowest 1 at 2, highest 4 at 1." in alt


def test_picture_in_a_notebook() -> None:
    """A notebook gets the PNG, the alt text beside it in each form, and the text alone where nothing is drawn."""
    picture = plots.heat_map(WEIGHTS, ["<a>", "b", "c"], WORDS)
    data, about = picture._repr_mimebundle_()
    assert data["text/plain"] == about["image/png"]["alt"] == picture.alt
    assert 'alt="Heat map' in data["text/html"]
    assert "&lt;a&gt;" in data["text/html"]
    assert "<a>" not in data["text/html"]


def test_picture_is_a_png(tmp_path) -> None:
    """`save` writes a PNG file that holds the description too."""
    picture = plots.curves({"a": ([1, 2], [1.0, 2.0])})
    picture.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"Description" in content


@pytest.mark.parametrize("matrix", [torch.zeros(2, 2), torch.tensor([[float("-inf"), 1.0]]), torch.full((1, 1), 3.0)])
def test_odd_matrices_can_be_drawn(matrix: torch.Tensor) -> None:
    """One number, equal numbers and infinities can be drawn."""
    assert plots.heat_map(matrix).png()


def test_gradients_can_be_plotted() -> None:
    """A tensor that is part of a graph, or half as wide, is drawn like any other."""
    assert plots.heat_map(WEIGHTS.clone().requires_grad_()).alt == plots.heat_map(WEIGHTS.double()).alt


def test_colours_differ_in_grey() -> None:
    """The first four lines differ in lightness or else in dash, so that they can be told apart without colour."""
    styles = list(zip(plots.COLOURS, plots.DASHES * 2, plots.MARKERS, strict=False))
    assert all(a[1] != b[1] or a[2] != b[2] for a, b in combinations(styles, 2))
    assert len(set(plots.COLOURS)) == len(plots.COLOURS) == len(plots.MARKERS)


def test_slider_shows_its_row() -> None:
    """Moving the slider shows the weights of the chosen query, each as a number and not by its shade alone."""
    slider, view = widgets.look_around(WEIGHTS, WORDS).widget().children
    assert "the looks at" in view.value
    slider.value = 2
    assert "sat looks at" in view.value
    assert "cat<sub>70</sub>" in view.value


def test_still_twin_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The still picture is shown before the slider, and where no slider runs, a sentence stands in its place."""
    shown: list[Any] = []
    monkeypatch.setattr(widgets, "display", lambda thing, **_: shown.append(thing))
    widgets.look_around(WEIGHTS, WORDS)._ipython_display_()
    picture, slider = shown
    assert type(picture).__name__ == "Picture"
    assert "application/vnd.jupyter.widget-view+json" in slider
    assert slider["text/plain"] == widgets.STILL


def test_words_are_escaped() -> None:
    """A token that looks like HTML is shown, not obeyed."""
    assert "<b>" not in widgets.look_around(WEIGHTS, ["<b>", "cat", "sat"]).widget().children[1].value


def test_strip_tells_what_is_shaded() -> None:
    """The description of shaded text names the shaded tokens, or with shades in between the darkest with numbers."""
    alt = plots.strip(WORDS, torch.tensor([0.0, 1.0, 1.0]), title="answer").alt
    assert alt == "Text of 3 tokens, answer. Shaded: cat sat. Not shaded: the."
    assert "cat (0.75)" in plots.strip(WORDS, WEIGHTS[1]).alt
    with pytest.raises(ValueError, match="3 tokens and 2 shades"):
        plots.strip(WORDS, torch.zeros(2))


def test_long_text_is_broken_into_lines() -> None:
    """No line is wider than asked, no token is lost, and none is placed on another."""
    places = plots.laid_out(WORDS * 9, 20)
    assert len(set(places)) == 27
    assert all(column + 3 <= 20 for _, column in places)
    assert plots.strip(WORDS * 9, torch.zeros(27)).png()


def test_reading_along_shows_the_note() -> None:
    """Moving the slider shows the note of the chosen token, as text."""
    slider, view = widgets.read_along(WORDS, WEIGHTS[1], ["one", "<two>", "three"]).widget().children
    assert "<p>one</p>" in view.value
    slider.value = 1
    assert "&lt;two&gt;" in view.value
    with pytest.raises(ValueError, match="3 tokens and 1 notes"):
        widgets.read_along(WORDS, WEIGHTS[1], ["one"])


def test_names_must_fit() -> None:
    """Too few words for a matrix are an error that names both."""
    with pytest.raises(ValueError, match=r"\(3, 3\), not \(2, 2\)"):
        widgets.look_around(WEIGHTS, WORDS[:2])


def test_bars_tell_their_numbers() -> None:
    """The description of bars names the greatest of each group and how many are 0; numbers must fit the labels."""
    alt = plots.bars({"before": [0.2, 0.5, 0.3], "after": [0.0, 1.0, 0.0]}, WORDS, y_label="chance").alt
    assert "before: cat 0.5, sat 0.3, the 0.2; 0 of 3 are 0." in alt
    assert "after: cat 1; 2 of 3 are 0." in alt
    with pytest.raises(ValueError, match="before has 2 numbers for 3 labels"):
        plots.bars({"before": [0.2, 0.5]}, WORDS)


def test_sliders_shape_the_chances() -> None:
    """Each slider is handed on: what `shape` gives for the three values is what is shown, and what is 0 is cut off."""

    def shape(t: float, k: int, p: float) -> torch.Tensor:
        return torch.tensor([0.7 if t == 1 else 0.5, 0.3, 0.0 if k < 3 or p < 1 else 0.2])

    temperature, top_k, top_p, view = widgets.shape_chances(shape, WORDS).widget().children
    assert "70.0 %" in view.value
    temperature.value, top_k.value = 2.0, 2
    assert "50.0 %" in view.value
    assert "cut off" in view.value
    top_k.value = 3
    assert "cut off" not in view.value
    top_p.value = 0.5
    assert "cut off" in view.value
    with pytest.raises(ValueError, match=r"\(3,\) chances for 2 tokens"):
        widgets.shape_chances(shape, WORDS[:2])


def test_a_cache_reads_each_token_once() -> None:
    """With a prompt of 2 a text of 4 costs 2 + 3 + 4 readings without a cache and 4 with one."""
    growth = widgets.cache_growth(["a", "b", "c", "d"], 2, 10)
    slider, view = growth.widget().children
    slider.value = 4
    assert "9 tokens read so far without a cache, 4 with one, which keeps 40 bytes" in view.value
    assert "to 9 at 4" in growth.picture.alt
