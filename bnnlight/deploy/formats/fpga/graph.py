"""A program as a graph of QONNX operators: what each operation becomes, and what cannot go to an FPGA.

QONNX is ONNX with quantizers, https://arxiv.org/abs/2206.07527. Its compilers compute with whole numbers, so a program
is taken that has nothing else from the picture on: see ``bnnlight.backbones.FixedPointResNet``. The graph takes pixels
as they are stored, 0 to 255. Signs are a ``BipolarQuant``; where they are padded with −1 they are bits 0 and 1, since
all that these compilers pad with is 0, and the sum of ±1 is then 2 · (sum over bits) − (sum of the weights).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bnnlight.deploy.formats.fpga.directions import rising
from bnnlight.deploy.formats.fpga.whole import (
    MAX_WEIGHT_BITS,
    Whole,
    bits_of,
    multiply_add,
    sum_bounds,
    whole_weight,
)
from bnnlight.deploy.manifest import PictureInput
from bnnlight.deploy.program import INPUT, Program, Step
from bnnlight.deploy.program.bits import unpack_signs
from bnnlight.deploy.program.operations import check

DOMAIN, OPSET, IR_VERSION = "qonnx.custom_op.general", 16, 8
BITS = ":bits"
"""Ends the name of what stands in front of a sign that is a bit 0 or 1."""
MAX_CONSTANT_BITS = 40
"""Behind the point of a constant that is exact."""
LOGIT_BITS = 16
"""Behind the point of the last factor and summand, which are real."""
MAX_SUM_BITS = 24
"""Of a sum, more than which float32 engines would round."""


class Refused(ValueError):
    """Why a step cannot go to an FPGA, without the step's name."""


@dataclass
class Precision:
    """A signed fixed-point type that is wide enough for all numbers shown to it.

    Attributes:
        integer: bits in front of the point, with the sign.
        fraction: bits behind it.
    """

    integer: int = 2
    fraction: int = 0

    def hold(self, numbers: np.ndarray | float, most: int) -> None:
        """Widens it; numbers that need more than ``most`` bits behind the point are rounded to so many."""
        numbers = np.asarray(numbers, np.float64)
        self.integer = max(self.integer, 2 + int(np.floor(np.log2(max(1.0, float(np.abs(numbers).max()))))))
        while self.fraction < most and (np.rint(numbers * 2.0**self.fraction) != numbers * 2.0**self.fraction).any():
            self.fraction += 1


@dataclass(frozen=True)
class Scaled:
    """What multiply-adds in float32 make of whole numbers: nothing but a rounding, or the end, may take it."""

    whole: Whole
    steps: tuple[Step, ...]

    def true(self, k: np.ndarray) -> np.ndarray:
        """The network's own value, rounded as the network rounds it, ``(…, C)`` float32."""
        x = self.whole.true(k)
        for step in self.steps:
            t = step.tensors
            # a product of two float32 is exact in float64
            x = (x.astype(np.float64) * t["scale"] + t.get("shift", np.float32(0))).astype(np.float32)
        return x

    def together(self) -> tuple[np.ndarray, np.ndarray]:
        """Factor and summand ``(C,)`` of the tensor, as one multiply-add without roundings."""
        scale = np.full(self.whole.low.shape, float(self.whole.gain))
        shift = np.broadcast_to(np.asarray(self.whole.offset, np.float64), scale.shape)
        for step in self.steps:
            factor = step.tensors["scale"].astype(np.float64)
            scale, shift = scale * factor, shift * factor + step.tensors.get("shift", 0)
        return scale, shift


def to_qonnx(program: Program, picture: PictureInput) -> tuple[ModelProto, Precision]:
    """The program as a QONNX model: ``input``, ``(1, C, H, W)`` float32, pixels from 0 to 255, to the last value.

    Args:
        program: a frozen network.
        picture: how a pixel becomes the network's input.

    Returns:
        The model, and the fixed-point type that holds all of its constants and sums.

    Raises:
        ValueError: a step has real numbers where whole ones are needed, or is not known to the compilers; the message,
            one line, names the steps and says what to change.
    """
    program = rising(program)
    graph = _Graph(program, picture)
    wrong: dict[str, list[str]] = {}
    for step in program.steps:
        inputs = [graph.values.get(name) for name in step.inputs]
        if None in inputs:
            continue  # behind one that is refused
        try:
            if step.op not in WRITE:
                raise Refused(f"there is no {step.op} of whole numbers: leave it out, or use bnnlight.nn.FixedPoint")
            graph.values[step.name] = WRITE[step.op](graph, step, *inputs)
        except Refused as error:
            wrong.setdefault(str(error), []).append(step.name)
    if wrong:
        reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in wrong.items())
        raise ValueError(f"cannot go to an FPGA: {reasons} (bnnlight.backbones.FixedPointResNet can)")
    graph.finish(program.output)
    shapes = check(program)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shapes[name]]) for name in (INPUT, program.output)
    ]
    onnx_graph = helper.make_graph(graph.nodes, "bnnlight", ends[:1], ends[1:], graph.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(onnx_graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="bnnlight")
    return model, graph.precision


class _Graph:
    """Collects nodes and constants.

    Attributes:
        nodes, constants: made so far.
        values: what is known of each step's value; the picture's is its normalization.
        precision: that holds all constants and sums so far.
    """

    def __init__(self, program: Program, picture: PictureInput) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.output = program.output
        self.consumers = program.consumers()
        self.shapes = check(program)
        self.values: dict[str, Any] = {INPUT: picture}
        self.precision = Precision()
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f":{self._count}"

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), self.name()))
        return self.constants[-1].name

    def node(self, op: str, *inputs: str, name: str | None = None, domain: str = "", **attributes: Any) -> str:
        name = name or self.name()
        # the default of an attribute is not known to all compilers: they are all written out
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"node {name}", domain=domain, **attributes))
        return name

    def weight(self, whole: np.ndarray, exponent: int) -> str:
        """A real layer's weight, in the fewest bits that it fits in."""
        bits = max(2, bits_of(int(whole.min()), int(whole.max())))
        narrow = bool((whole > -(2 ** (bits - 1))).all())
        return self.quant(self.constant(whole * 2.0**exponent), 2.0**exponent, bits, signed=True, narrow=narrow)

    def conv(
        self, x: str, weight: str, kernel: Sequence[int], stride: list[int], padding: list[int], name: str | None
    ) -> str:
        window = {"kernel_shape": kernel, "strides": stride, "pads": [*padding] * 2}
        return self.node("Conv", x, weight, name=name, dilations=[1, 1], group=1, **window)

    def quant(self, x: str, unit: float, bits: int, signed: bool, narrow: bool, name: str | None = None) -> str:
        numbers = [self.constant(number) for number in (unit, 0, bits)]
        options = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": "ROUND"}
        return self.node("Quant", x, *numbers, name=name, domain=DOMAIN, **options)

    def multiply_add(
        self, x: str, scale: np.ndarray, shift: np.ndarray, name: str | None = None, most: int = MAX_CONSTANT_BITS
    ) -> str:
        """A batch norm, the one form of it that all compilers take for each channel."""
        for numbers in (scale, shift):
            self.precision.hold(numbers, most)
        zeros, ones = np.zeros(len(scale)), np.ones(len(scale))
        numbers = [self.constant(number) for number in (scale, shift, zeros, ones)]
        return self.node("BatchNormalization", x, *numbers, name=name, epsilon=0.0)

    def whole(self, value: Any) -> Whole:
        """The value as plain whole numbers."""
        if not isinstance(value, Whole):
            raise Refused("it is given real numbers: put a bnnlight.nn.FixedPoint in front of it")
        if value.pooled[0]:
            raise Refused("it is given a mean over pixels: that may stand in front of a FixedPointLinear alone")
        return value

    def plain(self, value: Any) -> Whole:
        """Whole numbers that are the network's own, without gain or offset."""
        value = self.whole(value)
        if value.gain == 1 and np.all(value.offset == 0):
            return value
        unit = 2.0**value.exponent
        shift = np.broadcast_to(np.asarray(value.offset, np.float64), value.low.shape)
        tensor = self.multiply_add(value.tensor, np.full(len(value.low), value.gain), shift)
        low, high = (value.gain * k + np.rint(shift / unit).astype(np.int64) for k in (value.low, value.high))
        return Whole(tensor, value.exponent, low, high)

    def finish(self, output: str) -> None:
        """Gives the last value its name, and what is left of real arithmetic."""
        value = self.values[output]
        if isinstance(value, Scaled):
            scale, shift = value.together()
            if np.all(scale == 1):
                self.precision.hold(shift, LOGIT_BITS)
                self.node("Add", value.whole.tensor, self.constant(shift), name=output)
            else:
                self.multiply_add(value.whole.tensor, scale, shift, output, LOGIT_BITS)
            return
        last = self.plain(value)
        if last.tensor != output:
            self.multiply_add(last.tensor, np.ones(len(last.low)), np.zeros(len(last.low)), output)


def _layer(g: _Graph, step: Step, x: Whole) -> Whole:
    """A convolution or linear layer, real or binary."""
    binary = "bits" in step.tensors
    s, weight = step.settings, step.tensors.get("weight")
    if binary:
        weight, exponent = unpack_signs(step.tensors["bits"], tuple(s["shape"])).astype(np.int64), 0
    else:
        whole = whole_weight(weight)
        if whole is None:
            kind = "FixedPointConv2d" if weight.ndim == 4 else "FixedPointLinear"
            raise Refused(f"its weights are no fixed-point numbers of {MAX_WEIGHT_BITS} bits: take bnnlight.nn.{kind}")
        weight, exponent = whole
    padded = weight.ndim == 4 and any(s["padding"])
    if weight.ndim == 4:
        for name, usual in (("groups", 1), ("dilation", [1, 1])):
            if s[name] != usual:
                raise Refused(f"its {name} is {s[name]}: only {usual} can go there")
        if "bias" in step.tensors:
            raise Refused("it has a bias: leave that to a batch norm behind it")
    if padded and binary and s["padding_value"] != -1:
        raise Refused(f"it pads signs with {s['padding_value']}: set padding_value: -1")
    pooled = isinstance(x, Whole) and not binary and weight.ndim == 2 and x.pooled
    if pooled and pooled[0]:
        return _of_mean(g, step, x, weight, exponent)
    # signs are a gain of 2 and an offset of −1 where they are bits; other inputs are plain
    bits = binary and g.whole(x).gain == 2
    if not binary:
        x = g.plain(x)
    low, high = sum_bounds(weight, x.low, x.high, padded)
    g.precision.hold(np.concatenate([low, high]) * 2.0 ** (x.exponent + exponent), MAX_CONSTANT_BITS)
    if bits_of(int(low.min()), int(high.max())) > MAX_SUM_BITS:
        raise Refused(f"its sums may need more than {MAX_SUM_BITS} bits: use fewer bits in front of it")
    if binary:
        laid = weight if weight.ndim == 4 else weight.T
        stored = g.node("BipolarQuant", g.constant(laid), g.constant(1), domain=DOMAIN)
    else:
        stored = g.weight(weight if weight.ndim == 4 else weight.T, exponent)
    if weight.ndim == 4:
        tensor = g.conv(x.tensor, stored, weight.shape[2:], s["stride"], s["padding"], step.name)
    else:
        tensor = g.node("MatMul", x.tensor, stored, name=None if "bias" in step.tensors else step.name)
    offset = -weight.sum(tuple(range(1, weight.ndim))).astype(np.float64) if bits else 0.0
    return _with_bias(step, Whole(tensor, x.exponent + exponent, low, high, 2 if bits else 1, offset))


def _of_mean(g: _Graph, step: Step, x: Whole, weight: np.ndarray, exponent: int) -> Whole | Scaled:
    """A linear layer on a mean over pixels: one convolution over all of them, and a factor behind it.

    A pool would be less, but hls4ml 1.3.0 takes a mean of the wrong axes.
    """
    height, width = x.pooled
    weight = np.repeat(weight, height * width, 1).reshape(*weight.shape, height, width)
    low, high = sum_bounds(weight, x.low, x.high, padded=False)
    g.precision.hold(np.concatenate([low, high]) * 2.0 ** (x.exponent + exponent), MAX_CONSTANT_BITS)
    tensor = g.conv(x.tensor, g.weight(weight, exponent), x.pooled, [1, 1], [0, 0], None)
    tensor = g.node("Flatten", tensor, axis=1)
    return _with_bias(step, Whole(tensor, x.exponent + exponent, low, high, 1 / (height * width)))


def _with_bias(step: Step, value: Whole) -> Whole | Scaled:
    if "bias" not in step.tensors:
        return value
    ones = np.ones(len(value.low), np.float32)
    return Scaled(value, (replace(step, op="affine", tensors={"scale": ones, "shift": step.tensors["bias"]}),))


def _affine(g: _Graph, step: Step, x: Whole | Scaled | PictureInput) -> Scaled:
    if step.tensors["scale"].ndim > 1:
        raise Refused("it has a factor for each position: use scale: channel")
    if isinstance(x, Scaled):
        return Scaled(x.whole, (*x.steps, step))
    return Scaled(g.whole(x), (step,))


def _round(g: _Graph, step: Step, x: Whole | Scaled | PictureInput) -> Whole:
    s, fraction = step.settings, step.settings["fraction_bits"]
    least, most = (round(s[name] * 2.0**fraction) for name in ("min", "max"))
    bits = bits_of(least, most)
    if (least, most) != (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1):
        raise Refused(f"its bounds {s['min']} and {s['max']} are not those of a fixed-point number")
    if bits > MAX_WEIGHT_BITS:
        raise Refused(f"it has {bits} bits: at most {MAX_WEIGHT_BITS} become thresholds")
    if isinstance(x, PictureInput):
        source, value, near = _pixels(x), lambda k: _normalized(x, k), _normalization(x)
    else:
        source, value = (x.whole, x.true) if isinstance(x, Scaled) else (x, x.true)
        near = (np.full(len(source.low), source.gain), source.offset) if x is source else x.together()
        g.whole(source)

    def level(k: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(value(k).astype(np.float64) * 2.0**fraction), least, most).astype(np.int64)

    unit = 2.0**source.exponent
    factor, summand = near[0] * unit * 2.0**fraction, np.broadcast_to(near[1] * 2.0**fraction, source.low.shape)
    if (factor < 0).any():
        raise Refused("a batch norm in front of it falls, and no layer that could be turned round is in front of that")
    a, b, p = multiply_add(level, source.low, source.high, (factor, summand), (least, most))
    back = 2.0 ** -(fraction + p)
    tensor = g.multiply_add(source.tensor, a * back / unit, b * back)
    tensor = g.quant(tensor, 2.0**-fraction, bits, signed=True, narrow=False, name=step.name)
    low, high = level(source.low[None])[0], level(source.high[None])[0]
    return Whole(tensor, -fraction, low, high)


def _pixels(picture: PictureInput) -> Whole:
    zeros = np.zeros(picture.channels, np.int64)
    return Whole(INPUT, 0, zeros, zeros + 255)


def _normalized(picture: PictureInput, k: np.ndarray) -> np.ndarray:
    """What data modules make of pixels, operation for operation."""
    scaled = k.astype(np.float32) * np.float32(1 / 255)
    return (scaled - np.float32(picture.mean)) / np.float32(picture.std)


def _normalization(picture: PictureInput) -> tuple[np.ndarray, np.ndarray]:
    mean, std = np.array(picture.mean), np.array(picture.std)
    return 1 / (255 * std), -mean / std


def _binarize(g: _Graph, step: Step, x: Any) -> Whole:
    x = g.whole(x)
    unit = x.gain * 2.0**x.exponent
    direction = step.tensors.get("direction", np.ones(len(x.low)))
    with np.errstate(invalid="ignore"):
        at = (step.tensors["threshold"].astype(np.float64) - x.offset) / unit
    # the sign is +1 from `first` on where it rises, and up to it where it falls
    first = np.where(direction > 0, np.ceil(at), np.floor(at))
    first = np.clip(first, x.low - 1, x.high + 1)
    padded = any(taker.op == "binary_conv2d" and any(taker.settings["padding"]) for taker in g.consumers[step.name])
    ones = np.ones(len(x.low), np.int64)
    # with whole numbers n the bit is 1 where d (n - first) + 1 >= 1, else that is 0 or less; the sign is that of
    # 2 d (n - first) + 1, which is odd
    factor = direction * (1 if padded else 2)
    tensor = g.multiply_add(x.tensor, factor / 2.0**x.exponent, 1 - factor * first)
    if not padded:
        tensor = g.node("BipolarQuant", tensor, g.constant(1), name=step.name, domain=DOMAIN)
        return Whole(tensor, 0, -ones, ones)
    # FINN takes a Quant of one bit for ±1 unless a Relu stands in front of it
    tensor = g.node("Relu", tensor, name=step.name + BITS)
    tensor = g.quant(tensor, 1, 1, signed=False, narrow=False, name=step.name)
    return Whole(tensor, 0, 0 * ones, ones, 2, -1.0)


def _add(g: _Graph, step: Step, x: Any, y: Any) -> Whole:
    x, y = g.plain(x), g.plain(y)
    exponent = min(x.exponent, y.exponent)
    low, high = (
        np.left_shift(one, x.exponent - exponent) + np.left_shift(other, y.exponent - exponent)
        for one, other in ((x.low, y.low), (x.high, y.high))
    )
    return Whole(g.node("Add", x.tensor, y.tensor, name=step.name), exponent, low, high)


def _max_pool2d(g: _Graph, step: Step, x: Any) -> Whole:
    x, s = g.whole(x), step.settings
    if any(s["padding"]) or s["dilation"] != [1, 1] or s["ceil_mode"]:
        raise Refused("a max pool with padding, dilation or ceil_mode")
    window = {"kernel_shape": s["kernel"], "strides": s["stride"], "pads": [0] * 4, "dilations": [1, 1]}
    return replace(x, tensor=g.node("MaxPool", x.tensor, name=step.name, ceil_mode=0, storage_order=0, **window))


def _mean2d(g: _Graph, step: Step, x: Any) -> Whole:
    return replace(g.plain(x), pooled=tuple(g.shapes[step.inputs[0]][1:]))


def _flatten(g: _Graph, step: Step, x: Any) -> Whole:
    if isinstance(x, Whole) and x.pooled[0]:
        return x
    x = g.plain(x)
    count = int(np.prod(g.shapes[step.inputs[0]][1:]))
    tensor = g.node("Flatten", x.tensor, name=step.name, axis=1)
    return Whole(tensor, x.exponent, np.repeat(x.low, count), np.repeat(x.high, count))


WRITE: dict[str, Callable[..., Whole | Scaled]] = {
    **dict.fromkeys(("conv2d", "binary_conv2d", "linear", "binary_linear"), _layer),
    "affine": _affine,
    "round": _round,
    "binarize": _binarize,
    "add": _add,
    "max_pool2d": _max_pool2d,
    "mean2d": _mean2d,
    "flatten": _flatten,
}
"""Operations of :data:`bnnlight.deploy.program.operations.OPERATIONS` that can go to an FPGA."""
