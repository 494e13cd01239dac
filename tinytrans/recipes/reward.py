"""The reward model: pairs of stories, one liked better -> a model that says how much a story will be liked."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from tinytrans.data.batches import Batch
from tinytrans.data.preferences import Preference, PreferenceBatches, encode_answer
from tinytrans.recipes.instruct import load_instructed
from tinytrans.recipes.report import Report, Row, Run, to_the_end
from tinytrans.recipes.taste import gather, is_open, prompts, retell
from tinytrans.tokenizers import Tokenizer
from tinytrans.training import checkpoint as checkpoints
from tinytrans.training.journal import History
from tinytrans.training.loop import evaluating, fit
from tinytrans.training.optim import adamw, warmup_cosine
from tinytrans.training.pretrain import IGNORED
from tinytrans.training.reward import RewardHead, accuracy, pairwise_loss
from tinytrans.training.sft import answer_batch

BATCH = 8  # pairs


def reward(run: Run) -> Report:
    """A reward model is trained on pairs of the SFT model's answers, and orders pairs that it never saw.

    The control: to like the longer story better. What it is for is the taste in ends: the SFT model obeys so well that
    its few disobedient answers differ from obedient ones in a word, and these pairs stay hard.
    """
    judge, tokenizer, history = train_judge(run)
    unseen = pairs_of(run, tokenizer, run.pick(160, 16), "test")
    ours, control = in_order(judge, unseen, tokenizer, run), by_length(unseen)
    rows = {"reward model": ours, "control: the longer": control}
    aims = {
        "pairs that differ by the end in order >= 0.90": ours.get("by the end", 0.0) >= 0.9,
        "all pairs in order >= 0.20 above the control": ours["pairs"] >= control["pairs"] + 0.2,
    }
    return Report(rows=rows, figures={"unseen pairs": len(unseen)}, aims=aims, records=history.records)


def train_judge(run: Run) -> tuple[RewardHead, Tokenizer, History]:
    """Train the reward model and keep it in the run's folder."""
    model, tokenizer = load_instructed(run)
    pairs = pairs_of(run, tokenizer, run.pick(300, 16)) + retell(run, run.pick(3000, 16))
    judge = RewardHead(model, model.config.d_model).to(run.device)
    steps = run.pick(300, 2)
    history = fit(
        judge,
        PreferenceBatches(pairs, tokenizer, min(BATCH, len(pairs)), seed=run.seed),
        reward_step,
        steps=steps,
        optimizer=adamw(judge, 1e-3, weight_decay=0.0),
        schedule=partial(warmup_cosine, warmup=10, total=steps),
        every=run.pick(50, 2),
        progress=run.progress,
    )
    to_the_end(history)
    checkpoints.save(run.folder("reward") / "reward.safetensors", {"model": judge.state_dict()})
    return judge, tokenizer, history


def load_judge(run: Run) -> RewardHead:
    """The reward model as it was kept, in eval mode; trained first where there is none."""
    file = run.folder("reward") / "reward.safetensors"
    if not file.exists():
        train_judge(run)
    model = load_instructed(run)[0]
    judge = RewardHead(model, model.config.d_model).to(run.device)
    checkpoints.load_weights(judge, checkpoints.load(file)["model"], file)
    return judge.eval()


def pairs_of(run: Run, tokenizer: Tokenizer, n: int, split: str = "train") -> list[Preference]:
    """Pairs from the SFT model's answers to n instructions of a split."""
    return gather(load_instructed(run)[0], tokenizer, prompts(run, n, split), run)


def reward_step(model: nn.Module, batch: Batch) -> Tensor:
    """What `fit` differentiates: rows of chosen, then of rejected answers -> scalar."""
    lengths = batch.targets.ne(IGNORED).long() * torch.arange(1, batch.targets.shape[1] + 1, device=batch.ids.device)
    return pairwise_loss(*model(batch.ids, lengths.amax(dim=1)).chunk(2))


@torch.no_grad()
def judged(judge: RewardHead, instructions: list[str], stories: list[str], tokenizer: Tokenizer, run: Run) -> Tensor:
    """The reward of each story as the answer to its instruction, (N,)."""
    rows = [encode_answer(tokenizer, *pair) for pair in zip(instructions, stories, strict=True)]
    ids, _ = answer_batch([ids[:start] for ids, start in rows], [ids[start:] for ids, start in rows])
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    with evaluating(judge):
        rewards: Tensor = judge(ids.to(run.device), lengths.to(run.device))
    return rewards


def in_order(judge: RewardHead, pairs: list[Preference], tokenizer: Tokenizer, run: Run) -> Row:
    """The share of pairs whose better story gets the higher reward: of all, and by what makes it better."""
    asked = [pair.prompt for pair in pairs]
    chosen = judged(judge, asked, [pair.chosen for pair in pairs], tokenizer, run)
    rejected = judged(judge, asked, [pair.rejected for pair in pairs], tokenizer, run)
    about_end = torch.tensor([is_open(pair.prompt) and pair.margin == 1 for pair in pairs], device=chosen.device)
    row = {"pairs": float(accuracy(chosen, rejected))}
    for name, mine in (("by the end", about_end), ("by obedience", ~about_end)):
        if mine.any():
            row[name] = float(accuracy(chosen[mine], rejected[mine]))
    return row


def by_length(pairs: list[Preference]) -> Row:
    """The share of pairs whose better story is the longer one."""
    lengths = torch.tensor([[len(pair.chosen), len(pair.rejected)] for pair in pairs])
    return {"pairs": float(accuracy(lengths[:, 0], lengths[:, 1]))}
