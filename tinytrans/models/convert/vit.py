"""ViT: ViTForImageClassification <-> a ViT."""

from __future__ import annotations

from typing import Any

from tinytrans.config import ViTConfig
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
from tinytrans.models.vit import ViT as Model


def describe(model: Any) -> ViTConfig:
    """Their model -> our config."""
    c = model.config
    demand_usual(c, is_causal=False)
    demand(c, qkv_bias=True)
    return ViTConfig(
        image_size=side("image_size", c.image_size),
        patch_size=side("patch_size", c.patch_size),
        n_channels=c.num_channels,
        n_classes=c.num_labels,
        n_layers=c.num_hidden_layers,
        d_model=c.hidden_size,
        n_heads=c.num_attention_heads,
        d_ff=c.intermediate_size,
        feedforward=activation(c.hidden_act),
        dropout=c.hidden_dropout_prob,
        norm_eps=c.layer_norm_eps,
    )


def side(name: str, size: Any) -> int:
    """The side of a square that their config gives as one number or as height and width; ValueError for no square."""
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    if height != width:
        raise ValueError(f"{name} is {height} x {width}, and only squares can be carried over")
    return int(height)


def specify(c: ViTConfig) -> tuple[str, dict[str, Any]]:
    """Our config -> the name of their model and the values of its config."""
    demand(c, norm="layer", residual="pre", bias=True, kv_heads=c.n_heads, qk_norm=False)
    demand(c, head_width=c.d_model // c.n_heads)
    return "ViTForImageClassification", {
        "image_size": c.image_size,
        "patch_size": c.patch_size,
        "num_channels": c.n_channels,
        "num_labels": c.n_classes,
        "num_hidden_layers": c.n_layers,
        "hidden_size": c.d_model,
        "num_attention_heads": c.n_heads,
        "intermediate_size": c.feedforward_width,
        "hidden_act": their_activation(c.feedforward),
        "hidden_dropout_prob": c.dropout,
        "attention_probs_dropout_prob": c.dropout,
        "layer_norm_eps": c.norm_eps,
    }


def places(c: ViTConfig) -> Places:
    """Their projection of the patches is a convolution, its kernel (D, C, P, P)."""
    layer, own = "vit.layers.{i}", "encoder.blocks.{i}"
    block = {
        **modules(f"{own}.attention_norm", f"{layer}.layernorm_before"),
        **modules(f"{own}.attention.qkv", *(f"{layer}.attention.{x}_proj" for x in "qkv")),
        **modules(f"{own}.attention.out", f"{layer}.attention.o_proj"),
        **modules(f"{own}.feedforward_norm", f"{layer}.layernorm_after"),
        **modules(f"{own}.feedforward.up", f"{layer}.mlp.fc1"),
        **modules(f"{own}.feedforward.down", f"{layer}.mlp.fc2"),
    }
    return {
        "patch.weight": place("vit.embeddings.patch_embeddings.projection.weight", form="reshaped"),
        "patch.bias": place("vit.embeddings.patch_embeddings.projection.bias"),
        "cls": place("vit.embeddings.cls_token"),
        "position.weight": place("vit.embeddings.position_embeddings", form="reshaped"),
        **layers(c.n_layers, block),
        **modules("encoder.norm", "vit.layernorm"),
        **modules("head", "classifier"),
    }


VIT = Family(("ViTForImageClassification",), Model, describe, specify, places)
