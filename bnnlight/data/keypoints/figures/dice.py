"""`Dice`: random numbers for a drawn picture, which follow from a key alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Random choices that follow from a key alone: no global state is read or changed.

    Args:
        key: whole numbers from 0; another key gives an independent stream.
    """

    # One draw of many numbers costs as much as a few draws of one.
    BLOCK = 512

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        self._block: list[float] = []

    def share(self) -> float:
        """A number from 0 to 1."""
        if not self._block:
            self._block = self._generator.random(self.BLOCK).tolist()
        return self._block.pop()

    def uniform(self, low: float, high: float) -> float:
        """A number from low to high, all equally likely."""
        return low + (high - low) * self.share()

    def near(self, middle: float, spread: float) -> float:
        """A number from middle − spread to middle + spread, most likely near the middle."""
        return middle + spread * (self.share() - self.share())

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens."""
        return self.share() < probability

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int((high - low + 1) * self.share())

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(len(options) * self.share())]

    def noise(self, *shape: int) -> np.ndarray:
        """Independent numbers 0..255, uint8."""
        return np.frombuffer(self._generator.bytes(int(np.prod(shape))), np.uint8).reshape(shape)
