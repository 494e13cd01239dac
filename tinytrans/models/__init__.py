"""Parts -> a model: each file one architecture, built from a config out of the parts in `tinytrans.nn`."""

from __future__ import annotations

import os

import torch

from tinytrans.config import Config
from tinytrans.models.bert import BERT
from tinytrans.models.encdec import EncoderDecoder
from tinytrans.models.gpt import GPT
from tinytrans.models.joint import Joint
from tinytrans.models.multimodal import Multimodal
from tinytrans.models.pretrained import Pretrained, read
from tinytrans.models.rnn import Seq2Seq
from tinytrans.models.vit import ViT
from tinytrans.models.word2vec import Word2Vec

__all__ = [
    "BERT",
    "GPT",
    "MODELS",
    "EncoderDecoder",
    "Joint",
    "Multimodal",
    "Seq2Seq",
    "ViT",
    "Word2Vec",
    "build",
    "load_model",
]

MODELS: dict[str, type[Pretrained]] = {
    model.Config.model: model for model in (BERT, EncoderDecoder, GPT, Joint, Multimodal, Seq2Seq, ViT, Word2Vec)
}
"""name, as in a config.json -> model."""


def build(config: Config) -> Pretrained:
    """A new model of whatever kind the config is for; raises ValueError for one that is for a part of a model."""
    if config.model not in MODELS:
        raise ValueError(f"a config of {config.model!r} is for none of the models {', '.join(MODELS)}")
    return MODELS[config.model](config)


def load_model(folder: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Pretrained:
    """The model in a folder, whichever `save_pretrained` wrote, in eval mode.

    Raises ValueError for one of an unknown name, and as `Pretrained.from_pretrained` does.
    """
    values, weights = read(folder, device)
    model = MODELS.get(name) if isinstance(name := values.get("model"), str) else None
    if model is None:
        raise ValueError(f"the model {name!r} in {str(folder)!r} is not one of {', '.join(MODELS)}")
    return model.from_weights(model.Config.from_dict(values), weights)
