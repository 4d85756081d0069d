"""From a picture to the input of a classification network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from bnnlight.imaging.reading import as_grey_or_rgb


def class_input(
    picture: Image.Image, channels: int, size_px: int, resize_px: int, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Resize, cut out the middle, normalize: (value / 255 - mean) / std, in float32.

    To the last bit what :meth:`bnnlight.data.loading.transforms.ImageFormat.eval_transform` gives, which has it from
    torchvision (``Resize``, ``CenterCrop``, ``ToDtype``, ``Normalize`` of a PIL image).

    Args:
        picture: of any size, and any mode with 8 bits or grey of 16.
        channels: 1 for grey, 3 for RGB.
        size_px: width and height of the result.
        resize_px: length to which the shorter side is brought, bilinear, before the middle is cut out. Where the
            middle is larger than the picture, what is outside is black.
        mean, std: of each channel, on the scale 0..1.

    Returns:
        ``(channels, size_px, size_px)`` float32.

    Raises:
        ValueError: If the picture has 32 bits a channel.
    """
    # as_grey_or_rgb always copies, which takes its time for a photograph
    if picture.mode != ("L" if channels == 1 else "RGB") or picture.has_transparency_data:
        picture = as_grey_or_rgb(picture, channels)
    width, height = picture.size
    short, long = resize_px, int(resize_px * max(width, height) / min(width, height))
    new_size = (short, long) if width <= height else (long, short)
    if new_size != picture.size:
        picture = picture.resize(new_size, Image.Resampling.BILINEAR)
    left, top = (_before(side, size_px) for side in new_size)
    middle = np.asarray(picture.crop((left, top, left + size_px, top + size_px)))
    planes = middle.reshape(size_px, size_px, channels).transpose(2, 0, 1)
    # in torch's steps, whose roundings are thus the same
    values = np.multiply(planes, np.float32(1 / 255), dtype=np.float32, order="C")
    values -= np.asarray(mean, np.float32)[:, None, None]
    values /= np.asarray(std, np.float32)[:, None, None]
    return values


def _before(side: int, size: int) -> int:
    """Where the middle begins; torchvision rounds one way inside a picture, another way around it."""
    return round((side - size) / 2) if side >= size else -((size - side) // 2)
