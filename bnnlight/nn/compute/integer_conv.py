"""Convolution of signs in 8-bit integers: the sums of a float32 one, several times quicker on CPUs with VNNI."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bnnlight.nn.patches import ConvShape, pad, patches

PATCH_BYTES = 2**20
"""Patches are laid out as a matrix for a few images at a time, at least of this size, to stay in the cache."""


@functools.cache
def has_integer_products() -> bool:
    """Whether this CPU multiplies int8 matrices without overflow and as quickly as float32 ones; found by trying.

    Processors without dot products of bytes (x86 without VNNI or AMX) may saturate at 16 bits. Newer versions of torch
    multiply by plain loops there, twenty times slower than in float32: https://github.com/pytorch/pytorch/pull/136942.
    """
    ones = torch.ones(64, 1200, dtype=torch.int8)
    try:
        if not (torch._int_mm(ones, -ones.T) == -1200).all():
            return False
    except (AttributeError, RuntimeError):  # it is no public function of torch
        return False
    floats = ones.float()
    # with dot products of bytes they are quicker; four times leaves room for what else the machine does
    return _best_s(torch._int_mm, ones, ones.T) < 4 * _best_s(torch.mm, floats, floats.T)


def _best_s(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    """Seconds of the quickest of five."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        product(a, b)
        times.append(time.perf_counter() - began)
    return min(times)


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
        sums = torch._int_mm(piece.reshape(-1, matrix.shape[0]).contiguous(), matrix)
        yield sums.view(len(piece), *outputs, len(weight)).permute(0, 3, 1, 2)
