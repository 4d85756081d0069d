"""Newton–Schulz iteration: the orthogonal matrix nearest to a matrix, nearly, by products alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnnlight.optim.products import products

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients that take singular values from 0.01 on to between 0.68 and 1.14 in five steps, rather than to 1 in many.

Source: Jordan et al., 2024, https://kellerjordan.github.io/posts/muon."""

_SMALLEST = 1e-10
"""Norm of a matrix that is taken for rounding: it is not brought to length one, since squares would underflow."""


_TRUSTED = 2
"""Steps that are taken with a rounded Gram matrix before it is found anew."""


def orthogonalized(
    x: Tensor, steps: int = 5, coefficients: Sequence[float] = QUINTIC, dtype: torch.dtype | None = None
) -> Tensor:
    """U f(S) Vᵀ of each X = U S Vᵀ, with f(s) near 1: Newton–Schulz iteration on the Gram matrix.

    The iteration X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X multiplies X from the left by P = a I + b A + c A², a function of
    its Gram matrix A = X Xᵀ. P and A have the same eigenvectors, so that the next Gram matrix is P A P. Hence the
    product R of all P is found from n × n matrices, and X is multiplied once. Of an n × m matrix with n ≤ m that takes
    2 n² m + (4 steps − 3) n³ multiply-adds, in place of (2 n² m + n³) · steps.

    A's eigenvalues are squares: of singular values below a sixteenth of the largest, rounding to bfloat16 leaves
    nothing. What it leaves instead may be below zero, and is enlarged step by step until all is lost. So where factors
    or X itself are of two bytes, A is found anew from the matrix after two steps, when small singular values are twelve
    times what they were; that takes 2 n² m − 3 n³ more.

    Args:
        x: ``(number, n, m)``.
        steps: of the iteration.
        coefficients: a, b and c.
        dtype: of the factors of products; None: that of ``x``.

    Returns:
        The same shape. A matrix of zeros stays one, and one whose norm is below 1e-10 comes out the smaller for it.
    """
    if x.shape[-2] > x.shape[-1]:
        return orthogonalized(x.mT, steps, coefficients, dtype).mT
    # Frobenius' norm is at least the largest singular value
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(max(_SMALLEST, torch.finfo(x.dtype).tiny))
    if (dtype or x.dtype).itemsize < 4 and steps > _TRUSTED:
        return _iterated(_iterated(x, _TRUSTED, coefficients, dtype), steps - _TRUSTED, coefficients, dtype)
    return _iterated(x, steps, coefficients, dtype)


def _iterated(x: Tensor, steps: int, coefficients: Sequence[float], dtype: torch.dtype | None) -> Tensor:
    a, b, c = coefficients
    rounded = x.to(dtype or x.dtype)  # once for both of the products that take it
    gram, left = products(rounded, rounded.mT, dtype).to(x.dtype), None
    for step in range(steps):
        factor = products(gram, gram, dtype).mul_(c).add_(gram, alpha=b)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        left = factor if left is None else products(factor, left, dtype)
        if step + 1 < steps:
            gram = products(products(factor, gram, dtype), factor, dtype)
    return x if left is None else products(left, rounded, dtype)
