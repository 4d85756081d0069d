"""Real networks on 8-bit integers: rounded as they should be, and run on integers."""

import platform

import numpy as np
import openvino as ov
import pytest
from openvino import opset13

from bnnlight.deploy.formats.openvino_compiled import Compiled
from bnnlight.deploy.formats.openvino_floats import has_kernels_on_bits
from bnnlight.deploy.proof.quantized import quantized

on_x86 = pytest.mark.skipif(not has_kernels_on_bits(), reason=f"knows x86's kernels, not {platform.machine()}'s")
WINDOW = ([1, 1], [1, 1], [1, 1], [1, 1])


def conv(x, outputs, rng):
    inputs = (x.output(0) if isinstance(x, ov.Node) else x).get_shape()[1]
    return opset13.convolution(x, rng.standard_normal((outputs, inputs, 3, 3), dtype=np.float32), *WINDOW)


def network(rng):
    """Convolutions, a depth-wise one, a residual sum, branches joined, a pool and an upsampling; 10 outputs."""
    picture = opset13.parameter([1, 3, 16, 16], np.float32, "input")
    x = opset13.relu(conv(picture, 16, rng))
    x = opset13.relu(opset13.add(conv(opset13.relu(conv(x, 16, rng)), 16, rng), x))
    depth = rng.standard_normal((16, 1, 1, 3, 3), dtype=np.float32)
    joined = opset13.concat([opset13.group_convolution(x, depth, *WINDOW), opset13.relu(conv(x, 24, rng))], 1)
    small = opset13.max_pool(joined, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    large = opset13.interpolate(
        conv(small, 16, rng), np.array([16, 16]), "nearest", "sizes", axes=np.array([2, 3]), nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    x = opset13.reduce_mean(conv(opset13.add(large, x), 8, rng), np.array([2, 3]), False)
    y = opset13.matmul(x, rng.standard_normal((10, 8), dtype=np.float32), False, True)
    return ov.Model([y], [picture], "network")


def executed(model):
    """Name of each layer's kind → primitives and output types, as OpenVINO compiled it."""
    nodes = [node.get_rt_info() for node in Compiled(model, 1).compiled.get_runtime_model().get_ordered_ops()]
    return [tuple(str(i[k].value) for k in ("layerType", "primitiveType", "outputPrecisions")) for i in nodes]


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_are_rounded_as_by_hand(sign):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 4, 1, 1), dtype=np.float32)
    weight[2] = 0
    seen = np.abs(rng.standard_normal((3, 4, 6, 6), dtype=np.float32)) + 0.25
    seen[1, 0, 0, 0] *= sign
    picture = opset13.parameter([1, 4, 6, 6], np.float32, "input")
    window = ([1, 1], [0, 0], [0, 0], [1, 1])
    model = quantized(ov.Model([opset13.convolution(picture, weight, *window)], [picture], "one"), seen)
    # float64, from the formula: u8 from zero to the largest number, or i8 with the same step on both sides
    x, w = np.clip(rng.standard_normal((1, 4, 6, 6)), *((-9, 9) if sign < 0 else (0, 9))), weight.astype(np.float64)
    if sign > 0:
        step = seen.max() / 255
        rounded = np.clip(np.rint(x / step), 0, 255) * step
    else:
        step = max(-seen.min() / 128, seen.max() / 127)
        rounded = np.clip(np.rint(x / step), -128, 127) * step
    scale = np.abs(w).max((1, 2, 3), keepdims=True) / 127
    scale[2] = 1
    wanted = np.einsum("oi,nihw->nohw", (np.rint(w / scale) * scale)[..., 0, 0], rounded)
    found = Compiled(model, 1)(x.astype(np.float32))[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_answers_stay_near_those_in_float32():
    rng = np.random.default_rng(1)
    model, images = network(rng), rng.standard_normal((8, 3, 16, 16), dtype=np.float32)
    wanted = Compiled(model.clone(), 1)(images)[0]
    found = Compiled(quantized(model, images), 1)(images)[0]
    assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


@on_x86
def test_layers_run_on_integers_and_what_only_moves_numbers_moves_bytes():
    rng = np.random.default_rng(2)
    model = network(rng)
    before = executed(model.clone())
    after = executed(quantized(model, rng.standard_normal((2, 3, 16, 16), dtype=np.float32)))
    for nodes, integers in ((before, False), (after, True)):
        layers = [primitive for kind, primitive, _ in nodes if kind in ("Convolution", "FullyConnected", "MatMul")]
        assert len(layers) == 8
        assert all(primitive.lower().endswith("i8") == integers for primitive in layers), layers
        moves = [types for kind, _, types in nodes if kind in ("Concatenation", "Pooling", "Interpolate")]
        assert len(moves) == 3
        assert all((types in ("u8", "i8")) == integers for types in moves), nodes


def test_weights_of_any_storage_are_found_and_a_second_call_changes_nothing():
    rng = np.random.default_rng(3)
    images = rng.standard_normal((2, 4, 6, 6), dtype=np.float32)
    weight = rng.standard_normal((5, 4, 3, 3)).astype(np.float16)
    outputs = []
    for stored in (opset13.convert(opset13.constant(weight), "f32"), opset13.constant(weight.astype(np.float32))):
        picture = opset13.parameter([1, 4, 6, 6], np.float32, "input")
        model = ov.Model([opset13.convolution(picture, stored, *WINDOW)], [picture], "one")
        for _ in range(2):
            model = quantized(model, images)
            kinds = [node.get_type_name() for node in model.get_ops()]
            assert kinds.count("FakeQuantize") == 1
            outputs.append(Compiled(model.clone(), 1)(images)[0])
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-5, atol=1e-5)
