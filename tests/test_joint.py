"""Laws of a decoder that reads several encoders. Oracles: one encoder alone, no cache, a round trip, a task of two."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import BERTConfig, EncDecConfig, GPTConfig, JointConfig, ViTConfig
from tinytrans.models import load_model
from tinytrans.models.convert import to_transformers
from tinytrans.models.encdec import EncoderDecoder, shift_right
from tinytrans.models.joint import Joint, side_by_side
from tinytrans.nn.masks import padding
from tinytrans.sampling import beam_search, generate
from tinytrans.training.loop import fit
from tinytrans.training.optim import adamw, warmup_cosine

V, S, T, N = 13, 6, 4, 5  # N: what an image takes, its class token too
TEXT = BERTConfig(vocab_size=11, max_len=8, n_layers=1, d_model=6, n_heads=3)
IMAGE = ViTConfig(image_size=4, patch_size=2, n_channels=1, n_classes=2, n_layers=1, d_model=8, n_heads=2)
TINY = JointConfig(encoders=(TEXT, IMAGE), vocab_size=V, n_layers=2, d_model=12, n_heads=3, max_len=24)
VARIANTS: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "modern": {"residual": "pre", "norm": "rms", "positions": "rope", "feedforward": "swiglu", "n_kv_heads": 1},
    "learned": {"positions": "learned", "embedding_norm": True, "tie": False},
    "two texts": {"encoders": (TEXT, replace(TEXT, d_model=9, n_layers=2))},
}


def build(name: str = "post-norm", **changes: Any) -> Joint:
    """A model of that variant in float64, its weights random enough that every part counts."""
    torch.manual_seed(0)
    model = Joint(replace(TINY, **{**VARIANTS[name], **changes})).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def draw(*shape: int, size: int = 11, seed: int = 0) -> Tensor:
    return torch.randint(size, shape, generator=torch.Generator().manual_seed(seed))


def sources(model: Joint, rows: int = 2, seed: int = 0) -> list[Tensor]:
    """A source for each encoder."""
    made = [
        draw(rows, S, seed=seed),
        torch.randn(rows, 1, 4, 4, generator=torch.Generator().manual_seed(seed)).double(),
    ]
    if all(isinstance(config, BERTConfig) for config in model.config.encoders):
        made[1] = draw(rows, S - 1, seed=seed + 1)
    return made


TARGET = draw(2, T, size=V, seed=9)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_padded_memory_changes_nothing(name: str) -> None:
    """A second source that is hidden altogether is as good as none, and what stands in it does not matter."""
    model = build(name)
    text, second = sources(model)
    _, other = sources(model, seed=5)
    length = model.encode([None, second])[0].shape[1]
    masks = [None, torch.zeros(2, 1, length, dtype=torch.bool)]
    alone = model([text, None], TARGET)
    torch.testing.assert_close(model([text, second], TARGET, source_masks=masks), alone)
    torch.testing.assert_close(model([text, other], TARGET, source_masks=masks), alone)
    assert not torch.allclose(model([text, second], TARGET), alone)


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_of_a_text_changes_nothing(name: str) -> None:
    """A text says the same alone as padded in a batch, whatever stands in the padding."""
    model = build(name)
    text, second = sources(model)
    mask = padding(torch.tensor([S, 3]), S)
    padded = model([text, second], TARGET, source_masks=[mask, None])
    torch.testing.assert_close(padded[1:], model([text[1:, :3], second[1:]], TARGET[1:]))
    noise = torch.where(mask[:, 0], text, draw(2, S, seed=3))
    torch.testing.assert_close(model([noise, second], TARGET, source_masks=[mask, None]), padded)


def test_the_order_of_memories_is_nothing_to_the_decoder() -> None:
    """The decoder says the same of the memories in another order: its cross-attention knows no positions."""
    model = build()
    parts = [model.encode([source, None] if i == 0 else [None, source])[0] for i, source in enumerate(sources(model))]
    forth, _ = side_by_side(parts, [None, None])
    back, _ = side_by_side(parts[::-1], [None, None])
    torch.testing.assert_close(model.decode(TARGET, back), model.decode(TARGET, forth))
    torch.testing.assert_close(model(sources(model), TARGET), model.decode(TARGET, forth))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_learns(name: str) -> None:
    """The logits' gradient reaches every parameter of both encoders, their projections and the decoder."""
    model = build(name)
    model(sources(model), TARGET).square().sum().backward()
    idle = [n for n, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert idle == []


def test_no_target_sees_a_later_one_and_all_see_every_source() -> None:
    """A change of target t changes no logits before it; a change of either source changes them all."""
    model = build()
    text, image = sources(model)
    before = model([text, image], TARGET)
    other = TARGET.clone()
    other[:, 2] = (other[:, 2] + 1) % V
    after = model([text, image], other)
    assert torch.equal(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2], before[:, 2])
    for changed in ([(text + 1) % 11, image], [text, image + 1]):
        assert ((model(changed, TARGET) - before).abs().amax(dim=-1) > 1e-9).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_generation_with_and_without_cache(name: str) -> None:
    """Greedy generation is the argmax of each whole reading, with the cache and without; a beam of one is greedy."""
    model = build(name)
    given, start = model.given(sources(model)), torch.full((2, 1), 1)
    said = generate(given, start, max_new_tokens=9, temperature=0.0)
    assert torch.equal(said, generate(given, start, max_new_tokens=9, temperature=0.0, use_cache=False))
    assert torch.equal(said[:, 1:], model(sources(model), said[:, :-1]).argmax(dim=-1))
    best = beam_search(given, start, max_new_tokens=9, beams=1, length_penalty=0.0)
    assert torch.equal(best.ids[:, 0], said[:, 1:])


@pytest.mark.parametrize("name", VARIANTS)
def test_is_saved_and_read(name: str, tmp_path: Path) -> None:
    """What is written is read back with the configs of all encoders, and says the same."""
    model = build(name)
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, Joint)
    assert again.config == model.config
    assert (again.head.weight is again.embedding.weight) is model.config.tie
    assert torch.equal(again(sources(model), TARGET), model(sources(model), TARGET))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoders": ()}, "encoders is empty"),
        ({"encoders": [TEXT]}, "encoders is of type list, not a tuple of configs"),
        (
            {"encoders": (TEXT, GPTConfig(vocab_size=3, n_layers=1, d_model=4, n_heads=1))},
            "encoders is of type GPTConfig, not a BERTConfig or ViTConfig",
        ),
        ({"d_model": 10}, "d_model 10 is not a multiple of n_heads 3"),
    ],
)
def test_impossible_configs_are_refused(wrong: dict[str, Any], message: str) -> None:
    """A config that no model can have raises ValueError and names the values."""
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)


def test_what_does_not_fit_is_refused() -> None:
    """Another number of sources, none at all, other rows, and a journey to Marian raise ValueError with the reason."""
    model = build()
    text, image = sources(model)
    with pytest.raises(ValueError, match="2 encoders want 2 sources and masks, not 1 and 2"):
        model([text], TARGET)
    with pytest.raises(ValueError, match="every source is None"):
        model([None, None], TARGET)
    with pytest.raises(ValueError, match=r"sources of \[2, 1\] rows"):
        model([text, image[:1]], TARGET)
    with pytest.raises(ValueError, match="a target of 1 rows does not fit a memory of 2"):
        model([text, image], TARGET[:1])


@pytest.mark.oracle
def test_it_is_no_marian() -> None:
    """transformers has no model like it: it is not taken for the encoder-decoder whose decoder it has."""
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="no model like this one"):
        to_transformers(Joint(TINY))


DIGITS = 5  # a text names one of five things, a picture shows one of five others


def described(number: int, rows: int = 64) -> tuple[list[Tensor], Tensor]:
    """A word in a text and a bright spot in a picture -> the two of them told, one after the other (B, 2)."""
    generator = torch.Generator().manual_seed(number)
    a, b = torch.randint(DIGITS, (2, rows), generator=generator)
    pictures = torch.randn(rows, 1, 4, 4, generator=generator) * 0.1
    pictures.flatten(1)[torch.arange(rows), 3 * b] += 3
    return [torch.stack((torch.full_like(a, 10), a), dim=1), pictures], torch.stack((a, DIGITS + b), dim=1)


def told(model: nn.Module, batch: tuple[list[Tensor], Tensor], hidden: int | None) -> Tensor:
    """The logits of what is told, one of the sources perhaps hidden."""
    seen, answer = batch
    return model([None if i == hidden else source for i, source in enumerate(seen)], shift_right(answer, 2 * DIGITS))


def loss(model: nn.Module, batch: tuple[list[Tensor], Tensor], hidden: int | None) -> Tensor:
    return F.cross_entropy(told(model, batch, hidden).flatten(0, 1), batch[1].flatten())


@pytest.mark.parametrize("hidden", [None, 0, 1])
def test_it_learns_what_takes_both(hidden: int | None) -> None:
    """What stands in a text and what in a picture is told together; without either its part stays a guess."""
    torch.manual_seed(0)
    encoders = (replace(TEXT, d_model=24), replace(IMAGE, d_model=24))
    size: dict[str, Any] = {"n_layers": 1, "d_model": 24, "n_heads": 2, "residual": "pre"}
    model = Joint(JointConfig(encoders=encoders, vocab_size=2 * DIGITS + 1, max_len=2, **size))
    steps, learn = 80, partial(loss, hidden=hidden)
    schedule = partial(warmup_cosine, warmup=5, total=steps)
    fit(model, described, learn, steps=steps, optimizer=adamw(model, 1e-2), schedule=schedule, progress=False)
    unseen = described(10**6, rows=500)
    with torch.no_grad():
        right = told(model.eval(), unseen, hidden).argmax(dim=-1) == unseen[1]
    share = right.float().mean(dim=0).tolist()
    for source in (0, 1):
        assert share[source] < 0.35 if source == hidden else share[source] > 0.95, share


def test_its_decoder_is_that_of_an_encoder_decoder() -> None:
    """Beside its encoders it has the parameters of an encoder-decoder of the same sizes, name by name."""
    sizes = {k: v for k, v in TINY.to_dict().items() if k not in ("model", "encoders")}
    with torch.device("meta"):
        pair = (Joint(TINY), EncoderDecoder(EncDecConfig(**sizes)))
    mine, theirs = ({n: p.shape for n, p in m.named_parameters() if not n.startswith("encoder.")} for m in pair)
    assert mine == theirs
