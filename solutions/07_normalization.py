# %% [markdown]
# # 07 · Normalisation and the residual stream
#
# Attention (04, 05) and the feed-forward layer (06) do the computing. Two small things around them let us stack dozens of them: an addition and
# a norm. Where exactly the norm stands can decide whether a deep model learns at all: you will see one and the same model learn or fail to learn
# because of that alone.
#
# **You will be able to**
#
# - say why signals and gradients vanish or explode with depth, and how the residual connection changes that;
# - write LayerNorm, RMSNorm and BatchNorm, and explain why text is not normed over the batch;
# - build post-norm and pre-norm layers, and stacks of them, and measure how strongly the loss pulls at each layer;
# - explain why post-norm needs a warm-up, from a run of your own;
# - put dropout where it belongs.
#
# **Builds on** lesson 04 (attention, the causal mask) and lesson 06 (the feed-forward layer). **Leads to** 11 (training whole transformers).
#
# **Time** about 90 minutes: deep is hard 6, the stream 10, LayerNorm 14, RMSNorm 7, the batch 13, before or after 13, the pull at each layer 10, warm-up 10,
# dropout 7. All cells together run for about 20 seconds on one CPU core. A GPU changes nothing: everything here is small.
#
# **Letters** B sequences in a batch, T tokens, D width of a token, F hidden width of the feed-forward layer, L layers, V words; $\mu$ a mean, $\sigma^2$ a variance.

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

from graders.check import check
from tinytrans import fit, load, pick
from tinytrans.nn.attention import Attention
from tinytrans.plots import curves
from tinytrans.widgets import Explorer

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with fewer steps, for tests
device = pick()
print(f"running on {device}{', in quick mode' if quick else ''}")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.nn.norms import layer_norm`: from there on the notebook uses the library's version. Your points still come from your own
# cell, so come back to it.

# %% [markdown] tags=["instructor"]
# **For instructors: planning.** Sections 1 to 3 and 6 to 7 are the core, about 55 minutes. BatchNorm (5) can be homework; it is asked for because every learner meets it elsewhere and
# because both of its modes are instructive to get wrong. Section 8 trains four small models: the time is best spent on predicting the outcome.

# %% [markdown]
# ## 1. Deep is hard (6 minutes)
#
# Take the feed-forward layer of lesson 06, $f(x) = \mathrm{relu}(x W_{up}) W_{down}$, and put 32 of them one after another. Each has random weights, drawn so that a layer
# keeps the size of what goes through it; then we try 0.7 times and 1.4 times these weights. By hand: a layer has two matrices, so the size is multiplied by $0.7^2 = 0.49$, and after
# 32 layers by $0.49^{32} \approx 10^{-10}$; or by $1.4^2 = 1.96$ and $1.96^{32} \approx 2 \cdot 10^9$. Is it really like that?


# %%
def random_layers(L: int, D: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """w_up (L, D, 4 D) and w_down (L, 4 D, D) of layers that, with scale 1, keep the size of a vector."""
    generator = torch.Generator().manual_seed(seed)
    w_up = torch.randn(L, D, 4 * D, generator=generator) / D**0.5
    w_down = torch.randn(L, 4 * D, D, generator=generator) / (2 * D) ** 0.5  # ReLU lets half through
    return scale * w_up, scale * w_down


def sizes(layer, scale: float, L: int = 32, D: int = 64) -> tuple[list[float], list[float]]:
    """The size of a number of the stream, and of its gradient, before each layer and after the last."""
    streams = [torch.randn(128, D, generator=torch.Generator().manual_seed(1)).requires_grad_()]
    for up, down in zip(*random_layers(L, D, scale), strict=True):
        streams.append(layer(streams[-1], up, down))
        streams[-1].retain_grad()
    streams[-1].backward(torch.randn(128, D, generator=torch.Generator().manual_seed(2)))
    signal = [s.pow(2).mean().sqrt().item() for s in streams]
    return signal, [s.grad.pow(2).mean().sqrt().item() for s in streams]


def plain(x: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """A layer that replaces the stream."""
    return F.relu(x @ w_up) @ w_down


depths = range(33)
by_scale = {scale: sizes(plain, scale) for scale in (0.7, 1.0, 1.4)}
for scale, (signal, gradient) in by_scale.items():
    print(f"weights × {scale}: signal at the end {signal[-1]:.1e}, gradient at input {gradient[0]:.1e}")
curves(
    {f"weights × {scale}": (depths, gradient) for scale, (_, gradient) in by_scale.items()},
    title="Gradient in a plain stack of 32 layers",
    x_label="layer (0 = input)",
    y_label="size of the gradient",
    log_y=True,
)

# %% [markdown]
# The signal dies or explodes on its way up, the gradient on its way down. Only one scale works, and its margin is narrow: with weights times 0.9 or 1.1 the
# 32 layers already make a factor of $0.81^{32} = 0.001$ or $1.21^{32} = 446$. And training moves the weights. The
# reason is the chain rule: the gradient of the input is a **product** of the layers' derivatives, $J_L \cdots J_2 J_1$, and a product of many factors is either
# next to nothing or enormous. In a recurrent network the same happens along time (lesson 03).
#
# An activation that goes flat makes it worse. The slope of tanh is 1 at 0, 0.42 at 1 and 0.0002 at 5: a layer whose inputs have grown to ±5 lets through next to nothing.
# That is another reason to keep signals near 1.
#
# ## 2. A stream to add to (10 minutes)
#
# Let each layer *add* to its input instead of replacing it (He et al. 2015):
#
# $$x_{l+1} = x_l + f_l(x_l).$$
#
# The $x_l$ are called the **residual stream**: it runs from the embedding to the last layer, and every layer reads from it and adds a correction. (The name comes from $f(x) = x_{l+1} - x_l$,
# the residue that is left to learn. Where nothing needs to be done, $f = 0$ is easier to learn than $f(x) = x$.)
#
# What about the gradient? The derivative of one layer is $I + J$, so that two of them give
#
# $$(I + J_2)(I + J_1) = I + J_1 + J_2 + J_2 J_1 .$$
#
# By hand, with numbers instead of matrices, let $J_1 = J_2 = 0.5$. The plain network has the factor $0.5 \cdot 0.5 = 0.25$. With residuals it is $1.5 \cdot 1.5 = 2.25$, which is
# $1 + 0.5 + 0.5 + 0.25$. Each layer is a fork, and the gradient goes both ways. Among the $2^L$ ways back there is one that passes through no layer at all: $I$, the **highway**. It cannot vanish.


# %%
def residual(x: Tensor, w_up: Tensor, w_down: Tensor) -> Tensor:
    """A layer that adds to the stream."""
    return x + F.relu(x @ w_up) @ w_down


for scale in (0.1, 0.7, 1.0, 1.4):
    (signal, gradient), (_, lost) = sizes(residual, scale), sizes(plain, scale)
    told = f"gradient at the input {gradient[0]:8.1e} with residuals, {lost[0]:8.1e} without"
    print(f"weights × {scale}: {told}; signal at the end {signal[-1]:.1e}")

# %% [markdown]
# The gradient no longer vanishes, even with weights of a tenth. But look at the other side: signal and gradient now *explode*, since each layer adds something as large as
# its input is. The stream doubles its variance at every layer (with scale 1), so after 32 layers its numbers are $2^{32/2} = 65{,}536$ times as large. Something must keep the layers' inputs at one size. That is the job of the norm.

# %% question="block.highway"

# %% [markdown]
# ## 3. LayerNorm (14 minutes)
#
# Take one token's vector $x = (x_1, \dots, x_D)$. Subtract its mean and divide by its standard deviation: whatever size it had before, it now has mean 0 and variance 1 (Ba et al. 2016):
#
# $$\mu = \frac1D \sum_i x_i, \qquad \sigma^2 = \frac1D \sum_i (x_i - \mu)^2, \qquad y_i = \frac{x_i - \mu}{\sqrt{\sigma^2 + \epsilon}} \, w_i + b_i .$$
#
# By hand, with $x = (1, 3, 3, 9)$: the mean is 4, the deviations are $(-3, -1, -1, 5)$, their squares 9, 1, 1, 25 have the mean $36 / 4 = 9$. So $\sigma = 3$ and
# $y = (-1, -\tfrac13, -\tfrac13, \tfrac53)$. The vector $10 x + 7$ gives the same $y$: LayerNorm forgets shift and scale.
#
# - **Which numbers?** The D numbers of *one token*, the embedding axis. No other token and no other sentence takes part.
# - **Divided by D**, not by D - 1: this is not an estimate from a sample; the D numbers are all there are.
# - **ε**, a small number such as $10^{-5}$, stands *under* the root. Where all numbers of a vector are equal, it saves us from dividing 0 by 0.
# - **Gain $w$ and shift $b$**, D numbers each, are learned. They start at 1 and 0 and let the layer undo what the norm has done, where that helps.
#
# And backwards? $y$ contains a division by $\sigma$, so the gradient is divided by $\sigma$ as well: a stream that has grown ten times as large gets a tenth of the gradient. The norm damps
# an explosion. Keep this in mind for section 6.

# %% [markdown]
# **Exercise.** LayerNorm.
#
# <details><summary>Hint 1</summary>`mean(dim=-1)` drops the axis; with `keepdim=True` it stays as an axis of size 1, so that you can subtract.</details>
# <details><summary>Hint 2</summary>Subtract the mean first, then square, then take the mean again: that is the variance. (`x.var` divides by D - 1 unless told otherwise.)</details>
# <details><summary>Hint 3</summary>`weight` and `bias` may be None, each independently of the other. First the gain, then the shift, each only if it is given.</details>

# %% exercise="norms.layer_norm"
# from: tinytrans.nn.norms.layer_norm

# %% [markdown]
# The example above, and what we claimed about it:

# %%
x = torch.tensor([1.0, 3.0, 3.0, 9.0])
print("x          ", layer_norm(x))
print("10 x + 7   ", layer_norm(10 * x + 7))
steep = x.clone().requires_grad_()
for factor in (1.0, 10.0):
    stretched = factor * steep
    (slope,) = torch.autograd.grad(layer_norm(stretched)[0], stretched)
    print(f"gradient at {factor:2.0f} x: size {slope.norm():.4f}")

# %% [markdown]
# ## 4. RMSNorm (7 minutes)
#
# Is it worth subtracting the mean? Zhang and Sennrich (2019) found that the division is what matters. The **root mean square** norm leaves the rest out:
#
# $$y_i = \frac{x_i}{\sqrt{\frac1D \sum_j x_j^2 + \epsilon}} \, w_i .$$
#
# By hand, the same vector: the squares of $(1, 3, 3, 9)$ are 1, 9, 9, 81 with the mean $100 / 4 = 25$, so $y = (0.2, 0.6, 0.6, 1.8)$. The direction stays as it was; only the length is set, to $\sqrt D$.
# A LayerNorm (without gain and shift) is nothing but the RMSNorm of a vector whose mean has been subtracted. Llama, Mistral and most open models today use RMSNorm: it is a little
# cheaper, has no shift, and trains as well.

# %% [markdown]
# **Exercise.** RMSNorm.
#
# <details><summary>Hint 1</summary>What is left of your `layer_norm` when you strike out the mean?</details>
# <details><summary>Hint 2</summary>The *mean* of the squares, not their sum: the size must not depend on D.</details>
# <details><summary>Hint 3</summary>ε goes under the root, with the mean of the squares; the gain comes last.</details>

# %% exercise="norms.rms_norm"
# from: tinytrans.nn.norms.rms_norm

# %%
print("RMSNorm of x          ", rms_norm(x))
print("RMSNorm of x - mean(x)", rms_norm(x - x.mean()))
print("LayerNorm of x        ", layer_norm(x))

# %% [markdown]
# ## 5. Why not over the batch? (13 minutes)
#
# Before LayerNorm there was **batch normalisation** (Ioffe and Szegedy 2015), and image networks still use it. It takes the mean and variance of one *feature* over all N examples of the batch: down
# the columns, where LayerNorm goes along the rows.
#
# When the model is used there may be just one example, and no batch to take a mean of. So during training one keeps a **running** mean and variance, which move a little toward those of each batch:
#
# $$\text{running} \leftarrow (1 - m) \cdot \text{running} + m \cdot \text{batch}, \qquad m = 0.1 .$$
#
# By hand: one feature, two examples 1 and 3. Mean 2, variance 1, so $y = (-1, 1)$. A running mean of 0 becomes $0.9 \cdot 0 + 0.1 \cdot 2 = 0.2$. A running variance of 1 becomes
# $0.9 \cdot 1 + 0.1 \cdot 2 = 1.1$: here the variance is divided by $N - 1 = 1$, because it is an estimate for examples that were not seen.

# %% [markdown]
# **Exercise.** BatchNorm, for contrast (without gain and shift).
#
# <details><summary>Hint 1</summary>Outside training it is one line, and the running statistics are returned as they came.</details>
# <details><summary>Hint 2</summary>In training mean and variance are over `dim=0`. Two variances: divided by N for the batch itself, by N - 1 for the running one.</details>
# <details><summary>Hint 3</summary>Make new tensors for the running statistics, and `detach` what goes into them: no gradient should flow from one batch into the next.</details>

# %% exercise="norms.batch_norm"
# from: tinytrans.nn.norms.batch_norm

# %% [markdown]
# For text, put all tokens of a batch into the rows: N = B · T. Then watch what becomes of *one and the same* sentence of 5 tokens when its company changes, and when one of its later tokens does.

# %%
D = 16
sentence = torch.randn(5, D)
zero, one = torch.zeros(D), torch.ones(D)


def over_batch(rows: Tensor) -> Tensor:
    """BatchNorm in training: the rows (N, D) normed over all tokens."""
    return batch_norm(rows, zero, one, True)[0]


changed = sentence.clone()
changed[4] = 3 * torch.randn(D)  # the last token is another one
situations = {
    "beside 20 other tokens": torch.cat([sentence, torch.randn(20, D) + 1]),
    "beside 20 of padding": torch.cat([sentence, torch.zeros(20, D)]),
    "its 5th token replaced": changed,
}
for name, rows in situations.items():
    over = [(norm(rows)[:4] - norm(sentence)[:4]).abs().max().item() for norm in (over_batch, layer_norm)]
    print(f"{name}: four tokens move by {over[0]:.2f} with BatchNorm, {over[1]:.2f} with LayerNorm")

# %% [markdown]
# Three faults at once. What a token becomes depends on **strangers** in the batch; on how much **padding** there is, which depends on the strangers' lengths; and on **later tokens** of its own
# sentence: through the mean, the future leaks past every causal mask.
#
# And in use? Then the running statistics of the whole training stand in for the batch. But at the start of a text that is being written there is a single token, and no training batch ever looked like that.
#
# *Could one leave the length out of it* and norm each position separately, over the B sentences only? Then padding does no harm and the future stays hidden. But only long texts reach
# a far position. Count how many are left in a batch of 16 real stories:


# %%
def split(text: str) -> list[str]:
    """Text -> words and punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text)


stories = [split(tale.text) for tale in load("tales", n=2000)]
lengths = torch.tensor([len(story) for story in stories])
for position in (0, 100, 120, 130, 140, 150):
    reached = (lengths[:1600].view(100, 16) > position).sum(dim=1).float()  # in each of 100 batches
    mean, worst = reached.mean(), int(reached.min())
    print(f"position {position:3}: {mean:4.1f} of 16 stories on average, {worst} in the worst batch")

# %% [markdown]
# The variance of two numbers says next to nothing, that of one number is 0, and a position that training never reached has none at all. There is one more, less known cost: when a batch is split over several machines, its statistics have to be
# collected from all of them, at each norm of each layer, while everyone waits. A LayerNorm needs one token and nobody else.

# %% question="norms.batch_for_text"

# %% question="norms.regularises"

# %% [markdown] tags=["instructor"]
# **For instructors: questions that come here.** *Don't residuals alone stop vanishing gradients?* They do at the start; sections 6 and 8 show what a norm after the addition takes away again.
# *Which is better, then?* Pre-norm is easier to train deep, post-norm, where it trains at all, can end better (Liu et al. 2020, arXiv 2004.08249); the original used it. Do not let the class leave with "pre-norm is better" alone.
# *Is ε important?* Only where a vector is constant: a row of padding, a dead feature. Then it is the difference between 0 and NaN.

# %% [markdown]
# ## 6. Before or after? (13 minutes)
#
# A stream and a norm: in which order? There are two possibilities.
#
# $$\begin{aligned} \text{post-norm (Vaswani et al. 2017):} \quad & \mathrm{norm}(x + f(x)) \\ \text{pre-norm (GPT-2; Xiong et al. 2020):} \quad & x + f(\mathrm{norm}(x)) \end{aligned}$$
#
# **Post-norm** norms the stream itself, after every addition. **Pre-norm** norms only what the sublayer reads; nothing blocks the stream. By hand, with $x = (1, 3)$ and an $f$ that puts twice the second number
# (if it is positive) in the first place:
#
# | | post-norm | pre-norm |
# |---|---|---|
# | what f reads | $x = (1, 3)$ | $\mathrm{norm}(x) = (-1, 1)$ |
# | what f adds | $(6, 0)$ | $(2, 0)$ |
# | the sum | $(7, 3)$ | $(3, 3)$ |
# | the stream after it | $\mathrm{norm}(7, 3) = (1, -1)$ | $(3, 3)$ |
#
# A block has two sublayers, attention and feed-forward, and each gets its own addition and its own norm, with gains of its own. Below, f is the feed-forward sublayer; attention is attached in just the same way, as section 8 does.

# %% [markdown]
# **Exercise.** A post-norm layer.
#
# <details><summary>Hint 1</summary>f is two matrices with a ReLU (`F.relu`) in between.</details>
# <details><summary>Hint 2</summary>f reads the stream as it is; the sum of both is normed.</details>
# <details><summary>Hint 3</summary>gain and shift go to your `layer_norm`.</details>

# %% exercise="block.post_norm_layer"
# from: tinytrans.nn.block.post_norm_layer

# %% [markdown]
# **Exercise.** A pre-norm layer.
#
# <details><summary>Hint 1</summary>The same parts, but now f reads the normed stream.</details>
# <details><summary>Hint 2</summary>To what is its output added: to x, or to the norm of x?</details>
# <details><summary>Hint 3</summary>When f adds nothing, x must come out exactly as it went in.</details>

# %% exercise="block.pre_norm_layer"
# from: tinytrans.nn.block.pre_norm_layer

# %% [markdown]
# What do the norms do to the stack of section 1? The weights may be too large or too small, as they were there:

# %%
places = {"pre-norm": pre_norm_layer, "post-norm": post_norm_layer}
for name, layer in places.items():
    for scale in (0.7, 1.0, 1.4):
        signal, gradient = sizes(layer, scale)
        told = f"signal at the end {signal[-1]:5.1f}, gradient at the input {gradient[0]:5.1f}"
        print(f"{name:9} weights × {scale}: {told}")

# %% [markdown]
# Where section 1 had ten powers of ten, there is now hardly one. Both places cure the explosion. So what is the difference? Follow one token's vector through the layers: how much of the *original* is still in the stream? As a measure we take the cosine of
# $x_0$ and $x_l$.


# %%
def remaining(layer, L: int = 32, D: int = 64) -> list[float]:
    """The cosine between the stream after each layer and at the start, mean over 128 tokens."""
    x = start = torch.randn(128, D, generator=torch.Generator().manual_seed(1))
    cosines = [1.0]
    for up, down in zip(*random_layers(L, D), strict=True):
        x = layer(x, up, down)
        cosines.append(F.cosine_similarity(x, start, dim=-1).mean().item())
    return cosines


kept = {name: remaining(layer) for name, layer in places.items()}
print({name: [round(cosines[n], 2) for n in (1, 4, 8, 16, 32)] for name, cosines in kept.items()})
curves(
    {name: (depths, cosines) for name, cosines in kept.items()},
    title="What is left of the input in the stream",
    x_label="layer",
    y_label="cosine with the input",
)

# %% [markdown]
# In the pre-norm stream every layer adds one part, and all parts stay. The stream's variance is 1 after the embedding and about $1 + l$ after $l$ layers, so the input's share is $1 / \sqrt{1 + l}$: 0.17 after 32 layers.
# In the post-norm stream the norm divides the sum by $\sqrt{1 + 1}$ at *each* layer, and with the sum, everything that was in it: the input's share is $2^{-l/2}$, which is 0.06 after 8 layers and 0.000015 after 32. (Measured, 0.1 and 0:
# the parts are not quite independent.)
#
# The same factors apply backwards. Pre-norm keeps the highway open. In post-norm it is narrowed by $1 / \sqrt 2$ at each layer, and the gradient has to come *through* the layers. At initialisation that goes well, as the numbers above show: random matrices pass on
# what the highway loses. But it depends on what the layers do, and training changes the layers.
#
# The price of pre-norm: the stream grows, and nothing norms what comes out at the end. So a **final norm** belongs after the last layer. And a late layer adds one part to many, so it matters less.

# %% question="block.where_norm"

# %% [markdown]
# ## 7. How strongly does the loss pull? (10 minutes)
#
# To compare the two places we need one number for each layer. Xiong et al. (2020) took the gradient of the loss with respect to a weight matrix of the layer, here $W_{down}$, and its norm, the root of the sum of all squares. It says how strongly
# the loss pulls at this layer: how much an ordinary gradient step would change it. By hand: a layer whose gradient holds the numbers 3 and 4 has the norm $\sqrt{9 + 16} = 5$; a layer with 0 and 0.05 has 0.05, and learns a hundred times more slowly.
#
# For a loss we need something to predict: a matrix `head` (D, V) turns what leaves the stack into logits of V classes, and the loss is the mean cross-entropy, as in a language model.
#
# **Exercises.** First the stack, then the measure.
#
# <details><summary>Hint 1</summary>`for up, down in zip(w_up, w_down)` goes through the layers; the output of one is the input of the next.</details>
# <details><summary>Hint 2</summary>`deep_stack`: the final norm comes after the loop, and only for "pre". `gradient_norms`: `w_down.detach().requires_grad_()` is a leaf of your own, whose gradient you can ask for.</details>
# <details><summary>Hint 3</summary>`torch.autograd.grad(loss, w_down)` returns a tuple of one gradient (L, F, D). `flatten(1)` makes each layer a row, and `norm(dim=1)` one number of each.</details>

# %% exercise="block.deep_stack"
# from: tinytrans.nn.block.deep_stack

# %% exercise="block.gradient_norms"
# from: tinytrans.nn.block.gradient_norms


# %% tags=["measured"]
def pull_at_birth(L: int, place: str, D: int = 64, N: int = 128, V: int = 50, draws: int = 5) -> Tensor:
    """The mean gradient norm of each layer (L,) of untrained stacks, for random vectors and V classes."""
    norms = []
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        w_up, w_down = random_layers(L, D, seed=seed)
        x, head = torch.randn(N, D, generator=generator), torch.randn(D, V, generator=generator) / D**0.5
        targets = torch.randint(0, V, (N,), generator=generator)
        norms.append(gradient_norms(x, w_up, w_down, head, targets, place))
    return torch.stack(norms).mean(dim=0)


at_birth = {(L, place): pull_at_birth(L, place) for L in (6, 24) for place in ("post", "pre")}
for L in (6, 12, 24, 48):
    last = [pull_at_birth(L, place)[-1].item() for place in ("post", "pre")]
    print(f"{L:2} layers: pull at the last layer {last[0]:.2f} post-norm, {last[1]:.2f} pre-norm")
lines = {f"{place}-norm, {L} layers": pull.tolist() for (L, place), pull in at_birth.items()}
curves(
    {name: (range(1, len(pull) + 1), pull) for name, pull in lines.items()},
    title="Pull at each layer, before training",
    x_label="layer",
    y_label="gradient norm",
)

# %% [markdown]
# This is the finding of Xiong et al.: at initialisation the last layers of a post-norm stack are pulled at with the same force however deep the stack is. In a pre-norm stack the final norm divides by the stream's size, which has grown to $\sqrt{1 + L}$, so the
# pull on the late layers shrinks like $1 / \sqrt L$: four times as deep, half the pull. (Measured, it is about six tenths.)
#
# Note what the picture does *not* show. One often reads that in post-norm the gradient vanishes toward the first layers. At initialisation, in this stack, the first layers are pulled at more than half as strongly as the last. The vanishing comes later, and you will now see when.
#
# ## 8. Warm-up (10 minutes)
#
# Now a real task: predict the next word of a story, as in lesson 04, with 8 whole blocks (attention and feed-forward) made of your own layers and norms. We train four times: post-norm and pre-norm, each at the full learning rate from the first step on, and with a
# **warm-up**, in which the rate grows linearly from almost 0 over the first steps. Everything else is the same, including initial weights and batches.

# %%
T, L, D = 32, 8, 32
words = sorted({word for story in stories for word in story})
number = {word: i for i, word in enumerate(words)}
beginnings = [[number[w] for w in story[: T + 1]] for story in stories if len(story) > T]
texts = torch.tensor(beginnings, device=device)
share = torch.bincount(texts.flatten(), minlength=len(words)) / texts.numel()
blind = -(share[share > 0] * share[share > 0].log()).sum().item()  # the entropy of the words' frequencies
print(f"{len(texts)} beginnings of {T} words, {len(words)} different words")
print(f"a model that knows nothing: {math.log(len(words)):.2f} nats a word")
print(f"one that knows how frequent words are: {blind:.2f}")


# %%
class Layer(nn.Module):
    """A block: attention is the library's, the norms and the feed-forward sublayer are yours."""

    def __init__(self, D: int, place: str) -> None:
        super().__init__()
        self.place, self.attention = place, Attention(D, 2, causal=True)
        self.w_up, self.w_down = nn.Parameter(torch.empty(D, 4 * D)), nn.Parameter(torch.empty(4 * D, D))
        self.gains, self.shifts = nn.Parameter(torch.ones(2, D)), nn.Parameter(torch.zeros(2, D))
        q, k, v = self.attention.qkv.weight.data.chunk(3)
        for weight in (q, k, v, self.attention.out.weight, self.w_up, self.w_down):
            nn.init.xavier_uniform_(weight)  # as in the original

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self.gains[0], self.shifts[0]
        rest = self.w_up, self.w_down, self.gains[1], self.shifts[1]
        if self.place == "pre":
            return pre_norm_layer(x + self.attention(layer_norm(x, gain, shift)), *rest)
        return post_norm_layer(layer_norm(x + self.attention(x), gain, shift), *rest)


class Writer(nn.Module):
    """Word numbers (B, T) -> logits of the next word (B, T, V)."""

    def __init__(self, place: str, V: int = len(words)) -> None:
        super().__init__()
        self.place, self.words, self.positions = place, nn.Embedding(V, D), nn.Embedding(T, D)
        self.layers = nn.ModuleList(Layer(D, place) for _ in range(L))
        self.head = nn.Linear(D, V)

    def streams(self, ids: Tensor) -> list[Tensor]:
        """What each layer leaves in the stream, the embedding first."""
        found = [self.words(ids) + self.positions.weight[: ids.shape[1]]]
        for layer in self.layers:
            found.append(layer(found[-1]))
        return found

    def forward(self, ids: Tensor) -> Tensor:
        x = self.streams(ids)[-1]
        return self.head(layer_norm(x) if self.place == "pre" else x)


def loss(model: Writer, ids: Tensor) -> Tensor:
    """How surprised the model is by the next words, in nats a word."""
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def batch(step: int) -> Tensor:
    """The same 16 stories for the same step."""
    luck = torch.Generator().manual_seed(step)
    return texts[torch.randint(len(texts), (16,), generator=luck).to(device)]


# %% [markdown]
# While they train we watch two things: the **pull** on each layer, as in section 7, and how alike the **tokens** are, measured by the mean cosine between the stream's vectors after the last layer. (1 means that all tokens have the same direction.)

# %% tags=["measured"]
steps, warmup, every = (40, 25, 20) if quick else (160, 100, 20)
sample = texts[:16]


def pulls(model: Writer) -> list[float]:
    """The norm of the loss's gradient with respect to each layer's w_down."""
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(model, sample), [layer.w_down for layer in model.layers])
    return [gradient.norm().item() for gradient in gradients]


@torch.no_grad()
def alike(model: Writer) -> float:
    """The mean cosine between all tokens of the sample after the last layer."""
    directions = F.normalize(model.streams(sample[:, :-1])[-1].flatten(0, 1), dim=-1)
    return (directions @ directions.T).mean().item()


def train(place: str, warm: bool, lr: float = 6e-3) -> tuple[list[float], list[list[float]], list[float]]:
    """The losses of a run, and every few steps the pull at each layer and how alike the tokens are."""
    torch.manual_seed(2)
    model = Writer(place).to(device)
    pulled, cosines = [pulls(model)], [alike(model)]

    def look(model: nn.Module) -> dict[str, float]:
        pulled.append(pulls(model))
        cosines.append(alike(model))
        return {"alike": cosines[-1]}

    history = fit(
        model, batch, loss, steps=steps,
        optimizer=torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.98)),
        schedule=(lambda step: min(1.0, (step + 1) / warmup)) if warm else None,
        clip=None, evaluate=look, every=every, progress=False,
    )  # fmt: skip
    return history.losses, pulled, cosines


runs = {
    f"{place}-norm{', warm-up' if warm else ''}": train(place, warm)
    for place in ("post", "pre")
    for warm in (False, True)
}
for name, (losses, pulled, cosines) in runs.items():
    print(
        f"{name:18} loss {sum(losses[-20:]) / 20:.2f}, pull at the first layer {pulled[-1][0]:.1e},"
        f" tokens alike {cosines[0]:.2f} before training, {cosines[-1]:.2f} now"
    )
curves(
    {name: (range(1, steps + 1), losses) for name, (losses, _, _) in runs.items()},
    title="Training loss",
    x_label="step",
    y_label="loss (nats per word)",
)

# %% [markdown]
# At the full rate, post-norm falls to the loss of a model that knows how frequent the words are and *nothing else*, and there it stays. With a warm-up the very same weights learn. Pre-norm learns either way, and soonest without one. (In quick mode the runs are too short to show this.)
#
# What has happened? Go through the steps with the slider. Before training the pulls are alike.


# %%
def pulls_after(n: int):
    """The pulls of all runs after so many looks, on one scale for all."""
    shown = {name: [max(pull, 1e-9) for pull in pulled[n]] for name, (_, pulled, _) in runs.items()}
    picture = curves(
        {name: (range(1, L + 1), pull) for name, pull in shown.items()},
        title=f"Pull at each layer after {n * every} steps",
        x_label="layer",
        y_label="gradient norm",
        log_y=True,
    )
    picture.figure.axes[0].set_ylim(1e-9, 10)
    return picture


looks = range(steps // every + 1)
frames = [pulls_after(n)._repr_mimebundle_()[0]["text/html"] for n in looks]
Explorer(pulls_after(looks[-1]), [(str(n * every), n) for n in looks], lambda n: frames[n], "steps")

# %%
curves(
    {name: ([n * every for n in looks], cosines) for name, (_, _, cosines) in runs.items()},
    title="How alike are the tokens after the last layer?",
    x_label="step",
    y_label="mean cosine",
)

# %% tags=["measured"]
print("post-norm   without warm-up        with warm-up")
print("    steps   1 - cosine  pull at 1  1 - cosine  pull at 1")
for n in looks:
    pairs = [(1 - runs[name][2][n], runs[name][1][n][0]) for name in ("post-norm", "post-norm, warm-up")]
    print(f"{n * every:9}   " + "  ".join(f"{apart:10.4f}  {pull:9.6f}" for apart, pull in pairs))

# %% [markdown]
# All four runs begin alike: the easiest thing to learn is how frequent words are. For that the tokens need not differ, and they grow more alike. Adam's first steps move every weight by about the learning rate, whatever the size of the gradient: with large early steps, all layers
# push the stream in the same direction. In post-norm the norm then divides the sum of the stream and this large common part, and what tells the tokens apart is divided down, layer by layer. It is the factor $1 / \sqrt 2$ of section 6, only worse, and now
# the layers do not make up for it. At the full rate all tokens have become *one and the same* vector by step 20. Differences travel forward and their gradients backward along the same narrow road, and *now* the gradient vanishes: many powers of ten lie between the last layer and the first. What would be needed
# to repair it cannot get through.
#
# With a warm-up, post-norm comes close to that point, too, as the numbers show, but finds its way back: its steps are still small when it matters. In pre-norm the highway carries the differences between tokens past whatever the layers do. So post-norm can be trained, and when it is, it often ends up
# a little better (Liu et al. 2020), but it needs care. Pre-norm is forgiving. Most large models are pre-norm, and still use a short warm-up (lesson 11).
#
# **Break it on purpose.** Forget the final norm of pre-norm. No error is raised, but the first loss gives it away:

# %%
torch.manual_seed(0)
x, head = torch.randn(256, 64), torch.randn(64, 50) / 8
targets = torch.randint(0, 50, (256,))
for n in (1, 8, 32):
    w_up, w_down = random_layers(n, 64)
    stream = x
    for weights in zip(w_up, w_down, strict=True):
        stream = pre_norm_layer(stream, *weights)
    ends = deep_stack(x, w_up, w_down), stream
    with_norm, without = (F.cross_entropy(y @ head, targets).item() for y in ends)
    print(f"{n:2} layers: first loss {with_norm:.2f} with the final norm, {without:.2f} without")
print(f"guessing: ln 50 = {math.log(50):.2f}")

# %% [markdown]
# A model that knows nothing should be about as surprised as one that guesses, ln V and a little more. If yours starts far above, something is too large.

# %% [markdown] tags=["instructor"]
# **For instructors: warm-up.** The claim to defend is the measured one: at this depth and this rate post-norm without warm-up fails more often. Ask what else would have helped (a smaller rate, pre-norm, smaller initial weights) and try one.

# %% [markdown]
# ## 9. Dropout, and where it goes (7 minutes)
#
# **Dropout** (Srivastava et al. 2014) sets random numbers to 0 while training, so that no unit can rely on any other being there. It keeps a model from learning small data by heart. By hand, with $p = 0.5$ and the numbers 1, 1, 1, 1: if the second and the third go, what
# stays must be doubled, $(2, 0, 0, 2)$, so that on average the sum is still 4. Outside training nothing is dropped and nothing is scaled.

# %% [markdown]
# **Exercise.** Dropout, with its random numbers passed in.
#
# <details><summary>Hint 1</summary>`noise >= p` says which numbers stay. You can multiply a tensor by a tensor of bools.</details>
# <details><summary>Hint 2</summary>A share of 1 - p stays. What must you divide by to get the old mean back?</details>
# <details><summary>Hint 3</summary>When `training` is False, return x.</details>

# %% exercise="block.dropout"
# from: tinytrans.nn.block.dropout

# %%
x, p = torch.randn(100_000) + 1, 0.1
dropped = dropout(x, torch.rand_like(x), p)
zeros = (dropped == 0).float().mean()
print(f"mean {x.mean():.3f}, after dropout {dropped.mean():.3f}; zeros {zeros:.1%}")
stream = added = torch.ones(100_000)
for _ in range(32):
    stream = dropout(stream, torch.rand_like(stream), p)  # on the stream itself: wrong
    adds = torch.zeros_like(added)  # what a sublayer adds, here nothing
    added = added + dropout(adds, torch.rand_like(adds), p)
left, kept = ((t != 0).float().mean() for t in (stream, added))
print(f"32 layers leave {left:.1%} of a stream that they drop from, {kept:.0%} of one that they add to")

# %% [markdown]
# $0.9^{32} = 0.034$: dropout on the stream itself tears holes in the highway that no layer can fill. So it goes elsewhere:
#
# | place | in the paper of 2017 | |
# |---|---|---|
# | on what a sublayer adds: $x + \mathrm{dropout}(f(\dots))$ | yes | the usual one, `Block(..., dropout=0.1)` |
# | on embedding plus position, once | yes | before the first layer |
# | on the attention weights, after the softmax | no | in most code; see the question |
# | on the hidden numbers of the feed-forward layer | no | in much code, after the activation |
# | on the stream | no | never |
#
# Remember to call `model.eval()` before you use a model: otherwise it answers differently each time.

# %% question="block.attention_dropout"

# %% question="block.relu_or_dropout"

# %% [markdown]
# ## 10. What to watch out for
#
# | you see | look at |
# |---|---|
# | the loss falls to the entropy of the word frequencies and stays | tokens that have become one vector: post-norm without warm-up, too large a rate |
# | a first loss far above ln V | the final norm of pre-norm is missing, or the initial weights are too large |
# | results that depend on the rest of the batch | a norm over the wrong axis; BatchNorm; `train()` where `eval()` is meant |
# | small, constant differences from a reference model | `var` with D - 1; ε outside of the root, or another ε |
# | NaN at padding | a vector of equal numbers and no ε |
# | a parameter count that is 2 D a layer too small | one norm that serves both sublayers: each has its own |
# | a deep pre-norm model that trains like a post-norm one | the residual taken from the normed stream: `h = norm(x); x = h + f(h)` |
# | answers that change from call to call | dropout left on |
#
# <!-- pitfalls: norms block -->

# %% [markdown] tags=["instructor"]
# **For instructors: reading the mistakes report.** `variance divided by D - 1` is `torch.var` with its default; it is too small to see in a loss. `residual from the normed stream` trains, only
# worse: nothing but a comparison shows it. `batch statistics in use` and `running statistics in training` are two halves of one misunderstanding: ask for train and eval side by side.
# *Variants:* ask for RMSNorm first and LayerNorm as "what is missing"; use other depths in section 7; put the norm inside each head (QK-norm).

# %% [markdown]
# ## What was simplified
#
# - Section 7's stacks have no attention and random inputs; section 8's model has both, and 8 layers of width 32 where real models have dozens of layers and thousands of numbers.
# - One learning rate, one data set, runs of 160 steps. With a smaller rate or fewer layers post-norm learns without a warm-up, too: try `lr=2e-3`.
# - Initial weights matter as much as norms do: GPT-2 scales down what sublayers add by $1 / \sqrt{2L}$, and there are schemes that train deep stacks without any norm. We took the original's (Glorot's).
# - There are more places than two: norms on both sides of a sublayer, on queries and keys, on the embedding (the preset "tales" has the last two).
#
# ## Where this lives in tinytrans
#
# `tinytrans/nn/norms.py` has your `layer_norm`, `rms_norm` and `batch_norm`; `LayerNorm` and `RMSNorm` are the modules, which compute the same numbers with fused kernels. In `tinytrans/nn/block.py` `pre_norm(x, norm, sublayer)` and
# `post_norm(x, norm, sublayer)` are one line each and work for any sublayer; `Block` takes one of them as its `residual`, and `GPTConfig(norm="rms", residual="post")` chooses by name.
#
# ## References
#
# - K. He, X. Zhang, S. Ren, J. Sun (2015). Deep Residual Learning for Image Recognition. arXiv 1512.03385.
# - S. Ioffe, C. Szegedy (2015). Batch Normalization. arXiv 1502.03167.
# - J. L. Ba, J. R. Kiros, G. E. Hinton (2016). Layer Normalization. arXiv 1607.06450.
# - A. Vaswani et al. (2017). Attention Is All You Need. arXiv 1706.03762 (post-norm, warm-up, dropout: sections 3.1, 5.3, 5.4).
# - B. Zhang, R. Sennrich (2019). Root Mean Square Layer Normalization. arXiv 1910.07467.
# - R. Xiong et al. (2020). On Layer Normalization in the Transformer Architecture. arXiv 2002.04745.
# - L. Liu, X. Liu, J. Gao, W. Chen, J. Han (2020). Understanding the Difficulty of Training Transformers. arXiv 2004.08249 (why vanishing gradients are not the whole story).
# - Y. Dong, J.-B. Cordonnier, A. Loukas (2021). Attention Is Not All You Need. arXiv 2103.03404 (tokens that become alike, and how residuals prevent it).
# - N. Srivastava, G. E. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov (2014). Dropout: A Simple Way to Prevent Neural Networks from Overfitting. Journal of Machine Learning Research 15.

# %% [markdown] tags=["instructor"]
# **For instructors.** Sections 5 and 8 are the ones to discuss; ask for predictions before the four runs. Expected: post-norm stays near 4.5 (the entropy of the words' frequencies), with warm-up it ends between 1 and 2, pre-norm too; the slider shows the
# first layer's pull fall by several powers of ten within the first 20 to 40 steps. Common questions: *isn't it just a learning rate that is too large?* Yes, for post-norm it is, and that is the point: pre-norm takes it, and with `lr=2e-3` post-norm learns as well.
# *Why does pre-norm not need the warm-up, but is given one?* Adam's statistics are poor at first, and large models have large batches and rates. *Is the vanishing gradient the cause?* It is rather the companion of the collapse; see Liu et al. For a shorter lesson
# leave out sections 4 and 9 (dropout is not used elsewhere in the course).
