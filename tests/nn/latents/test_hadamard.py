import numpy as np
import pytest
import scipy.linalg
import torch

from bnnlight.nn.latents.hadamard import transform, transform_factors

# powers of two, and the odd factors behind them
FACTORS = {
    8: (8, ()),
    16: (16, ()),
    1: (1, ()),
    2: (2, ()),
    3: (1, (3,)),
    5: (1, (5,)),
    6: (2, (3,)),
    7: (1, (7,)),
    12: (4, (3,)),
    17: (1, (17,)),
    48: (16, (3,)),
    63: (1, (63,)),
    64: (64, ()),
    96: (32, (3,)),
    100: (4, (25,)),
    130: (2, (5, 13)),
    135: (1, (27, 5)),
    160: (32, (5,)),
    512: (512, ()),
    1009: (1, (1009,)),
}


def dense(n):
    """T as one matrix: scipy's Hadamard matrix, and Hartley's by Fourier transforms."""
    power, odd = FACTORS[n]
    matrix = scipy.linalg.hadamard(power) / np.sqrt(power)
    for m in odd:
        fourier = np.fft.fft(np.eye(m))
        matrix = np.kron(matrix, (fourier.real - fourier.imag) / np.sqrt(m))
    return matrix


@pytest.mark.parametrize("n", FACTORS)
def test_equals_the_dense_matrix_along_every_dimension(n):
    matrix = dense(n)
    for dim, shape in enumerate([(n, 2, 3), (3, n, 2), (2, 3, n)]):
        x = torch.randn(shape, dtype=torch.float64)
        before = x.clone()
        expected = np.moveaxis(np.tensordot(matrix, x.numpy(), (1, dim)), 0, dim)
        np.testing.assert_allclose(transform(x, (dim,)).numpy(), expected, atol=1e-12)
        assert torch.equal(x, before)
        np.testing.assert_allclose(transform(x, (dim,), overwrite=True).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("n", FACTORS)
def test_is_orthogonal_and_mixes_all(n):
    matrix = transform(torch.eye(n, dtype=torch.float64), (0,)).numpy()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-13)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.abs(matrix).min() > 0
    if len(FACTORS[n][1]) < 2:
        assert np.abs(matrix).max() <= np.sqrt(2 / n)


@pytest.mark.parametrize("n", [n for n in FACTORS if n < 1000])
def test_factors_are_twos_then_odd_numbers(n):
    power, odd = FACTORS[n]
    assert transform_factors(n) == (2,) * int(np.log2(power)) + odd


@pytest.mark.parametrize(
    ("n", "block", "expected"),
    [(64, 16, (2,) * 4), (64, 31, (2,) * 4), (96, 16, (2, 2, 3)), (17, 16, (17,)), (34, 16, (17,)), (8, 16, (2,) * 3)],
)
def test_blocks_are_the_last_factors_of_as_many_as_fit(n, block, expected):
    assert transform_factors(n, block) == expected
    length = int(np.prod(expected))
    matrix = transform(torch.eye(n, dtype=torch.float64), (0,), block).numpy()
    np.testing.assert_allclose(matrix, np.kron(np.eye(n // length), dense(length)), atol=1e-14)


def test_several_dimensions_are_one_after_the_other():
    x = torch.randn(12, 5, 64, dtype=torch.float64)
    expected = np.einsum("oa,aki,ib->okb", dense(12), x.numpy(), dense(64))
    np.testing.assert_allclose(transform(x, (0, 2)).numpy(), expected, atol=1e-13)
    assert torch.equal(transform(x, (2, 0)), transform(x, (0, 2)))


def test_single_precision_has_its_full_accuracy():
    x = torch.randn(512, 3, 512)
    found, expected = transform(x, (0, 2)), transform(x.double(), (0, 2))
    assert float((found - expected).norm() / expected.norm()) < 5e-7
