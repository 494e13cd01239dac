"""Training throughput: the small GPT, forward, backward, clip and fused AdamW -> tokens a second.

Twice: as GPT-2 is built and as Llama is, each against the same design elsewhere, so that all compute the same thing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.measure import Contest, Run
from tests.benchmarks.peers import SMALL, PlainGPT, hugging_face_gpt2, hugging_face_llama, missing
from tinytrans import GPT, PRESETS, GPTConfig, fit, from_transformers, language_model_loss
from tinytrans.training.optim import adamw

BATCH = 12
PLAIN, GPT2, LLAMA = "nanoGPT's shape in plain torch", "Hugging Face GPT-2", "Hugging Face Llama"


def small(preset: str) -> GPT:
    """A preset in the contest's size."""
    config = PRESETS[preset]
    assert isinstance(config, GPTConfig)
    return GPT(replace(config, vocab_size=SMALL.vocab_size, max_len=SMALL.max_len))


def ours(model: GPT, batch: tuple[Tensor, Tensor], steps: int) -> Run:
    """Steps as a user takes them, through `fit`."""
    optimizer = adamw(model, 1e-3, betas=(0.9, 0.99))
    return partial(fit, model, [batch], language_model_loss, steps=steps, optimizer=optimizer, progress=False)


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


def random_batch() -> tuple[Tensor, Tensor]:
    """Ids and the next ones, (B, T) both."""
    torch.manual_seed(0)
    ids = torch.randint(SMALL.vocab_size, (BATCH, SMALL.max_len + 1))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def training(quick: bool) -> Contest:
    """The preset "nano-shakespeare", nanoGPT's design, in plain torch and at Hugging Face; and our preset "tales"."""
    steps, batch, why = 1 if quick else 20, random_batch(), missing("transformers")
    runs: dict[str, Run] = {
        'tinytrans, preset "nano-shakespeare"': ours(small("nano-shakespeare"), batch, steps),
        PLAIN: plain(PlainGPT(SMALL), batch, steps),
    }
    if why is None:
        runs[GPT2] = plain(hugging_face_gpt2(SMALL), batch, steps)
        runs[LLAMA] = plain(hugging_face_llama(SMALL), batch, steps)
    runs['tinytrans, preset "tales"'] = ours(small("tales"), batch, steps)
    return Contest(
        name="training",
        unit="tokens/s",
        amount=steps * batch[0].numel(),
        runs=runs,
        rounds=1 if quick else 9,
        target={PLAIN: 1.0, GPT2: 1.25, LLAMA: 1.25},
        missing={} if why is None else {GPT2: why, LLAMA: why},
        memory=True,
    )


def training_llama(quick: bool) -> Contest:
    """The same weights, a Llama's, in both."""
    steps, batch, why = 1 if quick else 20, random_batch(), missing("transformers")
    name, runs = "training, as Llama", {}
    if why is None:
        theirs = hugging_face_llama(SMALL)
        twin = from_transformers(theirs)
        assert isinstance(twin, GPT)
        runs = {"tinytrans": ours(twin, batch, steps), LLAMA: plain(theirs, batch, steps)}
    return Contest(
        name=name,
        unit="tokens/s",
        amount=steps * batch[0].numel(),
        runs=runs,
        rounds=1 if quick else 9,
        target={LLAMA: 1.25},
        missing={} if why is None else {LLAMA: why},
        memory=True,
    )
