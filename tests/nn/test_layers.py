import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnnlight.nn import BinaryConv2d, BinaryLinear, Dense, Holistic, Matrix, Tucker, straight_through


def plus_minus(array):
    return np.where(np.asarray(array, dtype=np.float64) >= 0, 1.0, -1.0)


def convolve(x, weight, alpha, bias, stride, padding, dilation, groups, padding_value):
    """Binary convolution, one output position after the other, in float64."""
    num_out, in_per_group, kh, kw = weight.shape
    pads = ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2)
    x, weight = np.pad(plus_minus(x), pads, constant_values=padding_value), plus_minus(weight)
    height = (x.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    width = (x.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((len(x), num_out, height, width))
    for o, row, column in itertools.product(range(num_out), range(height), range(width)):
        first = o // (num_out // groups) * in_per_group
        for i, dy, dx in itertools.product(range(in_per_group), range(kh), range(kw)):
            seen = x[:, first + i, row * stride[0] + dy * dilation[0], column * stride[1] + dx * dilation[1]]
            y[:, o, row, column] += weight[o, i, dy, dx] * seen
        y[:, o, row, column] = y[:, o, row, column] * alpha[o] + (0 if bias is None else bias[o])
    return y


OPTIONS = {
    "plain": {},
    "padded": {"padding": (1, 1)},
    "padded +1": {"padding": (1, 2), "padding_value": 1},
    "padded -1": {"padding": (2, 1), "padding_value": -1},
    "strided": {"stride": (2, 3), "padding": (1, 1)},
    "dilated": {"dilation": (2, 1), "padding": (2, 0), "padding_value": -1},
    "grouped": {"groups": 2, "padding": (1, 1), "padding_value": 1},
    "depthwise, all at once": {"groups": 4, "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [(3, 3), (3, 1)])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_convolution_equals_an_explicit_loop(options, kernel, bias):
    layer = BinaryConv2d(4, 8, kernel, **options, bias=bias)
    if bias:
        torch.nn.init.normal_(layer.bias)
    torch.nn.init.normal_(layer.scale.alpha)
    x = torch.randn(2, 4, 7, 8)
    x[0, :, :3] = 0.0  # sign(0) is +1, and padding is not a zero input
    x[1, :, 2:4] = -0.0
    full = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "padding_value": 0} | options
    alpha, offset = layer.scale.alpha.detach().numpy(), layer.bias.detach().numpy() if bias else None
    expected = convolve(x.numpy(), layer.latent.weight.detach().numpy(), alpha, offset, **full)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-6, atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(layer.eval()(x).numpy(), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("padding_value", "corner", "edge"), [(0, 4, 6), (1, 9, 9), (-1, -1, 3)])
def test_padding_comes_after_the_sign(padding_value, corner, edge):
    weight = torch.ones(1, 1, 3, 3)
    layer = BinaryConv2d(1, 1, 3, padding=1, padding_value=padding_value, scale="none", weight=weight)
    expected = [[corner, edge, corner], [edge, 9, edge], [corner, edge, corner]]
    assert layer(torch.full((1, 1, 3, 3), 0.2))[0, 0].tolist() == expected


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", ["none", "analytic", "channel"])
@pytest.mark.parametrize("shape", [(3, 6), (2, 5, 6)])
def test_linear_layer_equals_a_numpy_product(shape, scale, bias):
    layer = BinaryLinear(6, 4, scale=scale, bias=bias)
    if bias:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(shape)
    x[0] = 0.0
    weight = layer.latent.weight.detach().numpy()
    alpha = 1 if scale == "none" else np.abs(weight).mean(1)
    expected = plus_minus(x) @ plus_minus(weight).T * alpha + (layer.bias.detach().numpy() if bias else 0)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("latent", [Dense, Matrix, lambda w: Tucker(w, 0.5), lambda w: Holistic(w, 0.5)])
def test_weight_is_the_sign_of_what_the_latent_rebuilds(latent):
    layer = BinaryConv2d(4, 6, 3, latent=latent)
    assert np.array_equal(layer.binary_weight().numpy(), plus_minus(layer.latent().detach()))
    assert layer.weight_shape == (6, 4, 3, 3)
    assert not layer.binary_weight().requires_grad


@pytest.mark.parametrize("weight_gradient", ["identity", "clipped", "polynomial", "swish"])
@pytest.mark.parametrize("activation_gradient", ["clipped", "swish"])
@pytest.mark.parametrize("scale", ["channel", "analytic"])
def test_gradients_of_a_layer_equal_the_formulas(scale, activation_gradient, weight_gradient):
    kinds = {"activation_gradient": activation_gradient, "weight_gradient": weight_gradient}
    layer = BinaryConv2d(3, 4, 3, padding=1, scale=scale, bias=True, **kinds).double()
    with torch.no_grad():
        layer.latent.weight.normal_()  # some beyond the clip
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    upstream = torch.randn_like(y)
    y.backward(upstream)

    # the convolution as one matrix product per image: sums = signs @ columns
    weight = layer.latent.weight.detach()
    signs = torch.tensor(plus_minus(weight)).flatten(1)
    columns = F.unfold(torch.tensor(plus_minus(x.detach())), 3, padding=1)
    sums = signs @ columns
    up = upstream.flatten(2)
    alpha = weight.abs().flatten(1).mean(1) if scale == "analytic" else layer.scale.alpha.detach()
    alpha_grad = (up * sums).sum((0, 2))
    to_signs = alpha[:, None] * torch.einsum("nop,nkp->ok", up, columns)
    to_weight = to_signs.view_as(weight) * straight_through(weight, weight_gradient)
    if scale == "analytic":
        to_weight = to_weight + (alpha_grad[:, None] * weight.flatten(1).sign() / 27).view_as(weight)
    else:
        torch.testing.assert_close(layer.scale.alpha.grad, alpha_grad)
    to_input = F.fold(signs.T @ (alpha[:, None] * up), (5, 5), 3, padding=1)
    torch.testing.assert_close(layer.latent.weight.grad, to_weight)
    torch.testing.assert_close(x.grad, to_input * straight_through(x.detach(), activation_gradient))
    torch.testing.assert_close(layer.bias.grad, up.sum((0, 2)))


def test_gradient_reaches_the_factors_by_the_chain_rule():
    layer = BinaryLinear(6, 5, latent=lambda w: Matrix(w, 3, start="svd"), scale="none").double()
    x = torch.randn(7, 6, dtype=torch.float64)
    upstream = torch.randn(7, 5, dtype=torch.float64)
    layer(x).backward(upstream)
    u, s, v = (p.detach() for p in (layer.latent.U, layer.latent.s, layer.latent.V))
    weight = u @ torch.diag(s) @ v.T
    to_weight = (upstream.T @ torch.tensor(plus_minus(x))) * (weight.abs() <= 1)
    torch.testing.assert_close(layer.latent.U.grad, to_weight @ v @ torch.diag(s))
    torch.testing.assert_close(layer.latent.s.grad, (u.T @ to_weight @ v).diagonal())
    torch.testing.assert_close(layer.latent.V.grad, to_weight.T @ u @ torch.diag(s))


def test_default_weight_is_kaiming_normal():
    weight = BinaryConv2d(64, 64, 3).latent.weight.detach()
    # standard error of a standard deviation over 36,864 entries: 0.4 %
    assert float(weight.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_given_weight_is_copied():
    weight = torch.randn(4, 3, 3, 3)
    layer = BinaryConv2d(3, 4, 3, weight=weight)
    assert torch.equal(layer.latent.weight, weight)
    assert layer.latent.weight.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryConv2d(3, 4, 3, groups=2), "3 input, 4 output channels.*2 groups"),
        (lambda: BinaryConv2d(4, 3, 3, groups=2), "4 input, 3 output channels.*2 groups"),
        (lambda: BinaryConv2d(3, 4, 3, padding_value=2), "padding_value is 2"),
        (lambda: BinaryConv2d(3, 4, 3, weight=torch.zeros(4, 3, 1, 1)), r"\(4, 3, 1, 1\).*\(4, 3, 3, 3\)"),
        (lambda: BinaryLinear(3, 4, weight=torch.zeros(3, 4)), r"\(3, 4\).*\(4, 3\)"),
    ],
)
def test_impossible_options_are_errors_that_say_what_was_given(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("option", ["activation_gradient", "weight_gradient"])
def test_unknown_gradient_is_an_error(option):
    with pytest.raises(ValueError, match="tanh"):
        BinaryConv2d(2, 2, 1, **{option: "tanh"})(torch.zeros(1, 2, 1, 1))


def test_representation_names_what_differs_from_the_default():
    assert "4, 8, kernel_size=(3, 3), stride=(2, 2), groups=2, padding_value=-1, scale=none" in repr(
        BinaryConv2d(4, 8, 3, 2, groups=2, padding_value=-1, scale="none")
    )
    assert "6, 4, scale=channel" in repr(BinaryLinear(6, 4))
