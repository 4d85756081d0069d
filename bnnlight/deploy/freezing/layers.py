"""Layers with numbers of their own, as steps of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from bnnlight.deploy.freezing.arithmetic import batch_norm
from bnnlight.deploy.freezing.translation import Translation, Unsupported, argument, first, name_of, pair, shape_of
from bnnlight.deploy.program.bits import pack_signs
from bnnlight.nn.compute.fixed_point import FixedPoint
from bnnlight.nn.compute.sync_norm import SyncBatchNorm
from bnnlight.nn.layers import BinaryConv2d, BinaryLayer, BinaryLinear


def _binary(t: Translation, node: fx.Node, layer: BinaryLayer) -> str:
    path, shape = node.target, shape_of(first(node))
    if isinstance(layer, BinaryLinear) and len(shape) != 1:
        raise Unsupported(f"a binary linear layer on a value of shape {shape}: only rows of features can be shipped")
    threshold = np.broadcast_to(layer.threshold().numpy(), shape[:1]).astype(np.float32)
    sign = t.step(f"{path}.sign", "binarize", t.input(node), threshold=threshold)
    settings: dict[str, Any] = {"shape": list(layer.weight_shape)}
    if isinstance(layer, BinaryConv2d):
        sliding = {name: pair(getattr(layer, name)) for name in ("stride", "padding", "dilation")}
        settings |= {**sliding, "groups": layer.groups, "padding_value": layer.padding_value}
    op = "binary_conv2d" if isinstance(layer, BinaryConv2d) else "binary_linear"
    value = t.step(f"{path}.sum", op, sign, settings=settings, bits=pack_signs(layer.binary_weight().numpy()))
    alpha, ones = layer.alpha(), np.ones(layer.weight_shape[0], np.float32)
    if layer.bias is not None and alpha is not None:
        # two steps, since the layer rounds twice: one step would be rounded once
        value, alpha = t.step(f"{path}.scaled", "affine", value, scale=alpha), None
    value = t.step(path, "affine", value, scale=ones if alpha is None else alpha, shift=layer.bias)
    slope = argument(node, 1, "slope")
    return value if slope is None else _with_slope(t, f"{path}.prelu", value, node, t.constant(slope))


def _convolved(t: Translation, node: fx.Node, weight: Any, bias: Any, sliding: dict[str, Any], groups: int) -> str:
    padding, dilation, kernel = sliding["padding"], pair(sliding["dilation"]), weight.shape[2:]
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if any(r % 2 for r in reach):
            raise Unsupported("padding 'same' is uneven for this kernel")
        padding = [r // 2 for r in reach]
    padding = [0, 0] if padding == "valid" else pair(padding)
    settings = {"stride": pair(sliding["stride"]), "padding": padding, "dilation": dilation, "groups": int(groups)}
    return t.step(name_of(node), "conv2d", t.input(node), settings=settings, weight=weight, bias=bias)


def _conv2d(t: Translation, node: fx.Node, module: nn.Conv2d) -> str:
    if module.padding_mode != "zeros":
        raise Unsupported(f"padding_mode {module.padding_mode!r}: only zeros can be shipped")
    sliding = {name: getattr(module, name) for name in ("stride", "padding", "dilation")}
    return _convolved(t, node, module.weight, module.bias, sliding, module.groups)


def _function_conv2d(t: Translation, node: fx.Node) -> str:
    names = ("stride", 1), ("padding", 0), ("dilation", 1)
    sliding = {name: argument(node, 3 + i, name, default) for i, (name, default) in enumerate(names)}
    return _convolved(t, node, *_weight_and_bias(t, node), sliding, argument(node, 6, "groups", 1))


def _weight_and_bias(t: Translation, node: fx.Node, after: int = 1) -> tuple[Tensor, Tensor | None]:
    weight, bias = (argument(node, after + i, name) for i, name in enumerate(("weight", "bias")))
    tensors = t.constant(weight), t.constant(bias)
    if tensors[0] is None or (bias is not None and tensors[1] is None):
        raise Unsupported("its weights depend on the picture")
    return tensors


def _linear(t: Translation, node: fx.Node, weight: Tensor, bias: Tensor | None) -> str:
    if len(shape_of(first(node))) != 1:
        raise Unsupported("a linear layer on more than rows of features")
    return t.step(name_of(node), "linear", t.input(node), weight=weight, bias=bias)


def _batch_norm(t: Translation, node: fx.Node, numbers: tuple[Tensor | None, ...], eps: float) -> str:
    if numbers[0] is None or numbers[1] is None:
        raise Unsupported("a batch norm without running statistics")
    scale, shift = batch_norm(*(None if v is None else v.detach().numpy() for v in numbers), eps)
    return t.step(name_of(node), "affine", t.input(node), scale=scale, shift=shift)


def _module_batch_norm(t: Translation, node: fx.Node, m: Any) -> str:
    return _batch_norm(t, node, (m.running_mean, m.running_var, m.weight, m.bias), m.eps)


def _function_batch_norm(t: Translation, node: fx.Node) -> str:
    if argument(node, 5, "training", False):
        raise Unsupported("a batch norm in training mode")
    numbers = [t.constant(argument(node, 1 + i, name)) for i, name in enumerate(("running_mean", "running_var"))]
    weight, bias = (t.constant(argument(node, 3 + i, name)) for i, name in enumerate(("weight", "bias")))
    return _batch_norm(t, node, (*numbers, weight, bias), argument(node, 7, "eps", 1e-5))


def _prelu(t: Translation, node: fx.Node, slope: Any) -> str:
    return _with_slope(t, name_of(node), t.input(node), node, slope)


def _with_slope(t: Translation, name: str, value: str, node: fx.Node, slope: Any) -> str:
    if not isinstance(slope, Tensor):
        raise Unsupported("its slope depends on the picture")
    return t.step(name, "prelu", value, slope=slope.detach().expand(shape_of(node)[0]))


def _rounded(t: Translation, node: fx.Node, m: FixedPoint) -> str:
    settings = {"fraction_bits": m.fraction_bits, "min": m.least, "max": m.most}
    return t.step(name_of(node), "round", t.input(node), settings=settings)


LAYERS: dict[type[nn.Module], Callable] = {
    BinaryConv2d: _binary,
    BinaryLinear: _binary,
    FixedPoint: _rounded,
    nn.Conv2d: _conv2d,
    nn.Linear: lambda t, node, m: _linear(t, node, m.weight, m.bias),
    nn.BatchNorm2d: _module_batch_norm,
    nn.BatchNorm1d: _module_batch_norm,
    nn.SyncBatchNorm: _module_batch_norm,
    SyncBatchNorm: _module_batch_norm,
    nn.PReLU: lambda t, node, m: _prelu(t, node, m.weight),
    nn.LeakyReLU: lambda t, node, m: _prelu(t, node, torch.tensor([m.negative_slope])),
}
"""Modules that become steps, by their very class: a subclass may compute something else."""

LAYER_FUNCTIONS: dict[Any, Callable] = {
    torch.conv2d: _function_conv2d,
    torch.nn.functional.linear: lambda t, node: _linear(t, node, *_weight_and_bias(t, node)),
    torch.nn.functional.batch_norm: _function_batch_norm,
    torch.nn.functional.prelu: lambda t, node: _prelu(t, node, t.constant(argument(node, 1, "weight"))),
    torch.nn.functional.leaky_relu: lambda t, node: _prelu(
        t, node, torch.tensor([argument(node, 1, "negative_slope", 0.01)])
    ),
}
"""The same as functions, whose numbers are the network's: what a subclass with a forward of its own calls."""
