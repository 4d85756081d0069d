"""Reads people, or whatever has keypoints, from a JSON file in COCO's form."""

from __future__ import annotations

import gc
import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from bnnlight.data.keypoints.annotations import PosePeople
from bnnlight.data.keypoints.checks import and_more
from bnnlight.data.keypoints.coco_boxes import BoxFrom, square_boxes

_LISTS = ("images", "annotations")


@dataclass(frozen=True)
class CocoFile:
    """What is read from a file.

    Attributes:
        people: all that have annotated joints and a box.
        names: of the joints; None where the category has none.
        limbs: ``skeleton`` of the category, as it stands in the file.
        sizes: ``(N, 2)`` int64, width and height that the file gives for each one's picture, px; 0 where it gives none.
    """

    people: PosePeople
    names: tuple[str, ...] | None
    limbs: Any
    sizes: np.ndarray


def read_coco(
    path: Path,
    advice: str,
    category: str | int | None = None,
    visible: Sequence[float] | None = None,
    origin: float = 0.0,
    box_from: BoxFrom | None = None,
    box_padding: float = 1.25,
) -> CocoFile:
    """Read a file in COCO's keypoint form: https://cocodataset.org/#format-data.

    Of an annotation ``image_id`` and ``keypoints`` are needed: x, y and flag of each joint, in one list or in triples.
    ``category_id`` is needed where keypoints are of several categories. ``bbox``, ``area``, ``iscrowd``, ``id`` and
    ``num_keypoints`` may be absent, other entries are not looked at. Crowds, and annotations without an annotated
    joint or a box, are left out and counted in one line.

    Categories with the same joints are one skeleton, as the animals of AP-10K.

    Args:
        path: of the file.
        advice: what to do if it is missing or something else.
        category: name or id of the one to read; needed where keypoints are of categories with different joints.
        visible: flags that mean "annotated"; None: all above 0.
        origin: what the file calls the middle of the top left pixel.
        box_from: "box" or "keypoints"; None: the box where there is one.
        box_padding: side of the crop by the longer side of the box.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in that form, or an entry is wrong; the message names the entry.
    """
    content = _load(path, advice)
    categories = _categories(path, content)
    entries, pictures = content["annotations"], _pictures(path, content["images"])
    _check_entries(path, entries, pictures)
    ids = [entry.get("id") for entry in entries]
    if twice := _first_twice([i for i in ids if i is not None]):
        raise ValueError(f"{path}: two annotations have the id {twice!r}: give each an id of its own")

    crowd = np.array([bool(entry.get("iscrowd")) for entry in entries], bool)
    kept = [i for i, entry in enumerate(entries) if not crowd[i] and _has_keypoints(entry)]
    wanted, other = _wanted(path, entries, kept, categories, category, visible)
    kept = [i for i in kept if _category(entries[i], categories) in wanted]
    names, limbs = _names_and_limbs(path, wanted, categories)
    table = _table(path, entries, pictures, kept, len(names) if names else None)
    if not np.isfinite(table[..., 2]).all():
        row = int((~np.isfinite(table[..., 2])).any(1).argmax())
        raise ValueError(f"{_where(path, entries, pictures, kept[row])}: a joint's flag is no number; correct the entry")
    annotated = _annotated(table, visible)
    has_joints = annotated.any(1)
    rows = np.array(kept, np.int64)[has_joints]
    table, annotated = table[has_joints], annotated[has_joints]
    names_of_pictures = [pictures[_key(entries[i]["image_id"])] for i in rows]
    boxes, areas = _boxes_and_areas(path, entries, pictures, rows)
    joints = np.where(annotated[..., None], table[..., :2] - origin, 0)
    people = PosePeople(
        file=path,
        numbers=rows + 1,
        num_entries=len(entries),
        origin=origin,
        images=np.array([name for name, *_ in names_of_pictures], str),
        joints=joints.astype(np.float32),
        annotated=annotated,
        center=np.zeros((len(rows), 2), np.float32),
        side_px=np.zeros(len(rows), np.float32),
        head_px=np.full(len(rows), np.nan, np.float32),
        area=areas,
        box=boxes,
        image_ids=_ids([entries[i]["image_id"] for i in rows]),
        ids=_ids([ids[i] for i in rows]) if all(ids[i] is not None for i in rows) else rows + 1,
    )
    sizes = np.array([size for _, *size in names_of_pictures], np.int64).reshape(-1, 2)
    num_found = len(people)
    people, has_box = square_boxes(people, origin, box_from, box_padding)
    left_out = {
        "without keypoints": len(entries) - int(crowd.sum()) - num_found - other,
        "crowd": int(crowd.sum()),
        "of another category": other,
        "without a box, all joints in one place": num_found - len(people),
    }
    _tell(people, left_out, wanted, categories)
    if not len(people):
        raise ValueError(f"{path}: none of its {len(entries)} annotations has keypoints; {advice}")
    return CocoFile(people, names, limbs, sizes[has_box])


def _load(path: Path, advice: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"annotations not found: looked for {path}; {advice}")
    was_on = gc.isenabled()
    # millions of new objects, none of them garbage: the collector would go through them again and again
    gc.disable()
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = json.load(file, object_hook=_lean)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it may have been cut off: fetch it again") from error
    finally:
        if was_on:
            gc.enable()
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        kind = "a list"
        if "joints_vis" in first:
            kind = "a list of people in MPII's form, which bnnlight.data.MPIIDataModule reads,"
        elif "score" in first:
            kind = "a list of detections or results"
        raise ValueError(f"{path} holds {kind} where an object with images, annotations and categories belongs; {advice}")
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} where an object with images belongs; {advice}")
    for name in _LISTS:
        if not isinstance(content.get(name), list):
            has = ", ".join(map(str, content)) or "nothing"
            problem = f"has no list {name}: it holds {has}" if name not in content else f"{name} is no list"
            raise ValueError(f"{path}: {problem}; it is not in COCO's form; {advice}")
    return content


def _lean(entry: dict[str, Any]) -> dict[str, Any]:
    """An annotation without outlines, and with its keypoints in a twentieth of the memory."""
    if "image_id" in entry:
        entry.pop("segmentation", None)
        points = entry.get("keypoints")
        if isinstance(points, list) and points:
            try:
                entry["keypoints"] = array("d", points)
            except TypeError:
                entry["keypoints"] = _in_one_list(points)
    return entry


def _in_one_list(points: list[Any]) -> Any:
    """Triples in one list, null as NaN; as they are where they are something else."""
    if all(isinstance(point, list) and len(point) == 3 for point in points):
        points = [number for point in points for number in point]
    try:
        return array("d", [np.nan if number is None else number for number in points])
    except TypeError:
        return points


def _key(name: Any) -> str:
    """An id as it is looked up: 7, 7.0 and "7" are the same one."""
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def _ids(values: list[Any]) -> np.ndarray:
    whole = all(isinstance(value, int) or (isinstance(value, float) and value.is_integer()) for value in values)
    return np.array(values, np.int64) if whole else np.array([_key(value) for value in values], str)


def _first_twice(values: Sequence[Any]) -> Any:
    keys = [_key(value) for value in values]
    if len(set(keys)) == len(keys):
        return None
    return next(value for value, key in zip(values, keys, strict=True) if Counter(keys)[key] > 1)


def _pictures(path: Path, images: list[Any]) -> dict[str, tuple[str, int, int]]:
    """Id → name, width and height; 0 where the file gives none."""
    pictures: dict[str, tuple[str, int, int]] = {}
    for number, image in enumerate(images, 1):
        where = f"{path}: picture {number} of {len(images)}"
        if not isinstance(image, dict) or "id" not in image or not isinstance(image.get("file_name"), str):
            raise ValueError(f"{where} has no id or no file_name: each needs both; correct the entry")
        key = _key(image["id"])
        if key in pictures:
            names = f"{pictures[key][0]} and {image['file_name']}"
            raise ValueError(f"{where}: two pictures have the id {image['id']!r}, {names}: give each an id of its own")
        size = [image.get(name) for name in ("width", "height")]
        known = all(isinstance(side, int | float) and 0 < side < 2**31 for side in size)
        width, height = map(int, size) if known else (0, 0)
        pictures[key] = image["file_name"], width, height
    return pictures


def _categories(path: Path, content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Id → category."""
    categories: dict[str, dict[str, Any]] = {}
    for category in content.get("categories") or []:
        if not isinstance(category, dict) or "id" not in category:
            raise ValueError(f"{path}: a category has no id: give each one; correct the file")
        key = _key(category["id"])
        if key in categories:
            raise ValueError(f"{path}: two categories have the id {category['id']!r}: give each an id of its own")
        categories[key] = category
    return categories


def _check_entries(path: Path, entries: list[Any], pictures: dict[str, Any]) -> None:
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: entry {number} of {len(entries)} is a {type(entry).__name__}; correct the entry")
        if "image_id" not in entry or _key(entry["image_id"]) not in pictures:
            found = f"image_id {entry['image_id']!r}, which is none of its images" if "image_id" in entry else "no image_id"
            raise ValueError(f"{path}: entry {number} of {len(entries)} has {found}; correct the entry")


def _where(path: Path, entries: list[Any], pictures: dict[str, Any], index: int) -> str:
    name = pictures[_key(entries[index]["image_id"])][0]
    return f"{path}: entry {index + 1} of {len(entries)} ({name})"


def _has_keypoints(entry: dict[str, Any]) -> bool:
    points = entry.get("keypoints")
    return points is not None and not (isinstance(points, list | array) and not len(points))


def _category(entry: dict[str, Any], categories: dict[str, Any]) -> str:
    """Id of an entry's category; where it names none, that of the only one."""
    name = entry.get("category_id")
    if name is None and len(categories) == 1:
        return next(iter(categories))
    return _key(name)


def _wanted(
    path: Path,
    entries: list[Any],
    kept: list[int],
    categories: dict[str, dict[str, Any]],
    category: str | int | None,
    visible: Sequence[float] | None,
) -> tuple[set[str], int]:
    """Ids of the categories to read, and how many annotations with joints are of others."""
    count = Counter(_category(entries[i], categories) for i in kept if _is_annotated(entries[i]["keypoints"], visible))
    names = [f"{key} {categories[key].get('name', '')}".strip() if key in categories else key for key in count]
    if category is not None:
        found = {key for key, value in categories.items() if category == value.get("name") or _key(category) == key}
        if not found:
            known = ", ".join(f"{key} {value.get('name', '')}".strip() for key, value in categories.items()) or "none"
            raise ValueError(f"{path}: it has no category {category!r}: set data.category to a name or id of {known}")
        return found, sum(number for key, number in count.items() if key not in found)
    if unknown := [key for key in count if categories and key not in categories]:
        raise ValueError(f"{path}: category_id {unknown[0]} is none of its categories: add it to them")
    if len({_signature(categories.get(key, {})) for key in count}) > 1:
        raise ValueError(
            f"{path}: its keypoints are of {len(count)} categories with different joints, {', '.join(names)}: "
            "set data.category to the name or id of one"
        )
    return set(count), 0


def _is_annotated(points: Any, visible: Sequence[float] | None) -> bool:
    # what is no row of numbers is told of later
    return not isinstance(points, array) or any(v in visible if visible else v > 0 for v in points[2::3])


def _signature(category: dict[str, Any]) -> str:
    return json.dumps(category.get("keypoints") or [])


def _names_and_limbs(
    path: Path, wanted: set[str], categories: dict[str, dict[str, Any]]
) -> tuple[tuple[str, ...] | None, Any]:
    chosen = [categories[key] for key in categories if key in wanted]
    if not chosen:
        return None, None
    limbs = next((category["skeleton"] for category in chosen if category.get("skeleton")), None)
    names = chosen[0].get("keypoints")
    if isinstance(names, int):
        return tuple(f"keypoint_{index}" for index in range(names)) or None, limbs
    if not names:
        return None, limbs
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise ValueError(f"{path}: keypoints of category {chosen[0]['id']!r} is no list of names; correct the category")
    names = tuple(" ".join(str(name).split()) for name in names)
    if twice := _first_twice(names):
        raise ValueError(
            f"{path}: category {chosen[0]['id']!r} names the joint {twice!r} twice: give each a name of its own"
        )
    return names, limbs


def _table(
    path: Path, entries: list[Any], pictures: dict[str, Any], kept: list[int], num_joints: int | None
) -> np.ndarray:
    """``(N, K, 3)`` float64: x, y and flag as in the file."""
    length = 3 * num_joints if num_joints else None
    for index in kept:
        points = entries[index]["keypoints"]
        if not isinstance(points, array):
            where = _where(path, entries, pictures, index)
            raise ValueError(f"{where}: keypoints is no list of numbers, x, y and flag of each joint; correct the entry")
        length = length or len(points)
        if len(points) != length or length % 3:
            joints = f"the category's {num_joints} joints" if num_joints else f"{length // 3} joints, as the first has,"
            needed = f"{joints} need {length - length % 3}" if length % 3 == 0 else "each joint needs three"
            raise ValueError(
                f"{_where(path, entries, pictures, index)}: keypoints holds {len(points)} numbers where {needed}; "
                "correct the entry, or the keypoints of its category"
            )
    if not kept:
        return np.zeros((0, num_joints or 1, 3))
    rows = [np.frombuffer(entries[index]["keypoints"]) for index in kept]
    return np.concatenate(rows).reshape(len(kept), -1, 3)


def _annotated(table: np.ndarray, visible: Sequence[float] | None) -> np.ndarray:
    flags = table[..., 2]
    return np.isin(flags, list(visible)) if visible else flags > 0


def _boxes_and_areas(
    path: Path, entries: list[Any], pictures: dict[str, Any], rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``(N, 4)`` and ``(N,)`` float32, as in the file; NaN where there is none."""
    boxes, areas = np.full((len(rows), 4), np.nan, np.float32), np.full(len(rows), np.nan, np.float32)
    for row, index in enumerate(rows):
        entry = entries[index]
        for name, into, shape in (("bbox", boxes, (4,)), ("area", areas, ())):
            value = entry.get(name)
            if value is None or value == []:
                continue
            try:
                numbers = np.array(value, np.float64)
            except (TypeError, ValueError):
                numbers = np.zeros(0)
            if numbers.shape != shape or not np.isfinite(numbers).all():
                wanted = "x, y, width and height" if shape else "a number"
                where = _where(path, entries, pictures, index)
                raise ValueError(f"{where}: {name} is {str(value)[:60]} where {wanted} belong; correct the entry")
            into[row] = numbers
    return boxes, areas


def _tell(people: PosePeople, left_out: dict[str, int], wanted: set[str], categories: dict[str, Any]) -> None:
    line = f"{people.file}: {len(people):,} people in {len(np.unique(people.images)):,} pictures"
    parts = [f"{number:,} {what}" for what, number in left_out.items() if number]
    line += f"; left out: {', '.join(parts)}" if parts else ""
    if len(wanted) > 1:
        names = [str(categories[key].get("name", key)) for key in categories if key in wanted]
        line += f"; read as one, since they have the same joints: {', '.join(names[:3])}{and_more(len(names[3:]))}"
    rank_zero_info(line)
