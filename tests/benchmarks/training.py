"""Training throughput: the small GPT, forward, backward, clip and fused AdamW -> tokens a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.measure import Contest, Run
from tests.benchmarks.peers import SMALL, PlainGPT, hugging_face_gpt2, hugging_face_llama, missing
from tinytrans import GPT, PRESETS, GPTConfig, fit, language_model_loss
from tinytrans.training.optim import adamw

BATCH = 12
OURS = "tinytrans"
PEERS: dict[str, Callable[..., Any]] = {
    "Hugging Face GPT-2": hugging_face_gpt2,
    "Hugging Face Llama": hugging_face_llama,
}


def small(preset: str) -> GPT:
    """A preset in the contest's size."""
    config = PRESETS[preset]
    assert isinstance(config, GPTConfig)
    return GPT(replace(config, vocab_size=SMALL.vocab_size, max_len=SMALL.max_len))


def our_steps(model: GPT, batch: tuple[Tensor, Tensor], steps: int) -> None:
    """Steps as a user takes them, through `fit`."""
    optimizer = adamw(model, 1e-3, betas=(0.9, 0.99))
    fit(model, lambda step: batch, language_model_loss, steps=steps, optimizer=optimizer, progress=False)  # noqa: ARG005


def plain_steps(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], steps: int) -> None:
    """Steps as a plain loop takes them; `model(ids)` gives logits, or something that has them."""
    ids, targets = batch
    for _ in range(steps):
        logits = model(ids)
        logits = getattr(logits, "logits", logits)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def plain(model: nn.Module, batch: tuple[Tensor, Tensor], steps: int) -> Run:
    """A contestant with a plain loop and torch's fused AdamW."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    return partial(plain_steps, model, optimizer, batch, steps)


def training(quick: bool) -> Contest:
    """Ours, the preset "tales" and the plainer "nano-shakespeare", against the same size elsewhere."""
    steps = 1 if quick else 20
    torch.manual_seed(0)
    ids = torch.randint(SMALL.vocab_size, (BATCH, SMALL.max_len + 1))
    batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    runs: dict[str, Run] = {
        f'{OURS}, preset "tales"': partial(our_steps, small("tales"), batch, steps),
        f'{OURS}, preset "nano-shakespeare"': partial(our_steps, small("nano-shakespeare"), batch, steps),
        "nanoGPT's shape in plain torch": plain(PlainGPT(SMALL), batch, steps),
    }
    why = missing("transformers")
    if why is None:
        runs |= {name: plain(build(SMALL), batch, steps) for name, build in PEERS.items()}
    return Contest(
        name="training",
        unit="tokens/s",
        amount=steps * batch[0].numel(),
        runs=runs,
        rounds=1 if quick else 9,
        target={"nanoGPT's shape in plain torch": 1.0, **dict.fromkeys(PEERS, 1.25)},
        missing={} if why is None else dict.fromkeys(PEERS, why),
    )
