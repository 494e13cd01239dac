"""Laws of the scenes: the caption is true of the pixels, combinations are held out, a number makes its scene."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tinytrans.data.scenes import COLORS, OPPOSITE, RELATIONS, SHAPES, SIDE, Scenes, Thing, combinations, draw, verify
from tinytrans.data.splits import SPLITS


def centre(image: Tensor, color: str) -> tuple[float, float]:
    """Where the pixels of a color lie: x to the right, y down."""
    y, x = (image == torch.tensor(COLORS[color])[:, None, None]).all(0).nonzero().float().mean(0).tolist()
    return x, y


def beside(relation: str, one: tuple[float, float], two: tuple[float, float]) -> bool:
    """Whether pixels lie so: read off the picture, with words of its own."""
    dx, dy = one[0] - two[0], one[1] - two[1]
    return {
        "left of": dx < -abs(dy), "right of": dx > abs(dy), "above": dy < -abs(dx), "below": dy > abs(dx)
    }[relation]  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
def test_the_caption_is_true_of_the_pixels(split: str) -> None:
    """Where the colors differ, the pixels of the first lie as the caption says to those of the second."""
    checked = 0
    for scene in Scenes(120, split=split):
        if scene.first.color != scene.second.color:
            image = scene.image
            one, two = centre(image, scene.first.color), centre(image, scene.second.color)
            assert beside(scene.relation, one, two), scene
            checked += 1
    assert checked > 60


def test_nothing_is_hidden() -> None:
    """No thing covers another or reaches the rim: together they show what each shows alone."""
    for scene in Scenes(150):
        alone = [(draw([thing]).sum(0) > 0) for thing in (scene.first, scene.second)]
        assert not (alone[0] & alone[1]).any()
        assert all(part.sum() >= 15 for part in alone)
        together = scene.image.sum(0) > 0
        assert torch.equal(together, alone[0] | alone[1])
        assert not together[[0, -1]].any()
        assert not together[:, [0, -1]].any()


def test_shapes_can_be_told_apart() -> None:
    """At the smallest radius any two shapes differ in many pixels, and each is drawn whole and symmetric."""
    pictures = {shape: draw([Thing("white", shape, radius=4.0)])[0] for shape in SHAPES}
    names = list(pictures)
    for i, one in enumerate(names):
        assert torch.equal(pictures[one], pictures[one].flip(1)), one
        for two in names[i + 1 :]:
            assert (pictures[one] != pictures[two]).sum() >= 8, (one, two)


def test_the_test_split_holds_out_whole_combinations() -> None:
    """No color and shape of a test scene were ever trained on together, yet each was, with others."""
    trained, new = set(combinations("train")), set(combinations("test"))
    assert not trained & new
    assert len(trained) + len(new) == len(COLORS) * len(SHAPES)
    assert {color for color, _ in trained} == {color for color, _ in new} == set(COLORS)
    assert {shape for _, shape in trained} == {shape for _, shape in new} == set(SHAPES)
    for split, allowed in (("train", trained), ("validation", trained), ("test", new)):
        for scene in Scenes(100, split=split):
            assert {(thing.color, thing.shape) for thing in (scene.first, scene.second)} <= allowed


def test_no_caption_is_in_two_splits() -> None:
    """What a validation scene shows, told from either side, was never shown in training."""
    told = {split: {caption for scene in Scenes(1500, split=split) for caption in scene.captions()} for split in SPLITS}
    assert not told["train"] & told["validation"]
    assert not told["train"] & told["test"]
    assert len(told["train"]) > 1000


def test_a_scene_is_told_from_either_side() -> None:
    """Both tellings are true, a wrong color, shape or relation is not, nor half of the scene."""
    scene = Scenes(1)[0]
    assert all(verify(caption, scene) for caption in scene.captions())
    assert verify(f"  {scene.caption} ", scene)
    for wrong in RELATIONS:
        if wrong != scene.relation:
            assert not verify(f"{scene.first} {wrong} {scene.second}", scene)
    assert not verify(str(scene.first), scene)
    assert all(OPPOSITE[OPPOSITE[relation]] == relation for relation in RELATIONS)


def test_a_scene_depends_on_its_number_alone() -> None:
    """Scene i is the same however many there are; another seed or split gives others; a batch holds the pictures."""
    few, many = Scenes(4), Scenes(900)
    assert many[2] == few[2] == few[:3][-1] == few[-2]
    assert Scenes(4, seed=1)[2] != few[2] != Scenes(4, split="test")[2]
    images, captions = few.batch([2, 0])
    assert images.shape == (2, 3, SIDE, SIDE)
    assert torch.equal(images[0], few[2].image)
    assert captions == [few[2].caption, few[0].caption]
    assert (images.min(), images.max() <= 1) == (0, True)
    with pytest.raises(IndexError):
        few[4]
    with pytest.raises(ValueError, match="no split 'dev'"):
        Scenes(split="dev")


def test_every_word_occurs() -> None:
    """Each color, shape and relation is in the training captions, none more than twice as often as its share."""
    words = " ".join(scene.caption for scene in Scenes(800))
    for names, slots in ((COLORS, 2), (SHAPES, 2), (RELATIONS, 1)):
        for name in names:
            assert 0.5 < words.count(name) / (800 * slots / len(names)) < 1.6, name
