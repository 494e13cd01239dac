# %% [markdown]
# # 06 · The feed-forward layer
#
# Attention brings together what belongs together, but it does not *do* anything with it. The other half of every block does: two matrices with a bend between them, applied to each token separately. It is the plainest part
# of a transformer and the largest, and a good deal of what a model knows is stored in it.
#
# **You will be able to**
#
# - say what attention cannot do, prove it in two lines, and show the layer that can;
# - write GELU, exactly and as GPT-2 does, the feed-forward layer, and its gated form SwiGLU at equal cost;
# - count its parameters, and say what share of a model they are;
# - read the layer as a soft dictionary, find out what a neuron of a trained model responds to and which words it promotes, and switch it off;
# - say from your own measurements what width and bend are worth, and what to make of *wide beats deep*.
#
# **Builds on** lessons 04 and 05 (attention). **Leads to** 07 (what holds the two halves together).
#
# **Time** about 80 minutes: what attention cannot do 8, the bend 14, widen, bend, narrow 13, what it costs 10, a soft dictionary 16, the gate 10, wide or deep 9. All cells together run for one to two minutes on one CPU core, mostly in
# sections 6 and 7. A GPU changes the times in section 7, and perhaps even which of two networks is the faster one.
#
# **Letters** B sequences in a batch, T tokens, D width of a token, F hidden width of the layer, N tokens of all sequences together, V words. (Many papers write $d$ for D and $d_{ff}$ or $H$ for F.)

# %% [markdown] tags=["instructor"]
# **For instructors: a plan.** 80 minutes as it stands. For 45: sections 1, 3, 4 and 5, with the activations given away by the line under *Stuck?*. Section 1 works best at the blackboard, with the class trying to find the numbers α, β and γ before you add up the rows. Let everybody start the training cell of section 5 while you draw the soft dictionary. Sections 6
# and 7 train some two dozen small models; run their cells before you talk about gates.

# %% tags=["setup"]
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors as small as ours gain nothing from a second thread

# %% tags=["tools"]
import html
import os
import re
import time

from graders.check import check
from tinytrans import GPT, PRESETS, fit, load, pick
from tinytrans.config import GPTConfig
from tinytrans.nn.attention import Attention
from tinytrans.nn.norms import layer_norm
from tinytrans.plots import curves, heat_map
from tinytrans.training.optim import adamw
from tinytrans.widgets import Explorer

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with fewer steps, for tests
device = pick()
print(f"running on {device}{', in quick mode' if quick else ''}")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.nn.feedforward import gelu`: from there on the notebook uses the library's version. Your points still come from your own
# cell, so come back to it.
#
# ## 1. What attention cannot do (8 minutes)
#
# Suppose that attention has brought two features together in one token's vector: $a = 1$ if the word *good* was there, else $-1$; $b = 1$ if the word *not* was there, else $-1$. Is the sentence friendly? *good* alone: yes. *not good*: no. *bad*: no. *not bad*: yes.
#
# | $a$ | $b$ | wanted |
# |---|---|---|
# | 1 | -1 | 1 |
# | 1 | 1 | -1 |
# | -1 | -1 | -1 |
# | -1 | 1 | 1 |
#
# What follows attention is a matrix, so try $f = \alpha a + \beta b + \gamma$ with any numbers. Add up the first and the last row: the $a$ and $b$ cancel, and $2 \gamma = 2$. Add up the two in the middle: they cancel as well, and $2 \gamma = -2$. It cannot be done, whatever the numbers and however much data there is.
# Nor does it help to stack several of them, because two matrices in a row are one:


# %%
X, W_1, W_2 = torch.randn(5, 8), torch.randn(8, 8), torch.randn(8, 8)
A_1, A_2 = torch.randn(5, 5).softmax(dim=-1), torch.randn(5, 5).softmax(dim=-1)  # two attention matrices
two_rounds = A_2 @ (A_1 @ X @ W_1) @ W_2
one_round = (A_2 @ A_1) @ X @ (W_1 @ W_2)
print("two rounds of attention are one:", torch.allclose(two_rounds, one_round, atol=1e-4))

cases = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, 1.0]])
friendly = torch.tensor([[1.0], [-1.0], [-1.0], [1.0]])
with_one = torch.cat([cases, torch.ones(4, 1)], dim=1)
best = torch.linalg.lstsq(with_one, friendly).solution
print("the best straight fit to the table:", (with_one @ best).flatten().round(decimals=4).abs().tolist())

# %% [markdown]
# The best that a linear function can do is to answer 0 every time. For *given* weights, attention is a weighted mean of linear views; the softmax bends where one looks, not what one sees there. Something must **bend** the numbers themselves. A function that does so is called an **activation function**, or a non-linearity.
#
# ## 2. The bend (14 minutes)
#
# The simplest bend is $\mathrm{relu}(x) = \max(0, x)$: let through what is positive, and nothing else. The original transformer uses it. It has one weakness. Left of 0 it is flat, and the gradient there is exactly 0: a neuron whose number is negative for all inputs gets no gradient any more and hardly ever recovers.
#
# Here is another idea. Let $x$ through by *chance*, the more likely the larger it is: with the probability that a standard normal number $N$ lies below it. What comes out on average is
#
# $$\mathrm{gelu}(x) = x \cdot P(N \le x) = \frac x2 \left(1 + \mathrm{erf}\!\left(\frac{x}{\sqrt 2}\right)\right),$$
#
# the **Gaussian error linear unit** (Hendrycks and Gimpel 2016). By hand: of all normal numbers half are below 0, 0.84 of them below 1, 0.16 below -1 and 0.023 below -2. So gelu(1) = 1 · 0.84 = 0.84, gelu(-1) = -1 · 0.16 = -0.16, and gelu(-2) = -2 · 0.023 = -0.046. It is a ReLU with a rounded corner, a small dip below 0, and a slope nearly everywhere.

# %% [markdown]
# **Exercise.** GELU, exactly.
#
# <details><summary>Hint 1</summary>`torch.erf` is the error function. It runs from -1 to 1; the probability runs from 0 to 1.</details>
# <details><summary>Hint 2</summary>The probability of being below x is (1 + erf(x / √2)) / 2. Mind that √2 *divides*, inside.</details>
# <details><summary>Hint 3</summary>x times that.</details>

# %% exercise="feedforward.gelu"
# from: tinytrans.nn.feedforward.gelu

# %% [markdown]
# When GELU was new, erf was slow on some machines, so the code of GPT-2 uses an approximation:
#
# $$\mathrm{gelu}(x) \approx \frac x2 \left(1 + \tanh\!\left(\sqrt{\tfrac{2}{\pi}} \left(x + 0.044715\, x^3\right)\right)\right).$$
#
# By hand, at $x = 1$: $\sqrt{2/\pi} = 0.7979$, times 1.044715 is 0.8336, its tanh 0.6824, and $0.5 \cdot 1.6824 = 0.8412$. The exact value is 0.8413. A trained model should be used with the version that it was trained with.

# %% [markdown]
# **Exercise.** GELU as in GPT-2.
#
# <details><summary>Hint 1</summary>`math.sqrt(2 / math.pi)` multiplies the whole bracket.</details>
# <details><summary>Hint 2</summary>The cube is `x**3`. The root times the bracket goes into `torch.tanh`.</details>
# <details><summary>Hint 3</summary>Half of x, times one plus that.</details>

# %% exercise="feedforward.gelu_tanh"
# from: tinytrans.nn.feedforward.gelu_tanh

# %%
x = torch.linspace(-4, 4, 81)
curves(
    {"ReLU": (x.tolist(), F.relu(x).tolist()), "GELU": (x.tolist(), gelu(x).tolist())},
    title="Two activation functions", x_label="x", y_label="what comes out",
)  # fmt: skip

# %%
fine = torch.linspace(-6, 6, 100_001, dtype=torch.float64)
gap, lowest = (gelu(fine) - gelu_tanh(fine)).abs(), gelu(fine).argmin()
print(f"the approximation is off by {gap.max():.5f} at most, at x = ±{abs(fine[gap.argmax()]):.2f}")
print(f"GELU's lowest point is {gelu(fine)[lowest]:.3f}, at x = {fine[lowest]:.2f}")
below = torch.tensor([-1.0], requires_grad=True)
for name, bend in (("ReLU", F.relu), ("GELU", gelu)):
    print(f"slope at -1: {torch.autograd.grad(bend(below).sum(), below)[0].item():.3f} with {name}")

# %% [markdown]
# ## 3. Widen, bend, narrow (13 minutes)
#
# One bend is not enough for much, so make many: a matrix $W_{up}$ (D, F) makes F views of the token, each of them is bent, and a matrix $W_{down}$ (F, D) mixes them into D numbers again (Vaswani et al. 2017, equation 2):
#
# $$\mathrm{FFN}(x) = \mathrm{act}(x W_{up} + b_{up})\, W_{down} + b_{down}, \qquad F = 4 D \text{ as a rule.}$$
#
# By hand, the table of section 1 with F = 2 and ReLU. The first hidden number should respond to *both words are there*, $\mathrm{relu}(a + b - 1)$; the second to *neither is there*, $\mathrm{relu}(-a - b - 1)$; and the result is $1 - 2\,(\text{first} + \text{second})$:
#
# | $a, b$ | $a + b - 1$ | first | $-a - b - 1$ | second | result |
# |---|---|---|---|---|---|
# | 1, -1 | -1 | 0 | -1 | 0 | **1** |
# | 1, 1 | 1 | 1 | -3 | 0 | **-1** |
# | -1, -1 | -3 | 0 | 1 | 1 | **-1** |
# | -1, 1 | -1 | 0 | -1 | 0 | **1** |
#
# What no linear function could do takes just two bends. The biases matter, too: they decide *where* a view bends. And nothing bends behind $W_{down}$: what the layer finds must be able to be negative.

# %% [markdown]
# **Exercise.** The feed-forward layer.
#
# <details><summary>Hint 1</summary>Tokens are rows: `x @ w_up` works for any number of axes in front.</details>
# <details><summary>Hint 2</summary>Each bias is added only where it is given. b_up comes before the activation, b_down at the very end.</details>
# <details><summary>Hint 3</summary>`activation` is a function: call it on the hidden numbers. There is no activation after w_down, and x is not added: that is lesson 07.</details>

# %% exercise="feedforward.feed_forward"
# from: tinytrans.nn.feedforward.feed_forward

# %%
w_up, b_up = torch.tensor([[1.0, -1.0], [1.0, -1.0]]), torch.tensor([-1.0, -1.0])
w_down, b_down = torch.tensor([[-2.0], [-2.0]]), torch.tensor([1.0])
for name, bend in (("the table", F.relu), ("nothing bends", lambda h: h)):
    print(f"{name}:", feed_forward(cases, w_up, w_down, b_up, b_down, activation=bend).flatten().tolist())

# %% [markdown]
# Where is the sentence in all this? Nowhere. The layer takes *one* vector. For a sentence of ten tokens it is applied ten times, with the same weights, and the tokens know nothing of each other. (Some lecture notes average the tokens' vectors first and send the mean through. That makes the drawing simpler, but no transformer does
# it.) Hence its full name, the **position-wise** feed-forward layer, and the division of labour in a block: attention *communicates*, this layer *processes*. Try it: replace a token's neighbours by strangers.

# %%
sentence = torch.randn(10, 16)
w_up, w_down = torch.randn(16, 64) / 4, torch.randn(64, 16) / 8
strangers = torch.randn(10, 16)
strangers[3] = sentence[3]
print(
    "token 3 among strangers is the same:",
    torch.equal(*(feed_forward(s, w_up, w_down)[3] for s in (sentence, strangers))),
)

# %% question="feedforward.token_wise"

# %% question="feedforward.only_here"

# %% [markdown] tags=["instructor"]
# **For instructors: questions on sections 2 and 3.** *Isn't the softmax of attention non-linear enough?* It decides how much of each value is taken; all numbers of a value are then multiplied by one and the same share (`only_here` asks for it). The sceptic in the class is right that two tokens and a softmax can be made to compute an *and*; it is a detour that costs a head. *Why 4?* Habit; section 7 measures it. *Do the biases matter?* In the table
# of section 3 they are indispensable; many models of today leave them out, since the norm in front has a shift or the stream has a constant direction. *Is it a convolution?* Yes, two of width 1.

# %% [markdown]
# ## 4. What it costs (10 minutes)
#
# Two matrices and two biases: $(D \cdot F + F) + (F \cdot D + D)$ parameters, whatever the length of the text. By hand, for D = 4096 and F = 4 D = 16,384: a matrix has 67,108,864 numbers, two have 134,217,728; the biases add 16,384 and 4,096. In all **134,238,208**, for one layer of one block.

# %% [markdown]
# **Exercise.** The count.
#
# <details><summary>Hint 1</summary>Each matrix has D times F numbers.</details>
# <details><summary>Hint 2</summary>A bias has as many numbers as come out of its matrix.</details>
# <details><summary>Hint 3</summary>The biases count only if `bias` is True: `(... if bias else 0)`.</details>

# %% exercise="feedforward.feed_forward_parameters"
# from: tinytrans.nn.feedforward.feed_forward_parameters

# %% [markdown]
# How much of a model is that? Attention has four matrices of $D^2$ numbers, the feed-forward layer two of $4 D^2$: $4 D^2$ against $8 D^2$, so two thirds of a block. In a whole model the share is smaller because of the embeddings. It is larger where heads share their keys and values, and where the layer is wider: Mistral 7B does both (its gated layer, section 6, has
# three matrices of $3.5 D^2$). We build three models on the device `meta`, where tensors have shapes but take no memory, and count.

# %%
mistral = GPTConfig(  # Jiang et al. 2023, table 1
    vocab_size=32_000, n_layers=32, d_model=4096, n_heads=32, n_kv_heads=8, d_ff=14_336,
    norm="rms", feedforward="swiglu", tie=False,
)  # fmt: skip
for name, config in (("GPT-2", PRESETS["gpt2"]), ("tales", PRESETS["tales"]), ("Mistral 7B", mistral)):
    with torch.device("meta"):
        model = GPT(config)
    sizes = {key: p.numel() for key, p in model.named_parameters()}
    layer = sum(n for key, n in sizes.items() if ".feedforward." in key)
    looks = sum(n for key, n in sizes.items() if ".attention." in key)
    whole = sum(sizes.values())
    shares = f"feed-forward {layer / whole:.1%} of all, {layer / (layer + looks):.1%} of the blocks"
    print(f"{name:10} {whole:13,} parameters: {shares}")
print(f"GPT-2's twelve layers by your count: {12 * feed_forward_parameters(768, 4 * 768):,}")

# %% question="feedforward.how_much"

# %% [markdown]
# ## 5. A soft dictionary (16 minutes)
#
# What is stored in all these numbers? Write the layer (without biases) neuron by neuron: let $k_i$ be *column* $i$ of $W_{up}$, and $v_i$ *row* $i$ of $W_{down}$. Then
#
# $$\mathrm{FFN}(x) = \sum_{i=1}^{F} \mathrm{act}(x \cdot k_i)\, v_i .$$
#
# You have met this form. $x$ is the query; the $k_i$ are **keys**, each compared with it by a dot product; the $v_i$ are **values**, each added to the extent that its key fits (Sukhbaatar et al. 2019; Geva et al. 2020). If all hidden numbers are 0 except for a single 1, then exactly one row of $W_{down}$ comes out: the entry has been looked up.
#
# | | attention | feed-forward layer |
# |---|---|---|
# | keys and values come from | the text that is being read | the weights: the same for every text |
# | how many | T, one for each token | F, one for each neuron |
# | fits become | shares that compete (softmax) | strengths, each on its own (ReLU, GELU) |
# | it is a memory of | this text | the training data |
#
# By hand, D = 2 and two neurons with ReLU: $k_1 = (1, 0)$, $v_1 = (0, 5)$, $k_2 = (-1, 1)$, $v_2 = (3, 3)$. For $x = (2, 1)$ the fits are 2 and -1; ReLU makes them 2 and 0, and the result is $2 \cdot (0, 5) = (0, 10)$.
#
# **What does a key look for?** Go through many texts and find the places where its neuron is largest: what these places have in common is what the neuron responds to. **What does a value say?** It is added to the token's vector, and at the end this vector is compared with one row for each word to make the logits. So compare the value itself with these rows: the
# words with the largest dot products are those that it makes more likely. (This ignores what later layers do with it, so it is most trustworthy for the last layer.)

# %% [markdown]
# **Exercises.** Read a neuron.
#
# <details><summary>Hint 1</summary>`hidden` has a row for each place and a column for each neuron; `w_down` has a row for each neuron.</details>
# <details><summary>Hint 2</summary>`tensor.topk(k)` gives the k largest, largest first: `.values` and `.indices`.</details>
# <details><summary>Hint 3</summary>`neuron_words`: `words @ w_down[neuron]` is one score for each word.</details>

# %% exercise="feedforward.neuron_triggers"
# from: tinytrans.nn.feedforward.neuron_triggers

# %% exercise="feedforward.neuron_words"
# from: tinytrans.nn.feedforward.neuron_words

# %% [markdown]
# Now we need a model to read: a small language model on the stories of lesson 04, word by word, with two blocks of the library's attention and your layer. (The norms and residuals are borrowed from lesson 07.) Its `kind` chooses the activation; sections 6 and 7 will need that.


# %%
def split(text: str) -> list[str]:
    """Text -> words and punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text)


T, D = 32, 48
stories = {
    part: [split(tale.text) for tale in load("tales", n=n, split=part)]
    for part, n in (("train", 200 if quick else 2000), ("validation", 20 if quick else 100))
}
words = sorted({word for texts in stories.values() for story in texts for word in story})
number = {word: i for i, word in enumerate(words)}


def numbered(texts: list[list[str]]) -> Tensor:
    """Stories -> pieces of T + 1 words, as numbers, one piece a row."""
    return torch.tensor(
        [[number[w] for w in text[i : i + T + 1]] for text in texts for i in range(0, len(text) - T, T)]
    )


train, test = numbered(stories["train"]).to(device), numbered(stories["validation"]).to(device)
print(f"{len(train)} pieces to train on, {len(test)} unseen ones, {len(words)} different words")


# %%
BENDS = {"relu": F.relu, "gelu": gelu, "none": lambda h: h}


class Layer(nn.Module):
    """A block: the library's attention, your feed-forward layer, each added to the stream."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind, self.attention = kind, Attention(D, 4, causal=True)
        shapes = {
            "deep": [(D, D)] * (2 * width // D),  # as many weights as two matrices of this width
            "swiglu": [(D, width), (D, width), (width, D)],
        }.get(kind, [(D, width), (width, D)] if width else [])
        self.weights = nn.ParameterList(torch.randn(shape) * (2 / shape[0]) ** 0.5 for shape in shapes)
        self.bias = nn.Parameter(torch.zeros(width if kind in BENDS else 0))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(layer_norm(x))
        return x + self.process(layer_norm(x)) if len(self.weights) else x

    def process(self, x: Tensor) -> Tensor:
        if self.kind == "swiglu":
            return swiglu(x, *self.weights)
        if self.kind == "deep":
            for weight in self.weights[:-1]:
                x = F.relu(x @ weight)
            return x @ self.weights[-1]
        return feed_forward(x, *self.weights, self.bias, activation=BENDS[self.kind])

    def hidden(self, x: Tensor) -> Tensor:
        """The F hidden numbers at every token, for a stream x (B, T, D) in front of this block."""
        x = x + self.attention(layer_norm(x))
        return BENDS[self.kind](layer_norm(x) @ self.weights[0] + self.bias)


class Writer(nn.Module):
    """Word numbers (B, T) -> logits of the next word (B, T, V)."""

    def __init__(self, kind: str = "relu", width: int = 4 * D) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(len(words), D), nn.Embedding(T, D)
        self.layers = nn.ModuleList(Layer(kind, width) for _ in range(2))
        self.head = nn.Linear(D, len(words))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.positions.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(layer_norm(x))


def loss(model: Writer, ids: Tensor) -> Tensor:
    """How surprised the model is by the next words, in nats a word."""
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def batch(step: int) -> Tensor:
    """The same 16 pieces for the same step."""
    luck = torch.Generator().manual_seed(step)
    return train[torch.randint(len(train), (16,), generator=luck).to(device)]


steps, seeds = (10, 1) if quick else (300, 3)
known: dict[tuple[str, int, int], tuple[Writer, float, float]] = {}


def trained(kind: str = "relu", width: int = 4 * D, seed: int = 0) -> tuple[Writer, float, float]:
    """A trained model, its loss on unseen stories, and the seconds that it took; each is trained once."""

    def rate(step: int) -> float:  # up in 30 steps, and down over the last third
        return min(1.0, (step + 1) / 30, 3 * (1 - step / steps))

    if (kind, width, seed) not in known:
        torch.manual_seed(seed)
        model, start = Writer(kind, width).to(device), time.perf_counter()
        optimizer = adamw(model, lr=4e-3)
        fit(model, batch, loss, steps=steps, optimizer=optimizer, schedule=rate, progress=False)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            known[kind, width, seed] = model.eval(), loss(model, test).item(), seconds
    return known[kind, width, seed]


def on_average(kind: str = "relu", width: int = 4 * D) -> tuple[float, float]:
    """The loss on unseen stories and the seconds of training, each the mean over a few seeds."""
    _, unseen, seconds = zip(*(trained(kind, width, seed) for seed in range(seeds)), strict=True)
    return sum(unseen) / seeds, sum(seconds) / seeds


writer, unseen, seconds = trained()
size = sum(p.numel() for p in writer.parameters())
print(f"{size} weights, {seconds:.0f} s: {unseen:.2f} nats a word on unseen stories")

# %% [markdown]
# We let it read the unseen stories and record all hidden numbers of its last layer. Each row of the picture is a word of one story, each column one of the first 24 neurons. Then choose a neuron with the slider: where was it largest, which word came next *there*, and which words does it promote?

# %%
with torch.no_grad():
    ids = test[:, :-1]
    stream = writer.layers[0](writer.words(ids) + writer.positions.weight)
    hidden = writer.layers[1].hidden(stream)  # (pieces, T, F)
flat, values = hidden.flatten(0, 1), writer.layers[1].weights[1].detach()
follows = test[:, 1:].flatten()  # the word that comes next, at every place


def before(place: int, n: int = 3) -> str:
    """The last n words up to a place."""
    piece, t = divmod(place, T)
    return " ".join(words[i] for i in ids[piece, max(0, t - n + 1) : t + 1])


def told_of(neuron: int, k: int = 8) -> str:
    """What a neuron responds to and which words it promotes, as HTML."""
    places, says = (
        neuron_triggers(flat, neuron, k).tolist(),
        neuron_words(values, writer.head.weight, neuron, k).tolist(),
    )
    cells = [(html.escape(before(p)), html.escape(words[follows[p]])) for p in places]
    lines = "".join(f"<tr><td>{place}</td><td>{following}</td></tr>" for place, following in cells)
    head = "<tr><th>largest after</th><th>next came</th></tr>"
    active, promoted = (flat[:, neuron] > 0).float().mean(), ", ".join(words[w] for w in says)
    told = f"neuron {neuron}, above 0 at {active:.0%} of all places; the words that it promotes:"
    return f"<p>{told} <b>{html.escape(promoted)}</b></p><table>{head}{lines}</table>"


story = [words[i] for i in ids[0, :20]]
picture = heat_map(
    hidden[0, :20, :24],
    story,
    title="hidden numbers, last layer",
    row_label="word",
    column_label="neuron",
)
Explorer(picture, [(str(n), n) for n in range(24)], told_of, "neuron")

# %% [markdown]
# The left column of a good neuron has a theme (a word, the end of a phrase, a kind of thing), and now and then the words that it promotes continue it. Not every neuron has a theme that we can name; many have two. Geva et al. read hundreds of them in a large model: lower layers responded to words and word pairs, upper
# ones to topics and meanings. Our stories are simple and our model has two layers, so expect words.
#
# Nice examples prove nothing, so let us count over all neurons: at a neuron's ten strongest places, how often is the word that *really* came next among the ten words that it promotes? And as a control: how often is it among the ten words of another neuron?

# %%
places = torch.stack([neuron_triggers(flat, n, 10) for n in range(4 * D)])  # (F, 10)
says = torch.stack([neuron_words(values, writer.head.weight, n, 10) for n in range(4 * D)])  # (F, 10)
came = follows[places]
for name, said in (("its own words", says), ("another neuron's", says.roll(1, 0))):
    hits = (came[:, :, None] == said[:, None, :]).any(dim=2).float().mean()
    print(f"the next word is among {name}: {hits:.1%}")

# %% [markdown]
# More than a quarter (28 % in our run), against a tenth: key and value belong together. The layer has learned *when you see this, say that*. (In quick mode it has had no time to.)
#
# **Break it on purpose.** Switch single neurons off by setting their row of $W_{down}$ to 0, and see where it hurts: at the places where the neuron was largest, or everywhere?


# %% tags=["measured"]
@torch.no_grad()
def surprise() -> Tensor:
    """The loss at every place of the unseen stories."""
    return F.cross_entropy(writer(ids).flatten(0, 1), follows, reduction="none")


whole, row = surprise(), writer.layers[1].weights[1].data
worse = []
for n in range(0, 4 * D, 96 if quick else 8):  # every eighth neuron
    kept = row[n].clone()
    row[n] = 0
    change = surprise() - whole
    row[n] = kept
    worse.append((change[neuron_triggers(flat, n, 20)].mean().item(), change.mean().item()))
at_triggers, everywhere = (sum(column) / len(worse) for column in zip(*worse, strict=True))
print(f"one neuron less costs {at_triggers:.3f} nats where it is strongest, {everywhere:.4f} on average")

# %% [markdown]
# Where a neuron is strong, switching it off costs many times what it costs elsewhere (about twenty times as much in our run): its work is local. But the cost is small even there. Knowledge is spread over many neurons, and the others make up for a missing one.

# %% [markdown] tags=["instructor"]
# **For instructors: reading neurons.** Give each pair of learners eight neurons and five minutes, then collect: which have a theme, which two, which none? Then show the count over all neurons, as a cure for seeing patterns in anything. A variant: rank the neurons by how far their own words beat another's, and look at the best; or read the first layer instead of the last
# (`writer.layers[0]`): its triggers are as clear, its words less so, because another block follows. *Does one neuron hold one fact?* No: the knock-out shows how little most of them matter alone.

# %% [markdown]
# ## 6. The gate (10 minutes)
#
# An ordinary neuron takes one view of the token and bends it. Dauphin et al. (2016) let two views meet: one is multiplied by the other, which opens and closes it like a **gate**. Shazeer (2020) tried this in transformers with several activations for the gate, and found nearly all of them a little better than ReLU and GELU. "We offer no
# explanation", he writes, "as to why these architectures seem to work; we attribute their success, as all else, to divine benevolence." His **SwiGLU** is what Llama, Mistral and most models of today use:
#
# $$\mathrm{SwiGLU}(x) = \big(\mathrm{silu}(x W_{gate}) * x W_{up}\big)\, W_{down}, \qquad \mathrm{silu}(x) = x\, \sigma(x) = \frac{x}{1 + e^{-x}} .$$
#
# silu, also called Swish, is a third activation, close to GELU. By hand: silu(1) = 1 / (1 + 0.37) = 0.73, silu(-1) = -0.27. A gate of 1 with a view of 2 gives $0.73 \cdot 2 = 1.46$; with a gate of -10, silu(-10) = -0.0005, so whatever the view is, next to nothing gets through.

# %% [markdown]
# **Exercises.** The activation and the gated layer.
#
# <details><summary>Hint 1</summary>`torch.sigmoid` is σ.</details>
# <details><summary>Hint 2</summary>`swiglu`: which of the two views is bent? Look at the names.</details>
# <details><summary>Hint 3</summary>The product is number by number, `*`; then w_down.</details>

# %% exercise="feedforward.silu"
# from: tinytrans.nn.feedforward.silu

# %% exercise="feedforward.swiglu"
# from: tinytrans.nn.feedforward.swiglu

# %% [markdown]
# Now there are *three* matrices. For a fair comparison with the plain layer the gated one must be narrower: $3 D F' = 2 D F$, so $F' = \tfrac23 F$; with F = 4 D that is the well-known $\tfrac83 D$. As this is seldom a whole number, let alone a convenient one, it is rounded up to a multiple of something that suits the hardware. By hand, for Llama 7B: F = 4 · 4096 = 16,384,
# two thirds are 10,922.67, the next multiple of 256 is $43 \cdot 256 = 11{,}008$. That is the number in its config.

# %% [markdown]
# **Exercise.** The width of a gated layer.
#
# <details><summary>Hint 1</summary>How many times does `multiple` fit into two thirds of d_ff? If there is a remainder, it takes one more.</details>
# <details><summary>Hint 2</summary>`math.ceil(a / b)` is the number of b's that it takes to reach a. Then multiply by `multiple`.</details>
# <details><summary>Hint 3</summary>Round only once, at the end: if you first cut two thirds down to a whole number, a remainder may be lost.</details>

# %% exercise="feedforward.gated_width"
# from: tinytrans.nn.feedforward.gated_width

# %% tags=["measured"]
for kind, width in (("relu", 4 * D), ("gelu", 4 * D), ("swiglu", gated_width(4 * D))):
    size = sum(p.numel() for p in trained(kind, width)[0].parameters())
    losses = sorted(trained(kind, width, seed)[1] for seed in range(seeds))
    told = f"{on_average(kind, width)[0]:.3f} nats a word on unseen stories"
    print(f"{kind:7} F = {width}, {size} weights: {told} ({losses[0]:.2f} to {losses[-1]:.2f})")

# %% [markdown]
# Each is the mean of three runs with different random weights, in brackets the best and the worst of them. At equal size and after equally many steps the differences are small, here less than a tenth of a nat, and runs of one kind differ from each other by as much; in Shazeer's tables, too, they are a few hundredths. Three small runs cannot tell which is best; people change such a thing because over many large runs it has been found
# to help a little.
#
# ## 7. Wide or deep? (9 minutes)
#
# **How wide?** F = 4 D is a habit, found by trial. With 2 D there are few weights and few neurons; with 8 D the matrices get large, and each new weight brings less. And what if there is no layer at all, or one that does not bend?

# %%
widths = [0, 1, 2, 4, 8]
by_width = [on_average("relu", n * D)[0] for n in widths]
straight, _ = on_average("none")
for n, unseen in zip(widths, by_width, strict=True):
    weights = 2 * feed_forward_parameters(D, n * D, False)
    print(f"F = {n} D: {unseen:.3f} nats a word, {weights:6,} weights in the matrices of the two layers")
print(f"F = 4 D, nothing bends: {straight:.3f}")
curves(
    {"bent by ReLU": (widths, by_width), "nothing bends, F = 4 D": ([0, 8], [straight, straight])},
    title="How wide?", x_label="F / D (0 = no layer)", y_label="loss on unseen stories",
)  # fmt: skip

# %% [markdown]
# Wider is better, but each further weight brings less: the 37,000 new weights from 4 D to 8 D bring less than the first 9,000 did. And the bend? A layer of 4 D without one is about as good as a layer with one and a quarter of the width. It is better than none, because one more matrix helps even if nothing bends; but about
# half of what the layer brings is due to the bend. (In quick mode all are alike.)
#
# **Or deep instead?** Instead of two matrices of 4 D² weights each, one could take eight layers of D² each, one after another, with a bend between any two. As many weights, as many multiplications, and more bends in a row. So why does nobody do it?

# %% tags=["measured"]
(wide, wide_seconds), (deep, deep_seconds) = on_average("relu"), on_average("deep")
print(f"wide: {wide:.3f} nats a word in {wide_seconds:.1f} s")
print(f"deep: {deep:.3f} nats a word in {deep_seconds:.1f} s")


@torch.no_grad()
def milliseconds(work, repeats: int = 7) -> float:
    """The shortest of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def through(x: Tensor, matrices: list[Tensor]) -> Tensor:
    """One matrix after the other, a bend between any two."""
    for matrix in matrices[:-1]:
        x = F.relu(x @ matrix)
    return x @ matrices[-1]


side = 256
pair = [torch.randn(side, 4 * side, device=device) / 16, torch.randn(4 * side, side, device=device) / 32]
chain = [torch.randn(side, side, device=device) / 16 for _ in range(8)]
for n in (1, 8, 64, 512):
    x = torch.ones(n, side, device=device)
    first, second = (milliseconds(lambda x=x, ms=matrices: through(x, ms)) for matrices in (pair, chain))
    both = f"wide {first:6.3f} ms, deep {second:6.3f} ms"
    print(f"{n:3} tokens at once: {both}, deep takes {second / first:.2f} times as long")

# %% [markdown]
# There are two answers. The first is the loss: eight layers in a row without residuals (lesson 07) learn badly, so badly that the model is no better than the one that has no such layer at all. With residuals of their own they would be blocks. That is how a transformer is made deep, and there each new layer comes with another look at the neighbours.
#
# The second is the time, and it depends on the machine. *Wide beats deep on hardware*, lecture notes say. On one CPU core, where nothing runs in parallel anyway, you will hardly see it: the two are close together, and the chain may even be ahead, because its small matrices and few hidden numbers stay in the
# processor's cache. The sentence is about GPUs. There thousands of cores have to be kept busy, and a chain of eight small products, each of which waits for the one before, leaves most of them idle unless there are very many tokens: the trouble of the recurrent network (lesson 03) once more. That is why, when more weights are wanted, one makes the layer wider
# rather than stacking more of them. If you have a GPU, run the cell there and compare.

# %% [markdown] tags=["instructor"]
# **For instructors: what the mistakes report tells.** `gelu: erf without the root` and `gelu: half is missing` are slips in reading a formula: have them evaluate their own at x = 1 by hand. `feed_forward: residual inside` anticipates lesson 07; say so kindly. `feed_forward: the mean of the tokens` comes from drawings of the layer under a whole sentence. `swiglu: silu on the other branch` is harmless in
# a new model and fatal with loaded weights. `gated_width: eight thirds`: two conventions, of D or of F. `neuron_triggers: a place's neurons` and `neuron_words: a column of W_down`: rows and columns; let them write down the shapes, what a row *is*, before they index. On one core the times of section 7 contradict the sentence that everybody has read: let learners explain why, and let somebody with a GPU read out theirs.

# %% question="feedforward.wide_or_deep"

# %% [markdown]
# ## 8. What to watch out for
#
# | you see | look at |
# |---|---|
# | a model that learns, but less well than one of its size should | the activation: none, or one that never bends |
# | a trained model's outputs differ slightly, in the fourth digit | GELU by tanh instead of the exact one, or the reverse |
# | a trained model with a gated layer gives nonsense | gate and up exchanged |
# | half as many parameters again as planned | SwiGLU with the width of the plain layer |
# | a result that depends on other tokens | something before the layer, or a mean or a softmax inside it |
# | hidden numbers that are 0 for all inputs | dead neurons: ReLU with too large a learning rate, a bias far below 0 |
# | a count that is off by a few thousand | the biases: F and D of them |
#
# <!-- pitfalls: feedforward -->
#
# ## What was simplified
#
# - Comparing values with the head ignores the norm in front of it and everything that later layers do; it is a look through a keyhole. A neuron rarely means one thing: there are more features than neurons, and they share (Elhage et al. 2022).
# - Where a fact sits in a large model, and whether one can change it there, is a field of its own (Meng et al. 2022).
# - Today's large models often have many feed-forward layers side by side, of which each token uses only a few: mixtures of experts (Shazeer et al. 2017).
# - Three seeds, one small task: with others, neighbouring lines in sections 6 and 7 may change places; the large differences stay.
#
# ## Where this lives in tinytrans
#
# `tinytrans/nn/feedforward.py` holds what you wrote, under the same names; `FeedForward` and `SwiGLU` are the modules, `ACTIVATIONS` and `FEEDFORWARDS` the tables from which `GPTConfig(feedforward="swiglu")` chooses.
#
# ## References
#
# - A. Vaswani et al. (2017). Attention Is All You Need. arXiv 1706.03762 (section 3.3).
# - D. Hendrycks, K. Gimpel (2016). Gaussian Error Linear Units. arXiv 1606.08415.
# - P. Ramachandran, B. Zoph, Q. V. Le (2017). Searching for Activation Functions. arXiv 1710.05941 (Swish).
# - Y. N. Dauphin, A. Fan, M. Auli, D. Grangier (2016). Language Modeling with Gated Convolutional Networks. arXiv 1612.08083 (gated linear units).
# - N. Shazeer (2020). GLU Variants Improve Transformer. arXiv 2002.05202.
# - S. Sukhbaatar, E. Grave, G. Lample, H. Jégou, A. Joulin (2019). Augmenting Self-attention with Persistent Memory. arXiv 1907.01470.
# - M. Geva, R. Schuster, J. Berant, O. Levy (2020). Transformer Feed-Forward Layers Are Key-Value Memories. arXiv 2012.14913.
# - N. Elhage et al. (2022). Toy Models of Superposition. arXiv 2209.10652.
# - K. Meng, D. Bau, A. Andonian, Y. Belinkov (2022). Locating and Editing Factual Associations in GPT. arXiv 2202.05262.
# - N. Shazeer et al. (2017). Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer. arXiv 1701.06538.
# - A. Q. Jiang et al. (2023). Mistral 7B. arXiv 2310.06825. H. Touvron et al. (2023). LLaMA. arXiv 2302.13971.
