"""How a filter moves over an image (`ConvShape`): borders, patches as a matrix, torch's own convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


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


def pad(x: Tensor, shape: ConvShape) -> Tensor:
    """``(N, C, H, W)`` with its border, in the memory format that it has."""
    height, width = shape.padding
    return F.pad(x, (width, width, height, height), value=shape.padding_value) if height or width else x


def split_padding(x: Tensor, shape: ConvShape) -> tuple[Tensor, tuple[int, int]]:
    """``(N, C, H, W)`` with its border where that is ±1, and how much of zeros is left for torch to add, in px."""
    return (pad(x, shape), (0, 0)) if shape.padding_value else (x, shape.padding)


def convolve(x: Tensor, weight: Tensor, shape: ConvShape) -> Tensor:
    """x ⊛ weight by torch's own convolution, in the dtype of both.

    Args:
        x: ``(N, C, H, W)``, without its border.
        weight: ``(O, C/groups, kh, kw)``.
        shape: how the filters move.
    """
    x, padding = split_padding(x, shape)
    return F.conv2d(x, weight, None, shape.stride, padding, shape.dilation, shape.groups)


def crop(x: Tensor, shape: ConvShape) -> Tensor:
    """``(N, C, H, W)`` without its border."""
    height, width = shape.padding
    return x[:, :, height : x.shape[2] - height, width : x.shape[3] - width]


def patches(x: Tensor, kernel: Sequence[int], shape: ConvShape) -> Tensor:
    """A view of all patches, which overlap in memory.

    Args:
        x: ``(N, C, H, W)``, with its border, in channels-last memory.
        kernel: height and width in px.
        shape: how the filter moves.

    Returns:
        ``(N, H', W', kh, kw, C)``.
    """
    num, channels, *sizes = x.shape
    by_image, by_channel, *by_pixel = x.stride()
    moves = zip(sizes, kernel, shape.stride, shape.dilation, strict=True)
    outputs = [(size - dilation * (side - 1) - 1) // stride + 1 for size, side, stride, dilation in moves]
    between = [step * stride for step, stride in zip(by_pixel, shape.stride, strict=True)]
    within = [step * dilation for step, dilation in zip(by_pixel, shape.dilation, strict=True)]
    return x.as_strided((num, *outputs, *kernel, channels), (by_image, *between, *within, by_channel))


def add_patches(values: Tensor, into: Tensor, shape: ConvShape) -> None:
    """Adds values to the pixels that they stand for: the transpose of :func:`patches`.

    Args:
        values: ``(N, H', W', kh, kw, C)``.
        into: ``(N, C, H, W)``, with a border.
        shape: how the filter moves.
    """
    (row_step, column_step), (row_gap, column_gap) = shape.stride, shape.dilation
    _, height, width, kernel_height, kernel_width, _ = values.shape
    for y in range(kernel_height):
        rows = slice(y * row_gap, y * row_gap + (height - 1) * row_step + 1, row_step)
        for x in range(kernel_width):
            columns = slice(x * column_gap, x * column_gap + (width - 1) * column_step + 1, column_step)
            into[:, :, rows, columns] += values[:, :, :, y, x].permute(0, 3, 1, 2)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) in px of a size that may be one number; ValueError where it is neither."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{value!r} is not a valid size for a convolution: give one number or (height, width)")
    height, width = value
    return int(height), int(width)
