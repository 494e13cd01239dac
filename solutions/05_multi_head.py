# %% [markdown]
# # 05 · Many heads
#
# One head of attention gives each token one set of weights: one answer to *whom do I listen to?* A word often needs several answers at
# once. This lesson gives it several heads, at no extra cost, and then looks at what they do with them.
#
# **You will be able to**
#
# - say what a single softmax cannot do, and show it in an experiment;
# - split a width into heads and merge it again without mixing up tokens, and recognise both classic accidents;
# - write multi-head attention for three separate inputs, load it with the weights of `torch.nn.MultiheadAttention` and get its outputs;
# - count its parameters, and say why neither the number of heads nor the length of the text appears in the count;
# - look into the heads of a trained model, switch them off one by one, and draw careful conclusions;
# - let heads share keys and values (grouped-query and multi-query attention), and say what that saves.
#
# **Builds on** lesson 04 (attention, masks); if you skipped 04, the formula in section 2 is all that you need of it. **Leads to** 07 (the
# block around this layer) and 10 (the cache, which is why keys and values are shared).
#
# **Time** about 90 minutes: two questions, one softmax 10, cutting the width 15, a softmax per head 10, the whole layer 15, how many heads 5,
# counting 5, a look inside 15, break it 5, sharing 10. All cells together run for half a minute to two minutes on one CPU core. A GPU changes nothing that matters: the models are tiny.
#
# **Letters** B sequences in a batch, T queries, S keys, D width of a token (the papers' $d$), H heads (the papers' $h$), K = D / H width of a head,
# G heads of keys and values.

# %% tags=["setup"]
import math

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
from collections.abc import Callable, Iterable

from IPython.display import display

from graders.check import check
from tinytrans import attend, causal, fit, load
from tinytrans.plots import curves, heat_maps
from tinytrans.training.optim import adamw
from tinytrans.widgets import Explorer, shade

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with fewer steps, for tests
print("quick mode: trained results will be poor" if quick else "full mode")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.nn.heads import split_heads`: from there on the notebook uses the library's version. Your points still come from your own
# cell, so come back to it.

# %% [markdown] tags=["instructor"]
# **For instructors: planning.** Sections 2 to 4 are one piece, 40 minutes, and should not be cut. In 60 minutes leave out sections 5 and 9 (9 is used nowhere
# else but in the key-value cache of lesson 10). Section 7 trains a model: start it before the break. Those who come without lesson 04 can use the library's
# `attend`; all they must know is that True in a mask means *may look*.

# %% [markdown]
# ## 1. Two questions, one softmax (10 minutes)
#
# *Lina gave Sven her red basket.* To make sense of *gave*, a reader wants to know **who** gave, **to whom**, and **what**. Three questions, one token. A head has a
# single row of weights for it: they sum to 1, and what comes back is *one* mean.
#
# By hand, in a world where a token is (red?, blue?, digit, 0). The text is `red 3`, `blue 7`:
#
# | token | red? | blue? | digit | |
# |---|---|---|---|---|
# | `red 3` | 1 | 0 | 3 | 0 |
# | `blue 7` | 0 | 1 | 7 | 0 |
#
# Somebody wants to know both digits. The query has to fit red *and* blue, so both keys get the weight ½, and the result is the digit
# $\tfrac12 \cdot 3 + \tfrac12 \cdot 7 = 5$. Now take the text `red 7`, `blue 3`: again 5. What stood where is gone, and nothing that comes afterwards can bring it back.
#
# Unequal weights are hardly a way out. With ⅔ on red, the mean leans towards the red digit, but to get the blue one you must now read the *smaller* part of a mixture, and a linear layer finds the larger one first. Is it really that bad? Let us measure it.
#
# **The task.** A text has 8 items, each a tag and a digit (its vector is the sum of the two embeddings). There are 12 different tags; the query names two of those in the text. Wanted are the
# digit at the first tag and the digit at the second. The model is one attention layer and one linear layer that reads off the answers.

# %%
TAGS, DIGITS, ITEMS = 12, 10, 8


class Finder(nn.Module):
    """Tags and digits (B, 8), two tags asked for (B, 2) -> logits of their digits (B, 2, 10)."""

    def __init__(self, look: Callable[..., Tensor], D: int = 32) -> None:
        super().__init__()
        self.look = look  # (query, key, value, w_q, w_k, w_v, w_o) -> (B, 1, D)
        self.first, self.second = nn.Embedding(TAGS, D), nn.Embedding(TAGS, D)  # which tag is asked for
        self.tags, self.digits = nn.Embedding(TAGS, D), nn.Embedding(DIGITS, D)
        self.matrices = nn.Parameter(torch.randn(4, D, D) / D**0.5)  # W_Q, W_K, W_V, W_O
        self.read = nn.Linear(D, 2 * DIGITS)

    def forward(self, tags: Tensor, digits: Tensor, asked: Tensor) -> Tensor:
        query = (self.first(asked[:, 0]) + self.second(asked[:, 1])).unsqueeze(1)  # (B, 1, D)
        items = self.tags(tags) + self.digits(digits)  # (B, 8, D)
        return self.read(self.look(query, items, items, *self.matrices)[:, 0]).unflatten(-1, (2, DIGITS))


def texts(step: int, B: int = 128) -> tuple[Tensor, ...]:
    """Tags and digits (B, 8), two tags asked for and their digits (B, 2): the same for the same step."""
    chance = torch.Generator().manual_seed(step)
    tags = torch.rand(B, TAGS, generator=chance).argsort(dim=-1)[:, :ITEMS]
    digits = torch.randint(DIGITS, (B, ITEMS), generator=chance)
    where = torch.rand(B, ITEMS, generator=chance).argsort(dim=-1)[:, :2]
    return tags, digits, tags.gather(1, where), digits.gather(1, where)


def trained_finder(look: Callable[..., Tensor], steps: int = 200 if quick else 1000) -> Finder:
    """A finder that has learned from new texts at every step."""

    def loss(model: Finder, batch: tuple[Tensor, ...]) -> Tensor:
        *text, answers = batch
        return F.cross_entropy(model(*text).flatten(0, 1), answers.flatten())

    torch.manual_seed(0)
    model, left = Finder(look), lambda step: 1 - step / steps
    fit(model, texts, loss, steps=steps, optimizer=adamw(model, lr=1e-2), schedule=left, progress=False)
    return model


@torch.no_grad()
def found(model: Finder) -> tuple[float, float]:
    """The share of digits that are right, and of texts of which both are, on 4000 new texts."""
    *text, answers = texts(10**6, B=4000)
    right = model(*text).argmax(dim=-1) == answers
    return right.float().mean().item(), right.all(dim=-1).float().mean().item()


def one_head(query: Tensor, key: Tensor, value: Tensor, *matrices: Tensor) -> Tensor:
    """Lesson 04's attention: one softmax over the full width."""
    w_q, w_k, w_v, w_o = matrices
    return attend(query @ w_q, key @ w_k, value @ w_v) @ w_o


single = found(trained_finder(one_head))
print(f"one head: {single[0]:.1%} of the digits right, both right in {single[1]:.1%} of the texts")

# %% [markdown]
# About 55 %, and that number can be *derived*. An even mean tells which two digits are there, but not which belongs to which tag. When they are equal, in 1 text out of 10,
# that is enough. Otherwise the model must guess between two: $\tfrac1{10} \cdot 1 + \tfrac9{10} \cdot \tfrac12 = 0.55$, and both are right in about 1 text out of 10. (Uneven weights buy the learned model another percent or so.) More training does not help, and neither do more numbers: with twice the width
# and more than twice the steps we measured the same. What would help is a second layer of attention, or a deep network behind it that takes mixtures apart. Two looks are simpler.
#
# ## 2. Cutting the width (15 minutes)
#
# So let us look $h$ times. Each **head** $i$ gets its own matrices and does by itself what lesson 04 did:
#
# $$\mathrm{head}_i = \mathrm{softmax}\!\left(\frac{Q_i K_i^\top}{\sqrt{d/h}}\right) V_i, \qquad Q_i = X W_Q^i, \quad K_i = X W_K^i, \quad V_i = X W_V^i .$$
#
# (A mask hides keys in every head alike; papers write it as $+ M$ inside the softmax, with $M$ = 0 or $-\infty$.) If each head were as wide as the model, $h$ heads would cost $h$ times as much. So they divide the width among themselves: $W_Q^i, W_K^i, W_V^i$ have the shape $(d, d/h)$ where the single head's had
# $(d, d)$. Note what is *not* cut: each head reads all $d$ numbers of a token, and makes its own $d/h$ out of them. What the heads have found, $h$ vectors of width $d/h$, is **concatenated**, which
# gives the width $d$ again, and multiplied by a last matrix $W_O$, in which the findings of different heads meet:
#
# $$\mathrm{MHA}(X) = [\, \mathrm{head}_1 \mid \dots \mid \mathrm{head}_h \,]\, W_O .$$
#
# Mind the root: some notes write $\sqrt d$ here. The dot product sums over the width of a *head*, so lesson 04's argument gives $\sqrt{d/h}$; section 8 shows what the other root does.
#
# $h$ small products would be slow. But $X W_Q^1, \dots, X W_Q^h$ side by side are just $X$ times the matrices side by side, $X [\, W_Q^1 \mid \dots \mid W_Q^h \,] = X W_Q$: one product with one $(d, d)$ matrix as before, whose
# *result* is cut into $h$ blocks of columns. Cutting the width is all there is to it, and it is where most of the accidents happen.
#
# By hand: two tokens of width 4, two heads of width 2.
#
# | | head 0 | | head 1 | |
# |---|---|---|---|---|
# | token 0 | 0 | 1 | 2 | 3 |
# | token 1 | 4 | 5 | 6 | 7 |
#
# Head 0 is the table `[[0, 1], [4, 5]]`, head 1 is `[[2, 3], [6, 7]]`. In memory the numbers lie in the order 0 1 2 3 4 5 6 7. Reading them straight into the shape (2 heads, 2 tokens, 2) would
# give head 0 `[[0, 1], [2, 3]]`: token 0 twice, and token 1 never. The shape is right and there is no error. That is the accident.

# %% [markdown]
# **Exercise.** Cut the width into heads. The heads go in front of the tokens, so that the last two axes are a (T, K) matrix for each head, and one `@` serves them all.
#
# <details><summary>Hint 1</summary>Two steps: first the last axis becomes two, then two axes change places.</details>
# <details><summary>Hint 2</summary>Of the two new axes the head is the outer one: (…, H, K), because a head is a block of neighbouring numbers.</details>
# <details><summary>Hint 3</summary>After the first step you have (B, T, H, K). Compare with what is asked for: which two axes swap? And check at the start that H divides D.</details>

# %% exercise="heads.split_heads"
# from: tinytrans.nn.heads.split_heads

# %% [markdown]
# And the way back. By hand, with the same numbers: token 0 gets (0, 1) from head 0 and (2, 3) from head 1, together (0, 1, 2, 3).
#
# **Exercise.** Concatenate what the heads found.
#
# <details><summary>Hint 1</summary>Undo the two steps of `split_heads`, in reverse order.</details>
# <details><summary>Hint 2</summary>First bring the heads next to the numbers that they found: (B, T, H, K).</details>
# <details><summary>Hint 3</summary>Then the last two axes become one. `view` may refuse that after a swap: the numbers no longer lie in this order in memory.</details>

# %% exercise="heads.merge_heads"
# from: tinytrans.nn.heads.merge_heads

# %% [markdown]
# ## 3. A softmax for each head (10 minutes)
#
# Within a head everything is as in lesson 04: scores $q \cdot k / \sqrt K$, hidden keys at $-\infty$, softmax over the keys. All heads run at once, since axes in front of the last two are a batch to `@`.
#
# One detail is new: **the mask's axes**. The scores are (B, H, T, S). A causal mask is (T, S), and broadcasting aligns shapes from the right: it fits. The mask of a padded batch is (B, 1, S), one for each sequence,
# and aligned from the right its B lands on the *heads*:
#
# | | | | | |
# |---|---|---|---|---|
# | scores | B | H | T | S |
# | mask, as it is | | B | 1 | S |
# | mask, as it should be | B | 1 | 1 | S |
#
# With B = 3 and H = 4 that is an error, and errors are kind. With B = H it runs, and head 0 of every sequence hides the padding of sequence 0.

# %% [markdown]
# **Exercise.** Every head's attention matrix.
#
# <details><summary>Hint 1</summary>The last axis of the queries is the width of a head, which is what the root is taken of.</details>
# <details><summary>Hint 2</summary>A mask with three axes has one for the batch: it needs another for the heads behind it. One with two axes fits as it is.</details>
# <details><summary>Hint 3</summary>`masked_fill`, `softmax`, and a row that may look nowhere has become NaN: turn that into 0.</details>

# %% exercise="heads.head_weights"
# from: tinytrans.nn.heads.head_weights

# %% question="heads.like_filters"

# %% [markdown] tags=["instructor"]
# **For instructors: questions that come here.** *Why transpose, could we not reshape straight to (B, H, T, K)?* Do it with the numbers 0 to 11 on the board: the first head
# gets the first tokens instead of the first features. *Does more heads mean more parameters?* No: let them count before section 6 does.
# *Why W_O at all, if the next layer has weights too?* Without it each head could write only to its own K numbers of the stream; section 8 measures it.

# %% [markdown]
# ## 4. The whole layer (15 minutes)
#
# Back to `red 3`, `blue 7`. The query is (1, 1, 0, 0), *I want red and blue*. We choose $W_Q$ so that head 0 hears only *red* and head 1 only *blue*, ten times louder: the query becomes $(10, 0 \mid 0, 10)$. In
# both heads the keys are (red?, blue?) and the values are (digit, 0). With $K = 2$, head 0 has the scores $10 / \sqrt 2 = 7.07$ and 0:
#
# | | score red | score blue | weights | digit found |
# |---|---|---|---|---|
# | head 0 | 7.07 | 0 | 0.9992, 0.0008 | 3.003 |
# | head 1 | 0 | 7.07 | 0.0008, 0.9992 | 6.997 |
#
# Concatenated: $(3.003, 0 \mid 6.997, 0)$. Both digits, each in its place.
#
# **Three inputs.** In a decoder all three views are made from the same $x$. In cross-attention queries come from one sequence, keys and values from another. And keys and values may differ, too. So the
# layer takes `query`, `key` and `value` separately, as torch's does: `multi_head_attention(x, x, x, ...)` is self-attention, `(x, memory, memory, ...)` cross-attention. S can then be any length, and the key and value inputs can have any width,
# because $W_K$ and $W_V$ bring them to the common one.

# %% [markdown]
# **Exercise.** Multi-head attention from its matrices.
#
# <details><summary>Hint 1</summary>Project, split, weigh, mix, merge, project: six steps, and you have written functions for three of them.</details>
# <details><summary>Hint 2</summary>Weights (B, H, T, S) times values (B, H, S, K): what does `@` make of that?</details>
# <details><summary>Hint 3</summary>`head_weights` takes care of the mask. What leaves the heads goes through `merge_heads`, and W_O comes last.</details>

# %% exercise="heads.multi_head_attention"
# from: tinytrans.nn.heads.multi_head_attention

# %% [markdown]
# Your function on the example by hand, with the *same* matrices once as two heads, once as one:

# %%
asks = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
text = torch.tensor([[[1.0, 0.0, 3.0, 0.0], [0.0, 1.0, 7.0, 0.0]]])
W_Q = torch.tensor([[10.0, 0, 0, 0], [0, 0, 0, 10], [0, 0, 0, 0], [0, 0, 0, 0]])
W_K = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
W_V = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
for H in (2, 1):
    answer = multi_head_attention(asks, text, text, W_Q, W_K, W_V, torch.eye(4), H)
    print(f"H = {H}: {[round(number, 3) for number in answer.flatten().tolist()]}")

# %% [markdown]
# Nothing was added, no matrix changed. The second softmax alone makes the difference.
#
# ### The weights of torch's layer in your function
#
# Is it the real thing? `nn.MultiheadAttention` is the layer that PyTorch's own transformers, and many others, are made of. Its four matrices, put into your function, must give its outputs. It stores things differently in three ways:
#
# - $W_Q$, $W_K$, $W_V$ are stacked in one `in_proj_weight` (3 D, D), and transposed, as in every `nn.Linear`;
# - in its masks True means *hidden*, so ours goes in as `~mask`;
# - it has biases unless told otherwise. A bias is a matrix row for an input that is always 1, so we give the inputs one more number, a 1, and the matrices one more row.

# %%
theirs = nn.MultiheadAttention(embed_dim=24, num_heads=4, batch_first=True)
with torch.no_grad():
    theirs.in_proj_bias.normal_()  # they start at 0, which would prove little
stacked = torch.cat([theirs.in_proj_weight, theirs.in_proj_bias.unsqueeze(1)], dim=1)  # (72, 25)
w_q, w_k, w_v = stacked.T.chunk(3, dim=1)  # (25, 24) each
w_o, bias = theirs.out_proj.weight.T, theirs.out_proj.bias
x, memory = torch.randn(2, 5, 24), torch.randn(2, 7, 24)
visible = torch.rand(5, 7) < 0.7
visible[:, 0] = True


def with_one(inputs: Tensor) -> Tensor:
    """One more number for each token, a 1."""
    return F.pad(inputs, (0, 1), value=1.0)


asked, told = with_one(x), with_one(memory)
mine = multi_head_attention(asked, told, told, w_q, w_k, w_v, w_o, 4, visible) + bias
my_weights = head_weights(split_heads(asked @ w_q, 4), split_heads(told @ w_k, 4), visible)
expected, their_weights = theirs(x, memory, memory, attn_mask=~visible, average_attn_weights=False)
print(f"largest difference of the outputs {(mine - expected).abs().max():.1e}")
print(f"largest difference of the weights {(my_weights - their_weights).abs().max():.1e}")

# %% [markdown]
# Equal up to rounding, in every head. (Left to itself, torch's layer returns the *mean* of the heads' weights: `average_attn_weights=True`. Many published pictures of *the* attention are such means, which hide exactly what this lesson is about.)
#
# ## 5. How many heads? (5 minutes)
#
# The task of section 1 again, with your layer: the same width 32, the same number of parameters, and 2 to 32 heads. What do you expect at the right end, where 32 heads have the width 1 each? Decide before you run it.

# %% tags=["measured"]
numbers_of_heads = [1, 2, 4, 8, 16, 32]
finders = {}
for H in numbers_of_heads[1:]:
    start = time.perf_counter()
    finders[H] = trained_finder(lambda *inputs, H=H: multi_head_attention(*inputs, H))
    digits, seconds = found(finders[H])[0], time.perf_counter() - start
    print(f"{H:2} heads of width {32 // H:2}: {digits:.1%} right, {seconds:.0f} s")
scores = [single] + [found(finder) for finder in finders.values()]
curves(
    {
        "a digit": (numbers_of_heads, [digit for digit, _ in scores]),
        "both digits": (numbers_of_heads, [both for _, both in scores]),
    },
    title="Two answers from one layer of width 32",
    x_label="heads",
    y_label="share right",
    log_x=True,
)

# %% [markdown]
# Two effects meet here.
#
# - **Ensembling.** With two heads instead of one the error vanishes. Several independent looks replace one compromise. And they *add up*: cut $W_O$ into blocks of rows as the concatenation is cut into heads, and
#   $[\, \mathrm{head}_1 \mid \dots \mid \mathrm{head}_h \,] W_O = \sum_i \mathrm{head}_i W_O^i$. Each head contributes a vector of its own to the sum, as the members of an ensemble do.
# - **The bottleneck.** A head's scores are $x\, W_Q^i W_K^{i\top} x'^\top$, and the matrix in the middle has rank $d/h$ at most (Bhojanapalli et al. 2020). Heads of width 1 can only order all tags along one line, and a query can ask for one end of it or the other, never for the
#   middle. Together, 32 such heads still achieve a lot, but less than two good ones (about 90 % of the digits in a full run).
#
# Between these two ends lies a wide range in which the number of heads hardly matters, and models stay within it: nearly all have heads of width 64 to 128, and more of them as they get wider.
#
# If heads are an ensemble, it should survive the loss of one. We silence each head in turn, by zeroing its rows of $W_O$, without any further training:


# %%
@torch.no_grad()
def silenced(model: Finder, H: int, h: int) -> float:
    """The share of digits that are right when head h of H says nothing."""
    kept = model.matrices[3].clone()
    model.matrices[3].unflatten(0, (H, -1))[h] = 0.0
    share, _ = found(model)
    model.matrices[3] = kept
    return share


for H in (2, 4, 8):
    shares = [silenced(finders[H], H, h) for h in range(H)]
    print(f"{H} heads, one of them silent: {min(shares):.0%} right at worst, {max(shares):.0%} at best")

# %% [markdown]
# With two heads each has one of the questions: silence one, and its question is answered by guessing, which gives $(1 + 0.1) / 2 = 55$ %. Four or eight heads have divided the questions among several, and a silent one is hardly missed.

# %% question="heads.why_narrow"

# %% [markdown]
# ## 6. How many numbers? (5 minutes)
#
# A head's $W_Q^i$ has $d \cdot d/h$ numbers, so all $h$ of them have $h \cdot d \cdot d/h = d^2$. The same for keys and values. $W_O$ takes the concatenation, of width $h \cdot d/h = d$, to the width $d$: once more $d^2$. Together
#
# $$3 d^2 + d^2 = 4 d^2 .$$
#
# Neither the number of heads nor the length of the text appears in it: the same matrices are applied to each token. By hand, for $d = 512$: $4 \cdot 512^2 = 1{,}048{,}576$. A bias for each output adds $4d = 2048$.
#
# Where heads of keys and values are shared (section 9), there are only G of them, and $W_K$ and $W_V$ have $G \cdot d/h$ columns.

# %% [markdown]
# **Exercise.** Count the parameters of a layer.
#
# <details><summary>Hint 1</summary>Write down the shapes of the four matrices. Which of them depend on G?</details>
# <details><summary>Hint 2</summary>W_Q and W_O are (D, D), the other two (D, G K).</details>
# <details><summary>Hint 3</summary>A projection has as many biases as it has outputs, and G = None means G = H.</details>

# %% exercise="heads.attention_parameters"
# from: tinytrans.nn.heads.attention_parameters

# %%
for H in (1, 8, 64):
    held = sum(p.numel() for p in nn.MultiheadAttention(512, H).parameters())
    print(f"H = {H:2}: torch holds {held:,}, you count {attention_parameters(512, H, bias=True):,}")

# %% question="heads.what_counts"

# %% [markdown]
# ## 7. A look inside (15 minutes)
#
# What do heads do when nobody tells them what to do? We train lesson 04's small language model on the course's stories, word by word, with your layer: two rounds of four heads. (The residual `x +` and
# the norms come from lesson 07, the position table from 08.)


# %%
def words_of(text: str) -> list[str]:
    """Text -> words and punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text)


T, HEADS, ROUNDS = 48, 4, 2
tales = load("tales", n=4000)
stories = [words_of(tale.text) for tale in tales]
unseen = [words_of(tale.text) for tale in load("tales", n=300, split="validation")]
words = sorted({word for story in stories + unseen for word in story})
number = {word: i for i, word in enumerate(words)}


def numbered(texts: list[list[str]]) -> Tensor:
    """Stories -> the numbers of their first T + 1 words, one story a row."""
    return torch.tensor([[number[word] for word in text[: T + 1]] for text in texts if len(text) > T])


train, test = numbered(stories), numbered(unseen)
print(f"{len(train)} stories to train on, {len(test)} unseen ones, {len(words)} different words")


# %% tags=["measured"]
class Reader(nn.Module):
    """Word numbers (B, T) -> logits of the next word (B, T, V), by rounds of attention."""

    def __init__(self, look: Callable[..., Tensor], D: int = 64) -> None:
        super().__init__()
        self.look = look
        self.words, self.places = nn.Embedding(len(words), D), nn.Embedding(T, D)
        self.matrices = nn.Parameter(0.2 * torch.randn(ROUNDS, 4, D, D) / D**0.5)  # W_Q, W_K, W_V, W_O
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(ROUNDS + 1))
        self.head = nn.Linear(D, len(words))
        with torch.no_grad():  # small, as are the matrices: every head begins with an almost even look
            for table in (self.words, self.places):
                table.weight.mul_(0.1)

    def rounds(self, ids: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        """What each round of attention reads (B, T, D), and what it hands on."""
        x = self.words(ids) + self.places.weight[: ids.shape[1]]
        for matrices, norm in zip(self.matrices, self.norms, strict=False):
            seen = norm(x)
            x = x + self.look(seen, seen, seen, *matrices, HEADS, causal(ids.shape[1]))
            yield seen, x

    def forward(self, ids: Tensor) -> Tensor:
        *_, (_, x) = self.rounds(ids)
        return self.head(self.norms[-1](x))


def next_word_loss(model: Reader, ids: Tensor) -> Tensor:
    """Mean cross-entropy of the next word at every position."""
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def some_stories(step: int) -> Tensor:
    """The same 32 stories for the same step."""
    return train[torch.randint(len(train), (32,), generator=torch.Generator().manual_seed(step))]


torch.manual_seed(1)
reader, steps = Reader(multi_head_attention), 60 if quick else 600
start = time.perf_counter()
fit(
    reader,
    some_stories,
    next_word_loss,
    steps=steps,
    optimizer=adamw(reader, lr=3e-3),
    schedule=lambda step: min((step + 1) / 20, 1) * max(1 - step / steps, 0.05),
    progress=False,
)
with torch.no_grad():
    sound = next_word_loss(reader, test).item()
print(f"{steps} steps in {time.perf_counter() - start:.0f} s")
print(f"loss on unseen stories {sound:.2f} (chance is ln V = {math.log(len(words)):.2f})")

# %% [markdown]
# Now look, at a stretch from the middle of an unseen story, first at the heads of round 1, then at those of round 2. Rows are queries, columns are keys. A row sums to 1 over the whole story; one without a bright spot here looks at words that stand before our stretch.


# %%
@torch.no_grad()
def weights_of(model: Reader, ids: Tensor) -> list[Tensor]:
    """Word numbers (B, T) -> for each round the attention matrices of its heads (B, H, T, T)."""
    return [
        head_weights(split_heads(seen @ w_q, HEADS), split_heads(seen @ w_k, HEADS), causal(ids.shape[1]))
        for (seen, _), (w_q, w_k, _, _) in zip(model.rounds(ids), model.matrices, strict=True)
    ]


SHOWN = slice(12, 26)
shown = [words[i] for i in test[1, SHOWN]]
pictured = [w[0, :, SHOWN, SHOWN] for w in weights_of(reader, test[1:2, :T])]
for n, heads in enumerate(pictured):
    display(heat_maps({f"round {n + 1}, head {h}": heads[h] for h in range(HEADS)}, shown, shown))

# %% [markdown]
# Pictures can mislead, and one story proves little. So let us ask a precise question about all unseen stories: **how many times more weight does a head give to some kind of word than an even look would?** The stories come with their facts, so we know
# which words are names, animals, colours, things. 1 means that the head does not care; the last column lists its favourite words. (We leave out the first eight queries, which have little to choose from.)

# %%
FACTS = {
    "names": ("hero", "friend"),
    "animals": ("kind", "friend_kind"),
    "colours": ("color",),
    "things": ("thing",),
    "places": ("place",),
}


def kind_of(*facts: str) -> Tensor:
    """The numbers of the words that the stories have in these facts."""
    named = {getattr(tale.facts, fact) for tale in tales for fact in facts}
    return torch.tensor(sorted(number[word] for word in named & set(number)))


kinds = {kind: kind_of(*facts) for kind, facts in FACTS.items()} | {"stops": torch.tensor([number["."]])}
ids, START = test[:, :T], 8
evenly = (causal(T) / causal(T).sum(dim=-1, keepdim=True)).expand(len(ids), T, T)
places = {kind: torch.isin(ids, of_kind).unsqueeze(1) for kind, of_kind in kinds.items()}  # (B, 1, T)
places["previous"] = torch.eye(T, dtype=torch.bool).roll(1, dims=0).tril()  # (T, T): by query and key
enough = torch.bincount(ids.flatten(), minlength=len(words)) >= 20  # rare ones are liked by chance


def landed(weights: Tensor, at: Tensor) -> Tensor:
    """The weight of attention matrices (B, T, T) at the keys that `at` marks, over all stories."""
    return (weights * at)[:, START:].sum()


def received(weights: Tensor) -> Tensor:
    """Attention matrices (B, T, T) -> the weight that each word gets in all stories together (V,)."""
    return torch.zeros(len(words)).index_add(0, ids.flatten(), weights[:, START:].sum(dim=1).flatten())


print(" " * 16 + "".join(f"{kind:>9}" for kind in places) + "   favourites")
for n, heads in enumerate(weights_of(reader, ids)):
    for h, weights in enumerate(heads.unbind(1)):
        times = [landed(weights, at) / landed(evenly, at) for at in places.values()]
        liked = torch.where(enough, received(weights) / received(evenly).clamp(min=1e-6), 0.0)
        favourites = ", ".join(words[i] for i in liked.topk(3).indices)
        print(f"round {n + 1}, head {h} " + "".join(f"{t:9.1f}" for t in times) + f"   {favourites}")

# %% [markdown]
# Every head has its preferences, and no two rows are alike: in our run one gives names twice the even share, others give colours or things three times as much, and all of round 1 favour the previous word. (Which head likes what depends on the seed; in quick mode there was too little training for any of it.) But
# a mean over all queries hides much: a head may care for places only when a place is wanted.
#
# Walk through it yourself: choose a query with the slider, and compare what the four heads of round 2 look at. The number below a word is its share in per cent.


# %%
def look_at_heads(heads: Tensor, tokens: list[str], title: str) -> Explorer:
    """Attention matrices (H, T, T) to walk through: choose a query and see every head."""

    def show(t: int) -> str:
        lines = [
            f"head {h}: " + " ".join(map(shade, tokens[: t + 1], weights[t].tolist()))
            for h, weights in enumerate(heads)
        ]
        return f'<p style="line-height:2.4">{html.escape(tokens[t])} looks at<br>{"<br>".join(lines)}</p>'

    still = heat_maps({f"{title}, head {h}": weights for h, weights in enumerate(heads)}, tokens, tokens)
    return Explorer(still, [(f"{t}: {word}", t) for t, word in enumerate(tokens)], show, "query")


with torch.no_grad():
    opening = weights_of(reader, test[1:2, :20])[1][0]
look_at_heads(opening, [words[i] for i in test[1, :20]], "round 2")

# %% [markdown]
# ### Which heads matter?
#
# A head that looks important need not be, and one that looks dull may be needed. The test is to silence it and see what happens to the loss: over all next words, and over those of one kind.


# %%
@torch.no_grad()
def losses_without(model: Reader, silent: list[tuple[int, int]]) -> Tensor:
    """The loss of every next word of the unseen stories (B, T), some heads (round, head) silenced."""
    kept = model.matrices.clone()
    for n, h in silent:
        model.matrices[n, 3].unflatten(0, (HEADS, -1))[h] = 0.0
    losses = F.cross_entropy(model(test[:, :-1]).transpose(1, 2), test[:, 1:], reduction="none")
    model.matrices.copy_(kept)
    return losses


with_all = losses_without(reader, [])
targets = {"any word": torch.ones_like(with_all, dtype=torch.bool)} | {
    kind: torch.isin(test[:, 1:], of_kind) for kind, of_kind in kinds.items()
}
print("what silencing costs, by the word to be predicted")
print(" " * 16 + "".join(f"{kind:>9}" for kind in targets))
for n in range(ROUNDS):
    silent = {f"round {n + 1}, head {h}": [(n, h)] for h in range(HEADS)}
    for name, heads in (silent | {f"round {n + 1}, all": [(n, h) for h in range(HEADS)]}).items():
        cost = losses_without(reader, heads) - with_all
        print(f"{name:16}" + "".join(f"{cost[at].mean().item():9.2f}" for at in targets.values()))

# %% [markdown]
# **Now** we see a job. In our run, without head 1 of round 1 the model forgets who the story is about: the loss on *names* rises by more than 4, while over all words together it rises by 0.4. Nobody assigned
# this job: the heads began as random numbers, and the gradient divided the work. Compare with the table of looks. This head gave names twice the even share, so here the look was a hint. But the head with the strongest taste for colours in round 1 is hardly missed when a colour is to be predicted. Where a head looks is not a reliable sign of what it is for.
#
# Two more things are worth seeing. Silencing the four heads of round 1 together costs about 2.0, more than twice the sum of their single costs: in part they stand in for each other, as an ensemble does. Places show it best: no single head costs more than about 0.6, all four together more than 7. And in round 2 no head is indispensable.
# In large models, too, many heads can be removed one at a time with hardly any loss (Michel et al. 2019), and those that can't are often the specialised ones (Voita et al. 2019).

# %% [markdown] tags=["instructor"]
# **For instructors: reading heads.** Expect different favourites from run to run on other machines: which head learns what is chance, that heads differ is not.
# Keep the class from naming heads by a single sentence; the table of means is there for that. What silencing costs is the better measure of what a head is for.

# %% [markdown]
# ## 8. Break it on purpose (5 minutes)
#
# Three classic accidents, each with the right shapes and no error. We take the trained model and give its weights to broken layers:
#
# - **the wrong root**: scores divided by $\sqrt d$ instead of $\sqrt{d/h}$ (dividing $W_Q$ by $\sqrt h$ does just that);
# - **viewed without swapping**: the width reshaped straight into (B, H, T, K);
# - **merged without swapping**: the heads not swapped back before they are joined; and, last, both of these together.


# %% tags=["measured"]
def viewed(x: Tensor, H: int) -> Tensor:
    """Broken: reshaped straight into heads, which cuts through tokens."""
    return x.reshape(x.shape[0], H, x.shape[1], -1)


def joined(x: Tensor) -> Tensor:
    """Broken: joined as it lies in memory."""
    return x.reshape(x.shape[0], x.shape[2], -1)


def layer_of(split: Callable[..., Tensor], merge: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Self-attention in heads, with other ways to split and to merge."""

    def look(x: Tensor, _key: Tensor, _value: Tensor, *matrices_heads_mask) -> Tensor:
        *matrices, w_o, H, mask = matrices_heads_mask
        return merge(attend(*(split(x @ w, H) for w in matrices), mask)) @ w_o

    return look


def wrong_root(query: Tensor, key: Tensor, value: Tensor, w_q: Tensor, *rest) -> Tensor:
    """Broken: scores divided by the root of the model's width."""
    return multi_head_attention(query, key, value, w_q / rest[3] ** 0.5, *rest)  # rest[3] is H


layers = {
    "sound": multi_head_attention,
    "wrong root": wrong_root,
    "viewed without swapping": layer_of(viewed, merge_heads),
    "merged without swapping": layer_of(split_heads, joined),
    "both": layer_of(viewed, joined),
}
for name, look in layers.items():
    reader.look = look
    with torch.no_grad():
        print(f"{name:24} loss on unseen stories {next_word_loss(reader, test):.2f}")
reader.look = multi_head_attention


# %% [markdown]
# The wrong root is the quiet one: nothing crashes, the model is just worse than it should be (in our run 0.78 instead of 0.67). (A model that is *trained* with the wrong root can make its $W_Q$ larger to compensate: in short trials its loss was hardly higher than that of the sound one. That is how this mistake can live on unnoticed, until somebody loads weights
# from elsewhere.) The others destroy the trained model. But what if one *trains* with them? To see what each layer can do at all, we change one input token at a time and note which outputs move, under a causal mask:


# %%
@torch.no_grad()
def reach(look: Callable[..., Tensor], T: int = 8, D: int = 16, H: int = 4) -> Tensor:
    """(T, T): whether output t changes when input s does."""
    matrices = torch.randn(4, D, D, generator=torch.Generator().manual_seed(0)) / D**0.5
    x = torch.randn(T, D, generator=torch.Generator().manual_seed(1))
    changed = torch.cat([x[None], x + torch.eye(T)[:, :, None]])  # x, and with one token changed
    y = look(changed, changed, changed, *matrices, H, causal(T))
    return ((y[1:] - y[0]).abs().amax(dim=-1) > 1e-6).T


heat_maps(
    {name: reach(look) for name, look in layers.items() if name != "wrong root"},
    row_label="output",
    column_label="input",
)

# %% [markdown]
# The sound layer fills the triangle: each output depends on all inputs up to its own. With only the split *or* the merge broken there are marks above the diagonal: **the future leaks**, mask or no mask, and training would reward it (lesson 04 showed how that ends). With *both* broken
# the accidents fit together: no leak, no error. But the layer is short-sighted: the four heads have become four stretches of the text, and no stretch sees another. Output 7 knows nothing of inputs 0 to 5. Its shapes are right, no
# future leaks, and it even learns: trained from the start for 200 steps it had a *lower* loss than the sound layer in our trial, because near words are what a model of short stories profits from first. A loss curve like this does not give it away; only the question *what depends on what?* does.
#
# ## 9. Sharing keys and values (10 minutes)
#
# When text is generated (lesson 10), the keys and values of all earlier tokens are kept, so that they need not be computed again. By hand, for a model of 32 layers and 32 heads of width 128, 4096 tokens, two bytes a number: $2 \cdot 32 \cdot 32 \cdot 128 \cdot 4096 \cdot 2$ bytes $= 2$ GiB for one
# conversation, all of which is read for each new token. (The weights are read as well, but once for all conversations that are answered together; each of those brings 2 GiB of its own. So the more there are, the more of the waiting is this reading.)
#
# Queries are computed anew for each token and need not be kept. So let several heads of queries share one head of keys and values:
#
# | | key/value heads | kept, in this example |
# |---|---|---|
# | multi-head attention | G = H = 32 | 2 GiB |
# | **grouped-query** attention (Ainslie et al. 2023) | G = 8 | 512 MiB |
# | **multi-query** attention (Shazeer 2019) | G = 1 | 64 MiB |
#
# Each head of queries still has a softmax of its own, so two questions still get two answers. What the heads of a group give up is keys of their own: they all search among the same ones. Which heads share? Neighbours: with H = 4 and G = 2, heads 0 and 1 share the first, heads 2 and 3 the second.

# %% [markdown]
# **Exercises.** Hand the keys out, then build the layer.
#
# <details><summary>Hint 1</summary>`repeat_kv`: each head H / G times, copies next to each other. torch has `repeat` and `repeat_interleave`: which one gives 0, 0, 1, 1?</details>
# <details><summary>Hint 2</summary>`grouped_attention`: queries are split into H heads, keys and values into G. All have the same width K.</details>
# <details><summary>Hint 3</summary>Once keys and values are handed out, there is nothing new: the rest is as in `multi_head_attention`.</details>

# %% exercise="heads.repeat_kv"
# from: tinytrans.nn.heads.repeat_kv

# %% exercise="heads.grouped_attention"
# from: tinytrans.nn.heads.grouped_attention

# %%
x, H = torch.randn(1, 6, 64), 8
w_q, w_o = torch.randn(64, 64) / 8, torch.randn(64, 64) / 8
for G in (8, 4, 2, 1):
    w_k, w_v = torch.randn(64, G * 8) / 8, torch.randn(64, G * 8) / 8
    y = grouped_attention(x, w_q, w_k, w_v, w_o, H, G, causal(6))
    count, kept = attention_parameters(64, H, G), 2 * G * 8
    print(f"G = {G}: output {tuple(y.shape)}, {count:6,} parameters, {kept:3} numbers kept per token")

# %% question="heads.what_sharing_saves"

# %% [markdown]
# ## 10. What to watch out for
#
# | you see | look at |
# |---|---|
# | right shapes, wrong numbers | `view` or `reshape` straight into (B, H, T, K): cut, then swap |
# | future leaks although the mask is right | the merge: heads swapped back before joining? |
# | published weights load, and the model is a little worse than promised | the root: of K, not of D; the order of blocks in the fused matrix |
# | published weights load, and the model talks nonsense | transposed matrices; key/value heads tiled 0, 1, 0, 1 instead of 0, 0, 1, 1 |
# | padding is seen in some heads | the mask's axis for the heads |
# | everything works until B = H, or never did unless T = S | a shape that was right by accident: test with sizes that all differ |
# | more heads do not help | K: the narrower a head, the fewer keys it can tell apart |
#
# <!-- pitfalls: heads -->

# %% [markdown] tags=["instructor"]
# **For instructors: reading the mistakes report.** `viewed straight into (B, H, T, K)` and `not swapped back` are the classics; they come in pairs, and a learner who makes both
# in a consistent way gets the right shapes and no error at all. `divided by the root of the model width` is a sign of copying lesson 04's line. `groups ignored` and tiled groups (0, 1, 0, 1)
# decide whether published weights would load. *Variants:* ask for multi-query attention (G = 1) alone; take H = 3 and D = 12 so that nothing is a power of two.

# %% [markdown]
# ## What was simplified
#
# - Positions are a learned table here (08); in today's models queries and keys are rotated in every head before they meet.
# - No dropout on the weights, and no biases but torch's.
# - Values are as wide as queries and keys. They need not be.
# - The tasks are small. Heads specialise in large models, too (Olsson et al. 2022 found some that look for what followed the same word before), but most of them cannot be named so simply.
#
# ## Where this lives in tinytrans
#
# `tinytrans/nn/heads.py` holds what you wrote, under the same names. `Attention` in `tinytrans/nn/attention.py` is the layer that the models use: one matrix for all three projections, `n_kv_heads` for G, a fused kernel, and the cache.
#
# ## References
#
# - A. Vaswani, N. Shazeer, N. Parmar, J. Uszkoreit, L. Jones, A. N. Gomez, Ł. Kaiser, I. Polosukhin (2017). Attention Is All You Need. arXiv 1706.03762 (section 3.2.2; table 3 varies the heads).
# - P. Michel, O. Levy, G. Neubig (2019). Are Sixteen Heads Really Better than One? arXiv 1905.10650.
# - E. Voita, D. Talbot, F. Moiseev, R. Sennrich, I. Titov (2019). Analyzing Multi-Head Self-Attention: Specialized Heads Do the Heavy Lifting, the Rest Can Be Pruned. arXiv 1905.09418.
# - S. Bhojanapalli, C. Yun, A. S. Rawat, S. J. Reddi, S. Kumar (2020). Low-Rank Bottleneck in Multi-head Attention Models. arXiv 2002.07028.
# - J.-B. Cordonnier, A. Loukas, M. Jaggi (2020). On the Relationship between Self-Attention and Convolutional Layers. arXiv 1911.03584.
# - C. Olsson et al. (2022). In-context Learning and Induction Heads. arXiv 2209.11895.
# - N. Shazeer (2019). Fast Transformer Decoding: One Write-Head is All You Need. arXiv 1911.02150 (multi-query).
# - J. Ainslie, J. Lee-Thorp, M. de Jong, Y. Zemlyanskiy, F. Lebrón, S. Sanghai (2023). GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints. arXiv 2305.13245.

# %% [markdown] tags=["instructor"]
# **For instructors.** Let learners derive the 55 % before they see it, and guess the right end of the curve of section 5: most expect more heads to be better. Common questions: *does each head see only a part of the token?* (no, its matrix reads all of it; the cut is made behind the
# projection); *why W_O, if a linear layer follows anyway?* (here none does: the residual is added to its output); *are the heads interpretable?* (some are, in this model; let them guess from the pictures which head is the one for names, and then silence it). The reach picture of section 8 is worth five
# minutes on the board: let them say what each picture means before they read on. The mistakes report of `split_heads` is the one to watch: whoever views without swapping there has usually not yet understood the order of memory.
