"""Reward model: pairs of answers, one of them preferred -> a number for each, higher where it is liked better.

Only differences are learned. `0.01 * (chosen + rejected).square().mean()` beside the loss keeps the rewards themselves
around 0 (Eisenstein et al. 2023, arXiv 2312.09244).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.training.logprobs import same_shape


def last_token_reward(values: Tensor, lengths: Tensor) -> Tensor:
    """What stands at each row's last real token, the only one that saw all: (B, T) -> (B,) or (B, T, D) -> (B, D).

    lengths (B,) counts the real tokens, padded on the right. Not the last place, which is padding, nor the first end
    sign, which a conversation has many of. Raises ValueError at a length outside 1 .. T.

    >>> last_token_reward(torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]]), torch.tensor([2, 3]))
    tensor([2., 5.])
    """
    B, T = values.shape[:2]
    if lengths.shape != (B,):
        raise ValueError(f"values {tuple(values.shape)} ask for lengths ({B},), not {tuple(lengths.shape)}")
    if B and not 1 <= int(lengths.min()) <= int(lengths.max()) <= T:
        raise ValueError(f"lengths from {int(lengths.min())} to {int(lengths.max())} do not lie in 1 .. {T}")
    return values[torch.arange(B, device=values.device), lengths - 1]


def pairwise_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """How badly rewards explain the preferences: (B,) of the chosen and (B,) of the rejected -> scalar.

    The mean of -log sigma(r_chosen - r_rejected - margin). Bradley and Terry's model: the better is
    preferred with probability sigma of the difference, so equal rewards cost ln 2, and only differences
    count. Sources: Ouyang et al. 2022, equation 1, arXiv 2203.02155; with a margin Touvron et al. 2023,
    arXiv 2307.09288.

    >>> pairwise_loss(torch.tensor([1.0]), torch.tensor([1.0]))
    tensor(0.6931)
    """
    if chosen.shape != rejected.shape:
        raise ValueError(f"chosen {tuple(chosen.shape)} and rejected {tuple(rejected.shape)} differ in shape")
    return -F.logsigmoid(chosen - rejected - margin).mean()  # log(sigmoid(x)) would be -inf below x = -104


def accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The share of pairs in which the chosen answer has the higher reward; a tie counts half, as a coin would.

    >>> accuracy(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0]))
    tensor(0.5000)
    """
    same_shape(chosen=chosen, rejected=rejected)
    return ((chosen > rejected).float() + (chosen == rejected).float() / 2).mean()


class RewardHead(nn.Module):
    """A model and one linear map from its states to a number: ids (B, T), lengths (B,) -> rewards (B,).

    The body is any causal model whose `hidden(ids)` gives states (B, T, D). The map starts at zero: all answers are
    equally good, and the pairwise loss begins at ln 2, not where the sigmoid is flat. `values` is PPO's critic.
    """

    def __init__(self, body: nn.Module, d_model: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(d_model, 1, bias=False)  # a bias would cancel in every difference
        nn.init.zeros_(self.head.weight)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids (B, T), padded on the right, of which lengths (B,) are real -> the reward of each row, (B,)."""
        return last_token_reward(self.values(ids), lengths)

    def values(self, ids: Tensor) -> Tensor:
        """The number at every token: ids (B, T) -> (B, T)."""
        hidden = cast(Callable[[Tensor], Tensor], self.body.hidden)
        values: Tensor = self.head(hidden(ids)).squeeze(-1)
        return values
