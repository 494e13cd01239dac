"""Time to loss: characters of Shakespeare -> how soon a small GPT predicts them, ours by `pretrain` and nanoGPT's way.

Both have 4 layers of width 128 and read batches of 12 windows of 64. nanoGPT's README takes 2000 steps to a loss of
about 1.9 on all of the last tenth; ours takes so many as it needs to get below 1.898.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.measure import Contest
from tests.benchmarks.peers import SMALL, PlainGPT
from tests.benchmarks.training import BATCH, small
from tinytrans import pretrain

LOSS = 1.898  # of all validation windows, what nanoGPT's README recipe came to
STEPS = {"ours": 265, "theirs": 2000}
Draw = Callable[[int], tuple[Tensor, Tensor]]


def encode(text: str) -> Tensor:
    """Characters as their places among all those in the text: str -> (N,)."""
    places = {char: i for i, char in enumerate(sorted(set(text)))}
    if len(places) > SMALL.vocab_size:
        raise ValueError(f"the text has {len(places)} different characters, the models know {SMALL.vocab_size}")
    return torch.tensor([places[char] for char in text])


def batches(ids: Tensor, seed: int = 1) -> Draw:
    """Step -> a batch of windows from anywhere, and for each position the next id."""
    T = SMALL.max_len
    generator = torch.Generator().manual_seed(1336 + seed)
    offsets = torch.arange(T + 1)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        windows = ids[torch.randint(len(ids) - T, (BATCH, 1), generator=generator) + offsets]
        return windows[:, :-1], windows[:, 1:]

    return draw


@torch.no_grad()
def loss_on_all(model: nn.Module, ids: Tensor) -> float:
    """The mean loss over all windows of the text that do not overlap."""
    T = SMALL.max_len
    n = (len(ids) - 1) // T
    inputs, targets = ids[: n * T].view(n, T), ids[1 : n * T + 1].view(n, T)
    model.eval()
    pairs = zip(inputs.split(128), targets.split(128), strict=True)
    return sum(float(F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum")) for x, y in pairs) / (n * T)


def ours(train: Tensor, steps: int, seed: int = 1) -> nn.Module:
    """The preset "tales" in this size, by `pretrain`."""
    torch.manual_seed(seed)
    model = small("tales")
    pretrain(model, batches(train, seed), steps=steps, lr=0.04, adamw_lr=0.01, momentum=0.9, progress=False)
    return model


def rate(step: int, steps: int) -> float:
    """nanoGPT's schedule for this recipe: a hundred steps up to 1e-3, a cosine down to a tenth of it."""
    if step < 100:
        return 1e-3 * (step + 1) / 101
    return 1e-4 + 9e-4 * (1 + math.cos(math.pi * (step - 100) / max(1, steps - 100))) / 2


def theirs(train: Tensor, steps: int) -> nn.Module:
    """nanoGPT's shape by its README's recipe for a CPU: AdamW, fused here, without dropout."""
    torch.manual_seed(1)
    model = PlainGPT(SMALL)
    groups = [{"params": [w for w in model.parameters() if w.dim() >= 2], "weight_decay": 0.1},
              {"params": [w for w in model.parameters() if w.dim() < 2], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    draw = batches(train)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        ids, targets = draw(step)
        F.cross_entropy(model(ids).flatten(0, 1), targets.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model


def shakespeare(quick: bool, text: Path | None = None) -> Contest:
    """Both trained once; the loss on all of the last tenth, taken after the clock, stands beside the time."""
    name, rival = "tinytrans, pretrain", "nanoGPT's README recipe in plain torch"
    if text is None:
        return Contest("shakespeare", "/s", 1, {}, 0, missing={name: "give the text with --text FILE"})
    ids = encode(text.read_text(encoding="utf-8"))
    cut = int(0.9 * len(ids))
    train, validation = ids[:cut], ids[cut:]

    def result(model: object) -> str:
        assert isinstance(model, nn.Module)
        size = sum(weight.numel() for weight in model.parameters())
        return f"loss {loss_on_all(model, validation):.4f} (goal {LOSS}), {size:,} parameters"

    steps = dict.fromkeys(STEPS, 3) if quick else STEPS
    return Contest(
        name="shakespeare",
        unit="/s",
        amount=1,
        runs={name: partial(ours, train, steps["ours"]), rival: partial(theirs, train, steps["theirs"])},
        rounds=1,
        target={rival: 4.0},
        warmup=False,
        result=result,
    )
