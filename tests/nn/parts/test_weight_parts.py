"""What stands between a latent weight and its sign, against the papers' formulas in numpy."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnnlight.nn import (
    Balanced,
    BinaryConv2d,
    BinaryLinear,
    BiRotated,
    Clamped,
    Dense,
    Standardized,
    Tucker,
    convert,
    restart_alpha,
    weights_kept,
)
from bnnlight.nn.compute.lean import recomputed

RECU = [partial(Standardized, deviation=2 * math.sqrt(2)), Clamped]
RBNN = [Standardized, BiRotated]
CHAINS = {"standardized": [Standardized], "balanced": [Balanced], "clamped": [Clamped], "recu": RECU, "rbnn": RBNN}
each_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def skewed(*shape):
    """Weights of filters of several sizes, none of which has zero for its mean or median."""
    weight = torch.randn(shape).exp() - 1.2
    return weight * torch.linspace(0.01, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))


def standardized(weight, deviation=1.0):
    rows = weight.reshape(len(weight), -1)
    rows = deviation * (rows - rows.mean(1, keepdims=True)) / rows.std(1, ddof=1, keepdims=True)
    return rows.reshape(weight.shape)


@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (6, 7)])
@pytest.mark.parametrize("deviation", [1.0, 2.5])
def test_standardized_is_the_formula_in_either_memory_format(shape, deviation):
    weight = skewed(*shape)
    part = Standardized(weight, deviation)
    expected = standardized(weight.double().numpy(), deviation)
    np.testing.assert_allclose(part(weight).numpy(), expected, rtol=1e-5, atol=1e-6)
    if len(shape) == 4:
        other = part(weight.to(memory_format=torch.channels_last))
        assert other.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_allclose(other.numpy(), expected, rtol=1e-5, atol=1e-6)
    leaf = weight.double().requires_grad_()
    assert torch.autograd.gradcheck(Standardized(leaf, deviation), [leaf])


def test_a_filter_of_equal_weights_becomes_zeros():
    weight = torch.tensor([0.1, -3.0]).view(2, 1, 1, 1).expand(2, 3, 3, 3).contiguous()
    assert Standardized(weight)(weight).abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (4, 3, 3, 3), (3, 7), (3, 1)])
def test_half_of_each_filter_is_positive(shape, dtype):
    weight = skewed(*shape).to(dtype)
    size = weight[0].numel()
    # no two alike in half precision either
    weight = (torch.rand(len(weight), size).argsort(1) - size // 3).reshape(shape).to(dtype) / 16
    part = Balanced(weight)
    result = part(weight)
    assert (result >= 0).flatten(1).sum(1).tolist() == [-(-size // 2)] * len(weight)
    expected = weight.double() - weight.double().flatten(1).sort().values[:, size // 2].view(
        -1, *[1] * (len(shape) - 1)
    )
    assert result.dtype == dtype and torch.equal(result.double(), expected)
    if len(shape) == 4:
        assert torch.equal(part(weight.to(memory_format=torch.channels_last)), result)
    leaf = weight.clone().requires_grad_()
    part(leaf).backward(grad := torch.randn(shape).to(dtype))
    assert torch.equal(leaf.grad, grad)


def test_clamped_at_the_quantiles_of_laplaces_distribution():
    weight = torch.distributions.Laplace(0.0, 0.3).sample((100, 30, 3, 3))
    part = Clamped(weight, 0.9)
    result = part(weight)
    bound = -np.abs(weight.double().numpy()).mean() * math.log(2 - 2 * 0.9)
    np.testing.assert_allclose(result.numpy(), np.clip(weight.numpy(), -bound, bound), rtol=1e-5)
    # a tenth lies above the upper quantile and a tenth below the lower one
    assert [float((sign * weight > float(result.max())).float().mean()) for sign in (1, -1)] == [
        pytest.approx(0.1, abs=0.01)
    ] * 2
    assert torch.equal(result.sign(), weight.sign())
    leaf = weight.clone().requires_grad_()
    part(leaf).sum().backward()
    assert torch.equal(leaf.grad, (weight.abs() <= bound).float())
    part.tau = 1
    assert torch.equal(part(weight), weight)


def reference(weights, x, layer, chain):
    """Output of a layer whose W̃ is given, in operations of torch's own with straight-through gradients."""
    shape = weights.shape
    weight = weights
    if chain is CHAINS["clamped"]:
        bound = -weight.detach().abs().mean() * math.log(0.3)
        weight = torch.minimum(torch.maximum(weight, -bound), bound)
    elif chain is CHAINS["balanced"]:
        weight = weight - weight.detach().flatten(1).sort().values[:, weight[0].numel() // 2].view(-1, 1, 1, 1)
    else:
        rows = weight.flatten(1)
        rows = (rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True)
        if chain is RECU:
            rows = 8**0.5 * rows
            bound = -rows.detach().abs().mean() * math.log(0.3)
            rows = rows.clamp(-bound, bound)
        if chain is RBNN:
            part = layer.weight_parts[1]
            turned = torch.stack([part.left.T @ row.view(8, 9) @ part.right for row in rows]).flatten(1)
            share = part.angle.sin().abs().view(-1, 1)
            rows = (1 - share) * rows + share * turned
        weight = rows.view(shape)
    near, positive = weight.clamp(-1, 1), x.clamp(-1, 1)
    signs = near + ((weight >= 0) * 2.0 - 1 - near).detach()
    inputs = positive + ((x >= 0) * 2.0 - 1 - positive).detach()
    alpha = layer.scale.alpha if layer.scale.name == "channel" else weights.flatten(1).abs().mean(1)
    return F.conv2d(inputs, signs, padding=1) * alpha.view(-1, 1, 1)


@each_chain
@pytest.mark.parametrize("lean", [False, True], ids=["plain", "lean"])
@pytest.mark.parametrize("scale", ["channel", "analytic"])
@pytest.mark.parametrize("latent", [Dense, partial(Tucker, rank=0.75)], ids=["dense", "tucker"])
def test_a_layer_trains_as_by_hand_in_double_precision(chain, lean, latent, scale):
    weight = skewed(6, 8, 3, 3) / 10
    layer = BinaryConv2d(8, 6, 3, padding=1, latent=latent, scale=scale, weight_parts=chain, weight=weight)
    if chain is RBNN:
        layer.weight_parts.renew(layer.weight.detach(), 2)
    exact = copy.deepcopy(layer).double()
    x = torch.randn(2, 8, 5, 5).requires_grad_()
    y = recomputed(layer, x, layer) if lean else layer(x)
    weighting = torch.linspace(-1, 1, y.numel()).view_as(y)
    (y * weighting).sum().backward()
    x64 = x.detach().double().requires_grad_()
    y64 = reference(exact.latent(), x64, exact, chain)
    (y64 * weighting).sum().backward()
    torch.testing.assert_close(y.double(), y64, rtol=1e-5, atol=1e-6)
    for found, expected in zip([x, *layer.parameters()], [x64, *exact.parameters()], strict=True):
        assert (found.grad - expected.grad).norm() <= 1e-5 * expected.grad.norm()
    assert layer.binary_weight().unique().tolist() == [-1, 1]
    # the same signs and numbers in eval mode, and where weights are kept
    layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), y, rtol=1e-5, atol=1e-6)
        with weights_kept():
            layer(x)
            torch.testing.assert_close(layer(x), y, rtol=1e-5, atol=1e-6)


@each_chain
def test_alpha_is_that_of_the_latent(chain):
    weight = skewed(6, 8)
    for scale in ("channel", "analytic"):
        layer = BinaryLinear(8, 6, scale=scale, weight_parts=chain, weight=weight)
        np.testing.assert_allclose(layer.alpha().detach().numpy(), weight.abs().mean(1).numpy(), rtol=1e-6)
        restart_alpha(layer)
        np.testing.assert_allclose(layer.alpha().detach().numpy(), weight.abs().mean(1).numpy(), rtol=1e-6)


@each_chain
def test_a_converted_network_has_them_and_a_frozen_layer_freezes_them(chain):
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 2, 1)]
    network = torch.nn.Sequential(*layers)
    network[2].requires_grad_(False)
    convert(network, weight_parts=chain, input_shape=(3, 8, 8))
    parts = network[2].conv.weight_parts
    assert [type(part) for part in parts] == [getattr(part, "func", part) for part in chain]
    assert not any(parameter.requires_grad for parameter in network[2].parameters())


@pytest.mark.parametrize(
    ("chain", "shape", "text"),
    [
        ([Standardized, Balanced], (2, 3), "weight_parts: Standardized and Balanced both set the sign's threshold"),
        ([Balanced, Clamped, Standardized], (2, 3), "weight_parts: Balanced and Standardized both set"),
        ([Standardized, Standardized], (2, 3), "weight_parts: Standardized and Standardized both set"),
        ([Standardized], (2, 1), "Standardized: each filter has a single weight, which has no deviation: leave it out"),
        (
            [partial(Standardized, deviation=0.0)],
            (2, 3),
            "deviation of Standardized is 0.0: give a finite number above 0",
        ),
        ([partial(Clamped, tau=0.5)], (2, 3), "tau of Clamped is 0.5: give a number above 0.5 and at most 1"),
        ([partial(Clamped, tau=math.nan)], (2, 3), "tau of Clamped is nan: give"),
        ([partial(BiRotated, angle=math.inf)], (2, 3), "angle of BiRotated is inf: give a finite number"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(chain, shape, text):
    with pytest.raises(ValueError, match=text) as error:
        BinaryLinear(shape[1], shape[0], weight_parts=chain)
    assert "\n" not in str(error.value)
