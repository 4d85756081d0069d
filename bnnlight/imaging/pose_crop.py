"""Crops a person out of a picture as the input of a pose network: one warp of the pixels, one of the colours."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

MEAN = np.array([0.485, 0.456, 0.406])
"""Of ImageNet's red, green and blue, on the scale 0..1."""
STD = np.array([0.229, 0.224, 0.225])


def crop_to_image(center: np.ndarray, side_px: float, angle: float, flipped: bool, size: int) -> np.ndarray:
    """The affine map from pixels of a square crop to pixels of the picture.

    Args:
        center: ``(2,)``, middle of the box, px of the picture.
        side_px: of the box, px of the picture.
        angle: by which the picture appears turned in the crop, radians, clockwise as seen.
        flipped: whether the crop is a mirror image.
        size: width and height of the crop, px.

    Returns:
        ``(2, 3)`` float64.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]]) * (side_px / size)
    if flipped:
        turn = turn @ np.diag([-1.0, 1.0])
    # the middle of the crop's pixels 0 … size-1 lies at (size-1)/2
    return np.column_stack((turn, center - turn @ np.full(2, (size - 1) / 2)))


def warp(
    image: np.ndarray, to_image: np.ndarray, size: int, shrink: int = 1, mean: Sequence[float] | np.ndarray = MEAN
) -> np.ndarray:
    """The crop's pixels, bilinear, of the picture as it was read, or of its means over blocks of pixels where it is
    more than twice as large as needed.

    Args:
        image: ``(H, W, 3)`` uint8.
        to_image: ``(2, 3)``, from pixels of the crop to pixels of the picture as it is stored.
        size: width and height of the crop, px.
        shrink: how many times smaller than stored the image was read.
        mean: colour of what lies outside the picture, on the scale 0..1.

    Returns:
        ``(size, size, 3)`` uint8.
    """
    # the warp looks at four pixels for each of its own: of a far larger picture it would see but a sample
    step = int(np.sqrt(abs(np.linalg.det(to_image[:, :2]))) / shrink + 1e-6)
    if step > 1 and min(image.shape[:2]) >= step:
        height, width = (side // step for side in image.shape[:2])
        whole = image[: height * step, : width * step]
        image, shrink = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), shrink * step
    # pixels of an image that was read smaller are `shrink` wide, and their middles lie accordingly
    moved = to_image / shrink
    moved[:, 2] += 0.5 / shrink - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    outside = (255 * np.asarray(mean)).round().tolist()
    return cv2.warpAffine(image, moved, (size, size), flags=flags, borderValue=outside)


def normalize(
    pixels: np.ndarray,
    mean: Sequence[float] | np.ndarray = MEAN,
    std: Sequence[float] | np.ndarray = STD,
    mix: np.ndarray | None = None,
    offset: float = 0.0,
) -> np.ndarray:
    """(value / 255 - mean) / std of each channel, as one affine map of the colours.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        mean, std: of each channel, on the scale 0..1.
        mix, offset: ``(3, 3)`` and a number: the colours are multiplied and moved by them before, on the scale
            0..255.

    Returns:
        ``(3, H, W)`` float32.
    """
    mix = np.eye(3) if mix is None else mix
    matrix = np.column_stack((mix, offset - 255 * np.asarray(mean))) / (255 * np.asarray(std)[:, None])
    changed = cv2.transform(pixels.astype(np.float32), matrix)
    return np.ascontiguousarray(changed.transpose(2, 0, 1))


def square_round(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle ``(2,)`` and side of the square round a picture ``(H, W, …)``, px."""
    height, width = image.shape[:2]
    return np.array([(width - 1) / 2, (height - 1) / 2]), float(max(height, width))


def cut_out(
    image: np.ndarray,
    center: np.ndarray,
    side_px: float,
    size: int,
    mean: Sequence[float] | np.ndarray = MEAN,
    std: Sequence[float] | np.ndarray = STD,
) -> tuple[np.ndarray, np.ndarray]:
    """The network's input of a square of a picture.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        center: ``(2,)``, middle of the square, px.
        side_px: of the square; what of it lies outside the picture gets the mean colour.
        size: width and height of the input, px.
        mean, std: of each channel, on the scale 0..1.

    Returns:
        ``(3, size, size)`` float32, normalized, and ``(2, 3)`` float32, the affine map from the input's pixels to
        the picture's.
    """
    to_image = crop_to_image(center, side_px, 0.0, False, size)
    return normalize(warp(image, to_image, size, mean=mean), mean, std), to_image.astype(np.float32)


def whole_picture(
    image: np.ndarray, size: int, mean: Sequence[float] | np.ndarray = MEAN, std: Sequence[float] | np.ndarray = STD
) -> tuple[np.ndarray, np.ndarray]:
    """The network's input of a picture that one person fills: :func:`cut_out` of the square round it."""
    return cut_out(image, *square_round(image), size, mean, std)
