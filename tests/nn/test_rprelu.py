import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.backbones import BinaryUnit
from bnnlight.nn import RPReLU, sign
from bnnlight.nn.summary import summarize
from bnnlight.optim import parameter_groups


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_equals_its_formula(shape):
    layer = RPReLU(3).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(shape, dtype=torch.float64)
    gamma, slope, zeta = (p.detach().numpy() for p in (layer.gamma, layer.slope, layer.zeta))
    for channel in range(3):
        moved = x.numpy()[:, channel] - gamma[channel]
        expected = np.where(moved > 0, moved, slope[channel] * moved) + zeta[channel]
        np.testing.assert_allclose(layer(x).detach().numpy()[:, channel], expected, rtol=1e-14)


def test_starts_as_a_prelu_and_every_number_learns():
    layer, x = RPReLU(4), torch.randn(2, 4, 3, 3)
    assert torch.equal(layer(x), nn.PReLU(4)(x))
    (layer(x) * torch.randn(2, 4, 3, 3)).sum().backward()
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "gamma": (4,),
        "slope": (4,),
        "zeta": (4,),
    }
    assert all((p.grad != 0).all() for p in layer.parameters())


def test_half_precision_stays():
    assert RPReLU(4)(torch.randn(2, 4, 3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_its_numbers_are_neither_decayed_nor_left_out_of_the_summary():
    unit = BinaryUnit(2, 5, activation=RPReLU)
    (norm,) = (group for group in parameter_groups(unit) if group.name == "norm")
    assert {id(p) for p in unit.activation.parameters()} <= {id(p) for p in norm.parameters} and not norm.decay
    counts = [
        summarize(BinaryUnit(2, 5, activation=made), (2, 6, 6)).total("num_real")
        for made in (nn.Identity, nn.PReLU, RPReLU)
    ]
    assert (counts[1] - counts[0], counts[2] - counts[0]) == (5, 15)


@pytest.mark.parametrize("gradient", ["clipped", "polynomial"])
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norms_bias_before_a_sign_is_rsign(training, gradient):
    # RSign is sign(x − τ) with a learned τ for each channel
    norm, bare = (nn.BatchNorm2d(3).double().train(training) for _ in range(2))
    bias = torch.tensor([0.3, -0.7, 0.0], dtype=torch.float64)
    tau = (-bias).requires_grad_()
    with torch.no_grad():
        for layer in (norm, bare):
            layer.weight.copy_(torch.tensor([0.5, 1.5, -1.0]))
        norm.bias.copy_(bias)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    upstream = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = sign(norm(ours), gradient), sign(bare(theirs) - tau.view(-1, 1, 1), gradient)
    assert torch.equal(y, expected)
    assert (y != sign(bare(x))).any()  # the shift is not a small thing
    (y * upstream).sum().backward()
    (expected * upstream).sum().backward()
    # a step of either learns the same, and what lies before gets the same gradient
    torch.testing.assert_close(norm.bias.grad, -tau.grad)
    torch.testing.assert_close(norm.weight.grad, bare.weight.grad)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert (tau.grad != 0).all()


def test_nothing_stands_between_a_units_batch_norm_and_its_sign():
    unit, shifted = (BinaryUnit(4, 6, activation=RPReLU).double() for _ in range(2))
    shifted.load_state_dict(unit.state_dict())
    bias = torch.randn(4, dtype=torch.float64)
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        unit.norm.bias.copy_(bias)
        normed = shifted.norm(x)
        expected = shifted.activation(shifted.conv(normed + bias.view(-1, 1, 1)))
    assert torch.equal(unit(x), expected)
    assert list(dict(unit.named_children())) == ["norm", "conv", "activation"]
