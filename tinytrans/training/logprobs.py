"""Log-probabilities: logits (B, T, V) and the tokens that came -> how likely each token, each answer, was.

Position t of the logits speaks about position t of the targets: the shift is the caller's, once and in the open.

    inputs, targets = ids[:, :-1], ids[:, 1:]
    token_logprobs(model(inputs), targets)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytrans.training.pretrain import cross_entropy


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each token that came: logits (B, T, V), targets (B, T) -> (B, T), in nats.

    log p(y_t) = z_t[y_t] - log sum_v exp z_t[v]. Where the target is -100 nothing was asked, and it is 0.
    Raises ValueError where the shapes disagree, as logits for T + 1 positions that have not been shifted do, and for
    a target that is none of the V.

    >>> token_logprobs(torch.zeros(1, 2, 4), torch.tensor([[3, -100]])).exp()
    tensor([[0.2500, 1.0000]])
    """
    if logits.shape[:-1] != targets.shape:
        want, got = tuple(logits.shape[:-1]), tuple(targets.shape)
        raise ValueError(f"logits {tuple(logits.shape)} ask for targets {want}, not {got}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half precision has three digits
    return -cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view_as(targets)


def sequence_logprobs(
    logits: Tensor, targets: Tensor, mask: Tensor | None = None, mean: bool = False
) -> Tensor:  # fmt: skip
    """How likely each whole answer was: the sum of its tokens' log-probabilities, (B,), or their mean.

    logits (B, T, V), targets (B, T); mask (B, T): True at the tokens that count; without it all whose
    target is not -100. DPO wants the sum, ORPO and SimPO the mean, which does not favour short answers.
    An answer of no token gets 0.

    >>> answer = torch.tensor([[False, True, True]])
    >>> sequence_logprobs(torch.zeros(1, 3, 4), torch.tensor([[1, 2, 3]]), answer).exp()
    tensor([0.0625])
    """
    mask = targets != -100 if mask is None else mask
    if mask.shape != targets.shape:
        raise ValueError(f"targets {tuple(targets.shape)} and mask {tuple(mask.shape)} differ in shape")
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half precision has three digits
    surprise = F.cross_entropy(wide.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    total = -surprise.masked_fill(~mask, 0).sum(dim=-1)
    return total / mask.sum(dim=-1).clamp(min=1) if mean else total


def entropy(logits: Tensor) -> Tensor:
    """How undecided the model is at each place: logits (..., V) -> -sum_v p_v log p_v, (...), in nats, from 0 to ln V.

    A token of logit -inf has no part in it.

    >>> entropy(torch.zeros(4)).exp()
    tensor(4.)
    """
    logp = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    finite = logp.clamp(min=torch.finfo(logp.dtype).min)  # 0 * -inf is NaN
    return -(logp.exp() * finite).sum(dim=-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values where the mask is True, of shape (); 0 where it is nowhere True. Others may even be NaN.

    >>> masked_mean(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    same_shape(values=values, mask=mask)
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def same_shape(**tensors: Tensor) -> None:
    """Raises ValueError where the named tensors differ in shape: (B,) beside (B, 1) would quietly become (B, B)."""
    (first, one), *rest = tensors.items()
    for name, other in rest:
        if other.shape != one.shape:
            raise ValueError(f"{first} {tuple(one.shape)} and {name} {tuple(other.shape)} differ in shape")
