"""Drawing rounded, shaded shapes with OpenCV, to a fraction of a pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np

Colour = tuple[float, float, float]
"""Red, green and blue, 0..255."""

SHIFT = 4
"""OpenCV takes whole numbers; these are its pixels' fractions, in bits."""
ONE_PX = 1 << SHIFT
CORNERS = 12
"""Of the polygon that stands for a disk."""
DISK = np.stack([f(np.arange(CORNERS) * (2 * np.pi / CORNERS)) for f in (np.cos, np.sin)], 1)


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (below 1) or lighter (above 1) tone of a colour."""
    red, green, blue = colour
    return min(255.0, red * factor), min(255.0, green * factor), min(255.0, blue * factor)


def blend(one: Colour, other: Colour, share: float) -> Colour:
    """A colour between one (share 0) and the other (share 1)."""
    return tuple(a + share * (b - a) for a, b in zip(one, other, strict=True))


class Brush:
    """Draws on a picture, in place.

    Strokes are noted down first and painted, in order, by :meth:`flush`: it takes much less time to find the
    outlines of fifty shapes at once than fifty times that of one.

    Args:
        canvas: ``(H, W, 3)`` uint8.
        light: x and y in the picture's plane of where the light comes from; at most one long.
    """

    def __init__(self, canvas: np.ndarray, light: tuple[float, float] = (0.0, -0.8)) -> None:
        self.canvas, self.light = canvas, np.array(light)
        # None holds the place of a solid
        self._strokes: list[Callable[[], object] | None] = []
        self._centers: list[np.ndarray] = []
        self._radii: list[float] = []
        self._solids: list[tuple[int, Colour]] = []

    def fill(self, outline: np.ndarray, colour: Colour) -> None:
        """Fill a polygon ``(N, 2)``, px."""
        fill = cv2.fillPoly
        self._strokes.append(partial(fill, self.canvas, [_fixed(outline)], colour, cv2.LINE_AA, SHIFT))

    def line(self, points: np.ndarray, colour: Colour, width: float = 1, closed: bool = False) -> None:
        """Draw a line through points ``(N, 2)``, px; the width is rounded to whole pixels."""
        width = max(1, round(width))
        draw = cv2.polylines
        self._strokes.append(partial(draw, self.canvas, [_fixed(points)], closed, colour, width, cv2.LINE_AA, SHIFT))

    def dot(self, center: Sequence[float], radius: float, colour: Colour) -> None:
        """Fill a circle around x and y, px."""
        middle = round(center[0] * ONE_PX), round(center[1] * ONE_PX)
        radius = round(radius * ONE_PX)
        self._strokes.append(partial(cv2.circle, self.canvas, middle, radius, colour, cv2.FILLED, cv2.LINE_AA, SHIFT))

    def solid(self, centers: Sequence[np.ndarray], radii: Sequence[float], colour: Colour) -> None:
        """Draw the convex hull of disks as a round body: dark at its rim, bright where the light falls on it.

        Args:
            centers: x and y of each disk, px.
            radii: of the disks, px.
            colour: of the body.
        """
        self._strokes.append(None)
        self._centers.extend(centers)
        self._radii.extend(radii)
        self._solids.append((len(radii), colour))

    def flush(self) -> None:
        """Paint what has been noted down."""
        solids = iter(self._outlines())
        for stroke in self._strokes:
            if stroke is not None:
                stroke()
                continue
            outlines, colour = next(solids)
            for outline, factor in zip(outlines, (0.7, 0.88, 1.04), strict=True):
                cv2.fillConvexPoly(self.canvas, outline, shade(colour, factor), cv2.LINE_AA, SHIFT)
        for notes in (self._strokes, self._centers, self._radii, self._solids):
            notes.clear()

    def _outlines(self) -> list[tuple[list[np.ndarray], Colour]]:
        """Rim, body and lit part of each solid, with its colour."""
        if not self._solids:
            return []
        centers, radii = np.array(self._centers), np.array(self._radii)
        corners = (centers[:, None] + radii[:, None, None] * DISK).astype(np.float32)
        hulls, start = [], 0
        for num, _ in self._solids:
            hull = cv2.convexHull(corners[start : start + num].reshape(-1, 2), returnPoints=False)[:, 0]
            hulls.append(hull + start * CORNERS)
            start += num
        disk, corner = np.divmod(np.concatenate(hulls), CORNERS)
        wide, spokes = radii[disk, None], DISK[corner]
        body = centers[disk] + wide * spokes
        # all three with the corners of the body, so that only one hull need be found
        parts = [_fixed(body + 0.6 * spokes), _fixed(body), _fixed(body + wide * (0.25 * self.light - 0.33 * spokes))]
        outlines, start = [], 0
        for hull, (_, colour) in zip(hulls, self._solids, strict=True):
            end = start + len(hull)
            outlines.append(([part[start:end] for part in parts], colour))
            start = end
        return outlines


def _fixed(points: np.ndarray) -> np.ndarray:
    """Pixels to OpenCV's fixed point numbers."""
    return (points * ONE_PX + 0.5).astype(np.int32)
