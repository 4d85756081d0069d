"""`Matrix`: latent weights from a singular value decomposition."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bnnlight.nn.compute.product import product
from bnnlight.nn.latents.latent import Latent, check_factor_lr, check_start
from bnnlight.nn.latents.rank import resolve_rank
from bnnlight.nn.latents.unfolding import Triangle, float64, fold, triangle, unfold_all


class Matrix(Latent):
    """W̃ = U diag(s) Vᵀ, the singular value decomposition of the mode-0 unfolding, folded back.

    The unfolding's columns are ordered kernel height, kernel width, input channel, as convolutions of channels-last
    images have them in memory.

    Section 3.1 of Bulat, Kossaifi, Tzimiropoulos, Pantic 2019, https://arxiv.org/abs/1904.07852.

    Args:
        weight: ``(O, I, *kernel)``, the initial value.
        rank: number of components, or a fraction of ``min(O, I·kh·kw)``.
        start: how the components share the weight's size. ``svd``: U and V orthonormal. ``balanced``:
            U√S, s = 1, V√S. ``identity`` (full rank only): the factor with the fewer rows is the identity
            and the other one the weight itself, so that training begins as with :class:`Dense`.
        factor_lr: relative change per step of U, s and V (``identity``: of the identity factor and s),
            compared with a dense weight's.
        products: ``bfloat16`` rebuilds the weight, in the backward pass too, with factors of that type; see
            :class:`bnnlight.nn.Latent`.

    Parameters:
        U ``(O, R)``, s ``(R,)``, V ``(kh·kw·I, R)``.

    Raises:
        ValueError: rank out of range, an unknown start or type of products, or ``identity`` below full rank.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int | float = 1.0,
        start: Literal["svd", "balanced", "identity"] = "identity",
        factor_lr: float = 0.1,
        products: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(weight.shape, products)
        check_start(start, ("svd", "balanced", "identity"))
        check_factor_lr(factor_lr)
        unfolded = weight.detach().movedim(1, -1).flatten(1)
        full = min(unfolded.shape)
        num_components = resolve_rank(rank, full, f"the {unfolded.shape[0]}×{unfolded.shape[1]} matrix")
        if start == "identity":
            if num_components < full:
                raise ValueError(f"start 'identity' needs the full rank {full}, not {num_components}: use 'balanced'")
            eye = torch.eye(full, dtype=weight.dtype, device=weight.device)
            u, v = (eye, unfolded.T) if unfolded.shape[0] == full else (unfolded, eye)
            s = torch.ones_like(eye[0])
        else:
            u, s, vh = torch.linalg.svd(unfolded, full_matrices=False)
            u, s, v = u[:, :num_components], s[:num_components], vh[:num_components].T
            if start == "balanced":
                u, v, s = u * s.sqrt(), v * s.sqrt(), torch.ones_like(s)
        self.U, self.s, self.V = (nn.Parameter(t.detach().clone().contiguous()) for t in (u, s, v))
        carrier = [] if start != "identity" else ["V"] if unfolded.shape[0] == full else ["U"]
        self._scale_rates(weight, [n for n in ("U", "s", "V") if n not in carrier], factor_lr, carrier)

    @property
    def ranks(self) -> tuple[int, ...]:
        return (self.s.numel(),)

    def unfoldings(self, triangle_of: Triangle = triangle) -> list[Tensor]:
        left = triangle_of(self.U) * float64(self.s)
        # V keeps the other modes apart, which its triangle would not
        _, *others = unfold_all(fold(left @ float64(self.V).T, self.shape))
        return [left @ triangle_of(self.V).T, *others]

    def named_factors(self) -> dict[str, Tensor]:
        return {"factor0": self.U.detach(), "factor1": self.V.detach()}

    def forward(self) -> Tensor:
        return fold(product(self.U * self.s, self.V.T, last=True, dtype=self.factor_dtype), self.shape)
