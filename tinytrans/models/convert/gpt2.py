"""GPT-2: GPT2LMHeadModel <-> a GPT with learned positions, layer norms and biases."""

from __future__ import annotations

from typing import Any

from tinytrans.config import GPTConfig
from tinytrans.models.convert.families import (
    Family,
    Places,
    activation,
    demand,
    demand_usual,
    layers,
    modules,
    place,
    their_activation,
    tied,
)
from tinytrans.models.gpt import GPT


def describe(model: Any) -> GPTConfig:
    """Their model -> our config."""
    c = model.config
    demand_usual(c, is_causal=True)
    demand(c, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return GPTConfig(
        vocab_size=c.vocab_size,
        n_layers=c.n_layer,
        d_model=c.n_embd,
        n_heads=c.n_head,
        d_ff=c.n_inner,
        max_len=c.n_positions,
        positions="learned",
        feedforward=activation(c.activation_function),
        bias=True,
        tie=tied(model),
        dropout=c.resid_pdrop,
        norm_eps=c.layer_norm_epsilon,
    )


def specify(c: GPTConfig) -> tuple[str, dict[str, Any]]:
    """Our config -> the name of their model and the values of its config."""
    demand(c, positions="learned", norm="layer", residual="pre", bias=True, kv_heads=c.n_heads, window=None)
    demand(c, head_width=c.d_model // c.n_heads, qk_norm=False, embedding_norm=False)
    return "GPT2LMHeadModel", {
        "vocab_size": c.vocab_size,
        "n_layer": c.n_layers,
        "n_embd": c.d_model,
        "n_head": c.n_heads,
        "n_inner": c.feedforward_width,
        "n_positions": c.max_len,
        "activation_function": their_activation(c.feedforward),
        "tie_word_embeddings": c.tie,
        "resid_pdrop": c.dropout,
        "embd_pdrop": c.dropout,
        "attn_pdrop": c.dropout,
        "layer_norm_epsilon": c.norm_eps,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def places(c: GPTConfig) -> Places:
    """Their matrices stand (in, out), ours as torch's do (out, in)."""
    block = {
        **modules("blocks.{i}.attention_norm", "transformer.h.{i}.ln_1"),
        **modules("blocks.{i}.attention.qkv", "transformer.h.{i}.attn.c_attn", form="transposed"),
        **modules("blocks.{i}.attention.out", "transformer.h.{i}.attn.c_proj", form="transposed"),
        **modules("blocks.{i}.feedforward_norm", "transformer.h.{i}.ln_2"),
        **modules("blocks.{i}.feedforward.up", "transformer.h.{i}.mlp.c_fc", form="transposed"),
        **modules("blocks.{i}.feedforward.down", "transformer.h.{i}.mlp.c_proj", form="transposed"),
    }
    return {
        "embedding.weight": place("transformer.wte.weight"),
        "position.weight": place("transformer.wpe.weight"),
        **layers(c.n_layers, block),
        **modules("norm", "transformer.ln_f"),
        "head.weight": place("lm_head.weight"),
    }


GPT2 = Family(("GPT2LMHeadModel",), GPT, describe, specify, places)
