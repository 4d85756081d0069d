"""OKS: average precision and recall of keypoints as COCO measures them, by COCO's own code.

The object keypoint similarity of a prediction and an annotated person is the mean of exp(−d² / 2s²k²) over the person's
annotated joints: d is the distance in px, s² the person's area in px², and k twice the joint's sigma. A prediction is
right at a threshold if its similarity to a person that no better prediction has taken is at least that: average
precision and recall follow as for boxes, over the thresholds 0.5, 0.55 … 0.95
(https://cocodataset.org/#keypoints-eval).
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

STATS = {
    "ap": "AP",
    "ap50": "AP@0.5",
    "ap75": "AP@0.75",
    "ap_m": "AP, 32² to 96² px²",
    "ap_l": "AP, above 96² px²",
    "ar": "AR",
    "ar50": "AR@0.5",
    "ar75": "AR@0.75",
    "ar_m": "AR, 32² to 96² px²",
    "ar_l": "AR, above 96² px²",
}
"""Names of the figures, in the order in which COCO's code gives them, and what they are."""

AREA_OF_BOX = 0.53
"""Share of a box that a person takes, where the file gives no area."""


def evaluate_oks(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float],
    images: Collection[Any] | None = None,
) -> dict[str, float]:
    """Average precision and recall by ``pycocotools``, which is silent here.

    Crowds, and people without annotated joints, are ignored: what is predicted there is neither right nor wrong. Of an
    image the 20 predictions of the highest score count. With several categories the figures are their means.

    What the library needs and an annotation lacks is filled in, in a copy: ``iscrowd`` 0; ``num_keypoints`` by the
    flags above 0; ``keypoints`` none; ``bbox`` by the annotated joints; ``area`` 0.53 × width × height of the box, as
    ``xtcocotools`` by the authors of COCO-WholeBody takes it for AI Challenger and CrowdPose, which have no areas. Ids
    are numbered anew, since the library takes a match with an annotation of id 0 for none
    (``findings/coco_annotation_zero.sh``).

    Args:
        truth: content of a COCO file: ``images``, ``annotations`` and ``categories``.
        results: in COCO's form, ``image_id``, ``category_id``, ``keypoints`` (x, y and anything of each joint) and
            ``score`` of each; ids are written as in ``truth``, and a single category need not be named.
        sigmas: one a joint.
        images: ids of those to measure on; None: all.

    Returns:
        Name → figure in [0, 1], the names being those of :data:`STATS`; NaN where there is nobody to be found.

    Raises:
        ValueError: an annotation or a result is not of as many joints as there are sigmas, an area or box is no number,
            or a result is of an image or category that the truth does not have.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    image_numbers = _numbered(image["id"] for image in truth["images"])
    category_numbers = _numbered(_categories(truth))
    chosen = set(image_numbers.values() if images is None else map(image_numbers.__getitem__, images))
    # what is of no listed image or category is no part of the measurement, as in the library
    annotations = [
        entry | {"image_id": image_numbers[entry["image_id"]], "category_id": category_numbers[entry["category_id"]]}
        for entry in complete_annotations(truth, len(sigmas))
        if entry["image_id"] in image_numbers and entry["category_id"] in category_numbers
    ]
    predictions = _predictions(results, image_numbers, category_numbers, len(sigmas))
    common = {
        "images": [{"id": number} for number in sorted(chosen)],
        "categories": [{"id": number} for number in category_numbers.values()],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for entries in (annotations, predictions):
            side = COCO()
            side.dataset = {**common, "annotations": [entry for entry in entries if entry["image_id"] in chosen]}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # the library's -1 for "nobody" would pass for a figure
    figures = [math.nan if figure < 0 else float(figure) for figure in evaluation.stats]
    return dict(zip(STATS, figures, strict=True))


def complete_annotations(truth: Mapping[str, Any], num_joints: int) -> list[dict[str, Any]]:
    """Copies of a file's annotations with all that the library needs, numbered from 1; see :func:`evaluate_oks`.

    Raises:
        ValueError: joints are of another number, or a box or area is not a number.
    """
    categories = _categories(truth)
    completed = []
    for number, annotation in enumerate(truth["annotations"], 1):
        where = f"annotation {number} of {len(truth['annotations'])}"
        points = annotation.get("keypoints")
        points = np.zeros(3 * num_joints) if points is None or len(points) == 0 else np.asarray(points, np.float64)
        if points.shape != (3 * num_joints,):
            raise ValueError(f"{where}: keypoints holds {_not_as_many(points.size, num_joints)}")
        flagged = points.reshape(-1, 3)
        flagged = flagged[flagged[:, 2] > 0, :2]
        box = _box(annotation.get("bbox"), flagged, where)
        area = annotation.get("area")
        area = AREA_OF_BOX * box[2] * box[3] if area is None else area
        if not (isinstance(area, int | float) and math.isfinite(area)):
            raise ValueError(f"{where} has area {area!r}: give a number, or leave it out")
        count = annotation.get("num_keypoints")
        category = annotation.get("category_id")
        completed.append(
            {
                "id": number,
                "image_id": annotation["image_id"],
                "category_id": categories[0] if category is None and len(categories) == 1 else category,
                "keypoints": points,
                "num_keypoints": len(flagged) if count is None else count,
                "bbox": box,
                "area": area,
                "iscrowd": int(bool(annotation.get("iscrowd"))),
            }
        )
    return completed


def _box(box: Any, flagged: np.ndarray, where: str) -> list[float]:
    """x, y, width, height; of the joints ``(k, 2)`` where there is none, and of no size without any."""
    if box is None or len(box) == 0:
        low, high = (flagged.min(0), flagged.max(0)) if len(flagged) else (np.zeros(2), np.zeros(2))
        return [*low.tolist(), *(high - low).tolist()]
    try:
        numbers = np.asarray(box, np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        raise ValueError(f"{where} has bbox {str(box)[:60]}: give x, y, width and height, or leave it out")
    return numbers.tolist()


def _not_as_many(size: int, num_joints: int) -> str:
    return f"{size} numbers where {num_joints} sigmas need {3 * num_joints}; give one sigma for each joint"


def _predictions(
    results: Sequence[Mapping[str, Any]], images: dict[Any, int], categories: dict[Any, int], num_joints: int
) -> list[dict[str, Any]]:
    predictions = []
    only = next(iter(categories)) if len(categories) == 1 else None
    for number, result in enumerate(results, 1):
        result = {"category_id": only, **result}
        where = f"result {number} of {len(results)}"
        points = np.asarray(result["keypoints"], np.float64)
        if points.shape != (3 * num_joints,):
            raise ValueError(f"{where}: keypoints holds {_not_as_many(points.size, num_joints)}")
        for name, known in (("image_id", images), ("category_id", categories)):
            if result[name] not in known:
                raise ValueError(f"{where} has {name} {result[name]!r}, which the annotations do not have")
        box = result.get("bbox") or []
        sides = box[2:] if len(box) == 4 else np.ptp(points.reshape(-1, 3)[:, :2], 0).tolist()
        predictions.append(
            {
                "id": number,
                "image_id": images[result["image_id"]],
                "category_id": categories[result["category_id"]],
                "keypoints": points,
                "score": result["score"],
                # as the library has it: whether one that matches nobody is medium or large
                "area": sides[0] * sides[1],
            }
        )
    return predictions


def _categories(truth: Mapping[str, Any]) -> list[Any]:
    """Ids of the file's categories, or else those that its annotations name."""
    ids = [category["id"] for category in truth.get("categories") or []]
    named = dict.fromkeys(annotation.get("category_id") for annotation in truth["annotations"])
    return ids or [name for name in named if name is not None] or [1]


def _numbered(ids: Any) -> dict[Any, int]:
    """Ids → 1, 2 … in the order in which the library goes through them, which decides between equal scores."""
    return {name: number for number, name in enumerate(sorted(ids, key=lambda name: (isinstance(name, str), name)), 1)}
