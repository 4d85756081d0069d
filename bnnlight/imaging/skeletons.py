"""Skeletons: names of a pose data set's joints, pairs of left and right, and the limbs between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Skeleton:
    """The joints of a data set.

    Attributes:
        joints: names, in the order of the annotations. Those of a left and a right joint begin with "left "
            and "right ", unless ``flip_pairs`` says which they are.
        limbs: pairs of joint indices between which a line is drawn.
        torso: indices of left shoulder and right hip; their distance is PCK's reference length. Empty where there
            are no such joints.
        excluded: indices of joints that the data set's metric leaves out of its means.
        sigmas: one a joint, how much annotators differ about its place: the constants of OKS. Empty where they are
            not known.
        flip_pairs: indices of a left and a right joint, pair by pair; None: as the names say.
    """

    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    torso: tuple[int, int] | tuple[()]
    excluded: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] | None = None

    @property
    def sides(self) -> tuple[str, ...]:
        """For each joint "left", "right", or "" where it has no side."""
        if self.flip_pairs is None:
            firsts = (name.split(" ")[0] for name in self.joints)
            return tuple(first if first in ("left", "right") else "" for first in firsts)
        side = {left: "left" for left, _ in self.flip_pairs} | {right: "right" for _, right in self.flip_pairs}
        return tuple(side.get(index, "") for index in range(len(self.joints)))

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each joint the index of the joint that a mirror image shows in its place."""
        if self.flip_pairs is not None:
            other = dict(self.flip_pairs) | {right: left for left, right in self.flip_pairs}
            return tuple(other.get(index, index) for index in range(len(self.joints)))
        swap = {"left": "right", "right": "left"}
        names = (name.split(" ", 1) for name in self.joints)
        return tuple(self.joints.index(" ".join([swap.get(side, side), *rest])) for side, *rest in names)

    def records(self, joints: Sequence, confidences: Sequence) -> list[dict[str, Any]]:
        """For each picture ``{"joints": [{"joint": …, "x": …, "y": …, "confidence": …}, …]}``.

        Args:
            joints: ``(N, J, 2)`` as lists, x and y in px.
            confidences: ``(N, J)`` as lists.
        """
        people = (zip(self.joints, *row, strict=True) for row in zip(joints, confidences, strict=True))
        return [
            {"joints": [{"joint": name, "x": x, "y": y, "confidence": sure} for name, (x, y), sure in person]}
            for person in people
        ]


MPII = Skeleton(
    joints=(
        *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
        *("pelvis", "thorax", "upper neck", "head top"),
        *("right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist"),
    ),
    limbs=(
        *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5)),
        *((6, 7), (7, 8), (8, 9)),
        *((10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15)),
    ),
    torso=(13, 2),
    excluded=(6, 7),
)
"""Joints of MPII Human Pose (Andriluka et al., CVPR 2014); its PCKh leaves out pelvis and thorax."""

LSP = Skeleton(
    joints=(
        *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
        *("right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist"),
        *("neck", "head top"),
    ),
    limbs=(
        *((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (2, 8), (3, 9)),
        *((6, 7), (7, 8), (8, 12), (12, 9), (9, 10), (10, 11), (12, 13)),
    ),
    torso=(9, 2),
)
"""Joints of Leeds Sports Pose (Johnson & Everingham, BMVC 2010) and its extended training set."""
