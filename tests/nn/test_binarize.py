import math
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import expit

from bnnlight.nn import Tanh, Triangular, sign, straight_through
from bnnlight.nn.binarize import GradientName, decode_sign, encode_sign, sign_backward

GRADIENTS = [*get_args(GradientName), Tanh(0.1), Tanh(1.0), Tanh(10.0), Triangular(0.1), Triangular(3.0)]

# below, at and above the clip, both signs, and both zeros
POINTS = [-1.5, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 1.5]
BY_HAND = {
    "identity": [1, 1, 1, 1, 1, 1, 1, 1],
    "clipped": [0, 1, 1, 1, 1, 1, 1, 0],
    "polynomial": [0, 0, 1, 2, 2, 1.5, 0, 0],
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sign_is_plus_one_at_both_zeros_and_keeps_the_dtype(dtype):
    y = sign(torch.tensor([-2.0, -1e-7, -0.0, 0.0, 1e-7, 2.0], dtype=dtype))
    assert y.tolist() == [-1, -1, 1, 1, 1, 1]
    assert y.dtype == dtype


@pytest.mark.parametrize("name", BY_HAND)
def test_straight_through_factor_and_gradient_equal_hand_values(name):
    u = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    assert straight_through(u.detach(), name).tolist() == BY_HAND[name]
    # upstream gradients that all differ, so that a gradient at the wrong place is seen
    upstream = torch.arange(2.0, 10.0, dtype=torch.float64)
    sign(u, name).backward(upstream)
    assert u.grad.tolist() == [g * up for g, up in zip(BY_HAND[name], upstream.tolist(), strict=True)]


def sign_swish(u, beta=5.0):
    return 2 * expit(beta * u) * (1 + beta * u * (1 - expit(beta * u))) - 1


def test_swish_is_the_derivative_of_the_sign_swish():
    points = np.array([-3, -1, -0.48, -0.1, 0, 0.02, 0.3, 0.5, 1, 2.5])
    step = 1e-6
    expected = (sign_swish(points + step) - sign_swish(points - step)) / (2 * step)
    u = torch.tensor(points, requires_grad=True)
    np.testing.assert_allclose(straight_through(u.detach(), "swish").numpy(), expected, atol=1e-8)
    sign(u, "swish").backward(torch.full_like(u, -3.0))
    np.testing.assert_allclose(u.grad.numpy(), -3 * expected, atol=3e-8)


@pytest.mark.parametrize("sharpness", [0.1, 0.5, 1.0, 3.0, 10.0])
def test_tanh_is_the_derivative_of_a_scaled_tanh(sharpness):
    points = np.array([-4, -1, -0.2, -0.01, 0, 0.05, 0.4, 1, 2.5])
    step = 1e-5
    ends = [max(1 / sharpness, 1) * np.tanh(sharpness * (points + side * step)) for side in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    u = torch.tensor(points, requires_grad=True)
    np.testing.assert_allclose(straight_through(u.detach(), Tanh(sharpness)).numpy(), expected, atol=1e-7)
    sign(u, Tanh(sharpness)).backward(torch.full_like(u, -3.0))
    np.testing.assert_allclose(u.grad.numpy(), -3 * expected, atol=3e-7)


def rbnn_sign(u, t):
    """RBNN's approximation of the sign, a parabola on each side, times k."""
    inside = -np.sign(u) * t**2 * u**2 / 2 + math.sqrt(2) * t * u
    return max(1 / t, 1) * np.where(np.abs(u) < math.sqrt(2) / t, inside, np.sign(u))


@pytest.mark.parametrize("steepness", [0.01, 0.5, 1.0, 3.0, 10.0])
def test_the_triangle_is_the_derivative_of_the_sign_of_rbnn(steepness):
    points = np.array([-200, -4, -1, -0.2, -0.01, 0.05, 0.4, 1, 2.5, 120])
    step = 1e-6
    expected = (rbnn_sign(points + step, steepness) - rbnn_sign(points - step, steepness)) / (2 * step)
    u = torch.tensor(points, requires_grad=True)
    np.testing.assert_allclose(straight_through(u.detach(), Triangular(steepness)).numpy(), expected, atol=1e-6)
    sign(u, Triangular(steepness)).backward(torch.full_like(u, -3.0))
    np.testing.assert_allclose(u.grad.numpy(), -3 * expected, atol=3e-6)
    with pytest.raises(ValueError, match=r"steepness is 0.0: give a finite number above 0"):
        Triangular(0.0)


def test_tanh_runs_from_the_identity_to_a_narrow_peak():
    u = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    # 1 − tanh²(0.1) = 0.99007; 10 (1 − tanh²(10)) = 40 e⁻²⁰
    np.testing.assert_allclose(Tanh(0.1)(u).numpy(), [0.99007, 1, 0.99007], atol=1e-5)
    np.testing.assert_allclose(Tanh(10.0)(u).numpy(), [8.2446e-8, 10, 8.2446e-8], rtol=1e-4)


@pytest.mark.parametrize("sharpness", [0.0, -1.0, float("inf"), float("nan")])
def test_a_sharpness_that_is_none_is_an_error(sharpness):
    with pytest.raises(ValueError, match=r"sharpness is .*: give a finite number above 0"):
        Tanh(sharpness)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
@pytest.mark.parametrize(("dtype", "huge"), [(torch.float32, 1e4), (torch.float32, 3e38), (torch.float16, 6e4)])
def test_gradient_of_huge_inputs_is_finite(gradient, dtype, huge):
    u = torch.tensor([-huge, huge], dtype=dtype, requires_grad=True)
    sign(u, gradient).sum().backward()
    assert u.grad.tolist() == ([1, 1] if gradient == "identity" else [0, 0])


def test_gradient_flows_through_a_sign_in_the_middle_of_a_network():
    x = torch.tensor([[0.5, -0.5]], requires_grad=True)
    weight = torch.tensor([[3.0, -2.0]], requires_grad=True)
    (sign(x) @ sign(weight).T).sum().backward()
    assert x.grad.tolist() == [[1, -1]]  # the signs of the weight
    assert weight.grad.tolist() == [[0, 0]]  # both beyond the clip


@pytest.mark.parametrize("function", [sign, straight_through])
def test_unknown_gradient_is_an_error_that_lists_the_known_ones(function):
    with pytest.raises(ValueError, match=r"'tanh'.*identity, clipped, polynomial, swish, or bnnlight.nn.Tanh"):
        function(torch.zeros(1), "tanh")


def neighbours(dtype):
    """Numbers at and next to every place where sign or gradient change."""
    values = [0.0, -0.0, torch.finfo(dtype).tiny, -torch.finfo(dtype).tiny, 0.5, -0.5, 3.0, -3.0, 1e4, -1e4]
    values += [float("inf"), -float("inf"), float("nan")]
    for edge in (1.0, -1.0):
        exact = torch.tensor(edge, dtype=dtype)
        values += [edge, *(float(exact.nextafter(torch.tensor(to, dtype=dtype))) for to in (0.0, 2 * edge))]
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_what_is_kept_of_a_number_tells_its_sign_and_gradient(dtype, gradient):
    u = (
        neighbours(dtype)
        if dtype in (torch.float32, torch.float64)
        else torch.tensor([-2, -1, -0.5, 0, 1, 1.5]).to(dtype)
    )
    grad = torch.randn(u.shape).to(dtype)
    kept = encode_sign(u, gradient)
    assert kept.dtype == (torch.int8 if gradient in ("identity", "clipped") else dtype)
    expected = torch.where(u >= 0, 1.0, -1.0).to(dtype)
    for values in (kept, u):  # u itself is kept too, where it is a parameter
        assert torch.equal(decode_sign(values, dtype), expected)
        assert torch.equal(decode_sign(values, torch.int8), expected.to(torch.int8))
        found = sign_backward(grad, values, gradient)
        torch.testing.assert_close(found, grad * straight_through(u, gradient), rtol=0, atol=0, equal_nan=True)
