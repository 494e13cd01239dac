"""Laws of the captured step. Oracle: the model itself, with the same cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tinytrans.config import GPTConfig
from tinytrans.models.captured import captured, step_of
from tinytrans.models.gpt import GPT

IDS = torch.tensor([[1, 2, 3, 9, 4, 4, 0, 5], [4, 5, 6, 16, 2, 1, 1, 8]])
VARIANTS: list[dict[str, Any]] = [
    {},
    {"positions": "learned", "bias": True},
    {"norm": "rms", "feedforward": "swiglu", "n_kv_heads": 2, "tie": False},
    {"positions": "sinusoidal", "qk_norm": True, "residual": "post"},
]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
    ),
]


def model(device: str = "cpu", **changes: Any) -> GPT:
    """A tiny GPT whose weights are large enough to have opinions."""
    torch.manual_seed(0)
    config = {"vocab_size": 17, "n_layers": 2, "d_model": 16, "n_heads": 4, "max_len": 16}
    gpt = GPT(GPTConfig(**{**config, **changes})).eval()
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return gpt.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", VARIANTS)
def test_step_by_step_the_logits_are_the_models(changes: dict[str, Any], device: str) -> None:
    """After a prompt, each token has the logits of the whole text, also after going back and reading others."""
    gpt, ids = model(device, **changes), IDS.to(device)
    cache = gpt.new_cache(2)
    with torch.no_grad():
        expected = gpt(ids)
        gpt(ids[:, :3], cache=cache)
    read = captured(gpt, cache)
    for t in (3, 4, 5):
        read((ids[:, t : t + 1] + 1) % 17)
    cache.rewind(3)
    for t in range(3, ids.shape[1]):
        torch.testing.assert_close(read(ids[:, t : t + 1]), expected[:, t], atol=1e-5, rtol=1e-5)
    assert cache.length == ids.shape[1]


@pytest.mark.parametrize("device", DEVICES)
def test_logits_and_weights_are_those_of_their_step(device: str) -> None:
    """What was read stays as it was when the next token is read, and a weight that moves is read anew."""
    gpt, ids = model(device), IDS.to(device)
    cache = gpt.new_cache(2)
    read = captured(gpt, cache)
    first = read(ids[:, :1])
    kept = first.clone()
    read(ids[:, 1:2])
    assert torch.equal(first, kept)
    with torch.no_grad():
        gpt.norm.weight.mul_(2.0)
    cache.reset()
    torch.testing.assert_close(read(ids[:, :1]), 2 * first)


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_step_asks_the_device_for_nothing(changes: dict[str, Any]) -> None:
    """A step is one whole graph, the same at every place: the tracer finds no number that the host must wait for."""
    gpt = model(**changes)
    cache, place = gpt.new_cache(2), torch.zeros(1, dtype=torch.int64)
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    step = torch.compile(step_of(gpt, cache, place), fullgraph=True, backend=count)
    with torch.no_grad():
        expected = gpt(IDS)
        for t in range(4):
            torch.testing.assert_close(step(IDS[:, t : t + 1]), expected[:, t], atol=1e-5, rtol=1e-5)
            place += 1
    assert len(graphs) == 1


def test_what_a_step_cannot_know_is_named() -> None:
    """Windows and ALiBi are refused, and so is a token for which there is no room."""
    for changes in ({"window": 3}, {"positions": "alibi"}):
        gpt = model(**changes)
        with pytest.raises(ValueError, match="a sliding window and ALiBi"):
            captured(gpt, gpt.new_cache(1))
    gpt = model()
    read = captured(gpt, gpt.new_cache(2, 1))
    read(IDS[:, :1])
    with pytest.raises(ValueError, match="exceed the cache's max_len 1"):
        read(IDS[:, :1])
