"""Shards: a model -> the same model, of which each process keeps an equal part; what is saved and read is whole.

With `ranks` alone every process holds all weights, gradients and the optimiser's means. Sharded, it holds 1/N of each,
and gets the rest of a block from the others just while that block computes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tinytrans.training import ranks


def shard(model: nn.Module, blocks: str = "blocks") -> nn.Module:
    """The model itself, begun with the first process's weights, of each of which every process keeps a part.

    The modules in lists of the name `blocks` are gathered one after the other, all that is outside of them at once.
    Call it within `ranks.joined()`, when the model is on its device, and make the optimiser afterwards; then `fit` as
    ever, with a loss that calls the model itself. For a process alone nothing changes.
    Source: Zhao et al. 2023 (FSDP), arXiv 2304.11277; Rajbhandari et al. 2019 (ZeRO), arXiv 1910.02054.
    """
    if ranks.size() == 1:
        return model
    from torch.distributed.device_mesh import init_device_mesh  # a second to import: only for who shards
    from torch.distributed.fsdp import fully_shard

    ranks.same_start(model)
    mesh = init_device_mesh(next(model.parameters()).device.type, (ranks.size(),))
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and name.split(".")[-1] == blocks:
            for block in module:
                fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def sharded(model: nn.Module) -> bool:
    """Whether a process has only a part of this model."""
    return any(is_part(weight) for weight in model.parameters())


def is_part(tensor: Any) -> bool:
    """Whether it is a tensor of which this process holds a part, one of torch's DTensors."""
    return hasattr(tensor, "full_tensor")


def whole(tree: Any) -> Any:
    """A tree of dicts, lists and tuples in which every part of a tensor has become the whole tensor.

    All processes must call it; the first gets the tensors, on the CPU, and the others None in their places. So a
    sharded model is saved: `weights = whole(own_weights(model))`, and then the first process
    `GPT.from_weights(config, weights).save_pretrained(folder)`.
    """
    if is_part(tree):
        full = tree.full_tensor()
        return full.detach().cpu() if ranks.rank() == 0 else None
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(whole(value) for value in tree)
    return tree


def part_of(tensor: Tensor, like: Any) -> Tensor:
    """Of a whole tensor what this process keeps of one like it; all of it where `like` is whole itself."""
    if not is_part(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def take(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """The model gets whole weights by name, of which it keeps its part."""
    mine = model.state_dict()
    model.load_state_dict({name: part_of(weight, mine[name]) for name, weight in weights.items()})


def take_state(optimizer: Any, state: dict[str, Any]) -> None:
    """An optimiser, or several that act as one, get a whole state, of which they keep the parts of their weights."""
    optimizer.load_state_dict(state)
    for each in getattr(optimizer, "parts", (optimizer,)):
        for weight, kept in each.state.items():
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    kept[name] = part_of(value, weight)


def sum_gradients(model: nn.Module, others: list[Tensor]) -> None:
    """Every `.grad`, and each of the other tensors, becomes the sum over all processes."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    ranks.add_up([*others, *(gradient for gradient in gradients if not is_part(gradient))])
    with torch.no_grad():
        for gradient in gradients:
            if is_part(gradient):
                gradient.mul_(ranks.size())  # sharded ones are means already
