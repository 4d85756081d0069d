import math

import numpy as np
import pytest
import torch

from bnnlight.metrics import effective_rank, energy_rank, singular_values, stable_rank


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (7, 7), (40, 90), (90, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_values_equal_numpys(shape, dtype):
    matrix = torch.randn(shape, dtype=dtype)
    expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    found = singular_values(matrix)
    assert found.dtype == torch.float64 and found.device.type == "cpu"
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9 * expected[0])


def test_values_that_are_zero_are_noise_below_what_is_promised():
    low = torch.randn(30, 4, dtype=torch.float64) @ torch.randn(4, 50, dtype=torch.float64)
    found = singular_values(low)
    assert found.shape == (30,)
    assert (found[4:] >= 0).all() and (found[4:] < 1e-7 * found[0]).all()


def test_a_parameter_is_taken_without_gradient():
    found = singular_values(torch.nn.Parameter(torch.diag(torch.tensor([2.0, 5.0, 3.0]))))
    assert not found.requires_grad
    assert found.tolist() == pytest.approx([5, 3, 2])


def test_effective_rank_by_hand():
    # p = ½, ¼, ¼ has the entropy 1.5 ln 2
    assert effective_rank(torch.tensor([2.0, 1.0, 1.0])) == pytest.approx(2**1.5)
    assert effective_rank(torch.tensor([3.0, 3.0, 3.0, 0.0])) == pytest.approx(3)
    assert effective_rank(torch.tensor([7.0, 0.0])) == pytest.approx(1)


def test_stable_rank_by_hand_and_by_norms():
    assert stable_rank(torch.tensor([2.0, 1.0, 1.0])) == pytest.approx(6 / 4)
    assert stable_rank(torch.tensor([1.0, 4.0])) == pytest.approx(17 / 16)
    matrix = torch.randn(5, 9, dtype=torch.float64)
    expected = np.linalg.norm(matrix.numpy()) ** 2 / np.linalg.norm(matrix.numpy(), 2) ** 2
    assert stable_rank(singular_values(matrix)) == pytest.approx(expected)


def test_energy_rank_by_hand():
    s = torch.tensor([3.0, 2.0, 1.0, 1.0])  # squares 9, 4, 1, 1: 60 %, 87 %, 93 %, 100 %
    assert [energy_rank(s, share) for share in (0.5, 0.6, 0.61, 0.9, 0.95, 1.0)] == [1, 1, 2, 3, 4, 4]
    assert energy_rank(s) == 3
    assert energy_rank(s.flip(0)) == 3  # whatever their order
    assert energy_rank(torch.tensor([1.0, 0.0]), 1.0) == 1


def test_ranks_do_not_depend_on_the_matrixs_size():
    s = singular_values(torch.randn(6, 8, dtype=torch.float64))
    for rank in (effective_rank, stable_rank, energy_rank):
        assert rank(s) == pytest.approx(rank(1e-30 * s)) == pytest.approx(rank(1e30 * s))


def test_a_matrix_of_zeros_has_rank_zero():
    s = singular_values(torch.zeros(3, 5))
    assert s.tolist() == [0, 0, 0]
    assert [effective_rank(s), stable_rank(s), energy_rank(s), energy_rank(s, 1.0)] == [0, 0, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(3, 50), (50, 3)])
def test_a_matrix_that_is_not_finite_gives_nan_and_no_error(bad, shape):
    matrix = torch.randn(shape)
    matrix[1, 2] = bad
    s = singular_values(matrix)
    assert s.shape == (3,) and s.isnan().all()
    assert all(math.isnan(rank(s)) for rank in (effective_rank, stable_rank, energy_rank))


@pytest.mark.parametrize("share", [0, -0.5, 1.1, math.nan])
def test_energy_share_out_of_range(share):
    with pytest.raises(ValueError, match=f"share is {share}"):
        energy_rank(torch.ones(2), share)
