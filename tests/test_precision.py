"""Laws of precision: a loss computes in float64 what it is given in float64, and half precision in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tinytrans.models.rnn import teacher_forced_loss
from tinytrans.models.word2vec import NOBODY, cbow_loss, negative_sampling_loss
from tinytrans.training.logprobs import entropy, sequence_logprobs, token_logprobs
from tinytrans.training.pretrain import IGNORED, next_token_loss, next_token_sum
from tinytrans.training.sft import sft_loss

B, T, V, D = 2, 3, 5, 4
TARGETS = torch.tensor([[1, 4, IGNORED], [0, IGNORED, 2]])
KNOWN = TARGETS.clamp(min=0)
LOGITS: dict[str, Callable[[Tensor], Tensor]] = {
    "next_token_loss": lambda logits: next_token_loss(logits, TARGETS),
    "next_token_sum": lambda logits: next_token_sum(logits, TARGETS)[0],
    "sft_loss": lambda logits: sft_loss(logits, TARGETS),
    "token_logprobs": lambda logits: token_logprobs(logits, KNOWN),
    "sequence_logprobs": lambda logits: sequence_logprobs(logits, KNOWN),
    "entropy": entropy,
    "teacher_forced_loss": lambda logits: teacher_forced_loss(logits, torch.tensor([[1, 4, 3], [0, 3, 2]]), stop=3),
}


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("name", LOGITS)
def test_gradients_of_logits_are_exact(name: str) -> None:
    """The gradient is that of finite differences, to float64's precision: nothing on the way is narrower."""
    assert LOGITS[name](draw(B, T, V)).dtype == torch.float64
    assert torch.autograd.gradcheck(LOGITS[name], (draw(B, T, V),))


@pytest.mark.parametrize("name", [name for name in LOGITS if name != "teacher_forced_loss"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(name: str, dtype: torch.dtype) -> None:
    """Of half-precision logits the loss is the float32 one of the same numbers."""
    logits = draw(B, T, V).detach().to(dtype)
    assert LOGITS[name](logits).dtype == torch.float32
    torch.testing.assert_close(LOGITS[name](logits), LOGITS[name](logits.float()))


@pytest.mark.parametrize("loss", [next_token_loss, sft_loss, lambda *given: next_token_sum(*given)[0]])
def test_targets_may_be_of_32_bits(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Targets of half the memory say the same."""
    logits = draw(B, T, V)
    assert torch.equal(loss(logits, TARGETS.int()), loss(logits, TARGETS))


def test_gradients_of_word_vectors_are_exact() -> None:
    """So are those of both ways to train word2vec."""
    contexts, centres = torch.tensor([[1, 2], [3, NOBODY]]), torch.tensor([0, 4])
    assert torch.autograd.gradcheck(lambda i, o: cbow_loss(i, o, contexts, centres), (draw(V, D), draw(V, D)))
    assert torch.autograd.gradcheck(negative_sampling_loss, (draw(B, D), draw(B, D), draw(B, 3, D)))
