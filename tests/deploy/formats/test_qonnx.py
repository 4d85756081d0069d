"""QONNX files: run by the onnx package with quantizers of our own, beside the network, bit for bit."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import nn

from bnnlight.backbones import FixedPointResNet, ResNet
from bnnlight.deploy.formats.fpga.directions import rising
from bnnlight.deploy.formats.fpga.whole import first_at, multiply_add, sum_bounds, whole_weight
from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.formats.qonnx import FILE, HLS4ML, QonnxEngine, qonnx_signs, save_qonnx, to_pixels
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.nn import BinaryConv2d, BinaryLinear, FixedPoint, FixedPointConv2d, FixedPointLinear

PICTURE = PictureInput(1, 8, (0.3053,), (0.3760,), 8)
MANIFEST = Manifest("classification", "tests.Net", PICTURE, tuple("0123456789"))


class BipolarQuant(OpRun):
    op_domain = "qonnx.custom_op.general"

    def _run(self, x, scale):
        return (np.where(x >= 0, scale, -scale).astype(np.float32),)


class Quant(OpRun):
    op_domain = "qonnx.custom_op.general"

    def _run(self, x, scale, zero, bits, signed=None, narrow=None, rounding_mode=None):
        assert rounding_mode == "ROUND" and zero == 0
        bits = int(bits)
        low, high = (-(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1 - narrow)
        return ((np.clip(np.rint(x / scale), low, high) * scale).astype(np.float32),)


class Plain(nn.Module):
    """Signs without padding, a max pool, a falling batch norm and binary features: what the backbone has not."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(FixedPoint(8, 5), FixedPointConv2d(1, 6, 3), nn.BatchNorm2d(6), FixedPoint(6, 3)),
            *(nn.MaxPool2d(2), nn.BatchNorm2d(6), BinaryConv2d(6, 5, 2), nn.BatchNorm2d(5), BinaryConv2d(5, 4, 2)),
            *(FixedPoint(6, 3), nn.Flatten(), BinaryLinear(4, 7), nn.BatchNorm1d(7), FixedPoint(5, 2)),
            FixedPointLinear(7, 10),
        )

    def forward(self, x):
        return self.layers(x)


@torch.no_grad()
def trained(network):
    """Statistics, slopes and α such as training leaves behind, some of them negative."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.bias.normal_(0, 0.3)
            if module.weight.requires_grad:
                module.weight.normal_()
                module.weight[0] = 0
        if hasattr(module, "scale"):
            for parameter in module.scale.parameters():
                parameter.normal_(0, 0.2)
    return network.eval()


def normalized(pixels):
    return (pixels.float() * (1 / 255) - PICTURE.mean[0]) / PICTURE.std[0]


@pytest.fixture(params=["residual", "plain"])
def network(request):
    return trained(FixedPointResNet([1, 1], width=0.125, stem_stride=2) if request.param == "residual" else Plain())


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (20, 1, 8, 8))


def saved(network, folder):
    return save_qonnx(freeze(network, (1, 8, 8)), MANIFEST, folder)


@torch.no_grad()
def test_computes_what_the_network_does_bit_for_bit(network, pixels, tmp_path, check_frozen):
    x = normalized(pixels)
    file = saved(network, tmp_path)
    assert file == tmp_path / FILE
    expected = network(x).numpy()
    evaluator = ReferenceEvaluator(onnx.load(file), new_ops=[BipolarQuant, Quant])
    by_onnx = np.concatenate([evaluator.run(None, {"input": p[None].numpy().astype(np.float32)})[0] for p in pixels])
    np.testing.assert_allclose(by_onnx, expected, rtol=1e-6, atol=1e-6)
    engine = QonnxEngine(file)
    assert engine.input_shape == (1, 8, 8)
    np.testing.assert_allclose(engine(x.numpy()), expected, rtol=1e-6, atol=1e-6)
    assert engine(x.numpy()[:0]).shape == (0, 10)
    # and through the other formats' engine
    check_frozen(network, freeze(network, (1, 8, 8)), x)


@torch.no_grad()
def test_signs_are_the_networks(network, pixels, tmp_path):
    x, signs, hooks = normalized(pixels), {}, []
    for name, layer in network.named_modules():
        if isinstance(layer, BinaryConv2d | BinaryLinear):
            note = lambda m, x, name=name: signs.update({f"{name}.sign": x[0] >= 0})  # noqa: E731
            hooks.append(layer.register_forward_pre_hook(note))
    network(x)
    for hook in hooks:
        hook.remove()
    found = qonnx_signs(saved(network, tmp_path))(x.numpy())
    assert found.keys() == signs.keys()
    flips = {name: int((found[name] != sign.numpy()).sum()) for name, sign in signs.items()}
    assert flips == dict.fromkeys(signs, 0)


def test_a_file_has_what_the_compilers_need(network, tmp_path):
    model = onnx.load(saved(network, tmp_path))
    onnx.checker.check_model(model)
    nodes = list(model.graph.node)
    assert {node.op_type for node in nodes} <= {
        *("Conv", "MatMul", "BatchNormalization", "Quant", "BipolarQuant", "Relu", "Add", "MaxPool", "Flatten"),
    }
    for node in nodes:
        names = {attribute.name for attribute in node.attribute}
        if node.op_type == "Conv":
            assert names == {"kernel_shape", "strides", "pads", "dilations", "group"}
        if node.op_type == "BatchNormalization":
            assert {a.name: a.f for a in node.attribute} == {"epsilon": 0.0}
    assert len({node.name for node in nodes}) == len(nodes)
    # the fixed-point type holds every constant
    text = json.loads((tmp_path / HLS4ML).read_text())["config_from_onnx_model"]["default_precision"]
    width, integer = map(int, text.removeprefix("fixed<").removesuffix(">").split(","))
    last = {name for node in nodes[-1:] for name in node.input}
    norms = {name for node in nodes if node.op_type == "BatchNormalization" for name in node.input[1:]} - last
    for constant in model.graph.initializer:
        if constant.name in norms:
            numbers = onnx.numpy_helper.to_array(constant).astype(np.float64) * 2.0 ** (width - integer)
            assert (numbers == np.rint(numbers)).all() and (np.abs(numbers) < 2 ** (width - 1)).all()


def test_no_multiply_add_behind_a_layer_falls(pixels):
    network = trained(Plain())
    program = freeze(network, (1, 8, 8))
    assert any((step.tensors.get("direction", np.ones(1)) < 0).any() for step in program.steps)
    assert any((step.tensors.get("scale", np.ones(1)) < 0).any() for step in program.steps)
    turned = rising(program)
    assert [step.name for step in turned.steps] == [step.name for step in program.steps]
    takers, num_layers = turned.consumers(), 0
    for step in turned.steps:
        if step.op in ("conv2d", "binary_conv2d", "binary_linear"):
            slope, num_layers = np.float32(1), num_layers + 1
            while (behind := takers[step.name][0]).op in ("affine", "binarize"):
                slope = slope * behind.tensors.get("scale", behind.tensors.get("direction", np.float32(1)))
                step = behind
                if step.op == "binarize":
                    break
            assert (slope >= 0).all()
    assert num_layers == 4
    with torch.no_grad():
        x = normalized(pixels)
        torch.testing.assert_close(FrozenNetwork(turned)(x), network(x))


HALVES = (np.floor, 0.5), (np.ceil, -0.5)
"""Two ways to round, which differ in halves alone."""


def test_multiply_adds_round_as_asked_for_every_number():
    rng = np.random.default_rng(0)
    for _ in range(30):
        low, high = -rng.integers(1, 200, 5), rng.integers(1, 200, 5)
        scale, shift = rng.uniform(0, 0.5, 5).astype(np.float32), rng.normal(0, 3, 5).astype(np.float32)

        def level(n, scale=scale, shift=shift):
            return np.clip(np.rint(n.astype(np.float32) * scale + shift), -8, 7).astype(np.int64)

        a, b, p = multiply_add(level, low, high, (scale.astype(np.float64), shift.astype(np.float64)), (-8, 7))
        for channel in range(5):
            n = np.arange(low[channel], high[channel] + 1)
            exact = n * a[channel] + b[channel]
            up, down = (np.clip(rounding(exact / 2.0**p + half), -8, 7) for rounding, half in HALVES)
            # no number lies on a half that matters
            np.testing.assert_array_equal(up, down)
            expected = level(np.repeat(n[:, None], 5, 1))[:, channel]
            np.testing.assert_array_equal(up, expected)


def test_bounds_of_sums_are_reached_and_never_passed():
    rng = np.random.default_rng(0)
    weight = rng.integers(-3, 4, (2, 3, 2, 2))
    low, high = np.array([-2, 0, 1]), np.array([1, 3, 2])
    for padded in (False, True):
        least, most = sum_bounds(weight, low, high, padded)
        values = [np.array([*range(a, b + 1), *([0] if padded else [])]) for a, b in zip(low, high, strict=True)]
        for row, (a, b) in enumerate(zip(least, most, strict=True)):
            terms = [w * values[channel] for channel in range(3) for w in weight[row, channel].ravel()]
            assert (a, b) == (sum(t.min() for t in terms), sum(t.max() for t in terms))


def test_whole_weights_are_found_with_their_unit():
    whole = np.array([[-7, 3], [0, 5]])
    found, exponent = whole_weight((whole * 2.0**-4).astype(np.float32))
    assert exponent <= 0 and np.array_equal(found * 2.0**exponent, whole * 2.0**-4)
    assert whole_weight(np.float32([[0.1, 1.0]])) is None
    levels = np.array([[-9], [1], [2], [4]])
    assert first_at(lambda n: n // 3, np.array([-5]), np.array([9]), levels).tolist() == [[-5], [3], [6], [10]]


def layers(*more):
    return nn.Sequential(FixedPoint(8, 5), FixedPointConv2d(1, 4, 3), nn.BatchNorm2d(4), FixedPoint(6, 3), *more)


def end(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), FixedPointLinear(channels, 10)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda: ResNet([1], 10, 1, width=0.125, stem="small"), ("FixedPointConv2d", "FixedPoint")),
        (lambda: layers(BinaryConv2d(4, 4, 3, padding=1), *end(4)), ("4.sum", "with 0: set padding_value: -1")),
        (lambda: layers(BinaryConv2d(4, 4, 3, groups=2), *end(4)), ("groups", "is 2")),
        (lambda: layers(BinaryConv2d(4, 4, 2, dilation=2), *end(4)), ("dilation", "[2, 2]")),
        (lambda: layers(BinaryConv2d(4, 4, 3), nn.PReLU(), *end(4)), ("prelu",)),
        (lambda: layers(nn.AvgPool2d(2), *end(4)), ("avg_pool2d",)),
        (lambda: layers(BinaryConv2d(4, 4, 3), nn.Flatten(), FixedPointLinear(64, 10)), ("5: it is given real",)),
    ],
)
def test_what_cannot_go_there_is_refused_by_name_before_anything_is_written(network, words, tmp_path, check_one_line):
    network = network().eval()
    with pytest.raises(ValueError) as error:
        saved(network, tmp_path)
    check_one_line(error, "cannot go to an FPGA: ", *words)
    assert not list(tmp_path.iterdir())


def test_pixels_are_found_back_from_normalized_pictures():
    pixels = torch.arange(256).reshape(1, 1, 16, 16)
    np.testing.assert_array_equal(to_pixels(normalized(pixels).numpy(), PICTURE), pixels.numpy())
