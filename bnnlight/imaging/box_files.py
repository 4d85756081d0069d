"""Reads boxes from JSON files in COCO's detection form, or as they are typed, and the pictures of annotations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnnlight.imaging.reading import one_line

_FORM = '{"image_id": 7, "bbox": [x, y, width, height], "score": 0.9, "category_id": 1}'


@dataclass(frozen=True)
class PersonBox:
    """One box, as it was read.

    Attributes:
        where: it stands, for messages.
        box: ``(4,)`` float64, x and y of the corner, width and height, px.
        score: how sure the detector is; None where it is not told.
        category_id: None where it is not told.
        image_id, file_name: of its picture; None where it is not told.
    """

    where: str
    box: np.ndarray
    score: float | None = None
    category_id: int | str | None = None
    image_id: int | str | None = None
    file_name: str | None = None

    @property
    def picture(self) -> str:
        """What it says of its picture, for messages."""
        return f"file_name {self.file_name}" if self.file_name is not None else f"image_id {self.image_id}"


def typed_box(text: str) -> PersonBox:
    """A box from ``x,y,w,h``.

    Raises:
        ValueError: these are not four numbers.
    """
    try:
        numbers = np.array([float(part) for part in text.split(",")])
    except ValueError:
        numbers = np.zeros(0)
    if numbers.shape != (4,):
        raise ValueError(f"--boxes {text}: neither a file nor four numbers, x,y,width,height: give either")
    box = PersonBox(f"--boxes {text}", numbers)
    _check_px([box], f"--boxes {text}")
    return box


def read_boxes(path: Path) -> list[PersonBox]:
    """Boxes from a file in COCO's detection form (https://cocodataset.org/#format-results): a list of detections.

    Of each ``bbox`` is needed, and ``image_id`` or ``file_name``; ``score`` and ``category_id`` may be absent.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in that form; the message names the entry.
    """
    content = _load(path, "boxes")
    if not isinstance(content, list):
        more = ": its annotations are one" if isinstance(content, dict) and "annotations" in content else ""
        raise ValueError(f"{path} does not hold a list of boxes{more}; write a list of {_FORM}")
    boxes = [_box_of(entry, f"{path}: entry {number} of {len(content)}") for number, entry in enumerate(content, 1)]
    _check_px(boxes, str(path))
    return boxes


def _check_px(boxes: list[PersonBox], source: str) -> None:
    sides = [box.box[2:].max() for box in boxes]
    if sides and 0 < max(sides) <= 1:
        raise ValueError(
            f"{source}: no box is wider or higher than one pixel, as if they were shares of the picture: multiply them "
            "by its width and height"
        )


def _box_of(entry: Any, where: str) -> PersonBox:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not a detection: {_short(entry)}; write {_FORM}")
    image_id, name, category = (_whole(entry.get(key)) for key in ("image_id", "file_name", "category_id"))
    if image_id is None and name is None:
        raise ValueError(f"{where} has neither image_id nor file_name; write {_FORM}")
    if not (image_id is None or _is_id(image_id)) or not (name is None or isinstance(name, str)):
        wrong = f"file_name {_short(name)}" if name is not None else f"image_id {_short(image_id)}"
        raise ValueError(f"{where}: {wrong} names no picture; give a number or a text")
    value = entry.get("bbox")
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 4 or not all(_is_number(number) for number in numbers):
        what = "is not there" if value is None else f"is {_short(value)}"
        raise ValueError(f"{where}: bbox {what} where four numbers belong, x, y, width and height; correct the entry")
    score = entry.get("score")
    if score is not None and not (_is_number(score) and np.isfinite(score)):
        raise ValueError(f"{where}: score is {_short(score)} where a number belongs; correct the entry")
    if not (category is None or _is_id(category)):
        raise ValueError(f"{where}: category_id is {_short(category)} where a number belongs; correct the entry")
    box = np.array(numbers, np.float64)
    return PersonBox(where, box, None if score is None else float(score), category, image_id, name)


@dataclass(frozen=True)
class ListedPicture:
    """A picture of a file with annotations: its id, its name, and its size in px, 0 where the file does not tell."""

    image_id: int | str
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class ListedFile:
    """What a file with annotations tells of pictures and joints.

    Attributes:
        path: of the file.
        pictures: by :func:`key_of` their ids.
        joints: names by :func:`key_of` the category's id, of categories that name them.
    """

    path: Path
    pictures: dict[str, ListedPicture]
    joints: dict[str, tuple[str, ...]]


def read_listed(path: Path) -> ListedFile:
    """The pictures of a JSON file in COCO's form, and the joints of its categories; all else is left alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no list of pictures, or an entry of that list is wrong or there twice.
    """
    content = _load(path, "annotations")
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise ValueError(f"{path} has no list of images: give a file in COCO's form, with id and file_name of each")
    pictures: dict[str, ListedPicture] = {}
    for number, entry in enumerate(images, 1):
        where = f"{path}: entry {number} of its {len(images)} images"
        image_id, name = (_whole(entry.get(k)) for k in ("id", "file_name")) if isinstance(entry, dict) else (None, "")
        if not _is_id(image_id) or not isinstance(name, str) or not name:
            raise ValueError(f"{where} lacks an id or a file_name: {_short(entry)}; correct the entry")
        if key_of(image_id) in pictures:
            raise ValueError(f"{where} has the id {image_id} of an earlier one; give each picture an id of its own")
        sizes = (entry.get(side) for side in ("width", "height"))
        pictures[key_of(image_id)] = ListedPicture(image_id, name, *(int(s) if _is_size(s) else 0 for s in sizes))
    return ListedFile(path, pictures, _joints(content.get("categories")))


def _joints(categories: Any) -> dict[str, tuple[str, ...]]:
    joints: dict[str, tuple[str, ...]] = {}
    for category in categories if isinstance(categories, list) else ():
        names = category.get("keypoints") if isinstance(category, dict) else None
        if isinstance(names, list) and names:
            joints[key_of(_whole(category.get("id")))] = tuple(map(str, names))
    return joints


def key_of(image_id: int | str) -> str:
    """An id as it is looked up: 7 and "7" are the same."""
    return str(image_id)


def _load(path: Path, what: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no such file of {what}: {path}")
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply: give a JSON file with {what}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file ({one_line(error)}): give one with {what}") from error


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


def _whole(value: Any) -> Any:
    # some programs write ids as 7.0
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_number(value: Any) -> bool:
    # a whole number of hundreds of digits is too large for a float
    return isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > 1e300


def _is_size(value: Any) -> bool:
    return _is_number(value) and 0 < value < 2**31


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
