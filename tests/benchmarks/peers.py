"""Peers: sizes -> models to measure against: nanoGPT's shape in plain torch, and Hugging Face's GPT-2 and Llama."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """What all contestants have in common."""

    vocab_size: int
    n_layers: int
    d_model: int
    n_heads: int
    max_len: int


SMALL = Size(vocab_size=65, n_layers=4, d_model=128, n_heads=4, max_len=64)  # nanoGPT's README recipe for a CPU
LARGE = Size(vocab_size=65, n_layers=6, d_model=384, n_heads=6, max_len=256)  # its recipe for a GPU, 10.65 M


def missing(package: str) -> str | None:
    """Why a package can't take part; None where it can."""
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


class Norm(nn.Module):
    """Layer normalisation with gains and no shifts."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.gain.shape, self.gain, None, 1e-5)


class Layer(nn.Module):
    """Fused projection, fused causal attention, GELU between two matrices, norms in front; no biases."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm1, self.norm2 = Norm(d_model), Norm(d_model)
        self.qkv, self.mix = nn.Linear(d_model, 3 * d_model, bias=False), nn.Linear(d_model, d_model, bias=False)
        self.up, self.down = nn.Linear(d_model, 4 * d_model, bias=False), nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = (y.view(B, T, self.n_heads, -1).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(D, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(y.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainGPT(nn.Module):
    """nanoGPT's shape: learned positions, pre-norm layers, the head tied to the embedding."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocab_size, size.d_model)
        self.position = nn.Embedding(size.max_len, size.d_model)
        self.layers = nn.ModuleList(Layer(size.d_model, size.n_heads) for _ in range(size.n_layers))
        self.norm = Norm(size.d_model)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                residual = name.endswith(("mix.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * size.n_layers) if residual else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.embedding.weight)


def hugging_face_gpt2(size: Size) -> Any:
    """GPT-2 of this size, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=size.vocab_size,
            n_positions=size.max_len,
            n_embd=size.d_model,
            n_layer=size.n_layers,
            n_head=size.n_heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def hugging_face_llama(size: Size) -> Any:
    """Llama of this size; three feed-forward matrices of 8/3 D, rounded up to 8s, have the parameters of two of 4 D."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size.vocab_size,
            hidden_size=size.d_model,
            intermediate_size=-(-8 * size.d_model // 24) * 8,
            num_hidden_layers=size.n_layers,
            num_attention_heads=size.n_heads,
            max_position_embeddings=size.max_len,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
