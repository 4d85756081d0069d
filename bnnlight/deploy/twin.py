"""The real-valued twin of a shipped model: what its time is measured against.

The twin has the same structure, with ordinary convolutions and linear layers in place of the binary ones and nothing
in place of signs: batch norms that were folded into thresholds cost it nothing, so it is the quickest real network
that could stand there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bnnlight.deploy.bits import unpack_signs
from bnnlight.deploy.program import Program

Network = Callable[[np.ndarray], np.ndarray]


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


def openvino_twin(file: Path, num_threads: int | None = None) -> Network:
    """The twin of a shipped OpenVINO model, in OpenVINO."""
    from openvino import opset13

    from bnnlight.deploy.openvino import Compiled, read_openvino

    model = read_openvino(file)[0]
    for node in model.get_ordered_ops():
        if node.get_type_name() != "BinaryConvolution":
            continue
        bits, weight = node.input_value(0).get_node(), node.input_value(1).get_node()
        shape = tuple(weight.get_output_shape(0))
        window = node.get_attributes()
        real = opset13.convolution(
            bits.input_value(0),
            unpack_signs(weight.data, shape),
            *(window[name] for name in ("strides", "pads_begin", "pads_end", "dilations")),
        )
        node.output(0).replace(real.output(0))
    return Compiled(model, num_threads)
