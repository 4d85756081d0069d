"""Eigenbases of covariances that change slowly."""

from __future__ import annotations

import torch
from torch import Tensor


def eigenbasis(covariance: Tensor) -> Tensor:
    """Eigenvectors as columns, largest eigenvalue first.

    Args:
        covariance: ``(…, n, n)``, symmetric.

    Raises:
        ValueError: the device has no such decomposition.
    """
    try:
        # laid out as it is after a resume: products round by how their factors lie
        return torch.linalg.eigh(covariance).eigenvectors.flip(-1).contiguous()
    except NotImplementedError as error:
        raise ValueError(
            f"SOAP needs eigenvectors, and torch computes none on {covariance.device}: choose bnnlight.optim.Muon or "
            "torch.optim.AdamW there"
        ) from error


def renewed(covariance: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The basis after one step of orthogonal iteration, Q ← qr(C Q), which follows a covariance that changes slowly.

    The columns of C Q are taken in the order of their Rayleigh quotients, qᵀ C q, largest first: so each is corrected by
    those that are better known.

    Args:
        covariance: ``(number, n, n)``.
        basis: ``(number, n, n)``.

    Returns:
        The new basis, and the order, ``(number, n)``: at each place the old column of which the new one is made.

    Source: Vyas et al., 2024, https://arxiv.org/abs/2409.11321, algorithm 4.
    """
    product = torch.bmm(covariance, basis)
    order = (basis * product).sum(-2).argsort(-1, descending=True)
    columns = product.gather(-1, order.unsqueeze(-2).expand_as(product))
    return torch.linalg.qr(columns).Q, order
