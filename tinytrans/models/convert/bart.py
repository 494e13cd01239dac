"""BART: BartForConditionalGeneration <-> an EncoderDecoder with learned positions and a norm on the embeddings."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tinytrans.config import EncDecConfig
from tinytrans.models.convert import marian
from tinytrans.models.convert.families import Family, Places, demand, modules, place
from tinytrans.models.encdec import EncoderDecoder

UNUSED = 2  # their tables begin with two rows for positions that no token has
TABLES = ("source_place.table.weight", "place.table.weight")


def describe(model: Any) -> EncDecConfig:
    """Their model -> our config."""
    return marian.shared_config(model, positions="learned", embedding_norm=True)


def specify(c: EncDecConfig) -> tuple[str, dict[str, Any]]:
    """Our config -> the name of their model and the values of its config."""
    demand(c, positions="learned", embedding_norm=True)
    return "BartForConditionalGeneration", {**marian.shared_values(c), "bos_token_id": None}


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
