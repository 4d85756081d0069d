import pytest
import torch

from bnnlight.nn.compute.product import Replayed, _Product, product


def matrices(dtype, m=140, k=150, n=130):
    """Plain ones, and views with every other stride that latents hand over."""
    a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
    yield a, b
    yield a.T.contiguous().T, b
    yield a, b.T.contiguous().T
    yield torch.randn(2 * m, 2 * k, dtype=dtype)[::2, ::2], torch.randn(k, 2 * n, dtype=dtype)[:, ::2]


@pytest.mark.parametrize("sizes", [(140, 150, 130), (3, 4, 5), (700, 64, 64), (64, 64, 700), (64, 700, 64), (1, 1, 1)])
def test_equals_the_product_in_double_precision(sizes):
    for a, b in matrices(torch.float32, *sizes):
        a, b = a.clone(memory_format=torch.preserve_format), b.clone(memory_format=torch.preserve_format)
        a.requires_grad_(), b.requires_grad_()
        y = product(a, b)
        upstream = torch.randn(y.shape)
        y.backward(upstream)
        one, other, up = (t.detach().double() for t in (a, b, upstream))
        for found, expected in ((y, one @ other), (a.grad, up @ other.T), (b.grad, one.T @ up)):
            assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_gradcheck():
    for a, b in matrices(torch.float64, 4, 5, 3):
        inputs = a.requires_grad_(), b.requires_grad_(), False, None
        assert torch.autograd.gradcheck(_Product.apply, inputs)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_only_the_gradient_that_is_wanted(wanted):
    a, b = (torch.randn(4, 4, requires_grad=want) for want in wanted)
    product(a, b).sum().backward()
    assert (a.grad is not None, b.grad is not None) == wanted


def test_factors_of_bfloat16_are_rounded_and_added_up_exactly():
    # whole numbers up to 256 are exact in bfloat16, and so is 255 as a sum of 255 of them; 1 + 2⁻⁹ is rounded to 1
    for b in (torch.ones(255, 2), torch.ones(2, 255).T):
        a, b = torch.full((3, 255), 1 + 2**-9, requires_grad=True), b.requires_grad_()
        y = product(a, b, dtype=torch.bfloat16)
        to_a, to_b = torch.autograd.grad(y, (a, b), torch.full((3, 2), 2 + 2**-8))
        assert y.dtype == to_a.dtype == to_b.dtype == torch.float32
        assert (y == 255).all() and (to_a == 4).all() and (to_b == 6).all()
        assert not torch.equal(product(a, b), y)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_last_product_is_left_out_where_gradients_alone_are_wanted(dtype):
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    grad = torch.randn(3, 5)
    expected = torch.autograd.grad(product(a, b, dtype=dtype), (a, b), grad)
    again = Replayed()
    for _ in range(2):
        with again:
            inner, last = product(a, b, dtype=dtype), product(a, b, last=True, dtype=dtype)
        assert inner.abs().sum() > 0 and not last.any() and last.shape == inner.shape
        assert all(map(torch.equal, torch.autograd.grad(last, (a, b), grad), expected))
    assert torch.equal(product(a, b, last=True, dtype=dtype), inner)


def test_other_precisions_are_left_to_torch():
    a, b = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    assert torch.equal(product(a, b), a @ b)
