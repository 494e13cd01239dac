"""Masks: lengths -> bool (T, S), True = may look.

A mask is a plain tensor, so masks combine with `&`: `causal(T) & window(T, 128) & padding(lengths, T)`.
With T < S the queries are the last T of the S positions, as in decoding with a cache.
"""

from __future__ import annotations

import torch
from torch import Tensor


def causal(T: int, S: int | None = None, *, device: torch.device | str | None = None) -> Tensor:
    """A query sees itself and what stands before it, never what comes after: bool (T, S).

    The T queries are the last T of the S positions (S = T unless given).
    Source: Vaswani et al. 2017, section 3.2.3, arXiv 1706.03762.

    >>> causal(3).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    S = T if S is None else S
    queries = torch.arange(S - T, S, device=device)
    keys = torch.arange(S, device=device)
    return keys[None, :] <= queries[:, None]


def padding(lengths: Tensor, S: int) -> Tensor:
    """No query looks at padding: lengths (B,) -> bool (B, 1, S).

    True at the first lengths[b] keys of row b. The middle axis is 1: all queries of a row see the
    same keys.

    >>> padding(torch.tensor([2, 3]), 3).int().tolist()
    [[[1, 1, 0]], [[1, 1, 1]]]
    """
    keys = torch.arange(S, device=lengths.device)
    return (keys[None, :] < lengths[:, None]).unsqueeze(1)


def window(T: int, width: int, S: int | None = None, *, device: torch.device | str | None = None) -> Tensor:
    """A query sees itself and the width - 1 positions before it: bool (T, S).

    The T queries are the last T of the S positions (S = T unless given); width 1 sees itself alone.
    Source: Beltagy et al. 2020, arXiv 2004.05150; Jiang et al. 2023 (Mistral 7B), arXiv 2310.06825.

    >>> window(3, 2).int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    S = T if S is None else S
    queries = torch.arange(S - T, S, device=device)
    keys = torch.arange(S, device=device)
    behind = queries[:, None] - keys[None, :]
    return (behind >= 0) & (behind < width)


def decoder_mask(lengths: Tensor, S: int, width: int | None = None) -> Tensor:
    """What a decoder may see in a padded batch: lengths (B,) -> bool (B, S, S).

    Causal, and never padding, and with a width only the sliding window: the three combine with `&`.

    >>> decoder_mask(torch.tensor([2]), 3).int().tolist()
    [[[1, 0, 0], [1, 1, 0], [1, 1, 0]]]
    """
    mask = causal(S, device=lengths.device) & padding(lengths, S)
    if width is not None:
        mask = mask & window(S, width, device=lengths.device)
    return mask


def prefix(n: int, T: int, *, device: torch.device | str | None = None) -> Tensor:
    """The first n positions see each other both ways, the rest is causal: bool (T, T).

    Source: Raffel et al. 2020 (T5, prefix LM), arXiv 1910.10683.

    >>> prefix(2, 3).int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    return causal(T, device=device) | (torch.arange(T, device=device) < n)


def blocks(documents: Tensor) -> Tensor:
    """Packed documents stay apart: document numbers (B, T) -> bool (B, T, T), True within one document.

    >>> blocks(torch.tensor([[0, 0, 1]])).int().tolist()
    [[[1, 1, 0], [1, 1, 0], [0, 0, 1]]]
    """
    return documents[:, :, None] == documents[:, None, :]
