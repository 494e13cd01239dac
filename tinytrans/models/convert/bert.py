"""BERT: BertModel, BertForPreTraining and Bert for sequence classes and answers <-> a BERT with its head."""

from __future__ import annotations

from typing import Any

from tinytrans.config import BERTConfig, Head
from tinytrans.models.bert import BERT as Model
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

HEADS: dict[str, Head] = {
    "BertModel": "pooled",
    "BertForPreTraining": "pretraining",
    "BertForSequenceClassification": "classifier",
    "BertForQuestionAnswering": "spans",
}
"""their class -> our head."""


def describe(model: Any) -> BERTConfig:
    """Their model -> our config."""
    c, head = model.config, HEADS[type(model).__name__]
    demand_usual(c, is_causal=False)
    demand(c, is_decoder=False, add_cross_attention=False)
    if head == "pretraining":
        demand(c, hidden_act="gelu", tie_word_embeddings=True)
    return BERTConfig(
        vocab_size=c.vocab_size,
        n_layers=c.num_hidden_layers,
        d_model=c.hidden_size,
        n_heads=c.num_attention_heads,
        d_ff=c.intermediate_size,
        max_len=c.max_position_embeddings,
        n_segments=c.type_vocab_size,
        feedforward=activation(c.hidden_act),
        dropout=c.hidden_dropout_prob,
        norm_eps=c.layer_norm_eps,
        head=head,
        n_classes=c.num_labels,
    )


def specify(c: BERTConfig) -> tuple[str, dict[str, Any]]:
    """Our config -> the name of their model and the values of its config."""
    demand(c, norm="layer", residual="post", bias=True, kv_heads=c.n_heads, qk_norm=False)
    demand(c, head_width=c.d_model // c.n_heads)
    if c.head == "pretraining":
        demand(c, feedforward="gelu")
    return {head: name for name, head in HEADS.items()}[c.head], {
        "vocab_size": c.vocab_size,
        "num_hidden_layers": c.n_layers,
        "hidden_size": c.d_model,
        "num_attention_heads": c.n_heads,
        "intermediate_size": c.feedforward_width,
        "max_position_embeddings": c.max_len,
        "type_vocab_size": c.n_segments,
        "hidden_act": their_activation(c.feedforward),
        "hidden_dropout_prob": c.dropout,
        "attention_probs_dropout_prob": c.dropout,
        "layer_norm_eps": c.norm_eps,
        "num_labels": c.n_classes if c.head == "classifier" else 2,  # for answers: where they start and end
    }


def places(c: BERTConfig) -> Places:
    """Only the encoder without a task stands there without the prefix "bert."."""
    bert = "" if c.head == "pooled" else "bert."
    layer = f"{bert}encoder.layer.{{i}}"
    own = "encoder.blocks.{i}"
    block = {
        **modules(f"{own}.attention.qkv", *(f"{layer}.attention.self.{x}" for x in ("query", "key", "value"))),
        **modules(f"{own}.attention.out", f"{layer}.attention.output.dense"),
        **modules(f"{own}.attention_norm", f"{layer}.attention.output.LayerNorm"),
        **modules(f"{own}.feedforward.up", f"{layer}.intermediate.dense"),
        **modules(f"{own}.feedforward.down", f"{layer}.output.dense"),
        **modules(f"{own}.feedforward_norm", f"{layer}.output.LayerNorm"),
    }
    return {
        "embedding.weight": place(f"{bert}embeddings.word_embeddings.weight"),
        "position.weight": place(f"{bert}embeddings.position_embeddings.weight"),
        "segment.weight": place(f"{bert}embeddings.token_type_embeddings.weight"),
        **modules("embedding_norm", f"{bert}embeddings.LayerNorm"),
        **layers(c.n_layers, block),
        **modules("head.pooler.dense", f"{bert}pooler.dense"),
        **modules("head.transform", "cls.predictions.transform.dense"),
        **modules("head.norm", "cls.predictions.transform.LayerNorm"),
        "head.tokens.bias": place("cls.predictions.bias"),
        **modules("head.follows", "cls.seq_relationship"),
        **modules("head.classes", "classifier"),
        **modules("head.ends", "qa_outputs"),
    }


BERT = Family(tuple(HEADS), Model, describe, specify, places)
