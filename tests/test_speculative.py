"""Laws of speculative decoding. Oracles: every outcome enumerated on tiny vocabularies, generation without a draft."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tinytrans.config import GPTConfig
from tinytrans.models.gpt import GPT
from tinytrans.sampling import generate
from tinytrans.sampling.speculative import acceptance, residual, speculate, verify

PROMPT = torch.tensor([[1, 2, 0]])
distributions = (
    st.lists(st.integers(0, 9), min_size=4, max_size=4)
    .filter(any)
    .map(lambda counts: torch.tensor(counts, dtype=torch.float64) / sum(counts))
)


def chance(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def model(seed: int = 0, **changes: Any) -> GPT:
    """A tiny GPT whose weights are large enough to have opinions; another seed has others."""
    torch.manual_seed(seed)
    config = {"vocab_size": 7, "n_layers": 2, "d_model": 12, "n_heads": 3, "max_len": 40}
    gpt = GPT(GPTConfig(**{**config, **changes})).eval()
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.4)
    return gpt


def drifting(gpt: GPT) -> GPT:
    """A draft that mostly agrees with the model: its weights, a little moved."""
    draft = model(1)
    draft.load_state_dict(gpt.state_dict())
    with torch.no_grad():
        for i, weight in enumerate(draft.parameters()):
            weight.add_(0.05 * torch.randn(weight.shape, generator=chance(i)))
    return draft


@settings(deadline=None)
@given(p=distributions, q=distributions)
def test_what_comes_out_is_the_target(p: Tensor, q: Tensor) -> None:
    """Drafted and kept, or rejected and redrawn: in all each token comes as often as the target says, exactly."""
    kept = q * acceptance(p, q)
    out = kept + (1 - kept.sum()) * residual(p, q)
    torch.testing.assert_close(out, p)
    torch.testing.assert_close(kept, torch.minimum(p, q))
    torch.testing.assert_close(residual(p, q).sum().item(), 1.0)


def test_a_draft_is_worth_its_overlap() -> None:
    """The chance to be kept is the overlap of both distributions: 1 for the same ones, 0 for disjoint ones."""
    p = torch.tensor([0.5, 0.5, 0.0])
    for q, overlap in (([0.5, 0.5, 0.0], 1.0), ([0.0, 0.0, 1.0], 0.0), ([0.2, 0.4, 0.4], 0.6)):
        q = torch.tensor(q)
        assert (q * acceptance(p, q)).sum().item() == pytest.approx(overlap)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_every_text_is_as_likely_as_without_a_draft(k: int) -> None:
    """Summed over all that may be drafted, kept and redrawn, each text of k + 1 tokens has the target's probability.

    Each drafted token's chance is put below and above its threshold, each weighted by its share of [0, 1).
    """
    V = 3
    histories = [h for n in range(k + 1) for h in product(range(V), repeat=n)]
    target = {h: torch.rand(V, generator=chance(i), dtype=torch.float64) + 0.01 for i, h in enumerate(histories)}
    target = {h: p / p.sum() for h, p in target.items()}
    draft = {h: torch.rand(V, generator=chance(99 + i), dtype=torch.float64) + 0.01 for i, h in enumerate(histories)}
    draft = {h: q / q.sum() for h, q in draft.items()}

    def rest(text: tuple[int, ...], end: tuple[int, ...]) -> float:
        """The target's probability of the tokens of `end` beyond `text`."""
        p = 1.0
        for i in range(len(text), len(end)):
            p *= target[end[:i]][end[i]].item()
        return p

    out = dict.fromkeys(product(range(V), repeat=k + 1), 0.0)
    for drafted in product(range(V), repeat=k):
        q = torch.stack([draft[drafted[:i]] for i in range(k)])
        p = torch.stack([target[drafted[:i]] for i in range(k + 1)])
        likely = torch.stack([q[i, token] for i, token in enumerate(drafted)]).prod().item()
        threshold = [min(1.0, (p[i, token] / q[i, token]).item()) for i, token in enumerate(drafted)]
        for low in product([True, False], repeat=k):
            share = likely
            for is_low, t in zip(low, threshold, strict=True):
                share *= t if is_low else 1 - t
            if share == 0:
                continue
            u = torch.tensor([t / 2 if is_low else (1 + t) / 2 for is_low, t in zip(low, threshold, strict=True)])
            n, last = verify(torch.tensor(drafted), q, p, u)
            assert n == (low.index(False) if False in low else k)
            for token in range(V):
                said = (*drafted[:n], token)
                for end in out:
                    if end[: n + 1] == said:
                        out[end] += share * last[token].item() * rest(said, end)
    for text, likely in out.items():
        assert likely == pytest.approx(rest((), text), abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("changes", [{}, {"positions": "learned"}, {"window": 3}])
def test_greedy_is_greedy(k: int, changes: dict[str, Any]) -> None:
    """At temperature 0 the text is the model's own greedy one, whatever the draft says."""
    gpt = model(**changes)
    expected = generate(gpt, PROMPT, max_new_tokens=30, temperature=0.0)
    for draft in (model(1), model(**changes)):
        out = speculate(gpt, draft, PROMPT, max_new_tokens=30, k=k, temperature=0.0, generator=chance())
        assert torch.equal(out.ids, expected)
        assert 30 - out.readings == out.kept  # each reading adds one token more than it keeps


def test_a_perfect_draft_is_always_kept() -> None:
    """A draft that is the model saves all readings but one in k + 1, and a good one is kept oftener than a bad one."""
    gpt = model()
    same = speculate(gpt, gpt, PROMPT, max_new_tokens=30, k=4, generator=chance())
    assert same.kept == same.drafted == 24
    assert same.readings == 6
    good, bad = (
        speculate(gpt, draft, PROMPT, max_new_tokens=36, k=4, generator=chance()) for draft in (drifting(gpt), model(1))
    )
    assert good.kept / good.drafted > bad.kept / bad.drafted
    assert 0 < bad.kept < bad.drafted


@pytest.mark.parametrize("options", [{}, {"temperature": 1.4, "top_k": 3}, {"top_p": 0.7}])
def test_samples_follow_the_model(options: dict[str, Any]) -> None:
    """Many texts of three tokens begin as often as the model alone says, with filters too."""
    gpt, draft, n = model(vocab_size=4, n_layers=1), model(1, vocab_size=4, n_layers=1), 300
    alone = generate(gpt, PROMPT.expand(50 * n, 3), max_new_tokens=2, generator=chance(), **options)[:, 3:]
    said = [
        speculate(gpt, draft, PROMPT, max_new_tokens=3, k=2, generator=chance(seed), **options).ids[:, 3:5]
        for seed in range(n)
    ]
    expected, found = ((4 * ids[:, 0] + ids[:, 1]).bincount(minlength=16).double() for ids in (alone, torch.cat(said)))
    expected *= n / expected.sum()
    some = expected > 5
    surprise = ((found - expected)[some] ** 2 / expected[some]).sum().item()
    assert surprise < some.sum() + 4 * (2 * some.sum()) ** 0.5  # four standard deviations of chi-square
    assert found[expected == 0].sum() == 0


def test_it_ends_at_a_stop() -> None:
    """The text ends with its first stop id, also one in the middle of what was drafted."""
    gpt = model()
    free = generate(gpt, PROMPT, max_new_tokens=30, temperature=0.0)[0].tolist()
    for stop in set(free[3:]):
        out = speculate(gpt, gpt, PROMPT, max_new_tokens=30, k=5, temperature=0.0, stop=stop, generator=chance())
        assert out.ids[0].tolist() == free[: 3 + free[3:].index(stop) + 1]


def test_chance_is_an_argument() -> None:
    """The same generator state says the same, another one something else; torch's own chance is left alone."""
    gpt, draft = model(), model(1)
    before = torch.get_rng_state()
    first, second, third = (
        speculate(gpt, draft, PROMPT, max_new_tokens=20, generator=chance(n)).ids for n in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_tokens_are_no_more(n: int) -> None:
    """There are never more new tokens than asked for."""
    assert speculate(model(), model(1), PROMPT, max_new_tokens=n, k=4, generator=chance()).ids.shape == (1, 3 + n)


@pytest.mark.parametrize(
    ("draft", "prompt", "options", "message"),
    [
        ({}, PROMPT.expand(2, 3), {}, "2 prompts"),
        ({}, PROMPT, {"k": 0}, "k 0"),
        ({}, PROMPT.tolist(), {}, "prompts are of type list"),
        ({}, PROMPT, {"stop": 7}, "stop 7 is outside the vocabulary of 7"),
        ({"vocab_size": 8}, PROMPT, {}, "vocabulary of 7 is not the draft's of 8"),
        ({"max_len": 9}, PROMPT, {}, "3 ids and 7 new ones, 10 in all, exceed max_len 9"),
    ],
)
def test_what_does_not_go_together_is_refused(
    draft: dict[str, int], prompt: Tensor, options: dict[str, int], message: str
) -> None:
    """Several prompts, no draft, other vocabularies and too long texts raise ValueError and are named."""
    with pytest.raises(ValueError, match=message):
        speculate(model(), model(**draft), prompt, max_new_tokens=7, **options)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("broken", ["model", "draft"])
def test_logits_of_nan_are_told(broken: str, temperature: float) -> None:
    """Whichever of the two has lost its numbers is named."""
    config = GPTConfig(vocab_size=4, n_layers=1, d_model=8, n_heads=2, max_len=32)
    models = {name: GPT(config) for name in ("model", "draft")}
    models[broken].embedding.weight.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match=f"logits of the {broken} hold NaN"):
        speculate(models["model"], models["draft"], PROMPT, max_new_tokens=5, temperature=temperature)
