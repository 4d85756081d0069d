"""`Holistic`: latent weights from one Tucker decomposition that all layers of one shape share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bnnlight.nn.latents.latent import Latent, check_factor_lr, mode_names
from bnnlight.nn.latents.rank import Rank, resolve_rank, resolve_ranks
from bnnlight.nn.latents.tucker import tucker_product, tucker_start, tucker_unfoldings
from bnnlight.nn.latents.unfolding import Triangle, float64, triangle


class SharedTucker(nn.Module):
    """The Tucker decomposition of a stack of L weights of one shape, its first mode counting the layers.

    Args:
        weights: L tensors of one shape ``(O, I, *kernel)``.
        rank: as for :class:`Holistic`.
        start: as for :class:`Holistic`.

    Parameters:
        core ``(rL, r0·r1·…)``, flat because ``Module.to(memory_format=torch.channels_last)`` refuses
        parameters of five dimensions; factors ``[(L, rL), (O, r0), (I, r1), …]``.
    """

    def __init__(self, weights: Sequence[Tensor], rank: Rank, start: Literal["hosvd", "identity"]) -> None:
        super().__init__()
        stack = torch.stack([w.detach() for w in weights])
        modes = ("layers", *mode_names(stack.ndim - 1))
        if isinstance(rank, Sequence) and len(rank) == stack.ndim:
            ranks = resolve_ranks(rank, stack.shape, modes, num_channel_modes=2)
        else:
            ranks = (len(weights), *resolve_ranks(rank, stack.shape[1:], modes[1:], num_channel_modes=2))
        core, factors = tucker_start(stack, ranks, start, modes)
        self.core = nn.Parameter(core.flatten(1).clone().contiguous())
        self.factors = nn.ParameterList(f.clone().contiguous() for f in factors)

    def forward(self, layer: int, dtype: torch.dtype | None = None) -> Tensor:
        """The weight ``(O, I, *kernel)`` of one of the L layers; ``dtype`` as :func:`tucker_product` takes it."""
        first, *rest = self.factors
        # mixing the cores costs rL products an entry, so each layer does it alone instead of all at once
        core = (first[layer] @ self.core).view([factor.shape[1] for factor in rest])
        return tucker_product(core, rest, dtype)

    def unfoldings(self, layer: int, triangle_of: Triangle) -> list[Tensor]:
        """Of the weight of one layer, as :meth:`Latent.unfoldings` returns them."""
        first, *rest = self.factors
        core = (float64(first[layer]) @ float64(self.core)).view([factor.shape[1] for factor in rest])
        return tucker_unfoldings(core, rest, triangle_of)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Nominal ranks ``(rL, r0, r1, …)``."""
        return tuple(factor.shape[1] for factor in self.factors)


class Holistic(Latent):
    """W̃_ℓ = slice ℓ of G ×_L UL ×₀ U0 ×₁ U1 ×₂ U2 ×₃ U3: all layers of one shape share one core and factors.

    Section 3.3 of Bulat, Kossaifi, Tzimiropoulos, Pantic 2019, https://arxiv.org/abs/1904.07852. A latent
    made on its own is a stack of one layer, which is a Tucker decomposition; :func:`bnnlight.nn.factorize`
    joins those of one shape. A shape that occurs once in a network stays alone.

    Args:
        weight: ``(O, I, *kernel)``, the initial value.
        rank: as for :class:`bnnlight.nn.Tucker`, or one entry for the layers' mode followed by one per mode.
            The layers' mode stays full unless named.
        start: ``hosvd`` or ``identity``, as for :class:`bnnlight.nn.Tucker`.
        factor_lr: relative change per step of each factor, compared with the core's.
        products: ``bfloat16`` rebuilds the weight, in the backward pass too, with factors of that type; see
            :class:`bnnlight.nn.Latent`.

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
        self.rank, self.start, self.factor_lr = rank, start, factor_lr
        # a rank for the layers' mode means something only once the layers are joined
        alone = rank
        if isinstance(rank, Sequence) and len(rank) == weight.ndim + 1:
            layers, *alone = rank
            resolve_rank(layers, sys.maxsize, "layers")
        self._join(SharedTucker([weight], alone, start), 0, weight)

    def _join(self, shared: SharedTucker, layer: int, weight: Tensor) -> None:
        self.shared, self.layer = shared, layer
        self.lr_scales = {}
        factors = [f"shared.factors.{m}" for m in range(len(shared.factors))]
        self._scale_rates(weight, factors, self.factor_lr, ["shared.core"])

    @staticmethod
    def couple(latents: Sequence[Latent], weights: Sequence[Tensor]) -> None:
        """Gives all latents of one shape one shared tensor, decomposed from the stack of their weights."""
        if len(latents) < 2:
            return
        first = latents[0]
        shared = SharedTucker(weights, first.rank, first.start)
        stack = torch.stack([w.detach() for w in weights])
        for layer, latent in enumerate(latents):
            latent._join(shared, layer, stack)

    @property
    def num_layers(self) -> int:
        """How many layers share the tensor."""
        return self.shared.factors[0].shape[0]

    @property
    def ranks(self) -> tuple[int, ...]:
        return self.shared.ranks

    def unfoldings(self, triangle_of: Triangle = triangle) -> list[Tensor]:
        return self.shared.unfoldings(self.layer, triangle_of)

    def named_factors(self) -> dict[str, Tensor]:
        layers, *modes = (factor.detach() for factor in self.shared.factors)
        return {"factor_layers": layers} | {f"factor{mode}": factor for mode, factor in enumerate(modes)}

    def forward(self) -> Tensor:
        return self.shared(self.layer, self.factor_dtype)
