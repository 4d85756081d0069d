"""Reads the head sizes of MPII's validation people, which PCKh measures by."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bnnlight.data.keypoints.annotations import PosePeople
from bnnlight.data.keypoints.checks import and_more, read_mat

HEAD_PER_DIAGONAL = 0.6
"""Head size by the diagonal of the annotated head box, as MPII's evaluation defines it."""
_SAME_PX = 0.5


def with_heads(people: PosePeople, path: Path, advice: str) -> PosePeople:
    """Add the head sizes of gt_valid.mat.

    A row of it belongs to the person with the same joints: entries may be fewer than rows, or in another order.

    Args:
        people: whose.
        path: of the file; it holds pos_gt_src (16, 2, N), headboxes_src (2, 2, N) and jnt_missing (16, N).
        advice: what to do if it is missing or a different one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a different file, or has no row for a person, or no head box in it.
    """
    names = ("pos_gt_src", "headboxes_src", "jnt_missing")
    joints, boxes, missing = (array.T for array in read_mat(path, names, advice).values())
    num_rows, num_joints = len(joints), people.joints.shape[1]
    expected = [(num_rows, 2, num_joints), (num_rows, 2, 2), (num_rows, num_joints)]
    for name, array, shape in zip(names, (joints, boxes, missing), expected, strict=True):
        if array.shape != shape:
            raise ValueError(f"{path}: {name} is of shape {array.T.shape} where {shape[::-1]} belongs; {advice}")
    rows = match(people, joints.transpose(0, 2, 1) - people.origin, missing == 0)
    if (rows < 0).any():
        raise ValueError(
            f"{people.where((rows < 0).argmax())}: no row of {path} has this person's joints"
            f"{and_more((rows < 0).sum() - 1)}; {advice}"
        )
    # after the transposition: person, corner's axis, corner
    head_px = HEAD_PER_DIAGONAL * np.linalg.norm(boxes[:, :, 1] - boxes[:, :, 0], axis=1)[rows]
    wrong = ~(np.isfinite(head_px) & (head_px > 0))
    if wrong.any():
        row = rows[wrong.argmax()] + 1
        raise ValueError(f"{path}: row {row} of {num_rows} has a head box without size; {advice}")
    return replace(people, head_px=head_px.astype(np.float32))


def match(people: PosePeople, joints: np.ndarray, annotated: np.ndarray) -> np.ndarray:
    """Find each person among rows of joints, by the places of all joints that are annotated.

    Args:
        people: N to be found.
        joints: ``(M, J, 2)``, in the coordinates of people.
        annotated: ``(M, J)`` bool, which of the joints are annotated.

    Returns:
        ``(N,)``, the number of the row, or -1 where none is the same to within half a pixel.
    """
    rows = np.where(annotated[..., None], joints, np.inf)

    def difference_px(person: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.where(mask, np.abs(rows - person).max(-1), 0).max(-1)

    if len(people) == len(rows) and (difference_px(people.joints, people.annotated) <= _SAME_PX).all():
        return np.arange(len(rows))
    numbers = np.full(len(people), -1)
    for index in range(len(people) if len(rows) else 0):
        distance = difference_px(people.joints[index], people.annotated[index])
        nearest = distance.argmin()
        # a person without joints would be the same as anyone
        if people.annotated[index].any() and distance[nearest] <= _SAME_PX:
            numbers[index] = nearest
    return numbers
