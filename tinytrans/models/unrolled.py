"""Unrolled: a GPT and its cache -> a function that reads one token a row, with little but the kernels in it.

A token alone is so little work that what stands around it, calling modules and asking what was asked before, takes the
larger part of its time. So generation lays the layers out flat, once; the numbers are those of `GPT.forward`, and where
a model is not made of the parts known here (adapters, hooks, ALiBi), `unroll` says so and `forward` does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.nn.attention import Attention
from tinytrans.nn.block import Block, pre_norm
from tinytrans.nn.cache import KVCache
from tinytrans.nn.feedforward import ACTIVATIONS, FeedForward, SwiGLU
from tinytrans.nn.norms import LayerNorm, RMSNorm
from tinytrans.nn.positions import Rotation, rotate

if TYPE_CHECKING:
    from tinytrans.models.gpt import GPT

Function = Callable[[Tensor], Tensor]
Turns = Callable[[int], Any]  # a position -> what turns queries and keys to it
Look = Callable[[Tensor, Any, int], Tensor]
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
    layers = [
        (
            norm(block.attention_norm),
            linear(block.attention.qkv),
            adding(block.attention.out),
            norm(block.feedforward_norm),
            feed_forward(block.feedforward),
            adding(block.feedforward.down),
        )
        for block in blocks
    ]
    attentions: list[Attention] = [block.attention for block in blocks]
    rooms, (turns, looks) = cache.keys, looking(model, attentions, cache)

    @torch.inference_mode()
    def read(ids: Tensor) -> Tensor:
        nonlocal rooms, turns, looks
        B, here = len(ids), cache.length
        cache.check(B, 1)
        if cache.keys is not rooms:  # reordered since: other rooms, and maybe other rows
            rooms, (turns, looks) = cache.keys, looking(model, attentions, cache)
        x = first(F.embedding(ids[:, 0], embedding.weight))  # (B, D)
        if position is not None:
            model.check(here + 1)
            x = x + position.weight[here]
        turn = None if turns is None else turns(here)
        for (norm1, project, add_found, norm2, think, add_thought), look in zip(layers, looks, strict=True):
            x = add_found(x, look(project(norm1(x)), turn, here))
            x = add_thought(x, think(norm2(x)))
        cache.advance(1)
        return head(last(x))

    return read


def looking(model: GPT, attentions: list[Attention], cache: KVCache) -> tuple[Turns | None, list[Look]]:
    """How each layer looks back over this cache, and how what it looks with is turned to its position."""
    weight = model.embedding.weight
    turns = None if model.rotation is None else turns_at(model.rotation, model, cache)
    if cache.batch == 1 and type(cache) is KVCache and exact_on_cpu(weight):
        looks = [look_of_one(*of) for of in zip(attentions, cache.keys, cache.values, strict=True)]
        return None if turns is None else matrices(turns, attentions[0].head_width, weight), looks
    return turns, [look_of_many(attention, cache, i) for i, attention in enumerate(attentions)]


def turns_at(rotation: Callable[..., Rotation], model: GPT, cache: KVCache) -> Callable[[int], Rotation]:
    """A position -> its rotation: those for which there is room are computed at once, the others one by one."""
    weight = model.embedding.weight
    room = min(cache.max_len, model.config.max_len)  # a rolling cache has no end

    def compute(start: int, stop: int) -> Rotation:
        return rotation(torch.arange(start, stop, device=weight.device), dtype=weight.dtype)

    cos, sin = compute(0, room)

    def turn(here: int) -> Rotation:
        if here >= room:
            return compute(here, here + 1)
        return Rotation(cos.narrow(0, here, 1), sin.narrow(0, here, 1))

    return turn


def matrices(turns: Callable[[int], Rotation], K: int, like: Tensor) -> Callable[[int], Tensor]:
    """A position -> its rotation as a matrix (K, K), to be multiplied from the right; always the same memory.

    Two of its numbers in each column are not 0. To multiply by all takes less time than three kernels by name.
    """
    turned = torch.zeros(K, K, dtype=like.dtype)
    own, later, earlier = turned.diagonal(), turned.diagonal(K // 2), turned.diagonal(-(K // 2))

    def matrix(here: int) -> Tensor:
        cos, sin = turns(here)
        own.copy_(cos[0])
        earlier_sin, later_sin = sin[0].chunk(2)
        earlier.copy_(earlier_sin)
        later.copy_(later_sin)
        return turned

    return matrix


def look_of_many(attention: Attention, cache: KVCache, layer: int) -> Look:
    """How one new token a row looks back: (projections (B, (H + 2 G) K), rotation, place) -> found (B, H K)."""
    H, G, K = attention.n_heads, attention.n_kv_heads, attention.head_width

    def look(qkv: Tensor, turn: Rotation | None, _: int) -> Tensor:
        heads = qkv.view(len(qkv), H + 2 * G, 1, K)
        qk = heads[:, : H + G]
        if attention.qk_norm:
            qk = F.layer_norm(qk, (K,))
        if turn is not None:
            qk = rotate(qk, turn)
        k, v = cache[layer].update(qk[:, H:], heads[:, H + G :])
        if attention.window is not None:
            k, v = k[:, :, -attention.window :], v[:, :, -attention.window :]  # for one query, a window is an end
        return F.scaled_dot_product_attention(qk[:, :H], k, v, enable_gqa=H != G).view(len(qkv), H * K)

    return look


def look_of_one(attention: Attention, keys: Tensor, values: Tensor) -> Look:
    """The same for a row alone, with plain products: for so little a fused kernel takes longer to begin.

    The rotation is a matrix (K, K); keys and values are the layer's rooms (1, G, max_len, K).
    """
    H, G, K, window = attention.n_heads, attention.n_kv_heads, attention.head_width, attention.window
    keys, values, scale = keys[0].mT, values[0], K**-0.5

    def look(qkv: Tensor, turn: Tensor | None, here: int) -> Tensor:
        qk, v = torch.split_with_sizes(qkv.view(H + 2 * G, K), (H + G, G))
        if attention.qk_norm:
            qk = F.layer_norm(qk, (K,))
        if turn is not None:
            qk = torch.mm(qk, turn)
        q, k = torch.split_with_sizes(qk, (H, G))
        keys.select(2, here).copy_(k)
        values.select(1, here).copy_(v)
        start = 0 if window is None else max(0, here + 1 - window)
        seen = here + 1 - start
        asked = q.mul_(scale).view(G, H // G, K)  # the heads of a group ask the same keys
        weights = torch.bmm(asked, keys.narrow(2, start, seen)).softmax(dim=-1)
        return torch.bmm(weights, values.narrow(1, start, seen)).view(1, H * K)

    return look


def known(module: nn.Module) -> bool:
    """Whether a module is one of those laid out here, itself and nothing built upon it, with nothing hooked to it."""
    return type(module) in KNOWN and not hooked(module) and getattr(module, "residual", pre_norm) is pre_norm


def hooked(module: nn.Module) -> bool:
    """Whether something is to happen when the module is called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def exact_on_cpu(weight: Tensor) -> bool:
    """Whether small kernels may take the place of fused ones: on a CPU, and none keeps more digits within."""
    return weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)


def linear(module: Any) -> Function:
    """A linear layer as a function (B, in) -> (B, out)."""
    weight, bias = module.weight.t(), module.bias
    return (lambda x: torch.mm(x, weight)) if bias is None else (lambda x: torch.addmm(bias, x, weight))


def adding(module: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """A linear layer that adds what it makes of y to the stream: (B, D), y (B, in) -> (B, D), in one kernel."""
    weight, bias = module.weight.t(), module.bias
    if bias is None:
        return lambda x, y: torch.addmm(x, y, weight)
    return lambda x, y: torch.addmm(x, y, weight).add_(bias)


def norm(module: Any) -> Function:
    """A norm as a function, or what does nothing in its place."""
    if isinstance(module, nn.Identity):
        return lambda x: x
    weight, bias, eps, shape = module.weight, module.bias, module.eps, module.weight.shape
    if isinstance(module, LayerNorm):
        return lambda x: F.layer_norm(x, shape, weight, bias, eps)
    if exact_on_cpu(weight):
        gains, least = weight * math.sqrt(len(weight)), weight.new_tensor(math.sqrt(len(weight) * eps))
        normed: Function = partial(small_rms_norm, gains=gains, least=least)
    else:
        normed = partial(F.rms_norm, normalized_shape=shape, weight=weight, eps=eps)
    return normed if bias is None else lambda x: normed(x).add_(bias)


def small_rms_norm(x: Tensor, gains: Tensor, least: Tensor) -> Tensor:
    """`rms_norm` of a few rows (B, D) from few small kernels: on a CPU torch's own takes longer to begin.

    weight x / sqrt(|x|^2 / D + eps) = gains x / sqrt(|x|^2 + least^2), with gains = weight sqrt(D), least^2 = D eps.
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(least)
    return (x / length).mul_(gains)


def feed_forward(module: Any) -> Function:
    """A feed-forward layer as a function, without dropout and without its last matrix: (B, D) -> (B, F)."""
    up = linear(module.up)
    if isinstance(module, SwiGLU):

        def gated(x: Tensor) -> Tensor:
            gate, passed = up(x).chunk(2, dim=-1)
            return F.silu(gate).mul_(passed)

        return gated
    activation = ACTIVATIONS[module.activation]
    return lambda x: activation(up(x))
