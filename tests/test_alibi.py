"""Laws of ALiBi in whole models. Oracles: Hugging Face's BLOOM and MPT, their weights carried over by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tinytrans.config import GPTConfig
from tinytrans.models.gpt import GPT
from tinytrans.sampling import generate

transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

V, D, L = 29, 24, 2


def carried(model: Any, config: GPTConfig, names: dict[str, str], heads: Any = None) -> GPT:
    """A GPT with the weights of another model: our module's name -> theirs; `heads` sorts the rows of qkv."""
    state = model.state_dict()
    weights = {}
    for ours, their_name in names.items():
        for kind in ("weight", "bias"):
            if (weight := state.get(f"transformer.{their_name}.{kind}")) is not None:
                weights[f"{ours}.{kind}"] = heads(weight) if heads and ours.endswith("qkv") else weight
    weights["head.weight"] = weights["embedding.weight"]
    mine = GPT(config)
    mine.load_state_dict(weights)
    return mine.eval()


def bloom(n_heads: int) -> tuple[Any, GPT]:
    """Their BLOOM, and ours: the rows of its qkv stand head by head."""
    kind = transformers.BloomConfig
    model = transformers.BloomForCausalLM(
        kind(vocab_size=V, hidden_size=D, n_layer=L, n_head=n_heads, bos_token_id=None, eos_token_id=None)
    )
    names = {"embedding": "word_embeddings", "embedding_norm": "word_embeddings_layernorm", "norm": "ln_f"}
    for i in range(L):
        own, layer = f"blocks.{i}", f"h.{i}"
        names |= {
            f"{own}.attention_norm": f"{layer}.input_layernorm",
            f"{own}.attention.qkv": f"{layer}.self_attention.query_key_value",
            f"{own}.attention.out": f"{layer}.self_attention.dense",
            f"{own}.feedforward_norm": f"{layer}.post_attention_layernorm",
            f"{own}.feedforward.up": f"{layer}.mlp.dense_h_to_4h",
            f"{own}.feedforward.down": f"{layer}.mlp.dense_4h_to_h",
        }
    config = GPTConfig(
        vocab_size=V,
        n_layers=L,
        d_model=D,
        n_heads=n_heads,
        positions="alibi",
        bias=True,
        feedforward="gelu_tanh",
        embedding_norm=True,
    )
    awake(model)
    return model, carried(
        model, config, names, lambda w: w.unflatten(0, (n_heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    )


def mpt(n_heads: int) -> tuple[Any, GPT]:
    """Their MPT, without biases, and ours."""
    kind = transformers.MptConfig
    model = transformers.MptForCausalLM(
        kind(vocab_size=V, d_model=D, n_layers=L, n_heads=n_heads, bos_token_id=None, eos_token_id=None)
    )
    names = {"embedding": "wte", "norm": "norm_f"}
    for i in range(L):
        own, layer = f"blocks.{i}", f"blocks.{i}"
        names |= {
            f"{own}.attention_norm": f"{layer}.norm_1",
            f"{own}.attention.qkv": f"{layer}.attn.Wqkv",
            f"{own}.attention.out": f"{layer}.attn.out_proj",
            f"{own}.feedforward_norm": f"{layer}.norm_2",
            f"{own}.feedforward.up": f"{layer}.ffn.up_proj",
            f"{own}.feedforward.down": f"{layer}.ffn.down_proj",
        }
    awake(model)
    return model, carried(
        model, GPTConfig(vocab_size=V, n_layers=L, d_model=D, n_heads=n_heads, positions="alibi"), names
    )


def awake(model: Any) -> None:
    """Every weight random, so that none can be forgotten or exchanged unseen."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.5 if parameter.dim() == 1 else 0.0, std=0.2)
    model.eval()


@pytest.mark.parametrize("n_heads", [1, 3, 4, 6])
@pytest.mark.parametrize("family", [bloom, mpt])
def test_alibi_is_that_of_bloom_and_mpt(family: Any, n_heads: int) -> None:
    """Whatever the number of heads, logits are theirs within 1e-5 and 64 greedy tokens the same, with both caches."""
    model, mine = family(n_heads)
    ids = torch.randint(V, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(mine(ids), model(ids, use_cache=False).logits, atol=1e-5, rtol=0.0)
    begin = ids[:, :7]
    given = {"attention_mask": torch.ones_like(begin), "pad_token_id": 0}
    expected = model.generate(begin, max_new_tokens=64, do_sample=False, **given)
    assert len(expected.unique()) > 5
    for use_cache in (True, False):
        said = generate(mine, begin, max_new_tokens=64, temperature=0.0, use_cache=use_cache)
        assert torch.equal(said, expected)
