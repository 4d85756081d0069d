"""Ranks: from the number or fraction that a user writes to the number of components of each mode."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

Rank = int | float | Sequence[int | float]
"""A number of components (int), a fraction of each mode's size (float), or one of either per mode."""


def resolve_rank(rank: int | float, size: int, mode: str) -> int:
    """The number of components of one mode.

    Args:
        rank: an int counts components; a float is a fraction of ``size`` in (0, 1], rounded to the nearest
            number of components and at least 1. ``1.0`` is the full rank, ``1`` a single component.
        size: the largest rank the mode can have.
        mode: the mode's name for the error message.

    Raises:
        ValueError: the rank is zero, negative, not a number, or above the mode's size.
    """
    if isinstance(rank, bool) or not isinstance(rank, Real):
        raise ValueError(f"rank of {mode} is {rank!r}: give a fraction such as 0.5 or a whole number")
    if isinstance(rank, Integral):
        if not 1 <= rank <= size:
            raise ValueError(f"rank {rank} of {mode} is out of range: it must lie in 1..{size}")
        return int(rank)
    if not 0 < rank <= 1:
        raise ValueError(f"rank {rank} of {mode} is out of range: a fraction must lie in (0, 1]")
    return max(1, round(rank * size))


def resolve_ranks(rank: Rank, sizes: Sequence[int], modes: Sequence[str], num_channel_modes: int) -> tuple[int, ...]:
    """The number of components of every mode.

    A single number goes to the channel modes, the first ``num_channel_modes``; so do as many entries as
    there are channel modes. The kernel modes then stay full. As many entries as modes name all of them.

    Args:
        rank: see :data:`Rank`.
        sizes: the largest rank of each mode, channel modes first.
        modes: names of the modes for error messages.
        num_channel_modes: how many of the modes a single number is meant for.

    Raises:
        ValueError: an entry is out of range or their number fits neither form.
    """
    if isinstance(rank, Sequence) and not isinstance(rank, str):
        entries = list(rank)
        if len(entries) not in (num_channel_modes, len(sizes)):
            forms = sorted({1, num_channel_modes, len(sizes)})
            raise ValueError(
                f"rank {entries} has {len(entries)} entries: give {' or '.join(map(str, forms))}, "
                f"for the modes {', '.join(modes)}"
            )
    else:
        entries = [rank] * num_channel_modes
    entries += [1.0] * (len(sizes) - len(entries))
    return tuple(resolve_rank(r, size, mode) for r, size, mode in zip(entries, sizes, modes, strict=True))
