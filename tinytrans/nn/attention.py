"""Attention: queries (T, K), keys (S, K), values (S, d_v) -> for each query a mean of the values, by fit.

The readable functions come first, as the paper writes them; `fused_attend` gives the same numbers from one kernel;
`Attention` owns the weights, splits the width into heads and calls it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.nn import masks
from tinytrans.nn.heads import merge_heads, split_heads
from tinytrans.nn.positions import rotate

if TYPE_CHECKING:
    from tinytrans.nn.cache import LayerCache
    from tinytrans.nn.positions import Rotation

KeysValues: TypeAlias = tuple[Tensor, Tensor]
"""A memory's keys and values, both (B, G, S, K)."""
ScoreBias: TypeAlias = Callable[..., Tensor]
"""(H, T, S, *, device) -> what is added to the scores, (H, T, S), as `positions.alibi` does."""


def attend_one(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query asks, every key answers, and the values are mixed by how well each key answered.

    output = sum_s softmax_s(query . key_s / sqrt(K)) value_s

    query (K,), keys (S, K), values (S, d_v) -> (d_v,).
    A query that fits no key better than another gets the plain mean of the values.
    Source: Vaswani et al. 2017, section 3.2.1, arXiv 1706.03762.

    >>> attend_one(torch.zeros(2), torch.eye(2), torch.tensor([[1.0], [3.0]]))
    tensor([2.])
    """
    scores = keys @ query / math.sqrt(query.shape[0])
    weights = scores.softmax(dim=0)
    return weights @ values


def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    """How well each query fits each key: Q K^T / sqrt(K).

    q (..., T, K), k (..., S, K) -> (..., T, S). Divided by sqrt(K) so that the scores of random vectors
    have variance 1 at every head width K.
    Source: Vaswani et al. 2017, section 3.2.1, arXiv 1706.03762.

    >>> attention_scores(torch.tensor([[1.0, 1, 1, 1]]), torch.tensor([[2.0, 2, 2, 2]]))
    tensor([[4.]])
    """
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def masked_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scores (..., T, S) -> weights (..., T, S): positive where a row may look, else 0; rows sum to 1.

    The mask is bool and broadcasts to the scores, True = may look. A row that may look nowhere gets
    zeros, not NaN.

    >>> masked_softmax(torch.tensor([[5.0, 5.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))  # -inf, not -1e9: half precision overflows
    largest = scores.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)  # finite in an empty row too
    weights = (scores - largest.detach()).exp()
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)  # the sum is >= exp(0) = 1, unless the row is empty


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """The attention matrix softmax(Q K^T / sqrt(K)).

    q (..., T, K), k (..., S, K) -> (..., T, S); rows sum to 1. The mask is bool, True = may look.

    >>> attention_weights(torch.zeros(1, 4), torch.zeros(2, 4))
    tensor([[0.5000, 0.5000]])
    """
    return masked_softmax(attention_scores(q, k), mask)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention: softmax(Q K^T / sqrt(K)) V.

    q (..., T, K), k (..., S, K), v (..., S, d_v) -> (..., T, d_v).
    The mask is bool and broadcasts to (..., T, S), True = may look.
    A query that may look nowhere gets zeros. Source: Vaswani et al. 2017, equation 1, arXiv 1706.03762.

    >>> attend(torch.zeros(1, 4), torch.zeros(2, 4), torch.tensor([[1.0], [3.0]]))
    tensor([[2.]])
    """
    return attention_weights(q, k, mask) @ v


def self_attend(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, mask: Tensor | None = None) -> Tensor:
    """A sequence looks at itself: queries, keys and values are three learned views of the same x.

    Q = x W_q, K = x W_k, V = x W_v: x (..., T, D), w_q and w_k (D, K), w_v (D, d_v) -> (..., T, d_v).

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> self_attend(x, torch.zeros(2, 3), torch.zeros(2, 3), torch.eye(2))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    return attend(x @ w_q, x @ w_k, x @ w_v, mask)


def cross_attend(
    x: Tensor, memory: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, mask: Tensor | None = None
) -> Tensor:
    """One sequence looks at another: x asks, memory answers.

    Q = x W_q, K = memory W_k, V = memory W_v: x (..., T, D), memory (..., S, D_m),
    w_q (D, K), w_k (D_m, K), w_v (D_m, d_v) -> (..., T, d_v).
    The mask hides places of the memory, (..., T, S) or (..., 1, S), True = may look.

    >>> cross_attend(torch.ones(1, 2), torch.eye(2), torch.zeros(2, 3), torch.zeros(2, 3), torch.eye(2))
    tensor([[0.5000, 0.5000]])
    """
    return attend(x @ w_q, memory @ w_k, memory @ w_v, mask)


def attention_flops(T: int, S: int, K: int, d_v: int) -> int:
    """How many operations one head's two matrix products take, Q K^T and weights V, without the softmax.

    A product of (a, b) and (b, c) takes 2 a b c operations: b multiplications and b additions for each
    of a c numbers.

    >>> attention_flops(T=10, S=10, K=4, d_v=4)
    1600
    """
    return 2 * T * S * K + 2 * T * S * d_v


def attention_bytes(B: int, H: int, T: int, S: int, itemsize: int = 4) -> int:
    """Bytes of one layer's attention matrices: B H of T x S numbers of itemsize bytes (4 in float32).

    >>> attention_bytes(B=1, H=12, T=1024, S=1024)
    50331648
    """
    return B * H * T * S * itemsize


def fused_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`attend` from one kernel (torch's scaled_dot_product_attention): the same numbers, sooner, in less memory.

    q (B, H, T, K), k and v (B, G, S, ...) with H a multiple of G -> (B, H, T, d_v). `causal=True` is the mask
    `causal(T, S)` without building it where the kernel can do so; `mask` is bool and broadcasts to (B, H, T, S);
    `bias` (H, T, S) is added to the scores. Raises ValueError for a mask that is not bool, which would be added, too.
    Source: Dao et al. 2022 (FlashAttention), arXiv 2205.14135.
    """
    if mask is not None and mask.dtype != torch.bool:  # which the kernel would add to the scores
        raise ValueError(f"the mask is of dtype {mask.dtype}, not of torch.bool: True = may look")
    T, S = q.shape[-2], k.shape[-2]
    if causal and (
        mask is not None or (bias is not None and T > 1) or 1 < T < S
    ):  # the kernels' own causal mask is aligned to the first key, not the last
        hidden = masks.causal(T, S, device=q.device)
        mask = hidden if mask is None else mask & hidden
    grouped = q.shape[-3] != k.shape[-3]
    if bias is not None:
        bias = bias.to(q.dtype)
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    if causal and mask is None and T > 1:  # asked by an if: of a traced T it is a symbol, which the kernel won't take
        return F.scaled_dot_product_attention(q, k, v, None, dropout, is_causal=True, enable_gqa=grouped)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, enable_gqa=grouped)


class Attention(nn.Module):
    """Multi-head attention with its weights: x (B, T, D) -> (B, T, D).

    W_Q makes of each token H heads of width K, D / H unless `d_head` is given; each head attends on its own, and W_O
    mixes what they found. With n_kv_heads = G < H, groups of H / G heads share keys and values (multi-query: G = 1).
    One matrix `qkv` holds W_Q, W_K and W_V; in cross-attention its rows for keys and values read the memory.

    With `causal`, or a window, a token sees no later one. Raises ValueError where the sizes do not divide, or are below
    1. Sources: Vaswani et al. 2017, section 3.2.2, arXiv 1706.03762;
    Ainslie et al. 2023 (grouped heads), arXiv 2305.13245; Dehghani et al. 2023 (norms on queries and keys), arXiv
    2302.05442.

    >>> Attention(d_model=6, n_heads=2)(torch.zeros(4, 5, 6)).shape
    torch.Size([4, 5, 6])
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        bias: bool = False,
        qk_norm: bool = False,
        dropout: float = 0.0,
        causal: bool = False,
        window: int | None = None,
        score_bias: ScoreBias | None = None,
    ) -> None:
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if min(d_model, n_heads, n_kv_heads, 1 if d_head is None else d_head) < 1:
            sizes = f"d_model {d_model}, n_heads {n_heads}, n_kv_heads {n_kv_heads}, d_head {d_head}"
            raise ValueError(f"{sizes}: each that is given counts from 1")
        if d_head is None and d_model % n_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of n_heads {n_heads}")
        if n_heads % n_kv_heads:
            raise ValueError(f"n_heads {n_heads} is not a multiple of n_kv_heads {n_kv_heads}")
        if window is not None and window < 1:
            raise ValueError(f"window {window} counts from 1: a query sees at least itself")
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads
        self.head_width = d_model // n_heads if d_head is None else d_head
        self.qk_norm, self.dropout, self.window, self.score_bias = qk_norm, dropout, window, score_bias
        self.causal = causal or window is not None  # a window looks back only, however short the sequence
        self.qkv = nn.Linear(d_model, (n_heads + 2 * n_kv_heads) * self.head_width, bias=bias)
        self.out = nn.Linear(n_heads * self.head_width, d_model, bias=bias)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | KeysValues | None = None,
        *,
        mask: Tensor | None = None,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """x (B, T, D), memory (B, S, D) or None for self-attention, mask (T, S) or (B, T, S) -> (B, T, D).

        Instead of the memory itself, its `keys_values` will do.
        """
        q, k, v = self.heads(x, memory, rotation)
        if cache is not None:
            k, v = cache.update(k, v)
        if mask is not None and mask.dim() == 3:
            mask = mask.unsqueeze(1)  # (B, 1, T, S): the same for every head
        T, S = q.shape[-2], k.shape[-2]
        if mask is not None and cache is not None:
            mask = mask[..., -S:]  # a rolling cache has forgotten what stood before
        if self.window is not None and self.window < S:
            near = masks.window(T, self.window, S, device=x.device)
            mask = near if mask is None else mask & near
        bias = None if self.score_bias is None else self.score_bias(self.n_heads, T, S, device=x.device)
        dropout = self.dropout if self.training else 0.0
        y = fused_attend(q, k, v, mask, causal=self.causal, bias=bias, dropout=dropout)
        return self.out(merge_heads(y))

    def heads(
        self, x: Tensor, memory: Tensor | KeysValues | None, rotation: Rotation | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, K), keys and values (B, G, S, K), normalised and rotated where asked."""
        H, G, K = self.n_heads, self.n_kv_heads, self.head_width
        if memory is None:
            if self.qk_norm or rotation is not None:
                qk, v = self.qkv(x).split(((H + G) * K, G * K), dim=-1)
                q, k = self.place(split_heads(qk, H + G), rotation).split((H, G), dim=1)  # placed in one pass
                return q, k, split_heads(v, G)
            q, k, v = self.qkv(x).split((H * K, G * K, G * K), dim=-1)
            q, k, v = split_heads(q, H), split_heads(k, G), split_heads(v, G)
            return q, k, v
        bias = None if self.qkv.bias is None else self.qkv.bias[: H * K]
        q = split_heads(F.linear(x, self.qkv.weight[: H * K], bias), H)
        k, v = self.keys_values(memory) if isinstance(memory, Tensor) else memory
        return self.place(q, None), k, v  # no rotation: it counts positions of one sequence, not of two

    def keys_values(self, memory: Tensor) -> KeysValues:
        """What a memory (B, S, D) answers with: its keys and values (B, G, S, K), the same for every query to come."""
        H, G, K = self.n_heads, self.n_kv_heads, self.head_width
        bias = None if self.qkv.bias is None else self.qkv.bias[H * K :]
        k, v = split_heads(F.linear(memory, self.qkv.weight[H * K :], bias), 2 * G).split(G, dim=1)
        return self.place(k, None), v

    def place(self, qk: Tensor, rotation: Rotation | None) -> Tensor:
        """Queries or keys (B, heads, T, K), normalised if so built, and turned to their positions."""
        if self.qk_norm:
            qk = F.layer_norm(qk, (self.head_width,))
        return qk if rotation is None else rotate(qk, rotation)
