"""Laws of the feed-forward layers. Oracles: the normal distribution, torch's activations, the readable forms."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrans.nn.feedforward import (
    ACTIVATIONS,
    FEEDFORWARDS,
    FeedForward,
    SwiGLU,
    feed_forward,
    feed_forward_parameters,
    gated,
    gated_width,
    gelu,
    gelu_tanh,
    neuron_triggers,
    neuron_words,
    relu2,
    silu,
    swiglu,
)

B, T, D, WIDTH = 3, 5, 6, 10
FUNCTIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": F.relu, "relu2": relu2, "silu": silu}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gelu_is_x_times_a_chance() -> None:
    """gelu(x) is x P(N <= x) for a standard normal N, to the last digits."""
    for x in (-3.0, -0.7, 0.0, 0.5, 4.0):
        assert gelu(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(x * NormalDist().cdf(x), abs=1e-14)


def test_the_approximation_is_near_and_not_equal() -> None:
    """gelu_tanh is gelu up to 0.0005, and is told apart from it."""
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    gap = (gelu(x) - gelu_tanh(x)).abs().max().item()
    assert 1e-4 < gap < 5e-4


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fused_activations_are_the_written_ones(name: str) -> None:
    """Each activation in the table computes what its function says."""
    x = draw(200, seed=1) * 3
    torch.testing.assert_close(ACTIVATIONS[name](x), FUNCTIONS[name](x))


def test_silu_is_torch() -> None:
    """silu is torch's silu; far below 0 it vanishes, far above it is x."""
    x = draw(100) * 5
    torch.testing.assert_close(silu(x), F.silu(x))
    assert silu(torch.tensor([-800.0, 800.0])).tolist() == [0.0, 800.0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_feedforward_module_is_the_function(name: str) -> None:
    """The module is the readable form with its own two matrices."""
    module = FeedForward(D, WIDTH, name).double()
    x = draw(B, T, D)
    expected = feed_forward(x, module.up.weight.T, module.down.weight.T, activation=FUNCTIONS[name])
    torch.testing.assert_close(module(x), expected)


def test_biases_are_those_of_the_module() -> None:
    """With biases the function is the module with bias=True, and each of the two biases counts."""
    module = FeedForward(D, WIDTH, bias=True).double()
    w_up, w_down, x = module.up.weight.T, module.down.weight.T, draw(B, T, D)
    y = feed_forward(x, w_up, w_down, module.up.bias, module.down.bias)
    torch.testing.assert_close(module(x), y)
    assert not torch.allclose(feed_forward(x, w_up, w_down, module.up.bias), y)
    assert not torch.allclose(feed_forward(x, w_up, w_down, None, module.down.bias), y)


@pytest.mark.parametrize("bias", [False, True])
def test_parameters_are_counted(bias: bool) -> None:
    """The count is that of the module; 4096 numbers and four times as many make 134,238,208."""
    module = FeedForward(D, WIDTH, bias=bias)
    assert feed_forward_parameters(D, WIDTH, bias) == sum(p.numel() for p in module.parameters())
    assert feed_forward_parameters(4096, 4 * 4096) == 134_238_208


def test_a_gate_costs_no_parameters() -> None:
    """Three matrices of the gated width have as many numbers as two of the plain one, rounded up and no further."""
    for d_ff in range(1, 200):
        for multiple in (1, 2, 16):
            width = gated_width(d_ff, multiple)
            assert width % multiple == 0
            assert 3 * (width - multiple) < 2 * d_ff <= 3 * width


def test_a_neuron_is_read() -> None:
    """Its triggers are where it is largest, in falling order; its words those whose logits its value row raises."""
    hidden, w_down, words = draw(30, WIDTH), draw(WIDTH, D, seed=1), draw(17, D, seed=2)
    for neuron in range(WIDTH):
        order = sorted(range(30), key=lambda n, i=neuron: -hidden[n, i])
        assert neuron_triggers(hidden, neuron, 4).tolist() == order[:4]
        scores = [sum(w_down[neuron, d] * word[d] for d in range(D)) for word in words]
        assert neuron_words(w_down, words, neuron, 5).tolist() == sorted(range(17), key=lambda v: -scores[v])[:5]


def test_swiglu_module_is_the_function() -> None:
    """The first half of the module's wide matrix is the gate, which silu bends; the other half passes straight."""
    module = SwiGLU(D, WIDTH).double()
    w_gate, w_up = module.up.weight.T.chunk(2, dim=1)
    x = draw(B, T, D)
    w_down = module.down.weight.T
    torch.testing.assert_close(module(x), swiglu(x, w_gate, w_up, w_down))
    torch.testing.assert_close(swiglu(x, w_gate, w_up, w_down), (F.silu(x @ w_gate) * (x @ w_up)) @ w_down)


def test_a_gate_has_the_gradient_of_its_formula() -> None:
    """What is written out by hand is what torch makes of silu(gate) * up, also where h is no block of memory."""
    h = torch.randn(3, 5, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    strided = h[:, ::2, 1:13]
    gate, up = strided.chunk(2, dim=-1)
    weights = torch.arange(6.0, dtype=torch.float64)
    (expected,) = torch.autograd.grad((F.silu(gate) * up * weights).sum(), h)
    y = gated(strided)
    torch.testing.assert_close(y, F.silu(gate) * up)
    torch.testing.assert_close(torch.autograd.grad((y * weights).sum(), h)[0], expected)
    assert torch.autograd.gradcheck(gated, (h,))
    with torch.no_grad():
        torch.testing.assert_close(gated(strided), y)


@pytest.mark.parametrize("name", FEEDFORWARDS)
@pytest.mark.parametrize("bias", [False, True])
def test_every_kind_is_built_alike(name: str, bias: bool) -> None:
    """Each position is transformed alone, D -> D; biases exist only where asked for; every weight gets a gradient."""
    module = FEEDFORWARDS[name](D, WIDTH, bias=bias).double()
    x = draw(B, T, D)
    torch.testing.assert_close(module(x)[:, 2], module(x[:, 2]))
    assert any(n.endswith("bias") for n, _ in module.named_parameters()) == bias
    module(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_dropout_acts_on_the_hidden_numbers_while_training_only() -> None:
    """In eval mode dropout changes nothing; with all but nothing kept, only the last bias is left."""
    for build in FEEDFORWARDS.values():
        module = build(D, WIDTH, bias=True, dropout=0.999999)
        x = torch.ones(T, D)
        assert torch.equal(module.eval()(x), module(x))
        torch.manual_seed(0)
        torch.testing.assert_close(module.train()(x), module.down.bias.expand(T, D))


def test_an_unknown_activation_is_refused() -> None:
    """The message names what was given and what there is."""
    with pytest.raises(ValueError, match=r"'gleu' is not one of gelu, gelu_tanh, relu, relu2"):
        FeedForward(D, WIDTH, "gleu")


def test_the_constant_of_the_approximation() -> None:
    """At x = 1 gelu_tanh is (1 + tanh(sqrt(2/pi) 1.044715)) / 2."""
    assert gelu_tanh(torch.tensor(1.0)).item() == pytest.approx((1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715)) / 2)
