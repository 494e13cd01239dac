"""Naive Bayes: how often words occur in texts of each class -> a linear classifier of word counts, without training.

The oldest answer to "what is this text about", and still the one to beat.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def naive_bayes(counts: Tensor, labels: Tensor, n_classes: int, *, smoothing: float = 1.0) -> nn.Linear:
    """Counts (N, V) of each word in N texts, and their labels (N,) -> a layer from counts (V) to logits (n_classes).

    The logits are log p(class) + sum over words of count log p(word | class), as if each word were drawn by itself;
    every word counts as seen `smoothing` times more in every class, so that none is impossible. Counts may be sparse.
    Raises ValueError for a class without a text. Source: McCallum and Nigam 1998 (the multinomial model).

    >>> import torch
    >>> spam = naive_bayes(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]), 2)
    >>> spam(torch.tensor([1.0, 0.0])).softmax(-1)  # (2 + 1) / (2 + 2) beside (0 + 1) / (2 + 2)
    tensor([0.7500, 0.2500])
    """
    which = F.one_hot(labels, n_classes).to(counts)  # (N, C)
    texts = which.sum(dim=0)
    if not texts.all():
        raise ValueError(f"class {int(texts.argmin())} has no text among {len(labels)}")
    seen = (counts.mT @ which).mT + smoothing  # (C, V); in this order sparse counts can be multiplied, too
    layer = nn.Linear(counts.shape[1], n_classes, dtype=counts.dtype, device=counts.device).requires_grad_(False)
    layer.weight.copy_((seen / seen.sum(dim=1, keepdim=True)).log())
    layer.bias.copy_((texts / len(labels)).log())
    return layer
