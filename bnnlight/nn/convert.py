"""Makes networks binary and their latents factorized, starting from the weights they have."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from bnnlight.nn.binarize import Gradient
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.latent import Dense, Latent, LatentFactory
from bnnlight.nn.layers import BinaryConv2d, BinaryLayer
from bnnlight.nn.scale import ScaleName, analytic_alpha, make_scale

SHORTCUTS = ("*downsample*", "*shortcut*")
"""Paths of the 1×1 convolutions on shortcuts, as torchvision and this package name them."""

NO_INPUT_SHAPE = "scale 'spatial' needs the input's shape (C, H, W): its factors have one entry per position"


def factorize(model: nn.Module, latent: LatentFactory) -> nn.Module:
    """Replaces the latent of every binary layer by a decomposition of its present weight W̃, in place.

    Latents that share something across layers (:class:`bnnlight.nn.Holistic`) are joined here, one group for
    each shape. α stays as it is; :func:`restart_alpha` starts it anew.

    Args:
        model: any module with binary layers.
        latent: maps a dense weight ``(O, I, *kernel)`` to a latent.

    Returns:
        The same model.

    Raises:
        ValueError: the latent cannot be made for a layer; the message begins with the layer's path.
    """
    made: dict[tuple[type, torch.Size], list[tuple[str, BinaryLayer, Latent, Tensor]]] = {}
    for name, layer in list(named_binary_layers(model)):
        with torch.no_grad():
            weight = layer.latent().detach().clone()
        try:
            new = latent(weight)
        except ValueError as error:
            raise ValueError(f"layer {name or '(the model itself)'}: {error}") from error
        made.setdefault((type(new), weight.shape), []).append((name, layer, new, weight))
    for (kind, _), members in made.items():
        try:
            kind.couple([new for _, _, new, _ in members], [weight for *_, weight in members])
        except ValueError as error:
            raise ValueError(f"layers {', '.join(name for name, *_ in members)}: {error}") from error
    # only now, so that an error leaves the model as it was
    for members in made.values():
        for _, layer, new, _ in members:
            layer.latent = new.train(layer.training)
    return model


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


def convert(
    model: nn.Module,
    latent: LatentFactory = Dense,
    scale: ScaleName = "channel",
    *,
    keep: Sequence[str] = SHORTCUTS,
    keep_first: bool = True,
    keep_last: bool = True,
    activation_gradient: Gradient = "clipped",
    weight_gradient: Gradient = "clipped",
    padding_value: int = 0,
    input_shape: Sequence[int] | None = None,
) -> nn.Module:
    """Makes the 2-D convolutions of a network binary, in place, starting from its weights.

    Each becomes batch norm → binary convolution. The batch norm (``PATH.norm``, before ``PATH.conv``) is what
    makes this work on any network: most feed their convolutions from a ReLU, whose outputs have only one
    sign. Linear layers stay real. First and last are meant in the order of registration, which is the order of
    use in torchvision's networks; where yours differs, name the layers in ``keep``.

    Args:
        model: any torch or torchvision network.
        latent: maps a dense weight ``(O, I/groups, kh, kw)`` to a latent.
        scale: ``none``, ``analytic``, ``channel`` or ``spatial``.
        keep: paths of convolutions that stay real, as shell patterns; shortcuts by default.
        keep_first: leaves the first convolution real.
        keep_last: leaves the last layer with weights real where that is a convolution; where it is a linear
            layer, it stays real anyway.
        activation_gradient, weight_gradient: straight-through gradients.
        padding_value: of the binary convolutions: 0, +1 or -1.
        input_shape: ``(C, H, W)`` of one image; needed by scale ``spatial`` alone.

    Returns:
        The same model, in the train or eval mode it was in.

    Raises:
        ValueError: nothing is left to convert, a convolution pads otherwise than with zeros (its path is
            named), or what latent and scale raise.
    """
    if scale == "spatial" and input_shape is None:
        raise ValueError(NO_INPUT_SHAPE)
    weighted = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    convolutions = [(n, m) for n, m in weighted if isinstance(m, nn.Conv2d)]
    real = {convolutions[0][0]} if keep_first and convolutions else set()
    if keep_last and weighted:
        real.add(weighted[-1][0])
    chosen = [(n, m) for n, m in convolutions if n and n not in real and not any(fnmatchcase(n, k) for k in keep)]
    if not chosen:
        raise ValueError(f"{type(model).__name__} has no convolution left to make binary (of {len(convolutions)})")
    paddings = {name: _padding(name, conv) for name, conv in chosen}
    for name, conv in chosen:
        layer = BinaryConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            paddings[name],
            conv.dilation,
            conv.groups,
            padding_value=padding_value,
            scale="channel" if scale == "spatial" else scale,
            activation_gradient=activation_gradient,
            weight_gradient=weight_gradient,
            bias=conv.bias is not None,
            weight=conv.weight.detach(),
        )
        if conv.bias is not None:
            layer.bias = nn.Parameter(conv.bias.detach().clone())
        norm = nn.BatchNorm2d(conv.in_channels, device=conv.weight.device, dtype=conv.weight.dtype)
        block = nn.Sequential(OrderedDict(norm=norm, conv=layer)).train(conv.training)
        # a convolution that is used in two places is replaced in both
        for path in [p for p, m in model.named_modules(remove_duplicate=False) if m is conv]:
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, block)
    factorize(model, latent)
    if scale == "spatial":
        make_spatial(model, input_shape)
    return restart_alpha(model)


def _padding(name: str, conv: nn.Conv2d) -> tuple[int, int]:
    if conv.padding_mode != "zeros":
        raise ValueError(f"layer {name}: padding_mode {conv.padding_mode!r} cannot be made binary: add it to `keep`")
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding == "same":
        total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        if any(t % 2 for t in total):
            raise ValueError(f"layer {name}: padding 'same' is uneven for kernel {conv.kernel_size}: add it to `keep`")
        return total[0] // 2, total[1] // 2
    return conv.padding


@torch.no_grad()
def output_sizes(
    model: nn.Module, names: Sequence[str], input_shape: Sequence[int] | None
) -> dict[str, tuple[int, ...]]:
    """Height and width in px of the outputs of some modules, for one image of ``input_shape`` ``(C, H, W)``.

    Raises:
        ValueError: no input shape was given, or a module is not reached.
    """
    if input_shape is None:
        raise ValueError(NO_INPUT_SHAPE)
    sizes: dict[str, tuple[int, ...]] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, y, name=name: sizes.__setitem__(name, tuple(y.shape[2:]))
        )
        for name in names
    ]
    modes = {module: module.training for module in model.modules()}
    parameter = next(model.parameters())
    try:
        model.eval()(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    missing = [n for n in names if n not in sizes]
    if missing:
        raise ValueError(f"layer {missing[0]} does not run on an input of shape {tuple(input_shape)}")
    return sizes


def make_spatial(model: nn.Module, input_shape: Sequence[int] | None) -> nn.Module:
    """Gives every binary layer the scale ``spatial``, sized for images of ``input_shape`` ``(C, H, W)``, in place.

    Returns:
        The same model.
    """
    layers = dict(named_binary_layers(model))
    sizes = output_sizes(model, list(layers), input_shape)
    for name, layer in layers.items():
        with torch.no_grad():
            layer.scale = make_scale("spatial", layer.latent(), sizes[name])
    return model
