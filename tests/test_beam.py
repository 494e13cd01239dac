"""Laws of beam search. Oracles: every possible answer of a tiny model, scored one by one; greedy generation."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinytrans.config import GPTConfig
from tinytrans.models.gpt import GPT
from tinytrans.sampling import beam
from tinytrans.sampling.beam import Beams, beam_search, extend_beams, length_score
from tinytrans.sampling.generate import generate, pad_left

V, N = 5, 4
PROMPTS = torch.tensor([[1, 2, 0], [4, 3, 3]])


def model(**changes: Any) -> GPT:
    """A tiny GPT in double precision whose weights are large enough to have opinions."""
    torch.manual_seed(0)
    config = {"vocab_size": V, "n_layers": 2, "d_model": 12, "n_heads": 3, "max_len": 16}
    gpt = GPT(GPTConfig(**{**config, **changes})).double().eval()
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.5)
    return gpt


def all_answers(gpt: GPT, prompt: Tensor, stop: set[int], penalty: float) -> list[tuple[float, list[int]]]:
    """Every answer of up to N tokens, ended by its first stop or by N, with its score, best first."""
    texts = torch.tensor([[*prompt.tolist(), *answer] for answer in product(range(V), repeat=N)])
    with torch.no_grad():
        log_p = gpt(texts[:, :-1])[:, len(prompt) - 1 :].log_softmax(-1)
    log_p = log_p.gather(-1, texts[:, len(prompt) :, None]).squeeze(-1)
    scores = {}
    for answer, row in zip(texts[:, len(prompt) :].tolist(), log_p, strict=True):
        n = next((i + 1 for i, token in enumerate(answer) if token in stop), N)
        scores[tuple(answer[:n])] = row[:n].sum().item() / n**penalty
    return sorted(((score, list(answer)) for answer, score in scores.items()), reverse=True)


def answers(beams: Beams, row: int, stop: set[int]) -> list[list[int]]:
    """A row's answers without what is repeated behind their stop."""
    found = []
    for answer in beams.ids[row].tolist():
        n = next((i + 1 for i, token in enumerate(answer) if token in stop), len(answer))
        assert set(answer[n:]) <= {answer[n - 1]}
        found.append(answer[:n])
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.5, -1.0])
@pytest.mark.parametrize("stop", [set(), {2}, {0, 3}])
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_beam_that_drops_nothing_finds_the_best(penalty: float, stop: set[int], use_cache: bool) -> None:
    """With a beam as wide as there are unfinished texts, the answers are the best of all, in order, row by row."""
    gpt, W = model(), V ** (N - 1)
    beams = beam_search(
        gpt, PROMPTS, max_new_tokens=N, beams=W, length_penalty=penalty, stop=[*stop] or None, use_cache=use_cache
    )
    for row, prompt in enumerate(PROMPTS):
        expected = all_answers(gpt, prompt, stop, penalty)[:W]
        torch.testing.assert_close(beams.scores[row].double(), torch.tensor([s for s, _ in expected]).double())
        assert answers(beams, row, stop)[:20] == [answer for _, answer in expected[:20]]


def test_what_does_not_exist_has_no_score() -> None:
    """Asked for more answers than there are, the rest score -inf."""
    gpt = model()
    beams = beam_search(gpt, PROMPTS, max_new_tokens=1, beams=V + 2)
    assert beams.scores.isfinite().sum(dim=1).tolist() == [V, V]
    assert beams.scores[:, V:].isneginf().all()


@pytest.mark.parametrize("stop", [None, 2])
def test_one_beam_is_greedy(stop: int | None) -> None:
    """With one beam and no length penalty the answer is the greedy one, and its score its log-probability."""
    gpt = model()
    beams = beam_search(gpt, PROMPTS, max_new_tokens=9, beams=1, stop=stop, length_penalty=0.0)
    greedy = generate(gpt, PROMPTS, max_new_tokens=9, temperature=0.0, stop=stop)[:, 3:]
    assert beams.ids[:, 0, : greedy.shape[1]].tolist() == greedy.tolist()
    if stop is None:
        log_p = gpt(torch.cat((PROMPTS, greedy), dim=1))[:, 2:-1].log_softmax(-1).gather(-1, greedy[:, :, None])
        torch.testing.assert_close(beams.scores[:, 0].double(), log_p.sum(dim=(1, 2)))


def test_a_wider_beam_finds_better() -> None:
    """A few beams find what greed misses: no worse answer on any prompt, and a better one on some."""
    gpt = model()
    prompts = torch.tensor(list(product(range(V), repeat=2)))
    one, few = (beam_search(gpt, prompts, max_new_tokens=5, beams=W, length_penalty=0.0) for W in (1, 6))
    gain = few.scores[:, 0] - one.scores[:, 0]
    assert (gain > -1e-6).all()
    assert (gain > 0.01).any()


@pytest.mark.parametrize("changes", [{}, {"positions": "learned"}, {"positions": "alibi"}, {"window": 2}])
def test_the_cache_changes_nothing(changes: dict[str, Any]) -> None:
    """A cache whose rows follow their beams gives the answers that reading everything anew gives."""
    gpt = model(**changes)
    with_cache, without = (
        beam_search(gpt, PROMPTS, max_new_tokens=10, beams=4, stop=2, use_cache=use) for use in (True, False)
    )
    assert torch.equal(with_cache.ids, without.ids)
    torch.testing.assert_close(with_cache.scores, without.scores)


def test_rows_are_alone_and_padding_is_nothing() -> None:
    """Prompts of unequal length, padded on the left, get the answers that each gets alone."""
    gpt, prompts = model(positions="learned"), [[1, 2, 0, 4], [3], [4, 0]]
    ids, pads = pad_left(prompts, pad_id=1)
    together = beam_search(gpt, ids, max_new_tokens=6, beams=3, stop=2, pads=pads)
    for row, prompt in enumerate(prompts):
        alone = beam_search(gpt, torch.tensor([prompt]), max_new_tokens=6, beams=3, stop=2)
        assert answers(together, row, {2}) == answers(alone, 0, {2})
        torch.testing.assert_close(together.scores[row], alone.scores[0])


def test_longer_answers_by_a_penalty() -> None:
    """Divided by a higher power of their length, longer answers win."""
    assert length_score(torch.tensor(-6.0), 4, 1.0).item() == -1.5
    gpt = model()
    lengths = []
    for penalty in (-2.0, 0.0, 4.0):
        beams = beam_search(gpt, PROMPTS[:1], max_new_tokens=6, beams=50, stop=2, length_penalty=penalty)
        lengths.append(len(answers(beams, 0, {2})[0]))
    assert lengths[0] < lengths[2]
    assert sorted(lengths) == lengths


def test_a_search_ends_when_nothing_can_win() -> None:
    """Once all finished answers beat every unfinished text, the model is not asked again."""
    gpt, calls = model(), []
    gpt.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape))
    with torch.no_grad():
        gpt.norm.weight.zero_()  # all logits are 0: of V equally likely tokens V - 1 stop
    beams = beam_search(gpt, PROMPTS, max_new_tokens=12, beams=2, stop=[0, 1, 2, 3], length_penalty=0.0)
    assert len(calls) < 4
    assert beams.ids.shape[2] == len(calls)


def test_hope_by_hand() -> None:
    """Two tokens of log-probability -1 may become 8 of the mean -1/8, or 3 of the product -3, and no better."""
    alive = Beams(torch.zeros(1, 1, 2, dtype=torch.long), torch.tensor([[-1.0]]))
    for penalty, best in ((1.0, -1 / 8), (0.0, -1.0), (-1.0, -3.0)):
        for worst, gone in ((best + 0.01, True), (best - 0.01, False)):
            done = Beams(torch.zeros(1, 2, 8, dtype=torch.long), torch.tensor([[0.0, worst]]))
            assert beam.hopeless(alive, done, 2, 8, penalty) == gone


@pytest.mark.parametrize("penalty", [-1.5, -0.4, 0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("W", [1, 2, 3])
def test_ending_early_changes_nothing(penalty: float, W: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are those of a search that never gives up before max_new_tokens."""
    gpt, prompts = model(), torch.tensor(list(product(range(V), repeat=2)))
    options = {"max_new_tokens": 8, "beams": W, "stop": [1, 2], "length_penalty": penalty}
    early = [beam_search(gpt, prompt[None], **options) for prompt in prompts]
    monkeypatch.setattr(beam, "hopeless", lambda *_: False)
    patient = [beam_search(gpt, prompt[None], **options) for prompt in prompts]
    assert penalty > 1 or any(a.ids.shape[2] < b.ids.shape[2] for a, b in zip(early, patient, strict=True))
    for a, b in zip(early, patient, strict=True):
        assert answers(a, 0, {1, 2}) == answers(b, 0, {1, 2})
        torch.testing.assert_close(a.scores, b.scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 14}, "3 ids and 14 new ones exceed max_len 16"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"max_new_tokens": 3, "beams": 0}, "beams 0"),
        ({"max_new_tokens": 3, "beams": 1.5}, "beams 1.5"),
        ({"max_new_tokens": 3, "length_penalty": float("nan")}, "length_penalty nan"),
    ],
)
def test_what_cannot_be_searched_is_refused(options: dict[str, Any], message: str) -> None:
    """Sizes without meaning, and more than fits max_len, raise ValueError and are named."""
    with pytest.raises(ValueError, match=message):
        beam_search(model(), PROMPTS, **options)


def test_beams_extend_by_the_best_of_all_ways() -> None:
    """Of all W V ways on, in any order, the n best are found, with the text and the token that make each."""
    torch.manual_seed(3)
    scores, log_p = torch.randn(2, 3), torch.randn(2, 3, 5).log_softmax(-1)
    sums, parents, tokens = extend_beams(scores, log_p, 4)
    for b in range(2):
        ways = sorted(((scores[b, w] + log_p[b, w, t]).item(), w, t) for w in range(3) for t in range(5))[::-1][:4]
        assert [(w, t) for _, w, t in ways] == list(zip(parents[b].tolist(), tokens[b].tolist(), strict=True))
        assert sums[b].tolist() == pytest.approx([total for total, _, _ in ways])


@pytest.mark.parametrize("use_cache", [True, False])
def test_logits_of_nan_are_told(use_cache: bool) -> None:
    """Where there is no most probable text the step and the row are named."""
    gpt = model()
    gpt.embedding.weight.data[3] = float("nan")  # as the head's row it breaks every step, here the first
    with pytest.raises(FloatingPointError, match="row 0 hold NaN or infinity at step 0"):
        beam_search(gpt, PROMPTS, max_new_tokens=N, beams=2, use_cache=use_cache)
