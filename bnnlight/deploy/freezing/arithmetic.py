"""float32 arithmetic as torch does it, in numpy."""

from __future__ import annotations

import numpy as np


def multiply_add(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """x · scale + shift, rounded once: the fused multiply-add of processors, which torch's batch norm is made of.

    A product that is added to nothing, and a sum with a factor of one, come out as rounded by themselves. A scale
    of zero gives the shift for an infinite x too, so that the function rises or falls all the way.

    Args:
        x, scale, shift: float32, broadcast against each other.

    Returns:
        float32.

    Source: S. Boldo, G. Melquiond, Emulation of FMA and correctly rounded sums, IEEE Transactions on Computers 2008,
    https://doi.org/10.1109/TC.2007.70819.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        # exact in float64; the sum is then rounded to odd, so that rounding it again does no harm
        product = np.where(scale == 0, 0.0, np.asarray(x, np.float64) * scale)
        total = product + shift
        part = total - product
        error = (product - (total - part)) + (shift - part)
        even = (np.ascontiguousarray(total).view(np.int64) & 1).reshape(total.shape) == 0
        odd = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
        return np.where(np.isfinite(error) & (error != 0) & even, odd, total).astype(np.float32)


def batch_norm(
    mean: np.ndarray, variance: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift ``(C,)`` of a batch norm in eval mode: what torch multiplies and adds, bit for bit.

    The root is numpy's: torch's own of a whole tensor is one unit in the last place off now and then, the one
    inside of its batch norm is not.

    Args:
        mean, variance: running statistics, ``(C,)`` float32.
        weight, bias: ``(C,)`` or None.
        eps: added to the variance.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.float32(1) / np.sqrt(variance + np.float32(eps))
    scale = scale if weight is None else scale * weight
    return scale, multiply_add(-mean, scale, np.zeros_like(mean) if bias is None else bias)
