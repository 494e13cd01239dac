# %% [markdown]
# # 11 · Pretraining
#
# The model that wrote in lesson 10 came ready-made. In this lesson you train one yourself: a GPT with a million parameters that knows nothing, on twenty-four thousand
# short stories, in a few minutes. At the end it tells stories that nobody has written, and a program judges them.
#
# **You will be able to**
#
# - say what a language model is asked in training, and why nobody has to label anything;
# - write its loss over a batch with padding, and read it: ln V at birth, perplexity, too good to be true;
# - cut batches out of documents, by padding, packing and windows;
# - write AdamW, warm-up and cosine, clipping and accumulation, and say what trouble each prevents;
# - run a training that survives being killed, and let a verifier tell you whether it has worked.
#
# **Builds on** lessons 04 to 08 (the parts of a GPT) and 10 (generation). **Leads to** 12 (from continuing texts to following instructions) and 13 (preferences).
#
# **Time** about 90 minutes: the task 10, the loss 15, batches 10, the optimiser 15, the schedule 7, clipping and accumulation 10, your own loop 5, the real run 10, killed and resumed 3, breaking it 5.
# The notebook computes for about three minutes on two CPU cores, most of it in section 8. A GPU takes the training from minutes to seconds, and there it is done in mixed precision (section 7).
#
# **Letters** B texts in a batch, T positions, V vocabulary, N ids of a long text; $w$ a weight, $g$ its gradient, $m$ and $v$ running means of $g$ and $g^2$, $\epsilon$ a tiny number, $\eta$ the learning rate, $\lambda$ weight decay.

# %% tags=["setup"]
import math
from collections.abc import Sequence

import torch
from torch import Tensor

# %%
seeded = torch.manual_seed(0)

# %% tags=["tools"]
import html
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import fill

from graders.check import check
from tinytrans import GPT, PRESETS, BPETokenizer, evaluate, fit, generate, load, pick
from tinytrans.data.batches import PackedBatches, PaddedBatches, packed, pad
from tinytrans.data.tales_verify import consistent, copied
from tinytrans.data.tales_verify import read as facts
from tinytrans.plots import curves, heat_map
from tinytrans.training.optim import adamw, muon
from tinytrans.widgets import Explorer

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with less of everything, for tests
device = pick()
print(f"running on {device}{', in quick mode' if quick else ''}")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.training.optim import adamw_step`: from there on the notebook uses the library's version. Your points still come from your own
# cell, so come back to it.
#
# ## 1. What is asked? (10 minutes)
#
# This is how a model with random weights continues a text:

# %%
texts = load("tales", n=300 if quick else 24_000).documents(instructed=0, questioned=0)
unseen = load("tales", n=12 if quick else 120, split="validation").documents(instructed=0, questioned=0)
tokenizer = BPETokenizer.train(texts[::6], 600 if quick else 2048, ("<|end|>",))
V, END = tokenizer.vocab_size, tokenizer.token_to_id("<|end|>")
config = replace(PRESETS["tales"], vocab_size=V)
newborn = GPT(config).to(device).eval()
opening = torch.tensor([tokenizer.encode("Once upon a time there was")], device=device)
print(f"{len(texts)} stories, a vocabulary of {V}, {newborn.n_params:,} parameters")
print(f"\nThe first story:\n{fill(texts[0], 96)}\n")
chance = torch.Generator(device).manual_seed(0)
babble = generate(newborn, opening, max_new_tokens=12, generator=chance)[0]
print("The newborn model:", tokenizer.decode(babble.tolist()))

# %% [markdown]
# What should it learn? To continue as the stories do. For this we need no teacher, because every text is full of answers: *Once upon a* is followed by *time*. The text itself is the **label**. This is **self-supervision**, and it is why
# models can be trained on more text than anybody could ever annotate.
#
# And *every* position gives an example. From T + 1 ids come T of them:
#
# | position | reads | is asked for |
# |---|---|---|
# | 0 | Once | upon |
# | 1 | Once upon | a |
# | 2 | Once upon a | time |
#
# By hand, with the ids 5, 6, 7, 8: the inputs are 5, 6, 7 and the targets 6, 7, 8, the same ids **shifted by one**. The causal mask (lesson 04) keeps position 1 from seeing its answer, which stands right next to it in the input. So all T predictions come out of *one* pass. (In lesson 10 every new
# token took a pass of its own, because a token cannot be read before it has been chosen. And only the last position's prediction was of use there; here all of them are. A recurrent network, lesson 03, could be asked the same T questions, but it has to read one token after the other.)
#
# Texts differ in length. Short ones are filled up after their end, and padding is no target. torch's convention for "leave this out" is the target **-100**. By hand: the ids 5, 6, 7 and one of padding have the targets 6, 7, -100. The id of the *end* is a target: a model that is never asked for it never learns to stop.

# %% [markdown]
# **Exercise.** Inputs and targets.
#
# <details><summary>Hint 1</summary>Both are slices of the same ids: one without the last column, one without the first.</details>
# <details><summary>Hint 2</summary>The target in column t is id number t + 1 of its row; it is real when t + 1 is smaller than the row's length.</details>
# <details><summary>Hint 3</summary>`torch.arange(1, T + 1)` compared with `lengths[:, None]` gives a bool (B, T). `masked_fill` without an underscore makes a copy: the slices are views of the caller's ids.</details>

# %% exercise="pretrain.shift"
# from: tinytrans.training.pretrain.shift

# %%
inputs, targets = shift(torch.tensor([[5, 6, 7, 8], [9, 6, 7, 0]]), torch.tensor([4, 3]))
print(inputs.tolist(), "->", targets.tolist())

# %% question="pretrain.in_parallel"

# %% [markdown] tags=["instructor"]
# **For instructors: planning.** In a class of 90 minutes start section 8's cell before the break: it computes for one to two minutes on two quiet cores, and everything above it must have run. In 60 minutes leave out the windows of section 3 and the accumulation of section 6. In 2 × 45 minutes cut before section 4. The head of the lesson
# promises three minutes of computing on two cores; one core takes longer, and `TINYTRANS_QUICK=1` shows all cells in seconds, with figures that mean nothing.

# %% [markdown]
# ## 2. How wrong is it? (15 minutes)
#
# The model gives each token a probability. Good weights are those under which the training texts are likely. The probability of a text is the product of its steps (lesson 10), so we want
#
# $$\prod_t p(x_{t+1} \mid x_1 \dots x_t) \ \text{large}, \qquad \text{that is,} \qquad \mathcal L = -\frac1T \sum_t \ln p(x_{t+1} \mid x_1 \dots x_t) \ \text{small}.$$
#
# The logarithm turns the product into a sum, the minus makes it something to *minimise*, and the mean makes texts of different length comparable. $-\ln p$ is the **surprise** at what came: 0 for what was certain, without bound for what was thought impossible. The mean surprise is the **cross-entropy**, in nats.
#
# By hand: the right tokens got the probabilities 0.5, 0.25 and 0.125. The surprises are 0.69, 1.39 and 2.08, and their mean is 1.39. That is $\ln 4$: on average the model was as unsure as if it had to choose among **4** equally likely tokens. $e^{\mathcal L}$ is called the **perplexity**. (The geometric mean of the
# probabilities is $\sqrt[3]{0.5 \cdot 0.25 \cdot 0.125} = 0.25$, and the perplexity is one over it.)
#
# Two details:
#
# - Logits become probabilities by the softmax, and a probability may underflow to 0, whose logarithm is $-\infty$. `log_softmax` computes $\ln p = z - \ln \sum_j e^{z_j}$ without ever forming $p$.
# - The mean is taken over **real targets only**. With padding in the denominator, a batch of short texts would look easy; with a mean for each row first, a token of a short text would weigh more than one of a long text.

# %% [markdown]
# **Exercise.** The loss.
#
# <details><summary>Hint 1</summary>`log_softmax(dim=-1)`, then pick from each position the entry of its target: `gather(-1, targets.unsqueeze(-1)).squeeze(-1)`.</details>
# <details><summary>Hint 2</summary>-100 is no index. Put any valid id in its place before you gather, and leave those places out afterwards.</details>
# <details><summary>Hint 3</summary>Sum the surprises where the target is real, divide by how many there are, at least 1. Compute in `float()`. And compare the shapes first: a ValueError now saves an hour later.</details>

# %% exercise="pretrain.next_token_loss"
# from: tinytrans.training.pretrain.next_token_loss

# %% [markdown]
# **Exercise.** And the perplexity. A model that has gone astray may have a loss of 1000, and $e^{1000}$ is more than a float can hold: call it infinite.
#
# <details><summary>Hint 1</summary>`math.exp`.</details>
# <details><summary>Hint 2</summary>It raises an error where the result does not fit a float, a little above 709.</details>
# <details><summary>Hint 3</summary>`math.inf` is a float.</details>

# %% exercise="pretrain.perplexity"
# from: tinytrans.training.pretrain.perplexity

# %%
chances = torch.tensor([[[0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0.125, 0.125, 0.75, 0]]])
by_hand = next_token_loss(chances.log(), torch.tensor([[0, 0, 0]])).item()
print(f"by hand: loss {by_hand:.2f}, perplexity {perplexity(by_hand):.1f}")

ids, held = tokenizer.encode_batch(texts), tokenizer.encode_batch(unseen)
validation = [pad(held[i : i + 12], max_len=config.max_len).to(device) for i in range(0, len(held), 12)]
with torch.no_grad():
    first = next_token_loss(newborn(validation[0].ids), validation[0].targets).item()
print(f"the newborn model: loss {first:.2f}, perplexity {perplexity(first):.0f}")
print(f"ln {V} = {math.log(V):.2f}")

# %% [markdown]
# A model that knows nothing spreads its probability evenly and scores **ln V**. Check this whenever you build a new model: it takes a second.

# %% question="pretrain.first_loss"

# %% [markdown]
# ## 3. Batches (10 minutes)
#
# Each step of training sees a batch, because a single text says little about which way is down, and because hardware likes large products. Batches are rectangles, and texts are not. There are three ways out:
#
# - **Padding**: one text per row, filled up to the longest. This is simple. The padding is computed for nothing, but there is little of it if texts of similar length come together.
# - **Packing**: as many texts in a row as fit. They must not see each other, so the mask has to be causal *and* confined to one text.
# - **Windows**: all texts joined into one long sequence of N ids, and windows of T cut out at random places. There is no padding and no special mask; but most windows begin in the middle of something.
#
# Our stories are short, so we use padding. How much of a batch is real?

# %%
ways = {
    "padded, in random order": PaddedBatches(ids, 12, max_len=config.max_len, sort=1),
    "padded, similar lengths": PaddedBatches(ids, 12, max_len=config.max_len, sort=16),
    "packed into rows of 1024": PackedBatches(ids, 1024, 4),
}
for name, way in ways.items():
    targets = [way[i].targets for i in range(3 if quick else 30)]
    share = sum(int((t >= 0).sum()) for t in targets) / sum(t.numel() for t in targets)
    print(f"{name:30} {share:.0%} of all positions are real targets")
heat_map(packed([[[1] * 5, [2] * 7, [3] * 4]], 14).mask[0], title="a packed row of 4 + 6 + 3 positions")

# %% [markdown]
# Large models are trained on packed rows or on windows, where next to nothing is wasted. Windows have a boundary case to think about: a window of T positions needs T + 1 ids. By hand, with N = 9 ids and T = 3: the last start is $9 - 3 - 1 = 5$, with the inputs 5, 6, 7 and the targets 6, 7, 8. One place further, and the last target does not exist.

# %% [markdown]
# **Exercise.** Windows.
#
# <details><summary>Hint 1</summary>`starts[:, None] + torch.arange(T)` gives all places at once, (B, T); a tensor may be indexed by a tensor.</details>
# <details><summary>Hint 2</summary>The targets stand one place further.</details>
# <details><summary>Hint 3</summary>A negative index counts from the end, and a slice beyond the end is silently short. Check the smallest and the largest start yourself.</details>

# %% exercise="batches.windows"
# from: tinytrans.data.batches.windows

# %%
endless = torch.tensor([i for story in ids[:200] for i in story])
starts = torch.randint(len(endless) - 20, (2,), generator=torch.Generator().manual_seed(3))
for row in windows(endless, starts, 20)[0].tolist():
    print(repr(tokenizer.decode(row)))

# %% [markdown]
# ## 4. Which way, and how far? (15 minutes)
#
# Backpropagation gives each weight its gradient $g$: how fast the loss rises with the weight. Gradient descent takes a step against it, $w \leftarrow w - \eta g$, with one rate $\eta$ for all weights. That is where it fails. Picture a valley that is steep across and flat along. The steep direction limits the rate (a larger one jumps from wall to wall), and
# at that rate the flat direction takes for ever. How different are the slopes of our model? The last matrix has a row for each word of the vocabulary; *the* is asked for in every story, most words in few:

# %%
batch = validation[0]
(slopes,) = torch.autograd.grad(next_token_loss(newborn(batch.ids), batch.targets), newborn.head.weight)
sizes = slopes.norm(dim=1).sort(descending=True).values
print(f"the steepest row {sizes[0]:.0e}, the tenth {sizes[9]:.0e}, the middle one {sizes[V // 2]:.0e}")

# %% [markdown]
# That is no valley for a single rate. The cure is to scale each weight's step by *its own* gradients. **Adam** (Kingma and Ba 2014) keeps two running means for every weight,
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2,$$
#
# the mean gradient, in which whatever changes sign from batch to batch cancels, and the mean squared gradient, whose root is the gradient's usual size. The step is their ratio,
#
# $$w \leftarrow w - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}, \qquad \hat m = \frac{m}{1 - \beta_1^t}, \quad \hat v = \frac{v}{1 - \beta_2^t},$$
#
# with $t$ the number of the step, from 1 on: about $\pm \eta$ where the gradient's sign is steady, and less where it wavers. If all gradients were a thousand times as large, the step would be the same.
#
# Why the hats? Both means begin at 0 and are too small at first: after one step $m$ is $(1 - \beta_1) g$. By hand, with $g = 0.2$, $\beta_1 = 0.9$, $\beta_2 = 0.95$: $m = 0.02$ and $v = 0.05 \cdot 0.04 = 0.002$. Their ratio $0.02 / \sqrt{0.002} = 0.45$ is off. Divided by $1 - 0.9 = 0.1$ and $1 - 0.95 = 0.05$ they are $0.2$ and $0.04$, and
# $0.2 / \sqrt{0.04} = 1$: the first step is $\eta$, as it should be. After many steps $\beta^t$ is nearly 0 and the hats do nothing.
#
# And the W? **Weight decay** pulls every weight a little toward 0, so that weights which nothing holds in place fade away. In **AdamW** (Loshchilov and Hutter 2019) it is a subtraction of its own, $w \leftarrow w - \eta \lambda w$, beside the step. Only matrices decay; norms and biases do not.

# %% [markdown]
# **Exercise.** One step of AdamW for one weight tensor. Steps count from 1.
#
# <details><summary>Hint 1</summary>Five lines: m, v, their corrections, the decay, the step. Every one is a formula above.</details>
# <details><summary>Hint 2</summary>Return m and v as they are, without the corrections: they go into the next step's means.</details>
# <details><summary>Hint 3</summary>eps is added to the root, not under it. Make new tensors (`m = b1 * m + ...`), and leave the caller's alone.</details>

# %% exercise="optim.adamw_step"
# from: tinytrans.training.optim.adamw_step

# %% [markdown]
# Let us walk down the valley $\tfrac12 (100\, a^2 + b^2)$ from $(1, 1)$: by plain gradient descent, with a rate that it can bear and one just too large, and by your steps.


# %%
def descend(steps: int, rate: float, adam: bool) -> list[float]:
    """The height in the valley after each step."""
    w, slopes, heights = torch.ones(2), torch.tensor([100.0, 1.0]), []
    m = v = torch.zeros(2)
    for step in range(1, steps + 1):
        gradient = slopes * w
        if adam:
            w, m, v = adamw_step(w, gradient, m, v, step, rate, (0.9, 0.95), 1e-8, 0.0)
        else:
            w = w - rate * gradient
        heights.append(min(0.5 * float((slopes * w**2).sum()), 1e3))
    return heights


tracks = {
    "gradient descent, rate 0.01": descend(60, 0.01, False),
    "gradient descent, rate 0.0201": descend(60, 0.0201, False),
    "AdamW, rate 0.05": descend(60, 0.05, True),
}
curves(
    {name: (range(1, 61), heights) for name, heights in tracks.items()},
    title="Down a valley that is 100 times as steep across as along",
    x_label="step",
    y_label="height",
    log_y=True,
)

# %% [markdown]
# The limit is a rate of 0.02: just above it, plain descent climbs the walls; below it, it crawls along the valley. Your steps are as long along the valley as across it. (At the end they are too long for the little that is left, and swing about the bottom: the rate must fall. That is the next section.)

# %% question="optim.decoupled"

# %% [markdown] tags=["instructor"]
# **For instructors: questions that come here.** *Is Adam better than gradient descent on everything?* No; on convolutional networks a tuned SGD holds its own, on transformers hardly ever. *Why 0.95 for the second beta, when the paper has 0.999?* Short runs: 0.999 remembers a thousand steps, and ours has eight hundred. *Is the embedding a matrix that decays?* In our library, yes; some leave it out. *What is Muon, in section 8?* For a
# matrix, the mean gradient with all its directions made equally long (Jordan et al. 2024): another answer to the same valley. How many steps it saves, the last variant below shows.

# %% [markdown]
# ## 5. The rate over time (7 minutes)
#
# No single rate is right for a whole run.
#
# - **At the beginning** $m$ and $v$ have seen only a handful of batches, and the weights are far from where gradients are well-behaved: large steps do lasting damage (lesson 07 showed a model that never recovers). So over the first steps the rate rises in a straight line, the **warm-up**.
# - **At the end** the noise of the batches keeps the weights swinging about the bottom. A falling rate lets them settle. Half a **cosine** is the usual shape (Loshchilov and Hutter 2017): it leaves the top slowly and reaches the floor slowly.
#
# $$\text{factor}(s) = \frac{s + 1}{\text{warmup}} \ (s < \text{warmup}), \qquad \text{floor} + (1 - \text{floor}) \cdot \frac{1 + \cos(\pi x)}{2}, \quad x = \frac{s - \text{warmup}}{\text{total} - \text{warmup}} .$$
#
# By hand with a warm-up of 2, a total of 6 and the floor 0: the steps 0 to 5 get 0.5, 1, 1, 0.85, 0.5, 0.15. Step 0 gets 1/2 and not 0: a step of length 0 is a batch thrown away.

# %% [markdown]
# **Exercise.** The schedule.
#
# <details><summary>Hint 1</summary>Two cases: `step < warmup` or not. With warmup = 0 the first never holds.</details>
# <details><summary>Hint 2</summary>x goes from 0 at step warmup to 1 at step total; beyond that it stays 1.</details>
# <details><summary>Hint 3</summary>`math.cos(math.pi * x)` goes from 1 to -1; half of one plus that from 1 to 0. Stretch it to end at the floor.</details>

# %% exercise="optim.warmup_cosine"
# from: tinytrans.training.optim.warmup_cosine

# %%
print("by hand:", [round(warmup_cosine(step, 2, 6), 2) for step in range(6)])
shapes = {"warm-up 15": (15, 0.0), "warm-up 200": (200, 0.0), "warm-up 15, floor 0.2": (15, 0.2)}
run = range(800)
curves(
    {name: (run, [warmup_cosine(s, w, 800, f) for s in run]) for name, (w, f) in shapes.items()},
    title="The rate over a run of 800 steps",
    x_label="step",
    y_label="factor of the rate",
)

# %% [markdown]
# ## 6. Steps that are too long, and batches that are too large (10 minutes)
#
# **Clipping.** Now and then a batch has a gradient many times as long as usual, and one such step can undo a hundred good ones. So limit its *length* and keep its direction (Pascanu et al. 2013): with the gradients of all weights as one long vector,
#
# $$g \leftarrow g \cdot \min\left(1, \frac{\text{largest}}{\lVert g \rVert}\right).$$
#
# By hand: two weights with the gradients 3 and 4. Together they are $\sqrt{9 + 16} = 5$ long; if 1 is allowed, both are multiplied by $0.2$ and become 0.6 and 0.8. Clipping each by itself would give 1 and 1, which is another direction.

# %% [markdown]
# **Exercise.** Clip a list of gradients.
#
# <details><summary>Hint 1</summary>The norm of the norms is the norm of everything: squares add up under one root.</details>
# <details><summary>Hint 2</summary>One factor for all of them, at most 1.</details>
# <details><summary>Hint 3</summary>`norm.clamp(min=largest)` in the denominator makes the factor 1 for short gradients, and saves you from 0 / 0.</details>

# %% exercise="optim.clip_by_norm"
# from: tinytrans.training.optim.clip_by_norm

# %% [markdown]
# **Accumulation.** Sometimes the batch that one wants does not fit into memory. Then compute the gradients of several small batches and combine them before taking *one* step. How? Each is the gradient of a *mean* over its own targets, and the batches have different numbers of targets. The mean over all tokens is
#
# $$\frac{\sum_i n_i \, \bar x_i}{\sum_i n_i}, \qquad \text{not} \qquad \frac1k \sum_i \bar x_i .$$
#
# By hand: a mean of 1 over 3 tokens and one of 5 over 1 token make $(3 \cdot 1 + 1 \cdot 5) / 4 = 2$; the mean of means is 3. The same holds for the loss over many batches when you evaluate.

# %% [markdown]
# **Exercise.** Combine means into one.
#
# <details><summary>Hint 1</summary>Weights are shares: counts divided by their sum (at least 1).</details>
# <details><summary>Hint 2</summary>The means may be numbers (n,) or gradients (n, ...): the weights belong to the first axis.</details>
# <details><summary>Hint 3</summary>`torch.einsum("n,n...->...", weights, means)`, or a view of the weights with as many axes as the means. Mind the dtype.</details>

# %% exercise="loop.pooled"
# from: tinytrans.training.loop.pooled

# %% [markdown]
# Does it give the gradient of one large batch? We cut a batch of 12 stories into three of 1, 3 and 8, and look at one weight.


# %%
def gradient_of(model: GPT, rows: list[list[int]]) -> tuple[Tensor, int]:
    """The gradient of the mean loss of a batch with regard to one matrix, and the number of targets."""
    batch = pad(rows, max_len=config.max_len).to(device)
    loss = next_token_loss(model(batch.ids), batch.targets)
    (gradient,) = torch.autograd.grad(loss, model.head.weight)
    return gradient, int((batch.targets >= 0).sum())


rows = sorted(ids[:12], key=len)
large, _ = gradient_of(newborn, rows)
parts = [gradient_of(newborn, part) for part in (rows[:1], rows[1:4], rows[4:])]
means, counts = torch.stack([g for g, _ in parts]), torch.tensor([n for _, n in parts], device=device)
joined = {"pooled by their counts": pooled(means, counts), "the mean of the means": means.mean(dim=0)}
for name, gradient in joined.items():
    off = (gradient - large).norm() / large.norm()
    print(f"{name}: off by {off:.1e} of the gradient of the large batch")

# %% [markdown]
# ## 7. Your own loop (5 minutes)
#
# All the parts are there: batch, loss, gradient, clipping, rate, step. We put them into a loop and train a small model for a few steps, and then do the same with the library's `fit` and torch's AdamW.

# %%
small = replace(config, n_layers=2, d_model=64)
batches = PaddedBatches(ids, 12, max_len=config.max_len, seed=0)
few = 6 if quick else 40


def train_by_hand(model: GPT, steps: int, lr: float) -> list[float]:
    """The plain loop: the losses, and the model trained in place."""
    weights, losses = list(model.parameters()), []
    memory = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
    for step in range(steps):
        batch = batches[step].to(device)
        loss = next_token_loss(model(batch.ids), batch.targets)
        model.zero_grad()
        loss.backward()
        gradients = clip_by_norm([w.grad for w in weights], 1.0)
        rate = lr * warmup_cosine(step, 5, steps)
        with torch.no_grad():
            for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
                decay = 0.1 if w.dim() >= 2 else 0.0
                new, *memory[i] = adamw_step(w, g, *memory[i], step + 1, rate, (0.9, 0.95), 1e-8, decay)
                w.copy_(new)
        losses.append(loss.item())
    return losses


def our_loss(model: GPT, batch) -> Tensor:
    """What the library's loop differentiates: your loss."""
    return next_token_loss(model(batch.ids), batch.targets)


def fresh(config) -> GPT:
    """A newborn model, the same every time."""
    torch.manual_seed(0)
    return GPT(config).to(device)


by_hand = train_by_hand(fresh(small), few, 3e-3)
theirs = fresh(small)
schedule = partial(warmup_cosine, warmup=5, total=few)
how = {"steps": few, "optimizer": adamw(theirs, 3e-3), "schedule": schedule, "progress": False}
history = fit(theirs, batches, our_loss, **how)
print(f"your loop: loss {by_hand[0]:.3f} at first, {by_hand[-1]:.3f} after {few} steps")
apart = max(abs(a - b) for a, b in zip(by_hand, history.losses, strict=True))
print(f"largest difference to fit and torch's AdamW: {apart:.1e}")

# %% [markdown]
# There is no more to training than that. What `fit` adds is care: checkpoints, a log, evaluation, and on a GPU **mixed precision** (Micikevicius et al. 2017): products in 16 bits instead of 32, at several times the speed, while the weights themselves stay in single precision. (The paper has float16; we use bfloat16, with fewer digits and the range of single precision.) Why not all in 16 bits? bfloat16 has 8 bits of precision:

# %%
print("1 + 0.003 in bfloat16:", (torch.tensor(1.0).bfloat16() + 0.003).item())

# %% [markdown]
# A weight of 1 with steps of 0.003 would never move. So weights, means and the loss are kept in 32 bits, and only the large products are computed in 16.
#
# ## 8. The real run (10 minutes)
#
# Now the model of a million parameters, with your loss and your schedule. One part comes from the library: **Muon** moves the hidden matrices (AdamW the rest), because it needs fewer steps here, and minutes count. At regular intervals the model is evaluated on stories that it never sees in training, and writes the beginning of a story.
#
# **Say what you expect before you start it:** what will it learn first, the frequency of words, spelling, grammar, or who is who?

# %%
steps, every = (12, 6) if quick else (800, 100)
model = fresh(config)
diary: dict[int, str] = {0: tokenizer.decode(babble.tolist())}


def look(model: GPT) -> dict[str, float]:
    """The loss on unseen stories; what the model writes goes into the diary."""
    losses, counts = [], []
    for batch in validation:
        losses.append(our_loss(model, batch))
        counts.append((batch.targets >= 0).sum())
    n, chance = 10 if quick else 60, torch.Generator(device).manual_seed(1)
    told = generate(model, opening, max_new_tokens=n, temperature=0.7, stop=END, generator=chance)
    diary[len(diary) * every] = tokenizer.decode(told[0].tolist())
    mean = pooled(torch.stack(losses), torch.stack(counts)).item()
    return {"validation": mean, "perplexity": perplexity(mean)}


def train(model: GPT, steps: int, **more):
    """The recipe of this section, your loss and your schedule in it."""
    optimizer = muon(model, 0.03, 6e-3, betas=(0.9, 0.99), momentum=0.9, iterations=4)
    schedule = partial(warmup_cosine, warmup=15, total=steps)
    how = {"steps": steps, "optimizer": optimizer, "schedule": schedule, "progress": False}
    return fit(model, batches, our_loss, **how, **more)


folder = tempfile.TemporaryDirectory()
kept = Path(folder.name) / "checkpoint.safetensors"
history = train(model, steps, evaluate=look, every=every, checkpoint=kept)

# %% tags=["measured"]
model.eval()
last = history.records[-1]
print(f"{history.steps} steps in {last['seconds']:.0f} s")
print(f"mean loss of the last {every}: {last['loss']:.3f}")
print(f"on unseen stories: loss {last['validation']:.3f}, perplexity {last['perplexity']:.2f}")
print(f"the library's evaluate agrees: {evaluate(model, validation)['validation']:.3f}")

# %%
means = [(s, sum(history.losses[s - 6 : s]) / 6) for s in range(6, steps + 1, 6)]
curves(
    {
        "training, mean of 6 steps": ([s for s, _ in means], [loss for _, loss in means]),
        "unseen stories": (history.column("step"), history.column("validation")),
        "knowing nothing, ln V": ([1, steps], [math.log(V)] * 2),
    },
    title="A GPT learns from tales",
    x_label="step",
    y_label="loss (nats per token)",
)

# %% [markdown]
# Walk through the diary. The slider shows what the model wrote after so many steps, always with the same random numbers.


# %%
def page(step: int) -> str:
    """What the model wrote after so many steps."""
    return f'<p style="max-width:46em;line-height:1.5">{html.escape(diary[step])}</p>'


records = {record["step"]: record["perplexity"] for record in history.records}
still = curves(
    {"perplexity on unseen stories": (list(records), list(records.values()))},
    title="How many tokens is it torn between?",
    x_label="step",
    y_label="perplexity",
)
Explorer(still, [(str(step), step) for step in diary], page, "step")

# %%
for step in list(diary)[:: max(1, len(diary) // 4)]:
    print(f"{step:4}: {diary[step][:88]}")

# %% [markdown]
# First come the words and their frequency, then the sentences, and last *who is who*. The loss falls in the same order: steeply while words and grammar are learned, more slowly while the model learns to look back, for the name that was given, the thing that was lost. That is copying by attention, and it is the hard part.
#
# Does it tell good stories? We let it write 100 from one beginning and ask verifiers, programs that know the world of these tales. They check nine rules, such as *at most two names* or *one place*. We also ask a control, which was trained with the same code for a quarter of the steps.
#
# What counts as success is said before we look: nine stories in ten come to an end; a story keeps eight of the nine rules on average; every third story keeps all nine; no story stands in the training texts; and the control keeps fewer rules.


# %%
def stories_of(model: GPT, n: int, temperature: float = 0.7) -> list[str]:
    """n stories, each up to its end."""
    longest, chance = 12 if quick else 200, torch.Generator(device).manual_seed(2)
    how = {"max_new_tokens": longest, "temperature": temperature, "stop": END, "generator": chance}
    rows = generate(model, opening.expand(n, -1), **how)
    return [tokenizer.decode(row[: row.index(END)] if END in row else row) for row in rows.tolist()]


def judged(stories: list[str]) -> dict[str, float]:
    """The share of stories that keep each rule, keep all, have an end, stand in the training texts."""
    verdicts = [consistent(story) for story in stories]
    known = {text.removesuffix("<|end|>") for text in texts}
    found = {rule: [verdict[rule] for verdict in verdicts] for rule in verdicts[0]}
    found["all of these"] = [all(verdict.values()) for verdict in verdicts]
    found["an end"] = [facts(story)["end"] is not None for story in stories]
    found["copied"] = [copied(story, known) for story in stories]
    return {what: sum(each) / len(stories) for what, each in found.items()}


early = fresh(config)
early_run = train(early, steps // 4)

# %% tags=["measured"]
told = stories_of(model, 4 if quick else 100)
shares, control = judged(told), judged(stories_of(early.eval(), 4 if quick else 100))
print(f"{'':14}  trained  control")
for what in shares:
    print(f"{what:14}  {shares[what]:7.0%}  {control[what]:7.0%}")
print(f"\n{fill(told[0], 96)}\n\n{fill(told[1], 96)}")

# %% tags=["measured"]
rules = list(consistent(told[0]))
kept, control_kept = (sum(found[rule] for rule in rules) for found in (shares, control))
print(f"of {len(rules)} rules a story keeps {kept:.1f}, the control's {control_kept:.1f}")
aims = {
    "an end in 90 % of the stories": shares["an end"] >= 0.9,
    "eight rules kept on average": kept >= 8,
    "all rules kept by a third": shares["all of these"] >= 1 / 3,
    "none copied": shares["copied"] == 0,
    "fewer kept by the control": control_kept < kept,
}
for aim, reached in aims.items():
    print(f"{'reached' if reached else 'MISSED '}  {aim}")

# %% [markdown]
# Look for the rules that the control breaks most. In our runs they are names and places: the hero lives on the mountain and wakes up at the farm. The place is named near the beginning and needed again sentences later, and two hundred steps are too few to learn this. The loss hardly shows it, because places are few among many tokens.
# That is why one asks a verifier, and why one asks a control too: a measure that a bad model passes is no measure. (In quick mode all of this is meaningless.)
#
# ## 9. Killed and resumed (3 minutes)
#
# Real runs take weeks, and machines fail. A **checkpoint** holds everything that the next step depends on: the weights, the optimiser's means, the step number, and the state of every source of chance (dropout draws from one). Leave one of these out, and the run continues, but as a different run. Here is a small training program. In one
# folder we let it run to its end; in another we kill it without warning as soon as its first checkpoint is there, and start it again.

# %% tags=["measured"]
program = """
import json, sys
from dataclasses import replace
from functools import partial
import torch
from tinytrans import GPT, PRESETS, BPETokenizer, fit, language_model_loss, load
from tinytrans.data.batches import PaddedBatches
from tinytrans.training.optim import adamw, warmup_cosine

folder, steps = sys.argv[1], int(sys.argv[2])
texts = load("tales", n=200).documents(instructed=0, questioned=0)
tokenizer = BPETokenizer.train(texts, 512, ("<|end|>",))
torch.manual_seed(0)
shape = replace(PRESETS["tales"], vocab_size=tokenizer.vocab_size, n_layers=2, d_model=64, dropout=0.1)
model = GPT(shape)
history = fit(
    model, PaddedBatches(tokenizer.encode_batch(texts), 8, max_len=256), language_model_loss, steps=steps,
    optimizer=adamw(model, 3e-3), schedule=partial(warmup_cosine, warmup=5, total=steps), every=5,
    checkpoint=f"{folder}/checkpoint.safetensors", resume=True, progress=False,
)
print(json.dumps(history.losses))
"""
places = [Path(folder.name) / name for name in ("whole", "killed")]
for place in places:
    place.mkdir()


def start(place: Path) -> subprocess.Popen:
    """The program, begun in a process of its own."""
    command = [sys.executable, "-c", program, str(place), "15" if quick else "40"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


whole, victim = (start(place) for place in places)
while not (places[1] / "checkpoint.safetensors").exists() and victim.poll() is None:
    time.sleep(0.01)
victim.kill()
victim.communicate()
print("killed" if victim.returncode else "it was too quick to be killed")
resumed = start(places[1])
losses = [json.loads(process.communicate()[0]) for process in (whole, resumed)]
print(f"whole run: {losses[0][-1]:.6f} after {len(losses[0])} steps")
print(f"killed and resumed: {losses[1][-1]:.6f}")
print("the same at every step:", losses[0] == losses[1])

# %% [markdown]
# The two runs are equal to the last bit. Two things make that possible. A checkpoint is written under another name and then renamed, so that a kill in the middle of writing leaves the old one whole. And batch number s is a function of the seed and s alone, so that the data need not be rewound.
#
# ## 10. Break it on purpose (5 minutes)
#
# **Targets that are not shifted.** This is the most expensive off-by-one error there is:

# %%
n_steps = 6 if quick else 60


def briefly(lr: float = 1e-2, unshifted: bool = False) -> tuple[GPT, list[float]]:
    """A small model trained for a moment, and its losses."""
    model = fresh(small)
    schedule = partial(warmup_cosine, warmup=5, total=n_steps)

    def loss(model: GPT, batch) -> Tensor:
        return next_token_loss(model(batch.ids), batch.ids if unshifted else batch.targets)

    how = {"steps": n_steps, "optimizer": adamw(model, lr), "schedule": schedule, "progress": False}
    run = fit(model, batches, loss, **how)
    return model.eval(), run.losses


honest, honest_losses = briefly()
parrot, parrot_losses = briefly(unshifted=True)
print(f"loss after {n_steps} steps: {honest_losses[-1]:.2f} as it should be")
print(f"without the shift {parrot_losses[-1]:.2f}")
written = generate(parrot, opening, max_new_tokens=12, temperature=0.0)[0]
print("the parrot writes:", tokenizer.decode(written.tolist()))

# %% [markdown]
# The loss falls wonderfully, and the model repeats the last token for ever: that is what it was asked for. **A loss that is too good is a leak** (lesson 04), and this time the mask is innocent.
#
# **Rates that are too large or too small.** The same small model with four rates:

# %%
rates = [3e-4, 3e-3, 3e-2, 3e-1]
tried = {f"rate {lr:g}": briefly(lr)[1] for lr in rates}
curves(
    {name: (range(1, n_steps + 1), losses) for name, losses in tried.items()},
    title="Four learning rates",
    x_label="step",
    y_label="loss (nats per token)",
)

# %%
print({name: round(sum(losses[-5:]) / 5, 2) for name, losses in tried.items()})

# %% [markdown]
# Too small a rate is slow; too large a rate jumps about and gets stuck. The good rates span about a factor of ten, and it is worth trying three or four rates before anything else is tuned.
#
# ## 11. A base model, and what it is good for
#
# What you have trained is a **base** model: it continues texts, and that is all. Released models of this kind carry the tag *base*. Compare the scale. The arithmetic of a training run is about $6 N D$ operations for N parameters and D tokens (Kaplan et al. 2020): 2 N D forward, 4 N D backward.

# %%
tokens = sum(int((batches[i].targets >= 0).sum()) for i in range(steps))
for name, n, d in (("yours", model.n_params, tokens), ("Llama 2 70B", 70e9, 2e12)):
    print(f"{name:12} {n:.2g} parameters, {d:.2g} tokens: {6 * n * d:.1e} operations")

# %% [markdown]
# Llama 2's 70 billion parameters took 1,720,320 GPU hours, and all its sizes together 3.3 million (Touvron et al. 2023, table 2). The code is the same as yours in kind: next token, cross-entropy, AdamW, warm-up, cosine, clipping at 1.
#
# How does one use such a model? By **prompting**: write the beginning of a text whose continuation is the answer. By **a few examples in the context**, from which it infers what is wanted (Brown et al. 2020). Or by **fine-tuning**: continue the training on texts of one's own task (Radford et al. 2018), which is lesson 12. A prompt steers our model too:

# %%
for beginning in ("Once upon a time there was a sad fox named Mei.", "Do you know Juno, the brave bear?"):
    asked = torch.tensor([tokenizer.encode(beginning)], device=device)
    n, chance = 8 if quick else 60, torch.Generator(device).manual_seed(5)
    told = generate(model, asked, max_new_tokens=n, temperature=0.7, stop=END, generator=chance)
    print(fill(tokenizer.decode(told[0].tolist()), 96), "...\n")
folder.cleanup()

# %% question="pretrain.use_of_a_gpt"

# %% [markdown]
# ## 12. What to watch out for
#
# | you see | look at |
# |---|---|
# | a first loss far from ln V | weights at birth; a softmax too many or too few |
# | a loss that falls to nearly 0 | targets not shifted; the causal mask; the validation texts in the training set |
# | a loss that falls, and a model that never stops | the end token is no target, or is masked together with the padding |
# | validation better than training | dropout in training; different padding; a mean of means |
# | NaN after a while | no clipping, no warm-up, too large a rate; a batch without targets; half precision where single is needed |
# | steps that are far too small or large at the beginning | bias correction, counted from 0 instead of 1 |
# | a run that is different after a resume | the optimiser's means, the schedule's step, the chance, or the order of batches were not restored |
# | four small batches that learn worse than one large one | gradients added and not divided, or divided by 4 instead of weighed by tokens |
#
# <!-- pitfalls: pretrain batches optim loop -->

# %% [markdown] tags=["instructor"]
# **For instructors: reading the mistakes report.** `not shifted` and `shifted the wrong way` need no talk, the run shows them; `the end is no target` does, for its writers will meet a model that never stops in lesson 12. In `next_token_loss`, `over padding as well` and `a mean of means` are the two that pass in many codebases. In `adamw_step` expect
# `corrected means kept` (the hats are returned) and `decay in the gradient` (everybody's first Adam); `correction off by one` comes from a step counted from 0. `from 0` in the schedule stands in many tutorials.
# *Variants:* train on another text (`load("docs")`) and look at the perplexity only; halve the stories and see when the model begins to copy; replace Muon by `adamw(model, 6e-3)` and compare the curves.

# %% [markdown]
# ## What was simplified
#
# - Our texts are made from templates: a low perplexity is easy to reach. Real text has a floor that nobody knows, and filtering it is half of the work.
# - One seed, one size. How loss falls with size, data and compute is a subject of its own (Kaplan et al. 2020; Hoffmann et al. 2022).
# - Everything ran in one process. Large runs are split over thousands of GPUs; under `torchrun`, `fit` shares each step between processes.
# - We used Muon as a black box. You may look into it: `tinytrans/training/muon.py`.
#
# ## Where this lives in tinytrans
#
# `tinytrans/training/pretrain.py` has `shift`, `next_token_loss`, `perplexity`, `evaluate`, and `pretrain`, which is `fit` with a recipe. `tinytrans/training/optim.py`: `adamw_step`, `clip_by_norm`, `warmup_cosine`. `tinytrans/training/loop.py`: `fit`, the one loop of the library, and `pooled`. `tinytrans/data/batches.py`:
# `windows`, padding and packing. `python -m tinytrans.recipes tales` trains the base model of the next lessons, and `tinytrans train` one of your own.
#
# ## References
#
# - D. P. Kingma, J. Ba (2014). Adam: A Method for Stochastic Optimization. arXiv 1412.6980.
# - I. Loshchilov, F. Hutter (2017). SGDR: Stochastic Gradient Descent with Warm Restarts. arXiv 1608.03983 (the cosine); (2019). Decoupled Weight Decay Regularization. arXiv 1711.05101 (AdamW).
# - R. Pascanu, T. Mikolov, Y. Bengio (2013). On the Difficulty of Training Recurrent Neural Networks. arXiv 1211.5063 (clipping).
# - P. Micikevicius et al. (2017). Mixed Precision Training. arXiv 1710.03740.
# - A. Radford, K. Narasimhan, T. Salimans, I. Sutskever (2018). Improving Language Understanding by Generative Pre-Training. OpenAI.
# - T. B. Brown et al. (2020). Language Models are Few-Shot Learners. arXiv 2005.14165.
# - J. Kaplan et al. (2020). Scaling Laws for Neural Language Models. arXiv 2001.08361; J. Hoffmann et al. (2022). Training Compute-Optimal Large Language Models. arXiv 2203.15556.
# - R. Eldan, Y. Li (2023). TinyStories: How Small Can Language Models Be and Still Speak Coherent English? arXiv 2305.07759.
# - H. Touvron et al. (2023). Llama 2: Open Foundation and Fine-Tuned Chat Models. arXiv 2307.09288.
# - K. Jordan et al. (2024). Muon: An optimizer for hidden layers in neural networks (a blog post).

# %% [markdown] tags=["instructor"]
# **For instructors: the run.** Let learners bet on the order of what is learned before section 8 (most put names first). Common questions: *why is the control trained anew, and not simply the run at a quarter?* Because there its rate was still high; a fair control has had its own cosine. *Why is the training loss not 0, when the stories are templates?* Which name, which colour comes next is chance, and chance can't
# be learned; the floor lies near 0.3 nats a token. *Could it have learned the stories by heart?* The column `copied` counts that. *How would one notice overfitting?* The two curves part; with 24,000 stories and less than one epoch they can't.
