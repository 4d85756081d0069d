"""Functions, methods and modules without numbers of their own, as steps of a program."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from bnnlight.deploy.translation import Translation, Unsupported, name_of, pair, shape_of


def _simple(op: str, **settings: Any) -> Callable:
    return lambda t, node, *module: t.step(name_of(node), op, t.input(node), settings=settings)


def _same(t: Translation, node: fx.Node, *module: nn.Module) -> str:
    return t.input(node)


def _max_pool(t: Translation, node: fx.Node, kernel, stride, padding, dilation, ceil_mode) -> str:
    settings = {"kernel": pair(kernel), "stride": pair(kernel if stride in (None, []) else stride)}
    settings |= {"padding": pair(padding), "dilation": pair(dilation), "ceil_mode": bool(ceil_mode)}
    return t.step(name_of(node), "max_pool2d", t.input(node), settings=settings)


def _avg_pool(t: Translation, node: fx.Node, kernel, stride, padding, ceil_mode, include, divisor) -> str:
    if divisor is not None:
        raise Unsupported("an average pool with a divisor of its own")
    settings = {"kernel": pair(kernel), "stride": pair(kernel if stride in (None, []) else stride)}
    settings |= {"padding": pair(padding), "ceil_mode": bool(ceil_mode), "count_include_pad": bool(include)}
    return t.step(name_of(node), "avg_pool2d", t.input(node), settings=settings)


def _adaptive(t: Translation, node: fx.Node, size: Any) -> str:
    if size not in (1, (1, 1), [1, 1], (None, 1), torch.Size((1, 1))):
        raise Unsupported(f"an adaptive pool to {size}: only 1×1 can be shipped")
    return t.step(name_of(node), "mean2d", t.input(node))


def _upsample(t: Translation, node: fx.Node, mode: str) -> str:
    if mode != "nearest":
        raise Unsupported(f"interpolation {mode!r}: only nearest can be shipped")
    (_, *before), (_, *after) = shape_of(node.args[0]), shape_of(node)
    if any(a % b for a, b in zip(after, before, strict=True)):
        raise Unsupported(f"from {before} px to {after} px: only whole factors can be shipped")
    factor = [a // b for a, b in zip(after, before, strict=True)]
    return t.step(name_of(node), "upsample_nearest", t.input(node), settings={"factor": factor})


def _flatten(t: Translation, node: fx.Node, *module: nn.Module) -> str:
    before, after = shape_of(node.args[0]), shape_of(node)
    if before == after:
        return t.input(node)
    if len(after) != 1 or node.meta["shape"][0] != 1:
        raise Unsupported(f"from shape {before} to {after}: only flattening a picture's values can be shipped")
    return t.step(name_of(node), "flatten", t.input(node))


def _unsqueeze(t: Translation, node: fx.Node) -> str:
    if (node.args[1] if len(node.args) > 1 else node.kwargs["dim"]) != 1:
        raise Unsupported("only a new axis behind the batch can be shipped")
    return t.step(name_of(node), "stack", t.input(node))


def _joined(op: str) -> Callable:
    def made(t: Translation, node: fx.Node) -> str:
        values = node.args[0]
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        if axis % len(node.meta["shape"]) != 1:
            raise Unsupported(f"along axis {axis}: only along the channels, 1, can be shipped")
        return t.step(name_of(node), op, *(t.values[value] for value in values))

    return made


def _sum(t: Translation, node: fx.Node) -> str:
    if node.kwargs:
        raise Unsupported("a sum with options")
    left, right = node.args
    constants = [t.constant(value) for value in (left, right)]
    if constants == [None, None]:
        if shape_of(left) != shape_of(right):
            raise Unsupported(f"adds shapes {shape_of(left)} and {shape_of(right)}: only equal ones can be shipped")
        return t.step(name_of(node), "add", t.values[left], t.values[right])
    return _with_constant(t, node, lambda c: (np.ones_like(c), c))


def _difference(t: Translation, node: fx.Node) -> str:
    return _with_constant(t, node, lambda c: (np.ones_like(c), -c), only_right=True)


def _product(t: Translation, node: fx.Node) -> str:
    return _with_constant(t, node, lambda c: (c, None))


def _with_constant(t: Translation, node: fx.Node, parts: Callable, only_right: bool = False) -> str:
    left, right = node.args
    constant = t.constant(right)
    value = left
    if constant is None and not only_right:
        constant, value = t.constant(left), right
    if constant is None:
        raise Unsupported("of two values that depend on the picture")
    shape = shape_of(value)
    array = np.float32(constant) if isinstance(constant, float) else constant.detach().cpu().numpy()
    if np.size(array) != 1:
        # broadcast as torch does, then along the channels alone
        wide = np.broadcast_to(array, (1, *shape))
        array = wide[0].reshape(shape[0], -1)
        if np.size(array) and (array != array[:, :1]).any():
            raise Unsupported("with a constant that is not one number a channel")
        array = array[:, 0]
    scale, shift = parts(np.broadcast_to(np.reshape(array, -1), shape[:1]).astype(np.float32))
    return t.step(name_of(node), "affine", t.values[value], scale=scale, shift=shift)


def _argument(node: fx.Node, index: int, name: str, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _function_max_pool(t: Translation, node: fx.Node) -> str:
    names = (("stride", None), ("padding", 0), ("dilation", 1), ("ceil_mode", False))
    options = [_argument(node, 2 + i, name, default) for i, (name, default) in enumerate(names)]
    return _max_pool(t, node, _argument(node, 1, "kernel_size", None), *options)


def _function_avg_pool(t: Translation, node: fx.Node) -> str:
    names = (("stride", None), ("padding", 0), ("ceil_mode", False))
    names += (("count_include_pad", True), ("divisor_override", None))
    options = [_argument(node, 2 + i, name, default) for i, (name, default) in enumerate(names)]
    return _avg_pool(t, node, _argument(node, 1, "kernel_size", None), *options)


def _clamp(t: Translation, node: fx.Node, module: nn.Hardtanh) -> str:
    return t.step(
        node.target, "clamp", t.input(node), settings={"min": float(module.min_val), "max": float(module.max_val)}
    )


MODULES: dict[type[nn.Module], Callable] = {
    nn.ReLU: _simple("relu"),
    nn.ReLU6: _clamp,
    nn.Hardtanh: _clamp,
    nn.Sigmoid: _simple("sigmoid"),
    nn.Tanh: _simple("tanh"),
    nn.MaxPool2d: lambda t, node, m: _max_pool(t, node, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode),
    nn.AvgPool2d: lambda t, node, m: _avg_pool(
        t, node, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.AdaptiveAvgPool2d: lambda t, node, m: _adaptive(t, node, m.output_size),
    nn.Upsample: lambda t, node, m: _upsample(t, node, m.mode),
    nn.Flatten: _flatten,
    nn.Identity: _same,
    nn.Dropout: _same,
    nn.Dropout2d: _same,
}
"""Modules that can be shipped, by their very class."""

FUNCTIONS: dict[Any, Callable] = {
    operator.add: _sum,
    operator.iadd: _sum,
    torch.add: _sum,
    operator.sub: _difference,
    torch.sub: _difference,
    operator.mul: _product,
    operator.imul: _product,
    torch.mul: _product,
    torch.cat: _joined("concat"),
    torch.stack: _joined("stack"),
    torch.flatten: _flatten,
    torch.unsqueeze: _unsqueeze,
    torch.relu: _simple("relu"),
    F.relu: _simple("relu"),
    torch.sigmoid: _simple("sigmoid"),
    torch.tanh: _simple("tanh"),
    F.max_pool2d: _function_max_pool,
    F.avg_pool2d: _function_avg_pool,
    F.adaptive_avg_pool2d: lambda t, node: _adaptive(t, node, _argument(node, 1, "output_size", None)),
    F.interpolate: lambda t, node: _upsample(t, node, _argument(node, 3, "mode", "nearest")),
    F.dropout: _same,
}
"""Functions that can be shipped."""

METHODS: dict[str, Callable] = {
    "add": _sum,
    "add_": _sum,
    "sub": _difference,
    "mul": _product,
    "flatten": _flatten,
    "view": _flatten,
    "reshape": _flatten,
    "unsqueeze": _unsqueeze,
    "relu": _simple("relu"),
    "sigmoid": _simple("sigmoid"),
    "tanh": _simple("tanh"),
    "contiguous": _same,
    "clone": _same,
    "float": _same,
}
"""Methods of tensors that can be shipped."""
