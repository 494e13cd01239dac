"""Block: x (B, T, D) -> (B, T, D): positions look at each other, then each one thinks, and both add to the stream.

`pre_norm` and `post_norm` say where the norm stands; `Block` joins attention, cross-attention if any, and feed-forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.nn.attention import Attention

if TYPE_CHECKING:
    from tinytrans.nn.attention import KeysValues
    from tinytrans.nn.cache import LayerCache
    from tinytrans.nn.positions import Rotation

Sublayer: TypeAlias = Callable[[Tensor], Tensor]
Residual: TypeAlias = Callable[[Tensor, Sublayer, Sublayer], Tensor]


def pre_norm(x: Tensor, norm: Sublayer, sublayer: Sublayer) -> Tensor:
    """The sublayer reads the normed stream and adds to the stream itself: x + sublayer(norm(x)).

    From the first layer to the last runs a path without a norm, so a final norm is needed.
    Source: Xiong et al. 2020, arXiv 2002.04745; Radford et al. 2019 (GPT-2).
    """
    return x + sublayer(norm(x))


def post_norm(x: Tensor, norm: Sublayer, sublayer: Sublayer) -> Tensor:
    """The sublayer reads the stream, and the sum is normed: norm(x + sublayer(x)).

    The stream leaves every block normed, so no final norm is needed, but deep stacks need a warm-up to train.
    Source: Vaswani et al. 2017, section 3.1, arXiv 1706.03762.
    """
    return norm(x + sublayer(x))


RESIDUALS: dict[str, Residual] = {"pre": pre_norm, "post": post_norm}
"""name -> where the norm stands."""


class Block(nn.Module):
    """One layer of a transformer: self-attention, with `cross` also cross-attention, then feed-forward.

    Each has its own norm, made by `norm()`, joined to the stream by `residual`: `pre_norm` or `post_norm`.
    Dropout acts on what a sublayer adds, never on the stream. Source: Vaswani et al. 2017, figure 1, arXiv 1706.03762.

    >>> import torch
    >>> block = Block(Attention(6, 2), nn.Linear(6, 6), lambda: nn.LayerNorm(6))
    >>> block(torch.zeros(4, 5, 6)).shape
    torch.Size([4, 5, 6])
    """

    def __init__(
        self,
        attention: Attention,
        feedforward: nn.Module,
        norm: Callable[[], nn.Module],
        *,
        cross: Attention | None = None,
        residual: Residual = pre_norm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm(), attention
        self.cross_norm, self.cross = norm() if cross is not None else None, cross
        self.feedforward_norm, self.feedforward = norm(), feedforward
        self.residual, self.dropout = residual, dropout

    def forward(
        self,
        x: Tensor,
        memory: Tensor | KeysValues | None = None,
        *,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """x (B, T, D) and, for cross-attention, memory (B, S, D) -> (B, T, D); masks hide places of x and of memory.

        The memory may also be what `cross.keys_values(memory)` has made of it once, for all steps of a generation.
        Raises ValueError for a memory without cross-attention, and for cross-attention without a memory.
        """
        x = self.residual(
            x, self.attention_norm, lambda h: self.drop(self.attention(h, mask=mask, rotation=rotation, cache=cache))
        )
        if self.cross is not None and self.cross_norm is not None and memory is not None:
            cross = self.cross
            x = self.residual(x, self.cross_norm, lambda h: self.drop(cross(h, memory, mask=memory_mask)))
        elif self.cross is not None:
            raise ValueError("this block has cross-attention: it needs a memory")
        elif memory is not None or memory_mask is not None:
            raise ValueError("this block has no cross-attention to read a memory: build it with cross=Attention(...)")
        return self.residual(x, self.feedforward_norm, lambda h: self.drop(self.feedforward(h)))

    def drop(self, y: Tensor) -> Tensor:
        """What a sublayer adds, with dropout while training."""
        return F.dropout(y, self.dropout, self.training)
