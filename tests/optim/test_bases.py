"""When SOAP's bases are renewed, and how well single precision knows them."""

import pytest
import pytorch_optimizer
import torch
from torch import nn

from bnnlight.optim import SOAP
from bnnlight.optim.eigenbasis import eigenbasis, renewed
from bnnlight.optim.modes import covariance, rotate


def count_renewals(monkeypatch):
    sizes = []

    def count(matrix, basis):
        sizes[-1] += len(basis) * basis.shape[-1] ** 3
        return renewed(matrix, basis)

    monkeypatch.setattr("bnnlight.optim.soap.renewed", count)
    return sizes


def steps(optimizer, params, number, sizes):
    for _ in range(number):
        sizes.append(0)
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()


def test_work_is_spread_where_parameters_are_added_later(monkeypatch):
    """As by BackboneFinetuning: their own step counts begin later."""
    torch.manual_seed(0)
    first, second, third = ([nn.Parameter(torch.randn(8, 8)) for _ in range(number)] for number in (3, 2, 3))
    sizes = count_renewals(monkeypatch)
    optimizer = SOAP([{"params": first, "name": "latent"}], interval=16)
    steps(optimizer, first, 6, sizes)
    optimizer.add_param_group({"params": second, "name": "latent/added1"})
    steps(optimizer, first + second, 5, sizes)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": third, "name": "latent/added2"})
    steps(optimizer, first + second + third, 33, sizes)
    # two modes of eight matrices have sixteen bases: one in each step
    assert sizes[-32:] == [8**3] * 32


@pytest.mark.parametrize("n", [16, 96])
def test_directions_of_small_eigenvalues_are_found_in_single_precision(n):
    """Down to a ten-thousandth of the largest; such are most of a gradient's."""
    torch.manual_seed(0)
    exact = torch.linalg.qr(torch.randn(1, n, n, dtype=torch.float64)).Q
    values = torch.logspace(0, -4, n, dtype=torch.float64)
    matrix = (exact * values @ exact.mT).float()
    basis = torch.linalg.qr(torch.randn(1, n, n)).Q
    for _ in range(200):
        basis, _ = renewed(matrix, basis)
    for found in (basis, eigenbasis(matrix)):
        torch.testing.assert_close((found.double().mT @ exact).abs(), torch.eye(n).double()[None], rtol=0, atol=0.03)


def test_directions_without_gradients_are_told_from_small_ones():
    torch.manual_seed(0)
    for n in (16, 128):
        rows = torch.linalg.qr(torch.randn(n, n)).Q[:, : n // 2] @ torch.randn(n // 2, 9 * n)
        matrix = (rows @ rows.T)[None]
        basis = eigenbasis(matrix)
        kept, _ = renewed(matrix, basis)
        torch.testing.assert_close(kept[..., n // 2 :], basis[..., n // 2 :], rtol=0, atol=1e-4)


def test_single_precision_steps_as_double_precision_does():
    """Of another library; with singular values of gradients that fall as those of real ones do."""
    n, generator = 32, torch.Generator().manual_seed(0)
    scales = torch.arange(1, n + 1, dtype=torch.float64) ** -0.5
    left, right = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q for _ in range(2))
    ours, theirs = nn.Parameter(torch.zeros(n, n)), nn.Parameter(torch.zeros(n, n, dtype=torch.float64))
    options = {"lr": 0.01, "betas": (0.95, 0.95), "weight_decay": 0.0}
    one = SOAP([ours], **options, interval=10, covariance_interval=1, spread=False)
    two = pytorch_optimizer.SOAP([theirs], **options, precondition_frequency=10)
    for _ in range(40):
        gradient = torch.randn(n, n, dtype=torch.float64, generator=generator)
        theirs.grad = (left * scales) @ gradient @ (right * scales).T
        ours.grad = theirs.grad.float()
        one.step()
        two.step()
    assert (ours - theirs).norm() < 0.01 * theirs.norm()


def test_what_does_not_converge_in_single_precision_is_decomposed_in_double(monkeypatch):
    torch.manual_seed(0)
    rows = torch.randn(3, 8, 8)
    covariance = rows @ rows.mT
    plain, eigh = eigenbasis(covariance), torch.linalg.eigh

    def stubborn(matrix):
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", stubborn)
    again = eigenbasis(covariance)
    assert again.dtype == torch.float32
    torch.testing.assert_close((plain.mT @ again).abs(), torch.eye(8).expand(3, 8, 8), rtol=0, atol=1e-3)


def test_covariances_with_rows_of_zeros_have_bases():
    """As of input channels that fill up a block; of one or more of these torch's own single precision gives none."""
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        part = torch.rand(9, 18, generator=generator) + 1
        covariance = torch.zeros(2, 63, 63)
        covariance[0] = torch.randn(63, 63, generator=generator)
        covariance[0] = covariance[0] @ covariance[0].T
        covariance[1, ::7, ::7] = part @ part.T
        basis = eigenbasis(covariance)
        torch.testing.assert_close(basis.mT @ basis, torch.eye(63).expand(2, 63, 63), rtol=0, atol=1e-4)
        inner = basis[1].T @ covariance[1] @ basis[1]
        torch.testing.assert_close(inner.diagonal().sum(), covariance[1].diagonal().sum(), rtol=1e-4, atol=0)


def test_covariances_and_bases_by_hand():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    for mode, name in enumerate("abc"):
        expected = torch.einsum(f"nabc,n{'abc'.replace(name, 'd')}->n{name}d", x, x)
        torch.testing.assert_close(covariance(x, mode), expected)
    bases = {mode: torch.linalg.qr(torch.randn(2, n, n, dtype=torch.float64)).Q for mode, n in enumerate((3, 4, 5))}
    turned = torch.einsum("nabc,nai,nbj,nck->nijk", x, *bases.values())
    torch.testing.assert_close(rotate(x, bases), turned)
    torch.testing.assert_close(rotate(turned, bases, back=True), x)


def test_a_basis_follows_its_covariance():
    torch.manual_seed(0)
    exact = torch.linalg.qr(torch.randn(1, 6, 6, dtype=torch.float64)).Q
    matrix = exact @ torch.diag(torch.tensor([32.0, 16, 8, 4, 2, 1], dtype=torch.float64)) @ exact.mT
    torch.testing.assert_close(eigenbasis(matrix).mT.bmm(exact).abs(), torch.eye(6, dtype=torch.float64)[None])
    basis = torch.linalg.qr(torch.randn(1, 6, 6, dtype=torch.float64)).Q
    for _ in range(60):
        basis, _ = renewed(matrix, basis)
    torch.testing.assert_close(basis.mT.bmm(exact).abs(), torch.eye(6, dtype=torch.float64)[None])
