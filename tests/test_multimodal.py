"""Laws of a decoder that reads images. Oracles: features put in by hand, a GPT without images, a round trip."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinytrans.config import PRESETS, GPTConfig, MultimodalConfig, ViTConfig
from tinytrans.data.digits import Digits
from tinytrans.models import load_model
from tinytrans.models.gpt import GPT
from tinytrans.models.multimodal import Multimodal, Projector, put_in
from tinytrans.models.vit import ViT
from tinytrans.sampling import generate
from tinytrans.training.captions import caption_batch, caption_loss, text_targets
from tinytrans.training.loop import evaluating, fit
from tinytrans.training.optim import muon, wsd

IMAGE, N = 10, 4  # the placeholder's id, the tokens of an image
TINY = MultimodalConfig(
    vision=ViTConfig(image_size=4, patch_size=2, n_channels=3, n_classes=7, n_layers=2, d_model=8, n_heads=2),
    text=GPTConfig(vocab_size=11, n_layers=2, d_model=12, n_heads=3, max_len=24),
    image_id=IMAGE,
)


def build(text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **changes: Any) -> Multimodal:
    """A model in float64 whose every part counts."""
    torch.manual_seed(0)
    parts = {"text": replace(TINY.text, **(text or {})), "vision": replace(TINY.vision, **(vision or {}))}
    model = Multimodal(replace(TINY, **parts, **changes)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def pictures(number: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(number, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WORDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]])
POSITIONS = ["rope", "learned", "sinusoidal", "alibi"]


def test_features_by_hand() -> None:
    """Places are filled row by row from left to right, with the images in their order; what is elsewhere stays."""
    x = -torch.arange(1.0, 13).view(2, 6, 1)
    places = torch.tensor([[0, 1, 1, 0, 1, 1], [1, 0, 0, 1, 0, 0]]).bool()
    features = torch.tensor([[10.0, 11], [20, 21], [30, 31]]).unsqueeze(-1)
    filled = put_in(x, features, places).squeeze(-1).tolist()
    assert filled == [[-1, 10, 11, -4, 20, 21], [30, -8, -9, 31, -11, -12]]


@pytest.mark.parametrize(
    ("row", "images", "message"),
    [
        ([IMAGE] * 3 + [1], 1, "3 placeholders stand for 4 features: 1 images of 4 each"),
        ([IMAGE] * 5, 1, "5 placeholders stand for 4 features"),
        ([1, 2], 1, "0 placeholders stand for 4 features"),
        ([IMAGE] * 4, None, "4 placeholders stand for 0 features"),
        ([IMAGE] * 4, 2, "4 placeholders stand for 8 features"),
    ],
)
def test_room_must_be_that_of_the_images(row: list[int], images: int | None, message: str) -> None:
    """Other than one placeholder a feature raises ValueError with both numbers."""
    seen = None if images is None else pictures(images)
    with pytest.raises(ValueError, match=message):
        build()(torch.tensor([row]), seen)


def test_an_image_stands_in_one_row() -> None:
    """Where the numbers agree in sum, but a row ends in the midst of an image, ValueError names row and numbers."""
    ids = torch.full((2, 5), IMAGE)
    ids[0, 3:] = 1
    with pytest.raises(ValueError, match="row 0 has 3 placeholders, not a multiple of the 4 features"):
        build()(ids, pictures())


@pytest.mark.parametrize("positions", POSITIONS)
def test_without_images_it_is_the_gpt(positions: str) -> None:
    """Ids without room for images have the logits of the GPT alone."""
    model = build({"positions": positions})
    assert torch.equal(model(WORDS), model.text(WORDS))


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("normed", [False, True])
def test_features_are_read_as_embeddings(positions: str, normed: bool) -> None:
    """A word whose embedding an image's features are is read as the image: places, scale and norms are the same."""
    model = build({"positions": positions, "embedding_norm": normed, "tie": False})
    image = pictures(1)
    features = model.see(image)[0]
    ids = torch.tensor([[1, IMAGE, IMAGE, IMAGE, IMAGE, 2]])
    expected = model(ids, image)
    model.text.embedding.weight.data[3:7] = features
    torch.testing.assert_close(model.text(torch.tensor([[1, 3, 4, 5, 6, 2]])), expected, atol=1e-9, rtol=1e-9)


def test_features_are_the_patches() -> None:
    """The decoder gets every patch, projected, in the encoder's order, and not the class token."""
    model, images = build(), pictures()
    torch.testing.assert_close(model.see(images), model.projector(model.vision.hidden(images)[:, 1:]))
    assert model.see(images).shape == (2, N, 12)


def test_no_word_sees_a_later_image() -> None:
    """Another image changes the logits from its first place on, in its own row, and none before."""
    model = build()
    ids = torch.cat((WORDS[:, :2], model.in_front(WORDS[:, 2:])), dim=1)
    images = pictures()
    before = model(ids, images)
    images[1] += 1
    changed = (model(ids, images) != before).any(dim=-1)
    assert not changed[0].any()
    assert not changed[1, :2].any()
    assert changed[1, 2:].all()


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_cache_changes_nothing(positions: str) -> None:
    """Image first, then words one by one or by two: the logits are those of all at once."""
    model, images = build({"positions": positions}), pictures()
    ids = model.in_front(WORDS)
    cache = model.new_cache(2)
    parts = [model(ids[:, : N + 1], images, cache=cache), model(ids[:, N + 1 : N + 2], cache=cache)]
    parts.append(model(ids[:, N + 2 :], cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids, images))


def test_generation_with_and_without_cache() -> None:
    """`generate` writes the same with and without the cache, greedily the argmax of each whole reading."""
    model, images = build(), pictures()
    ids = model.in_front(WORDS[:, :1])
    fast = generate(model.given(images), ids, max_new_tokens=9, temperature=0.0)
    assert torch.equal(fast, generate(model.given(images), ids, max_new_tokens=9, temperature=0.0, use_cache=False))
    logits = model(fast[:, :-1], images)[:, N:]
    logits[..., IMAGE] = -torch.inf
    assert torch.equal(fast[:, N + 1 :], logits.argmax(dim=-1))


def test_no_image_is_ever_said() -> None:
    """However likely its token, generated text has no placeholder in it."""
    model, images = build({"tie": False}), pictures()
    model.text.head.weight.data[IMAGE] = 0
    model.text.head.weight.data[:IMAGE] = 0  # all alike
    drawn = generate(model.given(images), model.in_front(WORDS[:, :1]), max_new_tokens=15)
    assert not (drawn[:, N:] == IMAGE).any()


def test_only_text_is_learnt() -> None:
    """A target is -100 where an image or padding follows; the image's last place is asked for the first word."""
    images = pictures()
    ids, same, targets = caption_batch(images, [[5, 0], [6, 7, 0]], n_image_tokens=N, image_id=IMAGE)
    assert same is images
    assert ids.tolist() == [[IMAGE] * 4 + [5, 0], [IMAGE] * 4 + [6, 7]]
    assert targets.tolist() == [[-100] * 3 + [5, 0, -100], [-100] * 3 + [6, 7, 0]]
    between = torch.tensor([[1, 2, IMAGE, IMAGE, 3, 4]])
    assert text_targets(between, IMAGE)[1].tolist() == [[2, -100, -100, 3, 4]]
    model = build()
    assert caption_loss(model, (ids, images, targets))[1] == 5
    with pytest.raises(ValueError, match="2 images cannot be paired with 1 captions"):
        caption_batch(images, [[5]], n_image_tokens=N, image_id=IMAGE)
    with pytest.raises(ValueError, match="caption 1 of 2 is empty"):
        caption_batch(images, [[5], []], n_image_tokens=N, image_id=IMAGE)
    with pytest.raises(ValueError, match="there are no captions"):
        caption_batch(images[:0], [], n_image_tokens=N, image_id=IMAGE)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_encoder_stays_as_it_is(frozen: bool) -> None:
    """Frozen, the vision encoder gets no gradient and no dropout, after evaluation too; else each part learns."""
    model = build(vision={"dropout": 0.5}, freeze_vision=frozen)
    with evaluating(model.train()):
        pass
    assert [module.training for module in (model, model.vision, model.text)] == [True, not frozen, True]
    images = pictures()
    assert torch.equal(model.see(images), model.see(images)) is frozen
    caption_loss(model, caption_batch(images, [[5, 0], [6, 7, 0]], n_image_tokens=N, image_id=IMAGE))[0].backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    vision = {name for name, _ in model.named_parameters() if name.startswith("vision.")}
    unread = {"vision.cls"}  # its own output stays behind, but the patches read it
    assert idle == (vision if frozen else set()), idle ^ (vision if frozen else unread)


@pytest.mark.parametrize("size", [0.02, 1.0])
@pytest.mark.parametrize(("d_in", "d_out"), [(32, 256), (256, 64)])
def test_projected_features_are_of_the_embeddings_size(size: float, d_in: int, d_out: int) -> None:
    """At birth the projector's outputs spread as the embeddings do, whatever the widths."""
    torch.manual_seed(0)
    out = Projector(d_in, d_out, size)(torch.randn(500, 3, d_in))
    assert out.std().item() == pytest.approx(size, rel=0.15)


def test_trained_parts_are_joined() -> None:
    """`Multimodal.of` has both parts' numbers, frozen eyes, and features as large as the decoder's embeddings."""
    torch.manual_seed(1)
    vision, text = ViT(TINY.vision), GPT(TINY.text)
    text.embedding.weight.data *= 50
    model = Multimodal.of(vision, text, image_id=IMAGE).eval()
    assert torch.equal(model.text(WORDS), text.eval()(WORDS))
    images = pictures().float()
    assert torch.equal(model.vision.hidden(images), vision.eval().hidden(images))
    assert not any(p.requires_grad for p in model.vision.parameters())
    assert 0.4 < (model.see(images).std() / text.embedding.weight.std()).item() < 2.5
    assert model.text.head.weight is model.text.embedding.weight


@pytest.mark.parametrize("frozen", [False, True])
def test_is_saved_and_read(tmp_path: Path, frozen: bool) -> None:
    """What is written is read back with its every number, its nested configs, its tied matrix and its freezing."""
    model, images = build(freeze_vision=frozen), pictures()
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, Multimodal)
    assert again.config == model.config
    ids = model.in_front(WORDS)
    assert torch.equal(again(ids, images), model(ids, images))
    assert again.text.head.weight is again.text.embedding.weight
    assert all(p.requires_grad is not frozen for p in again.vision.parameters())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_id": 11}, "image_id 11 is outside the vocabulary of 11"),
        ({"image_id": -1}, "image_id -1 is no id"),
        ({"vision": TINY.text}, "vision is of type GPTConfig, not a ViTConfig"),
        ({"text": replace(TINY.text, max_len=3)}, "4 image tokens do not fit max_len 3"),
    ],
)
def test_impossible_configs_are_refused(wrong: dict[str, Any], message: str) -> None:
    """A config that no model can have raises ValueError and names the values."""
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)


def test_a_digit_is_named() -> None:
    """In 80 steps handwritten digits it has never seen get their English names, spelt, three times in four."""
    config = PRESETS["digits-to-words"]
    assert isinstance(config, MultimodalConfig)
    data, test = Digits(), Digits(split="validation")
    spelt = [[ord(letter) - 96 for letter in name] + [0] for name in data.names]  # 0 ends a word
    batch = partial(caption_batch, n_image_tokens=config.n_image_tokens, image_id=config.image_id)

    def batches(number: int) -> Any:
        rows = torch.randint(len(data), (32,), generator=torch.Generator().manual_seed(number))
        return batch(data.images[rows], [spelt[label] for label in data.labels[rows].tolist()])

    torch.manual_seed(0)
    model = Multimodal(config)
    schedule = partial(wsd, warmup=5, total=80, decay=50)
    fit(model, batches, caption_loss, steps=80, optimizer=muon(model, 0.02, 4e-3), schedule=schedule, progress=False)
    room = torch.full((len(test), config.n_image_tokens), config.image_id)
    said = generate(model.given(test.images), room, max_new_tokens=6, temperature=0.0, stop=0)[:, room.shape[1] :]
    rows = [row[: row.index(0) + 1] if 0 in row else row for row in said.tolist()]
    right = [row == spelt[label] for row, label in zip(rows, test.labels.tolist(), strict=True)]
    assert sum(right) / len(right) >= 0.75
