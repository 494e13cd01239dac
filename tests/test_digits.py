"""Laws of the digits: real pictures between 0 and 1, every label's share in every split, names in any language."""

from __future__ import annotations

import sys

import pytest
import torch

from tinytrans.data.digits import Digits, digit_names, jittered, load_pictures, stratify
from tinytrans.data.splits import SPLITS


@pytest.fixture(scope="module")
def splits() -> dict[str, Digits]:
    pytest.importorskip("sklearn")
    return {split: Digits(split=split) for split in SPLITS}


def test_the_pictures_are_grey_values(splits: dict[str, Digits]) -> None:
    """Images are float32 (N, 1, 8, 8) that reach from 0 to 1 exactly, in sixteenths; labels are 0 to 9."""
    images = splits["train"].images
    assert images.shape[1:] == (1, 8, 8)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert torch.equal((images * 16).round(), images * 16)
    assert splits["train"].labels.unique().tolist() == list(range(10))
    assert splits["train"].labels.dtype == torch.int64


def test_a_nought_is_a_ring(splits: dict[str, Digits]) -> None:
    """The mean nought is light in its middle and dark around it; so rows, columns and labels are not mixed up."""
    noughts = splits["train"].images[splits["train"].labels == 0].mean(0)[0]
    assert noughts[3:5, 3:5].mean() < 0.2 < noughts[3:5, 1:3].mean()


def test_the_splits_part_the_pictures(splits: dict[str, Digits]) -> None:
    """Every picture is in exactly one split."""
    numbers = torch.cat([splits[split].numbers for split in SPLITS])
    assert sorted(numbers.tolist()) == list(range(1797))


def test_every_label_has_its_share(splits: dict[str, Digits]) -> None:
    """A tenth of each digit validates and a fifth tests, to one picture."""
    everywhere = sum(torch.bincount(data.labels, minlength=10) for data in splits.values())
    for split, share in (("validation", 0.1), ("test", 0.2)):
        assert ((torch.bincount(splits[split].labels) - share * everywhere).abs() <= 0.5).all()


def test_the_seed_decides() -> None:
    """The same seed gives the same split, another seed another one, of the same sizes; labels alone matter."""
    labels = torch.arange(100) % 4
    once, again, other = stratify(labels, 0), stratify(labels, 0), stratify(labels, 1)
    assert all(torch.equal(once[split], again[split]) for split in SPLITS)
    assert not torch.equal(once["test"], other["test"])
    assert len(once["test"]) == len(other["test"]) == 20
    assert torch.equal(once["test"], once["test"].sort().values)


def test_a_label_has_a_name(splits: dict[str, Digits]) -> None:
    """Each picture comes with the word for its digit, in the language asked for."""
    image, name = splits["test"][5]
    assert name == digit_names()[splits["test"].labels[5]]
    assert torch.equal(image, splits["test"].images[5])
    assert [name for _, name in splits["test"]][:9] == [splits["test"].names[i] for i in splits["test"].labels[:9]]
    pytest.importorskip("unicode_rbnf")
    assert digit_names("de") == ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
    assert Digits(split="test", language="fr").names[4] == "quatre"


def test_pictures_and_labels_belong_together(splits: dict[str, Digits]) -> None:
    """A picture's label is the one that scikit-learn gives it, in every split."""
    images, labels = load_pictures()
    for data in splits.values():
        assert torch.equal(images[data.numbers], data.images)
        assert torch.equal(labels[data.numbers], data.labels)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-learn there are no pictures, and the error says how to get them; an unknown split has its own."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "tinytrans\[data\]"'):
        Digits()
    with pytest.raises(ValueError, match="no split 'dev'"):
        Digits(split="dev")


def test_nothing_jittered_is_nothing_changed() -> None:
    """Without a turn, a scale and a shift each picture stays as it is."""
    images = torch.rand(3, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(jittered(images, turn=0, scale=0, shift=0), images)


def test_jitter_is_drawn_anew() -> None:
    """Every call and every picture gets its own move, the same generator the same; ink stays between paper and ink."""
    ring = torch.zeros(4, 1, 8, 8)
    ring[:, :, 2:6, 2:6] = 1
    ring[:, :, 3:5, 3:5] = 0
    chance = torch.Generator().manual_seed(0)
    one, two = jittered(ring, generator=chance), jittered(ring, generator=chance)
    assert torch.equal(one, jittered(ring, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(one, two)
    assert not torch.equal(one[0], one[1])
    assert 0 <= one.min() <= one.max() <= 1 + 1e-6
    assert (one - ring).abs().mean() < 0.15, "it is still the same picture"


@pytest.mark.parametrize("axis", [2, 3])
def test_a_picture_moves_by_so_many_pixels_at_most(axis: int) -> None:
    """A point that is moved by up to two pixels, in a picture that is not square, lands there on average in between."""
    point = torch.zeros(300, 1, 9, 13)
    point[:, :, 4, 6] = 1
    moved = jittered(point, turn=0, scale=0, shift=2.0, generator=torch.Generator().manual_seed(0))
    places = torch.arange(moved.shape[axis]).float()
    ink = moved.sum(dim=(1, 5 - axis))  # along the axis
    offsets = (ink * places).sum(dim=1) / ink.sum(dim=1) - (4 if axis == 2 else 6)
    assert 1.9 < offsets.abs().max() <= 2.001
    assert offsets.mean().abs() < 0.3


def test_a_picture_turns() -> None:
    """Turned by a right angle a picture is torch's rot90: with no other chance than left or right."""
    image = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(1)).expand(400, -1, -1, -1)
    turned = jittered(image, turn=torch.pi / 2, scale=0, shift=0, generator=torch.Generator().manual_seed(0))
    quarter = [torch.rot90(image[0], k, (1, 2)) for k in (1, -1)]
    nearest = [min(float((each - side).abs().mean()) for each in turned) for side in quarter]
    assert max(nearest) < 0.05
