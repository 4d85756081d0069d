"""`BiRotated`: weights turned toward their signs, by two small rotations that all filters of a layer share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bnnlight.nn.parts.weights import WeightPart


class BiRotated(WeightPart):
    """W̃'_o = W̃_o + |sin θ_o| · (R₁ᵀ W̃_o R₂ − W̃_o), with each filter of n weights seen as a matrix of a × b.

    a · b = n, with a the largest divisor of n that is at most √n. R₁ and R₂ are orthogonal, and not parameters:
    callback :class:`bnnlight.callbacks.Turn` has them turn W̃ toward its signs once an epoch (:meth:`renew`). Without it
    they stay what they are at the start, identities, and the part does nothing. θ, one angle per filter, is learned.
    Usually after :class:`bnnlight.nn.Standardized`::

        weight_parts:
          - {class_path: bnnlight.nn.Standardized, init_args: {deviation: 1.0}}
          - {class_path: bnnlight.nn.BiRotated, init_args: {angle: 0.7853981633974483}}

    Args:
        weight: ``(O, I, *kernel)``.
        angle: start of θ. At π/2 weights are turned all the way, and θ has no gradient; it begins halfway, at π/4.

    Parameters and buffers:
        angle ``(O,)``, left ``(a, a)``, right ``(b, b)``.

    Raises:
        ValueError: the angle is not a finite number.

    Source: RBNN, Lin et al., NeurIPS 2020, https://arxiv.org/abs/2009.13055.
    """

    def __init__(self, weight: Tensor, angle: float = math.pi / 4) -> None:
        super().__init__(weight)
        if not math.isfinite(angle):
            raise ValueError(f"angle of BiRotated is {angle}: give a finite number")
        size = weight[0].numel()
        side = next(a for a in range(math.isqrt(size), 0, -1) if size % a == 0)
        self.angle = nn.Parameter(weight.new_full((len(weight),), angle))
        for name, n in (("left", side), ("right", size // side)):
            self.register_buffer(name, torch.eye(n, dtype=weight.dtype, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        matrices = self._matrices(weight)
        share = self.angle.sin().abs().view(-1, 1, 1)
        return torch.lerp(matrices, self._turned(matrices), share).reshape(weight.shape)

    @torch.no_grad()
    def renew(self, weight: Tensor, sweeps: int = 3) -> None:
        """Turns further: sweeps of B = sign(R₁ᵀ W̃ R₂), then the R₁, then the R₂ with the largest Σ_o ⟨B_o, R₁ᵀ W̃_o R₂⟩.

        The best R for a fixed rest is U Vᵀ of the singular value decomposition U S Vᵀ of what it is multiplied with
        (the orthogonal Procrustes problem), so that no step makes that sum smaller.

        Args:
            weight: W̃, what the part is given.
            sweeps: how often.
        """
        w = self._matrices(weight).float()
        left, right = self.left.float(), self.right.float()
        for _ in range(sweeps):
            signs = torch.where(left.T @ w @ right >= 0, 1.0, -1.0)
            left = _nearest_rotation(torch.einsum("oij,ojk->ik", w @ right, signs.mT))
            right = _nearest_rotation(torch.einsum("oij,ojk->ik", w.mT @ left, signs))
        self.left.copy_(left)
        self.right.copy_(right)

    def _matrices(self, weight: Tensor) -> Tensor:
        return weight.reshape(len(weight), len(self.left), len(self.right))

    def _turned(self, matrices: Tensor) -> Tensor:
        return self.left.T @ matrices @ self.right

    def extra_repr(self) -> str:
        return f"{len(self.left)}×{len(self.right)}"


def _nearest_rotation(matrix: Tensor) -> Tensor:
    """The orthogonal R with the largest ⟨R, matrix⟩."""
    u, _, vh = torch.linalg.svd(matrix)
    return u @ vh
