"""BitFit: a trained model -> the same model, of which only the biases train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from tinytrans.adapters.trainable import Model, freeze, matches


def biases(names: Iterable[str]) -> list[str]:
    """Dotted names of weights -> those of biases, in their order.

    A bias is called `bias`, or as torch's `in_proj_bias` and `bias_hh_l0`. What counts is the part behind
    the last dot. A norm's bias is one, its weight (the gain) is none.

    >>> biases(["norm.bias", "norm.weight", "bias.weight", "rnn.bias_hh_l0"])
    ['norm.bias', 'rnn.bias_hh_l0']
    """
    chosen = []
    for name in names:
        last = name.split(".")[-1]
        if last == "bias" or last.endswith("_bias") or last.startswith("bias_"):
            chosen.append(name)
    return chosen


def bias_names(model: nn.Module) -> list[str]:
    """The names of the model's biases, those of its norms among them.

    >>> bias_names(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2, bias=False)))
    ['0.bias', '1.bias']
    """
    return biases(name for name, _ in model.named_parameters())


def bitfit(model: Model, *, also: Sequence[str] = ()) -> Model:
    """The model itself, of which from now on only the biases train, and what is named in `also`, such as a new head.

    A pattern in `also` names a module or a weight, by its whole name or its end: `bitfit(model, also=("head",))`. The
    gain of a norm is no bias. Raises ValueError where the model has no bias to train, and at a pattern that nothing
    is called. Source: Ben Zaken et al. 2022, arXiv 2106.10199.
    """
    weights = dict(model.named_parameters())
    chosen = set(bias_names(model))
    if not chosen:
        raise ValueError(f"none of the model's {len(weights)} weights is a bias: build it with bias=True, or use lora")
    for pattern in also:
        named = {name for name in weights if matches(name, [pattern, f"{pattern}.*"])}
        if not named:
            raise ValueError(f"no module and no weight is called {pattern!r}; there are {', '.join(weights)}")
        chosen |= named
    freeze(model)
    for name in chosen:
        weights[name].requires_grad_(True)
    return model
