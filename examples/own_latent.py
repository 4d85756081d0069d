"""A latent weight of your own: each filter is decomposed by itself.

Copy this file beside your config and name the class there: ``class_path: own_latent.FilterSVD``.
"""

import torch
from torch import Tensor, nn

from bnnlight.nn import Latent


class FilterSVD(Latent):
    """W̃[o, i, y, x] = Σ_r C[o, i, r] · K[o, r, y, x]: each filter is a sum of a few kernels shared by its channels.

    Args:
        weight: ``(O, I, *kernel)``, the initial value.
        num_kernels: R, from 1 to the smaller of I and the kernel's number of entries. That many lose nothing.
        kernel_lr: relative change per step of K, compared with C's.

    Parameters:
        C ``(O, I, R)``, K ``(O, R, kh·kw)``.

    Raises:
        ValueError: ``num_kernels`` out of range.
    """

    def __init__(self, weight: Tensor, num_kernels: int = 1, kernel_lr: float = 1.0) -> None:
        super().__init__(weight.shape)
        filters = weight.detach().flatten(2) if weight.ndim > 2 else weight.detach().unsqueeze(2)
        most = min(filters.shape[1:])
        if not 1 <= num_kernels <= most:
            raise ValueError(f"num_kernels is {num_kernels}: this layer takes 1 to {most}")
        # of each filter (I, kh·kw) by itself; both halves get the root of the singular values, so that they are alike
        left, size, right = torch.linalg.svd(filters, full_matrices=False)
        root = size[:, :num_kernels].sqrt()
        self.C = nn.Parameter((left[..., :num_kernels] * root.unsqueeze(1)).contiguous())
        self.K = nn.Parameter((root.unsqueeze(2) * right[:, :num_kernels]).contiguous())
        # learning rates that follow the size of the entries; K's is multiplied by kernel_lr
        self._scale_rates(weight, ["K"], kernel_lr, ["C"])

    @property
    def ranks(self) -> tuple[int, ...]:
        return (self.C.shape[2],)

    def forward(self) -> Tensor:
        return (self.C @ self.K).reshape(self.shape)

    def named_factors(self) -> dict[str, Tensor]:
        """What `FactorRanks` looks at: a matrix for each factor."""
        return {"channels": self.C.detach().flatten(0, 1), "kernels": self.K.detach().flatten(0, 1)}
