"""Heat maps of joints to places and confidences.

The same in torch, with the targets: :mod:`bnnlight.data.keypoints.heatmaps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Numbers = TypeVar("Numbers")
"""An array, or a tensor."""


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)) of each number, in its own precision."""
    values = np.negative(logits)
    # of a number far below zero exp is infinite, and 1 / infinity is the 0 that is wanted
    with np.errstate(over="ignore"):
        np.exp(values, out=values)
    values += 1
    return np.reciprocal(values, out=values)


def decode(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of the largest value, moved a quarter of a pixel toward the larger neighbour.

    The move is made along each axis, and not where the place lies at the maps' border (Newell et al., ECCV
    2016, https://arxiv.org/abs/1603.06937). Of equal values the first in row-major order counts.

    Args:
        maps: ``(N, J, H, W)``.

    Returns:
        Joints ``(N, J, 2)``, x and y in heat-map pixels, and the largest values ``(N, J)``.
    """
    height, width = maps.shape[-2:]
    flat = maps.reshape(*maps.shape[:2], -1)
    place = flat.argmax(2)

    def at(index: np.ndarray) -> np.ndarray:
        return np.take_along_axis(flat, index.clip(0, height * width - 1)[..., None], 2)[..., 0]

    x, y = place % width, place // width
    right = np.sign(at(place + 1) - at(place - 1)) * ((x > 0) & (x < width - 1))
    below = np.sign(at(place + width) - at(place - width)) * ((y > 0) & (y < height - 1))
    quarter = maps.dtype.type(0.25)
    joints = np.stack((x, y), 2).astype(maps.dtype) + quarter * np.stack((right, below), 2)
    return joints, at(place)


def mirror(maps: np.ndarray, mirrored: Sequence[int]) -> np.ndarray:
    """Heat maps of a mirror image, brought back to those of the image.

    Args:
        maps: ``(N, J, H, W)``.
        mirrored: for each joint the one that a mirror image shows in its place.
    """
    # laid out anew, since arithmetic on reversed rows is many times slower
    return np.ascontiguousarray(maps[:, list(mirrored)][..., ::-1])


def to_heatmap(joints: Numbers, stride: float) -> Numbers:
    """From pixels of the network's input to pixels of its heat maps; in both (0, 0) is the middle of the top
    left pixel, so that a mirror image of the input has the mirror image of the heat map.

    Args:
        joints: any shape.
        stride: input pixels to one heat-map pixel.
    """
    return (joints + 0.5) / stride - 0.5


def to_input(joints: Numbers, stride: float) -> Numbers:
    """From pixels of the heat maps to pixels of the network's input: the inverse of :func:`to_heatmap`."""
    return (joints + 0.5) * stride - 0.5
