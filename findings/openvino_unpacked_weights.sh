#!/usr/bin/env bash
# An ONNX model whose weights are unpacked from bits, compiled for two streams, with OpenVINO 2026.4.1 on the CPU.
#
# OpenVINO: where the weights of convolutions are made of constants by operations that it does not fold when it reads a
# model (a bitwise and), a model that is compiled for several streams gives another output now and then, without a word:
# each compilation gives one output from then on, right or wrong. With one stream all are right. onnxruntime is right.
#
# Exits 0 while this is so. Usage: findings/openvino_unpacked_weights.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.0 onnx==1.20.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

print("openvino", ov.get_version())
rng = np.random.default_rng(0)
LAYERS, CHANNELS, COMPILED = 8, 32, 40
values = {"one": np.uint8([1]), "places": np.arange(8, dtype=np.uint8)[None], "two": np.float32([2]), "ones": np.float32([1])}
values |= {"shape": np.int64([CHANNELS, CHANNELS, 3, 3]), "small": np.float32([1 / 64]), "bytes": np.arange(256, dtype=np.uint8)[:, None]}
values |= {f"packed{i}": rng.integers(0, 256, CHANNELS * CHANNELS * 9 // 8).astype(np.int64) for i in range(LAYERS)}
nodes = [  # a table of each byte's signs
    helper.make_node("BitShift", ["bytes", "places"], ["shifted"], direction="RIGHT"),
    helper.make_node("BitwiseAnd", ["shifted", "one"], ["bits"]),
    helper.make_node("Cast", ["bits"], ["floats"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["floats", "two"], ["doubled"]),
    helper.make_node("Sub", ["doubled", "ones"], ["table"]),
]
name, wanted = "input", rng.normal(size=(1, CHANNELS, 12, 12)).astype(np.float32)
image = wanted
for i in range(LAYERS):
    nodes += [
        helper.make_node("Gather", ["table", f"packed{i}"], [f"signs{i}"], axis=0),
        helper.make_node("Reshape", [f"signs{i}", "shape"], [f"weight{i}"]),
        helper.make_node("Conv", [name, f"weight{i}"], [f"sum{i}"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", [f"sum{i}", "small"], [f"output{i}"]),
    ]
    name = f"output{i}"
    # by hand
    signs = 2.0 * np.unpackbits(values[f"packed{i}"].astype(np.uint8), bitorder="little").reshape(CHANNELS, CHANNELS, 3, 3) - 1
    padded = np.pad(wanted, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = [(a, b, padded[:, :, a : a + 12, b : b + 12]) for a in range(3) for b in range(3)]
    wanted = sum(np.einsum("oc,nchw->nohw", signs[:, :, a, b], window) for a, b, window in windows) / 64
ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, CHANNELS, 12, 12]) for n in ("input", name)]
kept = [numpy_helper.from_array(value, key) for key, value in values.items()]
graph = helper.make_graph(nodes, "bits", ends[:1], ends[1:], kept)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
onnx.checker.check_model(model)
onnx.save(model, "bits.onnx")

wrong, core = {}, ov.Core()
for streams in (1, 2):
    config = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": 2}
    found = [core.compile_model(core.read_model("bits.onnx"), "CPU", config)(image)[0] for _ in range(COMPILED)]
    wrong[streams] = sum(not np.allclose(one, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max()) for one in found)
    print(f"{streams} stream(s): {wrong[streams]} of {COMPILED} compiled models are wrong")
assert wrong[1] == 0 and wrong[2] > 0
PYTHON
