"""`Muon`: orthogonalized momentum, a step that is equally long in every direction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch

from bnnlight.nn.compute.product import factor_dtype
from bnnlight.optim.adamw_inside import AdamWInside, Layers
from bnnlight.optim.polar import QUINTIC, orthogonalized
from bnnlight.optim.stack import Stack


class Muon(AdamWInside):
    """Orthogonalized momentum for latents; AdamW for vectors and, unless asked, for real weights.

    For a gradient G of a weight (O, I, kh, kw), as the matrix (O, I·kh·kw):

        M ← μ M + (1 − μ) G
        W ← W − lr · rms · √max(O, I·kh·kw) · polar((1 − μ) G + μ M)

    where polar(U S Vᵀ) = U Vᵀ, nearly; see :func:`bnnlight.optim.polar.orthogonalized`. The step's entries have a root
    mean square of ``rms`` times the learning rate, so that learning rates are those of AdamW. A factor is a matrix
    already, and one with three dimensions (r, n, s) is the matrix (r·n, s).

    For n output and n input channels and 3×3 px, it costs 35 n³ multiply-adds per step, or 50 n³ in bfloat16, and
    memory for one number per weight.

    Args:
        params: groups ``{"params": …, "name": …}``, as :func:`bnnlight.optim.parameter_groups` names them.
        lr: learning rate.
        momentum: μ.
        rms: root mean square of a step's entries at a learning rate of 1; AdamW's is some 0.2 to 0.4.
        nesterov: whether the gradient counts once more, as above; else polar(M).
        steps: of the iteration that orthogonalizes.
        coefficients: of that iteration.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: decoupled. A task sets it to 0 for all but real weights.
        layers: whose weights are stepped this way: of ``binary`` layers, of ``real`` ones, or of ``all``; the rest by
            AdamW.
        products: ``bfloat16`` iterates with factors of that type, which is quicker where the processor or GPU has such
            instructions.
        share: whether processes that train together step a part of the matrices each, instead of all of them.

    Raises:
        ValueError: a number is out of range.

    Source: Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; the root mean square is from Liu et al.,
    2025, https://arxiv.org/abs/2502.16982.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-3,
        momentum: float = 0.95,
        rms: float = 0.2,
        nesterov: bool = True,
        steps: int = 5,
        coefficients: Sequence[float] = QUINTIC,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        layers: Layers = "binary",
        products: Literal["float32", "bfloat16"] = "float32",
        share: bool = False,
    ) -> None:
        factor_dtype(products, "Muon")  # raises where there is no such type
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum of Muon is {momentum}: give a number of at least 0 and below 1")
        if not (math.isfinite(rms) and rms > 0):
            raise ValueError(f"rms of Muon is {rms}: give a number above 0")
        if steps < 1:
            raise ValueError(f"steps of Muon is {steps}: give at least 1")
        if len(coefficients) != 3 or not all(map(math.isfinite, coefficients)):
            raise ValueError(f"coefficients of Muon are {list(coefficients)}: give three numbers")
        defaults = {"lr": lr, "momentum": momentum, "rms": rms, "nesterov": nesterov, "steps": steps}
        defaults |= {"coefficients": tuple(coefficients), "betas": tuple(betas), "eps": eps}
        super().__init__(params, defaults | {"weight_decay": weight_decay, "products": products}, layers, share)

    def _step_matrices(self, stack: Stack, group: dict[str, Any]) -> None:
        states = [self.state[p] for p in stack.params]
        gradient = torch.stack(stack.gradients()).contiguous()
        average = stack.entry(states, "momentum_buffer", lambda: torch.zeros_like(gradient), is_shaped=True)
        for state in states:
            state["step"] = state.get("step", 0) + 1
        average.lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp_(average, group["momentum"]) if group["nesterov"] else average
        matrices = direction.flatten(1, 2) if direction.ndim == 4 else direction.flatten(2)
        dtype = factor_dtype(group["products"], "Muon")
        update = orthogonalized(matrices, group["steps"], group["coefficients"], dtype)
        rate = float(group["lr"])
        size = rate * group["rms"] * math.sqrt(max(matrices.shape[-2:]))
        stack.shrink(rate * group["weight_decay"])
        for weight, change in zip(stack.weights(), update.reshape(direction.shape), strict=True):
            weight.add_(change, alpha=-size)
