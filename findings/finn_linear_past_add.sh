#!/usr/bin/env bash
# MoveLinearPastEltwiseAdd in finn-plus 1.6.1 with qonnx 1.0.0.
#
# finn-plus: the transformation moves two equal multiplications in front of a sum behind it. Where one of them also feeds
# something else, that is lost: here an output of the graph is no longer given by any node, and nothing is said. (Residual
# networks have such a multiplication at each shortcut.)
#
# Exits 0 while this is so. Usage: findings/finn_linear_past_add.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# without its dependencies: most of them (torch, CUDA) are not needed here
"$folder/venv/bin/pip" install --quiet --no-deps finn-plus==1.6.1
"$folder/venv/bin/pip" install --quiet qonnx==1.0.0 onnx==1.21.0 pyyaml click pydantic rich psutil
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from finn.util.settings import initialize_dummy_settings

initialize_dummy_settings()
from finn.transformation.streamline.reorder import MoveLinearPastEltwiseAdd
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper

print("finn-plus", version("finn-plus"), "qonnx", version("qonnx"))
constants = [numpy_helper.from_array(np.float32(2), name) for name in ("half", "same")]
nodes = [
    helper.make_node("Mul", ["u", "half"], ["a"], name="left"),
    helper.make_node("Mul", ["v", "same"], ["b"], name="right"),
    helper.make_node("Add", ["a", "b"], ["sum"], name="add"),
    helper.make_node("Sigmoid", ["b"], ["also"], name="other"),
]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("u", "v", "sum", "also")]
graph = helper.make_graph(nodes, "fork", ends[:2], ends[2:], constants)
model = ModelWrapper(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8))
model = model.transform(MoveLinearPastEltwiseAdd())
given = {"u", "v"} | {name for node in model.graph.node for name in node.output}
print("nodes:", [f"{node.name}({node.input[0]}, …) -> {node.output[0]}" for node in model.graph.node])
lost = [output.name for output in model.graph.output if output.name not in given]
print("outputs of the graph that nothing gives any more:", lost)
assert lost == ["also"]
PYTHON
