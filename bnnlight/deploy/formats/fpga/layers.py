"""Convolutions and linear layers of whole numbers, real and binary, as QONNX operators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnnlight.deploy.formats.fpga.graph import DOMAIN, Graph
from bnnlight.deploy.formats.fpga.values import MAX_CONSTANT_BITS, Refused, Scaled
from bnnlight.deploy.formats.fpga.whole import MAX_WEIGHT_BITS, Whole, bits_of, sum_bounds, whole_weight
from bnnlight.deploy.program import Step
from bnnlight.deploy.program.bits import unpack_signs

MAX_SUM_BITS = 24
"""Of a sum, more than which float32 engines would round."""


def layer(g: Graph, step: Step, x: Whole) -> Whole:
    """A convolution or linear layer, real or binary."""
    binary = "bits" in step.tensors
    s, weight = step.settings, step.tensors.get("weight")
    if binary:
        weight, exponent = unpack_signs(step.tensors["bits"], tuple(s["shape"])).astype(np.int64), 0
    else:
        whole = whole_weight(weight)
        if whole is None:
            kind = "FixedPointConv2d" if weight.ndim == 4 else "FixedPointLinear"
            raise Refused(f"its weights are not fixed-point numbers of {MAX_WEIGHT_BITS} bits: use bnnlight.nn.{kind}")
        weight, exponent = whole
    padded = weight.ndim == 4 and any(s["padding"])
    if weight.ndim == 4:
        for name, usual in (("groups", 1), ("dilation", [1, 1])):
            if s[name] != usual:
                raise Refused(f"its {name} is {s[name]}: only {usual} can go there")
        if "bias" in step.tensors:
            raise Refused("it has a bias: leave that to a batch norm after it")
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
        raise Refused(f"its sums may need more than {MAX_SUM_BITS} bits: use fewer bits before it")
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


def _of_mean(g: Graph, step: Step, x: Whole, weight: np.ndarray, exponent: int) -> Whole | Scaled:
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
