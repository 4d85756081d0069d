"""The real-valued twin of a shipped model: what its time is measured against.

The twin has the same structure, with ordinary convolutions and linear layers in place of the binary ones and nothing
in place of signs: batch norms that were folded into thresholds cost it nothing, so it is the quickest real network
that could stand there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bnnlight.deploy.bits import unpack_signs
from bnnlight.deploy.program import Program


class Twin:
    """A real-valued network that runs in one of the engines.

    Args:
        run: ``(N, C, H, W)`` float32 → its output.
        num_bytes: of its weights and other numbers, as float32.
    """

    def __init__(self, run: Callable[[np.ndarray], Any], num_bytes: int) -> None:
        self.run, self.num_bytes = run, num_bytes

    def __call__(self, images: np.ndarray) -> Any:
        return self.run(images)


def real_twin(program: Program) -> Program:
    """A program with real layers where the given one has binary ones. Padding is with zeros."""
    renamed: dict[str, str] = {}
    steps = []
    for step in program.steps:
        step = replace(step, inputs=tuple(renamed.get(name, name) for name in step.inputs))
        if step.op == "binarize":
            renamed[step.name] = step.inputs[0]
            continue
        if step.op.startswith("binary_"):
            weight = unpack_signs(step.tensors["bits"], tuple(step.settings["shape"]))
            settings = {k: v for k, v in step.settings.items() if k not in ("shape", "padding_value")}
            step = replace(step, op=step.op.removeprefix("binary_"), settings=settings, tensors={"weight": weight})
        steps.append(step)
    return replace(program, steps=tuple(steps))


def packed_twin(file: Path, num_threads: int | None = None) -> Twin:
    """The twin of a packed model, in torch."""
    from bnnlight.deploy.packed import load_packed
    from bnnlight.deploy.packed_engine import run_in_torch

    twin = real_twin(load_packed(file)[0])
    return Twin(run_in_torch(twin, num_threads), 4 * twin.num_real)


def openvino_twin(file: Path, num_threads: int | None = None) -> Twin:
    """The twin of a shipped OpenVINO model, in OpenVINO."""
    from openvino import opset13

    from bnnlight.deploy.openvino import Compiled, read_openvino

    model = read_openvino(file)[0]
    num_bytes = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() != "u1":
            num_bytes += 4 * int(np.prod(node.get_output_shape(0)))
        if node.get_type_name() != "BinaryConvolution":
            continue
        bits, weight = node.input_value(0).get_node(), node.input_value(1).get_node()
        shape = tuple(weight.get_output_shape(0))
        window = (node.get_attributes()[name] for name in ("strides", "pads_begin", "pads_end", "dilations"))
        real = opset13.convolution(bits.input_value(0), unpack_signs(weight.data, shape), *window)
        node.output(0).replace(real.output(0))
        num_bytes += 4 * int(np.prod(shape))
    return Twin(Compiled(model, num_threads), num_bytes)
