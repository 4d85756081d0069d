"""Draws skeletons into pictures: joints and limbs coloured by side, wrong joints marked."""

from __future__ import annotations

import cv2
import numpy as np

from bnnlight.imaging.skeletons import Skeleton

LEFT, RIGHT, MIDDLE = (64, 160, 255), (255, 150, 30), (120, 230, 90)
"""Colours (RGB) of the person's left and right side and of the body's axis."""
WRONG = (255, 30, 60)
OUTLINE = (20, 20, 20)
_FRACTION_BITS = 4  # OpenCV takes sub-pixel places as integers


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
    usable = shown & np.isfinite(joints).all(1)
    places = [_place(joint) if ok else None for joint, ok in zip(joints, usable, strict=True)]
    for width, outline in ((thickness + 2, True), (thickness, False)):
        for a, b in skeleton.limbs:
            if places[a] and places[b]:
                color = OUTLINE if outline else _color(skeleton, a, b)
                cv2.line(canvas, places[a], places[b], color, width, cv2.LINE_AA, _FRACTION_BITS)
    for index, place in enumerate(places):
        if place:
            _dot(canvas, place, thickness + 2, OUTLINE)
            _dot(canvas, place, thickness + 1, _color(skeleton, index, index))
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
