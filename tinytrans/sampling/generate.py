"""Generation: a model and ids (B, T) -> the ids with what the model says next (B, T + n).

`stream` goes on step by step, `generate` collects the steps; which id it is, says `tinytrans.sampling.choose`. Prompts
of unequal length are padded on the left (`pad_left`), so that all of them end where the model goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from operator import index
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tinytrans.nn.cache import KVCache
from tinytrans.sampling import filters
from tinytrans.sampling.choose import check_signs, choose


class LanguageModel(Protocol):
    """What generation asks of a model: logits for ids with or without a cache, and `config.max_len`.

    To read prompts padded on the left it must also take `mask` and `positions`, as GPT does. It may offer `one_by_one`:
    cache -> a function that reads one token a row as the model does with this cache, or None.
    """

    @property
    def config(self) -> Any: ...
    def __call__(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor: ...
    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache: ...
    def modules(self) -> Iterator[nn.Module]: ...


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Prompts of any lengths -> ids (B, T), the ends of all in the last column, and how many of each are padding (B,).

    Raises ValueError for no prompts, and for what is no list of ids.

    >>> pad_left([[5, 6, 7], [8]])
    (tensor([[5, 6, 7],
            [0, 0, 8]]), tensor([0, 2]))
    """
    if len(prompts) == 0:
        raise ValueError("there are no prompts to pad")
    try:
        ids = [[index(i) for i in prompt] for prompt in prompts]
    except TypeError as error:
        raise ValueError(f"prompts are lists of ids, not {prompts!r:.60}") from error
    T = max(map(len, ids))
    pads = [T - len(prompt) for prompt in ids]
    rows = [[pad_id] * n + prompt for n, prompt in zip(pads, ids, strict=True)]
    return torch.tensor(rows, dtype=torch.long), torch.tensor(pads)


def greedy_step(ids: Tensor, logits: Tensor, stop: int | None = None) -> Tensor:
    """Ids (B, T), logits (B, T, V) of what follows each -> ids with the likeliest next one (B, T + 1).

    Only the last position speaks: what follows the others is known. A row whose last id is `stop` has
    ended and repeats it.

    >>> greedy_step(torch.tensor([[4, 5]]), torch.tensor([[[0.0, 9.0, 0.0], [1.0, 2.0, 3.0]]]))
    tensor([[4, 5, 2]])
    """
    new = logits[:, -1].argmax(dim=-1)  # (B,)
    if stop is not None:
        new = torch.where(ids[:, -1] == stop, stop, new)
    return torch.cat((ids, new[:, None]), dim=1)


def draw(probabilities: Tensor, chance: Tensor) -> Tensor:
    """Chance becomes ids: probabilities (..., V), chance (...) in [0, 1) -> one id a row (...), int64.

    The tokens divide the line from 0 to 1 among themselves in the order of their ids, each a piece as
    long as its probability; the id on whose piece the chance falls is drawn, one of probability 0
    never. Where rounding has left a sum a little off 1, it counts as 1.

    >>> draw(torch.tensor([0.25, 0.5, 0.25]), torch.tensor(0.7))
    tensor(1)
    """
    ends = probabilities.cumsum(dim=-1)
    ends = ends / ends[..., -1:]  # the last possible token's piece ends at 1 and not just below
    return (ends <= chance[..., None]).sum(dim=-1)


def stream(
    model: LanguageModel,
    ids: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: int | Sequence[int] | None = None,
    pads: Tensor | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> Iterator[Tensor]:
    """The next id of each row (B,), step by step, until max_new_tokens or until every row has met a stop id.

    A row that has stopped repeats its stop id. The cache changes the time, not the ids. What the model reads is never
    longer than its max_len: see `forget`. It reads in eval mode; between two steps every module is in its old mode.
    Of each row the first pads[b] ids are padding (`pad_left`): the row goes on as it would without them, as long as
    all fit max_len.

    Raises ValueError, when the first id is asked for, for prompts, filters and stop ids that make no sense. Raises
    FloatingPointError, naming the step and the row, where the logits are NaN or infinite: on a CPU instead of that
    step's ids, on a GPU behind the last, since asking sooner would make each step wait for the device.
    """
    check_prompts(ids, max_new_tokens, pads)
    B, T = ids.shape
    max_len = model.config.max_len
    cache = model.new_cache(B, min(T + max_new_tokens, max_len)) if use_cache else None
    ends = stop_ids(stop)
    stops = None if stop is None else torch.tensor(ends, dtype=torch.long, device=ids.device)
    finished = torch.zeros(B, dtype=torch.bool, device=ids.device)
    modules = list(model.modules())  # walked once, not at every step
    unroll = getattr(model, "one_by_one", None) if pads is None else None
    read: Callable[[Tensor], Tensor] | None = None
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    signs: list[Tensor] = []
    start = 0
    for step in range(max_new_tokens):
        if (kept := forget(start, ids.shape[1], max_len)) > start:
            start = kept
            if cache is not None:
                cache.reset()  # what stays moves to new positions
        hidden = None if pads is None else (pads - start).clamp(min=0)
        one_left = cache is not None and 0 < cache.length == ids.shape[1] - start - 1  # once the prompt is read
        if unroll is not None and one_left:
            read, unroll = unroll(cache), None
        if read is not None and one_left:
            logits = read(ids[:, -1:])
        else:
            with evaluating(modules):
                logits = next_logits(model, ids[:, start:], cache, hidden)  # which also checks the prompt's ids
        if step == 0:
            check_stops(ends, logits.shape[-1])
        if repetition_penalty != 1:
            seen = None if pads is None else not_padding(ids.shape[1], pads)
            logits = filters.repetition_penalty(logits, ids, repetition_penalty, seen)
        new, sign = choose(logits, generator, **options)
        if sign.device.type == "cpu":
            check_signs([sign], step)
        else:
            signs.append(sign)
        if stops is not None:
            new = torch.where(finished, ids[:, -1], new)
        yield new
        if stops is not None:
            finished = finished | torch.isin(new, stops)
            if finished.all():
                break
        ids = torch.cat((ids, new[:, None]), dim=1)
    check_signs(signs)


def generate(
    model: LanguageModel,
    ids: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: int | Sequence[int] | None = None,
    pads: Tensor | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Prompts (B, T) and what the model says next, (B, T + n), n <= max_new_tokens: all steps of `stream`, joined.

    Raises as `stream` does.
    """
    steps = stream(
        model,
        ids,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=stop,
        pads=pads,
        generator=generator,
        use_cache=use_cache,
    )
    return torch.cat((ids, *(new[:, None] for new in steps)), dim=1)


def check_prompts(ids: Tensor, max_new_tokens: int, pads: Tensor | None) -> None:
    """Raise ValueError, naming both values, for prompts that no model can go on from."""
    if not isinstance(ids, Tensor):
        kind = type(ids).__name__
        raise ValueError(f"prompts are of type {kind}, not a tensor: torch.tensor([tokenizer.encode(text)])")
    if ids.dim() != 2 or ids.numel() == 0:
        raise ValueError(f"prompts have shape {tuple(ids.shape)}, not (B, T) with at least one token each")
    if not isinstance(max_new_tokens, Integral) or max_new_tokens < 0:
        raise ValueError(f"max_new_tokens {max_new_tokens!r} counts from 0, in whole tokens")
    if pads is not None and not isinstance(pads, Tensor):
        raise ValueError(f"pads are of type {type(pads).__name__}, not a tensor (B,), as `pad_left` makes it")
    if pads is not None and pads.shape != ids.shape[:1]:
        raise ValueError(f"pads have shape {tuple(pads.shape)}, but there are {len(ids)} prompts")
    if pads is not None and not 0 <= int(pads.min()) <= int(pads.max()) < ids.shape[1]:
        raise ValueError(f"pads {pads.tolist()} do not leave a token of the {ids.shape[1]} in each prompt")


def stop_ids(stop: int | Iterable[int] | None) -> list[int]:
    """The ids that end a text, from one, several or none; raises ValueError for what no token can be."""
    given = stop.tolist() if isinstance(stop, Tensor) else stop
    several = [] if given is None else list(given) if isinstance(given, Iterable) else [given]
    for i in several:
        if not isinstance(i, Integral) or i < 0:
            raise ValueError(f"stop {i!r} is no id: those count from 0")
    return [int(i) for i in several]


def check_stops(ends: Sequence[int], V: int) -> None:
    """Raise ValueError for ids that end a text and that a vocabulary of V does not have: none ever would."""
    if (last := max(ends, default=0)) >= V:
        raise ValueError(f"stop {last} is outside the vocabulary of {V}")


def forget(start: int, stop: int, max_len: int) -> int:
    """Where tokens start ... stop - 1 must begin to fit max_len: at start, or so late that only max_len // 2 are kept.

    Dropping half at once, and not one token at every step, lets the cache serve for the next max_len // 2 steps.

    >>> forget(0, 8, max_len=8), forget(0, 9, max_len=8)
    (0, 5)
    """
    return start if stop - start <= max_len else stop - max(max_len // 2, 1)


@torch.inference_mode()
def next_logits(model: LanguageModel, ids: Tensor, cache: KVCache | None = None, pads: Tensor | None = None) -> Tensor:
    """Logits (B, V) of the token after ids (B, T); what the cache holds of them is not read again.

    The first pads[b] ids of a row are hidden, and its positions count from behind them.
    """
    S, known = ids.shape[1], 0 if cache is None else cache.length
    if pads is None:
        return model(ids[:, known:], cache=cache)[:, -1]
    positions = (torch.arange(known, S, device=ids.device) - pads[:, None]).clamp(min=0)  # (B, T)
    mask = not_padding(S, pads).unsqueeze(1)
    reader: Any = model  # which then must take a mask and positions
    return reader(ids[:, known:], mask=mask, positions=positions, cache=cache)[:, -1]


def not_padding(S: int, pads: Tensor) -> Tensor:
    """Which of S places are real where each row begins with pads[b] that are not: (B,) -> bool (B, S)."""
    return torch.arange(S, device=pads.device) >= pads[:, None]


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within it these modules are in eval mode; after it each is again in the mode it was in."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
