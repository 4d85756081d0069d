"""`convert`: makes the convolutions of any network binary, starting from the weights they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from bnnlight.nn.binarize import Gradient
from bnnlight.nn.convert_plan import SHORTCUTS, plan_conversion
from bnnlight.nn.converted import ConvertedConv2d
from bnnlight.nn.factorize import decompose, place
from bnnlight.nn.flow import weighted_layers
from bnnlight.nn.inspect import first_few
from bnnlight.nn.latents.latent import Dense, LatentFactory
from bnnlight.nn.layers import BinaryConv2d
from bnnlight.nn.parts import InputPartFactory, WeightPartFactory
from bnnlight.nn.scale import ScaleName, make_scale
from bnnlight.nn.spatial import NO_INPUT_SHAPE, output_sizes
from bnnlight.nn.torch_internals import become


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
    weight_parts: Sequence[WeightPartFactory] = (),
    input_parts: Sequence[InputPartFactory] = (),
    input_shape: Sequence[int] | None = None,
) -> nn.Module:
    """Makes the 2-D convolutions of a network binary, in place, starting from its weights.

    Each becomes batch norm → binary convolution, a :class:`bnnlight.nn.ConvertedConv2d`. The batch norm (``PATH.norm``,
    before ``PATH.conv``) is what makes this work on any network: most feed their convolutions from a ReLU, whose
    outputs have only one sign. Everything else stays real: linear layers, transposed, 1-D and 3-D convolutions.
    :func:`plan_conversion` lists, path by path, what becomes binary, what stays real and why.

    The module at each path stays the same object, with its hooks, mode, dtype and device, and still has ``weight``,
    ``stride`` and so on. A frozen convolution stays frozen, and so do its α and its norm's weights (running statistics
    are gathered all the same). Convolutions that share a weight share its latent; each has an α of its own. A
    convolution for which this cannot be done is refused by its path.

    To see which layers see the picture first and which give the answer, also in networks with several heads, the
    network is run once, in eval mode, on zeros of ``input_shape``; without one, on squares of 64, 224, 256 and 32 px
    until one works. If none works, the layers whose place is then in doubt are refused: give ``input_shape``, or name
    the answer's layers in ``keep`` and set ``keep_last=False``. Parameters are created anew, so make the optimizer
    afterwards. Where a binary convolution sees one pixel per channel, its norm needs batches of at least two.

    Args:
        model: any torch or torchvision network.
        latent: maps a dense weight ``(O, I/groups, kh, kw)`` to a latent.
        scale: ``none``, ``analytic``, ``channel`` or ``spatial``.
        keep: paths of convolutions that stay real, or shell patterns of them; shortcuts by default.
        keep_first: leaves the convolutions real that see the picture itself.
        keep_last: leaves the convolutions real that the answer comes from: those with no other layer with weights
            between them and an output of the network, and those that feed no other such layer, as for a loss alone.
            Layers that do not run in eval mode stay real too.
        activation_gradient, weight_gradient: straight-through gradients.
        padding_value: of the binary convolutions: 0, +1 or -1.
        weight_parts, input_parts: of the binary convolutions, see :mod:`bnnlight.nn.parts`.
        input_shape: ``(C, H, W)`` of one image; needed by scale ``spatial``, and by networks that run only on
            pictures of other sizes or shapes.

    Returns:
        The same model, in the train or eval mode it was in.

    Raises:
        ValueError: nothing is left to convert; convolutions that cannot be made binary as they are (a class that
            computes something of its own, weights that are computed, shared with a real layer or not there yet,
            padding other than with zeros), each by its path; ``keep`` names no layer; or what latent, scale and
            parts raise. The network is as it was.
    """
    if scale == "spatial" and input_shape is None:
        raise ValueError(NO_INPUT_SHAPE)
    plan = plan_conversion(model, keep=keep, keep_first=keep_first, keep_last=keep_last, input_shape=input_shape)
    if plan.refused:
        raise ValueError(_one_line(plan.refused))
    if not plan.binary:
        num_convolutions = sum(isinstance(layer, nn.Conv2d) for layer in weighted_layers(model).values())
        name = type(model).__name__
        raise ValueError(f"{name} has no convolution left to make binary (of {num_convolutions})")
    convolutions = {path: model.get_submodule(path) for path in plan.binary}
    options = {"padding_value": padding_value, "scale": "channel" if scale == "spatial" else scale}
    options |= {"activation_gradient": activation_gradient, "weight_gradient": weight_gradient}
    options |= {"weight_parts": weight_parts, "input_parts": input_parts}
    layers = {path: _binary(conv, options) for path, conv in convolutions.items()}
    latents = {}
    for path, layer in layers.items():
        layer.latent = latents.setdefault(place(convolutions[path].weight), layer.latent)
    decompose(list(layers.items()), latent)
    sizes = output_sizes(model, plan.binary, input_shape) if scale == "spatial" else {}
    with torch.no_grad():
        for path, layer in layers.items():
            layer.scale = make_scale(scale, layer.latent(), sizes.get(path))
    # only now, so that an error leaves the model as it was
    for path, layer in layers.items():
        conv = convolutions[path]
        norm = nn.BatchNorm2d(conv.in_channels, device=conv.weight.device, dtype=conv.weight.dtype)
        if not conv.weight.requires_grad:
            for frozen in filter(None, (norm, layer.scale, layer.weight_parts, layer.input_parts)):
                frozen.requires_grad_(False)
        layer.bias = conv.bias
        become(conv, ConvertedConv2d(norm, layer, vars(conv)).train(conv.training))
    return model


def _binary(conv: nn.Conv2d, options: dict) -> BinaryConv2d:
    padding = conv.padding
    if padding == "valid":
        padding = 0
    if padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    shape = (conv.kernel_size, conv.stride, padding, conv.dilation, conv.groups)
    layer = BinaryConv2d(conv.in_channels, conv.out_channels, *shape, weight=conv.weight.detach(), **options)
    layer.latent.requires_grad_(conv.weight.requires_grad)
    return layer


def _one_line(refused: Mapping[str, str]) -> str:
    reasons: dict[str, list[str]] = {}
    for path, reason in refused.items():
        reasons.setdefault(reason, []).append(path or "(the model itself)")
    parts = [f"layer{'s' if len(paths) > 1 else ''} {first_few(paths)}: {reason}" for reason, paths in reasons.items()]
    return f"{'; '.join(parts)}. What is named in `keep` stays real; plan_conversion(model).refused has all such paths"
