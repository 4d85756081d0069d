"""Reads people, or whatever has keypoints, from a JSON file in COCO's form."""

from __future__ import annotations

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
from bnnlight.data.keypoints.coco_files.boxes import BoxFrom, square_boxes
from bnnlight.data.keypoints.coco_files.content import (
    CocoContent,
    first_twice,
    ids_as_array,
    is_crowd,
    key_of,
    load_coco,
)
from bnnlight.imaging.boxes import LARGEST_PX


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

    An annotation needs ``image_id`` and ``keypoints``: x, y and flag of each joint, in one list or in triples.
    ``category_id`` is needed where keypoints are of several categories. ``bbox``, ``area``, ``iscrowd``, ``id`` and
    ``num_keypoints`` may be absent; other entries are ignored. Crowds, and annotations without an annotated
    joint or a box, are left out and counted in one line.

    Categories with the same joints are one skeleton, as with the animals of AP-10K.

    Args:
        path: of the file.
        advice: what to do if it is missing or something else.
        category: name or id of the one to read; needed where keypoints are of categories with different joints.
        visible: flags that mean "annotated"; None: all above 0.
        origin: what the file calls the middle of the top left pixel.
        box_from: "box" or "keypoints"; None: the box where there is one.
        box_padding: side of the crop, divided by the longer side of the box.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in that form, or an entry is wrong; the message names the entry.
    """
    content = load_coco(path, advice)
    entries = content.entries
    crowd = [is_crowd(entry) for entry in entries]
    kept = [i for i, entry in enumerate(entries) if not crowd[i] and _has_keypoints(entry)]
    wanted, num_others = _wanted(content, kept, category, visible)
    kept = [i for i in kept if content.category(i) in wanted]
    names, limbs = _names_and_limbs(content, wanted)
    table = _table(content, kept, len(names) if names else None)
    annotated = np.isin(table[..., 2], list(visible)) if visible else table[..., 2] > 0
    _check_px(content, kept, table, annotated)
    has_joints = annotated.any(1)
    rows = np.array(kept, np.int64)[has_joints]
    table, annotated = table[has_joints], annotated[has_joints]
    pictures = [content.picture(i) for i in rows]
    boxes, areas = _boxes_and_areas(content, rows)
    ids = [entries[i].get("id") for i in rows]
    people = PosePeople(
        file=path,
        numbers=rows + 1,
        num_entries=len(entries),
        origin=origin,
        images=np.array([picture.name for picture in pictures], str),
        joints=np.where(annotated[..., None], table[..., :2] - origin, 0).astype(np.float32),
        annotated=annotated,
        center=np.zeros((len(rows), 2), np.float32),
        side_px=np.zeros(len(rows), np.float32),
        head_px=np.full(len(rows), np.nan, np.float32),
        area=areas,
        box=boxes,
        image_ids=ids_as_array([entries[i]["image_id"] for i in rows]),
        ids=rows + 1 if None in ids else ids_as_array(ids),
    )
    people, has_box = square_boxes(people, origin, box_from, box_padding)
    left_out = {
        "without keypoints": len(entries) - sum(crowd) - len(rows) - num_others,
        "crowd": sum(crowd),
        "of another category": num_others,
        "without a box, all joints in one place": len(rows) - len(people),
    }
    _tell(people, left_out, [str(content.categories.get(key, {}).get("name", key)) for key in sorted(wanted)])
    if not len(people):
        why = ", ".join(f"{number:,} {what}" for what, number in left_out.items() if number)
        if not entries:
            raise ValueError(f"{path}: it has no annotations; {advice}")
        options = "look at data.category, data.visible and data.box_from"
        raise ValueError(f"{path}: none of its {len(entries)} annotations can be trained on: {why}; {options}")
    if people.box[:, 2:].max() <= 1:
        raise ValueError(
            f"{path}: no box is wider or higher than one pixel, as if coordinates were shares of the picture: multiply "
            "them by its width and height"
        )
    sizes = np.array([picture[1:] for picture in pictures], np.int64).reshape(-1, 2)
    return CocoFile(people, names, limbs, sizes[has_box])


def _has_keypoints(entry: dict[str, Any]) -> bool:
    points = entry.get("keypoints")
    return points is not None and not (isinstance(points, list | array) and not len(points))


def _wanted(
    content: CocoContent, kept: list[int], category: str | int | None, visible: Sequence[float] | None
) -> tuple[set[str], int]:
    """Ids of the categories to read, and how many annotations with joints are of others."""
    path, categories = content.path, content.categories
    count = Counter(content.category(i) for i in kept if _is_annotated(content.entries[i]["keypoints"], visible))
    if category is not None:
        found = {key for key, value in categories.items() if category == value.get("name") or key_of(category) == key}
        if not found:
            known = ", ".join(map(content.category_name, categories)) or "none"
            raise ValueError(f"{path}: it has no category {category!r}: set data.category to a name or id of {known}")
        return found, sum(number for key, number in count.items() if key not in found)
    if unknown := [key for key in count if categories and key not in categories]:
        index = next(i for i in kept if content.category(i) == unknown[0])
        problem = (
            "it has no category_id"
            if unknown[0] == "None"
            else f"category_id {unknown[0]} is not one of the categories"
        )
        known = ", ".join(map(content.category_name, categories))
        raise ValueError(f"{content.where(index)}: {problem}, {known}; correct the entry")
    if len({json.dumps(categories.get(key, {}).get("keypoints") or []) for key in count}) > 1:
        names = ", ".join(map(content.category_name, count))
        raise ValueError(
            f"{path}: its keypoints are of {len(count)} categories with different joints, {names}: "
            "set data.category to the name or id of one"
        )
    return set(count), 0


def _is_annotated(points: Any, visible: Sequence[float] | None) -> bool:
    # what is not a row of numbers is told of later
    return not isinstance(points, array) or any(v in visible if visible else v > 0 for v in points[2::3])


def _names_and_limbs(content: CocoContent, wanted: set[str]) -> tuple[tuple[str, ...] | None, Any]:
    chosen = {key: category for key, category in content.categories.items() if key in wanted}
    key, first = next(iter(chosen.items()), ("", {}))
    limbs = next((category["skeleton"] for category in chosen.values() if category.get("skeleton")), None)
    names = first.get("keypoints")
    if isinstance(names, int):
        names = [f"keypoint_{index}" for index in range(names)]
    if not names:
        return None, limbs
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise ValueError(f"{content.path}: keypoints of category {key} is not a list of names; correct the category")
    names = tuple(" ".join(str(name).split()) for name in names)
    if twice := first_twice(names):
        raise ValueError(f"{content.path}: category {key} names the joint {twice!r} twice: give each a name of its own")
    return names, limbs


def _table(content: CocoContent, kept: list[int], num_joints: int | None) -> np.ndarray:
    """``(N, K, 3)`` float64: x, y and flag as in the file."""
    length = 3 * num_joints if num_joints else None
    for index in kept:
        points = content.entries[index]["keypoints"]
        if not isinstance(points, array):
            wanted = "a list of numbers, x, y and flag of each joint"
            pairs = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
            advice = ", but pairs without a flag: add 2 to each that is annotated" if pairs else "; correct the entry"
            raise ValueError(f"{content.where(index)}: keypoints is not {wanted}{advice}")
        length = length or len(points)
        if len(points) != length or length % 3:
            joints = f"the category's {num_joints} joints" if num_joints else f"{length // 3} joints, as the first has,"
            needed = "each joint needs three" if length % 3 else f"{joints} need {length}"
            raise ValueError(
                f"{content.where(index)}: keypoints holds {len(points)} numbers where {needed}; "
                "correct the entry, or the keypoints of its category"
            )
    if not kept:
        return np.zeros((0, num_joints or 1, 3))
    rows = [np.frombuffer(content.entries[index]["keypoints"]) for index in kept]
    table = np.concatenate(rows).reshape(len(kept), -1, 3)
    wrong = ~np.isfinite(table[..., 2]).all(1)
    if wrong.any():
        raise ValueError(f"{content.where(kept[wrong.argmax()])}: a joint's flag is not a number; correct the entry")
    return table


def _check_px(content: CocoContent, kept: list[int], table: np.ndarray, annotated: np.ndarray) -> None:
    # what is not a number is told of later, with the joint's name
    far = np.argwhere((np.abs(table[..., :2]) >= LARGEST_PX).any(2) & np.isfinite(table[..., :2]).all(2) & annotated)
    if len(far):
        row, joint = far[0]
        x, y = table[row, joint, :2]
        raise ValueError(
            f"{content.where(kept[row])}: joint {joint} is at ({x:g}, {y:g}), beyond 2³¹ px; correct the entry"
        )


def _boxes_and_areas(content: CocoContent, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(N, 4)`` and ``(N,)`` float32, as in the file; NaN where there is none."""
    boxes, areas = np.full((len(rows), 4), np.nan, np.float32), np.full(len(rows), np.nan, np.float32)
    for row, index in enumerate(rows):
        entry = content.entries[index]
        for name, into, shape in (("bbox", boxes, (4,)), ("area", areas, ())):
            value = entry.get(name)
            if value is None or value == []:
                continue
            try:
                numbers = np.array(value, np.float64)
            except (TypeError, ValueError, OverflowError):
                numbers = np.zeros(0)
            # an area may be as large as the square
            most = LARGEST_PX if shape else LARGEST_PX**2
            if numbers.shape != shape or not (np.abs(numbers) < most).all():
                wanted = "x, y, width and height belong, each below 2³¹" if shape else "a number below 2⁶² belongs"
                raise ValueError(
                    f"{content.where(index)}: {name} is {str(value)[:60]} where {wanted}; correct the entry"
                )
            into[row] = numbers
    return boxes, areas


def _tell(people: PosePeople, left_out: dict[str, int], categories: list[str]) -> None:
    line = f"{people.file}: {len(people):,} people in {len(np.unique(people.images)):,} pictures"
    parts = [f"{number:,} {what}" for what, number in left_out.items() if number]
    line += f"; left out: {', '.join(parts)}" if parts else ""
    if len(categories) > 1:
        names = f"{', '.join(categories[:3])}{and_more(len(categories[3:]))}"
        line += f"; read as one, since they have the same joints: {names}"
    rank_zero_info(line)
