"""The answers of many pictures as JSON: bnnlight's own form, and COCO's results form for keypoints.

``docs/predictions.md`` tells what stands in the first; ``docs/predictions.schema.json`` is its JSON Schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnnlight.imaging.boxes import person_record, whole_box
from bnnlight.imaging.skeletons import Skeleton

VERSION = 1
"""Of the form: a reader can count on what a version has, later ones may have more."""
PERSON = 1
"""COCO's id of people, where a box has no category."""


def answers(images: Sequence[dict[str, Any]], skeleton: Skeleton | None) -> dict[str, Any]:
    """The whole of ``predictions.json``.

    Args:
        images: a record for each picture.
        skeleton: of the joints; None for classes.
    """
    if skeleton is None:
        return {"version": VERSION, "task": "classification", "images": list(images)}
    named = {"joints": list(skeleton.joints), "limbs": [list(limb) for limb in skeleton.limbs]}
    named["flip_pairs"] = [[a, b] for a, b in enumerate(skeleton.mirrored) if skeleton.sides[a] == "left"]
    return {"version": VERSION, "task": "pose", "skeleton": named, "images": list(images)}


def with_people(answer: dict[str, Any], size: tuple[int, int], boxes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What stands of the people in a picture's record.

    Args:
        answer: of :func:`bnnlight.imaging.boxes.find_people`.
        size: width and height of the picture, px.
        boxes: what was told of each box besides its place: ``box_score``, ``category_id``. None of it need be there.
    """
    if "joints" in answer:
        return {"people": [person_record(whole_box(*size), answer["joints"])]}
    people = []
    for person, told in zip(answer["people"], boxes, strict=True):
        score = person["score"] * told.get("box_score", 1.0)
        people.append({"box": person["box"], **told, "score": score, "joints": person["joints"]})
    return {"people": people}


def coco_results(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """People in COCO's results form for keypoints (https://cocodataset.org/#format-results).

    ``keypoints`` are x, y and confidence of each joint, where (0, 0) is the middle of the top left pixel, as it is by
    custom in COCO's keypoints. Evaluation takes no heed of the third; the score is that of
    :func:`bnnlight.imaging.boxes.pose_score` times the box's.

    Args:
        images: records with ``image_id`` and ``people``.
    """
    return [
        {
            "image_id": image["image_id"],
            "category_id": person.get("category_id", PERSON),
            "keypoints": [joint[key] for joint in person["joints"] for key in ("x", "y", "confidence")],
            "score": person["score"],
        }
        for image in images
        for person in image["people"]
    ]
