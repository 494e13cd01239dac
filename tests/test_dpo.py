"""Laws of DPO and its relatives: preferred answers become likelier than they were, others less."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tinytrans.training.dpo import dpo_loss, implicit_reward, ipo_loss, kto_loss, simpo_loss
from tinytrans.training.reward import accuracy

CHOSEN, REJECTED = torch.tensor([-10.0, -12.0, -7.0]), torch.tensor([-14.0, -11.0, -9.0])
ZERO = torch.zeros(3)


def draws(n: int, B: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, dtype=torch.float64, generator=generator) for _ in range(n)]


def test_begins_at_ln_2() -> None:
    """Where the policy is the reference, DPO's loss is ln 2 at every beta, and IPO's is 1 / (4 beta^2)."""
    for beta in (0.01, 0.1, 5.0):
        assert dpo_loss(CHOSEN, REJECTED, CHOSEN, REJECTED, beta=beta).item() == pytest.approx(math.log(2))
        assert ipo_loss(CHOSEN, REJECTED, CHOSEN, REJECTED, beta=beta).item() == pytest.approx(1 / (4 * beta**2))


def test_by_hand() -> None:
    """A pair moved apart by 4 nats at beta = ln 3 / 4 is preferred with probability 3/4."""
    pair = torch.tensor([-8.0]), torch.tensor([-9.0]), torch.tensor([-10.0]), torch.tensor([-7.0])
    assert dpo_loss(*pair, beta=math.log(3) / 4).item() == pytest.approx(-math.log(0.75))
    assert ipo_loss(*pair, beta=0.25).item() == pytest.approx((4 - 2) ** 2)


def test_only_the_movement_counts() -> None:
    """How likely both answers were before does not matter, only how far the policy has moved from the reference."""
    c, r, ref_c, ref_r, shift, other = draws(6)
    for loss in (dpo_loss, ipo_loss):
        torch.testing.assert_close(loss(c + shift, r + other, ref_c + shift, ref_r + other), loss(c, r, ref_c, ref_r))


def test_gradient_pushes_apart() -> None:
    """The gradient raises the chosen and lowers the rejected by the same amount, beta sigma(-margin) / B."""
    c, r, ref_c, ref_r = draws(4)
    c.requires_grad_()
    r.requires_grad_()
    dpo_loss(c, r, ref_c, ref_r, beta=0.3).backward()
    margin = implicit_reward(c, ref_c, beta=0.3) - implicit_reward(r, ref_r, beta=0.3)
    torch.testing.assert_close(r.grad, (0.3 * torch.sigmoid(-margin) / 4).detach())
    torch.testing.assert_close(c.grad, -r.grad)


def test_gradients() -> None:
    """The gradients of all losses agree with finite differences in float64."""
    c, r, ref_c, ref_r = draws(4)
    liked = torch.tensor([True, False, True, False])
    pair = (c.requires_grad_(), r.requires_grad_())
    assert torch.autograd.gradcheck(lambda c, r: dpo_loss(c, r, ref_c, ref_r), pair)
    assert torch.autograd.gradcheck(lambda c, r: ipo_loss(c, r, ref_c, ref_r), pair)
    assert torch.autograd.gradcheck(simpo_loss, pair)
    assert torch.autograd.gradcheck(lambda c: kto_loss(c, ref_c, liked, ref_r, disliked_weight=1.5), pair[:1])


def test_the_reference_gets_no_gradient() -> None:
    """No gradient flows into reference log-probabilities, nor into KTO's KL estimate."""
    tensors = [x.requires_grad_() for x in draws(4)]
    liked = torch.tensor([True, False, True, False])
    loss = dpo_loss(*tensors) + ipo_loss(*tensors) + kto_loss(tensors[0], tensors[2], liked, tensors[3])
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
    assert [gradient is not None for gradient in gradients] == [True, True, False, False]


def test_a_hopeless_pair_overflows_nothing() -> None:
    """A pair ten thousand nats on the wrong side costs a finite loss with a full gradient."""
    c = torch.tensor([-10_000.0], requires_grad=True)
    loss = dpo_loss(c, torch.zeros(1), torch.zeros(1), torch.zeros(1), beta=0.1)
    loss.backward()
    assert loss.item() == 1000
    assert c.grad.item() == pytest.approx(-0.1)


def test_ipo_stops_at_its_distance() -> None:
    """IPO's loss and gradient are 0 where the answers have moved apart by 1 / (2 beta), and the loss grows beyond."""
    c = torch.tensor([5.0], requires_grad=True)
    loss = ipo_loss(c, torch.zeros(1), torch.zeros(1), torch.zeros(1), beta=0.1)
    loss.backward()
    assert (loss.item(), c.grad.item()) == (0, 0)
    assert ipo_loss(torch.tensor([6.0]), *[torch.zeros(1)] * 3, beta=0.1).item() == pytest.approx(1)


def test_simpo_asks_for_a_distance() -> None:
    """SimPO is at ln 2 where beta times the distance of the means is gamma."""
    loss = simpo_loss(torch.tensor([-1.0]), torch.tensor([-1.25]), beta=2.0, gamma=0.5)
    assert loss.item() == pytest.approx(math.log(2))


def test_kto_by_hand() -> None:
    """At the reference every answer costs half its weight; z lifts what counts as usual, and never falls below 0."""
    liked = torch.tensor([True, False])
    same = torch.tensor([-3.0, -4.0])
    none = torch.zeros(2)
    assert kto_loss(same, same, liked, none).item() == 0.5
    assert kto_loss(same, same, liked, none, liked_weight=3.0, disliked_weight=1.0).item() == 1.0
    moved = same + torch.tensor([math.log(3), math.log(3)]) * 10
    assert kto_loss(moved, same, liked, none, beta=0.1).item() == pytest.approx((0.25 + 0.75) / 2)
    assert kto_loss(moved, same, liked[:1].expand(2), moved - same, beta=0.1).item() == pytest.approx(0.5)
    assert kto_loss(same, same, torch.tensor([True, True]), torch.tensor([-5.0])).item() == 0.5


def test_implicit_rewards_tell_the_accuracy() -> None:
    """A pair is in order when the chosen answer gained more than the rejected one, be it the likelier or not."""
    gained = torch.tensor([0.0, 2.0, 1.0])
    rewards = implicit_reward(CHOSEN, CHOSEN - 1), implicit_reward(REJECTED, REJECTED - gained)
    assert accuracy(*rewards).item() == 0.5


def test_shapes_must_agree() -> None:
    """Log-probabilities (B,) beside (B, 1) are refused, not broadcast to (B, B)."""
    with pytest.raises(ValueError, match=r"chosen \(3,\) and ref_chosen \(3, 1\)"):
        dpo_loss(CHOSEN, REJECTED, CHOSEN[:, None], REJECTED)
    with pytest.raises(ValueError, match=r"chosen \(3,\) and rejected \(2,\)"):
        ipo_loss(CHOSEN, REJECTED[:2], CHOSEN, REJECTED[:2])


@pytest.mark.oracle
def test_trl_agrees() -> None:
    """TRL's sigmoid, IPO and SimPO losses, given log-ratios to a reference, are the same numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl and what it imports warn of their own deprecations
        trainer = pytest.importorskip("trl.experimental.cpo.cpo_trainer").CPOTrainer
    c, r, ref_c, ref_r = draws(4)

    def theirs(loss_type: str, chosen: Tensor, rejected: Tensor, beta: float = 0.1, wrong: float = 0.0) -> Tensor:
        options = {"alpha": 0.0, "label_smoothing": wrong, "simpo_gamma": 0.5, "beta": beta, "loss_type": loss_type}
        stub = SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **options)
        return trainer.cpo_loss(stub, chosen, rejected)[0].mean()

    torch.testing.assert_close(dpo_loss(c, r, ref_c, ref_r), theirs("sigmoid", c - ref_c, r - ref_r))
    torch.testing.assert_close(ipo_loss(c, r, ref_c, ref_r), theirs("ipo", c - ref_c, r - ref_r))
    torch.testing.assert_close(simpo_loss(c, r, beta=2.0), theirs("simpo", c, r, beta=2.0))
    torch.testing.assert_close(dpo_loss(CHOSEN, REJECTED, ZERO, ZERO), theirs("sigmoid", CHOSEN, REJECTED))
    noisy = 0.8 * dpo_loss(c, r, ref_c, ref_r) + 0.2 * dpo_loss(r, c, ref_r, ref_c)
    torch.testing.assert_close(noisy, theirs("sigmoid", c - ref_c, r - ref_r, wrong=0.2))
