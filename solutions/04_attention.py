# %% [markdown]
# # 04 · Attention
#
# A sentence arrives as a row of vectors. Attention lets each of them look at the others and take what it needs. That is the whole
# idea of this lesson, and everything later in the course builds on it.
#
# **You will be able to**
#
# - write attention for one query, then for all of them at once, and say what each matrix means;
# - explain why the scores are divided by $\sqrt K$, and show what goes wrong without it;
# - hide the future, the padding and the far past with masks, and combine masks;
# - recognise a model that cheats: a loss that is too good because the answer was visible;
# - let one sequence look at another, and calculate what all this costs.
#
# **Builds on** matrix products, the softmax, and lesson 03 (the encoder's one vector, additive attention). If you skipped 03: section 1
# gives you the problem that it ends with. **Leads to** 05 (many heads) and 07 (the block around attention).
#
# **Time** about 90 minutes: the bottleneck 5, one query 15, all queries 15, weights 15, a sequence looking at itself 10, the future 15,
# padding and windows 10, cross-attention 5, cost 5. All cells together run for half a minute to two minutes on one CPU core. A GPU changes
# nothing but the speed of section 6 and the numbers in section 9.
#
# **Letters** B sequences in a batch, T queries, S keys, D width of a token, K width of queries and keys (the matrix of all keys is a bold
# $\mathbf K$), $d_v$ width of values, H heads.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors as small as ours gain nothing from a second thread

# %% tags=["tools"]
import os
import re
import textwrap
import time

from graders.check import check
from tinytrans import fit, load, pick
from tinytrans.plots import curves, heat_map, heat_maps
from tinytrans.training.optim import adamw
from tinytrans.widgets import look_around

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with fewer steps, for tests
device = pick()
print(f"running on {device}{', in quick mode' if quick else ''}")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.nn.attention import attend`: from there on the notebook uses the library's version. Your points still come from your own
# cell, so come back to it.

# %% [markdown] tags=["instructor"]
# **For instructors: planning.** In a class of 90 minutes let learners read sections 1 and 2 beforehand and begin with the hand calculation on the
# board; spend the time on sections 3, 4 and 6. In 60 minutes leave out section 7 but for the padding mask, and section 9. In 2 × 45 minutes cut
# before section 6: the leakage experiment is a good second beginning. Nothing later in the course needs section 9; sections 4 to 6 are needed by all of it.
# Section 6 trains two models: ask for its cells to be run before anybody talks about them.

# %% [markdown]
# ## 1. One vector for everything (5 minutes)
#
# The encoder of lesson 03 reads a whole sentence into one vector of fixed width. The simplest such vector is the mean of the words'
# embeddings. How much of the sentence is still in it? We can try: take $n$ random words out of 1000, average their vectors, and guess
# from the mean alone which words they were (the $n$ that fit it best).


# %%
def recovered(n: int, D: int, V: int = 1000, trials: int = 50) -> float:
    """The share of n words that can be told from the mean of their vectors of width D."""
    words = F.normalize(torch.randn(V, D), dim=-1)
    chosen = torch.stack([torch.randperm(V)[:n] for _ in range(trials)])  # (trials, n)
    means = words[chosen].mean(dim=1)  # (trials, D)
    guessed = (means @ words.T).topk(n).indices
    return (guessed[:, :, None] == chosen[:, None, :]).any(dim=1).float().mean().item()


lengths = [1, 2, 4, 8, 16, 32, 64]
curves(
    {f"D = {D}": (lengths, [recovered(n, D) for n in lengths]) for D in (32, 128)},
    title="Words recovered from one mean vector",
    x_label="words in the sentence",
    y_label="share recovered",
    log_x=True,
)

# %% [markdown]
# A single word is recovered without fail. As the sentence grows, more and more of it is lost, and a wider vector only delays this. A
# recurrent network packs better than a mean does, but its last state has a fixed width, too, so the same fate awaits it.
#
# The mean has a second fault. It gives the same answer whatever you want to know: *who* was tired, *where* it happened, *what* colour
# the bucket was. So let us keep all the vectors, and average them anew for each question, with weights that depend on the question.
#
# ## 2. One question (15 minutes)
#
# *The animal didn't cross the street because it was tired.* Who is *it*? To a reader *it* is tied to *animal*. Suppose that *it* carries a
# vector $q$ that says what it is looking for, that each other word $s$ carries a vector $k_s$ that says what can be found there, and another,
# $v_s$, that says what it has to offer. A **dot product** $q \cdot k_s$ measures how well the two fit: large when they point the same way,
# 0 when they have nothing to do with each other, negative when they are opposed.
#
# By hand, with $q = (2, 2, 0, 0)$ and two words:
#
# | word | $k_s$ | $q \cdot k_s$ | halved | exp | share | $v_s$ |
# |---|---|---|---|---|---|---|
# | animal | (1, 1, 0, 0) | 4 | 2 | 7.39 | 0.88 | (1, 0) |
# | street | (0, 0, 1, 1) | 0 | 0 | 1 | 0.12 | (0, 1) |
#
# The softmax turns fits into **shares**: exp makes them positive, and dividing by their sum 8.39 makes them add up to 1. The result is the mean of the
# values weighted by these shares, $0.88 \cdot (1, 0) + 0.12 \cdot (0, 1) = (0.88, 0.12)$: mostly *animal*, a little *street*. The halving is a division by
# $\sqrt K = \sqrt 4$; section 3 says why.
#
# A Python dictionary does something similar: it compares a key with all its keys and returns the value of the one that is equal. What we
# have here is a *soft* dictionary: every value is returned, each to the extent that its key fits. No step is a yes-or-no choice, so gradients flow
# through all of it, and the vectors can *learn* to find each other. Hence the names: $q$ is the **query**, $k_s$ the **key**, $v_s$ the **value**, and
#
# $$\mathrm{attention}(q, \mathbf K, V) = \sum_s \alpha_s v_s, \qquad \alpha_s = \frac{\exp(q \cdot k_s / \sqrt K)}{\sum_j \exp(q \cdot k_j / \sqrt K)} .$$
#
# In lesson 03 the fit of two vectors came from a small network, $\mathrm{sim}(x, y) = \mathrm{FC}(x, y)$ (Bahdanau et al. 2014). A dot product has
# no weights of its own. They come back in section 5, as the matrices that make queries and keys.

# %% [markdown]
# **Exercise.** Attention for one query.
#
# <details><summary>Hint 1</summary>One score for each key: a matrix times a vector gives all S dot products at once.</details>
# <details><summary>Hint 2</summary>Divide by the root of the query's width, then share out with a softmax over the only axis there is.</details>
# <details><summary>Hint 3</summary>A vector of S weights times the (S, d_v) matrix of values is their weighted sum.</details>

# %% exercise="attention.attend_one"
# from: tinytrans.nn.attention.attend_one

# %% [markdown]
# Your function on the example above should print what we found by hand.

# %%
it = torch.tensor([2.0, 2.0, 0.0, 0.0])
keys = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
values = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
print(attend_one(it, keys, values))

# %% [markdown]
# ## 3. All questions at once (15 minutes)
#
# Every word has a question of its own. We could call `attend_one` in a loop over the queries $q_1, \dots, q_T$. But look at what the loop
# does: no round needs the result of another. That is the difference from a recurrent network, whose step $t$ must wait for step $t - 1$. So
# all rounds can run at once. And nothing has far to travel: in a recurrent network word 1 reaches word 100 through 99 steps, here in one. Put the queries into the rows of a matrix $Q$ (T, K), the keys into $\mathbf K$ (S, K), and one product holds every score:
#
# $$Q \mathbf K^\top: \quad (T, K) \cdot (K, S) \to (T, S), \qquad \text{row } t, \text{ column } s: \ q_t \cdot k_s .$$
#
# ### Why divide by √K
#
# Let the entries of $q$ and $k$ be independent with mean 0 and variance 1. Each product $q_i k_i$ then has variance 1, and $q \cdot k$, a sum of $K$
# of them, has variance $K$: its standard deviation is $\sqrt K$. Try it before you believe it:

# %%
widths = [4, 16, 64, 256, 1024]
for K in widths:
    products = (torch.randn(4000, K) * torch.randn(4000, K)).sum(dim=-1)
    spread = products.std()
    print(f"K = {K:4}: standard deviation of q·k {spread:6.2f}, divided by √K {spread / K**0.5:.2f}")

# %% [markdown]
# Why should large scores do harm? Because of the softmax. If one score leads by 20, it takes all the weight, and then small changes of the scores
# change nothing: the slope of a weight $w$ in its own score is $w (1 - w)$, which is 0 at both ends, where $w$ is 0 or 1. The softmax is
# **saturated**. By hand: scores 1 and 0 give $w = 0.73$ and a slope of 0.20; scores 10 and 0 give $w = 0.99995$ and a slope of 0.00005.
#
# The picture measures both on 16 random keys: how spread the weights are (their entropy, as a share of the largest possible, ln 16) and how large a
# gradient comes back through the softmax.


# %%
def saturation(K: int, scale: float, S: int = 16, trials: int = 500) -> tuple[float, float]:
    """For random queries and keys: how spread the weights (entropy / ln S), how strong the gradient."""
    scores = (torch.randn(trials, S, K) @ torch.randn(trials, K, 1)).squeeze(-1) * scale  # (trials, S)
    scores.requires_grad_()
    weights = scores.softmax(dim=-1)
    (weights * torch.randn(trials, S)).sum().backward()
    entropy = -(weights * weights.clamp(min=1e-30).log()).sum(dim=-1).mean() / math.log(S)
    return entropy.item(), scores.grad.norm(dim=-1).mean().item()


scaled = [saturation(K, K**-0.5) for K in widths]
unscaled = [saturation(K, 1.0) for K in widths]
curves(
    {
        "entropy, scaled": (widths, [e for e, _ in scaled]),
        "entropy, unscaled": (widths, [e for e, _ in unscaled]),
        "gradient, scaled": (widths, [g for _, g in scaled]),
        "gradient, unscaled": (widths, [g for _, g in unscaled]),
    },
    title="What 1/√K saves",
    x_label="head width K",
    y_label="entropy share, gradient norm",
    log_x=True,
)

# %%
print(f"K = 1024: gradient norm {scaled[-1][1]:.3f} scaled, {unscaled[-1][1]:.3f} unscaled")

# %% [markdown]
# With the division both stay the same at any width. Without it the weights of wide heads are one-hot before training has even begun,
# and most of the gradient is gone. Note what is divided: the width that the dot product sums over. The number of keys, the width of the
# values and the width of the model have nothing to do with it.

# %% [markdown]
# **Exercise.** The scores of all queries with all keys.
#
# <details><summary>Hint 1</summary>The last two axes take part in the product; any axes in front are a batch.</details>
# <details><summary>Hint 2</summary>`transpose(-2, -1)` swaps the last two axes whatever stands in front of them; `.T` does not.</details>
# <details><summary>Hint 3</summary>The width K is the last entry of the queries' shape, and `@` multiplies matrices batch by batch.</details>

# %% exercise="attention.attention_scores"
# from: tinytrans.nn.attention.attention_scores

# %% question="attention.saturated"

# %% [markdown] tags=["instructor"]
# **For instructors: questions that come here.** *Why a softmax and not a division by the sum?* Scores may be negative, and the sum may be 0.
# *Why is the division by √K not learned?* It could be (QK-norm with a learned scale does so); a fixed root costs nothing and is right at initialisation, when it matters.
# *Where do queries, keys and values come from?* From section 5 on, from the tokens themselves; until then they are given, on purpose. Ask for the shapes of
# everything before anybody writes code, with T, S and K all different: then many a mistake shows in a shape.

# %% [markdown]
# ## 4. From scores to a mix (15 minutes)
#
# Each row of scores becomes a row of weights. Some places must stay out of it: words that come later (section 6), padding (section 7). A
# **mask** says where one may look: bool, True = may look.
#
# How do you keep a key out of a softmax? By hand, with the scores 2, 1 and 3, the last one hidden:
#
# | | weights | sum of what is visible |
# |---|---|---|
# | no mask | 0.24, 0.09, 0.67 | – |
# | weight set to 0 afterwards | 0.24, 0.09, 0 | 0.33, and the missing 0.67 depends on the hidden key |
# | score set to 0 | 0.67, 0.24, 0.09 | 0.91, for exp(0) = 1 is not nothing |
# | score set to $-\infty$ | **0.73, 0.27, 0** | **1**, for exp(-∞) = 0 |
#
# There are two traps. The first: exp(89) no longer fits into a 32-bit float. Subtracting the row's largest visible score from the whole row changes
# no weight (numerator and denominator shrink alike) and leaves nothing above exp(0) = 1. The second: a row with *every* key hidden is 0 / 0 = NaN,
# and a single NaN spreads through the next layers to the whole loss. Such rows do occur: padding makes them. They get zeros.

# %% [markdown]
# **Exercise.** A softmax with a mask.
#
# <details><summary>Hint 1</summary>`masked_fill(where, value)` returns a copy with a value filled in; the mask says where one <em>may</em> look, so fill the opposite.</details>
# <details><summary>Hint 2</summary>After filling, `softmax(dim=-1)` is right for every row that sees at least one key, shift and all. What does it give for the others?</details>
# <details><summary>Hint 3</summary>Either turn the NaN of those rows into 0 at the end, or compute exp, sum and quotient yourself, and make sure that no empty row divides by 0.</details>

# %% exercise="attention.masked_softmax"
# from: tinytrans.nn.attention.masked_softmax

# %% question="masks.before_softmax"

# %% [markdown]
# **Exercise.** Scores and softmax together make the *attention matrix*: row $t$ says how query $t$ divides its attention.
#
# <details><summary>Hint 1</summary>You have written both parts.</details>
# <details><summary>Hint 2</summary>The mask belongs to the softmax.</details>
# <details><summary>Hint 3</summary>One line, two calls, one inside the other.</details>

# %% exercise="attention.attention_weights"
# from: tinytrans.nn.attention.attention_weights

# %% [markdown]
# **Exercise.** And the mix of values, which completes equation 1 of Vaswani et al. (2017):
#
# $$\mathrm{Attention}(Q, \mathbf K, V) = \mathrm{softmax}\!\left(\frac{Q \mathbf K^\top}{\sqrt K}\right) V .$$
#
# <details><summary>Hint 1</summary>(T, S) times (S, d_v) is (T, d_v): each output is a mean of the rows of V.</details>
# <details><summary>Hint 2</summary>Pass the mask on to where it acts.</details>
# <details><summary>Hint 3</summary>The attention matrix, then `@`.</details>

# %% exercise="attention.attend"
# from: tinytrans.nn.attention.attend

# %% [markdown]
# The loop and the matrices should agree. Do they also take the same time?

# %%
queries, keys, values = torch.randn(512, 32), torch.randn(512, 32), torch.randn(512, 24)
start = time.perf_counter()
looped = torch.stack([attend_one(query, keys, values) for query in queries])
middle = time.perf_counter()
at_once = attend(queries, keys, values)
end = time.perf_counter()
print(f"largest difference {(looped - at_once).abs().max():.1e}")
print(f"512 queries: loop {1e3 * (middle - start):.1f} ms, matrices {1e3 * (end - middle):.1f} ms")

# %% [markdown]
# The same numbers, sooner: the loop asks 512 times, the product once.
#
# ## 5. A sequence looks at itself (10 minutes)
#
# Where do queries, keys and values come from? In **self-attention** all three from the same sequence $x$. The simplest way is to take the tokens
# themselves for all three. Even that does something remarkable. Let the first entry of a vector mean *water* and the second *money*:
# river = (2, 0), loan = (0, 2), and bank = (1, 1), because it may mean either. By hand, for *bank* in *river bank*: its score is $(1, 1) \cdot (2, 0) = 2$ with
# *river* and $(1, 1) \cdot (1, 1) = 2$ with itself. Equal scores, equal shares: $\tfrac12 (2, 0) + \tfrac12 (1, 1) = (1.5, 0.5)$.

# %%
river, loan, bank = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0])
for other, name in ((river, "river"), (loan, "loan")):
    x = torch.stack([other, bank])
    print(f"bank beside {name:5}: {attend(x, x, x)[1].tolist()}")

# %% [markdown]
# The same token, two vectors: beside *river*, *bank* is watery; beside *loan* it is about money. One embedding holds all the meanings of a word, and
# attention turns it toward the one that its neighbours suggest.
#
# Without weights, though, there is not much freedom. $x_i \cdot x_j = x_j \cdot x_i$: whatever interests me is interested in me to the same degree, and a token mostly
# fits itself. So each token gets three learned views:
#
# - $x W_Q$, the **query**: *what am I looking for?*
# - $x W_K$, the **key**: *what can I be found by?*
# - $x W_V$, the **value**: *what do I tell those who find me?*
#
# $W_Q$ and $W_K$ have the shape (D, K), since queries and keys must meet in one space; $W_V$ is (D, $d_v$), of any width. They are the same for every
# token and learned like all weights. Scores become $x_i W_Q W_K^\top x_j^\top$, which need not be symmetric.

# %% [markdown]
# **Exercise.** Self-attention.
#
# <details><summary>Hint 1</summary>Tokens are rows, so a view of all of them is x times a matrix.</details>
# <details><summary>Hint 2</summary>Three views, then the function that you have.</details>
# <details><summary>Hint 3</summary>Do not forget to pass the mask on.</details>

# %% exercise="attention.self_attend"
# from: tinytrans.nn.attention.self_attend

# %% question="attention.why_values"

# %% [markdown]
# Something is missing, and you can see it. Shuffle the tokens, and the outputs are the same vectors in shuffled order: to attention a sentence is a *set*,
# and *the fox chased the hen* is *the hen chased the fox*. Lesson 08 is about that; until then we add a learned vector for each position.

# %%
x, matrices = torch.randn(6, 8), [torch.randn(8, 8) / 8**0.5 for _ in range(3)]
order = torch.randperm(6)
print(
    "shuffling in = shuffling out:",
    torch.allclose(self_attend(x[order], *matrices), self_attend(x, *matrices)[order], atol=1e-6),
)

# %% [markdown]
# ## 6. The future (15 minutes)
#
# A language model learns to predict the next token at *every* position at once: after *once*, *upon*; after *once upon*, *a*. In training that is the great
# advantage over the recurrent network: all T predictions of a text are made side by side, none waits for the one before. (When the model
# *writes*, each word does have to wait for the last one; lesson 10.) But the answer to position $t$, token $t + 1$, stands right there in the
# input, and self-attention sees it. This is **label leakage**. The model need not learn any language; it only has to look one place to the right.
#
# The cure is a mask: a query sees itself and what comes before it. With three tokens:
#
# | | the | cat | sat |
# |---|---|---|---|
# | **the** | may look | – | – |
# | **cat** | may look | may look | – |
# | **sat** | may look | may look | may look |
#
# One detail for later: during generation with a cache (lesson 10) there are fewer queries than keys. The T queries are then the *last* T of the S
# positions, so a single new query sees all S keys.

# %% [markdown]
# **Exercise.** The causal mask.
#
# <details><summary>Hint 1</summary>Give every query and every key its position, and compare.</details>
# <details><summary>Hint 2</summary>The positions of the queries start at S - T; those of the keys at 0.</details>
# <details><summary>Hint 3</summary>A column (T, 1) compared with a row (1, S) broadcasts to (T, S). May they be equal?</details>

# %% exercise="masks.causal"
# from: tinytrans.nn.masks.causal

# %% [markdown]
# ### Break it on purpose
#
# We train the same tiny language model twice on real stories, once with your mask and once without. The stories come from the course's own world
# (`load("tales")`); we read them word by word. The model is two rounds of your `self_attend`. (The residual `x +` and the norms around it are
# borrowed from lesson 07, the position table from lesson 08.)


# %%
def split(text: str) -> list[str]:
    """Text -> words and punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text)


T = 48
stories = [split(tale.text) for tale in load("tales", n=4000)]
unseen = [split(tale.text) for tale in load("tales", n=300, split="validation")]
words = sorted({word for story in stories + unseen for word in story})
number = {word: i for i, word in enumerate(words)}


def numbered(texts: list[list[str]]) -> Tensor:
    """Stories -> the numbers of their first T + 1 words, one story a row."""
    return torch.tensor([[number[word] for word in text[: T + 1]] for text in texts if len(text) > T])


train, test = numbered(stories).to(device), numbered(unseen).to(device)
print(f"{len(train)} stories to train on, {len(test)} unseen ones, {len(words)} different words")
print(textwrap.fill(" ".join(stories[0][:30]), 96))


# %% tags=["measured"]
class Reader(nn.Module):
    """Word numbers (B, T) -> logits of the next word (B, T, V), by two rounds of self-attention."""

    def __init__(self, V: int, T: int, D: int = 64, rounds: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(V, D), nn.Embedding(T, D)
        self.looks = nn.ParameterList(torch.randn(3, D, D) / D**0.5 for _ in range(rounds))  # Q, K, V
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(rounds + 1))
        self.head = nn.Linear(D, V)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.words(ids) + self.places.weight[: ids.shape[1]]
        for look, norm in zip(self.looks, self.norms, strict=False):
            x = x + self_attend(norm(x), *look, mask)
        return self.head(self.norms[-1](x))


def batch(step: int) -> Tensor:
    """The same 32 stories for the same step."""
    chosen = torch.randint(len(train), (32,), generator=torch.Generator().manual_seed(step))
    return train[chosen.to(device)]


def trained(mask: Tensor | None, steps: int = 60 if quick else 400) -> tuple[Reader, list[float]]:
    """A reader trained to predict the next word under a mask, and its losses."""

    def loss(model: Reader, ids: Tensor) -> Tensor:
        return F.cross_entropy(model(ids[:, :-1], mask).flatten(0, 1), ids[:, 1:].flatten())

    torch.manual_seed(1)
    model = Reader(len(words), T).to(device)
    history = fit(model, batch, loss, steps=steps, optimizer=adamw(model, lr=3e-3), progress=False)
    return model, history.losses


honest, honest_losses = trained(causal(T, device=device))
cheat, cheat_losses = trained(None)
with_mask, without = (sum(losses[-20:]) / 20 for losses in (honest_losses, cheat_losses))
print(f"loss over the last 20 steps: {with_mask:.2f} with the mask, {without:.2f} without")
curves(
    {
        name: (range(1, len(run) + 1), run)
        for name, run in (("with the mask", honest_losses), ("without", cheat_losses))
    },
    title="Training loss",
    x_label="step",
    y_label="loss (nats per word)",
)

# %% [markdown]
# Without the mask the loss drops to almost nothing (in quick mode the run is too short for that). A breakthrough? Let us ask both models what we want from a language model: given the beginning of
# a story *and nothing else*, which word comes next? And let both write.


# %% tags=["measured"]
@torch.no_grad()
def next_word_accuracy(model: Reader, masked: bool) -> float:
    """How often the likeliest word after the first n of an unseen story is the true one, for n >= 4."""
    hits = []
    for n in range(4, T):
        mask = causal(n, device=device) if masked else None
        hits.append((model(test[:, :n], mask)[:, -1].argmax(dim=-1) == test[:, n]).float().mean())
    return torch.stack(hits).mean().item()


@torch.no_grad()
def write(model: Reader, masked: bool, start: Tensor, n: int = 26) -> str:
    """Go on from the start with the likeliest word, n times."""
    ids = start[None]
    for _ in range(n):
        mask = causal(ids.shape[1], device=device) if masked else None
        ids = torch.cat([ids, model(ids, mask)[:, -1:].argmax(dim=-1)], dim=1)
    return " ".join(words[i] for i in ids[0])


for name, model, masked in (("with the mask", honest, True), ("without", cheat, False)):
    print(f"{name}: {next_word_accuracy(model, masked):.0%} of next words right")
    print(textwrap.indent(textwrap.fill(write(model, masked, test[0, :4]), 92), "    "))

# %% [markdown]
# The cheat has learned to copy from the right. When there is nothing to its right, it is helpless. Remember the picture: **a loss that is too good is the most
# common sign of a leak.** It pays to test for leaks directly. Change the future, and the past must not move, not even in the last bit:

# %%
changed = test[:8, :T].clone()
changed[:, T // 2 :] = changed[:, T // 2 :].flip(0)  # other stories' second halves
for name, model, mask in (("with the mask", honest, causal(T, device=device)), ("without", cheat, None)):
    with torch.no_grad():
        moved = (model(test[:8, :T], mask) - model(changed, mask))[:, : T // 2].abs().max()
    print(f"{name}: outputs of the first half move by {moved:.3g}")

# %% question="masks.too_good"

# %% [markdown]
# ### Where does it look?
#
# Here is the honest model's first round of attention on an unseen story. Choose a query with the slider; the number below a word is its share in
# per cent. Where nothing runs, the still picture shows all the rows. Each row sums to 1, and above the diagonal there is nothing.


# %%
@torch.no_grad()
def rounds_of(model: Reader, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Word numbers (B, T) -> for each round its weights (B, T, T) and what it hands on (B, T, D)."""
    x = model.words(ids) + model.places.weight[: ids.shape[1]]
    mask, found = causal(ids.shape[1], device=device), []
    for (w_q, w_k, w_v), norm in zip(model.looks, model.norms, strict=False):
        seen = norm(x)
        handed = self_attend(seen, w_q, w_k, w_v, mask)
        found.append((attention_weights(seen @ w_q, seen @ w_k, mask), handed))
        x = x + handed
    return found


shown = 16
weights, _ = rounds_of(honest, test[:1, :shown])[0]
look_around(weights[0], [words[i] for i in test[0, :shown]], title="first round, unseen story")

# %% [markdown]
# Now the several meanings of one token, in numbers. Take all the places where *the* stands in the unseen stories. Its embedding is the same
# everywhere. What attention adds to it depends on its company: we compare pairs of *the* that follow the same word (*in the*, *in the*) with pairs that follow
# different ones (*in the*, *was the*). A cosine of 1 means the same direction.

# %%
story, place = (test[:, 1:T] == number["the"]).nonzero(as_tuple=True)  # those that have a word before
before = test[story, place]  # the place of `the` itself is one further
alike, pairs = before[:, None] == before[None, :], ~torch.eye(len(place), dtype=torch.bool, device=device)
for n, (_, handed) in enumerate(rounds_of(honest, test[:, :T]), start=1):
    directions = F.normalize(handed[story, place + 1], dim=-1)
    cosine = directions @ directions.T
    same, other = cosine[alike & pairs].mean(), cosine[~alike].mean()
    print(f"round {n}, {len(place)} places: {same:.2f} after the same word, {other:.2f} after others")

# %% [markdown]
# After training, one word has become many: what attention adds to *the* is much alike after the same word (in our run the second round's cosine is 0.74), and nearly unrelated after different ones (0.11).
# (In quick mode there was too little training for that.)

# %% question="attention.query_source"

# %% [markdown] tags=["instructor"]
# **For instructors: after the leakage experiment.** Let learners say *before* the plot which curve will be lower. The
# point to draw out is that no number of the training run alone shows the cheat; generating does, or moving a future token (the last cell of section 6).
# A good task for the fast: make the mask leak one token only (`diagonal=1`) and find out how much of the loss that is worth.

# %% [markdown]
# ## 7. Padding, windows, and masks together (10 minutes)
#
# Sequences of a batch differ in length, so short ones are filled up with padding. Nobody should look at padding: it is a mask on **keys**, the last
# axis. Lengths 2 and 3 in a batch of width 3 give the rows `1 1 0` and `1 1 1`, with 1 for True. All queries of a sequence see the same keys, so the
# mask has the shape (B, 1, S): the 1 stretches over any number of queries.
#
# When does it matter? If padding stands *behind* the text and the mask is causal, no real token can see it anyway. It does matter in an encoder, which sees
# both ways, in cross-attention (section 8), and with padding in front.

# %% [markdown]
# **Exercise.** The padding mask.
#
# <details><summary>Hint 1</summary>Key s is real in row b when s is smaller than lengths[b].</details>
# <details><summary>Hint 2</summary>Compare positions (1, S) with lengths (B, 1): that gives (B, S).</details>
# <details><summary>Hint 3</summary>`unsqueeze(1)` puts the axis for the queries in between.</details>

# %% exercise="masks.padding"
# from: tinytrans.nn.masks.padding

# %% [markdown]
# A sequence of 3 in an encoder, alone and filled up to 5, should get the same vectors:

# %%
x = torch.randn(1, 3, 8)
filled = torch.cat([x, torch.randn(1, 2, 8)], dim=1)  # whatever stands there
alone = self_attend(x, *matrices)
for name, mask in (("with the mask", padding(torch.tensor([3]), 5)), ("without", None)):
    gap = (self_attend(filled, *matrices, mask)[:, :3] - alone).abs().max()
    print(f"{name}: vectors differ by up to {gap:.2g}")

# %% [markdown]
# **A sliding window** lets each query see only itself and the width - 1 positions before it. Then the cost of a text grows with T times the width and no longer with T².
# (In an encoder the window reaches to both sides, say 15 words to the left and 15 to the right.) Is the far past lost? Not quite, because layers are stacked: with a width of 3, what position 0 told position 2 in the first layer, position 2 can tell position 4 in the second.
#
# **Exercises.** The window, and all three together.
#
# <details><summary>Hint 1</summary>As in `causal`, give queries and keys their positions; what counts is query minus key.</details>
# <details><summary>Hint 2</summary>Two conditions: the distance is not negative, and it is smaller than the width.</details>
# <details><summary>Hint 3</summary>`decoder_mask`: a place is open when every mask opens it, so `&`, which also broadcasts (S, S) and (B, 1, S).</details>

# %% exercise="masks.window"
# from: tinytrans.nn.masks.window

# %% exercise="masks.decoder_mask"
# from: tinytrans.nn.masks.decoder_mask

# %%
near = window(9, 3)
heat_maps(
    {
        "causal": causal(9),
        "window of 3": near,
        "reach in 2 layers": (near.float() @ near.float()) > 0,
        "decoder, length 6": decoder_mask(torch.tensor([6]), 9)[0],
    }
)

# %% [markdown]
# Two layers with a window of 3 reach 5 positions; in general L layers of width w reach $L (w - 1) + 1$. Look at the last rows of the decoder's mask, too: they belong
# to padding, and look at real tokens only.
#
# ## 8. One sequence looks at another (5 minutes)
#
# A decoder that translates asks the source: attention *crosses* from one sequence to the other. Only one thing changes: **queries come from x, keys and values from the memory**, which is what the
# encoder has made of the source. The attention matrix is T by S, and no longer square. The whole source is there from the start, so it needs no causal
# mask; its padding must be hidden.
#
# | | query from | key, value from | mask |
# |---|---|---|---|
# | encoder, self-attention | x | x | padding |
# | decoder, masked self-attention | x | x | causal (and padding) |
# | decoder, cross-attention | x, the decoder's tokens | memory, the encoder's output | padding of the memory |
#
# By hand: *la maison rouge* asks *the red house*. Let the entries mean article, noun, colour: *maison* = (0, 1, 0) fits *house* = (0, 1, 0) alone. With vectors ten
# times as long, the score is $100 / \sqrt 3 = 57.7$ there and 0 elsewhere, so all its weight goes to the third word of the source.

# %% [markdown]
# **Exercise.** Cross-attention.
#
# <details><summary>Hint 1</summary>Compare with your `self_attend`: which of the three views change?</details>
# <details><summary>Hint 2</summary>What makes a place findable and what it tells belong together.</details>
# <details><summary>Hint 3</summary>x is used once, memory twice.</details>

# %% exercise="attention.cross_attend"
# from: tinytrans.nn.attention.cross_attend

# %%
article, noun, colour = torch.eye(3)
french, english = torch.stack([article, noun, colour]), torch.stack([article, colour, noun])
louder = 10 * torch.eye(3)
mixed = cross_attend(french, english, louder, louder, torch.eye(3))  # (3 words, article noun colour)
heat_map(
    mixed[:, [0, 2, 1]],  # values are one-hot, so what comes out are the weights, here in English order
    ["la", "maison", "rouge"],
    ["the", "red", "house"],
    title="who asks whom",
    row_label="x",
    column_label="memory",
)

# %% [markdown]
# The order of the words differs, and attention does not mind. In lesson 03 such a picture was learned, from dates.
#
# ## 9. What it costs (5 minutes)
#
# Two products do the work: $Q \mathbf K^\top$ and weights times $V$. A product of (a, b) and (b, c) has a·c results, each of b multiplications and b additions: 2abc
# operations. By hand, for T = S = 1024 and K = $d_v$ = 64: $2 \cdot 1024^2 \cdot 64 \cdot 2 = 268{,}435{,}456$, for one head of one layer. And the attention matrices of 12 heads take
# $12 \cdot 1024^2 \cdot 4$ bytes = 48 MiB. A text twice as long takes four times as much of both.

# %% [markdown]
# **Exercises.** Count operations and bytes.
#
# <details><summary>Hint 1</summary>Write down the shapes of both products.</details>
# <details><summary>Hint 2</summary>Which axis disappears in each product? That is the b of 2abc.</details>
# <details><summary>Hint 3</summary>Bytes: how many matrices, of how many numbers, of how many bytes?</details>

# %% exercise="attention.attention_flops"
# from: tinytrans.nn.attention.attention_flops

# %% exercise="attention.attention_bytes"
# from: tinytrans.nn.attention.attention_bytes

# %% [markdown]
# Does the count agree with the clock? We time your `attend` beside a recurrent network of the same width, for texts of growing length.


# %%
@torch.no_grad()
def seconds(work, repeats: int = 3) -> float:
    """The shortest of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


spans = [128, 256, 512, 1024] if quick else [128, 256, 512, 1024, 2048, 4096]
rnn = nn.RNN(64, 64, batch_first=True).to(device)
texts = {span: torch.randn(1, span, 64, device=device) for span in spans}
attention_times = [seconds(lambda x=x: attend(x, x, x)) for x in texts.values()]
rnn_times = [seconds(lambda x=x: rnn(x)) for x in texts.values()]
for span, a, r in zip(spans, attention_times, rnn_times, strict=True):
    flops = attention_flops(span, span, 64, 64)
    rate = flops / a / 1e9
    print(f"T = {span:4}: attention {1e3 * a:7.2f} ms ({rate:5.1f} GFLOP/s), RNN {1e3 * r:7.2f} ms")
curves(
    {
        "attention": (spans, [1e3 * t for t in attention_times]),
        "RNN, step by step": (spans, [1e3 * t for t in rnn_times]),
    },
    title="Time of one forward pass",
    x_label="length of the text T",
    y_label="milliseconds",
    log_x=True,
    log_y=True,
)

# %% [markdown]
# With both axes logarithmic, T² is a line twice as steep as T. Where the line of attention bends upwards, its matrix has outgrown the processor's cache: from there on
# memory sets the pace, and the GFLOP/s fall. Attention does more arithmetic, and on a long text it pays for that. But all of its arithmetic can run
# at once, while the RNN takes T steps that wait for each other. On a GPU that settles the matter at the usual lengths: more operations, less time (Vaswani et al. 2017, section 4). On a
# CPU you may see the lines cross. The T² itself has been attacked, too: windows (section 7) reduce it, and kernels that work tile by tile never store the matrix (Dao et al. 2022).
#
# ## 10. What to watch out for
#
# | you see | look at |
# |---|---|
# | a training loss that is too good, and nonsense when generating | the causal mask: missing, turned round, or off by one |
# | NaN, after a while or at once | a row with no visible key; 0 · (-∞); exp without a shift |
# | columns that sum to 1 | the axis of the softmax: keys are last |
# | learning that never starts with wide heads | the division by √K |
# | results that depend on what else is in the batch | the padding mask, or a softmax over the wrong axis |
# | code that works until T = S, or K = $d_v$, no longer holds | a shape that was right by accident: test with sizes that all differ |
# | a mask that does the opposite | the convention: here, and in `scaled_dot_product_attention`, True = may look; in `nn.MultiheadAttention` True = hidden |
#
# <!-- pitfalls: attention masks -->

# %% [markdown] tags=["instructor"]
# **For instructors: reading the mistakes report.** `over the queries` and `hidden after the softmax` are the two that are worth a talk with the whole class; both
# give a model that trains. `single precision` and `no gradient` are slips with `torch.tensor(...)` or `.item()`: show how to see them with `.dtype` and `.requires_grad`.
# Many `the mask turned round` in one group mostly means that somebody read the documentation of `nn.MultiheadAttention`, whose mask hides where ours shows.
# *Variants:* other letters in the worked example; another window width; let learners bring a sentence of their own with a pronoun to section 5.

# %% [markdown]
# ## What was simplified
#
# - There is only one head. Lesson 05 gives the model several, each with its own matrices.
# - The rounds here have no feed-forward layer (06), and their residuals and norms are borrowed (07), as are the positions (08).
# - The words are whole words; real models read tokens, pieces of words.
# - The attention that we timed stores the whole matrix; fused kernels never do.
#
# ## Where this lives in tinytrans
#
# `tinytrans/nn/attention.py` and `tinytrans/nn/masks.py` hold what you wrote, under the same names. `fused_attend` gives the same numbers from one fast kernel, and
# `Attention` is the layer that the models use.
#
# ## References
#
# - D. Bahdanau, K. Cho, Y. Bengio (2014). Neural Machine Translation by Jointly Learning to Align and Translate. arXiv 1409.0473.
# - A. Vaswani, N. Shazeer, N. Parmar, J. Uszkoreit, L. Jones, A. N. Gomez, Ł. Kaiser, I. Polosukhin (2017). Attention Is All You Need. arXiv 1706.03762.
# - I. Beltagy, M. E. Peters, A. Cohan (2020). Longformer: The Long-Document Transformer. arXiv 2004.05150 (the sliding window).
# - A. Q. Jiang et al. (2023). Mistral 7B. arXiv 2310.06825 (windows in a decoder, and how layers extend them).
# - T. Dao, D. Y. Fu, S. Ermon, A. Rudra, C. Ré (2022). FlashAttention. arXiv 2205.14135 (the same numbers without storing the matrix).
# - S. Jain, B. C. Wallace (2019). Attention is not Explanation. arXiv 1902.10186 (why not to read too much into pictures like that of section 6).

# %% [markdown] tags=["instructor"]
# **For instructors.** The leakage experiment is the heart of the lesson: let learners say what they expect before they run it. Common questions: why
# the cheat's loss is not exactly 0 (the last position has no right neighbour in the input, so 1 of 48 predictions must be honest); why it is quick (copying needs one look);
# why the honest model's loss does not reach 0 either (which name, which colour comes next is chance). The RNN's line in section 9 depends on the machine; on
# a GPU it lies above attention's nearly everywhere.
