"""Reads pictures from files and arrays, as grey or RGB."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError


def one_line(error: Exception) -> str:
    """Return an exception's message without line breaks."""
    return " ".join(str(error).split())


_BUFFER_BYTES = 1 << 17

# Of the machine, which would spoil any other picture too; all else that the system reports is about one file.
_LIMITS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_OUT_OF_REACH = {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV}


def unreadable(path: str | Path, error: Exception) -> OSError:
    """The error to raise where an image file cannot be read: one line that names it and says what to do.

    Its ``errno`` is None where that file alone is at fault, damaged or missing. It is set where other pictures cannot
    be read either: their folder is gone, its file system out of reach, or a limit of the machine is met.

    Args:
        path: of the file.
        error: what reading it raised.

    Raises:
        MemoryError: That is what the error was.
    """
    if isinstance(error, MemoryError):
        raise error
    if "Insufficient memory" in str(error):  # OpenCV's
        raise MemoryError(one_line(error)) from error
    number = getattr(error, "errno", None)
    reason = error.strerror if number and error.strerror else one_line(error)
    fault, advice = None, "replace or remove the file"
    if number == errno.ENOENT:
        gone = missing_folder(path)
        fault, reason = number if gone else None, "no such file"
        advice = f"the folder {gone} is gone, mount it again and resume" if gone else "put it back"
    elif number in _OUT_OF_REACH:
        fault, advice = number, f"its file system is out of reach, mount {Path(path).parent} again and resume"
    elif number in _LIMITS:
        fault, advice = number, "lower data.num_workers, or raise the limit (ulimit -a shows it)"
    elif number in (errno.EACCES, errno.EPERM):
        advice = "allow reading it"
    elif isinstance(error, Image.DecompressionBombError):
        # Pillow reads twice the number at which it warns
        reason, advice = f"it has more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels", "make it smaller"
    failure = OSError(f"cannot read image {path}: {reason}; {advice}")
    # a number given to the constructor would stand in the message
    failure.errno = fault
    return failure


def missing_folder(path: str | Path) -> Path | None:
    """The topmost folder above a file that is not there; None if all are."""
    return next((folder for folder in reversed(Path(path).parents) if not os.path.exists(folder)), None)


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
        # A picture's file is short, and Pillow would read it in some forty small pieces.
        with open(path, "rb", buffering=_BUFFER_BYTES) as file, Image.open(file) as image:
            return as_grey_or_rgb(image, num_channels=3)
    except UnidentifiedImageError as error:
        # its own message names the buffer
        raise unreadable(path, ValueError("it is not an image in a known format")) from error
    except Exception as error:
        # Pillow's decoders let through whatever a damaged file made them stumble over:
        # OSError, SyntaxError, ValueError, struct.error, DecompressionBombError, ... .
        # A plain OSError keeps its message when a loader process passes it on.
        raise unreadable(path, error) from error


def as_grey_or_rgb(image: Image.Image, num_channels: int) -> Image.Image:
    """Convert a PIL image of any mode with 8 bits, or grey of 16, to grey or RGB; what is transparent is put on white.

    White, as viewers and browsers show it: the colour that files have under what is transparent is mostly black, and
    nobody has seen it. Of 16 bits the upper 8 are kept, as OpenCV does with files, so that trained on is what is
    predicted.

    Args:
        image: palette, grey, RGB, RGBA, CMYK, ... .
        num_channels: 1 for grey, 3 for RGB.

    Returns:
        A PIL image of mode "L" or "RGB", the same size.

    Raises:
        ValueError: If the image has 32 bits a channel.
    """
    _check_depth(image)
    if image.mode[0] == "I":
        # with the EXIF tag that says how to turn it; transparent is one of its 65,536 values
        info = {key: value for key, value in image.info.items() if key != "transparency"}
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image.info = info
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        white.info = {key: value for key, value in image.info.items() if key != "transparency"}
        image = white
    return image.convert("L" if num_channels == 1 else "RGB")


def _check_depth(image: Image.Image) -> None:
    # Pillow has grey of 16 bits as "I" in some formats, which have no more bits than that
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        # Pillow clips such values to 255 without a word, which leaves a white picture, and what their range is,
        # nobody knows.
        raise ValueError(f"it has 32 bits a channel (mode {image.mode}); convert it to 8 or 16 bits first")


def as_picture(picture: Image.Image | np.ndarray) -> Image.Image:
    """Take an array for a picture.

    Args:
        picture: PIL image of 8 bits or grey of 16, which is returned as it is, or uint8 array, ``(H, W, 3)`` RGB or
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
        description = type(picture).__name__ if array is None else f"an array {array.shape} of {array.dtype}"
        raise ValueError(f"it is {description}: give a PIL image, or an array (H, W, 3) or (H, W) of uint8")
    if not array.size:
        raise ValueError(f"it has no pixels: its array is {array.shape}")
    return Image.fromarray(array)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation → how the stored pixels are to be turned."""


def turned(picture: Image.Image) -> Image.Image:
    """A photograph turned as every viewer shows it: cameras store it as they were held, and say how in its EXIF data.

    Args:
        picture: of any mode; where its EXIF data are damaged or say nothing, it counts as upright.

    Returns:
        A picture of the same mode that says nothing of turning, or the given one where it is upright.
    """
    picture.load()  # only then some formats know their EXIF data, and TIFF has turned itself
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's reader lets through whatever damaged data made it stumble over
        turn = None
    if turn is None:
        return picture
    upright = picture.transpose(turn)
    upright.format = picture.format
    upright.info = {key: value for key, value in picture.info.items() if key == "transparency"}
    return upright


def upright(picture: Image.Image) -> np.ndarray:
    """The pixels of a photograph, turned as by :func:`turned`.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        ValueError: If the image has 32 bits a channel.
    """
    picture = turned(picture)
    # to convert is to copy, which takes its time for a photograph
    is_plain = picture.mode == "RGB" and not picture.has_transparency_data
    return np.asarray(picture if is_plain else as_grey_or_rgb(picture, 3))


def as_stored(picture: Image.Image) -> Image.Image:
    """The same pixels without anything that says how to turn them."""
    return Image.fromarray(np.asarray(picture))


def upright_size(path: str | Path, turn: bool = True) -> tuple[int, int] | None:
    """Width and height of a picture as :func:`turned` shows it, px, from its header; None where it cannot be read.

    Args:
        path: of the file.
        turn: whether it is turned as its EXIF tag says.
    """
    try:
        with Image.open(path) as image:
            if image.format == "TIFF":  # it turns itself, and only when it is read
                image.load()
            quarter = turn and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return image.size[::-1] if quarter else image.size
    except Exception:  # whatever a damaged file made Pillow stumble over; it is told when the file is read
        return None
