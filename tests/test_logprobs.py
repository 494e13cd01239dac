"""Laws of log-probabilities: how likely each token and each answer was."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from tinytrans.training.logprobs import entropy, masked_mean, same_shape, sequence_logprobs, token_logprobs

LOGITS = torch.tensor([[[0.0, math.log(3)], [math.log(4), 0.0], [0.0, 0.0]]])  # p = (1/4, 3/4), (4/5, 1/5), (1/2, 1/2)
TARGETS = torch.tensor([[1, 1, 0]])


def test_by_hand() -> None:
    """The probabilities of the tokens that came are 3/4, 1/5 and 1/2, and of the whole answer their product."""
    torch.testing.assert_close(token_logprobs(LOGITS, TARGETS).exp(), torch.tensor([[0.75, 0.2, 0.5]]))
    torch.testing.assert_close(sequence_logprobs(LOGITS, TARGETS).exp(), torch.tensor([0.075]))


def test_only_masked_tokens_count() -> None:
    """Tokens outside the mask, and targets of -100, add nothing to the sum and do not divide the mean."""
    mask = torch.tensor([[False, True, True]])
    torch.testing.assert_close(sequence_logprobs(LOGITS, TARGETS, mask).exp(), torch.tensor([0.1]))
    torch.testing.assert_close(sequence_logprobs(LOGITS, TARGETS, mask, mean=True).exp(), torch.tensor([0.1**0.5]))
    ignored = TARGETS.masked_fill(~mask, -100)
    torch.testing.assert_close(sequence_logprobs(LOGITS, ignored, mean=True).exp(), torch.tensor([0.1**0.5]))


def test_padding_does_not_matter() -> None:
    """An answer is as likely alone as padded in a batch, whatever the logits say about padding."""
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(2, 5, 7, generator=generator), torch.randint(7, (2, 5), generator=generator)
    mask = torch.arange(5) < torch.tensor([[3], [5]])
    both = sequence_logprobs(logits, targets, mask)
    torch.testing.assert_close(both[:1], sequence_logprobs(logits[:1, :3], targets[:1, :3]))


def test_an_empty_answer_is_certain() -> None:
    """An answer of no token has log-probability 0, as a sum and as a mean, with a gradient of zeros."""
    logits = LOGITS.clone().requires_grad_()
    nothing = torch.zeros_like(TARGETS).bool()
    for mean in (False, True):
        value = sequence_logprobs(logits, TARGETS, nothing, mean=mean)
        assert value.item() == 0
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert torch.equal(gradient, torch.zeros_like(LOGITS))


def test_large_logits() -> None:
    """Logits of a thousand overflow nothing: what is unlikely has its exact log-probability."""
    logits = torch.tensor([[[1000.0, 0.0]]])
    assert token_logprobs(logits, torch.tensor([[1]])).item() == -1000
    assert token_logprobs(logits, torch.tensor([[0]])).item() == 0


def test_half_precision_is_summed_in_float() -> None:
    """Logits in bfloat16 give log-probabilities in float32, those of the same logits in float32."""
    logits = torch.randn(2, 3, 50).bfloat16()
    targets = torch.randint(50, (2, 3))
    assert torch.equal(token_logprobs(logits, targets), token_logprobs(logits.float(), targets))


def test_gradients() -> None:
    """The gradients agree with finite differences in float64."""
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0, 4, -100], [2, -100, 1]])
    assert torch.autograd.gradcheck(lambda z: token_logprobs(z, targets), logits)
    assert torch.autograd.gradcheck(lambda z: sequence_logprobs(z, targets, mean=True), logits)
    assert torch.autograd.gradcheck(entropy, logits)


def test_unshifted_logits_are_refused() -> None:
    """Logits for one position more than there are targets are refused with both shapes."""
    with pytest.raises(ValueError, match=r"logits \(1, 3, 2\) ask for targets \(1, 3\), not \(1, 2\)"):
        token_logprobs(LOGITS, TARGETS[:, 1:])
    with pytest.raises(ValueError, match=r"targets \(1, 3\) and mask \(1, 2\)"):
        sequence_logprobs(LOGITS, TARGETS, torch.ones(1, 2).bool())
    with pytest.raises(ValueError, match=r"one \(2,\) and other \(2, 1\)"):
        same_shape(one=torch.zeros(2), other=torch.zeros(2, 1))


def test_a_token_beyond_the_vocabulary_is_named() -> None:
    """A target that no logit speaks of raises ValueError with its id and the vocabulary's size."""
    with pytest.raises(ValueError, match="target 2 is outside the vocabulary of 2"):
        token_logprobs(torch.zeros(1, 2, 2), torch.tensor([[1, 2]]))


def test_entropy() -> None:
    """The entropy of V equal logits is ln V, of a certainty 0, of 1/4 and 3/4 the sum by hand; -inf takes no part."""
    assert entropy(torch.zeros(7)).item() == pytest.approx(math.log(7))
    assert entropy(torch.tensor([0.0, 200.0])).item() == pytest.approx(0)
    assert entropy(LOGITS[0, 0]).item() == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    filtered = torch.tensor([1.0, 2.0, -math.inf], requires_grad=True)
    entropy(filtered).backward()
    assert entropy(filtered.detach()).item() == pytest.approx(entropy(torch.tensor([1.0, 2.0])).item())
    assert filtered.grad.isfinite().all()


def test_masked_mean_never_sees_what_is_masked() -> None:
    """NaN outside the mask reaches neither the mean nor the gradient, and the mean of nothing is 0."""
    values = torch.tensor([2.0, math.nan, 4.0], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, False, True]))
    mean.backward()
    assert mean.item() == 3
    assert values.grad.tolist() == [0.5, 0, 0.5]
    assert masked_mean(values, torch.zeros(3).bool()).item() == 0


@pytest.mark.oracle
def test_trl_agrees() -> None:
    """TRL's log-probabilities and entropies of the same logits are the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl and what it imports warn of their own deprecations
        utils = pytest.importorskip("trl.trainer.utils")
        logits, targets = torch.randn(3, 4, 9), torch.randint(9, (3, 4))
        torch.testing.assert_close(token_logprobs(logits, targets), utils.selective_log_softmax(logits, targets))
        torch.testing.assert_close(entropy(logits), utils.entropy_from_logits(logits))
