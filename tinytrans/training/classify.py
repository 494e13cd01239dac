"""Classification: inputs and labels -> the loss of a model that tells classes apart, and how often it is right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from tinytrans.training.feed import to_device
from tinytrans.training.loop import evaluating
from tinytrans.training.pretrain import cross_entropy

Labelled = tuple[Any, Tensor]  # what the model reads, labels (B,)


def class_loss(model: nn.Module, batch: Labelled) -> tuple[Tensor, int]:
    """What `fit` differentiates: (inputs, labels (B,)) -> (sum, number) of the surprise at the labels.

    Inputs are one tensor, or a dict of the model's arguments by name. Raises ValueError for a label that is no class.
    """
    inputs, labels = batch
    return cross_entropy(logits_of(model, inputs), labels, reduction="sum", what="set of classes"), len(labels)


def logits_of(model: Callable[..., Tensor], inputs: Tensor | dict[str, Tensor]) -> Tensor:
    """What the model says of inputs, one tensor or a dict of arguments: logits (B, n_classes)."""
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def accuracy(model: nn.Module, batches: Iterable[Labelled]) -> float:
    """The share of the labels that the model thinks the likeliest, in eval mode; ValueError where there are none."""
    device = next(model.parameters()).device
    right = count = 0
    with evaluating(model):
        for batch in batches:
            inputs, labels = to_device(batch, device)
            right += int((logits_of(model, inputs).argmax(dim=-1) == labels).sum())
            count += len(labels)
    if not count:
        raise ValueError("no labels to compare with")
    return right / count
