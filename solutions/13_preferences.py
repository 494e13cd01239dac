# %% [markdown]
# # 13 · Preferences
#
# The model of lesson 12 does as it is told. Where you leave something open it does anything: it has no taste. In this lesson it acquires one, from comparisons of answers. There are four well-known ways to do this, and you build the core of each: **DPO**, **ORPO**, **GRPO** and
# **PPO** with a reward model. You will also see what happens when a model is allowed to please too much.
#
# **You will be able to**
#
# - turn preferences into a reward model, and say what its numbers mean and what they do not mean;
# - derive DPO's loss, and use it and ORPO's on pairs of answers;
# - write the parts of PPO and GRPO: advantages, the clipped step, the penalty that keeps a model near what it was;
# - recognise over-optimisation: a reward that rises while the answers get worse;
# - say what *bringing up* a model can reach, and who decides what is good.
#
# **Builds on** lesson 12 (prompts, answers and masks), cross-entropy (11) and sampling (10). It is the last of the main line.
#
# **Time** about 90 minutes: taste 5, a reward model 15, how likely is an answer 5, DPO 15, ORPO 10, rewards and advantages 15, PPO 20, comparing 5. The notebook computes for about three minutes on two CPU cores, most of them spent on the model's own writing.
# A GPU shortens that and allows longer runs.
#
# **Letters** B prompts or pairs, G answers to a prompt, T tokens, V the size of the vocabulary; $x$ a prompt, $y$ an answer, $y_w$ the preferred (winning), $y_l$ the rejected one; $\pi$ the model that is trained (the *policy*), $\pi_{ref}$ the model before.

# %% tags=["setup"]
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %%
seeded = torch.manual_seed(0)

# %% tags=["tools"]
import copy
import html
import os
import time
from functools import partial
from textwrap import fill

from graders.check import check
from tinytrans import checkpoints, fit, pick
from tinytrans.data.preferences import PreferenceBatches, win_rate
from tinytrans.plots import curves
from tinytrans.recipes import Run
from tinytrans.recipes.reward import in_order, judged
from tinytrans.recipes.rewarded import say
from tinytrans.recipes.taste import divergence, gather, like, prompts, retell, speak, taste
from tinytrans.training.logprobs import masked_mean, token_logprobs
from tinytrans.training.optim import adamw, warmup_cosine
from tinytrans.training.ppo import whiten
from tinytrans.training.reward import RewardHead
from tinytrans.widgets import Explorer

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with fewer steps, for tests
device = pick()
run = Run(quick=quick, device=device)  # tells tinytrans.recipes how much to do, and where
print(f"running on {device}{', in quick mode' if quick else ''}")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.training.reward import pairwise_loss`: from there on the notebook uses the library's version. Your points still come from your own cell, so come
# back to it.

# %% [markdown] tags=["instructor"]
# **For instructors: planning.** This is the fullest lesson of the course. In 90 minutes, sections 1 to 4 and 8 (reward model, DPO, comparison) make a whole of their own, and sections 5 to 7 a second one. Section 7's two runs take most of the computing time: start them before the break.

# %% [markdown]
# ## 1. Obedient, and without taste (5 minutes)
#
# `tales` is a model that tells stories on request. A request may leave things open, such as how the story ends. Suppose that the people who use our model like **happy ends**. They do not want to be disobeyed: whoever asks for a sad end should get one. But where the end is left open it should be happy.
#
# Since we know what they like, we can count it. (Real people have to be asked, which is the expensive part.) `like` gives two points to a story that does all that was asked, and a third for a happy end where the end was left open.


# %%
def load_sft() -> nn.Module:
    """The model that does as it is told, fresh from the file."""
    return checkpoints.load("tales", device=device)[0]


sft, tokenizer = load_sft(), checkpoints.load("tales")[1]
held_out = prompts(run, 8 if quick else 80, "validation")  # every second one leaves the end open
before = speak(sft, tokenizer, held_out, run, 0.7)
for request, story in list(zip(held_out, before, strict=True))[:2]:
    print(f"{request}\n{fill(story, 96)}\n    {like(request, story):.0f} points\n")


def show(table: dict[str, dict[str, float]]) -> None:
    """The rows of a table of numbers."""
    columns = list(next(iter(table.values())))
    print(" " * 14, *(f"{column:>13}" for column in columns))
    for name, row in table.items():
        print(f"{name:14}", *(f"{row[column]:13.2f}" for column in columns))


table = {"SFT": taste(held_out, before) | {"wins": 0.5}}
show(table)

# %% [markdown]
# `liked` is the mean number of points, `happy` the share of happy ends where the end was open, `end` how often a wish for an end came true, and `all` how often every wish did. `wins` will be the share of requests for which a model's story is liked better than the SFT model's; a tie counts half.
#
# Why not simply tune again, on good stories? Instruction tuning shows the model what is *right*. It never shows what is wrong, or which of two right answers is *better*. And for many things nobody can write the ideal answer, though everybody can tell which of two answers is better. So the third
# phase of training learns from **comparisons**. Phases two and three together are called the *bringing up* of a model: it should do what its users expect, and do little harm. Phases one and two predict the next token of given texts; only in the third does the model's own writing play a part.
#
# ## 2. A model of what people like (15 minutes)
#
# We let the model answer each of some requests four times, and keep the best answer and the worst: a **pair**. Some requests give no pair, because all four answers are liked the same.

# %%
began = time.perf_counter()
pairs = gather(sft, tokenizer, prompts(run, 16 if quick else 80), run)
unseen = gather(sft, tokenizer, prompts(run, 16 if quick else 24, "validation"), run)
took = time.perf_counter() - began
print(f"{len(pairs)} pairs to learn from, {len(unseen)} to test on, in {took:.0f} s")
print(pairs[0].prompt, "\n  better:", pairs[0].chosen[-90:], "\n  worse: ", pairs[0].rejected[-90:])

# %% [markdown]
# From such pairs we want a number for a single answer, its **reward** $r(x, y)$. Bradley and Terry (1952) connected the two: one answer is preferred to another with a probability that depends on the difference of their rewards,
#
# $$P(y_w \succ y_l) = \sigma(r(x, y_w) - r(x, y_l)), \qquad \sigma(d) = \frac{1}{1 + e^{-d}} .$$
#
# By hand: rewards 2 and 1 give $\sigma(1) = 0.73$; equal rewards 0.5; rewards 102 and 101 again 0.73. Only differences count, so a reward has no natural zero. To learn $r$, make the observed preferences likely: minimise $-\ln \sigma$ of the difference, averaged over the pairs. Equal
# rewards cost $\ln 2 = 0.69$. A difference of 1 costs 0.31 if it has the right sign and 1.31 if it has the wrong one.
#
# A **margin** $m$ may ask for more: $-\ln \sigma(r_w - r_l - m)$ is content only when the better one leads by more than $m$.

# %% [markdown]
# **Exercise.** The loss of a reward model.
#
# <details><summary>Hint 1</summary>Difference first, then σ, log, minus, mean.</details>
# <details><summary>Hint 2</summary>σ(-200) is 0 in single precision, and its log -∞. There is a function that does both steps safely.</details>
# <details><summary>Hint 3</summary>`F.logsigmoid`; the margin is subtracted from the difference.</details>

# %% exercise="reward.pairwise_loss"
# from: tinytrans.training.reward.pairwise_loss

# %% [markdown]
# The reward model is the language model itself, with a head that turns the hidden state of the last token into one number: this is the only token that has seen the whole answer. The head starts at 0, so the first loss is $\ln 2$.


# %% tags=["measured"]
def chunks(batch) -> tuple[Tensor, Tensor]:
    """Rows of preferred, then of rejected answers, and at how many tokens each ends."""
    places = torch.arange(1, batch.targets.shape[1] + 1, device=batch.targets.device)
    return batch.ids, ((batch.targets != -100) * places).amax(dim=1)


def reward_loss(model: nn.Module, batch) -> Tensor:
    """Your loss of a reward model on a batch of pairs."""
    return pairwise_loss(*model(*chunks(batch)).chunk(2))


def train(model: nn.Module, pairs, loss, lr: float, steps: int, **more):
    """Train on batches of eight pairs."""
    began, optimizer = time.perf_counter(), adamw(model, lr, weight_decay=0.0)
    steps = 2 if quick else steps
    batches = PreferenceBatches(pairs, tokenizer, min(8, len(pairs)))
    schedule = partial(warmup_cosine, warmup=5, total=steps)
    how = {"steps": steps, "optimizer": optimizer, "schedule": schedule, "progress": False} | more
    history = fit(model, batches, loss, **how)
    took = time.perf_counter() - began
    print(f"{steps} steps in {took:.0f} s, loss {history.losses[0]:.2f} -> {history.mean(10):.2f}")
    return history


judge = RewardHead(load_sft(), sft.config.d_model).to(device)
train(judge, pairs, reward_loss, lr=1e-3, steps=50)
judge.eval()
retold = retell(run, 12 if quick else 80)  # tales beside the same tales in which one fact is another
tests = {"unseen pairs": unseen, "retold tales": retold}
show({name: in_order(judge, test, tokenizer, run) for name, test in tests.items()})

# %% [markdown]
# The table gives the share of pairs that the judge puts in the right order. Read it carefully. The judge has got one point: of the pairs that differ only by the end it orders nearly all correctly. But where they differ by **obedience** (the wrong animal, the wrong place, a happy end where a sad one was asked for) it is no better than a coin. The SFT model hardly ever disobeys, so hardly any pair was about that. Our judge
# believes that *happy is good*, and does not know that *disobedient is bad*. Remember this.

# %% question="reward.high_reward"

# %% [markdown]
# ## 3. How likely is an answer? (5 minutes)
#
# Everything that follows makes some answers likelier and others less likely. The probability of a whole answer is the product of its tokens' probabilities, so its logarithm is a **sum**:
#
# $$\log \pi(y \mid x) = \sum_t \log \pi(y_t \mid x, y_{<t}) .$$
#
# By hand: tokens of probability 1/2 and 1/4 make an answer of probability 1/8, $\log = -2.08$. The prompt's tokens do not count: they were given. A long answer is less likely than a short one simply because it has more tokens; where that is not wanted one takes the **mean**, here $-1.04$.

# %% [markdown]
# **Exercise.** The log-probability of each answer of a batch.
#
# <details><summary>Hint 1</summary>At each place take the log-probability of the actual token: `log_softmax` over the vocabulary and `gather`, or minus `F.cross_entropy(..., reduction="none")`.</details>
# <details><summary>Hint 2</summary>Put 0 where nothing counts before you add up. `gather` does not take -100: clamp the targets first.</details>
# <details><summary>Hint 3</summary>For the mean divide by the number of places that count, at least 1.</details>

# %% exercise="logprobs.sequence_logprobs"
# from: tinytrans.training.logprobs.sequence_logprobs

# %% [markdown]
# ## 4. DPO: no reward model needed (15 minutes)
#
# What do we want of the policy? A high reward, without straying far from the model that it was. Far away, the reward model has seen nothing and the language may fall apart. Distance is measured by the **KL divergence**, the mean of $\log \pi - \log \pi_{ref}$ over what $\pi$ writes:
#
# $$\max_\pi \; \mathbb{E}_{y \sim \pi}[\, r(x, y)\,] - \beta\, \mathrm{KL}(\pi \,\|\, \pi_{ref}) .$$
#
# This has a solution that can be written down: $\pi^*(y \mid x) = \pi_{ref}(y \mid x)\, e^{r(x, y) / \beta} / Z(x)$. Each answer keeps its old probability, times a factor that grows with its reward ($Z$ makes the probabilities add up to 1). Why? With $r = \beta \log (\pi^* / \pi_{ref}) + \beta \log Z$ put in, the objective above becomes $\beta \log Z(x) - \beta\, \mathrm{KL}(\pi \,\|\, \pi^*)$, and a KL divergence is never below 0, and 0 only between equals. By hand: two answers, 1/2 each, rewards 1 and 0. With $\beta = 1$ the factors are $e$ and 1, and the shares 0.73 and 0.27; with $\beta = 0.1$ they are $e^{10} = 22026$ and 1: the second answer is gone.
#
# Rafailov et al. (2023) read the formula backwards. Solve it for the reward:
#
# $$r(x, y) = \beta \log \frac{\pi^*(y \mid x)}{\pi_{ref}(y \mid x)} + \beta \log Z(x) .$$
#
# Every policy *is* a reward model: it likes the answers that it has made likelier. The awkward $Z$ depends on the prompt alone, so it cancels in the difference of two answers. Put this reward into the loss of section 2, and nothing is left but the policy:
#
# $$L_{DPO} = -\log \sigma\!\left(\beta \log \frac{\pi(y_w)}{\pi_{ref}(y_w)} - \beta \log \frac{\pi(y_l)}{\pi_{ref}(y_l)}\right) .$$
#
# By hand: the preferred answer moved from $-10$ to $-8$, the rejected from $-7$ to $-9$. The movements are $+2$ and $-2$; with $\beta = 0.25$ the rewards are 0.5 and $-0.5$, the loss $-\ln \sigma(1) = 0.31$. It does not matter that the rejected answer *was* the likelier of the two: only movement counts. This is **direct preference optimisation**.

# %% [markdown]
# **Exercise.** DPO's loss, from log-probabilities of whole answers (B,).
#
# <details><summary>Hint 1</summary>A ratio of probabilities is a difference of logs.</details>
# <details><summary>Hint 2</summary>beta times the movement is the reward of an answer, and for two rewards you have a loss already.</details>
# <details><summary>Hint 3</summary>The reference is a yardstick: `detach` it.</details>

# %% exercise="dpo.dpo_loss"
# from: tinytrans.training.dpo.dpo_loss


# %% tags=["measured"]
def dpo_step(model: nn.Module, batch, beta: float = 0.1) -> Tensor:
    """Your loss on a batch of pairs; the SFT model is the reference."""
    chosen, rejected = sequence_logprobs(model(batch.ids), batch.targets).chunk(2)
    with torch.no_grad():
        ref_chosen, ref_rejected = sequence_logprobs(sft(batch.ids), batch.targets).chunk(2)
    return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)


some = PreferenceBatches(pairs, tokenizer, min(16, len(pairs)))[0].to(device)
tracked = {"preferred": [], "rejected": []}


def track(model: nn.Module) -> dict[str, float]:
    """How far the answers of some pairs have moved, in nats."""
    now, was = (sequence_logprobs(either(some.ids), some.targets) for either in (model, sft))
    moved = now - was
    for name, part in zip(tracked, moved.chunk(2), strict=True):
        tracked[name].append(part.mean().item())
    return {name: values[-1] for name, values in tracked.items()}


def enter(name: str, model: nn.Module) -> None:
    """Measure a model on the held-out requests, and put its row into the table."""
    stories = speak(model, tokenizer, held_out, run, 0.7)
    table[name] = taste(held_out, stories) | {"wins": win_rate(held_out, stories, before, like)}
    show({name: table[name]})


dpo = load_sft()
train(dpo, pairs, dpo_step, lr=2e-4, steps=40, evaluate=track, every=5)
enter("DPO", dpo)
curves(
    {name: (range(5, 5 * len(values) + 1, 5), values) for name, values in tracked.items()},
    title="How DPO moves the answers of its pairs",
    x_label="step",
    y_label="log π - log π_ref (nats)",
)

# %% [markdown]
# The loss asks for a gap, and gets it mostly from one side: the rejected answers fall much further than the preferred ones rise.

# %% question="dpo.both_fall"

# %% [markdown]
# ## 5. ORPO: both phases in one (10 minutes)
#
# DPO needs a second model in memory, the reference, and a phase of instruction tuning before it. Hong et al. (2024) do without both: they learn the preferred answer as in instruction tuning, *and* push it away from the rejected one in the same step. How do you compare two answers without a reference? By their **odds**,
#
# $$\mathrm{odds}(y) = \frac{p}{1 - p}, \qquad p = \exp\!\Big(\frac1T \sum_t \log \pi(y_t)\Big), \qquad L_{ORPO} = L_{NLL}(y_w) - \lambda \log \sigma\!\left(\log \frac{\mathrm{odds}(y_w)}{\mathrm{odds}(y_l)}\right) .$$
#
# $p$ is the geometric mean of the tokens' probabilities, because the probability of a whole answer is so small that $1 - p$ would always be 1. By hand: $p = 3/4$ has odds of 3, $p = 1/2$ odds of 1; the ratio is 3, and $-\ln \sigma(\ln 3) = -\ln 3/4 = 0.29$.
#
# The trap is $1 - p$. An answer that the model knows by heart has $p = 0.99999999$, which in single precision is 1, and $\log 0 = -\infty$. `torch.expm1(x)` gives $e^x - 1$ without that loss of digits.

# %% [markdown]
# **Exercises.** The log-odds of a mean log-probability $x = \log p$; and ORPO's loss.
#
# <details><summary>Hint 1</summary>log(p / (1 - p)) = x - log(1 - e^x).</details>
# <details><summary>Hint 2</summary>1 - e^x is -expm1(x). At x = 0 it is still 0: `clamp` x to the negative number nearest to 0, `-torch.finfo(x.dtype).tiny`.</details>
# <details><summary>Hint 3</summary>`orpo_loss`: log-odds of each, their difference, `F.logsigmoid`, mean; subtract lam times that from nll.</details>

# %% exercise="orpo.log_odds"
# from: tinytrans.training.orpo.log_odds

# %% exercise="orpo.orpo_loss"
# from: tinytrans.training.orpo.orpo_loss


# %% tags=["measured"]
def orpo_step(model: nn.Module, batch, lam: float = 1.0) -> Tensor:
    """Your loss on a batch of pairs, without any reference."""
    logits = model(batch.ids)
    chosen, rejected = sequence_logprobs(logits, batch.targets, None, True).chunk(2)
    nll = F.cross_entropy(logits.chunk(2)[0].flatten(0, 1), batch.targets.chunk(2)[0].flatten())
    return orpo_loss(nll, chosen, rejected, lam)


orpo = load_sft()
train(orpo, pairs, orpo_step, lr=3e-4, steps=40)
enter("ORPO", orpo)

# %% [markdown]
# (ORPO is meant for a base model. For a fair comparison all four start from the same model here.)
#
# ## 6. Learning from one's own answers (15 minutes)
#
# DPO and ORPO learn from pairs that were collected beforehand. The model changes and the pairs do not; soon they show answers that it would no longer give. The other way is to let the model answer *now*, see what the answers earn, and make the good ones likelier. The loss for this is old (REINFORCE, Williams 1992): $-A \log \pi(y)$, where the
# **advantage** $A$ says how much better than expected the answer was.
#
# Better than what? If all rewards are positive and there is no comparison, every answer is made likelier, the good ones only a little more so: that is slow and noisy. **GRPO** (Shao et al. 2024) uses the simplest comparison there is: G answers to the *same* prompt, a group, and
#
# $$A_i = \frac{r_i - \mathrm{mean}(r)}{\mathrm{std}(r)} .$$
#
# By hand: rewards 1, 2, 3, 6 have the mean 3 and the variance $(4 + 1 + 0 + 9) / 4 = 3.5$, so the advantages are $-1.07, -0.53, 0, 1.60$.

# %% [markdown]
# **Exercise.** The advantages of groups, (B, G).
#
# <details><summary>Hint 1</summary>`mean` and `std` along dim=-1, with keepdim=True.</details>
# <details><summary>Hint 2</summary>`std` divides by G - 1 unless you say `correction=0`.</details>
# <details><summary>Hint 3</summary>A group of equal rewards gives 0 / 0. Find those rows, or add to the divisor a number that is tiny beside any reward.</details>

# %% exercise="grpo.group_advantages"
# from: tinytrans.training.grpo.group_advantages

# %% question="grpo.all_equal"

# %% [markdown]
# ### Small steps
#
# Answers are expensive, so one would like to take several steps on each batch of them. But after the first step they are no longer answers of the current model. The correction is the **ratio** $\rho_t = \pi(y_t) / \pi_{old}(y_t)$, where $\pi_{old}$ is the model that wrote them: weighed by it, a token counts as often as the current model would write it.
# If $\rho$ strays far from 1, though, one lucky answer could carry the policy anywhere. **PPO** (Schulman et al. 2017) removes the reward for going too far:
#
# $$L_t = -\min\big(\rho_t A,\ \mathrm{clip}(\rho_t, 1 - \epsilon, 1 + \epsilon)\, A\big) .$$
#
# By hand, with $\epsilon = 0.2$:
#
# | $\rho$ | $A$ | $\rho A$ | clipped | the smaller | gradient |
# |---|---|---|---|---|---|
# | 1.5 | 2 | 3 | 2.4 | 2.4 | none: far enough |
# | 0.5 | 2 | 1 | 1.6 | 1 | raises $\rho$: it went the wrong way |
# | 1.5 | -2 | -3 | -2.4 | -3 | lowers $\rho$: it went the wrong way |
# | 0.5 | -2 | -1 | -1.6 | -1.6 | none: far enough |

# %% [markdown]
# **Exercise.** The loss of each token.
#
# <details><summary>Hint 1</summary>The ratio is exp of a difference of log-probabilities.</details>
# <details><summary>Hint 2</summary>Both gains, `torch.minimum`, and the minus in front of it all.</details>
# <details><summary>Hint 3</summary>Old log-probabilities and advantages are facts: `detach`. The upper bound is 1 + clip, or 1 + clip_high where that is given.</details>

# %% exercise="ppo.surrogate"
# from: tinytrans.training.ppo.surrogate

# %% [markdown]
# Now GRPO's loop. In each round the model answers a few requests several times, the **rule** `like` itself gives the rewards (this works wherever answers can be checked: in mathematics, in programs, in our tales), and one step is taken.

# %% tags=["measured"]
asked = prompts(run, 16 if quick else 400)
rounds, per_round, group = (1, 2, 2) if quick else (10, 6, 6)


def grpo_batch(model: nn.Module, step: int):
    """Answers of the current model to a few requests, and the advantage of each token's answer."""
    some = [asked[(step * per_round + i) % len(asked)] for i in range(per_round) for _ in range(group)]
    said = say(model, sft, tokenizer, some, run, step)
    points = [float(like(*pair)) for pair in zip(some, said.stories, strict=True)]
    rewards = torch.tensor(points, device=device)
    advantages = group_advantages(rewards.view(per_round, group)).flatten()
    return said, advantages[:, None].expand_as(said.mask)


def grpo_step(model: nn.Module, batch) -> Tensor:
    """The clipped loss, a mean over the answers' tokens."""
    said, advantages = batch
    now = token_logprobs(model(said.ids), said.targets)
    return masked_mean(surrogate(now, said.logprobs, advantages), said.mask)


began = time.perf_counter()
grpo = load_sft()
optimizer = adamw(grpo, 5e-4, weight_decay=0.0)
fit(grpo, partial(grpo_batch, grpo), grpo_step, steps=rounds, optimizer=optimizer, progress=False)
print(f"{rounds} rounds of {per_round * group} answers in {time.perf_counter() - began:.0f} s")
enter("GRPO", grpo)

# %% [markdown]
# ## 7. PPO with a reward model (20 minutes)
#
# Usually there is no rule, only people's comparisons and a reward model learned from them. This is **RLHF**, reinforcement learning from human feedback, as Ouyang et al. (2022) did it. It uses four models: the policy, the reference, the reward model, and a **critic**, which predicts at each token what reward the answer will end with.
#
# **What a token earns.** The score comes at the end, for the whole answer. To keep the policy near the reference, every token pays at once for its own deviation:
#
# $$r_t = -\beta\, (\log \pi(y_t) - \log \pi_{ref}(y_t)) \; + \; \text{score, if } t \text{ is the last} .$$
#
# By hand: score 2, $\beta = 0.5$, two tokens with $\log \pi = (-1, -1)$ and $\log \pi_{ref} = (-1, -3)$. The first pays 0, the second $0.5 \cdot 2 = 1$, so they earn 0 and $2 - 1 = 1$.

# %% [markdown]
# **Exercise.** The rewards of the tokens.
#
# <details><summary>Hint 1</summary>The penalty is (B, T) already; places outside the answer earn 0.</details>
# <details><summary>Hint 2</summary>The last token is where the mask is True and no True follows: count from the back with `flip` and `cumsum`, or take the largest position.</details>
# <details><summary>Hint 3</summary>Rewards are facts: `detach` the result.</details>

# %% exercise="ppo.token_rewards"
# from: tinytrans.training.ppo.token_rewards

# %% [markdown]
# **Who deserves it?** A hundred tokens share one score at the end. The critic's forecast $V_t$ helps: if the forecast *rises* from one token to the next, that token was a good one. The surprise of a step is
#
# $$\delta_t = r_t + \gamma V_{t+1} - V_t , \qquad \text{and with all that follows} \qquad A_t = \delta_t + \gamma \lambda A_{t+1} .$$
#
# This is **generalised advantage estimation**, GAE (Schulman et al. 2016). $\lambda = 0$ trusts the critic completely; with $\lambda = 1$ the later forecasts cancel, and $A_t$ is everything that came, minus the forecast. After the last token nothing follows, whatever the critic says about padding. The critic itself learns that it should have said $A_t + V_t$.
#
# By hand, $\gamma = 1$ and $\lambda = 0.5$: rewards $(0, 0, 1)$ and forecasts $(0.5, 0.6, 0.8)$. From the end: $\delta_3 = 1 - 0.8 = 0.2$, $\delta_2 = 0.8 - 0.6 = 0.2$, $\delta_1 = 0.6 - 0.5 = 0.1$; so $A_3 = 0.2$, $A_2 = 0.2 + 0.5 \cdot 0.2 = 0.3$, $A_1 = 0.1 + 0.5 \cdot 0.3 = 0.25$.

# %% [markdown]
# **Exercise.** GAE.
#
# <details><summary>Hint 1</summary>Put 0 for rewards and values outside the answers; then go through the places from the last to the first.</details>
# <details><summary>Hint 2</summary>Carry two things along: the advantage and the value of the place behind. Both are 0 at the end of the row, and must be 0 again outside of an answer.</details>
# <details><summary>Hint 3</summary>Return both: advantages, and advantages + values. No gradient flows through either.</details>

# %% exercise="ppo.gae"
# from: tinytrans.training.ppo.gae

# %% [markdown]
# Now put everything together: answers, scores, rewards, advantages (brought to mean 0 and variance 1 over the batch), and two steps on each batch, for the critic along with the policy. On the way we watch two numbers: what the **reward model** thinks of answers to held-out requests, and how much people really **like** them.


# %%
class Pair(nn.Module):
    """The policy and its critic, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.policy, self.critic = load_sft(), copy.deepcopy(judge)


def ppo_batch(both: Pair, beta: float, kept: list, step: int, n: int = 4 if quick else 20):
    """A new round every second step: answers, advantages and returns; in between the same once more."""
    if step % 2 == 0:
        some = [asked[(step // 2 * n + i) % len(asked)] for i in range(n)]
        said = say(both.policy, sft, tokenizer, some, run, step)
        with torch.no_grad():
            scores, values = judge(said.rows, said.lengths), both.critic.values(said.ids)
        rewards = token_rewards(scores, said.logprobs, said.ref_logprobs, said.mask, beta)
        advantages, returns = gae(rewards, values, said.mask)
        kept[:] = [(said, whiten(advantages, said.mask), returns)]
    return kept[0]


def ppo_step(both: Pair, batch) -> Tensor:
    """The policy's clipped loss and the critic's squared error."""
    said, advantages, returns = batch
    now = token_logprobs(both.policy(said.ids), said.targets)
    policy = masked_mean(surrogate(now, said.logprobs, advantages), said.mask)
    return policy + 0.5 * masked_mean((both.critic.values(said.ids) - returns).square(), said.mask)


watched = held_out[: 4 if quick else 40]
sad = next((i for i, request in enumerate(watched) if "sad" in request), 0)  # a request for a sad end


def look(policy: nn.Module) -> dict:
    """What the reward model thinks, what people think, how far the policy has gone, and one story."""
    stories = speak(policy, tokenizer, watched, run, 1.0)
    return {
        "reward": judged(judge, watched, stories, tokenizer, run).mean().item(),
        "liked": taste(watched, stories)["liked"],
        "kl": divergence(policy, sft, tokenizer, watched, stories, run),
        "story": stories[sad],
    }


every = 1 if quick else 6  # after so many steps we look


def ppo(beta: float, lr: float = 5e-4, steps: int = 2 if quick else 24):
    """A policy trained by PPO against the reward model, and what was seen on the way."""
    began = time.perf_counter()
    both, seen = Pair(), []
    seen.append(look(both.policy))

    def watch(_: nn.Module) -> dict[str, float]:
        seen.append(look(both.policy))
        return {}

    batches, optimizer = partial(ppo_batch, both, beta, []), adamw(both, lr, weight_decay=0.0)
    how = {"steps": steps, "optimizer": optimizer, "evaluate": watch, "every": every}
    fit(both, batches, ppo_step, progress=False, **how)
    print(f"beta {beta}: {steps // 2} rounds in {time.perf_counter() - began:.0f} s")
    return both.policy, seen


held, held_seen = ppo(beta=0.1)
enter("PPO, RM", held)

# %% [markdown]
# ### Without the penalty
#
# Break it: $\beta = 0$, and a larger learning rate, so that a few rounds go as far as hundreds of careful ones would.

# %% tags=["measured"]
free, free_seen = ppo(beta=0.0, lr=1.5e-3)
enter("PPO, no KL", free)
rows = {
    f"{name}, {n * every}": {what: number for what, number in row.items() if what != "story"}
    for name, seen in (("with KL", held_seen), ("without", free_seen))
    for n, row in enumerate(seen)
}
show(rows)

# %%
curves(
    {
        f"{what}, {name}": ([row["kl"] for row in seen], [row[key] for row in seen])
        for name, seen in (("with KL", held_seen), ("without", free_seen))
        for what, key in (("reward model", "reward"), ("people", "liked"))
    },
    title="Over-optimisation: what the reward model thinks, and what people think",
    x_label="distance from the SFT model (nats)",
    y_label="reward, points",
)

# %% [markdown]
# Walk through the run without the penalty. You see the numbers, and what the policy answers to one and the same request, which asks for a *sad* end.


# %%
def moment(n: int) -> str:
    """One moment of the run, as HTML."""
    row = free_seen[n]
    told = f"reward model {row['reward']:.2f}, people {row['liked']:.2f} of 3 points"
    told += f", distance {row['kl']:.1f} nats"
    return f"<p>{told}</p><p><b>{html.escape(watched[sad])}</b></p><p>{html.escape(row['story'])}</p>"


steps_seen = [n * every for n in range(len(free_seen))]
both_lines = curves(
    {
        "reward model": (steps_seen, [row["reward"] for row in free_seen]),
        "people": (steps_seen, [row["liked"] for row in free_seen]),
    },
    title="PPO without the penalty",
    x_label="step",
    y_label="reward, points",
)
Explorer(both_lines, [(f"{step} steps", n) for n, step in enumerate(steps_seen)], moment, "after")

# %% [markdown]
# This is **over-optimisation**. The reward model's opinion rises, while people like the stories less than before. The policy has discovered what we saw in section 2: the judge likes happy words and does not mind disobedience. Nothing is wrong with the algorithm. It does what it was told, and what it was told is not what was meant. (Gao et al. 2022 measured
# such curves on large models; in quick mode there is too little training for any of this.) What helps: the penalty, and stopping early; more pairs, and pairs about what the policy does *now*; and reading the answers instead of the rewards.
#
# With the penalty the policy stays within a few nats, and little happens in a dozen rounds: a judge that learned from some fifty pairs is a weak teacher. (With 40 stories at each look, a difference of a quarter of a point may be chance.)

# %% question="ppo.why_reference"

# %% [markdown]
# ## 8. Side by side (5 minutes)

# %% tags=["measured"]
show(table)

# %% [markdown]
# | | learns from | models in memory | writes while training |
# |---|---|---|---|
# | DPO | pairs | policy, reference | no |
# | ORPO | pairs | policy | no |
# | GRPO | a rule (or a reward model) | policy (and reference, for a KL) | yes |
# | PPO | a reward model, made from pairs | policy, reference, reward model, critic | yes |
#
# The SFT model itself has a win rate of 0.5. Nobody can reach 1 here: in every second request the end was not open, so the best that a model can usually do there is to tie. The column `happy` shows the taste most clearly. Do not read a ranking out of one small run: other learning rates would shuffle the rows. What lasts is what each method needs, and where each can go wrong.

# %% question="ppo.whose_taste"

# %% [markdown]
# ## 9. What to watch out for
#
# | you see | look at |
# |---|---|
# | DPO's first loss is not ln 2 | policy and reference differ at the start: dropout left on, another prompt, an unshifted target |
# | DPO's loss falls, and the answers get odd | log-probabilities of *both* answers falling; beta too small; too many steps on few pairs |
# | the reward model's loss is 0 in training, its accuracy poor on new pairs | too few pairs, too many steps |
# | a reward that changes with the padding | the last *real* token is not at the last place |
# | NaN in GRPO | a group of equal rewards |
# | NaN in ORPO | log(1 - p) at p = 1 |
# | a ratio that is always 1 | old log-probabilities recomputed with the current model |
# | reward up, KL up, answers strange | over-optimisation: raise beta, stop earlier, ask people again |
# | odd advantages at an answer's end | GAE goes on into the padding |
#
# <!-- pitfalls: reward logprobs dpo orpo grpo ppo -->
#
# ## What was simplified
#
# - Our people were a rule. Real judges disagree with each other and with themselves; Bradley and Terry's model allows for that.
# - One taste, happy ends. Real preferences are about many things at once: helpful, true, harmless, short enough. Often they pull in different directions.
# - ORPO started from a tuned model; GRPO did without its KL term and took one step per round; PPO's critic was a copy of the reward model.
# - The runs took less than a minute each. With other seeds and rates the figures move; the order of the methods means nothing here.
# - We only talked about harm. What can be measured in tales is disobedience; a real model is also tested against people who *try* to make it do harm.
#
# ## Where this lives in tinytrans
#
# `tinytrans/training/reward.py`, `logprobs.py`, `dpo.py` (with IPO, SimPO and KTO), `orpo.py`, `grpo.py` (with Dr. GRPO, RLOO and DAPO's variants) and `ppo.py` hold what you wrote. `python -m tinytrans.recipes dpo` (`orpo`, `grpo`, `ppo`, `reward`) are longer runs of this lesson, with controls.
#
# ## References
#
# - R. A. Bradley, M. E. Terry (1952). Rank Analysis of Incomplete Block Designs. Biometrika 39.
# - R. J. Williams (1992). Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning. Machine Learning 8.
# - J. Schulman, P. Moritz, S. Levine, M. Jordan, P. Abbeel (2016). High-Dimensional Continuous Control Using Generalized Advantage Estimation. arXiv 1506.02438.
# - J. Schulman, F. Wolski, P. Dhariwal, A. Radford, O. Klimov (2017). Proximal Policy Optimization Algorithms. arXiv 1707.06347.
# - P. Christiano et al. (2017). Deep Reinforcement Learning from Human Preferences. arXiv 1706.03741.
# - L. Ouyang et al. (2022). Training language models to follow instructions with human feedback. arXiv 2203.02155.
# - Y. Bai et al. (2022). Training a Helpful and Harmless Assistant with Reinforcement Learning from Human Feedback. arXiv 2204.05862.
# - L. Gao, J. Schulman, J. Hilton (2022). Scaling Laws for Reward Model Overoptimization. arXiv 2210.10760.
# - R. Rafailov et al. (2023). Direct Preference Optimization: Your Language Model is Secretly a Reward Model. arXiv 2305.18290.
# - J. Hong, N. Lee, J. Thorne (2024). ORPO: Monolithic Preference Optimization without Reference Model. arXiv 2403.07691.
# - Z. Shao et al. (2024). DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models. arXiv 2402.03300 (GRPO).
# - A. Pal et al. (2024). Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive. arXiv 2402.13228 (when both answers get less likely).
# - Q. Yu et al. (2025). DAPO: An Open-Source LLM Reinforcement Learning System at Scale. arXiv 2503.14476.

# %% [markdown] tags=["instructor"]
# **For instructors: common questions.** *Why not put the reward into the loss and differentiate?* Between the model's logits and the story stands sampling, a choice without a gradient. *Why does DPO's loss start at ln 2?* The policy is the reference; nothing has moved. *Is the KL a distance?* No, it is not symmetric; here it is averaged over what the policy writes. *Why does PPO need a
# critic and GRPO none?* Both need something to compare with; one learns it, one pays for it with more answers. *GRPO does better than PPO here; is it better?* It was given the rule itself, PPO a judge that had seen a few dozen pairs.

# %% [markdown] tags=["instructor"]
# **For instructors: what the report of mistakes tells.** *Turned round* (pairs, DPO, ORPO) is a slip; *beta outside* is a misconception, so ask what beta does then. *Mean for sum* comes from lesson 12's loss. *Clipped alone* and *max for min* show who has not gone through the table of section 6 row by row. *Goes on behind the end* in GAE is the most common mistake in published code as well. *Std divided by G - 1*
# is torch's default and worth a word on why both exist.

# %% [markdown] tags=["instructor"]
# **For instructors: variants.** Give the judge more pairs, or pairs about obedience (`pairs + retold`): where does the curve bend now? DPO with beta 0.01 and 1. GRPO with groups of 2. A taste of the class's own: replace `like` by another rule, such as *no dialogue* or *short*, and let another group find out from the model's answers what it was. Let learners act as judges on twenty pairs and compare how
# often they agree.
