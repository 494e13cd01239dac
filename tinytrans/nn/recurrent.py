"""Recurrent cells: an input (B, E) and a state (B, D) -> the next state (B, D); and attention over what they said.

The readable functions come first, the way the papers write them; torch's nn.RNN, nn.GRU and nn.LSTM, which models use,
give the same numbers with the same weights. A weight matrix (D, E) is torch's: one row for each number that comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

LSTMState: TypeAlias = tuple[Tensor, Tensor]
"""What it says, h, and what it keeps to itself, c: both (B, D)."""


def rnn_step(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor) -> Tensor:
    """One step of the plain cell: what comes in and what was remembered make the new memory.

    h' = tanh(W_x x + W_h h + b): x (B, E), h (B, D), w_x (D, E), w_h (D, D), b (D,) -> (B, D).
    The state is the output too: the next step gets it, and whoever reads the sequence.
    Source: Elman 1990, Cognitive Science 14.

    >>> one, two = torch.ones(1, 1), torch.ones(1, 2)
    >>> rnn_step(two, one, two, -one, torch.zeros(1))
    tensor([[0.7616]])
    """
    return torch.tanh(x @ w_x.T + h @ w_h.T + b)


def gru_step(x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """One step of the gated cell: a gate z says, number by number, how much of the old state stays.

    r = sigmoid(W_r x + b_r + U_r h + c_r), z = sigmoid(W_z x + b_z + U_z h + c_z),
    n = tanh(W_n x + b_n + r (U_n h + c_n)), h' = (1 - z) n + z h. x (B, E), h (B, D), w_x (3 D, E)
    holds W_r, W_z, W_n below each other, w_h (3 D, D) and the biases b and c (3 D,) likewise -> (B, D).
    Source: Cho et al. 2014, arXiv 1406.1078, with the reset after the product, as in cuDNN.

    >>> zeros = torch.zeros
    >>> gru_step(zeros(1, 2), torch.ones(1, 1), zeros(3, 2), zeros(3, 1), zeros(3), zeros(3))
    tensor([[0.5000]])
    """
    r_x, z_x, n_x = (x @ w_x.T + b_x).chunk(3, dim=-1)
    r_h, z_h, n_h = (h @ w_h.T + b_h).chunk(3, dim=-1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return (1 - z) * n + z * h


def lstm_step(x: Tensor, state: LSTMState, w_x: Tensor, w_h: Tensor, b: Tensor) -> LSTMState:
    """One step of the long short-term memory: c is changed by sums alone, so that gradients pass.

    i, f, o = sigmoid of their parts of W_x x + W_h h + b, g = tanh of its part, in the order
    i, f, g, o; c' = f c + i g, h' = o tanh(c'). x (B, E), h and c (B, D), w_x (4 D, E),
    w_h (4 D, D), b (4 D,) -> (h', c'). Source: Hochreiter and Schmidhuber 1997; the gate f is by
    Gers et al. 2000.

    >>> zeros, c = torch.zeros, torch.full((1, 1), 4.0)
    >>> lstm_step(zeros(1, 1), (zeros(1, 1), c), zeros(4, 1), zeros(4, 1), zeros(4))[1]
    tensor([[2.]])
    """
    h, c = state
    i, f, g, o = (x @ w_x.T + h @ w_h.T + b).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def unroll(xs: Tensor, h: Tensor, lengths: Tensor, *cell: Tensor) -> tuple[Tensor, Tensor]:
    """The same gated cell at every place: its states (B, T, D), and the last one of each row (B, D).

    h_t = gru_step(x_t, h_(t-1), w_x, w_h, b_x, b_h), for xs (B, T, E) and a first state h (B, D);
    `cell` is those four weights. Row b ends after lengths[b] places: its state then stays as it is,
    and its outputs are 0.

    >>> zeros, xs = torch.zeros, torch.zeros(1, 3, 1)
    >>> still = zeros(3, 1), zeros(3, 1), zeros(3), zeros(3)
    >>> unroll(xs, torch.ones(1, 1), torch.tensor([2]), *still)[0].flatten()
    tensor([0.5000, 0.2500, 0.0000])
    """
    states = []
    for t in range(xs.shape[1]):
        real = (t < lengths).unsqueeze(-1)  # (B, 1)
        h = torch.where(real, gru_step(xs[:, t], h, *cell), h)
        states.append(torch.where(real, h, 0))
    return torch.stack(states, dim=1), h


def additive_scores(query: Tensor, keys: Tensor, w_q: Tensor, w_k: Tensor, v: Tensor) -> Tensor:
    """How well each key fits the query, by a small network: query (B, D), keys (B, S, M) -> (B, S).

    score_s = v . tanh(W_q query + W_k key_s), with w_q (A, D), w_k (A, M), v (A,). The query is the
    decoder's state before the step, the keys are the encoder's outputs.
    Source: Bahdanau et al. 2014, appendix A.1.2, arXiv 1409.0473.

    >>> ones = torch.ones
    >>> additive_scores(ones(1, 2), torch.zeros(1, 3, 4), ones(5, 2), ones(5, 4), ones(5) / 5)
    tensor([[0.9640, 0.9640, 0.9640]])
    """
    hidden = torch.tanh((query @ w_q.T).unsqueeze(1) + keys @ w_k.T)  # (B, S, A)
    return hidden @ v


def attention_pool(scores: Tensor, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scores (B, S) and values (B, S, M) -> the values' weighted mean (B, M), the weights (B, S).

    weights = softmax over S, context = sum_s weights_s values_s. The mask (B, S), True = may look,
    hides padding before the softmax, so that the weights of what is real sum to 1. Each row may look
    at one place at least.

    >>> values = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> attention_pool(torch.zeros(1, 3), values, torch.tensor([[True, True, False]]))
    (tensor([[2.]]), tensor([[0.5000, 0.5000, 0.0000]]))
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1)
    return (weights.unsqueeze(1) @ values).squeeze(1), weights


def attentive_step(
    x: Tensor, s: Tensor, memory: Tensor, mask: Tensor, look: Sequence[Tensor], cell: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of a decoder that looks back: the state before it looks at the memory, then it moves.

    c = sum_i alpha_i h_i with alpha = softmax(additive_scores(s, memory)), s' = gru_step([x, c], s).
    x (B, E), s (B, D), memory (B, S, M), mask (B, S), True = may look; look is w_q, w_k, v of
    `additive_scores`, cell is w_x (3 D, E + M), w_h, b_x, b_h of `gru_step`
    -> s' (B, D), c (B, M), alpha (B, S). Source: Bahdanau et al. 2014, arXiv 1409.0473.
    """
    context, weights = attention_pool(additive_scores(s, memory, *look), memory, mask)
    return gru_step(torch.cat((x, context), dim=-1), s, *cell), context, weights


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each row's first lengths[b] places in the other order, its padding where it was: (B, T, ...) -> (B, T, ...).

    >>> reverse(torch.tensor([[1, 2, 3, 0]]), torch.tensor([3]))
    tensor([[3, 2, 1, 0]])
    """
    places = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    turned = torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)
    return x[torch.arange(len(x), device=x.device)[:, None], turned]


class AdditiveAttention(nn.Module):
    """`additive_scores` and `attention_pool` with their weights; the keys' part is computed once for all steps.

    >>> attention = AdditiveAttention(query_width=2, key_width=3, width=4)
    >>> keys = torch.zeros(1, 5, 3)
    >>> attention(torch.zeros(1, 2), keys, attention.prepare(keys))[0].shape
    torch.Size([1, 3])
    """

    def __init__(self, query_width: int, key_width: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_width, width, bias=False)
        self.key = nn.Linear(key_width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def prepare(self, keys: Tensor) -> Tensor:
        """W_k key for every place: (B, S, M) -> (B, S, A)."""
        return self.key(keys)

    def forward(
        self, query: Tensor, values: Tensor, prepared: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Query (B, D), values (B, S, M), prepared (B, S, A), mask (B, S) -> context (B, M), weights (B, S)."""
        hidden = torch.tanh(self.query(query).unsqueeze(1) + prepared)
        return attention_pool(self.score(hidden).squeeze(-1), values, mask)


CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
"""name -> torch's layer of that cell, whole sequences in one call."""
