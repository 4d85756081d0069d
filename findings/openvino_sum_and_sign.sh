#!/usr/bin/env bash
# A residual sum and a sign behind a binary convolution, with OpenVINO 2026.4.1 on the CPU.
#
# OpenVINO: BinaryConvolution, Add and a FakeQuantize of two levels whose two input bounds are equal are computed in one node,
# and nearly all values of what follows are wrong, without a word. Where one constant is both bounds, and has the rank of
# the data, the FakeQuantize stays a node of its own, and all values are right. They are sums of ±1: nothing is rounded.
#
# Exits 0 while this is so. Usage: findings/openvino_sum_and_sign.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset1, opset8

print("openvino", ov.get_version())
rng = np.random.default_rng(0)
packed = [rng.integers(0, 256, 16 * 16 * 9 // 8, dtype=np.uint8) for _ in range(2)]
image = rng.normal(size=(1, 16, 12, 12)).astype(np.float32)


def by_hand(x, bits):
    """The sums of ±1 behind a sign, with zeros round the picture."""
    weight = 2.0 * np.unpackbits(bits, bitorder="little").reshape(16, 16, 3, 3) - 1
    signs = np.pad(np.where(x > 0.5, 1.0, -1.0), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = [(i, j, signs[:, :, i : i + 12, j : j + 12]) for i in range(3) for j in range(3)]
    return sum(np.einsum("oc,nchw->nohw", weight[:, :, i, j], window) for i, j, window in windows).astype(np.float32)


def network(constants):
    def layer(x, bits):
        bounds = [opset8.constant(np.full((1, 1, 1, 1), 0.5, np.float32)) for _ in range(constants)]
        levels = [opset8.constant(np.full((1, 1, 1, 1), value, np.float32)) for value in (0, 1)]
        sign = opset8.fake_quantize(x, bounds[0], bounds[-1], *levels, 2)
        tensor = ov.Tensor(bits, ov.Shape([16, 16, 3, 3]), ov.Type.u1)
        weight = ov.op.Constant(tensor, shared_memory=False)
        return opset1.binary_convolution(sign, weight, [1, 1], [1, 1], [1, 1], [1, 1], "xnor-popcount", 0.0)

    picture = opset8.parameter([1, 16, 12, 12], np.float32)
    return ov.Model([layer(opset8.add(layer(picture, packed[0]), picture), packed[1])], [picture], "network")


wanted = by_hand(by_hand(image, packed[0]) + image, packed[1])
wrong = {}
for constants in (1, 2):
    compiled = ov.Core().compile_model(network(constants), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wrong[constants] = float((compiled(image)[0] != wanted).mean())
    names = [str(node.get_rt_info()["originalLayersNames"].value) for node in compiled.get_runtime_model().get_ops()]
    joined = [name for name in names if "BinaryConvolution" in name and "FakeQuantize" in name]
    print(f"bounds as {constants} constant(s): nodes of convolution and sign {joined}, values wrong {wrong[constants]:.3f}")
assert wrong[1] == 0 and wrong[2] > 0.5
PYTHON
