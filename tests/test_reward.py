"""Laws of reward models: one number for an answer, higher where it is preferred."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tinytrans.config import GPTConfig
from tinytrans.models.gpt import GPT
from tinytrans.training.reward import RewardHead, accuracy, last_token_reward, pairwise_loss


def test_by_hand() -> None:
    """A difference of ln 3 means a preference of 3 to 1: the loss is -log 3/4."""
    loss = pairwise_loss(torch.tensor([math.log(3)]), torch.tensor([0.0]))
    assert loss.item() == pytest.approx(-math.log(0.75))
    assert pairwise_loss(torch.tensor([math.log(6)]), torch.tensor([0.0]), margin=math.log(2)).item() == pytest.approx(
        -math.log(0.75)
    )


def test_only_differences_count() -> None:
    """The same constant added to every reward changes nothing, and equal rewards cost ln 2."""
    chosen, rejected = torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(pairwise_loss(chosen + 3, rejected + 3), pairwise_loss(chosen, rejected))
    assert pairwise_loss(chosen, chosen).item() == pytest.approx(math.log(2))


def test_a_hopeless_pair_still_has_its_loss_and_gradient() -> None:
    """A thousand on the wrong side costs a thousand, with a gradient of -1 and 1; on the right side nothing."""
    chosen, rejected = (torch.tensor([x], requires_grad=True) for x in (-1000.0, 0.0))
    loss = pairwise_loss(chosen, rejected)
    loss.backward()
    assert loss.item() == 1000
    assert (chosen.grad.item(), rejected.grad.item()) == (-1, 1)
    assert pairwise_loss(rejected.detach(), chosen.detach()).item() == 0


def test_gradient() -> None:
    """The gradient agrees with finite differences in float64."""
    pair = [torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda c, r: pairwise_loss(c, r, margin=0.3), pair)


def test_ties_count_half() -> None:
    """A model that says the same about every answer has an accuracy of a half, not of 0 or 1."""
    assert accuracy(torch.zeros(3), torch.zeros(3)).item() == 0.5
    assert accuracy(torch.tensor([2.0, 0.0, 1.0, 5.0]), torch.tensor([1.0, 1.0, 1.0, 1.0])).item() == 0.625


def test_the_last_real_token_is_read() -> None:
    """The reward is that of the last real token, not of padding, for scores and for states."""
    scores = torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0], [7.0, 9.0, 9.0]])
    lengths = torch.tensor([2, 3, 1])
    assert last_token_reward(scores, lengths).tolist() == [2, 5, 7]
    assert last_token_reward(scores[..., None].expand(3, 3, 2), lengths).tolist() == [[2, 2], [5, 5], [7, 7]]
    for wrong in (torch.tensor([0, 1, 1]), torch.tensor([1, 4, 1])):
        with pytest.raises(ValueError, match="lengths from"):
            last_token_reward(scores, wrong)
    with pytest.raises(ValueError, match=r"lengths \(3,\), not \(2,\)"):
        last_token_reward(scores, lengths[:2])


def test_batching_does_not_change_a_reward() -> None:
    """An answer's reward is the same alone and padded beside longer ones, whatever the padding is."""
    torch.manual_seed(0)
    model = RewardHead(GPT(GPTConfig(vocab_size=11, n_layers=1, d_model=6, n_heads=3)), 6).eval()
    nn.init.normal_(model.head.weight)
    ids, lengths = torch.tensor([[1, 2, 0, 0], [3, 4, 5, 6]]), torch.tensor([2, 4])
    rewards = model(ids, lengths)
    torch.testing.assert_close(model(ids[:1, :2], lengths[:1]), rewards[:1])
    ids[0, 2:] = 7
    torch.testing.assert_close(model(ids, lengths), rewards)
    assert model.values(ids).shape == (2, 4)


def test_a_reward_model_begins_at_ln_2_and_learns() -> None:
    """At first all answers are equal and the loss is ln 2; after some steps the preferred are rewarded more."""
    torch.manual_seed(0)
    model = RewardHead(GPT(GPTConfig(vocab_size=11, n_layers=1, d_model=6, n_heads=3)), 6)
    chosen, rejected, lengths = torch.randint(1, 5, (8, 4)), torch.randint(5, 9, (8, 4)), torch.full((8,), 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    losses = []
    for _ in range(20):
        loss = pairwise_loss(model(chosen, lengths), model(rejected, lengths))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2))
    assert losses[-1] < 0.1
    assert accuracy(model(chosen, lengths), model(rejected, lengths)).item() == 1


def test_shapes_must_agree() -> None:
    """Rewards (B,) beside (B, 1) are refused, not broadcast to (B, B)."""
    with pytest.raises(ValueError, match=r"chosen \(3,\) and rejected \(3, 1\)"):
        pairwise_loss(torch.zeros(3), torch.zeros(3, 1))
