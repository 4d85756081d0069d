"""`Bop`: flips binary weights, without real weights behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bnnlight.nn.inspect import named_binary_layers
from bnnlight.optim.adamw_inside import AdamWInside
from bnnlight.optim.stack import Stack


class Bop(AdamWInside):
    """Flips the binary weights of groups whose name begins with ``latent``, and runs AdamW on all other groups.

    With g the gradient of a weight w, at every step

        m ← (1 − γ) m + γ g,    w ← −w where abs(m) > τ and sign(m) = sign(w).

    The signs of a :class:`bnnlight.nn.Dense` latent are the weights; its magnitudes stay as they are and mean nothing.
    Hence the layers' ``weight_gradient`` must be ``identity``, which does not look at them, and their scale
    ``channel``, ``spatial`` or ``none``: ``analytic`` would keep α at mean abs(W̃) of the start.

    γ is the rate ``lr`` of the latent group. In a task every schedule moves it in proportion to the rates of all
    other groups, the default schedule too. The paper's γ falls likewise: in its code for CIFAR-10 from 1e-4 to a tenth
    of that every hundred epochs, with τ = 1e-8 and Adam at 0.01 for the rest.

    A group that is added later is AdamW's, unless its name begins with ``latent``.

    Args:
        params: groups ``{"params": …, "name": …}``, as :func:`bnnlight.optim.parameter_groups` names them.
        lr: learning rate of AdamW.
        gamma: γ, the adaptivity rate, in (0, 1].
        threshold: τ, at least 0.
        betas, eps, weight_decay: of AdamW.

    Raises:
        ValueError: a number out of range, no group of latents, or latents that are factorized.

    Source: Helwegen et al., NeurIPS 2019, https://arxiv.org/abs/1906.02107.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        gamma: float = 1e-4,
        threshold: float = 1e-8,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma of Bop is {gamma}: give a number above 0, at most 1")
        if not threshold >= 0:
            raise ValueError(f"threshold of Bop is {threshold}: give a number of at least 0")
        groups = [dict(group) if isinstance(group, dict) else {"params": [group]} for group in params]
        latents = [group for group in groups if _is_latent(group)]
        if not latents:
            raise ValueError("Bop finds no parameter group named 'latent': the network needs binary layers")
        for group in latents:
            if group["name"] != "latent":
                raise ValueError(
                    f"Bop flips the weights themselves, and the parameters in group {group['name']!r} are factors: "
                    "choose latent bnnlight.nn.Dense, or another optimizer"
                )
            group |= {"lr": gamma, "threshold": threshold}
        super().__init__(groups, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}, "binary")

    def check_network(self, model: nn.Module) -> None:
        """Raises ValueError where a layer's binary weights are not the signs of its latent itself."""
        for name, layer in named_binary_layers(model):
            if layer.weight_parts is not None:
                part = type(layer.weight_parts[0]).__name__
                raise ValueError(
                    f"Bop flips the weights themselves, and {part} in weight_parts of layer "
                    f"{name or '(the model itself)'} changes them before their sign: leave one of the two out"
                )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group. Latents by their name are flipped, with the γ and τ of those before; all others are AdamW's."""
        if _is_latent(param_group):
            for group in filter(_is_latent, self.param_groups):
                param_group = {"lr": group["lr"], "threshold": group["threshold"]} | param_group
                break
        super().add_param_group(param_group)

    def _is_matrix(self, p: Tensor, group: dict[str, Any]) -> bool:
        return _is_latent(group)

    def _step_matrices(self, stack: Stack, group: dict[str, Any]) -> None:
        for weight in stack.params:
            self._flip(weight, group["lr"], group["threshold"])

    def _flip(self, weight: Tensor, gamma: float, threshold: float) -> None:
        state = self.state[weight]
        if not state:
            state["exp_avg"] = torch.zeros_like(weight)
            # zero counts as positive, and so does its negative
            weight.masked_fill_(weight == 0, torch.finfo(weight.dtype).tiny)
        average = state["exp_avg"].lerp_(weight.grad, gamma)
        flipped = (average.abs() > threshold) & ((average > 0) == (weight > 0))
        weight.copy_(torch.where(flipped, -weight, weight))


def _is_latent(group: dict[str, Any]) -> bool:
    return group.get("name", "").startswith("latent")
