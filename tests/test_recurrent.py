"""Laws of recurrent cells and of additive attention. Oracles: torch's cells with the same weights, plain loops."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from tinytrans.nn.recurrent import (
    AdditiveAttention,
    additive_scores,
    attention_pool,
    attentive_step,
    gru_step,
    lstm_step,
    reverse,
    rnn_step,
    unroll,
)

B, S, E, D, M, A = 3, 6, 5, 7, 8, 9
LENGTHS = torch.tensor([4, 6, 1])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rnn_by_hand() -> None:
    """tanh(2 * 0.5 + 3 * 0.25 - 1) for one number of each kind."""
    one = torch.ones(1, 1)
    h = rnn_step(2 * one, 3 * one, 0.5 * one, 0.25 * one, -torch.ones(1))
    assert h.item() == pytest.approx(math.tanh(0.75))


def test_cells_are_torch() -> None:
    """Each cell, written out, takes the step of torch's cell with the same weights."""
    x, h, c = draw(B, E), draw(B, D, seed=1), draw(B, D, seed=2)
    rnn, gru, lstm = nn.RNNCell(E, D).double(), nn.GRUCell(E, D).double(), nn.LSTMCell(E, D).double()
    w = (rnn.weight_ih, rnn.weight_hh, rnn.bias_ih + rnn.bias_hh)
    torch.testing.assert_close(rnn_step(x, h, *w), rnn(x, h))
    torch.testing.assert_close(gru_step(x, h, gru.weight_ih, gru.weight_hh, gru.bias_ih, gru.bias_hh), gru(x, h))
    w = (lstm.weight_ih, lstm.weight_hh, lstm.bias_ih + lstm.bias_hh)
    torch.testing.assert_close(lstm_step(x, (h, c), *w), lstm(x, (h, c)))


def test_gates_at_their_ends() -> None:
    """A GRU whose gate z is open keeps its state; an LSTM that forgets nothing and lets nothing in keeps its c."""
    x, h, c = draw(B, E), draw(B, D), draw(B, D, seed=1)
    wide, square = torch.zeros(3 * D, E).double(), torch.zeros(3 * D, D).double()
    open_z = torch.cat((torch.zeros(D), torch.full((D,), 99.0), torch.zeros(D))).double()
    torch.testing.assert_close(gru_step(x, h, wide, square, open_z, torch.zeros(3 * D)), h)
    gates = torch.tensor([-99.0, 99.0, 5.0, 99.0]).repeat_interleave(D).double()  # i, f, g, o
    zeros = torch.zeros(4 * D, E).double(), torch.zeros(4 * D, D).double()
    said, kept = lstm_step(x, (h, c), *zeros, gates)
    torch.testing.assert_close(kept, c)
    torch.testing.assert_close(said, c.tanh())


def test_unrolled_is_torch_on_each_row_alone() -> None:
    """Unrolled over a padded batch, a GRU says of each row what torch's GRU says of it alone; padding says 0."""
    gru, xs, h = nn.GRU(E, D, batch_first=True).double(), draw(B, S, E), draw(B, D, seed=1)
    w = gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0
    states, last = unroll(xs, h, LENGTHS, *w)
    for b, n in enumerate(LENGTHS.tolist()):
        alone, end = gru(xs[b : b + 1, :n], h[None, b : b + 1])
        torch.testing.assert_close(states[b, :n], alone[0])
        torch.testing.assert_close(last[b], end[0, 0])
        assert not states[b, n:].any()


def test_reverse_leaves_padding_behind() -> None:
    """Only what is real turns round, and twice turned is as before."""
    x = draw(B, S, E)
    turned = reverse(x, LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        assert torch.equal(turned[b], torch.cat((x[b, :n].flip(0), x[b, n:])))
    assert torch.equal(reverse(turned, LENGTHS), x)


def test_additive_scores_by_hand() -> None:
    """v . tanh(W_q q + W_k k), key by key and number by number."""
    query, keys = draw(B, D), draw(B, S, M, seed=1)
    w_q, w_k, v = draw(A, D, seed=2), draw(A, M, seed=3), draw(A, seed=4)
    scores = additive_scores(query, keys, w_q, w_k, v)
    assert scores.shape == (B, S)
    for b, s in product(range(B), range(S)):
        inner = [math.tanh((w_q[a] @ query[b] + w_k[a] @ keys[b, s]).item()) for a in range(A)]
        assert scores[b, s].item() == pytest.approx(math.fsum(v[a].item() * inner[a] for a in range(A)))


def test_attention_pools_the_values_and_not_the_scores() -> None:
    """The context is the values' mean by weights that are a softmax over what is real and 0 at padding."""
    scores, values = draw(B, S), draw(B, S, M, seed=1)
    mask = torch.arange(S) < LENGTHS[:, None]
    context, weights = attention_pool(scores, values, mask)
    for b, n in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(weights[b, :n], scores[b, :n].softmax(0))
        assert not weights[b, n:].any()
        torch.testing.assert_close(context[b], sum(weights[b, s] * values[b, s] for s in range(n)))


def test_an_attentive_step_looks_before_it_moves() -> None:
    """The state before the step asks; the cell reads the token and behind it the context."""
    x, s, memory, mask = draw(B, E), draw(B, D, seed=1), draw(B, S, M, seed=2), torch.arange(S) < LENGTHS[:, None]
    look = draw(A, D, seed=3), draw(A, M, seed=4), draw(A, seed=5)
    cell = nn.GRUCell(E + M, D).double()
    w = cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh
    after, context, weights = attentive_step(x, s, memory, mask, look, w)
    for b, n in enumerate(LENGTHS.tolist()):
        scores = [look[2] @ torch.tanh(look[0] @ s[b] + look[1] @ memory[b, i]) for i in range(n)]
        shares = torch.stack(scores).softmax(0)
        torch.testing.assert_close(weights[b, :n], shares)
        torch.testing.assert_close(context[b], shares @ memory[b, :n])
    torch.testing.assert_close(after, cell(torch.cat((x, context), dim=1), s))


def test_the_module_is_the_functions() -> None:
    """AdditiveAttention computes `additive_scores` and `attention_pool` with its own weights."""
    attention = AdditiveAttention(D, M, A).double()
    query, keys = draw(B, D), draw(B, S, M, seed=1)
    mask = torch.arange(S) < LENGTHS[:, None]
    w = attention.query.weight, attention.key.weight, attention.score.weight[0]
    expected = attention_pool(additive_scores(query, keys, *w), keys, mask)
    torch.testing.assert_close(attention(query, keys, attention.prepare(keys), mask), expected)
