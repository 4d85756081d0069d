"""A figure's body and clothes, painted from back to front."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from bnnlight.data.keypoints.figures.body import INDEX, Figure
from bnnlight.data.keypoints.figures.brush import Brush, Colour, shade
from bnnlight.data.keypoints.figures.head import HeadPainter
from bnnlight.data.keypoints.figures.look import Look

SIDES = ("right", "left")
SOCK = (235, 235, 232)
BACKPACK = np.array([[x, y, -0.09] for x in (-0.055, 0.055) for y in (0.08, 0.23)])
"""Corners, in heights: to the left, up from the pelvis, forward."""


def draw_figure(brush: Brush, figure: Figure, look: Look) -> None:
    """Paint a figure."""
    FigurePainter(brush, figure, look).paint()


class FigurePainter:
    """Paints one figure.

    Parts are sorted by the depth of their middle, and what is nearer covers what is farther.
    """

    def __init__(self, brush: Brush, figure: Figure, look: Look) -> None:
        self.brush, self.figure, self.look = brush, figure, look
        self.flat = figure.points[:, :2]
        self.size = figure.height_px
        self.wide = figure.height_px * figure.body.girth
        self.head = HeadPainter(brush, figure, look)

    def paint(self) -> None:
        """Paint all parts."""
        for _, paint in sorted(self._parts(), key=lambda part: part[0]):
            paint()

    def _parts(self) -> list[tuple[float, Callable[[], None]]]:
        """Depth and painter of each part."""
        # parts side by side have equal depths; what should then be in front is a little nearer
        figure, step, look = self.figure, 0.01 * self.size, self.look
        torso_frame = figure.frames["torso"]

        def depth(one: str, other: str) -> float:
            return float(figure[one][2] + figure[other][2]) / 2

        torso = depth("pelvis", "thorax")
        parts = [
            (torso, self._torso),
            (depth("thorax", "upper neck") - step / 2, self._neck),
            (depth("upper neck", "head top") + step, self.head.paint),
        ]
        if look.hair_style in ("long", "tail"):
            parts.append((self.head.hair_depth, self.head.paint_long_hair))
        if look.backpack:
            parts.append((torso - 0.13 * self.wide * torso_frame[2, 2], self._backpack))
        thighs = []
        for side in SIDES:
            thighs.append(depth(f"{side} hip", f"{side} knee"))
            parts += [
                (depth(f"{side} shoulder", f"{side} elbow") + step, partial(self._upper_arm, side)),
                (depth(f"{side} elbow", f"{side} wrist") + 2 * step, partial(self._forearm, side)),
                (thighs[-1] - step, partial(self._thigh, side)),
                (depth(f"{side} knee", f"{side} ankle") - 2 * step, partial(self._shank, side)),
                (depth(f"{side} heel", f"{side} toe") - step, partial(self._foot, side)),
            ]
        if look.skirt:
            parts.append((max(*thighs, torso - step) + step / 2, self._skirt))
        return parts

    def _at(self, name: str) -> np.ndarray:
        """``(2,)``: a point of the figure in the picture, px."""
        return self.flat[INDEX[name]]

    def _limb(self, names: tuple[str, str], radii: tuple[float, float], cloth: Colour, covered: float) -> None:
        """Paint a limb between two points, of which a share is covered with cloth; radii in girths."""
        start, end = self._at(names[0]), self._at(names[1])
        wide, narrow = self.wide * radii[0], self.wide * radii[1]
        if covered < 1:
            self.brush.solid((start, end), (wide, narrow), self.look.skin)
        if covered > 0:
            share, fold = min(covered, 1.0), 0.006 * self.wide
            ends = start, start + share * (end - start)
            radii = wide + fold, wide + share * (narrow - wide) + fold
            self.brush.solid(ends, radii, cloth)
            if self.look.pattern == "hoops" and cloth is self.look.top:
                self._limb_hoops(ends, radii)

    def _limb_hoops(self, ends: tuple[np.ndarray, np.ndarray], radii: tuple[float, float]) -> None:
        along = ends[1] - ends[0]
        length = float(np.hypot(*along))
        # seen along its axis a sleeve shows none
        if length < radii[0]:
            return
        across = np.array([-along[1], along[0]]) * (0.85 / length)
        for share in (0.25, 0.55, 0.85):
            middle, reach = ends[0] + share * along, radii[0] + share * (radii[1] - radii[0])
            hoop = np.stack((middle - reach * across, middle + reach * across))
            self.brush.line(hoop, self.look.trim, 0.013 * self.size)

    def _upper_arm(self, side: str) -> None:
        self._limb((f"{side} shoulder", f"{side} elbow"), (0.036, 0.028), self.look.top, self.look.sleeve)

    def _forearm(self, side: str) -> None:
        size, colour = self.size, self.look.hand
        wrist, tips = self._at(f"{side} wrist"), self._at(f"{side} hand")
        # palms face the body: the thumb points forward
        thumb = (wrist + tips) / 2 + 0.03 * size * self.figure.frames[f"{side} forearm"][:2, 2]
        self.brush.line(np.stack((wrist, thumb)), shade(colour, 0.8), 0.02 * size)
        self.brush.solid((wrist, (wrist + 2 * tips) / 3), (0.016 * size, 0.019 * size), colour)
        self._limb((f"{side} elbow", f"{side} wrist"), (0.028, 0.019), self.look.top, self.look.sleeve - 1)

    def _thigh(self, side: str) -> None:
        covered = 0.0 if self.look.skirt else self.look.leg
        self._limb((f"{side} hip", f"{side} knee"), (0.055, 0.038), self.look.bottom, covered)

    def _shank(self, side: str) -> None:
        covered = 0.0 if self.look.skirt else self.look.leg - 1
        knee, ankle = names = f"{side} knee", f"{side} ankle"
        if covered < 1:
            self._limb(names, (0.038, 0.024), self.look.bottom, 0)
            self._limb((ankle, knee), (0.024, 0.038), SOCK, self.look.sock)
        if covered > 0:
            # with no skin of its own, which would hide the sock
            end = self._at(knee) + covered * (self._at(ankle) - self._at(knee))
            self.brush.solid((self._at(knee), end), (0.044 * self.wide, 0.032 * self.wide), self.look.bottom)

    def _foot(self, side: str) -> None:
        size, shoes = self.size, self.look.shoes
        ankle, heel, toe = (self._at(f"{side} {end}") for end in ("ankle", "heel", "toe"))
        below = self.figure.frames[f"{side} foot"][:2, 1] * (-0.009 * size)
        self.brush.line(np.stack((heel + below, toe + below)), shade(shoes, 0.4), 0.036 * size)
        self.brush.solid((ankle, heel, toe), (0.023 * size, 0.02 * size, 0.017 * size), shoes)

    def _skirt(self) -> None:
        long, hem, hips = self.look.leg, 0.075 * self.wide, 0.06 * self.wide
        ends = []
        for side in SIDES:
            hip, knee, ankle = (self._at(f"{side} {name}") for name in ("hip", "knee", "ankle"))
            ends += [hip, hip + long * (knee - hip) if long < 1 else knee + (long - 1) * (ankle - knee)]
        self.brush.solid(ends, (hips, hem, hips, hem), self.look.bottom)

    def _neck(self) -> None:
        ends = self._at("thorax"), self._at("upper neck")
        self.brush.solid(ends, (0.034 * self.wide, 0.03 * self.wide), shade(self.look.skin, 0.93))

    def _torso(self) -> None:
        look, wide = self.look, self.wide
        hips, shoulders = ([self._at(f"{side} {name}") for side in SIDES] for name in ("hip", "shoulder"))
        pelvis, thorax = self._at("pelvis"), self._at("thorax")
        hip, shoulder = (hips[1] - hips[0]) / 2, (shoulders[1] - shoulders[0]) / 2
        middle, chest = pelvis + 0.25 * (thorax - pelvis), pelvis + 0.62 * (thorax - pelvis)
        waist, ribs = [middle - 0.7 * hip, middle + 0.7 * hip], [chest - 0.62 * shoulder, chest + 0.62 * shoulder]
        radii = [0.05 * wide] * 2 + [0.058 * wide] * 2
        self.brush.solid([*waist, *hips], radii, look.bottom)
        centers = [*waist, *ribs, *shoulders]
        radii = [0.053 * wide] * 2 + [0.06 * wide] * 2 + [0.034 * wide] * 2
        if not look.tucked:
            hem = 0.02 * self.size * self.figure.frames["torso"][:2, 1]
            centers += [hips[0] + hem, hips[1] + hem]
            radii += [0.061 * wide] * 2
        self.brush.solid(centers, radii, look.top)
        Decoration(self.brush, self.figure, look).paint()

    def _backpack(self) -> None:
        frame, size = self.figure.frames["torso"][:2], self.size
        corners = self._at("pelvis") + size * BACKPACK @ frame.T
        self.brush.solid(corners, [0.03 * size] * 4, self.look.trim)


class Decoration:
    """Paints what is on the top: neckline, pattern, straps.

    A place on it is an angle round the torso (0 the left, π/2 the front, -π/2 the back, radians) and a height
    (0 the pelvis, 1 the thorax).
    """

    HEIGHTS = (0.0, 0.25, 0.62, 1.0)

    def __init__(self, brush: Brush, figure: Figure, look: Look) -> None:
        self.brush, self.figure, self.look = brush, figure, look
        self.frame, body = figure.frames["torso"], figure.body
        girth = body.girth
        waist = body.hip + 0.04 * girth
        self.across = (waist, waist, 0.62 * body.shoulder + 0.055 * girth, body.shoulder + 0.02 * girth)
        self.deep = 0.055 * girth

    def _at(self, angles: np.ndarray, heights: np.ndarray) -> np.ndarray:
        """Points ``(N, 2)`` in the picture, px."""
        across = np.interp(heights, self.HEIGHTS, self.across)
        local = np.stack((across * np.cos(angles), heights * self.figure.body.torso, self.deep * np.sin(angles)), 1)
        return (self.figure["pelvis"] + self.figure.height_px * local @ self.frame.T)[:, :2]

    def _is_visible(self, angle: float) -> bool:
        left, _, front = self.frame[2]
        return left * np.cos(angle) / self.across[2] + front * np.sin(angle) / self.deep > 0.15 / self.deep

    def paint(self) -> None:
        """Paint all of it."""
        look, front, back = self.look, np.pi / 2, -np.pi / 2
        if look.pattern == "hoops":
            self._hoops((0.2, 0.4, 0.6, 0.8))
        elif look.pattern == "stripes":
            for angle in np.arange(12) * (np.pi / 6) + 0.1:
                if self._is_visible(angle):
                    self._upright(angle, 0.05, 0.92, 0.008)
        elif look.pattern == "print":
            self._patch(front, 0.5, 0.55, 0.85)
            self._patch(back, 0.7, 0.35, 0.8)
        elif look.pattern == "buttons":
            self._upright(front, 0.0, 0.95, 0.01)
        if self._is_visible(front):
            wide = 0.42
            angles = front + np.array([-wide, -wide / 2, 0, wide / 2, wide])
            neck = self._at(angles, np.array([1.06, 0.95, 0.86, 0.95, 1.06]))
            self.brush.fill(neck, shade(look.skin, 0.96))
            self.brush.line(neck, shade(look.top, 0.6))
        elif self._is_visible(back):
            self.brush.line(self._at(back + np.linspace(-0.4, 0.4, 5), np.full(5, 1.0)), shade(look.top, 0.6))
        if look.backpack:
            for angle in (front - 0.75, front + 0.75):
                if self._is_visible(angle):
                    self._upright(angle, 0.35, 1.05, 0.02)

    def _hoops(self, heights: tuple[float, ...]) -> None:
        left, _, front = self.frame[2]
        toward = np.arctan2(front / self.deep, left / self.across[2])
        angles = toward + np.linspace(-1.4, 1.4, 9)
        for height in heights:
            line = self._at(angles, np.full(9, height))
            self.brush.line(line, self.look.trim, 0.02 * self.figure.height_px)

    def _upright(self, angle: float, low: float, high: float, width: float) -> None:
        if self._is_visible(angle):
            line = self._at(np.full(4, angle), np.linspace(low, high, 4))
            self.brush.line(line, self.look.trim, width * self.figure.height_px)

    def _patch(self, angle: float, reach: float, low: float, high: float) -> None:
        if self._is_visible(angle):
            angles = angle + reach * np.array([-1, -0.3, 0.3, 1, 1, 0.3, -0.3, -1])
            heights = np.repeat((low, high), 4)
            self.brush.fill(self._at(angles, heights), self.look.trim)
