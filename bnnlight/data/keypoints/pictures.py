"""Reads picture files no finer than needed, and picture sizes from the files' headers."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.imaging.reading import as_grey_or_rgb, unreadable

# Flags for RGB in reduced form exist in some versions of OpenCV only.
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_NUM_THREADS = 16
_PATIENCE_S = 2.0


def read_picture(path: str | Path, side_px: float, image_size: int) -> tuple[np.ndarray, int]:
    """Read a picture as it is stored, no finer than a crop of it needs.

    A JPEG file can be decoded at a half, a quarter or an eighth of its width and height in less time. Pixel
    x of the picture as stored lies at (x + 0.5) / shrink - 0.5 of the picture as read. An orientation noted
    in the file is not applied: annotations count the pixels that are stored.

    Args:
        path: of the file.
        side_px: side of the smallest box that will be cut out, px of the picture as stored.
        image_size: side to which the box will be brought, px.

    Returns:
        ``(H, W, 3)`` uint8, RGB, and the shrink: 1, 2, 4 or 8.

    Raises:
        OSError: If the file cannot be read in full; the message is one line and names it.
    """
    is_jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg")
    shrink = max((s for s in _REDUCED if is_jpeg and side_px >= s * image_size), default=1)
    try:
        content = np.fromfile(path, np.uint8)
        flags = (cv2.IMREAD_COLOR_RGB if shrink == 1 else _REDUCED[shrink]) | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = _transparent(content) if content.size and not is_jpeg else None
        if pixels is None:
            pixels = cv2.imdecode(content, flags) if content.size else None
    except (OSError, cv2.error) as error:
        raise unreadable(path, error) from error
    if pixels is None:
        raise unreadable(path, ValueError("damaged, cut off or no image"))
    if pixels.shape[0] * pixels.shape[1] * shrink**2 > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
        # the limit of all else that reads pictures here, whose own reading of the header tells it
        _picture_size(Path(path), "stop")
    if shrink > 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return pixels, shrink


def _transparent(content: np.ndarray) -> np.ndarray | None:
    """The pixels of a file with transparency, which OpenCV would drop: on white, as ``predict`` reads it; else None."""
    try:
        with Image.open(BytesIO(content)) as image:
            # a TIFF file turns itself, and annotations count the pixels that are stored
            is_so = image.has_transparency_data and image.format != "TIFF"
            return np.asarray(as_grey_or_rgb(image, 3)) if is_so else None
    except Exception:  # whatever made Pillow stumble over it: OpenCV may read it, or else it is told there
        return None


def picture_sizes(paths: Sequence[Path], on_bad_image: OnBadImage = "stop") -> np.ndarray:
    """Read the sizes of pictures, as they are stored, from the headers of their files.

    Where it takes long, as over a network, a progress bar is shown and removed at the end.

    Returns:
        ``(N, 2)``, width and height, px; 0 where a header cannot be read and such pictures are skipped.

    Raises:
        OSError: If a header cannot be read and is not skipped; the message is one line and names the file.
    """
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True)
    task = bar.add_task("checking the pictures", total=len(paths))
    sizes, start, shown = [], time.monotonic(), False
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        try:
            for size in threads.map(partial(_picture_size, on_bad_image=on_bad_image), paths):
                sizes.append(size)
                bar.advance(task)
                if not shown and console.is_terminal and time.monotonic() - start > _PATIENCE_S:
                    bar.start()
                    shown = True
        finally:
            # also takes away the bar of a check that failed, so that the error is the last line
            if shown:
                bar.stop()
    return np.array(sizes, np.int64).reshape(-1, 2)


def _picture_size(path: Path, on_bad_image: OnBadImage) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:
        # Pillow lets through whatever a damaged header made it stumble over
        problem = unreadable(path, error)
        if on_bad_image == "skip" and problem.errno is None:
            return 0, 0
        raise problem from error
