"""Laws of pretraining. Oracles: the definition in a loop, ln V for an untrained model, torch's cross entropy."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinytrans.config import GPTConfig
from tinytrans.data.batches import pack, packed, pad
from tinytrans.models.gpt import GPT
from tinytrans.training.pretrain import (
    IGNORED,
    evaluate,
    language_model_loss,
    next_token_loss,
    next_token_sum,
    perplexity,
    pretrain,
    shift,
)


class Bigram(nn.Module):
    """The next token from the last one alone, with dropout to tell eval mode from training."""

    def __init__(self, n: int = 13) -> None:
        super().__init__()
        self.table = nn.Embedding(n, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, n)
        self.dropout = nn.Dropout(0.5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.dropout(self.mix(self.table(ids))))


def counting(number: int, length: int = 7) -> tuple[Tensor, Tensor]:
    """Rows that count upwards, modulo 13: each token determines the next."""
    begin = torch.randint(13, (5, 1), generator=torch.Generator().manual_seed(number))
    return shift((begin + torch.arange(length + 1)) % 13)


@pytest.mark.parametrize("positions", ["learned", "rope", "sinusoidal", "alibi", "none"])
def test_packed_documents_are_as_if_alone(positions: Any) -> None:
    """The loss of documents packed in rows, longer than all learned positions, is that of each document alone."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=13, n_layers=2, d_model=12, n_heads=2, max_len=8, positions=positions)
    model = GPT(config).double()
    nn.init.normal_(model.embedding.weight, std=1.0)
    documents = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 10, 11, 12], [2, 7]]
    rows = [[documents[i] for i in row] for row in pack(documents, 11)]
    assert max(map(len, rows)) > 1
    total, count = language_model_loss(model, packed(rows, 11))
    alone = [language_model_loss(model, pad([document])) for document in documents]
    assert count == sum(number for _, number in alone)
    torch.testing.assert_close(total, sum(one for one, _ in alone))


def test_targets_are_the_next_tokens() -> None:
    """Position t is asked for token t + 1: shifting once, to the left, and losing one column."""
    ids = torch.arange(12).view(2, 6)
    inputs, targets = shift(ids)
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10]]
    assert targets.tolist() == [[1, 2, 3, 4, 5], [7, 8, 9, 10, 11]]


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_a_loss_is_never_less_exact_than_its_logits(given: torch.dtype, computed: torch.dtype) -> None:
    """Half precision is summed in single, double stays double."""
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 3, 5, dtype=torch.float64).to(given), torch.tensor([[1, -100, 4], [0, 2, -100]])
    total, _ = next_token_sum(logits, targets)
    assert total.dtype == computed
    right = torch.nn.functional.cross_entropy(logits.to(computed).transpose(1, 2), targets, reduction="sum")
    torch.testing.assert_close(total, right, rtol=torch.finfo(computed).eps * 8, atol=0)


def test_nothing_past_the_end_is_a_target() -> None:
    """With lengths, the last real token is a target and no padding is, even where the padding id stands in the text."""
    ids = torch.tensor([[3, 0, 5, 0, 0, 0], [1, 2, 3, 4, 5, 0], [9, 0, 0, 0, 0, 0]])
    _, targets = shift(ids, torch.tensor([4, 6, 1]))
    assert targets.tolist() == [[0, 5, 0, -100, -100], [2, 3, 4, 5, 0], [-100] * 5]
    assert ids[0, 5] == 0


def test_the_loss_is_the_mean_over_targets() -> None:
    """The loss is the mean of -log softmax at the target, over targets other than -100, written out in a loop."""
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 3, 5), torch.tensor([[1, -100, 4], [0, 2, -100]])
    losses = [
        -math.log(math.exp(logits[b, t, target]) / sum(math.exp(x) for x in logits[b, t]))
        for b in range(2) for t in range(3) if (target := int(targets[b, t])) != -100
    ]  # fmt: skip
    assert next_token_loss(logits, targets).item() == pytest.approx(sum(losses) / 4, rel=1e-5)
    total, count = next_token_sum(logits, targets)
    assert (total.item(), count.item()) == (pytest.approx(sum(losses), rel=1e-5), 4)


def test_an_ignorant_model_scores_ln_v() -> None:
    """Equal logits cost ln V, and their perplexity is V."""
    loss = next_token_loss(torch.full((2, 3, 50), 7.0), torch.randint(50, (2, 3)))
    assert loss.item() == pytest.approx(math.log(50))
    assert perplexity(loss.item()) == pytest.approx(50, rel=1e-5)


def test_large_logits_and_half_precision_stay_finite() -> None:
    """Logits of a thousand and logits in bfloat16 give a finite loss in float32."""
    assert next_token_loss(torch.tensor([[[1000.0, 0.0]]]), torch.tensor([[1]])).item() == 1000
    loss = next_token_loss(torch.randn(2, 3, 5).bfloat16(), torch.ones(2, 3, dtype=torch.long))
    assert loss.dtype == torch.float32


def test_a_batch_without_targets_costs_nothing() -> None:
    """With every target -100 the loss is 0 and its gradient too."""
    logits = torch.randn(1, 2, 4, requires_grad=True)
    loss = next_token_loss(logits, torch.full((1, 2), -100))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_shapes_that_disagree_are_named() -> None:
    """Targets of the unshifted length are refused with both shapes."""
    with pytest.raises(ValueError, match=r"logits \(2, 3, 5\) want targets \(2, 3\), not \(2, 4\)"):
        next_token_loss(torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.long))


@pytest.mark.parametrize("wrong", [13, -1, 99])
def test_a_target_beyond_the_vocabulary_is_named(wrong: int) -> None:
    """A target that no logit speaks of raises ValueError with its id and the vocabulary's size; -100 is none."""
    targets = torch.tensor([[3, -100, wrong]])
    with pytest.raises(ValueError, match=f"target {wrong} is outside the vocabulary of 13"):
        next_token_sum(torch.zeros(1, 3, 13), targets)


def test_perplexity_has_no_overflow() -> None:
    """A loss of 0 is a perplexity of 1, a hopeless one of infinity."""
    assert perplexity(0.0) == 1
    assert perplexity(1e4) == math.inf


def test_evaluation_weighs_by_tokens() -> None:
    """Batches of 5 and 35 targets score as one of 40, without dropout, twice the same; train mode stays."""
    torch.manual_seed(1)
    model = Bigram()
    batches = [counting(0, length=1), counting(1)]
    scores = evaluate(model, batches)
    assert scores == evaluate(model, batches)
    assert model.training
    model.eval()
    expected = sum(next_token_sum(model(inputs), targets)[0].item() for inputs, targets in batches) / 40
    assert scores == {"validation": pytest.approx(expected), "perplexity": pytest.approx(math.exp(expected))}


def test_there_must_be_something_to_evaluate() -> None:
    """Batches without targets, and no batches, are refused."""
    with pytest.raises(ValueError, match="0 batches hold no target"):
        evaluate(Bigram(), [])


def test_pretraining_learns_what_can_be_learnt() -> None:
    """A bigram model learns to count in 150 steps, from about ln V to under 0.1; from shuffled targets it cannot."""
    torch.manual_seed(2)
    model, control = Bigram().eval(), Bigram()
    for each in (model, control):
        each.dropout.p = 0.0
    history = pretrain(model, counting, steps=150, validation=[counting(1000)], every=50, progress=False)
    assert history.losses[0] == pytest.approx(math.log(13), abs=0.5)
    assert history.column("validation")[-1] < 0.1
    assert history.column("perplexity")[-1] < 1.11

    def shuffled(number: int) -> tuple[Tensor, Tensor]:
        inputs, targets = counting(number)
        return inputs, targets.flatten()[torch.randperm(35, generator=torch.Generator().manual_seed(number))].view(5, 7)

    pretrain(control, shuffled, steps=150, progress=False)
    assert evaluate(control, [counting(1000)])["validation"] > 1


def test_the_loss_of_pretraining_is_the_models() -> None:
    """`language_model_loss` gives the sum over a batch's targets for any model that maps ids to logits."""
    model = Bigram().eval()
    inputs, targets = counting(3)
    total, count = language_model_loss(model, (inputs, targets))
    assert (total / count).item() == pytest.approx(next_token_loss(model(inputs), targets).item())


def test_the_readable_loss_is_the_fused_one() -> None:
    """`next_token_loss` is the mean of `next_token_sum`, and so are its gradients."""
    torch.manual_seed(2)
    logits, targets = torch.randn(3, 4, 7), torch.randint(7, (3, 4))
    targets[1, 2:] = IGNORED
    mine, fused = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = next_token_loss(mine, targets)
    total, count = next_token_sum(fused, targets)
    torch.testing.assert_close(loss, total / count)
    torch.testing.assert_close(*torch.autograd.grad(loss, mine), *torch.autograd.grad(total / count, fused))
