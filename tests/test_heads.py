"""Laws of heads. Oracles: torch's MultiheadAttention with the same weights, tinytrans' Attention, a sum over heads."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tinytrans.nn import masks
from tinytrans.nn.attention import Attention, attend
from tinytrans.nn.heads import (
    attention_parameters,
    grouped_attention,
    head_weights,
    merge_heads,
    multi_head_attention,
    repeat_kv,
    split_heads,
)

B, H, G, T, S, K = 2, 4, 2, 5, 7, 3
D = H * K


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Random normal numbers in double precision, the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def four(columns: int = D) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_Q (D, D), W_K and W_V (D, columns), W_O (D, D)."""
    widths = (D, columns, columns, D)
    w_q, w_k, w_v, w_o = (draw(D, width, seed=10 + i) / D**0.5 for i, width in enumerate(widths))
    return w_q, w_k, w_v, w_o


def test_merging_undoes_splitting() -> None:
    """Split and merged, a tensor is what it was."""
    x = draw(B, T, D)
    assert torch.equal(merge_heads(split_heads(x, H)), x)


def test_a_head_is_a_block_of_the_width() -> None:
    """Head h holds columns h K to (h + 1) K of every token."""
    x = draw(B, T, D)
    for h, head in enumerate(split_heads(x, H).unbind(1)):
        assert torch.equal(head, x[..., h * K : (h + 1) * K])


@pytest.mark.parametrize("of", [1, 3, 5])
def test_sizes_that_do_not_divide_are_refused(of: int) -> None:
    """A width that H does not divide, or heads that G does not divide, raise an error that names both."""
    if D % (of + 4):
        with pytest.raises(ValueError, match=rf"{D}.*{of + 4}"):
            split_heads(draw(B, T, D), of + 4)
    with pytest.raises(ValueError, match=rf"{of + 1}.*{of}|{2 * of + 1}.*{of + 1}"):
        repeat_kv(draw(B, of + 1, S, K), 2 * of + 1)


@pytest.mark.parametrize("shape", [(T, S), (B, T, S), (B, 1, S)])
def test_each_head_attends_alone(shape: tuple[int, ...]) -> None:
    """The weights of a head are those of attention on this head alone, under the mask of its row of the batch."""
    q, k, mask = draw(B, H, T, K), draw(B, H, S, K, seed=1), draw(*shape, seed=2) > 0
    for h, weights in enumerate(head_weights(q, k, mask).unbind(1)):
        torch.testing.assert_close(weights, attend(q[:, h], k[:, h], torch.eye(S, dtype=q.dtype), mask))


def test_a_row_of_padding_is_harmless() -> None:
    """Where all is hidden weights are 0, and no gradient is NaN."""
    q, k = draw(B, H, T, K).requires_grad_(), draw(B, H, S, K, seed=1).requires_grad_()
    weights = head_weights(q, k, masks.padding(torch.tensor([S, 0]), S))
    weights.square().sum().backward()
    assert weights[1].eq(0).all()
    assert q.grad.isfinite().all()
    assert k.grad.isfinite().all()


@pytest.mark.parametrize("masked", [False, True])
def test_equals_torchs_layer(masked: bool) -> None:
    """With the weights of nn.MultiheadAttention it gives its outputs and its weights, for three inputs of any width."""
    theirs = nn.MultiheadAttention(D, H, bias=False, kdim=8, vdim=11, batch_first=True, dtype=torch.float64)
    query, key, value = draw(B, T, D), draw(B, S, 8, seed=1), draw(B, S, 11, seed=2)
    mask = draw(T, S, seed=3) > -1 if masked else None
    w_q, w_k, w_v = theirs.q_proj_weight.T, theirs.k_proj_weight.T, theirs.v_proj_weight.T
    y, weights = theirs(query, key, value, attn_mask=None if mask is None else ~mask, average_attn_weights=False)
    ours = multi_head_attention(query, key, value, w_q, w_k, w_v, theirs.out_proj.weight.T, H, mask)
    torch.testing.assert_close(ours, y)
    torch.testing.assert_close(head_weights(split_heads(query @ w_q, H), split_heads(key @ w_k, H), mask), weights)


@pytest.mark.parametrize("n_kv_heads", [H, G, 1])
def test_equals_the_layer_of_tinytrans(n_kv_heads: int) -> None:
    """With the weights of tinytrans' Attention it gives its outputs, for any number of key/value heads."""
    layer = Attention(D, H, n_kv_heads=n_kv_heads, causal=True).double()
    w_q, w_k, w_v = layer.qkv.weight.T.split((D, n_kv_heads * K, n_kv_heads * K), dim=1)
    x = draw(B, T, D)
    ours = grouped_attention(x, w_q, w_k, w_v, layer.out.weight.T, H, n_kv_heads, masks.causal(T))
    torch.testing.assert_close(ours, layer(x))


def test_a_memory_is_looked_at_as_in_tinytrans() -> None:
    """Two inputs, x asking and a memory answering, are the cross-attention of tinytrans' layer."""
    layer, x, memory = Attention(D, H).double(), draw(B, T, D), draw(B, S, D, seed=1)
    matrices = (*layer.qkv.weight.T.split(D, dim=1), layer.out.weight.T)
    torch.testing.assert_close(multi_head_attention(x, memory, memory, *matrices, H), layer(x, memory))


def test_the_layer_is_a_sum_over_heads() -> None:
    """Concatenating and multiplying by W_O is adding up what each head says through its own rows of W_O."""
    x, (w_q, w_k, w_v, w_o) = draw(B, T, D), four()
    blocks = [slice(h * K, (h + 1) * K) for h in range(H)]
    each = [attend(x @ w_q[:, own], x @ w_k[:, own], x @ w_v[:, own]) @ w_o[own] for own in blocks]
    torch.testing.assert_close(multi_head_attention(x, x, x, w_q, w_k, w_v, w_o, H), torch.stack(each).sum(dim=0))


def test_the_order_of_heads_does_not_matter() -> None:
    """Heads may change places, if the columns of W_Q, W_K, W_V and the rows of W_O go with them."""
    x, (w_q, w_k, w_v, w_o) = draw(B, T, D), four()
    order = (torch.tensor([2, 0, 3, 1])[:, None] * K + torch.arange(K)).flatten()
    moved = w_q[:, order], w_k[:, order], w_v[:, order], w_o[order]
    torch.testing.assert_close(multi_head_attention(x, x, x, *moved, H), multi_head_attention(x, x, x, *four(), H))


def test_the_future_does_not_leak() -> None:
    """Under a causal mask changing a token moves no earlier output, not in the last bit."""
    x, matrices = draw(B, T, D), four()
    changed = torch.cat([x[:, :3], -x[:, 3:]], dim=1)
    y, moved = (multi_head_attention(z, z, z, *matrices, H, masks.causal(T)) for z in (x, changed))
    assert torch.equal(y[:, :3], moved[:, :3])
    assert not torch.allclose(y[:, 3:], moved[:, 3:])


def test_groups_lie_between_multi_head_and_multi_query() -> None:
    """With G = H it is multi-head attention; with fewer, multi-head attention with repeated columns."""
    x = draw(B, T, D)
    torch.testing.assert_close(grouped_attention(x, *four(), H, H), multi_head_attention(x, x, x, *four(), H))
    w_q, w_k, w_v, w_o = four(columns=G * K)
    wide = [w.unflatten(1, (G, K)).repeat_interleave(H // G, dim=1).flatten(1) for w in (w_k, w_v)]
    torch.testing.assert_close(
        grouped_attention(x, w_q, w_k, w_v, w_o, H, G), multi_head_attention(x, x, x, w_q, *wide, w_o, H)
    )


def test_a_shared_head_learns_from_all_who_share_it() -> None:
    """The gradient of a key/value head is the sum of those of its copies."""
    x = draw(B, G, S, K).requires_grad_()
    sent = draw(B, H, S, K, seed=1)
    (repeat_kv(x, H) * sent).sum().backward()
    torch.testing.assert_close(x.grad, sent.unflatten(1, (G, -1)).sum(dim=2))


@pytest.mark.parametrize("bias", [False, True])
def test_parameters_are_counted(bias: bool) -> None:
    """The count is that of the layers of torch and of tinytrans, the same for any number of heads."""
    for heads in (1, 2, 3, 4, 6):
        theirs = sum(p.numel() for p in nn.MultiheadAttention(D, heads, bias=bias).parameters())
        assert attention_parameters(D, heads, bias=bias) == theirs == 4 * D * D + 4 * D * bias
    grouped = [attention_parameters(D, 6, groups, bias) for groups in (6, 3, 2, 1)]
    ours = [
        sum(p.numel() for p in Attention(D, 6, n_kv_heads=groups, bias=bias).parameters()) for groups in (6, 3, 2, 1)
    ]
    assert grouped == ours
    assert all(more > fewer for more, fewer in pairwise(grouped))
