"""Laws of the norms. Oracles: the papers' formulas by hand, torch's own layers, finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.nn.norms import (
    NORMS,
    BatchNorm,
    FusedRMSNorm,
    LayerNorm,
    RMSNorm,
    batch_norm,
    fused_rms_norm,
    layer_norm,
    rms_norm,
)

B, T, D, EPS = 3, 5, 7, 0.1  # an eps so large that its place shows


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 1


def test_layer_norm_by_hand() -> None:
    """[1, 3] has mean 2 and variance 1; with eps 3 it becomes [-1, 1] / 2, then times the gain, plus the shift."""
    y = layer_norm(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 10.0]), torch.tensor([0.5, 0.25]), eps=3.0)
    assert y.tolist() == [-0.5, 5.25]


def test_rms_norm_by_hand() -> None:
    """[1, 7] has the mean square 25; with eps 11 it becomes [1, 7] / 6, then times the gain."""
    assert rms_norm(torch.tensor([1.0, 7.0]), torch.tensor([6.0, 3.0]), eps=11.0).tolist() == [1.0, 3.5]


def test_layer_norm_is_torch() -> None:
    """The written-out form, the module and torch's layer_norm are one function."""
    x, w, b = draw(B, T, D), draw(D, seed=1), draw(D, seed=2)
    torch.testing.assert_close(layer_norm(x, w, b, EPS), F.layer_norm(x, (D,), w, b, EPS))
    torch.testing.assert_close(layer_norm(x, w, eps=EPS), F.layer_norm(x, (D,), w, None, EPS))
    module = LayerNorm(D, eps=EPS).double()
    module.load_state_dict({"weight": w, "bias": b})
    torch.testing.assert_close(module(x), layer_norm(x, w, b, EPS))


def test_rms_norm_is_torch() -> None:
    """The written-out form, the module and torch's rms_norm are one function; a bias is added last."""
    x, w, b = draw(B, T, D), draw(D, seed=1), draw(D, seed=2)
    torch.testing.assert_close(rms_norm(x, w, EPS), F.rms_norm(x, (D,), w, EPS))
    module = RMSNorm(D, eps=EPS, bias=True).double()
    module.load_state_dict({"weight": w, "bias": b})
    torch.testing.assert_close(module(x), rms_norm(x, w, EPS) + b)
    torch.testing.assert_close(module(x.requires_grad_()), rms_norm(x, w, EPS) + b)


def test_batch_norm_is_torch() -> None:
    """Over several batches and then in use, the written-out form and torch's layer keep and give the same numbers."""
    layer = nn.BatchNorm1d(D, eps=EPS, momentum=0.25, affine=False, dtype=torch.float64)
    mean, var = torch.zeros(D, dtype=torch.float64), torch.ones(D, dtype=torch.float64)
    for seed in range(3):
        x = draw(B, D, seed=seed)
        y, mean, var = batch_norm(x, mean, var, True, 0.25, EPS)
        torch.testing.assert_close(y, layer(x))
    torch.testing.assert_close((mean, var), (layer.running_mean, layer.running_var))
    y, *kept = batch_norm(x[:1], mean, var, False, 0.25, EPS)
    torch.testing.assert_close(y, layer.eval()(x[:1]))
    assert kept == [mean, var]  # the very same tensors


def test_batches_do_not_hang_on_each_other() -> None:
    """The running statistics of batch normalisation carry no gradient."""
    _, mean, var = batch_norm(draw(B, D).requires_grad_(), torch.zeros(D), torch.ones(D), True)
    assert not mean.requires_grad
    assert not var.requires_grad


def test_layer_norm_forgets_shift_and_scale() -> None:
    """Without eps, a x + b is normed like x for every a > 0 and b; the result has mean 0 and variance 1."""
    x = draw(B, D)
    torch.testing.assert_close(layer_norm(5 * x - 2, eps=0.0), layer_norm(x, eps=0.0))
    y = layer_norm(x, eps=0.0)
    torch.testing.assert_close(y.mean(-1), torch.zeros(B, dtype=y.dtype))
    torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(B, dtype=y.dtype))


def test_rms_norm_forgets_scale_and_keeps_shift() -> None:
    """Without eps, a x is normed like x for every a > 0, but x + b is not; the mean square becomes 1."""
    x = draw(B, D)
    torch.testing.assert_close(rms_norm(5 * x, eps=0.0), rms_norm(x, eps=0.0))
    assert not torch.allclose(rms_norm(x + 2, eps=0.0), rms_norm(x, eps=0.0))
    torch.testing.assert_close(rms_norm(x, eps=0.0).square().mean(-1), torch.ones(B, dtype=x.dtype))


@pytest.mark.parametrize("shape", [(D,), (1, D), (B, T, D), (2, 3, 4, D)])
def test_fused_gradients_are_right(shape: tuple[int, ...]) -> None:
    """The gradient written by hand is that of finite differences and that of the readable form."""
    x, w = draw(*shape).requires_grad_(), draw(D, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: fused_rms_norm(x, w, EPS), (x, w))
    up = draw(*shape, seed=2)
    for mine, theirs in zip(
        torch.autograd.grad(fused_rms_norm(x, w, EPS), (x, w), up),
        torch.autograd.grad(rms_norm(x, w, EPS), (x, w), up),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_fused_gradient_is_the_one_in_use() -> None:
    """While training on a CPU the module goes through the written-out gradient; a frozen gain gets none."""
    module = RMSNorm(D)
    x = draw(B, D, dtype=torch.float32).requires_grad_()
    assert FusedRMSNorm.__name__ in module(x).grad_fn.name()
    module.weight.requires_grad_(False)
    module(x).sum().backward()
    assert module.weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-4, 3000.0])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_is_squared_in_single(dtype: torch.dtype, size: float, training: bool) -> None:
    """Numbers whose squares a float16 cannot hold are normed like all others, with a gradient at hand or without."""
    x, w = (size * draw(B, 64)).to(dtype), draw(64, seed=1).to(dtype)
    y = fused_rms_norm(x.requires_grad_(training), w, 1e-12)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), rms_norm(x.double(), w.double(), 1e-12), rtol=2e-2, atol=1e-3)


def test_fused_reads_strided_inputs() -> None:
    """A transposed input and a transposed gradient give what their copies give."""
    x, w, up = draw(T, D, B).transpose(1, 2), draw(D, seed=1), draw(T, D, B, seed=2).transpose(1, 2)
    x.requires_grad_()
    mine = torch.autograd.grad(fused_rms_norm(x, w, EPS), x, up)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(rms_norm(x, w, EPS), x, up)[0])


@pytest.mark.parametrize("name", NORMS)
def test_a_new_norm_only_normalises(name: str) -> None:
    """At birth gains are 1 and shifts 0; only asked for is there a bias; rows do not touch each other."""
    x = draw(B, D, dtype=torch.float32)
    plain = {"layer": layer_norm, "rms": rms_norm}[name]
    for bias in (False, True):
        module = NORMS[name](D, eps=EPS, bias=bias)
        assert dict(module.named_parameters()).keys() == ({"weight", "bias"} if bias else {"weight"})
        torch.testing.assert_close(module(x), plain(x, eps=EPS))
        torch.testing.assert_close(module(x[1]), module(x)[1])


def test_batch_norm_by_hand() -> None:
    """Over the batch 1, 3 has mean 2 and variance 1; with eps 3 it becomes -1, 1 halved; afterwards, by given ones."""
    x, given = torch.tensor([[1.0], [3.0]]), (torch.tensor([3.0]), torch.tensor([1.0]))
    assert batch_norm(x, *given, True, eps=3.0)[0].flatten().tolist() == [-0.5, 0.5]
    assert batch_norm(x, *given, False, eps=3.0)[0].flatten().tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_the_layer_is_torch(momentum: float) -> None:
    """Step for step of a training, outputs, gradients and running statistics are torch's; and so in evaluation."""
    mine, theirs = BatchNorm(D, eps=EPS, momentum=momentum).double(), torch.nn.BatchNorm1d(D, EPS, momentum).double()
    weights = {"weight": draw(D, seed=1), "bias": draw(D, seed=2)}
    mine.load_state_dict(weights, strict=False)
    theirs.load_state_dict(weights, strict=False)
    for step in range(3):
        x = draw(B, T, D, seed=step).requires_grad_()
        y, up = mine(x), draw(B, T, D, seed=step + 10)
        expected = theirs(x.flatten(0, 1)).view(B, T, D)
        torch.testing.assert_close(y, expected)
        for a, b in zip(
            torch.autograd.grad(y, (x, *mine.parameters()), up),
            torch.autograd.grad(expected, (x, *theirs.parameters()), up),
            strict=True,
        ):
            torch.testing.assert_close(a, b)
        torch.testing.assert_close((mine.mean, mine.var), (theirs.running_mean, theirs.running_var))
    mine.eval()
    theirs.eval()
    x, before = draw(B, D, seed=5), mine.mean.clone()
    torch.testing.assert_close(mine(x), theirs(x))
    assert torch.equal(mine.mean, before)


def test_batch_norm_ties_the_rows() -> None:
    """In training another row of the batch, or padding, changes this one, as in no other norm; in evaluation not."""
    x = draw(B, D, dtype=torch.float32)
    other = x.clone()
    other[1] = 0
    for module, tied in (
        (BatchNorm(D), True),
        (BatchNorm(D).eval(), False),
        (LayerNorm(D), False),
        (RMSNorm(D), False),
    ):
        assert (not torch.equal(module(x)[0], module(other)[0])) == tied


def test_a_batch_of_one_cannot_train() -> None:
    """One row has no variance: training refuses it, evaluation does not."""
    with pytest.raises(ValueError, match="batch of 1 row"):
        BatchNorm(D)(torch.ones(1, D))
    assert BatchNorm(D).eval()(torch.ones(1, D)).shape == (1, D)
