"""Seed -> inputs: the chance that a check draws from, the same for the same seed on every machine."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Draw:
    """One seeded draw of inputs. Sizes that coincide hide mistakes, so `sizes` are pairwise different."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def sizes(self, n: int, low: int = 2, high: int = 9) -> list[int]:
        """n pairwise different sizes between low and high, both included."""
        if n > high - low + 1:
            raise ValueError(f"{n} different sizes do not fit between {low} and {high}")
        return [low + int(i) for i in torch.randperm(high - low + 1, generator=self.generator)[:n]]

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Independent standard normal numbers."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """A value for each parameter of a module, by its name: what an exercise on a class sets before it calls."""
        return {name: self.normal(*p.shape) for name, p in module.named_parameters()}

    def uniform(self, *shape: int) -> Tensor:
        """Independent numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Independent integers from low to high - 1."""
        return torch.randint(low, high, shape, generator=self.generator)

    def integer(self, low: int, high: int) -> int:
        """One integer from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def coins(self, *shape: int, p: float = 0.5) -> Tensor:
        """Independent bools, True with probability p."""
        return torch.rand(*shape, generator=self.generator) < p

    def permutation(self, n: int) -> Tensor:
        """The numbers 0 to n - 1 in random order."""
        return torch.randperm(n, generator=self.generator)
