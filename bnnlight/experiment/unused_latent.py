"""Warns of a latent that a config gives, and that no layer has: results would be told of weights that never were."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace
from torch import nn

from bnnlight.nn.inspect import named_binary_layers


def unused_latent(config: Namespace, model: nn.Module) -> str | None:
    """One line, where ``model.backbone.latent`` names a class that no binary layer has; None where all is well.

    Args:
        config: of the run.
        model: the task, made from it.
    """
    backbone: Any = config.get("model.init_args.backbone")
    latent = backbone.get("init_args.latent") if isinstance(backbone, Namespace) else None
    path = latent.get("class_path") if isinstance(latent, Namespace) else None
    layers = [layer for _, layer in named_binary_layers(model)]
    if not path or not layers:
        return None
    name = path.rpartition(".")[2]
    if any(name in (kind.__name__ for kind in type(layer.latent).__mro__) for layer in layers):
        return None
    network, found = backbone.class_path.rpartition(".")[2], type(layers[0].latent).__name__
    return (
        f"model.backbone.latent is {name}, but no layer of {network} has it ({found} instead): "
        "end its __init__ with bnnlight.nn.factorize(self, latent)"
    )
