"""Laws of ORPO: the answer is learned, and its odds over the rejected one raised."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch

from tinytrans.training.orpo import log_odds, orpo_loss

NONE = torch.tensor(0.0)  # no instruction loss: the odds alone


def test_log_odds_keep_their_digits() -> None:
    """The log-odds in float32 agree with Python's float64 from p = exp(-1e-30), all but certain, to exp(-1e4)."""
    for x in (-1e-30, -1e-8, -1e-3, -0.5, -0.69, -0.7, -1.0, -5.0, -20.0, -80.0, -1e4):
        expected = x - math.log(-math.expm1(x))
        assert log_odds(torch.tensor(x)).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_odds_by_hand() -> None:
    """Probabilities 1/2, 3/4 and 1/5 are odds of 1, 3 and 1/4."""
    odds = log_odds(torch.tensor([0.5, 0.75, 0.2], dtype=torch.float64).log()).exp()
    torch.testing.assert_close(odds, torch.tensor([1.0, 3.0, 0.25], dtype=torch.float64))


def test_loss_by_hand() -> None:
    """Odds of 3 against odds of 1 are preferred with probability 3/4; lambda weighs that, not the likelihood."""
    chosen, rejected = torch.tensor([0.75]).log(), torch.tensor([0.5]).log()
    assert orpo_loss(NONE, chosen, rejected, lam=1.0).item() == pytest.approx(-math.log(0.75))
    assert orpo_loss(torch.tensor(2.0), chosen, rejected, lam=0.5).item() == pytest.approx(2 - 0.5 * math.log(0.75))
    assert orpo_loss(torch.tensor(2.0), chosen, chosen, lam=0.5).item() == pytest.approx(2 + 0.5 * math.log(2))


def test_gradients() -> None:
    """The gradients agree with finite differences in float64."""
    c = torch.tensor([-0.1, -0.6, -0.9, -4.0], dtype=torch.float64, requires_grad=True)
    r = torch.tensor([-3.0, -0.2, -1.1, -0.4], dtype=torch.float64, requires_grad=True)
    nll = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda n, c, r: orpo_loss(n, c, r, lam=0.7), (nll, c, r))


def test_certainty_is_finite() -> None:
    """Probabilities that have rounded to 1 or to 0 give finite losses and gradients, in every place of the pair."""
    for dtype in (torch.float32, torch.float64):
        for chosen, rejected in ((0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1e4, -1.0), (-1.0, -1e4), (-1e-20, -1e-10)):
            pair = [torch.tensor([x], dtype=dtype, requires_grad=True) for x in (chosen, rejected)]
            loss = orpo_loss(NONE, *pair)
            loss.backward()
            assert loss.isfinite()
            assert all(x.grad.isfinite().all() for x in pair)


def test_gradient_pushes_apart() -> None:
    """The chosen answer is raised and the rejected lowered."""
    c, r = (torch.tensor([x], requires_grad=True) for x in (-1.0, -2.0))
    orpo_loss(NONE, c, r).backward()
    assert c.grad.item() < 0 < r.grad.item()


def test_errors_name_both_values() -> None:
    """Pairs of different shape and a likelihood that is not yet a mean are refused."""
    with pytest.raises(ValueError, match=r"chosen \(2,\) and rejected \(2, 1\)"):
        orpo_loss(NONE, torch.zeros(2), torch.zeros(2, 1))
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
