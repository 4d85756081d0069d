"""Whole numbers in a program: what each value can be, and multiply-adds that round as float32 does in few bits.

A value is k · unit for whole k, where the unit is a power of two; smallest and largest k of each channel are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MAX_FRACTION = 22
"""Most bits behind the point of a factor."""

MAX_WEIGHT_BITS = 8
"""Most bits of a real layer's weight."""


@dataclass(frozen=True)
class Whole:
    """A value of whole numbers: the tensor holds t = k · 2^exponent, and the network's own value is gain · t + offset.

    Gain and offset differ from 1 and 0 where bits 0 and 1 stand for −1 and +1, and behind their sums.

    Attributes:
        tensor: its name in the graph.
        exponent: of the unit.
        low, high: smallest and largest k of each channel, ``(C,)`` int64.
        gain: 1, 2, or one over the number of pixels.
        offset: ``(C,)``.
        pooled: height and width of the map over which a mean is yet to be taken; 0 where there is none.
    """

    tensor: str
    exponent: int
    low: np.ndarray
    high: np.ndarray
    gain: float = 1
    offset: np.ndarray | float = 0.0
    pooled: tuple[int, int] = (0, 0)

    def true(self, k: np.ndarray) -> np.ndarray:
        """The network's own value, ``(…, C)`` float32, for whole numbers ``(…, C)``."""
        return (self.gain * k * 2.0**self.exponent + self.offset).astype(np.float32)

    @property
    def num_bits(self) -> int:
        """Of the widest k, with its sign."""
        return bits_of(int(self.low.min()), int(self.high.max()))


def bits_of(low: int, high: int) -> int:
    """Bits of a signed whole number within two bounds."""
    return 1 + max(int(high).bit_length(), int(-low - 1).bit_length() if low < 0 else 0)


def whole_weight(weight: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Whole numbers and the exponent of their unit, the largest of which they are multiples; None where there is none.

    Args:
        weight: float32 of any shape.
    """
    largest = np.abs(weight).max(initial=0)
    if largest == 0:
        return np.zeros(weight.shape, np.int64), 0
    # the unit can be no finer than so many bits below the largest
    top = int(np.floor(np.log2(largest)))
    for exponent in range(top, top - MAX_WEIGHT_BITS, -1):
        whole = weight / np.float64(2.0**exponent)
        if (whole == np.rint(whole)).all() and np.abs(whole).max() < 2 ** (MAX_WEIGHT_BITS - 1):
            return whole.astype(np.int64), exponent
    return None


def sum_bounds(weight: np.ndarray, low: np.ndarray, high: np.ndarray, padded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest sum of each output channel, ``(O,)``.

    Args:
        weight: ``(O, I, …)`` whole numbers.
        low, high: of the inputs, ``(I,)``.
        padded: whether zeros may stand in place of any input.
    """
    if padded:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    shape = (1, -1, *[1] * (weight.ndim - 2))
    low, high = low.reshape(shape), high.reshape(shape)
    axes = tuple(range(1, weight.ndim))
    up, down = np.maximum(weight, 0), np.minimum(weight, 0)
    return (up * low + down * high).sum(axes), (up * high + down * low).sum(axes)


def first_at(level: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The smallest n in low..high + 1 with level(n) >= k, by bisection; ``level`` rises with n.

    Args:
        level: ``(K, C)`` whole numbers within the bounds → ``(K, C)``.
        low, high: ``(C,)``.
        k: ``(K, 1)``.
    """
    below, above = np.broadcast_to(low - 1, (len(k), len(low))), np.broadcast_to(high + 1, (len(k), len(low)))
    while (above - below > 1).any():
        middle = (below + above) // 2
        inside = np.clip(middle, low, high)
        reached = (level(inside) >= k) & (middle >= low)
        open_ = above - below > 1
        above = np.where(open_ & reached, middle, above)
        below = np.where(open_ & ~reached, middle, below)
    return above


def multiply_add(
    level: Callable[[np.ndarray], np.ndarray],
    low: np.ndarray,
    high: np.ndarray,
    near: tuple[np.ndarray, np.ndarray],
    bounds: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, int]:
    """Whole a, b and a number p of bits, so that (a · n + b) / 2^p lies on the right side of every half.

    Rounding it to the nearest whole number then gives ``level(n)`` for all n within the bounds, once clipped, in whole
    numbers and in float32; no n lies on a half, so that it does not matter how those are rounded. p is the smallest
    that will do.

    Args:
        level: rises with n; ``(K, C)`` whole numbers → ``(K, C)``, within ``bounds``.
        low, high: of n, ``(C,)``.
        near: real factor and summand ``(C,)`` that a and b must be close to.
        bounds: smallest and largest level.

    Returns:
        a, b ``(C,)`` int64 and p. Where float32 cannot tell on which side of a half some n lies, with
        :data:`MAX_FRACTION` bits, they are the nearest to ``near``.
    """
    k = np.arange(bounds[0] + 1, bounds[1] + 1)[:, None]
    first = first_at(level, low, high, k)
    reached, unreached = first <= high, first > low
    none = np.iinfo(np.int64).max // 2
    for p in range(MAX_FRACTION + 1):
        half = (2 * k - 1) << p  # twice (k - 1/2) · 2^p
        a, b = (np.rint(part * 2.0**p).astype(np.int64) for part in near)
        is_exact = np.zeros(a.shape, bool)
        for factor in (a, a + 1, a - 1):
            # 2 (a n + b) > half from the first n on, and < half before it; k that no n reaches ask for one side alone
            least = np.where(reached, half - 2 * factor * first, -none).max(0) // 2 + 1
            most = -(-np.where(unreached, half - 2 * factor * (first - 1), none).min(0) // 2) - 1
            bounded = (least > -none // 4) & (most < none // 4)
            summand = np.where(bounded, (least + most) // 2, np.clip(b, least, most))
            right = [
                np.where(counts, (_float32(factor, summand, p, n) > k - 0.5) == above, True).all(0)
                for counts, n, above in ((reached, first, True), (unreached, first - 1, False))
            ]
            new = ~is_exact & (factor >= 0) & (least <= most) & right[0] & right[1]
            a, b, is_exact = np.where(new, factor, a), np.where(new, summand, b), is_exact | new
        if is_exact.all():
            break
    # what is not exact by now has a half too near for float32 to tell: the nearest numbers do, and at most a few n of
    # the channel round to the neighbour there
    return a, b, p


def _float32(a: np.ndarray, b: np.ndarray, p: int, n: np.ndarray) -> np.ndarray:
    """(a · n + b) / 2^p as an engine in float32 computes it, rounded twice."""
    factor, summand = (part.astype(np.float32) * np.float32(2.0**-p) for part in (a, b))
    return n.astype(np.float32) * factor + summand
