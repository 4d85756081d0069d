"""`Program` and `Step`: a frozen network as a list of operations with their numbers; none of it is run as code.

A frozen network is a :class:`Program`. The three formats are three ways to write one down, and each engine runs the
same steps. Numbers are numpy's; torch is not needed to read a program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

INPUT = "input"
"""Name of the value that the first steps take: the picture, ``(N, C, H, W)`` float32."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        name: of its value, unique in the program: the module's path in the network, or the function's name.
        op: one of :data:`bnnlight.deploy.program.operations.OPERATIONS`.
        inputs: names of the values that it takes.
        settings: numbers and texts, as JSON knows them.
        tensors: arrays, float32 but for ``bits`` (uint8, see :mod:`bnnlight.deploy.program.bits`).
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A frozen network: its value is that of the last step.

    Attributes:
        input_shape: ``(C, H, W)`` of one picture.
        steps: in an order in which each finds its inputs.
    """

    input_shape: Shape
    steps: tuple[Step, ...]

    @property
    def output(self) -> str:
        """Name of the last step."""
        return self.steps[-1].name

    @property
    def binary_steps(self) -> tuple[Step, ...]:
        """The steps with 1-bit weights."""
        return tuple(step for step in self.steps if "bits" in step.tensors)

    @property
    def num_binary(self) -> int:
        """Number of 1-bit weights."""
        return sum(math.prod(step.settings["shape"]) for step in self.binary_steps)

    @property
    def num_real(self) -> int:
        """Number of real numbers."""
        return sum(t.size for step in self.steps for name, t in step.tensors.items() if name != "bits")

    def consumers(self) -> dict[str, list[Step]]:
        """For each value the steps that take it."""
        takers: dict[str, list[Step]] = {step.name: [] for step in self.steps} | {INPUT: []}
        for step in self.steps:
            for name in step.inputs:
                takers[name].append(step)
        return takers
