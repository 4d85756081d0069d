"""Reads MPII's people from the authors' own file, mpii_human_pose_v1_u12_1.mat."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from scipy.io.matlab import mat_struct

from bnnlight.data.keypoints.annotations import PosePeople
from bnnlight.data.keypoints.checks import check_finite, read_mat
from bnnlight.data.keypoints.mpii_heads import HEAD_PER_DIAGONAL
from bnnlight.data.keypoints.mpii_json import SCALE_PX, padded
from bnnlight.imaging.skeletons import MPII


def read_release(path: Path, advice: str) -> PosePeople:
    """Read the people of all training pictures who have a scale, a position and joints.

    Occluded joints count as annotated: whoever annotated them could tell where they had to be.

    Args:
        path: of the file.
        advice: what to do if it is missing or a different one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a different file, or holds no such people.
    """
    release = read_mat(path, ("RELEASE",), advice, squeeze=True)["RELEASE"]
    lacking = [name for name in ("annolist", "img_train") if not hasattr(release, name)]
    if lacking:
        raise ValueError(f"{path}: RELEASE lacks {', '.join(lacking)}; {advice}")
    pictures, is_train = _structures(release.annolist), np.atleast_1d(release.img_train)
    if len(pictures) != len(is_train):
        raise ValueError(f"{path}: RELEASE has {len(pictures)} pictures and {len(is_train)} img_train; {advice}")
    rows, num_left_out = [], 0
    for number in np.flatnonzero(is_train == 1) + 1:
        picture = pictures[number - 1]
        name = _get(picture, "image", "name")
        for rectangle in _structures(_get(picture, "annorect")):
            try:
                row = _read_person(rectangle)
            except ValueError as error:
                where = f"{path}: entry {number} of {len(pictures)} ({name})"
                raise ValueError(f"{where}: {error}; {advice}") from error
            if row is None:
                num_left_out += 1
            else:
                rows.append((number, str(name), *row))
    if not rows:
        raise ValueError(
            f"{path}: RELEASE has no training pictures with people who have scale, objpos and annopoints; {advice}"
        )
    numbers, images, center, scale, joints, annotated, head_px = (np.array(c) for c in zip(*rows, strict=True))
    rank_zero_info(
        f"{path}: {len(rows)} people in {len(np.unique(images))} training pictures; "
        f"{num_left_out} others have no scale, no position or no joints"
    )
    center, scale = padded(center, scale)
    people = PosePeople(
        file=path,
        numbers=numbers,
        num_entries=len(pictures),
        origin=1,
        images=images,
        joints=np.where(annotated[..., None], joints - 1, 0).astype(np.float32),
        annotated=annotated,
        center=(center - 1).astype(np.float32),
        side_px=(scale * SCALE_PX).astype(np.float32),
        head_px=head_px.astype(np.float32),
    )
    check_finite(people, MPII)
    return people


def _read_person(rectangle: mat_struct) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, float] | None:
    """Return center, scale, joints, annotated and head_px as published, or None for a person who lacks one."""
    scale = _number(_get(rectangle, "scale"))
    center = np.array([_number(_get(rectangle, "objpos", axis)) for axis in "xy"])
    points = _structures(_get(rectangle, "annopoints", "point"))
    if not (np.isfinite(center).all() and np.isfinite(scale) and scale > 0 and points):
        return None
    joints, annotated = np.zeros((len(MPII.joints), 2)), np.zeros(len(MPII.joints), bool)
    for point in points:
        joint = _number(_get(point, "id"))
        if joint not in range(len(MPII.joints)):
            raise ValueError(f"a point has the id {joint}, where 0 to {len(MPII.joints) - 1} belong")
        joints[int(joint)] = _number(_get(point, "x")), _number(_get(point, "y"))
        annotated[int(joint)] = True
    x1, y1, x2, y2 = (_number(_get(rectangle, name)) for name in ("x1", "y1", "x2", "y2"))
    diagonal = float(np.hypot(x2 - x1, y2 - y1))
    return center, scale, joints, annotated, HEAD_PER_DIAGONAL * diagonal if diagonal > 0 else np.nan


def _structures(value: Any) -> list[mat_struct]:
    """List structures: there may be none, which is an empty array, or a single one, or an array of them."""
    return [item for item in np.atleast_1d(value).ravel() if isinstance(item, mat_struct)]


def _get(value: Any, *names: str) -> Any:
    """Follow names of fields; None where one is absent, or where a structure is an empty array."""
    for name in names:
        value = getattr(value, name, None)
    return value


def _number(value: Any) -> float:
    """Turn a number, whichever type MATLAB gave it, into a float; NaN where there is none."""
    try:
        return float(np.asarray(value, np.float64).reshape(()))
    except (TypeError, ValueError):
        return float("nan")
