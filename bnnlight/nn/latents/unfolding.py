"""Unfoldings of a weight along its modes, and small matrices that have their singular values.

A weight W̃ = S ×₀ Q0 ×₁ Q1 … with orthonormal columns in each Q has the same nonzero singular values in each
unfolding as S has. So a decomposition need not be multiplied out: R of each factor's QR decomposition takes the
factor's place. All is computed in float64 and without gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Triangle = Callable[[Tensor], Tensor]
"""Maps a factor ``(n, r)`` to a matrix ``(min(n, r), r)`` with the same Gram matrix: :func:`triangle`, or
one that remembers what it gave for a factor that several weights share."""


def float64(x: Tensor) -> Tensor:
    """x in float64, detached."""
    if x.device.type == "mps":  # the one device that has no float64
        x = x.cpu()
    return x.detach().double()


def triangle(factor: Tensor) -> Tensor:
    """R of the factor's QR decomposition; the factor itself where that is no smaller.

    Args:
        factor: ``(n, r)``.

    Returns:
        ``(min(n, r), r)`` float64 with RᵀR = factorᵀ factor.
    """
    factor = float64(factor)
    return torch.linalg.qr(factor, mode="r").R if factor.shape[0] > factor.shape[1] else factor


def unfold(tensor: Tensor, mode: int) -> Tensor:
    """The unfolding along a mode: ``(n_mode, product of the other sizes)``."""
    return tensor.movedim(mode, 0).flatten(1)


def fold(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Rows of a weight's entries, kernel before input channels, as a view ``(number of rows, I, *kernel)``.

    Args:
        rows: with one row, of any number of dimensions, for each output channel.
        shape: of the weight, ``(O, I, *kernel)``.
    """
    _, in_channels, *kernel = shape
    return rows.view(-1, *kernel, in_channels).movedim(-1, 1)


def unfold_all(tensor: Tensor) -> list[Tensor]:
    """The unfoldings along every mode."""
    return [unfold(tensor, mode) for mode in range(tensor.ndim)]
