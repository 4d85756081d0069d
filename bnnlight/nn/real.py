"""`real_valued`: the real-valued twin of a binary network, by which the cost of binarization is measured."""

from __future__ import annotations

import torch
from torch import nn

from bnnlight.nn.factorize import sharing, trains
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.layers import BinaryConv2d, BinaryLinear
from bnnlight.nn.torch_internals import become


@torch.no_grad()
def real_valued(model: nn.Module) -> nn.Module:
    """Replaces every binary layer by an ordinary one, in place: without sign and α, with the weight W̃.

    All else stays: batch norms, activations, shortcuts, hooks, what is frozen, weights that layers share. Padding is
    with zeros, as ±1 has no meaning for real activations. In a config the function stands where a class would::

        backbone:
          class_path: bnnlight.nn.real_valued
          init_args:
            model: {class_path: bnnlight.backbones.ResNet18}

    Args:
        model: any module with binary layers.

    Returns:
        The same model.

    Raises:
        ValueError: there is no binary layer in it, or the model is itself a binary layer.
    """
    layers = list(named_binary_layers(model))
    if not layers or layers[0][0] == "":
        raise ValueError(f"{type(model).__name__} has no binary layer inside to be made real")
    for group in sharing(layers):
        weight = nn.Parameter(group[0][1].latent().detach().clone(), requires_grad=trains(*group[0]))
        for _, layer in group:
            become(layer, _real(layer, weight))
    return model


def _real(layer: BinaryConv2d | BinaryLinear, weight: nn.Parameter) -> nn.Conv2d | nn.Linear:
    options = {"bias": False, "device": "meta"}  # its numbers are the binary layer's
    if isinstance(layer, BinaryLinear):
        real = nn.Linear(layer.in_features, layer.out_features, **options)
    else:
        shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
        real = nn.Conv2d(layer.in_channels, layer.out_channels, *shape, **options)
    real.weight, real.bias = weight, layer.bias
    return real
