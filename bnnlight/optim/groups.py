"""`parameter_groups`: what each parameter of a network is, and so its learning rate and weight decay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.latents.latent import Dense


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        name: ``weight`` (real weights), ``norm`` (parameters with one dimension: batch norm, biases, PReLU), ``alpha``
            (scales), ``latent`` (weights W̃ themselves, of :class:`bnnlight.nn.Dense`) or ``latent/LAYER/FACTOR``: a
            layer's path and the parameter's name in its latent. What layers share is listed under the first of them.
        parameters: of this group.
        lr_scale: factor on the optimizer's learning rate.
        decay: whether the optimizer's weight decay applies: to real weights alone.
        parameter_names: paths of the parameters in the model.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr_scale: float
    decay: bool
    parameter_names: tuple[str, ...] = ()


_ROLES = "weight", "norm", "alpha"


def check_alpha_lr(alpha_lr: float) -> None:
    """Raises ValueError where α's relative learning rate is negative or not finite."""
    if not (math.isfinite(alpha_lr) and alpha_lr >= 0):
        raise ValueError(f"alpha_lr is {alpha_lr}: give a finite number of at least 0")


def parameter_groups(model: nn.Module, alpha_lr: float = 1.0, frozen: bool = False) -> list[ParameterGroup]:
    """Splits a model's parameters by what they are; every one is in exactly one group.

    Which groups there are, what is in them and their order follow from the network alone, and not from its weights:
    real weights, norms, α, then the latents, layer by layer. Latents, α, batch norm, biases and PReLU get no weight
    decay.

    Args:
        model: any module.
        alpha_lr: learning rate of α relative to the optimizer's.
        frozen: whether parameters that need no gradient are listed too.

    Raises:
        ValueError: ``alpha_lr`` is negative or not finite, or so is a rate that a latent asks for.
    """
    check_alpha_lr(alpha_lr)
    kinds: dict[int, tuple[str, float]] = {}
    for path, layer in named_binary_layers(model):
        for name, parameter in layer.latent.named_parameters():
            plain = type(layer.latent) is Dense  # a subclass may compute another weight from it
            group = "latent" if plain else "/".join(filter(None, ("latent", path, name)))
            kinds.setdefault(id(parameter), (group, _rate(layer.latent.lr_scales.get(name, 1.0), path, name)))
        for parameter in layer.scale.parameters():
            kinds[id(parameter)] = ("alpha", alpha_lr)
    groups: dict[tuple[str, float], dict[str, nn.Parameter]] = {(role, 1.0): {} for role in _ROLES[:2]}
    groups[_ROLES[2], alpha_lr] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or frozen:
            rest = ("norm" if parameter.ndim < 2 else "weight", 1.0)
            groups.setdefault(kinds.get(id(parameter), rest), {})[name] = parameter
    return [
        ParameterGroup(name, tuple(named.values()), scale, name == "weight", tuple(named))
        for (name, scale), named in groups.items()
        if named
    ]


def _rate(scale: float, path: str, name: str) -> float:
    if not (math.isfinite(scale) and scale >= 0):
        where = f"layer {path or '(the model itself)'}: lr_scales[{name!r}]"
        raise ValueError(f"{where} is {scale}: give a finite number of at least 0")
    # a number of two digits: so an optimizer can step groups of one rate together, of which there are few
    return float(f"{scale:.2g}")
