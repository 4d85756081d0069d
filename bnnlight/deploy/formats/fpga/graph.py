"""Nodes and constants of a QONNX graph, in the forms that all FPGA compilers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bnnlight.deploy.formats.fpga.values import LOGIT_BITS, MAX_CONSTANT_BITS, Precision, Refused, Scaled
from bnnlight.deploy.formats.fpga.whole import Whole, bits_of
from bnnlight.deploy.manifest import PictureInput
from bnnlight.deploy.program import INPUT, Program
from bnnlight.deploy.program.operations import check

DOMAIN = "qonnx.custom_op.general"
"""Of the quantizers, https://github.com/fastmachinelearning/qonnx."""


class Graph:
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
            raise Refused("it is given real numbers: put a bnnlight.nn.FixedPoint before it")
        if value.pooled[0]:
            raise Refused("it is given a mean over pixels: that may only come before a FixedPointLinear")
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
