#!/usr/bin/env bash
# A Quant of one bit without sign in finn-plus 1.6.1 with qonnx 1.0.0.
#
# finn-plus: QONNX's Quant with bit width 1 and signed=0 gives 0 or 1. ConvertQONNXtoFINN takes it for a BipolarQuant:
# the threshold moves from 1/2 to 0 and the values are −1 and 1. Behind a Relu, which changes nothing, it is converted
# as it should be. Nothing is said.
#
# Exits 0 while this is so. Usage: findings/finn_bit_without_sign.sh
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
from finn.transformation.qonnx.convert_qonnx_to_finn import ConvertQONNXtoFINN
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

print("finn-plus", version("finn-plus"), "qonnx", version("qonnx"))


def model(relu):
    numbers = {"shift": 0.25, "scale": 1, "zero": 0, "bits": 1}
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in numbers.items()]
    nodes = [helper.make_node("Add", ["x", "shift"], ["a"])]
    nodes += [helper.make_node("Relu", ["a"], ["r"])] if relu else []
    options = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND", "domain": "qonnx.custom_op.general"}
    nodes.append(helper.make_node("Quant", ["r" if relu else "a", "scale", "zero", "bits"], ["y"], **options))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "bit", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", 16), helper.make_opsetid("qonnx.custom_op.general", 1)]
    return ModelWrapper(helper.make_model(graph, opset_imports=opsets, ir_version=8)).transform(InferShapes())


x = {"x": np.array([[-2, 0, 0.5, 2]], np.float32)}
for relu in (False, True):
    before = execute_onnx(model(relu), x)["y"][0].tolist()
    after = execute_onnx(model(relu).transform(ConvertQONNXtoFINN()), x)["y"][0].tolist()
    print(f"{'Relu and ' if relu else ''}Quant of one bit without sign: {before}, converted: {after}")
    assert before == [0, 0, 1, 1]
    assert after == (before if relu else [-1, 1, 1, 1])
PYTHON
