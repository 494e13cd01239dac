"""Marian: MarianMTModel <-> an EncoderDecoder with norms after the sublayers and sinusoidal positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tinytrans.config import EncDecConfig
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
)
from tinytrans.models.encdec import EncoderDecoder
from tinytrans.nn.positions import sinusoidal

TABLES = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
FIXED = (*TABLES, "final_logits_bias")


def describe(model: Any) -> EncDecConfig:
    """Their model -> our config."""
    c = model.config
    demand(c, share_encoder_decoder_embeddings=True, decoder_vocab_size=c.vocab_size)
    if c.d_model % 2:
        raise ValueError(f"d_model {c.d_model} is odd, and their sines and cosines are then not halves")
    check_sines(model)
    return shared_config(model)


def shared_config(model: Any, **others: Any) -> EncDecConfig:
    """What their config says as BART's does, and others, in ours; the logits' bias is ours only if it is not 0."""
    c = model.config
    demand_usual(c, is_causal=None)
    demand(c, tie_word_embeddings=True)
    demand(c, decoder_attention_heads=c.encoder_attention_heads, decoder_ffn_dim=c.encoder_ffn_dim)
    return EncDecConfig(
        vocab_size=c.vocab_size,
        n_layers=c.encoder_layers,
        n_decoder_layers=c.decoder_layers,
        d_model=c.d_model,
        n_heads=c.encoder_attention_heads,
        d_ff=c.encoder_ffn_dim,
        max_len=c.max_position_embeddings,
        feedforward=activation(c.activation_function),
        scale_embedding=c.scale_embedding,
        head_bias=bool(model.final_logits_bias.any()),
        dropout=c.dropout,
        **others,
    )


def check_sines(model: Any) -> None:
    """Raise ValueError where a table of positions is not the sines that are computed here, as after training it."""
    for name in TABLES:
        table = model.get_parameter(name).detach().float()
        sines = sinusoidal(torch.arange(len(table), device=table.device), table.shape[1])  # in turn; theirs are halves
        if not torch.allclose(table, torch.cat((sines[:, 0::2], sines[:, 1::2]), dim=1), atol=1e-2):  # of bfloat16
            raise ValueError(f"{name} holds other numbers than sines and cosines, and only those can be carried over")


def specify(c: EncDecConfig) -> tuple[str, dict[str, Any]]:
    """Our config -> the name of their model and the values of its config."""
    demand(c, positions="sinusoidal", embedding_norm=False)
    if c.d_model % 2:
        raise ValueError(f"d_model {c.d_model} is odd, and their sines and cosines are then not halves")
    return "MarianMTModel", shared_values(c)


def shared_values(c: EncDecConfig) -> dict[str, Any]:
    """The values of their config, as of BART's, for our config; token 0 pads and starts unless told."""
    demand(c, norm="layer", residual="post", bias=True, kv_heads=c.n_heads, qk_norm=False)
    demand(c, head_width=c.d_model // c.n_heads, embedding_width=c.d_model, norm_eps=1e-5, tie=True)
    return {
        "vocab_size": c.vocab_size,
        "encoder_layers": c.n_layers,
        "decoder_layers": c.decoder_layers,
        "d_model": c.d_model,
        "encoder_attention_heads": c.n_heads,
        "decoder_attention_heads": c.n_heads,
        "encoder_ffn_dim": c.feedforward_width,
        "decoder_ffn_dim": c.feedforward_width,
        "max_position_embeddings": c.max_len,
        "activation_function": their_activation(c.feedforward),
        "scale_embedding": c.scale_embedding,
        "dropout": c.dropout,
        "attention_dropout": c.dropout,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "eos_token_id": None,
        "forced_eos_token_id": None,
    }


def places(c: EncDecConfig) -> Places:
    """Encoder and decoder have the same names for the same parts; the decoder has cross-attention besides."""
    return {
        "embedding.weight": place("model.shared.weight"),
        **layers(c.n_layers, block("encoder")),
        **layers(c.decoder_layers, {**block("decoder"), **attention("decoder", "cross", "encoder_attn")}),
        "head.bias": place("final_logits_bias", form="reshaped"),
    }


def block(stack: str) -> Places:
    """Self-attention and feed-forward of a layer."""
    own, layer = f"{stack}.blocks.{{i}}", f"model.{stack}.layers.{{i}}"
    return {
        **attention(stack, "attention", "self_attn"),
        **modules(f"{own}.feedforward.up", f"{layer}.fc1"),
        **modules(f"{own}.feedforward.down", f"{layer}.fc2"),
        **modules(f"{own}.feedforward_norm", f"{layer}.final_layer_norm"),
    }


def attention(stack: str, ours: str, theirs: str) -> Places:
    """One attention of a layer, and its norm."""
    own, layer = f"{stack}.blocks.{{i}}.{ours}", f"model.{stack}.layers.{{i}}.{theirs}"
    return {
        **modules(f"{own}.qkv", *(f"{layer}.{x}_proj" for x in "qkv")),
        **modules(f"{own}.out", f"{layer}.out_proj"),
        **modules(f"{own}_norm", f"{layer}_layer_norm"),
    }


def rearrange(weights: dict[str, Tensor], inward: bool) -> dict[str, Tensor]:
    """Let the stream's D numbers change places, in all that reads or writes them.

    The paper has sines and cosines in turn, Marian first all sines, then all cosines. The numbers of the stream have no
    order of their own, so weights that meet them in another order make the same model.
    """
    D = weights["embedding.weight"].shape[1]
    order = torch.arange(D).reshape(2, D // 2).T.flatten()  # ours from theirs: 0, D/2, 1, D/2 + 1, ...
    order = order if inward else order.argsort()
    return {name: meet(weight, name, order.to(weight.device)) for name, weight in weights.items()}


def meet(weight: Tensor, name: str, order: Tensor) -> Tensor:
    """A weight that meets the stream in another order: what reads it in its columns, what writes it in its rows."""
    part, kind = name.split(".")[-2:]
    if part in ("embedding", "head", "qkv", "up"):
        return weight[:, order] if kind == "weight" else weight
    return weight[order]


MARIAN = Family(("MarianMTModel",), EncoderDecoder, describe, specify, places, FIXED, rearrange)
