"""Laws of GRPO: an answer is measured by the other answers to its prompt."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tinytrans.training.grpo import (
    centred_advantages,
    group_advantages,
    grpo_loss,
    leave_one_out_advantages,
    per_length,
    per_sequence,
    per_token,
)

MASK = torch.tensor([[True, True, True, True], [True, False, False, False], [True, True, False, False]])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_advantages_by_hand() -> None:
    """Rewards 1, 2, 3, 6 of mean 3 and variance 3.5 become -2, -1, 0, 3 divided by the root of 3.5."""
    expected = torch.tensor([[-2.0, -1.0, 0.0, 3.0]]) / math.sqrt(3.5)
    torch.testing.assert_close(group_advantages(torch.tensor([[1.0, 2.0, 3.0, 6.0]])), expected)


def test_every_group_is_measured_by_itself() -> None:
    """A group's advantages do not change with the other groups, nor with a shift or a scale of its rewards."""
    rewards = draw(3, 5)
    together = group_advantages(rewards)
    torch.testing.assert_close(together[1:2], group_advantages(rewards[1:2]))
    torch.testing.assert_close(group_advantages(100 * rewards + 7), together)
    torch.testing.assert_close(together.mean(dim=-1), torch.zeros(3).double())
    torch.testing.assert_close(together.std(dim=-1, correction=0), torch.ones(3).double())


def test_equal_rewards_teach_nothing() -> None:
    """A group of equal rewards has advantages of exactly 0, even where the mean is rounded; others keep theirs."""
    for value in (0.1, 1 / 3, -7e8, 0.0):
        rewards = torch.tensor([[value] * 10, [1.0] * 5 + [0.0] * 5])
        advantages = group_advantages(rewards)
        assert advantages[0].abs().max() == 0
        assert advantages[1].tolist() == [1.0] * 5 + [-1.0] * 5


def test_leave_one_out_is_its_definition() -> None:
    """Each reward is compared with the mean of the others."""
    rewards = draw(2, 4)
    others = [rewards[:, [j for j in range(4) if j != i]].mean(dim=-1) for i in range(4)]
    by_hand = rewards - torch.stack(others, dim=-1)
    torch.testing.assert_close(leave_one_out_advantages(rewards), by_hand)
    torch.testing.assert_close(centred_advantages(rewards), by_hand * 3 / 4)
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        leave_one_out_advantages(rewards[:, :1])
    with pytest.raises(ValueError, match=r"not \(8,\)"):
        group_advantages(rewards.flatten())


def test_normalisations_by_hand() -> None:
    """Of answers of 4, 1 and 2 tokens the longest, alone wrong, weighs 1/3 by sequence and 4/7 by token."""
    ones = torch.ones(3, 4)
    assert per_sequence(ones, MASK).item() == 1
    assert per_token(ones, MASK).item() == 1
    assert per_length(4)(ones, MASK).item() == pytest.approx(7 / 12)
    long = torch.tensor([[2.0] * 4, [0.0] * 4, [0.0] * 4])
    assert per_sequence(long, MASK).item() == pytest.approx(2 / 3)
    assert per_token(long, MASK).item() == pytest.approx(8 / 7)
    assert per_length(4)(long, MASK).item() == pytest.approx(2 / 3)


def test_at_ratio_one_it_is_the_policy_gradient() -> None:
    """While the policy is the one that sampled, the gradient is that of -A log pi, under every normalisation."""
    logprobs, advantages = -draw(3, 4).abs(), draw(3, seed=1)
    for normalise in (per_sequence, per_token, per_length(9)):
        ours, plain = (logprobs.clone().requires_grad_() for _ in range(2))
        grpo_loss(ours, logprobs, advantages, MASK, normalise=normalise).backward()
        normalise(-advantages[:, None] * plain, MASK).backward()
        torch.testing.assert_close(ours.grad, plain.grad)


def test_the_loss_at_the_start_is_zero_for_whole_groups() -> None:
    """Averaged by sequence, the first loss of whole groups is 0: their advantages cancel. Its gradient does not."""
    advantages = group_advantages(draw(2, 3)).flatten()
    logprobs = -draw(6, 4).abs()
    new = logprobs.clone().requires_grad_()
    mask = torch.ones(6, 4).bool()
    loss = grpo_loss(new, logprobs, advantages, mask)
    loss.backward()
    assert loss.abs().item() < 1e-12
    assert new.grad.abs().max() > 0.01


def test_what_stands_in_the_padding_is_no_matter() -> None:
    """The loss and its gradient are finite and the same whatever old and reference log-probabilities say of padding."""
    new, old, ref = (draw(3, 4, seed=i).requires_grad_() for i in range(3))
    advantages = draw(3, seed=4)
    wild = [torch.where(MASK, x, -math.inf) for x in (old, ref)]
    loss = grpo_loss(new, old, advantages, MASK, ref_logprobs=ref, beta=0.1)
    other = grpo_loss(new, wild[0], advantages, MASK, ref_logprobs=wild[1], beta=0.1)
    assert torch.equal(loss, other)
    gradients = torch.autograd.grad(other, (new, old, ref), allow_unused=True)
    assert gradients[0].masked_fill(MASK, 0).abs().max() == 0
    assert gradients[1:] == (None, None)
    new = torch.where(MASK, new.detach(), math.nan).requires_grad_()
    assert torch.equal(grpo_loss(new, old, advantages, MASK, ref_logprobs=ref, beta=0.1), loss)
    (again,) = torch.autograd.grad(grpo_loss(new, old, advantages, MASK, ref_logprobs=ref, beta=0.1), new)
    assert torch.equal(again, gradients[0])


def test_gradient() -> None:
    """The gradient agrees with finite differences in float64, with a KL penalty too."""
    old, ref, advantages = draw(3, 4, seed=1), draw(3, 4, seed=2), draw(3, seed=3)
    assert torch.autograd.gradcheck(
        lambda x: grpo_loss(x, old, advantages, MASK, ref_logprobs=ref, beta=0.3), draw(3, 4).requires_grad_()
    )


def test_arguments_are_used_or_refused() -> None:
    """A beta without reference, a reference without beta, and advantages of another shape are errors."""
    x, advantages = draw(3, 4), draw(3)
    with pytest.raises(ValueError, match=r"not beta 0.1 with ref_logprobs None"):
        grpo_loss(x, x, advantages, MASK, beta=0.1)
    with pytest.raises(ValueError, match=r"not beta 0.0 with ref_logprobs \(3, 4\)"):
        grpo_loss(x, x, advantages, MASK, ref_logprobs=x)
    with pytest.raises(ValueError, match=r"one advantage a row, not \(3, 4\)"):
        grpo_loss(x, x, x, MASK)
    with pytest.raises(ValueError, match=r"mask \(3, 4\) and ref_logprobs \(3, 1\)"):
        grpo_loss(x, x, advantages, MASK, ref_logprobs=x[:, :1], beta=0.1)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("loss_type", "normalise"),
    [("grpo", per_sequence), ("bnpo", per_token), ("dr_grpo", per_length(9)), ("dapo", per_token)],
)
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_trl_agrees(loss_type: str, normalise, beta: float) -> None:
    """TRL's GRPO loss of the same name gives the same number and the same gradient, with and without a KL penalty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl and what it imports warn of their own deprecations
        trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    ours, theirs = (draw(3, 4).requires_grad_() for _ in range(2))
    old, ref, advantages = draw(3, 4, seed=1), draw(3, 4, seed=2), draw(3, seed=3)
    same = SimpleNamespace(gather=lambda x: x, reduce=lambda x, **_: x, num_processes=1)
    stub = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (theirs, torch.zeros(3, 4), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        loss_type=loss_type,
        epsilon_low=0.2,
        epsilon_high=0.28,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        accelerator=same,
        max_completion_length=9,
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    inputs = {
        "prompt_ids": torch.zeros(3, 1),
        "prompt_mask": torch.ones(3, 1),
        "completion_ids": torch.zeros(3, 4),
        "completion_mask": MASK.long(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": MASK.sum(),
    }
    expected = trainer._compute_loss(stub, None, inputs)
    loss = grpo_loss(
        ours, old, advantages, MASK, clip_high=0.28, ref_logprobs=ref if beta else None, beta=beta, normalise=normalise
    )
    torch.testing.assert_close(loss, expected)
    expected.backward()
    loss.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
