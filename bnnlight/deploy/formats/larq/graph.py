"""The graph that a program becomes, while it is made: values of steps, real or packed, and ways to add operators.

Maps are ``(1, H, W, C)``, channels last. The signs of a binarization are packed, 32 channels to a word of int32, bit 1
for -1; ±1 as real numbers are made of them only where something else than a binary layer takes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnnlight.deploy.formats.larq.limits import WORD, refuse
from bnnlight.deploy.formats.larq.tflite_file import TFLiteFile, Value
from bnnlight.deploy.formats.larq.windows import Window
from bnnlight.deploy.program import INPUT, Program, Shape, Step
from bnnlight.deploy.program.operations import check


class Graph:
    """The operators made so far.

    Args:
        program: a frozen network.
        half: stores the weights of real convolutions and linear layers as float16.

    Attributes:
        file: that the operators are in.
        shapes: of the program's values, ``(C, H, W)``.
        picture: the input, ``(1, H, W, C)``.
        signs: name of every binarization → its packed bits.

    Raises:
        ValueError: the program is not sound, or the engine cannot take it.
    """

    def __init__(self, program: Program, half: bool = False) -> None:
        self.shapes, self.half = check(program), half
        refuse(program, self.shapes)
        self.file = TFLiteFile()
        self.picture = self.file.tensor(INPUT, _channels_last(program.input_shape))
        self._values = {INPUT: self.picture}
        self._bits: dict[str, Value] = {}
        self.signs: dict[str, Value] = {}

    def shape(self, step: Step) -> tuple[int, ...]:
        """Of a step's value in the file."""
        return _channels_last(self.shapes[step.name])

    def value(self, name: str) -> Value:
        """A step's value in real numbers."""
        if name not in self._values:
            output = self.file.tensor(f"{name}:float", _channels_last(self.shapes[name]))
            self.file.operator("LceDequantize", [self._bits[name]], [output])
            self._values[name] = output
        return self._values[name]

    def bits(self, name: str) -> Value:
        """A step's value, ±1, as packed bits."""
        if name not in self._bits:
            self._bits[name] = self._packed(f"{name}:bits", self.value(name))
        return self._bits[name]

    def is_packed(self, name: str) -> bool:
        return name in self._bits

    def keep(self, step: Step, value: Value) -> None:
        """A step's value, once it is made."""
        self._values[step.name] = value

    def keep_bits(self, step: Step, bits: Value) -> None:
        self._bits[step.name] = bits

    def pack(self, step: Step, x: Value) -> None:
        """Packs the signs of real numbers as a step's value."""
        self.keep_bits(step, self._packed(step.name, x))

    def _packed(self, name: str, x: Value) -> Value:
        output = self.file.tensor(name, (*x.shape[:-1], -(-x.shape[-1] // WORD)), np.int32)
        (bits,) = self.file.operator("LceQuantize", [x], [output])
        return bits

    def op(self, step: Step, code: str, *inputs: Value | None, shape: tuple[int, ...], last: bool, **options) -> Value:
        """An operator with one real output, which is the step's value where it is the last of the step."""
        output = self.file.tensor(step.name if last else f"{step.name}:{code}", shape)
        (value,) = self.file.operator(code, inputs, [output], **options)
        if last:
            self.keep(step, value)
        return value

    def simple(self, step: Step, code: str, *inputs: Value, last: bool = True, **options: Any) -> Value:
        """An operator with an output like its first input."""
        return self.op(step, code, *inputs, shape=inputs[0].shape, last=last, **options)

    def reshape(self, step: Step, x: Value) -> None:
        """The last operator of a step whose value is another one's numbers in another shape."""
        self.op(step, "RESHAPE", x, self.integers(*self.shape(step)), shape=self.shape(step), last=True)

    def integers(self, *values: int) -> Value:
        return self.file.constant(np.array(values, np.int32))

    def along(self, step: Step, array: np.ndarray) -> Value:
        """One number a channel, or one a value, shaped for the step's value."""
        dims = len(self.shapes[step.name])
        if array.ndim == 3 and dims == 3:
            array = array.transpose(1, 2, 0)
        elif array.ndim == 1 and dims not in (1, 3):
            array = array.reshape(-1, *[1] * (dims - 1))
        return self.file.constant(array)

    def padded(self, step: Step, x: Value, over: tuple[Window, Window], number: np.generic | None = None) -> Value:
        """A map with its padding: zeros, or a number of the map's type. Packed bits of zeros are +1."""
        height, width = ((window.before, window.after) for window in over)
        if not any((*height, *width)):
            return x
        sides = self.file.constant(np.array([(0, 0), height, width, (0, 0)], np.int32))
        _, rows, columns, channels = x.shape
        shape = (1, rows + sum(height), columns + sum(width), channels)
        output = self.file.tensor(f"{step.name}:padded", shape, self.file.dtype(x))
        fill = [] if number is None else [self.file.constant(np.asarray(number))]
        (value,) = self.file.operator("PADV2" if fill else "PAD", [x, sides, *fill], [output])
        return value


def _channels_last(shape: Shape) -> tuple[int, ...]:
    """``(C, H, W)`` as ``(1, H, W, C)``; stacked maps keep the stack in front."""
    return (1, *shape[:-3], *shape[-2:], shape[-3]) if len(shape) > 2 else (1, *shape)
