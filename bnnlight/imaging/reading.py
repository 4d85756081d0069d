"""Pictures from files and arrays, in one of two modes: grey or RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps


def one_line(error: Exception) -> str:
    """Return an exception's message without line breaks."""
    return " ".join(str(error).split())


def load_rgb(path: str | Path) -> Image.Image:
    """Read an image file of any usual format as RGB.

    Args:
        path: of the file.

    Returns:
        A PIL image of mode "RGB".

    Raises:
        OSError: If the file cannot be read in full; the message is one line and names it.
    """
    try:
        with Image.open(path) as image:
            return as_grey_or_rgb(image, num_channels=3)
    except Exception as error:
        # Pillow's decoders let through whatever a damaged file made them stumble over:
        # OSError, SyntaxError, ValueError, struct.error, DecompressionBombError, ... .
        # A plain OSError keeps its message when a loader process passes it on.
        raise OSError(f"cannot read image {path}: {one_line(error)}; replace or remove the file") from error


def as_grey_or_rgb(image: Image.Image, num_channels: int) -> Image.Image:
    """Convert a PIL image of any 8-bit mode to grey or RGB; transparency is dropped.

    Args:
        image: palette, grey, RGB, RGBA, CMYK, ... .
        num_channels: 1 for grey, 3 for RGB.

    Returns:
        A PIL image of mode "L" or "RGB", the same size.

    Raises:
        ValueError: If the image has more than 8 bits a channel.
    """
    _check_depth(image)
    if image.mode == "P" and "transparency" in image.info:
        # Straight from palette to RGB, Pillow warns once for every such file.
        image = image.convert("RGBA")
    return image.convert("L" if num_channels == 1 else "RGB")


def _check_depth(image: Image.Image) -> None:
    if image.mode[0] in "IF":
        # Pillow clips such values to 255 without a word, which leaves a white picture.
        raise ValueError(f"it has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits first")


def as_picture(picture: Image.Image | np.ndarray) -> Image.Image:
    """Take an array for a picture.

    Args:
        picture: PIL image of an 8-bit mode, which is returned as it is, or uint8 array, ``(H, W, 3)`` RGB or
            ``(H, W)`` grey.

    Raises:
        ValueError: If it is neither; the message says what it is.
    """
    if isinstance(picture, Image.Image):
        _check_depth(picture)
        return picture
    array = picture if isinstance(picture, np.ndarray) else None
    if array is None or array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        # Floats may be 0..1 or 0..255: guessing wrong would only show as poor answers.
        given = type(picture).__name__ if array is None else f"an array {array.shape} of {array.dtype}"
        raise ValueError(f"it is {given}: give a PIL image, or an array (H, W, 3) or (H, W) of uint8")
    if not array.size:
        raise ValueError(f"it has no pixels: its array is {array.shape}")
    return Image.fromarray(array)


def upright(picture: Image.Image) -> np.ndarray:
    """The pixels of a photograph, turned as every viewer shows it: cameras store it as they were held.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        ValueError: If the image has more than 8 bits a channel.
    """
    if picture.mode == "RGB" and picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return np.asarray(picture)  # a copy takes its time for a photograph
    own = as_grey_or_rgb(picture, 3)
    ImageOps.exif_transpose(own, in_place=True)
    return np.asarray(own)
