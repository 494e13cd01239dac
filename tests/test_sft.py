"""Laws of instruction tuning: only the answer is learned, all of it, to its end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tinytrans.config import GPTConfig
from tinytrans.models.gpt import GPT
from tinytrans.training.logprobs import sequence_logprobs
from tinytrans.training.sft import answer_batch, answer_mask, answer_targets, sft_loss

END = 9


def test_every_answer_token_is_asked_for_once() -> None:
    """The prompt's end is asked for the answer's start, the answer's last word for the end, padding for nothing."""
    ids, answer = answer_batch([[1, 2, 3], [4]], [[5, END], [6, 7, END]])
    inputs, targets = answer_targets(ids, answer)
    assert inputs.tolist() == [[1, 2, 3, 5], [4, 6, 7, END]]
    assert targets.tolist() == [[-100, -100, 5, END], [6, 7, END, -100]]


def test_padding_may_look_like_the_end() -> None:
    """A padding id equal to the end sign hides no end sign: lengths decide, not ids."""
    ids, answer = answer_batch([[1], [2]], [[END], [3, 4, END]], pad=END)
    assert answer.tolist() == [[False, True, False, False], [False, True, True, True]]
    assert ids[0].tolist() == [1, END, END, END]


def test_mask_covers_prompt_to_length() -> None:
    """The mask is True from the prompt's length to the row's length; an answer of no token has none."""
    mask = answer_mask(torch.tensor([0, 2, 3]), torch.tensor([3, 4, 3]), 4)
    assert mask.int().tolist() == [[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


def test_loss_is_the_mean_over_answer_tokens() -> None:
    """The loss is the mean of -log p over the answers' tokens of the whole batch, however long each answer is."""
    logits = torch.randn(2, 4, 10, dtype=torch.float64)
    _, targets = answer_targets(*answer_batch([[1, 2, 3], [4]], [[5, END], [6, 7, END]]))
    picked = [logits[0, 2], logits[0, 3], logits[1, 0], logits[1, 1], logits[1, 2]]
    by_hand = sum(-z.log_softmax(-1)[y] for z, y in zip(picked, [5, END, 6, 7, END], strict=True)) / 5
    torch.testing.assert_close(sft_loss(logits, targets), by_hand, rtol=1e-6, atol=1e-6, check_dtype=False)
    total = -sequence_logprobs(logits, targets).sum() / 5
    torch.testing.assert_close(total, by_hand)


def test_prompt_logits_learn_nothing() -> None:
    """No gradient reaches logits at the prompt's other positions or at padding; the answer's each get one."""
    ids, answer = answer_batch([[1, 2, 3], [4]], [[5, END], [6, 7, END]])
    _, targets = answer_targets(ids, answer)
    logits = torch.randn(2, 4, 10, requires_grad=True)
    sft_loss(logits, targets).backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, answer[:, 1:])


def test_the_loss_of_a_model_is_its_answers_alone() -> None:
    """Padding and the other rows of a batch do not change what a model's answer costs."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=10, n_layers=1, d_model=8, n_heads=2)).eval()
    prompts, answers = [[1, 2, 3], [4]], [[5, END], [6, 7, END]]
    inputs, targets = answer_targets(*answer_batch(prompts, answers))
    together = -sequence_logprobs(model(inputs), targets)
    for row in range(2):
        inputs, targets = answer_targets(*answer_batch(prompts[row : row + 1], answers[row : row + 1]))
        torch.testing.assert_close(-sequence_logprobs(model(inputs), targets)[0], together[row])
        alone = F.cross_entropy(model(inputs)[0, -len(answers[row]) :], torch.tensor(answers[row]))
        torch.testing.assert_close(sft_loss(model(inputs), targets), alone)


def test_errors_name_both_values() -> None:
    """Unequal numbers of prompts and answers, an empty prompt and an unfitting mask are refused by name."""
    with pytest.raises(ValueError, match="2 prompts cannot be paired with 1 answers"):
        answer_batch([[1], [2]], [[3]])
    with pytest.raises(ValueError, match="prompt 1 of 2 is empty"):
        answer_batch([[1], []], [[3], [4]])
    with pytest.raises(ValueError, match="there are no prompts"):
        answer_batch([], [])
    with pytest.raises(ValueError, match=r"ids \(1, 3\) and answer \(1, 2\)"):
        answer_targets(torch.zeros(1, 3).long(), torch.zeros(1, 2).bool())


def test_shapes_that_disagree_are_refused() -> None:
    """Targets of as many numbers, but in another shape, are somebody's mistake, not other targets."""
    with pytest.raises(ValueError, match=r"logits \(2, 3, 5\) want targets \(2, 3\), not \(3, 2\)"):
        sft_loss(torch.zeros(2, 3, 5), torch.zeros(3, 2, dtype=torch.long))
