"""Convolution of signs in 8-bit integers: the sums that a float32 convolution gives, several times quicker on CPUs."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMN_BYTES = 2**20
"""Patches are laid out as a matrix piece by piece, of at least this size, so that a piece stays in the cache."""


@dataclass(frozen=True)
class ConvShape:
    """How a filter moves over an image.

    Attributes:
        stride, padding, dilation: (height, width) in px.
        groups: blocks that inputs and outputs are split into.
        padding_value: of the border: -1, 0 or 1.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    padding_value: int


@functools.cache
def integers_are_exact() -> bool:
    """Whether this CPU multiplies int8 matrices without overflow; found by one small product.

    Processors without dot products of bytes may saturate at 16 bits.
    """
    ones = torch.ones(16, 1200, dtype=torch.int8)
    try:
        return bool((torch._int_mm(ones, -ones.T) == -1200).all())
    except (AttributeError, RuntimeError):  # it is no public function of torch
        return False


def takes_integers(device: torch.device, groups: int) -> bool:
    """Whether :func:`integer_conv2d` can be used."""
    return device.type == "cpu" and groups == 1 and integers_are_exact()


def integer_conv2d(x: Tensor, weight: Tensor, alpha: Tensor | None, shape: ConvShape, dtype: torch.dtype) -> Tensor:
    """α ⊙ (x ⊛ weight): integer sums, exact, then one rounding by α.

    Args:
        x: ``(N, I, H, W)`` int8, entries ±1.
        weight: ``(O, I, kh, kw)`` int8, entries ±1.
        alpha: ``(O,)`` or None.
        shape: with one group.
        dtype: of the output.

    Returns:
        ``(N, O, H', W')`` in channels-last memory.
    """
    num_out, _, kernel_height, kernel_width = weight.shape
    x = x.permute(0, 2, 3, 1).contiguous()
    if any(shape.padding):
        height, width = shape.padding
        x = F.pad(x, (0, 0, width, width, height, height), value=shape.padding_value)
    num, height, width, channels = x.shape
    # every patch in the order height, width, channel: a view, in which patches overlap
    sizes = zip((height, width), (kernel_height, kernel_width), shape.stride, shape.dilation, strict=True)
    out_height, out_width = ((size - d * (kernel - 1) - 1) // step + 1 for size, kernel, step, d in sizes)
    by_image, by_row, by_column, _ = x.stride()
    strides = (by_image, by_row * shape.stride[0], by_column * shape.stride[1])
    strides += (by_row * shape.dilation[0], by_column * shape.dilation[1], 1)
    patches = x.as_strided((num, out_height, out_width, kernel_height, kernel_width, channels), strides)
    matrix = weight.permute(0, 2, 3, 1).flatten(1).T
    out = torch.empty(num, out_height, out_width, num_out, dtype=dtype)
    # a product also rearranges the weight, so a piece is not to be much smaller than that
    piece_bytes = max(COLUMN_BYTES, 2 * weight.numel())
    images = max(1, piece_bytes // max(1, out_height * out_width * matrix.shape[0]))
    for begin in range(0, num, images):
        piece = out[begin : begin + images]
        sums = torch._int_mm(patches[begin : begin + images].reshape(-1, matrix.shape[0]), matrix).view(piece.shape)
        if alpha is None:
            piece.copy_(sums)
        else:
            torch.mul(sums, alpha, out=piece)
    return out.permute(0, 3, 1, 2)
