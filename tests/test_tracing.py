"""Laws of tracing: a model compiled as one graph, exported, or mapped over samples says what it said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.func import functional_call, grad, vmap

from tinytrans.config import BERTConfig, EncDecConfig, GPTConfig, LinearScaling, ViTConfig
from tinytrans.models import build
from tinytrans.nn import masks

SMALL: dict[str, Any] = {"n_layers": 2, "d_model": 12, "n_heads": 3}
GPTS = {
    "gpt": GPTConfig(vocab_size=11, **SMALL),
    "learned": GPTConfig(vocab_size=11, positions="learned", bias=True, **SMALL),
    "alibi": GPTConfig(vocab_size=11, positions="alibi", **SMALL),
    "window": GPTConfig(vocab_size=11, window=3, **SMALL),
    "llama": GPTConfig(
        vocab_size=11, norm="rms", feedforward="swiglu", n_kv_heads=1, d_head=6, rope_scaling=LinearScaling(factor=2.0),
        **SMALL,
    ),
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "bert": BERTConfig(vocab_size=11, **SMALL),
    "encdec": EncDecConfig(vocab_size=11, **SMALL),
    "vit": ViTConfig(image_size=4, patch_size=2, n_classes=3, n_channels=1, **SMALL),
}


def model(config: Any) -> Any:
    torch.manual_seed(0)
    return build(config).eval()


def inputs(name: str, rows: int, T: int) -> tuple[torch.Tensor, ...]:
    if name == "vit":
        return (torch.randn(rows, 1, 4, 4),)
    ids = torch.randint(11, (rows, T))
    return (ids, ids) if name == "encdec" else (ids,)


def said(output: Any) -> list[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else [part for part in output if part is not None]


@pytest.mark.parametrize("name", [*GPTS, *OTHERS])
def test_one_graph_for_any_length(name: str) -> None:
    """Compiled as one graph, the model says the same of texts of several lengths, and trains."""
    torch._dynamo.reset()
    own = model((GPTS | OTHERS)[name])
    compiled = torch.compile(own, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows, T in ((2, 5), (3, 9), (2, 7)):
        given = inputs(name, rows, T)
        for mine, other in zip(said(own(*given)), said(compiled(*given)), strict=True):
            torch.testing.assert_close(mine, other)
    sum(part.sum() for part in said(compiled(*inputs(name, 2, 8)))).backward()
    assert all(weight.grad is not None for key, weight in own.named_parameters() if "pool" not in key)


@pytest.mark.parametrize("name", GPTS)
@torch.no_grad()
def test_one_graph_for_masks_and_positions(name: str) -> None:
    """Once it has met several lengths, a compiled model reads masks and positions of another as it does uncompiled."""
    torch._dynamo.reset()
    own = model(GPTS[name])
    compiled = torch.compile(own, fullgraph=True, backend="eager")
    for T in (5, 4):
        compiled(*inputs(name, 2, T))
    ids, positions = torch.randint(11, (2, 9)), torch.arange(9)
    padded = masks.decoder_mask(torch.tensor([9, 4]), 9)
    for given in ({"mask": padded}, {"mask": padded[1]}, {"mask": padded, "positions": positions.expand(2, 9)}):
        torch.testing.assert_close(compiled(ids, **given), own(ids, **given))
    torch.testing.assert_close(compiled(ids, positions=positions), own(ids, positions=positions))


@pytest.mark.parametrize("name", GPTS)
def test_export_for_any_length(name: str) -> None:
    """Exported once, the model reads other numbers of rows and other lengths than those of the example."""
    own = model(GPTS[name])
    T = torch.export.Dim("T", min=4, max=64)
    program = torch.export.export(
        own, inputs(name, 2, 9), dynamic_shapes={"ids": {0: torch.export.Dim("B", min=2), 1: T}}
    )
    given = inputs(name, 3, 6)
    torch.testing.assert_close(program.module()(*given), own(*given))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", [*GPTS, *OTHERS])
def test_every_samples_own_gradient(name: str) -> None:
    """`torch.func` gives each row's gradient at once: each is what that row alone has, by the ordinary way."""
    net, rows = model({**GPTS, **OTHERS}[name]), inputs(name, 3, 5)
    weights = {name: weight.detach() for name, weight in net.named_parameters()}

    def loss(weights: Any, *row: torch.Tensor) -> torch.Tensor:
        said = functional_call(net, weights, tuple(part[None] for part in row))
        return (said if isinstance(said, torch.Tensor) else said[0]).square().mean()

    every = vmap(grad(loss), (None, *(0 for _ in rows)))(weights, *rows)
    for b in range(3):
        net.zero_grad()
        loss(dict(net.named_parameters()), *(part[b] for part in rows)).backward()
        for at, weight in net.named_parameters():
            alone = torch.zeros_like(weight) if weight.grad is None else weight.grad
            torch.testing.assert_close(every[at][b], alone, rtol=1e-4, atol=1e-6)
