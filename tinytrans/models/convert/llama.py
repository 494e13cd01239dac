"""Llama and Mistral: LlamaForCausalLM, MistralForCausalLM <-> a GPT with rope, RMS norms and SwiGLU, without biases."""

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
    tied,
)
from tinytrans.models.convert.rope import read_rope, write_rope
from tinytrans.models.gpt import GPT


def describe(model: Any) -> GPTConfig:
    """Their model -> our config; Mistral's sliding window is our window."""
    c = model.config
    demand_usual(c, is_causal=True)
    if activation(c.hidden_act) != "silu":
        raise ValueError(f"hidden_act is {c.hidden_act!r}, and only 'silu' can be carried over")
    window = getattr(c, "sliding_window", None)
    if c.model_type == "llama":
        demand(c, attention_bias=False, mlp_bias=False)
        if window is not None:
            raise ValueError(f"sliding_window is {window}, but Llama's layers have none, only the cache of theirs does")
    kind = "full_attention" if window is None else "sliding_attention"
    if other := set(getattr(c, "layer_types", None) or ()) - {kind}:
        raise ValueError(f"layer_types has {', '.join(sorted(other))} beside a sliding_window of {window}")
    base, scaling = read_rope(c)
    return GPTConfig(
        vocab_size=c.vocab_size,
        n_layers=c.num_hidden_layers,
        d_model=c.hidden_size,
        n_heads=c.num_attention_heads,
        n_kv_heads=c.num_key_value_heads,
        d_head=None if c.head_dim * c.num_attention_heads == c.hidden_size else c.head_dim,
        d_ff=c.intermediate_size,
        max_len=c.max_position_embeddings,
        norm="rms",
        feedforward="swiglu",
        window=window,
        tie=tied(model),
        dropout=c.attention_dropout,
        rope_base=base,
        rope_scaling=scaling,
        norm_eps=c.rms_norm_eps,
    )


def specify(c: GPTConfig) -> tuple[str, dict[str, Any]]:
    """Our config -> the name of their model, Mistral's where Llama has none like it, and the values of its config."""
    demand(c, positions="rope", norm="rms", residual="pre", feedforward="swiglu", bias=False)
    demand(c, qk_norm=False, embedding_norm=False)
    values = {
        "vocab_size": c.vocab_size,
        "num_hidden_layers": c.n_layers,
        "hidden_size": c.d_model,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_width,
        "intermediate_size": c.feedforward_width,
        "max_position_embeddings": c.max_len,
        "tie_word_embeddings": c.tie,
        "attention_dropout": c.dropout,
        "rope_parameters": write_rope(c.rope_base, c.rope_scaling),
        "rms_norm_eps": c.norm_eps,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if c.window is None and c.d_model % c.n_heads == 0:  # else Llama's config refuses, whatever the heads' own width
        return "LlamaForCausalLM", values
    return "MistralForCausalLM", {**values, "sliding_window": c.window}


def places(c: GPTConfig) -> Places:
    """Queries, keys and values are one matrix here and three there; gate and up one here and two there."""
    layer = "model.layers.{i}"
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    block = {
        **modules("blocks.{i}.attention_norm", f"{layer}.input_layernorm", bias=False),
        **modules("blocks.{i}.attention.qkv", *(f"{attention}.{x}_proj" for x in "qkv"), bias=False),
        **modules("blocks.{i}.attention.out", f"{attention}.o_proj", bias=False),
        **modules("blocks.{i}.feedforward_norm", f"{layer}.post_attention_layernorm", bias=False),
        **modules("blocks.{i}.feedforward.up", f"{mlp}.gate_proj", f"{mlp}.up_proj", bias=False),
        **modules("blocks.{i}.feedforward.down", f"{mlp}.down_proj", bias=False),
    }
    return {
        "embedding.weight": place("model.embed_tokens.weight"),
        **layers(c.n_layers, block),
        "norm.weight": place("model.norm.weight"),
        "head.weight": place("lm_head.weight"),
    }


LLAMA = Family(("LlamaForCausalLM", "MistralForCausalLM"), GPT, describe, specify, places)
