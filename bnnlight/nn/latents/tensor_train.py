"""`TensorTrain`: latent weights from a tensor train."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import tensorly
import torch
from tensorly.decomposition import tensor_train
from torch import Tensor, nn

from bnnlight.nn.compute.product import product
from bnnlight.nn.latents.latent import Latent, check_factor_lr, mode_names
from bnnlight.nn.latents.rank import Rank, resolve_ranks
from bnnlight.nn.latents.unfolding import Triangle, float64, triangle, unfold


class TensorTrain(Latent):
    """W̃[o, i, …] = G0[o] · G1[i] · …, a chain of three-way cores (matrix product state).

    Args:
        weight: ``(O, I, *kernel)``, the initial value, decomposed by tensorly's TT-SVD.
        rank: of the bond between output and input channels: a number of components or a fraction of the
            bond's full size; or one entry per bond. Bonds towards the kernel stay full unless named.
        factor_lr: relative change per step of each core, compared with a dense weight's.
        products: ``bfloat16`` rebuilds the weight, in the backward pass too, with factors of that type; see
            :class:`bnnlight.nn.Latent`.

    Parameters:
        cores ``[(1, O, r0), (r0, I, r1), (r1, kh, r2), (r2, kw, 1)]``.

    Raises:
        ValueError: a rank out of range (the message names the bond), or unknown products.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: Rank = 1.0,
        factor_lr: float = 0.5,
        products: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(weight.shape, products)
        check_factor_lr(factor_lr)
        shape, modes = weight.shape, mode_names(weight.ndim)
        sizes = [min(math.prod(shape[:m]), math.prod(shape[m:])) for m in range(1, weight.ndim)]
        bonds = [f"the bond {a} – {b}" for a, b in itertools.pairwise(modes)]
        ranks = resolve_ranks(rank, sizes, bonds, num_channel_modes=1)
        with tensorly.backend_context("pytorch", local_threadsafe=True):
            cores = list(tensor_train(weight.detach(), [1, *ranks, 1]))
        self.cores = nn.ParameterList(c.clone().contiguous() for c in cores)
        self._scale_rates(weight, [f"cores.{m}" for m in range(weight.ndim)], factor_lr, [])

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(core.shape[2] for core in self.cores[:-1])

    def unfoldings(self, triangle_of: Triangle = triangle) -> list[Tensor]:
        cores = [float64(core) for core in self.cores]
        # each mode's core between the triangles of all that lies left and right of it
        lefts, rights = [cores[0].new_ones(1, 1)], [cores[0].new_ones(1, 1)]
        for core in cores[:-1]:
            lefts.append(triangle(torch.tensordot(lefts[-1], core, 1).flatten(0, 1)))
        for core in reversed(cores[1:]):
            rights.append(triangle(torch.tensordot(core, rights[-1].T, 1).flatten(1).T))
        between = zip(lefts, cores, reversed(rights), strict=True)
        return [unfold(torch.tensordot(torch.tensordot(a, core, 1), b.T, 1), 1) for a, core, b in between]

    def named_factors(self) -> dict[str, Tensor]:
        return {f"factor{mode}": unfold(core.detach(), 1) for mode, core in enumerate(self.cores)}

    def forward(self) -> Tensor:
        # from the right: the kernel's cores are small, so the large product comes once, at the end
        first, *inner, last = self.cores
        weight = last.flatten(1)
        for core in reversed(inner):
            weight = product(core.flatten(0, 1), weight, dtype=self.factor_dtype).reshape(core.shape[0], -1)
        weight = product(first.flatten(0, 1), weight, last=True, dtype=self.factor_dtype)
        return weight.reshape(self.shape)
