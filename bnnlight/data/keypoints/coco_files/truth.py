"""A COCO file's annotations as a dictionary in COCO's form: what average precision by OKS is measured against."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnnlight.data.keypoints.coco_files.content import CocoContent, is_crowd, key_of, load_coco


def coco_truth(
    path: Path,
    advice: str,
    category: str | int | None = None,
    visible: Sequence[float] | None = None,
    origin: float = 0.0,
) -> dict[str, Any]:
    """Read all annotations of a file, crowds and people without keypoints too.

    Args:
        path: of the file.
        advice: what to do if it is missing or something else.
        category: name or id of the one to keep; None: all.
        visible: flags that mean "annotated"; others become 0. None: all above 0.
        origin: what the file calls the middle of the top left pixel; it is subtracted from joints and boxes.

    Returns:
        ``images``, ``annotations`` and ``categories`` (``id``, ``name``, ``keypoints``), with ids of images and
        categories as :func:`plain_id` has them; an annotation's id is its place in the file, counted from 1.
        ``keypoints`` of an annotation are ``(3K,)`` float64, or absent.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in COCO's form, has no such category, or an annotation's joints are wrong.
    """
    content = load_coco(path, advice)
    categories = {
        key: value
        for key, value in content.categories.items()
        if category is None or category == value.get("name") or key_of(category) == key
    }
    if category is not None and not categories:
        known = ", ".join(map(content.category_name, content.categories)) or "none"
        raise ValueError(f"{path}: it has no category {category!r}: give a name or id of {known}")
    annotations = [
        _annotation(content, index, visible, origin)
        for index in range(len(content.entries))
        if category is None or content.category(index) in categories
    ]
    _check_lengths(content, annotations)
    return {
        "images": [{"id": plain_id(key)} for key in content.pictures],
        "annotations": annotations,
        "categories": [
            {"id": plain_id(key), "name": str(value.get("name", key)), "keypoints": value.get("keypoints") or []}
            for key, value in categories.items()
        ],
    }


def plain_id(name: Any) -> int | str:
    """An id as an integer where it is a whole number, however it is written, and else as text."""
    key = key_of(name)
    return int(key) if key.removeprefix("-").isdecimal() else key


def _annotation(content: CocoContent, index: int, visible: Sequence[float] | None, origin: float) -> dict[str, Any]:
    entry = content.entries[index]
    made = {name: entry[name] for name in ("area", "num_keypoints") if entry.get(name) is not None}
    made |= {"id": index + 1, "image_id": plain_id(entry["image_id"]), "iscrowd": int(is_crowd(entry))}
    if entry.get("category_id") is not None or len(content.categories) == 1:
        made["category_id"] = plain_id(content.category(index))
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box):
        box = [box[0] - origin, box[1] - origin, *box[2:]]
    if box:
        made["bbox"] = box
    points = entry.get("keypoints")
    if points is None or len(points) == 0:
        return made
    if not isinstance(points, array) or len(points) % 3:
        raise ValueError(
            f"{content.where(index)}: keypoints is not a list of x, y and flag of each joint; correct the entry"
        )
    joints = np.array(points).reshape(-1, 3)
    if visible is not None:
        joints[:, 2] = 2 * np.isin(joints[:, 2], list(visible))
        made["num_keypoints"] = int((joints[:, 2] > 0).sum())
    if not np.isfinite(joints[joints[:, 2] > 0]).all() or np.isnan(joints[:, 2]).any():
        raise ValueError(f"{content.where(index)}: keypoints has a NaN or infinite number; correct the entry")
    joints[:, :2] -= origin
    return made | {"keypoints": joints.ravel()}


def _check_lengths(content: CocoContent, annotations: Sequence[dict[str, Any]]) -> None:
    lengths = {entry["id"]: len(entry["keypoints"]) // 3 for entry in annotations if "keypoints" in entry}
    for number, length in lengths.items():
        first = next(iter(lengths.values()))
        if length != first:
            raise ValueError(
                f"{content.where(number - 1)}: keypoints are {length} joints, and {first} in the first annotation; "
                "correct the entry, or choose one category"
            )
