"""Checks of BitFit: which weights are biases, by their names."""

from __future__ import annotations

import re
from typing import Any

from graders.draw import Draw
from graders.exercise import exercise, question, requires
from tinytrans.adapters.bitfit import biases

LAYERS = ("attention.qkv", "attention.out", "feedforward.up", "feedforward.down", "norm_1", "norm_2")

# ---- inputs


def ours(draw: Draw) -> tuple[list[str]]:
    """The weights of a model of ours, in its order."""
    names = ["embedding.weight"]
    for block in range(draw.integer(2, 3)):
        names += [f"blocks.{block}.{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")]
    return ([*names, "norm.weight", "norm.bias"],)


def torchs(draw: Draw) -> tuple[list[str]]:
    """Names as torch's own layers give them, shuffled."""
    names = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias", "weight_ih_l0", "bias_ih_l0"]
    names += ["bias_hh_l1_reverse", "bias_k"]
    names = [f"{owner}{name}" for owner in ("encoder.", "decoder.layers.1.") for name in names] + ["bias", "weight"]
    return ([names[i] for i in draw.permutation(len(names)).tolist()],)


def misleading(draw: Draw) -> tuple[list[str]]:
    """Names in which the word stands somewhere else."""
    names = [
        "bias.weight",
        "bias_head.weight",
        "debias",
        "head.unbiased",
        "debias.bias",
        "norm.gain",
        "attention_bias.k",
    ]
    names += ["biases", "head.bias_free.weight", "position_bias.table", "head.bias"]
    return ([names[i] for i in draw.permutation(len(names)).tolist()],)


def none_at_all(draw: Draw) -> tuple[list[str]]:
    return ([name for name in ours(draw)[0] if name.endswith("weight")],)


def last(name: str) -> str:
    return name.split(".")[-1]


def is_bias(name: str) -> bool:
    return re.fullmatch(r"(.*\.)?(bias|[^.]*_bias|bias_[^.]*)", name) is not None


def no_gain(found: Any, names: list[str]) -> str | None:
    """The law: what is chosen is a bias by the part behind its last dot, and no bias is left out."""
    if not isinstance(found, list):
        return None
    if extra := [name for name in found if name in names and not is_bias(name)]:
        return f"{extra[0]!r} is no bias"
    if missing := [name for name in names if is_bias(name) and name not in found]:
        return f"{missing[0]!r} is a bias and was not chosen"
    return None


BIASES = exercise(
    "biases",
    reference=biases,
    oracle=lambda names: [name for name in names if is_bias(name)],
    requirements=[
        requires("in a model of ours, norms included", 1, ours, law=no_gain),
        requires("under torch's names", 1, torchs, law=no_gain),
        requires("not where only the word occurs", 1, misleading, law=no_gain),
        requires("a model without any", 1, none_at_all, law=no_gain),
    ],
    wrong={
        "the word anywhere": (
            lambda names: [name for name in names if "bias" in name],
            "Any name with the word in it is taken, such as `bias_head.weight`, which is a matrix. What counts is the "
            "part behind the last dot.",
        ),
        "ends with the word": (
            lambda names: [name for name in names if name.endswith("bias")],
            '`endswith("bias")` takes `debias` and misses `bias_ih_l0`. Cut off what stands before the last dot and '
            "look at the rest.",
        ),
        "exactly bias": (
            lambda names: [name for name in names if last(name) == "bias"],
            "Only those are taken whose last part is `bias` alone. torch's attention calls one `in_proj_bias`, its RNN "
            "`bias_hh_l0`.",
        ),
        "the names of the example": (
            lambda names: [
                name for name in names if last(name) in ("bias", "in_proj_bias", "bias_hh_l0", "bias_ih_l0")
            ],
            "You list the names that you have seen. Another layer's biases have others, `bias_ih_l1_reverse` or "
            "`bias_k`: go by how the last part begins and ends.",
        ),
        "behind a dot only": (
            lambda names: [name for name in names if name.endswith((".bias", "_bias")) or ".bias_" in name],
            "A name without any dot, `bias`, is left out, and `head.bias_free.weight` is taken. Look at the part "
            "behind the last dot, which may be the whole name.",
        ),
        "no norms": (
            lambda names: [name for name in biases(names) if "norm" not in name],
            "The norms' biases are left out. BitFit trains every bias of the model; it is the norms' *gains* that stay "
            "frozen.",
        ),
        "norms whole": (
            lambda names: [name for name in names if is_bias(name) or "norm" in name],
            "The norms' weights are chosen too. Their gains multiply and are no biases.",
        ),
        "all but the biases": (
            lambda names: [name for name in names if not is_bias(name)],
            "Turned round: these are the weights that freeze.",
        ),
        "gains and biases of norms": (
            lambda names: [name for name in names if "norm" in name],
            "These are the norms' weights. A bias may belong to any layer, and is known by the end of its name.",
        ),
        "sorted": (
            lambda names: sorted(biases(names), reverse=True),
            "The right names in another order: keep the order in which they came.",
        ),
        "the last parts": (
            lambda names: [last(name) for name in biases(names)],
            "Only the last part of each name comes back. The whole dotted names are needed to find the weights again.",
        ),
        "yes or no": (
            lambda names: [is_bias(name) for name in names],
            "A list of True and False comes back. Return the names that are biases.",
        ),
    },
    right={
        "a regular expression": lambda names: [name for name in names if is_bias(name)],
        "rpartition": lambda names: [
            name
            for name, end in ((name, name.rpartition(".")[2]) for name in names)
            if end == "bias" or end[-5:] == "_bias" or end[:5] == "bias_"
        ],
        "filter": lambda names: list(filter(is_bias, names)),
    },
)

# ---- questions

LEVERAGE = question(
    "leverage",
    "A layer computes relu(W x + b), and only b is trained. How can so few numbers change what a network does?",
    choices={
        "a": "Each shift decides which hidden numbers are cut off by the activation, so later layers get another mix "
        "of what W computes; yet no new direction of x can be read that W does not read already.",
        "b": "They cannot: a bias only shifts the output, which the next layer's bias could undo.",
        "c": "b grows until it is larger than W x, and the network becomes a table.",
        "d": "Through the gradient of b, W is trained too.",
    },
    explanations={
        "a": "Yes. So BitFit recombines what the base model can do. Where it can do nearly everything that is asked, "
        "this is enough; where a new ability is needed, it is not.",
        "b": "That would hold if all layers were linear. The activation in between is what gives the bias its "
        "leverage.",
        "c": "Training stops where the loss is low, not where b is large.",
        "d": "W is frozen: its gradient is not even computed.",
    },
    answer="a",
)

EXERCISES = [BIASES, LEVERAGE]
