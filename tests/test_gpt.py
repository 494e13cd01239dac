"""Laws of the GPT. Oracles: a model written out with the readable functions, known counts, doing without a cache."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import PRESETS, GPTConfig
from tinytrans.models.gpt import GPT
from tinytrans.nn import masks
from tinytrans.nn.attention import attend
from tinytrans.nn.cache import RollingCache
from tinytrans.nn.feedforward import gelu, swiglu
from tinytrans.nn.norms import layer_norm, rms_norm
from tinytrans.nn.positions import rotate, rotation_at, sinusoidal

V, L, D, H, B, T = 31, 2, 12, 3, 2, 9
BASE = GPTConfig(vocab_size=V, n_layers=L, d_model=D, n_heads=H, max_len=20)
VARIANTS: dict[str, dict[str, Any]] = {
    "rope": {},
    "learned": {"positions": "learned", "bias": True, "feedforward": "gelu_tanh"},
    "sinusoidal": {"positions": "sinusoidal", "feedforward": "relu"},
    "no positions": {"positions": "none", "feedforward": "relu2", "tie": False},
    "window": {"window": 3},
    "alibi": {"positions": "alibi"},
    "grouped": {"n_kv_heads": 1, "norm": "rms", "feedforward": "swiglu"},
    "post-norm": {"residual": "post", "bias": True},
    "fast": {"qk_norm": True, "embedding_norm": True, "zero_init": True},
}


def ids(rows: int = B, length: int = T, seed: int = 0) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def model(name: str = "rope", **changes: Any) -> GPT:
    """A model of that variant in float64, its weights random enough that every part counts."""
    torch.manual_seed(0)
    gpt = GPT(replace(BASE, **VARIANTS[name], **changes)).double().eval()
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.4)
    return gpt


def test_gpt2_has_its_number_of_parameters() -> None:
    """The smallest GPT-2 has 124,439,808 parameters, the matrix of embedding and head counted once."""
    with torch.device("meta"):
        assert GPT(PRESETS["gpt2"]).n_params == 124_439_808
        assert GPT(replace(PRESETS["gpt2"], tie=False)).n_params == 124_439_808 + 50257 * 768


def test_parameters_by_hand() -> None:
    """A tied model without biases has V D + L (4 D^2 + 8 D^2 + 2 D) + D parameters; variants by their formulas."""
    assert GPT(BASE).n_params == V * D + L * (4 * D * D + 8 * D * D + 2 * D) + D
    K, width = D // H, 32
    grouped = V * D + L * (2 * D * D + 2 * D * K + 3 * D * width + 2 * D) + D
    assert GPT(replace(BASE, **VARIANTS["grouped"])).n_params == grouped
    assert GPT(replace(BASE, positions="learned")).n_params == GPT(BASE).n_params + 20 * D
    assert GPT(replace(BASE, residual="post")).n_params == GPT(BASE).n_params - D


@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize("d_head", [2, 8, 30])
def test_heads_of_their_own_width_are_counted(heads: int, d_head: int) -> None:
    """With d_head K, H heads and G for keys and values a layer's attention has D K (H + 2 G) + H K D parameters."""
    config = replace(BASE, n_heads=6, n_kv_heads=heads, d_head=d_head)
    attention = D * d_head * (6 + 2 * heads) + 6 * d_head * D
    assert GPT(config).n_params == V * D + L * (attention + 8 * D * D + 2 * D) + D
    biases = L * (d_head * (6 + 2 * heads) + D + 4 * D + D + 2 * D) + D  # of the matrices, then of the norms
    assert GPT(replace(config, bias=True)).n_params == GPT(config).n_params + biases


@pytest.mark.parametrize("name", VARIANTS)
def test_the_first_loss_is_ln_v(name: str) -> None:
    """A new model knows nothing: its loss is near ln V, that of guessing."""
    torch.manual_seed(0)
    gpt = GPT(replace(BASE, **VARIANTS[name], vocab_size=1000, d_model=96))
    x = torch.randint(1000, (8, 21), generator=torch.Generator().manual_seed(1))[:, :20]
    loss = F.cross_entropy(gpt(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(1000), abs=0.08)


def test_llama_written_out() -> None:
    """The model is embedding, L times attention and feed-forward, each added, norm and head: here Llama's way."""
    gpt = model("grouped")
    K, weights = D // H, {name: p.detach() for name, p in gpt.named_parameters()}
    tokens = ids()
    rotation, mask = rotation_at(torch.arange(T), K, dtype=torch.float64), masks.causal(T)
    x = weights["embedding.weight"][tokens]
    for layer in range(L):
        w = {name.removeprefix(f"blocks.{layer}."): p for name, p in weights.items()}
        y = rms_norm(x, w["attention_norm.weight"]) @ w["attention.qkv.weight"].T
        k, v = rotate(y[..., D : D + K], rotation), y[..., D + K :]
        heads = [attend(rotate(y[..., h * K : (h + 1) * K], rotation), k, v, mask) for h in range(H)]
        x = x + torch.cat(heads, dim=-1) @ w["attention.out.weight"].T
        w_gate, w_up = w["feedforward.up.weight"].T.chunk(2, dim=1)
        x = x + swiglu(rms_norm(x, w["feedforward_norm.weight"]), w_gate, w_up, w["feedforward.down.weight"].T)
    logits = rms_norm(x, weights["norm.weight"]) @ weights["embedding.weight"].T
    torch.testing.assert_close(gpt(tokens), logits)


def test_gpt2_written_out() -> None:
    """The same with learned positions, layer norm and biases: GPT-2's way."""
    gpt = model("learned")
    K, weights = D // H, {name: p.detach() for name, p in gpt.named_parameters()}
    tokens, mask = ids(), masks.causal(T)
    x = weights["embedding.weight"][tokens] + weights["position.weight"][:T]
    for layer in range(L):
        w = {name.removeprefix(f"blocks.{layer}."): p for name, p in weights.items()}
        y = layer_norm(x, w["attention_norm.weight"], w["attention_norm.bias"])
        q, k, v = (y @ w["attention.qkv.weight"].T + w["attention.qkv.bias"]).split(D, dim=-1)
        heads = [attend(*(z[..., h * K : (h + 1) * K] for z in (q, k, v)), mask) for h in range(H)]
        x = x + torch.cat(heads, dim=-1) @ w["attention.out.weight"].T + w["attention.out.bias"]
        y = layer_norm(x, w["feedforward_norm.weight"], w["feedforward_norm.bias"])
        y = F.gelu(y @ w["feedforward.up.weight"].T + w["feedforward.up.bias"], approximate="tanh")
        x = x + y @ w["feedforward.down.weight"].T + w["feedforward.down.bias"]
    logits = layer_norm(x, weights["norm.weight"], weights["norm.bias"]) @ weights["embedding.weight"].T
    torch.testing.assert_close(gpt(tokens), logits)


def test_sinusoids_meet_embeddings_of_their_size() -> None:
    """Added to sinusoids, embeddings are first multiplied by sqrt(D)."""
    gpt = model("sinusoidal")
    expected = gpt.embedding.weight[ids()] * math.sqrt(D) + sinusoidal(torch.arange(3, 3 + T), D)
    torch.testing.assert_close(gpt.place(gpt.embedding(ids()), torch.arange(3, 3 + T)), expected)


@pytest.mark.parametrize("changes", [{"rope_base": 50.0}, {"norm_eps": 0.1}, {"window": 3}, {"qk_norm": True}])
def test_what_the_config_says_is_done(changes: dict[str, Any]) -> None:
    """Fields that own no weights change the logits all the same."""
    base, other = model(), model(**changes)
    other.load_state_dict(base.state_dict())
    assert (base(ids()) - other(ids())).abs().max() > 1e-3


def test_dropout_has_three_places() -> None:
    """Dropout acts on the embeddings, on the attention weights and on what each sublayer adds (Radford et al. 2018)."""
    gpt = model(dropout=0.25).train()
    assert {(block.dropout, block.attention.dropout) for block in gpt.blocks} == {(0.25, 0.25)}
    dropped = (gpt.place(gpt.embedding(ids(50, 20)), torch.arange(20)) == 0).double().mean()
    assert dropped.item() == pytest.approx(0.25, abs=0.02)


def test_post_norm_ends_normed() -> None:
    """With post-norm the last block's norm is the last: at birth what the head reads has mean 0 and variance 1."""
    hidden = GPT(replace(BASE, residual="post")).hidden(ids())
    torch.testing.assert_close(hidden.mean(-1), torch.zeros(B, T), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.var(-1, unbiased=False), torch.ones(B, T), atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_causality(name: str) -> None:
    """Change the future, and the past stays; change the past, and the future moves."""
    gpt, before, after = model(name), ids(), ids(seed=1)
    after[:, :5] = before[:, :5]
    moved = (gpt(before) - gpt(after)).abs().amax(dim=(0, 2)) > 1e-9
    assert moved.tolist() == [t >= 5 for t in range(T)]


@pytest.mark.parametrize("name", VARIANTS)
def test_order_matters_exactly_with_positions(name: str) -> None:
    """The last token's logits change when those before are reordered, and without positions they do not.

    Two layers without positions do know the order (the first mask tells it), so here there is one.
    """
    gpt, x = model(name, n_layers=1), ids()
    gap = (gpt(x)[:, -1] - gpt(x[:, [1, 2, 0, 3, 5, 6, 4, 7, 8]])[:, -1]).abs().max()
    if name == "window":
        gap = (gpt(x)[:, -1] - gpt(x[:, [0, 1, 2, 3, 4, 5, 7, 6, 8]])[:, -1]).abs().max()
    assert (gap < 1e-9) == (name == "no positions")


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("chunks", [[T], [1] * T, [4, 1, 3, 1], [2, 7]])
def test_the_cache_changes_nothing(name: str, chunks: list[int]) -> None:
    """Read at once, token by token, or in chunks, the logits are the same; the length advances once a reading."""
    gpt, x = model(name), ids()
    cache = gpt.new_cache(B)
    parts = []
    for chunk in x.split(chunks, dim=1):
        before = cache.length
        parts.append(gpt(chunk, cache=cache))
        assert cache.length == before + chunk.shape[1]
    torch.testing.assert_close(torch.cat(parts, dim=1), gpt(x))


def test_a_rewound_cache_takes_another_path() -> None:
    """After a rewind another continuation gets the logits that it would have had."""
    gpt, x, other = model(), ids(), ids(seed=1)
    cache = gpt.new_cache(B)
    gpt(x, cache=cache)
    cache.rewind(4)
    got = gpt(other[:, 4:], cache=cache)
    torch.testing.assert_close(got, gpt(torch.cat((x[:, :4], other[:, 4:]), dim=1))[:, 4:])


def test_a_mask_hides_more() -> None:
    """Packed documents under a mask of blocks give, with positions that are relative, what each gives alone."""
    gpt, x = model(), ids(1)
    mask = masks.blocks(torch.tensor([[0] * 4 + [1] * 5]))
    apart = torch.cat((gpt(x[:, :4]), gpt(x[:, 4:])), dim=1)
    torch.testing.assert_close(gpt(x, mask=mask), apart, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gpt(x, mask=masks.causal(T)), gpt(x))


def test_masks_and_cache_together() -> None:
    """A mask over all positions so far hides the same places with a cache as without."""
    gpt, x = model(), ids()
    seen = torch.arange(T) != 1
    mask = seen.expand(T, T) | torch.eye(T, dtype=torch.bool)
    cache = gpt.new_cache(B)
    first = gpt(x[:, :5], mask=mask[:5, :5], cache=cache)
    second = gpt(x[:, 5:], mask=mask[5:], cache=cache)
    torch.testing.assert_close(torch.cat((first, second), dim=1), gpt(x, mask=mask))


def test_embedding_and_head_are_one() -> None:
    """Tied, they are one parameter under two names, also after a move and in a copy; untied they are two."""
    gpt = GPT(BASE)
    for each in (gpt, copy.deepcopy(gpt), GPT(BASE).double()):
        assert each.head.weight is each.embedding.weight
        each(ids()).sum().backward()
        assert each.head.weight.grad is each.embedding.weight.grad
    apart = GPT(replace(BASE, tie=False))
    assert apart.head.weight is not apart.embedding.weight
    assert not torch.equal(apart.head.weight, apart.embedding.weight)


def test_weights_at_birth() -> None:
    """Matrices have standard deviation 0.02, those that write to the stream 0.02 / sqrt(2 L) or 0; biases are 0."""
    torch.manual_seed(0)
    config = replace(BASE, d_model=96, n_layers=8, bias=True)
    for name, p in GPT(config).named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        elif p.dim() == 2:
            outward = name.endswith(("attention.out.weight", "feedforward.down.weight"))
            assert p.std().item() == pytest.approx(0.02 / (4 if outward else 1), rel=0.05)
    zero = GPT(replace(config, zero_init=True))
    x = torch.randn(B, T, 96)
    assert all(torch.equal(block(x), x) for block in zero.blocks)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_weight(name: str) -> None:
    """Every weight gets a gradient, and no weight is registered that is not used."""
    gpt = model(name)
    F.cross_entropy(gpt(ids()).flatten(0, 1), ids(seed=1).flatten()).backward()
    silent = [n for n, p in gpt.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_dropout_acts_while_training_only() -> None:
    """In eval mode the same ids give the same logits; in training mode dropout makes them differ."""
    gpt = model(dropout=0.3)
    assert torch.equal(gpt(ids()), gpt(ids()))
    assert not torch.equal(gpt.train()(ids()), gpt(ids()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(2, 3), r"dtype torch.float32, not of torch.int64"),
        (torch.zeros(3, dtype=torch.int64), r"shape \(3,\)"),
        (torch.zeros(2, 0, dtype=torch.int64), r"shape \(2, 0\)"),
        (torch.tensor([[0, V]]), f"id {V} .* vocabulary of {V}"),
        (torch.tensor([[0, -1]]), f"id -1 .* vocabulary of {V}"),
        (torch.zeros(1, 21, dtype=torch.int64), "21 positions .* max_len 20"),
        ([[1, 2]], "ids are of type list, not a tensor"),
    ],
)
def test_unreadable_ids_are_refused(wrong: Tensor, message: str) -> None:
    """Ids of a wrong type or shape, unknown ones, and more than there are positions raise ValueError and are named."""
    with pytest.raises(ValueError, match=message):
        model("learned")(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": torch.ones(3, 3)}, r"mask is of dtype torch.float32, not of torch.bool"),
        ({"mask": torch.ones(2, 3, dtype=torch.bool)}, r"\(2, 3\), not \(3, 3\), \(2, 3, 3\) or \(2, 1, 3\)"),
        ({"mask": torch.ones(5, 1, 3, dtype=torch.bool)}, r"\(5, 1, 3\), not"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, r"\(3,\), not"),
        ({"positions": torch.arange(2)}, r"positions have shape \(2,\), not \(3,\) or \(2, 3\)"),
        ({"positions": torch.zeros(3, 3, dtype=torch.int64)}, r"\(3, 3\), not"),
        ({"mask": [[True] * 3] * 3}, "mask is of type list, not a tensor"),
        ({"positions": [0, 1, 2]}, "positions are of type list, not a tensor"),
    ],
)
def test_masks_and_positions_fit_the_ids(options: dict[str, Any], message: str) -> None:
    """A mask or positions for another number of rows or tokens, or of numbers, raise ValueError with both shapes."""
    with pytest.raises(ValueError, match=message):
        model()(ids(2, 3), **options)


@pytest.mark.parametrize("name", ["rope", "sinusoidal", "no positions"])
def test_positions_that_are_computed_have_no_end(name: str) -> None:
    """Without learned positions a model reads beyond max_len, and its past stays what it was."""
    gpt, x = model(name), ids(length=30)
    torch.testing.assert_close(gpt(x)[:, :20], gpt(x[:, :20]))


def test_a_full_cache_is_refused() -> None:
    """Past the cache's room, or with another batch, a reading raises ValueError, names both, and changes nothing."""
    gpt = model()
    cache = gpt.new_cache(B, max_len=6)
    gpt(ids(length=5), cache=cache)
    with pytest.raises(ValueError, match=r"5 positions and 2 new .* max_len 6"):
        gpt(ids(length=2), cache=cache)
    with pytest.raises(ValueError, match=r"batch of 1 .* batch of 2"):
        gpt(ids(1, 1), cache=cache)
    assert cache.length == 5
    assert gpt.new_cache(B).max_len == 20


def test_a_larger_cache_makes_no_positions() -> None:
    """Learned positions end at max_len, however large the cache."""
    gpt = model("learned")
    cache = gpt.new_cache(B, max_len=40)
    gpt(ids(length=20), cache=cache)
    with pytest.raises(ValueError, match=r"21 positions .* max_len 20"):
        gpt(ids(length=1), cache=cache)


def test_a_cache_is_as_large_as_its_heads() -> None:
    """Grouped heads keep G and not H keys a position, in the model's own dtype."""
    assert model("grouped").new_cache(B).nbytes == 2 * L * B * 20 * 1 * (D // H) * 8


def test_a_cache_of_another_model_is_refused() -> None:
    """Other layers, key/value heads or head widths than the model's: ValueError names both, and nothing is written."""
    gpt = model("grouped")
    for changes in ({"n_layers": L + 1}, {"n_kv_heads": H}, {"d_head": 8}):
        cache = model("grouped", **changes).new_cache(B) if "n_kv_heads" not in changes else model().new_cache(B)
        with pytest.raises(
            ValueError, match=r"cache for . layers of . .*, each . wide does not .* 2 layers of 1 .* 4 wide"
        ):
            gpt(ids(), cache=cache)
        assert cache.length == 0
        assert not cache.keys[0].any()


def test_hidden_is_what_the_head_reads() -> None:
    """The logits are the head's view of `hidden`."""
    gpt = model()
    torch.testing.assert_close(gpt(ids()), gpt.hidden(ids()) @ gpt.head.weight.T)


@pytest.mark.parametrize("name", ["rope", "fast", "grouped"])
def test_it_learns(name: str) -> None:
    """Twenty steps on one sentence bring its loss far below ln V: the whole of it can be trained."""
    torch.manual_seed(0)
    gpt, x = GPT(replace(BASE, **VARIANTS[name])), ids(length=20)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=0.03)
    for _ in range(20):
        loss = F.cross_entropy(gpt(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * math.log(V)


def test_gelu_is_the_exact_one() -> None:
    """A config that says gelu gets the exact gelu, one that says gelu_tanh the approximation."""
    x = torch.randn(5, D, dtype=torch.float64)
    exact, near = (model(feedforward=kind).blocks[0].feedforward for kind in ("gelu", "gelu_tanh"))
    torch.testing.assert_close(exact(x), gelu(x @ exact.up.weight.T) @ exact.down.weight.T)
    assert not torch.equal(exact(x), near(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_gpu_agrees(name: str) -> None:
    """On a GPU the logits and gradients are those of the CPU."""
    gpt = model(name)
    gpu = copy.deepcopy(gpt).cuda()
    for each, x in ((gpt, ids()), (gpu, ids().cuda())):
        each(x).square().mean().backward()
    torch.testing.assert_close(gpu(ids().cuda()).cpu(), gpt(ids()), atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(gpu.parameters(), gpt.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.cpu(), theirs.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunks", [[1] * 19, [7, 1, 1, 1, 9], [19], [3, 3, 13]])
def test_a_rolling_cache_changes_nothing(chunks: list[int]) -> None:
    """Over many windows' length, in any chunks, logits with a rolling cache are those of reading all at once."""
    gpt, x = model("rope", window=3, max_len=40), ids(length=19)
    cache = gpt.new_cache(B)
    assert isinstance(cache, RollingCache)
    assert cache.nbytes < gpt.new_cache(B, 5).nbytes
    got = torch.cat([gpt(part, cache=cache) for part in x.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(got, gpt(x))


def test_a_rolling_cache_and_a_mask() -> None:
    """A mask over all positions so far hides the same places where the first of them are forgotten."""
    gpt, x = model("rope", window=3, max_len=40), ids(length=15)
    hidden = (torch.arange(15) % 4 != 1).expand(B, 15, 15) | torch.eye(15, dtype=torch.bool)
    cache = gpt.new_cache(B)
    parts = [gpt(x[:, t : t + 1], mask=hidden[:, t : t + 1, : t + 1], cache=cache) for t in range(15)]
    torch.testing.assert_close(torch.cat(parts, dim=1), gpt(x, mask=hidden))


@pytest.mark.parametrize("name", VARIANTS)
def test_positions_can_be_given(name: str) -> None:
    """Positions that simply follow each other change nothing; rows of their own get what each gets alone."""
    gpt, x = model(name), ids()
    torch.testing.assert_close(gpt(x, positions=torch.arange(T)), gpt(x))
    positions = torch.stack((torch.arange(T), 2 * torch.arange(T) + 1))
    together = gpt(x, positions=positions)
    for b in range(B):
        torch.testing.assert_close(together[b : b + 1], gpt(x[b : b + 1], positions=positions[b]))


def test_positions_that_were_not_learned_are_refused() -> None:
    """A given position past the learned table raises ValueError and names both numbers."""
    with pytest.raises(ValueError, match=r"21 positions .* max_len 20"):
        model("learned")(ids(), positions=torch.arange(T) + 12)


def test_alibi_tells_places_apart_and_has_no_end() -> None:
    """With ALiBi order matters, a cache changes nothing, and texts longer than max_len can be read."""
    gpt, x = model("rope", positions="alibi"), ids(length=30)
    torch.testing.assert_close(gpt(x)[:, :20], gpt(x[:, :20]))
    assert (gpt(x)[:, -1] - gpt(x[:, [1, 0, *range(2, 30)]])[:, -1]).abs().max() > 1e-6
    cache = gpt.new_cache(B, 30)
    got = torch.cat([gpt(part, cache=cache) for part in x.split([4, 1, 25], dim=1)], dim=1)
    torch.testing.assert_close(got, gpt(x))


def test_no_position_is_before_the_first() -> None:
    """A learned table is not read from its end by a negative position."""
    gpt = GPT(GPTConfig(vocab_size=5, n_layers=1, d_model=4, n_heads=2, positions="learned"))
    with pytest.raises(ValueError, match="position -2 is before the first"):
        gpt(torch.tensor([[1, 2, 3]]), positions=torch.arange(3) - 2)
