"""Seeded random draws. Everything that is generated is a function of integers, so that any item can be made again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


class Dice:
    """A torch generator seeded by integers; scalar draws come as Python numbers."""

    def __init__(self, *entropy: int) -> None:
        seed = int(np.random.SeedSequence((len(entropy), *entropy)).generate_state(1, np.uint64)[0] >> np.uint64(1))
        self.generator = torch.Generator().manual_seed(seed)

    def rand(self, *shape: int) -> Tensor:
        """Uniform on [0, 1), float32 of ``shape``."""
        return torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32 of ``shape``."""
        return torch.randn(shape, generator=self.generator)

    def uniform(self, low: float, high: float) -> float:
        """A number from [low, high)."""
        return low + (high - low) * float(self.rand())

    def log_uniform(self, low: float, high: float) -> float:
        """A number from [low, high), as likely in each octave; both positive."""
        return float(low * (high / low) ** float(self.rand()))

    def integer(self, count: int) -> int:
        """A number from 0 .. count - 1."""
        return int(torch.randint(count, (), generator=self.generator))

    def coin(self, probability: float = 0.5) -> bool:
        """True with ``probability``."""
        return float(self.rand()) < probability

    def sign(self) -> float:
        """-1 or 1."""
        return 1.0 if self.coin() else -1.0

    def choice(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[self.integer(len(options))]
