"""`factorize`: decomposes the latent weights of a network's binary layers; `restart_alpha`: resets their α."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor, nn

from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.latents.latent import Dense, Latent, LatentFactory
from bnnlight.nn.layers import BinaryLayer
from bnnlight.nn.scale import analytic_alpha

NamedLayers = Sequence[tuple[str, BinaryLayer]]
"""Binary layers with their paths."""


def factorize(model: nn.Module, latent: LatentFactory) -> nn.Module:
    """Replaces the latent of every binary layer by a decomposition of its present weight W̃, in place.

    Latents that share something across layers (:class:`bnnlight.nn.Holistic`) are joined here, one group for
    each shape, frozen layers apart from those that train. Layers that share their weight share the new latent; the
    latent of a frozen layer is frozen; a half-precision weight is decomposed in single precision and stored as it was.
    α stays as it is; :func:`restart_alpha` resets it.

    Args:
        model: any module with binary layers.
        latent: maps a dense weight ``(O, I, *kernel)`` to a latent.

    Returns:
        The same model.

    Raises:
        ValueError: the latent cannot be made for a layer, or only a part of a latent is frozen; the message begins
            with the layer's path.
    """
    decompose(list(named_binary_layers(model)), latent)
    return model


def decompose(layers: NamedLayers, latent: LatentFactory) -> None:
    """What :func:`factorize` does, for some layers of a network."""
    by_kind: dict[tuple[object, ...], list[tuple[str, NamedLayers, Latent, Tensor]]] = {}
    for group in sharing(layers):
        name, layer = group[0]
        dtype = layer.latent().dtype
        weight = _single(layer)
        try:
            if weight.is_meta:
                raise ValueError("it is on the meta device, without numbers: give the network its weights first")
            new = latent(weight)
        except ValueError as error:
            raise ValueError(f"layer {name or '(the model itself)'}: {error}") from error
        alike = type(new), dtype, trains(name, layer), weight.shape, weight.device
        by_kind.setdefault(alike, []).append((name, group, new, weight))
    for (kind, *_), members in by_kind.items():
        try:
            kind.couple([new for _, _, new, _ in members], [weight for *_, weight in members])
        except ValueError as error:
            raise ValueError(f"layers {', '.join(name for name, *_ in members)}: {error}") from error
    # only now, so that an error leaves the model as it was
    for (_, dtype, trained, *_), members in by_kind.items():
        for _, group, new, _ in members:
            if not trained:
                new.requires_grad_(False)
            new.to(dtype).train(group[0][1].training)
            for _, sharer in group:
                sharer.latent = new


@torch.no_grad()
def _single(layer: BinaryLayer) -> Tensor:
    """W̃, in single precision where it has less: decompositions know no half precision."""
    weight = layer.latent().detach().clone()
    return weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight


def sharing(layers: Iterable[tuple[str, BinaryLayer]]) -> list[NamedLayers]:
    """Layers in groups that have one latent: the same module, or dense ones with the same weight."""
    groups: dict[Hashable, list[tuple[str, BinaryLayer]]] = {}
    for name, layer in layers:
        dense = isinstance(layer.latent, Dense)
        groups.setdefault(place(layer.latent.weight) if dense else id(layer.latent), []).append((name, layer))
    return list(groups.values())


def place(tensor: Tensor) -> Hashable:
    """Where a tensor's numbers lie: the same for tensors that share them from the first one on."""
    return (tensor.device, tensor.data_ptr()) if tensor.numel() and not tensor.is_meta else id(tensor)


def trains(name: str, layer: BinaryLayer) -> bool:
    """Whether a layer's latent is trained.

    Raises:
        ValueError: only a part of it is.
    """
    flags = {parameter.requires_grad for parameter in layer.latent.parameters()}
    if len(flags) > 1:
        text = "freeze the latent whole before it is decomposed, or its factors afterwards"
        raise ValueError(f"layer {name or '(the model itself)'}: only a part of its latent is frozen: {text}")
    return flags != {False}


@torch.no_grad()
def restart_alpha(model: nn.Module) -> nn.Module:
    """Sets every learned α to its starting value, the mean of abs(W̃) of each filter, in place.

    Returns:
        The same model.
    """
    for _, layer in named_binary_layers(model):
        alpha = getattr(layer.scale, "alpha", None)
        if isinstance(alpha, nn.Parameter):
            alpha.copy_(analytic_alpha(layer.latent()))
            for vector in getattr(layer.scale, "positions", ()):
                vector.fill_(1)
    return model
