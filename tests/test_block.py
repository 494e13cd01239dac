"""Laws of the block. Oracles: torch's TransformerEncoderLayer and TransformerDecoderLayer."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.nn import masks
from tinytrans.nn.attention import Attention
from tinytrans.nn.block import (
    Block,
    Residual,
    deep_stack,
    dropout,
    gradient_norms,
    post_norm,
    post_norm_layer,
    pre_norm,
    pre_norm_layer,
)
from tinytrans.nn.feedforward import FeedForward
from tinytrans.nn.norms import LayerNorm, layer_norm

B, T, S, D, H, WIDTH = 2, 5, 7, 12, 3, 20


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(residual: Residual = pre_norm, *, cross: bool = False, dropout: float = 0.0) -> Block:
    """A block with weights that make every part count."""
    torch.manual_seed(0)
    memory = Attention(D, H, bias=True) if cross else None
    parts = Attention(D, H, bias=True), FeedForward(D, WIDTH, "relu", bias=True), partial(LayerNorm, D)
    block = Block(*parts, cross=memory, residual=residual, dropout=dropout).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def carry(theirs: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer, block: Block) -> None:
    """Give torch's layer the weights of our block."""
    pairs = [(theirs.self_attn, block.attention), (getattr(theirs, "multihead_attn", None), block.cross)]
    for attention, ours in pairs:
        if ours is not None:
            attention.in_proj_weight, attention.in_proj_bias = ours.qkv.weight, ours.qkv.bias
            attention.out_proj.weight, attention.out_proj.bias = ours.out.weight, ours.out.bias
    theirs.linear1, theirs.linear2 = block.feedforward.up, block.feedforward.down
    norms = [norm for norm in (block.attention_norm, block.cross_norm, block.feedforward_norm) if norm is not None]
    for i, norm in enumerate(norms, start=1):
        getattr(theirs, f"norm{i}").load_state_dict(norm.state_dict())


@pytest.mark.parametrize("residual", [pre_norm, post_norm])
def test_block_is_torch_encoder_layer(residual: Residual) -> None:
    """With the same weights the block is torch's encoder layer, norms first or last."""
    block = build(residual)
    theirs = nn.TransformerEncoderLayer(
        D, H, WIDTH, dropout=0.0, batch_first=True, norm_first=residual is pre_norm, dtype=torch.float64
    )
    carry(theirs, block)
    x, mask = draw(B, T, D), masks.causal(T)
    torch.testing.assert_close(block(x, mask=mask), theirs(x, src_mask=~mask))


@pytest.mark.parametrize("residual", [pre_norm, post_norm])
def test_block_with_memory_is_torch_decoder_layer(residual: Residual) -> None:
    """With cross-attention it is torch's decoder layer; the memory's mask hides places of the memory."""
    block = build(residual, cross=True)
    theirs = nn.TransformerDecoderLayer(
        D, H, WIDTH, dropout=0.0, batch_first=True, norm_first=residual is pre_norm, dtype=torch.float64
    )
    carry(theirs, block)
    x, memory, mask = draw(B, T, D), draw(B, S, D, seed=1), masks.causal(T)
    seen = masks.padding(torch.tensor([3, S]), S)
    expected = theirs(x, memory, tgt_mask=~mask, memory_key_padding_mask=~seen[:, 0])
    torch.testing.assert_close(block(x, memory, mask=mask, memory_mask=seen), expected)


def test_pre_norm_leaves_the_stream_alone() -> None:
    """A sublayer that adds nothing leaves a pre-norm stream as it is, and a post-norm stream normed."""
    x, norm = draw(B, T, D), LayerNorm(D).double()
    assert torch.equal(pre_norm(x, norm, torch.zeros_like), x)
    assert torch.equal(post_norm(x, norm, torch.zeros_like), norm(x))


def test_every_sublayer_has_a_norm_of_its_own() -> None:
    """No norm's weights serve two sublayers."""
    block = build(cross=True)
    norms = [m for m in block.modules() if isinstance(m, LayerNorm)]
    assert len({id(norm.weight) for norm in norms}) == 3


def test_dropout_spares_the_stream() -> None:
    """When dropout takes all that the sublayers add, the stream comes out as it went in."""
    x = draw(B, T, D)
    block = build(dropout=1 - 1e-12)
    assert torch.equal(block.train()(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_a_memory_and_cross_attention_need_each_other() -> None:
    """A memory that nobody reads, a mask for it, and a reader without a memory are errors, not silence."""
    x, memory = draw(B, T, D), draw(B, S, D)
    with pytest.raises(ValueError, match="no cross-attention"):
        build()(x, memory)
    with pytest.raises(ValueError, match="no cross-attention"):
        build()(x, memory_mask=masks.padding(torch.tensor([3, S]), S))
    with pytest.raises(ValueError, match="needs a memory"):
        build(cross=True)(x)


LAYERS, VOCABULARY = 4, 11


def stack(place: str) -> tuple[Tensor, ...]:
    """Inputs of `deep_stack` and their output."""
    w_up, w_down = draw(LAYERS, D, WIDTH, seed=1) / 3, draw(LAYERS, WIDTH, D, seed=2) / 3
    return draw(T, D), w_up, w_down, deep_stack(draw(T, D), w_up, w_down, place)


@pytest.mark.parametrize(("layer", "residual"), [(pre_norm_layer, pre_norm), (post_norm_layer, post_norm)])
def test_layer_is_the_residual_around_a_feed_forward(layer: Residual, residual: Residual) -> None:
    """The layers for learners are `pre_norm` and `post_norm` around the block's own parts, with a ReLU."""
    block = build()
    up, down, norm = block.feedforward.up.weight.T, block.feedforward.down.weight.T, block.feedforward_norm
    expected = residual(draw(B, T, D), norm, lambda h: F.relu(h @ up) @ down)
    torch.testing.assert_close(layer(draw(B, T, D), up, down, norm.weight, norm.bias), expected)


def test_stack_ends_normed() -> None:
    """Whatever its layers add, a stack hands on vectors of mean 0 and variance 1, wherever the norms stand."""
    for place in ("pre", "post"):
        *_, y = stack(place)
        torch.testing.assert_close(y, layer_norm(y), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("place", ["pre", "post"])
def test_gradient_norms_are_those_of_small_steps(place: str) -> None:
    """A small step along a layer's gradient changes the loss by the step times the gradient's norm."""
    x, w_up, w_down, _ = stack(place)
    head, targets = draw(D, VOCABULARY, seed=3), torch.arange(T)

    def loss(w_down: Tensor) -> Tensor:
        return F.cross_entropy(deep_stack(x, w_up, w_down, place) @ head, targets)

    norms = gradient_norms(x, w_up, w_down, head, targets, place)
    gradient = torch.autograd.functional.jacobian(loss, w_down)
    for layer, norm in enumerate(norms):
        along = torch.zeros_like(w_down)
        along[layer] = gradient[layer] / gradient[layer].norm()
        slope = (loss(w_down + 1e-5 * along) - loss(w_down - 1e-5 * along)) / 2e-5
        torch.testing.assert_close(slope, norm, rtol=1e-5, atol=1e-8)


def test_dropout_keeps_the_mean() -> None:
    """A share p of the numbers goes, the mean stays; in use nothing changes."""
    x, noise = torch.ones(10_000), torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    y = dropout(x, noise, 0.25)
    assert abs(float((y == 0).float().mean()) - 0.25) < 0.02
    assert abs(float(y.mean()) - 1) < 0.02
    assert dropout(x, noise, 0.25, training=False) is x
