"""Matrices along the modes of a stack of tensors: products with them, and covariances along them."""

from __future__ import annotations

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
    """Σ_j M_ij x_…j…, with as few and as large products as the layout allows."""
    if mode == 0:
        return products(matrix, x.flatten(2), dtype).view_as(x)
    if mode == x.ndim - 2:
        return products(x.flatten(1, -2), matrix.mT, dtype).view_as(x)
    inner = x.movedim(mode + 1, -1).contiguous()
    return products(inner.flatten(1, -2), matrix.mT, dtype).view_as(inner).movedim(-1, mode + 1).contiguous()


def covariance(x: Tensor, mode: int) -> Tensor:
    """Σ over all other modes of x xᵀ: ``(number, n, n)``."""
    if mode == 0:
        rows = x.flatten(2)
        return products(rows, rows.mT)
    columns = (x if mode == x.ndim - 2 else x.movedim(mode + 1, -1)).flatten(1, -2)
    return products(columns.mT, columns)
