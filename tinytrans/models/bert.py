"""BERT: token ids (B, T) -> a vector for each token that knows all the others (B, T, D), and what a head makes of it.

An encoder alone. Its first head learns from plain text (`PretrainingHead`); others then learn a task from few examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.config import BERTConfig
from tinytrans.models.pretrained import Pretrained
from tinytrans.models.stack import Stack, build_norm, check_ids, init_weights
from tinytrans.nn.feedforward import gelu


class BERT(Pretrained):
    """An encoder with a head, as the config says: `model.hidden(ids)` -> (B, T, D), `model(ids)` -> what the head says.

    Source: Devlin et al. 2018, arXiv 1810.04805.

    >>> model = BERT(BERTConfig(vocab_size=11, n_layers=2, d_model=6, n_heads=3, head="classifier", n_classes=4))
    >>> ids = torch.tensor([[1, 2, 3, 2, 5]])
    >>> model.hidden(ids).shape, model(ids).shape
    (torch.Size([1, 5, 6]), torch.Size([1, 4]))
    """

    Config = BERTConfig

    def __init__(self, config: BERTConfig) -> None:
        super().__init__(config)
        D = config.d_model
        self.embedding = nn.Embedding(config.vocab_size, D)
        self.position = nn.Embedding(config.max_len, D)
        self.segment = nn.Embedding(config.n_segments, D)
        self.embedding_norm = build_norm(config)
        self.encoder = Stack(config, config.n_layers)
        self.head = HEADS[config.head](config)
        self.tie()
        self.init_weights()

    def init_weights(self) -> None:
        """As at BERT's birth: matrices and tables normal with standard deviation 0.02, biases 0."""
        init_weights(self)

    def tie(self) -> None:
        """The masked tokens' head reads the embedding's own matrix, one parameter under two names."""
        if isinstance(self.head, PretrainingHead):
            self.head.tokens.weight = self.embedding.weight

    def forward(self, ids: Tensor, *, segments: Tensor | None = None, mask: Tensor | None = None) -> Any:
        """Ids (B, T) -> what the head says; arguments as in `hidden`."""
        return self.head(self.hidden(ids, segments=segments, mask=mask))

    def hidden(self, ids: Tensor, *, segments: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Ids (B, T) -> a vector for each (B, T, D); segments (B, T) tell the first sentence from the second (all 0).

        The mask (T, S), (B, T, S) or, from `padding`, (B, 1, S) hides padding; nothing else is hidden from anyone.
        Raises ValueError for ids or segments of a wrong type, shape or size, and for more than max_len positions.
        """
        check_ids(ids, self.config.vocab_size)
        if ids.shape[1] > self.config.max_len:
            raise ValueError(f"{ids.shape[1]} positions are more than max_len {self.config.max_len}")
        segments = torch.zeros_like(ids) if segments is None else segments
        check_ids(segments, self.config.n_segments, "segments")
        if segments.shape != ids.shape:
            raise ValueError(f"segments have shape {tuple(segments.shape)}, the ids {tuple(ids.shape)}")
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.embedding(ids) + self.position(positions) + self.segment(segments)
        x = F.dropout(self.embedding_norm(x), self.config.dropout, self.training)
        return self.encoder(x, mask=mask)

    def with_head(self, head: str, **changes: Any) -> BERT:
        """A copy of this encoder under another head: `bert.with_head("classifier", n_classes=5)`.

        The head is new, but for a pooler that both have. Other fields of the config may change too (`dropout`).
        """
        weights = self.state_dict()
        model = BERT(replace(self.config, head=head, **changes)).to(self.embedding.weight)  # its device and dtype
        shapes = {name: weight.shape for name, weight in model.state_dict().items()}
        kept = {name: weight for name, weight in weights.items() if shapes.get(name) == weight.shape}
        model.load_state_dict(kept, strict=False)
        return model.train(self.training)


class Pooler(nn.Module):
    """One vector for the whole sequence: hidden (B, T, D) -> tanh(W h_0 + b) (B, D), read where [CLS] stands."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden[:, 0]))


class PooledHead(nn.Module):
    """The encoder as published, without a task: hidden (B, T, D) -> (B, D)."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.pooler = Pooler(config)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.pooler(hidden)


class PretrainingHead(nn.Module):
    """The two lessons of pretraining: hidden (B, T, D) -> logits of each token (B, T, V), and of "follows" (B, 2).

    The tokens' head is a transform, the embedding's matrix and a bias of its own. Of the two classes, 0 says that the
    second sentence follows the first and 1 that it does not: so the published weights have it, and so has
    `tinytrans.data.masking` (`unrelated`). Source: Devlin et al. 2018, section 3.1, arXiv 1810.04805.
    """

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.transform = nn.Linear(config.d_model, config.d_model)
        self.norm = build_norm(config)
        self.tokens = nn.Linear(config.d_model, config.vocab_size)
        self.pooler = Pooler(config)
        self.follows = nn.Linear(config.d_model, 2)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return self.guess(hidden), self.follows(self.pooler(hidden))

    def guess(self, hidden: Tensor) -> Tensor:
        """Which token stood there: vectors (..., D) -> logits (..., V); those that nobody hid need not be asked for."""
        return self.tokens(self.norm(gelu(self.transform(hidden))))


class ClassifierHead(nn.Module):
    """One label for the whole sequence: hidden (B, T, D) -> logits (B, n_classes).

    Source: Devlin et al. 2018, section 4.1, arXiv 1810.04805.
    """

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.pooler, self.dropout = Pooler(config), config.dropout
        self.classes = nn.Linear(config.d_model, config.n_classes)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.classes(F.dropout(self.pooler(hidden), self.dropout, self.training))


class SpanHead(nn.Module):
    """Where an answer stands: hidden (B, T, D) -> logits of its start (B, T) and end (B, T).

    Source: Devlin et al. 2018, section 4.2, arXiv 1810.04805.
    """

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.ends = nn.Linear(config.d_model, 2)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        start, end = self.ends(hidden).unbind(-1)
        return start, end


HEADS: dict[str, Callable[[BERTConfig], nn.Module]] = {
    "pooled": PooledHead,
    "pretraining": PretrainingHead,
    "classifier": ClassifierHead,
    "spans": SpanHead,
}
"""name -> builder (config) -> module."""


def best_span(start: Tensor, end: Tensor, *, mask: Tensor | None = None, max_len: int | None = None) -> Tensor:
    """The likeliest answer: logits of start and end (B, T) -> its first and last position (B, 2), in this order.

    argmax of start_i + end_j over i <= j < i + max_len; the mask (B, T) says where an answer may stand, and a row in
    which none may has (0, 0). Raises ValueError for shapes that differ, and for answers of less than one token.
    Source: Devlin et al. 2018, section 4.2, arXiv 1810.04805.

    >>> best_span(torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[6.0, 2.0, 0.0]]))
    tensor([[0, 0]])
    """
    if start.shape != end.shape or (mask is not None and mask.shape != start.shape):
        shapes = [tuple(one.shape) for one in (start, end, mask) if one is not None]
        raise ValueError(f"start, end and mask are of one shape (B, T), not {', '.join(map(str, shapes))}")
    if max_len is not None and max_len < 1:
        raise ValueError(f"max_len {max_len} counts from 1: no answer is shorter than a token")
    T = start.shape[-1]
    score = start.unsqueeze(-1) + end.unsqueeze(-2)  # (B, T, T): first, last
    allowed = torch.ones(T, T, dtype=torch.bool, device=start.device).triu()
    if max_len is not None:
        allowed = allowed.tril(max_len - 1)
    if mask is not None:
        allowed = allowed & mask.unsqueeze(-1) & mask.unsqueeze(-2)
    best = score.masked_fill(~allowed, float("-inf")).flatten(1).argmax(dim=-1)
    return torch.stack((best // T, best % T), dim=-1)
