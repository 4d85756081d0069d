"""A human figure in space: body, pose and view become points and parts by forward kinematics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bnnlight.data.keypoints.figures.dice import Dice
from bnnlight.data.keypoints.figures.poses import PARENTS, PARTS, Pose
from bnnlight.imaging.skeletons import MPII

POINTS = (*MPII.joints, *(f"{side} {end}" for end in ("hand", "heel", "toe") for side in ("right", "left")))
"""Names of a figure's points: MPII's joints first, then the ends of hands and feet."""
INDEX = {name: index for index, name in enumerate(POINTS)}
NUM_JOINTS = len(MPII.joints)


@dataclass(frozen=True)
class Body:
    """Lengths, as shares of a grown-up's height of one; left and right are equal.

    Attributes:
        head: upper neck (level with the chin) to the top of the head.
        head_width, head_depth: from ear to ear, from face to back.
        neck: thorax to upper neck.
        torso: pelvis to thorax.
        shoulder, hip: from the middle of the body to the joint.
        upper_arm, forearm, hand, thigh, shank: from joint to joint, or to the end.
        foot: ankle to the tip of the toes, along the ground.
        girth: factor on the width of limbs and torso.
    """

    head: float
    head_width: float
    head_depth: float
    neck: float
    torso: float
    shoulder: float
    hip: float
    upper_arm: float
    forearm: float
    hand: float
    thigh: float
    shank: float
    foot: float
    girth: float

    @staticmethod
    def draw(dice: Dice) -> Body:
        """A random body, from slight to stout and from child to grown-up."""
        childish = dice.uniform(0.5, 1) if dice.chance(0.15) else 0.0
        arm, leg = dice.near(1, 0.08), dice.near(1, 0.08)
        head = dice.near(0.138, 0.012) * (1 + 0.3 * childish)
        shoulder = dice.near(0.1, 0.016) * (1 - 0.08 * childish)
        return Body(
            head=head,
            head_width=head * dice.near(0.7, 0.06),
            head_depth=head * dice.near(0.82, 0.06),
            neck=dice.near(0.055, 0.012),
            torso=dice.near(0.285, 0.02) * (1 - 0.06 * childish),
            shoulder=shoulder,
            hip=shoulder * dice.near(0.6, 0.08),
            upper_arm=dice.near(0.17, 0.008) * arm,
            forearm=dice.near(0.15, 0.008) * arm,
            hand=dice.near(0.075, 0.006),
            thigh=dice.near(0.245, 0.012) * leg * (1 - 0.12 * childish),
            shank=dice.near(0.245, 0.012) * leg * (1 - 0.12 * childish),
            foot=dice.near(0.115, 0.012),
            girth=dice.near(1.02, 0.2),
        )


@dataclass(frozen=True)
class Figure:
    """A figure in a picture, before it is drawn. Coordinates: x to the right and y down as in the picture,
    z toward the viewer, all in pixels.

    Attributes:
        body: lengths in heights.
        height_px: of a grown-up who stands.
        points: ``(22, 3)``, :data:`POINTS`.
        frames: for "pelvis" and each of ``poses.PARTS`` a ``(3, 3)`` matrix, whose columns are the part's own
            directions left, up and forward.
    """

    body: Body
    height_px: float
    points: np.ndarray
    frames: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.points[INDEX[name]]

    @property
    def joints(self) -> np.ndarray:
        """``(16, 2)``, x and y in the order of :data:`skeletons.MPII`."""
        return self.points[:NUM_JOINTS, :2]

    @cached_property
    def head_axes(self) -> np.ndarray:
        """The half axes of the head's ellipsoid, as the columns of a ``(3, 3)`` matrix, px."""
        body = self.body
        return self.frames["head"] * (np.array([body.head_width, body.head, body.head_depth]) * self.height_px / 2)

    @property
    def head_center(self) -> np.ndarray:
        """``(3,)``."""
        return (self["upper neck"] + self["head top"]) / 2

    @cached_property
    def head_box(self) -> np.ndarray:
        """``(2, 2)``: the top left and the bottom right corner of the upright box round the head, px."""
        # a point of the ellipsoid is axes @ (unit vector), which reaches furthest along x by the norm of row x
        reach = np.sqrt((self.head_axes[:2] ** 2).sum(1))
        center = self.head_center[:2]
        return np.stack((center - reach, center + reach))

    @cached_property
    def extent(self) -> np.ndarray:
        """``(2, 2)``: the top left and the bottom right corner of the upright box round all points, px."""
        flat = np.concatenate((self.points[:, :2], self.head_box))
        return np.stack((flat.min(0), flat.max(0)))

    def moved(self, scale: float, offset: np.ndarray) -> Figure:
        """The figure scaled about the origin, then moved by the offset ``(2,)``, px."""
        points = self.points * scale
        points[:, :2] += offset
        return Figure(self.body, self.height_px * scale, points, self.frames)


def rotations(degrees: np.ndarray) -> np.ndarray:
    """Rotations about y, then z, then x.

    Args:
        degrees: ``(N, 3)``, about x, y and z.

    Returns:
        ``(N, 3, 3)``.
    """
    radians = np.deg2rad(degrees).T
    (cx, cy, cz), (sx, sy, sz) = np.cos(radians), np.sin(radians)
    return np.stack(
        (
            *(cz * cy, -sz, cz * sy),
            *(cx * sz * cy + sx * sy, cx * cz, cx * sz * sy - sx * cy),
            *(sx * sz * cy - cx * sy, sx * cz, sx * sz * sy + cx * cy),
        ),
        1,
    ).reshape(-1, 3, 3)


def place(body: Body, pose: Pose) -> Figure:
    """Forward kinematics.

    Returns:
        The figure with its pelvis at the origin and a height of one pixel.
    """
    pitch, yaw, roll = pose.view
    turns = rotations(np.concatenate((pose.angles, [[pitch, yaw, 0], [0, 0, roll]])))
    # the picture's y points down
    pelvis_frame = np.array([[1.0], [-1.0], [1.0]]) * (turns[-1] @ turns[-2])
    frames = {"pelvis": pelvis_frame}
    for name, turn in zip(PARTS, turns[:-2], strict=True):
        frames[name] = frames[PARENTS[name]] @ turn

    at = {"pelvis": np.zeros(3)}
    torso, head = frames["torso"], frames["head"]
    at["thorax"] = body.torso * torso[:, 1]
    at["upper neck"] = at["thorax"] + body.neck * (torso @ np.array([0, 0.85, 0.3]) + head[:, 1]) / 2
    at["head top"] = at["upper neck"] + body.head * head[:, 1]
    for side, sign in (("right", -1), ("left", 1)):
        arm, forearm = frames[f"{side} upper arm"], frames[f"{side} forearm"]
        # a raised arm lifts the shoulder
        lift = 0.02 * (1 - arm[:, 1] @ torso[:, 1])
        at[f"{side} shoulder"] = at["thorax"] + torso @ np.array([sign * body.shoulder, lift - 0.012, 0])
        at[f"{side} elbow"] = at[f"{side} shoulder"] - body.upper_arm * arm[:, 1]
        at[f"{side} wrist"] = at[f"{side} elbow"] - body.forearm * forearm[:, 1]
        at[f"{side} hand"] = at[f"{side} wrist"] - body.hand * forearm[:, 1]
        thigh, shank, foot = (frames[f"{side} {part}"] for part in ("thigh", "shank", "foot"))
        at[f"{side} hip"] = pelvis_frame @ np.array([sign * body.hip, -0.01, 0])
        at[f"{side} knee"] = at[f"{side} hip"] - body.thigh * thigh[:, 1]
        at[f"{side} ankle"] = at[f"{side} knee"] - body.shank * shank[:, 1]
        at[f"{side} heel"] = at[f"{side} ankle"] + foot @ np.array([0, -0.032, -0.025])
        at[f"{side} toe"] = at[f"{side} ankle"] + foot @ np.array([0, -0.036, body.foot])
    return Figure(body, 1.0, np.stack([at[name] for name in POINTS]), frames)
