"""Fixed-point numbers against Python's own rounding, and their gradient."""

import pytest
import torch

from bnnlight.nn import FixedPoint, FixedPointConv2d, FixedPointLinear


@pytest.mark.parametrize(("num_bits", "fraction_bits"), [(2, 0), (4, 3), (6, 3), (8, -2), (16, 20)])
def test_rounds_as_python_does_and_stays_within_its_bits(num_bits, fraction_bits):
    halves = torch.arange(-9, 10) * 2.0**-fraction_bits / 2
    x = torch.cat([torch.randn(500) * 2.0 ** (num_bits - fraction_bits), halves])
    bound = 2 ** (num_bits - 1)
    # Python rounds halves to even
    whole = [min(max(round(float(v) * 2.0**fraction_bits), -bound), bound - 1) for v in x]
    assert FixedPoint(num_bits, fraction_bits)(x).tolist() == [k * 2.0**-fraction_bits for k in whole]


def test_the_gradient_passes_within_the_bounds_alone():
    x = torch.tensor([-4.1, -4.0, -0.3, 3.87, 3.9], requires_grad=True)
    FixedPoint(6, 3)(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("layer", [FixedPointConv2d(2, 3, 3, 2, 1), FixedPointLinear(5, 3)])
def test_layers_compute_with_rounded_weights_and_train_the_others(layer):
    x = torch.randn(4, *((2, 5, 5) if layer.weight.ndim == 4 else (5,)))
    rounded = layer.rounding(layer.weight.detach())
    assert not torch.equal(rounded, layer.weight)
    if layer.weight.ndim == 4:
        expected = torch.nn.functional.conv2d(x, rounded, None, 2, 1)
    else:
        expected = x @ rounded.T + layer.bias
    y = layer(x)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("bits", [(1, 0), (17, 0), (8, 33), (8, -17)])
def test_numbers_of_bits_out_of_range_are_refused(check_one_line, bits):
    with pytest.raises(ValueError) as error:
        FixedPoint(*bits)
    check_one_line(error, "_bits is ", "give ")
