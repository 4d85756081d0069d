"""`Tucker`: latent weights from a Tucker decomposition."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import tensorly
import torch
from tensorly.decomposition import tucker
from torch import Tensor, nn

from bnnlight.nn.compute.product import product
from bnnlight.nn.latents.latent import Latent, check_factor_lr, check_start, mode_names
from bnnlight.nn.latents.rank import Rank, resolve_ranks
from bnnlight.nn.latents.unfolding import Triangle, float64, triangle, unfold_all


def tucker_product(core: Tensor, factors: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """G ×₀ U0 ×₁ U1 …: the weight of a Tucker decomposition.

    The kernel's modes come first, as one small matrix, then the two channel modes in the cheaper order. Input
    channels are kept last meanwhile: then both are products of two large matrices.

    Args:
        core: ``(r0, r1, *kernel ranks)``.
        factors: one ``(n, r)`` per mode of the core.
        dtype: of what is multiplied along the channel modes, as :func:`bnnlight.nn.compute.product.product` takes it.

    Returns:
        ``(O, I, *kernel)``, in channels-last memory.
    """
    first, second, *kernel = factors
    (out_channels, r0), (in_channels, r1) = first.shape, second.shape
    mixed = core.flatten(2).transpose(1, 2) if kernel else core.unsqueeze(1)
    if kernel:
        # one product a slice: matmul would fold all slices into one matrix, which has to be transposed for that
        mixed = functools.reduce(_kronecker, kernel).expand(r0, -1, -1).bmm(mixed)
    if out_channels * r1 * (r0 + in_channels) < in_channels * r0 * (r1 + out_channels):
        inner = product(first, mixed.reshape(r0, -1), dtype=dtype)
        weight = product(inner.reshape(-1, r1), second.T, last=True, dtype=dtype)
    else:
        inner = product(mixed.reshape(-1, r1), second.T, dtype=dtype)
        weight = product(first, inner.reshape(r0, -1), last=True, dtype=dtype)
    return weight.reshape(out_channels, *(factor.shape[0] for factor in kernel), in_channels).movedim(-1, 1)


def _kronecker(a: Tensor, b: Tensor) -> Tensor:
    """a ⊗ b; torch.kron fails on some matrices of one column."""
    return (a[:, None, :, None] * b[None, :, None, :]).reshape(len(a) * len(b), -1)


def tucker_unfoldings(core: Tensor, factors: Sequence[Tensor], triangle_of: Triangle) -> list[Tensor]:
    """Unfoldings of a Tucker decomposition as :meth:`Latent.unfoldings` returns them.

    Args:
        core: ``(r0, r1, *kernel ranks)``.
        factors: one ``(n, r)`` per mode of the core.
        triangle_of: maps a factor to the triangle of its QR decomposition.
    """
    return unfold_all(tucker_product(float64(core), [triangle_of(factor) for factor in factors]))


def _svd(matrix: Tensor, n_eigenvecs: int | None = None, **_: object) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of a wide unfolding through its small Gram matrix, in float64: ten times quicker than LAPACK's."""
    wide = matrix.double()
    squares, vectors = torch.linalg.eigh(wide @ wide.T)
    u = vectors.flip(1)[:, :n_eigenvecs]
    s = squares.flip(0)[:n_eigenvecs].clamp_min(0).sqrt()
    vh = (u.T @ wide) / s.clamp_min(torch.finfo(s.dtype).tiny).unsqueeze(1)
    return u.to(matrix.dtype), s.to(matrix.dtype), vh.to(matrix.dtype)


def tucker_start(
    weight: Tensor, ranks: Sequence[int], start: Literal["hosvd", "identity"], modes: Sequence[str]
) -> tuple[Tensor, list[Tensor]]:
    """Core and factors of a weight.

    Args:
        weight: any number of modes.
        ranks: one per mode.
        start: ``hosvd``: tensorly's higher-order SVD. ``identity``: core = weight, factors = identity.
        modes: the modes' names for error messages.

    Raises:
        ValueError: ``identity`` with a mode below full rank, or an unknown start.
    """
    check_start(start, ("hosvd", "identity"))
    if start == "identity":
        for rank, size, mode in zip(ranks, weight.shape, modes, strict=True):
            if rank < size:
                raise ValueError(f"start 'identity' needs full rank, but {mode} has {rank} of {size}: use 'hosvd'")
        return weight, [torch.eye(n, dtype=weight.dtype, device=weight.device) for n in weight.shape]
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        # the HOSVD without further sweeps, which cost minutes on wide layers and change a start value little
        core, factors = tucker(weight, list(ranks), init="svd", n_iter_max=0, svd=_svd)
    return core, list(factors)


class Tucker(Latent):
    """W̃ = G ×₀ U0 ×₁ U1 ×₂ U2 ×₃ U3, a core and one factor per mode.

    Section 3.2 of Bulat, Kossaifi, Tzimiropoulos, Pantic 2019, https://arxiv.org/abs/1904.07852.

    Args:
        weight: ``(O, I, *kernel)``, the initial value.
        rank: a fraction of each channel mode's size, a number of components for each, or one entry per
            channel mode or per mode. Kernel modes stay full unless named.
        start: ``hosvd``: orthonormal factors from the higher-order SVD. ``identity`` (full rank only):
            core = weight, factors = identity, so that training begins as with :class:`Dense`.
        factor_lr: relative change per step of each factor, compared with the core's.
        products: ``bfloat16`` rebuilds the weight, in the backward pass too, with factors of that type; see
            :class:`bnnlight.nn.Latent`.

    Parameters:
        core ``(r0, r1, …)``, factors ``[(O, r0), (I, r1), (kh, r2), (kw, r3)]``.

    Raises:
        ValueError: a rank out of range (the message names the mode), ``identity`` below full rank, or unknown products.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: Rank = 1.0,
        start: Literal["hosvd", "identity"] = "hosvd",
        factor_lr: float = 0.1,
        products: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(weight.shape, products)
        check_factor_lr(factor_lr)
        modes = mode_names(weight.ndim)
        ranks = resolve_ranks(rank, weight.shape, modes, num_channel_modes=2)
        core, factors = tucker_start(weight.detach(), ranks, start, modes)
        self.core = nn.Parameter(core.clone().contiguous())
        self.factors = nn.ParameterList(f.clone().contiguous() for f in factors)
        self._scale_rates(weight, [f"factors.{m}" for m in range(weight.ndim)], factor_lr, ["core"])

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(self.core.shape)

    def unfoldings(self, triangle_of: Triangle = triangle) -> list[Tensor]:
        return tucker_unfoldings(self.core, list(self.factors), triangle_of)

    def named_factors(self) -> dict[str, Tensor]:
        return {f"factor{mode}": factor.detach() for mode, factor in enumerate(self.factors)}

    def forward(self) -> Tensor:
        return tucker_product(self.core, list(self.factors), self.factor_dtype)
