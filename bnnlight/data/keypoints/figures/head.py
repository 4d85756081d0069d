"""A figure's head: face, hair and hat, painted on an ellipsoid."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from bnnlight.data.keypoints.figures.body import Figure
from bnnlight.data.keypoints.figures.brush import Brush, Colour, shade

if TYPE_CHECKING:
    from bnnlight.data.keypoints.figures.look import Look

Place = tuple[float, float, float]
"""On or near the head's surface, seen as a unit sphere: x to the figure's left, y up, z forward."""

CIRCLE = np.stack([f(np.arange(20) * (2 * np.pi / 20)) for f in (np.cos, np.sin)], 1)
EYES = ((-0.4, 0.03, 0.9), (0.4, 0.03, 0.9))
BROWS = np.array([[[x + d, 0.28, 0.9] for d in (-0.2, 0.2)] for x in (-0.4, 0.4)])
NOSE = np.array([[0, 0.05, 0.98], [-0.15, -0.3, 0.95], [0, -0.27, 1.22], [0.15, -0.3, 0.95]])
MOUTH = np.array([[-0.28, -0.55, 0.8], [0.28, -0.55, 0.8]])
EARS = ((-1.0, -0.1, -0.05), (1.0, -0.1, -0.05))
VISOR = np.array([[x, y, z] for x, y, z in ((-0.75, 0.4, 0.6), (-0.5, 0.3, 1.5), (0.5, 0.3, 1.5), (0.75, 0.4, 0.6))])


class HeadPainter:
    """Paints one head.

    Attributes:
        hair_depth: z of the hair that hangs down behind the head, px.
    """

    def __init__(self, brush: Brush, figure: Figure, look: Look) -> None:
        self.brush, self.figure, self.look = brush, figure, look
        self.axes, self.center = figure.head_axes, figure.head_center
        self.size = figure.height_px * figure.body.head_width
        # the line of sight on the sphere, toward the viewer: what the axes map to a multiple of (0, 0, 1)
        sight = self.axes[2] / (self.axes**2).sum(0)
        self.sight = sight / np.sqrt(sight @ sight)
        self.horizon = _horizon(*self.sight.tolist())
        self.hair_depth = float(self.center[2] + self.axes[2] @ (0, -0.6, -0.9))

    def _at(self, places: Place | np.ndarray) -> np.ndarray:
        """The points in the picture, ``(…, 2)`` px, of places ``(…, 3)``."""
        return self.center[:2] + places @ self.axes[:2].T

    def _facing(self, place: Place) -> float:
        """How much a place faces the viewer, from -1 to 1."""
        return float(self.sight @ place)

    def _cap(self, middle: Place, angle_deg: float, colour: Colour, grow: float = 1.0) -> None:
        """Paint what is seen of the part of the sphere within an angle (below 90 degrees) of its middle."""
        pole, rim = _rim(middle, angle_deg)
        # bounded by the part of the rim that faces the viewer and the part of the horizon within the rim
        edge = np.concatenate((rim[rim @ self.sight > 0], self.horizon[self.horizon @ pole > rim[0] @ pole]))
        if len(edge) > 2:
            hull = cv2.convexHull(self._at(grow * edge).astype(np.float32))
            self.brush.fill(hull[:, 0], colour)

    def paint(self) -> None:
        """Paint all but the hair that hangs down."""
        look = self.look
        bare = look.hair_style == "bald"
        if look.hair_style != "long":
            self._ears(-1.0, 0.3)
        self._ball(look.skin if bare else look.hair)
        if not bare:
            if look.hair_style == "short":
                self._cap((0, -1, -0.45), 50, shade(look.skin, 0.88), grow=1.05)
            self._cap((0, -0.36, 1), 64, look.skin, grow=1.04)
        if look.beard:
            self._cap((0, -0.85, 0.6), 37, look.hair)
        self._face()
        if look.hair_style != "long":
            self._ears(0.3, 1.0)
        if look.headwear != "none":
            self._hat()

    def _ball(self, colour: Colour) -> None:
        outline = self.horizon @ self.axes[:2].T
        center = self.center[:2]
        self.brush.fill(center + 1.08 * outline, shade(colour, 0.66))
        self.brush.fill(center + outline, shade(colour, 0.9))
        self.brush.fill(center + 0.75 * outline + 0.1 * self.size * self.brush.light, shade(colour, 1.08))

    def _ears(self, low: float, high: float) -> None:
        for place in EARS:
            if low <= self._facing(place) < high:
                ear = self._at(place)
                self.brush.dot(ear, 0.15 * self.size, shade(self.look.skin, 0.68))
                self.brush.dot(ear, 0.11 * self.size, shade(self.look.skin, 0.9))

    def _face(self) -> None:
        brush, look, size = self.brush, self.look, self.size
        dark = shade(look.skin, 0.72)
        for place, brow in zip(EYES, BROWS, strict=True):
            if self._facing(place) > 0.12:
                eye = self._at(place)
                brush.dot(eye, 0.125 * size, (240, 240, 240))
                brush.dot(eye, 0.08 * size, (40, 30, 25))
                brush.line(self._at(brow), shade(look.hair, 0.8))
                if look.glasses:
                    ring = eye + 0.19 * size * CIRCLE[::2]
                    brush.line(ring, (30, 30, 35), closed=True)
        if self._facing((0, -0.2, 1)) > -0.1:
            brush.fill(self._at(NOSE), shade(look.skin, 0.84))
            brush.line(self._at(NOSE[1:3]), dark)
        if self._facing((0, -0.55, 0.8)) > 0.1:
            brush.line(self._at(MOUTH), (165, 70, 70))

    def _hat(self) -> None:
        colour = self.look.trim
        visor = self._at(VISOR) if self.look.headwear == "cap" else None
        toward = self._facing((0, 0.2, 1)) > 0
        if visor is not None and not toward:
            self.brush.fill(visor, shade(colour, 0.7))
        self._cap((0, 1, -0.12), 67, shade(colour, 0.7), grow=1.14)
        self._cap((0, 1, -0.12), 64, colour, grow=1.08)
        if visor is not None and toward:
            self.brush.fill(visor, shade(colour, 0.78))

    def paint_long_hair(self) -> None:
        """Paint the hair that hangs down behind the head, if there is any."""
        look, size = self.look, self.size
        if look.hair_style == "long":
            places = np.array([(-0.65, 0, -0.35), (0.65, 0, -0.35), (-0.3, -1.25, -0.8), (0.3, -1.25, -0.8)])
            self.brush.solid(self._at(places), [0.34 * size, 0.34 * size, 0.4 * size, 0.4 * size], look.hair)
        elif look.hair_style == "tail":
            places = np.array([(0, 0.35, -1.1), (0, -0.4, -1.4), (0, -1.1, -1.35)])
            self.brush.solid(self._at(places), [0.16 * size, 0.2 * size, 0.08 * size], look.hair)


def _horizon(x: float, y: float, z: float) -> np.ndarray:
    """The circle ``(20, 3)`` on the unit sphere at right angles to a direction: the outline seen from there."""
    a, b, c = (y, -x, 0.0) if abs(z) < 0.7 else (z, 0.0, -x)
    length = (a * a + b * b + c * c) ** 0.5
    a, b, c = a / length, b / length, c / length
    return CIRCLE @ np.array([[a, b, c], [y * c - z * b, z * a - x * c, x * b - y * a]])


@lru_cache
def _rim(middle: Place, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """The middle ``(3,)`` of a cap on the unit sphere, and its edge ``(20, 3)``."""
    pole = np.array(middle) / np.linalg.norm(middle)
    across = np.cross(pole, [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    angle = np.deg2rad(angle_deg)
    rim = np.cos(angle) * pole + np.sin(angle) * CIRCLE @ np.stack((across, np.cross(pole, across)))
    return pole, rim
