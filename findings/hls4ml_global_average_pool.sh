#!/usr/bin/env bash
# A global average pool of an ONNX model in hls4ml 1.3.0 with qonnx 1.0.0.
#
# hls4ml: its ONNX front end asks for models converted to channels-last. The conversion (qonnx's own) puts a transposition
# in front of a GlobalAveragePool, which then is given channels-first maps, as ONNX says. hls4ml takes the sizes from
# there, and yet reads the numbers as if the channels were last: for maps of 2 channels and 2×2 pixels, 1 everywhere in
# the first channel and 3 in the second, the means are 2 and 2, not 1 and 3. Nothing is said.
#
# Needs g++. Exits 0 while this is so. Usage: findings/hls4ml_global_average_pool.sh
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
ends = [helper.make_tensor_value_info(*end) for end in (("x", 1, [1, 2, 2, 2]), ("y", TensorProto.FLOAT, [1, 2, 1, 1]))]
weight = numpy_helper.from_array(np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1), "w")
window = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
nodes = [
    helper.make_node("Conv", ["x", "w"], ["c"], name="conv", **window),
    helper.make_node("GlobalAveragePool", ["c"], ["y"], name="pool"),
]
graph = helper.make_graph(nodes, "pool", ends[:1], ends[1:], [weight])
model = cleanup_model(ModelWrapper(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)))
model = cleanup_model(model.transform(ConvertToChannelsLastAndClean()))
x = np.array([1.0] * 4 + [3.0] * 4, np.float32).reshape(1, 2, 2, 2)
expected = execute_onnx(model, {"global_in": x})["global_out"].ravel()
with contextlib.redirect_stdout(io.StringIO()):
    config = hls4ml.utils.config_from_onnx_model(model, "name", backend="Vitis", default_precision="fixed<32,16>")
    made = hls4ml.converters.convert_from_onnx_model(model, output_dir="made", backend="Vitis", hls_config=config)
    made.compile()
found = np.ravel(made.predict(x))
print("means in qonnx's executor:", expected, "in hls4ml's compiled C++:", found)
assert (expected == [1, 3]).all() and (found == [2, 2]).all()
PYTHON
