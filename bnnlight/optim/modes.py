"""Matrices along the modes of a stack of tensors: products with them, and covariances along them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bnnlight.optim.products import products


def rotate(x: Tensor, bases: Mapping[int, Tensor], back: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    """Each tensor of a stack in the basis of each mode, or back from there.

    Args:
        x: ``(number, n_0, …, n_k)``.
        bases: mode → ``(number, n, n)``, basis vectors as columns.
        back: from the bases to the entries.
        dtype: of the factors of the products, whose sums stay as exact as the processor's; None: that of ``x``.
    """
    for mode, basis in bases.items():
        x = _along(x, basis if back else basis.mT, mode, dtype)
    return x


def _along(x: Tensor, matrix: Tensor, mode: int, dtype: torch.dtype | None) -> Tensor:
    """Σ_j M_ij x_…j…, without laying x out anew."""
    left, right = _around(x, mode)
    if mode == x.ndim - 2:
        return products(x.flatten(1, -2), matrix.mT, dtype).view_as(x)
    each = matrix if left == 1 else matrix.repeat_interleave(left, 0)
    return products(each, x.view(len(x) * left, -1, right), dtype).view_as(x)


def covariance(x: Tensor, mode: int) -> Tensor:
    """Σ over all other modes of x xᵀ: ``(number, n, n)``."""
    left, right = _around(x, mode)
    if mode == x.ndim - 2:
        # laid out anew, as a product of rows that lie together takes less than half the time
        rows = x.flatten(1, -2).mT.contiguous()
        return products(rows, rows.mT)
    rows = x.view(len(x) * left, -1, right)
    return products(rows, rows.mT).unflatten(0, (len(x), left)).sum(1)


def _around(x: Tensor, mode: int) -> tuple[int, int]:
    """How many entries lie before and behind that mode."""
    return math.prod(x.shape[1 : mode + 1]), math.prod(x.shape[mode + 2 :])
