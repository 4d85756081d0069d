"""Loads a JSON file in COCO's form, and checks that its parts fit together: pictures, categories, annotations, ids."""

from __future__ import annotations

import gc
import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class CocoPicture(NamedTuple):
    """A picture as the file has it.

    Attributes:
        name: of its file.
        width, height: px; 0 where the file gives none.
    """

    name: str
    width: int
    height: int


@dataclass(frozen=True)
class CocoContent:
    """Annotations of a file, and what their ids stand for. Ids are looked up as :func:`key_of` writes them.

    Attributes:
        path: of the file.
        entries: the annotations. ``keypoints`` are an array of float64 wherever they are a list of numbers.
        pictures: by id.
        categories: by id.
    """

    path: Path
    entries: list[dict[str, Any]]
    pictures: dict[str, CocoPicture]
    categories: dict[str, dict[str, Any]]

    def picture(self, index: int) -> CocoPicture:
        """The one that an annotation is of."""
        return self.pictures[key_of(self.entries[index]["image_id"])]

    def category(self, index: int) -> str:
        """Id of an annotation's category; where it names none, that of the only one."""
        name = self.entries[index].get("category_id")
        return next(iter(self.categories)) if name is None and len(self.categories) == 1 else key_of(name)

    def category_name(self, key: str) -> str:
        """Id and name of a category, for messages."""
        return f"{key} {self.categories.get(key, {}).get('name', '')}".strip()

    def where(self, index: int) -> str:
        """Say, for a message, where in the file an annotation is."""
        return f"{self.path}: entry {index + 1} of {len(self.entries)} ({self.picture(index).name})"


def load_coco(path: Path, advice: str) -> CocoContent:
    """Load a file.

    Args:
        path: of it.
        advice: what to do if it is missing or something else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in that form, an id stands for two things or for none.
    """
    content = _load(path, advice)
    entries, pictures = content["annotations"], _pictures(path, content["images"])
    for number, entry in enumerate(entries, 1):
        where = f"{path}: entry {number} of {len(entries)}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is a {type(entry).__name__}; correct the entry")
        if "image_id" not in entry:
            raise ValueError(f"{where} has no image_id; correct the entry")
        if key_of(entry["image_id"]) not in pictures:
            raise ValueError(
                f"{where} has image_id {entry['image_id']!r}, which is not one of its images; correct the entry"
            )
    if twice := first_twice([entry["id"] for entry in entries if entry.get("id") is not None]):
        raise ValueError(f"{path}: two annotations have the id {twice}: give each an id of its own")
    return CocoContent(path, entries, pictures, _categories(path, content))


def is_crowd(entry: dict[str, Any]) -> bool:
    """Whether an annotation is of a crowd; some programs write the flag as text."""
    return str(entry.get("iscrowd") or 0) not in ("0", "0.0", "false", "False")


def key_of(name: Any) -> str:
    """An id as it is looked up: 7, 7.0 and "7" are the same one."""
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def ids_as_array(values: Sequence[Any]) -> np.ndarray:
    """Ids as int64 where all are whole numbers, else as str."""
    whole = all(isinstance(value, int) or (isinstance(value, float) and value.is_integer()) for value in values)
    # ids that are hashes may have more bits
    whole = whole and all(-(2**63) <= value < 2**63 for value in values)
    return np.array(values, np.int64) if whole else np.array([key_of(value) for value in values], str)


def first_twice(values: Sequence[Any]) -> str | None:
    """The first that is there more than once, as :func:`key_of` writes it; None where there is none."""
    count = Counter(map(key_of, values))
    return next((key for key, number in count.items() if number > 1), None)


def _load(path: Path, advice: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"annotations not found: looked for {path}; {advice}")
    was_on = gc.isenabled()
    # millions of new objects, none of them garbage: the collector would go through them again and again
    gc.disable()
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = json.load(file, object_hook=_lean)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply: it is not in COCO's form; {advice}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it may have been cut off: fetch it again") from error
    finally:
        if was_on:
            gc.enable()
    belongs = f"where an object with images, annotations and categories belongs; {advice}"
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        kind = "a list"
        if "joints_vis" in first:
            kind = "a list of people in MPII's form, which bnnlight.data.MPIIDataModule reads,"
        elif "score" in first:
            kind = "a list of detections or results"
        raise ValueError(f"{path} holds {kind} {belongs}")
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} {belongs}")
    for name in ("images", "annotations"):
        if not isinstance(content.get(name), list):
            has = ", ".join(map(str, content)) or "nothing"
            problem = f"has no list {name}: it holds {has}" if name not in content else f"{name} is not a list"
            raise ValueError(f"{path}: {problem}; it is not in COCO's form; {advice}")
    return content


def _lean(entry: dict[str, Any]) -> dict[str, Any]:
    """An annotation without outlines, and with its keypoints in a fraction of the memory."""
    if "image_id" in entry:
        entry.pop("segmentation", None)
        points = entry.get("keypoints")
        if isinstance(points, list) and points:
            try:
                entry["keypoints"] = array("d", points)
            except (TypeError, OverflowError):
                entry["keypoints"] = _in_one_list(points)
    return entry


def _in_one_list(points: list[Any]) -> Any:
    """Triples in one list, null as NaN; as they are where they are something else."""
    if all(isinstance(point, list) and len(point) == 3 for point in points):
        points = [number for point in points for number in point]
    try:
        return array("d", [np.nan if number is None else number for number in points])
    except (TypeError, OverflowError):
        return points


def _pictures(path: Path, images: list[Any]) -> dict[str, CocoPicture]:
    pictures: dict[str, CocoPicture] = {}
    for number, image in enumerate(images, 1):
        where = f"{path}: picture {number} of {len(images)}"
        if not isinstance(image, dict) or "id" not in image or not isinstance(image.get("file_name"), str):
            raise ValueError(f"{where} has no id or no file_name: each needs both; correct the entry")
        # some tools on Windows write the folders of a name in their own way
        key, name = key_of(image["id"]), image["file_name"].replace("\\", "/")
        if key in pictures:
            names = f"{pictures[key].name} and {name}"
            raise ValueError(f"{where}: two pictures have the id {key}, {names}: give each an id of its own")
        size = [image.get(side) for side in ("width", "height")]
        known = all(isinstance(side, int | float) and 0 < side < 2**31 for side in size)
        pictures[key] = CocoPicture(name, *(map(int, size) if known else (0, 0)))
    return pictures


def _categories(path: Path, content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    categories: dict[str, dict[str, Any]] = {}
    if not isinstance(content.get("categories") or [], list):
        raise ValueError(f'{path}: categories is not a list: write [{{"id": 1, "name": …, "keypoints": […]}}]')
    for category in content.get("categories") or []:
        if not isinstance(category, dict) or "id" not in category:
            raise ValueError(f"{path}: a category has no id: give each one; correct the file")
        key = key_of(category["id"])
        if key in categories:
            raise ValueError(f"{path}: two categories have the id {key}: give each an id of its own")
        categories[key] = category
    return categories
