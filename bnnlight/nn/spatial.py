"""`make_spatial`: scales α with one factor for each position, sized for a network's pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.layers import NO_PAIR
from bnnlight.nn.running import run_once
from bnnlight.nn.scale import make_scale

NO_INPUT_SHAPE = "scale 'spatial' needs the input's shape (C, H, W): its factors have one entry per position"


def output_sizes(
    model: nn.Module, names: Sequence[str], input_shape: Sequence[int] | None
) -> dict[str, tuple[int, ...]]:
    """Height and width in px of the outputs of some modules, for one image of ``input_shape`` ``(C, H, W)``.

    Raises:
        ValueError: no input shape was given, or a module is not reached, or gives outputs of several sizes.
    """
    if input_shape is None:
        raise ValueError(NO_INPUT_SHAPE)
    sizes: dict[str, set[tuple[int, ...]]] = {name: set() for name in names}
    run_once(model, input_shape, names, lambda name, y: sizes[name].add(tuple(y.shape[2:])))
    for name, layer_sizes in sizes.items():
        if not layer_sizes:
            raise ValueError(f"layer {name} does not run on an input of shape {tuple(input_shape)}")
        if len(layer_sizes) > 1:
            raise ValueError(f"layer {name} gives outputs of sizes {sorted(layer_sizes)}: scale 'spatial' has only one")
    return {name: layer_sizes.pop() for name, layer_sizes in sizes.items()}


def make_spatial(model: nn.Module, input_shape: Sequence[int] | None) -> nn.Module:
    """Gives every binary layer the scale ``spatial``, sized for images of ``input_shape`` ``(C, H, W)``, in place.

    Scales of layers that are frozen stay frozen.

    Returns:
        The same model.

    Raises:
        ValueError: as :func:`output_sizes` does.
    """
    layers = dict(named_binary_layers(model))
    for name, layer in layers.items():
        if layer.input_parts is not None and layer.input_parts.pair() is not None:
            raise ValueError(f"layer {name or '(the model itself)'}: {NO_PAIR}")
    sizes = output_sizes(model, list(layers), input_shape)
    for name, layer in layers.items():
        with torch.no_grad():
            scale = make_scale("spatial", layer.latent(), sizes[name])
        numbers = [*layer.scale.parameters()] or [*layer.latent.parameters()]
        if numbers and not any(parameter.requires_grad for parameter in numbers):
            scale.requires_grad_(False)
        layer.scale = scale.train(layer.training)
    return model
