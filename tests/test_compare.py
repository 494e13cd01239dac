"""Two plain values are compared, whatever they are: the comparison is a sentence or None, and never an error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graders.compare import agree, difference
from graders.wire import DTYPES

NUMBERS = st.integers(-(10**400), 10**400) | st.floats() | st.booleans()
TENSORS = st.builds(
    lambda dtype, shape, fill: torch.full(shape, fill).to(dtype),
    st.sampled_from(list(DTYPES.values())),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([0.0, 1.0, float("nan"), float("inf"), -1e30]),
)
PLAIN = st.recursive(
    st.none() | NUMBERS | st.text(max_size=3) | TENSORS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | NUMBERS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(PLAIN, PLAIN)
def test_any_two_values(expected: Any, got: Any) -> None:
    """Any two plain values agree, or a sentence says where they part."""
    found = difference(expected, got)
    assert found is None or (isinstance(found, str) and found)


@given(TENSORS)
def test_a_tensor_agrees_with_itself(value: torch.Tensor) -> None:
    """A tensor of any dtype and shape agrees with itself, NaN and infinity included."""
    assert agree(value, value.clone())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_both_parts_of_a_complex_number_count(dtype: torch.dtype) -> None:
    """Complex tensors that agree in the real part alone do not agree."""
    z = torch.complex(torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)).to(dtype)
    assert agree(z, z.clone())
    assert difference(z, z + 1j) == "at [0, 1]: expected 0, got 1 (3 of 6 differ)"


def test_an_integer_beyond_every_float() -> None:
    """A number too large for a float differs from every other."""
    assert difference(1.5, 10**400) is not None
    assert difference(10**400, 10**400) is None


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


def test_a_float_is_no_count() -> None:
    """Where a whole number is expected, an equal float is told to be one; an int may stand for a float."""
    assert difference(12, 12) is None
    assert difference(12.0, 12) is None
    assert difference(torch.tensor(12.0), 12) is None
    for float_of_it in (12.0, torch.tensor(12.0)):
        assert "a count is an int" in str(difference(12, float_of_it))
        assert "value 1: expected the whole number" in str(difference((1.5, 12), (1.5, float_of_it)))
    assert difference(12, 12.5) == "expected 12, got 12.5"


def test_a_lost_axis_is_told() -> None:
    """A shape that lacks nothing but axes of size 1 is told so, and any other is only shown."""
    told = "expected shape (1, 3, 1), got (3,): an axis of size 1 is gone"
    assert str(difference(torch.ones(1, 3, 1), torch.ones(3))).startswith(told)
    assert difference(torch.ones(3), torch.ones(1, 3)) == "expected shape (3,), got (1, 3)"
    assert difference(torch.ones(1, 3), torch.ones(2)) == "expected shape (1, 3), got (2,)"


def test_a_kind_has_its_article() -> None:
    """Of another kind is said with the article that one hears: a list, an int, an ndarray."""
    assert difference("x", [1]) == "expected a str, got a list"
    assert difference("x", 1) == "expected a str, got an int"
    assert difference(torch.ones(2), np.ones(2)) == "expected a tensor of shape (2,), got an ndarray"
