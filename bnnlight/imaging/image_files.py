"""Finds image files in folders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
"""Endings of the files that are taken from a folder."""


def find_images(paths: Sequence[Path], but: Collection[Path] = ()) -> list[Path]:
    """Files as they are named and, sorted, all image files in and below folders.

    Args:
        paths: files and folders.
        but: files that are not taken from folders.

    Raises:
        FileNotFoundError: a path does not exist, or a folder has no image in it.
    """
    files: list[Path] = []
    left_out = {file.resolve() for file in but}
    for path in paths:
        if path.is_dir():
            candidates = (f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
            inside = sorted(f for f in candidates if f.resolve() not in left_out)
            if not inside:
                raise FileNotFoundError(f"no images in {path}: looked for {', '.join(SUFFIXES)}")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"no such image or folder: {path}")
    return files
