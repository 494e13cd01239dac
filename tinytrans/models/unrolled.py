"""Unrolled: a GPT and its cache -> a function that reads one token a row, with little but the kernels in it.

A token alone is so little work that what stands around it, calling modules and asking what was asked before, takes the
larger part of its time. So generation lays the layers out flat, once; the numbers are those of `GPT.forward`, and where
a model is not made of the parts known here (adapters, hooks, ALiBi), `unroll` says so and `forward` does it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.nn.attention import Attention
from tinytrans.nn.block import Block, pre_norm
from tinytrans.nn.cache import KVCache
from tinytrans.nn.feedforward import ACTIVATIONS, FeedForward, SwiGLU
from tinytrans.nn.norms import LayerNorm, RMSNorm
from tinytrans.nn.positions import Rotation, rotate, rotation_at

if TYPE_CHECKING:
    from tinytrans.models.gpt import GPT

Function = Callable[[Tensor], Tensor]
KNOWN = {nn.Embedding, nn.Identity, nn.Linear, nn.ModuleList, Attention, Block, FeedForward, LayerNorm, RMSNorm, SwiGLU}


def unroll(model: GPT, cache: KVCache) -> Function | None:
    """A function ids (B, 1) -> logits (B, V), the same as `model(ids, cache=cache)[:, -1]` in eval mode, sooner.

    It reads the weights that the model has now and writes into this cache. None where the model can't be unrolled.
    """
    c = model.config
    if hooked(model) or not all(known(module) for module in model.modules() if module is not model):
        return None
    if c.positions not in ("rope", "learned", "none"):
        return None
    embedding, position, last, head = model.embedding, model.position, norm(model.norm), linear(model.head)
    first = norm(model.embedding_norm)
    blocks: Any = model.blocks
    sublayers = [
        (norm(block.attention_norm), block.attention, norm(block.feedforward_norm), feed_forward(block.feedforward))
        for block in blocks
    ]
    projections = [(linear(attention.qkv), linear(attention.out)) for _, attention, _, _ in sublayers]

    @torch.inference_mode()
    def read(ids: Tensor) -> Tensor:
        B, here = len(ids), cache.length
        cache.check(B, 1)
        x = first(F.embedding(ids[:, 0], embedding.weight))  # (B, D)
        if position is not None:
            model.check(here + 1)
            x = x + position.weight[here]
        turn = None
        if c.positions == "rope":
            at = torch.arange(here, here + 1, device=x.device)
            turn = rotation_at(at, c.head_width, base=c.rope_base, dtype=x.dtype)
        for i, ((norm1, attention, norm2, think), (qkv, out)) in enumerate(zip(sublayers, projections, strict=True)):
            x = x + out(look(qkv(norm1(x)), attention, turn, cache[i]))
            x = x + think(norm2(x))
        cache.advance(1)
        return head(last(x))

    return read


def look(qkv: Tensor, attention: Attention, turn: Rotation | None, layer: Any) -> Tensor:
    """What one new token a row finds, looking back over a layer's cache: projections (B, (H + 2 G) K) -> (B, H K)."""
    B, (H, G, K) = len(qkv), (attention.n_heads, attention.n_kv_heads, attention.head_width)
    heads = qkv.view(B, H + 2 * G, 1, K)
    qk = heads[:, : H + G]
    if attention.qk_norm:
        qk = F.layer_norm(qk, (K,))
    if turn is not None:
        qk = rotate(qk, turn)
    k, v = layer.update(qk[:, H:], heads[:, H + G :])
    if attention.window is not None:
        k, v = k[:, :, -attention.window :], v[:, :, -attention.window :]  # for one query, a window is an end
    return F.scaled_dot_product_attention(qk[:, :H], k, v, enable_gqa=H != G).view(B, H * K)


def known(module: nn.Module) -> bool:
    """Whether a module is one of those laid out here, itself and nothing built upon it, with nothing hooked to it."""
    return type(module) in KNOWN and not hooked(module) and getattr(module, "residual", pre_norm) is pre_norm


def hooked(module: nn.Module) -> bool:
    """Whether something is to happen when the module is called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def linear(module: Any) -> Function:
    """A linear layer as a function."""
    weight, bias = module.weight, module.bias
    return lambda x: F.linear(x, weight, bias)


def norm(module: Any) -> Function:
    """A norm as a function, or what does nothing in its place."""
    if isinstance(module, nn.Identity):
        return lambda x: x
    weight, bias, eps, shape = module.weight, module.bias, module.eps, module.weight.shape
    if isinstance(module, LayerNorm):
        return lambda x: F.layer_norm(x, shape, weight, bias, eps)
    if bias is None:
        return lambda x: F.rms_norm(x, shape, weight, eps)
    return lambda x: F.rms_norm(x, shape, weight, eps) + bias


def feed_forward(module: Any) -> Function:
    """A feed-forward layer as a function, without dropout."""
    up, down = linear(module.up), linear(module.down)
    if isinstance(module, SwiGLU):

        def gated(x: Tensor) -> Tensor:
            gate, passed = up(x).chunk(2, dim=-1)
            return down(F.silu(gate) * passed)

        return gated
    activation = ACTIVATIONS[module.activation]
    return lambda x: down(activation(up(x)))
