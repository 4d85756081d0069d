"""Measures of a matrix's rank by its singular values: effective, stable, and by energy.

All take singular values in any order. A matrix of zeros has rank 0 by each of them; where a value is not finite,
as after training has diverged, each is NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values in falling order, as roots of the eigenvalues of the smaller Gram matrix.

    That costs a small part of an SVD where one side is long. Values below 1e-7 of the largest are rounding noise.

    Args:
        matrix: ``(n, k)``, on any device that has float64.

    Returns:
        ``(min(n, k),)`` float64 on the CPU; all NaN where the matrix has an entry that is not finite.
    """
    wide = matrix.detach().double()
    if wide.shape[0] > wide.shape[1]:
        wide = wide.T
    gram = (wide @ wide.T).cpu()
    if not gram.isfinite().all():
        # LAPACK would raise, and a look at the network must not end its training
        return torch.full_like(gram[0], math.nan)
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt()


def effective_rank(s: Tensor) -> float:
    """exp(−Σ p ln p) with p = s / Σ s: Roy, Vetterli, *The effective rank*, EUSIPCO 2007.

    Args:
        s: ``(n,)``, singular values.

    Returns:
        1 where a single value stands out, n where all are equal.
    """
    total = s.sum()
    if total == 0:
        return 0.0
    return float(torch.special.entr(s / total).sum().exp())


def stable_rank(s: Tensor) -> float:
    """Σ s² / max s², the squared Frobenius norm over the squared spectral norm.

    Args:
        s: ``(n,)``, singular values.
    """
    largest = s.max()
    if largest == 0:
        return 0.0
    return float((s / largest).square().sum())


def energy_rank(s: Tensor, share: float = 0.9) -> float:
    """The fewest singular values that hold this share of the squared sum: a whole number, or NaN.

    Args:
        s: ``(n,)``, singular values.
        share: in (0, 1].

    Raises:
        ValueError: the share is out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: give a number above 0 and at most 1")
    energy = s.sort(descending=True).values.square().cumsum(0)
    if energy[-1].isnan():
        return math.nan
    if energy[-1] == 0:
        return 0.0
    return float((energy < share * energy[-1]).sum() + 1)
