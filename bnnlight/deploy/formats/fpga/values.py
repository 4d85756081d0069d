"""What the writing of a QONNX graph knows of real values: their fixed-point type, and what is left to be rounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnnlight.deploy.formats.fpga.whole import Whole
from bnnlight.deploy.program import Step

MAX_CONSTANT_BITS = 40
"""Behind the point of a constant that is exact."""
LOGIT_BITS = 16
"""Behind the point of the last factor and summand, which are real."""


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
