"""Layers with numbers of their own, as steps of a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bnnlight.deploy.bits import pack_signs
from bnnlight.deploy.translation import Translation, Unsupported, pair, shape_of
from bnnlight.nn.layers import BinaryConv2d, BinaryLayer, BinaryLinear


def _binary(t: Translation, node: fx.Node, layer: BinaryLayer) -> str:
    path, shape = node.target, shape_of(node.args[0])
    if isinstance(layer, BinaryLinear) and len(shape) != 1:
        raise Unsupported(f"a binary linear layer on a value of shape {shape}: only rows of features can be shipped")
    sign = t.step(f"{path}.sign", "binarize", t.input(node), threshold=np.zeros(shape[0], np.float32))
    settings: dict[str, Any] = {"shape": list(layer.weight_shape)}
    bits = pack_signs(layer.binary_weight().numpy())
    alpha, bias = layer.alpha(), layer.bias
    if isinstance(layer, BinaryConv2d):
        settings |= {**_sliding(layer), "groups": layer.groups, "padding_value": layer.padding_value}
    op = "binary_conv2d" if isinstance(layer, BinaryConv2d) else "binary_linear"
    total = t.step(f"{path}.sum", op, sign, settings=settings, bits=bits)
    scale = np.ones(layer.weight_shape[0], np.float32) if alpha is None else alpha
    return t.step(path, "affine", total, scale=scale, shift=bias)


def _conv2d(t: Translation, node: fx.Node, module: nn.Conv2d) -> str:
    if module.padding_mode != "zeros":
        raise Unsupported(f"padding_mode {module.padding_mode!r}: only zeros can be shipped")
    sliding = {"stride": pair(module.stride), "dilation": pair(module.dilation)}
    if module.padding == "same":
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        if any(r % 2 for r in reach):
            raise Unsupported("padding 'same' is uneven for this kernel")
        sliding["padding"] = [r // 2 for r in reach]
    else:
        sliding["padding"] = [0, 0] if module.padding == "valid" else pair(module.padding)
    settings = {**sliding, "groups": module.groups}
    return t.step(node.target, "conv2d", t.input(node), settings=settings, weight=module.weight, bias=module.bias)


def _linear(t: Translation, node: fx.Node, module: nn.Linear) -> str:
    if len(shape_of(node.args[0])) != 1:
        raise Unsupported("a linear layer on more than rows of features")
    return t.step(node.target, "linear", t.input(node), weight=module.weight, bias=module.bias)


def _batch_norm(t: Translation, node: fx.Node, module: nn.BatchNorm2d) -> str:
    if module.running_mean is None:
        raise Unsupported("a batch norm without running statistics")
    # in float32 and in this order, as torch computes it
    scale = 1 / torch.sqrt(module.running_var + module.eps)
    scale = scale if module.weight is None else scale * module.weight
    shift = -module.running_mean * scale
    shift = shift if module.bias is None else module.bias - module.running_mean * scale
    return t.step(node.target, "affine", t.input(node), scale=scale, shift=shift)


def _sliding(module: Any) -> dict[str, list[int]]:
    return {name: pair(getattr(module, name)) for name in ("stride", "padding", "dilation")}


def _prelu(t: Translation, node: fx.Node, slope: Tensor) -> str:
    channels = shape_of(node)[0]
    return t.step(node.target, "prelu", t.input(node), slope=slope.detach().expand(channels))


LAYERS: dict[type[nn.Module], Any] = {
    BinaryConv2d: _binary,
    BinaryLinear: _binary,
    nn.Conv2d: _conv2d,
    nn.Linear: _linear,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    nn.PReLU: lambda t, node, m: _prelu(t, node, m.weight),
    nn.LeakyReLU: lambda t, node, m: _prelu(t, node, torch.tensor([m.negative_slope])),
}
"""Modules that become steps, by their very class: a subclass may compute something else."""
