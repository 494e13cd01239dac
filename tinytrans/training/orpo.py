"""ORPO: instruction tuning and preference in one loss, without a reference model: mean log-probabilities -> scalar."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrans.training.logprobs import same_shape


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, to the last digit: from the log-probability of "that" to that of "not that".

    Above -ln 2 by expm1, where 1 - exp(x) would cancel; below by log1p, where it would round to 1. Source: Maechler
    2012, "Accurately computing log(1 - exp(-|a|))", R package Rmpfr.

    >>> log1mexp(torch.tensor([-1e-30, math.log(0.5)]))
    tensor([-69.0776,  -0.6931])
    """
    near = x > -math.log(2)
    above = (-torch.expm1(x)).log()
    below = torch.log1p(-x.masked_fill(near, -1).exp())  # at 0 its gradient is infinite, and where() lets 0 * inf in
    return torch.where(near, above, below)


def log_odds(mean_logprobs: Tensor) -> Tensor:
    """log(p / (1 - p)) of an answer, p = exp(mean log-probability of its tokens), (B,) -> (B,).

    The mean, not the sum: p of a whole answer is so small that 1 - p is 1. A p that has rounded to 1 has the largest
    odds, not infinite ones.

    >>> log_odds(torch.tensor([0.5, 0.75]).log())
    tensor([0.0000, 1.0986])
    """
    x = mean_logprobs.clamp(max=-torch.finfo(mean_logprobs.dtype).tiny)
    return x - log1mexp(x)


def odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The mean of -log sigma(log odds_chosen - log odds_rejected): mean log-probabilities (B,) -> scalar.

    ln 2 where both are equally likely. Source: Hong et al. 2024, equation 7, arXiv 2403.07691.
    """
    same_shape(chosen=chosen, rejected=rejected)
    return -F.logsigmoid(log_odds(chosen) - log_odds(rejected)).mean()


def orpo_loss(nll: Tensor, chosen: Tensor, rejected: Tensor, *, lam: float = 0.1) -> Tensor:
    """Learn the chosen answer, and shun the rejected one a little: nll + lambda * odds_ratio_loss -> scalar.

    nll () is the instruction loss of the chosen answers alone; chosen and rejected (B,) are mean log-probabilities of
    the answers' tokens. Source: Hong et al. 2024, equation 6, arXiv 2403.07691.

    >>> orpo_loss(torch.tensor(2.0), torch.tensor([-1.0]), torch.tensor([-1.0]), lam=1.0)
    tensor(2.6931)
    """
    if nll.dim() != 0:
        raise ValueError(f"nll is the mean over the chosen answers, of shape (), not {tuple(nll.shape)}")
    return nll + lam * odds_ratio_loss(chosen, rejected)
