#!/usr/bin/env bash
# Zero padding of signs in hls4ml 1.3.0 with qonnx 1.0.0.
#
# hls4ml: a convolution with padding behind a BipolarQuant. By ONNX, and in qonnx's executor, zeros stand at the border.
# hls4ml keeps signs in one bit, where there is no zero: its compiled C++ computes with −1 there, and says nothing.
#
# Needs g++. Exits 0 while this is so. Usage: findings/hls4ml_zero_padding.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet hls4ml==1.3.0 qonnx==1.0.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib
import io
from importlib.metadata import version

import hls4ml
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.util.cleanup import cleanup_model

print("hls4ml", version("hls4ml"), "qonnx", version("qonnx"))
constants = [numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w"), numpy_helper.from_array(np.float32(1), "one")]
window = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4, "dilations": [1, 1], "group": 1}
nodes = [
    helper.make_node("BipolarQuant", ["x", "one"], ["s"], name="sign", domain="qonnx.custom_op.general"),
    helper.make_node("BipolarQuant", ["w", "one"], ["b"], name="weight", domain="qonnx.custom_op.general"),
    helper.make_node("Conv", ["s", "b"], ["y"], name="conv", **window),
]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in "xy"]
graph = helper.make_graph(nodes, "sum", ends[:1], ends[1:], constants)
opsets = [helper.make_opsetid("", 16), helper.make_opsetid("qonnx.custom_op.general", 1)]
model = cleanup_model(ModelWrapper(helper.make_model(graph, opset_imports=opsets, ir_version=8)))
model = cleanup_model(model.transform(ConvertToChannelsLastAndClean()))
x = np.ones((1, 1, 2, 2), np.float32)
expected = execute_onnx(model, {"global_in": x})["global_out"].ravel()
with contextlib.redirect_stdout(io.StringIO()):
    config = hls4ml.utils.config_from_onnx_model(model, "name", backend="Vitis", default_precision="fixed<16,8>")
    options = {"io_type": "io_parallel", "hls_config": config}
    made = hls4ml.converters.convert_from_onnx_model(model, output_dir="made", backend="Vitis", **options)
    made.compile()
found = np.ravel(made.predict(x))
print("sums of nine signs, padded with zeros, in qonnx's executor:", expected, "in hls4ml's compiled C++:", found)
assert (expected == 4).all() and (found == -1).all()
PYTHON
