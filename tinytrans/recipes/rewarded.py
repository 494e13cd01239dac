"""Learning from rewards: answers, each with a number -> a model that gives better ones, by its own trial and error.

GRPO asks the rule itself and compares answers to one prompt; PPO asks the reward model and has a critic. Both get
batches that the model makes as it learns: what it says now is what it learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinytrans.models.gpt import GPT
from tinytrans.recipes.answers import LONGEST, prompt_ids, sample_answers, texts
from tinytrans.recipes.instruct import Batch as Told
from tinytrans.recipes.instruct import dialogues, load_instructed
from tinytrans.recipes.pairs import compared
from tinytrans.recipes.report import Report, Run, to_the_end
from tinytrans.recipes.reward import judged, load_judge
from tinytrans.recipes.taste import Opinion, is_open, prompts, rule, watched
from tinytrans.tokenizers import Tokenizer
from tinytrans.training.grpo import group_advantages, grpo_loss
from tinytrans.training.journal import History
from tinytrans.training.logprobs import token_logprobs
from tinytrans.training.loop import Loss, evaluating, fit
from tinytrans.training.optim import adamw, warmup_cosine
from tinytrans.training.ppo import clipped_policy_loss, clipped_value_loss, gae, token_rewards, whiten
from tinytrans.training.pretrain import IGNORED, language_model_loss
from tinytrans.training.reward import RewardHead
from tinytrans.training.sft import answer_batch, answer_targets

GROUP = 8  # answers to one prompt, in GRPO
EPOCHS, PARTS = 2, 2  # how often PPO goes through the same answers, and in how many steps
REMINDED = 0.2  # how much PPO's tales from instruction tuning weigh


class Said(NamedTuple):
    """Prompts and answers (N, T + 1); of the answers' tokens, -100 elsewhere, and their log-probabilities (N, T)."""

    rows: Tensor
    lengths: Tensor  # (N,) of prompt and answer together
    targets: Tensor
    logprobs: Tensor  # by the model that said it
    ref_logprobs: Tensor
    stories: list[str]

    @property
    def ids(self) -> Tensor:
        """What stands before each target, (N, T)."""
        return self.rows[:, :-1]

    @property
    def mask(self) -> Tensor:
        """True at the answers' tokens, (N, T)."""
        return self.targets != IGNORED


class Taught(NamedTuple):
    """Answers and how much better than expected each was, or each of their tokens; for PPO with the critic's part.

    `told` are instructions and tales beside them, as in instruction tuning: inputs and targets (B, T).
    """

    said: Said
    advantages: Tensor  # (N,) or (N, T)
    values: Tensor | None = None
    returns: Tensor | None = None
    told: Told | None = None

    def part(self, number: int, parts: int) -> Taught:
        """Every `parts`-th answer from `number` on, with all that belongs to it."""
        some, (rows, lengths, targets, logprobs, ref_logprobs, stories) = slice(number, None, parts), self.said
        said = Said(rows[some], lengths[some], targets[some], logprobs[some], ref_logprobs[some], stories[some])
        values, returns = (None if column is None else column[some] for column in (self.values, self.returns))
        return Taught(said, self.advantages[some], values, returns, self.told)


class ActorCritic(nn.Module):
    """A model that answers and one that foresees the reward, trained together."""

    def __init__(self, actor: GPT, critic: RewardHead) -> None:
        super().__init__()
        self.actor, self.critic = actor, critic


def grpo(run: Run) -> Report:
    """The SFT model is rewarded by the rule itself, answer by answer, each beside seven others to the same prompt."""
    model, tokenizer = load_instructed(run)
    reference = load_instructed(run)[0]
    asked, score = prompts(run, run.pick(800, 16)), rule(run)

    def teach(step: int) -> Taught:
        n = run.pick(6, 2)
        chosen = [asked[(step * n + i) % len(asked)] for i in range(n) for _ in range(GROUP)]
        said = say(model, reference, tokenizer, chosen, run, step)
        rewards = torch.tensor([float(score(*pair)) for pair in zip(chosen, said.stories, strict=True)])
        return Taught(said, group_advantages(rewards.view(n, GROUP)).flatten().to(run.device))

    loss = partial(grpo_step, beta=0.02)
    history = learn(model, model, teach, loss, tokenizer, run, steps=run.pick(28, 2), lr=5e-4)
    return compared(run, {"GRPO": model}, tokenizer, history)


def grpo_step(model: nn.Module, batch: Taught, *, beta: float) -> Tensor:
    """What `fit` differentiates in GRPO."""
    said = batch.said
    now = token_logprobs(model(said.ids), said.targets)
    return grpo_loss(now, said.logprobs, batch.advantages, said.mask, ref_logprobs=said.ref_logprobs, beta=beta)


def ppo(run: Run) -> Report:
    """The SFT model is rewarded by the reward model, which never saw the rule: RLHF as it was first done.

    Beside its own answers it reads on in the tales of instruction tuning that tell the asked-for end: what the reward
    model cannot judge would else be forgotten. Source: PPO-ptx in Ouyang et al. 2022, arXiv 2203.02155, section 3.5.
    """
    model, tokenizer = load_instructed(run)
    reference, judge = load_instructed(run)[0], load_judge(run)
    both = ActorCritic(model, deepcopy(judge))
    asked = prompts(run, run.pick(1600, 16))
    reminders = dialogues(tokenizer, run, 6, asked=lambda instruction: not is_open(instruction))
    latest: list[Taught] = []

    def teach(step: int) -> Taught:
        turn, part = divmod(step, EPOCHS * PARTS)
        if part == 0:
            n = run.pick(32, 4)
            chosen = [asked[(turn * n + i) % len(asked)] for i in range(n)]
            latest[:] = [foresee(both, judge, say(model, reference, tokenizer, chosen, run, step))]
        return latest[0].part(part % PARTS, PARTS)._replace(told=reminders(step))

    opinion = partial(judged, judge, tokenizer=tokenizer, run=run)
    history = learn(both, model, teach, ppo_step, tokenizer, run, steps=run.pick(120, 2), lr=3e-4, opinion=opinion)
    return compared(run, {"PPO": model}, tokenizer, history)


@torch.no_grad()
def foresee(both: ActorCritic, judge: RewardHead, said: Said, *, beta: float = 0.15) -> Taught:
    """The answers' rewards by the reward model, spread over their tokens by what the critic had expected."""
    scores = judge(said.rows, said.lengths)
    rewards = token_rewards(scores, said.logprobs, said.ref_logprobs, said.mask, beta=beta)
    with evaluating(both):
        values = both.critic.values(said.ids)
    advantages, returns = gae(rewards, values, said.mask)
    return Taught(said, whiten(advantages, said.mask), values, returns)


def ppo_step(model: nn.Module, batch: Taught) -> Tensor:
    """What `fit` differentiates in PPO: the actor's loss, the critic's, and the surprise at tales told beside."""
    assert isinstance(model, ActorCritic)
    assert batch.values is not None
    assert batch.returns is not None
    said = batch.said
    now = token_logprobs(model.actor(said.ids), said.targets)
    policy = clipped_policy_loss(now, said.logprobs, batch.advantages, said.mask)
    value = clipped_value_loss(model.critic.values(said.ids), batch.values, batch.returns, said.mask)
    if batch.told is None:
        return policy + 0.5 * value
    total, count = language_model_loss(model.actor, batch.told)
    return policy + 0.5 * value + REMINDED * total / count


def say(model: GPT, reference: GPT, tokenizer: Tokenizer, instructions: Sequence[str], run: Run, step: int) -> Said:
    """The model answers, at temperature 1, and with its answers' log-probabilities come the reference's."""
    longest, generator = run.pick(LONGEST, 12), run.generator(salt=2 + step)
    answers = sample_answers(model, tokenizer, instructions, temperature=1.0, longest=longest, generator=generator)
    asked = [prompt_ids(tokenizer, instruction) for instruction in instructions]
    ids, mask = (x.to(run.device) for x in answer_batch(asked, answers))
    inputs, targets = answer_targets(ids, mask)
    with evaluating(model):
        mine, theirs = (token_logprobs(each(inputs), targets) for each in (model, reference))
    lengths = torch.tensor([len(a) + len(b) for a, b in zip(asked, answers, strict=True)], device=run.device)
    return Said(ids, lengths, targets, mine, theirs, texts(tokenizer, answers))


def learn(
    trained: nn.Module,
    speaker: GPT,
    teach: Callable[[int], Taught],
    loss: Loss,
    tokenizer: Tokenizer,
    run: Run,
    *,
    steps: int,
    lr: float,
    opinion: Opinion | None = None,
) -> History:
    """Train on answers as they come; on the way a record says how the speaker does on prompts it never saw."""
    before = load_instructed(run)[0]
    history = fit(
        trained,
        teach,
        loss,
        steps=steps,
        optimizer=adamw(trained, lr, weight_decay=0.0),
        schedule=partial(warmup_cosine, warmup=3, total=steps, floor=0.1),
        evaluate=lambda _: watched(speaker, before, tokenizer, run, opinion=opinion),
        every=max(1, steps // 4),
        progress=run.progress,
    )
    return to_the_end(history)
