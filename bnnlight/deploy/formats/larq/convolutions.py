"""Convolutions and linear layers, real and binary, in operators of TensorFlow Lite and Larq Compute Engine.

Sums of signs leave LceBconv2d as whole numbers: its multiplier is 1, its bias 0, and α and batch norm are operators of
their own. Else the engine would add multiplier·K to its bias, K the number of products in a sum, and so round every
sum, be it zero, to the last bit of that larger number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnnlight.deploy.formats.larq.graph import Graph
from bnnlight.deploy.formats.larq.limits import WORD
from bnnlight.deploy.formats.larq.tflite_file import SAME, VALID, Value
from bnnlight.deploy.formats.larq.windows import Window, border, strides, windows
from bnnlight.deploy.program import Step
from bnnlight.deploy.program.bits import unpack_signs


def conv2d(g: Graph, step: Step) -> None:
    over = windows(step, g.shapes[step.inputs[0]], g.shapes[step.name], step.tensors["weight"].shape[2:])
    bias = step.tensors.get("bias", np.zeros(len(step.tensors["weight"]), np.float32))
    _real(g, step, over, step.tensors["weight"], bias, lambda weight: _real_weight(g, step, weight))


def _real(
    g: Graph,
    step: Step,
    over: tuple[Window, Window],
    weight: np.ndarray,
    bias: np.ndarray,
    store: Callable[[np.ndarray], Value],
    padding_value: int = 0,
) -> None:
    """A convolution of real numbers.

    Args:
        g, step: where it is written, and what it is.
        over: how the window goes over height and width.
        weight: ``(O, I / groups, kh, kw)``.
        bias: ``(O,)``.
        store: a weight in the engine's layout → its value in the file.
        padding_value: what is round the picture.
    """
    outputs, inputs, *kernel = weight.shape
    groups, x = step.settings["groups"], g.value(step.inputs[0])
    same = padding_value == 0 and all(window.is_same for window in over)
    if not same:
        x = g.padded(step, x, over, np.float32(padding_value) if padding_value else None)
    options = {"Padding": SAME if same else VALID, **strides(step), **_dilations(over)}
    if groups > 1 and inputs == 1:
        kernels = store(weight.reshape(outputs, *kernel).transpose(1, 2, 0)[None])
        options["DepthMultiplier"] = outputs // groups
        g.op(step, "DEPTHWISE_CONV_2D", x, kernels, g.file.constant(bias), shape=g.shape(step), last=True, **options)
        return
    weight = weight.transpose(0, 2, 3, 1)
    if groups == 1:
        operands = x, store(weight), g.file.constant(bias)
        g.op(step, "CONV_2D", *operands, shape=g.shape(step), last=True, **options)
        return
    outputs_of_groups, size = [], outputs // groups
    for group, part in enumerate(_split(g, step, x, groups)):
        own = slice(group * size, (group + 1) * size)
        operands, shape = (part, store(weight[own]), g.file.constant(bias[own])), (*g.shape(step)[:3], size)
        outputs_of_groups.append(g.op(step, "CONV_2D", *operands, shape=shape, last=False, **options))
    g.op(step, "CONCATENATION", *outputs_of_groups, shape=g.shape(step), last=True, Axis=3)


def _split(g: Graph, step: Step, x: Value, groups: int) -> tuple[Value, ...]:
    """A map's channels, or their words, in groups."""
    shape = (*x.shape[:-1], x.shape[-1] // groups)
    parts = [g.file.tensor(f"{step.name}:group{i}", shape, g.file.dtype(x)) for i in range(groups)]
    return g.file.operator("SPLIT", [g.file.constant(np.int32(3)), x], parts, NumSplits=groups)


def _words(weight: np.ndarray) -> np.ndarray:
    """±1 ``(…, I)`` as words ``(…, ⌈I / 32⌉)`` int32, bit 1 for -1."""
    filled = np.pad(weight < 0, [(0, 0)] * (weight.ndim - 1) + [(0, -weight.shape[-1] % WORD)])
    return np.packbits(filled, axis=-1, bitorder="little").view("<i4").astype(np.int32)


def _signs(g: Graph, step: Step, weight: np.ndarray) -> Value:
    """±1 as real numbers, which are made of bits whenever the network runs."""
    output = g.file.tensor(f"{step.name}:weight", weight.shape)
    (value,) = g.file.operator("LceDequantize", [g.file.constant(_words(weight))], [output])
    return value


def binary_conv2d(g: Graph, step: Step) -> None:
    s = step.settings
    over = windows(step, g.shapes[step.inputs[0]], g.shapes[step.name], tuple(s["shape"][2:]))
    weight = unpack_signs(step.tensors["bits"], tuple(s["shape"]))
    if s["groups"] > 1 and s["shape"][1] % WORD:
        # the engine's own convolution takes groups of whole words alone
        bias = np.zeros(len(weight), np.float32)
        _real(g, step, over, weight, bias, lambda part: _signs(g, step, part), s["padding_value"])
        return
    x, padding, correction = g.bits(step.inputs[0]), s["padding_value"], 0
    same = all(window.is_same for window in over)
    pads = any(window.before or window.after for window in over)
    # where a window is wider than the map, the engine takes zeros for +1 without a word
    fits = all(window.reach <= window.size for window in over)
    if not pads or (same and (padding == 1 or (padding == 0 and fits))):
        mode, pad_values = (SAME, padding) if pads else (VALID, 1)
    else:
        mode, pad_values = VALID, 1
        whole = padding == -1 and s["shape"][1] % WORD == 0
        x = g.padded(step, x, over, np.int32(-1) if whole else None)
        correction = 0 if whole else padding - 1
    options = {"padding": mode, "pad_values": pad_values}
    parts = _split(g, step, x, s["groups"]) if s["groups"] > 1 else (x,)
    size, sums = s["shape"][0] // s["groups"], []
    for group, part in enumerate(parts):
        own = weight[group * size : (group + 1) * size]
        sums.append(_convolved(g, step, part, own, len(parts) == 1 and not correction, options))
    y = sums[0]
    if len(parts) > 1:
        y = g.op(step, "CONCATENATION", *sums, shape=g.shape(step), last=not correction, Axis=3)
    if correction:
        g.simple(step, "ADD", y, _at_the_border(g, step, correction * weight, over))


def _at_the_border(g: Graph, step: Step, weight: np.ndarray, over: tuple[Window, Window]) -> Value:
    """What a padding of +1 adds to sums of signs, times some number: padding less it once is zero, less it twice is -1.

    It is the same for every picture, but as a map it may be larger than all bits of the layer. So it is computed each
    time, by a real convolution of one channel: that is a few multiply-adds of small whole numbers, which are exact.
    """
    sums = weight.sum(1)[..., None]
    options = {"Padding": VALID, **strides(step), **_dilations(over)}
    inputs = (g.file.constant(border(over)), g.file.constant(sums), g.file.constant(np.zeros(len(sums), np.float32)))
    return g.op(step, "CONV_2D", *inputs, shape=g.shape(step), last=False, **options)


def _dilations(over: tuple[Window, Window]) -> dict[str, int]:
    return {"DilationHFactor": over[0].dilation, "DilationWFactor": over[1].dilation}


def _convolved(g: Graph, step: Step, x: Value, weight: np.ndarray, last: bool, padding: dict[str, int]) -> Value:
    """The sums of one group."""
    count, s = len(weight), step.settings
    down, across = s.get("stride", (1, 1))
    rows, columns = s.get("dilation", (1, 1))
    options = {
        "channels_in": weight.shape[1],
        "dilation_height_factor": rows,
        "dilation_width_factor": columns,
        "fused_activation_function": 0,
        "stride_height": down,
        "stride_width": across,
        **padding,
    }
    ones, zeros = (g.file.constant(np.full(count, value, np.float32)) for value in (1, 0))
    shape = (*g.shape(step)[:3], count) if step.op == "binary_conv2d" else (1, 1, 1, count)
    kernels = g.file.constant(_words(weight.transpose(0, 2, 3, 1)))
    return g.op(step, "LceBconv2d", x, kernels, ones, zeros, None, shape=shape, last=last, **options)


def linear(g: Graph, step: Step) -> None:
    weight = _real_weight(g, step, step.tensors["weight"])
    bias = g.file.constant(step.tensors.get("bias", np.zeros(len(step.tensors["weight"]), np.float32)))
    g.op(step, "FULLY_CONNECTED", g.value(step.inputs[0]), weight, bias, shape=g.shape(step), last=True)


def binary_linear(g: Graph, step: Step) -> None:
    """A 1×1 convolution of a picture of one pixel."""
    x = g.bits(step.inputs[0])
    pixel = g.file.tensor(f"{step.name}:pixel", (1, 1, *x.shape), np.int32)
    g.file.operator("RESHAPE", [x, g.integers(*pixel.shape)], [pixel])
    weight = unpack_signs(step.tensors["bits"], tuple(step.settings["shape"]))[:, :, None, None]
    y = _convolved(g, step, pixel, weight, False, {"padding": VALID, "pad_values": 1})
    g.reshape(step, y)


def _real_weight(g: Graph, step: Step, weight: np.ndarray) -> Value:
    if not g.half:
        return g.file.constant(weight)
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    if not np.isfinite(half).all():
        largest = np.abs(weight).max()
        raise ValueError(f"step {step.name!r}: a weight of {largest:g} is beyond fp16; store it with fp32")
    output = g.file.tensor(f"{step.name}:weight", weight.shape)
    (value,) = g.file.operator("DEQUANTIZE", [g.file.constant(half)], [output])
    return value
