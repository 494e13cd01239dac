"""Convert: a model of Hugging Face's `transformers` -> the same model of ours, with the same logits, and back.

`transformers` is needed only where one of its models is made, by `to_transformers`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tinytrans.models.convert.bart import BART
from tinytrans.models.convert.bert import BERT
from tinytrans.models.convert.families import Family, Places
from tinytrans.models.convert.gpt2 import GPT2
from tinytrans.models.convert.llama import LLAMA
from tinytrans.models.convert.marian import MARIAN
from tinytrans.models.convert.vit import VIT
from tinytrans.models.pretrained import Pretrained, fill, own_weights

__all__ = ["from_transformers", "to_transformers"]

FAMILIES = (BART, BERT, GPT2, LLAMA, MARIAN, VIT)


def from_transformers(model: Any) -> Pretrained:
    """Their model -> ours with a copy of its weights, in eval mode, on its device and of its dtype.

    Known are GPT2LMHeadModel, LlamaForCausalLM, MistralForCausalLM, MarianMTModel, BartForConditionalGeneration,
    ViTForImageClassification, BertModel and Bert with its heads for pretraining, classes and spans; rope may be plain,
    "linear", "llama3" or "yarn". Of several dropouts, which matter in training alone, the one on the stream is taken;
    Llama and Mistral have it on the attention alone, here it then acts on the stream as well. A text may be as long as
    theirs says (max_position_embeddings): generation beyond it forgets the beginning. Raises ValueError for another
    class, and for what ours could not do the same way.
    """
    name = type(model).__name__
    known = {name: family for family in FAMILIES for name in family.classes}
    if name not in known:
        raise ValueError(f"{name} is not one of {', '.join(sorted(known))}")
    family, theirs = known[name], own_weights(model)
    with torch.device("meta"):  # no memory and no chance spent on weights that are about to be replaced
        ours = family.model(family.describe(model))
    places = own_places(family, ours)
    read = {name for place in places.values() for name in place.names}
    if foreign := sorted(theirs.keys() - read - set(family.fixed)):
        raise ValueError(f"their weights hold {', '.join(foreign)}, for which there is no place here")
    shapes = own_shapes(ours)
    weights = {name: place.take(theirs, shapes[name]) for name, place in places.items()}
    fill(ours, family.rearrange(weights, True))
    ours.tie()
    return ours.eval()


def to_transformers(model: Pretrained, **values: Any) -> Any:
    """Our model -> theirs with a copy of its weights, in eval mode; further values go into its config (`eos_token_id`).

    Raises ValueError for what none of their models could do the same way, adapters included, ImportError without
    `transformers`.
    """
    import transformers

    family, name, own_values = counterpart(model)
    kind = getattr(transformers, name)
    weight = next(model.parameters())
    theirs = kind(kind.config_class(**{**own_values, **values})).to(weight.device, weight.dtype)
    shapes, weights = own_shapes(theirs), family.rearrange(own_weights(model), False)
    written: dict[str, Tensor] = {}
    for own, place in own_places(family, model).items():
        written |= place.put(weights[own], shapes)
    if wrong := sorted(written.keys() ^ (shapes.keys() - (set(family.fixed) - written.keys()))):
        raise ValueError(f"{name} has other weights than expected: {', '.join(wrong)}")
    if wrong := [name for name, weight in written.items() if tuple(weight.shape) != shapes[name]]:
        raise ValueError(f"{name} with {values} has other shapes than expected: {', '.join(wrong)}")
    theirs.load_state_dict(written, strict=False)  # what they share, or compute, is in place already
    return theirs.eval()


def counterpart(model: Pretrained) -> tuple[Family, str, dict[str, Any]]:
    """The family that has a model like this, its name there and the values of its config.

    Raises ValueError where there is none, with each family's reason.
    """
    reasons = []
    for family in FAMILIES:
        if type(model) is family.model:
            try:
                return (family, *family.specify(model.as_is()))
            except ValueError as error:
                reasons.append(f"{family.classes[-1]}: {error}")
    said = "; ".join([f"transformers has no model like this one, a {type(model).__name__}", *reasons])
    raise ValueError(said)


def own_places(family: Family, model: Pretrained) -> Places:
    """The places of those weights that the model has; a shared one has only its first.

    Raises ValueError, naming it, for a weight that has no place there.
    """
    places, names = family.places(model.config), own_weights(model)
    if foreign := sorted(names.keys() - places.keys()):
        raise ValueError(
            f"the model holds {', '.join(foreign)}, for which there is no place there: merge and unwrap it"
        )
    return {name: places[name] for name in names}


def own_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's weights by name, a shared one only under its first."""
    return {name: tuple(weight.shape) for name, weight in own_weights(model).items()}
