"""PPO: log-probabilities, values, rewards of sampled answers -> a loss that makes good ones likelier, in small steps.

Everything is (B, T), one number a token; mask (B, T) is True at the answer's tokens, which stand together. Old
log-probabilities are those of the model that sampled, kept from then; the reference is the model before any of this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinytrans.training.logprobs import masked_mean, same_shape


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """KL(policy || reference), one sample a token: log pi - log ref. Its mean is right, single samples may be negative.

    Source: Schulman 2020, "Approximating KL divergence", http://joschu.net/blog/kl-approx.html.
    """
    same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio: never negative; its mean is a little off, its mean gradient right. Source: as k1."""
    return k1(logprobs, ref_logprobs).square() / 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """ref / pi - 1 - log(ref / pi): never negative, and its mean is right too. Source: as k1.

    >>> k3(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor([0.])
    """
    log_ratio = -k1(logprobs, ref_logprobs)
    return torch.expm1(log_ratio) - log_ratio


def token_rewards(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, beta: float = 0.05
) -> Tensor:  # fmt: skip
    """What each token earns: -beta (log pi - log ref), and an answer's last one its score too, (B, T).

    scores are (B,), the others (B, T). Padding earns 0. Without the penalty the model learns to please the
    reward model, not people. No gradient flows through it.
    Source: Ouyang et al. 2022, equation 2, arXiv 2203.02155.

    >>> mask = torch.tensor([[True, True, False]])
    >>> token_rewards(torch.tensor([5.0]), torch.zeros(1, 3), torch.zeros(1, 3), mask)
    tensor([[0., 5., 0.]])
    """
    for name, other in (("ref_logprobs", ref_logprobs), ("mask", mask)):
        if other.shape != logprobs.shape:
            raise ValueError(f"logprobs {tuple(logprobs.shape)} and {name} {tuple(other.shape)} differ in shape")
    if scores.shape != mask.shape[:1]:
        raise ValueError(f"mask {tuple(mask.shape)} asks for scores {tuple(mask.shape[:1])}, not {tuple(scores.shape)}")
    last = mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)  # one True from here to the end
    penalty = beta * (logprobs - ref_logprobs)
    return (last * scores[:, None] - penalty).masked_fill(~mask, 0).detach()


def adapted_beta(beta: float, kl: float, *, target: float, rate: float = 0.1) -> float:
    """The KL penalty for the next answers: larger where the last ones lay further off than wanted, else smaller.

    beta (1 + rate clip(kl / target - 1, -0.2, 0.2)); kl is the mean over answers, in nats. Raises ValueError unless
    target is positive. Source: Ziegler et al. 2019, section 2.2, arXiv 1909.08593.

    >>> round(adapted_beta(0.05, kl=6.6, target=6.0), 6), round(adapted_beta(0.05, kl=99.0, target=6.0), 6)
    (0.0505, 0.051)
    """
    if not target > 0:
        raise ValueError(f"target {target} is not positive")
    return beta * (1 + rate * max(-0.2, min(0.2, kl / target - 1)))


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """How much better than expected each token turned out: rewards, values -> advantages, returns (B, T).

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1};  return_t = A_t + V_t, what
    the critic should have said. After an answer's last token nothing follows: V and A there are 0,
    whatever the critic says about padding. Both are 0 outside the mask and carry no gradient.
    Source: Schulman et al. 2016, equations 11-16, arXiv 1506.02438.

    >>> gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[True, True]]), lam=1.0)
    (tensor([[0.5000, 0.5000]]), tensor([[1., 1.]]))
    """
    for name, other in (("values", values), ("mask", mask)):
        if other.shape != rewards.shape:
            raise ValueError(f"rewards {tuple(rewards.shape)} and {name} {tuple(other.shape)} differ in shape")
    rewards, values = (x.detach().masked_fill(~mask, 0) for x in (rewards, values))
    advantage = next_value = torch.zeros_like(rewards[:, 0])
    backwards = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = (delta + gamma * lam * advantage).masked_fill(~mask[:, t], 0)
        next_value = values[:, t]
        backwards.append(advantage)
    advantages = torch.stack(backwards[::-1], dim=1)
    return advantages, advantages + values


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """The masked values, brought to mean 0 and variance 1 over the whole batch; 0 elsewhere, and where all are equal.

    >>> whiten(torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[True, True, False]]))
    tensor([[-1.,  1.,  0.]])
    """
    centred = (values - masked_mean(values, mask)).masked_fill(~mask, 0)
    return centred * (masked_mean(centred.square(), mask) + 1e-8).rsqrt()  # 1e-8: small beside any reward, and not 0


def surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float = 0.2,
    clip_high: float | None = None,
) -> Tensor:  # fmt: skip
    """PPO's loss of each token: -min(rho A, clip(rho, 1 - clip, 1 + clip) A), rho = pi / pi_old, (B, T).

    The smaller of both: there is nothing to gain from moving rho past the bounds, but a way back always
    counts. `clip_high` opens the upper bound wider. Sources: Schulman et al. 2017, equation 7,
    arXiv 1707.06347; Yu et al. 2025 (DAPO), arXiv 2503.14476.

    >>> surrogate(torch.tensor([0.5, -0.5]).log1p(), torch.zeros(2), torch.tensor([1.0, 1.0]))
    tensor([-1.2000, -0.5000])
    """
    for name, other in (("old_logprobs", old_logprobs), ("advantages", advantages)):
        if other.shape != logprobs.shape:
            raise ValueError(f"logprobs {tuple(logprobs.shape)} and {name} {tuple(other.shape)} differ in shape")
    ratio = (logprobs - old_logprobs.detach()).exp()
    bounded = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    advantages = advantages.detach()
    return -torch.minimum(ratio * advantages, bounded * advantages)


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Tensor:
    """The mean of `surrogate` over the answers' tokens, scalar. At pi = pi_old its gradient is that of -A log pi."""
    same_shape(logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    logprobs, old_logprobs = (x.masked_fill(~mask, 0) for x in (logprobs, old_logprobs))  # padding: ratio 1
    return masked_mean(surrogate(logprobs, old_logprobs, advantages, clip=clip, clip_high=clip_high), mask)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float = 0.2
) -> Tensor:
    """The critic's loss: the mean of 1/2 max((V - R)^2, (V_clip - R)^2), (B, T) -> scalar.

    V_clip is V held within `clip` of the old value. The larger of both: a step past the bound gains nothing. Source:
    Schulman et al. 2017, arXiv 1707.06347, in the form of its authors' code (the paper has (V - R)^2 alone).
    """
    same_shape(values=values, old_values=old_values, returns=returns, mask=mask)
    values, old_values, returns = (x.masked_fill(~mask, 0) for x in (values, old_values.detach(), returns.detach()))
    near = old_values + (values - old_values).clamp(-clip, clip)
    return masked_mean(torch.maximum((values - returns).square(), (near - returns).square()) / 2, mask)


def clip_fraction(
    logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, *, clip: float = 0.2, clip_high: float | None = None
) -> Tensor:
    """The share of the answers' tokens whose ratio has left the bounds: near 0 small steps, past 0.3 too large ones.

    >>> clip_fraction(torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2), torch.tensor([[True, True]]))
    tensor(0.5000)
    """
    same_shape(logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    ratio = (logprobs - old_logprobs).exp()
    outside = (ratio < 1 - clip) | (ratio > 1 + (clip if clip_high is None else clip_high))
    return masked_mean(outside.float(), mask)
