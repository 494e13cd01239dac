"""Ranks: several processes, each with its own batches -> one training run, as if one process had them all.

Under `torchrun` a script calls `joined()` and then `fit`; nothing else changes. With one process nothing happens here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET = 25 * 2**20 // 4  # numbers that travel together, torch's own DDP's 25 MB in float32: fewer, larger messages


def rank() -> int:
    """Which of the processes this one is, from 0 on; the first is the one that writes files."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def joined() -> Iterator[int]:
    """Within, the processes that `torchrun` has started are one group: -> this one's rank; 0 for a process alone."""
    if "RANK" not in os.environ or size() > 1:
        yield rank()
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")  # tensors on either may travel
    try:
        yield rank()
        dist.barrier()  # whoever leaves first would close connections that another still reads from
    finally:
        dist.destroy_process_group()


def same_start(model: nn.Module) -> None:
    """Every process gets the weights and buffers of the first."""
    if size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)


def same_parts(model: nn.Module) -> None:
    """Raise RuntimeError, naming them, where the losses of two processes have reached different parameters.

    The gradients of one would then be added to those of other parameters of the next.
    """
    mine = {name for name, weight in model.named_parameters() if weight.grad is not None}
    for other, theirs in enumerate(gather(mine)):
        if differ := sorted(mine ^ theirs):
            raise RuntimeError(f"ranks {rank()} and {other} have gradients of different parameters: {differ[:3]}")


def add_up(tensors: Iterable[Tensor]) -> None:
    """Each tensor becomes, in place, the sum of what the processes hold of it; all must hold as many, as large."""
    if size() == 1:
        return
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        for bucket in buckets(alike):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            dist.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))


def buckets(tensors: Iterable[Tensor], room: int = BUCKET) -> Iterator[list[Tensor]]:
    """Tensors in their order, together up to `room` numbers; a larger one travels alone.

    >>> [len(bucket) for bucket in buckets([torch.zeros(2), torch.zeros(3), torch.zeros(9), torch.zeros(1)], room=5)]
    [2, 1, 1]
    """
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(one.numel() for one in bucket) + tensor.numel() > room:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def gather(mine: Any) -> list[Any]:
    """What each process holds, in the order of their ranks, for every one of them to read."""
    if size() == 1:
        return [mine]
    all_of_them: list[Any] = [None] * size()
    dist.all_gather_object(all_of_them, mine)
    return all_of_them
