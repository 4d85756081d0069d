"""A program as an OpenVINO model, whose binary convolutions run on XNOR and popcount."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset1, opset13, opset14

from bnnlight.deploy.program import INPUT, Program, Step
from bnnlight.deploy.program.operations import check

CHANNELS = 8
"""OpenVINO 2026.4 computes binary convolutions wrongly whose input channels are no multiple of it."""
BITS = ".bits"
"""Behind a sign's name, the name of the node that packs it."""
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = np.finfo(np.float32).tiny
"""Smaller numbers count as zero in OpenVINO's kernels."""


def to_openvino(program: Program, half: bool = False, ranges: dict[str, tuple[float, float]] | None = None) -> ov.Model:
    """The same network as an OpenVINO model for batches of one; ``reshape`` makes it one for larger batches.

    Binary weights are constants of one bit (``u1``); each binary convolution is a ``BinaryConvolution`` behind a
    ``FakeQuantize`` of two levels, which compares with the thresholds. Every value has its step's name.

    Args:
        program: sound.
        half: stores the weights of real convolutions and linear layers as float16.
        ranges: name of a real convolution or linear layer → smallest and largest value of its input; those named
            run on 8-bit integers, and their weights are stored as such.

    Raises:
        ValueError: the program is not sound.
    """
    check(program)
    graph = _Graph(half, ranges or {})
    picture = opset13.parameter([1, *program.input_shape], np.float32, INPUT)
    graph.values[INPUT] = picture.output(0)
    for step in program.steps:
        node = MAKE[step.op](graph, step, *(graph.values[name] for name in step.inputs))
        node.set_friendly_name(step.name)
        node.output(0).get_tensor().set_names({step.name})
        # the first output, as a pool has a second one with the places of the maxima
        graph.values[step.name] = node.output(0)
    return ov.Model([graph.values[program.output]], [picture], "bnnlight")


class _Graph:
    """The nodes made so far.

    Attributes:
        values: each step's value; ±1 for a binarization.
        bits: the same binarizations as a ``FakeQuantize`` with the levels 0 and 1, which binary convolutions take. A
            node of its own: the plug-in packs what it gives, and nothing else may read that.
    """

    def __init__(self, half: bool, ranges: dict[str, tuple[float, float]]) -> None:
        self.half, self.ranges = half, ranges
        self.values: dict[str, ov.Output] = {}
        self.bits: dict[str, ov.Node] = {}
        self.zero, self.one, self.minus = (opset13.constant(np.float32(v)) for v in (0, 1, -1))

    def weight(self, step: Step, array: np.ndarray) -> ov.Node:
        """A real weight ``(O, …)``, or ``(groups, O, …)``, as it is stored."""
        if step.name in self.ranges:
            axes = tuple(range(2 if step.op == "conv2d" and array.ndim == 5 else 1, array.ndim))
            scale = np.abs(array).max(axes, keepdims=True) / 127
            scale = np.where(scale > 0, scale, 1).astype(np.float32)
            whole = np.rint(array / scale).astype(np.int8)
            return opset13.multiply(opset13.convert(opset13.constant(whole), "f32"), scale)
        if not self.half:
            return opset13.constant(array)
        # the plug-in folds the conversion away when it compiles the model
        return opset13.convert(opset13.constant(array.astype(np.float16)), "f32")

    def real_input(self, step: Step, x: ov.Output) -> ov.Output | ov.Node:
        """The input of a real layer, rounded to 8 bits where that was asked for."""
        if step.name not in self.ranges:
            return x
        low, high = self.ranges[step.name]
        if low >= 0:
            low, high = 0.0, max(high, 1e-6)
        else:
            # symmetric, so that zero, with which convolutions pad, is a value of its own
            unit = max(-low / 128, high / 127, 1e-8)
            low, high = -128 * unit, 127 * unit
        bounds = np.float32(low), np.float32(high)
        return opset13.fake_quantize(x, *bounds, *bounds, 256)


def _rank(x: ov.Output | ov.Node) -> int:
    return len((x.output(0) if isinstance(x, ov.Node) else x).get_partial_shape())


def _along(array: np.ndarray, x: ov.Output) -> np.ndarray:
    """One number a channel, or one a value, shaped for ``(N, C, …)``."""
    if array.ndim > 1:
        return array[None]
    return array.reshape(1, -1, *[1] * (_rank(x) - 2))


def cuts(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds as ``FakeQuantize`` compares: the bit is 1 where x > cut, or 0 there where it is inverted.

    x >= t is x > the next smaller number. Numbers too small for OpenVINO's kernels, which take them for zero, are
    replaced by the next that is not.

    Returns:
        Cuts ``(C,)`` float32 and whether the bit is inverted ``(C,)`` bool.
    """
    threshold = step.tensors["threshold"]
    inverted = step.tensors.get("direction", np.ones_like(threshold)) < 0
    below = np.nextafter(threshold, np.float32(-np.inf), dtype=np.float32)
    cut = np.where(inverted, threshold, below)
    tiny = (np.abs(cut) < SMALLEST) & (cut != 0)
    cut[tiny] = np.where(cut[tiny] > 0, 0, -SMALLEST)
    # ±infinity: always on one side
    return np.clip(cut, np.finfo(np.float32).min, np.finfo(np.float32).max), inverted


def _binarize(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    cut, inverted = cuts(step)
    bound = opset13.constant(_along(cut if (cut != cut[0]).any() else cut[:1], x))
    low, high = graph.zero, graph.one
    if inverted.any():
        low, high = (opset13.constant(_along(v.astype(np.float32), x)) for v in (inverted, ~inverted))
    graph.bits[step.name] = opset13.fake_quantize(x, bound, bound, low, high, 2)
    graph.bits[step.name].set_friendly_name(step.name + BITS)
    above, below = graph.one, graph.minus
    if inverted.any():
        turn = 1 - 2 * inverted.astype(np.float32)
        above, below = (opset13.constant(_along(v, x)) for v in (turn, -turn))
    return opset13.select(opset13.greater(x, bound), above, below)


def _conv2d(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    s, weight, x = step.settings, step.tensors["weight"], graph.real_input(step, x)
    window = (s["stride"], s["padding"], s["padding"], s["dilation"])
    groups = s["groups"]
    if groups == 1:
        y = opset13.convolution(x, graph.weight(step, weight), *window)
    else:
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        y = opset13.group_convolution(x, graph.weight(step, grouped), *window)
    return opset13.add(y, _along(step.tensors["bias"], y)) if "bias" in step.tensors else y


def _binary_conv2d(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    s = step.settings
    outputs, inputs, *kernel = s["shape"]
    groups = s["groups"]
    if inputs % CHANNELS:
        return _unpacked(step, x)
    if groups == 1:
        return _binary_convolution(graph.bits[step.inputs[0]], step.tensors["bits"], s["shape"], s)
    # there is no grouped one: each group by itself
    count = outputs // groups * inputs * kernel[0] * kernel[1]
    signs = np.unpackbits(step.tensors["bits"], count=count * groups, bitorder="little").reshape(groups, count)
    parts = opset13.split(x, np.int64(1), groups)
    made = []
    for group in range(groups):
        part = opset13.fake_quantize(parts.output(group), graph.zero, graph.zero, graph.zero, graph.one, 2)
        packed = np.packbits(signs[group], bitorder="little")
        made.append(_binary_convolution(part, packed, [outputs // groups, inputs, *kernel], s))
        made[-1].set_friendly_name(f"{step.name}/{group}")
    return opset13.concat(made, 1)


def _unpacked(step: Step, x: ov.Output) -> ov.Node:
    """A binary convolution in real arithmetic: its weight is stored in bits, and unpacked when it is compiled."""
    s, groups = step.settings, step.settings["groups"]
    shape = [groups, s["shape"][0] // groups, *s["shape"][1:]]
    # OpenVINO 2026.4 unpacks a byte from its highest bit on, where its binary convolutions begin with the lowest
    packed = np.packbits(np.unpackbits(step.tensors["bits"], bitorder="little"))
    bits = opset13.convert(_bits(packed, shape), "f32")
    weight = opset13.subtract(opset13.multiply(bits, np.float32(2)), np.float32(1))
    padding = s["padding"]
    if s["padding_value"] and any(padding):
        x, padding = _padded(x, padding, s["padding_value"]), [0, 0]
    y = opset13.group_convolution(x, weight, s["stride"], padding, padding, s["dilation"])
    # keeps OpenVINO from multiplying the weight by α: sums of ±α are not exact, and zeros would lose their sign
    return opset13.round(y)


def _bits(packed: np.ndarray, shape: list[int]) -> ov.Node:
    # copied: a constant that borrows numpy's memory turns to noise once that is freed
    tensor = ov.Tensor(np.ascontiguousarray(packed), ov.Shape(shape), ov.Type.u1)
    return ov.op.Constant(tensor, shared_memory=False)


def _binary_convolution(bits: ov.Node, packed: np.ndarray, shape: list[int], s: Any) -> ov.Node:
    window = (s["stride"], s["padding"], s["padding"], s["dilation"])
    return opset1.binary_convolution(bits, _bits(packed, shape), *window, "xnor-popcount", float(s["padding_value"]))


def _linear(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    x = graph.real_input(step, x)
    y = opset13.matmul(x, graph.weight(step, step.tensors["weight"]), False, True)
    return opset13.add(y, _along(step.tensors["bias"], y)) if "bias" in step.tensors else y


def _binary_linear(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    # a 1×1 convolution of a picture of one pixel
    pixel = opset13.unsqueeze(x, np.array([2, 3], np.int64)).output(0)
    settings = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1, "padding_value": 0}
    layer = replace(step, settings=settings | {"shape": [*step.settings["shape"], 1, 1]})
    graph.bits[step.inputs[0]] = opset13.fake_quantize(pixel, graph.zero, graph.zero, graph.zero, graph.one, 2)
    y = _binary_conv2d(graph, layer, pixel)
    y.set_friendly_name(f"{step.name}/0")
    return opset13.squeeze(y, np.array([2, 3], np.int64))


LINEAR = ("Convolution", "GroupConvolution", "MatMul", "Multiply", "Add")
"""What OpenVINO would multiply into, or join with, a multiplication behind it."""


def _affine(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    if "shift" in step.tensors or x.get_node().get_type_name() in LINEAR:
        # Changes no number, and keeps the arithmetic behind it in a kernel of its own, which rounds once (a fused
        # multiply-add), as torch's batch norm does. Inside of a convolution's kernel it would be rounded twice.
        x = opset13.maximum(x, np.float32(-LARGEST)).output(0)
    y = opset13.multiply(x, _along(step.tensors["scale"], x))
    return opset13.add(y, _along(step.tensors["shift"], x)) if "shift" in step.tensors else y


def _round(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    s, scale = step.settings, 2.0 ** step.settings["fraction_bits"]
    # a power of two: neither product is rounded
    whole = opset13.round(opset13.multiply(x, np.float32(scale)), "half_to_even")
    return opset13.clamp(opset13.multiply(whole, np.float32(1 / scale)), s["min"], s["max"])


def _max_pool2d(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    s = step.settings
    window = (s["stride"], s["dilation"], s["padding"], s["padding"], s["kernel"])
    return opset14.max_pool(x, *window, "ceil_torch" if s["ceil_mode"] else "floor")


def _avg_pool2d(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    s = step.settings
    padding, include = s["padding"], s["count_include_pad"]
    if include and s["ceil_mode"] and any(padding):
        # torch counts the padding, but not what lies behind it; OpenVINO counts both
        x, padding, include = _padded(x, padding, 0), [0, 0], False
    window = (s["stride"], padding, padding, s["kernel"], not include)
    return opset14.avg_pool(x, *window, "ceil_torch" if s["ceil_mode"] else "floor")


def _padded(x: ov.Output | ov.Node, padding: list[int], value: float) -> ov.Node:
    sides = np.array([0, 0, *padding], np.int64)
    return opset13.pad(x, sides, sides, "constant", np.float32(value))


def _upsample(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    factor = np.array(step.settings["factor"], np.float32)
    window = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return opset13.interpolate(x, factor, "nearest", "scales", axes=np.array([2, 3], np.int64), **window)


MAKE: dict[str, Callable[..., ov.Node]] = {
    "conv2d": _conv2d,
    "binary_conv2d": _binary_conv2d,
    "linear": _linear,
    "binary_linear": _binary_linear,
    "binarize": _binarize,
    "affine": _affine,
    "prelu": lambda graph, step, x: opset13.prelu(x, step.tensors["slope"]),
    "relu": lambda graph, step, x: opset13.relu(x),
    "clamp": lambda graph, step, x: opset13.clamp(x, step.settings["min"], step.settings["max"]),
    "round": _round,
    "sigmoid": lambda graph, step, x: opset13.sigmoid(x),
    "tanh": lambda graph, step, x: opset13.tanh(x),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "mean2d": lambda graph, step, x: opset13.reduce_mean(x, np.array([2, 3], np.int64), True),
    "upsample_nearest": _upsample,
    "add": lambda graph, step, x, y: opset13.add(x, y),
    "concat": lambda graph, step, *values: opset13.concat(list(values), 1),
    "stack": lambda graph, step, *values: opset13.concat([opset13.unsqueeze(v, np.int64(1)) for v in values], 1),
    "flatten": lambda graph, step, x: opset13.reshape(x, np.array([0, -1], np.int64), True),
}
"""The operations of :data:`bnnlight.deploy.program.operations.OPERATIONS` in OpenVINO."""
