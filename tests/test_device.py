"""Laws of devices and seeds."""

from __future__ import annotations

import pytest
import torch

from tinytrans.device import autocast, pick, seed

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_what_is_asked_for_is_picked() -> None:
    """A device given by name or as itself is the one; unasked it is the GPU exactly where there is one."""
    assert pick("meta") == torch.device("meta")
    assert pick(torch.device("cpu")) == torch.device("cpu")
    assert pick().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpu", "no device 'gpu'"),
        ("", "no device ''"),
        ("xpu", "the device xpu was asked for, and torch finds none here"),
        (f"cuda:{torch.cuda.device_count()}", f"cuda:{torch.cuda.device_count()} was asked for, and CUDA finds"),
    ],
)
def test_what_is_not_there_is_refused(name: str, reason: str) -> None:
    """A name that is no device, and a GPU beyond those that there are, raise ValueError and name it."""
    with pytest.raises(ValueError, match=reason):
        pick(name)


def test_a_seed_repeats_itself() -> None:
    """The same seed gives the same numbers from torch's own chance and from the generator, another seed others."""
    draws = []
    for n in (5, 5, 2**64 - 1):
        generator = seed(n)
        draws.append((torch.rand(3).tolist(), torch.rand(3, generator=generator).tolist()))
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


@pytest.mark.parametrize("n", [2**64, 2**70, -(2**63) - 1])
def test_a_seed_fits_64_bits(n: int) -> None:
    """A seed that torch cannot hold raises ValueError and is named."""
    with pytest.raises(ValueError, match=f"seed {n} does not fit 64 bits"):
        seed(n)


def test_the_generator_is_its_own() -> None:
    """Drawing from the generator leaves torch's own chance alone."""
    generator = seed(5)
    expected = torch.rand(2)
    generator = seed(5)
    torch.rand(7, generator=generator)
    assert torch.equal(torch.rand(2), expected)


def test_autocast_changes_nothing_on_a_cpu() -> None:
    """On a CPU a matrix product stays in float32."""
    with autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.gpu
@needs_gpu
def test_autocast_is_bfloat16_on_a_gpu() -> None:
    """On a GPU a matrix product comes out in bfloat16."""
    x = torch.ones(2, 2, device="cuda")
    with autocast("cuda"):
        assert (x @ x).dtype == torch.bfloat16
