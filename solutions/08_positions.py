# %% [markdown]
# # 08 · Positions
#
# *Dog bites man* is no news, *man bites dog* is. To the attention of lessons 04 and 05 the two are the same. This lesson tells it where each
# word stands, in three ways, and measures what each of them is good for.
#
# **You will be able to**
#
# - prove, and show on a machine, that attention without positions reads a set;
# - build the sinusoidal table of the first transformer, say what its numbers mean, and add it correctly;
# - use a learned table, and say where it ends and what happens there;
# - derive rotary positions (RoPE), write them, and check the law that makes them relative: $R_m^\top R_n = R_{n-m}$;
# - keep positions right while decoding with a cache, and recognise a model whose positions restart;
# - say what happens to each of the three on a text longer than any in training, from your own measurement.
#
# **Builds on** lesson 04 (attention, masks), 05 (what a head is) and 07 (norms, the residual stream). **Leads to** 10 (generation with a cache).
#
# **Time** about 85 minutes: a set 10, clocks 20, a learned table 10, distance 5, turning 20, how far it reaches 10, decoding 10. The
# notebook computes for about half a minute on two CPU cores. A GPU changes nothing but the speed of section 6.
#
# **Letters** B sequences in a batch, T tokens, S keys, D width of a token, K width of a head's queries and keys, $\theta_i$ the speed of pair $i$.

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %%
torch.set_num_threads(1)  # tensors as small as ours gain nothing from a second thread
seeded = torch.manual_seed(0)

# %% tags=["tools"]
import os
import re
from textwrap import fill

from graders.check import check
from tinytrans import fit, load, pick
from tinytrans.nn.attention import attend, self_attend
from tinytrans.nn.masks import causal, window
from tinytrans.nn.positions import rotate, rotation_at
from tinytrans.plots import curves, heat_map
from tinytrans.training.optim import adamw
from tinytrans.widgets import Explorer

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with fewer steps, for tests
device = pick()
print(f"running on {device}{', in quick mode' if quick else ''}")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.nn.positions import sinusoidal`: from there on the notebook uses the library's version. Your points still come from your own
# cell, so come back to it.

# %% [markdown] tags=["instructor"]
# **For instructors: planning.** With 60 minutes: sections 1, 2 without the proof, 5 and 6. The learned table (3) is short and worth its time for the error at its end. Section 7 needs only the words
# *cache* and *step*, and shows a mistake that no training loss tells of; do it even if you skip something else. Section 6 trains three models.

# %% [markdown]
# ## 1. A sentence becomes a set (10 minutes)
#
# A recurrent network gets order for free: it reads word 2 after word 1. What does self-attention have? For a query $q$ it computes
#
# $$\sum_s \alpha_s v_s, \qquad \alpha_s = \frac{\exp(q \cdot k_s / \sqrt K)}{\sum_j \exp(q \cdot k_j / \sqrt K)} .$$
#
# Both are sums over the words, and a sum does not care about the order of its terms. Nothing in them says which word came first. Let us take
# three words with random embeddings and see what self-attention gives each of them in the two sentences.

# %%
vectors = {word: torch.randn(8) for word in ("dog", "bites", "man")}
matrices = [torch.randn(8, 8) / 8**0.5 for _ in range(3)]


def handed(sentence: list[str]) -> dict[str, Tensor]:
    """What self-attention gives for each word of a sentence."""
    x = torch.stack([vectors[word] for word in sentence])
    return dict(zip(sentence, self_attend(x, *matrices), strict=True))


news, no_news = handed(["man", "bites", "dog"]), handed(["dog", "bites", "man"])
for word in vectors:
    print(f"{word:6} differs between the two sentences by {(news[word] - no_news[word]).abs().max():.1e}")

# %% [markdown]
# Only rounding is left. *Man* gets the same vector whether he bites or is bitten. Stacking more such layers does not help, nor do feed-forward
# layers and norms in between: each of those works on one word at a time, so the next layer again receives a set. In symbols: if $P$ is any
# reordering, $\mathrm{SA}(PX) = P\,\mathrm{SA}(X)$. Shuffled in, shuffled out. Training cannot help either, because this holds for *all* matrices.

# %%
x = torch.randn(50, 8)
order = torch.randperm(50)
deep, mixed = x, x[order]
for _ in range(6):
    deep, mixed = (F.layer_norm(z + self_attend(z, *matrices), (8,)) for z in (deep, mixed))
apart = (deep[order] - mixed).abs().max()
print(f"50 words shuffled, six layers: outputs differ by {apart:.1e} after sorting back")

# %% question="positions.shuffled"

# %% [markdown]
# ## 2. A clock with many hands (20 minutes)
#
# So the order has to go into the vectors themselves: to the embedding of each word we add a vector $p_t$ that belongs to its place. The same
# word at two places then enters as two different vectors. This is an **absolute** position, and it is added once, at the input.
#
# Which vector? The obvious ideas fail in instructive ways.
#
# | idea | what goes wrong |
# |---|---|
# | the number $t$ itself | at place 500 it is hundreds of times as large as the numbers of an embedding, and drowns them |
# | $t / T$, from 0 to 1 | the step from a word to the next depends on the length of the text |
# | the digits of $t$: 0, 4, 7 | bounded, and one step is one step; but from 099 to 100 everything jumps |
#
# The digits are nearly right. The last one changes fast, the one before it ten times more slowly, and so on: together they tell nearby places apart and distant ones too. To make
# that smooth, turn each digit into the hand of a **clock**: the first goes round quickly, each of the others more slowly than the one before. A hand is described by its sine and its cosine,
# both always between -1 and 1. With D numbers there is room for D/2 hands. Per position, pair $i = 0, 1, \dots$ turns by
#
# $$\theta_i = 10000^{-2i/D} \quad \text{radians}.$$
#
# By hand, for D = 4: $\theta_0 = 10000^0 = 1$, one radian (57°) a position, a full circle in about 6 positions. $\theta_1 = 10000^{-2/4} = 0.01$: a full circle
# in 628. The speeds fall by equal *factors*, like the values of digits. With D = 512 the slowest hand takes some 60,000 positions to go round.

# %% [markdown]
# **Exercise.** The speeds of the hands.
#
# <details><summary>Hint 1</summary>How many pairs are there in `width` numbers, and which i has the last one?</details>
# <details><summary>Hint 2</summary>`torch.arange(0, width, 2)` gives 0, 2, 4, ...: the 2i of the formula, all at once.</details>
# <details><summary>Hint 3</summary>Divide by the width, and raise the base to minus that. (`device` says where the arange lives; on a CPU you may leave it out.)</details>

# %% exercise="positions.frequencies"
# from: tinytrans.nn.positions.frequencies

# %% [markdown]
# Now the table. At place $t$, hand $i$ stands at the angle $t\,\theta_i$; we write down its sine and its cosine, one after the other:
#
# $$PE(t, 2i) = \sin(t\,\theta_i), \qquad PE(t, 2i + 1) = \cos(t\,\theta_i) .$$
#
# By hand, for D = 4:
#
# | $t$ | $\sin t$ | $\cos t$ | $\sin 0.01 t$ | $\cos 0.01 t$ |
# |---|---|---|---|---|
# | 0 | 0 | 1 | 0 | 1 |
# | 1 | 0.84 | 0.54 | 0.01 | 1.00 |
# | 2 | 0.91 | -0.42 | 0.02 | 1.00 |
# | 3 | 0.14 | -0.99 | 0.03 | 1.00 |
#
# (Some code puts all the sines first and then all the cosines. A model learns just as well with that, but its weights and its code must agree.)

# %% [markdown]
# **Exercise.** The sinusoidal table.
#
# <details><summary>Hint 1</summary>An angle for each position and each pair: a column of positions times a row of frequencies. `positions[..., None]` makes the column.</details>
# <details><summary>Hint 2</summary>You have two tensors (..., T, D/2), sines and cosines, and want them to alternate: what does `torch.stack` with `dim=-1` give, and what does `flatten(-2)` make of it?</details>
# <details><summary>Hint 3</summary>For an odd D there is one number too many at the end: cut at D.</details>

# %% exercise="positions.sinusoidal"
# from: tinytrans.nn.positions.sinusoidal

# %%
table = sinusoidal(torch.arange(64), 32)
heat_map(
    sinusoidal(torch.arange(20), 16),
    title="sinusoids, 16 wide",
    row_label="position",
    column_label="number",
)

# %% [markdown]
# Each row is a place. On the left the numbers swing fast, on the right they hardly move within 20 places. Two properties are worth checking:
#
# - All rows have the same length: $\sin^2 + \cos^2 = 1$ for each pair, so $|p_t|^2 = D/2$. Every embedding is moved *by the same distance, each place in its own direction*.
# - The product of two rows depends on their distance alone: $p_t \cdot p_s = \sum_i \cos\big((t - s)\,\theta_i\big)$, because
#   $\sin a \sin b + \cos a \cos b = \cos(a - b)$. By hand, with one digit more than in the table: rows 1 and 2 give 0.765 - 0.225 + 0.000 + 1.000 = 1.540, rows 2 and 3 give 0.128 + 0.412 + 0.001 + 0.999 = 1.540, and $\cos 1 + \cos 0.01 = 1.540$.
#
# Neighbours are most alike; further away the product falls, though not steadily:

# %%
products = table @ table.T
lengths = table.norm(dim=-1)
print(f"lengths from {lengths.min():.3f} to {lengths.max():.3f}; √(D/2) = {16**0.5:.3f}")
curves(
    {f"to place {t}": ([s - t for s in range(64)], products[t].tolist()) for t in (0, 31, 63)},
    title="Products of two rows",
    x_label="distance s - t",
    y_label="product",
)

# %% [markdown]
# The three lines are pieces of one and the same curve: only the distance counts. Remember this in section 5.
#
# ### Adding it
#
# One detail is easy to miss. Embeddings start small: their numbers are near $1/\sqrt D$, so that they have length 1. The row of a place has length $\sqrt{D/2}$, which for D = 512 is sixteen times as
# long. Simply added, the places would shout the words down. So the first transformer multiplies the embeddings by $\sqrt D$ before it adds:
#
# $$x_t \leftarrow \sqrt D \, x_t + p_t .$$

# %% [markdown]
# **Exercise.** Add the table to a batch of embeddings. The first of the T tokens need not stand at 0: `start` says where it stands. Section 7 will need this.
#
# <details><summary>Hint 1</summary>T and D are the last two entries of the shape of x. Which positions do the tokens have?</details>
# <details><summary>Hint 2</summary>`torch.arange(a, b)` runs from a to b - 1.</details>
# <details><summary>Hint 3</summary>A table (T, D) added to a batch (B, T, D) broadcasts by itself.</details>

# %% exercise="positions.add_sinusoidal"
# from: tinytrans.nn.positions.add_sinusoidal

# %% [markdown]
# Does *man* come out differently now?


# %%
def handed_in_order(sentence: list[str]) -> dict[str, Tensor]:
    """What self-attention gives for each word of a sentence that knows its places."""
    x = torch.stack([vectors[word] / 8**0.5 for word in sentence])
    return dict(zip(sentence, self_attend(add_sinusoidal(x[None])[0], *matrices), strict=True))


news, no_news = handed_in_order(["man", "bites", "dog"]), handed_in_order(["dog", "bites", "man"])
for word in vectors:
    print(f"{word:6} differs between the two sentences by {(news[word] - no_news[word]).abs().max():.2f}")

# %% [markdown]
# Yes, and so does *bites*, although it stands in the middle both times: its two neighbours have changed places.

# %% [markdown] tags=["instructor"]
# **For instructors: questions that come here.** *Why not simply add the number of the position?* The table in section 2 says it; let them try it in section 6.
# *Why sines and cosines both?* One number per frequency cannot be turned; two can, and that is section 5. *Why 10000?* The slowest hand should not come full circle within any text that one expects.

# %% [markdown]
# ## 3. Or learn it (10 minutes)
#
# Why compute the vectors at all? Take a table of max_len rows, fill it at random, and let training find the rows, just as it finds the words' embeddings. BERT and
# GPT-2 do this. Vaswani et al. tried both ways and found them equally good. Now there are two tables: one is asked *which word*, the other *where*.
#
# $$x_t = \mathrm{tokens}[\mathrm{id}_t] + \mathrm{places}[t]$$
#
# By hand: with tokens = (0, 10) and places = (0.1, 0.2, 0.3), the ids 1, 1, 0 become 10.1, 10.2, 0.3. (No $\sqrt D$ here: a learned table finds its own size.)
#
# The price: the table **ends**. A model with 1024 rows cannot read a 1025th token, and row 900 has learned only from training texts of more than 900 tokens. Your code has to
# notice the end by itself: a slice `places[start:stop]` that reaches beyond it raises no error, it just comes back shorter. See what that can lead to:

# %%
places, words3 = torch.randn(6, 4), torch.randn(3, 4)
late = places[5:8]  # three places asked for
print(f"three asked for, {len(late)} got, and the sum has the shape {tuple((words3 + late).shape)}")

# %% [markdown]
# One row was left, and broadcasting spread it over all three tokens, which now stand at the same place. There is no error, only a model that has become a little worse.

# %% [markdown]
# **Exercise.** Embed words and places, and refuse positions beyond the table.
#
# <details><summary>Hint 1</summary>`tokens[ids]` looks up a whole batch of ids at once: (B, T) -> (B, T, D).</details>
# <details><summary>Hint 2</summary>The tokens stand at start, start + 1, ... What is one more than the last place, and to what must it be compared?</details>
# <details><summary>Hint 3</summary>`raise ValueError(f"...")` with both numbers; then the slice is safe.</details>

# %% exercise="positions.embed_at"
# from: tinytrans.nn.positions.embed_at

# %%
try:
    embed_at(torch.zeros(1, 3, dtype=torch.long), words3, places, start=5)
except ValueError as error:
    print(f"refused: {error}")

# %% [markdown]
# ## 4. What language needs is distance (5 minutes)
#
# An adjective belongs to the *next* noun, a bracket closes the *last* one opened, at place 5 as at place 500. With absolute positions the score of two words is
#
# $$(x_m + p_m)\, A\, (x_n + p_n)^\top = \underbrace{x_m A\, x_n^\top}_{\text{word, word}} + \underbrace{x_m A\, p_n^\top + p_m A\, x_n^\top}_{\text{word, place}} + \underbrace{p_m A\, p_n^\top}_{\text{place, place}}, \qquad A = W_Q W_K^\top .$$
#
# The model can work out the distance from the last term, but it has to learn this for every pair of places separately. And positions are added only once, at the bottom; the
# higher layers get what is left of them. **Relative** positions put the distance where it is needed: into the scores of *every* layer.
#
# | | what happens to the score of query m and key n |
# |---|---|
# | Shaw et al. 2018 | the key gets a learned vector for the distance n - m, cut off at ±k |
# | T5 (Raffel et al. 2020) | a learned number for the distance is added, one for each range of distances and each head |
# | ALiBi (Press et al. 2022) | a fixed slope times the distance is subtracted: far away counts less |
# | RoPE (Su et al. 2021) | query and key are turned by their places before they are multiplied |
#
# The last of them is today's standard: Llama, Mistral, Qwen and most others use it. Let us see where it comes from.
#
# ## 5. Turn, don't add (20 minutes)
#
# We are looking for a function $f(q, m)$ that puts place $m$ into a query (and place $n$ into a key) in such a way that the product depends on the distance alone:
#
# $$f(q, m) \cdot f(k, n) = g(q, k, n - m) .$$
#
# Section 2 had something of that kind: in $\cos(a - b)$ only the difference of two angles was left. So take K = 2, where $q$ and $k$ are arrows in a plane, and **turn** them:
# $q$ by the angle $m\theta$, $k$ by $n\theta$. The product of two arrows is the product of their lengths times the cosine of the angle *between* them, and that angle has changed by $(n - m)\theta$, wherever in the text they stand.
#
# By hand, with θ = 30°, $q = (2, 0)$ and $k = (1, 1)$:
#
# | q at place m | k at place n | distance n - m | product |
# |---|---|---|---|
# | m = 3, turned by 90°: (0, 2) | n = 1, turned by 30°: (0.37, 1.37) | -2 | **2.73** |
# | m = 5, turned by 150°: (-1.73, 1) | n = 3, turned by 90°: (-1, 1) | -2 | **2.73** |
# | m = 3, turned by 90°: (0, 2) | n = 3, turned by 90°: (-1, 1) | 0 | **2**, as without any turn |
#
# Written as a matrix (with $q$ and $k$ as columns), the turn of place $m$ and the law that we were looking for are
#
# $$R_m = \begin{pmatrix} \cos m\theta & -\sin m\theta \\ \sin m\theta & \cos m\theta \end{pmatrix}, \qquad q_m = R_m q, \qquad k_n = R_n k,$$
#
# $$q_m^\top k_n = q^\top R_m^\top R_n\, k = q^\top R_{n-m}\, k, \qquad R_m^\top R_n = R_{n-m} :$$
#
# turning back by $m$ steps and forward by $n$ is turning by $n - m$.
#
# A head has more than two numbers. So cut it into K/2 pairs and turn each at its own speed $\theta_i$: this is the clock of section 2 again. A turn mixes the two numbers of a pair,
# $(x_1, x_2) \to (x_1 \cos\varphi - x_2 \sin\varphi,\ x_2 \cos\varphi + x_1 \sin\varphi)$, and leaves all others alone. No K by K matrix is ever built.
#
# Which numbers make a pair? The paper takes neighbours, (0, 1), (2, 3) and so on. Most published weights (GPT-NeoX, Llama in Hugging Face's format) take $i$ and $i + K/2$: the first half of the vector
# holds all $x_1$, the second all $x_2$. So do we.

# %% [markdown]
# **Exercise.** Turn pairs by given angles.
#
# <details><summary>Hint 1</summary>`x.chunk(2, dim=-1)` gives the two halves: all first numbers, all second ones. Each has the shape of the angles.</details>
# <details><summary>Hint 2</summary>Both new halves need both old ones. Don't overwrite the first before the second is done.</details>
# <details><summary>Hint 3</summary>`torch.cat` with `dim=-1` puts the halves together again.</details>

# %% exercise="positions.turn"
# from: tinytrans.nn.positions.turn

# %% [markdown]
# The table above, from your function:

# %%
q, k = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
for m, n in ((3, 1), (5, 3), (3, 3)):
    at_m, at_n = (turn(z, torch.deg2rad(torch.tensor([30.0 * place]))) for z, place in ((q, m), (k, n)))
    print(f"m = {m}, n = {n}: product {at_m @ at_n:.2f}")

# %% [markdown]
# **Exercise.** RoPE: turn queries or keys by where they stand.
#
# <details><summary>Hint 1</summary>Again an angle for each position and each pair, as in the sinusoidal table.</details>
# <details><summary>Hint 2</summary>The width that the frequencies need is that of x, its last axis; hand the base on, and on a GPU `positions.device` too.</details>
# <details><summary>Hint 3</summary>Two lines: the angles, then your `turn`. Use the positions that are given, whatever the length of x.</details>

# %% exercise="positions.rope"
# from: tinytrans.nn.positions.rope

# %% [markdown]
# Let us check three laws on your function. Turning the unit vectors gives the columns of $R_m$.


# %%
def R(m: int, K: int = 8) -> Tensor:
    """The matrix (K, K) of place m."""
    return rope(torch.eye(K), torch.tensor([m])).T


x = torch.randn(100, 8)
turned = rope(x, torch.arange(100))
off = max((R(m).T @ R(n) - R(n - m)).abs().max() for m in range(9) for n in range(9))
print(f"RᵀₘRₙ = Rₙ₋ₘ: off by {off:.1e}")
print(f"lengths kept: off by {(turned.norm(dim=-1) - x.norm(dim=-1)).abs().max():.1e}")
print(f"not the identity: R at place 1 differs from it by {(R(1) - torch.eye(8)).abs().max():.2f}")
fast = rotate(x, rotation_at(torch.arange(100), 8))
print(f"the library's `rotate`, which the models use: off by {(fast - turned).abs().max():.1e}")

# %% [markdown]
# ### Watch the hands
#
# K = 16 has eight pairs. Move the slider: pair 0 races round, pair 7 hardly moves. From place 2 to 7 each hand moves by the same angle
# as from 20 to 25: that is the law. The still picture gives numbers, for places further and further out: by which share of a full turn each pair has moved.


# %%
def dials(position: int, K: int = 16) -> str:
    """The hand of each pair at a position, as a drawing."""
    parts = []
    for i, angle in enumerate((position * frequencies(K)).tolist()):
        x, y = 42 + 84 * i, 42
        to_x, to_y = x + 34 * math.cos(angle), y - 34 * math.sin(angle)
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="34" fill="none" stroke="#888"/>'
            f'<line x1="{x}" y1="{y}" x2="{to_x:.1f}" y2="{to_y:.1f}" '
            'stroke="#0072B2" stroke-width="4" stroke-linecap="round"/>'
            f'<text x="{x}" y="95" text-anchor="middle" font-size="12" fill="currentColor">'
            f"{math.degrees(angle) % 360:.0f}°</text>"
        )
    told = f"the hands of {K // 2} pairs at position {position}"
    box = 'viewBox="0 0 672 100" style="max-width:672px" role="img"'
    return f'<svg {box} aria-label="{told}">{"".join(parts)}</svg>'


shown = torch.tensor([0, *(2**n for n in range(11))])
turns = (shown[:, None] * frequencies(16) / (2 * math.pi)) % 1
Explorer(
    heat_map(
        turns,
        [str(p) for p in shown.tolist()],
        [str(i) for i in range(8)],
        title="share of a full turn",
        row_label="position",
        column_label="pair",
    ),
    [(str(p), p) for p in [*range(33), 64, 128, 256, 512, 1024]],
    dials,
    "position",
)

# %% [markdown]
# What is turned, and where:
#
# - **In every layer**, after $W_Q$ and $W_K$ and after the split into heads; the input gets no positions at all. There is nothing to learn, so no parameters and no table.
# - **Queries and keys**, both the same way round. Turn one of them backwards, and the angles add up instead of cancelling.
# - **Not the values** (a question below).
# - **Not in cross-attention**: place 7 of the source and place 7 of the translation have nothing to do with each other.

# %% question="positions.why_not_values"

# %% [markdown] tags=["instructor"]
# **For instructors: RoPE on the board.** One pair, one angle, two places: draw the two arrows, turn both by the same angle, and let the class say what happened to the angle between them. That is the whole of
# $R_m^\top R_n = R_{n-m}$. Then ask why the values are not turned (the question below).

# %% [markdown]
# ## 6. How far does it reach? (10 minutes)
#
# We train the same small model four times, on texts of T = 32 words, and then let it read 128. It has two rounds of attention (with norms and residuals as in lesson 07), and the four differ only in how they learn about
# places. (Even the words' vectors are multiplied by $\sqrt D$ in all of them, as section 2 does for the sinusoids: how large they start decides how fast so small a model learns, which would spoil the comparison.) The texts are windows cut out of the course's stories at random, so that a place says nothing about what is told there. The learned table gets 128 rows, although
# training only ever reaches the first 32: with just 32 rows your `embed_at` would refuse the longer text, and rightly.


# %%
def split(text: str) -> list[str]:
    """Text -> words and punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text)


T, LONG, D = 32, 128, 64
told = [word for tale in load("tales", n=4000) for word in split(tale.text)]
untold = [word for tale in load("tales", n=400, split="validation") for word in split(tale.text)]
words = sorted({*told, *untold})
number = {word: i for i, word in enumerate(words)}
train, test = (torch.tensor([number[word] for word in part], device=device) for part in (told, untold))
test = test[: len(test) // (LONG + 1) * (LONG + 1)].view(-1, LONG + 1)[:200]
print(f"{len(train)} words to train on, {len(test)} unseen texts of {LONG + 1}; {len(words)} different")


# %% tags=["measured"]
class Reader(nn.Module):
    """Word numbers (B, T) -> logits of the next word (B, T, V), its places known in one of four ways."""

    def __init__(self, V: int, positions: str, rounds: int = 2) -> None:
        super().__init__()
        self.positions = positions
        self.words, self.places = nn.Embedding(V, D), nn.Embedding(LONG, D)
        self.looks = nn.ParameterList(nn.Parameter(torch.randn(3, D, D) / D**0.5) for _ in range(rounds))
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(rounds + 1))
        self.head = nn.Linear(D, V)
        for embedding in (self.words, self.places):
            nn.init.normal_(embedding.weight, std=D**-0.5)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.words(ids) * D**0.5  # as large in all four as `add_sinusoidal` makes it
        if self.positions == "sinusoidal":
            x = add_sinusoidal(self.words(ids))
        elif self.positions == "learned":
            x = embed_at(ids, self.words.weight, self.places.weight) * D**0.5
        for (w_q, w_k, w_v), norm in zip(self.looks, self.norms, strict=False):
            seen = norm(x)
            q, k, v = seen @ w_q, seen @ w_k, seen @ w_v
            if self.positions == "rope":
                q, k = rope(q, places), rope(k, places)
            x = x + attend(q, k, v, causal(len(places), device=ids.device) if mask is None else mask)
        return self.head(self.norms[-1](x))


def batch(step: int) -> Tensor:
    """32 windows of T + 1 words, the same for the same step."""
    starts = torch.randint(len(train) - T, (32, 1), generator=torch.Generator().manual_seed(step))
    return train[(starts + torch.arange(T + 1)).to(device)]


def loss(model: Reader, ids: Tensor) -> Tensor:
    """The mean loss of the next word."""
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def by_place(model: Reader, mask: Tensor | None = None, stretch: int = 8) -> list[float]:
    """The loss on the unseen long texts, averaged over stretches of 8 places."""
    found = F.cross_entropy(model(test[:, :-1], mask).transpose(1, 2), test[:, 1:], reduction="none")
    return found.mean(dim=0).view(-1, stretch).mean(dim=1).tolist()


readers, losses = {}, {}
for positions in ("none", "sinusoidal", "learned", "rope"):
    torch.manual_seed(1)
    model = Reader(len(words), positions).to(device)
    fit(model, batch, loss, steps=40 if quick else 300, optimizer=adamw(model, lr=3e-3), progress=False)
    readers[positions], losses[positions] = model, by_place(model)
    short, double, long = (losses[positions][i] for i in (T // 8 - 1, 2 * T // 8 - 1, LONG // 8 - 1))
    told = f"{short:.2f} just before place {T}, {double:.2f} before {2 * T}, {long:.2f} before {LONG}"
    print(f"{positions:10}: loss {told}")

middles = list(range(4, LONG, 8))
curves(
    {name: (middles, run) for name, run in losses.items()},
    title=f"Trained on {T} words",
    x_label="place in the text",
    y_label="loss (nats per word)",
)

# %% [markdown]
# Read the picture from left to right. **Within the first 32 places** all four have learned something. The model without positions is clearly the worst: under a causal mask it can tell places apart a little, since each word
# sees a set of a different size, but it has to find that out by itself. RoPE is a little ahead of the sinusoids and the learned table, which are about equal. (This is one seed and 300 steps; we have not measured what a long training would do.)
#
# **Beyond 32** all four get worse, though they have more text to go by. The two absolute kinds suffer most, and at once. The later rows of the learned table were never trained, so what the model adds there is noise. The sinusoids *can* be computed there, but
# the model has never seen these and does not know what they mean. RoPE's curve rises only gently, and stays the lowest. Its products depend on distances alone, but distances beyond 31 are new to it too, and the slow hands reach angles that
# they never showed in training. *Relative* does not mean *endless*. Even the model without positions gets worse: sets of more than 32 words are new to it.
#
# For the relative kind there is a cure. With a **sliding window** of 32 (lesson 04) no word, wherever it stands, looks further back than in training. Nothing is retrained; only the mask changes:

# %% tags=["measured"]
narrow = window(LONG, T, device=device)
windowed = {name: by_place(model, narrow) for name, model in readers.items()}
for name, run in windowed.items():
    told = f"{losses[name][-1]:.2f} at the end of the long text, {run[-1]:.2f} with the window"
    print(f"{name:10}: loss {told}")
curves(
    {name: (middles, run) for name, run in windowed.items()},
    title=f"The same models, a window of {T}",
    x_label="place in the text",
    y_label="loss (nats per word)",
)

# %% [markdown]
# RoPE reads on as if nothing had happened, and for RoPE nothing *has* happened: it knows all the distances, and no place differs from any other. (The model without positions stays nearly level too, for the same reason, but at its own, higher loss.) The two absolute ones
# gain little: their new places are still new. (In quick mode there is too little training to see any of this.)
#
# Other cures stretch the angles: a larger base (Llama 3 has 500,000), or positions squeezed into the range of training, followed by a little more training (Chen et al. 2023). ALiBi was built for this
# test: far keys count less from the start.

# %% question="positions.too_long"

# %% question="positions.no_positions"

# %% [markdown]
# ## 7. Decoding: do not begin at 0 again (10 minutes)
#
# A model writes word by word. With a **cache** (lesson 10 builds a fast one) the keys and values of all earlier words are kept, and only those of the new word are computed: one query, one key, one value. The keys in the cache were
# turned when they came in. The new query and key must be turned too, by *their* place in the whole text.
#
# This is where the most frequent mistake with positions is made: the tensor that comes in has a single row, `torch.arange(1)` is 0, and so the new word is put at place 0. So is the next one, and every word after it. Nothing crashes.
#
# By hand: three words are in the cache, at places 0, 1 and 2. So the new one stands at 3, which is the *number of keys in the cache*. After the step there are four.

# %% [markdown]
# **Exercise.** One step with a cache.
#
# <details><summary>Hint 1</summary>How many keys are in the cache? That is the new token's place, as a tensor with one entry.</details>
# <details><summary>Hint 2</summary>Turn the new key, append it and the new value (`torch.cat`, along the axis of the positions, the last but one). The cache itself is turned already.</details>
# <details><summary>Hint 3</summary>Then attention as ever, for a single query that may see everything: turned query times keys, over √K, softmax, times values.</details>

# %% exercise="positions.rope_step"
# from: tinytrans.nn.positions.rope_step

# %% [markdown]
# ### Break it on purpose
#
# We let the trained RoPE model read unseen texts word by word, once with your step and once with a step that restarts. Yours must give the same logits as reading the whole text at once.


# %% tags=["measured"]
def restarting(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
    """The classic mistake: each new token stands at place 0, where nothing is turned."""
    keys, values = torch.cat((keys, k), dim=-2), torch.cat((values, v), dim=-2)
    return attend(q, keys, values), keys, values


class Writer:
    """The model word by word: it keeps the keys and values of each round."""

    def __init__(self, model: Reader, batch: int, step) -> None:
        none = torch.empty(batch, 0, D, device=device)
        self.model, self.step, self.kept = model, step, [(none, none) for _ in model.looks]

    @torch.no_grad()
    def read(self, ids: Tensor) -> Tensor:
        """The next word of each text (B,) -> logits of the one after it (B, V)."""
        x = self.model.words(ids)[:, None] * D**0.5
        for i, (w_q, w_k, w_v) in enumerate(self.model.looks):
            seen = self.model.norms[i](x)
            handed, *kept = self.step(seen @ w_q, seen @ w_k, seen @ w_v, *self.kept[i])
            x, self.kept[i] = x + handed, kept
        return self.model.head(self.model.norms[-1](x))[:, 0]


model, ids = readers["rope"], test[:100, : T + 1]
with torch.no_grad():
    at_once = model(ids[:, :-1])
for name, step in (("your step", rope_step), ("restarting at 0", restarting)):
    writer = Writer(model, len(ids), step)
    logits = torch.stack([writer.read(ids[:, t]) for t in range(T)], dim=1)
    error = (logits - at_once).abs().max()
    nats = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    print(f"{name:15}: logits differ from the whole text at once by {error:.1e}, loss {nats:.2f}")


# %%
def write(step, start: Tensor, n: int = 20) -> str:
    """Go on from the start with the likeliest word, n times."""
    writer, found = Writer(model, 1, step), start.tolist()
    for i in range(len(start) + n - 1):
        logits = writer.read(torch.tensor([found[i]], device=device))
        if i + 1 == len(found):
            found.append(int(logits.argmax()))
    return " ".join(words[i] for i in found)


for name, step in (("your step", rope_step), ("restarting at 0", restarting)):
    print(f"{name}:\n{fill(write(step, test[0, :10]), 96)}\n")

# %% [markdown]
# The weights and the text are the same. The broken version still knows which words go together, but not where in its text it is. Seeing only such a text, one would blame the training: *not learned enough*. The test that you have
# just run is not fooled: **word by word must equal all at once**, over several steps. A test of a single step would miss the mistake, and so would a test on a model without positions.
#
# ## 8. What to watch out for
#
# | you see | look at |
# |---|---|
# | a model that ignores word order | positions never added; RoPE that turns nothing (keeps lengths, and is even relative!) |
# | good in training, poor at writing, and worse the longer it writes | positions that restart in decoding; keys in the cache turned twice |
# | published weights that give nonsense | pairs: neighbours or halves; sines and cosines in turn or in halves; the base |
# | an index error on long texts, or, worse, none | the end of a learned table |
# | good up to the training length, bad beyond | any of the three: a window, a larger base, or training on longer texts |
# | a rolling cache that goes wrong when it is full | the place is the number of words *so far*, no longer the number of keys kept |
# | wrong at distant positions in half precision | angles computed in half precision: bfloat16 cannot even hold 1001; compute them in single precision |
# | padding on the left | its places count too, unless you give each row its own positions |
#
# <!-- pitfalls: positions -->

# %% [markdown] tags=["instructor"]
# **For instructors: reading the mistakes report.** `neighbours as pairs` is no mistake in itself (the paper pairs neighbours, most published weights pair halves): say which convention is meant, and why mixing them destroys loaded weights.
# `restarts at 0` and `one too far` in `rope_step` are what a cache brings; their writers usually pass everything else. `sliced, and never checked` is the silent one: a text beyond the table, and no error.
# *Variants:* base 100 in section 5 (the hands come round, see what breaks); ALiBi instead of RoPE in section 6 (`tinytrans.nn.positions`).

# %% [markdown]
# ## What was simplified
#
# - One head of width 64, no feed-forward layers, words instead of tokens, and seconds of training: remember the order of the curves, not their heights.
# - We measured one seed. Put another number into `torch.manual_seed(1)` in section 6 and see what remains.
# - A loss beyond the training length is one test of extrapolation; finding a fact far back is another, and a harder one.
# - The cache was a tensor that grows with every step; the library sets its room aside once (lesson 10).
#
# ## Where this lives in tinytrans
#
# `tinytrans/nn/positions.py` holds what you wrote, under the same names. `rotation_at` computes sines and cosines once for all layers, and `rotate` turns by them: the same numbers as `rope`, in less time.
# `Attention` calls it after the split into heads; `GPTConfig(positions="rope" | "learned" | "sinusoidal" | "none")` chooses.
#
# ## References
#
# - J. Gehring, M. Auli, D. Grangier, D. Yarats, Y. N. Dauphin (2017). Convolutional Sequence to Sequence Learning. arXiv 1705.03122 (learned positions).
# - A. Vaswani et al. (2017). Attention Is All You Need. arXiv 1706.03762 (section 3.5, and row E of table 3: learned or sinusoidal).
# - P. Shaw, J. Uszkoreit, A. Vaswani (2018). Self-Attention with Relative Position Representations. arXiv 1803.02155.
# - C. Raffel et al. (2020). Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer. arXiv 1910.10683 (T5's numbers for distances).
# - J. Su, Y. Lu, S. Pan, A. Murtadha, B. Wen, Y. Liu (2021). RoFormer: Enhanced Transformer with Rotary Position Embedding. arXiv 2104.09864.
# - O. Press, N. A. Smith, M. Lewis (2022). Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation. arXiv 2108.12409 (ALiBi).
# - A. Haviv, O. Ram, O. Press, P. Izsak, O. Levy (2022). Transformer Language Models without Positional Encodings Still Learn Positional Information. arXiv 2203.16634.
# - A. Kazemnejad, I. Padhi, K. Natesan Ramamurthy, P. Das, S. Reddy (2023). The Impact of Positional Encoding on Length Generalization in Transformers. arXiv 2305.19466.
# - S. Chen, S. Wong, L. Chen, Y. Tian (2023). Extending Context Window of Large Language Models via Positional Interpolation. arXiv 2306.15595.

# %% [markdown] tags=["instructor"]
# **For instructors.** Let learners predict the four curves of section 6 before they run them; most expect RoPE to go on for ever. The window is the moment to ask what *relative* really promised. Common questions: why 10000 (the slowest
# hand must not come round within any text; any large number will do), why both sine and cosine (one alone cannot tell an angle from its mirror image, and the shift would be no rotation), why the last pairs hardly move (they carry what
# should not depend on place). Those who know complex numbers may write `turn` with them: the check accepts it. Expect `exponent i / width` and `restarts at 0` in the mistakes report. One run's
# figures, loss at place 32, at 128, at 128 with the window: none 1.9, 2.8, 2.0; sinusoidal 1.5, 4.0, 3.3; learned 1.5, 3.7, 3.3; RoPE 1.4, 1.8, 1.4. Restarting at 0 takes RoPE's loss on 32 words from 1.5 to 2.8. Without the factor √D in the other three, sinusoids win within the first 32 places: a fine example of a comparison that measures
# something else.
