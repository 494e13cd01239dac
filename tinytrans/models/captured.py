"""Captured: a GPT and its cache -> a function that reads one token a row, on a GPU as one recorded graph of kernels.

A GPU is done with a token's kernels sooner than Python can name them. A CUDA graph names them once and launches all by
one call, but then every tensor must keep its place and its shape. So here a token looks at the whole room of the cache,
through a mask that hides what is not yet written, and where it is written is a number on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from tinytrans.nn.cache import KVCache

if TYPE_CHECKING:
    from tinytrans.models.gpt import GPT


class WholeLayer(NamedTuple):
    """One layer's room (B, G, max_len, K), and the place (1,) of it where the next position is written."""

    keys: Tensor
    values: Tensor
    place: Tensor

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write one position, k and v (B, G, 1, K) -> the whole room, what is not yet written too."""
        self.keys.index_copy_(2, self.place, k)
        self.values.index_copy_(2, self.place, v)
        return self.keys, self.values


class WholeCache:
    """A cache as it looks to a step whose shapes never change; who replays the step keeps the count of positions."""

    def __init__(self, cache: KVCache, place: Tensor) -> None:
        self.cache, self.place = cache, place
        self.length = cache.max_len - 1  # whatever is written yet: with the step's own, a mask for the whole room fits

    def __getitem__(self, layer: int) -> WholeLayer:
        return WholeLayer(self.cache.keys[layer], self.cache.values[layer], self.place)

    def check(self, batch: int, T: int) -> None:
        """Nothing: `captured` asks the cache itself, before each step."""

    def check_made_for(self, n_layers: int, n_kv_heads: int, head_width: int) -> None:
        """Nothing: the cache was asked when the prompt was read."""

    def advance(self, T: int) -> None:
        """Nothing: `captured` tells the cache itself, after each step."""


def step_of(model: GPT, cache: KVCache, place: Tensor) -> Callable[[Tensor], Tensor]:
    """One step without a host's number in it: ids (B, 1) -> logits (B, V), the token standing at `place` (1,)."""
    whole: Any = WholeCache(cache, place)
    places = torch.arange(cache.max_len, device=place.device)

    def step(ids: Tensor) -> Tensor:
        mask = (places <= place).unsqueeze(0)  # (1, S)
        return model(ids, mask=mask, positions=place, cache=whole)[:, -1]

    return step


def captured(model: GPT, cache: KVCache) -> Callable[[Tensor], Tensor]:
    """A function ids (B, 1) -> logits (B, V), the same as `model(ids, cache=cache)[:, -1]`; on a GPU one graph.

    The prompt is read by the model itself, with this cache; from then on, the cache's tensors must stay its own
    (`rewind` and `reset` are fine, `reorder` is not). The model is to be in eval mode. Weights changed in place
    are read anew. Raises ValueError where a layer must know how far back a key stands: a sliding window, ALiBi.
    """
    if model.config.window is not None or model.config.positions == "alibi":
        raise ValueError("a sliding window and ALiBi count from the last position, which a captured step does not know")
    device = model.embedding.weight.device
    place = torch.full((1,), cache.length, device=device)
    ids_in = torch.zeros(cache.batch, 1, dtype=torch.int64, device=device)
    step = step_of(model, cache, place)
    replay = record(step, ids_in) if device.type == "cuda" else lambda: step(ids_in)

    @torch.inference_mode()
    def read(ids: Tensor) -> Tensor:
        cache.check(len(ids), 1)
        model.check(cache.length + 1)
        place.fill_(cache.length)
        ids_in.copy_(ids)
        logits = replay().clone()  # the next replay writes over it
        cache.advance(1)
        return logits

    return read


@torch.inference_mode()
def record(step: Callable[[Tensor], Tensor], ids: Tensor) -> Callable[[], Tensor]:
    """A step becomes a CUDA graph, which reads from `ids` and always writes its logits to the same place."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what the libraries set up at first use must not be recorded
        for _ in range(3):
            step(ids)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step(ids)

    def replay() -> Tensor:
        graph.replay()
        return logits

    return replay
