# %% [markdown]
# # 03 · From recurrent networks to attention
#
# The simplest way to turn a sentence into one vector is to average the vectors of its words. The average forgets their order. In this lesson a network reads the words one after another, keeps
# what matters in a state, and writes a translation from that state: dates in a language of your choice become ISO dates. You will see where this breaks, and how one added
# idea, *looking back*, repairs it. That idea is attention, and the rest of the course grows out of it.
#
# **You will be able to**
#
# - write a recurrent cell and a gated one, and run them over batches of texts that differ in length;
# - explain why gradients fade along a text, and measure how fast;
# - build an encoder and a decoder, train them with teacher forcing, and say what the stop token is for;
# - show in a run of your own that one vector is a bottleneck, and open it up with additive attention;
# - read a heat map of who looked where, and recognise a decoder that has seen its answers.
#
# **Builds on** matrix products, the softmax, cross-entropy and embeddings (a vector for each word). **Leads to** 04, which drops the recurrence and keeps the attention.
#
# **Time** about 90 minutes: order 5, one cell 12, what fades 12, encoder and decoder 16, the bottleneck 12, looking back 18, what it brings 7, break it 5,
# attention as one step 5. All cells together run for half a minute to two minutes on one CPU core, nearly all of it in sections 5 and 7. A GPU changes little: the work consists of many small
# steps that wait for each other, and section 9 says what that means.
#
# **Letters** B sequences in a batch, S places of the source, T steps of the target, E width of an embedding, D width of a state, M width of what the encoder says about a place, A hidden width of
# the scores, V different target characters.

# %% [markdown] tags=["instructor"]
# **For instructors: a plan.** 90 minutes as it stands. For 45: sections 1, 2, 4 and 6 up to `attention_pool`, with `gru_step`, `attentive_step` and `told` given away by the line under *Stuck?*, then section 7 from a run of your own. Let everybody start the training cell of section 5 *before* you talk about the bottleneck and that of
# section 7 before the heat map, so that nobody waits. Each learner should take a different language: the pictures differ, and comparing them is half the fun. Ask for predictions twice: how many dates share their bag (section 1; most say a few per cent), and how many of the spans are right with attention, before the curves of section 7 appear.

# %% tags=["setup"]
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors as small as ours gain nothing from a second thread

# %% tags=["tools"]
import os
import time
from collections import Counter
from datetime import timedelta

from graders.check import check
from tinytrans import fit, pick
from tinytrans.data.dates import FIRST, LAST, Dates, locales, write
from tinytrans.plots import curves, heat_map
from tinytrans.training.optim import adamw
from tinytrans.widgets import look_around

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with fewer steps, for tests
device = pick()
print(f"running on {device}{', in quick mode' if quick else ''}; {len(locales())} languages and regions")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.nn.recurrent import gru_step`: from there on the notebook uses the library's version. Your points still come from your own
# cell, so come back to it.
#
# ## 1. A bag forgets the order (5 minutes)
#
# *The fox chased the hen* and *the hen chased the fox* have the same mean. How much does that matter? Let us try it on dates, letter by letter. The mean of the letters' vectors tells which letters occur
# and how often, but not where. How many days of a century can still be told apart?

# %%
days = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]
bags = Counter("".join(sorted(write(day))) for day in days)
shared = sum(count for count in bags.values() if count > 1)
print(f"{write(days[0])} ... {write(days[-1])}: {len(days)} days, {len(bags)} different bags of letters")
print(f"{shared / len(days):.0%} of the days share a bag, the largest holds {max(bags.values())} of them")

# %% [markdown]
# *May 12, 2034*, *May 21, 2043*, *May 23, 2014* ... For more than nine days out of ten the bag does not say which day it is. We need a vector that depends on the order.
#
# ## 2. One cell, used again and again (12 minutes)
#
# A layer that takes in the whole text at once needs separate weights for each place. It cannot read a text longer than the one it was built for, and what it learns about a word at place 3 is of no use
# at place 4. So let us read as you do: one word at a time, with a memory. The memory is a vector, the **state** $h$. A **cell** takes the input $x$ and the remembered state $h$, and computes a new state and
# an output:
#
# $$h' = g_h(W_1 x + W_2 h), \qquad y = g_y(W_3 h').$$
#
# Two inputs, two outputs, and the *same* weights at every step. With $g_h = \tanh$ and a bias this is what torch calls an Elman network, after Elman (1990). We leave the output for later (a decoder turns its state into logits, an encoder passes
# the state on as it is). With the weights named after what they are multiplied by, the new state is
#
# $$h' = \tanh(W_x x + W_h h + b).$$
#
# By hand, with one number each, $w_x = 1$, $w_h = 0.5$, $b = 0$ and $h = 0$ at the start:
#
# | reads | $h_1$ | $h_2$ | $h_3$ |
# |---|---|---|---|
# | 1, 0, 0 | $\tanh(1) = 0.76$ | $\tanh(0.38) = 0.36$ | $\tanh(0.18) = 0.18$ |
# | 0, 0, 1 | 0 | 0 | $\tanh(1) = 0.76$ |
#
# The same numbers in a different order leave a different state, which is what the bag could not do. But look at the first row, too: the 1 that was read first is already fading.
#
# **A convention.** Weights are stored as in torch, (D, E): one *row* for each number that comes out. A batch has its vectors in rows, (B, E), so the product is `x @ w_x.T`.

# %% [markdown]
# **Exercise.** One step of the plain cell.
#
# <details><summary>Hint 1</summary>Two products, a sum, a bias, a tanh. All the adding happens before the tanh.</details>
# <details><summary>Hint 2</summary>x is (B, E) and w_x is (D, E): which of the two has to be transposed so that (B, D) comes out?</details>
# <details><summary>Hint 3</summary>`x @ w_x.T + h @ w_h.T + b` is what goes into `torch.tanh`.</details>

# %% exercise="recurrent.rnn_step"
# from: tinytrans.nn.recurrent.rnn_step

# %% [markdown]
# Your function should give the numbers of the table:

# %%
one, half, zero = torch.ones(1, 1), torch.full((1, 1), 0.5), torch.zeros(1)
for text in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)):
    h, seen = torch.zeros(1, 1), []
    for number in text:
        h = rnn_step(number * one, h, one, half, zero)
        seen.append(round(h.item(), 2))
    print(f"reads {text}: {seen}")

# %% question="recurrent.longer_text"

# %% [markdown]
# ## 3. What fades (12 minutes)
#
# How much does the last state still depend on place $t$? By the chain rule the derivative of $h_T$ with respect to $h_t$ is a product with one factor for each step between them, the last step's leftmost:
#
# $$\frac{\partial h_T}{\partial h_t} = \prod_{k=t+1}^{T} \mathrm{diag}(1 - h_k^2)\, W_h .$$
#
# By hand, in the first row of the table: the step to $h_2$ has the factor $0.5 \cdot (1 - 0.363^2) = 0.43$, the step to $h_3$ the factor $0.5 \cdot (1 - 0.18^2) = 0.48$. Their product is 0.21. After ten such steps less than a thousandth is left.
# The gradient **vanishes**: from an error at the end of a text the cell cannot learn what it should have remembered from the beginning (Bengio et al. 1994). If the factors are above 1, the product **explodes** instead.
#
# The trouble is that the state goes through a matrix and a tanh at *every* step, even when it should simply be kept. So let us give the cell a way to keep it. A **gate** is a number between 0 and 1, computed from input and state, that says how
# much gets through. The gated recurrent unit, **GRU** (Cho et al. 2014), has two for each number of the state:
#
# $$r = \sigma(W_r x + U_r h), \qquad z = \sigma(W_z x + U_z h),$$
#
# $$n = \tanh(W_n x + b_n + r\,(U_n h + c_n)), \qquad h' = (1 - z)\, n + z\, h .$$
#
# Here $n$ is the candidate, roughly what the plain cell would compute, with the biases $b_n$ and $c_n$; the **reset** gate $r$ says how much of the old state the candidate may see; the **update** gate $z$ says how much of the old state simply *stays*. Gates multiply number by number. (They have biases as well; the formula leaves them out. And in the paper $r$ acts on $h$ before the product with $U_n$; the form above is that of torch and cuDNN, which
# needs a single product with $h$.)
#
# By hand, one number: $h = 1$, candidate $n = -1$. With $z = 0.5$: $h' = 0.5 \cdot (-1) + 0.5 \cdot 1 = 0$. With $z = 0.99$: $h' = -0.01 + 0.99 = 0.98$, so the state is kept. And the gradient's direct way back through $z h$ has the factor $z$: after ten steps $0.99^{10} = 0.90$ is left, not a thousandth.
#
# The three products with $x$ are computed at once: $W_r$, $W_z$ and $W_n$ are stacked in `w_x` (3 D, E), and so are $U_r$, $U_z$, $U_n$ in `w_h` and the biases in `b_x` and `b_h`. `chunk(3, dim=-1)` takes the result apart.

# %% [markdown]
# **Exercise.** One step of the gated cell.
#
# <details><summary>Hint 1</summary>`x @ w_x.T + b_x` is (B, 3 D), and `.chunk(3, dim=-1)` makes it the parts for r, z and n. The same with h.</details>
# <details><summary>Hint 2</summary>Gates: the sigmoid of the *sum* of both parts. Candidate: keep its two parts separate, because r multiplies only the one that comes from h.</details>
# <details><summary>Hint 3</summary>The candidate is the tanh of $n_x + r \, n_h$, and z is the share of the *old* state.</details>

# %% exercise="recurrent.gru_step"
# from: tinytrans.nn.recurrent.gru_step

# %% [markdown]
# Now measure it. Untrained cells (their weights drawn as torch draws them) read a text of 60 random vectors, and we send a gradient back from the last state: how strong is it when it arrives at each place? The third cell is the second with 3 added to the bias of z, as if its gate
# had learned to keep.


# %%
def felt(step, weights: list[Tensor], T: int = 60, D: int = 64) -> list[float]:
    """How strong a gradient from the last state is when it reaches each of the states; 1 at the last."""
    xs = torch.randn(T, 8, D, generator=torch.Generator().manual_seed(1))
    states = [torch.zeros(8, D)]
    for x in xs:
        states.append(step(x, states[-1], *weights).requires_grad_())
        states[-1].retain_grad()
    states[-1].backward(torch.randn(8, D, generator=torch.Generator().manual_seed(2)))
    sizes = [state.grad.norm().item() for state in states[1:]]
    return [size / sizes[-1] for size in sizes]


def drawn(*shapes: tuple[int, ...], D: int = 64) -> list[Tensor]:
    """Weights between -1/√D and 1/√D."""
    generator = torch.Generator().manual_seed(0)
    return [(2 * torch.rand(*shape, generator=generator) - 1) / D**0.5 for shape in shapes]


gru_weights = drawn((192, 64), (192, 64), (192,), (192,))
keeping = [weight.clone() for weight in gru_weights]
keeping[2][64:128] += 3  # the second third of the bias is that of z
lines = {
    "plain cell": felt(rnn_step, drawn((64, 64), (64, 64), (64,))),
    "gated cell": felt(gru_step, gru_weights),
    "gated, z near 1": felt(gru_step, keeping),
}
for name, sizes in lines.items():
    print(f"{name}: {sizes[-11]:.1e} of the gradient left 10 steps earlier, {sizes[0]:.1e} at the start")
curves(
    {name: (range(1, 61), sizes) for name, sizes in lines.items()},
    title="What is left of a gradient from the end",
    x_label="place in the text",
    y_label="share that arrives",
    log_y=True,
)

# %% [markdown]
# Even untrained, the gated cell forgets more slowly than the plain one, by many powers of ten over this text; and a cell that has learned to keep lets about a twentieth of the gradient through from one end to the other. That is why we go on with the gated cell. The other well-known one, the LSTM
# (Hochreiter and Schmidhuber 1997), is built on the same idea.

# %% question="recurrent.why_gates"

# %% [markdown] tags=["instructor"]
# **For instructors: questions on sections 2 and 3.** *Why tanh and not ReLU?* The state goes through it at every step; ReLU has no upper end, and a factor a little above 1 explodes. *Does z near 1 mean that nothing new is learned?* No: z is computed anew at each step from what comes in; it can be near 1 for a hundred steps and near 0 when a date begins. *Is the
# vanishing the same as with many layers?* The same product of factors, along time instead of depth, and with the *same* matrix in each, which makes it worse. *Why is the third line not flat?* A bias of 3 makes z about 0.953, and $0.953^{60} = 0.056$. Let them compute which bias would keep half: z = 0.989, a bias of 4.5. A variant for the quick ones: draw the plain cell's
# W_h with a factor of 2 or 3 and see the other failure.

# %% [markdown]
# ## 4. Encoder and decoder (16 minutes)
#
# Translating means reading one sequence and writing another, which may be longer or shorter. Sutskever et al. (2014) and Cho et al. (2014) use two cells. The **encoder** reads:
#
# > $h_0 = 0$; for $t = 1 \dots S$: $h_t = \mathrm{cell}(e(w_t), h_{t-1})$
#
# where $e(w)$ is the embedding of a word. Its last state $h_S$ has seen everything. The **decoder** is the same loop with weights of its own, and it starts from there:
#
# > $s_0 = h_S$; for $t = 1 \dots T$: $s_t = \mathrm{cell}(e(\tilde w_{t-1}), s_{t-1})$, and logits of the word $\tilde w_t$ from $s_t$
#
# So one loop serves both; only the starting state differs. And what passes between them, $h_S$, belongs to no language: encoders and decoders of many languages could share it, and not every pair would need a model of its own. The texts of a batch differ in length: short ones are filled up with **padding**, which must not be read. By hand, with lengths 3 and 1:
#
# | | place 0 | place 1 | place 2 | last state |
# |---|---|---|---|---|
# | row 0 (3 long) | $h_1$ | $h_2$ | $h_3$ | $h_3$ |
# | row 1 (1 long) | $h_1$ | 0 | 0 | $h_1$, kept |
#
# `torch.where(condition, a, b)` takes a where the condition holds, and b elsewhere. With a condition of shape (B, 1) it decides for whole rows.

# %% [markdown]
# **Exercise.** The loop. `*cell` collects the four weights, and `gru_step(x, h, *cell)` hands them on.
#
# <details><summary>Hint 1</summary>`for t in range(xs.shape[1])`: x at place t of all rows is `xs[:, t]`. The new state of one round is the old one of the next.</details>
# <details><summary>Hint 2</summary>Row b still reads at place t if t is smaller than lengths[b]: `(t < lengths).unsqueeze(-1)` is (B, 1). Where it doesn't, the state stays as it is.</details>
# <details><summary>Hint 3</summary>Collect the outputs in a list (at place t the state, or 0 at padding) and join them at the end with `torch.stack(..., dim=1)`.</details>

# %% exercise="recurrent.unroll"
# from: tinytrans.nn.recurrent.unroll

# %% [markdown]
# torch has the same loop built in. Does yours agree with it, and what does it cost?

# %%
gru = nn.GRU(64, 64, batch_first=True)
weights = [gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0]
for S in (25, 50, 100, 200):
    xs, nothing, full = torch.randn(32, S, 64), torch.zeros(32, 64), torch.full((32,), S)
    begin = time.perf_counter()
    theirs, _ = gru(xs)
    middle = time.perf_counter()
    yours, _ = unroll(xs, nothing, full, *weights)
    end = time.perf_counter()
    gap = (theirs - yours).abs().max().item()
    times = f"nn.GRU {1e3 * (middle - begin):5.1f} ms, yours {1e3 * (end - middle):5.1f} ms"
    print(f"{S:3} places: {times}, apart by {gap:.0e}")

# %% [markdown]
# The numbers agree, and for both the time grows with the length: step 100 waits for step 99. Fused kernels make a step cheaper, but they cannot make the steps independent.
#
# ### Told the truth
#
# How does the decoder learn? Each step predicts a character after reading the one before it. But *which* one: the model's own guess, or the true one? At first all its guesses are wrong, and whatever follows them would be learned from nonsense. So during training it is told the truth.
# This is called **teacher forcing**: step $t$ reads target $t - 1$, and the first step reads a start token `^`. The last thing to predict is a stop token `$`: without it the model would never learn to end.
#
# | step | 0 | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|---|
# | reads | `^` | `2` | `0` | `2` | `6` |
# | predicts | `2` | `0` | `2` | `6` | `$` |
#
# What is read are the targets, shifted right by one place; that is all. Think of what happens if you forget the shift: each step would read the very character that it has to predict. Section 8 tries it.
#
# The loss is the mean of $-\ln p(\text{target})$ over the tokens that count. Which ones? All up to the stop, **and the stop itself**; what comes after it is padding. By hand: the model gives the targets of a row the probabilities $\tfrac12$, $\tfrac14$ and, for the stop, $\tfrac18$. The loss is
# $(\ln 2 + \ln 4 + \ln 8) / 3 = 2 \ln 2 = 1.39$, whatever comes after the stop.

# %% [markdown]
# **Exercise.** The loss of a decoder that is told the truth.
#
# <details><summary>Hint 1</summary>`targets == stop` marks the stops. Its `cumsum(dim=1)` counts the stops up to and including each place.</details>
# <details><summary>Hint 2</summary>A token counts if there is no stop *before* it: subtract the place's own mark from the count, and compare with 0.</details>
# <details><summary>Hint 3</summary>`logits[counts]` with counts (B, T) picks the rows that count, (N, V), and `F.cross_entropy` takes them with `targets[counts]`: softmax, logarithm, mean and all.</details>

# %% exercise="rnn.teacher_forced_loss"
# from: tinytrans.models.rnn.teacher_forced_loss

# %% question="rnn.told_the_truth"

# %% [markdown]
# ## 5. The bottleneck (12 minutes)
#
# Choose a language, any from the list that `locales()` returns: `"pl"`, `"ru"`, `"de"`, `"tr"`, `"ja"`, `"ar"`, `"hi"`, `"sw"` ... The wordings are real; they come from Unicode's tables. Your model will turn them into ISO dates, character by character. (The next cell is yours to change; grading does not look at it.) To make it
# harder, every second example is a *span* of two dates, which ISO writes with a slash between them.

# %%
LANGUAGE = "fr"  # yours?
LANGUAGE = LANGUAGE if LANGUAGE in locales() else "en"  # without the extra `data` there is English alone


def examples(n: int, split: str) -> list[tuple[str, str]]:
    """n pairs (as people write it, as ISO writes it); every second one is a span of two dates."""
    dates = Dates(2 * n, locales=[LANGUAGE], forms=("medium", "long"), split=split)
    pairs = []
    for i in range(n):
        first, second = dates[2 * i], dates[2 * i + 1]
        span = f"{first.source} – {second.source}", f"{first.target}/{second.target}"
        pairs.append(span if i % 2 else tuple(first))
    return pairs


train, unseen = examples(400 if quick else 6000, "train"), examples(20 if quick else 200, "validation")
for source, target in unseen[:4]:
    print(f"{source}  →  {target}")

# %%
letters = sorted({char for source, _ in train + unseen for char in source})
signs = "^$0123456789-/"  # the start, the stop, and all that ISO needs
START, STOP, V = 0, 1, len(signs)


def padded(rows: list[list[int]], filler: int) -> Tensor:
    """Lists of numbers -> one tensor, the short ones filled up."""
    tensors = [torch.tensor(row) for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=filler).to(device)


def numbered(pairs: list[tuple[str, str]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs -> source numbers (B, S), lengths (B,), target numbers (B, T) with a stop behind each."""
    source = padded([[letters.index(char) for char in text] for text, _ in pairs], 0)
    lengths = torch.tensor([len(text) for text, _ in pairs]).to(device)
    return source, lengths, padded([[*map(signs.index, text), STOP] for _, text in pairs], STOP)


source, lengths, target = numbered(unseen[:2])
print(f"source {tuple(source.shape)}, lengths {lengths.tolist()}, target {tuple(target.shape)}")
print("targets of the first:", "".join(signs[i] for i in target[0]))

# %% [markdown]
# The model consists of embeddings, your loop as the encoder, your loop again as the decoder, and a layer that computes the logits. All that the decoder ever learns about the source is the encoder's last state: 64 numbers.


# %%
class Reader(nn.Module):
    """What both models share: embeddings, an encoder, a decoder's cell, a head."""

    def __init__(self, D: int = 64, E: int = 32, context: int = 0) -> None:
        super().__init__()
        self.D, self.letters, self.signs = D, nn.Embedding(len(letters), E), nn.Embedding(V, E)
        self.encoder = self.cell(E)
        self.decoder = self.cell(E + context)
        self.head = nn.Parameter(self.weight(V, D + context))

    def weight(self, *shape: int) -> Tensor:
        return torch.empty(*shape).uniform_(-1, 1) / self.D**0.5

    def cell(self, width: int) -> nn.ParameterList:
        D = self.D
        shapes = (3 * D, width), (3 * D, D), (3 * D,), (3 * D,)
        return nn.ParameterList(self.weight(*shape) for shape in shapes)

    def read(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's state at every place (B, S, D), and its last state (B, D)."""
        nothing = torch.zeros(len(source), self.D, device=source.device)
        return unroll(self.letters(source), nothing, lengths, *self.encoder)


class Plain(Reader):
    """Without attention: the decoder begins with the encoder's last state, and has nothing else."""

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        _, s = self.read(source, lengths)
        before = F.pad(target[:, :-1], (1, 0), value=START)  # moved to the right by one place
        full = torch.full_like(lengths, target.shape[1])
        states, _ = unroll(self.signs(before), s, full, *self.decoder)
        return states @ self.head.T

    @torch.no_grad()
    def translate(self, source: Tensor, lengths: Tensor, n: int = 22) -> tuple[Tensor, None]:
        """The likeliest sign at each of n steps (B, n): here the model reads what it wrote itself."""
        _, s = self.read(source, lengths)
        token, written = torch.full_like(lengths, START), []
        for _ in range(n):
            s = gru_step(self.signs(token), s, *self.decoder)
            token = (s @ self.head.T).argmax(dim=-1)
            written.append(token)
        return torch.stack(written, dim=1), None


# %% tags=["measured"]
def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same 64 examples for the same step."""
    chosen = torch.randint(len(train), (64,), generator=torch.Generator().manual_seed(step))
    return numbered([train[i] for i in chosen.tolist()])


def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The teacher-forced loss of a batch."""
    return teacher_forced_loss(model(*batch), batch[2], STOP)


def text(ids: Tensor) -> str:
    """Numbers -> what was written, up to the stop."""
    return "".join(signs[i] for i in ids.tolist()).split("$")[0]


def right(model: nn.Module) -> tuple[float, float]:
    """The share of unseen single dates, and of unseen spans, that are translated without an error."""
    written, _ = model.translate(*numbered(unseen)[:2])
    hits = [text(row) == target for row, (_, target) in zip(written, unseen, strict=True)]
    return sum(hits[::2]) / len(hits[::2]), sum(hits[1::2]) / len(hits[1::2])


steps, every = (10, 5) if quick else (300, 50)


def trained(
    model: nn.Module, loss=loss, steps: int = steps
) -> tuple[nn.Module, list[float], list[tuple[float, float]]]:
    """The model trained, its losses, and its shares of right translations on the way."""
    shares = [right(model.to(device))]

    def look(model: nn.Module) -> dict[str, float]:
        shares.append(right(model))
        return {"single": shares[-1][0], "span": shares[-1][1]}

    def rate(step: int) -> float:  # up in 20 steps, and down over the last third
        return min(1.0, (step + 1) / 20, 3 * (1 - step / steps))

    history = fit(
        model, batch, loss, steps=steps, optimizer=adamw(model, lr=5e-3), schedule=rate,
        evaluate=look, every=every, progress=False,
    )  # fmt: skip
    return model, history.losses, shares


torch.manual_seed(1)
start = time.perf_counter()
plain, plain_losses, plain_shares = trained(Plain())
count, seconds = sum(p.numel() for p in plain.parameters()), time.perf_counter() - start
print(f"{count} weights, {steps} steps in {seconds:.0f} s")
print(f"single dates right: {plain_shares[-1][0]:.0%}, spans right: {plain_shares[-1][1]:.0%}")
for (source, target), row in zip(unseen[:6], plain.translate(*numbered(unseen[:6])[:2])[0], strict=True):
    print(f"    {source}  →  {text(row)}{'' if text(row) == target else f'   (right: {target})'}")

# %% [markdown]
# It writes dates in the right form, but hardly ever the right date. (In quick mode not even the form is right.) Everything about the source has to pass through the same 64 numbers, and the decoder has to get it out of them again in a different order. The longer the text, the worse it gets: that is what
# Cho et al. (2014b) and Bahdanau et al. saw in real translations. More training helps, and so does a wider state. But however wide it is, it is one vector for everything, computed before a single character of the answer is known.
#
# ## 6. Looking back (18 minutes)
#
# You would not translate a span from memory either: you would look at the source again, each time at the part that you are about to write. The encoder has computed a state at *every* place, $h_1, \dots, h_S$; so far we threw away all but the last. Let us keep them: each stands for its place in the light of all that came before it. And let the
# decoder take from them what it needs before each step (Bahdanau et al. 2014).
#
# What does it need? That depends on what it has written so far, which its state $s_{t-1}$ knows. So we want a number for each place that says how well it fits: $\mathrm{sim}(s_{t-1}, h_i)$. What fits what has to be learned, so let a small network decide: a fully connected one with one hidden layer that reads
# both vectors joined, $\mathrm{FC}(s, h)$. A matrix times two joined vectors is the sum of two matrices times one vector each, hence
#
# $$\mathrm{sim}(s, h_i) = v \cdot \tanh(W_q s + W_k h_i).$$
#
# It is called **additive** for the plus sign. The vector that asks, $s$, is the **query**; those that are compared with it, $h_1 \dots h_S$, are the **keys**. By hand, with one number each, $W_q = W_k = 1$, $v = 2$, the state $s = 1$ and two places $h = (2, -1)$: the scores are $2 \tanh(3) = 1.99$ and $2 \tanh(0) = 0$.
#
# The tanh is not decoration. Without it the score would be $v \cdot W_q s + v \cdot W_k h_i$: the state adds the same number at all places, and the softmax that follows cancels it.

# %% [markdown]
# **Exercise.** The scores.
#
# <details><summary>Hint 1</summary>`query @ w_q.T` is (B, A), `keys @ w_k.T` is (B, S, A): the query's part has to serve all S places.</details>
# <details><summary>Hint 2</summary>`unsqueeze(1)` makes (B, 1, A) of it, which broadcasts over the places.</details>
# <details><summary>Hint 3</summary>A tensor (B, S, A) times a vector (A,), with `@`, is (B, S).</details>

# %% exercise="recurrent.additive_scores"
# from: tinytrans.nn.recurrent.additive_scores

# %% [markdown]
# Scores become **shares** by the softmax, and the shares mix the **values**, which here are the $h_i$ once more, into one vector, the **context**:
#
# $$\alpha_i = \frac{\exp \mathrm{sim}(s_{t-1}, h_i)}{\sum_j \exp \mathrm{sim}(s_{t-1}, h_j)}, \qquad c_t = \sum_i \alpha_i h_i .$$
#
# By hand, on with the example: $e^{1.99} = 7.32$ and $e^0 = 1$ give the shares 0.88 and 0.12, and the context $0.88 \cdot 2 + 0.12 \cdot (-1) = 1.64$. It is a weighted mean, so gradients reach all places, the scores and the state that asked: *where to look* is learned together with everything else, and nobody ever
# tells the model which place is the right one.
#
# Padding must get no share. If you zero its weight after the softmax, the others no longer sum to 1; a score of 0 does not help either, because $e^0 = 1$. Give it the score $-\infty$ before the softmax: $e^{-\infty} = 0$. Which places are real is told by a **mask**, True where one may look.

# %% [markdown]
# **Exercise.** Shares and context.
#
# <details><summary>Hint 1</summary>`scores.masked_fill(where, value)` is a copy with a value filled in. The mask says where one <em>may</em> look; fill the opposite, and only if there is a mask.</details>
# <details><summary>Hint 2</summary>The softmax shares out over the places, the last axis of the scores.</details>
# <details><summary>Hint 3</summary>(B, 1, S) @ (B, S, M) is (B, 1, M): `unsqueeze(1)` before, `squeeze(1)` after.</details>

# %% exercise="recurrent.attention_pool"
# from: tinytrans.nn.recurrent.attention_pool

# %%
one, places = torch.ones(1, 1), torch.tensor([[[2.0], [-1.0]]])
scores = additive_scores(one, places, one, one, torch.tensor([2.0]))
context, shares = attention_pool(scores, places)
print("scores", scores, "\nshares", shares, "\ncontext", context)

# %% [markdown]
# Now a step of a decoder that looks back. The order matters. First the state *before* the step asks. Then the cell reads the token with the context appended to it, and moves on:
#
# $$c_t = \sum_i \alpha_i h_i \ \text{ asked by } s_{t-1}, \qquad s_t = \mathrm{cell}([e(\tilde w_{t-1}), c_t],\ s_{t-1}).$$

# %% [markdown]
# **Exercise.** One step that looks back.
#
# <details><summary>Hint 1</summary>Three of your functions, one after the other: scores, pool, cell. `*look` hands on w_q, w_k and v, `*cell` the four weights.</details>
# <details><summary>Hint 2</summary>Who is the query? What are the keys, what the values?</details>
# <details><summary>Hint 3</summary>The cell reads `torch.cat((x, context), dim=-1)`. Return the new state, the context and the weights.</details>

# %% exercise="recurrent.attentive_step"
# from: tinytrans.nn.recurrent.attentive_step

# %% question="recurrent.who_asks"

# %% [markdown]
# **Exercise.** And the whole decoder, with teacher forcing. The head reads the new state with the context appended.
#
# <details><summary>Hint 1</summary>A loop over the steps. Before the loop, the token to be read is the start token, one for each row: `torch.full_like(targets[:, 0], start)`.</details>
# <details><summary>Hint 2</summary>In each round, `words[token]` are the embeddings (B, E); make the step; keep logits and weights; and only *then* set the token to target t, which the next round reads.</details>
# <details><summary>Hint 3</summary>`torch.cat((s, context), dim=-1) @ head.T` are the logits (B, V) of one step. Stack along dim=1.</details>

# %% exercise="rnn.told"
# from: tinytrans.models.rnn.told

# %% [markdown] tags=["instructor"]
# **For instructors: what the mistakes report tells.** `graders autograde` lists the named mistakes by frequency. `gru_step: z turned round`: the papers differ; show both conventions and ask what a gate of 1 does in each. `unroll: last place for last state`: draw the table of section 4 again with three rows. `additive_scores: a row meets another's keys`: shapes on paper, (B, A) beside
# (B, S, A), before any code. `attention_pool: hidden scores set to 0`: ask for $e^0$. `attentive_step: the new state asks` and `told: reads the target it has to predict` are the two conceptual ones: in both, something is used before it can be known. Send the second group on to section 8, where the leak is measured. Many `no gradient` mistakes point to a habit of writing `.data` or
# `.item()`; a minute on what autograd records is well spent.

# %% [markdown]
# ## 7. What it brings (7 minutes)
#
# The same encoder, the same widths, the same data, the same number of steps and the same learning rate. Only the look back is new.


# %% tags=["measured"]
class Looking(Reader):
    """With attention: before each step the decoder looks back at all of the encoder's states."""

    def __init__(self, D: int = 64) -> None:
        super().__init__(D, context=D)
        self.look = nn.ParameterList(self.weight(*shape) for shape in ((D, D), (D, D), (D,)))

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        memory, s = self.read(source, lengths)
        mask = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        weights = self.look, self.decoder, self.head
        return told(target, START, self.signs.weight, s, memory, mask, *weights)[0]

    @torch.no_grad()
    def translate(self, source: Tensor, lengths: Tensor, n=22, hide=True) -> tuple[Tensor, Tensor]:
        """The likeliest sign at each step (B, n), and where each step has looked (B, n, S)."""
        memory, s = self.read(source, lengths)
        real = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        mask = real if hide else torch.ones_like(real)
        token, written, looks = torch.full_like(lengths, START), [], []
        for _ in range(n):
            x = self.signs(token)
            s, context, weights = attentive_step(x, s, memory, mask, self.look, self.decoder)
            token = (torch.cat((s, context), dim=-1) @ self.head.T).argmax(dim=-1)
            written.append(token)
            looks.append(weights)
        return torch.stack(written, dim=1), torch.stack(looks, dim=1)


torch.manual_seed(1)
start = time.perf_counter()
looking, looking_losses, looking_shares = trained(Looking())
count, seconds = sum(p.numel() for p in looking.parameters()), time.perf_counter() - start
print(f"{count} weights, {steps} steps in {seconds:.0f} s")
for name, shares in (("without attention", plain_shares), ("with attention", looking_shares)):
    print(f"{name:18} single dates right: {shares[-1][0]:4.0%}, spans right: {shares[-1][1]:4.0%}")

# %%
seen = [n * every for n in range(len(looking_shares))]
curves(
    {
        f"{kind}, {name}": (seen, [pair[i] for pair in shares])
        for name, shares in (("with attention", looking_shares), ("without", plain_shares))
        for i, kind in enumerate(("single", "span"))
    },
    title=f"Unseen dates translated without an error ({LANGUAGE})",
    x_label="training steps",
    y_label="share",
)

# %% [markdown]
# With the look back at least nine out of ten unseen dates are right, spans as well as single ones (in our run all of them); without it, after the same steps on the same data, hardly one in fifty. So where does it look? Choose a written character with the slider; the number below a letter is its share in per cent. (Where the picture's font lacks your language's letters, it numbers them, #0, #1 ...; the line below the slider has them all.) Nobody has told the model which part of the source is the year. (In quick mode it has not found out yet.)

# %%
shown = max(unseen[::2], key=lambda pair: len(pair[0]) if len(pair[0]) <= 40 else 0)
written, looks = looking.translate(*numbered([shown])[:2], n=10)
print(f"{shown[0]}  →  {text(written[0])}")
read = list(shown[0].replace(" ", "␣"))  # a space that can be seen
look_around(looks[0], list(text(written[0])[:10].ljust(10)), read, title="who looks where")

# %% [markdown]
# The heat map is the alignment of the two texts: it shows which letters the model was looking at when it wrote a character. Two things are worth a second look. The order differs: ISO begins with the year, and most languages end with it. And where the model writes a digit of the day or
# of the year, the bright spots are sharp: at that very digit, or just behind it, where the encoder's state has read it as well. For the month it looks at letters of its name.
#
# Is this how the model *decides*? Careful: the weights say what was mixed, not what it was used for. But we can test whether the look is needed at all:

# %% tags=["measured"]
source, lengths, target = numbered(unseen)
for name, options in (("as trained", {}), ("padding not hidden", {"hide": False})):
    written, _ = looking.translate(source, lengths, **options)
    hits = [text(row) == wanted for row, (_, wanted) in zip(written, unseen, strict=True)]
    print(f"{name}: {sum(hits) / len(hits):.0%} right")
memory, s = looking.read(source, lengths)
mean = (memory.sum(dim=1, keepdim=True) / lengths[:, None, None]).expand_as(memory).contiguous()
mask = torch.arange(source.shape[1], device=device) < lengths[:, None]
with torch.no_grad():
    args = target, START, looking.signs.weight, s
    for name, places in (("where it likes", memory), ("everywhere alike", mean)):
        logits, _ = told(*args, places, mask, looking.look, looking.decoder, looking.head)
        print(f"looking {name}: loss {teacher_forced_loss(logits, target, STOP):.2f}")

# %% [markdown] tags=["instructor"]
# **For instructors: what to expect, and variants.** See the figures in the text for French. Languages that write the year first (`"ja"`, `"zh"`, `"hu"`) align along the diagonal; `"ar"` and `"hi"` may have digits of their own, and the model does not mind. Variants that fit into the time: feed the source backwards (`source.flip(1)` for full rows), which Sutskever et al. found to help the model *without* attention, and
# ask why; D = 128 for the plain model; spans of three dates for both. *Could the plain model learn it with more steps?* It goes on improving: let somebody try ten times as many. The claim of the lesson is about what is gained by equal means.

# %% [markdown]
# It is. If the decoder is shown the mean of all places instead of those that it asks for, it is lost: the loss rises from nearly 0 to more than 1. And when it can see the padding, some translations that were right go wrong; which ones depends on how long the *other* sources of the batch are.
#
# ## 8. Break it on purpose (5 minutes)
#
# **The forgotten shift.** Do not shift the targets: step $t$ reads target $t$ and predicts target $t$. **The forgotten stop.** Leave the stop out of the loss. We train one model with each mistake for a short while, without attention, and compare with a model trained properly.


# %%
class Copying(Plain):
    """A decoder that reads what it has to predict."""

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        _, s = self.read(source, lengths)
        full = torch.full_like(lengths, target.shape[1])
        states, _ = unroll(self.signs(target), s, full, *self.decoder)
        return states @ self.head.T


def endless(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The loss without the stops."""
    counts = batch[2] != STOP
    return F.cross_entropy(model(*batch)[counts], batch[2][counts])


short = 10 if quick else 100
for name, model, its_loss in (("no shift", Copying(), loss), ("no stop", Plain(), endless)):
    model, losses, _ = trained(model, its_loss, short)
    written, _ = model.translate(*numbered(unseen)[:2], n=40)
    ended = (written == STOP).any(dim=1).float().mean()
    print(f"{name}: loss {sum(losses[-10:]) / 10:.3f}; {ended:.0%} of its translations end in 40 signs")
    print(f"    {unseen[0][0]}  →  {''.join(signs[i] for i in written[0])}")
print(f"trained properly, after as many steps: loss {sum(plain_losses[short - 10 : short]) / 10:.3f}")

# %% [markdown]
# The copier has by far the best loss, and translates nothing: in use it reads what it wrote itself, and repeats it. **A loss that is too good is the most common sign of a leak**; you will meet it again in lesson 04, where a mask does what the shift does here. The other model writes
# what looks like dates and never stops: what is not in the loss is not learned.
#
# ## 9. Attention as one step (5 minutes)
#
# Strip the look back of everything that is about dates, and one operation remains. It takes a query $q$, keys $K$ and values $V$, one row for each place:
#
# $$m = K q, \qquad \alpha = \mathrm{softmax}(m), \qquad c = V^\top \alpha .$$
#
# Here the query was $s_{t-1}$, keys and values were both $H$, the rows $h_1 \dots h_S$, and the score was a network instead of the dot product $Kq$. With it the decoder is two lines:
#
# > $c_t = \mathrm{Attention}(s_{t-1}, H, H)$; $\quad s_t = \mathrm{cell}(e(\tilde w_{t-1}), s_{t-1}, c_t)$
#
# Now look at how information travels from word to word. There are two ways: the recurrence, from step to step, and attention, directly from any place. The recurrence is what made us wait in section 4, and what made gradients fade in section 3. Attention has neither fault: every place is one step away, and
# the queries of all steps could be asked at once if they did not depend on each other through the state. So drop the recurrence, and let the words themselves ask. That is lesson 04.
#
# Does that train faster? It takes more arithmetic: every place is compared with every place, $T^2$ scores, where a cell takes $T$ steps. But all of it can run at once. On a GPU, which has work for thousands of units at a time, that decides for attention at the usual lengths (Vaswani et al. 2017, section 4). On a CPU it need not: there a good kernel for a whole recurrent layer keeps up, and only a loop of single
# steps such as ours falls behind. Lesson 04 measures it.

# %% question="recurrent.encoder_or_rnn"

# %% [markdown]
# ## 10. What to watch out for
#
# | you see | look at |
# |---|---|
# | a training loss near 0 and nonsense in use | the shift: step t must read target t - 1 |
# | translations that never end | the stop: is it in the targets and in the loss? |
# | results that depend on what else is in the batch | padding: read by the encoder, or looked at by the decoder |
# | attention weights that are the same at every step | scores that do not depend on the query: no tanh, or the query left out |
# | attention weights that are the same everywhere | scores that do not depend on the keys; a softmax over the wrong axis |
# | a gradient of 0 or NaN far back in the text | too many factors: use gates, clip the gradient's norm (`fit` clips at 1) |
# | weights from another library that give other numbers | the order of the gates (r, z, n), where the reset acts, which of n and h gets z |
#
# <!-- pitfalls: recurrent rnn -->
#
# ## What was simplified
#
# - The encoder reads from the left only. Bahdanau et al. read from both ends and join both states, so that each place knows what follows it; `RNNConfig(bidirectional=True)` is the library's default.
# - One layer, 64 numbers, 300 steps. With more of each the plain model gets further; we compare what the two reach with equal means.
# - The likeliest character is written at each step. Lesson 10 has better ways, beam search among them.
# - Real systems read tokens, pieces of words, not characters.
#
# ## Where this lives in tinytrans
#
# `tinytrans/nn/recurrent.py` holds the cells, the loop and the additive attention under the same names, and `lstm_step` beside them. `tinytrans/models/rnn.py` has your loss, and `Seq2Seq`, an encoder and a decoder made of torch's fused layers; `tinytrans/data/dates.py` makes the dates.
#
# ## References
#
# - J. L. Elman (1990). Finding Structure in Time. Cognitive Science 14.
# - Y. Bengio, P. Simard, P. Frasconi (1994). Learning Long-Term Dependencies with Gradient Descent Is Difficult. IEEE Transactions on Neural Networks 5.
# - S. Hochreiter, J. Schmidhuber (1997). Long Short-Term Memory. Neural Computation 9.
# - K. Cho et al. (2014). Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation. arXiv 1406.1078 (the GRU).
# - K. Cho, B. van Merriënboer, D. Bahdanau, Y. Bengio (2014b). On the Properties of Neural Machine Translation: Encoder-Decoder Approaches. arXiv 1409.1259 (quality falls with length).
# - I. Sutskever, O. Vinyals, Q. V. Le (2014). Sequence to Sequence Learning with Neural Networks. arXiv 1409.3215.
# - D. Bahdanau, K. Cho, Y. Bengio (2014). Neural Machine Translation by Jointly Learning to Align and Translate. arXiv 1409.0473.
# - S. Bengio, O. Vinyals, N. Jaitly, N. Shazeer (2015). Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks. arXiv 1506.03099 (what to do about reading one's own errors).
# - A. Vaswani et al. (2017). Attention Is All You Need. arXiv 1706.03762 (section 4: why without recurrence).
# - S. Jain, B. C. Wallace (2019). Attention is not Explanation. arXiv 1902.10186 (what a heat map does not prove).
