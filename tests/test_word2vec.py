"""Laws of word2vec. Oracles: definitions counted out in plain Python, closed forms, words whose company is known."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinytrans.config import Word2VecConfig
from tinytrans.models.word2vec import (
    NOBODY,
    Word2Vec,
    analogy,
    cbow_loss,
    draw_negatives,
    keep_chances,
    mean_vector,
    nearest,
    negative_sampling_loss,
    neighbours,
    noise,
    subsample,
    window_pairs,
    windows,
)

B, C, N, V, D = 5, 4, 3, 11, 7
sentences = st.lists(st.lists(st.integers(0, V - 1), max_size=7), max_size=4)


def chance(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=chance(seed), dtype=torch.float64)


def model(seed: int = 0) -> Word2Vec:
    """Two full tables in double precision."""
    w = Word2Vec(Word2VecConfig(vocab_size=V, d_model=D)).double()
    with torch.no_grad():
        w.inputs.copy_(draw(V, D, seed=seed))
        w.outputs.copy_(draw(V, D, seed=seed + 1))
    return w


def test_pairs_by_hand() -> None:
    """Each word meets those up to 2 places away, on both sides, in the order of the text."""
    assert window_pairs([5, 6, 7, 8], 2) == [
        (5, 6), (5, 7), (6, 5), (6, 7), (6, 8), (7, 5), (7, 6), (7, 8), (8, 6), (8, 7),
    ]  # fmt: skip
    assert window_pairs([5], 2) == window_pairs([], 2) == []


def test_a_window_leaves_out_its_centre_and_not_its_word() -> None:
    """The centre's place is no context, but the same word in another place is."""
    assert window_pairs([3, 3], 1) == [(3, 3), (3, 3)]
    assert (4, 4) not in window_pairs([4, 5, 6], 5)


@settings(deadline=None)
@given(text=sentences, width=st.integers(1, 5))
def test_all_windows_at_once(text: list[list[int]], width: int) -> None:
    """Pairs of many sentences are those of each by itself: no window reaches into the next sentence."""
    given_, guessed = windows(text, width).pairs()
    one_by_one = [pair for sentence in text for pair in window_pairs(sentence, width)]
    assert list(zip(given_.flatten().tolist(), guessed.tolist(), strict=True)) == one_by_one


@settings(deadline=None)
@given(text=sentences, width=st.integers(1, 5))
def test_bags_are_the_pairs_gathered(text: list[list[int]], width: int) -> None:
    """CBOW's examples hold skip-gram's pairs, one bag a centre, and no bag is empty."""
    bags, centres = windows(text, width).bags()
    present = bags != NOBODY
    assert bags.shape == (len(centres), 2 * width)
    assert bool(present.any(dim=1).all())
    gathered = [(int(c), int(w)) for bag, c in zip(bags, centres, strict=True) for w in bag if w != NOBODY]
    assert gathered == [pair for sentence in text for pair in window_pairs(sentence, width)]


def test_frequent_words_are_thinned() -> None:
    """A word with the share f is kept with the chance min(1, sqrt(t / f)); the rarest are always kept."""
    counts = torch.tensor([900, 90, 10, 0])
    assert keep_chances(counts, threshold=0.01).tolist() == pytest.approx(
        [math.sqrt(0.01 / 0.9), math.sqrt(1 / 9), 1, 1]
    )
    text = torch.tensor([0] * 9000 + [1] * 9000)
    left = subsample(text, keep_chances(counts, threshold=0.01), generator=chance())
    assert (left == 0).sum().item() == pytest.approx(9000 * math.sqrt(0.01 / 0.9), rel=0.1)
    assert (left == 1).sum().item() == pytest.approx(3000, rel=0.1)


def test_subsampling_keeps_the_order() -> None:
    """What is left stands in the order of the text."""
    text = torch.arange(1000)
    left = subsample(text, torch.full((1000,), 0.5), generator=chance()).tolist()
    assert 400 < len(left) < 600
    assert all(a < b for a, b in pairwise(left))


def test_noise_is_count_to_the_three_quarters() -> None:
    """16 times as frequent is 8 times as likely; what never occurs is never drawn."""
    chances = noise(torch.tensor([16, 1, 0, 81]))
    assert chances.tolist() == pytest.approx([8 / 36, 1 / 36, 0, 27 / 36])


def test_negatives_are_wrong() -> None:
    """No negative is a right answer of its example, and the others come as often as their chances say."""
    chances = torch.tensor([0.4, 0.3, 0.2, 0.1])
    right = torch.tensor([[0, 2], [3, NOBODY]]).repeat(4000, 1)
    negatives = draw_negatives(chances, right, N, generator=chance())
    assert negatives.shape == (8000, N)
    assert negatives[::2].unique().tolist() == [1, 3]
    assert negatives[1::2].unique().tolist() == [0, 1, 2]
    shares = negatives[1::2].flatten().bincount(minlength=4) / negatives[1::2].numel()
    torch.testing.assert_close(shares, torch.tensor([4 / 9, 3 / 9, 2 / 9, 0]), atol=0.02, rtol=0)
    one = draw_negatives(chances, torch.tensor([1, 2]), N, generator=chance())
    assert not (one == torch.tensor([[1], [2]])).any()


def test_where_all_is_right_nothing_can_be_drawn() -> None:
    """An example without a wrong answer raises ValueError instead of drawing for ever."""
    with pytest.raises(ValueError, match="6 of 6 negatives"):
        draw_negatives(torch.tensor([0.5, 0.5]), torch.tensor([[0, 1], [1, 0]]), 3, generator=chance(), tries=5)


def test_the_mean_leaves_out_who_is_absent() -> None:
    """What stands where nobody is does not count, not even NaN, and the mean of nobody is zero."""
    vectors, present = draw(B, C, D), torch.rand(B, C, generator=chance()) < 0.5
    present[0], present[1] = False, True
    hidden = mean_vector(vectors.masked_fill(~present[:, :, None], math.nan), present)
    assert not hidden[0].any()
    for b in range(1, B):
        torch.testing.assert_close(hidden[b], vectors[b][present[b]].sum(0) / max(1, int(present[b].sum())))


def test_a_bag_has_no_order() -> None:
    """The mean is the same for its words in any order."""
    vectors = draw(B, C, D)
    present = torch.ones(B, C, dtype=torch.bool)
    torch.testing.assert_close(mean_vector(vectors[:, [2, 0, 3, 1]], present), mean_vector(vectors, present))


def test_cbow_loss_by_hand() -> None:
    """-log of the centre's share in exp(output . mean context), summed over all words one by one."""
    w = model()
    contexts = torch.tensor([[1, 2, NOBODY, 3], [4, NOBODY, NOBODY, NOBODY]])
    centres = torch.tensor([0, 9])
    losses = []
    for bag, centre in zip(contexts.tolist(), centres.tolist(), strict=True):
        words = [word for word in bag if word != NOBODY]
        hidden = sum(w.inputs[word] for word in words) / len(words)
        weights = [math.exp((w.outputs[v] @ hidden).item()) for v in range(V)]
        losses.append(-math.log(weights[centre] / math.fsum(weights)))
    assert cbow_loss(w.inputs, w.outputs, contexts, centres).item() == pytest.approx(sum(losses) / 2)


def test_negative_sampling_loss_by_hand() -> None:
    """-log s(u h) - sum log s(-u_n h), s the logistic function, averaged over examples."""
    hidden, positive, negatives = draw(B, D), draw(B, D, seed=1), draw(B, N, D, seed=2)

    def log_s(x: Tensor) -> float:
        return -math.log(1 + math.exp(-float(x)))

    losses = [
        -log_s(positive[b] @ hidden[b]) - sum(log_s(-negatives[b, n] @ hidden[b]) for n in range(N)) for b in range(B)
    ]
    assert float(negative_sampling_loss(hidden, positive, negatives)) == pytest.approx(sum(losses) / B)


def test_negative_sampling_loss_is_stable() -> None:
    """At scores of 1000 in float32 the loss is 1000 a wrong guess, and its gradient is finite."""
    hidden = torch.tensor([[1000.0]], requires_grad=True)
    loss = negative_sampling_loss(hidden, torch.tensor([[-1.0]]), torch.tensor([[[1.0], [1.0]]]))
    loss.backward()
    assert loss.item() == 3000
    assert hidden.grad is not None
    assert hidden.grad.item() == 3


def test_the_right_word_is_pulled_and_wrong_ones_pushed() -> None:
    """The gradient moves the right vector along the given one, the wrong ones against it."""
    hidden, positive, negatives = draw(1, D), draw(1, D, seed=1), draw(1, N, D, seed=2)
    positive.requires_grad_()
    negatives.requires_grad_()
    negative_sampling_loss(hidden, positive, negatives).backward()
    assert float(positive.grad[0] @ hidden[0]) < 0  # downhill is the other way
    assert bool((negatives.grad[0] @ hidden[0] > 0).all())


def test_cosines_know_no_length() -> None:
    """Neighbours are the same however long the vectors, nearest first, the word itself never among them."""
    vectors = draw(V, D)
    stretched = vectors * torch.linspace(0.1, 50, V, dtype=vectors.dtype)[:, None]
    for word in range(V):
        cosines = F.cosine_similarity(vectors[word], vectors)
        best = [i for i in cosines.argsort(descending=True).tolist() if i != word][:3]
        for table in (vectors, stretched):
            found = neighbours(table, word, k=3)
            assert found.ids.tolist() == best
            torch.testing.assert_close(found.cosines, cosines[best])


def test_there_are_no_more_neighbours_than_words() -> None:
    """Asked for more, `neighbours` gives all others; a vector of zeros is at right angles to all."""
    vectors = draw(4, D)
    vectors[2] = 0
    found = neighbours(vectors, 0, k=99)
    assert sorted(found.ids.tolist()) == [1, 2, 3]
    assert found.cosines[found.ids == 2].item() == 0
    assert len(nearest(vectors, vectors[0], 99).ids) == 4


def test_an_analogy_is_a_parallelogram() -> None:
    """b - a + c finds the fourth corner, and never a, b or c, even where they are nearer."""
    a, b, c = torch.eye(3)
    vectors = torch.stack((a, b, 9 * c, b - a + c, -a))  # lengths must not matter
    assert analogy(vectors, 0, 1, 2).ids.tolist() == [3]
    assert sorted(analogy(vectors, 0, 1, 2, k=9).ids.tolist()) == [3, 4]


def test_the_module_computes_the_losses() -> None:
    """Scores are products of output vectors with the mean of input vectors, and the loss is the function's."""
    w, bags = model(), torch.tensor([[1, NOBODY, 3, 4], [NOBODY, NOBODY, 2, NOBODY]])
    right, negatives = torch.tensor([5, 6]), torch.tensor([[7, 8, 9], [0, 1, 10]])
    hidden = mean_vector(w.inputs[bags.clamp(min=0)], bags != NOBODY)
    torch.testing.assert_close(w.hidden(bags), hidden)
    torch.testing.assert_close(w(bags, negatives), torch.einsum("bd,bnd->bn", hidden, w.outputs[negatives]))
    expected = negative_sampling_loss(hidden, w.outputs[right], w.outputs[negatives])
    torch.testing.assert_close(w.loss(bags, right, negatives), expected)


def test_two_tables() -> None:
    """What is given and what is guessed have vectors of their own, and only words in play get a gradient."""
    w = model()
    w.loss(torch.tensor([[1]]), torch.tensor([2]), torch.tensor([[3, 4]])).backward()
    assert w.inputs.grad.any(dim=1).nonzero().flatten().tolist() == [1]
    assert w.outputs.grad.any(dim=1).nonzero().flatten().tolist() == [2, 3, 4]
    assert w.n_params == 2 * V * D


def test_at_birth_nothing_is_known() -> None:
    """A new model scores 0 everywhere: its loss is (1 + N) ln 2."""
    w = Word2Vec(Word2VecConfig(vocab_size=V, d_model=D))
    loss = w.loss(torch.tensor([[1, 2]]), torch.tensor([3]), torch.tensor([[4, 5, 6]]))
    assert loss.item() == pytest.approx(4 * math.log(2))
    assert w.inputs.any()


@pytest.mark.parametrize("task", ["pairs", "bags"])
def test_company_makes_likeness(task: str) -> None:
    """Words that occur in the same company become neighbours though they never meet: trained by either task."""
    torch.manual_seed(0)
    groups = [[0, 1, 2], [3, 4, 5]]  # 0, 1, 2 are seen with 6, 7, 8; 3, 4, 5 with 9, 10
    text = [
        [who, what]
        for group, liked in zip(groups, ([6, 7, 8], [9, 10]), strict=True)
        for who in group
        for what in liked
    ]
    examples, right = getattr(windows(text, 1), task)()
    chances = noise(torch.tensor(text).flatten().bincount(minlength=V))
    w = Word2Vec(Word2VecConfig(vocab_size=V, d_model=D))

    def found() -> bool:
        near = {word: set(neighbours(w.vectors, word, 2).ids.tolist()) for group in groups for word in group}
        return all(near[word] == {*group} - {word} for group in groups for word in group)

    assert not found()
    optimizer = torch.optim.Adam(w.parameters(), lr=0.05)
    for step in range(100):
        optimizer.zero_grad()
        w.loss(examples, right, draw_negatives(chances, right, N, generator=chance(step))).backward()
        optimizer.step()
    assert found()


def test_it_is_saved_and_opened(tmp_path: Path) -> None:
    """What was saved scores the same when opened again."""
    w = model().float()
    w.save_pretrained(tmp_path)
    opened = Word2Vec.from_pretrained(tmp_path)
    assert opened.config == w.config
    assert torch.equal(opened.inputs, w.inputs)
    assert torch.equal(opened.outputs, w.outputs)
