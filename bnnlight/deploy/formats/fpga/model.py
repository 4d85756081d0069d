"""A program as a QONNX model.

QONNX is ONNX with quantizers, https://arxiv.org/abs/2206.07527. Its compilers compute with whole numbers, so a program
is taken that has nothing else from the picture on: see ``bnnlight.backbones.FixedPointResNet``. The graph takes pixels
as they are stored, 0 to 255. Signs are a ``BipolarQuant``; where they are padded with −1 they are bits 0 and 1, since
all that these compilers pad with is 0, and the sum of ±1 is then 2 · (sum over bits) − (sum of the weights).
"""

from __future__ import annotations

from onnx import ModelProto, TensorProto, helper

from bnnlight.deploy.formats.fpga.directions import rising
from bnnlight.deploy.formats.fpga.graph import DOMAIN, Graph
from bnnlight.deploy.formats.fpga.operators import WRITE
from bnnlight.deploy.formats.fpga.values import Precision, Refused
from bnnlight.deploy.manifest import PictureInput
from bnnlight.deploy.program import INPUT, Program
from bnnlight.deploy.program.operations import check

OPSET, IR_VERSION = 16, 8


def to_qonnx(program: Program, picture: PictureInput) -> tuple[ModelProto, Precision]:
    """The program as a QONNX model: ``input``, ``(1, C, H, W)`` float32, pixels from 0 to 255, to the last value.

    Args:
        program: a frozen network.
        picture: how a pixel becomes the network's input.

    Returns:
        The model, and the fixed-point type that holds all of its constants and sums.

    Raises:
        ValueError: a step has real numbers where whole ones are needed, or is not known to the compilers; the message,
            one line, names the steps and says what to change.
    """
    program = rising(program)
    graph = Graph(program, picture)
    wrong: dict[str, list[str]] = {}
    for step in program.steps:
        inputs = [graph.values.get(name) for name in step.inputs]
        if None in inputs:
            continue  # behind one that is refused
        try:
            if step.op not in WRITE:
                raise Refused(f"there is no {step.op} of whole numbers: leave it out, or use bnnlight.nn.FixedPoint")
            graph.values[step.name] = WRITE[step.op](graph, step, *inputs)
        except Refused as error:
            wrong.setdefault(str(error), []).append(step.name)
    if wrong:
        reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in wrong.items())
        raise ValueError(f"cannot go to an FPGA: {reasons} (bnnlight.backbones.FixedPointResNet can)")
    graph.finish(program.output)
    shapes = check(program)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shapes[name]]) for name in (INPUT, program.output)
    ]
    onnx_graph = helper.make_graph(graph.nodes, "bnnlight", ends[:1], ends[1:], graph.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(onnx_graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="bnnlight")
    return model, graph.precision
