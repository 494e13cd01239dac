"""Laws of classification: the loss is the mean over labels, accuracy counts, and both take arguments by name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytrans.training.classify import accuracy, class_loss
from tinytrans.training.loop import gradient

X, Y = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1, 0, 2, 2])


class Masked(nn.Module):
    """A classifier with two arguments, and dropout to tell eval mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.dropout = nn.Linear(4, 3), nn.Dropout(0.9)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(self.dropout(x if mask is None else x * mask))


def test_batches_weigh_by_their_labels() -> None:
    """Accumulated over unequal batches the loss is the mean over all labels, as in one batch."""
    model = Masked().eval()
    mean, count = gradient(model, [(X[:2], Y[:2]), (X[2:], Y[2:])], class_loss)
    torch.testing.assert_close(mean, F.cross_entropy(model(X), Y).detach())
    assert int(count) == 7


def test_a_label_that_is_no_class_is_named() -> None:
    """A label beyond the classes raises ValueError with both numbers."""
    with pytest.raises(ValueError, match="target 3 is outside the set of classes of 3"):
        class_loss(Masked(), (X, Y + 1))


def test_arguments_come_by_name() -> None:
    """A dict of inputs is the model's keyword arguments."""
    model, mask = Masked().eval(), torch.tensor([1.0, 0, 1, 0])
    total, _ = class_loss(model, ({"x": X, "mask": mask}, Y))
    torch.testing.assert_close(total, F.cross_entropy(model(X * mask), Y, reduction="sum"))


def test_accuracy_is_counted_in_eval_mode() -> None:
    """The share of labels that are the likeliest class, over batches of any size; the model's mode stays."""
    model = Masked().train()
    right = (model.head(X).argmax(dim=-1) == Y).double().mean().item()
    batches = [(X[:3], Y[:3]), ({"x": X[3:]}, Y[3:])]
    assert [accuracy(model, batches) for _ in range(3)] == [pytest.approx(right)] * 3
    assert model.training
    with pytest.raises(ValueError, match="no labels"):
        accuracy(model, [])
