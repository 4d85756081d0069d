#!/usr/bin/env bash
# Signs of -1 and +1 between real layers, with OpenVINO 2026.4.1 on a processor with AVX512_BF16 or AMX.
#
# OpenVINO computes in bfloat16 there unless it is told not to. A FakeQuantize of two levels, -1 and +1, in front of a
# BinaryConvolution is then no sign of its input any more: what comes out has nothing to do with the right answer
# (correlation near 0), where float32 by hint gives it exactly. Nothing is said. The sums are whole numbers of at most 288,
# behind real layers of a few hundred products, so rounding to bfloat16 alone would leave a correlation above 0.9.
#
# Exits 0 while this is so, and with 1 on a processor without bfloat16, where it cannot be seen.
# Usage: findings/openvino_bfloat16_signs.sh
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
packed = rng.integers(0, 256, 32 * 32 * 9 // 8, dtype=np.uint8)
first, last = (0.2 * rng.normal(size=shape).astype(np.float32) for shape in ((32, 3, 3, 3), (8, 32, 1, 1)))
image = rng.normal(size=(1, 3, 16, 16)).astype(np.float32)


def windows(x):
    """A map with zeros round it, once for each of the kernel's nine pixels."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return [(i, j, x[:, :, i : i + 16, j : j + 16]) for i in range(3) for j in range(3)]


def by_hand(round_to_bfloat16):
    """Real convolution, sign at 0, binary convolution, real 1×1 convolution, in float64."""

    def rounded(x):
        if not round_to_bfloat16:
            return x.astype(np.float64)
        return (x.astype(np.float32).view(np.uint32) + 0x8000 & 0xFFFF0000).astype(np.uint32).view(np.float32)

    weight = 2.0 * np.unpackbits(packed, bitorder="little").reshape(32, 32, 3, 3) - 1
    x = sum(np.einsum("oc,nchw->nohw", rounded(first)[:, :, i, j], window) for i, j, window in windows(rounded(image)))
    signs = np.where(rounded(x) > 0, 1.0, -1.0)
    x = sum(np.einsum("oc,nchw->nohw", weight[:, :, i, j], window) for i, j, window in windows(signs))
    return np.einsum("oc,nchw->nohw", rounded(last)[:, :, 0, 0], rounded(x)).ravel()


picture = opset8.parameter([1, 3, 16, 16], np.float32)
x = opset8.convolution(picture, opset8.constant(first), [1, 1], [1, 1], [1, 1], [1, 1])
bounds = [opset8.constant(np.full((1, 1, 1, 1), value, np.float32)) for value in (-1, 1, -1, 1)]
x = opset8.fake_quantize(x, *bounds, 2)
tensor = ov.Tensor(packed, ov.Shape([32, 32, 3, 3]), ov.Type.u1)
weight = ov.op.Constant(tensor, shared_memory=False)
x = opset1.binary_convolution(x, weight, [1, 1], [1, 1], [1, 1], [1, 1], "xnor-popcount", 0.0)
network = ov.Model([opset8.convolution(x, opset8.constant(last), [1, 1], [0, 0], [0, 0], [1, 1])], [picture], "network")


def correlation(options):
    compiled = ov.Core().compile_model(network, "CPU", options)
    answer = compiled(image)[0].ravel().copy()
    return str(compiled.get_property("INFERENCE_PRECISION_HINT")), float(np.corrcoef(answer, exact)[0, 1])


exact = by_hand(False)
rounding = float(np.corrcoef(by_hand(True), exact)[0, 1])
hinted, default = correlation({"INFERENCE_PRECISION_HINT": "f32"}), correlation({})
print(f"float32 by hint: {hinted[1]:.4f}; by default, {default[0]}: {default[1]:.4f}; rounding alone: {rounding:.4f}")
if "bfloat16" not in default[0]:
    raise SystemExit("this processor has no bfloat16: it cannot be seen here")
assert hinted[1] > 0.999 and rounding > 0.9 and abs(default[1]) < 0.3
PYTHON
