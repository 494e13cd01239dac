"""Block: x (B, T, D) -> (B, T, D): positions look at each other, then each one thinks, and both add to the stream.

`pre_norm` and `post_norm` say where the norm stands, and `gradient_norms` measures what comes of it; `Block` joins
attention, cross-attention if any, and feed-forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.nn.attention import Attention
from tinytrans.nn.norms import layer_norm

if TYPE_CHECKING:
    from tinytrans.nn.attention import KeysValues
    from tinytrans.nn.cache import LayerCache
    from tinytrans.nn.positions import Rotation

Sublayer: TypeAlias = Callable[[Tensor], Tensor]
"""(B, T, D) -> (B, T, D): attention, a feed-forward layer, or a norm."""
Residual: TypeAlias = Callable[[Tensor, Sublayer, Sublayer], Tensor]
"""(stream, norm, sublayer) -> the stream behind the sublayer, as `pre_norm` and `post_norm`."""


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


def dropout(x: Tensor, noise: Tensor, p: float, training: bool = True) -> Tensor:
    """Each number is set to 0 with probability p, those that stay are divided by 1 - p: the mean stays.

    noise holds independent uniform numbers in [0, 1), of the shape of x: a number stays where its noise
    is at least p. Outside of training nothing happens. 0 <= p < 1.
    Source: Srivastava et al. 2014, JMLR 15, section 10 (the scaling).

    >>> import torch
    >>> dropout(torch.ones(4), torch.tensor([0.1, 0.3, 0.6, 0.9]), p=0.5)
    tensor([0., 0., 2., 2.])
    """
    return x * (noise >= p) / (1 - p) if training else x


def post_norm_layer(
    x: Tensor, w_up: Tensor, w_down: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """The sum is normed: layer_norm(x + f(x)), where f(h) = relu(h W_up) W_down.

    x (..., D), w_up (D, F), w_down (F, D), gain and shift of the norm (D,) -> (..., D).
    Source: Vaswani et al. 2017, section 3.1, arXiv 1706.03762.

    >>> import torch
    >>> w_up, w_down = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0, 0.0]])  # x + f(x) = [7, 3]
    >>> post_norm_layer(torch.tensor([1.0, 3.0]), w_up, w_down).round(decimals=3)
    tensor([ 1., -1.])
    """
    return layer_norm(x + F.relu(x @ w_up) @ w_down, gain, shift)


def pre_norm_layer(
    x: Tensor, w_up: Tensor, w_down: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """What f reads is normed: x + f(layer_norm(x)), where f(h) = relu(h W_up) W_down.

    x (..., D), w_up (D, F), w_down (F, D), gain and shift of the norm (D,) -> (..., D).
    Source: Xiong et al. 2020, arXiv 2002.04745.

    >>> import torch
    >>> w_up, w_down = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0, 0.0]])  # layer_norm(x) = [-1, 1]
    >>> pre_norm_layer(torch.tensor([1.0, 3.0]), w_up, w_down).round(decimals=3)
    tensor([3., 3.])
    """
    return x + F.relu(layer_norm(x, gain, shift) @ w_up) @ w_down


def deep_stack(x: Tensor, w_up: Tensor, w_down: Tensor, place: str = "pre") -> Tensor:
    """L layers one behind the other, their norms without gain and shift: x (..., D) -> (..., D).

    w_up is (L, D, F), w_down (L, F, D). With place "pre" the norm stands before each layer's f, and
    once more behind the last layer, for nothing else would norm the sum; with "post" it stands behind
    each addition, and the last layer's is the last.

    >>> import torch
    >>> x, w_up, w_down = torch.tensor([1.0, 3.0]), torch.ones(4, 2, 5), torch.zeros(4, 5, 2)
    >>> deep_stack(x, w_up, w_down).round(decimals=3)
    tensor([-1.,  1.])
    """
    for up, down in zip(w_up, w_down, strict=True):
        x = pre_norm_layer(x, up, down) if place == "pre" else post_norm_layer(x, up, down)
    return layer_norm(x) if place == "pre" else x


def gradient_norms(
    x: Tensor, w_up: Tensor, w_down: Tensor, head: Tensor, targets: Tensor, place: str = "pre"
) -> Tensor:
    """How strongly the loss pulls at each layer: the norm of its gradient by w_down[l], shape (L,).

    The loss is the mean cross-entropy of deep_stack(x, ...) @ head, with x (N, D), head (D, V), targets
    (N,). The norm is the root of the sum of the squares of all F * D numbers.
    Source: Xiong et al. 2020, figure 3, arXiv 2002.04745.

    >>> import torch
    >>> x, w_up = torch.tensor([[1.0, 3.0, 3.0, 9.0]]), torch.tensor([[[0.0], [0.0], [0.0], [3.0]]])
    >>> head = torch.tensor([[3.0, 0.0], [1.0, 0.0], [-5.0, 0.0], [1.0, 0.0]])
    >>> gradient_norms(x, w_up, torch.zeros(1, 1, 4), head, torch.tensor([0])).round(decimals=3)
    tensor([5.])
    """
    w_down = w_down.detach().requires_grad_()
    loss = F.cross_entropy(deep_stack(x, w_up, w_down, place) @ head, targets)
    (gradient,) = torch.autograd.grad(loss, w_down)  # (L, F, D)
    return gradient.flatten(1).norm(dim=1)


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
        return F.dropout(y, self.dropout) if self.training and self.dropout else y
