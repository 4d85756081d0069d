"""A program in operators of TensorFlow Lite and Larq Compute Engine: what each operation becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bnnlight.deploy.formats.larq.activations import clamp, gelu, hardsigmoid, round_, silu
from bnnlight.deploy.formats.larq.convolutions import binary_conv2d, binary_linear, conv2d, linear
from bnnlight.deploy.formats.larq.graph import Graph
from bnnlight.deploy.formats.larq.tflite_file import VALID
from bnnlight.deploy.formats.larq.windows import counts, strides, windows
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.program.shapes import adaptive_windows

LARGEST = np.finfo(np.float32).max


def to_lce(program: Program, metadata: Mapping[str, bytes], half: bool = False, look: bool = False) -> bytes:
    """The same network as a TensorFlow Lite file for one picture: ``(1, H, W, C)`` float32, channels last.

    Args:
        program: a frozen network.
        metadata: entries beside the network, by name.
        half: stores the weights of real convolutions and linear layers as float16.
        look: gives the packed bits of every ``binarize`` step as further outputs, in the program's order.

    Raises:
        ValueError: the program is not sound, the engine cannot take it, or a weight is too large for float16.
    """
    graph = Graph(program, half)
    for step in program.steps:
        WRITE[step.op](graph, step)
    outputs = [graph.value(program.output), *(graph.signs.values() if look else ())]
    return graph.file.to_bytes([graph.picture], outputs, metadata)


def _binarize(g: Graph, step: Step) -> None:
    (name,) = step.inputs
    threshold, direction = step.tensors["threshold"], step.tensors.get("direction", np.float32(1))
    if g.is_packed(name) and (direction > 0).all() and ((threshold > -1) & (threshold <= 1)).all():
        g.keep_bits(step, g.bits(name))  # signs of signs
    else:
        x = g.value(name)
        if (direction < 0).any():
            x = g.simple(step, "MUL", x, g.along(step, direction), last=False)
        # x - t is below zero where x < t, and +0 where they are equal. A t of 0 is taken off too: that makes +0 of -0,
        # which the engine would take for negative on ARM, where it looks at the sign's bit alone. An infinite t would
        # make no number of an infinite x.
        shift = np.clip(-direction * threshold, -LARGEST, LARGEST) + np.float32(0)
        g.pack(step, g.simple(step, "ADD", x, g.along(step, shift), last=False))
    g.signs[step.name] = g.bits(step.name)


def _affine(g: Graph, step: Step) -> None:
    shifted = "shift" in step.tensors
    y = g.simple(step, "MUL", g.value(step.inputs[0]), g.along(step, step.tensors["scale"]), last=not shifted)
    if shifted:
        g.simple(step, "ADD", y, g.along(step, step.tensors["shift"]))


def _prelu(g: Graph, step: Step) -> None:
    g.simple(step, "PRELU", g.value(step.inputs[0]), g.along(step, step.tensors["slope"]))


def _max_pool2d(g: Graph, step: Step) -> None:
    (name,), (high, wide) = step.inputs, step.settings["kernel"]
    over = windows(step, g.shapes[name], g.shapes[step.name], (high, wide))
    down, across = step.settings["stride"]
    if g.is_packed(name):
        x = g.padded(step, g.bits(name), over, np.int32(-1))  # all -1, which no maximum is of
        output = g.file.tensor(step.name, (*g.shape(step)[:3], x.shape[3]), np.int32)
        options = {"filter_height": high, "filter_width": wide, "stride_height": down, "stride_width": across}
        g.file.operator("LceBMaxPool2d", [x], [output], padding=VALID, **options)
        g.keep_bits(step, output)
        return
    x = g.padded(step, g.value(name), over, np.float32(-LARGEST))
    options = {"FilterHeight": high, "FilterWidth": wide, "Padding": VALID, **strides(step)}
    g.op(step, "MAX_POOL_2D", x, shape=g.shape(step), last=True, **options)


def _avg_pool2d(g: Graph, step: Step) -> None:
    (name,), (high, wide) = step.inputs, step.settings["kernel"]
    over = windows(step, g.shapes[name], g.shapes[step.name], (high, wide))
    divisors = counts(step, over)
    # the operator divides by all numbers of a window, those of the padding included
    ratio = (high * wide / divisors).astype(np.float32)
    options = {"FilterHeight": high, "FilterWidth": wide, "Padding": VALID, **strides(step)}
    x, even = g.padded(step, g.value(name), over), bool((ratio == 1).all())
    y = g.op(step, "AVERAGE_POOL_2D", x, shape=g.shape(step), last=even, **options)
    if not even:
        g.simple(step, "MUL", y, g.file.constant(ratio[:, :, None]))


def _mean2d(g: Graph, step: Step) -> None:
    g.op(step, "MEAN", g.value(step.inputs[0]), g.integers(1, 2), shape=g.shape(step), last=True, KeepDims=True)


def _adaptive(g: Graph, step: Step) -> None:
    """Products with a matrix that takes the mean of rows, and one that takes that of columns."""
    _, height, width, channels = g.shape(step)
    x = g.value(step.inputs[0])
    rows, columns = (
        g.file.constant(_means(adaptive_windows(*sides), sides[0])[None])
        for sides in zip(x.shape[1:3], (height, width), strict=True)
    )
    # the engine multiplies the last two axes: height × (width · channels), then for each row width × channels
    flat = (1, x.shape[1], x.shape[2] * channels)
    x = g.op(step, "RESHAPE", x, g.integers(*flat), shape=flat, last=False)
    x = g.op(step, "BATCH_MATMUL", rows, x, shape=(1, height, flat[2]), last=False)
    shape = (height, flat[2] // channels, channels)
    x = g.op(step, "RESHAPE", x, g.integers(*shape), shape=shape, last=False)
    g.reshape(step, g.op(step, "BATCH_MATMUL", columns, x, shape=(height, width, channels), last=False))


def _means(windows: list[tuple[int, int]], size: int) -> np.ndarray:
    matrix = np.zeros((len(windows), size), np.float32)
    for row, (start, stop) in zip(matrix, windows, strict=True):
        row[start:stop] = 1 / (stop - start)
    return matrix


def _upsample(g: Graph, step: Step) -> None:
    shape = g.shape(step)
    # by the middles of pixels, which lie far from where rounding could choose another pixel
    options = {"AlignCorners": False, "HalfPixelCenters": True}
    x = g.value(step.inputs[0])
    g.op(step, "RESIZE_NEAREST_NEIGHBOR", x, g.integers(*shape[1:3]), shape=shape, last=True, **options)


def _concat(g: Graph, step: Step) -> None:
    # (1, H, W, C): the channels are last. Of vectors and of stacked vectors they are the first axis behind the batch.
    axis = 3 if len(g.shapes[step.name]) == 3 else 1
    values = [g.value(name) for name in step.inputs]
    g.op(step, "CONCATENATION", *values, shape=g.shape(step), last=True, Axis=axis)


def _multiply(g: Graph, step: Step) -> None:
    g.op(step, "MUL", *(g.value(name) for name in step.inputs), shape=g.shape(step), last=True)


def _slice(g: Graph, step: Step) -> None:
    x, shape = g.value(step.inputs[0]), g.shape(step)
    begin = [0] * len(shape)
    # channels are the last axis of maps and the first behind the batch of all else, which for vectors is the same
    begin[-1 if len(shape) == 4 else 1] = step.settings["start"]
    g.op(step, "SLICE", x, g.integers(*begin), g.integers(*shape), shape=shape, last=True)


def _shuffle(g: Graph, step: Step) -> None:
    _, height, width, channels = g.shape(step)
    groups, x = step.settings["groups"], g.value(step.inputs[0])
    apart, turned = ((height, width, *pair) for pair in ((groups, channels // groups), (channels // groups, groups)))
    x = g.op(step, "RESHAPE", x, g.integers(*apart), shape=apart, last=False)
    x = g.op(step, "TRANSPOSE", x, g.integers(0, 1, 3, 2), shape=turned, last=False)
    g.reshape(step, x)


def _stack(g: Graph, step: Step) -> None:
    values = [g.value(name) for name in step.inputs]
    shape = (1, len(values), *values[0].shape[1:])
    g.op(step, "PACK", *values, shape=shape, last=True, ValuesCount=len(values), Axis=1)


def _flatten(g: Graph, step: Step) -> None:
    x = g.value(step.inputs[0])
    if len(x.shape) > 3 and x.shape[-3:-1] != (1, 1):
        # torch's order: channels before height and width
        order = (*range(len(x.shape) - 3), len(x.shape) - 1, len(x.shape) - 3, len(x.shape) - 2)
        turned = tuple(x.shape[axis] for axis in order)
        x = g.op(step, "TRANSPOSE", x, g.integers(*order), shape=turned, last=False)
    g.reshape(step, x)


def _same(code: str) -> Callable[[Graph, Step], None]:
    return lambda g, step: g.simple(step, code, *(g.value(name) for name in step.inputs))


WRITE: dict[str, Callable[[Graph, Step], Any]] = {
    "conv2d": conv2d,
    "binary_conv2d": binary_conv2d,
    "linear": linear,
    "binary_linear": binary_linear,
    "binarize": _binarize,
    "affine": _affine,
    "prelu": _prelu,
    "relu": _same("RELU"),
    "clamp": clamp,
    "round": round_,
    "sigmoid": _same("LOGISTIC"),
    "tanh": _same("TANH"),
    "silu": silu,
    "gelu": gelu,
    "hardswish": _same("HARD_SWISH"),
    "hardsigmoid": hardsigmoid,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive,
    "mean2d": _mean2d,
    "upsample_nearest": _upsample,
    "add": _same("ADD"),
    "multiply": _multiply,
    "slice_channels": _slice,
    "shuffle_channels": _shuffle,
    "concat": _concat,
    "stack": _stack,
    "flatten": _flatten,
}
"""The operations of :data:`bnnlight.deploy.program.operations.OPERATIONS` in TensorFlow Lite."""
