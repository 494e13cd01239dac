"""The complete transformer in readable PyTorch: `from tinytrans import GPT, fit, generate`.

Names are fetched when first used, so that `import tinytrans` costs nothing; what is not listed here lives in
`tinytrans.tokenizers`, `data`, `nn`, `models`, `sampling` and `training`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytrans.config import PRESETS, GPTConfig
    from tinytrans.data import load
    from tinytrans.device import autocast, pick, seed
    from tinytrans.models import load_model
    from tinytrans.models.bert import BERT
    from tinytrans.models.convert import from_transformers, to_transformers
    from tinytrans.models.encdec import EncoderDecoder
    from tinytrans.models.gpt import GPT
    from tinytrans.models.vit import ViT
    from tinytrans.nn.attention import Attention, attend, fused_attend
    from tinytrans.nn.block import Block
    from tinytrans.nn.cache import KVCache
    from tinytrans.nn.feedforward import FeedForward, SwiGLU
    from tinytrans.nn.masks import causal, decoder_mask, padding, window
    from tinytrans.nn.norms import LayerNorm, RMSNorm
    from tinytrans.nn.positions import rotate, rotation_at, sinusoidal
    from tinytrans.sampling.choose import sample
    from tinytrans.sampling.generate import generate, stream
    from tinytrans.tokenizers import BPETokenizer, Tokenizer, load_tokenizer
    from tinytrans.training.loop import fit
    from tinytrans.training.pretrain import evaluate, language_model_loss, next_token_loss, pretrain

__version__ = "0.1.0"

HOMES = {
    "BERT": "models.bert",
    "PRESETS": "config",
    "Attention": "nn.attention",
    "BPETokenizer": "tokenizers",
    "Block": "nn.block",
    "EncoderDecoder": "models.encdec",
    "FeedForward": "nn.feedforward",
    "GPT": "models.gpt",
    "GPTConfig": "config",
    "KVCache": "nn.cache",
    "LayerNorm": "nn.norms",
    "RMSNorm": "nn.norms",
    "SwiGLU": "nn.feedforward",
    "Tokenizer": "tokenizers",
    "ViT": "models.vit",
    "attend": "nn.attention",
    "autocast": "device",
    "causal": "nn.masks",
    "decoder_mask": "nn.masks",
    "evaluate": "training.pretrain",
    "fit": "training.loop",
    "from_transformers": "models.convert",
    "fused_attend": "nn.attention",
    "generate": "sampling.generate",
    "language_model_loss": "training.pretrain",
    "load": "data",
    "load_model": "models",
    "load_tokenizer": "tokenizers",
    "next_token_loss": "training.pretrain",
    "padding": "nn.masks",
    "pick": "device",
    "pretrain": "training.pretrain",
    "rotate": "nn.positions",
    "rotation_at": "nn.positions",
    "sample": "sampling.choose",
    "seed": "device",
    "sinusoidal": "nn.positions",
    "stream": "sampling.generate",
    "to_transformers": "models.convert",
    "window": "nn.masks",
}
"""name -> the module that it lives in, below this one."""

__all__ = [
    "BERT",
    "GPT",
    "PRESETS",
    "Attention",
    "BPETokenizer",
    "Block",
    "EncoderDecoder",
    "FeedForward",
    "GPTConfig",
    "KVCache",
    "LayerNorm",
    "RMSNorm",
    "SwiGLU",
    "Tokenizer",
    "ViT",
    "attend",
    "autocast",
    "causal",
    "decoder_mask",
    "evaluate",
    "fit",
    "from_transformers",
    "fused_attend",
    "generate",
    "language_model_loss",
    "load",
    "load_model",
    "load_tokenizer",
    "next_token_loss",
    "padding",
    "pick",
    "pretrain",
    "rotate",
    "rotation_at",
    "sample",
    "seed",
    "sinusoidal",
    "stream",
    "to_transformers",
    "window",
]


def __getattr__(name: str) -> Any:
    """Fetch a listed name from its module, once (PEP 562)."""
    if name not in HOMES:
        raise AttributeError(f"module 'tinytrans' has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
