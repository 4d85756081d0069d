"""Random poses of a human figure: joint angles within what a body can do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnnlight.data.keypoints.figures.dice import Dice

LIMBS = {"upper arm": "torso", "forearm": "upper arm", "thigh": "pelvis", "shank": "thigh", "foot": "shank"}
PARENTS = {"torso": "pelvis", "head": "torso"} | {
    f"{side} {part}": parent if parent in ("torso", "pelvis") else f"{side} {parent}"
    for side in ("right", "left")
    for part, parent in LIMBS.items()
}
"""Rigid parts, and what each hangs from and turns against."""
PARTS = tuple(PARENTS)

# Smallest and largest angles, degrees. Arm: raised forward, raised sideways, turned outward about its own axis,
# elbow bent. An arm that hangs with its elbow bent at a right angle points forward, and with the arm turned
# inward by 90 degrees across the belly.
ARMS = {
    "hanging": ((-20, 20), (3, 18), (-45, 10), (3, 35)),
    "swung forward": ((15, 50), (0, 14), (-30, 10), (10, 60)),
    "swung back": ((-50, -15), (2, 16), (-20, 10), (5, 60)),
    "running forward": ((20, 60), (0, 15), (-30, 0), (70, 115)),
    "running back": ((-60, -25), (5, 20), (-20, 10), (60, 105)),
    "on the hip": ((-35, -10), (35, 60), (-95, -65), (75, 105)),
    "crossed": ((25, 50), (-8, 8), (-85, -60), (80, 110)),
    "hands together": ((10, 45), (0, 15), (-55, -35), (40, 90)),
    "behind the back": ((-45, -25), (5, 20), (-120, -90), (40, 80)),
    "up": ((-10, 20), (135, 175), (-40, 60), (0, 40)),
    "waving": ((-10, 30), (70, 120), (50, 100), (50, 120)),
    "sideways": ((-15, 20), (60, 110), (-60, 60), (0, 35)),
    "pointing": ((60, 110), (-15, 45), (-30, 30), (0, 25)),
    "hand to the head": ((20, 60), (35, 80), (-10, 50), (115, 140)),
    "overhead grip": ((100, 165), (0, 40), (-40, 30), (20, 100)),
    "carrying": ((-5, 30), (2, 14), (-25, 5), (65, 105)),
    "free": ((-40, 130), (0, 110), (-80, 80), (0, 130)),
}
ARM_PAIRS = (
    (10, "hanging", "hanging"),
    (6, "swung forward", "swung back"),
    (5, "running forward", "running back"),
    (4, "hanging", "on the hip"),
    (3, "on the hip", "on the hip"),
    (2, "crossed", "crossed"),
    (3, "hands together", "hands together"),
    (1, "behind the back", "behind the back"),
    (4, "up", "up"),
    (3, "waving", "hanging"),
    (2, "waving", "on the hip"),
    (5, "sideways", "sideways"),
    (3, "pointing", "hanging"),
    (3, "hand to the head", "hanging"),
    (1, "hand to the head", "hand to the head"),
    (3, "overhead grip", "overhead grip"),
    (3, "carrying", "carrying"),
    (2, "up", "hanging"),
    (3, "free", "free"),
)
"""Weight, one arm, the other."""

# Leg: raised forward, spread sideways, turned outward about its own axis, knee bent.
LEGS = {
    "standing": ((-6, 8), (0, 8), (0, 18), (0, 8)),
    "relaxed": ((5, 25), (3, 14), (5, 30), (8, 40)),
    "step forward": ((14, 34), (-2, 5), (0, 12), (0, 18)),
    "step back": ((-25, -8), (-2, 5), (0, 12), (5, 35)),
    "running forward": ((35, 80), (-3, 8), (0, 12), (40, 110)),
    "running back": ((-30, 0), (-3, 6), (0, 12), (20, 100)),
    "seated": ((65, 98), (2, 22), (-5, 15), (60, 105)),
    "crouching": ((80, 125), (5, 35), (0, 30), (95, 140)),
    "half crouching": ((30, 65), (5, 25), (0, 25), (45, 90)),
    "kneeling": ((-15, 20), (0, 15), (0, 10), (85, 130)),
    "lunging": ((60, 95), (0, 20), (0, 15), (60, 100)),
    "stretched back": ((-30, -10), (0, 12), (0, 15), (0, 20)),
    "spread": ((-8, 12), (14, 42), (0, 30), (0, 20)),
    "kicking": ((50, 105), (0, 30), (0, 15), (0, 40)),
    "drawn up": ((60, 110), (0, 35), (0, 30), (70, 135)),
    "free": ((-25, 100), (-5, 50), (-10, 35), (0, 120)),
}
LEG_PAIRS = (
    (9, "standing", "standing"),
    (5, "standing", "relaxed"),
    (6, "step forward", "step back"),
    (5, "running forward", "running back"),
    (4, "seated", "seated"),
    (1, "crouching", "crouching"),
    (2, "half crouching", "half crouching"),
    (1, "crouching", "kneeling"),
    (3, "lunging", "stretched back"),
    (6, "spread", "spread"),
    (2, "kicking", "standing"),
    (2, "drawn up", "standing"),
    (2, "free", "free"),
)
"""Weight, one leg, the other."""


@dataclass(frozen=True)
class Pose:
    """How a figure holds itself, and from where it is seen.

    Attributes:
        angles: ``(12, 3)``, for each of :data:`PARTS` the rotations about x (to the figure's left), y (up) and
            z (forward), degrees, applied in the order y, z, x: about its own axis first.
        view: pitch, yaw and roll of the whole figure, degrees. Yaw 0 faces the viewer, 90 faces the right
            border of the picture; pitch above 0 is seen from above; roll turns it in the picture's plane.
    """

    angles: np.ndarray
    view: tuple[float, float, float]


def draw_pose(dice: Dice) -> Pose:
    """A random pose in a random view."""
    angles = np.zeros((len(PARTS), 3))
    angles[0] = _torso(dice)
    # who bends far looks ahead, not at the own knees
    angles[1] = dice.near(5 - angles[0, 0] / 3, 22), dice.near(0, 50), dice.near(0, 18)
    for first, tables, pairs, joint in ((2, ARMS, ARM_PAIRS, "elbow"), (4, LEGS, LEG_PAIRS, "knee")):
        names = list(_weighted(dice, pairs))
        if dice.chance(0.5):
            names.reverse()
        # no joint of one side follows from the other's, except by the kind of pose
        for offset, side, name in zip((0, 5), (-1, 1), names, strict=True):
            forward, sideways, outward, bend = (dice.uniform(low, high) for low, high in tables[name])
            angles[first + offset] = -forward, side * outward, side * sideways
            # an elbow bends forward, a knee backward
            angles[first + offset + 1, 0] = -bend if joint == "elbow" else bend
            if joint == "knee":
                angles[first + offset + 2] = dice.near(5, 20), side * dice.uniform(0, 15), 0
    return Pose(angles, _view(dice))


def _torso(dice: Dice) -> tuple[float, float, float]:
    kind = dice.share()
    if kind < 0.8:
        bend = dice.near(4, 14)
    elif kind < 0.95:
        bend = dice.uniform(10, 40)
    else:
        bend = dice.uniform(40, 95)
    return bend, dice.near(0, 25), dice.near(0, 22)


def _view(dice: Dice) -> tuple[float, float, float]:
    kind = dice.share()
    if kind < 0.87:
        yaw = dice.near(0, 45)
    elif kind < 0.93:
        yaw = dice.choice((-90, 90)) + dice.near(0, 35)
    else:
        yaw = 180 + dice.near(0, 60)
    kind = dice.share()
    if kind < 0.96:
        roll = dice.near(0, 14)
    elif kind < 0.985:
        roll = dice.uniform(-110, 110)
    else:
        roll = dice.near(180, 40)
    return dice.near(8, 14), yaw, roll


def _weighted(dice: Dice, pairs: tuple[tuple[int, str, str], ...]) -> tuple[str, str]:
    left = dice.uniform(0, sum(weight for weight, *_ in pairs))
    index = 0
    while left >= pairs[index][0]:
        left -= pairs[index][0]
        index += 1
    return pairs[index][1:]
