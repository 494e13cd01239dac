"""Stacks: x (B, T, D) -> (B, T, D) through n blocks of one shape; and what all models need to build and feed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tinytrans.config import ModelConfig, YarnScaling
from tinytrans.nn.attention import Attention, KeysValues, ScoreBias
from tinytrans.nn.block import RESIDUALS, Block
from tinytrans.nn.cache import KVCache
from tinytrans.nn.feedforward import FEEDFORWARDS
from tinytrans.nn.norms import NORMS
from tinytrans.nn.positions import Rotation, alibi, rotation_at
from tinytrans.nn.rope_scaling import linear, llama3, yarn, yarn_amplitude

STD = 0.02  # of all weights at birth, GPT-2's and BERT's
SPEEDS: dict[str, Callable[..., Tensor]] = {"linear": linear, "llama3": llama3, "yarn": yarn}
"""name of a RoPE scaling -> what computes its speeds in the place of `frequencies`."""


class Stack(nn.Module):
    """An encoder, or with `causal` and `cross` a decoder: blocks, each reading what the one before has made of x.

    Every block of a decoder reads the same memory, the encoder's last output, through cross-attention of its own. With
    norms before the sublayers there is one more at the end; after them, there is none. A rotation turns self-attention.
    Source: Vaswani et al. 2017, section 3.1, arXiv 1706.03762.
    """

    def __init__(self, config: ModelConfig, n_layers: int, *, causal: bool = False, cross: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(build_block(config, causal=causal, cross=cross) for _ in range(n_layers))
        self.norm = last_norm(config)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | Sequence[KeysValues] | None = None,
        *,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        rotation: Rotation | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D), with memory (B, S, D), or its keys and values for each block (`remember`).

        Raises ValueError for masks that are not bool or do not fit, for a memory that no block reads, and for none
        where every block wants one.
        """
        B, T, _ = x.shape
        check_mask(mask, B, T, T if cache is None else cache.length + T)
        if memory is not None:
            rows = memory if isinstance(memory, Tensor) else memory[0][0]  # (B, S, D), or keys (B, G, S, K)
            check_mask(memory_mask, B, T, rows.shape[-2], "mask of the memory")
        for i, block in enumerate(self.blocks):
            own = memory if memory is None or isinstance(memory, Tensor) else memory[i]
            layer = None if cache is None else cache[i]
            x = block(x, own, mask=mask, memory_mask=memory_mask, rotation=rotation, cache=layer)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.norm(x)

    def remember(self, memory: Tensor) -> list[KeysValues]:
        """A memory's keys and values for each block: computed once, they serve every step of a generation."""
        crosses = (block.cross for block in self.blocks)
        return [cross.keys_values(memory) for cross in crosses if isinstance(cross, Attention)]


def build_block(config: ModelConfig, *, causal: bool = False, cross: bool = False, window: int | None = None) -> Block:
    """One layer as the config wants it; `causal` and `window` are for its self-attention, `cross` adds another."""

    def attention(*, causal: bool = False, window: int | None = None, score_bias: ScoreBias | None = None) -> Attention:
        return Attention(
            config.d_model,
            config.n_heads,
            n_kv_heads=config.n_kv_heads,
            d_head=config.d_head,
            bias=config.bias,
            qk_norm=config.qk_norm,
            dropout=config.dropout,
            causal=causal,
            window=window,
            score_bias=score_bias,
        )

    far_is_faint = alibi if getattr(config, "positions", None) == "alibi" else None
    return Block(
        attention(causal=causal, window=window, score_bias=far_is_faint),
        FEEDFORWARDS[config.feedforward](config.d_model, config.feedforward_width, bias=config.bias),
        lambda: build_norm(config),
        cross=attention() if cross else None,
        residual=RESIDUALS[config.residual],
        dropout=config.dropout,
    )


def build_rotation(config: Any) -> Callable[..., Rotation] | None:
    """As `positions.rotation_at` for this config's heads: (positions (T,) or (B, 1, T), dtype=...) -> their rotation.

    None where the config wants no rope.
    """
    if config.positions != "rope":
        return None
    plain = partial(rotation_at, K=config.head_width, base=config.rope_base)
    if (scaling := getattr(config, "rope_scaling", None)) is None:
        return plain
    numbers = {field.name: getattr(scaling, field.name) for field in fields(scaling)}
    amplitude = 1.0
    if isinstance(scaling, YarnScaling):
        amplitude = numbers.pop("amplitude") or yarn_amplitude(scaling.factor)
    return partial(plain, speeds=partial(SPEEDS[scaling.model], **numbers), amplitude=amplitude)


def build_norm(config: ModelConfig) -> nn.Module:
    """A norm as the config wants it."""
    return NORMS[config.norm](config.d_model, eps=config.norm_eps, bias=config.bias)


def last_norm(config: ModelConfig) -> nn.Module:
    """What stands after the last block: a norm, unless each block ends on one."""
    return build_norm(config) if config.residual == "pre" else nn.Identity()


def init_weights(model: nn.Module, std: float = STD) -> None:
    """Matrices and tables normal with this standard deviation, biases 0; gains of norms stay 1."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def check_ids(ids: Tensor, size: int, what: str = "vocabulary") -> None:
    """Raise ValueError, naming what was given and what is allowed, for ids that no embedding of this size can read."""
    if not isinstance(ids, Tensor):
        raise ValueError(f"ids are of type {type(ids).__name__}, not a tensor: torch.tensor([[1, 2, 3]])")
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"ids are of dtype {ids.dtype}, not of torch.int64")
    if ids.dim() != 2 or ids.numel() == 0:
        raise ValueError(f"ids have shape {tuple(ids.shape)}, not (B, T) with at least one token")
    if may_be_read(ids):
        low, high = torch.aminmax(ids)
        if low < 0 or high >= size:
            raise ValueError(f"id {low if low < 0 else high} is outside the {what} of {size}")


def may_be_read(x: Tensor) -> bool:
    """Whether a tensor's numbers can be looked at here and now.

    On a GPU one would have to wait for them; while a graph is traced, and under `torch.func.vmap`, they are not there.
    """
    known = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return known and not torch._C._functorch.is_functorch_wrapped_tensor(x)  # torch has no public name for it


def check_mask(mask: Tensor | None, B: int, T: int, S: int, what: str = "mask") -> None:
    """Raise ValueError, naming both, for a mask that is not bool or does not fit T queries and S keys of B rows."""
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise ValueError(f"the {what} is of type {type(mask).__name__}, not a tensor of torch.bool: True = may look")
    if mask.dtype != torch.bool:
        raise ValueError(f"the {what} is of dtype {mask.dtype}, not of torch.bool: True = may look")
    if mask.dim() == 4:  # (B, H, T, S): one for each head
        return
    if mask.dim() not in (2, 3) or not fits(mask.shape, (B, T, S)):
        raise ValueError(f"the {what} has shape {tuple(mask.shape)}, not ({T}, {S}), ({B}, {T}, {S}) or ({B}, 1, {S})")


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether each of the last sizes is the one wanted, or 1: asked one by one, for a compiler's symbol is in no tuple.

    >>> fits((7, 9), (3, 7, 9)), fits((1, 9), (7, 9)), fits((2, 9), (7, 9))
    (True, True, False)
    """
    return all(given == 1 or given == size for given, size in zip(reversed(shape), reversed(wanted), strict=False))


def check_positions(positions: Tensor, B: int, T: int) -> None:
    """Raise ValueError, naming both shapes, unless the positions are those of T tokens, for all rows or for each."""
    if not isinstance(positions, Tensor):
        raise ValueError(f"positions are of type {type(positions).__name__}, not a tensor ({T},) or ({B}, {T})")
    if positions.dim() not in (1, 2) or positions.shape[-1] != T or not fits(positions.shape, (B, T)):
        raise ValueError(f"positions have shape {tuple(positions.shape)}, not ({T},) or ({B}, {T})")


def last_position(positions: Tensor) -> int:
    """The largest of the positions at which a table is to be read; raises ValueError for one before the first, 0."""
    low, high = positions.aminmax()
    if low < 0:
        raise ValueError(f"position {int(low)} is before the first, 0, and each is learned")
    return int(high)
