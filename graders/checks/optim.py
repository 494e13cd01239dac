"""Checks of optimisation: one step of AdamW, the schedule of the learning rate, clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graders.draw import Draw
from graders.exercise import exercise, question, requires, with_dtype
from tinytrans.training import optim as O

# ---- inputs: seed -> what the learner's function is called with

STEP = (5, 0.03, (0.8, 0.95), 0.1, 0.3)  # the fifth step: rate, betas, an eps and a decay that are large enough to tell


def underway(draw: Draw) -> tuple[Any, ...]:
    """A weight in the middle of its training."""
    shape = tuple(draw.sizes(2, 3, 6))
    return draw.normal(*shape), draw.normal(*shape), draw.normal(*shape), draw.normal(*shape) ** 2 + 0.1, *STEP


def one_number(draw: Draw) -> tuple[Any, ...]:
    """A single row in double precision."""
    w, g, m, v = (draw.normal(1, 5, dtype=torch.float64) for _ in range(4))
    return w, g, m, v**2 + 0.1, *STEP


def newborn(draw: Draw) -> tuple[Any, ...]:
    """The very first step, with everything but the rate left as it is; gradients of very different sizes."""
    w = draw.normal(4, 3)
    g = draw.normal(4, 3).sign() * torch.tensor([3e-7, 1.0, 1e3])  # eps shows in the smallest
    return w, g, torch.zeros(4, 3), torch.zeros(4, 3), 1, 0.01


def no_gradient(draw: Draw) -> tuple[Any, ...]:
    """A vector: which weights decay is said by who calls."""
    w = draw.normal(6)
    return w, 0 * w, 0 * w, 0 * w, *STEP


def a_few(draw: Draw) -> tuple[Tensor, Tensor]:
    """A weight and the gradients of three steps."""
    return draw.normal(4, 3), draw.normal(3, 4, 3)


def schedule(warmup: int | None = None, floor: float | None = None) -> Callable[[Draw], tuple[Any, ...]]:
    def inputs(draw: Draw) -> tuple[Any, ...]:
        w = draw.integer(4, 7) if warmup is None else warmup
        total = w + draw.integer(7, 12)
        return (w, total) if floor is None else (w, total, floor)

    return inputs


def all_warmup(draw: Draw) -> tuple[int, int]:
    """Nothing of the run is left for the cosine."""
    warmup = draw.integer(4, 7)
    return warmup, warmup


def short_fall(draw: Draw) -> tuple[int, int, float]:
    """One step of the run is left for the cosine."""
    warmup = draw.integer(4, 7)
    return warmup, warmup + 1, 0.1


def gradients(size: float) -> Callable[[Draw], tuple[list[Tensor], float]]:
    """Three gradients of different shapes and sizes, as long together as `size` times what is allowed."""

    def inputs(draw: Draw) -> tuple[list[Tensor], float]:
        found = [draw.normal(3, 4), 3 * draw.normal(5), draw.normal(2, 2, 2) / 2]
        norm = torch.cat([g.flatten() for g in found]).norm()
        largest = 0.5 + float(draw.uniform(1))
        return [g / norm * size * largest for g in found], largest

    return inputs


def nothing(draw: Draw) -> tuple[list[Tensor], float]:
    return [torch.zeros(1, 3), torch.zeros(draw.integer(3, 5))], 1.0


# ---- ways to run an answer, and laws


def three_steps(answer: Any, weight: Tensor, found: Tensor) -> Any:
    """The weight after three steps, each from what the one before handed on."""
    m = v = torch.zeros_like(weight)
    for step, gradient in enumerate(found, start=1):
        weight, m, v = answer(weight, gradient, m, v, step, 0.05, (0.9, 0.95), 1e-8, 0.1)
    return weight


def as_torch(found: Any, weight: Tensor, gradients: Tensor) -> str | None:
    theirs = nn.Parameter(weight.clone())
    optimizer = torch.optim.AdamW([theirs], lr=0.05, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for gradient in gradients:
        theirs.grad = gradient
        optimizer.step()
    off = float((found - theirs.detach()).abs().max())
    return f"after three steps the weight is {off:.2g} off torch's AdamW" if off > 1e-5 else None


def first_is_a_sign(found: Any, w: Tensor, g: Tensor, _m: Tensor, _v: Tensor, _step: int, lr: float) -> str | None:
    """The law of Adam's first step: every number moves by the rate, whatever its gradient's size."""
    moved = (found[0] - w * (1 - 0.1 * lr)) / -lr
    off = (moved - g.sign()).abs() > 0.1
    if off.any():
        at = tuple(off.nonzero()[0].tolist())
        return (
            f"the first step moves w{list(at)} by {-float(moved[at]):.3g} times the rate; its gradient is {g[at]:.2g}"
        )
    return None


def every_step(answer: Any, warmup: int, total: int, *floor: float) -> Any:
    """The factor at each step of a run."""
    return [answer(step, warmup, total, *floor) for step in range(total)]


def only_warmup(answer: Any, warmup: int, total: int) -> Any:
    return [answer(step, warmup, total) for step in range(warmup + 1)]


def beyond(answer: Any, warmup: int, total: int, *floor: float) -> Any:
    return [answer(step, warmup, total, *floor) for step in (total, total + 1, 2 * total)]


def within_and_behind(answer: Any, warmup: int, total: int) -> Any:
    """The factors of the run, and what comes well behind it."""
    return [*every_step(answer, warmup, total), *beyond(answer, warmup, total)[1:]]


def learns(found: Any, warmup: int, *_: Any) -> str | None:
    """The laws of the schedule: above 0, never above 1, up and then down."""
    if min(found) <= 0:
        return f"step {found.index(min(found))} has the factor {min(found):.3g}: nothing is learned in it"
    if max(found) > 1 + 1e-6:
        return f"step {found.index(max(found))} has the factor {max(found):.3g}, more than the rate itself"
    if found[0] > 1 / max(warmup, 1) + 1e-6:
        return f"the first of {warmup} steps has the factor {found[0]:.3g}, not {1 / max(warmup, 1):.3g}"
    if any(b > a + 1e-9 for a, b in zip(found[warmup:], found[warmup + 1 :], strict=False)):
        return "the factor rises again after the warm-up"
    return None


def one_direction(found: Any, gradients: list[Tensor], largest: float) -> str | None:
    """The law of clipping: the same direction, and no longer than allowed."""
    if not isinstance(found, list | tuple) or len(found) != len(gradients):
        return f"{len(gradients)} gradients are asked for, as they came in"
    if any(a.shape != b.shape for a, b in zip(found, gradients, strict=True)):
        return None
    before, after = (torch.cat([g.flatten() for g in some]) for some in (gradients, found))
    if after.isnan().any():
        return "there is NaN in it"
    length = float(after.norm())
    if length > largest * 1.001:
        return f"together they are {length:.3g} long; {largest:.3g} is allowed"
    if float(before.norm()) <= largest and not torch.allclose(before, after):
        return f"they were {float(before.norm()):.3g} long, {largest:.3g} is allowed, and yet they have changed"
    cosine = float(before @ after / (before.norm() * after.norm()).clamp(min=1e-12))
    if cosine < 0.999 and length > 0:
        return f"the direction has changed (its cosine with the old one is {cosine:.3f}): one factor for all of them"
    return None


# ---- adamw_step


def adam(
    *,
    decay_in: str = "weight",
    mean: Callable[[Tensor, Tensor, float], Tensor] = lambda m, g, b: b * m + (1 - b) * g,
    square: Callable[[Tensor, Tensor, float], Tensor] = lambda v, g, b: b * v + (1 - b) * g**2,
    m_from: Callable[[float, int], float] = lambda b, step: 1 - b**step,
    v_from: Callable[[float, int], float] = lambda b, step: 1 - b**step,
    root: Callable[[Tensor, float], Tensor] = lambda v, eps: v.sqrt() + eps,
    sign: float = 1.0,
    swapped: bool = False,
    returned: Callable[..., Any] = lambda w, m, v, _m_hat, _v_hat: (w, m, v),
    use: Callable[[Tensor, Tensor, float], Tensor] = lambda m_hat, _g, _b: m_hat,
) -> Callable[..., Any]:
    """AdamW out of parts."""

    def step_by(
        w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float,
        betas: Sequence[float] = (0.9, 0.95), eps: float = 1e-8, weight_decay: float = 0.1,
    ) -> Any:  # fmt: skip
        b1, b2 = betas[::-1] if swapped else betas
        g = g + weight_decay * w if decay_in == "gradient" else g
        m, v = mean(m, g, b1), square(v, g, b2)
        m_hat, v_hat = m / m_from(b1, step), v / v_from(b2, step)
        shrink = {"weight": lr * weight_decay, "bare": weight_decay, "gradient": 0.0, "none": 0.0, "after": 0.0}[
            decay_in
        ]
        move = lr * use(m_hat, g, b1) / root(v_hat, eps)
        new = w - shrink * w - sign * move
        new = new * (1 - lr * weight_decay) if decay_in == "after" else new
        return returned(new, m, v, m_hat, v_hat)

    return step_by


def never(_b: float, _step: int) -> float:
    return 1.0


def adam_by_torch(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float,
    betas: Sequence[float] = (0.9, 0.95), eps: float = 1e-8, weight_decay: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One step of torch's own optimiser, its state put in by hand."""
    parameter = nn.Parameter(w.clone())
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)
    optimizer.state[parameter] = {
        "step": torch.tensor(float(step - 1)), "exp_avg": m.clone(), "exp_avg_sq": v.clone(),
    }  # fmt: skip
    parameter.grad = g.clone()
    optimizer.step()
    state = optimizer.state[parameter]
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


def adam_by_lerp(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float,
    betas: Sequence[float] = (0.9, 0.95), eps: float = 1e-8, weight_decay: float = 0.1,
) -> list[Tensor]:  # fmt: skip
    """With the corrections drawn together into the rate, as torch computes it."""
    b1, b2 = betas
    m, v = torch.lerp(m, g, 1 - b1), torch.lerp(v, g * g, 1 - b2)
    size = lr / (1 - b1**step)
    return [torch.addcdiv(w * (1 - lr * weight_decay), m, v.sqrt() / math.sqrt(1 - b2**step) + eps, value=-size), m, v]


def adam_in_place(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float,
    betas: Sequence[float] = (0.9, 0.95), eps: float = 1e-8, weight_decay: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    b1, b2 = betas
    m.mul_(b1).add_(g, alpha=1 - b1)
    v.mul_(b2).add_(g * g, alpha=1 - b2)
    w.sub_(lr * weight_decay * w + lr * m / (1 - b1**step) / ((v / (1 - b2**step)).sqrt() + eps))
    return w, m, v


def adam_of_old_v(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float,
    betas: Sequence[float] = (0.9, 0.95), eps: float = 1e-8, weight_decay: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    _, m, new_v = O.adamw_step(w, g, m, v, step, lr, tuple(betas), eps, weight_decay)
    root = (v / (1 - betas[1] ** step)).sqrt() + eps
    return w - lr * weight_decay * w - lr * m / (1 - betas[0] ** step) / root, m, new_v


ADAMW = exercise(
    "adamw_step",
    reference=O.adamw_step,
    oracle=adam_by_torch,
    requirements=[
        requires("a step in the middle of a training", 3, underway),
        requires("the first step: by the rate, whatever the gradient's size", 1, newborn, law=first_is_a_sign),
        requires("without a gradient the weight only decays", 1, no_gradient),
        requires("three steps in a row", 1, a_few, run=three_steps, law=as_torch),
        requires("a single row, double precision", 1, one_number, run=with_dtype),
    ],
    wrong={
        "no bias correction": (
            adam(m_from=never, v_from=never),
            "m and v begin at 0 and are too small at first, and not by the same factor: the first steps come out "
            "wrong. "
            "Divide by 1 - b^step.",
        ),
        "only m corrected": (
            adam(v_from=never),
            "m is corrected and v is not: v is far too small at first, and the first steps are several times the rate.",
        ),
        "only v corrected": (adam(m_from=never), "v is corrected and m is not: the first steps are far too small."),
        "correction off by one": (
            adam(m_from=lambda b, step: 1 - b ** (step + 1), v_from=lambda b, step: 1 - b ** (step + 1)),
            "Steps count from 1, and you use step + 1 in the correction.",
        ),
        "corrected by b": (
            adam(m_from=lambda b, step: 1 - b, v_from=lambda b, step: 1 - b),
            "You divide by 1 - b at every step. That is right for the first one; then it is 1 - b^step, which goes "
            "to 1.",
        ),
        "decay in the gradient": (
            adam(decay_in="gradient"),
            "The decay is added to the gradient, so it goes through m and v and is divided by the root of v: weights "
            "with large gradients hardly decay. That is Adam with L2. In AdamW the decay acts on the weight itself.",
        ),
        "no decay": (adam(decay_in="none"), "The weight decay is accepted and not used."),
        "decay without the rate": (
            adam(decay_in="bare"),
            "The weight shrinks by weight_decay in one step. It is lr * weight_decay, so that decay follows the "
            "schedule.",
        ),
        "decay after the move": (
            adam(decay_in="after"),
            "The step itself decays, too: you shrink the weight after it has moved. Nearly the same; in the formula "
            "the "
            "old weight shrinks.",
        ),
        "eps under the root": (
            adam(root=lambda v, eps: (v + eps).sqrt()),
            "eps stands under the root. It is added to the root.",
        ),
        "no eps": (
            adam(root=lambda v, _eps: v.sqrt()),
            "eps is missing. Where a gradient was always 0 you divide 0 by 0.",
        ),
        "no root": (
            adam(root=lambda v, eps: v + eps),
            "You divide by v, a mean of squares. Its root has the gradient's unit.",
        ),
        "the size instead of the square": (
            adam(square=lambda v, g, b: b * v + (1 - b) * g.abs()),
            "v is the running mean of g², and you take |g|.",
        ),
        "the square of the mean": (
            adam(square=lambda v, g, b: b * v + ((1 - b) * g) ** 2),
            "(1 - b2) is squared along with the gradient. Only g is.",
        ),
        "momentum without a share": (
            adam(mean=lambda m, g, b: b * m + g),
            "m grows to ten times the gradient: in the mean the new gradient has the share 1 - b1.",
        ),
        "shares exchanged": (
            adam(mean=lambda m, g, b: (1 - b) * m + b * g),
            "The shares are exchanged: the old mean keeps b1, the new gradient gets 1 - b1.",
        ),
        "betas exchanged": (adam(swapped=True), "The first beta is for m, the second for v."),
        "no momentum": (
            adam(use=lambda m_hat, g, b: g),
            "The step follows the latest gradient. It is m, the running mean, that is divided by the root of v.",
        ),
        "Nesterov": (
            adam(use=lambda m_hat, g, b: b * m_hat + (1 - b) * g),
            "The step looks ahead, as in NAdam. Adam's takes m as it is.",
        ),
        "matrices alone decay": (
            lambda w, *rest: (adam() if w.dim() > 1 else adam(decay_in="none"))(w, *rest),
            "Right for matrices. Which weights decay is said by who calls, with `weight_decay`; the step does not look "
            "at shapes.",
        ),
        "its own eps": (
            adam(root=lambda v, _eps: v.sqrt() + 1e-8),
            "`eps` is accepted and not used: 1e-8 is written into your code.",
        ),
        "divided by the old v": (
            adam_of_old_v,
            "The step is divided by the v of the step before. The gradient goes into v first, and into m.",
        ),
        "upwards": (adam(sign=-1.0), "The step goes up the slope. The gradient is subtracted."),
        "corrected means kept": (
            adam(returned=lambda w, m, v, m_hat, v_hat: (w, m_hat, v_hat)),
            "You hand back the corrected means, and the next step will correct them again. m and v themselves are "
            "kept.",
        ),
        "old means kept": (
            lambda w, g, m, v, *rest: (O.adamw_step(w, g, m, v, *rest)[0], m, v),
            "The means come back as they were: the next step knows nothing of this one.",
        ),
        "only the weight": (
            lambda *inputs: O.adamw_step(*inputs)[0],
            "Only the weight comes back. The next step needs m and v as well.",
        ),
        "in place": (adam_in_place, "You write into the tensors that were handed in. Make new ones."),
    },
    right={"torch's optimiser": adam_by_torch, "drawn together": adam_by_lerp, "out of parts": adam()},
)

# ---- warmup_cosine


def curve(
    up: Callable[[int, int], float] = lambda step, warmup: (step + 1) / warmup,
    progress: Callable[[int, int, int], float] = lambda step, warmup, total: (step - warmup) / max(1, total - warmup),
    down: Callable[[float], float] = lambda x: (1 + math.cos(math.pi * x)) / 2,
    level: Callable[[float, float], float] = lambda y, floor: floor + (1 - floor) * y,
    last: Callable[[float], float] = lambda x: min(x, 1.0),
    warming: Callable[[int, int], bool] = lambda step, warmup: step < warmup,
) -> Callable[..., float]:
    """The schedule out of parts."""

    def factor(step: int, warmup: int, total: int, floor: float = 0.0) -> float:
        if warming(step, warmup):
            return up(step, warmup)
        return level(down(last(progress(step, warmup, total))), floor)

    return factor


def by_pieces(step: int, warmup: int, total: int, floor: float = 0.0) -> float:
    """With sin² instead of cos, and in another order."""
    if step >= total:
        return floor
    if step >= warmup:
        left = (total - step) / (total - warmup)
        return floor + (1 - floor) * math.sin(math.pi / 2 * left) ** 2
    return (step + 1) / warmup


def by_tensors(step: int, warmup: int, total: int, floor: float = 0.0) -> Tensor:
    x = torch.tensor((step - warmup) / max(1, total - warmup), dtype=torch.float64).clamp(0, 1)
    fall = floor + (1 - floor) * 0.5 * (1 + torch.cos(math.pi * x))
    return torch.tensor((step + 1) / warmup) if step < warmup else fall


SCHEDULE = exercise(
    "warmup_cosine",
    reference=O.warmup_cosine,
    oracle=by_pieces,
    requirements=[
        requires("the warm-up", 1, schedule(), run=only_warmup),
        requires("the cosine", 2, schedule(), run=every_step, law=learns),
        requires("a floor", 1, schedule(floor=0.2), run=every_step, law=learns),
        requires("at its end, and beyond, it stays at the floor", 1, short_fall, run=beyond),
        requires("no warm-up", 1, schedule(warmup=0), run=every_step, law=learns),
        requires("nothing but warm-up", 1, all_warmup, run=within_and_behind),
    ],
    wrong={
        "from 0": (
            curve(up=lambda step, warmup: step / warmup),
            "The first step has the factor 0 and learns nothing. With steps counted from 0 it is (step + 1) / warmup.",
        ),
        "up for one step longer": (
            curve(up=lambda step, warmup: (step + 1) / (warmup + 1)),
            "The warm-up is a step too long: its last step, warmup - 1, has the factor 1.",
        ),
        "up to and with the step warmup": (
            curve(warming=lambda step, warmup: step <= warmup),
            "Step `warmup` still counts as warm-up and gets a factor above 1. Step warmup - 1 is its last.",
        ),
        "counted from 1": (
            curve(up=lambda step, warmup: min(1.0, (step + 2) / warmup)),
            "The warm-up begins with its second step.",
        ),
        "over the whole run": (
            curve(progress=lambda step, warmup, total: step / total),
            "The cosine is stretched over the whole run, so that it begins below 1 where the warm-up ends. It goes "
            "from "
            "step warmup to step total.",
        ),
        "warm-up added at the end": (
            curve(progress=lambda step, warmup, total: (step - warmup) / total),
            "The cosine has not arrived when the run ends: it has total - warmup steps, not total.",
        ),
        "one step short": (
            curve(progress=lambda step, warmup, total: (step - warmup) / max(1, total - warmup - 1)),
            "The cosine arrives at step total - 1, so that the last step learns nothing. It arrives at step total.",
        ),
        "one step ahead": (
            curve(progress=lambda step, warmup, total: (step + 1 - warmup) / max(1, total - warmup)),
            "The cosine is a step ahead: at step warmup it is still 1.",
        ),
        "a line": (curve(down=lambda x: 1 - x), "That is a straight line down. Half a cosine is asked for."),
        "a quarter of a cosine": (
            curve(down=lambda x: math.cos(math.pi * x / 2)),
            "That is a quarter of a cosine: it arrives steeply. (1 + cos πx) / 2 goes from 1 to 0 and is flat at both "
            "ends.",
        ),
        "a bare cosine": (
            curve(down=lambda x: math.cos(math.pi * x)),
            "cos πx goes down to -1: a negative rate climbs. (1 + cos πx) / 2 goes from 1 to 0.",
        ),
        "a whole cosine": (
            curve(down=lambda x: (1 + math.cos(2 * math.pi * x)) / 2),
            "The cosine goes down and up again: the angle ends at π.",
        ),
        "floor ignored": (curve(level=lambda y, _floor: y), "The floor is accepted and not used."),
        "floor added": (
            curve(level=lambda y, floor: y + floor),
            "The floor is added on top, so that the factor begins above 1. What falls is the part above it: 1 - floor.",
        ),
        "floor as a bound": (
            curve(level=lambda y, floor: max(y, floor)),
            "The cosine falls to 0 and is cut off at the floor. It falls *to* the floor.",
        ),
        "up again behind the end": (
            curve(last=lambda x: x),
            "Behind the last step the cosine goes up again. A run that is prolonged would learn at rising rates: stay "
            "at the floor.",
        ),
        "0 behind the end": (
            lambda step, warmup, total, floor=0.0: curve()(step, warmup, total, floor) if step < total else 0.0,
            "From step total on your factor is 0. It stays at the floor, so that a run that is prolonged goes on.",
        ),
        "begun anew": (
            curve(last=lambda x: x % 1),
            "Behind its end the cosine begins anew at the top. That is SGDR's *warm restart*; here the factor stays at "
            "the floor.",
        ),
        "no warm-up at all": (
            curve(warming=lambda _step, _warmup: False, last=lambda x: max(0.0, min(x, 1.0))),
            "There is no warm-up: the first steps have the full rate.",
        ),
        "both at once": (
            lambda step, warmup, total, floor=0.0: (
                min(1.0, (step + 1) / warmup if warmup else 1.0)
                * curve(warming=lambda _s, _w: False)(step, 0, total, floor)
            ),
            "The cosine falls during the warm-up as well, and the two are multiplied. First the one, then the other.",
        ),
        "division by no warm-up": (
            lambda step, warmup, total, floor=0.0: (
                min(1.0, (step + 1) / warmup) if step < warmup or warmup == 0 else by_pieces(step, warmup, total, floor)
            ),
            "Right with a warm-up. Without one (warmup = 0) you divide by 0.",
        ),
        "division by no cosine": (
            curve(progress=lambda step, warmup, total: (step - warmup) / (total - warmup)),
            "Right where a cosine follows. Where the whole run is warm-up (total = warmup) you divide by 0 as soon as "
            "it is over.",
        ),
    },
    right={"by a sine": by_pieces, "by tensors": by_tensors, "out of parts": curve()},
    equivalent={
        "max(1, total - warmup)) -> max(total - warmup, 1))": "the larger of two, in either order",
        "min(1.0, (step - warmup) / max(1, total - warmup)) -> min((step - warmup) / max(1, total - warmup), 1.0)": (
            "the smaller of two, in either order"
        ),
    },
)

# ---- clip_by_norm

Clip = Callable[[list[Tensor], float], Any]


def all_norm(gradients: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients]).norm()


def by_factor(factor: Callable[[list[Tensor], float], Any]) -> Clip:
    return lambda gradients, largest: [g * factor(gradients, largest) for g in gradients]


def at_most_one(norm: Callable[[list[Tensor]], Any]) -> Clip:
    """Clipped by another idea of how long they are."""
    return by_factor(
        lambda gradients, largest: torch.clamp(largest / torch.as_tensor(norm(gradients)).clamp(min=1e-12), max=1.0)
    )


def clip_by_torch(gradients: list[Tensor], largest: float) -> list[Tensor]:
    weights = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for weight, g in zip(weights, gradients, strict=True):
        weight.grad = g.clone()
    nn.utils.clip_grad_norm_(weights, largest)
    return [weight.grad for weight in weights if weight.grad is not None]


def clip_in_place(gradients: list[Tensor], largest: float) -> list[Tensor]:
    factor = min(1.0, largest / max(float(all_norm(gradients)), 1e-12))
    return [g.mul_(factor) for g in gradients]


def in_numbers(gradients: list[Tensor], largest: float) -> tuple[Tensor, ...]:
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
    return tuple(g if norm <= largest else g * (largest / norm) for g in gradients)


CLIP = exercise(
    "clip_by_norm",
    reference=O.clip_by_norm,
    oracle=clip_by_torch,
    requirements=[
        requires("too long together: shortened, all by one factor", 2, gradients(3.0), law=one_direction),
        requires("short enough: unchanged", 1, gradients(0.6), law=one_direction),
        requires("each short enough, together a little too long", 1, gradients(1.15), law=one_direction),
        requires("all 0: no NaN", 1, nothing, law=one_direction),
    ],
    wrong={
        "each by itself": (
            lambda gradients, largest: [g * min(1.0, largest / max(float(g.norm()), 1e-12)) for g in gradients],
            "Each tensor is clipped by its own norm, which turns the direction of the step. The norm is that of all "
            "gradients together, and the factor one for all.",
        ),
        "number by number": (
            lambda gradients, largest: [g.clamp(-largest, largest) for g in gradients],
            "You clip each number. The step's direction turns; only its length is to change.",
        ),
        "always that long": (
            by_factor(lambda gradients, largest: largest / all_norm(gradients).clamp(min=1e-12)),
            "Short gradients are made longer. Clipping only shortens: the factor is 1 at most.",
        ),
        "always that long, 0 / 0": (
            by_factor(lambda gradients, largest: largest / all_norm(gradients)),
            "Short gradients are made longer, and for gradients of 0 the factor is infinite. It is 1 at most.",
        ),
        "norms added up": (
            at_most_one(lambda gradients: sum(g.norm() for g in gradients)),
            "The norms of the tensors are added up. It is their squares that add up, under one root.",
        ),
        "without the root": (
            at_most_one(lambda gradients: all_norm(gradients) ** 2),
            "You compare with the sum of the squares. The norm is its root.",
        ),
        "the mean of the norms": (
            at_most_one(lambda gradients: sum(g.norm() for g in gradients) / len(gradients)),
            "You compare with the mean of the tensors' norms. It is the norm of all numbers as one vector.",
        ),
        "the longest of them": (
            at_most_one(lambda gradients: max(g.norm() for g in gradients)),
            "You compare with the longest tensor's norm. Together they are longer.",
        ),
        "the first of them": (
            at_most_one(lambda gradients: gradients[0].norm()),
            "You compare with the first tensor's norm. It is the norm of all of them together.",
        ),
        "the largest number": (
            at_most_one(lambda gradients: max(g.abs().max() for g in gradients)),
            "You compare with the largest single number. It is the norm of all of them.",
        ),
        "the sum of sizes": (
            at_most_one(lambda gradients: sum(g.abs().sum() for g in gradients)),
            "You add up absolute values. The norm is the root of the sum of squares.",
        ),
        "of unit length": (
            by_factor(lambda gradients, largest: torch.clamp(1 / all_norm(gradients).clamp(min=1e-12), max=1.0)),
            "What is too long becomes 1 long: `largest` is not used.",
        ),
        "nothing clipped": (lambda gradients, largest: [g.clone() for g in gradients], "Nothing is shortened."),
        "thrown away": (
            lambda gradients, largest: [g * float(all_norm(gradients) <= largest) for g in gradients],
            "What is too long becomes 0, and the step is lost. Shorten it.",
        ),
        "the factor": (
            lambda gradients, largest: torch.clamp(largest / all_norm(gradients).clamp(min=1e-12), max=1.0),
            "The factor comes back. The gradients are asked for.",
        ),
        "0 / 0": (
            lambda gradients, largest: [
                g / all_norm(gradients) * torch.clamp(all_norm(gradients), max=largest) for g in gradients
            ],
            "Right, unless all gradients are 0: then you divide 0 by 0.",
        ),
        "in place": (clip_in_place, "You write into the gradients that were handed in. Make new ones."),
    },
    right={"by torch": clip_by_torch, "in plain numbers": in_numbers, "as one vector": at_most_one(all_norm)},
)

# ---- questions

DECOUPLED = question(
    "decoupled",
    "Adam divides each weight's step by the root of its mean squared gradient. What would happen to weight decay if "
    "it were "
    "added to the gradient, as $g + \\lambda w$?",
    choices={
        "a": "Nothing: for any optimiser, decay and a penalty on the squared weights are the same.",
        "b": "It would be divided by that root as well: weights with large gradients would hardly decay, those with "
        "small "
        "gradients strongly.",
        "c": "It would be too strong by the factor 1 / (1 - b1), because the mean gathers it up.",
        "d": "It would turn its sign where the gradient is negative.",
    },
    explanations={
        "a": "For plain gradient descent they are the same. Adam rescales the gradient, and with it whatever has "
        "been added.",
        "b": "Yes. So AdamW (Loshchilov and Hutter 2019) shrinks the weight directly, by lr · λ · w, beside the step: "
        "the decay is *decoupled* from the gradient.",
        "c": "A running mean of something constant is that constant: the shares b1 and 1 - b1 sum to 1.",
        "d": "Decay depends on the weight's sign and not on the gradient's.",
    },
    answer="b",
)

EXERCISES = [ADAMW, SCHEDULE, CLIP, DECOUPLED]
