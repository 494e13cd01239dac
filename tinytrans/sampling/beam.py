"""Beam search: a model and prompts (B, T) -> of all that it may say next the most probable, as far as a beam can see.

W unfinished texts a row are kept, each goes on with every token, and the W best of these go on. W = 1 without a length
penalty is greedy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from tinytrans.sampling.choose import check_signs
from tinytrans.sampling.generate import LanguageModel, check_prompts, check_stops, evaluating, next_logits, stop_ids

NEVER = float("-inf")  # the score of what does not exist


class Beams(NamedTuple):
    """A row's answers, best first: new ids (B, W, n), behind a stop only that stop, and their scores (B, W).

    Where there are fewer than W answers at all, the scores of the rest are -inf.
    """

    ids: Tensor
    scores: Tensor


def length_score(log_p: Tensor, n: int, penalty: float) -> Tensor:
    """By what answers of n tokens are compared: their log-probability, (...), divided by n^penalty.

    0 compares probabilities, and as each token costs some, prefers short answers; 1 compares means.
    Source: Wu et al. 2016, section 7, arXiv 1609.08144, who divide by ((5 + n) / 6)^penalty.

    >>> length_score(torch.tensor(-6.0), n=4, penalty=0.5)
    tensor(-3.)
    """
    return log_p / n**penalty


def extend_beams(scores: Tensor, log_p: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The n best ways on: W texts' scores (..., W), log_p of next tokens (..., W, V) -> three (..., n).

    The new scores, best first, the text that each goes on from (0 ... W - 1), and the token by which. A
    text's score is the sum of its tokens' log-probabilities; n is at most W V. Several of the best may
    come from one text, and none from another.

    >>> extend_beams(torch.tensor([-1.0, -2.0]), torch.tensor([[-3.0, -4.0], [-9.0, -0.5]]), n=2)
    (tensor([-2.5000, -4.0000]), tensor([1, 0]), tensor([1, 0]))
    """
    V = log_p.shape[-1]
    top = (scores[..., None] + log_p).flatten(-2).topk(n)
    return top.values, top.indices // V, top.indices % V


def beam_search(
    model: LanguageModel,
    ids: Tensor,
    *,
    max_new_tokens: int,
    beams: int = 4,
    length_penalty: float = 1.0,
    stop: int | Sequence[int] | None = None,
    pads: Tensor | None = None,
    use_cache: bool = True,
) -> Beams:
    """The best answers to each of B prompts (B, T): they end with a stop id, or after max_new_tokens.

    What finishes among the W best of a step waits among the W best finished ones; the search ends when no unfinished
    text can still overtake them. It looks at W V texts a step, of V^n in all: the best of all may be dropped early.
    Of each row the first pads[b] ids are padding. Raises ValueError for prompts, numbers and stop ids that make no
    sense, and where prompt and answer exceed max_len; and at the end FloatingPointError, naming the step and the row,
    where logits were NaN or infinite.
    Source: Graves 2012, arXiv 1211.3711; Sutskever et al. 2014, section 3.2, arXiv 1409.3215.
    """
    check_prompts(ids, max_new_tokens, pads)
    (B, T), W, n_max = ids.shape, beams, max_new_tokens
    if not isinstance(W, Integral) or W < 1 or n_max < 1:
        raise ValueError(f"beams {W} and max_new_tokens {n_max} count from 1")
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty {length_penalty} is not finite")
    if T + n_max > model.config.max_len:
        raise ValueError(f"{T} ids and {n_max} new ones exceed max_len {model.config.max_len}")
    ends = stop_ids(stop)
    stops = torch.tensor(ends, dtype=torch.long, device=ids.device)
    cache = model.new_cache(B, T + n_max) if use_cache else None
    modules = list(model.modules())
    rows = torch.arange(B, device=ids.device)[:, None]  # (B, 1)
    alive = Beams(ids.new_zeros(B, 1, 0), torch.zeros(B, 1, device=ids.device))
    signs: list[Tensor] = []  # finite unless a row's logits are not
    done = Beams(ids.new_zeros(B, W, n_max), torch.full((B, W), NEVER, device=ids.device))
    for n in range(1, n_max + 1):
        width = alive.ids.shape[1]
        texts = torch.cat((ids.repeat_interleave(width, 0), alive.ids.flatten(0, 1)), dim=1)
        hidden = None if pads is None else pads.repeat_interleave(width)
        with evaluating(modules):
            logits = next_logits(model, texts, cache, hidden)
        signs.append(logits.reshape(B, -1).amax(dim=-1))
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)  # half would make ties
        scores = alive.scores[:, :, None] + log_p.view(B, width, -1)  # (B, width, V)
        V = scores.shape[-1]
        check_stops(ends, V)
        last = scores.flatten(1).topk(min(W, width * V)).values[:, -1, None, None]
        ending = stops if n < n_max else torch.arange(V, device=ids.device)  # at last all end
        good = scores.masked_fill(scores < last, NEVER)
        done = best(done, alive, length_score(good, n, length_penalty), ending, n_max)
        going_on = log_p.view(B, width, V).index_fill(-1, stops, NEVER)
        sums, parents, tokens = extend_beams(
            alive.scores, going_on, min(W, width * V)
        )  # the best V^n are all there are
        alive = Beams(torch.cat((alive.ids[rows, parents], tokens[:, :, None]), dim=-1), sums)
        if n == n_max or hopeless(alive, done, n, n_max, length_penalty):
            break
        if cache is not None:
            cache.reorder((rows * width + parents).flatten())
    check_signs(signs)
    return Beams(done.ids[:, :, :n], done.scores)


def best(done: Beams, alive: Beams, scores: Tensor, ending: Tensor, n_max: int) -> Beams:
    """The W best of the finished answers and those that end now: scores (B, width, V), ending (E,) the ids that end."""
    B, width, n = alive.ids.shape
    ids = torch.cat(  # (B, width, E, n_max), the last id repeated to the end
        (
            alive.ids[:, :, None, :].expand(-1, -1, len(ending), -1),
            ending[None, None, :, None].expand(B, width, -1, n_max - n),
        ),
        dim=-1,
    )
    ids = torch.cat((done.ids, ids.flatten(1, 2)), dim=1)
    scores = torch.cat((done.scores, scores[:, :, ending].flatten(1)), dim=1)
    top = scores.topk(done.scores.shape[1])
    return Beams(ids.gather(1, top.indices[:, :, None].expand(-1, -1, n_max)), top.values)


def hopeless(alive: Beams, done: Beams, n: int, n_max: int, penalty: float) -> bool:
    """Whether no unfinished text of n tokens can overtake a finished answer, though all it still said were certain."""
    longest = n_max if penalty > 0 else n + 1  # the length that flatters a negative sum most
    return bool((length_score(alive.scores[:, 0], longest, penalty) <= done.scores[:, -1]).all())
