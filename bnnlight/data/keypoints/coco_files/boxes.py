"""Boxes of COCO's people: the square that is cut out, and whether it lies in the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from bnnlight.data.keypoints.annotations import PosePeople
from bnnlight.data.keypoints.checks import and_more

BoxFrom = Literal["box", "keypoints"]
_FIX = "correct the entry, or take the boxes from the joints with data.box_from keypoints"


def square_boxes(
    people: PosePeople, origin: float, box_from: BoxFrom | None, padding: float
) -> tuple[PosePeople, np.ndarray]:
    """Fill in ``box``, ``center`` and ``side_px``; leave out those whose joints lie in one place and have no box.

    The crop is ``padding`` × the longer side of the box, round its middle.

    Args:
        people: with boxes as in the file, x, y, width, height; NaN where there are none.
        origin: what the file calls the middle of the top left pixel, for boxes as for joints.
        box_from: "box", "keypoints", or None: the box where there is one.
        padding: above 0.

    Returns:
        The people, and ``(N,)`` bool, who of those that were handed over they are.

    Raises:
        ValueError: a box is missing where it is to be used, or has no size.
    """
    box = people.box.astype(np.float64) - (origin, origin, 0, 0)
    has_box = np.isfinite(box).all(1) & (box_from != "keypoints")
    if box_from == "box" and not has_box.all():
        index = int((~has_box).argmax())
        raise ValueError(f"{people.where(index)}: it has no bbox{and_more(int((~has_box).sum()) - 1)}; {_FIX}")
    empty = has_box & (box[:, 2:].min(1, initial=np.inf) <= 0)
    if empty.any():
        index = int(empty.argmax())
        width, height = box[index, 2:]
        raise ValueError(
            f"{people.where(index)}: its box is {width:g}×{height:g} px{and_more(int(empty.sum()) - 1)}: "
            f"width and height must be above 0; {_FIX}"
        )
    seen = people.annotated[..., None]
    low = np.where(seen, people.joints, np.inf).min(1)
    high = np.where(seen, people.joints, -np.inf).max(1)
    # the middle of joints as LSP's module finds it, to the last bit, so that a training on either form is the same
    middle = np.where(has_box[:, None], box[:, :2] + box[:, 2:] / 2, (low + high) / 2)
    box = np.where(has_box[:, None], box, np.column_stack((low, high - low)))
    # a joint that is not a number is told of later, with its name
    usable = ~(box[:, 2:].max(1) <= 0)
    people = replace(
        people,
        box=box.astype(np.float32),
        center=middle.astype(np.float32),
        side_px=(padding * box[:, 2:].max(1)).astype(np.float32),
    )
    return people.take(usable), usable


def check_boxes(people: PosePeople, sizes: np.ndarray) -> None:
    """Check that the boxes touch their pictures.

    Args:
        people: with boxes.
        sizes: ``(N, 2)``, width and height of each one's picture, px; 0 where not known.

    Raises:
        ValueError: a box lies outside.
    """
    low, high = people.box[:, :2], people.box[:, :2] + people.box[:, 2:]
    outside = ((high < -0.5) | (low > sizes - 0.5)).any(1) & (sizes > 0).all(1)
    if outside.any():
        index = int(outside.argmax())
        x, y, width, height = people.box[index] + (people.origin, people.origin, 0, 0)
        raise ValueError(
            f"{people.where(index)}: its box at ({x:g}, {y:g}) of {width:g}×{height:g} px lies outside the picture of "
            f"{sizes[index, 0]}×{sizes[index, 1]} px{and_more(int(outside.sum()) - 1)}; {_FIX}"
        )
