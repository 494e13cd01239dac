"""Laws of comparing: NaN and infinity agree with themselves alone, everything else within a tolerance."""

from __future__ import annotations

import math

import pytest
import torch

from graders.compare import agree

SPECIAL = (math.inf, -math.inf, math.nan)


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("other", [*SPECIAL, 0.0, -1e9, -3.4e38])
def test_what_is_not_finite_agrees_with_itself_alone(special: float, other: float) -> None:
    """A filtered logit of -inf is not -1e9, nor the least number of its dtype, in whichever order."""
    same = str(special) == str(other)
    a, b = torch.tensor([1.0, special]), torch.tensor([1.0, other])
    assert agree(a, b) == same
    assert agree(b, a) == same


def test_what_is_finite_agrees_within_a_tolerance() -> None:
    """The tolerance is relative for what is large, absolute near 0; shapes and kinds must be the same."""
    assert agree(torch.tensor([1e6, 0.0]), torch.tensor([1e6 + 50, 1e-6]))
    assert not agree(torch.tensor([1e6]), torch.tensor([1e6 + 500]))
    assert not agree(torch.tensor([0.0]), torch.tensor([1e-4]))
    assert not agree(torch.tensor([1.0]), torch.tensor([[1.0]]))
    assert not agree(torch.tensor([1.0]), torch.tensor([1]))
