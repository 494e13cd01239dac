"""Instruction tuning (SFT): prompts and answers -> batches in which only the answer is learned.

The loss is that of pretraining; what differs are the targets. A training run is `fit(model, batches,
language_model_loss, ...)` on batches from `answer_targets`, or, for dialogues of several turns, padded or packed, on
those of `tinytrans.data.batches` with `learned=` what `tinytrans.data.chat.dialogue` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def answer_mask(prompt_lengths: Tensor, lengths: Tensor, T: int) -> Tensor:
    """Which tokens are the answer's: lengths (B,) of prompts, and of prompts with answers -> bool (B, T).

    The sign that ends the answer belongs to it, or the model never learns to stop; count it in `lengths`.
    What the padding looks like plays no part: its id may be the end's.

    >>> answer_mask(torch.tensor([1, 2]), torch.tensor([3, 3]), 4).int().tolist()
    [[0, 1, 1, 0], [0, 0, 1, 0]]
    """
    if prompt_lengths.shape != lengths.shape:
        raise ValueError(f"prompt_lengths {prompt_lengths.shape} and lengths {lengths.shape} differ")
    positions = torch.arange(T, device=lengths.device)
    return (prompt_lengths[:, None] <= positions) & (positions < lengths[:, None])


def answer_targets(ids: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    """Every position is asked for the token after it, if that is the answer's -> inputs and targets.

    ids (B, T) and answer (B, T), a bool mask, are shifted together, to (B, T - 1): the prompt's last
    position is asked for the answer's first token. Elsewhere the target is -100.

    >>> answer_targets(torch.tensor([[5, 6, 7, 0]]), torch.tensor([[False, False, True, False]]))
    (tensor([[5, 6, 7]]), tensor([[-100,    7, -100]]))
    """
    if ids.shape != answer.shape:
        raise ValueError(f"ids {tuple(ids.shape)} and answer {tuple(answer.shape)} differ in shape")
    return ids[:, :-1], ids[:, 1:].masked_fill(~answer[:, 1:], -100)


def sft_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean surprise at the answers' tokens, in nats: logits (B, T, V), targets (B, T) -> scalar.

    Elsewhere targets are -100. Every answer token of the batch weighs the same, so a long answer weighs
    more than a short one. A batch without any costs 0.
    Source: Ouyang et al. 2022 (InstructGPT), arXiv 2203.02155.

    >>> round(sft_loss(torch.zeros(1, 2, 10), torch.tensor([[-100, 3]])).item(), 4)  # ln 10
    2.3026
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} want targets {tuple(logits.shape[:-1])}, not {tuple(targets.shape)}"
        )
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half would lose the sum's small parts
    total = F.cross_entropy(exact.flatten(0, -2), targets.flatten().long(), reduction="sum")  # -100 is left out
    return total / (targets != -100).sum().clamp(min=1)


def answer_batch(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, pad: int = 0
) -> tuple[Tensor, Tensor]:
    """Prompts and answers, as token ids -> ids (B, T), padded on the right, and the answers' mask (B, T), uncut.

    Raises ValueError where their numbers differ, where there are none, and at an empty prompt: nothing would stand
    before the answer's first token.

    >>> answer_batch([[1, 2], [3]], [[8, 9], [9]])
    (tensor([[1, 2, 8, 9],
            [3, 9, 0, 0]]), tensor([[False, False,  True,  True],
            [False,  True, False, False]]))
    """
    if len(prompts) != len(answers):
        raise ValueError(f"{len(prompts)} prompts cannot be paired with {len(answers)} answers")
    if not len(prompts):
        raise ValueError("there are no prompts to make a batch of")
    if empty := [row for row, prompt in enumerate(prompts) if not len(prompt)]:
        raise ValueError(f"prompt {empty[0]} of {len(prompts)} is empty: nothing would ask for its answer's start")
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    T = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (T - len(row)) for row in rows])
    prompt_lengths, lengths = (torch.tensor([len(row) for row in part]) for part in (prompts, rows))
    return ids, answer_mask(prompt_lengths, lengths, T)
