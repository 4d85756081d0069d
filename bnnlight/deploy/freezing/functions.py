"""Functions, methods and modules without numbers of their own, as steps of a program."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torchvision.ops import stochastic_depth

from bnnlight.deploy.freezing import channels, pools
from bnnlight.deploy.freezing.constant_arithmetic import (
    compared,
    difference,
    negative,
    product,
    quotient,
    selected,
    sum_of,
)
from bnnlight.deploy.freezing.layers import LAYER_FUNCTIONS
from bnnlight.deploy.freezing.translation import Translation, Unsupported, argument, first, name_of, shape_of

LARGEST = torch.finfo(torch.float32).max


def _simple(op: str) -> Callable:
    return lambda t, node, *module: t.step(name_of(node), op, t.input(node))


def _same(t: Translation, node: fx.Node, *module: nn.Module) -> str:
    if shape_of(first(node)) != shape_of(node):
        raise Unsupported(f"from shape {shape_of(first(node))} to {shape_of(node)}")
    return t.input(node)


def _to(t: Translation, node: fx.Node) -> str:
    if first(node).meta.get("dtype") == torch.bool:
        return selected(t, node, first(node), 1.0, 0.0)
    return _same(t, node)


def _dropout(t: Translation, node: fx.Node) -> str:
    if argument(node, 2, "training", True):
        raise Unsupported("it drops in eval mode too: give it training=self.training")
    return t.input(node)


def _stochastic_depth(t: Translation, node: fx.Node) -> str:
    if argument(node, 3, "training", True) and argument(node, 1, "p"):
        raise Unsupported("it drops in eval mode too: give it training=self.training")
    return t.input(node)


def _gelu(t: Translation, node: fx.Node, approximate: str) -> str:
    return t.step(name_of(node), "gelu", t.input(node), settings={"approximate": approximate})


def _flatten(t: Translation, node: fx.Node, *module: nn.Module) -> str:
    before, after = shape_of(first(node)), shape_of(node)
    if before == after:
        return t.input(node)
    if len(after) != 1 or math.prod(before) != after[0]:
        raise Unsupported(f"from shape {before} to {after}: only flattening a picture's values can be shipped")
    return t.step(name_of(node), "flatten", t.input(node))


def _taken(t: Translation, node: fx.Node) -> str:
    if "parts" in first(node).meta:
        return channels.of_parts(t, node)
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    if len(shape_of(node)) == len(shape_of(first(node))):
        return channels.some_channels(t, node, index)
    plain = all(i in (0, -1, Ellipsis, slice(None)) for i in index if not isinstance(i, fx.Node | list))
    if not plain or any(isinstance(i, fx.Node | list) for i in index) or shape_of(first(node))[1:] != (1, 1):
        raise Unsupported("only channels side by side, or what drops sides of 1 px, can be shipped")
    return _flatten(t, node)


def _unsqueeze(t: Translation, node: fx.Node) -> str:
    if argument(node, 1, "dim") != 1 or len(shape_of(node)) != 4:
        raise Unsupported("only a new axis after the batch, before channels, height and width, can be shipped")
    return t.step(name_of(node), "stack", t.input(node))


def _joined(op: str) -> Callable:
    def translated(t: Translation, node: fx.Node) -> str:
        axis = argument(node, 1, "dim", 0)
        if axis % len(node.meta["shape"]) != 1:
            raise Unsupported(f"along axis {axis}: only along the channels, 1, can be shipped")
        return t.step(name_of(node), op, *(t.value(value) for value in first(node)))

    return translated


def _clamp(t: Translation, node: fx.Node, least: Any, most: Any) -> str:
    bounds = [bound if v is None else t.constant(v) for v, bound in ((least, -LARGEST), (most, LARGEST))]
    if not all(isinstance(bound, float) for bound in bounds):
        raise Unsupported("only bounds that are numbers can be shipped")
    return t.step(name_of(node), "clamp", t.input(node), settings=dict(zip(("min", "max"), bounds, strict=True)))


def _function(translated: Callable, *names: str) -> Callable:
    """Gives the arguments behind the first one by name, where a call has them."""

    def of(t: Translation, node: fx.Node) -> str:
        missing = object()
        options = {name: argument(node, 1 + i, name, missing) for i, name in enumerate(names)}
        renamed = {"kernel_size": "kernel", "count_include_pad": "include", "divisor_override": "divisor"}
        return translated(t, node, **{renamed.get(k, k): v for k, v in options.items() if v is not missing})

    return of


def _bounded(least: str, most: str, *defaults: Any) -> Callable:
    names = tuple(zip((least, most), defaults, strict=True))
    return lambda t, node: _clamp(t, node, *(argument(node, 1 + i, *name) for i, name in enumerate(names)))


_clamped = _bounded("min", "max", None, None)
_avg = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")

MODULES: dict[type[nn.Module], Callable] = {
    nn.ReLU: _simple("relu"),
    nn.ReLU6: lambda t, node, m: _clamp(t, node, 0.0, 6.0),
    nn.Hardtanh: lambda t, node, m: _clamp(t, node, m.min_val, m.max_val),
    nn.Sigmoid: _simple("sigmoid"),
    nn.Tanh: _simple("tanh"),
    nn.SiLU: _simple("silu"),
    nn.GELU: lambda t, node, m: _gelu(t, node, m.approximate),
    nn.Hardswish: _simple("hardswish"),
    nn.Hardsigmoid: _simple("hardsigmoid"),
    nn.MaxPool2d: lambda t, node, m: pools.max_pool(
        t, node, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode
    ),
    nn.AvgPool2d: lambda t, node, m: pools.avg_pool(
        t, node, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.AdaptiveAvgPool2d: pools.adaptive(pools.avg_pool),
    nn.AdaptiveMaxPool2d: pools.adaptive(pools.max_pool),
    nn.Upsample: lambda t, node, m: pools.upsample(t, node, m.mode),
    nn.UpsamplingNearest2d: lambda t, node, m: pools.upsample(t, node, m.mode),
    nn.Flatten: _flatten,
    nn.Identity: _same,
    nn.Dropout: _same,
    nn.Dropout1d: _same,
    nn.Dropout2d: _same,
    nn.Dropout3d: _same,
    nn.FeatureAlphaDropout: _same,
    nn.ChannelShuffle: lambda t, node, m: channels.shuffled(t, node, m.groups),
    nn.AlphaDropout: _same,
}
"""Modules that can be shipped, by their very class."""

FUNCTIONS: dict[Any, Callable] = {
    **LAYER_FUNCTIONS,
    operator.add: sum_of,
    operator.iadd: sum_of,
    torch.add: sum_of,
    operator.sub: difference,
    operator.isub: difference,
    torch.sub: difference,
    operator.mul: product,
    operator.imul: product,
    torch.mul: product,
    operator.truediv: quotient,
    operator.itruediv: quotient,
    torch.div: quotient,
    operator.neg: negative,
    torch.neg: negative,
    operator.ge: compared,
    torch.ge: compared,
    torch.where: lambda t, node: selected(t, node, first(node), argument(node, 1, "input"), argument(node, 2, "other")),
    operator.getitem: _taken,
    torch.cat: _joined("concat"),
    torch.stack: _joined("stack"),
    torch.flatten: _flatten,
    torch.reshape: channels.reshaped(_flatten),
    torch.split: channels.parts_of_channels,
    torch.chunk: channels.parts_of_channels,
    torch.transpose: channels.turned,
    torch.channel_shuffle: lambda t, node: channels.shuffled(t, node, argument(node, 1, "groups")),
    torch.squeeze: _flatten,
    torch.unsqueeze: _unsqueeze,
    torch.mean: pools.mean,
    torch.relu: _simple("relu"),
    F.relu: _simple("relu"),
    F.relu6: lambda t, node: _clamp(t, node, 0.0, 6.0),
    F.hardtanh: _bounded("min_val", "max_val", -1.0, 1.0),
    torch.clamp: _clamped,
    torch.sigmoid: _simple("sigmoid"),
    torch.tanh: _simple("tanh"),
    F.sigmoid: _simple("sigmoid"),
    F.tanh: _simple("tanh"),
    F.silu: _simple("silu"),
    F.gelu: lambda t, node: _gelu(t, node, argument(node, 1, "approximate", "none")),
    F.hardswish: _simple("hardswish"),
    F.hardsigmoid: _simple("hardsigmoid"),
    F.max_pool2d: _function(pools.max_pool, "kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    F.avg_pool2d: _function(pools.avg_pool, *_avg),
    F.adaptive_avg_pool2d: pools.adaptive(pools.avg_pool),
    F.interpolate: lambda t, node: pools.upsample(t, node, argument(node, 3, "mode", "nearest")),
    F.dropout: _dropout,
    F.dropout1d: _dropout,
    F.dropout2d: _dropout,
    F.dropout3d: _dropout,
    stochastic_depth: _stochastic_depth,
}
"""Functions that can be shipped."""

METHODS: dict[str, Callable] = {
    "add": sum_of,
    "add_": sum_of,
    "sub": difference,
    "sub_": difference,
    "mul": product,
    "mul_": product,
    "div": quotient,
    "div_": quotient,
    "neg": negative,
    "ge": compared,
    "where": lambda t, node: selected(t, node, argument(node, 1, "condition"), first(node), argument(node, 2, "other")),
    "flatten": _flatten,
    "view": channels.reshaped(_flatten),
    "reshape": channels.reshaped(_flatten),
    "split": channels.parts_of_channels,
    "chunk": channels.parts_of_channels,
    "transpose": channels.turned,
    "squeeze": _flatten,
    "unsqueeze": _unsqueeze,
    "mean": pools.mean,
    "relu": _simple("relu"),
    "relu_": _simple("relu"),
    "clamp": _clamped,
    "clamp_": _clamped,
    "sigmoid": _simple("sigmoid"),
    "sigmoid_": _simple("sigmoid"),
    "tanh": _simple("tanh"),
    "tanh_": _simple("tanh"),
    "contiguous": channels.contiguous(_same),
    "clone": _same,
    "detach": _same,
    "float": _to,
    "to": _to,
    "type": _to,
    "type_as": _to,
}
"""Methods of tensors that can be shipped."""
