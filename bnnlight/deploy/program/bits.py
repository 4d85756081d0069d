"""Packs signs as bits, eight to a byte, and unpacks them."""

from __future__ import annotations

import numpy as np


def pack_signs(weight: np.ndarray) -> np.ndarray:
    """±1 to bits: +1 is 1, -1 is 0, in row-major order, the first weight in the lowest bit of the first byte.

    Args:
        weight: any shape, entries -1 or +1.

    Returns:
        ``(⌈n/8⌉,)`` uint8; the unused bits of the last byte are 0.

    Raises:
        ValueError: an entry is neither -1 nor +1.
    """
    flat = np.asarray(weight).reshape(-1)
    if not np.isin(flat, (-1, 1)).all():
        raise ValueError("a binary weight has entries other than -1 and +1")
    return np.packbits(flat > 0, bitorder="little")


def unpack_signs(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of :func:`pack_signs`.

    Args:
        packed: ``(⌈n/8⌉,)`` uint8.
        shape: of the weight, n entries.

    Returns:
        ±1 as float32, of that shape.
    """
    count = int(np.prod(shape, dtype=np.int64))
    bits = np.unpackbits(packed, count=count, bitorder="little")
    return (2.0 * bits.astype(np.float32) - 1.0).reshape(shape)
