"""ORPO: instruction tuning and preference in one loss, without a reference model: mean log-probabilities -> scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def log_odds(mean_logprobs: Tensor) -> Tensor:
    """log(p / (1 - p)) of an answer, p = exp(mean log-probability of its tokens), (B,) -> (B,).

    The mean, not the sum: p of a whole answer is so small that 1 - p is 1. A p that has rounded to 1 has
    the largest odds, not infinite ones.

    >>> log_odds(torch.tensor([0.5, 0.75]).log())
    tensor([0.0000, 1.0986])
    """
    x = mean_logprobs.clamp(max=-torch.finfo(mean_logprobs.dtype).tiny)
    return x - (-torch.expm1(x)).log()  # 1 - p by expm1: near p = 1 the difference would lose its digits


def orpo_loss(nll: Tensor, chosen: Tensor, rejected: Tensor, lam: float = 0.1) -> Tensor:
    """Learn the chosen answer, and shun the rejected one a little: nll + lambda L_OR -> scalar.

    nll () is the instruction loss of the chosen answers alone; chosen and rejected (B,) are mean
    log-probabilities of the answers' tokens. L_OR is the mean of -log sigma(log odds_chosen - log
    odds_rejected), ln 2 where both are equally likely.
    Source: Hong et al. 2024, equations 6 and 7, arXiv 2403.07691.

    >>> orpo_loss(torch.tensor(2.0), torch.tensor([-1.0]), torch.tensor([-1.0]), lam=1.0)
    tensor(2.6931)
    """
    if nll.dim() != 0:
        raise ValueError(f"nll is the mean over the chosen answers, of shape (), not {tuple(nll.shape)}")
    if chosen.shape != rejected.shape:
        raise ValueError(f"chosen {tuple(chosen.shape)} and rejected {tuple(rejected.shape)} differ in shape")
    return nll - lam * F.logsigmoid(log_odds(chosen) - log_odds(rejected)).mean()
