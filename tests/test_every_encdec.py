"""Laws of every encoder-decoder that a config describes. Oracle: doing without; Hypothesis draws config and texts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tinytrans.config import EncDecConfig
from tinytrans.models import load_model
from tinytrans.models.encdec import EncoderDecoder
from tinytrans.nn.masks import padding
from tinytrans.sampling import beam_search, generate

V, ROOM = 13, 32
every_encdec = settings(max_examples=30, deadline=None, derandomize=True)


@st.composite
def configs(draw: st.DrawFn) -> EncDecConfig:
    """Any encoder-decoder that is small."""
    G, groups, K = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2])), draw(st.sampled_from([4, 6]))
    H, own = G * groups, draw(st.booleans())
    return EncDecConfig(
        vocab_size=V,
        n_layers=draw(st.integers(1, 2)),
        n_decoder_layers=draw(st.sampled_from([None, 1, 2])),
        d_model=draw(st.sampled_from([10, 12])) if own else H * K,
        n_heads=H,
        n_kv_heads=G,
        d_head=K if own else None,
        max_len=ROOM,
        positions=draw(st.sampled_from(["sinusoidal", "learned", "rope", "none"])),
        residual=draw(st.sampled_from(["pre", "post"])),
        norm=draw(st.sampled_from(["layer", "rms"])),
        feedforward=draw(st.sampled_from(["relu", "gelu", "swiglu"])),
        d_embedding=draw(st.sampled_from([None, 5, 20])),
        scale_embedding=draw(st.booleans()),
        embedding_norm=draw(st.booleans()),
        head_bias=draw(st.booleans()),
        bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        tie=draw(st.booleans()),
    )


encdecs = st.builds(lambda config, seed: awake(EncoderDecoder(config), seed), configs(), st.integers(0, 10**6))
texts = st.lists(st.integers(0, V - 1), min_size=1, max_size=9)
sources = st.lists(texts, min_size=1, max_size=3)


def awake(model: EncoderDecoder, seed: int) -> EncoderDecoder:
    """In float64, every weight random and large enough to count."""
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        nn.init.normal_(weight, mean=1.0 if name.endswith("norm.weight") else 0.0, std=0.3)
    return model.double().eval()


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Sources side by side, padded on the right, and the lengths."""
    S = max(map(len, rows))
    return torch.tensor([ids + [0] * (S - len(ids)) for ids in rows]), torch.tensor([len(ids) for ids in rows])


def targets(target: list[int], rows: int) -> Tensor:
    """For each row other ids."""
    return torch.tensor([[(i + b) % V for i in target] for b in range(rows)])


@every_encdec
@given(encdecs, sources, texts)
@torch.no_grad()
def test_rows_are_alone_and_padding_is_nothing(model: EncoderDecoder, rows: list[list[int]], target: list[int]) -> None:
    """A source among others, padded to the longest, is read as alone; so it is by lengths and by a mask."""
    source, lengths = padded(rows)
    ids = targets(target, len(rows))
    together = model(source, ids, lengths=lengths)
    torch.testing.assert_close(model(source, ids, source_mask=padding(lengths, source.shape[1])), together)
    for b, own in enumerate(rows):
        torch.testing.assert_close(model(torch.tensor([own]), ids[b : b + 1])[0], together[b])


@every_encdec
@given(encdecs, sources, texts, st.lists(st.integers(1, 4), max_size=5), st.booleans())
@torch.no_grad()
def test_the_cache_changes_nothing(
    model: EncoderDecoder, rows: list[list[int]], target: list[int], chunks: list[int], remembered: bool
) -> None:
    """A target read in whatever chunks, from the memory or from what the blocks have made of it, is the whole one."""
    source, lengths = padded(rows)
    ids, mask = targets(target, len(rows)), padding(lengths, source.shape[1])
    memory: Any = model.encode(source, mask=mask)
    memory = model.decoder.remember(memory) if remembered else memory
    cache, said = model.new_cache(len(rows), ROOM), []
    for n in [*chunks, *[1] * len(target)]:
        if cache.length < len(target):
            part = ids[:, cache.length : cache.length + n]
            said.append(model.decode(part, memory, memory_mask=mask, cache=cache))
    torch.testing.assert_close(torch.cat(said, dim=1), model(source, ids, source_mask=mask))


@every_encdec
@given(encdecs, sources, st.integers(1, 12))
def test_all_ways_of_greedy_are_one(model: EncoderDecoder, rows: list[list[int]], n: int) -> None:
    """With and without a cache, among others and alone, by one beam: the same translation."""
    source, lengths = padded(rows)
    mask, start = padding(lengths, source.shape[1]), torch.ones(len(rows), 1, dtype=torch.long)
    said = generate(model.given(source, mask=mask), start, max_new_tokens=n, temperature=0.0)
    without = generate(model.given(source, mask=mask), start, max_new_tokens=n, temperature=0.0, use_cache=False)
    assert torch.equal(without, said)
    beam = beam_search(model.given(source, mask=mask), start, max_new_tokens=n, beams=1, length_penalty=0.0)
    assert torch.equal(beam.ids[:, 0], said[:, 1:])
    for b, own in enumerate(rows):
        alone = generate(model.given(torch.tensor([own])), start[:1], max_new_tokens=n, temperature=0.0)
        assert torch.equal(alone[0], said[b])


@settings(every_encdec, max_examples=10)
@given(encdecs, texts, texts)
@torch.no_grad()
def test_copies_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, model: EncoderDecoder, text: list[int], target: list[int]
) -> None:
    """Saved and read, and copied: the same numbers and the same ties."""
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    source, ids = torch.tensor([text]), torch.tensor([target])
    for again in (load_model(folder), copy.deepcopy(model)):
        assert again.config == model.config
        assert torch.equal(again(source, ids), model(source, ids))
        assert (again.head.weight is again.embedding.weight) == model.config.tie
