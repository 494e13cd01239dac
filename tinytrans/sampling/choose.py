"""Choice: logits (..., V) -> of each row one id (...), the likeliest or one drawn by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinytrans.sampling import filters


def sample(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one id a row from logits (..., V) -> (...): temperature first, then the filters, then chance.

    temperature = 0 is greedy: the most probable token, without chance. Raises FloatingPointError for a row without a
    largest finite logit (NaN, infinity); a GPU would have to wait for the answer, and gives such a row the id -1.
    Raises ValueError for what are no logits, and for a temperature or a filter out of its range.

    >>> sample(torch.tensor([[1.0, 3.0, 2.0]]), temperature=0.0)
    tensor([1])
    """
    if not isinstance(logits, Tensor) or logits.dim() == 0 or logits.shape[-1] == 0:
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"logits are {what}, not a tensor (..., V) with at least one token to choose from")
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    new, sign = choose(logits, generator, **options)
    if logits.device.type == "cpu":
        check_signs([sign])
    return torch.where(sign.isfinite(), new, -1)


def choose(logits: Tensor, generator: torch.Generator | None, **options: Any) -> tuple[Tensor, Tensor]:
    """As `sample`, logits (..., V) -> ids (...), and a sign of each (...): not finite where no id is the likeliest.

    The sign is a by-product, the largest logit or the first probability. It is left where it was computed, so that
    whoever asks for it can do so at a moment when the device must be waited for anyway (`check_signs`).
    """
    if options.get("temperature") == 0:
        largest, new = logits.max(dim=-1)
        return new, largest
    chances = probabilities(logits, **options)
    rows = chances.nan_to_num(1.0).reshape(-1, chances.shape[-1])
    return torch.multinomial(rows, 1, generator=generator).view(chances.shape[:-1]), chances[..., 0]


def check_signs(signs: Sequence[Tensor], start: int = 0) -> None:
    """Raise FloatingPointError, naming step and row, at the first of several steps' signs (B,) that is not finite."""
    if not signs or signs[0].is_meta:  # where there are no numbers, there is nothing to look at
        return
    for step, row in enumerate(torch.stack(tuple(signs)).reshape(len(signs), -1).tolist()):
        for b, sign in enumerate(row):
            if not math.isfinite(sign):
                raise FloatingPointError(
                    f"the logits of row {b} hold NaN or infinity at step {start + step}, and no id is the likeliest: "
                    "are the model's weights finite?"
                )


def probabilities(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """The chance of each token to be drawn by `sample`: logits (..., V) -> (..., V); at temperature 0 all or nothing.

    Where the largest logit is NaN or infinite, there are NaN among the chances. Half precision, which could not say
    where a nucleus ends, becomes single.

    >>> probabilities(torch.tensor([1.0, 3.0, 3.0]), top_k=2)
    tensor([0.0000, 0.5000, 0.5000])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature == 0:
        largest, ids = logits.max(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter(-1, ids, largest - largest + 1)  # inf - inf is NaN
    largest = logits.amax(dim=-1, keepdim=True)
    logits = filters.temperature(logits - largest, temperature)  # from 0 down: no t is so low that they overflow
    if top_k is not None:
        logits = filters.top_k(logits, top_k)
    if top_p is not None:
        logits = filters.top_p(logits, top_p)
    if min_p is not None:
        logits = filters.min_p(logits, min_p)
    return logits.softmax(dim=-1)
