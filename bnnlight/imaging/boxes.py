"""Boxes of people in pictures: the square that is cut out for each, and how sure an answer is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnnlight.imaging.pose_crop import square_round

PADDING = 1.25
"""Side of the square by the longer side of a box, where nothing else is known."""
LARGEST_PX = 2**31
"""Coordinates beyond it are no picture's: arithmetic with them overflows somewhere on the way to a crop."""
SURE = 0.2
"""Joints that are less sure do not count for a person's score."""

Square = tuple[np.ndarray, float]
"""Middle ``(2,)`` and side of a square, px."""


def square_round_box(box: np.ndarray, padding: float) -> Square:
    """Middle ``(2,)`` and side of the square that is cut out for a box ``(4,)``: x and y of its corner, width, height.

    As in training: ``padding`` × the longer side, round the middle of the box.
    """
    return box[:2] + box[2:] / 2, float(padding * box[2:].max())


def whole_box(width: int, height: int) -> list[float]:
    """The box that is a whole picture: (0, 0) is the middle of its top left pixel."""
    return [-0.5, -0.5, float(width), float(height)]


def check_boxes(boxes: Any) -> np.ndarray:
    """Boxes of one picture as ``(N, 4)`` float64.

    Args:
        boxes: N times x and y of the corner, width, height.

    Raises:
        ValueError: something else, a number that is none, or a width or height that is not above 0.
    """
    try:
        array = np.asarray(boxes, np.float64)
    except (TypeError, ValueError):
        array = np.zeros(())
    if array.shape == (0,):
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError("its boxes are not a list with x, y, width and height for each")
    for index, box in enumerate(array):
        if fault := fault_of(box):
            raise ValueError(f"box {index} {fault}")
    return array


def fault_of(box: np.ndarray, size: tuple[int, int] | None = None) -> str:
    """What is wrong with a box ``(4,)``, for a message; empty where nothing is.

    Args:
        box: x and y of the corner, width, height, px.
        size: width and height of its picture, which it has to touch.
    """
    if not np.isfinite(box).all():
        return f"has a coordinate that is not a number: {_list(box)}"
    if np.abs(box).max() >= LARGEST_PX:
        return f"has a coordinate beyond 2³¹ px: {_list(box)}"
    if box[2:].min() <= 0:
        return f"is {box[2]:g}×{box[3]:g} px: width and height must be above 0"
    if size is not None and ((box[:2] + box[2:] <= -0.5) | (box[:2] >= np.array(size) - 0.5)).any():
        return f"[{_list(box)}] lies outside the picture of {size[0]}×{size[1]} px"
    return ""


def _list(box: np.ndarray) -> str:
    return ", ".join(f"{number:g}" for number in box)


def pose_score(confidences: Sequence[float]) -> float:
    """Mean confidence of the joints above :data:`SURE`; 0 where there are none.

    Times the box's score it is the score by which COCO's evaluation ranks people, as in the simple baselines (Xiao,
    Wu, Wei, ECCV 2018, https://arxiv.org/abs/1804.06208, and HRNet, https://arxiv.org/abs/1902.09212; ``in_vis_thre:
    0.2`` in their configs).
    """
    sure = [confidence for confidence in confidences if confidence > SURE]
    return sum(sure) / len(sure) if sure else 0.0


def find_people(
    images: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray] | None,
    padding: float,
    batch_size: int,
    find: Callable[[Sequence[np.ndarray], Sequence[Square]], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """The joints of the people in each picture, or of the one person that fills each.

    Args:
        images: ``(H, W, 3)`` uint8 each, RGB, held upright.
        boxes: ``(N, 4)`` of each picture; None takes each picture as a whole.
        padding: side of the square by the longer side of a box.
        batch_size: most people that are looked for at once.
        find: from pictures and a square in each to a record with ``joints`` for each.

    Returns:
        For each picture ``{"people": [{"box": …, "score": …, "joints": …}, …]}`` in the order of its boxes, or, without
        boxes, ``{"joints": …}``.
    """
    if boxes is None:
        squares = [(image, square_round(image)) for image in images]
    else:
        squares = [
            (image, square_round_box(box, padding))
            for image, of_image in zip(images, boxes, strict=True)
            for box in of_image
        ]
    found: list[dict[str, Any]] = []
    for start in range(0, len(squares), batch_size):
        some = squares[start : start + batch_size]
        found += find([image for image, _ in some], [square for _, square in some])
    if boxes is None:
        return found
    joints = iter(found)
    return [{"people": [person_record(box.tolist(), next(joints)["joints"]) for box in some]} for some in boxes]


def person_record(box: list[float], joints: list[dict[str, Any]]) -> dict[str, Any]:
    """A person with the box that was looked at, the score of the joints, and the joints."""
    return {"box": box, "score": pose_score([joint["confidence"] for joint in joints]), "joints": joints}
