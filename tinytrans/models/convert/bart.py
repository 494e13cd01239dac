"""BART: BartForConditionalGeneration <-> an EncoderDecoder with learned positions and a norm on the embeddings."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tinytrans.config import EncDecConfig
from tinytrans.models.convert import marian
from tinytrans.models.convert.families import (
    Family,
    Places,
    activation,
    demand,
    demand_usual,
    modules,
    place,
    their_activation,
)
from tinytrans.models.encdec import EncoderDecoder

UNUSED = 2  # their tables begin with two rows for positions that no token has
TABLES = ("source_place.table.weight", "place.table.weight")


def describe(model: Any) -> EncDecConfig:
    """Their model -> our config; the bias of the logits is ours only if it is not 0."""
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
        positions="learned",
        embedding_norm=True,
        feedforward=activation(c.activation_function),
        scale_embedding=c.scale_embedding,
        head_bias=bool(model.final_logits_bias.any()),
        dropout=c.dropout,
    )


def specify(c: EncDecConfig) -> tuple[str, dict[str, Any]]:
    """Our config -> the name of their model and the values of its config; token 0 pads and starts unless told."""
    demand(c, positions="learned", embedding_norm=True)
    demand(c, norm="layer", residual="post", bias=True, kv_heads=c.n_heads, qk_norm=False)
    demand(c, head_width=c.d_model // c.n_heads, embedding_width=c.d_model, norm_eps=1e-5, tie=True)
    return "BartForConditionalGeneration", {
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
        "bos_token_id": None,
        "eos_token_id": None,
        "forced_eos_token_id": None,
    }


def places(c: EncDecConfig) -> Places:
    """Marian's blocks, and before them a table of positions and a norm in each half."""
    return {
        **marian.places(c),
        "source_place.table.weight": place("model.encoder.embed_positions.weight"),
        "place.table.weight": place("model.decoder.embed_positions.weight"),
        **modules("source_place.norm", "model.encoder.layernorm_embedding"),
        **modules("place.norm", "model.decoder.layernorm_embedding"),
    }


def rearrange(weights: dict[str, Tensor], inward: bool) -> dict[str, Tensor]:
    """Leave out the rows of their tables that no token reads, or put zeros there."""
    return {name: fit_table(weight, inward) if name in TABLES else weight for name, weight in weights.items()}


def fit_table(table: Tensor, inward: bool) -> Tensor:
    """A table of positions (max_len + 2, D) without its first rows, or one of ours with them."""
    return table[UNUSED:].clone() if inward else F.pad(table, (0, 0, UNUSED, 0))


BART = Family(
    ("BartForConditionalGeneration",),
    EncoderDecoder,
    describe,
    specify,
    places,
    ("final_logits_bias",),
    rearrange,
)
