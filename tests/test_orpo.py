"""Laws of ORPO: the answer is learned, and its odds over the rejected one raised."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch

from tinytrans.training.orpo import log1mexp, log_odds, odds_ratio_loss, orpo_loss


def test_log1mexp_keeps_its_digits() -> None:
    """log(1 - exp(x)) in float32 agrees with Python's float64 from x = -1e-30 to -1e4 in all but the last digit."""
    for x in (-1e-30, -1e-8, -1e-3, -0.5, -0.69, -0.7, -1.0, -5.0, -20.0, -80.0):
        expected = math.log(-math.expm1(x)) if x > -0.5 else math.log1p(-math.exp(x))
        assert log1mexp(torch.tensor(x)).item() == pytest.approx(expected, rel=3e-6)
    assert log1mexp(torch.tensor(-1e4)).item() == 0


def test_odds_by_hand() -> None:
    """Probabilities 1/2, 3/4 and 1/5 are odds of 1, 3 and 1/4."""
    odds = log_odds(torch.tensor([0.5, 0.75, 0.2], dtype=torch.float64).log()).exp()
    torch.testing.assert_close(odds, torch.tensor([1.0, 3.0, 0.25], dtype=torch.float64))


def test_loss_by_hand() -> None:
    """Odds of 3 against odds of 1 are preferred with probability 3/4; lambda weighs that, not the likelihood."""
    chosen, rejected = torch.tensor([0.75]).log(), torch.tensor([0.5]).log()
    assert odds_ratio_loss(chosen, rejected).item() == pytest.approx(-math.log(0.75))
    assert orpo_loss(torch.tensor(2.0), chosen, rejected, lam=0.5).item() == pytest.approx(2 - 0.5 * math.log(0.75))
    assert orpo_loss(torch.tensor(2.0), chosen, chosen, lam=0.5).item() == pytest.approx(2 + 0.5 * math.log(2))


def test_gradients() -> None:
    """The gradients agree with finite differences in float64, on both branches of log1mexp."""
    c = torch.tensor([-0.1, -0.6, -0.9, -4.0], dtype=torch.float64, requires_grad=True)
    r = torch.tensor([-3.0, -0.2, -1.1, -0.4], dtype=torch.float64, requires_grad=True)
    nll = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda n, c, r: orpo_loss(n, c, r, lam=0.7), (nll, c, r))


def test_certainty_is_finite() -> None:
    """Probabilities that have rounded to 1 or to 0 give finite losses and gradients, in every place of the pair."""
    for dtype in (torch.float32, torch.float64):
        for chosen, rejected in ((0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1e4, -1.0), (-1.0, -1e4), (-1e-20, -1e-10)):
            pair = [torch.tensor([x], dtype=dtype, requires_grad=True) for x in (chosen, rejected)]
            loss = odds_ratio_loss(*pair)
            loss.backward()
            assert loss.isfinite()
            assert all(x.grad.isfinite().all() for x in pair)


def test_gradient_pushes_apart() -> None:
    """The chosen answer is raised and the rejected lowered."""
    c, r = (torch.tensor([x], requires_grad=True) for x in (-1.0, -2.0))
    odds_ratio_loss(c, r).backward()
    assert c.grad.item() < 0 < r.grad.item()


def test_errors_name_both_values() -> None:
    """Pairs of different shape and a likelihood that is not yet a mean are refused."""
    with pytest.raises(ValueError, match=r"chosen \(2,\) and rejected \(2, 1\)"):
        odds_ratio_loss(torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"of shape \(\), not \(2,\)"):
        orpo_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2))


@pytest.mark.oracle
def test_trl_agrees() -> None:
    """TRL's odds ratio loss of the same mean log-probabilities is the same number; it adds what we subtract."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl and what it imports warn of their own deprecations
        trainer = pytest.importorskip("trl.experimental.orpo.orpo_trainer").ORPOTrainer
    chosen, rejected = torch.tensor([-1.0, -1.2, -0.7]), torch.tensor([-1.4, -1.1, -0.9])
    stub = SimpleNamespace(beta=0.1, accelerator=SimpleNamespace(device="cpu"))
    theirs = trainer.odds_ratio_loss(stub, chosen, rejected)[0].mean()
    torch.testing.assert_close(orpo_loss(torch.tensor(0.0), chosen, rejected, lam=0.1), -theirs)
