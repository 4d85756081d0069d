from itertools import product

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnxruntime import InferenceSession

from bnnlight.backbones import ResNet18
from bnnlight.deploy.formats.onnx_graph import to_onnx
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.program.bits import pack_signs

SLIDING = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}


def step(name, op, *inputs, settings=None, **tensors):
    arrays = {k: np.asarray(v, np.uint8 if k == "bits" else np.float32) for k, v in tensors.items()}
    return Step(name, op, inputs or ("input",), settings or {}, arrays)


def run(steps, x):
    """What onnxruntime makes of a few steps."""
    model = to_onnx(Program(x.shape[1:], tuple(steps)))
    onnx.checker.check_model(model, full_check=True)
    return InferenceSession(model.SerializeToString()).run(None, {"input": x})[0]


def flat(steps):
    """The values of several steps in one row."""
    rows = [step(f"{one.name} flat", "flatten", one.name) for one in steps]
    return [*steps, *rows, step("all", "concat", *(row.name for row in rows))]


def windows(*dilations):
    for kernel, stride, padding, ceil, dilation in product(
        (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (False, True), dilations
    ):
        # twice as wide as high, where that is possible
        pads = [min(padding, kernel // 2), padding]
        if 2 * padding <= kernel + 1:
            yield {"kernel": [kernel, kernel + 1], "stride": [stride, 3 - stride % 3], "padding": pads}, dilation, ceil


@pytest.mark.parametrize("behind_a_convolution", [False, True])
@pytest.mark.parametrize("size", [(7, 7), (8, 9), (11, 6), (12, 13)])
def test_pools_have_the_windows_of_torch(size, behind_a_convolution):
    # after a convolution of 16 channels onnxruntime pools with other code
    torch.manual_seed(0)
    x = torch.randn(2, 16, *size)
    first = step("first", "conv2d", settings=SLIDING | {"groups": 1}, weight=np.eye(16).reshape(16, 16, 1, 1))
    source, steps, expected = "first" if behind_a_convolution else "input", [], []
    for s, dilation, ceil in windows(1, 2):
        if (
            max(dilation * (k - 1) + 1 - n - 2 * p for k, n, p in zip(s["kernel"], size, s["padding"], strict=True))
            <= 0
        ):
            more = s | {"ceil_mode": ceil, "dilation": [dilation, dilation]}
            steps.append(step(f"{len(steps)}", "max_pool2d", source, settings=more))
            expected.append(F.max_pool2d(x, *s.values(), dilation, ceil))
    for (s, _, ceil), include in product(windows(1), (False, True)):
        more = s | {"ceil_mode": ceil, "count_include_pad": include}
        steps.append(step(f"{len(steps)}", "avg_pool2d", source, settings=more))
        expected.append(F.avg_pool2d(x, *s.values(), ceil, include))
    assert len(steps) > 150
    results = run([first, *flat(steps)], x.numpy())
    at = 0
    for one, wanted in zip(steps, expected, strict=True):
        wanted = wanted.flatten(1).numpy()
        found = results[:, at : at + wanted.shape[1]]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6, err_msg=f"{one.op} {one.settings}")
        at += wanted.shape[1]
    assert at == results.shape[1]


def test_a_sign_is_a_comparison_with_a_threshold():
    up, down, never, nan = np.float32(np.nextafter(np.float32(0.3), np.float32(1))), -np.inf, np.inf, np.nan
    x = np.array([0.3, up, -0.0, 0.0, -5.0, 5.0, down, never, nan], np.float32)
    # threshold, direction → sign of each x
    cases = {
        (0.3, 1): [1, 1, -1, -1, -1, 1, -1, 1, -1],
        (0.3, -1): [1, -1, 1, 1, 1, -1, 1, -1, -1],
        (up, 1): [-1, 1, -1, -1, -1, 1, -1, 1, -1],
        (0.0, 1): [1, 1, 1, 1, -1, 1, -1, 1, -1],
        (0.0, -1): [-1, -1, 1, 1, 1, -1, 1, -1, -1],
        (-np.inf, 1): [1, 1, 1, 1, 1, 1, 1, 1, -1],
        (np.inf, 1): [-1, -1, -1, -1, -1, -1, -1, 1, -1],
    }
    thresholds, directions = np.array(list(cases)).T
    x = np.tile(x.reshape(1, 1, 3, 3), (1, len(cases), 1, 1))
    turned = run([step("sign", "binarize", threshold=thresholds, direction=directions)], x)
    np.testing.assert_array_equal(turned, np.reshape(list(cases.values()), x.shape))
    rising = directions > 0
    plain = run([step("sign", "binarize", threshold=thresholds[rising])], x[:, rising])
    np.testing.assert_array_equal(plain, turned[:, rising])


@pytest.mark.parametrize("channels", [5, 64])
@pytest.mark.parametrize("after", ["scale", "scale and shift", "addition"])
def test_sums_are_whole_numbers_before_they_are_scaled(channels, after):
    # onnxruntime likes to multiply scales into weights; float32 sums of those are not the scaled sums
    rng = np.random.default_rng(0)
    weight = rng.choice([-1, 1], (channels, channels, 3, 3))
    x = rng.standard_normal((2, channels, 9, 9), dtype=np.float32)
    scale, shift = rng.standard_normal((2, channels, 1, 1), dtype=np.float32)
    settings = SLIDING | {"padding": [1, 1], "groups": 1, "padding_value": 0, "shape": list(weight.shape)}
    steps = [
        step("sign", "binarize", threshold=np.zeros(channels)),
        step("sum", "binary_conv2d", "sign", settings=settings, bits=pack_signs(weight)),
    ]
    seen = np.lib.stride_tricks.sliding_window_view(
        np.pad(np.where(x >= 0, 1, -1), [(0, 0)] * 2 + [(1, 1)] * 2), (3, 3), (2, 3)
    )
    sums = np.einsum("nihwyx,oiyx->nohw", seen, weight).astype(np.float32)
    if after == "addition":
        steps.append(step("y", "add", "sum", "input"))
        expected = sums + x
    elif after == "scale":
        steps.append(step("y", "affine", "sum", scale=scale.ravel()))
        expected = sums * scale
    else:
        steps.append(step("y", "affine", "sum", scale=scale.ravel(), shift=shift.ravel()))
        # rounded once
        expected = (sums.astype(np.float64) * scale + shift).astype(np.float32)
    np.testing.assert_array_equal(run(steps, x), expected)


def test_a_scale_for_each_position_and_stacked_values():
    x = np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4) - 20
    everywhere = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    scaled = run([step("y", "affine", scale=everywhere, shift=[1, 2])], x)
    np.testing.assert_array_equal(scaled, x * everywhere + np.array([1, 2])[:, None, None])
    # the channels of stacked values are the values
    steps = [
        step("twice", "affine", scale=[2, 2]),
        step("both", "stack", "input", "twice", "input"),
        step("bent", "prelu", "both", slope=[1, 0.5, 0]),
        step("y", "binarize", "bent", threshold=[-3, -3, 0]),
    ]
    expected = np.stack([x >= -3, 2 * x >= -6, np.ones_like(x, bool)], 1)
    np.testing.assert_array_equal(run(steps, x) > 0, expected)


def test_every_pixel_is_repeated_at_every_factor():
    x = np.arange(2 * 7 * 5, dtype=np.float32).reshape(1, 2, 7, 5)
    for factor in range(1, 65):
        across = 65 - factor
        found = run([step("y", "upsample_nearest", settings={"factor": [factor, across]})], x)
        np.testing.assert_array_equal(found, x.repeat(factor, 2).repeat(across, 3))


def test_names_of_steps_are_never_taken():
    x = np.array([[[[3.0]]]], np.float32)
    steps = [step(":0", "affine", scale=[2]), step(":1", "affine", ":0", scale=[5]), step("0", "add", ":1", ":0")]
    assert run(steps, x).item() == 36


def test_half_precision_is_for_weights_alone():
    conv = step("conv", "conv2d", settings=SLIDING | {"groups": 1}, weight=[[[[0.1]]]], bias=[0.1])
    program = Program((1, 1, 1), (conv, step("y", "affine", "conv", scale=[1 / 3])))
    model = to_onnx(program, "fp16")
    found = InferenceSession(model.SerializeToString()).run(None, {"input": np.ones((1, 1, 1, 1), np.float32)})[0]
    kept, third, bias = np.float32(np.float16(0.1)), np.float32(1 / 3), np.float32(0.1)
    assert found.item() == (kept + bias) * third
    assert sorted(c.data_type for c in model.graph.initializer) == [1, 1, 10]
    with pytest.raises(ValueError, match=r"'large'.*beyond fp16"):
        to_onnx(Program((1,) * 3, (step("large", "conv2d", settings=conv.settings, weight=[[[[7e4]]]]),)), "fp16")


def test_a_large_network_has_little_besides_its_numbers():
    network = ResNet18(num_classes=100).eval()
    for tensor in network.state_dict().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.1, 1)  # equal ones would be stored once
    program = freeze(network, (3, 64, 64))
    weights = sum(step.tensors["weight"].size for step in program.steps if "weight" in step.tensors)
    for real_dtype, bytes_each in (("fp32", 4), ("fp16", 2)):
        numbers = program.num_binary / 8 + bytes_each * weights + 4 * (program.num_real - weights)
        assert numbers < to_onnx(program, real_dtype).ByteSize() < 1.02 * numbers
