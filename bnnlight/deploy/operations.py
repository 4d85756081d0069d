"""What each operation of a program takes, and the shape of what it gives: a program from a file is checked by this.

Shapes are those of one picture, without the batch: ``(C, H, W)``, ``(F,)`` or, of stacked maps, ``(S, C, H, W)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from bnnlight.deploy.program import INPUT, Program, Shape, Step

MAX_VALUES = 2**28
"""Most numbers that one value of a program may have for one picture: 1 GiB as float32."""


class _Wrong(ValueError):
    """What is wrong with a step, without the step's name."""


def check(program: Program) -> dict[str, Shape]:
    """Makes sure that every step can be run, and finds the shape of every value for one picture.

    Raises:
        ValueError: an operation is not known, settings or tensors are missing, wrong or do not fit the step's
            input, or a value would be unreasonably large; the message names the step.
    """
    shapes: dict[str, Shape] = {INPUT: _positive(program.input_shape, 3, "input shape")}
    if not program.steps:
        raise ValueError("the program has no step")
    for step in program.steps:
        try:
            if step.name in shapes:
                raise _Wrong("the name is taken")
            unknown = [name for name in step.inputs if name not in shapes]
            if unknown:
                raise _Wrong(f"takes {unknown[0]!r}, which no earlier step gives")
            if step.op not in OPERATIONS:
                raise _Wrong(f"unknown operation {step.op!r}")
            _check_tensors(step)
            shape = OPERATIONS[step.op](step, [shapes[name] for name in step.inputs])
            if math.prod(shape) > MAX_VALUES:
                raise _Wrong(f"its value would be of shape {shape}")
        except (_Wrong, KeyError, TypeError, ValueError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"step {step.name!r} ({step.op}): {reason}") from error
        shapes[step.name] = shape
    return shapes


def _check_tensors(step: Step) -> None:
    for name, tensor in step.tensors.items():
        wanted = np.uint8 if name == "bits" else np.float32
        if tensor.dtype != wanted:
            raise _Wrong(f"tensor {name!r} is {tensor.dtype}, not {np.dtype(wanted)}")


def _positive(values: object, count: int, what: str, least: int = 1, most: int = 2**20) -> Shape:
    wrong = not isinstance(values, list | tuple) or len(values) != count
    if wrong or any(type(v) is not int or not least <= v <= most for v in values):
        raise _Wrong(f"{what} is {values!r}: wanted {count} whole numbers from {least} to {most}")
    return tuple(values)


def _number(settings: Mapping, name: str) -> float:
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Wrong(f"{name} is {value!r}: wanted a number")
    return value


def _flag(settings: Mapping, name: str) -> bool:
    if not isinstance(settings[name], bool):
        raise _Wrong(f"{name} is {settings[name]!r}: wanted true or false")
    return settings[name]


def _only(shapes: list[Shape], *dims: int) -> Shape:
    """The one input's shape, which must have so many dimensions."""
    if len(shapes) != 1:
        raise _Wrong(f"takes one value, is given {len(shapes)}")
    if dims and len(shapes[0]) not in dims:
        raise _Wrong(f"is given a value of shape {shapes[0]}")
    return shapes[0]


def _per_channel(step: Step, name: str, shape: Shape, others: tuple[Shape, ...] = ()) -> None:
    wanted = ((shape[0],), *others)
    if step.tensors[name].shape not in wanted:
        raise _Wrong(f"tensor {name!r} has shape {step.tensors[name].shape}, the value has {shape}")


def _window(step: Step, shape: Shape, kernel: Shape, ceil: bool = False) -> Shape:
    """Height and width behind a window that slides."""
    stride = _positive(step.settings["stride"], 2, "stride")
    padding = _positive(step.settings["padding"], 2, "padding", 0)
    dilation = _positive(step.settings["dilation"], 2, "dilation") if "dilation" in step.settings else (1, 1)
    sizes = []
    for size, k, s, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        if p > reach or reach > size + 2 * p:
            raise _Wrong(f"a window of {reach} px with padding {p} on {size} px")
        room = size + 2 * p - reach
        steps = -(-room // s) if ceil else room // s
        # as torch: no window begins in the padding behind the picture
        sizes.append(steps if ceil and steps * s >= size + p else steps + 1)
    return tuple(sizes)


def _convolved(step: Step, shape: Shape, weight: Shape) -> Shape:
    outputs, inputs, *kernel = _positive(weight, 4, "shape of the weight")
    (groups,) = _positive([step.settings["groups"]], 1, "groups")
    if inputs * groups != shape[0] or outputs % groups:
        raise _Wrong(f"a weight {weight} in {groups} groups on a value of shape {shape}")
    return (outputs, *_window(step, shape, tuple(kernel)))


def _conv2d(step: Step, shapes: list[Shape]) -> Shape:
    made = _convolved(step, _only(shapes, 3), step.tensors["weight"].shape)
    if "bias" in step.tensors:
        _per_channel(step, "bias", made)
    return made


def _check_bits(step: Step, weight: Shape) -> None:
    wanted = (-(-math.prod(weight) // 8),)
    if step.tensors["bits"].shape != wanted:
        raise _Wrong(f"{step.tensors['bits'].shape} bytes of bits, a weight of {weight} takes {wanted}")


def _binary_conv2d(step: Step, shapes: list[Shape]) -> Shape:
    weight = tuple(step.settings["shape"])
    made = _convolved(step, _only(shapes, 3), weight)
    _check_bits(step, weight)
    if step.settings["padding_value"] not in (-1, 0, 1):
        raise _Wrong(f"padding_value is {step.settings['padding_value']!r}: wanted -1, 0 or 1")
    return made


def _linear(step: Step, shapes: list[Shape]) -> Shape:
    (features,) = _only(shapes, 1)
    weight = step.tensors["weight"].shape
    if len(weight) != 2 or weight[1] != features:
        raise _Wrong(f"a weight {weight} on {features} features")
    if "bias" in step.tensors:
        _per_channel(step, "bias", (weight[0],))
    return (weight[0],)


def _binary_linear(step: Step, shapes: list[Shape]) -> Shape:
    (features,) = _only(shapes, 1)
    weight = _positive(step.settings["shape"], 2, "shape of the weight")
    if weight[1] != features:
        raise _Wrong(f"a weight {weight} on {features} features")
    _check_bits(step, weight)
    return (weight[0],)


def _binarize(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes)
    _per_channel(step, "threshold", shape)
    if "direction" in step.tensors:
        _per_channel(step, "direction", shape)
        if not np.isin(step.tensors["direction"], (-1, 1)).all():
            raise _Wrong("a direction is neither -1 nor +1")
    return shape


def _affine(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes)
    _per_channel(step, "scale", shape, (shape,))
    if "shift" in step.tensors:
        _per_channel(step, "shift", shape)
    return shape


def _prelu(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes)
    _per_channel(step, "slope", shape)
    return shape


def _clamp(step: Step, shapes: list[Shape]) -> Shape:
    if _number(step.settings, "min") > _number(step.settings, "max"):
        raise _Wrong("min is above max")
    return _only(shapes)


def _max_pool2d(step: Step, shapes: list[Shape]) -> Shape:
    shape = _only(shapes, 3)
    kernel = _positive(step.settings["kernel"], 2, "kernel")
    return (shape[0], *_window(step, shape, kernel, _flag(step.settings, "ceil_mode")))


def _avg_pool2d(step: Step, shapes: list[Shape]) -> Shape:
    _flag(step.settings, "count_include_pad")
    return _max_pool2d(step, shapes)


def _upsample(step: Step, shapes: list[Shape]) -> Shape:
    channels, height, width = _only(shapes, 3)
    down, across = _positive(step.settings["factor"], 2, "factor", most=64)
    return channels, height * down, width * across


def _add(step: Step, shapes: list[Shape]) -> Shape:
    if len(shapes) != 2 or shapes[0] != shapes[1]:
        raise _Wrong(f"adds values of shapes {shapes}")
    return shapes[0]


def _concat(step: Step, shapes: list[Shape]) -> Shape:
    if not shapes or len({shape[1:] for shape in shapes}) != 1:
        raise _Wrong(f"joins values of shapes {shapes}")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _stack(step: Step, shapes: list[Shape]) -> Shape:
    if not shapes or len(set(shapes)) != 1:
        raise _Wrong(f"stacks values of shapes {shapes}")
    return (len(shapes), *shapes[0])


def _flatten(step: Step, shapes: list[Shape]) -> Shape:
    return (math.prod(_only(shapes)),)


OPERATIONS: dict[str, Callable[[Step, list[Shape]], Shape]] = {
    "conv2d": _conv2d,
    "binary_conv2d": _binary_conv2d,
    "linear": _linear,
    "binary_linear": _binary_linear,
    "binarize": _binarize,
    "affine": _affine,
    "prelu": _prelu,
    "relu": lambda step, shapes: _only(shapes),
    "clamp": _clamp,
    "sigmoid": lambda step, shapes: _only(shapes),
    "tanh": lambda step, shapes: _only(shapes),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "mean2d": lambda step, shapes: (_only(shapes, 3)[0], 1, 1),
    "upsample_nearest": _upsample,
    "add": _add,
    "concat": _concat,
    "stack": _stack,
    "flatten": _flatten,
}
"""The operations, each with the function that checks a step of it and gives the shape of its value.

================= ======================================================== ==================================
operation         value                                                    settings; tensors
================= ======================================================== ==================================
conv2d            real convolution, zero padding                           stride, padding, dilation, groups;
                                                                           weight (O, I/groups, kh, kw), bias
binary_conv2d     the same with ±1 on both sides; integers                 shape, stride, padding, dilation,
                                                                           groups, padding_value; bits
linear            x Wᵀ + bias                                              weight (O, I), bias
binary_linear     the same with ±1 on both sides; integers                 shape; bits
binarize          +1 where d·x >= d·threshold, else -1                     threshold (C,), direction d (C,)
affine            x · scale + shift                                        scale (C,) or (C, H, W), shift (C,)
prelu             x where x >= 0, else slope · x                           slope (C,)
clamp             between two bounds                                       min, max
max_pool2d        largest of a window                                      kernel, stride, padding, dilation,
                                                                           ceil_mode
avg_pool2d        mean of a window                                         kernel, stride, padding, ceil_mode,
                                                                           count_include_pad
mean2d            mean over height and width, (C, 1, 1)
upsample_nearest  every pixel repeated                                     factor (height, width)
add               sum of two values
concat, stack     values joined along the channels, or along a new axis
flatten           all in one row
relu sigmoid tanh of each number
================= ======================================================== ==================================
"""
