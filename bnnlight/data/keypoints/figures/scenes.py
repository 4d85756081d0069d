"""What is around a drawn figure: the scene behind, things in front, light and the camera's flaws."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from bnnlight.data.keypoints.figures.body import Figure
from bnnlight.data.keypoints.figures.brush import Brush, Colour, blend, shade
from bnnlight.data.keypoints.figures.dice import Dice
from bnnlight.data.keypoints.figures.look import cloth_colour, skin_colour

CLUTTER = (0, 0, 1, 2, 3, 4, 5, 7)
"""Numbers of things in the background, equally likely."""
OCCLUDED = 0.15
"""Share of the pictures with a thing in front of the figure."""
HIDDEN = ("ankle", "knee", "hip", "wrist", "elbow")
"""Joints that a thing is put in front of; a head hidden would leave too little to go by."""


class Scene:
    """Paints around a figure.

    Args:
        size: of the square picture, px.
        figure: in its place.
        dice: for all choices.

    Attributes:
        brush: paints on the picture.
    """

    def __init__(self, size: int, figure: Figure, dice: Dice) -> None:
        self.size, self.figure, self.dice = size, figure, dice
        light = (dice.uniform(-0.8, 0.8), dice.uniform(-0.9, -0.4))
        self.brush = Brush(np.empty((size, size, 3), np.uint8), light)
        # the lowest point stands on the ground
        self.ground = float(figure.points[:, 1].max())

    def paint_background(self) -> None:
        """Paint all that is behind the figure."""
        dice, size = self.dice, self.size
        horizon = round(min(self.ground - 8, size * dice.uniform(0.35, 0.9)))
        wall, floor = scenery_colour(dice), scenery_colour(dice)
        if dice.chance(0.25):
            floor, horizon = wall, size // 2
        self._fade(wall, 0, horizon)
        self._fade(floor, horizon, size)
        if dice.chance(0.35):
            self._tiles(horizon if dice.chance(0.6) else size)
        # from clouds to gravel
        self._mottle(dice.whole(3, 9), dice.uniform(0.02, 0.13), 3)
        if dice.chance(0.7):
            self._mottle(dice.choice((16, 24, 48, 96)), dice.uniform(0.03, 0.15), 1)
        for _ in range(dice.choice(CLUTTER)):
            dice.choice((self._block, self._pole, self._ball, self._wire, self._false_limb))(horizon)
        self.brush.flush()
        # who does a handstand or lies in the air throws no shadow at the feet
        if abs(self.figure.frames["pelvis"][0, 1]) < 0.5 and dice.chance(0.8):
            self._shadow()

    def paint_foreground(self) -> None:
        """Paint what is in front of the figure, if anything."""
        dice = self.dice
        if not dice.chance(OCCLUDED):
            return
        x, y = self.figure[f"{dice.choice(('left', 'right'))} {dice.choice(HIDDEN)}"][:2].tolist()
        kind = dice.share()
        if kind < 0.2:
            self._stand(x, dice.uniform(2, 4.5))
        elif kind < 0.4:
            self._rail(y, dice.uniform(2, 4.5))
        elif kind < 0.72:
            self._crate(x, y)
        elif kind < 0.88:
            self._bush(x, y)
        else:
            self._stray_arm(x, y)

    def developed(self) -> np.ndarray:
        """The picture as a camera takes it: unevenly lit, a little blurred, noisy; ``(H, W, 3)`` uint8."""
        dice, size, canvas = self.dice, self.size, self.brush.canvas
        self.brush.flush()
        # between 0.75 and 1.25 times as bright, and a tint
        tint = np.array([dice.near(128, 9), dice.near(128, 5), dice.near(128, 9)])
        light = np.array([dice.uniform(0.75, 1.2) for _ in range(4)]).reshape(2, 2, 1) * tint
        gain = cv2.resize(light.astype(np.uint8), (size, size), interpolation=cv2.INTER_LINEAR)
        canvas = cv2.multiply(canvas, gain, scale=1 / 128)
        if dice.chance(0.3):
            canvas = cv2.GaussianBlur(canvas, (3, 3), dice.uniform(0.4, 0.9))
        grain = cv2.cvtColor(dice.noise(size, size), cv2.COLOR_GRAY2RGB)
        strength = dice.uniform(0.0, 0.07)
        return cv2.addWeighted(canvas, 1, grain, strength, -127.5 * strength)

    def _fade(self, colour: Colour, top: int, bottom: int) -> None:
        """Fill rows with a colour that grows lighter or darker from top to bottom."""
        ends = [[shade(colour, self.dice.uniform(0.75, 1.1))] for _ in range(2)]
        rows = self.brush.canvas[top:bottom]
        cv2.resize(np.array(ends, np.uint8), (self.size, bottom - top), rows, interpolation=cv2.INTER_LINEAR)

    def _mottle(self, cells: int, strength: float, channels: int) -> None:
        """Lighter and darker spots; they differ in colour, too, if there are three channels."""
        size, canvas = self.size, self.brush.canvas
        spots = self.dice.noise(cells, cells, channels)
        if cells < 16:
            # without the star shapes of a linear interpolation; that of few pixels is quick
            spots = cv2.resize(spots, (size // 4, size // 4), interpolation=cv2.INTER_CUBIC)
        spots = cv2.resize(spots, (size, size), interpolation=cv2.INTER_LINEAR)
        if channels == 1:
            spots = cv2.cvtColor(spots, cv2.COLOR_GRAY2RGB)
        cv2.addWeighted(canvas, 1, spots, strength, -127.5 * strength, canvas)

    def _tiles(self, rows: int) -> None:
        """A regular pattern over the upper rows: boards, checks or slanting stripes."""
        dice, size, part = self.dice, self.size, self.brush.canvas[:rows]
        step = dice.whole(7, 28)
        kind = dice.choice(("boards", "shelves", "checks", "stripes"))
        if kind == "checks":
            num = size // step + 1
            cells = ((np.add.outer(np.arange(num), np.arange(num)) % 2) * 255).astype(np.uint8)
            cells = cv2.resize(cells, (num * step, num * step), interpolation=cv2.INTER_NEAREST)
            pattern = cv2.cvtColor(cells[:rows, :size], cv2.COLOR_GRAY2RGB)
        else:
            layer = Brush(part.copy())
            slant, width = (dice.uniform(-80, 80), step / 2) if kind == "stripes" else (0.0, 1)
            bright = dice.choice((0, 255))
            for place in range(-80 - 80 % step, size + 80, step):
                ends = [[0, place], [size, place]] if kind == "shelves" else [[place, 0], [place + slant, rows]]
                layer.line(np.array(ends), (bright,) * 3, width)
            layer.flush()
            pattern = layer.canvas
        strength = dice.uniform(0.06, 0.3)
        cv2.addWeighted(part, 1 - strength, pattern, strength, 0, part)

    def _shadow(self) -> None:
        (left, _), (right, _) = self.figure.extent.tolist()
        height_px = self.figure.height_px
        center = ((left + right) / 2 - 0.1 * height_px * float(self.brush.light[0]), self.ground)
        axes = (0.45 * (right - left) + 5, 0.035 * height_px)
        top = max(0, int(self.ground - axes[1]) - 2)
        ground = self.brush.canvas[top:]
        dark = ground.copy()
        center, axes = (tuple(round(16 * value) for value in pair) for pair in ((center[0], center[1] - top), axes))
        cv2.ellipse(dark, center, axes, 0, 0, 360, (25, 25, 30), cv2.FILLED, cv2.LINE_AA, 4)
        cv2.addWeighted(ground, 0.6, dark, 0.4, 0, ground)

    def _block(self, horizon: int) -> None:
        """A window, a door, a picture or a house."""
        dice, size = self.dice, self.size
        width, height = dice.uniform(12, 70), dice.uniform(12, 80)
        x, y = dice.uniform(-20, size - 10), dice.uniform(-10, size - 40)
        if dice.chance(0.5):
            y = horizon - height
        corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
        colour = scenery_colour(dice)
        self.brush.fill(corners, colour)
        if dice.chance(0.6):
            self.brush.line(corners, shade(colour, dice.uniform(0.4, 1.5)), dice.whole(1, 3), closed=True)
            middle = x + width / 2
            self.brush.line(np.array([[middle, y], [middle, y + height]]), shade(colour, 0.6))

    def _pole(self, horizon: int) -> None:
        self._stand(self.dice.uniform(0, self.size), self.dice.uniform(1, 5))

    def _ball(self, horizon: int) -> None:
        """A bush, a cloud, a lamp."""
        dice = self.dice
        center = np.array([dice.uniform(0, self.size), horizon + dice.near(0, 60)])
        self.brush.solid([center], [dice.uniform(4, 16)], scenery_colour(dice))

    def _wire(self, horizon: int) -> None:
        dice, size = self.dice, self.size
        ends = np.array([[dice.uniform(0, size), dice.uniform(0, size)] for _ in range(2)])
        self.brush.line(ends, scenery_colour(dice), dice.whole(1, 2))

    def _false_limb(self, horizon: int) -> None:
        """Something as long, as wide and as coloured as an arm or a leg."""
        dice, size = self.dice, self.size
        start = np.array([dice.uniform(0, size), dice.uniform(0, size)])
        angle, length = dice.uniform(0, 2 * np.pi), dice.uniform(15, 40)
        ends = np.stack((start, start + length * np.array([np.cos(angle), np.sin(angle)])))
        self.brush.solid(ends, (dice.uniform(3, 6), dice.uniform(2, 5)), cloth_colour(dice))

    def _stand(self, x: float, radius: float) -> None:
        dice, size = self.dice, self.size
        ends = np.array([[x, -10.0], [x + dice.near(0, 12), size + 10.0]])
        self.brush.solid(ends, (radius, radius), scenery_colour(dice))

    def _rail(self, y: float, radius: float) -> None:
        dice, size = self.dice, self.size
        ends = np.array([[-10.0, y], [size + 10.0, y + dice.near(0, 12)]])
        self.brush.solid(ends, (radius, radius), scenery_colour(dice))

    def _crate(self, x: float, y: float) -> None:
        dice, size = self.dice, self.figure.height_px
        width, height = size * dice.uniform(0.12, 0.3), size * dice.uniform(0.1, 0.22)
        x, y = x - width * dice.share(), y - height * dice.uniform(0.2, 0.6)
        corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
        colour = cloth_colour(dice)
        self.brush.solid(corners, [1.5] * 4, colour)
        for share in (0.33, 0.67):
            board = y + share * height
            self.brush.line(np.array([[x, board], [x + width, board]]), shade(colour, 0.7))

    def _bush(self, x: float, y: float) -> None:
        dice, size = self.dice, self.figure.height_px
        green = shade((70, 120, 50), dice.uniform(0.5, 1.4))
        for _ in range(6):
            center = np.array([x + size * dice.near(0, 0.12), y + size * dice.near(0.02, 0.08)])
            self.brush.solid([center], [size * dice.uniform(0.025, 0.05)], shade(green, dice.uniform(0.8, 1.2)))

    def _stray_arm(self, x: float, y: float) -> None:
        """Somebody's arm from outside the picture."""
        dice, size = self.dice, self.size
        far = np.array([-15.0 if x < size / 2 else size + 15.0, y + dice.near(0, 60)])
        hand = np.array([x, y])
        sleeve = hand + dice.uniform(0.25, 0.6) * (far - hand)
        width = 0.02 * self.figure.height_px
        self.brush.solid((hand, sleeve), (width, 1.2 * width), skin_colour(dice))
        self.brush.solid((sleeve, far), (1.3 * width, 1.5 * width), cloth_colour(dice))


def scenery_colour(dice: Dice) -> Colour:
    """A random colour of walls, grass, sky, earth: rarely a bright one."""
    if dice.chance(0.55):
        nature = dice.choice(((96, 132, 66), (150, 190, 225), (170, 140, 105), (128, 128, 126), (205, 200, 190)))
        return blend(nature, (128, 128, 128), dice.uniform(0, 0.4))
    value = dice.uniform(0.3, 0.92)
    return tuple(255 * part for part in colorsys.hsv_to_rgb(dice.share(), dice.uniform(0, 0.35), value))
