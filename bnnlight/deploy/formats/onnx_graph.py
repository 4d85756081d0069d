"""A program as a graph of standard ONNX operators: what each operation becomes.

Operator set 18, the first with a bitwise and. Every step's value is the tensor of the step's name; what lies in between
is called ``:0``, ``:1``, … Binary weights lie in the file eight to a byte, and the graph itself makes ±1 of them, which
engines do once, while they open the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnnlight.deploy.formats import onnx_activations
from bnnlight.deploy.program import INPUT, Program, Shape, Step
from bnnlight.deploy.program.operations import check
from bnnlight.deploy.program.shapes import adaptive_windows

OPSET = 18
IR_VERSION = 8
"""Of the file's layout, the one that came with operator set 18: older engines refuse newer ones."""


def to_onnx(program: Program, real_dtype: Literal["fp32", "fp16"] = "fp32") -> ModelProto:
    """The program as an ONNX model: ``input``, ``(N, C, H, W)`` float32 with any N, to the last step's value.

    Args:
        program: a frozen network.
        real_dtype: in which weights of real convolutions and linear layers are stored.

    Raises:
        ValueError: the program is not sound, or a weight is too large for float16.
    """
    shapes = check(program)
    graph = _Graph(program, shapes, real_dtype)
    for step in program.steps:
        WRITE[step.op](graph, step)

    def value(name: str) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shapes[name]])

    proto = helper.make_graph(graph.nodes, "bnnlight", [value(INPUT)], [value(program.output)], graph.constants)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(proto, opset_imports=[opset], ir_version=IR_VERSION, producer_name="bnnlight")


class _Graph:
    """Collects nodes and constants.

    Args:
        program: that is written.
        shapes: of its values, for one picture.
        real_dtype: in which real weights are stored.

    Attributes:
        nodes, constants: made so far.
    """

    def __init__(self, program: Program, shapes: dict[str, Shape], real_dtype: str) -> None:
        self.shapes, self.real_dtype = shapes, real_dtype
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._step_names = {INPUT, *(step.name for step in program.steps)}
        self._shared: dict[tuple, str] = {}
        self._signs: str | None = None
        self._count = 0

    def node(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Appends a node and gives the name of its value."""
        name = name or self._name()
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """Name of a constant; equal ones are stored once."""
        content = np.ascontiguousarray(array)
        key = content.dtype.str, content.shape, content.tobytes()
        if key not in self._shared:
            self._shared[key] = self._name()
            self.constants.append(numpy_helper.from_array(content, self._shared[key]))
        return self._shared[key]

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def along(self, step: Step, array: np.ndarray) -> str:
        """A constant with one number a channel, shaped for the step's value ``(N, C, …)``."""
        return self.constant(array.reshape(-1, *[1] * (len(self.shapes[step.name]) - 1)) if array.ndim == 1 else array)

    def real_weight(self, step: Step) -> str:
        weight = step.tensors["weight"]
        if self.real_dtype == "fp32":
            return self.constant(weight)
        with np.errstate(over="ignore"):
            half = weight.astype(np.float16)
        if not np.isfinite(half[np.isfinite(weight)]).all():
            largest = np.abs(weight).max()
            raise ValueError(f"step {step.name!r}: a weight of {largest:g} is beyond fp16; store it with fp32")
        return self.node("Cast", self.constant(half), to=TensorProto.FLOAT)

    def binary_weight(self, step: Step) -> str:
        """±1 from bits: each byte is looked up in the table of the signs of all bytes."""
        if self._signs is None:
            self._signs = self._signs_of_bytes()
        byte = self.node("Cast", self.constant(step.tensors["bits"]), to=TensorProto.INT32)
        signs, shape = self.node("Gather", self._signs, byte), step.settings["shape"]
        count = math.prod(shape)
        if count % 8:  # the last byte is not full
            flat = self.node("Reshape", signs, self.integers(-1))
            signs = self.node("Slice", flat, self.integers(0), self.integers(count))
        return self.node("Reshape", signs, self.integers(*shape))

    def _signs_of_bytes(self) -> str:
        """``(256, 8)``: shift a byte by 0 to 7, look at the last bit b, take 2b - 1."""
        byte = self.constant(np.arange(256, dtype=np.uint8).reshape(-1, 1))
        shifted = self.node("BitShift", byte, self.constant(np.arange(8, dtype=np.uint8)), direction="RIGHT")
        bit = self.node("Cast", self.node("BitwiseAnd", shifted, self.constant(np.uint8(1))), to=TensorProto.FLOAT)
        return self.node("Sub", self.node("Mul", bit, self.number(2)), self.number(1))

    def _name(self) -> str:
        while (name := f":{self._count}") in self._step_names:
            self._count += 1
        self._count += 1
        return name


def _sliding(step: Step) -> dict[str, Any]:
    s = step.settings
    return _needed(strides=s["stride"], dilations=s["dilation"], pads=[*s["padding"]] * 2, group=s["groups"])


def _needed(**attributes: Any) -> dict[str, Any]:
    """Those that differ from ONNX's default: 1, and for pads 0."""
    return {name: value for name, value in attributes.items() if np.any(np.not_equal(value, int(name != "pads")))}


def _conv2d(g: _Graph, step: Step) -> None:
    bias = [g.constant(step.tensors["bias"])] if "bias" in step.tensors else []
    g.node("Conv", *step.inputs, g.real_weight(step), *bias, name=step.name, **_sliding(step))


def _binary_conv2d(g: _Graph, step: Step) -> None:
    (x,), attributes = step.inputs, _sliding(step)
    if step.settings["padding_value"] and "pads" in attributes:
        x = _padded(g, x, attributes.pop("pads"), step.settings["padding_value"])
    g.node("Conv", x, g.binary_weight(step), name=step.name, **attributes)


def _padded(g: _Graph, x: str, pads: list[int], value: float) -> str:
    """``pads`` as ONNX has them: top, left, bottom, right."""
    return g.node("Pad", x, g.integers(0, 0, *pads[:2], 0, 0, *pads[2:]), g.number(value))


def _linear(g: _Graph, step: Step) -> None:
    bias = [g.constant(step.tensors["bias"])] if "bias" in step.tensors else []
    g.node("Gemm", *step.inputs, g.real_weight(step), *bias, name=step.name, transB=1)


def _binarize(g: _Graph, step: Step) -> None:
    (x,), threshold = step.inputs, step.tensors["threshold"]
    if "direction" in step.tensors:
        x = g.node("Mul", g.along(step, step.tensors["direction"]), x)
        threshold = threshold * step.tensors["direction"]
    positive = g.node("GreaterOrEqual", x, g.along(step, threshold))
    # the readers know binarizations by this operator, which nothing else is written with
    g.node("Where", positive, g.number(1), g.number(-1), name=step.name)


def _affine(g: _Graph, step: Step) -> None:
    (x,), scale = step.inputs, step.tensors["scale"]
    if "shift" not in step.tensors:
        # the constant comes first, since onnxruntime multiplies it into a convolution's ±1 weights where it comes
        # second: their sums would no longer be whole numbers, and later signs could differ
        g.node("Mul", g.along(step, scale), x, name=step.name)
        return
    # rounded once, as in the network, whose batch norm is a fused multiply-add: a product of two float32 is exact in
    # float64. It also keeps onnxruntime from multiplying the scale into a convolution's weights.
    wide = g.node("Cast", x, to=TensorProto.DOUBLE)
    scale, shift = (g.node("Cast", g.along(step, t), to=TensorProto.DOUBLE) for t in (scale, step.tensors["shift"]))
    g.node("Cast", g.node("Add", g.node("Mul", scale, wide), shift), to=TensorProto.FLOAT, name=step.name)


def _clamp(g: _Graph, step: Step) -> None:
    bounds = (g.number(step.settings[name]) for name in ("min", "max"))
    g.node("Clip", *step.inputs, *bounds, name=step.name)


def _round(g: _Graph, step: Step) -> None:
    scale = 2.0 ** step.settings["fraction_bits"]
    # a power of two: neither product is rounded
    whole = g.node("Round", g.node("Mul", *step.inputs, g.number(scale)))
    bounds = (g.number(step.settings[name]) for name in ("min", "max"))
    g.node("Clip", g.node("Mul", whole, g.number(1 / scale)), *bounds, name=step.name)


def _pool(g: _Graph, step: Step) -> None:
    """Torch's windows, with all padding written out: engines differ in what ``ceil_mode`` does at the far border."""
    s, (x,), begin = step.settings, step.inputs, list(step.settings["padding"])
    dilation = s.get("dilation", [1, 1])
    sizes = zip(g.shapes[x][1:], g.shapes[step.name][1:], s["kernel"], s["stride"], begin, dilation, strict=True)
    # behind the picture: up to where the last window ends
    end = [max(p, (after - 1) * t + d * (k - 1) + 1 - before - p) for before, after, k, t, p, d in sizes]
    attributes = {"kernel_shape": s["kernel"], **_needed(strides=s["stride"])}
    if step.op == "max_pool2d":
        if dilation != [1, 1]:
            # a window with gaps may need more than the operator's own padding may be, which is less than the kernel
            x, begin, end = _padded(g, x, [*begin, *end], -np.inf), [0, 0], [0, 0]
            attributes["dilations"] = dilation
        g.node("MaxPool", x, name=step.name, **attributes, **_needed(pads=[*begin, *end]))
        return
    if s["count_include_pad"] and begin != [0, 0]:
        # this padding counts in the mean, that of ceil_mode does not
        x, end = _padded(g, x, [*begin, *begin], 0), [e - p for e, p in zip(end, begin, strict=True)]
        begin = [0, 0]
    g.node("AveragePool", x, name=step.name, **attributes, **_needed(pads=[*begin, *end]))


def _upsample(g: _Graph, step: Step) -> None:
    scales = g.constant(np.array([1, 1, *step.settings["factor"]], np.float32))
    options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    g.node("Resize", *step.inputs, "", scales, name=step.name, **options)


def _stack(g: _Graph, step: Step) -> None:
    parts = [g.node("Unsqueeze", x, g.integers(1)) for x in step.inputs]
    g.node("Concat", *parts, name=step.name, axis=1)


def _adaptive(g: _Graph, step: Step) -> None:
    """Products with a matrix that takes the mean of rows, and one that takes that of columns."""
    (x,), matrices = step.inputs, []
    for before, after in zip(g.shapes[x][1:], step.settings["size"], strict=True):
        matrix = np.zeros((after, before), np.float32)
        for row, (start, stop) in zip(matrix, adaptive_windows(before, after), strict=True):
            row[start:stop] = 1 / (stop - start)
        matrices.append(matrix)
    g.node("MatMul", g.node("MatMul", g.constant(matrices[0]), x), g.constant(matrices[1].T), name=step.name)


def _slice(g: _Graph, step: Step) -> None:
    start, stop = (g.integers(step.settings[name]) for name in ("start", "stop"))
    g.node("Slice", *step.inputs, start, stop, g.integers(1), name=step.name)


def _shuffle(g: _Graph, step: Step) -> None:
    channels, height, width = g.shapes[step.name]
    groups = step.settings["groups"]
    grouped = g.node("Reshape", *step.inputs, g.integers(0, groups, channels // groups, height, width))
    turned = g.node("Transpose", grouped, perm=[0, 2, 1, 3, 4])
    g.node("Reshape", turned, g.integers(0, channels, height, width), name=step.name)


def _simple(op: str, **attributes: Any) -> Callable[[_Graph, Step], None]:
    return lambda g, step: g.node(op, *step.inputs, name=step.name, **attributes)


WRITE: dict[str, Callable[[_Graph, Step], None]] = {
    "conv2d": _conv2d,
    "binary_conv2d": _binary_conv2d,
    "linear": _linear,
    "binary_linear": lambda g, step: g.node("Gemm", *step.inputs, g.binary_weight(step), name=step.name, transB=1),
    "binarize": _binarize,
    "affine": _affine,
    "prelu": lambda g, step: g.node("PRelu", *step.inputs, g.along(step, step.tensors["slope"]), name=step.name),
    "relu": _simple("Relu"),
    "clamp": _clamp,
    "round": _round,
    "sigmoid": _simple("Sigmoid"),
    "tanh": _simple("Tanh"),
    "silu": onnx_activations.silu,
    "gelu": onnx_activations.gelu,
    "hardswish": onnx_activations.hard,
    "hardsigmoid": onnx_activations.hard,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _adaptive,
    "mean2d": _simple("GlobalAveragePool"),
    "upsample_nearest": _upsample,
    "add": _simple("Add"),
    "multiply": _simple("Mul"),
    "slice_channels": _slice,
    "shuffle_channels": _shuffle,
    "concat": _simple("Concat", axis=1),
    "stack": _stack,
    "flatten": _simple("Flatten", axis=1),
}
"""The operations of :data:`bnnlight.deploy.program.operations.OPERATIONS` in ONNX."""
