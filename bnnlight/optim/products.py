"""Products of stacks of matrices, by the quicker library."""

from __future__ import annotations

import torch
from torch import Tensor

from bnnlight.nn.compute.product import times_transpose

_SMALL = 2**21
"""Multiply-adds of a matrix up to which one call for the whole stack, in several threads, is quicker."""


def products(a: Tensor, b: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """a @ b for each pair of a stack, without gradient, by the quicker of the libraries that torch has on a CPU.

    Args:
        a: ``(number, m, k)``.
        b: ``(number, k, n)``.
        dtype: of the factors, whose products are added up in single precision; None: that of ``a``.

    Returns:
        ``(number, m, n)``, of the type of ``a``.
    """
    if dtype is not None:
        return torch.bmm(a.to(dtype), b.to(dtype)).to(a.dtype)
    if a.device.type != "cpu" or a.dtype != torch.float32 or a.shape[1] * b[0].numel() <= _SMALL:
        return torch.bmm(a, b)
    if len(a) == 1:
        return times_transpose(a[0], b[0].mT)[None]
    return torch.stack([times_transpose(one, other.mT) for one, other in zip(a, b, strict=True)])
