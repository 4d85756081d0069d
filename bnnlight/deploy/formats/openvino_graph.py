"""A program as an OpenVINO model, whose binary convolutions run on XNOR and popcount."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset1, opset8, opset10, opset13, opset14

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
    picture.output(0).get_tensor().set_names({INPUT})  # what servers call it; else OpenVINO numbers it anew each time
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
        bounds = eight_bit_bounds(*self.ranges[step.name])
        # Rounding to integers is written anew when it is compiled, and loses its mark; its neighbour's holds for both.
        return opset13.fake_quantize(_apart(x), *bounds, *bounds, 256)


def eight_bit_bounds(low: float, high: float) -> tuple[np.float32, np.float32]:
    """Where 256 steps begin and end that hold the numbers from ``low`` to ``high``."""
    if low >= 0:
        return np.float32(0), np.float32(max(high, 1e-6))
    # symmetric, so that zero, with which convolutions pad, is a value of its own
    unit = max(-low / 128, high / 127, 1e-8)
    return np.float32(-128 * unit), np.float32(127 * unit)


def _rank(x: ov.Output | ov.Node) -> int:
    return len((x.output(0) if isinstance(x, ov.Node) else x).get_partial_shape())


def _shaped(x: ov.Output | ov.Node, shape: list[int]) -> ov.Node:
    """The same numbers in another shape; 0 stands for the size that was there, -1 for what remains."""
    return opset13.reshape(x, np.array(shape, np.int64), True)


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
    # One constant for both bounds, which has the data's rank: else OpenVINO 2026.4 would compute the sign in the kernel
    # of a binary convolution before it, where behind a residual sum nearly all signs are wrong.
    graph.bits[step.name] = opset13.fake_quantize(x, bound, bound, low, high, 2)
    graph.bits[step.name].set_friendly_name(step.name + BITS)
    above, below = graph.one, graph.minus
    if inverted.any():
        turn = 1 - 2 * inverted.astype(np.float32)
        above, below = (opset13.constant(_along(v, x)) for v in (turn, -turn))
    return opset13.select(opset13.greater(x, bound), above, below)


def _apart(x: ov.Output) -> ov.Node:
    """The same numbers, kept apart from the operation behind them, which OpenVINO would join with that before them."""
    node = x.get_node()
    return node if node.get_type_name() == "Maximum" else opset13.maximum(x, np.float32(-LARGEST))


def _adaptive_avg_pool(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    if list(step.settings["size"]) == [1, 1]:  # which OpenVINO turns into this, and its mark for float32 is lost
        return opset13.reduce_mean(x, np.array([2, 3], np.int64), True)
    return opset13.adaptive_avg_pool(x, np.int64(step.settings["size"]))


def _conv2d(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    s, weight, x = step.settings, step.tensors["weight"], graph.real_input(step, x)
    window = (s["stride"], s["padding"], s["padding"], s["dilation"])
    groups = s["groups"]
    if groups == 1:
        y = opset13.convolution(x, graph.weight(step, weight), *window)
    else:
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        y = opset13.group_convolution(x, graph.weight(step, grouped), *window)
    if "bias" in step.tensors:
        y = opset13.add(y, _along(step.tensors["bias"], y))
    # the scale of 8-bit products is moved behind what follows, whose mark (see openvino_precision.py) is lost then
    return _apart(y.output(0)) if step.name in graph.ranges else y


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
    sums = []
    for group in range(groups):
        part = opset13.fake_quantize(parts.output(group), graph.zero, graph.zero, graph.zero, graph.one, 2)
        packed = np.packbits(signs[group], bitorder="little")
        sums.append(_binary_convolution(part, packed, [outputs // groups, inputs, *kernel], s))
        sums[-1].set_friendly_name(f"{step.name}/{group}")
    return opset13.concat(sums, 1)


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
    if step.name in graph.ranges:
        # as a matrix product on integers it would lose its mark
        pixel = _shaped(x, [0, 0, 1, 1]).output(0)
        settings = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
        tensors = step.tensors | {"weight": step.tensors["weight"][..., None, None]}
        y = _conv2d(graph, replace(step, settings=settings, tensors=tensors), pixel)
        return _shaped(y, [0, -1])
    y = opset13.matmul(x, graph.weight(step, step.tensors["weight"]), False, True)
    # joined with its bias, it would lose its mark
    return opset13.add(_apart(y.output(0)), _along(step.tensors["bias"], y)) if "bias" in step.tensors else y


def _binary_linear(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    # a 1×1 convolution of a picture of one pixel
    pixel = _shaped(x, [0, 0, 1, 1]).output(0)
    settings = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1, "padding_value": 0}
    layer = replace(step, settings=settings | {"shape": [*step.settings["shape"], 1, 1]})
    graph.bits[step.inputs[0]] = opset13.fake_quantize(pixel, graph.zero, graph.zero, graph.zero, graph.one, 2)
    y = _binary_conv2d(graph, layer, pixel)
    y.set_friendly_name(f"{step.name}/0")
    return _shaped(y, [0, -1])


LINEAR = ("Convolution", "GroupConvolution", "MatMul", "Multiply", "Add")
"""What OpenVINO would multiply into, or join with, a multiplication behind it."""


def _affine(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    if "shift" in step.tensors or x.get_node().get_type_name() in LINEAR:
        # Changes no number, and keeps the arithmetic behind it in a kernel of its own, which rounds once (a fused
        # multiply-add), as torch's batch norm does. Inside of a convolution's kernel it would be rounded twice.
        x = _apart(x).output(0)
    scale = step.tensors["scale"]
    y = opset13.multiply(x, _along(scale, x))
    if "shift" in step.tensors:
        y = opset13.add(y, _along(step.tensors["shift"], x))
    if not graph.ranges:
        return y
    # When OpenVINO takes layers to integers, it would move the scale behind what follows: numbers would be rounded
    # otherwise, marks be lost, and residual sums need a multiplication of their own. A clamp costs nothing, as a binary
    # convolution takes it along, but holds up only a scale that differs between channels.
    if "shift" in step.tensors or (scale == scale.flat[0]).all():
        return _apart(y.output(0))
    return opset13.clamp(y, -LARGEST, LARGEST)


def _round(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    s, scale = step.settings, 2.0 ** step.settings["fraction_bits"]
    # a power of two: neither product is rounded
    whole = opset13.round(opset13.multiply(x, np.float32(scale)), "half_to_even")
    return opset13.clamp(opset13.multiply(whole, np.float32(1 / scale)), s["min"], s["max"])


def _max_pool2d(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    s = step.settings
    padding, dilation = (s["padding"], s["padding"]), s["dilation"]
    if s["ceil_mode"]:
        return opset14.max_pool(x, s["stride"], dilation, *padding, s["kernel"], "ceil_torch")
    if dilation == [1, 1]:
        return opset1.max_pool(x, s["stride"], *padding, s["kernel"], "floor")
    return opset8.max_pool(x, s["stride"], dilation, *padding, s["kernel"], "floor")


def _avg_pool2d(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    s = step.settings
    padding, include = s["padding"], s["count_include_pad"]
    if include and s["ceil_mode"] and any(padding):
        # torch counts the padding, but not what lies behind it; OpenVINO counts both
        x, padding, include = _padded(x, padding, 0), [0, 0], False
    window = (s["stride"], padding, padding, s["kernel"], not include)
    return opset14.avg_pool(x, *window, "ceil_torch") if s["ceil_mode"] else opset1.avg_pool(x, *window, "floor")


def _padded(x: ov.Output | ov.Node, padding: list[int], value: float) -> ov.Node:
    sides = np.array([0, 0, *padding], np.int64)
    return opset1.pad(x, sides, sides, "constant", np.float32(value))


def _upsample(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    factor = step.settings["factor"]
    size = np.multiply(x.get_shape()[2:], factor).astype(np.int64)
    window = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    axes = np.array([2, 3], np.int64)
    return opset10.interpolate(x, size, np.array(factor, np.float32), "nearest", "scales", axes=axes, **window)


def _multiply(graph: _Graph, step: Step, x: ov.Output, y: ov.Output) -> ov.Node:
    # OpenVINO would join a product and a sum behind it, and round them once; torch rounds both
    return opset13.maximum(opset13.multiply(x, y), np.float32(-LARGEST))


def _slice(graph: _Graph, step: Step, x: ov.Output) -> ov.Node:
    start, stop, by, axis = (np.array([n], np.int64) for n in (step.settings["start"], step.settings["stop"], 1, 1))
    return opset13.slice(x, start, stop, by, axis)


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
    "silu": lambda graph, step, x: opset13.swish(x),
    "gelu": lambda graph, step, x: opset13.gelu(x, {"none": "erf", "tanh": "tanh"}[step.settings["approximate"]]),
    "hardswish": lambda graph, step, x: opset13.hswish(x),
    "hardsigmoid": lambda graph, step, x: opset13.hsigmoid(x),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "mean2d": lambda graph, step, x: opset13.reduce_mean(x, np.array([2, 3], np.int64), True),
    "upsample_nearest": _upsample,
    "add": lambda graph, step, x, y: opset13.add(x, y),
    "multiply": _multiply,
    "slice_channels": _slice,
    "shuffle_channels": lambda graph, step, x: opset13.shuffle_channels(x, 1, step.settings["groups"]),
    "concat": lambda graph, step, *values: opset13.concat(list(values), 1),
    "stack": lambda graph, step, *values: opset13.concat([_shaped(v, [0, 1, *v.get_shape()[1:]]) for v in values], 1),
    "flatten": lambda graph, step, x: _shaped(x, [0, -1]),
}
"""The operations of :data:`bnnlight.deploy.program.operations.OPERATIONS` in OpenVINO."""
