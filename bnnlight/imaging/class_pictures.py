"""Draws predicted classes below pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

RIGHT, WRONG = (0, 120, 60), (200, 0, 30)
"""Colours (RGB) of the caption."""
LINE_PX = 17


def caption(image: np.ndarray, predicted: str, probability: float, truth: str, width_px: int = 160) -> np.ndarray:
    """A picture with two lines below it: the predicted class with its probability, and the true class if another.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        predicted: name of the class.
        probability: of it, in [0, 1].
        truth: name of the true class.
        width_px: of the result.

    Returns:
        ``(height, width_px, 3)`` uint8; the caption is green where the prediction is right, else red.
    """
    enlarged = _scaled_to(width_px, Image.fromarray(image))
    sheet = Image.new("RGB", (width_px, enlarged.height + 2 * LINE_PX + 4), "white")
    sheet.paste(enlarged)
    right = predicted == truth
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for index, line in enumerate([f"{predicted}  {100 * probability:.0f} %", "" if right else f"is {truth}"]):
        # a long name is cut rather than drawn over its neighbour
        while line and draw.textlength(line, font=font) > width_px - 4:
            line = line[:-2] + "…"
        draw.text((3, enlarged.height + index * LINE_PX), line, fill=RIGHT if right else WRONG, font=font)
    return np.asarray(sheet)


def annotate(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The picture, 480 px wide, with lines of text below it."""
    enlarged, line_height = _scaled_to(480, picture), 24
    sheet = Image.new("RGB", (enlarged.width, enlarged.height + line_height * len(lines) + 12), "white")
    sheet.paste(enlarged)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for index, line in enumerate(lines):
        place = 8, enlarged.height + 6 + index * line_height
        draw.text(place, line, fill="black" if index == 0 else "dimgray", font=font)
    return sheet


def _scaled_to(width_px: int, picture: Image.Image) -> Image.Image:
    scale = width_px / picture.width
    # small pictures are enlarged in blocks: blurred digits tell less than sharp ones
    how = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BILINEAR
    return picture.resize((width_px, max(1, round(picture.height * scale))), how)
