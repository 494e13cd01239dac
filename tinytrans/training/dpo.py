"""DPO and its relatives: log-probabilities of a preferred and a rejected answer -> a loss, with no reward model.

Every argument is (B,): what `sequence_logprobs` gives, the prompt left out. The reference is the model before
preference training, in eval mode; no gradient flows into it; zeros in its place do without one. Where a share e of the
preferences may be the wrong way round, (1 - e) dpo_loss(c, r, ref_c, ref_r) + e dpo_loss(r, c, ref_r, ref_c) does not
push without end (Mitchell 2023, "A note on DPO with noisy preferences").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrans.training.logprobs import same_shape
from tinytrans.training.reward import pairwise_loss


def implicit_reward(logprobs: Tensor, ref_logprobs: Tensor, *, beta: float = 0.1) -> Tensor:
    """The reward for which the model would be the best answer to a KL penalty: beta (log pi - log ref), (B,) -> (B,).

    Up to a term of the prompt alone, which cancels between two answers. `reward.accuracy` of these tells how many
    pairs are in order. Source: Rafailov et al. 2023, equation 5, arXiv 2305.18290.
    """
    same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    return beta * (logprobs - ref_logprobs.detach())


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float = 0.1
) -> Tensor:  # fmt: skip
    """The reward model's loss on the implicit rewards: summed log-probabilities (B,) of each -> scalar.

    The mean of -log sigma(beta log(pi_c / ref_c) - beta log(pi_r / ref_r)); ln 2 where the policy is the
    reference. Source: Rafailov et al. 2023, equation 7, arXiv 2305.18290.

    >>> same = torch.tensor([-7.0])
    >>> dpo_loss(same, same, same, same)
    tensor(0.6931)
    """
    for name, other in (("rejected", rejected), ("ref_chosen", ref_chosen), ("ref_rejected", ref_rejected)):
        if other.shape != chosen.shape:
            raise ValueError(f"chosen {tuple(chosen.shape)} and {name} {tuple(other.shape)} differ in shape")
    better = beta * (chosen - ref_chosen.detach())
    worse = beta * (rejected - ref_rejected.detach())
    return pairwise_loss(better, worse)


def ipo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float = 0.1
) -> Tensor:
    """The answers' distance is drawn to 1 / (2 beta), not pushed without end: log-probabilities (B,) -> scalar.

    The mean of (h - 1 / (2 beta))^2, h = (log pi - log ref) of the chosen minus that of the rejected answer; beta is
    the paper's tau. Source: Azar et al. 2023, equation 17, arXiv 2310.12036.
    """
    same_shape(chosen=chosen, rejected=rejected)
    h = implicit_reward(chosen, ref_chosen, beta=1) - implicit_reward(rejected, ref_rejected, beta=1)
    return (h - 1 / (2 * beta)).square().mean()


def simpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float = 2.0, gamma: float = 0.5) -> Tensor:
    """Without a reference, on mean log-probabilities (B,): the mean of -log sigma(beta (c - r) - gamma) -> scalar.

    The mean over an answer's tokens takes the place of the reference, gamma is the least distance asked for.
    Source: Meng et al. 2024, equation 6, arXiv 2405.14734.
    """
    return pairwise_loss(beta * chosen, beta * rejected, margin=gamma)


def kto_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    liked: Tensor,
    kl: Tensor,
    *,
    beta: float = 0.1,
    liked_weight: float = 1.0,
    disliked_weight: float = 1.0,
) -> Tensor:
    """From single answers that were liked or not, without pairs: the mean of w (1 - sigma(+-(r - beta z))) -> scalar.

    liked (B,) is bool and says + or -; r is the implicit reward. z is what is usual, the larger of 0 and the mean of
    kl (M,): log pi - log ref of answers to other prompts, without gradient. Source: Ethayarajh et al. 2024, section
    4, arXiv 2402.01306.
    """
    same_shape(logprobs=logprobs, liked=liked)
    usual = beta * kl.detach().mean().clamp(min=0)
    gain = implicit_reward(logprobs, ref_logprobs, beta=beta) - usual
    losses = torch.where(liked, liked_weight * F.sigmoid(-gain), disliked_weight * F.sigmoid(gain))
    return losses.mean()
