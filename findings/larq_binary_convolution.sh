#!/usr/bin/env bash
# Larq Compute Engine 0.16.0: two things that its binary convolution does to numbers without a word.
#
# Zero padding: bits know +1 and -1 alone, so the engine pads with +1 and takes off what that added. Where the window is
# larger than the map in height or width (3×3 on 2×2 px), it takes nothing off: zero padding is padding with +1 then.
#
# The multiplier: a sum over K products is K - 2·(bits that differ). The engine multiplies the second part by the
# multiplier and adds multiplier·K with the bias, so that each sum is rounded to the last bit of that larger number: a sum
# of 2 over 4,608 products times 0.1 comes out wrong in the fifth digit. With a multiplier of 1 all is exact.
#
# The wheel imports TensorFlow, which it does not ask for, when it opens; the interpreter alone needs none.
# Exits 0 while this is so. Usage: findings/larq_binary_convolution.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet larq-compute-engine==0.16.0 'numpy<2' flatbuffers==25.12.19 tflite==2.18.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import importlib.util
import sys
import types

import flatbuffers
import numpy as np
import tflite
from flatbuffers import flexbuffers

print("larq-compute-engine", importlib.metadata.version("larq-compute-engine"))
package = types.ModuleType("larq_compute_engine")
package.__path__ = list(importlib.util.find_spec("larq_compute_engine").submodule_search_locations)
sys.modules["larq_compute_engine"] = package
from larq_compute_engine.tflite.python.interpreter import Interpreter


def table(b, name, **fields):
    getattr(tflite, f"{name}Start")(b)
    for field, value in fields.items():
        getattr(tflite, f"{name}Add{field}")(b, value)
    return getattr(tflite, f"{name}End")(b)


def vector(b, values, prepend):
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        prepend(value)
    return b.EndVector()


def convolution(size, channels, kernel, multiplier, pad_value):
    """A file with one binary convolution, all of whose weights are +1: bits 0. Bits in, real numbers out."""
    b = flatbuffers.Builder(1024)
    words = channels // 32
    contents = [np.zeros((1, kernel, kernel, words), np.int32), np.float32([multiplier]), np.float32([0])]
    buffers = [table(b, "Buffer")]
    buffers += [table(b, "Buffer", Data=b.CreateByteVector(content.tobytes())) for content in contents]
    out = (1, size, size, 1)
    kinds = [tflite.TensorType.INT32] * 2 + [tflite.TensorType.FLOAT32] * 3
    tensors = [
        table(b, "Tensor", Shape=vector(b, shape, b.PrependInt32), Type=kind, Buffer=buffer, Name=b.CreateString("x"))
        for shape, kind, buffer in zip(
            [(1, size, size, words), *(c.shape for c in contents), out], kinds, [0, 1, 2, 3, 0], strict=True
        )
    ]
    options = dict(channels_in=channels, pad_values=pad_value, padding=tflite.Padding.SAME, fused_activation_function=0)
    options |= dict(stride_height=1, stride_width=1, dilation_height_factor=1, dilation_width_factor=1)
    told = b.CreateByteVector(bytes(flexbuffers.Dumps(options)))
    inputs, outputs = vector(b, [0, 1, 2, 3, -1], b.PrependInt32), vector(b, [4], b.PrependInt32)
    operator = table(b, "Operator", OpcodeIndex=0, Inputs=inputs, Outputs=outputs, CustomOptions=told)
    graph = dict(
        Tensors=vector(b, tensors, b.PrependUOffsetTRelative),
        Operators=vector(b, [operator], b.PrependUOffsetTRelative),
        Inputs=vector(b, [0], b.PrependInt32),
        Outputs=vector(b, [4], b.PrependInt32),
    )
    custom = tflite.BuiltinOperator.CUSTOM
    name = b.CreateString("LceBconv2d")
    code = table(b, "OperatorCode", DeprecatedBuiltinCode=custom, BuiltinCode=custom, CustomCode=name, Version=1)
    model = dict(
        OperatorCodes=vector(b, [code], b.PrependUOffsetTRelative),
        Subgraphs=vector(b, [table(b, "SubGraph", **graph)], b.PrependUOffsetTRelative),
        Buffers=vector(b, buffers, b.PrependUOffsetTRelative),
    )
    b.Finish(table(b, "Model", Version=3, **model), b"TFL3")
    return Interpreter(bytes(b.Output()))


# all +1: in a corner 4 of the window's 9 pixels are in the picture, of 32 channels each
for size, expected in ((3, 4 * 32), (2, 4 * 32)):
    corner = {}
    for pad_value in (0, 1):
        bits = np.zeros((1, size, size, 1), np.int32)
        corner[pad_value] = float(convolution(size, 32, 3, 1, pad_value).predict(bits)[0, 0, 0, 0])
    print(f"{size}×{size} px, 3×3 window, a corner: {expected} with zeros round it, {9 * 32} with +1; found {corner}")
    assert corner[1] == 9 * 32
    assert corner[0] == (expected if size == 3 else 9 * 32)

# 4,608 products as 1×1 windows; bits set for all but 2 more than half of the channels
channels = 4608
bits = np.zeros(channels, np.uint8)
bits[: channels // 2 - 1] = 1
words = np.packbits(bits, bitorder="little").view(np.int32).reshape(1, 1, 1, -1)
found = {m: float(convolution(1, channels, 1, m, 1).predict(words)[0, 0, 0, 0]) for m in (1, 0.1)}
relative = abs(found[0.1] / (2 * float(np.float32(0.1))) - 1)
print(f"a sum of 2 over {channels} products, by its multiplier: {found}, relative error of the second {relative:.1e}")
assert found[1] == 2 and 1e-5 < relative < 1e-2
PYTHON
