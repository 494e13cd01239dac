"""Laws of naive Bayes. Oracles: the definition in a loop, scikit-learn's."""

from __future__ import annotations

import math

import pytest
import torch

from tinytrans.models.bayes import naive_bayes

COUNTS = torch.tensor([[2.0, 0, 1], [0, 3, 0], [1, 1, 0], [0, 0, 4]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize("smoothing", [1.0, 0.3])
def test_logits_are_the_definition(smoothing: float) -> None:
    """The logits are log p(class) + sum of count log p(word | class), counted by hand."""
    layer = naive_bayes(COUNTS, LABELS, 2, smoothing=smoothing)
    for row in COUNTS:
        for label, said in enumerate(layer(row).tolist()):
            mine = [counts for counts, other in zip(COUNTS.tolist(), LABELS.tolist(), strict=True) if other == label]
            words = [sum(counts[w] for counts in mine) + smoothing for w in range(3)]
            log_p = math.log(len(mine) / 4)
            log_p += sum(row[w].item() * math.log(words[w] / sum(words)) for w in range(3))
            assert said == pytest.approx(log_p)


def test_is_scikit_learns() -> None:
    """On random counts the chances of the classes are those of MultinomialNB."""
    learn = pytest.importorskip("sklearn.naive_bayes").MultinomialNB
    chance = torch.Generator().manual_seed(0)
    counts, labels = torch.randint(4, (50, 20), generator=chance).double(), torch.arange(50) % 3
    theirs = learn(alpha=0.5).fit(counts.numpy(), labels.numpy()).predict_proba(counts.numpy())
    ours = naive_bayes(counts, labels, 3, smoothing=0.5)(counts).softmax(dim=-1)
    torch.testing.assert_close(ours, torch.from_numpy(theirs))


def test_sparse_counts_are_counts() -> None:
    """From sparse counts comes the same layer."""
    dense, sparse = (naive_bayes(counts, LABELS, 2) for counts in (COUNTS, COUNTS.to_sparse()))
    torch.testing.assert_close(sparse.weight, dense.weight)
    torch.testing.assert_close(sparse.bias, dense.bias)


def test_nothing_is_impossible() -> None:
    """A word that a class never used makes it less likely, not impossible; the more smoothing, the less it tells."""
    new = torch.tensor([0.0, 1, 0], dtype=torch.float64)
    counts = torch.tensor([[1.0, 0, 1], [0, 2, 0]], dtype=torch.float64)
    chances = [naive_bayes(counts, torch.tensor([0, 1]), 2, smoothing=s)(new).softmax(-1)[0] for s in (0.01, 1, 9)]
    assert 0 < chances[0] < chances[1] < chances[2] < 0.5


def test_a_class_without_a_text_is_named() -> None:
    """Raises ValueError where a class was never seen."""
    with pytest.raises(ValueError, match="class 2 has no text among 4"):
        naive_bayes(COUNTS, LABELS, 3)
