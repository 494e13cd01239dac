"""GRPO: several answers to each prompt and their rewards -> PPO's loss without a critic: the group is the critic.

Rewards come as (B, G), G answers to each of B prompts; the answers' tokens as (N, T), N = B G, with
advantages.flatten() beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tinytrans.training.logprobs import masked_mean, same_shape
from tinytrans.training.ppo import k3, surrogate

Normalise = Callable[[Tensor, Tensor], Tensor]


def group_advantages(rewards: Tensor) -> Tensor:
    """How much better than its group each answer is, in standard deviations: rewards (B, G) -> (B, G).

    (r - mean) / std, where std is that of the G rewards themselves (divided by G). A group of equal
    rewards teaches nothing: zeros. Source: Shao et al. 2024 (DeepSeekMath), section 4.1.2, arXiv 2402.03300.

    >>> group_advantages(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    if rewards.dim() != 2:
        raise ValueError(f"rewards come as (prompts, answers to each), not {tuple(rewards.shape)}")
    centred = rewards - rewards.mean(dim=-1, keepdim=True)
    equal = (rewards == rewards[:, :1]).all(dim=-1, keepdim=True)  # rounding: the std of ten times 0.1 is not 0
    std = centred.square().mean(dim=-1, keepdim=True).sqrt()
    return torch.where(equal, 0, centred / std.masked_fill(equal, 1))


def centred_advantages(rewards: Tensor) -> Tensor:
    """The reward minus the group's mean, not scaled: easy and hard prompts keep their weight. (B, G) -> (B, G).

    Source: Liu et al. 2025 (Dr. GRPO), arXiv 2503.20783.
    """
    if rewards.dim() != 2:
        raise ValueError(f"rewards come as (prompts, answers to each), not {tuple(rewards.shape)}")
    return rewards - rewards.mean(dim=-1, keepdim=True)


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """The reward minus the mean of the group's other answers, (B, G) -> (B, G): G / (G - 1) times the centred one.

    An unbiased baseline, for it does not know the answer it judges. Raises ValueError at groups of one.
    Source: Ahmadian et al. 2024 (RLOO), arXiv 2402.14740.

    >>> leave_one_out_advantages(torch.tensor([[0.0, 1.0, 2.0]]))
    tensor([[-1.5000,  0.0000,  1.5000]])
    """
    centred, G = centred_advantages(rewards), rewards.shape[-1]
    if G < 2:
        raise ValueError(f"rewards {tuple(rewards.shape)}: the one answer of a group has no others to be compared with")
    return centred * G / (G - 1)


def per_sequence(losses: Tensor, mask: Tensor) -> Tensor:
    """The mean over each answer, then over answers: all answers weigh the same, a token of a long one less (GRPO)."""
    return (losses.masked_fill(~mask, 0).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)).mean()


per_token: Normalise = masked_mean  # every token of the batch weighs the same: Yu et al. 2025 (DAPO), arXiv 2503.14476


def per_length(length: int) -> Normalise:
    """The sum over each answer by one constant, the longest allowed, so that length earns nothing (Dr. GRPO).

    >>> per_length(4)(torch.ones(2, 3), torch.tensor([[True, True, True], [True, False, False]]))
    tensor(0.5000)
    """
    return partial(_per_length, length=length)


def _per_length(losses: Tensor, mask: Tensor, length: int) -> Tensor:
    return losses.masked_fill(~mask, 0).sum(dim=-1).mean() / length


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    ref_logprobs: Tensor | None = None,
    beta: float = 0.0,
    normalise: Normalise = per_sequence,
) -> Tensor:
    """PPO's clipped loss with one advantage for a whole answer, plus beta KL(policy || reference) -> scalar.

    logprobs, old_logprobs, mask (N, T), mask True at the answer's tokens; advantages (N,). loss_t = -min(rho_t A,
    clip(rho_t) A) + beta k3_t, brought together by `normalise`: `per_sequence`, `per_token` or `per_length(n)`.
    Raises ValueError where shapes disagree, and where just one of beta and ref_logprobs is given. Source: Shao et al.
    2024 (DeepSeekMath), equation 3, arXiv 2402.03300.

    >>> now = torch.zeros(2, 3)
    >>> grpo_loss(now, now, torch.tensor([1.0, -2.0]), torch.ones(2, 3).bool())
    tensor(0.5000)
    """
    same_shape(logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    if advantages.shape != mask.shape[:1]:
        raise ValueError(f"mask {tuple(mask.shape)} wants one advantage a row, not {tuple(advantages.shape)}")
    if (beta != 0) != (ref_logprobs is not None):
        given = None if ref_logprobs is None else tuple(ref_logprobs.shape)
        raise ValueError(f"a KL penalty wants beta and ref_logprobs, not beta {beta} with ref_logprobs {given}")
    each = advantages[:, None].expand_as(mask)
    logprobs, old_logprobs = (x.masked_fill(~mask, 0) for x in (logprobs, old_logprobs))  # padding: ratio 1
    losses = surrogate(logprobs, old_logprobs, each, clip=clip, clip_high=clip_high)
    if ref_logprobs is not None:
        same_shape(mask=mask, ref_logprobs=ref_logprobs)
        losses = losses + beta * k3(logprobs, ref_logprobs.detach().masked_fill(~mask, 0))
    return normalise(losses, mask)
