"""Convolution of signs in 8-bit integers: the sums of a float32 one, several times quicker on CPUs with VNNI."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bnnlight.nn.compute.kernels import int_mm
from bnnlight.nn.compute.patches import ConvShape, pad, patches

PATCH_BYTES = 2**20
"""Patches are laid out as a matrix for a few images at a time, at least of this size, to stay in the cache."""


def has_integer_products() -> bool:
    """Whether this CPU multiplies int8 matrices without overflow and about as quickly as float32 ones."""
    return int_mm.works(torch.device("cpu"), torch.int8)


def takes_integers(device: torch.device, groups: int) -> bool:
    """Whether :func:`integer_sums` can be used."""
    return device.type == "cpu" and groups == 1 and has_integer_products()


def integer_sums(x: Tensor, weight: Tensor, shape: ConvShape) -> Iterator[Tensor]:
    """x ⊛ weight, a few images at a time, so that what is done with the sums finds them in the cache.

    Args:
        x: ``(N, I, H, W)`` int8, entries ±1.
        weight: ``(O, I, kh, kw)`` int8, entries ±1.
        shape: with one group.

    Yields:
        The exact sums of the next images, ``(n, O, H', W')`` int32 in channels-last memory.
    """
    matrix = weight.permute(0, 2, 3, 1).flatten(1).T
    views = patches(pad(x.contiguous(memory_format=torch.channels_last), shape), weight.shape[2:], shape)
    _, *outputs = views.shape[:3]
    # a product also rearranges the weight, so a piece is not to be much smaller than that
    images = max(1, max(PATCH_BYTES, 2 * weight.numel()) // max(1, math.prod(outputs) * matrix.shape[0]))
    for piece in views.split(images):
        # of some shapes reshape alone would leave rows that overlap
        sums = int_mm(piece.reshape(-1, matrix.shape[0]).contiguous(), matrix)
        yield sums.view(len(piece), *outputs, len(weight)).permute(0, 3, 1, 2)
