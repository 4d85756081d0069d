"""The operations of a program, and the check that a program is sound and asks for no more than its limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from bnnlight.deploy.program import shapes
from bnnlight.deploy.program.shapes import Wrong, positive, weight_shape
from bnnlight.deploy.program.steps import INPUT, Program, Shape, Step
from bnnlight.deploy.program.untrusted import is_line, shown

MAX_VALUES = 2**28
"""Most numbers that the values of a program may have at one time for one picture: 1 GiB as float32."""

MAX_UNFOLDED = 2**30
"""Most numbers in all windows of a convolution, written out one after the other, as torch does on small pictures."""

MAX_WORK = 2**38
"""Most multiply-adds for one picture: thirty times those of an hourglass of 256 features on 256×256 px."""

MAX_STEPS = 10_000
"""Most steps of a program: a ResNet-152 has about a thousand."""


class Operation(NamedTuple):
    """What a step of one kind has.

    Attributes:
        shape: checks a step, of which the rest is known to be there, and gives the shape of its value.
        settings: names, all of which a step has.
        tensors: names of those that it has.
        optional: names of those that it may have.
    """

    shape: Callable[[Step, list[Shape]], Shape]
    settings: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_SLIDING = ("stride", "padding", "dilation", "groups")
_POOL = ("kernel", "stride", "padding", "ceil_mode")

OPERATIONS: dict[str, Operation] = {
    "conv2d": Operation(shapes.convolution, _SLIDING, ("weight",), ("bias",)),
    "binary_conv2d": Operation(shapes.convolution, ("shape", *_SLIDING, "padding_value"), ("bits",)),
    "linear": Operation(shapes.linear, (), ("weight",), ("bias",)),
    "binary_linear": Operation(shapes.linear, ("shape",), ("bits",)),
    "binarize": Operation(shapes.binarize, (), ("threshold",), ("direction",)),
    "affine": Operation(shapes.affine, (), ("scale",), ("shift",)),
    "prelu": Operation(shapes.prelu, (), ("slope",)),
    "relu": Operation(shapes.same),
    "clamp": Operation(shapes.clamp, ("min", "max")),
    "round": Operation(shapes.round_, ("fraction_bits", "min", "max")),
    "sigmoid": Operation(shapes.same),
    "tanh": Operation(shapes.same),
    "silu": Operation(shapes.same),
    "gelu": Operation(shapes.gelu, ("approximate",)),
    "hardswish": Operation(shapes.same),
    "hardsigmoid": Operation(shapes.same),
    "max_pool2d": Operation(shapes.pool, (*_POOL, "dilation")),
    "avg_pool2d": Operation(shapes.pool, (*_POOL, "count_include_pad")),
    "adaptive_avg_pool2d": Operation(shapes.adaptive, ("size",)),
    "mean2d": Operation(shapes.mean),
    "upsample_nearest": Operation(shapes.upsample, ("factor",)),
    "add": Operation(shapes.add),
    "multiply": Operation(shapes.multiply),
    "slice_channels": Operation(shapes.slice_channels, ("start", "stop")),
    "shuffle_channels": Operation(shapes.shuffle_channels, ("groups",)),
    "concat": Operation(shapes.concat),
    "stack": Operation(shapes.stack),
    "flatten": Operation(shapes.flatten),
}
"""The operations.

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
round             nearest multiple of 2^-fraction_bits, halves to even,    fraction_bits, min, max
                  between two bounds
max_pool2d        largest of a window                                      kernel, stride, padding, dilation,
                                                                           ceil_mode
avg_pool2d        mean of a window                                         kernel, stride, padding, ceil_mode,
                                                                           count_include_pad
adaptive_avg_pool2d
                  mean of windows that are laid over the picture evenly    size (height, width)
mean2d            mean over height and width, (C, 1, 1)
upsample_nearest  every pixel repeated                                     factor (height, width)
add               sum of two values
multiply          product of two values, one repeated where it has sides
                  of 1
slice_channels    channels start to stop - 1                               start, stop
shuffle_channels  channel i·C/groups + j becomes channel j·groups + i      groups
concat, stack     values joined along the channels, or along a new axis
flatten           all in one row
gelu              x · Φ(x) of each number, or its form with tanh           approximate: none or tanh
relu sigmoid tanh silu hardswish hardsigmoid of each number
================= ======================================================== ==================================

Tensors ``bias``, ``direction`` and ``shift`` may be left out, settings may not. All numbers are finite, but for a
threshold of ±∞, whose sign is always the same.
"""


def check(program: Program) -> dict[str, Shape]:
    """Makes sure that every step can be run, and finds the shape of every value for one picture.

    Raises:
        ValueError: an operation is not known, settings or tensors are missing, unknown, wrong or do not fit the
            step's input, or the program would take unreasonably much memory or time; the message, one line, names
            the step.
    """
    known_shapes: dict[str, Shape] = {INPUT: positive(program.input_shape, 3, "input shape")}
    if not 1 <= len(program.steps) <= MAX_STEPS:
        raise ValueError(f"the program has {len(program.steps) or 'no'} steps: expected 1 to {MAX_STEPS}")
    last_use = _check_parts(program)
    alive, work = math.prod(known_shapes[INPUT]), 0
    for index, step in enumerate(program.steps):
        inputs = [known_shapes[name] for name in step.inputs]
        with _naming(step):
            output = OPERATIONS[step.op].shape(step, inputs)
            work += _multiply_adds(step, inputs, output)
            for amount, most, what in (
                (alive + math.prod(output) + _padded(step, inputs), MAX_VALUES, "numbers in memory"),
                (_unfolded(step, inputs, output), MAX_UNFOLDED, "numbers in its windows"),
                (work, MAX_WORK, "multiply-adds up to here"),
            ):
                if amount > most:
                    raise Wrong(f"for its value of shape {output} it takes {amount} {what}: at most {most} are allowed")
        known_shapes[step.name] = output
        # a value that nothing takes is kept to the end
        freed = [name for name in {*step.inputs} if last_use[name] == index]
        alive += math.prod(output) - sum(math.prod(known_shapes[name]) for name in freed)
    return known_shapes


@contextmanager
def _naming(step: Step) -> Iterator[None]:
    """Puts the step's name in front of what is wrong with it."""
    try:
        yield
    except Wrong as error:
        op = step.op if isinstance(step.op, str) and step.op in OPERATIONS else shown(step.op)
        raise ValueError(f"step {shown(step.name)} ({op}): {error}") from error


def _check_parts(program: Program) -> dict[str, int]:
    """Makes sure that steps have what their operations take; finds the last step that takes a value."""
    available, last_use = {INPUT}, {}
    for index, step in enumerate(program.steps):
        with _naming(step):
            _check_names(step, available)
            _, settings, tensors, optional = OPERATIONS[step.op]
            _check_complete("setting", step.settings, settings, ())
            _check_complete("tensor", step.tensors, tensors, optional)
            for name, tensor in step.tensors.items():
                _check_tensor(name, tensor)
        available.add(step.name)
        last_use |= dict.fromkeys(step.inputs, index)
    return last_use


def _check_names(step: Step, available: set[str]) -> None:
    if not is_line(step.name) or not step.name:
        raise Wrong("the name is not a single line of text")
    if step.name in available:
        raise Wrong("the name is already taken")
    if not isinstance(step.op, str) or step.op not in OPERATIONS:
        raise Wrong("there is no such operation")
    if not isinstance(step.inputs, list | tuple) or not all(isinstance(name, str) for name in step.inputs):
        raise Wrong(f"inputs are {shown(step.inputs)}: expected names")
    unknown = [name for name in step.inputs if name not in available]
    if unknown:
        raise Wrong(f"takes {shown(unknown[0])}, which no earlier step gives")


def _check_complete(kind: str, has: Mapping[str, Any], needed: tuple[str, ...], optional: tuple[str, ...]) -> None:
    lacking = [name for name in needed if name not in has]
    if lacking:
        raise Wrong(f"lacks the {kind} {lacking[0]!r}")
    unknown = [name for name in has if name not in needed + optional]
    if unknown:
        raise Wrong(f"has an unknown {kind} {shown(unknown[0])}")


def _check_tensor(name: str, tensor: Any) -> None:
    expected = np.dtype(np.uint8 if name == "bits" else np.float32)
    if not isinstance(tensor, np.ndarray) or tensor.dtype != expected:
        raise Wrong(f"tensor {name!r} is {getattr(tensor, 'dtype', type(tensor).__name__)}, not {expected}")
    if np.isnan(tensor).any() or (name != "threshold" and np.isinf(tensor).any()):
        raise Wrong(f"tensor {name!r} has numbers that are not finite")


def _multiply_adds(step: Step, inputs: list[Shape], output: Shape) -> int:
    """One for each number of a value, and for each that a window or a weight takes in."""
    if "size" in step.settings:
        # windows overlap where the sides are no multiples
        sides = zip(inputs[0][1:], output[1:], strict=True)
        return output[0] * math.prod(sum(b - a for a, b in shapes.adaptive_windows(*side)) for side in sides)
    if "kernel" in step.settings:
        return math.prod(output) * math.prod(map(min, step.settings["kernel"], inputs[0][1:]))
    if "bits" in step.tensors or "weight" in step.tensors:
        return math.prod(output) * math.prod(weight_shape(step)[1:])
    return math.prod(output) + sum(map(math.prod, inputs))


def _is_convolution(step: Step) -> bool:
    return "groups" in step.settings and "stride" in step.settings


def _padded(step: Step, inputs: list[Shape]) -> int:
    """Numbers of the padded input of a convolution; other operations copy none."""
    if not _is_convolution(step):
        return 0
    channels, *sizes = inputs[0]
    return channels * math.prod(size + 2 * p for size, p in zip(sizes, step.settings["padding"], strict=True))


def _unfolded(step: Step, inputs: list[Shape], output: Shape) -> int:
    """Numbers in all windows of a convolution."""
    return math.prod((inputs[0][0], *weight_shape(step)[2:], *output[1:])) if _is_convolution(step) else 0
