"""Laws of the masks. Oracle: a loop over queries and keys that asks the question in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tinytrans.nn.masks import blocks, causal, decoder_mask, padding, prefix, window


def table(T: int, S: int, may: Callable[[int, int], bool]) -> Tensor:
    """The mask (T, S) that a question about absolute positions (query, key) gives; the queries are the last T."""
    return torch.tensor([[may(S - T + t, s) for s in range(S)] for t in range(T)])


@pytest.mark.parametrize(("T", "S"), [(1, 1), (4, 4), (3, 7), (1, 5)])
def test_causal_is_past_and_present(T: int, S: int) -> None:
    """A query sees key s exactly where s is not after it, counted from the end of the keys."""
    assert torch.equal(causal(T, S), table(T, S, lambda t, s: s <= t))


@pytest.mark.parametrize(("T", "S"), [(6, 6), (3, 7), (1, 5)])
@pytest.mark.parametrize("width", [1, 3, 9])
def test_window_is_the_last_few(T: int, S: int, width: int) -> None:
    """A query sees itself and the width - 1 before it, and neither the future nor the far past."""
    assert torch.equal(window(T, width, S), table(T, S, lambda t, s: t - width < s <= t))


def test_padding_hides_keys_and_not_queries() -> None:
    """Every query of a row sees that row's first lengths[b] keys, an empty row none."""
    mask = padding(torch.tensor([2, 0, 5]), 5)
    assert mask.shape == (3, 1, 5)
    assert mask.sum(dim=-1).flatten().tolist() == [2, 0, 5]
    assert mask[0, 0].tolist() == [True, True, False, False, False]


def test_masks_combine() -> None:
    """A decoder's mask is the meeting of causal, padding and window, place by place."""
    lengths, S, width = torch.tensor([4, 6, 1]), 6, 3
    mask = decoder_mask(lengths, S, width)
    for b, length in enumerate(lengths.tolist()):
        assert torch.equal(mask[b], table(S, S, lambda t, s, n=length: t - width < s <= t and s < n))
    assert torch.equal(decoder_mask(lengths, S), decoder_mask(lengths, S, width=S))


@pytest.mark.parametrize("n", [0, 2, 5])
def test_a_prefix_sees_itself_both_ways(n: int) -> None:
    """Everyone sees the prefix and what is not after them."""
    assert torch.equal(prefix(n, 5), table(5, 5, lambda t, s: s < n or s <= t))


def test_packed_documents_stay_apart() -> None:
    """Two positions see each other exactly where their document numbers are equal."""
    documents = torch.tensor([[0, 0, 1, 1, 1], [3, 4, 4, 4, 3]])
    mask = blocks(documents)
    for b in range(2):
        assert torch.equal(mask[b], table(5, 5, lambda t, s, row=documents[b]: bool(row[t] == row[s])))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_masks_live_where_they_are_told_to() -> None:
    """A mask is made on the device asked for, or on that of the lengths."""
    lengths = torch.tensor([2, 3], device="cuda")
    told = causal(3, device="cuda"), window(3, 2, device="cuda"), prefix(1, 3, device="cuda")
    assert {mask.device.type for mask in (*told, padding(lengths, 3), decoder_mask(lengths, 3, 2))} == {"cuda"}
