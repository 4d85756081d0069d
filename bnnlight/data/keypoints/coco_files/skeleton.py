"""Makes a `Skeleton` from what a COCO keypoint file says about its category, and from options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from bnnlight.data.keypoints.annotations import PosePeople
from bnnlight.imaging.joint_sides import flip_pairs_by_name, side_and_rest
from bnnlight.imaging.skeletons import Skeleton

LimbsFrom = Literal[0, 1]

COCO_JOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035),
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""COCO's own for its 17 joints: how much its annotators differed, https://cocodataset.org/#keypoints-eval."""
_SHORTER = 0.9
"""Limbs are read in the way in which they are shorter, if they are shorter than in the other by this factor."""


def coco_skeleton(
    people: PosePeople,
    names: Sequence[str] | None,
    limbs: Any = None,
    flip_pairs: Sequence[Sequence[int | str]] | None = None,
    limbs_from: LimbsFrom | None = None,
    sigmas: Sequence[float] | None = None,
) -> Skeleton:
    """The skeleton of people whose file was read.

    Args:
        people: of the file, K joints each.
        names: of the joints; None numbers them, ``keypoint_0`` and so on.
        limbs: the category's ``skeleton``, pairs of numbers.
        flip_pairs: left and right joint, names or indices from 0; None: by the names.
        limbs_from: what the limbs count from; None: by the numbers, see :func:`read_limbs`.
        sigmas: one per joint; None: COCO's own if these are its 17 joints, else none.

    Raises:
        ValueError: an option names a joint that is not there, or there are not as many sigmas as joints.
    """
    file, num_joints = people.file, people.joints.shape[1]
    joints = tuple(names) if names else tuple(f"keypoint_{index}" for index in range(num_joints))
    if flip_pairs is None:
        pairs = flip_pairs_by_name(joints)
        _tell_of_sides(file, joints, pairs, bool(names))
    else:
        pairs = _chosen_pairs(file, joints, flip_pairs)
    places = {side_and_rest(name): index for index, name in enumerate(joints)}
    torso = tuple(places[key] for key in (("left", "shoulder"), ("right", "hip")) if key in places)
    return Skeleton(
        joints,
        read_limbs(people, joints, limbs, limbs_from),
        torso if len(torso) == 2 else (),
        sigmas=_sigmas(file, joints, sigmas),
        flip_pairs=pairs,
    )


def read_limbs(
    people: PosePeople, joints: Sequence[str], limbs: Any, limbs_from: LimbsFrom | None
) -> tuple[tuple[int, int], ...]:
    """A category's limbs, counted from 0.

    Files count from 1, as COCO's own do, or from 0. A 0 means from 0, a K from 1, K being the number of joints. Where
    there is neither, limbs are read in the way in which they join no left to a right joint of another name, or else in
    the way in which they are clearly shorter, over the annotated people; else from 1. Limbs are only drawn:
    those that fit no joints are left out with a warning.
    """
    numbers = _pairs_of_numbers(limbs)
    if numbers is None:
        rank_zero_warn(f"{people.file}: its category's skeleton is not a list of pairs of numbers: no limbs are drawn")
        return ()
    if not len(numbers):
        return ()
    num_joints = len(joints)
    lowest, highest = numbers.min(), numbers.max()
    first = limbs_from
    if first is None:
        first = 0 if lowest == 0 else 1 if highest == num_joints else _guess_first(people, joints, numbers)
    if lowest < first or highest - first >= num_joints:
        wrong = lowest if lowest < first else highest
        rank_zero_warn(
            f"{people.file}: its category's skeleton names joint {wrong}, where {first} to {num_joints - 1 + first} "
            "belong: no limbs are drawn; correct it, or set data.limbs_from to 0 or 1"
        )
        return ()
    return tuple((int(a), int(b)) for a, b in numbers - first)


def _pairs_of_numbers(limbs: Any) -> np.ndarray | None:
    """``(limbs, 2)`` int64; None where it is something else."""
    if limbs is None or (isinstance(limbs, list) and not limbs):
        return np.zeros((0, 2), np.int64)
    try:
        numbers = np.array(limbs, np.float64)
    except (TypeError, ValueError):
        return None
    is_pairs = numbers.ndim == 2 and numbers.shape[1] == 2 and (numbers == np.round(numbers)).all()
    return numbers.astype(np.int64) if is_pairs else None


def _guess_first(people: PosePeople, joints: Sequence[str], limbs: np.ndarray) -> LimbsFrom:
    if limbs.min() < 0 or limbs.max() > len(joints):
        return 1
    crossing = [_num_crossing(joints, limbs - first) for first in (0, 1)]
    lengths = [_length(people, limbs - first) for first in (0, 1)]
    if crossing[0] != crossing[1]:
        first = int(crossing[1] < crossing[0])
    else:
        first = 0 if lengths[0] < _SHORTER * lengths[1] else 1
    rank_zero_info(
        f"{people.file}: its category's skeleton has neither a 0 nor a {len(joints)}: its limbs are taken to count "
        f"from {first}; set data.limbs_from to {1 - first} if that is wrong"
    )
    return first


def _num_crossing(joints: Sequence[str], limbs: np.ndarray) -> int:
    """How many limbs join a left joint to a right one of another name, as no body does."""
    ends = [[side_and_rest(joints[index]) for index in limb] for limb in limbs.tolist()]
    return sum({a[0], b[0]} == {"left", "right"} and a[1] != b[1] for a, b in ends)


def _length(people: PosePeople, limbs: np.ndarray) -> float:
    """Mean length of the limbs by the people's own size; infinite where none is seen."""
    a, b = limbs.T
    seen = people.annotated[:, a] & people.annotated[:, b]
    lengths = np.linalg.norm(people.joints[:, a] - people.joints[:, b], axis=2) / people.side_px[:, None]
    return float(lengths[seen].mean()) if seen.any() else np.inf


def _tell_of_sides(file: Path, joints: Sequence[str], pairs: Sequence[tuple[int, int]], named: bool) -> None:
    """What a mirror image does to the joints is wrong in silence where it is wrong."""
    sided = {index for pair in pairs for index in pair}
    alone = [name for index, name in enumerate(joints) if side_and_rest(name)[0] and index not in sided]
    if alone:
        rank_zero_warn(
            f"{file}: without a partner on the other side: {', '.join(alone[:4])}{' …' * (len(alone) > 4)}; in a "
            "mirror image these stay what they are; set data.flip_pairs, or data.augmentation.flip to 0"
        )
    elif not pairs and (not named or len({"".join(c for c in name if not c.isdigit()) for name in joints}) == 1):
        rank_zero_warn(
            f"{file}: its {len(joints)} joints have no names that tell left from right: in a mirror image each stays "
            "what it is; set data.flip_pairs ([] if that is right), or data.augmentation.flip to 0 and model.flip_test "
            "to false"
        )
    elif not pairs:
        rank_zero_info(
            f"{file}: none of its {len(joints)} joints is left or right by its name, as {joints[0]}: a mirror "
            "image swaps none; set data.flip_pairs if it should"
        )


def _chosen_pairs(
    file: Path, joints: Sequence[str], flip_pairs: Sequence[Sequence[int | str]]
) -> tuple[tuple[int, int], ...]:
    chosen: list[tuple[int, int]] = []
    for pair in flip_pairs:
        if len(pair) != 2:
            raise ValueError(f"data.flip_pairs has {list(pair)}: give pairs, the left joint and the right one")
        found = [joint_index(file, joints, joint, "data.flip_pairs") for joint in pair]
        chosen.append((found[0], found[1]))
    every = [index for pair in chosen for index in pair]
    if twice := [joints[index] for index in every if every.count(index) > 1]:
        raise ValueError(f"data.flip_pairs names {twice[0]} twice: each joint has one other side")
    return tuple(chosen)


def joint_index(file: Path, joints: Sequence[str], joint: str | int, option: str) -> int:
    """Index of a joint that an option names.

    Args:
        file: that the joints are of, for the message.
        joints: their names.
        joint: its name, or its index from 0.
        option: as it is typed.

    Raises:
        ValueError: there is no such joint.
    """
    index = joints.index(joint) if joint in joints else joint
    if not isinstance(index, int) or not 0 <= index < len(joints):
        known = ", ".join(joints) if len(joints) <= 40 else f"{', '.join(joints[:3])} … {joints[-1]}"
        raise ValueError(
            f"{option} names the joint {joint!r}, which {file} does not have: give names or indices from 0 to "
            f"{len(joints) - 1}, of {known}"
        )
    return index


def known_sigmas(joints: Sequence[str]) -> tuple[float, ...]:
    """COCO's own sigmas if these are the names of its 17 joints, in its order; else none."""
    is_coco = [side_and_rest(name) for name in joints] == [side_and_rest(name) for name in COCO_JOINTS]
    return COCO_SIGMAS if is_coco else ()


def _sigmas(file: Path, joints: Sequence[str], sigmas: Sequence[float] | None) -> tuple[float, ...]:
    if sigmas is None:
        return known_sigmas(joints)
    if len(sigmas) != len(joints):
        raise ValueError(
            f"data.sigmas has {len(sigmas)} numbers and {file} has {len(joints)} joints: give one for each"
        )
    if not all(0 < sigma < np.inf for sigma in sigmas):
        raise ValueError(f"data.sigmas is {list(sigmas)}: give numbers above 0")
    return tuple(map(float, sigmas))
