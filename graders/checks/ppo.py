"""Checks of PPO's parts: what a token earns, how much better than expected it was, and a step that stays small."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_gradients
from tinytrans.training import ppo

# ---- inputs: (B, T), B and T different; each answer stands together, with a prompt before it and padding behind


def places(draw: Draw, B: int = 4, T: int = 7) -> Tensor:
    """One answer in the middle, one of a single token, one to the very end, one from the very start."""
    starts, ends = [draw.integer(1, 2), 3, 2, 0], [5, 4, T, draw.integer(3, 5)]
    positions = torch.arange(T)
    order = draw.permutation(4)[:B].tolist()
    return torch.stack([(positions >= starts[i]) & (positions < ends[i]) for i in order])


def tokens(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, log-probabilities of policy and reference, mask."""
    mask = places(draw)
    return 3 * draw.normal(4) + 1, -draw.uniform(4, 7) * 3, -draw.uniform(4, 7) * 3, mask


def tokens_beta(draw: Draw) -> tuple[Any, ...]:
    return *tokens(draw), (0.3, 0.5, 0.7)[draw.integer(0, 2)]


def tokens_free(draw: Draw) -> tuple[Any, ...]:
    return *tokens(draw), 0.0


def tokens_one(draw: Draw) -> tuple[Any, ...]:
    """A batch of one answer, which is one token."""
    return draw.normal(1) + 3, -draw.uniform(1, 1) * 3, -draw.uniform(1, 1) * 3, torch.ones(1, 1, dtype=torch.bool), 0.4


def valued(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards and values, and whatever stands outside the answers, which is a lot."""
    mask = places(draw)
    return (draw.normal(4, 7) * torch.where(mask, 1.0, 9.0), draw.normal(4, 7) * torch.where(mask, 1.0, 9.0), mask)


def valued_full(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    return draw.normal(2, 5), draw.normal(2, 5), torch.ones(2, 5, dtype=torch.bool)


def valued_one(draw: Draw) -> tuple[Any, ...]:
    return draw.normal(1, 1), draw.normal(1, 1), torch.ones(1, 1, dtype=torch.bool), 0.8, 0.6


def discounted(draw: Draw) -> tuple[Any, ...]:
    return *valued(draw), 0.9, 0.7


def one_step(draw: Draw) -> tuple[Any, ...]:
    return *valued(draw), 0.8, 0.0


def to_the_end(draw: Draw) -> tuple[Any, ...]:
    return *valued(draw), 1.0, 1.0


def at_the_start(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of one token."""
    logprobs = -draw.uniform(1, 1) * 3
    return logprobs, logprobs.clone(), 2 * draw.normal(1, 1)


def steps(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Every ratio of a table beside advantages of both signs: within the bounds, past them, on either side."""
    ratios = torch.tensor([0.4, 0.7, 0.9, 1.1, 1.3, 2.0, 5.0])
    old = -2 - draw.uniform(2, 7) * 3
    advantages = torch.tensor([[1.0], [-1.0]]) * (0.5 + draw.uniform(2, 7))
    return old + ratios.log()[draw.permutation(7)], old, advantages


def narrow(draw: Draw) -> tuple[Any, ...]:
    return *steps(draw), 0.05


def never_up(draw: Draw) -> tuple[Any, ...]:
    """An upper bound of 1 itself."""
    return *steps(draw), 0.2, 0.0


def lopsided(draw: Draw) -> tuple[Any, ...]:
    return *steps(draw), 0.2, 0.5


# ---- token_rewards


def last_places(mask: Tensor) -> Tensor:
    """True at each row's last True."""
    positions = torch.arange(mask.shape[1]).expand_as(mask)
    return positions == positions.masked_fill(~mask, -1).amax(-1, keepdim=True)


def earned(
    penalty: Callable[[Tensor, Tensor], Tensor] = lambda lp, ref: lp - ref,
    where: Callable[[Tensor], Tensor] = last_places,
    *,
    keep: bool = True,
) -> Callable[..., Tensor]:
    """Rewards out of parts: the penalty of each token, and the place of the score."""

    def rewards(scores: Tensor, lp: Tensor, ref: Tensor, mask: Tensor, beta: float = 0.05) -> Tensor:
        found = where(mask) * scores[:, None] - beta * penalty(lp, ref)
        return (found.masked_fill(~mask, 0) if keep else found).detach()

    return rewards


def rewards_by_loop(scores: Tensor, lp: Tensor, ref: Tensor, mask: Tensor, beta: float = 0.05) -> Tensor:
    rewards = torch.zeros_like(lp)
    for b, row in enumerate(mask):
        said = row.nonzero().flatten().tolist()
        for t in said:
            rewards[b, t] = -beta * (lp[b, t] - ref[b, t]).item()
        rewards[b, said[-1]] += scores[b]
    return rewards.detach()


def shifted_last(by: int) -> Callable[[Tensor], Tensor]:
    return lambda mask: last_places(mask).roll(by, dims=1)


def totals(found: Any, scores: Tensor, lp: Tensor, ref: Tensor, mask: Tensor, beta: float = 0.05) -> str | None:
    """The law of a whole answer: its tokens earn the score minus beta times the log-ratio of the whole answer."""
    rewards = found[0] if isinstance(found, tuple) else found
    if rewards.shape != mask.shape:
        return None
    if (rewards[~mask] != 0).any():
        return "a token of a prompt or of padding earns something: only the answer's tokens do"
    wanted = scores - beta * ((lp - ref) * mask).sum(-1)
    for row, (a, b) in enumerate(zip(wanted.tolist(), rewards.sum(-1).tolist(), strict=True)):
        if abs(a - b) > 1e-3:
            return (
                f"answer {row} has the score {float(scores[row]):.3g}; with its penalty it earns {a:.3g}, not {b:.3g}"
            )
    return None


REWARDS = exercise(
    "token_rewards",
    reference=ppo.token_rewards,
    oracle=rewards_by_loop,
    requirements=[
        requires("the score at each answer's last token", 1, tokens_free, law=totals),
        requires("every token pays for leaving the reference", 2, tokens_beta, law=totals),
        requires("beta is 0.05 unless given", 1, tokens, law=totals),
        requires("a single answer of a single token", 1, tokens_one, law=totals),
        requires("no gradient flows through a reward", 1, tokens_beta, run=with_gradients),
    ],
    wrong={
        "the score at the end of the row": (
            earned(where=lambda mask: torch.arange(mask.shape[1]).expand_as(mask) == mask.shape[1] - 1),
            "The score stands at the last place of each row, which is padding for most: there it is lost. Each answer "
            "has its own last token.",
        ),
        "the score at every token": (
            earned(where=lambda mask: mask),
            "Every token earns the whole score: an answer of a hundred tokens would earn a hundred times as much. It "
            "falls on the last token alone.",
        ),
        "the score shared out": (
            earned(where=lambda mask: mask / mask.sum(-1, keepdim=True)),
            "The score is spread evenly over the tokens. It is earned at the end, when the answer is whole; how it "
            "spreads is the critic's business.",
        ),
        "the score at the first token": (
            earned(where=lambda mask: (mask.cumsum(-1) == 1) & mask),
            "The score stands at the answer's first token, when nothing is said yet. It belongs to the last.",
        ),
        "one place late": (
            earned(where=shifted_last(1), keep=True),
            "The score stands one place behind the answer, and is masked away or lost in padding. The last token is "
            "the last place where the mask is True.",
        ),
        "one place early": (
            earned(where=shifted_last(-1)),
            "The score stands one token before the last.",
        ),
        "the last token pays nothing": (
            lambda s, lp, ref, m, beta=0.05: torch.where(
                last_places(m), s[:, None], ppo.token_rewards(0 * s, lp, ref, m, beta)
            ).detach(),
            "At the last token the score replaces the penalty. It comes on top of it.",
        ),
        "far is good": (
            earned(lambda lp, ref: ref - lp),
            "The sign of the penalty is turned: tokens that the reference finds unlikely earn more, and the policy "
            "runs away.",
        ),
        "distance": (
            earned(lambda lp, ref: (lp - ref).abs()),
            "You take the absolute value. log π - log π_ref may be negative at a token; only its mean over what the "
            "policy says is a KL divergence, and cutting the sign off spoils that mean.",
        ),
        "squared": (
            earned(lambda lp, ref: (lp - ref).square() / 2),
            "You take half the square, another estimate of the KL. In the reward PPO has the plain log-ratio.",
        ),
        "ratios": (
            earned(lambda lp, ref: (lp - ref).exp() - 1),
            "The ratio itself is taken; the penalty is its logarithm, log π - log π_ref.",
        ),
        "no reference": (
            earned(lambda lp, ref: lp),
            "The reference plays no part: you punish what is likely, whatever it was before.",
        ),
        "no penalty": (
            earned(lambda lp, ref: 0 * lp),
            "No token pays for leaving the reference: nothing keeps the policy from pleasing the reward model with "
            "nonsense.",
        ),
        "beta not used": (
            lambda s, lp, ref, m, beta=0.05: ppo.token_rewards(s, lp, ref, m, 1.0),
            "`beta` is not used: the penalty has full weight.",
        ),
        "beta on the score": (
            lambda s, lp, ref, m, beta=0.05: ppo.token_rewards(beta * s, lp, ref, m, beta),
            "The score is multiplied by beta as well. beta weighs the penalty.",
        ),
        "the whole penalty at the end": (
            lambda s, lp, ref, m, beta=0.05: (last_places(m) * (s - beta * ((lp - ref) * m).sum(-1))[:, None]).detach(),
            "The penalty of the whole answer falls on its last token. Each token pays for itself, where it strayed.",
        ),
        "padding pays": (
            earned(keep=False),
            "Prompt and padding pay the penalty too. Nothing was said there: 0.",
        ),
        "with a gradient": (
            lambda s, lp, ref, m, beta=0.05: (last_places(m) * s[:, None] - beta * (lp - ref)).masked_fill(~m, 0),
            "The numbers are right, but a gradient flows through them. A reward is a fact; the policy learns from it "
            "through the ratio alone. `detach`.",
        ),
        "cut off below 0": (
            earned(lambda lp, ref: (lp - ref).clamp(min=0)),
            "A token that the reference likes better pays nothing, where it should earn something: only the mean of "
            "log π - log π_ref is a KL divergence, so none of it may be cut off.",
        ),
        "k3": (
            earned(lambda lp, ref: (ref - lp).expm1() - (ref - lp)),
            "That is k3, the estimate that is never negative, as GRPO has it in its loss. In the reward PPO has the "
            "plain log-ratio.",
        ),
    },
    right={
        "a loop": rewards_by_loop,
        "parts": earned(),
        "scattered": lambda s, lp, ref, m, beta=0.05: (
            (-beta * (lp - ref) * m)
            .detach()
            .scatter_add(1, (m.shape[1] - 1 - m.flip(1).long().argmax(1))[:, None], s.detach()[:, None])
        ),
    },
    equivalent={
        "(mask.flip(-1).cumsum(-1).flip(-1) -> (mask.flip(--1).cumsum(-1).flip(-1)": "of two axes the last is axis 1",
        "(mask.flip(-1).cumsum(-1).flip(-1) -> (mask.flip(-1).cumsum(--1).flip(-1)": "of two axes the last is axis 1",
        "(mask.flip(-1).cumsum(-1).flip(-1) -> (mask.flip(-1).cumsum(-1).flip(--1)": "of two axes the last is axis 1",
        "(mask.flip(-1).cumsum(-1).flip(-1) -> (mask.flip(-1).cumsum(-1).flip(1)": "of two axes the last is axis 1",
        "(mask.flip(-1).cumsum(-1).flip(-1) -> (mask.flip(-1).cumsum(1).flip(-1)": "of two axes the last is axis 1",
        "(mask.flip(-1).cumsum(-1).flip(-1) -> (mask.flip(1).cumsum(-1).flip(-1)": "of two axes the last is axis 1",
        "mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1) -> mask.flip(-1).cumsum(-1).flip(-1) == 1": "masked later",
    },
)

# ---- gae

Pair = tuple[Tensor, Tensor]


def estimated(
    after: Callable[[Tensor, Tensor, int], Tensor] | None = None,
    carry: Callable[[float, float], float] = lambda gamma, lam: gamma * lam,
    returns: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda a, v, r: a + v,
    step: Callable[[float], float] = lambda gamma: gamma,
    *,
    clean: bool = True,
) -> Callable[..., Pair]:
    """GAE out of parts: which value follows a token, what is carried on, what the return is."""

    def advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> Pair:
        r, v = (x.detach().masked_fill(~mask, 0) if clean else x.detach() for x in (rewards, values))
        found, later = torch.zeros_like(r), torch.zeros_like(r[:, 0])
        for t in reversed(range(r.shape[1])):
            ends = torch.zeros_like(r[:, 0])
            following = after(values.detach(), mask, t) if after else (v[:, t + 1] if t + 1 < r.shape[1] else ends)
            delta = r[:, t] + step(gamma) * following - v[:, t]
            later = (
                (delta + carry(gamma, lam) * later).masked_fill(~mask[:, t], 0)
                if clean
                else (delta + carry(gamma, lam) * later)
            )
            found[:, t] = later
        return found, returns(found, v, r).masked_fill(~mask, 0) if clean else returns(found, v, r)

    return advantages


def bootstraps(values: Tensor, _mask: Tensor, t: int) -> Tensor:
    """The value at the next place, though the answer be over."""
    return values[:, min(t + 1, values.shape[1] - 1)]


def by_definition(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> Pair:
    """The sum of all deltas to come, token by token."""
    advantages = torch.zeros_like(rewards)
    for b, row in enumerate(mask):
        said = row.nonzero().flatten().tolist()
        deltas = []
        for i, t in enumerate(said):
            following = values[b, said[i + 1]].item() if i + 1 < len(said) else 0.0
            deltas.append(rewards[b, t].item() + gamma * following - values[b, t].item())
        for i, t in enumerate(said):
            advantages[b, t] = math.fsum((gamma * lam) ** k * d for k, d in enumerate(deltas[i:]))
    return advantages, (advantages + values.detach()).masked_fill(~mask, 0)


def nothing_outside(found: Any, rewards: Tensor, values: Tensor, mask: Tensor, *_: Any) -> str | None:
    """The law of the end: nothing outside the answers, and the last token's advantage is its reward minus its value."""
    advantages, returns = found[0] if isinstance(found[0], tuple | list) else found
    if advantages.shape != mask.shape or returns.shape != mask.shape:
        return None
    for name, x in (("advantage", advantages), ("return", returns)):
        if (x[~mask] != 0).any():
            b, t = ((x != 0) & ~mask).nonzero()[0].tolist()
            return f"place {t} of row {b} is no answer's and has the {name} {float(x[b, t]):.3g}, not 0"
    last = last_places(mask)
    wanted, got = (rewards - values)[last], advantages[last]
    if (off := (wanted - got).abs() > 1e-3).any():
        b = int(off.nonzero()[0])
        return (
            f"the last token of answer {b} earns {float(rewards[last][b]):.3g} where {float(values[last][b]):.3g} was "
            f"expected, and nothing follows: its advantage is {float(wanted[b]):.3g}, not {float(got[b]):.3g}"
        )
    return None


GAE = exercise(
    "gae",
    reference=ppo.gae,
    oracle=by_definition,
    requirements=[
        requires("full rows, gamma 1 and lambda 0.95", 1, valued_full, law=nothing_outside),
        requires("nothing follows an answer's last token", 1, valued, law=nothing_outside),
        requires("gamma and lambda", 1, discounted, law=nothing_outside),
        requires("lambda 0: one step ahead", 1, one_step, law=nothing_outside),
        requires("lambda 1: all that came, minus what was expected", 1, to_the_end, law=nothing_outside),
        requires("a single answer of a single token", 1, valued_one, law=nothing_outside),
        requires("no gradient", 1, discounted, run=with_gradients),
    ],
    wrong={
        "goes on behind the end": (
            estimated(after=bootstraps),
            "The value of the place behind an answer's last token is counted, whatever the critic says about padding. "
            "The answer is over: what follows is worth 0.",
        ),
        "padding is not looked at": (
            estimated(clean=False),
            "The mask is not used: rewards and values of padding flow back into the answers.",
        ),
        "lambda not used": (
            estimated(carry=lambda gamma, lam: gamma),
            "`lam` is not used: this is lambda = 1, all rewards to come minus the value.",
        ),
        "one step only": (
            estimated(carry=lambda gamma, lam: 0.0),
            "Only delta comes back, lambda = 0. What later tokens bring must reach the earlier ones: "
            "A_t = delta_t + gamma lambda A_(t+1).",
        ),
        "gamma not carried": (
            estimated(carry=lambda gamma, lam: lam),
            "What is carried on is multiplied by lambda alone. It is gamma times lambda.",
        ),
        "gamma not in delta": (
            estimated(step=lambda gamma: 1.0),
            "In delta the next value is not multiplied by gamma.",
        ),
        "lambda in delta": (
            lambda r, v, m, gamma=1.0, lam=0.95: estimated(step=lambda g: g * lam)(r, v, m, gamma, lam),
            "In delta the next value is multiplied by gamma and by lambda. Lambda belongs to what is carried on.",
        ),
        "always 0.95": (
            lambda r, v, m, gamma=1.0, lam=0.95: ppo.gae(r, v, m, gamma, 0.95),
            "Lambda is 0.95 whatever is asked for: the number is written into your code.",
        ),
        "gamma always 1": (
            lambda r, v, m, gamma=1.0, lam=0.95: ppo.gae(r, v, m, 1.0, lam),
            "`gamma` is not used.",
        ),
        "the value not subtracted": (
            lambda r, v, m, gamma=1.0, lam=0.95: (
                ppo.gae(r, 0 * v, m, gamma, lam)[0],
                ppo.gae(r, 0 * v, m, gamma, lam)[0] + v.detach().masked_fill(~m, 0),
            ),
            "The critic plays no part: rewards are only summed up. An advantage is how much better it went than "
            "*expected*.",
        ),
        "sign of delta": (
            lambda r, v, m, gamma=1.0, lam=0.95: (
                -ppo.gae(r, v, m, gamma, lam)[0],
                (v.detach().masked_fill(~m, 0) - ppo.gae(r, v, m, gamma, lam)[0]),
            ),
            "The sign is turned: what went better than expected gets a negative advantage.",
        ),
        "forwards": (
            lambda r, v, m, gamma=1.0, lam=0.95: tuple(
                x.flip(1) for x in ppo.gae(r.flip(1), v.flip(1), m.flip(1), gamma, lam)
            ),
            "The recursion runs forwards in time: each token is credited with what came *before* it. Start at the end.",
        ),
        "returns are rewards to come": (
            lambda r, v, m, gamma=1.0, lam=0.95: (
                ppo.gae(r, v, m, gamma, lam)[0],
                ppo.gae(r, v, m, gamma, 1.0)[1],
            ),
            "Your returns are the sums of the rewards to come (lambda = 1). Here the return is the advantage plus the "
            "value, with the same lambda.",
        ),
        "returns are advantages": (
            estimated(returns=lambda a, v, r: a),
            "The returns equal the advantages. What the critic should have said is A + V.",
        ),
        "returns with the reward": (
            estimated(returns=lambda a, v, r: a + r),
            "You add the reward to the advantage. The return is A + V.",
        ),
        "advantages alone": (
            lambda r, v, m, gamma=1.0, lam=0.95: ppo.gae(r, v, m, gamma, lam)[0],
            "Only the advantages come back. The critic needs the returns too.",
        ),
        "whitened": (
            lambda r, v, m, gamma=1.0, lam=0.95: (
                ppo.whiten(ppo.gae(r, v, m, gamma, lam)[0], m),
                ppo.gae(r, v, m, gamma, lam)[1],
            ),
            "The advantages are brought to mean 0 and variance 1. That comes later, and not here.",
        ),
        "with a gradient": (
            lambda r, v, m, gamma=1.0, lam=0.95: (
                ppo.gae(r, v, m, gamma, lam)[0] + 0 * v,
                ppo.gae(r, v, m, gamma, lam)[1] + 0 * v,
            ),
            "The numbers are right, but a gradient flows into the values. Advantages and returns are facts that actor "
            "and critic learn from: `detach` what comes in.",
        ),
        "written in place": (
            lambda r, v, m, gamma=1.0, lam=0.95: ppo.gae(r.data.mul_(m), v.data.mul_(m), m, gamma, lam),
            "The rewards and values that you were given were written to. Work on copies: `masked_fill` without the "
            "underscore makes one.",
        ),
    },
    right={
        "by definition": by_definition,
        "parts": estimated(),
        "with done": lambda r, v, m, gamma=1.0, lam=0.95: _with_done(r.detach(), v.detach(), m, gamma, lam),
    },
    equivalent={
        "0]) -> -1])": "only its shape is taken",
        "dim=1) -> dim=-1)": "of two axes the last is axis 1",
        "reversed(range(rewards.shape[1])): -> reversed(range(rewards.shape[-1])):": "of two axes the last is axis 1",
    },
)


def _with_done(r: Tensor, v: Tensor, m: Tensor, gamma: float, lam: float) -> Pair:
    """As a reinforcement learner writes it: a flag that says whether the episode goes on."""
    B, T = r.shape
    advantages, running = torch.zeros_like(r), torch.zeros(B)
    for t in range(T - 1, -1, -1):
        goes_on = m[:, t + 1].to(r) if t + 1 < T else torch.zeros(B)
        following = torch.where(goes_on > 0, v[:, t + 1], 0.0) if t + 1 < T else torch.zeros(B)
        running = r[:, t] + gamma * following - v[:, t] + gamma * lam * goes_on * running
        advantages[:, t] = torch.where(m[:, t], running, 0.0)
    return advantages, torch.where(m, advantages + v, 0.0)


# ---- surrogate


def stepped(loss: Callable[[Tensor, Tensor, float, float], Tensor]) -> Callable[..., Tensor]:
    """A loss of (ratio, advantages, lower bound, upper bound)."""

    def surrogate(lp: Tensor, old: Tensor, a: Tensor, clip: float = 0.2, clip_high: float | None = None) -> Tensor:
        return loss((lp - old.detach()).exp(), a.detach(), 1 - clip, 1 + (clip if clip_high is None else clip_high))

    return surrogate


def by_cases(lp: Tensor, old: Tensor, a: Tensor, clip: float = 0.2, clip_high: float | None = None) -> Tensor:
    """Token by token: past the bound in the advantage's direction the loss stands still."""
    high = clip if clip_high is None else clip_high
    rows = []
    for x, y, z in zip(lp.flatten(), old.detach().flatten(), a.detach().flatten(), strict=True):
        ratio = torch.exp(x - y)
        reached = ratio.item()
        held = (z.item() > 0 and reached > 1 + high) or (z.item() < 0 and reached < 1 - clip)
        bound = 1 + high if z.item() > 0 else 1 - clip
        rows.append(-z * bound + 0 * x if held else -z * ratio)
    return torch.stack(rows).view_as(lp)


def bounded_gain(
    found: Any, lp: Tensor, old: Tensor, a: Tensor, clip: float = 0.2, clip_high: Any = None
) -> str | None:
    """The law of small steps: no token gains more than its advantage times the bound; losses are not bounded."""
    loss = (found[0] if isinstance(found, tuple) else found).detach()
    if loss.shape != a.shape:
        return None
    high = 1 + (clip if clip_high is None else clip_high)
    most = torch.where(a > 0, a * high, a * (1 - clip))
    if (over := -loss > most + 1e-3).any():
        place = tuple(over.nonzero()[0].tolist())
        ratio = float((lp - old).exp()[place])
        return (
            f"at {list(place)} the ratio is {ratio:.2f}, the advantage {float(a[place]):.2f}: the gain is bounded by "
            f"{float(most[place]):.3g}, and you give {-float(loss[place]):.3g}"
        )
    return None


SURROGATE = exercise(
    "surrogate",
    reference=ppo.surrogate,
    oracle=by_cases,
    requirements=[
        requires("at the start: -A, and the gradient of -A log π", 1, at_the_start, run=with_gradients),
        requires("within the bounds and past them, either sign", 2, steps, law=bounded_gain),
        requires("past the bounds no gradient, but a way back", 1, steps, run=with_gradients),
        requires("other bounds", 1, narrow, law=bounded_gain),
        requires("a wider upper bound", 1, lopsided, law=bounded_gain),
        requires("an upper bound of 1: a clip_high of 0", 1, never_up, law=bounded_gain),
    ],
    wrong={
        "max for min": (
            stepped(lambda r, a, lo, hi: -torch.maximum(r * a, r.clamp(lo, hi) * a)),
            "The larger of the two gains is taken, the smaller is meant: -min(gain, clipped gain). If you have the "
            "minus inside, the two are losses, and then it is the maximum.",
        ),
        "not clipped": (
            stepped(lambda r, a, lo, hi: -r * a),
            "The ratio is not bounded: a single batch can carry the policy as far as it likes.",
        ),
        "clipped alone": (
            stepped(lambda r, a, lo, hi: -r.clamp(lo, hi) * a),
            "Only the clipped ratio counts. Then a token that has gone too far in the *wrong* direction gets no "
            "gradient either, and never comes back. The smaller of both gains is taken.",
        ),
        "the gain clipped": (
            stepped(lambda r, a, lo, hi: -torch.minimum(r * a, (r * a).clamp(lo, hi))),
            "You clip ratio times advantage. It is the ratio that is held between the bounds.",
        ),
        "no minus": (
            stepped(lambda r, a, lo, hi: torch.minimum(r * a, r.clamp(lo, hi) * a)),
            "This is the gain. A loss is minimised: the minus is missing, and good answers would become less likely.",
        ),
        "the log of the ratio": (
            lambda lp, old, a, clip=0.2, clip_high=None: (
                -torch.minimum(
                    (lp - old.detach()) * a.detach(),
                    (lp - old.detach()).clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * a.detach(),
                )
            ),
            "log π - log π_old is the *log* of the ratio. Take exp before you clip it to about 1.",
        ),
        "ratio upside down": (
            lambda lp, old, a, clip=0.2, clip_high=None: ppo.surrogate(2 * old - lp, old, a, clip, clip_high),
            "The ratio stands upside down: π / π_old, so log π - log π_old.",
        ),
        "no ratio": (
            lambda lp, old, a, clip=0.2, clip_high=None: -lp * a.detach(),
            "This is plain policy gradient, -A log π. It is right for one step on fresh answers; the ratio is what "
            "allows several.",
        ),
        "always ratio 1": (
            lambda lp, old, a, clip=0.2, clip_high=None: ppo.surrogate(lp, lp.detach(), a, clip, clip_high),
            "The old log-probabilities are not used: with π / π the ratio is always 1 and nothing is ever clipped.",
        ),
        "gradient into the old": (
            lambda lp, old, a, clip=0.2, clip_high=None: (
                -torch.minimum(
                    (lp - old).exp() * a.detach(),
                    (lp - old).exp().clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * a.detach(),
                )
            ),
            "The numbers are right, but a gradient flows into the old log-probabilities. They are a record of what "
            "was: `detach`.",
        ),
        "gradient into the advantages": (
            lambda lp, old, a, clip=0.2, clip_high=None: (
                -torch.minimum(
                    (lp - old.detach()).exp() * a,
                    (lp - old.detach()).exp().clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * a,
                )
            ),
            "The numbers are right, but a gradient flows into the advantages, and so into the critic: it would learn "
            "to praise. `detach` them.",
        ),
        "no gradient": (
            lambda *inputs: ppo.surrogate(*inputs).detach(),
            "The numbers are right, but no gradient reaches the policy.",
        ),
        "clip not used": (
            lambda lp, old, a, clip=0.2, clip_high=None: ppo.surrogate(lp, old, a, 0.2, clip_high),
            "`clip` is not used below: 0.2 is written into your code.",
        ),
        "clip_high not used": (
            lambda lp, old, a, clip=0.2, clip_high=None: ppo.surrogate(lp, old, a, clip),
            "`clip_high` is accepted and not used: where it is given, the upper bound is 1 + clip_high.",
        ),
        "clip_high of 0 taken for none": (
            lambda lp, old, a, clip=0.2, clip_high=None: ppo.surrogate(lp, old, a, clip, clip_high or clip),
            "A `clip_high` of 0 is taken for none: 0 is false, so that `clip_high or clip` gives clip. Ask whether it "
            "`is None`.",
        ),
        "clip_high below too": (
            lambda lp, old, a, clip=0.2, clip_high=None: ppo.surrogate(
                lp, old, a, clip if clip_high is None else clip_high
            ),
            "`clip_high` opens the upper bound only. The lower one stays 1 - clip.",
        ),
        "averaged": (
            lambda *inputs: ppo.surrogate(*inputs).mean(),
            "A single number comes back. One for each token is asked for; who averages them, and over which, comes "
            "later.",
        ),
        "clipped by sign alone": (
            stepped(lambda r, a, lo, hi: -torch.where(a > 0, r.clamp(max=hi), r.clamp(max=lo)) * a),
            "For negative advantages the ratio is held from the wrong side: there it may not fall below 1 - clip.",
        ),
        "dual clip": (
            stepped(lambda r, a, lo, hi: -torch.maximum(torch.minimum(r * a, r.clamp(lo, hi) * a), 3 * a.clamp(max=0))),
            "For negative advantages the loss is bounded as well (dual clip, a later variant): a token that went far "
            "the wrong way would get no gradient back. In PPO the unbounded loss counts there.",
        ),
    },
    right={
        "by cases": by_cases,
        "maximum of losses": stepped(lambda r, a, lo, hi: torch.maximum(-r * a, -r.clamp(lo, hi) * a)),
        "held by the sign": stepped(lambda r, a, lo, hi: -a * torch.where(a > 0, r.clamp(max=hi), r.clamp(min=lo))),
        "stacked": stepped(lambda r, a, lo, hi: -torch.stack([r * a, r.clamp(lo, hi) * a]).amin(0)),
    },
    equivalent={
        "-torch.minimum(ratio * advantages, bounded -> -torch.minimum(bounded * advantages, ratio": "in either order",
    },
)

# ---- questions

WHY_REFERENCE = question(
    "why_reference",
    "You leave out the KL penalty: beta = 0. The policy is still held by the clipped ratio. What do you expect of a "
    "long run?",
    choices={
        "a": "The same: clipping keeps the policy near the reference.",
        "b": "It becomes the reference again.",
        "c": "It stops learning, since without the KL there is no gradient.",
        "d": "It drifts as far as the reward pulls: clipping bounds each round's step from the policy of *that "
        "round*, and many small steps lead anywhere. Only the penalty remembers where it started.",
    },
    explanations={
        "a": "Clipping compares with π_old, which is renewed at every round. After fifty rounds of at most 20 % a "
        "token may be thousands of times as likely as it was.",
        "b": "Without the penalty nothing knows the reference any more.",
        "c": "The surrogate has its own gradient; the penalty is one more part of the reward.",
        "d": "Yes. Small steps make training stable, the penalty keeps the destination near.",
    },
    answer="d",
)

WHOSE_TASTE = question(
    "whose_taste",
    "Phases 2 and 3 are called the *bringing up* of a model: it should meet its users' expectations and do little "
    "harm. What do the preferences of your run show about that?",
    choices={
        "a": "That a model brought up on preferences knows what is good.",
        "b": "That it learns what those who judged liked, no more: your judges liked happy ends, so the model writes "
        "them, and what nobody was asked about it has not learned.",
        "c": "That harm can only be kept away in pretraining, by choosing the texts.",
        "d": "That the loss decides: DPO makes harmless models, PPO helpful ones.",
    },
    explanations={
        "a": "It has a number to raise. Whether the number is good is decided by who gave the preferences, and about "
        "what.",
        "b": "Yes. Hence the care about who judges, by which rules, and whether both wishes, to help and not to harm, "
        "are among the pairs (Bai et al. 2022).",
        "c": "Texts matter, but a model that has read of harm can be taught not to do it, and one that has not can "
        "still be led there.",
        "d": "They are ways to follow preferences. The preferences say where to.",
    },
    answer="b",
)

EXERCISES = [SURROGATE, REWARDS, GAE, WHY_REFERENCE, WHOSE_TASTE]
