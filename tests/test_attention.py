"""Laws of attention. Oracles: a loop in plain Python, torch's MultiheadAttention; the readable form for the fused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.nn import masks
from tinytrans.nn.attention import (
    Attention,
    attend,
    attend_one,
    attention_bytes,
    attention_flops,
    attention_scores,
    attention_weights,
    cross_attend,
    fused_attend,
    masked_softmax,
    self_attend,
)
from tinytrans.nn.norms import layer_norm
from tinytrans.nn.positions import alibi, rotate, rotation_at

B, H, G, T, S, K, D_V = 3, 6, 2, 5, 7, 4, 8
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
    ),
]


def by_hand(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """One head's attention with nothing but numbers: q (T, K), k (S, K), v (S, d_v), mask (T, S)."""
    out = torch.zeros(len(q), v.shape[1], dtype=q.dtype)
    for t in range(len(q)):
        scores = {s: math.fsum((q[t] * k[s]).tolist()) / math.sqrt(q.shape[1]) for s in range(len(k)) if mask[t, s]}
        total = math.fsum(math.exp(score) for score in scores.values())
        for s, score in scores.items():
            out[t] += math.exp(score) / total * v[s]
    return out


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    """Random normal numbers, the same for the same seed on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(device)


def qkv(heads: int = H, kv_heads: int = H, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of pairwise different sizes, that want gradients."""
    shapes = (B, heads, T, K), (B, kv_heads, S, K), (B, kv_heads, S, D_V)
    q, k, v = (draw(*shape, seed=i, device=device).requires_grad_() for i, shape in enumerate(shapes))
    return q, k, v


def some_mask() -> Tensor:
    """A mask (T, S) with whole rows, single places and one empty row."""
    mask = masks.causal(T, S) & (torch.arange(S) % 3 != 1)
    mask[2] = False
    return mask


def test_attend_by_hand() -> None:
    """Attention is the mean of the values weighted by exp(q . k / sqrt(K)), over the places that the mask allows."""
    q, k, v = (x[0, 0].detach() for x in qkv())
    torch.testing.assert_close(attend(q, k, v, some_mask()), by_hand(q, k, v, some_mask()))
    torch.testing.assert_close(attend(q, k, v), by_hand(q, k, v, torch.ones(T, S, dtype=torch.bool)))
    torch.testing.assert_close(attend_one(q[0], k, v), attend(q[:1], k, v)[0])


def test_scores_of_random_vectors_have_variance_one() -> None:
    """Dividing by sqrt(K) keeps the scores at variance 1, whatever K is."""
    for width in (4, 64, 1024):
        scores = attention_scores(draw(300, width, seed=1), draw(200, width, seed=2))
        assert scores.var().item() == pytest.approx(1.0, rel=0.05)


def test_weights_are_a_distribution_over_the_visible_keys() -> None:
    """Each row of weights is >= 0, 0 where hidden, and sums to 1, or to 0 where nothing is visible."""
    mask = some_mask()
    weights = attention_weights(draw(T, K), draw(S, K, seed=1), mask)
    assert (weights[~mask] == 0).all()
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), mask.any(-1).double())


def test_softmax_forgets_a_shift_and_survives_large_scores() -> None:
    """Adding a number to all scores changes nothing, not even a number that exp cannot take."""
    scores = draw(T, S)
    torch.testing.assert_close(masked_softmax(scores + 1e4), masked_softmax(scores), atol=1e-9, rtol=0)
    half = torch.tensor([[60000.0, 0.0, -60000.0]], dtype=torch.float16)
    assert masked_softmax(half, torch.tensor([[False, True, True]])).tolist() == [[0.0, 1.0, 0.0]]


def test_a_hidden_value_changes_nothing() -> None:
    """What a mask hides has no influence: change it wildly, and the output stays."""
    q, k, v = (x.detach() for x in qkv())
    mask = masks.padding(torch.tensor([4, S, 1]), S).unsqueeze(1)
    k2, v2 = (x.masked_fill(~mask.transpose(-1, -2), 1e3) for x in (k, v))
    assert torch.equal(attend(q, k, v, mask), attend(q, k2, v2, mask))


def test_order_of_keys_does_not_matter() -> None:
    """Attention reads a set: keys and values reordered together give the same output."""
    q, k, v = (x.detach() for x in qkv())
    order = torch.randperm(S, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(attend(q, k[..., order, :], v[..., order, :]), attend(q, k, v))


def test_self_and_cross_attention_project_first() -> None:
    """Self-attention is attention of three projections of x; with x as its own memory cross-attention is the same."""
    x, memory = draw(B, T, 6), draw(B, S, 10, seed=1)
    w_q, w_k, w_v = draw(6, K, seed=2), draw(6, K, seed=3), draw(6, D_V, seed=4)
    torch.testing.assert_close(self_attend(x, w_q, w_k, w_v), attend(x @ w_q, x @ w_k, x @ w_v))
    torch.testing.assert_close(cross_attend(x, x, w_q, w_k, w_v), self_attend(x, w_q, w_k, w_v))
    w_k, w_v = draw(10, K, seed=5), draw(10, D_V, seed=6)
    torch.testing.assert_close(cross_attend(x, memory, w_q, w_k, w_v), attend(x @ w_q, memory @ w_k, memory @ w_v))


def test_costs_are_counted_by_the_products() -> None:
    """The operations are those that torch counts for two matrix products, the bytes those of the weights."""
    from torch.utils.flop_counter import FlopCounterMode

    q, k, v = (x.detach()[0, 0] for x in qkv())
    with FlopCounterMode(display=False) as counter:
        weights = attention_weights(q, k)
        weights @ v
    assert attention_flops(T, S, K, D_V) == counter.get_total_flops()
    assert attention_bytes(1, 1, T, S, itemsize=8) == weights.nbytes


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kv_heads", [H, G, 1])
@pytest.mark.parametrize("mask", ["none", "causal", "window", "padding", "empty row", "causal & padding"])
def test_fused_is_readable(mask: str, kv_heads: int, device: str) -> None:
    """The fused kernel gives the values and the gradients of the readable form, for every mask and grouping."""
    q, k, v = qkv(kv_heads=kv_heads, device=device)
    padding = masks.padding(torch.tensor([4, 0, S]), S).unsqueeze(1)
    given, causal = {
        "none": (None, False),
        "causal": (None, True),
        "window": (masks.window(T, 3, S), False),
        "padding": (padding, False),
        "empty row": (some_mask(), False),
        "causal & padding": (padding, True),
    }[mask]
    full = masks.causal(T, S) if causal and given is None else given & masks.causal(T, S) if causal else given
    given, full = (m if m is None else m.to(device) for m in (given, full))
    wide_k, wide_v = (x.repeat_interleave(H // kv_heads, dim=1) for x in (k, v))
    expected = attend(q, wide_k, wide_v, full)
    got = fused_attend(q, k, v, given, causal=causal)
    torch.testing.assert_close(got, expected)
    up = draw(*expected.shape, seed=9, device=device)
    mine, theirs = (torch.autograd.grad(y, (q, k, v), up) for y in (got, expected))
    torch.testing.assert_close(mine, theirs)


def test_gradients_of_an_empty_row_are_zero() -> None:
    """A query that may look nowhere gets zeros and sends no gradient, never NaN."""
    q, k, v = qkv()
    for form in (attend, fused_attend):
        out = form(q, k, v, torch.zeros(T, S, dtype=torch.bool))
        assert (out == 0).all()
        assert all((grad == 0).all() for grad in torch.autograd.grad(out.sum(), (q, k, v)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("hidden", [False, True])
def test_module_is_torch_multihead_attention(bias: bool, hidden: bool) -> None:
    """With the same weights our module computes what torch's MultiheadAttention does, alone and across a memory."""
    D = 12
    theirs = nn.MultiheadAttention(D, 3, bias=bias, batch_first=True, dtype=torch.float64)
    ours = Attention(D, 3, bias=bias).double()
    ours.qkv.weight = theirs.in_proj_weight
    ours.out.weight = theirs.out_proj.weight
    if bias:
        nn.init.normal_(theirs.in_proj_bias)
        nn.init.normal_(theirs.out_proj.bias)
        ours.qkv.bias, ours.out.bias = theirs.in_proj_bias, theirs.out_proj.bias
    x, memory = draw(B, T, D), draw(B, S, D, seed=1)
    mask = masks.padding(torch.tensor([2, 6, S]), S) if hidden else None
    drop = None if mask is None else ~mask[:, 0]
    expected = theirs(x, memory, memory, key_padding_mask=drop, need_weights=False)[0]
    torch.testing.assert_close(ours(x, memory, mask=mask), expected)
    expected = theirs(x, x, x, attn_mask=~masks.causal(T), need_weights=False)[0]
    torch.testing.assert_close(ours(x, mask=masks.causal(T)), expected)


@pytest.mark.parametrize("kwargs", [{}, {"n_kv_heads": 2}, {"qk_norm": True}, {"window": 3}, {"bias": True}])
def test_module_is_heads_side_by_side(kwargs: dict[str, int]) -> None:
    """The module is the readable attention, head by head, on slices of one projection; groups of heads share keys."""
    D, heads = 24, 6
    kv_heads = kwargs.get("n_kv_heads", heads)
    module = Attention(D, heads, causal=True, **kwargs).double()
    x, rotation = draw(B, T, D), rotation_at(torch.arange(T), D // heads, dtype=torch.float64)
    out = torch.zeros(B, T, D, dtype=torch.float64)
    q, k, v = module.qkv(x).split((D, kv_heads * K, kv_heads * K), dim=-1)
    mask = masks.window(T, kwargs.get("window", T))
    for head in range(heads):
        shared = head // (heads // kv_heads)
        mine = [q[..., head * K : (head + 1) * K], *(y[..., shared * K : (shared + 1) * K] for y in (k, v))]
        normed = [layer_norm(y) if module.qk_norm else y for y in mine[:2]]
        out[..., head * K : (head + 1) * K] = attend(*(rotate(y, rotation) for y in normed), mine[2], mask)
    torch.testing.assert_close(module(x, rotation=rotation), module.out(out))


def test_causality() -> None:
    """Change the future, and the past stays."""
    module = Attention(12, 3, causal=True).double()
    x = draw(B, T, 12)
    changed = x.clone()
    changed[:, 3:] = draw(B, T - 3, 12, seed=1)
    before, after = module(x), module(changed)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert (after[:, 3:] != before[:, 3:]).all()


def test_a_window_forgets() -> None:
    """A position is seen exactly when it is near, and a sequence shorter than the window is still causal."""
    module = Attention(12, 3, window=3).double()
    x = draw(B, T, 12)
    changed = x.clone()
    changed[:, 0] += 1
    moved = (module(x) != module(changed)).any(dim=-1).any(dim=0)
    assert moved.tolist() == [True, True, True, False, False]
    for short in (2, 3, 4):
        torch.testing.assert_close(module(x[:, :short]), module(x)[:, :short])


def test_without_a_mask_attention_does_not_know_the_order() -> None:
    """Reorder the tokens, and the outputs are reordered alike."""
    module = Attention(12, 3).double()
    x, order = draw(B, T, 12), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])


def test_batch_rows_are_alone() -> None:
    """A row's output is the same in a batch of one."""
    module = Attention(12, 3, causal=True).double()
    x = draw(B, T, 12)
    torch.testing.assert_close(module(x[1:2]), module(x)[1:2])


def test_dropout_acts_while_training_only() -> None:
    """In eval mode dropout changes nothing; in training mode it does."""
    module = Attention(12, 3, dropout=0.5).double()
    x = draw(B, T, 12)
    assert not torch.equal(module.train()(x), module(x))
    assert torch.equal(module.eval()(x), module(x))


def test_parameters_are_counted() -> None:
    """Grouped heads save parameters: D (H + 2 G) K for the projections and D^2 for the output."""
    module = Attention(24, 6, n_kv_heads=2)
    assert sum(p.numel() for p in module.parameters()) == 24 * (6 + 2 * 2) * 4 + 24 * 24


def test_gradients_reach_every_weight() -> None:
    """Every weight of the module gets a gradient."""
    module = Attention(12, 3, bias=True, causal=True).double()
    module(draw(B, T, 12)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_a_mask_of_numbers_is_refused() -> None:
    """Ones and zeros would be added to the scores and hide nothing: ValueError names their dtype."""
    x = draw(2, 3, 6)
    for numbers in (torch.ones(3, 3), torch.ones(3, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match=f"the mask is of dtype {numbers.dtype}, not of torch.bool"):
            Attention(6, 2).double()(x, mask=numbers)


def test_sizes_must_divide() -> None:
    """Heads that do not share the width evenly are refused, and both numbers are named."""
    with pytest.raises(ValueError, match=r"d_model 10 .* n_heads 4"):
        Attention(10, 4)
    with pytest.raises(ValueError, match=r"n_heads 6 .* n_kv_heads 4"):
        Attention(12, 6, n_kv_heads=4)


def test_strided_inputs_are_read_right() -> None:
    """Non-contiguous tensors give what their copies give."""
    q, k, v = (x.detach().transpose(-1, -2).contiguous().transpose(-1, -2) for x in qkv())
    assert not q.is_contiguous()
    torch.testing.assert_close(fused_attend(q, k, v), attend(q, k, v))
    torch.testing.assert_close(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_a_bias_is_added_to_the_scores(causal: bool, masked: bool) -> None:
    """The fused kernel with a bias is softmax(scores + bias) V, hidden places hidden, empty rows zero."""
    q, k, v = qkv()
    bias = draw(H, T, S, seed=7)
    mask = draw(B, 1, T, S, seed=8) > -0.5 if masked else torch.ones(B, 1, T, S, dtype=torch.bool)
    mask[:, :, 2] &= not masked  # an empty row
    seen = mask & masks.causal(T, S) if causal else mask
    expected = masked_softmax(attention_scores(q, k) + bias, seen) @ v
    out = fused_attend(q, k, v, mask if masked else None, causal=causal, bias=bias)
    torch.testing.assert_close(out, expected)


def test_alibi_in_attention() -> None:
    """Attention built with ALiBi adds it for its own number of heads; a cache changes nothing, far keys fade."""
    torch.manual_seed(0)
    attention = Attention(H * K, H, n_kv_heads=G, causal=True, score_bias=alibi).double()
    x = draw(B, S, H * K)
    q, k, v = attention.heads(x, None, None)
    k, v = (y.repeat_interleave(H // G, dim=1) for y in (k, v))
    mixed = masked_softmax(attention_scores(q, k) + alibi(H, S), masks.causal(S)) @ v
    torch.testing.assert_close(attention(x), attention.out(mixed.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("sizes", [{"n_heads": 0}, {"n_heads": 2, "d_head": 0}, {"n_heads": 2, "n_kv_heads": 0}])
def test_nothing_has_no_heads(sizes: dict[str, int]) -> None:
    """Sizes of 0 are refused by name."""
    with pytest.raises(ValueError, match=r"n_heads \d, .* counts from 1"):
        Attention(6, **sizes)


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_sees_something(window: int) -> None:
    """A window of less than the query itself is refused."""
    with pytest.raises(ValueError, match=f"window {window} counts from 1"):
        Attention(6, 2, window=window)


@pytest.mark.parametrize("heads", [2, 4])
def test_heads_of_their_own_width(heads: int) -> None:
    """With d_head given the width need not divide; each head has that many numbers, in cross-attention too."""
    layer = Attention(7, heads, n_kv_heads=2, d_head=6).double()
    assert layer.qkv.weight.shape == ((heads + 4) * 6, 7)
    assert layer.out.weight.shape == (7, heads * 6)
    x, memory = draw(B, T, 7), draw(B, S, 7)
    for source, given in ((x, None), (memory, memory)):
        q, k, v = layer.heads(x, given, None)
        k, v = (part.repeat_interleave(heads // 2, dim=1) for part in (k, v))
        found = (q @ k.mT / math.sqrt(6)).softmax(dim=-1) @ v  # (B, H, T, 6)
        assert k.shape[2] == source.shape[1]
        torch.testing.assert_close(layer(x, given), layer.out(found.transpose(1, 2).flatten(2)))
