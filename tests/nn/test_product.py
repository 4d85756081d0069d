import pytest
import torch

from bnnlight.nn.product import _Product, product


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
        assert torch.autograd.gradcheck(_Product.apply, (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_only_the_gradient_that_is_wanted(wanted):
    a, b = (torch.randn(4, 4, requires_grad=want) for want in wanted)
    product(a, b).sum().backward()
    assert (a.grad is not None, b.grad is not None) == wanted


def test_other_precisions_are_left_to_torch():
    a, b = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    assert torch.equal(product(a, b), a @ b)
