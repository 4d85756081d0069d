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

from bnnlight.deploy.program import Program
from bnnlight.deploy.program.bits import unpack_signs


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
    from bnnlight.deploy.formats.packed import InTorch, load_packed

    twin = real_twin(load_packed(file)[0])
    return Twin(InTorch(twin, num_threads), 4 * twin.num_real)


def openvino_twin(file: Path, num_threads: int | None = None) -> Twin:
    """The twin of a shipped OpenVINO model, in OpenVINO."""
    from openvino import opset13

    from bnnlight.deploy.formats.openvino import read_openvino
    from bnnlight.deploy.formats.openvino_compiled import Compiled

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


def onnx_twin(file: Path, num_threads: int | None = None) -> Twin:
    """The twin of a shipped ONNX model, in onnxruntime: the same convolutions, real in both, without the signs."""
    import onnx

    from bnnlight.deploy.formats.onnx import BINARIZE, Session

    model = onnx.load(file)
    makers = {node.output[0]: node for node in model.graph.node}
    source = {}
    for node in model.graph.node:
        if node.op_type == BINARIZE:
            compared = makers[node.input[0]].input[0]
            # where the comparison is turned round, the number is multiplied by -1 in between, without a step's name
            source[node.output[0]] = makers[compared].input[1] if compared.startswith(":") else compared
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = source.get(name, name)
    session = Session(model.SerializeToString(), file, num_threads)
    # bytes of bits hold eight weights each
    sizes = [(c.data_type == onnx.TensorProto.UINT8, int(np.prod(c.dims))) for c in model.graph.initializer]
    num_bytes = sum(4 * size * (8 if packed else 1) for packed, size in sizes)
    return Twin(lambda images: session(images)[0], num_bytes)


TWINS: dict[str, Callable[[Path, int | None], Twin]] = {
    "packed": packed_twin,
    "openvino": openvino_twin,
    "onnx": onnx_twin,
}
"""By format."""
