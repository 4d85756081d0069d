"""The fused convolution against the plain formulation, which PyTorch differentiates."""

import copy

import pytest
import torch
import torch.nn.functional as F
from fixtures.plain_layers import plain

from bnnlight.backbones.blocks import BinaryUnit
from bnnlight.nn import BinaryConv2d, Matrix, Tanh, Tucker
from bnnlight.nn.compute import binary_conv
from bnnlight.nn.compute.binary_conv import binary_conv2d
from bnnlight.nn.compute.integer_conv import has_integer_products
from bnnlight.nn.compute.patches import ConvShape

OPTIONS = {
    "plain": {},
    "padded": {"padding": 1},
    "padded +1": {"padding": (1, 2), "padding_value": 1},
    "padded -1": {"padding": (2, 1), "padding_value": -1},
    "strided": {"stride": (2, 3), "padding": 1},
    "dilated": {"dilation": (2, 1), "padding": (2, 0), "padding_value": -1},
    "grouped": {"groups": 2, "padding": 1},
    "grouped, padded +1": {"groups": 4, "padding": 1, "padding_value": 1, "stride": 2},
    "spatial": {"scale": "spatial", "padding": 1, "output_size": (7, 8)},
    "analytic": {"scale": "analytic", "padding": 1},
    "no scale": {"scale": "none"},
    "bias": {"bias": True},
    "matrix": {"latent": Matrix, "padding": 1},
    "polynomial": {"activation_gradient": "polynomial", "weight_gradient": "polynomial"},
    "swish": {"activation_gradient": "swish", "weight_gradient": "identity"},
    "identity": {"activation_gradient": "identity", "weight_gradient": "swish"},
    "tanh": {"activation_gradient": Tanh(3.0), "weight_gradient": Tanh(0.2)},
    "tanh, clipped": {"activation_gradient": "clipped", "weight_gradient": Tanh(2.0), "latent": Matrix},
}
FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
INTEGERS = pytest.mark.parametrize("integers", [True, False], ids=["integers", "floats"])


def a_layer(options, dtype, in_channels=4):
    layer = BinaryConv2d(in_channels, 8, 3, **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)  # weights beyond the clip, α of either sign
    return layer.to(dtype)


def results(layer, x, slope, upstream_seed=5):
    """Output and all gradients."""
    x = x.clone().requires_grad_()
    slope = None if slope is None else slope.clone().requires_grad_()
    for parameter in layer.parameters():
        parameter.grad = None
    y = layer(x) if slope is None or type(layer) is not BinaryConv2d else layer(x, slope)
    if slope is not None and type(layer) is not BinaryConv2d:
        y = F.prelu(y, slope)
    generator = torch.Generator().manual_seed(upstream_seed)
    y.backward(torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype))
    grads = {name: parameter.grad for name, parameter in layer.named_parameters()}
    return y.detach(), grads | {"x": x.grad} | ({} if slope is None else {"slope": slope.grad})


def assert_close(found, expected, tolerance):
    """Within the tolerance, relative to the tensor's norm."""
    for name, value in expected.items():
        assert (found[name] - value).norm() <= tolerance * value.norm(), name


@INTEGERS
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("slopes", [0, 1, 8])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_equals_the_plain_formulation(options, slopes, memory_format, integers, monkeypatch):
    monkeypatch.setattr(binary_conv, "takes_integers", lambda device, groups: integers and groups == 1)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        layer = a_layer(options, dtype).to(memory_format=memory_format)
        x = torch.randn(3, 4, 7, 8, dtype=dtype).contiguous(memory_format=memory_format)
        x[0, :, :3], x[1, :, 2:4], x[2, :, 0], x[2, :, 1] = 0.0, -0.0, 1.0, -1.0
        slope = torch.randn(slopes, dtype=dtype) if slopes else None
        y, grads = results(layer, x, slope)
        expected, expected_grads = results(plain(copy.deepcopy(layer)), x, slope)
        assert torch.equal(y, expected)  # the sums are exact, and α rounds once
        assert y.is_contiguous(memory_format=memory_format)
        assert_close(grads, expected_grads, tolerance)


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "stride": 2}, {"dilation": 2, "padding": (2, 1)}])
def test_gradients_where_positions_are_fewer_than_channels(options):
    layer = a_layer(options, torch.float32, in_channels=96)
    x = torch.randn(2, 96, 5, 6).contiguous(memory_format=torch.channels_last)
    y, grads = results(layer, x, None)
    assert y[:, 0].numel() <= 96
    expected, expected_grads = results(plain(copy.deepcopy(layer)).double(), x.double(), None)
    assert_close({"y": y} | grads, {"y": expected} | expected_grads, 1e-6)


@INTEGERS
@pytest.mark.parametrize("slope", [None, 0.25, -0.5])
def test_gradcheck_of_alpha_and_slope(slope, integers, monkeypatch):
    monkeypatch.setattr(binary_conv, "takes_integers", lambda device, groups: integers and groups == 1)
    # an odd number of terms, so that no output lies on the bend of the PReLU
    x, weight = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    alpha = torch.tensor([0.5, -1.5, 2.0, 0.1], dtype=torch.float64, requires_grad=True)
    slopes = None if slope is None else torch.full((4,), slope, dtype=torch.float64, requires_grad=True)
    shape = ConvShape((1, 1), (0, 0), (1, 1), 1, 0)
    inputs = [alpha] if slope is None else [alpha, slopes]
    assert torch.autograd.gradcheck(
        lambda *values: binary_conv2d(x, weight, values[0], shape, slope=None if slope is None else values[1]), inputs
    )


def test_alpha_of_zero_has_its_gradient():
    layer = a_layer({}, torch.float64)
    with torch.no_grad():
        layer.scale.alpha[2] = 0
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    _, grads = results(layer, x, None)
    _, expected = results(plain(copy.deepcopy(layer)), x, None)
    assert grads["scale.alpha"][2] != 0
    assert_close(grads, expected, 1e-13)


@pytest.mark.parametrize("latent", [None, Tucker])
def test_bytes_kept_for_the_backward_pass(latent):
    unit = BinaryUnit(16, 32)
    if latent:
        unit.conv.latent = latent(unit.conv.latent.weight)
    parameters = {parameter.data_ptr() for parameter in [*unit.parameters(), *unit.buffers()]}
    saved = {}

    def pack(tensor):
        if tensor.data_ptr() not in parameters:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.randn(2, 16, 6, 5)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        unit(x)
    signs, sums = x.numel(), 2 * 2 * 32 * 6 * 5
    norm = 4 * x.numel() + 2 * 4 * 16  # its input, mean and deviation
    weight = 32 * 16 * 9 if latent else 0  # one byte, and none beside a dense one
    assert sum(saved.values()) == norm + signs + sums + weight


def test_wide_layers_keep_wider_sums():
    x, weight = torch.ones(1, 40_000, 1, 1), torch.ones(1, 40_000, 1, 1)
    slope, shape = torch.full((1,), -1.0, requires_grad=True), ConvShape((1, 1), (0, 0), (1, 1), 1, 0)
    y = binary_conv2d(-x, weight, torch.ones(1), shape, slope=slope)
    y.sum().backward()
    assert y.item() == 40_000  # -1 · (-40,000), beyond 16 bits
    assert slope.grad.item() == -40_000


def test_the_plain_way_is_another_one():
    # or the comparisons above compare a thing with itself
    layer = plain(BinaryConv2d(4, 8, 3))
    assert layer(torch.randn(1, 4, 5, 5)).grad_fn.name() == "MulBackward0"
    assert "BinaryConv2d" in BinaryConv2d(4, 8, 3)(torch.randn(1, 4, 5, 5)).grad_fn.name()


def test_integers_are_used_where_the_processor_has_them(monkeypatch):
    taken, calls = has_integer_products(), []
    original = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: calls.append(a.shape) or original(a, b))
    BinaryConv2d(4, 8, 3)(torch.randn(1, 4, 5, 5))
    assert calls == ([torch.Size([9, 36])] if taken else [])


@INTEGERS
def test_no_picture_at_all(integers, monkeypatch):
    # as ranks get them that have none left to measure
    monkeypatch.setattr(binary_conv, "takes_integers", lambda device, groups: integers and groups == 1)
    layer = BinaryConv2d(4, 8, 3, stride=2)
    y = layer(torch.empty(0, 4, 9, 8), torch.ones(8))
    assert y.shape == (0, 8, 4, 3)
    y.sum().backward()
    assert not layer.scale.alpha.grad.any() and not layer.latent.weight.grad.any()
    with torch.no_grad():
        assert layer.eval()(torch.empty(0, 4, 9, 8)).shape == (0, 8, 4, 3)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (4, 8, 8), (2, 4, 4, 8)])
def test_an_input_that_does_not_fit_is_one_line(shape):
    with pytest.raises(RuntimeError, match=r"^an input of shape \(.*\):? .*the (convolution|kernel)"):
        BinaryConv2d(4, 8, (5, 3))(torch.randn(shape))
