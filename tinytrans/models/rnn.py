"""Recurrent encoder-decoder: source ids (B, S) and target ids so far (B, T) -> logits of the next (B, T, V).

An encoder reads the source into a state, a decoder writes from it, and with attention also looks back at what the
encoder said at every place. `tinytrans.nn.recurrent` has the cells and the attention written out.
`model.given(source)` is the decoder alone with its source at hand, for `generate` and `beam_search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tinytrans.config import RNNConfig
from tinytrans.models.given_source import GivenSource
from tinytrans.models.pretrained import Pretrained
from tinytrans.models.stack import check_ids
from tinytrans.nn.recurrent import CELLS, AdditiveAttention, attentive_step

State: TypeAlias = tuple[Tensor, ...]
"""(h,), or for an LSTM (h, c), each (n_layers, B, D)."""


class Memory(NamedTuple):
    """What is kept of a source: values (B, S, M), their part of the scores (B, S, A) if any, bool (B, S), the state."""

    values: Tensor
    prepared: Tensor | None
    mask: Tensor
    state: State

    def times(self, k: int) -> Memory:
        """Each source k times in turn, for k beams or k samples of it."""
        if k == 1:
            return self
        prepared = None if self.prepared is None else self.prepared.repeat_interleave(k, 0)
        state = tuple(part.repeat_interleave(k, 1) for part in self.state)
        return Memory(self.values.repeat_interleave(k, 0), prepared, self.mask.repeat_interleave(k, 0), state)


class Translation(NamedTuple):
    """Target ids (B, T), and with attention how much of each source place every step has read (B, T, S)."""

    ids: Tensor
    weights: Tensor | None


class Encoder(nn.Module):
    """Reads a source, with `bidirectional` from both ends: ids (B, S) -> outputs (B, S, M) and a state for the decoder.

    Both directions' last states are joined, and a layer brings them to the decoder's width.
    """

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        D, M = config.d_model, config.memory_width
        self.embedding = nn.Embedding(config.source_vocab_size, config.embedding_width)
        self.rnn = build_rnn(config, config.embedding_width, bidirectional=config.bidirectional)
        parts = 2 if config.cell == "lstm" else 1
        self.bridge = nn.ModuleList(nn.Linear(M, D) for _ in range(parts)) if config.bidirectional else None
        self.dropout = config.dropout

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Source (B, S), of which lengths (B,) are real -> outputs (B, S, M), 0 at padding, and the state."""
        x = F.dropout(self.embedding(source), self.dropout, self.training)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, last = self.rnn(packed)
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.shape[1])
        state = last if isinstance(last, tuple) else (last,)
        if self.bridge is None:
            return padded, state
        both = [part.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2) for part in state]  # (n_layers, B, 2 D)
        return padded, tuple(torch.tanh(bridge(part)) for bridge, part in zip(self.bridge, both, strict=True))


class Decoder(nn.Module):
    """Writes the target, each step from the token before, its state and, with attention, a look at the source."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        D, M, E = config.d_model, config.memory_width, config.embedding_width
        self.embedding = nn.Embedding(config.target_vocab_size, E)
        self.attention = AdditiveAttention(D, M, D) if config.attention == "additive" else None
        context = M if self.attention is not None else 0
        self.rnn = build_rnn(config, E + context)
        self.head = nn.Linear(D + context, config.target_vocab_size)
        self.dropout = config.dropout

    def forward(self, ids: Tensor, memory: Memory, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Ids (B, T), the token before each step -> logits (B, T, V), the state after, weights (B, T, S) if any.

        All steps at once where no step needs the one before but for its state: without attention.
        """
        x = F.dropout(self.embedding(ids), self.dropout, self.training)
        if self.attention is None:
            outputs, state = run(self.rnn, x, state)
            return self.head(F.dropout(outputs, self.dropout, self.training)), state, None
        steps, looks = [], []
        for t in range(ids.shape[1]):
            output, state, weights = self.step(x[:, t], memory, state)
            steps.append(output)
            looks.append(weights)
        outputs = torch.stack(steps, dim=1)  # (B, T, D + M)
        return self.head(F.dropout(outputs, self.dropout, self.training)), state, torch.stack(looks, dim=1)

    def step(self, x: Tensor, memory: Memory, state: State) -> tuple[Tensor, State, Tensor]:
        """One step with attention: x (B, E) -> what the head reads (B, D + M), the new state, weights (B, S).

        The query is the state before the step: where to look is decided before anything is said. Raises ValueError
        where the decoder has no attention.
        """
        if self.attention is None or memory.prepared is None:
            raise ValueError("this decoder has no attention")
        context, weights = self.attention(state[0][-1], memory.values, memory.prepared, memory.mask)
        output, state = run(self.rnn, torch.cat((x, context), dim=-1).unsqueeze(1), state)
        return torch.cat((output.squeeze(1), context), dim=-1), state, weights


class Seq2Seq(Pretrained):
    """An encoder and a decoder of recurrent cells, as the config says: `model(source, target, lengths=lengths)`.

    To learn, hand in the targets shifted right, so that each step reads the right token before it (teacher forcing).
    Sources: Sutskever et al. 2014, arXiv 1409.3215; Cho et al. 2014, arXiv 1406.1078; Bahdanau et al. 2014 (attention),
    arXiv 1409.0473.

    >>> model = Seq2Seq(RNNConfig(source_vocab_size=9, target_vocab_size=11, d_model=6))
    >>> model(torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[0, 7, 8]])).shape
    torch.Size([1, 3, 11])
    """

    Config = RNNConfig

    def __init__(self, config: RNNConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def forward(self, source: Tensor, target: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Source (B, S) and target (B, T) -> logits (B, T, V); those at t predict target t + 1.

        Of each source lengths (B,) places are real, all S unless given. Raises ValueError for ids or lengths that do
        not fit.
        """
        memory = self.read(source, lengths)
        self.check_target(target, memory)
        return self.decoder(target, memory, memory.state)[0]

    def align(self, source: Tensor, target: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """How much of each source place every step reads while it is told the target: (B, T, S), rows sum to 1.

        Raises ValueError for ids or lengths that do not fit, and where the model has no attention.
        """
        memory = self.read(source, lengths)
        self.check_target(target, memory)
        weights = self.decoder(target, memory, memory.state)[2]
        if weights is None:
            raise ValueError("this model has no attention to show")
        return weights

    def read(self, source: Tensor, lengths: Tensor | None = None) -> Memory:
        """Source (B, S) -> what the decoder needs of it, once for all steps; raises ValueError as `forward` does."""
        check_ids(source, self.config.source_vocab_size, "source vocabulary")
        B, S = source.shape
        lengths = torch.full((B,), S, device=source.device) if lengths is None else lengths
        check_lengths(lengths, B, S)
        values, state = self.encoder(source, lengths)
        prepared = None if self.decoder.attention is None else self.decoder.attention.prepare(values)
        return Memory(values, prepared, torch.arange(S, device=source.device) < lengths[:, None], state)

    @torch.no_grad()
    def translate(
        self, source: Tensor, *, start: int, stop: int, max_new_tokens: int, lengths: Tensor | None = None
    ) -> Translation:
        """The likeliest token at each step, from `start` to `stop`: source (B, S) -> ids (B, T) and weights (B, T, S).

        Ids are without the start, and a row repeats its stop until all have stopped, or after max_new_tokens.
        A model in training mode is asked as it is: call `eval()` first. Raises FloatingPointError, naming the step and
        the row, where logits are NaN or infinite.
        """
        memory = self.read(source, lengths)
        token = torch.full_like(source[:, :1], start)
        finished = torch.zeros_like(token, dtype=torch.bool)
        state, ids, looks, largest = memory.state, [], [], []
        for _ in range(max_new_tokens):
            logits, state, weights = self.decoder(token, memory, state)
            highest, likeliest = logits.max(dim=-1)
            largest.append(highest)
            token = likeliest.masked_fill(finished, stop)  # (B, 1)
            ids.append(token)
            if weights is not None:
                looks.append(weights)
            finished = finished | (token == stop)
            if finished.all():
                break
        if largest and len(broken := (~torch.cat(largest, dim=1).isfinite()).T.nonzero()):  # looked at once, at the end
            step, row = broken[0].tolist()
            raise FloatingPointError(f"the logits of row {row} hold NaN or infinity at step {step}")
        said = torch.cat(ids, dim=1) if ids else source[:, :0]
        return Translation(said, torch.cat(looks, dim=1) if looks else None)

    def given(self, source: Tensor, *, lengths: Tensor | None = None) -> GivenSource:
        """The decoder with this source at hand: `beam_search(model.given(source), start_ids, max_new_tokens=20)`."""
        return GivenSource(self, source, lengths)

    def check_target(self, target: Tensor, memory: Memory) -> None:
        """Raise ValueError for target ids that do not go with the source."""
        check_ids(target, self.config.target_vocab_size, "target vocabulary")
        if len(target) != len(memory.values):
            raise ValueError(f"{len(target)} targets do not fit {len(memory.values)} sources")


def teacher_forced_loss(logits: Tensor, targets: Tensor, stop: int) -> Tensor:
    """How surprised a decoder is by the targets, up to each row's first `stop` and with it: nats a token.

    The mean, of shape (), of -log softmax(logits)[target] over all tokens of the batch that count.
    logits (B, T, V); targets (B, T), each row with a stop in it; what stands behind that is padding
    and does not count.

    >>> teacher_forced_loss(torch.zeros(1, 3, 4), torch.tensor([[2, 1, 3]]), stop=1)  # ln 4, of two
    tensor(1.3863)
    """
    stops = targets == stop
    counts = stops.cumsum(dim=1) - stops.long() == 0  # (B, T): no stop before this place
    return F.cross_entropy(logits[counts], targets[counts])


def told(
    targets: Tensor,
    start: int,
    words: Tensor,
    s: Tensor,
    memory: Tensor,
    mask: Tensor,
    look: Sequence[Tensor],
    cell: Sequence[Tensor],
    head: Tensor,
) -> tuple[Tensor, Tensor]:
    """What a decoder with attention predicts while it is told the truth: logits and weights of each step.

    Step t reads target t - 1 (step 0 reads `start`), as a row of the embeddings `words` (V, E), makes
    one `attentive_step` and predicts target t: logits_t = W_o [s_t, c_t], with W_o in head (V, D + M).
    targets (B, T), the first state s (B, D), memory (B, S, M), mask (B, S); look and cell as in
    `attentive_step` -> logits (B, T, V), weights (B, T, S).
    """
    logits, weights = [], []
    token = torch.full_like(targets[:, 0], start)
    for t in range(targets.shape[1]):
        s, context, alpha = attentive_step(words[token], s, memory, mask, look, cell)
        logits.append(torch.cat((s, context), dim=-1) @ head.T)
        weights.append(alpha)
        token = targets[:, t]
    return torch.stack(logits, dim=1), torch.stack(weights, dim=1)


def build_rnn(config: RNNConfig, width: int, *, bidirectional: bool = False) -> nn.RNNBase:
    """Torch's recurrent layers of the config's cell, reading vectors of this width."""
    return CELLS[config.cell](
        width,
        config.d_model,
        num_layers=config.n_layers,
        dropout=config.dropout if config.n_layers > 1 else 0.0,  # torch's dropout stands between layers
        bidirectional=bidirectional,
        batch_first=True,
    )


def run(rnn: nn.RNNBase, xs: Tensor, state: State) -> tuple[Tensor, State]:
    """Torch's layers along xs (B, T, E), from a state to the next: -> outputs (B, T, D) and the state."""
    outputs, last = rnn(xs, state if isinstance(rnn, nn.LSTM) else state[0])
    return outputs, last if isinstance(last, tuple) else (last,)


def check_lengths(lengths: Tensor, B: int, S: int) -> None:
    """Raise ValueError unless there is a length from 1 to S for each of B sources."""
    if lengths.shape != (B,):
        raise ValueError(f"lengths have shape {tuple(lengths.shape)}, but there are {B} sources")
    if not 1 <= int(lengths.min()) <= int(lengths.max()) <= S:
        raise ValueError(f"lengths {lengths.tolist()} do not lie in 1 ... {S}, the places of a source")
