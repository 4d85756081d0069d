#!/usr/bin/env bash
# A model that was read from a file which is then written again, with OpenVINO 2026.4.1.
#
# OpenVINO: `read_model` leaves the weights in their file. Where another model of the same size is saved under that name,
# the first one, read before, computes with the other's weights when it is compiled. Nothing is said.
# With `ENABLE_MMAP` off it keeps its own. Both models have as many weights, so that the file stays as long as it was.
#
# Exits 0 while this is so. Usage: findings/openvino_overwritten_weights.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset8

print("openvino", ov.get_version())
rng = np.random.default_rng(0)
weights = {name: rng.normal(size=(256, 256)).astype(np.float32) for name in ("first", "second")}
row = rng.normal(size=(1, 256)).astype(np.float32)


def save(name):
    x = opset8.parameter([1, 256], np.float32)
    model = ov.Model([opset8.matmul(x, opset8.constant(weights[name]), False, False)], [x], "network")
    ov.save_model(model, "model.xml", compress_to_fp16=False)


seen = {}
for mapped in (True, False):
    save("first")
    core = ov.Core()
    core.set_property({"ENABLE_MMAP": mapped})
    model = core.read_model("model.xml")
    save("second")
    answer = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(row)[0]
    right = {name: bool(np.allclose(answer, row @ weight, atol=1e-3)) for name, weight in weights.items()}
    seen[mapped] = [name for name, is_right in right.items() if is_right]
    print(f"ENABLE_MMAP {mapped}: the model read first answers with the weights of {seen[mapped]}")
assert seen == {True: ["second"], False: ["first"]}
PYTHON
