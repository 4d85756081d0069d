"""The real-valued twin of a shipped model: what its time is measured against.

The twin has the same structure, with ordinary convolutions and linear layers in place of the binary ones and nothing
in place of signs: batch norms that were folded into thresholds cost it nothing, so it is the quickest real network
that could stand there. It is timed in float32 by the model's own engine, and on 8-bit integers in OpenVINO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13

from bnnlight.deploy.formats.openvino import read_openvino
from bnnlight.deploy.formats.openvino_compiled import Compiled
from bnnlight.deploy.formats.openvino_graph import LARGEST, to_openvino
from bnnlight.deploy.program import Program
from bnnlight.deploy.program.bits import unpack_signs
from bnnlight.deploy.proof.quantized import LAYERS, fold_constants, quantized

OPENVINO = "OpenVINO"
"""Its name, for people."""


class Twin:
    """A real-valued network that runs in one of the engines.

    Args:
        run: ``(N, C, H, W)`` float32 → its output.
        num_bytes: of its weights and other numbers.
        engine: name of the engine, for people.
    """

    def __init__(self, run: Callable[[np.ndarray], Any], num_bytes: int, engine: str) -> None:
        self.run, self.num_bytes, self.engine = run, num_bytes, engine

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
    """The twin of a packed model, in torch, or in OpenVINO where torch is not installed."""
    from bnnlight.deploy.formats.packed import InTorch, in_torch_or_openvino, load_packed

    twin = real_twin(load_packed(file)[0])
    network = in_torch_or_openvino(twin, num_threads)
    return Twin(network, 4 * twin.num_real, "torch" if isinstance(network, InTorch) else OPENVINO)


def openvino_twin(file: Path, num_threads: int | None = None) -> Twin:
    """The twin of a shipped OpenVINO model, in OpenVINO."""
    return _in_openvino(_openvino_model(file), num_threads)


def onnx_twin(file: Path, num_threads: int | None = None) -> Twin:
    """The twin of a shipped ONNX model, in onnxruntime: the same convolutions, real in both, without the signs."""
    import onnx

    from bnnlight.deploy.formats.onnx import Session

    model = _onnx_model(file)
    session = Session(model.SerializeToString(), file, num_threads)
    # bytes of bits hold eight weights each
    sizes = [(c.data_type == onnx.TensorProto.UINT8, int(np.prod(c.dims))) for c in model.graph.initializer]
    num_bytes = sum(4 * size * (8 if packed else 1) for packed, size in sizes)
    return Twin(lambda images: session(images)[0], num_bytes, "onnxruntime")


TWINS: dict[str, Callable[[Path, int | None], Twin]] = {
    "packed": packed_twin,
    "openvino": openvino_twin,
    "onnx": onnx_twin,
}
"""By format."""


def int8_twin(file: Path, form: str, num_threads: int | None = None) -> Twin:
    """The twin on 8-bit integers, in OpenVINO: what one would ship in place of a binary network.

    Its ranges are found on noise, which changes no time. Its answers mean nothing: the weights were trained to be
    binary.

    Args:
        file: a shipped model.
        form: its format, a key of :data:`TWINS`.
        num_threads: of a call.
    """
    model = {"packed": _packed_model, "openvino": _openvino_model, "onnx": _onnx_in_openvino}[form](file)
    shape = tuple(model.input(0).shape)[1:]
    noise = np.random.default_rng(0).standard_normal((4, *shape), dtype=np.float32)
    return _in_openvino(quantized(model, noise), num_threads)


def _in_openvino(model: ov.Model, num_threads: int | None) -> Twin:
    sizes = {"f32": 4, "f16": 4, "i8": 1}  # indices and shapes are not counted
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    num_bytes = sum(
        sizes.get(node.get_element_type().to_string(), 0) * int(np.prod(node.get_output_shape(0))) for node in constants
    )
    network = Compiled(model, num_threads)
    return Twin(lambda images: network(images)[0], num_bytes, OPENVINO)


def _packed_model(file: Path) -> ov.Model:
    from bnnlight.deploy.formats.packed import load_packed

    return to_openvino(real_twin(load_packed(file)[0]))


def _openvino_model(file: Path) -> ov.Model:
    """The twin of a shipped OpenVINO model. Real layers that it has on 8-bit integers are in float32 again."""
    model = read_openvino(file)[0]
    for node in model.get_ordered_ops():
        if _needless(node):
            node.output(0).replace(node.input_value(0))
        if node.get_type_name() != "BinaryConvolution":
            continue
        bits, weight = node.input_value(0).get_node(), node.input_value(1).get_node()
        shape = tuple(weight.get_output_shape(0))
        window = (node.get_attributes()[name] for name in ("strides", "pads_begin", "pads_end", "dilations"))
        real = opset13.convolution(bits.input_value(0), unpack_signs(weight.data, shape), *window)
        node.output(0).replace(real.output(0))
    fold_constants(model)
    return model


def _needless(node: ov.Node) -> bool:
    """Whether a node is there for the binary network alone: it rounds to 8 bits, or keeps its neighbours apart."""
    kind, settings = node.get_type_name(), node.get_attributes()
    if kind == "Maximum":
        other = node.input_value(1).get_node()
        return other.get_type_name() == "Constant" and other.data.size == 1 and other.data.item() <= -LARGEST
    return (kind == "FakeQuantize" and settings["levels"] > 2) or (kind == "Clamp" and settings["max"] >= LARGEST)


def _onnx_model(file: Path) -> Any:
    """The twin of a shipped ONNX model, as an ``onnx.ModelProto``."""
    import onnx

    from bnnlight.deploy.formats.onnx import BINARIZE

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
    return model


def _onnx_in_openvino(file: Path) -> ov.Model:
    model = ov.Core().read_model(_onnx_model(file).SerializeToString())
    shape = model.input(0).get_partial_shape()
    shape[0] = 1
    model.reshape(shape)
    # OpenVINO folds no bitwise operation, and mixes up weights that it unpacks when it compiles for several streams
    layers = [node for node in model.get_ordered_ops() if node.get_type_name() in LAYERS]
    config = {"NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    unpacked = ov.Core().compile_model(ov.Model([layer.input_value(1) for layer in layers], []), "CPU", config)
    for layer, weight in zip(layers, unpacked([]).values(), strict=True):
        layer.input(1).replace_source_output(opset13.constant(weight.copy()).output(0))
    return model
