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
from tinytrans.nn.positions import Rotation, rotate

if TYPE_CHECKING:
    from tinytrans.models.gpt import GPT

WORTH_LAYING_DOWN = 32  # tokens to come: a matrix laid down saves in each of them a fifteenth of what the copy takes
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
    lay = laid_down if worth_laying_down(cache, model.embedding.weight) else as_it_lies
    embedding, position, last, head = model.embedding, model.position, norm(model.norm), linear(model.head, lay)
    first = norm(model.embedding_norm)
    blocks: Any = model.blocks
    layers = [
        (
            norm(block.attention_norm),
            linear(block.attention.qkv, lay),
            block.attention,
            adding(block.attention.out, lay),
            norm(block.feedforward_norm),
            feed_forward(block.feedforward, lay),
            adding(block.feedforward.down, lay),
        )
        for block in blocks
    ]
    turns = None if model.rotation is None else turns_at(model.rotation, model, cache)

    @torch.inference_mode()
    def read(ids: Tensor) -> Tensor:
        B, here = len(ids), cache.length
        cache.check(B, 1)
        x = first(F.embedding(ids[:, 0], embedding.weight))  # (B, D)
        if position is not None:
            model.check(here + 1)
            x = x + position.weight[here]
        turn = None if turns is None else turns(here)
        for i, (norm1, project, attention, add_found, norm2, think, add_thought) in enumerate(layers):
            x = add_found(x, look(project(norm1(x)), attention, turn, cache[i]))
            x = add_thought(x, think(norm2(x)))
        cache.advance(1)
        return head(last(x))

    return read


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


def worth_laying_down(cache: KVCache, weight: Tensor) -> bool:
    """Whether so much is to be read one by one that it is worth while to copy matrices: one row, on a CPU."""
    return weight.device.type == "cpu" and cache.batch == 1 and cache.max_len - cache.length >= WORTH_LAYING_DOWN


def as_it_lies(weight: Tensor) -> Tensor:
    """A linear layer's matrix (out, in), to be multiplied from the left: a view (in, out)."""
    return weight.t()


def laid_down(weight: Tensor) -> Tensor:
    """As `as_it_lies`, but where it widens a copy whose rows lie in memory one after the other.

    All of a matrix has to come from memory for the sake of one token. Read along its longer side it comes a fifth
    sooner.
    """
    return weight.t().contiguous() if weight.shape[0] > weight.shape[1] else weight.t()


def linear(module: Any, lay: Function) -> Function:
    """A linear layer as a function (B, in) -> (B, out)."""
    weight, bias = lay(module.weight.detach()), module.bias
    return (lambda x: torch.mm(x, weight)) if bias is None else (lambda x: torch.addmm(bias, x, weight))


def adding(module: Any, lay: Function) -> Callable[[Tensor, Tensor], Tensor]:
    """A linear layer that adds what it makes of y to the stream: (B, D), y (B, in) -> (B, D), in one kernel."""
    weight, bias = lay(module.weight.detach()), module.bias
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
    small = weight.device.type == "cpu" and weight.dtype == torch.float32

    def scaled(x: Tensor) -> Tensor:
        y = small_rms_norm(x, weight, eps) if small else F.rms_norm(x, shape, weight, eps)
        return y if bias is None else y.add_(bias)

    return scaled


def small_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`rms_norm` of a few rows (B, D) from small kernels: on a CPU torch's own takes longer to begin."""
    squares = torch.linalg.vecdot(x, x)
    return (x * squares.div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze_(-1)).mul_(weight)


def feed_forward(module: Any, lay: Function) -> Function:
    """A feed-forward layer as a function, without dropout and without its last matrix: (B, D) -> (B, F)."""
    up = linear(module.up, lay)
    if isinstance(module, SwiGLU):

        def gated(x: Tensor) -> Tensor:
            gate, passed = up(x).chunk(2, dim=-1)
            return F.silu(gate).mul_(passed)

        return gated
    activation = ACTIVATIONS[module.activation]
    return lambda x: activation(up(x))
