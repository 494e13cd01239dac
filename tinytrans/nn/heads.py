"""Heads: queries (B, T, D), keys and values (B, S, ...), four matrices -> (B, T, D), attended in H heads side by side.

The readable form, one function a step; `tinytrans.nn.attention.Attention` is the layer with weights of its own, one
matrix for all three projections and a fused kernel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def split_heads(x: Tensor, H: int) -> Tensor:
    """The width of every token, cut into H heads side by side: (B, T, D) -> (B, H, T, K), K = D / H.

    Head h gets the numbers h K to (h + 1) K - 1 of each token. Raises ValueError where H does not
    divide D.

    >>> split_heads(torch.arange(8).view(1, 2, 4), H=2).tolist()
    [[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]]
    """
    B, T, D = x.shape
    if D % H:
        raise ValueError(f"a width of {D} cannot be cut into {H} heads of equal width")
    return x.reshape(B, T, H, D // H).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """What the heads found, concatenated for each token again: (B, H, T, K) -> (B, T, H K).

    It undoes `split_heads`.

    >>> merge_heads(torch.tensor([[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]])).tolist()
    [[[0, 1, 2, 3], [4, 5, 6, 7]]]
    """
    return x.transpose(1, 2).flatten(2)


def head_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each head's attention matrix softmax(Q_h K_h^T / sqrt(K)).

    q (B, H, T, K), k (B, H, S, K) -> (B, H, T, S). The mask is bool, True = may look, the same for all
    heads: (T, S), or one for each row of the batch, (B, T, S) or (B, 1, S). A query that may look
    nowhere gets zeros. Source: Vaswani et al. 2017, section 3.2.2, arXiv 1706.03762.

    >>> q, k, mask = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 3, 4), torch.tensor([[True, True, False]])
    >>> head_weights(q, k, mask)
    tensor([[[[0.5000, 0.5000, 0.0000]]]])
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        mask = mask if mask.dim() == 2 else mask.unsqueeze(1)  # (B, 1, T, S): the same for every head
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, dim=-1).nan_to_num(0.0)  # NaN: a row of which all is hidden


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    w_o: Tensor,
    H: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention in H heads side by side, and W_O, in which their findings meet.

    [head_1 | ... | head_H] W_O with head_h = attention(query W_Q^h, key W_K^h, value W_V^h);
    query (B, T, D), key (B, S, D_k), value (B, S, D_v), w_q (D, D), w_k (D_k, D), w_v (D_v, D),
    w_o (D, D) -> (B, T, D). W_Q^h is the h-th block of D / H columns of w_q, and so for keys and
    values. x three times is self-attention. The mask is that of `head_weights`.
    Source: Vaswani et al. 2017, section 3.2.2, arXiv 1706.03762.

    >>> x, one = torch.tensor([[[0.0, 1.0], [4.0, 3.0]]]), torch.eye(2)
    >>> multi_head_attention(x, x, x, 0 * one, one, one, one, H=2)
    tensor([[[2., 2.],
             [2., 2.]]])
    """
    q, k, v = split_heads(query @ w_q, H), split_heads(key @ w_k, H), split_heads(value @ w_v, H)
    return merge_heads(head_weights(q, k, mask) @ v) @ w_o


def attention_parameters(D: int, H: int, G: int | None = None, bias: bool = False) -> int:
    """How many numbers W_Q, W_K, W_V and W_O hold together, with a bias each if asked.

    4 D^2, or 4 D^2 + 4 D. With G key/value heads instead of H, W_K and W_V make G K numbers of a token
    instead of H K = D.

    >>> attention_parameters(D=512, H=8), attention_parameters(D=512, H=8, G=2)
    (1048576, 655360)
    """
    K = D // H
    of_keys = (H if G is None else G) * K  # numbers that W_K makes of a token, and W_V as well
    outputs = D + of_keys + of_keys + D
    return D * outputs + (outputs if bias else 0)


def repeat_kv(x: Tensor, H: int) -> Tensor:
    """G heads of keys or values, handed out to H query heads: (B, G, S, K) -> (B, H, S, K).

    Query heads 0 to H / G - 1 share head 0, the next H / G share head 1, and so on. Raises ValueError
    where G does not divide H. Source: Ainslie et al. 2023, arXiv 2305.13245.

    >>> repeat_kv(torch.tensor([[[[1]], [[2]]]]), H=4).flatten().tolist()
    [1, 1, 2, 2]
    """
    G = x.shape[1]
    if H % G:
        raise ValueError(f"{H} query heads cannot share {G} heads of keys and values evenly")
    return x.repeat_interleave(H // G, dim=1)


def grouped_attention(
    x: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    w_o: Tensor,
    H: int,
    G: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Self-attention whose H heads of queries share G heads of keys and values.

    G = H is multi-head attention, G = 1 multi-query. x (B, T, D), w_q (D, D), w_k and w_v (D, G K),
    w_o (D, D), K = D / H -> (B, T, D). The mask is that of `head_weights`.
    Sources: Shazeer 2019 (G = 1), arXiv 1911.02150; Ainslie et al. 2023, arXiv 2305.13245.

    >>> x, one = torch.tensor([[[0.0, 1.0], [4.0, 3.0]]]), torch.eye(2)
    >>> grouped_attention(x, 0 * one, torch.ones(2, 1), one[:, :1], one, H=2, G=1)
    tensor([[[2., 2.],
             [2., 2.]]])
    """
    q = split_heads(x @ w_q, H)
    k, v = repeat_kv(split_heads(x @ w_k, G), H), repeat_kv(split_heads(x @ w_v, G), H)
    return merge_heads(head_weights(q, k, mask) @ v) @ w_o
