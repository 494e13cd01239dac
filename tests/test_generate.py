"""Laws of generation. Oracles: a model whose next token is known, frequencies of many draws, doing without a cache."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinytrans.config import GPTConfig
from tinytrans.models.gpt import GPT
from tinytrans.nn.cache import KVCache
from tinytrans.sampling import beam_search, generate, sample, stream
from tinytrans.sampling.choose import check_signs, probabilities
from tinytrans.sampling.generate import draw, greedy_step, pad_left

V = 17
PROMPT = torch.tensor([[1, 2, 3], [4, 5, 6]])


class Counter(nn.Module):
    """Says the number after the last one; remembers what it was shown, and in which mode."""

    def __init__(self, max_len: int = 100) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_len=max_len)
        self.frozen = nn.Dropout().eval()
        self.shown: list[Tensor] = []
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        assert cache is None
        self.shown.append(ids)
        self.modes.append((self.training, torch.is_grad_enabled()))
        return 100.0 * nn.functional.one_hot((ids + 1) % V, V)

    def new_cache(self, batch: int, max_len: int | None = None) -> KVCache:
        raise NotImplementedError


def model(**changes: Any) -> GPT:
    """A tiny GPT whose weights are large enough to have opinions."""
    torch.manual_seed(0)
    config = {"vocab_size": V, "n_layers": 2, "d_model": 12, "n_heads": 3, "max_len": 16}
    gpt = GPT(GPTConfig(**{**config, **changes})).eval()
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.5)
    return gpt


def chance(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def test_greedy_is_the_argmax() -> None:
    """At temperature 0 the most probable token is taken, whatever the generator."""
    logits = torch.randn(50, V, generator=chance())
    assert torch.equal(sample(logits, temperature=0.0, generator=chance(1)), logits.argmax(-1))
    assert torch.equal(sample(logits, top_k=1, generator=chance(1)), logits.argmax(-1))


def test_samples_follow_the_distribution() -> None:
    """Many draws come as often as softmax(logits / t) says, among the k that are left."""
    logits, n = torch.tensor([1.0, 0.0, 2.0, -1.0]), 40_000
    for kwargs, expected in (
        ({}, logits.softmax(-1)),
        ({"temperature": 2.0}, (logits / 2).softmax(-1)),
        ({"top_k": 2}, torch.tensor([1.0, -torch.inf, 2.0, -torch.inf]).softmax(-1)),
        ({"top_p": 0.7}, torch.tensor([1.0, -torch.inf, 2.0, -torch.inf]).softmax(-1)),
        ({"min_p": 0.1}, torch.tensor([1.0, 0.0, 2.0, -torch.inf]).softmax(-1)),
    ):
        draws = sample(logits.expand(n, 4), generator=chance(2), **kwargs)
        torch.testing.assert_close(draws.bincount(minlength=4) / n, expected, atol=0.01, rtol=0)


def test_temperature_comes_before_the_filters() -> None:
    """The nucleus is that of the tempered distribution: flattened enough, it holds everyone."""
    logits = torch.tensor([3.0, 0.0, 0.0]).expand(2000, 3)
    assert sample(logits, top_p=0.6, generator=chance()).unique().tolist() == [0]
    assert sample(logits, temperature=100.0, top_p=0.99, generator=chance()).unique().tolist() == [0, 1, 2]


def test_chance_is_an_argument() -> None:
    """The same generator state draws the same ids; torch's own chance is neither used nor changed."""
    before = torch.get_rng_state()
    first, second, third = (generate(model(), PROMPT, max_new_tokens=9, generator=chance(n)) for n in (3, 3, 4))
    torch.set_rng_state(before)
    generate(gpt := model(), PROMPT, max_new_tokens=1, generator=chance())
    state = torch.get_rng_state()
    generate(gpt, PROMPT, max_new_tokens=9, generator=chance())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_the_prompt_goes_on() -> None:
    """The answer is the prompt, then max_new_tokens more, each after the one before."""
    out = generate(Counter(), PROMPT, max_new_tokens=4, temperature=0.0, use_cache=False)
    assert out.tolist() == [[1, 2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9, 10]]
    assert generate(Counter(), PROMPT, max_new_tokens=0, use_cache=False).tolist() == PROMPT.tolist()


@pytest.mark.parametrize("stop", [6, [6], [6, 16]])
def test_a_stopped_row_repeats_its_stop(stop: int | list[int]) -> None:
    """A row that has met a stop id repeats it while others go on; when all have stopped, generation ends."""
    prompt = torch.tensor([[3], [1]])
    out = generate(Counter(), prompt, max_new_tokens=9, temperature=0.0, stop=stop, use_cache=False)
    assert out.tolist() == [[3, 4, 5, 6, 6, 6], [1, 2, 3, 4, 5, 6]]


def test_a_stop_id_in_the_prompt_stops_nothing() -> None:
    """Only what the model says can stop a row."""
    out = generate(Counter(), torch.tensor([[6]]), max_new_tokens=2, temperature=0.0, stop=6, use_cache=False)
    assert out.tolist() == [[6, 7, 8]]


def test_stream_yields_step_by_step() -> None:
    """A stream hands out each step as soon as it is made, and joined they are what generate returns."""
    counter = Counter()
    steps = stream(counter, PROMPT, max_new_tokens=3, temperature=0.0, use_cache=False)
    assert isinstance(steps, Iterator)
    assert next(steps).tolist() == [4, 7]
    assert len(counter.shown) == 1
    gpt = model()
    joined = torch.stack(list(stream(gpt, PROMPT, max_new_tokens=8, generator=chance(5))), dim=1)
    assert torch.equal(joined, generate(gpt, PROMPT, max_new_tokens=8, generator=chance(5))[:, 3:])


@pytest.mark.parametrize("positions", ["rope", "learned", "sinusoidal", "none"])
@pytest.mark.parametrize("changes", [{}, {"window": 3}, {"n_kv_heads": 1, "norm": "rms", "feedforward": "swiglu"}])
@pytest.mark.parametrize("kwargs", [{"temperature": 0.0}, {"temperature": 1.3, "top_k": 9}])
def test_the_cache_changes_nothing(positions: str, changes: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """With and without a cache the ids are the same, also far beyond max_len."""
    gpt = model(positions=positions, **changes)
    with_cache, without = (
        generate(gpt, PROMPT, max_new_tokens=60, generator=chance(), use_cache=use, **kwargs) for use in (True, False)
    )
    assert torch.equal(with_cache, without)
    assert with_cache.shape == (2, 63)
    assert len(with_cache[0].unique()) > 2


def test_a_full_context_forgets_its_older_half() -> None:
    """The model never sees more than max_len tokens; when there would be more, it sees the last max_len // 2."""
    counter = Counter(max_len=8)
    generate(counter, PROMPT, max_new_tokens=14, temperature=0.0, use_cache=False)
    assert [ids.shape[1] for ids in counter.shown] == [3, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4, 5, 6]
    assert counter.shown[6][0].tolist() == [6, 7, 8, 9]


@pytest.mark.parametrize("max_len", [1, 2, 5])
def test_a_long_prompt_is_cut(max_len: int) -> None:
    """A prompt longer than max_len is read from its end, and the whole of it is returned."""
    prompt = torch.arange(12)[None]
    out = generate(Counter(max_len), prompt, max_new_tokens=3, temperature=0.0, use_cache=False)
    assert out.tolist() == [[*range(15)]]
    gpt = model(max_len=max_len)
    assert torch.equal(
        generate(gpt, prompt, max_new_tokens=7, temperature=0.0),
        generate(gpt, prompt, max_new_tokens=7, temperature=0.0, use_cache=False),
    )


def test_the_cache_spares_work() -> None:
    """With a cache each token is read once: the prompt, then one new token a step."""
    gpt, read = model(), []
    gpt.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[1]))
    generate(gpt, PROMPT, max_new_tokens=5, temperature=0.0)
    assert read == [3, 1, 1, 1, 1]


def test_generation_leaves_the_model_as_it_was() -> None:
    """The model reads in eval mode without gradients; after each step every module has its old mode."""
    counter = Counter().train()
    counter.frozen.eval()
    for _ in stream(counter, PROMPT, max_new_tokens=3, use_cache=False):
        assert counter.training
        assert not counter.frozen.training
        assert torch.is_grad_enabled()
    assert counter.modes == [(False, False)] * 3

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    counter.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="broken"):
        generate(counter, PROMPT, max_new_tokens=1, use_cache=False)
    assert counter.training


def test_what_was_said_can_be_learned_from() -> None:
    """Generated ids are plain tensors: a model can be trained on them."""
    gpt = model()
    ids = generate(gpt, PROMPT, max_new_tokens=4, generator=chance())
    gpt(ids).sum().backward()
    assert not ids.is_inference()
    assert gpt.embedding.weight.grad is not None


def test_rows_are_alone() -> None:
    """Each row of a batch goes on as it would alone."""
    gpt = model()
    together = generate(gpt, PROMPT, max_new_tokens=20, temperature=0.0)
    for row in range(2):
        assert torch.equal(generate(gpt, PROMPT[row : row + 1], max_new_tokens=20, temperature=0.0)[0], together[row])


@pytest.mark.parametrize("positions", ["rope", "learned", "sinusoidal", "alibi", "none"])
@pytest.mark.parametrize("changes", [{}, {"window": 3}, {"n_kv_heads": 1, "norm": "rms"}])
@pytest.mark.parametrize("use_cache", [True, False])
def test_left_padding_changes_nothing(positions: str, changes: dict[str, Any], use_cache: bool) -> None:
    """Prompts of unequal length in one batch go on as each would alone, whatever id the padding has."""
    gpt, prompts = model(positions=positions, **changes), [[1, 2, 3, 4, 5], [6], [7, 8, 9]]
    for pad_id in (0, V - 1):
        ids, pads = pad_left(prompts, pad_id)
        together = generate(gpt, ids, max_new_tokens=11, temperature=0.0, pads=pads, use_cache=use_cache)
        for row, prompt in enumerate(prompts):
            alone = generate(gpt, torch.tensor([prompt]), max_new_tokens=11, temperature=0.0)[0]
            assert together[row, pads[row] :].tolist() == alone.tolist()


def test_padding_stands_on_the_left() -> None:
    """All prompts end in the last column; in front of the shorter ones stands as much padding as is said."""
    ids, pads = pad_left([[1, 2, 3], [], [4]], pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 9], [9, 9, 4]]
    assert pads.tolist() == [0, 3, 2]


@pytest.mark.parametrize("use_cache", [True, False])
def test_padding_is_forgotten_first(use_cache: bool) -> None:
    """Beyond max_len a padded batch goes on, and the cache changes nothing."""
    ids, pads = pad_left([[1, 2, 3, 4, 5], [6]])
    out = generate(model(positions="learned"), ids, max_new_tokens=40, temperature=0.0, pads=pads, use_cache=use_cache)
    other = generate(model(positions="learned"), ids, max_new_tokens=40, temperature=0.0, pads=pads)
    assert torch.equal(out, other)
    assert out.shape == (2, 45)


def test_what_was_said_is_avoided() -> None:
    """With a high penalty more different things are said; padding has not been said."""
    gpt, options = model(), {"max_new_tokens": 9, "temperature": 0.0}
    often, seldom = (generate(gpt, PROMPT[:1], repetition_penalty=r, **options).unique() for r in (1.0, 50.0))
    assert len(often) < len(seldom)
    alone = generate(gpt, torch.tensor([[3]]), repetition_penalty=50.0, **options)[0].tolist()
    ids, pads = pad_left([[1, 2], [3]], pad_id=alone[1])
    assert generate(gpt, ids, pads=pads, repetition_penalty=50.0, **options)[1, 1:].tolist() == alone


@pytest.mark.parametrize("window", [2, 3])
def test_a_rolling_cache_generates_the_same(window: int) -> None:
    """A model with a window generates with a cache of two windows what it generates without one."""
    gpt = model(window=window, max_len=64)
    assert gpt.new_cache(2, 50).nbytes < KVCache(2, 2, 3 * window, 3, 4).nbytes
    with_cache, without = (
        generate(gpt, PROMPT, max_new_tokens=50, temperature=0.0, use_cache=use) for use in (True, False)
    )
    assert torch.equal(with_cache, without)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_generation_waits_for_no_device(temperature: float) -> None:
    """Without a stop id no step asks the device for a number: without numbers, on "meta", it goes too."""
    with torch.device("meta"):
        gpt = model().to("meta")
        prompt = torch.zeros(2, 3, dtype=torch.int64)
    out = generate(gpt, prompt, max_new_tokens=40, temperature=temperature, top_k=5, min_p=0.1)
    assert out.shape == (2, 43)
    assert out.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_generation_on_a_gpu() -> None:
    """On a GPU the greedy ids are those of the CPU, with and without a cache."""
    gpt = model()
    expected = generate(gpt, PROMPT, max_new_tokens=40, temperature=0.0)
    gpt.to("cuda")
    for use in (True, False):
        out = generate(gpt, PROMPT.to("cuda"), max_new_tokens=40, temperature=0.0, use_cache=use)
        assert torch.equal(out.cpu(), expected)


def test_a_greedy_step_is_one_of_greedy_generation() -> None:
    """Steps of the readable function, each reading the whole text, give what `generate` gives at temperature 0."""
    gpt, ids = model(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    expected = generate(gpt, ids, max_new_tokens=5, temperature=0.0)
    for _ in range(5):
        ids = greedy_step(ids, gpt(ids))
    assert torch.equal(ids, expected)


def test_an_ended_row_stays_ended() -> None:
    """A row whose last id is the stop gets it again; one that met it earlier goes on."""
    ids, logits = torch.tensor([[1, 3], [3, 1]]), torch.zeros(2, 2, 5)
    logits[:, :, 2] = 1
    assert greedy_step(ids, logits, 3).tolist() == [[1, 3, 3], [3, 1, 2]]


def test_drawing_follows_the_distribution() -> None:
    """Even chances 0, 1/n, 2/n, ... fall on each id as often as its probability says, on an impossible one never."""
    probabilities, n = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0]), 1000
    drawn = draw(probabilities.expand(n, -1), torch.arange(n) / n)
    assert drawn.bincount(minlength=6).tolist() == pytest.approx([0, 200, 0, 500, 300, 0], abs=1)


@pytest.mark.parametrize("total", [0.99, 1.01])
def test_drawing_survives_rounding(total: float) -> None:
    """Where the sum is a little off 1 the largest chance below 1 still falls on the last possible id."""
    probabilities = torch.tensor([0.5, 0.5, 0.0, 0.0]) * total
    assert draw(probabilities, torch.tensor(1 - 2**-24)).item() == 1


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (torch.tensor([1, 2]), {}, r"shape \(2,\), not \(B, T\)"),
        (torch.zeros(2, 0, dtype=torch.long), {}, r"shape \(2, 0\)"),
        (torch.zeros(0, 3, dtype=torch.long), {}, r"shape \(0, 3\)"),
        (PROMPT, {"max_new_tokens": -1}, "max_new_tokens -1"),
        (PROMPT, {"pads": torch.tensor([1])}, r"pads have shape \(1,\), but there are 2 prompts"),
        (PROMPT, {"pads": torch.tensor([0, 3])}, r"pads \[0, 3\] do not leave a token of the 3"),
        (PROMPT, {"temperature": -1.0}, "temperature -1.0"),
        (PROMPT, {"top_p": 0.0}, "top_p 0.0"),
        (PROMPT + V, {}, f"outside the vocabulary of {V}"),
        (PROMPT[:, :1] + V, {}, f"outside the vocabulary of {V}"),
        ([[1, 2]], {}, "prompts are of type list, not a tensor"),
        (PROMPT, {"max_new_tokens": 2.5}, "max_new_tokens 2.5"),
        (PROMPT, {"pads": [0, 1]}, "pads are of type list"),
        (PROMPT, {"stop": V}, f"stop {V} is outside the vocabulary of {V}"),
        (PROMPT, {"stop": [1, -1]}, "stop -1 is no id"),
        (PROMPT, {"stop": 1.5}, "stop 1.5 is no id"),
    ],
)
def test_what_cannot_go_on_is_refused(ids: Tensor, options: dict[str, Any], message: str) -> None:
    """Prompts, padding and numbers that make no sense raise ValueError and name the values; beam search likewise."""
    model = GPT(GPTConfig(vocab_size=V, n_layers=1, d_model=8, n_heads=2))
    options = {"max_new_tokens": 3, **options}
    with pytest.raises(ValueError, match=message):
        generate(model, ids, **options)
    if "temperature" not in options and "top_p" not in options:
        with pytest.raises(ValueError, match=message):
            beam_search(model, ids, **options)


def test_no_prompts_are_refused() -> None:
    """Nothing to pad, and what is no list of ids, raise ValueError."""
    for nothing in ([], torch.empty(0, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match="no prompts"):
            pad_left(nothing)  # type: ignore[arg-type]
    for wrong in ([1, 2], "ab", [[1.5]], [None]):
        with pytest.raises(ValueError, match="prompts are lists of ids, not"):
            pad_left(wrong)  # type: ignore[arg-type]


def test_prompts_may_be_tensors() -> None:
    """Tensors of ids, alone or in a list, are padded like lists of them."""
    ids, pads = pad_left([torch.tensor([5, 6, 7]), torch.tensor([8])])  # type: ignore[list-item]
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert pads.tolist() == [0, 2]
    assert torch.equal(pad_left(ids)[0], ids)  # type: ignore[arg-type]


class Breaking(Counter):
    """A Counter whose second row's logits are broken from the third step on."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        logits = super().forward(ids, cache=cache)
        if len(self.shown) > 2:
            logits[1, -1, 5 if self.value != -torch.inf else slice(None)] = self.value
        return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}, {"repetition_penalty": 2.0}]
)
def test_logits_that_allow_no_token_are_told(value: float, options: dict[str, Any]) -> None:
    """Where logits are NaN or infinite nothing is said: the step and the row are named, whatever draws the ids."""
    steps = stream(Breaking(value), PROMPT, max_new_tokens=6, use_cache=False, **options)
    assert len([next(steps), next(steps)]) == 2
    with pytest.raises(FloatingPointError, match="row 1 hold NaN or infinity at step 2"):
        next(steps)
    with pytest.raises(FloatingPointError, match="row 1 hold NaN or infinity at step 2"):
        generate(Breaking(value), PROMPT, max_new_tokens=6, stop=3, use_cache=False, **options)
    with pytest.raises(FloatingPointError, match="row 0"):
        sample(torch.tensor([[value, value]]), **{k: v for k, v in options.items() if k != "repetition_penalty"})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_of_nan_does_not_speak(temperature: float) -> None:
    """A trained model gone wrong is told with and without a cache, at the first step."""
    model = GPT(GPTConfig(vocab_size=V, n_layers=1, d_model=8, n_heads=2))
    model.blocks[0].attention.out.weight.data[0, 0] = float("nan")
    for use_cache in (True, False):
        with pytest.raises(FloatingPointError, match="at step 0"):
            generate(model, PROMPT, max_new_tokens=4, temperature=temperature, use_cache=use_cache)


def test_signs_are_looked_at_together() -> None:
    """Of many steps at once the first that is broken is named, as it is on a GPU behind the last step."""
    fine, broken = torch.zeros(3), torch.tensor([0.0, float("nan"), float("inf")])
    check_signs([])
    check_signs([fine, fine])
    with pytest.raises(FloatingPointError, match="row 1 hold NaN or infinity at step 2"):
        check_signs([fine, fine, broken, broken])


def test_no_temperature_is_too_low() -> None:
    """Near 0 a temperature is greedy in every precision, though logits divided by it would be infinite."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        logits = torch.tensor([[90.0, 100.0, -100.0], [3.0, 1.0, 2.0]], dtype=dtype)
        for temperature in (1e-3, 1e-30):
            assert sample(logits, temperature=temperature).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"min_p": 0.05}, {"temperature": 0.7, "top_p": 0.95}])
def test_half_precision_draws_as_single(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Among thousands of tokens those that stay, and their chances, are what the same logits give in float32."""
    logits = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(probabilities(logits, **options), probabilities(logits.float(), **options))
    draws = [sample(x, generator=torch.Generator().manual_seed(1), **options) for x in (logits, logits.float())]
    assert torch.equal(*draws)


def test_any_number_of_axes_is_drawn_from() -> None:
    """Logits (..., V) give ids (...), drawn or greedy."""
    logits = 100.0 * nn.functional.one_hot(torch.tensor([[3, 1], [0, 2]]), 5)
    for temperature in (0.0, 1.0):
        assert sample(logits, temperature=temperature).tolist() == [[3, 1], [0, 2]]
        assert sample(logits[0, 0], temperature=temperature).item() == 3
