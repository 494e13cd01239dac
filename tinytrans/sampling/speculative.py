"""Speculative decoding: a small model drafts, a large one checks -> the large one's distribution, in fewer readings.

The draft says k tokens, one after the other; the target reads all of them at once, which costs it little more than
reading one, and keeps as many as it can without changing what it would have said.
Source: Leviathan et al. 2022, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tinytrans.nn.cache import KVCache
from tinytrans.sampling.choose import probabilities
from tinytrans.sampling.generate import LanguageModel, check_prompts, check_stops, evaluating, stop_ids


class Rewindable(LanguageModel, Protocol):
    """A language model whose caches can go back a few positions, as GPT's can."""

    def new_cache(self, batch: int, max_len: int | None = None, *, rewind: int = 0) -> KVCache: ...


class Speculation(NamedTuple):
    """The text (1, T + n), how many tokens were drafted, how many of these were kept, and the target's readings."""

    ids: Tensor
    drafted: int
    kept: int
    readings: int


def acceptance(p: Tensor, q: Tensor) -> Tensor:
    """How likely a drafted token is kept: target's p, draft's q, both (..., V) -> min(1, p / q).

    What the target would say at least as often is always kept. Where q is 0, nothing is drafted: 0.
    Source: Leviathan et al. 2022, section 2.3, arXiv 2211.17192.

    >>> acceptance(torch.tensor([0.5, 0.5]), torch.tensor([0.8, 0.2]))
    tensor([0.6250, 1.0000])
    """
    return torch.where(q > 0, p / q, 0).clamp(max=1)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """From what is drawn when a draft is rejected: max(0, p - q), shared out; (..., V) -> (..., V).

    It makes up for what the draft says too rarely, so that in all p comes out:
    q min(1, p / q) + (1 - sum min(p, q)) residual = p. Where p = q nothing is ever rejected: p.
    Source: Leviathan et al. 2022, section 2.3, arXiv 2211.17192.

    >>> residual(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.8, 0.1, 0.1])).round(decimals=4)
    tensor([0.0000, 0.6667, 0.3333])
    """
    left = (p - q).clamp(min=0)
    total = left.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, left / total, p)


def verify(drafted: Tensor, q: Tensor, p: Tensor, chance: Tensor) -> tuple[int, Tensor]:
    """How many drafted tokens are kept, and the distribution (V,) from which the next one comes.

    drafted (k,), q (k, V) from which each was drawn, p (k + 1, V) the target's at the same places
    and one further, chance (k,) uniform on [0, 1). The first rejected one ends it: what follows was
    drafted for another text.
    """
    places = torch.arange(len(drafted), device=drafted.device)
    kept = chance < acceptance(p[:-1], q)[places, drafted]
    n = int(kept.long().cumprod(0).sum())
    return n, p[n] if n == len(drafted) else residual(p[n], q[n])


def speculate(
    model: Rewindable,
    draft: Rewindable,
    ids: Tensor,
    *,
    max_new_tokens: int,
    k: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: int | Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Speculation:
    """Go on from one prompt (1, T) as `generate(model, ...)` does, with a draft model that says k tokens ahead.

    Every text is exactly as likely as without the draft (greedy: it is the same text); a good draft only saves
    readings of the model, a bad one costs time. Filters apply to both. Raises ValueError for several prompts, for
    vocabularies of unequal size, and where prompt and answer exceed the max_len of either; FloatingPointError where the
    logits of either are NaN or infinite.
    """
    check(model, draft, ids, max_new_tokens, k)
    stops = set(stop_ids(stop))
    check_stops(list(stops), model.config.vocab_size)
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    end = ids.shape[1] + max_new_tokens
    caches = [each.new_cache(1, end, rewind=k) for each in (model, draft)]
    count = [0, 0, 0]
    while (T := ids.shape[1]) < end:
        text, q = ahead(draft, ids, caches[1], min(k, end - T - 1), options, generator)
        p = read(model, text, caches[0], T, options)  # (k + 1, V)
        check_chances(T, model=p, draft=q)
        drafted = text[0, T:]
        chance = torch.rand(len(drafted), generator=generator, device=ids.device)
        n, last = verify(drafted, q, p, chance)
        new = [*drafted[:n].tolist(), int(torch.multinomial(last, 1, generator=generator))]
        count = [count[0] + len(drafted), count[1] + n, count[2] + 1]
        first = next((i for i, token in enumerate(new) if token in stops), len(new))
        ids = torch.cat((ids, ids.new_tensor([new[: first + 1]])), dim=1)
        if first < len(new):
            break
        for cache in caches:
            cache.rewind(min(cache.length, ids.shape[1] - 1))  # what was rejected was never said
    return Speculation(ids, *count)


def ahead(
    draft: LanguageModel,
    ids: Tensor,
    cache: KVCache,
    k: int,
    options: dict[str, Any],
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """The text with k tokens that the draft says next (1, T + k), and the probabilities of each (k, V)."""
    q = [torch.empty(0, draft.config.vocab_size, device=ids.device)]
    for _ in range(k):
        q.append(read(draft, ids, cache, ids.shape[1], options))
        ids = torch.cat((ids, torch.multinomial(q[-1].nan_to_num(1.0), 1, generator=generator)), dim=1)
    return ids, torch.cat(q)


@torch.inference_mode()
def read(model: LanguageModel, ids: Tensor, cache: KVCache, T: int, options: dict[str, Any]) -> Tensor:
    """The probabilities of the token at place T and of each after it, to one beyond the text (1, S): (S - T + 1, V)."""
    with evaluating(model.modules()):
        logits = model(ids[:, cache.length :], cache=cache)
    logits = logits[0, -(ids.shape[1] - T + 1) :]
    return probabilities(logits, **options)


def check_chances(T: int, **chances: Tensor) -> None:
    """Raise FloatingPointError, naming the model whose it is, for a distribution (..., V) with NaN in it."""
    for name, each in chances.items():
        if each.sum().isnan():
            raise FloatingPointError(f"the logits of the {name} hold NaN or infinity, {T} ids from the beginning")


def check(model: LanguageModel, draft: LanguageModel, ids: Tensor, n: int, k: int) -> None:
    """Raise ValueError, naming both values, where model, draft and text don't go together."""
    check_prompts(ids, n, None)
    if ids.shape[0] != 1:
        raise ValueError(f"{ids.shape[0]} prompts: each would keep another number of tokens, so give them one by one")
    if not isinstance(k, Integral) or k < 1:
        raise ValueError(f"k {k} counts from 1")
    if (V := model.config.vocab_size) != draft.config.vocab_size:
        raise ValueError(f"the model's vocabulary of {V} is not the draft's of {draft.config.vocab_size}")
    if (S := ids.shape[1] + n) > (most := min(model.config.max_len, draft.config.max_len)):
        raise ValueError(f"{ids.shape[1]} ids and {n} new ones, {S} in all, exceed max_len {most}")
