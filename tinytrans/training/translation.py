"""Translation: sources and right answers -> the loss of a model that reads the one and writes the other."""

from __future__ import annotations

from torch import Tensor, nn

from tinytrans.training.pretrain import next_token_sum

Translations = tuple[Tensor, Tensor, Tensor, Tensor]  # source (B, S), its lengths (B,), inputs and targets (B, T)


def translation_loss(model: nn.Module, batch: Translations) -> tuple[Tensor, Tensor]:
    """What `fit` differentiates: (source, lengths, inputs, targets) -> (sum, number) of the surprise at the targets.

    Each step reads the right token before it, whatever the model would have said (teacher forcing): all steps can be
    asked at once. Source: Williams and Zipser 1989, https://doi.org/10.1162/neco.1989.1.2.270.
    """
    source, lengths, inputs, targets = batch
    return next_token_sum(model(source, inputs, lengths=lengths), targets)
