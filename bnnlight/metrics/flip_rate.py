"""Flip rate: the share of binary weights that differ between two moments of training."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


def pack_signs(weight: Tensor) -> Tensor:
    """One bit per entry, set where the entry is at least 0; bits in little order, zeros at the end.

    Args:
        weight: any shape.

    Returns:
        ``(⌈n/8⌉,)`` uint8 on the CPU, for n entries.
    """
    bits = (weight.detach().flatten() >= 0).to(torch.uint8)
    bits = torch.nn.functional.pad(bits, (0, -bits.numel() % 8))
    # packed where the weight lies, so that an eighth of the bytes travels
    return (bits.view(-1, 8) * _BITS.to(bits.device)).sum(1, dtype=torch.uint8).cpu()


def flip_rate(before: Tensor, after: Tensor, num_weights: int) -> float:
    """Share of entries whose sign differs between two packed moments; Larq calls it ``flip_ratio``.

    Args:
        before, after: of :func:`pack_signs`.
        num_weights: how many entries were packed.

    Raises:
        ValueError: the two are not of the same number of entries.
    """
    if before.shape != after.shape or before.numel() != -(-num_weights // 8):
        raise ValueError(f"{before.numel()} and {after.numel()} bytes cannot both hold {num_weights} signs")
    changed = torch.bitwise_xor(before, after)
    return int(sum(((changed >> bit) & 1).sum() for bit in range(8))) / num_weights
