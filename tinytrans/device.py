"""Device: what the machine has -> where to compute, in which precision, and with which chance."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def pick(device: torch.device | str | None = None) -> torch.device:
    """The device asked for, or else the GPU where CUDA finds one, or else the CPU.

    Raises ValueError for a name that is none, and for a GPU that is not there.

    >>> pick("cpu")
    device(type='cpu')
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"there is no device {str(device)!r}: cpu, cuda, cuda:1, mps, ...") from error
    if place.type == "cuda" and (place.index or 0) >= (found := torch.cuda.device_count()):
        raise ValueError(f"the device {place} was asked for, and CUDA finds {found} GPUs here")
    if place.type not in ("cuda", "cpu", "meta"):
        try:
            torch.empty(0, device=place)
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            raise ValueError(f"the device {place} was asked for, and torch finds none here") from error
    return place


def seed(n: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Seed all of torch's own chance (weights at birth, dropout), and hand back a generator of that seed for the rest.

    Raises ValueError for a seed that does not fit 64 bits.

    >>> torch.rand(1, generator=seed(7)) == torch.rand(1, generator=seed(7))
    tensor([True])
    """
    if not -(2**63) <= n < 2**64:
        raise ValueError(f"seed {n} does not fit 64 bits: {-(2**63)} ... {2**64 - 1}")
    torch.manual_seed(n)
    return torch.Generator(device).manual_seed(n)


def autocast(device: torch.device | str) -> AbstractContextManager[object]:
    """Within it, matrix products run in bfloat16 on a GPU; on a CPU nothing changes.

    Few CPUs have bfloat16 arithmetic; on the others it is several times slower than float32.
    """
    device = torch.device(device)
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()
