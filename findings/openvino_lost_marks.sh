#!/usr/bin/env bash
# What of a model file stays in float32 with OpenVINO 2026.4.1 on a processor with AVX512_BF16.
#
# OpenVINO: without options the CPU plug-in computes in bfloat16 there. A request for float32 under rt_info/runtime_options of
# the model is not read. The attribute DisablePrecisionConversion on a node, "dynamic:f16" as its value, keeps that node in
# float32, under bfloat16 too ("dynamic:bf16" does nothing). But it is lost without a word where the plug-in replaces the
# node by another: MaxPool of opset 8 and Interpolate of opset 11. With MaxPool of opset 1 and Interpolate of opset 4 it
# stays.
#
# Exits 0 while this is so. Usage: findings/openvino_lost_marks.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import re
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset1, opset8, opset10, opset11

print("openvino", ov.get_version())
rng = np.random.default_rng(0)
weights = [rng.normal(size=shape).astype(np.float32) for shape in ((16, 3, 3, 3), (16, 16, 1, 1))]
image = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
axes, window = np.array([2, 3]), {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
twice, size = np.array([2, 2], np.float32), np.array([16, 16])
between = {
    "MaxPool of opset 1": lambda x: opset1.max_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], "floor"),
    "MaxPool of opset 8": lambda x: opset8.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2], "floor"),
    "Interpolate of opset 4": lambda x: opset10.interpolate(x, size, twice, "nearest", "scales", axes=axes, **window),
    "Interpolate of opset 11": lambda x: opset11.interpolate(x, twice, "nearest", "scales", axes=axes, **window),
}
mark = '<rt_info><attribute name="DisablePrecisionConversion" version="0" value="dynamic:{}"/></rt_info>'


def compiled(make, to=None, asks=False, **options):
    picture = opset8.parameter([1, 3, 8, 8], np.float32)
    x = opset8.convolution(picture, weights[0], [1, 1], [1, 1], [1, 1], [1, 1])
    x = opset8.convolution(make(x).output(0), weights[1], [1, 1], [0, 0], [0, 0], [1, 1])
    model = ov.Model([x], [picture], "network")
    if asks:
        model.set_rt_info("f32", ["runtime_options", "INFERENCE_PRECISION_HINT"])
    ov.save_model(model, "model.xml", compress_to_fp16=False)
    if to:
        file = Path("model.xml")
        of_nodes = re.compile(r'(<layer (?:(?!type="(?:Parameter|Result|Const)")[^>])*>)')
        file.write_text(of_nodes.sub(lambda tag: tag[0] + mark.format(to), file.read_text()))
    return ov.Core().compile_model("model.xml", "CPU", options)


def rounded(network):
    nodes = [node.get_rt_info() for node in network.get_runtime_model().get_ops()]
    return sorted({str(n["layerType"].value) for n in nodes if str(n["runtimePrecision"].value) == "bf16"} - {"Reorder"})


found = {}
for name, make in between.items():
    assert compiled(make).get_property("INFERENCE_PRECISION_HINT") == ov.Type.bf16, "this processor has no bfloat16"
    right = compiled(make, INFERENCE_PRECISION_HINT="f32")(image)[0]
    marked = compiled(make, "f16")
    found[name] = rounded(marked)
    print(f"{name}: marked to f16 {found[name] or 'nothing'} in bfloat16, ", end="")
    print(f"largest difference {np.abs(marked(image)[0] - right).max():.2g}")
pool = between["MaxPool of opset 1"]
kinds = {"no marks": rounded(compiled(pool)), "marked to bf16": rounded(compiled(pool, "bf16"))}
kinds["runtime_options"] = rounded(compiled(pool, asks=True))
print("; ".join(f"{name}: {value} in bfloat16" for name, value in kinds.items()))
assert all("Convolution" in value for value in kinds.values())
assert [found[name] for name in between] == [[], ["Pooling"], [], ["Interpolate"]]
PYTHON
