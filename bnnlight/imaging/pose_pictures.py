"""Draws skeletons into pictures: coloured by side or by person, weak joints faintly, wrong ones marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from bnnlight.imaging.boxes import SURE
from bnnlight.imaging.skeletons import Skeleton

LEFT, RIGHT, MIDDLE = (64, 160, 255), (255, 150, 30), (120, 230, 90)
"""Colours (RGB) of the person's left and right side and of the body's axis."""
PEOPLE = (
    *((250, 220, 50), (60, 200, 220), (240, 90, 200), (150, 230, 70), (250, 110, 90), (150, 130, 250)),
    *((50, 190, 130), (245, 165, 200), (200, 160, 90), (120, 180, 250)),
)
"""Colours (RGB) of the limbs of people that are in one picture."""
LEVELS = ((0.3, 1.0), (SURE, 0.65), (0.1, 0.35), (0.0, 0.15))
"""Least confidence of a joint → how opaque it is drawn, the surest first; below the second it is hollow."""
WRONG = (255, 30, 60)
OUTLINE = (20, 20, 20)
_FRACTION_BITS = 4  # OpenCV takes sub-pixel places as integers


class DrawnPerson(NamedTuple):
    """Somebody to be drawn.

    Attributes:
        joints: ``(J, 2)``, x and y in px.
        confidences: ``(J,)``, in [0, 1].
        shown: ``(J,)`` bool; other joints and their limbs are left out.
        side_px: about how large the person is, by which lines are as wide; None takes the picture's longer side.
    """

    joints: np.ndarray
    confidences: np.ndarray
    shown: np.ndarray
    side_px: float | None = None


def draw_people(image: np.ndarray, people: Sequence[DrawnPerson], skeleton: Skeleton) -> np.ndarray:
    """A copy of a picture with skeletons on it, the weaker a joint the fainter.

    One person is drawn in the colours of the sides. Of several each has limbs of its own colour, and dots in those of
    the sides.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        people: who; later ones lie on top.
        skeleton: limbs and sides.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    canvas = np.ascontiguousarray(image).copy()
    whole = max(1, round(max(canvas.shape) / 160))
    several = len(people) > 1
    # what is faint lies below what is sure, whoever's it is
    for index, (least, opacity) in reversed([*enumerate(LEVELS)]):
        most = LEVELS[index - 1][0] if index else np.inf
        layer = canvas if opacity == 1 else canvas.copy()
        for number, person in enumerate(people):
            parts = _parts(person, skeleton, least, most)
            width = whole if person.side_px is None else int(np.clip(round(person.side_px / 80), 1, whole))
            color = PEOPLE[number % len(PEOPLE)] if several else None
            _draw_parts(layer, parts, skeleton, width, color, hollow=least < SURE)
        if layer is not canvas:
            canvas = cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0)
    return canvas


def draw_pose(
    image: np.ndarray, joints: np.ndarray, shown: np.ndarray, skeleton: Skeleton, wrong: np.ndarray | None = None
) -> np.ndarray:
    """A copy of a picture with a skeleton on it.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        joints: ``(J, 2)``, x and y in px.
        shown: ``(J,)`` bool; other joints and their limbs are left out.
        skeleton: limbs and sides.
        wrong: ``(J,)`` bool, joints to mark by a red ring and cross.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    canvas = np.ascontiguousarray(image).copy()
    thickness = max(1, round(max(canvas.shape) / 160))
    parts = _parts(DrawnPerson(joints, np.ones(len(joints)), shown), skeleton, 0, np.inf)
    _draw_parts(canvas, parts, skeleton, thickness)
    usable = shown & np.isfinite(joints).all(1)
    for index in np.flatnonzero(usable & wrong) if wrong is not None else ():
        _cross(canvas, joints[index], 2 * thickness + 3, max(1, thickness // 2))
    return canvas


def compare_poses(
    image: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    annotated: np.ndarray,
    wrong: np.ndarray,
    skeleton: Skeleton,
    enlarge: int = 1,
) -> np.ndarray:
    """Truth on the left, prediction on the right with wrong joints marked.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        truth, predicted: ``(J, 2)``, px.
        annotated, wrong: ``(J,)`` bool. Predictions of joints without truth are not shown.
        skeleton: limbs and sides.
        enlarge: factor on the picture's size.

    Returns:
        ``(enlarge·H, 2·enlarge·W, 3)`` uint8.
    """
    large = cv2.resize(image, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)

    def grow(joints: np.ndarray) -> np.ndarray:
        return (joints + 0.5) * enlarge - 0.5

    left = draw_pose(large, grow(truth), annotated, skeleton)
    right = draw_pose(large, grow(predicted), annotated, skeleton, wrong)
    return np.hstack((left, right))


class _Parts(NamedTuple):
    """Places of joints, None where one is not drawn; and which limbs and dots to draw."""

    places: list[tuple[int, int] | None]
    limbs: list[tuple[int, int]]
    dots: list[int]


def _parts(person: DrawnPerson, skeleton: Skeleton, least: float, most: float) -> _Parts:
    """What is drawn of a person in one strength: a limb is as sure as the less sure of its ends."""
    usable = person.shown & np.isfinite(person.joints).all(1)
    places = [_place(joint) if ok else None for joint, ok in zip(person.joints, usable, strict=True)]
    sure = person.confidences
    limbs = [(a, b) for a, b in skeleton.limbs if places[a] and places[b] and least <= min(sure[a], sure[b]) < most]
    return _Parts(places, limbs, [i for i, place in enumerate(places) if place and least <= sure[i] < most])


def _draw_parts(
    canvas: np.ndarray,
    parts: _Parts,
    skeleton: Skeleton,
    thickness: int,
    limb_color: tuple[int, int, int] | None = None,
    hollow: bool = False,
) -> None:
    """Draws into the canvas, limbs in the colours of the sides if they have none; hollow are rings and thin limbs."""
    for width, outline in ((1, False),) if hollow else ((thickness + 2, True), (thickness, False)):
        for a, b in parts.limbs:
            color = OUTLINE if outline else limb_color or _color(skeleton, a, b)
            cv2.line(canvas, parts.places[a], parts.places[b], color, width, cv2.LINE_AA, _FRACTION_BITS)
    for index in parts.dots:
        place, color = parts.places[index], _color(skeleton, index, index)
        if hollow:
            cv2.circle(canvas, place, (thickness + 1) << _FRACTION_BITS, color, 1, cv2.LINE_AA, _FRACTION_BITS)
        else:
            _dot(canvas, place, thickness + 2, OUTLINE)
            _dot(canvas, place, thickness + 1, color)


def _place(joint: np.ndarray) -> tuple[int, int]:
    # beyond some pictures' widths OpenCV's fixed-point places would overflow
    x, y = (np.clip(joint, -1e4, 1e4) * (1 << _FRACTION_BITS)).round().astype(int).tolist()
    return x, y


def _dot(canvas: np.ndarray, place: tuple[int, int], radius: int, color: tuple[int, int, int]) -> None:
    cv2.circle(canvas, place, radius << _FRACTION_BITS, color, -1, cv2.LINE_AA, _FRACTION_BITS)


def _cross(canvas: np.ndarray, joint: np.ndarray, radius: float, thickness: int) -> None:
    cv2.circle(canvas, _place(joint), round(radius) << _FRACTION_BITS, WRONG, thickness, cv2.LINE_AA, _FRACTION_BITS)
    for sign in (-1, 1):
        step = np.array([radius, sign * radius]) * 0.7
        cv2.line(canvas, _place(joint - step), _place(joint + step), WRONG, thickness, cv2.LINE_AA, _FRACTION_BITS)


def _color(skeleton: Skeleton, a: int, b: int) -> tuple[int, int, int]:
    sides = {skeleton.sides[i] for i in (a, b)} - {""}
    # from hip to hip there is no side
    return {frozenset({"left"}): LEFT, frozenset({"right"}): RIGHT}.get(frozenset(sides), MIDDLE)
