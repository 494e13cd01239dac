"""Laws of every GPT that a config can describe. Oracle: doing without; Hypothesis draws the config and the texts."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tinytrans.config import GPTConfig, LinearScaling, Llama3Scaling, YarnScaling
from tinytrans.models import load_model
from tinytrans.models.gpt import GPT
from tinytrans.nn.masks import blocks
from tinytrans.sampling import beam_search, generate, pad_left, speculate

V, ROOM = 13, 48
SCALINGS = [
    None,
    LinearScaling(factor=3.0),
    Llama3Scaling(factor=8.0, trained_len=9),
    YarnScaling(factor=4.0, trained_len=9),
]
every_gpt = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def configs(draw: st.DrawFn) -> GPTConfig:
    """Any GPT that is small."""
    G, groups, K = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2])), draw(st.sampled_from([2, 4, 6]))
    H, own = G * groups, draw(st.booleans())
    positions: Any = draw(st.sampled_from(["rope", "learned", "sinusoidal", "alibi", "none"]))
    return GPTConfig(
        vocab_size=V,
        n_layers=draw(st.integers(1, 2)),
        d_model=draw(st.sampled_from([10, 12, 16])) if own else H * K,
        n_heads=H,
        n_kv_heads=G,
        d_head=K if own else None,
        max_len=ROOM,
        positions=positions,
        rope_scaling=draw(st.sampled_from(SCALINGS)) if positions == "rope" else None,
        window=draw(st.sampled_from([None, None, 1, 2, 5, 30])),
        norm=draw(st.sampled_from(["layer", "rms"])),
        residual=draw(st.sampled_from(["pre", "post"])),
        feedforward=draw(st.sampled_from(["gelu", "relu2", "silu", "swiglu"])),
        bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        embedding_norm=draw(st.booleans()),
        tie=draw(st.booleans()),
    )


gpts = st.builds(lambda config, seed: awake(GPT(config), seed), configs(), st.integers(0, 10**6))
texts = st.lists(st.integers(0, V - 1), min_size=1, max_size=20)


def awake(model: GPT, seed: int) -> GPT:
    """In float64, every weight random and large enough to count."""
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        nn.init.normal_(weight, mean=1.0 if name.endswith("norm.weight") else 0.0, std=0.3)
    return model.double().eval()


def row(ids: list[int]) -> Tensor:
    return torch.tensor([ids])


@every_gpt
@given(gpts, texts, st.data())
@torch.no_grad()
def test_nothing_is_seen_ahead(model: GPT, text: list[int], data: st.DataObject) -> None:
    """What stands at a place and after it changes nothing before it; rows of a batch do not see each other."""
    place = data.draw(st.integers(0, len(text) - 1))
    other = text[:place] + [(i + 1) % V for i in text[place:]]
    both, alone = model(torch.tensor([text, other])), model(row(text))
    torch.testing.assert_close(both[0], alone[0])
    torch.testing.assert_close(both[1, :place], alone[0, :place])
    assert not torch.allclose(both[1, place], alone[0, place])


@every_gpt
@given(gpts, texts, st.lists(st.integers(1, 7), max_size=9), st.integers(1, 3))
@torch.no_grad()
def test_the_cache_changes_nothing(model: GPT, text: list[int], chunks: list[int], rows: int) -> None:
    """A text read in whatever chunks, and then token by token, is the text read at once, whatever the cache."""
    ids = torch.tensor([text[n:] + text[:n] for n in range(rows)])
    cache, said = model.new_cache(rows, ROOM), []
    for n in chunks:
        if part := ids[:, cache.length : cache.length + n].shape[1]:
            said.append(model(ids[:, cache.length : cache.length + part], cache=cache))
    one_by_one = model.one_by_one(cache) or (lambda ids: model(ids, cache=cache)[:, -1])
    while cache.length < len(text):
        said.append(one_by_one(ids[:, cache.length : cache.length + 1]).unsqueeze(1))
    torch.testing.assert_close(torch.cat(said, dim=1), model(ids))


@every_gpt
@given(gpts, st.lists(texts, min_size=1, max_size=3))
@torch.no_grad()
def test_packed_is_separate(model: GPT, documents: list[list[int]]) -> None:
    """Documents in one row, kept apart by a mask and with positions of their own, are as each alone."""
    owner = torch.tensor([[n for n, text in enumerate(documents) for _ in text]])
    positions = torch.tensor([[i for text in documents for i in range(len(text))]])
    packed = model(row([i for text in documents for i in text]), mask=blocks(owner), positions=positions)
    torch.testing.assert_close(packed, torch.cat([model(row(text)) for text in documents], dim=1))


@every_gpt
@given(gpts, st.lists(texts, min_size=2, max_size=3))
@torch.no_grad()
def test_padding_on_the_left_changes_nothing(model: GPT, prompts: list[list[int]]) -> None:
    """Padded, hidden and counted from behind the padding, each row is as alone: at once, and token by token."""
    ids, pads = pad_left(prompts)
    (B, T), cache = ids.shape, model.new_cache(len(prompts), ROOM)
    mask = (torch.arange(T) >= pads[:, None]).unsqueeze(1)
    positions = (torch.arange(T) - pads[:, None]).clamp(min=0)
    at_once = model(ids, mask=mask, positions=positions)
    steps = [
        model(ids[:, t : t + 1], mask=mask[..., : t + 1], positions=positions[:, t : t + 1], cache=cache)
        for t in range(T)
    ]
    for b in range(B):
        alone = model(row(prompts[b]))[0]
        torch.testing.assert_close(at_once[b, pads[b] :], alone)
        torch.testing.assert_close(torch.cat(steps, dim=1)[b, pads[b] :], alone)


@every_gpt
@given(gpts, st.lists(texts, min_size=1, max_size=3), st.integers(1, 25), st.integers(1, 5))
def test_all_ways_of_greedy_are_one(model: GPT, prompts: list[list[int]], n: int, k: int) -> None:
    """With and without a cache, in a padded batch and alone, by one beam and with a draft: the same ids."""
    ids, pads = pad_left(prompts)
    said = generate(model, ids, max_new_tokens=n, temperature=0.0, pads=pads)
    assert torch.equal(generate(model, ids, max_new_tokens=n, temperature=0.0, pads=pads, use_cache=False), said)
    beam = beam_search(model, ids, max_new_tokens=n, beams=1, length_penalty=0.0, pads=pads)
    assert torch.equal(beam.ids[:, 0], said[:, ids.shape[1] :])
    draft = awake(GPT(GPTConfig(vocab_size=V, n_layers=1, d_model=8, n_heads=2, max_len=ROOM)), 0)
    for b, prompt in enumerate(prompts):
        alone = generate(model, row(prompt), max_new_tokens=n, temperature=0.0)
        assert torch.equal(alone[0, len(prompt) :], said[b, ids.shape[1] :])
        for other in (draft, model):
            assert torch.equal(speculate(model, other, row(prompt), max_new_tokens=n, k=k, temperature=0.0).ids, alone)


@settings(every_gpt, max_examples=12)
@given(gpts, texts)
@torch.no_grad()
def test_copies_say_the_same(tmp_path_factory: pytest.TempPathFactory, model: GPT, text: list[int]) -> None:
    """Saved and read, copied, pickled, filled from a state dict: the same numbers and ties, in tensors of its own."""
    folder: Path = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    with torch.device("meta"):
        filled = GPT(model.config)
    filled.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    for again in (load_model(folder), copy.deepcopy(model), pickle.loads(pickle.dumps(model)), filled.eval()):
        assert again.config == model.config
        assert torch.equal(again(row(text)), model(row(text)))
        assert (again.head.weight is again.embedding.weight) == model.config.tie
        again.embedding.weight.add_(1.0)
        assert not torch.equal(again.embedding.weight, model.embedding.weight)
