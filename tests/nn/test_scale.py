import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.nn import BinaryConv2d, BinaryLinear, make_spatial
from bnnlight.nn.scale import AnalyticScale, Scale, analytic_alpha, apply_alpha, make_scale


def mean_abs(weight):
    return np.abs(weight.detach().numpy()).reshape(len(weight), -1).mean(1)


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (4, 7)])
def test_channel_scale_starts_as_the_mean_absolute_weight_and_is_learned(shape):
    weight = torch.randn(shape, dtype=torch.float64)
    scale = make_scale("channel", weight)
    np.testing.assert_allclose(scale(weight).detach().numpy(), mean_abs(weight), rtol=1e-12)
    assert [name for name, _ in scale.named_parameters()] == ["alpha"]
    # once made it no longer follows the weight
    np.testing.assert_allclose(scale(3 * weight).detach().numpy(), mean_abs(weight), rtol=1e-12)


def test_analytic_scale_is_recomputed_at_every_step():
    layer = BinaryConv2d(2, 3, 3, scale="analytic")
    assert not list(layer.scale.parameters())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(2, 2, 5, 5)).square().mean().backward()
        before = layer.alpha()
        optimizer.step()
        assert not torch.equal(layer.alpha(), before)
        np.testing.assert_allclose(layer.alpha().numpy(), mean_abs(layer.latent.weight), rtol=1e-6)


def test_gradient_flows_through_the_analytic_scale():
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    sums, upstream = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)

    def loss(values):
        # the sums stand for a convolution by signs that do not move
        return float((apply_alpha(sums, AnalyticScale()(values), 1) * upstream).sum())

    (apply_alpha(sums, AnalyticScale()(weight), 1) * upstream).sum().backward()
    step = 1e-6
    for index in [(0, 0, 0, 0), (1, 1, 2, 0), (2, 0, 1, 1)]:
        moved = weight.detach().clone()
        moved[index] += step
        above = loss(moved)
        moved[index] -= 2 * step
        assert float(weight.grad[index]) == pytest.approx((above - loss(moved)) / (2 * step), rel=1e-5)


def test_spatial_scale_is_the_outer_product_of_three_vectors():
    weight = torch.randn(5, 2, 3, 3, dtype=torch.float64)
    scale = make_scale("spatial", weight, (4, 6))
    with torch.no_grad():
        for parameter in scale.parameters():
            parameter.normal_()
    channel, height, width = (p.detach().numpy() for p in scale.parameters())
    assert (len(channel), len(height), len(width)) == (5, 4, 6)
    expected = np.einsum("c,y,x->cyx", channel, height, width)
    np.testing.assert_allclose(scale(weight).detach().numpy(), expected, rtol=1e-12)


def test_spatial_scale_starts_as_the_analytic_value_everywhere():
    weight = torch.randn(5, 2, 3, 3, dtype=torch.float64)
    alpha = make_scale("spatial", weight, (4, 6))(weight).detach().numpy()
    np.testing.assert_allclose(alpha, np.broadcast_to(mean_abs(weight)[:, None, None], (5, 4, 6)), rtol=1e-12)


def test_spatial_scale_of_another_output_size_is_an_error():
    layer = BinaryConv2d(2, 3, 3, scale="spatial", output_size=(4, 4))
    assert layer(torch.randn(1, 2, 6, 6)).shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(5, 4\)"):
        layer(torch.randn(1, 2, 7, 6))


@pytest.mark.parametrize("output_size", [None, (4,), (4, 4, 4), (0, 4)])
def test_spatial_scale_without_a_usable_output_size_is_an_error(output_size):
    with pytest.raises(ValueError, match="output size"):
        BinaryConv2d(2, 3, 3, scale="spatial", output_size=output_size)


@pytest.mark.parametrize("shape", [(2, 7), (2, 5, 7)])
def test_spatial_scale_equals_channel_on_a_linear_layer(shape):
    channel = BinaryLinear(7, 4)
    spatial = make_spatial(nn.Sequential(BinaryLinear(7, 4, scale="spatial", weight=channel.latent.weight)), shape[1:])
    x = torch.randn(shape)
    torch.testing.assert_close(spatial(x), channel(x))


def test_no_scale_leaves_integer_sums():
    y = BinaryConv2d(3, 4, 3, scale="none")(torch.randn(2, 3, 6, 6))
    # 27 terms of ±1: odd whole numbers
    assert torch.equal(y % 2, torch.ones_like(y))
    assert y.abs().max() <= 27
    assert BinaryConv2d(3, 4, 3, scale="none").alpha() is None


@pytest.mark.parametrize(
    ("y_shape", "alpha_shape", "channel_dim", "equation"),
    [
        ((2, 3, 4, 5), (3,), 1, "ncyx,c->ncyx"),
        ((2, 3, 4, 5), (3, 4, 5), 1, "ncyx,cyx->ncyx"),
        ((2, 6, 3), (3,), -1, "ntc,c->ntc"),
    ],
)
def test_applying_alpha_has_the_right_values_and_gradients(y_shape, alpha_shape, channel_dim, equation):
    y = torch.randn(y_shape, dtype=torch.float64, requires_grad=True)
    alpha = torch.randn(alpha_shape, dtype=torch.float64, requires_grad=True)
    expected = np.einsum(equation, y.detach().numpy(), alpha.detach().numpy())
    np.testing.assert_allclose(apply_alpha(y, alpha, channel_dim).detach().numpy(), expected, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: apply_alpha(a, b, channel_dim), (y, alpha))


def test_analytic_alpha_by_hand():
    assert analytic_alpha(torch.tensor([[1.0, -3.0], [0.0, 0.5]])).tolist() == [2, 0.25]


def test_unknown_scale_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'layer'.*none, analytic, channel, spatial"):
        BinaryConv2d(2, 3, 3, scale="layer")


def test_base_scale_has_no_forward():
    with pytest.raises(NotImplementedError):
        Scale()(torch.zeros(1, 1))
