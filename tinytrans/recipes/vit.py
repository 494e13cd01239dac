"""Handwriting: pictures of digits, cut into patches of 2 x 2 pixels -> which digit it is.

An encoder reads the patches as a sequence: where each stood it learns from position embeddings alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from tinytrans.config import PRESETS, ViTConfig
from tinytrans.data.batches import Shuffled
from tinytrans.data.digits import Digits, jittered
from tinytrans.models.vit import ViT
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.training.classify import accuracy, class_loss
from tinytrans.training.journal import History
from tinytrans.training.loop import fit
from tinytrans.training.optim import adamw, muon, wsd
from tinytrans.training.runs import Stepper

BATCH = 64


def vit(run: Run) -> Report:
    """A vision transformer names the digits of pictures that it never saw.

    The controls: the same without positions, to which every picture is a bag of patches, and one linear layer.
    """
    unseen = Digits(split="test", seed=run.seed)
    model, lost, line = build(run), build(run), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(run.device)
    lost.position.weight.requires_grad_(False).zero_()
    history = learn(model, by_muon, run)
    learn(lost, by_muon, run)
    learn(line, by_adamw, run)
    compared = {"ViT": model, "control: no positions": lost, "control: a linear layer": line}
    rows = {name: {"right": accuracy(each, [(unseen.images, unseen.labels)])} for name, each in compared.items()}
    right = [row["right"] for row in rows.values()]
    aims = {"right >= 0.97": right[0] >= 0.97, "above the linear layer": right[0] > right[2]}
    figures: Row = {"parameters": model.n_params, "held out": len(unseen)}
    return Report(rows=rows, figures=figures, aims=aims, records=history.records)


def build(run: Run) -> ViT:
    """The preset "vit-digits", with queries and keys normalised, which bears a high rate."""
    config = PRESETS["vit-digits"]
    assert isinstance(config, ViTConfig)
    torch.manual_seed(run.seed)
    return ViT(replace(config, qk_norm=True)).to(run.device)


def by_muon(model: nn.Module) -> Stepper:
    """For a transformer."""
    return muon(model, 0.05, 0.01)


def by_adamw(model: nn.Module) -> Stepper:
    """For a model without hidden matrices."""
    return adamw(model, 0.01)


def learn(model: nn.Module, optimizer: Callable[[nn.Module], Stepper], run: Run) -> History:
    """Train on pictures that come a little turned, moved and stretched, each time otherwise."""
    taught, checked = Digits(seed=run.seed), Digits(split="validation", seed=run.seed)
    order, steps = Shuffled([1] * len(taught), BATCH, seed=run.seed), run.pick(1500, 4)

    def pictures(step: int) -> tuple[Tensor, Tensor]:
        some = order[step]
        chance = torch.Generator().manual_seed(1000 * run.seed + step)
        return jittered(taught.images[some], generator=chance), taught.labels[some]

    history = fit(
        model,
        pictures,
        class_loss,
        steps=steps,
        optimizer=optimizer(model),
        schedule=partial(wsd, warmup=20, total=steps, decay=steps * 2 // 3),
        evaluate=lambda model: {"right": accuracy(model, [(checked.images, checked.labels)])},
        every=run.pick(100, 2),
        progress=run.progress,
    )
    return to_the_end(history)
