"""Laws of the filters. Oracle: the definitions, token by token, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinytrans.sampling.filters import min_p, repetition_penalty, temperature, top_k, top_p

CHANCES = torch.tensor([[0.05, 0.4, 0.15, 0.3, 0.1], [0.2, 0.1, 0.5, 0.05, 0.15]])
FILTERS: list[Callable[[Tensor], Tensor]] = [
    partial(temperature, t=0.7),
    partial(top_k, k=3),
    partial(top_p, p=0.6),
    partial(top_p, p=1.0),
    partial(min_p, p=0.3),
]
some_logits = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12).map(torch.tensor)


def kept(logits: Tensor) -> list[list[int]]:
    """The ids of each row that may still be drawn."""
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


@pytest.mark.parametrize(
    ("filtered", "ids"),
    [
        (partial(top_k, k=1), [[1], [2]]),
        (partial(top_k, k=3), [[1, 2, 3], [0, 2, 4]]),
        (partial(top_k, k=99), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        (partial(top_p, p=0.01), [[1], [2]]),
        (partial(top_p, p=0.45), [[1, 3], [2]]),  # 0.4 is not enough, so the token that crosses 0.45 is in
        (partial(top_p, p=0.75), [[1, 2, 3], [0, 2, 4]]),
        (partial(top_p, p=1.0), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        (partial(min_p, p=0.0), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        (partial(min_p, p=0.3), [[1, 2, 3], [0, 2, 4]]),
        (partial(min_p, p=1.0), [[1], [2]]),
    ],
)
def test_who_stays(filtered: Callable[[Tensor], Tensor], ids: list[list[int]]) -> None:
    """Each filter keeps exactly the tokens of its definition, row by row, wherever they stand."""
    assert kept(filtered(CHANCES.log())) == ids


@pytest.mark.parametrize("filtered", FILTERS)
def test_filters_are_pure(filtered: Callable[[Tensor], Tensor]) -> None:
    """The caller's logits stay as they were."""
    logits = CHANCES.log()
    before = logits.clone()
    filtered(logits)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("filtered", FILTERS[1:])
@given(logits=some_logits)
def test_what_stays_keeps_its_logit(filtered: Callable[[Tensor], Tensor], logits: Tensor) -> None:
    """A filter removes or leaves alone; one token at least stays, among them a most probable one."""
    out = filtered(logits)
    stays = out.isfinite()
    assert stays.any()
    assert torch.equal(out[stays], logits[stays])
    assert out.max() == logits.max()


@given(logits=some_logits, p=st.floats(0.01, 0.99))
def test_the_nucleus_is_the_smallest_that_reaches_p(logits: Tensor, p: float) -> None:
    """The nucleus has at least p of the probability, and without its least token it has less."""
    chances = logits.double().softmax(dim=-1)
    inside = chances[top_p(logits.double(), p).isfinite()]
    assert inside.sum() >= p - 1e-9
    assert inside.sum() - inside.min() < p + 1e-9


def test_a_whole_nucleus_loses_nothing_to_rounding() -> None:
    """p = 1 keeps every token of a large vocabulary, also where the sum of so many chances rounds to more than 1."""
    logits = 3 * torch.randn(4, 50_000, generator=torch.Generator().manual_seed(0))
    assert top_p(logits, 1.0).isfinite().all()


@given(logits=some_logits, k=st.integers(1, 15))
def test_top_k_keeps_k(logits: Tensor, k: int) -> None:
    """Exactly k stay, or all if there are fewer, even among equals, and none that left was larger."""
    stays = top_k(logits, k).isfinite()
    assert stays.sum() == min(k, len(logits))
    assert not (~stays).any() or logits[~stays].max() <= logits[stays].min()


def test_temperature_raises_the_chances_to_a_power() -> None:
    """Temperature t turns probabilities p into p^(1/t), shared out anew; 1 changes nothing."""
    logits = CHANCES.log()
    for t in (0.5, 1.0, 3.0):
        power = CHANCES ** (1 / t)
        torch.testing.assert_close(temperature(logits, t).softmax(-1), power / power.sum(-1, keepdim=True))
    assert torch.equal(temperature(logits, 1.0), logits)


def test_filters_chain() -> None:
    """What one filter has taken away the next does not bring back."""
    logits = top_k(CHANCES.log(), 2)
    assert kept(top_p(logits, 0.99)) == kept(min_p(logits, 0.01)) == kept(top_k(logits, 4)[:, :]) == [[1, 3], [0, 2]]


@pytest.mark.parametrize(
    ("filtered", "message"),
    [
        (partial(temperature, t=0.0), "temperature 0.0"),
        (partial(temperature, t=-1.0), "temperature -1.0"),
        (partial(temperature, t=math.nan), "temperature nan"),
        (partial(top_k, k=0), "top_k 0"),
        (partial(top_p, p=0.0), "top_p 0.0"),
        (partial(top_p, p=1.1), "top_p 1.1"),
        (partial(min_p, p=-0.1), "min_p -0.1"),
    ],
)
def test_meaningless_values_are_refused(filtered: Callable[[Tensor], Tensor], message: str) -> None:
    """A value that has no meaning raises ValueError and is named."""
    with pytest.raises(ValueError, match=message):
        filtered(CHANCES.log())


def test_what_was_said_becomes_less_likely() -> None:
    """Each said token's logit is lowered once, towards or below 0, the others and the caller's logits stay."""
    logits = torch.tensor([[3.0, -1.0, 0.0, 2.0, -4.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    before, ids = logits.clone(), torch.tensor([[0, 1, 0], [4, 4, 4]])
    out = repetition_penalty(logits, ids, 2.0)
    assert out.tolist() == [[1.5, -2.0, 0.0, 2.0, -4.0], [1.0, 2.0, 3.0, 4.0, 2.5]]
    assert torch.equal(repetition_penalty(logits, ids, 1.0), logits)
    assert torch.equal(logits, before)
    with pytest.raises(ValueError, match="repetition_penalty 0"):
        repetition_penalty(logits, ids, 0)


def test_only_what_counts_was_said() -> None:
    """Ids that are padding lower nothing, and a token that is said elsewhere too is lowered all the same."""
    logits, ids = torch.tensor([[4.0, 4.0, 4.0]]), torch.tensor([[0, 1, 1]])
    seen = torch.tensor([[False, False, True]])
    assert repetition_penalty(logits, ids, 2.0, seen).tolist() == [[4.0, 2.0, 4.0]]
    assert repetition_penalty(logits, ids.flip(1), 2.0, seen.flip(1)).tolist() == [[4.0, 2.0, 4.0]]
