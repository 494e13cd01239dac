"""Laws of tracing: a model is compiled as one graph, for any length, and exported; it then says what it said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tinytrans.config import BERTConfig, EncDecConfig, GPTConfig, LinearScaling, ViTConfig
from tinytrans.models import build

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
def test_export_for_any_length(name: str) -> None:
    """Exported once, the model reads other numbers of rows and other lengths than those of the example."""
    own = model(GPTS[name])
    T = torch.export.Dim("T", min=4, max=64)
    program = torch.export.export(
        own, inputs(name, 2, 9), dynamic_shapes={"ids": {0: torch.export.Dim("B", min=2), 1: T}}
    )
    given = inputs(name, 3, 6)
    torch.testing.assert_close(program.module()(*given), own(*given))
