"""Laws of PPO: good answers become likelier, in small steps, near the reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tinytrans.training.logprobs import masked_mean
from tinytrans.training.ppo import (
    adapted_beta,
    clip_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    k1,
    k2,
    k3,
    surrogate,
    token_rewards,
    whiten,
)

MASK = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]).bool()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_surrogate_by_hand() -> None:
    """Of ratio and bounded ratio the worse counts: what is past the bound in the wrong direction still pulls back."""
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, 2.0, -2.0, -2.0, 2.0])
    loss = surrogate(ratio.log(), torch.zeros(5), advantages, clip=0.2)
    torch.testing.assert_close(loss, torch.tensor([-2.4, -1.0, 3.0, 1.6, -2.2]))
    wider = surrogate(ratio.log(), torch.zeros(5), advantages, clip=0.2, clip_high=0.4)
    torch.testing.assert_close(wider, torch.tensor([-2.8, -1.0, 3.0, 1.6, -2.2]))


def test_no_gradient_past_the_bounds() -> None:
    """Past a bound in the advantage's direction nothing pulls any further; on the other side something pulls back."""
    logprobs = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    surrogate(logprobs, torch.zeros(4), torch.tensor([2.0, 2.0, -2.0, -2.0])).sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, -1.0, 3.0, 0.0]))


def test_at_ratio_one_it_is_the_policy_gradient() -> None:
    """While the policy is the one that sampled, the gradient is that of -A log pi, meaned over the answers' tokens."""
    logprobs, advantages = -draw(3, 5).abs(), draw(3, 5, seed=1)
    ours, plain = (logprobs.clone().requires_grad_() for _ in range(2))
    clipped_policy_loss(ours, logprobs, advantages, MASK).backward()
    masked_mean(-advantages * plain, MASK).backward()
    torch.testing.assert_close(ours.grad, plain.grad)


def test_only_the_policy_gets_a_gradient() -> None:
    """No gradient flows into old log-probabilities, advantages, old values or returns."""
    new, old, advantages = (draw(3, 5, seed=i).requires_grad_() for i in range(3))
    loss = clipped_policy_loss(new, old, advantages, MASK) + clipped_value_loss(new, old, advantages, MASK)
    gradients = torch.autograd.grad(loss, (new, old, advantages), allow_unused=True)
    assert gradients[0] is not None
    assert gradients[1:] == (None, None)


def test_what_stands_in_the_padding_is_no_matter() -> None:
    """Losses, advantages and whitened values are the same, and finite, whatever stands outside the mask."""
    new, old, other = draw(3, 5).requires_grad_(), draw(3, 5, seed=1), draw(3, 5, seed=2)
    wild = torch.where(MASK, old, -math.inf)
    loss = clipped_policy_loss(new, old, other, MASK)
    assert torch.equal(clipped_policy_loss(new, wild, other, MASK), loss)
    (gradient,) = torch.autograd.grad(clipped_policy_loss(new, wild, other, MASK), new)
    assert torch.equal(gradient.masked_fill(MASK, 0), torch.zeros(3, 5, dtype=torch.float64))
    nan = torch.where(MASK, old, math.nan)
    unknown = torch.where(MASK, new.detach(), math.nan).requires_grad_()
    assert torch.equal(clipped_policy_loss(unknown, nan, nan, MASK), clipped_policy_loss(new, old, old, MASK))
    (again,) = torch.autograd.grad(clipped_policy_loss(unknown, wild, other, MASK), unknown)
    assert torch.equal(again, gradient)
    values = torch.where(MASK, new.detach(), math.nan).requires_grad_()
    loss = clipped_value_loss(values, nan, nan, MASK)
    assert loss == clipped_value_loss(new, old, old, MASK)
    assert torch.autograd.grad(loss, values)[0][~MASK].eq(0).all()
    for function in (lambda x: gae(other, x, MASK)[0], lambda x: gae(x, other, MASK)[1], lambda x: whiten(x, MASK)):
        assert torch.equal(function(nan), function(old))


def test_gradients() -> None:
    """The gradients of both losses agree with finite differences in float64, clipped places and all."""
    new, old, advantages = draw(3, 5).requires_grad_(), draw(3, 5, seed=1), draw(3, 5, seed=2)
    assert torch.autograd.gradcheck(lambda x: clipped_policy_loss(x, old, advantages, MASK), new)
    assert torch.autograd.gradcheck(lambda x: clipped_value_loss(x, old, advantages, MASK), new)


def test_value_loss_by_hand() -> None:
    """Half the larger of two squared errors, before and after holding the value within the bound of the old one."""
    mask = torch.tensor([[True, True, True, False]])
    values, old = torch.tensor([[1.0, 1.0, 0.1, 9.0]]), torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    returns = torch.tensor([[1.0, 3.0, 1.1, 0.0]])
    expected = (0.8**2 + 2.8**2 + 1.0**2) / 2 / 3
    assert clipped_value_loss(values, old, returns, mask, clip=0.2).item() == pytest.approx(expected)


def naive_gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = sum_k (gamma lambda)^k delta_{t+k} over what is left of the answer, one token at a time."""
    advantages = torch.zeros_like(rewards)
    for b, row in enumerate(mask):
        tokens = row.nonzero().flatten().tolist()
        for i, t in enumerate(tokens):
            for k, s in enumerate(tokens[i:]):
                following = values[b, s + 1] if s != tokens[-1] else 0.0
                advantages[b, t] += (gamma * lam) ** k * (rewards[b, s] + gamma * following - values[b, s])
    return advantages


def test_gae_is_its_definition() -> None:
    """The backward recursion is the sum over what is left of each answer, for every gamma and lambda."""
    rewards, values = draw(3, 5), draw(3, 5, seed=1)
    for gamma, lam in ((1.0, 1.0), (0.9, 0.8), (1.0, 0.0), (0.5, 1.0)):
        advantages, returns = gae(rewards, values, MASK, gamma=gamma, lam=lam)
        torch.testing.assert_close(advantages, naive_gae(rewards, values, MASK, gamma, lam))
        torch.testing.assert_close(returns, (advantages + values).masked_fill(~MASK, 0))


def test_lambda_one_is_what_came_minus_what_was_expected() -> None:
    """With gamma = lambda = 1 the return is the sum of the rewards to come, whatever the critic says."""
    rewards, values = draw(3, 5), draw(3, 5, seed=1)
    to_come = rewards.masked_fill(~MASK, 0).flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(gae(rewards, values, MASK, lam=1.0)[1][MASK], to_come[MASK])


def test_a_perfect_critic_is_never_surprised() -> None:
    """Where values are the rewards to come, every advantage is 0, for every lambda."""
    rewards = draw(3, 5).masked_fill(~MASK, 0)
    values = rewards.flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(gae(rewards, values, MASK, lam=0.7)[0], torch.zeros_like(rewards))


def test_the_score_falls_on_the_last_token() -> None:
    """The score stands at each answer's last token, never on padding; every token pays for leaving the reference."""
    logprobs, ref = draw(3, 5).requires_grad_(), draw(3, 5, seed=1)
    scores = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
    rewards = token_rewards(scores, logprobs, ref, MASK, beta=0.5)
    expected = (-0.5 * (logprobs - ref)).masked_fill(~MASK, 0).detach()
    for row, last in enumerate((3, 1, 4)):
        expected[row, last] += scores[row]
    torch.testing.assert_close(rewards, expected)
    assert not rewards.requires_grad
    with pytest.raises(ValueError, match=r"mask \(3, 5\) asks for scores \(3,\), not \(3, 1\)"):
        token_rewards(scores[:, None], logprobs, ref, MASK)


def test_kl_estimators() -> None:
    """Averaged over samples of the policy k1 and k3 are the KL divergence exactly; k2 and k3 are never negative."""
    policy, reference = draw(6).log_softmax(-1), draw(6, seed=1).log_softmax(-1)
    kl = (policy.exp() * (policy - reference)).sum()
    assert kl > 0.1
    for estimate in (k1, k3):
        torch.testing.assert_close((policy.exp() * estimate(policy, reference)).sum(), kl)
        assert estimate(policy, policy).abs().max() == 0
    assert (k1(policy, reference) < 0).any()
    assert (k2(policy, reference) >= 0).all()
    assert (k3(policy, reference) >= 0).all()
    assert k2(torch.tensor(0.0), torch.tensor(3.0)).item() == 4.5


def test_k2_has_the_gradient_of_the_kl() -> None:
    """Averaged over samples of the policy, the gradient of k2 is the gradient of the KL divergence; that of k1 is 0."""
    logits, reference = draw(6).requires_grad_(), draw(6, seed=1).log_softmax(-1)
    policy = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)
    chance = policy.exp().detach()
    (squared,) = torch.autograd.grad((chance * k2(policy, reference)).sum(), logits, retain_graph=True)
    (plain,) = torch.autograd.grad((chance * k1(policy, reference)).sum(), logits)
    torch.testing.assert_close(squared, exact)
    torch.testing.assert_close(plain, torch.zeros_like(plain))


def test_whitened_values() -> None:
    """Whitened values have mean 0 and variance 1 over the mask, keep their order, and equal ones become 0."""
    white = whiten(5 + 3 * draw(3, 5), MASK)
    assert white[MASK].mean().abs() < 1e-9
    assert (white[MASK].var(correction=0) - 1).abs() < 1e-6
    assert torch.equal(white[MASK].argsort(), draw(3, 5)[MASK].argsort())
    assert white[~MASK].abs().max() == 0
    assert whiten(torch.full((3, 5), 0.1), MASK).abs().max() < 1e-3


def test_the_penalty_follows_the_distance() -> None:
    """At its target beta stays, beyond it grows, below it shrinks, by 2 % at most; no target of 0 or less."""
    assert adapted_beta(0.05, 6.0, target=6.0) == 0.05
    assert adapted_beta(0.05, 6.6, target=6.0) == pytest.approx(0.05 * 1.01)
    assert adapted_beta(0.05, -100.0, target=6.0) == pytest.approx(0.05 * 0.98)
    assert adapted_beta(0.05, 100.0, target=6.0, rate=0.5) == pytest.approx(0.05 * 1.1)
    with pytest.raises(ValueError, match="target 0 is not positive"):
        adapted_beta(0.05, 1.0, target=0)


def test_clip_fraction() -> None:
    """Half of the answers' tokens have left the bounds; padding is not counted."""
    ratio = torch.tensor([[1.3, 0.7, 1.1, 0.9, 5.0]])
    mask = torch.tensor([[True, True, True, True, False]])
    assert clip_fraction(ratio.log(), torch.zeros(1, 5), mask).item() == 0.5
    assert clip_fraction(ratio.log(), torch.zeros(1, 5), mask, clip_high=0.4).item() == 0.25


def test_shapes_must_agree() -> None:
    """Tensors of different shapes are refused with both shapes, not broadcast."""
    with pytest.raises(ValueError, match=r"rewards \(3, 5\) and values \(3, 1\)"):
        gae(draw(3, 5), draw(3, 1), MASK)
    with pytest.raises(ValueError, match=r"logprobs \(3, 5\) and advantages \(3,\)"):
        clipped_policy_loss(draw(3, 5), draw(3, 5), draw(3), MASK)
    with pytest.raises(ValueError, match=r"logprobs \(3, 5\) and old_logprobs \(3, 1\)"):
        clip_fraction(draw(3, 5), draw(3, 1), MASK)
