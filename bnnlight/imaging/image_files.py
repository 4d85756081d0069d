"""Finds image files in folders."""

from __future__ import annotations

import mimetypes
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".webp", ".tif", ".tiff")
"""Endings of the files that are taken from a folder. Of a file with several pictures the first is read."""

_OTHER_SUFFIXES = (".avif", ".heic", ".heif", ".jfif", ".jp2", ".jxl")
"""Pictures of which not every Python knows that they are."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def find_images(paths: Sequence[str | Path], but: Collection[Path] = ()) -> list[Path]:
    """Files as they are named and, sorted, all image files in and below folders, each once.

    Hidden files are not taken from folders. Pictures of other formats in them, and how many files were named twice, are
    told on stderr.

    Args:
        paths: files and folders.
        but: files that are not taken from folders.

    Raises:
        FileNotFoundError: a path does not exist, or a folder has no image in it.
        ValueError: a path is the address of something on a network.
    """
    files: dict[str, Path] = {}
    left_out = set(map(os.path.realpath, but))
    others: Counter[str] = Counter()
    twice: list[Path] = []
    for path in map(_path, paths):
        if path.is_dir():
            seen = list(_below(path))
            inside = sorted(f for f in seen if f.suffix.lower() in SUFFIXES and os.path.realpath(f) not in left_out)
            unknown = [f.suffix.lower() for f in seen if is_other_picture(f.name)]
            if not inside:
                beside = f"; it has pictures in other formats: {counted(Counter(unknown))}" if unknown else ""
                raise FileNotFoundError(f"no images in {path}: looked for {', '.join(SUFFIXES)}{beside}")
            others.update(unknown)
        elif path.is_file():
            inside = [path]
        elif path.is_symlink():
            raise FileNotFoundError(f"no such image or folder: {path} is a link to a file that does not exist")
        else:
            raise FileNotFoundError(f"no such image or folder: {path}")
        for file in inside:
            # by its path, as links of several names to one file may be meant
            if files.setdefault(os.path.abspath(file), file) is not file:
                twice.append(file)
    if others:
        told = "convert them to PNG or JPEG, or name the files where Pillow can read them"
        print(f"left out of folders, as pictures in other formats: {counted(others)}; {told}", file=sys.stderr)
    if twice:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        print(f"named twice and taken once: {twice[0]}{more}", file=sys.stderr)
    return list(files.values())


def _path(named: str | Path) -> Path:
    if not _ADDRESS.match(str(named)):
        return Path(named)
    parts = urlsplit(str(named))
    local = parts.scheme.lower() == "file" and parts.netloc in ("", "localhost")
    advice = f"write {unquote(parts.path)}" if local else "download it, and name the file"
    raise ValueError(f"{named} is an address, and pictures are read from files: {advice}")


def _below(folder: Path) -> Iterator[Path]:
    """Files in and below a folder, links that lead nowhere among them: reading them tells what is wrong."""
    for file in folder.rglob("*"):
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if file.is_file() or (file.is_symlink() and not file.is_dir()):
            yield file


def is_other_picture(name: str) -> bool:
    """Whether a file's name is that of a picture in a format that is not taken from folders."""
    suffix = os.path.splitext(name)[1].lower()
    kind = mimetypes.guess_type(name)[0] or ""
    return suffix not in SUFFIXES and (kind.startswith("image/") or suffix in _OTHER_SUFFIXES)


def counted(suffixes: Counter[str]) -> str:
    """How many files there are of each ending, as "2 .heic, 1 .svg"."""
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))
