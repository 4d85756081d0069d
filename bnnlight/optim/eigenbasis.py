"""Eigenvectors of covariances, and their renewal by orthogonal iteration as a covariance changes slowly."""

from __future__ import annotations

import torch
from torch import Tensor

from bnnlight.optim.products import products

_ROUNDING = 0.8
"""The machine's ε to this power, of the largest value, is taken for rounding: 3e-13 in double precision, 3e-6 in
single. More would take directions with small gradients for such, and to Adam they count as much as others."""


def eigenbasis(covariance: Tensor) -> Tensor:
    """Eigenvectors as columns, largest eigenvalue first.

    Where there have been no gradients, any vectors would do. Fixed ones are used, since those that come out of the
    decomposition depend on its rounding: processes that add up the same gradients in another order would diverge.

    Args:
        covariance: ``(number, n, n)``, symmetric.

    Raises:
        ValueError: the device has no such decomposition, or none of this type.
    """
    if covariance.dtype not in (torch.float32, torch.float64):
        name = str(covariance.dtype).removeprefix("torch.")
        raise ValueError(
            f"SOAP needs eigenvectors, which torch does not compute for {name}: keep the weights in float32 "
            "(precision: 32-true, 16-mixed or bf16-mixed), or choose bnnlight.optim.Muon or torch.optim.AdamW"
        )
    try:
        values, vectors = _eigh(covariance)
    except NotImplementedError as error:
        raise ValueError(
            f"SOAP needs eigenvectors, which torch does not compute on {covariance.device}: choose "
            "bnnlight.optim.Muon or torch.optim.AdamW there"
        ) from error
    # laid out as after a resume: products round by how their factors lie
    basis = vectors.flip(-1).contiguous()
    rounding = _is_rounding(values.flip(-1))
    if not bool(rounding.any()):
        return basis
    fixed = torch.randn(covariance.shape[-2:], generator=torch.Generator().manual_seed(0)).to(basis)
    return torch.linalg.qr(torch.where(rounding.unsqueeze(-2), fixed, basis)).Q.contiguous()


def _eigh(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """As torch's, in double precision where single gives none.

    Of float32 matrices with rows of zeros between others torch 2.14.1 makes NaN or raises on a CPU, though they have
    good eigenvectors. Dead channels leave such covariances, and zeros that fill up a block.
    """
    try:
        values, vectors = torch.linalg.eigh(covariance)
        if bool(vectors.isfinite().all()):
            return values, vectors
    except torch.linalg.LinAlgError:
        pass
    values, vectors = torch.linalg.eigh(covariance.double())
    return values.to(covariance), vectors.to(covariance)


def renewed(covariance: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The basis after one step of orthogonal iteration, Q ← qr(C Q), which follows a covariance that changes slowly.

    The columns of C Q are taken in the order of their Rayleigh quotients, qᵀ C q, largest first, so each is corrected
    by those that are better known. Where there have been no gradients, columns stay as they are, except for that
    correction.

    Args:
        covariance: ``(number, n, n)``.
        basis: ``(number, n, n)``.

    Returns:
        The new basis, and the order, ``(number, n)``: at each place the old column of which the new one is made.

    Source: Vyas et al., 2024, https://arxiv.org/abs/2409.11321, algorithm 4.
    """
    product = products(covariance, basis)
    values = (basis * product).sum(-2)
    # rounding has no order of its own
    order = values.masked_fill(_is_rounding(values), 0.0).argsort(dim=-1, descending=True, stable=True)
    new, triangle = torch.linalg.qr(_columns(product, order))
    rounding = _is_rounding(triangle.diagonal(dim1=-2, dim2=-1))
    if not bool(rounding.any()):
        return new, order
    # those that are no combination of others first; then old ones, as what is left of the others is rounding
    order = order.gather(-1, rounding.long().argsort(dim=-1, stable=True))
    rounding = rounding.sort(dim=-1).values.unsqueeze(-2)
    columns = torch.where(rounding, _columns(basis, order), _columns(product, order))
    return torch.linalg.qr(columns).Q.contiguous(), order


def _columns(matrix: Tensor, order: Tensor) -> Tensor:
    return matrix.gather(-1, order.unsqueeze(-2).expand_as(matrix))


def _is_rounding(sizes: Tensor) -> Tensor:
    sizes = sizes.abs()
    return sizes <= torch.finfo(sizes.dtype).eps ** _ROUNDING * sizes.amax(-1, keepdim=True)
