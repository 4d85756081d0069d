"""Shape inference: the shape of each operation's value, and whether settings and tensors fit its inputs.

Shapes are those of one picture, without the batch: ``(C, H, W)``, ``(F,)`` or, of stacked maps, ``(S, C, H, W)``.
Each function takes a step, whose settings and tensors are those that its operation has, and its inputs' shapes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bnnlight.deploy.program.steps import Shape, Step
from bnnlight.deploy.program.untrusted import shown

MAX_SIZE = 2**20
"""Largest size, stride, padding or dilation."""

MAX_FACTOR = 64
"""Most that a picture may be enlarged at once."""

MAX_ADAPTIVE = 256
"""Most pixels that an adaptive pool may give along a side."""
MAX_FRACTION = 64
"""Most bits behind the point, and in front of it."""

MAX_FLOAT = float(np.finfo(np.float32).max)


class Wrong(ValueError):
    """What is wrong with a step, without the step's name."""


def positive(values: Any, count: int, what: str, least: int = 1, most: int = MAX_SIZE) -> Shape:
    """Whole numbers within bounds, and as many as wanted; True is none, nor is 1.0."""
    wrong = not isinstance(values, list | tuple) or len(values) != count
    if wrong or any(type(v) is not int or not least <= v <= most for v in values):
        raise Wrong(f"{what} is {shown(values)}: expected {count} whole numbers from {least} to {most}")
    return tuple(values)


def _number(step: Step, name: str) -> float:
    value = step.settings[name]
    # torch takes whole numbers of 64 bits alone
    most = 2**53 if type(value) is int else MAX_FLOAT
    if type(value) not in (int, float) or not -most <= value <= most:
        raise Wrong(f"{name} is {shown(value)}: expected a number of float32")
    return value


def _flag(step: Step, name: str) -> bool:
    if not isinstance(step.settings[name], bool):
        raise Wrong(f"{name} is {shown(step.settings[name])}: expected true or false")
    return step.settings[name]


def _only(shapes: list[Shape], *dims: int) -> Shape:
    """The one input's shape, which must have so many dimensions."""
    if len(shapes) != 1:
        raise Wrong(f"takes one value, but is given {len(shapes)}")
    if dims and len(shapes[0]) not in dims:
        raise Wrong(f"is given a value of shape {shapes[0]}")
    return shapes[0]


def _per_channel(step: Step, name: str, shape: Shape, *others: Shape) -> None:
    if name in step.tensors and step.tensors[name].shape not in ((shape[0],), *others):
        raise Wrong(f"tensor {name!r} has shape {step.tensors[name].shape}, but the value has {shape}")


def _window(step: Step, shape: Shape, kernel: Shape, ceil: bool = False) -> Shape:
    """Height and width behind a window that slides."""
    stride = positive(step.settings["stride"], 2, "stride")
    padding = positive(step.settings["padding"], 2, "padding", 0)
    dilation = positive(step.settings.get("dilation", (1, 1)), 2, "dilation")
    sizes = []
    for size, k, s, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        if p > reach or reach > size + 2 * p:
            raise Wrong(f"a window of {reach} px with padding {p} on {size} px")
        room = size + 2 * p - reach
        steps = -(-room // s) if ceil else room // s
        # as torch: no window begins in the padding behind the picture
        sizes.append(steps if ceil and steps * s >= size + p else steps + 1)
    return tuple(sizes)


def weight_shape(step: Step) -> Shape:
    """Of a step with a weight, be it real or binary."""
    return tuple(step.settings["shape"]) if "bits" in step.tensors else step.tensors["weight"].shape


def _check_weight(step: Step, dims: int) -> Shape:
    """The weight's shape, once the tensor is known to have as many numbers."""
    if "bits" in step.tensors:
        weight = positive(step.settings["shape"], dims, "shape of the weight")
        expected = (-(-math.prod(weight) // 8),)
        if step.tensors["bits"].shape != expected:
            raise Wrong(f"{step.tensors['bits'].shape} bytes of bits, but a weight of {weight} takes {expected}")
        return weight
    return positive(step.tensors["weight"].shape, dims, "shape of the weight")


def convolution(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes, 3)
    outputs, inputs, *kernel = weight = _check_weight(step, 4)
    (groups,) = positive([step.settings["groups"]], 1, "groups")
    if inputs * groups != shape[0] or outputs % groups:
        raise Wrong(f"a weight {weight} in {groups} groups on a value of shape {shape}")
    _per_channel(step, "bias", (outputs,))
    value = step.settings.get("padding_value", 0)
    if type(value) is not int or value not in (-1, 0, 1):
        raise Wrong(f"padding_value is {shown(value)}: expected -1, 0 or 1")
    return (outputs, *_window(step, shape, tuple(kernel)))


def linear(step: Step, shapes: list[Shape]) -> Shape:
    (features,) = _only(shapes, 1)
    weight = _check_weight(step, 2)
    if weight[1] != features:
        raise Wrong(f"a weight {weight} on {features} features")
    _per_channel(step, "bias", (weight[0],))
    return (weight[0],)


def binarize(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes)
    _per_channel(step, "threshold", shape)
    _per_channel(step, "direction", shape)
    if not np.isin(step.tensors.get("direction", 1), (-1, 1)).all():
        raise Wrong("a direction is neither -1 nor +1")
    return shape


def affine(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes)
    _per_channel(step, "scale", shape, shape)
    _per_channel(step, "shift", shape)
    return shape


def prelu(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes)
    _per_channel(step, "slope", shape)
    return shape


def clamp(step: Step, shapes: list[Shape]) -> Shape:
    if _number(step, "min") > _number(step, "max"):
        raise Wrong("min is above max")
    return _only(shapes)


def round_(step: Step, shapes: list[Shape]) -> Shape:
    bits = step.settings["fraction_bits"]
    if type(bits) is not int or not -MAX_FRACTION <= bits <= MAX_FRACTION:
        raise Wrong(f"fraction_bits is {shown(bits)}: expected a whole number from -{MAX_FRACTION} to {MAX_FRACTION}")
    return clamp(step, shapes)


def same(step: Step, shapes: list[Shape]) -> Shape:
    return _only(shapes)


def pool(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes, 3)
    kernel = positive(step.settings["kernel"], 2, "kernel")
    ceil, *_ = [_flag(step, name) for name in ("ceil_mode", "count_include_pad") if name in step.settings]
    sizes = _window(step, shape, kernel, ceil)
    if any(p > k // 2 for p, k in zip(step.settings["padding"], kernel, strict=True)):
        raise Wrong(f"padding {step.settings['padding']} is more than half of a window of {kernel} px")
    return (shape[0], *sizes)


def mean(step: Step, shapes: list[Shape]) -> Shape:
    return (_only(shapes, 3)[0], 1, 1)


def upsample(step: Step, shapes: list[Shape]) -> Shape:
    channels, height, width = _only(shapes, 3)
    down, across = positive(step.settings["factor"], 2, "factor", most=MAX_FACTOR)
    return channels, height * down, width * across


def add(step: Step, shapes: list[Shape]) -> Shape:
    if len(shapes) != 2 or shapes[0] != shapes[1]:
        raise Wrong(f"adds values of shapes {shown(shapes)}")
    return shapes[0]


def multiply(step: Step, shapes: list[Shape]) -> Shape:
    """Of two values with as many dimensions; a side of 1 is repeated along the other's."""
    fits = len(shapes) == 2 and len(shapes[0]) == len(shapes[1])
    if not fits or any(a != b and 1 not in (a, b) for a, b in zip(*shapes, strict=True)):
        raise Wrong(f"multiplies values of shapes {shown(shapes)}")
    return tuple(map(max, *shapes))


def slice_channels(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes)
    start, stop = (positive([step.settings[name]], 1, name, 0)[0] for name in ("start", "stop"))
    if not start < stop <= shape[0]:
        raise Wrong(f"channels {start} to {stop} of a value of shape {shape}")
    return (stop - start, *shape[1:])


def shuffle_channels(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes, 3)
    (groups,) = positive([step.settings["groups"]], 1, "groups")
    if shape[0] % groups:
        raise Wrong(f"{groups} groups of the channels of a value of shape {shape}")
    return shape


def gelu(step: Step, shapes: list[Shape]) -> Shape:
    if step.settings["approximate"] not in ("none", "tanh"):
        raise Wrong(f"approximate is {shown(step.settings['approximate'])}: expected 'none' or 'tanh'")
    return _only(shapes)


def adaptive_windows(before: int, after: int) -> list[tuple[int, int]]:
    """First pixel, and the one behind the last, of the windows by which an adaptive pool makes ``after`` of ``before``
    pixels: ⌊i·before/after⌋ to ⌈(i+1)·before/after⌉, as torch has them."""
    return [(i * before // after, -(-(i + 1) * before // after)) for i in range(after)]


def adaptive(step: Step, shapes: list[Shape]) -> Shape:
    return (_only(shapes, 3)[0], *positive(step.settings["size"], 2, "size", most=MAX_ADAPTIVE))


def concat(step: Step, shapes: list[Shape]) -> Shape:
    if not shapes or len({shape[1:] for shape in shapes}) != 1:
        raise Wrong(f"joins values of shapes {shown(shapes)}")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def stack(step: Step, shapes: list[Shape]) -> Shape:
    if not shapes or len(set(shapes)) != 1 or len(shapes[0]) > 3:
        raise Wrong(f"stacks values of shapes {shown(shapes)}")
    return (len(shapes), *shapes[0])


def flatten(step: Step, shapes: list[Shape]) -> Shape:
    return (math.prod(_only(shapes)),)
