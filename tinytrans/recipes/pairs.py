"""Learning from pairs: two answers, one of them preferred -> a model that leans to the better one; no rewards needed.

DPO starts from the SFT model and keeps it as its reference; ORPO starts from the base model and does both steps in one.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from tinytrans.data.batches import Batch
from tinytrans.data.preferences import Preference, PreferenceBatches, win_rate
from tinytrans.models.gpt import GPT
from tinytrans.recipes.instruct import BASE, load_instructed
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.recipes.tales import load_base
from tinytrans.recipes.taste import gather, like, prompts, retell, speak, taste, watched
from tinytrans.tokenizers import Tokenizer
from tinytrans.training.dpo import dpo_loss
from tinytrans.training.journal import History
from tinytrans.training.logprobs import sequence_logprobs
from tinytrans.training.loop import Loss, fit
from tinytrans.training.optim import adamw, warmup_cosine
from tinytrans.training.orpo import orpo_loss
from tinytrans.training.pretrain import next_token_loss

BATCH = 8  # pairs


def dpo(run: Run) -> Report:
    """The SFT model learns from pairs of its own answers, and from tales retold, most of which ask for their end.

    Without these, the control, nearly all pairs are of prompts with an open end, and the model learns to please even
    where it was told not to: over-optimisation.
    """
    model, tokenizer = load_instructed(run)
    reference, hasty = load_instructed(run)[0], load_instructed(run)[0]
    loss = partial(dpo_step, reference=reference, beta=0.1)
    steps, own = run.pick(120, 2), gather(model, tokenizer, prompts(run, run.pick(320, 16)), run)
    pairs = own + retell(run, len(own))
    history = lean(model, pairs, tokenizer, loss, run, lr=1e-4, steps=steps)
    lean(hasty, own, tokenizer, loss, run, lr=1e-4, steps=steps)
    return compared(run, {"DPO": model, "control: own pairs": hasty}, tokenizer, history, pairs=len(pairs))


def orpo(run: Run) -> Report:
    """The base model learns from pairs of its own answers, to answer and to please at once."""
    model, tokenizer = load_base(run, BASE)
    own = gather(model, tokenizer, prompts(run, run.pick(160, 16)), run)
    pairs = own + retell(run, run.pick(2400, 16))
    history = lean(model, pairs, tokenizer, partial(orpo_step, lam=1.0), run, lr=1e-3, steps=run.pick(280, 2))
    return compared(run, {"ORPO": model}, tokenizer, history, pairs=len(pairs))


def dpo_step(model: nn.Module, batch: Batch, *, reference: nn.Module, beta: float) -> Tensor:
    """What `fit` differentiates in DPO: rows of chosen, then of rejected answers -> scalar."""
    mine = sequence_logprobs(model(batch.ids), batch.targets)
    with torch.no_grad():
        theirs = sequence_logprobs(reference(batch.ids), batch.targets)
    (chosen, rejected), (ref_chosen, ref_rejected) = mine.chunk(2), theirs.chunk(2)
    return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)


def orpo_step(model: nn.Module, batch: Batch, *, lam: float) -> Tensor:
    """What `fit` differentiates in ORPO: rows of chosen, then of rejected answers -> scalar."""
    logits = model(batch.ids)
    chosen, rejected = sequence_logprobs(logits, batch.targets, mean=True).chunk(2)
    nll = next_token_loss(logits.chunk(2)[0], batch.targets.chunk(2)[0])
    return orpo_loss(nll, chosen, rejected, lam=lam)


def lean(
    model: GPT, pairs: list[Preference], tokenizer: Tokenizer, loss: Loss, run: Run, *, lr: float, steps: int
) -> History:
    """Train on the pairs; on the way a record says how the model does on prompts it never saw."""
    before = load_instructed(run)[0]
    history = fit(
        model,
        PreferenceBatches(pairs, tokenizer, min(BATCH, len(pairs)), seed=run.seed),
        loss,
        steps=steps,
        optimizer=adamw(model, lr, weight_decay=0.0),
        schedule=partial(warmup_cosine, warmup=10, total=steps),
        evaluate=lambda _: watched(model, before, tokenizer, run),
        every=max(1, steps // 4),
        progress=run.progress,
    )
    return to_the_end(history)


def compared(run: Run, models: dict[str, GPT], tokenizer: Tokenizer, history: History, **figures: float) -> Report:
    """Models that were taught to please, beside the SFT model; the first is the recipe's, others are its controls."""
    before = load_instructed(run)[0]
    instructions = prompts(run, run.pick(400, 8), "test")
    theirs = speak(before, tokenizer, instructions, run, 0.7)
    rows: dict[str, Row] = {"SFT": taste(instructions, theirs)}
    for name, model in models.items():
        ours = speak(model, tokenizer, instructions, run, 0.7)
        rows[name] = taste(instructions, ours) | {"wins": win_rate(instructions, ours, theirs, like)}
    first = rows[next(iter(models))]
    first["kl"] = history.records[-1]["kl"]
    aims = {
        "happy ends >= 0.20 above SFT": first["happy"] >= rows["SFT"]["happy"] + 0.2,
        "all obeyed >= SFT's - 0.03": first["all"] >= rows["SFT"]["all"] - 0.03,
    }
    return Report(rows=rows, figures=figures, aims=aims, records=history.records)
