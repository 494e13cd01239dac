# %% [markdown]
# # 10 · Generation and the KV cache
#
# A trained transformer gives you numbers: for every position, how likely each token is to come next. This lesson turns them into
# text. That sounds like the easy part, yet the first attempt will give you a world in which every morning is cloudy.
#
# **You will be able to**
#
# - write the loop that turns next-token probabilities into text, and say why only the last position is asked;
# - show why the likeliest token is not the best choice, and why pure chance is not either;
# - write temperature, top-k and top-p, and choose between them by a measured trade of quality for diversity;
# - keep several texts at once by beam search, and say what it is good for;
# - write attention with a KV cache, prove that it changes nothing, measure what it saves, and count what it costs.
#
# **Builds on** lesson 04 (attention and the causal mask), 07 (the block) and 08 (positions). **Leads to** 11 (training such a model yourself).
#
# **Time** about 90 minutes: the loop 10, greedy 8, chance 12, temperature 8, cutting the tail 15, the trade 7, beams 10, the cache 15, breaking it 5.
# The notebook computes for about half a minute on two CPU cores. A GPU changes the speeds in section 8 and nothing else.
#
# **Letters** B texts in a batch, T tokens that are read now, S tokens that may be looked at, P of them cached, V vocabulary, D width of the model, H heads, K width of a head, $z$ logits,
# $\tau$ temperature, W beams.

# %% tags=["setup"]
import math

import torch
from torch import Tensor

# %%
seeded = torch.manual_seed(0)

# %% tags=["tools"]
import os
import time
from textwrap import fill

from graders.check import check
from tinytrans import checkpoints, generate, load, pick
from tinytrans.data.tales_verify import consistent
from tinytrans.data.tales_verify import read as facts
from tinytrans.nn.heads import merge_heads
from tinytrans.nn.positions import rotation_at
from tinytrans.plots import bars, curves
from tinytrans.widgets import cache_growth, shape_chances

# %%
quick = os.environ.get("TINYTRANS_QUICK") == "1"  # the same code with less of everything, for tests
device = pick()
model, tokenizer = checkpoints.load("tales", device=device)
END, USER, ASSISTANT = (tokenizer.token_to_id(name) for name in ("<|end|>", "<|user|>", "<|assistant|>"))
print(f"running on {device}{', in quick mode' if quick else ''}; a GPT of {model.n_params:,} parameters")

# %% [markdown]
# **Stuck?** Later sections use what you write in earlier ones. To go on without one of them, insert a cell below it and run, for example,
# `from tinytrans.sampling.filters import top_p`: from there on the notebook uses the library's version. Your points still come from your own
# cell, so come back to it.
#
# ## 1. One token after the other (10 minutes)
#
# The model was trained on short stories in which an animal with a name wants something, meets a friend, and ends up happy or sad, and on short questions about them. Let it read the beginning of one.


# %%
def ids_of(text: str) -> Tensor:
    """A text -> its ids as a batch of one (1, T)."""
    return torch.tensor([tokenizer.encode(text)], device=device)


prompt = ids_of("Once upon a time there was")
with torch.no_grad():
    logits = model(prompt)
print(f"{prompt.shape[1]} tokens in, logits of shape {tuple(logits.shape)} out")
best = logits[0, -1].softmax(dim=-1).topk(8)
bars(
    {"chance": best.values.tolist()},
    [repr(tokenizer.decode([i])) for i in best.indices.tolist()],
    title="What comes after 'Once upon a time there was'?",
    y_label="chance",
)

# %% [markdown]
# There is a row of logits for *each* token: the first says what may follow *Once*, the second what may follow *Once upon*. Training uses all of them. Here
# we already know what follows the earlier tokens; only the **last position** says something new. So: read the text, take the last row, choose a token, append it, and read again. Such a model is
# called **autoregressive**: it predicts from what it has said itself.
#
# Nothing is lost by going token by token. Every distribution over whole texts is a product of such steps, the chain rule of probability:
#
# $$p(x_1, \dots, x_n) = \prod_{t=1}^{n} p(x_t \mid x_1, \dots, x_{t-1}) .$$
#
# By hand: if *a* has the chance 0.5, and *fox* after *a* 0.2, then *a fox* has $0.5 \cdot 0.2 = 0.1$. For long texts one adds logarithms instead of multiplying, $\ln 0.5 + \ln 0.2 = -2.30$: a
# product of a hundred such factors is too small for a 32-bit float.
#
# Which token should we choose? The obvious answer is the likeliest one. That is **greedy** decoding.

# %% [markdown]
# **Exercise.** One greedy step for a batch of texts. A text that has ended with a stop token waits for the others: it repeats its stop.
#
# <details><summary>Hint 1</summary>`logits[:, -1]` is (B, V): of every text the last position.</details>
# <details><summary>Hint 2</summary>`argmax(dim=-1)` gives (B,). Where a row's last id is the stop, `torch.where` puts the stop in instead. (Take care: the id of a stop may be 0.)</details>
# <details><summary>Hint 3</summary>`torch.cat((ids, new[:, None]), dim=1)`: the new column needs an axis of its own.</details>

# %% exercise="generate.greedy_step"
# from: tinytrans.sampling.generate.greedy_step


# %%
def text_of(ids: Tensor) -> str:
    """One row of ids -> the story in it, up to the first special token."""
    row = ids.tolist()
    end = next((i for i, token in enumerate(row) if token in (END, USER, ASSISTANT)), len(row))
    return tokenizer.decode(row[:end])


ids = prompt
with torch.no_grad():
    while ids[0, -1] != END and ids.shape[1] < (40 if quick else 200):
        ids = greedy_step(ids, model(ids), END)
print(fill(text_of(ids[0]), 96))

# %% [markdown]
# The story is fluent. Does it make sense? The course has verifiers that read along: they know the words for names, animals and places, and call a story **consistent** when it keeps to one hero, one friend, one place and so on. (`names<=2`: at most two names occur.)

# %%
for rule, kept in consistent(text_of(ids[0])).items():
    print(f"{'holds ' if kept else 'BROKEN'}  {rule}")
told = facts(text_of(ids[0]))
print(f"\nhero: {told['hero']}, a {told['kind']}; friend: {told['friend']}, a {told['friend_kind']}")
print(f"end: {told['end']}")

# %% question="generate.can_change"

# %% [markdown]
# ## 2. What is wrong with the likeliest? (8 minutes)
#
# Two things. First, a given beginning has *one* greedy story, always the same. And other beginnings lead to stories that resemble it:

# %%
for beginning in ("Once upon a time there was", "Do you know", "Far away lived", "This is the story of"):
    most = 12 if quick else 180
    row = generate(model, ids_of(beginning), max_new_tokens=most, temperature=0.0, stop=[END, USER])[0]
    told = facts(text_of(row))
    seen = f"weather {told['weather']}, colour {told['color'] or 'not told'}"
    print(f"{beginning:27}: {told['hero']}, a {told['kind']}; {seen}")
weather = [tale.facts.weather for tale in load("tales", n=20 if quick else 500, split="validation")]
shares = [f"{name} {weather.count(name) / len(weather):.0%}" for name in sorted(set(weather))]
print("weather in real stories:", ", ".join(shares), sep="\n    ")

# %% [markdown]
# The real stories have many kinds of weather, each about as frequent as the others. Greedy decoding turns the smallest lead into a certainty: what is a little likelier than the rest becomes all there is. No single step is bad, and yet the world that comes out is wrong. **What is most likely at each step is not typical of the whole.**
#
# The second fault shows when we let the model write on beyond the end of its story, where questions and answers follow. (`<|end|>` and `<|assistant|>` are single tokens that say who has finished and who begins.) We count how many groups of four tokens have occurred before in the same text.


# %%
def repeated(ids: Tensor, n: int = 4, width: int = 50) -> list[float]:
    """Of each `width` tokens of a text (T,) the share whose group of n has stood in the text before."""
    row = ids.tolist()
    groups = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
    again = [group in set(groups[:i]) for i, group in enumerate(groups)]
    return [sum(again[i : i + width]) / width for i in range(0, len(again) - width + 1, width)]


length = 120 if quick else 500
luck = torch.Generator(device).manual_seed(4)
runs = {
    name: generate(model, prompt, max_new_tokens=length, temperature=t, generator=luck)[0]
    for name, t in (("greedy", 0.0), ("by chance", 1.0))
}
curves(
    {name: (range(50, length + 1, 50), repeated(run)) for name, run in runs.items()},
    title="How much of the text has been said before?",
    x_label="tokens",
    y_label="share of repeated groups of 4",
)

# %%
print("greedy, its last 40 tokens:", fill(tokenizer.decode(runs["greedy"][-40:].tolist()), 96), sep="\n")
for name, run in runs.items():
    print(f"{name}: {sum(repeated(run)) / len(repeated(run)):.0%} of all groups are repetitions")

# %% [markdown]
# Greedy decoding runs in circles. In the end it has to: the next token is a function of the tokens that the model can see, there are only finitely many such windows, and as soon as one of them returns, everything that followed it returns too, without end. (A model that chooses
# by chance can leave a circle.) In practice it happens long before any window repeats, because models have learned that what was said once is likely to be said again, and each repetition strengthens the next (Holtzman et al. 2019; Xu et al. 2022). Large models do it too.
#
# ## 3. By chance (12 minutes)
#
# The model never claimed that its favourite is the only good token. It gave a *distribution*, so let us draw from it. A computer's chance is a number $u$, spread evenly over $[0, 1)$. How does it become a token? Divide the line from 0 to 1 among the tokens, each getting a piece as long as its
# probability, and see on whose piece $u$ falls. By hand:
#
# | id | probability | its piece |
# |---|---|---|
# | 0 | 0.25 | 0 to 0.25 |
# | 1 | 0.50 | 0.25 to 0.75 |
# | 2 | 0.25 | 0.75 to 1 |
#
# $u = 0.7$ falls on id 1; $u = 0.75$ on id 2, for a piece begins at its left end and ends just before its right one. The right ends are the running sums of the probabilities, and the id is **the number of pieces that end at or before $u$**.
#
# There is one trap: sums of floats are not exact. If they end at 0.9999998 and $u$ is 0.9999999, the id lies outside the vocabulary. So divide by the last sum.

# %% [markdown]
# **Exercise.** Draw. (The chance is an argument: the same chance gives the same text.)
#
# <details><summary>Hint 1</summary>`cumsum(dim=-1)` gives the right ends of all pieces.</details>
# <details><summary>Hint 2</summary>`ends[..., -1:]` keeps the axis, so that you can divide by it; `chance[..., None]` gives the chance an axis to compare along.</details>
# <details><summary>Hint 3</summary>Compare and count: the sum over bools is the number of Trues, an integer.</details>

# %% exercise="generate.draw"
# from: tinytrans.sampling.generate.draw

# %% [markdown]
# Here are ten thousand draws from the table above, and a first story by chance. (`write` keeps what it has computed in a cache. Section 8 explains that; it changes nothing but the time.)

# %%
table = torch.tensor([0.25, 0.5, 0.25])
drawn = draw(table.expand(10_000, -1), torch.rand(10_000))
print("shares of the ids:", [round(share, 3) for share in (drawn.bincount() / 10_000).tolist()])


@torch.no_grad()
def write(prompts: Tensor, n: int, choose, seed: int = 0) -> Tensor:
    """Prompts (B, T) and up to n tokens: choose turns logits (B, V) and chances (B,) into ids (B,)."""
    generator = torch.Generator().manual_seed(seed)
    ids, new, cache = prompts, prompts, model.new_cache(len(prompts), prompts.shape[1] + n)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for _ in range(n):
        logits = model(new, cache=cache)[:, -1]
        chosen = choose(logits, torch.rand(len(prompts), generator=generator).to(device))
        new = torch.where(ended, END, chosen)[:, None]
        ids = torch.cat((ids, new), dim=1)
        ended |= torch.isin(new[:, 0], torch.tensor([END, USER, ASSISTANT], device=device))
        if ended.all():
            break
    return ids


def plainly(logits: Tensor, chance: Tensor) -> Tensor:
    """Draw from the model's own distribution."""
    return draw(logits.softmax(dim=-1), chance)


longest, N = (12, 4) if quick else (180, 64)  # tokens of a story, stories at once
stories = [text_of(row) for row in write(prompt.expand(N, -1), longest, plainly)]
print(fill(stories[0], 96))

# %% [markdown]
# Now every story is different. Are they good? We ask two things of a story: that it is consistent, and that it has an end.


# %% tags=["measured"]
def sound(story: str) -> bool:
    """Whether a story keeps to its own world and comes to an end."""
    return all(consistent(story).values()) and facts(story)["end"] is not None


print(f"{sum(map(sound, stories)) / N:.0%} of {N} stories are sound")
for story in [story for story in stories if not sound(story)][:2]:
    broken = [rule for rule, kept in consistent(story).items() if not kept] or ["no end"]
    print(f"\n{', '.join(broken)}:\n{fill(story, 96)}")

# %% [markdown]
# Many are, but a good number are not. What goes wrong? It is the **long tail**. At each step there are a few good tokens, and behind them nearly two thousand others, each with next to no chance. But next to no chance, two thousand times, adds up. We measure it on real stories that the model has not seen: where it has a clear favourite (50 % or more),
# how much of its probability lies on tokens with less than 1 % each?

# %%
unseen = [tokenizer.encode(tale.text) for tale in load("tales", n=8 if quick else 60, split="validation")]
with torch.no_grad():
    read_stories = [model(torch.tensor([row], device=device))[0].softmax(dim=-1) for row in unseen]
places = torch.cat(read_stories)  # (tokens of all stories, V)
clear = places[places.amax(dim=-1) >= 0.5]
tail = (clear * (clear < 0.01)).sum(dim=-1)
print(f"{len(clear) / len(places):.0%} of {len(places)} places have a clear favourite")
many = (clear < 0.01).sum(-1).float().mean()
print(f"there {many:.0f} tokens have less than 1 % each, and together {tail.mean():.2%}")
print(f"100 such places without a single slip: {(1 - tail.mean().item()) ** 100:.0%}")

# %% [markdown]
# It is only about two in a thousand, but after a hundred tokens one text in six has made a slip. *One* slip is enough: the model goes on from it as if it were true. With a vocabulary of 50,000, and with texts less regular than ours, the tail is heavier.
#
# So the likeliest token alone is too little, and all tokens are too much. We need something in between.
#
# ## 4. Temperature (8 minutes)
#
# The first idea: keep all tokens, but change how much the favourites are favoured. Divide all logits by a number $\tau$ before the softmax:
#
# $$p_i = \frac{\exp(z_i / \tau)}{\sum_j \exp(z_j / \tau)} .$$
#
# By hand, with the logits 2, 1 and 0:
#
# | $\tau$ | logits / τ | probabilities |
# |---|---|---|
# | 0.5 | 4, 2, 0 | 0.87, 0.12, 0.02 |
# | 1 | 2, 1, 0 | 0.67, 0.24, 0.09 |
# | 2 | 1, 0.5, 0 | 0.51, 0.31, 0.19 |
#
# Why does it work? The ratio of two probabilities is $\exp((z_i - z_j) / \tau)$: dividing by τ < 1 stretches the differences, and the distribution gets **sharper**; τ > 1 shrinks them, and it gets **flatter**. As τ goes to 0 only the largest is left: greedy decoding. As τ goes to infinity
# all become equal. The formula is Boltzmann's, for how particles share out energy at a given **temperature**; hence the name (Ackley, Hinton and Sejnowski 1985). τ = 0 itself is a limit and not a division.

# %% [markdown]
# **Exercise.** Temperature.
#
# <details><summary>Hint 1</summary>Logits go in and logits come out: a filter or a softmax may follow.</details>
# <details><summary>Hint 2</summary>A new tensor: the caller may need the old one.</details>
# <details><summary>Hint 3</summary>A check for `t > 0` with a ValueError, and one division.</details>

# %% exercise="filters.temperature"
# from: tinytrans.sampling.filters.temperature

# %%
for t in (0.5, 1.0, 2.0):
    tempered = temperature(torch.tensor([2.0, 1.0, 0.0]), t).softmax(dim=-1)
    print(f"τ = {t}: {[round(c, 2) for c in tempered.tolist()]}")

# %% [markdown]
# ## 5. Cutting off the tail (15 minutes)
#
# A low temperature thins out the tail, but it also takes from the good alternatives. The second idea is to draw only from the good tokens. Every other token gets the logit $-\infty$, and the softmax shares its probability out, in proportion, among those that stay.
#
# **Top-k** (Fan et al. 2018) keeps the k most probable tokens. By hand, with the probabilities 0.5, 0.25, 0.15 and 0.1 and k = 2: what stays is 0.5 and 0.25, together 0.75, so the shares become $0.5 / 0.75 = 0.67$ and $0.33$.

# %% [markdown]
# **Exercise.** Top-k.
#
# <details><summary>Hint 1</summary>`logits.topk(k, dim=-1)` finds the k largest of every row, and their places. Each row has its own.</details>
# <details><summary>Hint 2</summary>Either fill everything below the smallest of them with -inf, or begin with a tensor of -inf and put them in.</details>
# <details><summary>Hint 3</summary>A k larger than V keeps all (`topk` would complain), a k below 1 is a ValueError. `masked_fill` and `scatter` without an underscore leave the caller's tensor alone.</details>

# %% exercise="filters.top_k"
# from: tinytrans.sampling.filters.top_k

# %% [markdown]
# Which k? After *Once upon a* there is one good token, and k = 10 keeps nine bad ones. Where a name is due there are forty good ones, and k = 10 loses thirty of them. No fixed number fits both.
#
# **Top-p**, or nucleus sampling (Holtzman et al. 2019), fixes the probability instead: keep **the most probable tokens, as few as it takes to reach p together**. By hand, with the same numbers and p = 0.8:
#
# | token | probability | sum before it | sum with it | |
# |---|---|---|---|---|
# | A | 0.50 | 0 | 0.50 | stays |
# | B | 0.25 | 0.50 | 0.75 | stays |
# | C | 0.15 | 0.75 | 0.90 | stays: it is the one that **crosses** 0.8 |
# | D | 0.10 | 0.90 | 1 | goes |
#
# Look at the sum *before* a token: the token stays if that sum is still below p. Judging by the sum *with* the token would drop C and leave 0.75 instead of at least 0.8; and where one token alone has 0.95, it would leave nothing at all. The
# shares become $0.5 / 0.9 = 0.56$, $0.28$ and $0.17$.

# %% [markdown]
# **Exercise.** Top-p.
#
# <details><summary>Hint 1</summary>Sort the logits of each row, largest first, softmax, running sum. The sum before a token is the running sum minus its own probability.</details>
# <details><summary>Hint 2</summary>What goes is now marked in *sorted* order. `sort` also returns where each one came from.</details>
# <details><summary>Hint 3</summary>`scatter(-1, ids, kept)` writes value i to place `ids[i]`: back to the order of the vocabulary. For p = 1 return all, before rounding can cut something off.</details>

# %% exercise="filters.top_p"
# from: tinytrans.sampling.filters.top_p

# %%
example = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
print("top-k, k = 2:  ", [round(c, 2) for c in top_k(example, 2).softmax(dim=-1).tolist()])
print("top-p, p = 0.8:", [round(c, 2) for c in top_p(example, 0.8).softmax(dim=-1).tolist()])
nucleus = (top_p(places.log(), 0.9) > -math.inf).sum(dim=-1)
print(
    f"at p = 0.9 on unseen stories: one token stays at {(nucleus == 1).float().mean():.0%} of the places,"
    f" more than ten at {(nucleus > 10).float().mean():.0%}, at most {nucleus.max()}"
)

# %% question="filters.flat_or_peaked"

# %% [markdown]
# The three can be combined. The usual order, and the library's, is temperature, top-k, top-p, then the softmax and the draw. Try it on the model's real distribution: move the sliders and watch what the three do together. At a high temperature more tokens stay in the nucleus, because the nucleus is computed *afterwards*.

# %%
with torch.no_grad():
    until_the_wish = text_of(ids[0]).partition(" wanted")[0]  # of the greedy story
    named = model(ids_of(until_the_wish))[0, -1]
order = named.argsort(descending=True)
first, rest = named[order[:14]], named[order[14:]].logsumexp(dim=-1)  # the others as one


def shaped(t: float, k: int, p: float) -> Tensor:
    """Your filters on the 14 likeliest tokens."""
    return top_p(top_k(temperature(first, t), k), p).softmax(dim=-1)


print(f"(all others together have {(rest - named.logsumexp(dim=-1)).exp():.1%}; they are left out here)")
likeliest = [tokenizer.decode([i]).strip() for i in order[:14].tolist()]
shape_chances(shaped, likeliest, title="the word after '... woke up in the village and felt lucky. Jomo'")

# %% [markdown]
# ## 6. What do you get for it? (7 minutes)
#
# Now we can measure. For each of many settings we write 64 stories from the same beginning. **Quality** is the share of sound stories. **Diversity** is the number of different groups of four words divided by the number of all such groups: it is close to 0 if all stories are the same, and 1 if nothing is ever
# said twice. (Our stories share a form, so it cannot reach 1 here.)


# %%
def chooser(t: float = 1.0, k: int | None = None, p: float = 1.0):
    """How a token is chosen: temperature, then top-k, then top-p, then chance."""

    def choose(logits: Tensor, chance: Tensor) -> Tensor:
        shaped = temperature(logits, t)
        shaped = shaped if k is None else top_k(shaped, k)
        return draw(top_p(shaped, p).softmax(dim=-1), chance)

    return choose


def distinct(stories: list[str], n: int = 4) -> float:
    """Different groups of n words, divided by all groups (Li et al. 2016)."""
    split = [story.split() for story in stories]
    groups = [tuple(words[i : i + n]) for words in split for i in range(len(words) - n + 1)]
    return len(set(groups)) / max(1, len(groups))


def measured(choose) -> tuple[float, float]:
    """(diversity, quality) of N stories."""
    stories = [text_of(row) for row in write(prompt.expand(N, -1), longest, choose, seed=1)]
    return distinct(stories), sum(map(sound, stories)) / N


def greedily(logits: Tensor, _chance: Tensor) -> Tensor:
    """The likeliest."""
    return logits.argmax(dim=-1)


families = {
    "temperature": [chooser(t=t) for t in ((0.5, 1.5) if quick else (0.3, 0.6, 1.0, 1.3, 1.6))],
    "top-k": [chooser(k=k) for k in ((2,) if quick else (2, 5, 20, 100))],
    "top-p": [chooser(p=p) for p in ((0.8,) if quick else (0.5, 0.8, 0.9, 0.95))],
}
found = {name: [measured(choose) for choose in choosers] for name, choosers in families.items()}
found["greedy"] = [measured(greedily)]
curves(
    {name: ([d for d, _ in points], [q for _, q in points]) for name, points in found.items()},
    title="Quality and diversity of 64 stories for each setting",
    x_label="diversity (share of different groups of 4 words)",
    y_label="quality (share of sound stories)",
)

# %% tags=["measured"]
for name, points in found.items():
    print(f"{name:12}", ", ".join(f"{d:.2f}/{q:.2f}" for d, q in points), "(diversity/quality)")

# %% [markdown]
# Read the picture from the right. At a high temperature the stories are diverse and mostly broken. As the temperature falls, quality rises and diversity hardly changes: that was the tail. Then diversity begins to fall, and at the far left stands greedy decoding with its single story. **Quality is paid for with diversity**, and the curves
# show the price. A good nucleus is nearly as diverse as pure chance (τ = 1) and clearly sounder: it removes what is bad and little of what is good. (With 64 stories a point can be off by a few hundredths, in quality by nearly a tenth.) Which point is right depends on the purpose: low for facts and code, higher for stories.
#
# ## 7. Several texts at once: beams (10 minutes)
#
# Greedy decoding may even miss the likeliest text. By hand, with texts of two tokens:
#
# | first | its chance | best second | its chance | the text's chance |
# |---|---|---|---|---|
# | A | 0.6 | A x | 0.3 | 0.18 |
# | B | 0.4 | B y | 0.9 | **0.36** |
#
# Greedy decoding takes A and cannot turn back. **Beam search** keeps the W best unfinished texts. Each can be continued with any of the V tokens; of these W · V continuations the W best stay. With W = 2 in the example, A and B both survive the first step, and B y wins. A text's score is its log-probability, so the scores of the continuations
# are *sums*. Note that all of the W best may come from one text, and none from another. W = 1 is greedy decoding.

# %% [markdown]
# **Exercise.** The n best continuations.
#
# <details><summary>Hint 1</summary>`scores[..., None] + log_p` is a table (W, V): row w is text w, column v is token v.</details>
# <details><summary>Hint 2</summary>Flatten the last two axes, and `topk` finds the n best of the whole table.</details>
# <details><summary>Hint 3</summary>A place in the flat table is w · V + v. Division without and with remainder, `//` and `%`, take it apart.</details>

# %% exercise="beam.extend_beams"
# from: tinytrans.sampling.beam.extend_beams


# %%
@torch.no_grad()
def search(prompt: Tensor, W: int, n: int) -> tuple[str, float]:
    """The best text by beam search, and the log-probability of what was added."""
    ids, scores = prompt, torch.zeros(1, device=device)
    finished = torch.full((tokenizer.vocab_size,), -math.inf, device=device)
    finished[END] = 0.0  # an ended text goes on with END, for sure
    for _ in range(n):
        log_p = model(ids)[:, -1].log_softmax(dim=-1)
        ended = torch.isin(ids[:, -1], torch.tensor([END, USER, ASSISTANT], device=device))
        scores, parents, tokens = extend_beams(scores, torch.where(ended[:, None], finished, log_p), W)
        ids = torch.cat((ids[parents], tokens[:, None]), dim=1)
        if (ids[:, -1] == END).all():
            break
    return text_of(ids[0]), scores[0].item()


beams = {W: search(prompt, W, longest) for W in ((1, 2) if quick else (1, 2, 4, 8))}
for W, (story, score) in beams.items():
    verdict = "sound" if sound(story) else "not sound"
    print(f"W = {W}: log-probability {score:6.1f}, {verdict}:\n{fill(story, 96)}\n")

# %% [markdown]
# All of these are sound. But look at the log-probabilities: a wider beam is no guarantee of a likelier text. A text that leads early crowds out others that would have
# overtaken it later. And are the stories *interesting*? We compare what they tell with stories by chance and with real ones:

# %%
groups = {
    "by beams": [story for story, _ in beams.values()],
    "by chance": stories[:4],
    "real, unseen": [tokenizer.decode(row) for row in unseen[:4]],
}
for name, texts in groups.items():
    told = [facts(text) for text in texts]
    short = [f"{one['hero']} the {one['kind']}, {one['weather'] or 'none'}" for one in told]
    print(f"{name:13}", "; ".join(short))

# %% [markdown]
# Beams are relatives of greedy decoding: safe, bland, and always in the same weather. People do not write the likeliest text. Holtzman et al. (2019) measured it: token by token, real text surprises a model far more than
# what beam search finds. (Our stories, made from templates in which one choice is as likely as another, are too regular to show that.) A text that never surprises has nothing to tell. So beam search is for tasks with *one* right answer, where the input leaves little choice: translation, transcription, the dates of lesson 03. For stories and conversation one samples. (The library's
# `beam_search` also has a length penalty: every token costs some probability, so short answers win unless the score is divided by a power of the length.)
#
# ## 8. Do not read it all again: the KV cache (15 minutes)
#
# Our first loop reads the whole text again at every step. For n tokens it reads $1 + 2 + \dots + n = n (n + 1) / 2$ times a token: for n = 200 that makes 20,100 readings to write 200 tokens.
#
# How much of this is new? Look at attention: $\mathrm{softmax}(q_t \mathbf K^\top / \sqrt K)\, \mathbf V$, where $\mathbf K$ and $\mathbf V$ hold all keys and values. The new position asks with its own query. The old ones only *answer*, with their keys and values. And those have not changed: under the causal mask an old position depends only on itself and on what stands before it, in the first layer,
# hence in the second, hence in all of them. So **keep the keys and values of every layer**, compute the new position's three vectors, append its key and value, and let its query look at all of them. That is the **KV cache**. The queries of old positions are never needed again. Everything else (norms, feed-forward layers) works on each token by itself.
#
# By hand: the cache holds the keys $(1, 0)$ and $(0, 1)$ with the values 10 and 20. A new token comes with $q = (\sqrt 2 \ln 8, 0)$, $k = (0, 1)$, $v = 30$. There are now three keys; the scores $q \cdot k / \sqrt 2$ are $\ln 8$, 0, 0, their exponentials 8, 1, 1, the weights 0.8, 0.1, 0.1, and the output is $8 + 2 + 3 = 13$.
#
# Two details decide whether this is right:
#
# - **The mask**, when several new tokens come at once, as a prompt does. T new positions are the *last* T of S = P + T: new position i may see the keys 0 to P + i. The triangle's diagonal moves by P = S - T.
# - **The position.** The new token does not stand at 0, but at P. Rotations (lesson 08) and learned tables must be told so.

# %% [markdown]
# **Exercise.** Attention with a cache.
#
# <details><summary>Hint 1</summary>First append the new ones behind the old ones, then attend: a new position sees itself too. Positions are the last axis but one.</details>
# <details><summary>Hint 2</summary>`torch.ones(T, S, dtype=torch.bool).tril(S - T)`: the number says how far the diagonal is moved.</details>
# <details><summary>Hint 3</summary>Scores over √K, -inf where one may not look, softmax over the keys, times the values. Hand back the output and both grown tensors.</details>

# %% exercise="cache.cached_attend"
# from: tinytrans.nn.cache.cached_attend

# %% [markdown]
# Now put it into the model. `reading` is a whole GPT, written out: embedding, positions, blocks, norm, head. The attention in it is yours.

# %%
Kept = list[tuple[Tensor, Tensor]]  # the keys and values of each layer
empty = torch.empty(1, model.config.n_heads, 0, model.config.head_width, device=device)
nothing: Kept = [(empty, empty)] * model.config.n_layers


@torch.no_grad()
def reading(ids: Tensor, kept: Kept, start: int | None = None, attend=None) -> tuple[Tensor, Kept]:
    """Ids (1, T) behind what was kept -> their logits (1, T, V), and what is to be kept now."""
    attend = cached_attend if attend is None else attend
    start = kept[0][0].shape[2] if start is None else start  # where the first new token stands
    places = torch.arange(start, start + ids.shape[1], device=device)
    rotation = rotation_at(places, model.config.head_width, base=model.config.rope_base)
    x, now = model.place(model.embedding(ids), places), []
    for block, (keys, values) in zip(model.blocks, kept, strict=True):
        q, k, v = block.attention.heads(block.attention_norm(x), None, rotation)
        y, keys, values = attend(q, k, v, keys, values)
        x = x + block.attention.out(merge_heads(y))
        x = x + block.feedforward(block.feedforward_norm(x))
        now.append((keys, values))
    return model.head(model.norm(x)), now


story = torch.tensor([unseen[0]], device=device)
with torch.no_grad():
    at_once = model(story)
by_pieces, kept = [], nothing
for piece in story.split([7, *[1] * (story.shape[1] - 7)], dim=1):  # a prompt of 7, then token by token
    logits, kept = reading(piece, kept)
    by_pieces.append(logits)
apart = (torch.cat(by_pieces, dim=1) - at_once).abs().max()
print(f"largest difference to the model without a cache: {apart:.1e}")

# %% [markdown]
# The numbers are the same, up to rounding. So the greedy text is the same, and given the same chances a drawn text is too. What have we saved? We time one step, with the text so far in the cache and without a cache.


# %%
def seconds(work, repeats: int = 5) -> float:
    """The shortest of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


lengths = [32, 64, 128, 256, 512] if quick else [32, 64, 128, 256, 512, 1024]
steps = {"reading all again": [], "with your cache": []}
for n in lengths:
    text = story.repeat(1, -(-n // story.shape[1]))[:, :n]  # the time does not depend on what it says
    _, kept = reading(text[:, :-1], nothing)
    again = seconds(lambda text=text: reading(text, nothing))
    cached = seconds(lambda last=text[:, -1:], kept=kept: reading(last, kept))
    steps["reading all again"].append(1e3 * again)
    steps["with your cache"].append(1e3 * cached)
curves(
    {name: (lengths, times) for name, times in steps.items()},
    title="Time to the next token",
    x_label="tokens in the text",
    y_label="milliseconds",
    log_x=True,
    log_y=True,
)

# %%
for n, again, cached in zip(lengths, *steps.values(), strict=True):
    both = f"{again:7.2f} ms without, {cached:6.2f} ms with the cache"
    print(f"{n:5} tokens: {both}, {again / cached:5.1f} times as fast")

# %% [markdown]
# Without a cache the time to the next token grows with the text, and in the end faster than the text, as the T² of attention makes itself felt (and, depending on the machine, a T × T table of weights that no longer fits into the processor's own memory). With the cache it grows slowly: multiplying the new token by the model's matrices is the same work at any length, and only its look at the keys takes longer.
#
# **The two phases** differ in kind. Reading the prompt (*prefill*) handles many tokens at once. Writing (*decode*) handles one token per step, and for that one token every weight of the model must be fetched from memory. So decoding waits for memory and not for arithmetic.
#
# ### Nothing is free
#
# The cache takes memory: for each layer, each sequence, each position a key and a value, $K$ numbers for each of the G key heads (lesson 05: with grouped heads, G < H). By hand for GPT-2, with 12 layers, 12 heads of width 64 and 1024 positions in half precision: $2 \cdot 12 \cdot 1024 \cdot 12 \cdot 64 \cdot 2$ bytes = 37,748,736, 36 MiB for one text.

# %% [markdown]
# **Exercise.** Count it.
#
# <details><summary>Hint 1</summary>How many numbers does *one* position of *one* layer keep?</details>
# <details><summary>Hint 2</summary>A head is d_model / n_heads wide, even where several heads share their keys.</details>
# <details><summary>Hint 3</summary>Key and value: 2. Times layers, batch, length, n_kv_heads, width of a head, bytes of a number.</details>

# %% exercise="cache.cache_bytes"
# from: tinytrans.nn.cache.cache_bytes

# %%
c = model.config
for name, sizes in {
    "this model, 256 tokens, single precision": (c.n_layers, 1, 256, c.d_model, c.n_heads, c.kv_heads, 4),
    "GPT-2, 1024 tokens": (12, 1, 1024, 768, 12, 12, 2),
    "Llama 2 70B, 4096 tokens, 8 key heads": (80, 1, 4096, 8192, 64, 8, 2),
    "the same with 64 key heads": (80, 1, 4096, 8192, 64, 64, 2),
    "the same, 32 conversations at once": (80, 32, 4096, 8192, 64, 64, 2),
}.items():
    print(f"{cache_bytes(*sizes) / 2**20:12,.1f} MiB  {name}")

# %% [markdown]
# So a long context costs memory even where it costs little time, and each further user costs it again. That is why key heads are shared (Shazeer 2019; Ainslie et al. 2023), windows slide (Jiang et al. 2023), and caches are stored in fewer bits.
#
# Step through it: see which tokens are read in each step (blue), which are kept (in brackets), and how much memory that takes.

# %%
shown = tokenizer.encode(text_of(ids[0]))[:16]
one_token = cache_bytes(c.n_layers, 1, 1, c.d_model, c.n_heads, c.kv_heads, 4)
cache_growth([tokenizer.decode([i]).strip() or "␣" for i in shown], 4, one_token)

# %% question="cache.hidden_state"

# %% question="cache.mask_in_use"

# %% [markdown]
# ## 9. Break it on purpose (5 minutes)
#
# None of the following raises an error. We let the model read unseen stories in two parts: the first half at once, as a prompt, then the rest token by token. We measure its surprise within the prompt and after it.


# %%
def unmasked(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
    """Attention with a cache that forgets the mask."""
    _, keys, values = cached_attend(q, k, v, keys, values)
    return torch.nn.functional.scaled_dot_product_attention(q, keys, values), keys, values


def halves(row: list[int], attend=None, frozen: bool = False) -> tuple[float, float]:
    """The mean surprise within the prompt and behind it; frozen: all new tokens stand right behind it."""
    ids, half = torch.tensor([row], device=device), len(row) // 2
    logits, kept = reading(ids[:, :half], nothing, attend=attend)
    found = [logits]
    for t in range(half, len(row) - 1):
        logits, kept = reading(ids[:, t : t + 1], kept, start=half if frozen else None)
        found.append(logits)
    log_p = torch.cat(found, dim=1)[0].log_softmax(dim=-1).gather(-1, ids[0, 1:, None])
    return -log_p[: half - 1].mean().item(), -log_p[half - 1 :].mean().item()


for name, options in {
    "as it should be": {},
    "the prompt read without a mask": {"attend": unmasked},
    "the position stands still": {"frozen": True},
}.items():
    each = torch.tensor([halves(row, **options) for row in unseen[: 2 if quick else 8]]).mean(dim=0)
    print(f"{name:32} {each[0]:.2f} nats a token in the prompt, {each[1]:.2f} behind it")

# %% [markdown]
# The position that stands still destroys the text. The missing mask is a quieter fault: within the prompt, where the model can suddenly look ahead, it predicts *worse* than before (it never learned to use such a view), while what it writes after the prompt is hardly harmed. You would not notice by reading the text. So test a cache
# as you did above: *piece by piece equals at once*, with positions, over several steps.
#
# Two faults in the filters are next. First, top-p with the crossing token dropped: at how many places would nothing be left? Second, the order: what if the nucleus is cut *before* the temperature is applied?

# %% tags=["measured"]
alone = (places.amax(dim=-1) > 0.9).float().mean()
print(f"p = 0.9, the crossing token dropped: nothing is left at {alone:.0%} of the places")


def cut_first(logits: Tensor, chance: Tensor) -> Tensor:
    """Top-p on the distribution as it is, then the temperature."""
    return draw(temperature(top_p(logits, 0.9), 1.6).softmax(dim=-1), chance)


orders = {
    "temperature 1.6, then p = 0.9": chooser(t=1.6, p=0.9),
    "p = 0.9, then temperature 1.6": cut_first,
}
for name, choose in orders.items():
    diversity, quality = measured(choose)
    print(f"{name}: {quality:.0%} sound, diversity {diversity:.2f}")

# %% [markdown]
# The other order is not a mistake in itself, it is a different filter: once the tail has been cut off, no temperature can bring it back. Whoever compares two programs by their settings has to know their order.
#
# A last question, about what all of this rests on.

# %% question="generate.see_the_future"

# %% [markdown]
# ## 10. What to watch out for
#
# | you see | look at |
# |---|---|
# | the same sentence over and over | greedy, or a temperature near 0 |
# | good text that suddenly goes astray | the tail: pure sampling; a top-p that is computed on unsorted probabilities |
# | NaN, or an error in the draw | a filter that leaves nothing: k = 0, the crossing token dropped |
# | an id outside the vocabulary, once in a million draws | running sums that end below 1 |
# | text after the end, in some rows of a batch | rows that have ended must repeat their stop |
# | good first tokens, then worse and worse | the cache: positions that restart, keys appended on the wrong side or axis |
# | different texts with and without the cache | the mask while the prompt is read; a cache that still holds the text before |
# | the logits have changed after the call | a filter that writes into the caller's tensor |
#
# <!-- pitfalls: generate filters beam cache -->
#
# ## What was simplified
#
# - Quality was judged by verifiers that look for words. They cannot tell whether a story is beautiful; for open text one asks people, or a model (lesson 13).
# - The cache grew by `torch.cat`, which copies everything at each step. The library sets the room aside once and fills it from the left; a server cuts it into pages (Kwon et al. 2023).
# - There are more filters (min-p, typical sampling, penalties for what was said), and there are ways to be faster without changing a single probability: a small model drafts, the large one checks (`speculate`).
# - All texts here began with the same prompt. Prompts of different lengths are padded on the *left*, so that all of them end where the model goes on (`pad_left`).
#
# ## Where this lives in tinytrans
#
# `tinytrans/sampling/filters.py` has your filters, and `min_p` and `repetition_penalty` beside them. `tinytrans/sampling/generate.py` has `greedy_step`, `draw`, and the loop `generate` (with `stream`, which hands out one token after the other). `tinytrans/sampling/beam.py`: `extend_beams` and `beam_search`.
# `tinytrans/nn/cache.py`: `cached_attend`, `cache_bytes`, and `KVCache`, which GPT takes as `model(ids, cache=cache)`.
#
# ## References
#
# - D. H. Ackley, G. E. Hinton, T. J. Sejnowski (1985). A Learning Algorithm for Boltzmann Machines. Cognitive Science 9 (temperature).
# - A. Graves (2012). Sequence Transduction with Recurrent Neural Networks. arXiv 1211.3711 (beam search for neural networks).
# - J. Li, M. Galley, C. Brockett, J. Gao, B. Dolan (2016). A Diversity-Promoting Objective Function for Neural Conversation Models. arXiv 1510.03055 (distinct-n).
# - A. Fan, M. Lewis, Y. Dauphin (2018). Hierarchical Neural Story Generation. arXiv 1805.04833 (top-k).
# - A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi (2019). The Curious Case of Neural Text Degeneration. arXiv 1904.09751 (top-p, and why the likeliest text is dull).
# - J. Xu, X. Liu, J. Yan, D. Cai, H. Li, J. Li (2022). Learning to Break the Loop. arXiv 2206.02369 (how repetition feeds itself).
# - N. Shazeer (2019). Fast Transformer Decoding: One Write-Head is All You Need. arXiv 1911.02150; J. Ainslie et al. (2023). GQA. arXiv 2305.13245 (fewer key heads, smaller caches).
# - H. Touvron et al. (2023). Llama 2. arXiv 2307.09288 (the 70B model's sizes); A. Q. Jiang et al. (2023). Mistral 7B. arXiv 2310.06825 (a rolling cache).
# - W. Kwon et al. (2023). Efficient Memory Management for Large Language Model Serving with PagedAttention. arXiv 2309.06180.

# %% [markdown] tags=["instructor"]
# **For instructors: timing.** The heart is sections 5, 6 and 8. In 60 minutes leave out section 7 (beams) and the second half of section 9. Sections 1 to 3 go quickly if learners have seen a GPT; section 8 needs its full quarter of an hour, since the mask's offset has to be drawn on the board once: a rectangle
# of T rows and S columns with the diagonal ending in the lower right corner.

# %% [markdown] tags=["instructor"]
# **For instructors: common questions.** *Greedy's stories are sound, so why not take it?* For one answer, do; ask what becomes of a thousand readers who all get the same story in the same weather. *Why is a pure sample at τ = 1 not as good as the training texts, when the
# model has learned just that distribution?* It has learned it almost: the mass in the tail is its error, spread over all tokens. *Is top-p with p = 1 the same as no filter?* Yes, and the code returns early because a running sum in floats may pass 1 before the last token. *Why not cache queries?* Nobody asks twice. *Does the cache change training?* There is no decoding in training: all positions are
# computed at once.

# %% [markdown] tags=["instructor"]
# **For instructors: what the mistakes report tells.** "The crossing token dropped" is the one to expect from those who copied top-p from the web; let them compute the table of section 5 by hand. "The order undone the wrong way" (`gather` for `scatter`) shows who takes a permutation for its inverse. "The mask not moved" passes a careless test with a prompt alone and fails as soon as there
# is a cache: ask what row 0 of the mask should look like. "Stopped by any stop" comes from `(ids == stop).any(1)`. In `draw` the two mistakes about rounding differ in what they cost: one crashes once in a million tokens, the other draws a forbidden token, silently.

# %% [markdown] tags=["instructor"]
# **For instructors: variants.** Harder: let them write min-p (keep what is at least p times as likely as the favourite) and put it into the picture of section 6; or beam search with a length penalty; or speculative decoding from `tinytrans/sampling/speculative.py`. Easier: give `draw` and ask for the filters only. With a GPU, repeat section 8 with `PRESETS["gpt2"]` (random weights do) and
# up to 1024 tokens: the gap is larger. A discussion for ten minutes: which setting for a poem, a diagnosis, a program, and who should choose it?
