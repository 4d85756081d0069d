"""What the rest of the package may know of a network with binary layers.

Callbacks, the summary, the optimizer's parameter groups and deployment look at a network through these
functions alone, so that they work on any model that has binary layers in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from bnnlight.nn.latent import Dense
from bnnlight.nn.layers import BinaryLayer
from bnnlight.nn.unfolding import triangle


def named_binary_layers(model: nn.Module) -> Iterator[tuple[str, BinaryLayer]]:
    """Yields (path, layer) for every binary layer, each once, in the order of registration.

    Args:
        model: any module; a binary layer itself has the path "".
    """
    for name, module in model.named_modules():
        if isinstance(module, BinaryLayer):
            yield name, module


def named_unfoldings(model: nn.Module) -> Iterator[tuple[str, list[Tensor], dict[str, Tensor]]]:
    """Yields (path, unfoldings, factors) for every binary layer, in the order of registration.

    Unfoldings and factors are those of :class:`bnnlight.nn.Latent`; factors that several layers share are
    decomposed once.

    Args:
        model: any module.
    """
    # with the factor itself, since only while it lives its id is its own
    known: dict[int, tuple[Tensor, Tensor]] = {}

    def remembered(factor: Tensor) -> Tensor:
        if id(factor) not in known:
            known[id(factor)] = factor, triangle(factor)
        return known[id(factor)][1]

    for name, layer in named_binary_layers(model):
        yield name, layer.latent.unfoldings(remembered), layer.latent.named_factors()


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        name: ``latent`` (what W̃ is rebuilt from), ``alpha`` (scales), ``norm`` (parameters with one
            dimension: batch norm, biases, PReLU) or ``weight`` (real weights); factors are grouped by their
            relative learning rate, which stands behind an @, so that ``latent`` alone is weights W̃ themselves.
        parameters: of this group.
        lr_scale: factor on the optimizer's learning rate.
        decay: whether the optimizer's weight decay applies: to real weights alone.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr_scale: float
    decay: bool


def parameter_groups(model: nn.Module, alpha_lr: float = 1.0) -> list[ParameterGroup]:
    """Splits a model's trainable parameters by what they are; every one is in exactly one group.

    Latent factors, α, batch norm, biases and PReLU get no weight decay.

    Args:
        model: any module.
        alpha_lr: learning rate of α relative to the optimizer's.
    """
    kinds: dict[int, tuple[str, float, bool]] = {}
    for _, layer in named_binary_layers(model):
        for name, parameter in layer.latent.named_parameters():
            scale = float(f"{layer.latent.lr_scales.get(name, 1.0):.2g}")  # few groups, not one a layer
            dense = isinstance(layer.latent, Dense)
            kinds[id(parameter)] = ("latent" if dense else f"latent@{scale:g}", scale, False)
        for parameter in layer.scale.parameters():
            kinds[id(parameter)] = ("alpha", alpha_lr, False)
    groups: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rest = ("norm", 1.0, False) if parameter.ndim < 2 else ("weight", 1.0, True)
            groups.setdefault(kinds.get(id(parameter), rest), []).append(parameter)
    return [ParameterGroup(name, tuple(p), scale, decay) for (name, scale, decay), p in groups.items()]
