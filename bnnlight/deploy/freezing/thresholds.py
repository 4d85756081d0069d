"""From per-channel arithmetic in front of a sign to one comparison.

Batch norm, α, PReLU and their like are, channel by channel, monotone functions of one number x. The sign of such a
function is the comparison of x with a threshold, turned round where the function falls (a negative batch-norm
weight), or a constant where it never crosses zero (a batch-norm weight of zero).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LARGEST = np.finfo(np.float32).max


def find_thresholds(positive: Callable[[np.ndarray], np.ndarray], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The float32 number at which the sign of a monotone function changes, found by bisection over all of them.

    So the comparison gives the function's own sign for every float32 number, its rounding included; solving
    x·a + b = 0 for x would be one unit in the last place off now and then.

    Args:
        positive: ``(C,)`` float32, one x for each channel → ``(C,)`` bool, whether the function is >= 0 there. Is
            asked about finite numbers alone.
        channels: C.

    Returns:
        Thresholds ``(C,)`` and directions ``(C,)``, +1 or -1, float32: the sign is +1 where
        ``direction * x >= direction * threshold``, for every finite x and for an x that is not a number (-1). -∞
        stands where it is always +1, +∞ where it is always -1.
    """
    low, high = np.full(channels, -LARGEST), np.full(channels, LARGEST)
    at_low, at_high = positive(low), positive(high)
    rising = ~at_low & at_high
    falling = at_low & ~at_high
    below, above = _order(low), _order(high)
    # invariant: the sign at `below` is the one at -LARGEST, at `above` the one at LARGEST
    while (above - below > 1).any():
        middle = (below + above) // 2
        like_high = positive(_number(middle)) == at_high
        above = np.where(like_high, middle, above)
        below = np.where(like_high, below, middle)
    threshold = np.where(rising, _number(above), _number(below)).astype(np.float32)
    threshold[~rising & ~falling & at_low] = -np.inf
    threshold[~rising & ~falling & ~at_low] = np.inf
    return threshold, np.where(falling, -1, 1).astype(np.float32)


def _order(x: np.ndarray) -> np.ndarray:
    """float32 numbers as integers in the same order, neighbours next to each other."""
    bits = x.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _number(order: np.ndarray) -> np.ndarray:
    """The inverse of :func:`_order`."""
    bits = np.where(order < 0, -order | 0x80000000, order)
    return bits.astype(np.uint32).view(np.float32)
