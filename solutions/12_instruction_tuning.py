# %% [markdown]
# # 12 · Instruction tuning
#
# A pretrained model continues texts. Nobody has told it that you might want something. In this lesson you teach it to answer: first by training all of
# its weights, then by training so few of them that the result fits into a small file.
#
# **You will be able to**
#
# - render a dialogue as the single text that a model reads, and say why training and use must agree on it to the letter;
# - build batches in which the answer is learned and the prompt is only read;
# - tell from a model's behaviour which tokens its loss left out;
# - write LoRA's forward pass, merge the correction into the weights, and count what trains; pick the biases for BitFit;
# - compare full tuning, LoRA and BitFit by figures of your own.
#
# **Builds on** the loss of lesson 11 (targets shifted by one, -100 where nothing is asked), on generation (10) and on matrix products. **Leads to** 13, where the
# model that does as it is told learns what people like.
#
# **Time** about 80 minutes: a model that continues 10, dialogues 10, what is learned 15, a first tuning 10, LoRA 15, BitFit 10, breaking it 10. The notebook computes
# for about two minutes on two CPU cores. A GPU changes nothing but the time.
#
# **Letters** B dialogues in a batch, T tokens, V the size of the vocabulary; $W$ a weight of $(D_{out}, D_{in}),$ $r$ the rank, $A$ a matrix of $(r, D_{in}),$ $B$ one of $(D_{out}, r).$

# %% tags=["setup"]
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %%
seeded = torch.manual_seed(0)

# %% tags=["tools"]
import os
import time
from functools import partial
from textwrap import fill

from graders.check import check
from tinytrans import checkpoints, fit, load, pick
from tinytrans.adapters.trainable import linear_layers, replace
from tinytrans.plots import curves
from tinytrans.recipes.answers import obedience, sample_answers, texts
from tinytrans.recipes.instruct import with_biases
from tinytrans.sampling import generate
from tinytrans.training.optim import adamw, warmup_cosine
from tinytrans.widgets import read_along

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with fewer steps, for tests
device = pick()
print(f"running on {device}{', in quick mode' if quick else ''}")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.data.chat import render`: from there on the notebook uses the library's version. Your points still come from your own cell, so come
# back to it.
#
# ## 1. A model that continues (10 minutes)
#
# The base model of this lesson, `stories`, has a million weights and was pretrained as in lesson 11, on books of animal stories. It tells them well. Let us ask it for one.


# %%
def load_base() -> nn.Module:
    """The pretrained model, fresh from the file."""
    return checkpoints.load("stories", device=device)[0]


base, tokenizer = load_base(), checkpoints.load("stories")[1]
end = tokenizer.token_to_id("<|end|>")


@torch.no_grad()
def go_on(model: nn.Module, text: str, n: int = 60) -> str:
    """How a model continues a text, always by the likeliest token, until its end sign or for n tokens."""
    ids = torch.tensor([tokenizer.encode(text)], device=device)
    row = generate(model, ids, max_new_tokens=5 if quick else n, temperature=0.0, stop=end)[0].tolist()
    written = row[ids.shape[1] :]
    return tokenizer.decode(written[: written.index(end) + 1] if end in written else written)


request = "Tell a story about a fox named Mei by the lake. It has a sad end."
for text in ("Once upon a time there was", request, f"{request}\n"):
    print(f"{text!r}\n{fill('... ' + go_on(base, text), 96)}\n")

# %% [markdown]
# The first is what the model was made for: given a beginning, it finds a likely continuation. It treats the second in just the same way, as the beginning of a text, and goes on in the middle of it. A name, an animal and a place at the beginning are likely to come again, so much of the request comes true by itself; but the model has no notion that *it* is being asked and that *you* want something done.
#
# The third differs by a single character, a line break. In the books that this model has read, a story often stood under a heading, and the headings looked like our request. The line break turns the request into a heading, and the likely continuation is the story that it announces, from its beginning! This is **prompting**: finding a form of text
# whose continuation is what you want. One can also put a few solved examples in front, which is called **few-shot** or in-context learning (Brown et al. 2020). Neither changes a weight. But you have to know what the model's texts looked like, and people who merely *use* it do not.
#
# How much does the form matter? Everything that we ask for can be checked: is it a fox? is it named Mei? by the lake? is the end sad? We count this on requests with pairs of names that occur in no training text, in five forms. (The next section explains the chat, with its signs.)

# %% tags=["measured"]
held_out = load("tales", n=12 if quick else 80, seed=1, split="validation")
requests = [tale.instruction for tale in held_out]
CHAT = "<|user|>{}<|assistant|>"


def report(model: nn.Module, form: str = CHAT) -> dict[str, float]:
    """The share of held-out requests that a model fulfils, and how often it comes to an end by itself."""
    how = {"generator": torch.Generator(device).manual_seed(0), "longest": 12 if quick else 190}
    answers = sample_answers(model, tokenizer, requests, asked=form.format, **how)
    told = obedience(requests, texts(tokenizer, answers))
    wishes = ("kind", "name", "place", "end", "these four", "all")
    stops = sum(end in answer for answer in answers) / len(answers)
    return {wish: told[wish] for wish in wishes} | {"stops": stops}


def show(table: dict[str, dict[str, float]]) -> None:
    """The rows of a table, one for each model or form."""
    columns = list(next(iter(table.values())))
    print(" " * 18, *(f"{column:>11}" for column in columns))
    for name, row in table.items():
        print(f"{name:18}", *(f"{row[column]:11.2f}" for column in columns))


forms = {
    "as a heading": "{}\n",
    "typed in": "{}",
    "a space behind it": "{} ",
    "Question, Answer": "Question: {} Answer:",
    "as a chat": CHAT,
}
asked_base = {name: report(base, form) for name, form in forms.items()}
show(asked_base)

# %% [markdown]
# Each column counts the requests that have such a wish (not every one names a place). `these four` is the share for which all wishes about kind, name, place and end came true; `all` counts every wish (colours, things and dialogue too), and `stops` is the share of answers that ended by themselves. A story ends either sadly or happily, so half of the wishes for an end come true without any obedience.
#
# Under a heading the model does nearly everything that the heading says, so it *can*. Typed in plainly the request still looks much like a heading, and most of it comes true. But a single space behind it, or what people put around a question, and most of it is lost: such text stood in none of the books. We want a model that one can simply ask, in one form, without knowing what it has read. Prompts and examples will not do; we have to change the weights.

# %% [markdown] tags=["instructor"]
# **For instructors: planning.** Sections 1 to 4 fill one class hour, 5 to 7 half of another. If time is short, leave out BitFit's training (keep its two exercises) and the second half of section 7. All training happens in cells of its own: start one, then discuss what it should show.
# Let learners try forms of their own in section 1 before they see the heading: a question, *Answer:*, an example in front.

# %% [markdown]
# ## 2. Who speaks? (10 minutes)
#
# A model reads one row of tokens. If that row holds a conversation, the model must be able to tell who is speaking and when a turn is over. So we use signs that occur in no text: tokens of their own.
#
# | sign | means |
# |---|---|
# | `<\|user\|>` | the user says what follows |
# | `<\|assistant\|>` | the assistant says what follows |
# | `<\|end\|>` | the assistant has finished |
#
# By hand: the user says *Hi.*, the assistant *Hello!*, the user *A story, please.* The text is
#
# `<|user|>Hi.<|assistant|>Hello!<|end|><|user|>A story, please.<|assistant|>`
#
# and what comes next is up to the model. Nothing stands between a sign and the words, not even a space: a space is part of the token that follows it, so one too many would turn the answer's first word into a different token. Such a form is called
# a **chat template**. Every family of models has its own, and a model expects the one that it was trained with.

# %% [markdown]
# **Exercise.** Render a dialogue.
#
# <details><summary>Hint 1</summary>Go through the turns and build up a string.</details>
# <details><summary>Hint 2</summary>The sign of a role is its name between `<|` and `|>`; only what the assistant said is followed by `<|end|>`. Turn number i is `("user", "assistant")[i % 2]`'s; for any other role raise a `ValueError`.</details>
# <details><summary>Hint 3</summary>After the loop: if the last turn was the user's, the number of turns is odd and `<|assistant|>` is still missing.</details>

# %% exercise="chat.render"
# from: tinytrans.data.chat.render

# %%
dialogue = [("user", request), ("assistant", "Mei was a little fox. She lost her kite.")]
print(render(dialogue))
asked_ids = tokenizer.encode(render(dialogue[:1]))
print(asked_ids[:3], "...", asked_ids[-3:])

# %% [markdown]
# Each sign has become a single id. This is more than a convenience:

# %% question="chat.injection"

# %% [markdown]
# ## 3. What is learned (15 minutes)
#
# Now take some thousands of dialogues, each a request and a story that fulfils it. The training is that of lesson 11: at each place, predict the next token. This is **supervised fine-tuning**, SFT. What comes out is published with *Instruct* in its
# name, just as what goes in has *Base*. It is still next-token prediction, on other texts, with one further difference: the loss counts **the answer alone**.
#
# Why? The model should learn to answer, not to ask. A loss on the request would spend part of every step on guessing what somebody might want next, which is chance. By hand, a dialogue of 6 tokens, 3 of them the prompt's:
#
# | place | 0 | 1 | 2 | 3 | 4 | 5 |
# |---|---|---|---|---|---|---|
# | token | `<\|user\|>` | Hi | `<\|assistant\|>` | Hello | ! | `<\|end\|>` |
# | part of the answer? | no | no | no | **yes** | **yes** | **yes** |
# | is asked for | Hi | `<\|assistant\|>` | Hello | ! | `<\|end\|>` | – |
# | learned? | no | no | **yes** | **yes** | **yes** | – |
#
# Three tokens are learned. Note the shift: `<|assistant|>` belongs to the prompt, but it is *asked for* the answer's first token. And the end sign belongs to the answer: a model that is never asked for it does not learn when to stop.

# %% [markdown]
# **Exercise.** Which tokens belong to the answer? The rows of a batch are filled up with padding, so three lengths matter: that of the prompt, that of prompt and answer together, and T.
#
# <details><summary>Hint 1</summary>Place t of a row belongs to the answer if it does not lie before the prompt's end, but before the row's end.</details>
# <details><summary>Hint 2</summary>`torch.arange(T)` gives the places; compare them with `prompt_lengths[:, None]`, which is (B, 1).</details>
# <details><summary>Hint 3</summary>Two comparisons joined by `&`. Which of them allows equality?</details>

# %% exercise="sft.answer_mask"
# from: tinytrans.training.sft.answer_mask

# %% [markdown]
# **Exercise.** Inputs and targets.
#
# <details><summary>Hint 1</summary>Inputs are all tokens but the last, targets all but the first.</details>
# <details><summary>Hint 2</summary>The mask speaks about tokens, and targets are tokens: it is cut like them.</details>
# <details><summary>Hint 3</summary>`masked_fill` (without underscore) makes a copy in which the places where a condition holds are -100.</details>

# %% exercise="sft.answer_targets"
# from: tinytrans.training.sft.answer_targets

# %% [markdown]
# Walk through a dialogue: shaded tokens are learned, and the note says what each place is asked for. (Where no slider runs, the still picture shows the shades.)

# %%
short = [("user", "Tell a story about a fox named Mei."), ("assistant", "Mei was a fox. She slept.")]
ids = torch.tensor([tokenizer.encode(render(short))])
asked_length = len(tokenizer.encode(render(short[:1])))
learned = answer_mask(torch.tensor([asked_length]), torch.tensor([ids.shape[1]]), ids.shape[1])
_, targets = answer_targets(ids, learned)
words = [tokenizer.decode([i]).strip() or "␣" for i in ids[0].tolist()]
notes = [
    f"{words[t]} is asked for {words[t + 1]}: {'learned' if targets[0, t] != -100 else 'not learned'}"
    for t in range(len(words) - 1)
]
notes.append(f"{words[-1]} is asked for nothing: the text is over")
read_along(words, learned[0].float(), notes, title="shaded: learned")

# %% [markdown]
# The loss is the mean surprise over the targets that are left. By hand: if the model gives the three answer tokens probabilities of 1/2, 1/4 and 1/8, their surprises are $\ln 2$, $2 \ln 2$ and $3 \ln 2$, and the loss is $2 \ln 2 = 1.39$ nats, whether the prompt has 3 tokens or 300, and
# however much padding there is. If a batch holds two answers of unequal length, all their tokens are counted together, so that each weighs the same.
#
# **Exercise.** The loss of instruction tuning.
#
# <details><summary>Hint 1</summary>`F.cross_entropy` wants logits (N, V) and targets (N,); it leaves out targets of -100.</details>
# <details><summary>Hint 2</summary>`reduction="sum"` gives the sum; divide it by the number of targets that are not -100.</details>
# <details><summary>Hint 3</summary>Don't divide by 0 when nothing in the batch is asked: `clamp(min=1)`.</details>

# %% exercise="sft.sft_loss"
# from: tinytrans.training.sft.sft_loss

# %% question="sft.never_stops"

# %% [markdown]
# ## 4. A first tuning (10 minutes)
#
# We encode some thousand requests with their stories. A user's words are encoded as plain text (`special=False`), and the ids of the signs are put in by our program.

# %% tags=["measured"]
user, assistant = tokenizer.token_to_id("<|user|>"), tokenizer.token_to_id("<|assistant|>")
tales = load("tales", n=48 if quick else 2400, seed=3)
prompts = [[user, *tokenizer.encode(tale.instruction, special=False), assistant] for tale in tales]
answers = [[*tokenizer.encode(tale.text, special=False), end] for tale in tales]
n_asked, n_told = sum(map(len, prompts)), sum(map(len, answers))
print(f"{len(prompts)} dialogues, {n_asked:,} tokens of requests, {n_told:,} of stories")


def batch(step: int, size: int = 12, whole: bool = False) -> tuple[Tensor, Tensor]:
    """The same dialogues for the same step -> inputs, targets; `whole` learns the prompts too."""
    chosen = torch.randint(len(prompts), (size,), generator=torch.Generator().manual_seed(step)).tolist()
    rows = [prompts[i] + answers[i] for i in chosen]
    T = max(map(len, rows))
    # padding has the end's id: lengths decide
    ids = torch.tensor([row + [end] * (T - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    starts = torch.zeros_like(lengths) if whole else torch.tensor([len(prompts[i]) for i in chosen])
    return answer_targets(ids, answer_mask(starts, lengths, T))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Your loss on a batch of inputs and targets."""
    return sft_loss(model(batch[0]), batch[1])


steps = 4 if quick else 160


def tune(model: nn.Module, lr: float, batch=batch, steps: int = steps) -> list[float]:
    """Train whatever trains in the model, and give the losses of all steps."""
    began, optimizer = time.perf_counter(), adamw(model, lr, weight_decay=0.0)
    schedule = partial(warmup_cosine, warmup=10, total=steps)
    history = fit(model, batch, loss, steps=steps, optimizer=optimizer, schedule=schedule, progress=False)
    took = time.perf_counter() - began
    print(f"{steps} steps in {took:.0f} s, loss {history.losses[0]:.2f} -> {history.mean(20):.2f}")
    return history.losses


table = {"base": asked_base["as a chat"]}
tuned = load_base()
losses = {"all weights": tune(tuned, lr=1e-3)}
table["all weights"] = report(tuned)
show(table)
print(f"\n{request}\n{fill('... ' + go_on(tuned, render([('user', request)]), 200), 96)}")

# %% [markdown]
# In less than a minute the model has learned to do what it is asked, nearly always (in quick mode there is too little training for that). It has learned little *about the world*. How to tell a story about a fox, and how to write what a heading announces, it knew from pretraining; what is new is that a request between these signs is such a heading. Ouyang et al. (2022) saw what this is worth in large models: people preferred the answers of a tuned model with 1.3 billion weights to those of the plain GPT-3, which has more than a hundred times as many. That model had also learned from preferences, the subject of the next lesson.

# %% question="chat.how_used"

# %% [markdown]
# ## 5. A thin correction (15 minutes)
#
# Our model has a million weights. To tune a model with 70 billion, you need room for every weight, its gradient and Adam's two averages: at 4 bytes each, more than a terabyte. And if you tune it for ten tasks, you keep ten models of that size.
#
# Must all of W change? Tuning adds something: $W' = W + \Delta W$. Hu et al. (2021) suspected that $\Delta W$ can be *thin*: that it needs a few directions, not all $D$. A matrix of rank $r$ is a product $BA$ of a tall one $(D_{out}, r)$ and a flat one $(r, D_{in})$. So freeze $W$ and train
# only $A$ and $B$:
#
# $$h = W x + \frac{\alpha}{r} B A x .$$
#
# $A$ takes $x$ down to $r$ numbers, and $B$ takes these up again. At birth $A$ is random and $B$ is zero, so the layer starts out unchanged. The factor $\alpha / r$ keeps the correction at about the same size when $r$ is changed, so that one need not search for a new learning rate. This is **LoRA**, low-rank adaptation.
#
# By hand, with $r = 1$ and $\alpha = 2$: $W$ the identity, $A = (1, 1)$, $B = (3, 0)^\top$, $x = (1, 1)$. $A x = 2$; $B \cdot 2 = (6, 0)$; times $\alpha / r = 2$ is $(12, 0)$; and $W x = (1, 1)$. Together $(13, 1)$.

# %% [markdown]
# **Exercise.** LoRA's forward pass.
#
# <details><summary>Hint 1</summary>`F.linear(x, W)` is $W x$ for vectors in the rows of x: x @ W.T.</details>
# <details><summary>Hint 2</summary>Three of them: one for the frozen layer, one down, one up.</details>
# <details><summary>Hint 3</summary>r is the number of rows of A.</details>

# %% exercise="lora.lora_linear"
# from: tinytrans.adapters.lora.lora_linear

# %%
A, B = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0], [0.0]])
print(lora_linear(torch.ones(2), torch.eye(2), A, B, 2))

# %% [markdown]
# **Exercises.** Count the numbers that train; and, when training is done, merge the correction into W: $(W + \frac{\alpha}{r} BA) x$ is the same vector at no extra cost.
#
# <details><summary>Hint 1</summary>A has r rows of the input's width, B has as many rows as the output is wide, each of r numbers.</details>
# <details><summary>Hint 2</summary>`lora_size`: nothing else trains. `merged_weight`: B A is (D_out, D_in), as W is.</details>
# <details><summary>Hint 3</summary>Return a new matrix: after merging in place, the adapter cannot be taken out again.</details>

# %% exercise="lora.lora_size"
# from: tinytrans.adapters.lora.lora_size

# %% exercise="lora.merged_weight"
# from: tinytrans.adapters.lora.merged_weight

# %% question="lora.why_zero"

# %% [markdown]
# Now your function wraps the model: every matrix of the blocks gets a thin companion, and everything else is frozen.


# %%
class Thin(nn.Module):
    """A frozen linear layer and its correction of rank r, by your `lora_linear`."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        D_out, D_in = layer.weight.shape
        self.weight, self.alpha = layer.weight, alpha
        self.a = nn.Parameter(torch.randn(rank, D_in, device=device) / D_in**0.5)
        self.b = nn.Parameter(torch.zeros(D_out, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        return lora_linear(x, self.weight, self.a, self.b, self.alpha)


def with_thin(model: nn.Module, rank: int = 8, alpha: float = 16.0) -> nn.Module:
    """The model frozen, a thin correction beside each matrix of its blocks."""
    model.requires_grad_(False)
    layers = linear_layers(model, ["qkv", "out", "up", "down"]).values()
    return replace(model, {layer: Thin(layer, rank, alpha) for layer in layers})


thin = with_thin(load_base())
ids = torch.tensor([tokenizer.encode(request)], device=device)
print("begins as the base:", torch.equal(thin(ids), base(ids)))
wanted = sum(lora_size(*reversed(m.weight.shape), 8) for m in thin.modules() if isinstance(m, Thin))
trained = sum(w.numel() for w in thin.parameters() if w.requires_grad)
size = sum(w.numel() for w in base.parameters())
print(f"{trained:,} numbers train, by your formula {wanted:,}, of {size:,}")

# %% tags=["measured"]
losses["LoRA"] = tune(thin, lr=5e-3)
table["LoRA"] = report(thin)
show({"LoRA": table["LoRA"]})

# %% [markdown]
# After merging it is a plain model again, with the size and the speed of the base:

# %%
merged = load_base()
for name, layer in linear_layers(merged, ["qkv", "out", "up", "down"]).items():
    beside = thin.get_submodule(name)
    layer.weight.data = merged_weight(beside.weight, beside.a, beside.b, beside.alpha).data
with torch.no_grad():
    print(f"largest difference of a logit: {(merged(ids) - thin(ids)).abs().max():.1e}")

# %% [markdown]
# ## 6. The biases alone (10 minutes)
#
# Ben Zaken et al. (2022) went further: freeze all matrices and train only the vectors that are *added*, the biases. They called this **BitFit**, bias-term fine-tuning. How can that be enough? A hidden number of the feed-forward layer is $\mathrm{gelu}(w \cdot x + b)$. With a large negative $b$ it is silent,
# with a large positive one it lets everything pass. Shifting $b$ turns whole features off and on, so that later layers get a different mix. This leverage is due to the nonlinearity that follows. By hand, with relu: $w \cdot x = 1$ and $b = 0$ give 1; $b = -2$ gives 0, and everything that depended on this feature is gone.
#
# The names of a model's weights tell which of them are biases: ours end in `.bias`; torch's attention has an `in_proj_bias`, its RNN a `bias_hh_l0`.
#
# **Exercises.** Choose the biases by name; and count what trains in a model, given the shapes of its weights.
#
# <details><summary>Hint 1</summary>What counts is the part after the last dot: `name.split(".")[-1]`.</details>
# <details><summary>Hint 2</summary>It is `bias`, or ends with `_bias`, or starts with `bias_`.</details>
# <details><summary>Hint 3</summary>`count_trainable`: the size of a shape is the product of its axes, `math.prod`, which gives 1 for `()`. A name may come twice: make a set.</details>

# %% exercise="bitfit.biases"
# from: tinytrans.adapters.bitfit.biases

# %% exercise="trainable.count_trainable"
# from: tinytrans.adapters.trainable.count_trainable

# %% [markdown]
# Our base model, like many of today's, was built without biases: BitFit would find nothing to train. `with_biases` gives each layer and norm a bias of zeros, so that the model computes what it did before.

# %% tags=["measured"]
shifted = with_biases(load_base())
chosen = biases(name for name, _ in shifted.named_parameters())
for name, weight in shifted.named_parameters():
    weight.requires_grad_(name in chosen)
shapes = {name: tuple(weight.shape) for name, weight in shifted.named_parameters()}
few, all_of_them = count_trainable(shapes, chosen)
print(f"BitFit trains {few:,} of {all_of_them:,} numbers, {few / all_of_them:.2%}")
print(f"LoRA trained {trained:,}, {trained / size:.1%}")
losses["BitFit"] = tune(shifted, lr=2e-2)
table["BitFit"] = report(shifted)
show({"BitFit": table["BitFit"]})

# %% question="bitfit.leverage"

# %%
curves(
    {name: (range(1, len(run) + 1), run) for name, run in losses.items()},
    title="Tuning, by how much trains",
    x_label="step",
    y_label="loss (nats per answer token)",
)

# %% tags=["measured"]
show(table)

# %% [markdown]
# On this task the three come out alike: with 80 requests, differences of a few hundredths mean nothing. That is the point of thin corrections. One has to look for their learning rates, though: the fewer numbers train, the further each has to go (here 0.001, 0.005 and 0.02).
#
# ## 7. Break it on purpose (10 minutes)
#
# **Another template.** The model is the one that you tuned; only the form of the request differs from that in its training. The last two forms are the templates of other families, as somebody might copy them:

# %% tags=["measured"]
forms = {
    "as trained": CHAT,
    "a space too many": "<|user|> {}<|assistant|> ",
    "whose turn?": "<|user|>{}",
    "Question, Answer": "Question: {} Answer:",
    "INST": "[INST] {} [/INST] ",
    "ChatML": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
}
strange = {name: report(tuned, form) for name, form in forms.items()}
show(strange)

# %% [markdown]
# A space costs little here, for this model knows one task only and can guess what is meant. The further the form is from that of training, the less of the request comes true; and signs that the model has never seen, spelled out in letters, confuse it altogether. No error tells you. When a model that others praise disappoints you, print your prompt beside its template.
#
# **No end.** Somebody renders dialogues without the end sign, one after another, and learns all that follows the first request. **The prompt as well.** The loss is on everything, requests included.


# %% tags=["measured"]
def endless_batch(step: int, size: int = 12) -> tuple[Tensor, Tensor]:
    """Dialogues without an end sign, each followed by the next request -> inputs, targets."""
    chance = torch.Generator().manual_seed(step)
    pairs = [torch.randint(len(prompts), (size,), generator=chance).tolist() for _ in range(2)]
    starts = torch.tensor([len(prompts[i]) for i in pairs[0]])
    rows = [prompts[i] + answers[i][:-1] + prompts[j] for i, j in zip(*pairs, strict=True)]
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.tensor([row + [end] * (max(map(len, rows)) - len(row)) for row in rows])
    return answer_targets(ids, answer_mask(starts, lengths, ids.shape[1]))


endless, talkative = load_base(), load_base()
tune(endless, 1e-3, endless_batch, steps=steps // 2)
tune(talkative, 1e-3, partial(batch, whole=True))
broken = {
    "all weights": table["all weights"],
    "no end sign": report(endless),
    "prompt learned too": report(talkative),
}
show(broken)
print(f"\nwithout an end:\n{fill('... ' + go_on(endless, render([('user', request)]), 220), 96)}")

# %% [markdown]
# Without an end sign the model tells its story and cannot stop: it babbles on, with scraps of requests in between, until we cut it off (and what it adds spoils the story, so that fewer wishes count as fulfilled). Learning the prompt as well does less harm than one might think. Its loss cannot be compared with the others, because it is a mean over other tokens. What it costs is a part of every step, spent on guessing what people ask.
# (With short answers and long prompts this is most of the step; there are also data sets where a little of it helps: Shi et al. 2024.)
#
# ## 8. What to watch out for
#
# | you see | look at |
# |---|---|
# | answers that never end | the end sign: is it in the text? in the mask? thrown out as padding? |
# | good in training, poor in use | the template: a space, a line, a sign twice; print both prompts' ids side by side |
# | a first loss far above the base model's | targets not shifted, or shifted twice |
# | a loss near 0 after a few steps | targets not shifted: each place is asked for what it reads |
# | a loss that depends on the batch's padding | the mean is over all places and not over the answers' tokens |
# | LoRA that does not learn at all | A and B both zero; an optimiser that was made before the adapter |
# | an adapter that works in one program and not in another | alpha / r; merged twice |
# | BitFit with nothing to train | a model without biases (the gain of a norm is not one) |
#
# <!-- pitfalls: chat sft lora bitfit trainable -->
#
# ## What was simplified
#
# - Our dialogues had one turn each. With several, every answer of the assistant is learned, and the mask is True in several places.
# - There was no *system* turn, in which the provider says how the assistant should behave.
# - The answers were right by construction. Real ones are written and checked by people, or by models, and their quality matters more than their number (Zhou et al. 2023).
# - LoRA saves the memory of gradients and averages; the frozen weights must still be there. QLoRA keeps those in 4 bits (Dettmers et al. 2023).
# - Our model is so small that tuning little of it gains nothing. The figures only show what it *costs*.
# - Tuning makes a model forget some of what it could do. We did not measure that.
#
# ## Where this lives in tinytrans
#
# `tinytrans/data/chat.py` has `render`; `tinytrans/training/sft.py` the mask, the targets and the loss. `tinytrans/adapters/` puts `lora` and `bitfit` around any model, merges and parts them without a trace, and saves an adapter as a file of its own. `python -m tinytrans.recipes sft`
# (`lora`, `bitfit`) runs this lesson's training with its controls.
#
# ## References
#
# - T. Brown et al. (2020). Language Models are Few-Shot Learners. arXiv 2005.14165.
# - E. J. Hu et al. (2021). LoRA: Low-Rank Adaptation of Large Language Models. arXiv 2106.09685.
# - E. Ben Zaken, S. Ravfogel, Y. Goldberg (2022). BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models. arXiv 2106.10199.
# - J. Wei et al. (2022). Finetuned Language Models Are Zero-Shot Learners. arXiv 2109.01652 (instruction tuning carries over to tasks that it did not contain).
# - L. Ouyang et al. (2022). Training language models to follow instructions with human feedback. arXiv 2203.02155.
# - C. Zhou et al. (2023). LIMA: Less Is More for Alignment. arXiv 2305.11206.
# - T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer (2023). QLoRA: Efficient Finetuning of Quantized LLMs. arXiv 2305.14314.
# - Z. Shi et al. (2024). Instruction Tuning With Loss Over Instructions. arXiv 2405.14394.

# %% [markdown] tags=["instructor"]
# **For instructors: common questions.** *Why does the base model obey a little in a chat?* An end is happy or sad by chance, and its texts have taught it to reuse names and animals that came before, whatever the form. *Why train the broken model on joined dialogues, and not simply leave the end sign out of the targets?* Because this base knows from its books that a story is followed by `<|end|>`, and a sign that is merely not asked for is not unlearned: try it, it still stops. *Why not mask the prompt out of attention too?* It must be read; only its own prediction is not scored.
# *Is the padding not learned as an end, if it has the same id?* No: lengths decide, and the class can try it by taking the mask from `ids != end` instead. *Does LoRA make the model smaller?* No, the file that is kept per task is smaller.

# %% [markdown] tags=["instructor"]
# **For instructors: what the report of mistakes tells.** *The mask not shifted* and *the prompt's last token too* are the same thought at two places: ask for the table of section 3 once more, on paper. *Mean over all places* shows who took `mean()` without reading on. In LoRA *no scaling* comes from examples with alpha = r, *A and B not transposed* from
# writing x B A as in some figures. *Ends with the word* (BitFit) searches a string where a dotted name should be taken apart.

# %% [markdown] tags=["instructor"]
# **For instructors: variants.** Ranks 1, 2, 32 of LoRA, with alpha fixed and with alpha = 2 r: is the learning rate still right? LoRA on queries and values alone, as in the paper. A tenth of the dialogues: which of the three methods needs the most data? A second language of requests, tuned by a second adapter on the same base.
