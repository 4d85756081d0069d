"""Finds the file that an item of a data set comes from, whatever views lie over it."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Any


def file_of(items: Any, index: int) -> Path | None:
    """The image file behind an item; None where there is none, or it is unknown.

    It looks through views of chosen items (``items`` and ``indices``, or torch's ``dataset`` and ``indices``), several
    sets in a row (``datasets`` and ``cumulative_sizes``), and torchvision's lists of files (``samples``). Any other
    data set needs a method ``file(index)``.

    Args:
        items: a data set.
        index: from 0.
    """
    if callable(getattr(items, "file", None)):
        return Path(items.file(index))
    if hasattr(items, "cumulative_sizes"):
        part = bisect_right(items.cumulative_sizes, index)
        return file_of(items.datasets[part], index - (items.cumulative_sizes[part - 1] if part else 0))
    if hasattr(items, "indices"):
        inner = items.items if hasattr(items, "items") else items.dataset
        return file_of(inner, int(items.indices[index]))
    if hasattr(items, "samples"):
        return Path(items.samples[index][0])
    return None
