"""Instruction tuning: the base model and instructions with their tales -> one that does as it is told.

Three ways: all weights (`sft`), thin matrices beside them (`lora`), biases alone (`bitfit`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from tinytrans import checkpoints
from tinytrans.adapters import bitfit as biases_alone
from tinytrans.adapters import lora as with_lora
from tinytrans.adapters import save_adapter, trainable_parameters
from tinytrans.data.batches import PaddedBatches
from tinytrans.data.preferences import encode_answer
from tinytrans.data.tales import Tales
from tinytrans.models.gpt import GPT
from tinytrans.recipes.answers import obedience, texts
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.recipes.tales import answers_to, held_out, load_base
from tinytrans.tokenizers import Tokenizer, load_tokenizer
from tinytrans.training.journal import History
from tinytrans.training.loop import fit
from tinytrans.training.optim import adamw, warmup_cosine
from tinytrans.training.pretrain import language_model_loss
from tinytrans.training.sft import answer_batch, answer_targets

Batch = tuple[Tensor, Tensor]


def sft(run: Run) -> Report:
    """All weights of the base model "stories", which knows no chat, learn to answer; obedience before and after.

    The control: the same tuning of a model that was never pretrained.
    """
    model, tokenizer = load_base(run, BASE)
    rows = {"base": measure(model, tokenizer, run)}
    rows["SFT"], history = tune_and_measure(model, tokenizer, run, lr=FULL)
    model.save_pretrained(run.folder("sft"), tokenizer)
    newborn = GPT(model.config).to(run.device)
    rows["control: no base"], _ = tune_and_measure(newborn, tokenizer, run, lr=FULL)
    aims = {"all obeyed >= 0.90": rows["SFT"]["all"] >= 0.9}
    return Report(rows=rows, aims=aims, records=history.records)


def lora(run: Run) -> Report:
    """The same tuning of corrections of rank 8 beside every matrix of the blocks: one weight for sixteen."""
    model, tokenizer = load_base(run, BASE)
    with_lora(model, rank=8, targets=("qkv", "out", "up", "down"), generator=run.generator())
    report = against_full(run, "LoRA", model, tokenizer, lr=LORA)
    run.folder("lora").mkdir(parents=True, exist_ok=True)
    save_adapter(model, run.folder("lora") / "adapter.safetensors")
    return report


def bitfit(run: Run) -> Report:
    """The same tuning of the biases alone, which the base model has not: it gets them, all zero, first.

    One weight in 175 has the furthest to go, and gets twice the steps; they are cheaper, as no matrix has a gradient.
    Another rate or still more steps bring no more: so few weights have not room for all.
    """
    base, tokenizer = load_base(run, BASE)
    model = with_biases(base)
    biases_alone(model)
    return against_full(run, "BitFit", model, tokenizer, lr=BITFIT, times=2)


BASE = "stories"
FULL, LORA, BITFIT = 1e-3, 5e-3, 3e-2  # the fewer weights, the further each has to go


def against_full(run: Run, name: str, model: GPT, tokenizer: Tokenizer, *, lr: float, times: int = 1) -> Report:
    """A model of which few weights train, beside the base it came from and the one of which all trained."""
    full = load_instructed(run)[0]
    rows = {"base": measure(load_base(run, BASE)[0], tokenizer, run), "SFT": measure(full, tokenizer, run)}
    rows[name], history = tune_and_measure(model, tokenizer, run, lr=lr, times=times)
    rows["SFT"]["trained"] = full.n_params
    aims = {f"{name} keeps up with SFT, all within 0.05": rows[name]["all"] >= rows["SFT"]["all"] - 0.05}
    return Report(rows=rows, aims=aims, records=history.records)


def tune_and_measure(model: GPT, tokenizer: Tokenizer, run: Run, *, lr: float, times: int = 1) -> tuple[Row, History]:
    """The model after tuning: obedience, how many numbers were trained, how long it took."""
    history = tune(model, tokenizer, run, lr=lr, times=times)
    cost = {"trained": trainable_parameters(model)[0], "seconds": history.seconds}
    return measure(model, tokenizer, run) | cost, history


def tune(model: GPT, tokenizer: Tokenizer, run: Run, *, lr: float, times: int = 1) -> History:
    """Supervised instruction tuning of whatever trains in the model, in place, for `times` as many steps."""
    steps = times * run.pick(300, 3)
    history = fit(
        model,
        dialogues(tokenizer, run),
        language_model_loss,
        steps=steps,
        optimizer=adamw(model, lr, weight_decay=0.0),
        schedule=partial(warmup_cosine, warmup=10, total=steps),
        every=run.pick(50, 3),
        progress=run.progress,
    )
    return to_the_end(history)


def dialogues(
    tokenizer: Tokenizer, run: Run, batch: int = 12, *, asked: Callable[[str], bool] = bool
) -> Callable[[int], Batch]:
    """A step's number -> inputs, targets (B, T): instructions and tales, of which only the tales are learned.

    `asked` says of an instruction whether it is among them.
    """
    tales = [tale for tale in Tales(run.pick(4000, 48), seed=run.seed + 3) if asked(tale.instruction)]
    rows = [encode_answer(tokenizer, tale.instruction, tale.text) for tale in tales]
    order = PaddedBatches([ids for ids, _ in rows], batch, seed=run.seed)

    def number(step: int) -> Batch:
        chosen = [rows[i] for i in order.numbers(step)]
        return answer_targets(*answer_batch([ids[:n] for ids, n in chosen], [ids[n:] for ids, n in chosen]))

    return number


def measure(model: GPT, tokenizer: Tokenizer, run: Run) -> Row:
    """A model's obedience on held-out instructions."""
    instructions = held_out(run)
    return obedience(instructions, texts(tokenizer, answers_to(model, tokenizer, instructions, run)))


def with_biases(model: GPT) -> GPT:
    """The same function with a bias, zero so far, in every matrix and norm that may have one."""
    own = GPT(replace(model.config, bias=True))
    own.load_state_dict(model.state_dict(), strict=False)
    return own.to(next(model.parameters()).device)


def load_instructed(run: Run) -> tuple[GPT, Tokenizer]:
    """The SFT model in eval mode: this run's own, else that which comes with the library (of seed 0), else tuned."""
    folder = run.folder("sft")
    if not (folder / "config.json").exists():
        if run.seed == 0 and not run.quick:
            return checkpoints.load("sft", device=run.device)
        base, tokenizer = load_base(run, BASE)
        tune(base, tokenizer, run, lr=FULL)
        base.save_pretrained(folder, tokenizer)
    return GPT.from_pretrained(folder, device=run.device), load_tokenizer(folder)
