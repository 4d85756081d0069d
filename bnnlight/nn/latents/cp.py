"""`CP`: latent weights from a canonical polyadic decomposition, a sum of rank-one tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import tensorly
import torch
from tensorly.decomposition import parafac
from torch import Tensor, nn

from bnnlight.nn.compute.product import product
from bnnlight.nn.latents.latent import Latent, check_factor_lr, check_start
from bnnlight.nn.latents.rank import resolve_rank
from bnnlight.nn.latents.unfolding import Triangle, triangle, unfold_all


class CP(Latent):
    """W̃ = Σ_r u0_r ∘ u1_r ∘ u2_r ∘ u3_r, a sum of rank-one tensors (CANDECOMP/PARAFAC).

    Args:
        weight: ``(O, I, *kernel)``, the initial value.
        rank: number of components, or a fraction of ``kh·kw·min(O, I)``, with which any weight of this
            shape is represented exactly.
        start: ``svd``: the largest components of the singular value decompositions of all kernel positions,
            exact at full rank. ``als``: ten sweeps of tensorly's alternating least squares from there.
        factor_lr: relative change per step of each factor, compared with a dense weight's.
        products: ``bfloat16`` rebuilds the weight, in the backward pass too, with factors of that type; see
            :class:`bnnlight.nn.Latent`.

    Parameters:
        factors ``[(O, R), (I, R), (kh, R), (kw, R)]``.

    Raises:
        ValueError: rank out of range, or an unknown start or type of products.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int | float = 1.0,
        start: Literal["svd", "als"] = "svd",
        factor_lr: float = 1.0,
        products: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(weight.shape, products)
        check_start(start, ("svd", "als"))
        check_factor_lr(factor_lr)
        full = min(weight.shape[:2]) * math.prod(weight.shape[2:])
        num_components = resolve_rank(rank, full, "the sum of rank-one tensors")
        factors = _cp_start(weight.detach(), num_components)
        # at full rank the start is exact, and the sweeps would solve singular systems
        if start == "als" and num_components < full:
            with tensorly.backend_context("pytorch", local_threadsafe=True):
                start_value = tensorly.cp_tensor.CPTensor((None, factors))
                scales, factors = parafac(weight.detach(), num_components, n_iter_max=10, init=start_value)
            factors = [f * scales.abs() ** (1 / weight.ndim) for f in factors]
            factors[0] = factors[0] * scales.sign()
        self.factors = nn.ParameterList(f.clone().contiguous() for f in factors)
        self._scale_rates(weight, [f"factors.{m}" for m in range(weight.ndim)], factor_lr, [])

    @property
    def ranks(self) -> tuple[int, ...]:
        return (self.factors[0].shape[1],)

    def unfoldings(self, triangle_of: Triangle = triangle) -> list[Tensor]:
        return unfold_all(_cp_product([triangle_of(factor) for factor in self.factors]))

    def named_factors(self) -> dict[str, Tensor]:
        return {f"factor{mode}": factor.detach() for mode, factor in enumerate(self.factors)}

    def forward(self) -> Tensor:
        return _cp_product(list(self.factors), self.factor_dtype)


def _cp_product(factors: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """The sum over r of the outer products of the factors' columns r, in channels-last memory."""
    first, second, *kernel = factors
    others = second
    for factor in reversed(kernel):
        others = (factor.unsqueeze(1) * others.unsqueeze(0)).flatten(0, 1)
    rows = product(first, others.T, last=True, dtype=dtype)
    return rows.view(len(first), *(len(factor) for factor in kernel), len(second)).movedim(-1, 1)


def _cp_start(weight: Tensor, num_components: int) -> list[Tensor]:
    """Factors of the largest singular components over all kernel positions, their sizes spread evenly."""
    kernel = weight.shape[2:]
    slices = weight.flatten(2).permute(2, 0, 1) if kernel else weight.unsqueeze(0)
    u, s, vh = torch.linalg.svd(slices, full_matrices=False)
    order = s.flatten().argsort(descending=True)[:num_components]
    position, component = order // s.shape[1], order % s.shape[1]
    root = s.flatten()[order] ** (1 / weight.ndim)
    factors = [u[position, :, component].T * root, vh[position, component].T * root]
    for mode, size in enumerate(kernel):
        index = position // math.prod(kernel[mode + 1 :]) % size
        factors.append(nn.functional.one_hot(index, size).T.to(weight.dtype) * root)
    return factors
