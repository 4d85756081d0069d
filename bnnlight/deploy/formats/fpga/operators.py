"""What each operation of a program becomes in a QONNX graph, and what cannot go to an FPGA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bnnlight.deploy.formats.fpga.graph import DOMAIN, Graph
from bnnlight.deploy.formats.fpga.layers import layer
from bnnlight.deploy.formats.fpga.values import Refused, Scaled
from bnnlight.deploy.formats.fpga.whole import MAX_WEIGHT_BITS, Whole, bits_of, multiply_add
from bnnlight.deploy.manifest import PictureInput
from bnnlight.deploy.program import INPUT, Step

BITS = ":bits"
"""Ends the name of what stands in front of a sign that is a bit 0 or 1."""


def _affine(g: Graph, step: Step, x: Whole | Scaled | PictureInput) -> Scaled:
    if step.tensors["scale"].ndim > 1:
        raise Refused("it has a factor for each position: use scale: channel")
    if isinstance(x, Scaled):
        return Scaled(x.whole, (*x.steps, step))
    return Scaled(g.whole(x), (step,))


def _round(g: Graph, step: Step, x: Whole | Scaled | PictureInput) -> Whole:
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
        raise Refused(
            "a batch norm before it is decreasing, and before that there is no layer that could be turned round"
        )
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


def _binarize(g: Graph, step: Step, x: Any) -> Whole:
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


def _add(g: Graph, step: Step, x: Any, y: Any) -> Whole:
    x, y = g.plain(x), g.plain(y)
    exponent = min(x.exponent, y.exponent)
    low, high = (
        np.left_shift(one, x.exponent - exponent) + np.left_shift(other, y.exponent - exponent)
        for one, other in ((x.low, y.low), (x.high, y.high))
    )
    return Whole(g.node("Add", x.tensor, y.tensor, name=step.name), exponent, low, high)


def _max_pool2d(g: Graph, step: Step, x: Any) -> Whole:
    x, s = g.whole(x), step.settings
    if any(s["padding"]) or s["dilation"] != [1, 1] or s["ceil_mode"]:
        raise Refused("a max pool with padding, dilation or ceil_mode")
    window = {"kernel_shape": s["kernel"], "strides": s["stride"], "pads": [0] * 4, "dilations": [1, 1]}
    return replace(x, tensor=g.node("MaxPool", x.tensor, name=step.name, ceil_mode=0, storage_order=0, **window))


def _mean2d(g: Graph, step: Step, x: Any) -> Whole:
    return replace(g.plain(x), pooled=tuple(g.shapes[step.inputs[0]][1:]))


def _flatten(g: Graph, step: Step, x: Any) -> Whole:
    if isinstance(x, Whole) and x.pooled[0]:
        return x
    x = g.plain(x)
    count = int(np.prod(g.shapes[step.inputs[0]][1:]))
    tensor = g.node("Flatten", x.tensor, name=step.name, axis=1)
    return Whole(tensor, x.exponent, np.repeat(x.low, count), np.repeat(x.high, count))


WRITE: dict[str, Callable[..., Whole | Scaled]] = {
    **dict.fromkeys(("conv2d", "binary_conv2d", "linear", "binary_linear"), layer),
    "affine": _affine,
    "round": _round,
    "binarize": _binarize,
    "add": _add,
    "max_pool2d": _max_pool2d,
    "mean2d": _mean2d,
    "flatten": _flatten,
}
"""Operations of :data:`bnnlight.deploy.program.operations.OPERATIONS` that can go to an FPGA."""
