"""Draws annotated crops, each beside its mirror image, so that a wrong order or side shows before training."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bnnlight.data.keypoints.data_module import PoseDataModule, PoseView
from bnnlight.data.keypoints.transforms import PoseAugmentation, PoseTransform
from bnnlight.imaging.pose_pictures import LEFT, MIDDLE, RIGHT, draw_pose
from bnnlight.imaging.skeletons import Skeleton

CROP_PX = 320
"""About how wide a crop is shown."""
_LINE_PX, _GAP_PX = 18, 2
_MAX_NUMBERED = 60
"""More numbers than that would hide the picture: of more joints every second one has its number, or every third …"""
_INK = {"left": LEFT, "right": RIGHT, "": MIDDLE}
_MIRROR = PoseAugmentation(scale=(1, 1), rotation_deg=0, flip=1, brightness=0, contrast=0, saturation=0)


def annotated_crops(data: PoseDataModule, view: PoseView, count: int) -> list[np.ndarray]:
    """A key to the joints, and crops of people spread over a data set, as they are and as a mirror image shows them.

    Joints and limbs of the left are blue, those of the right orange, others green; joints carry their numbers. In a
    mirror image left and right are swapped as in training: where the pairs are right, blue stays on one side of a
    person who is seen from the front.

    Args:
        data: set up; gives the skeleton and the size of the crops.
        view: whose items to draw.
        count: of people, at most.

    Returns:
        Pictures ``(H, W, 3)`` uint8 of one size, the key first; none where no picture can be read.
    """
    transforms = [PoseTransform(data.skeleton, data.image_size, change) for change in (None, _MIRROR)]
    tiles = []
    for position in np.unique(np.linspace(0, len(view) - 1, min(count, len(view))).round().astype(int)).tolist():
        try:
            item = view.items[view.indices[position]]
        except OSError:  # one that cannot be read is named elsewhere
            continue
        plain, mirrored = (_draw(data, transform(item)) for transform in transforms)
        gap = np.full((CROP_PX, _GAP_PX, 3), 255, np.uint8)
        tiles.append(_titled(np.hstack((plain, gap, mirrored)), f"{position + 1} of {len(view)}", "mirrored"))
    return [_key(data.skeleton, tiles[0].shape), *tiles] if tiles else []


def _draw(data: PoseDataModule, sample: dict[str, Any]) -> np.ndarray:
    pixels = data.to_pixels(sample["image"].unsqueeze(0))[0]
    factor = CROP_PX / data.image_size
    large = cv2.resize(pixels, (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR)
    joints, shown = (sample["joints"].numpy() + 0.5) * factor - 0.5, sample["annotated"].numpy()
    picture = draw_pose(large, joints, shown, data.skeleton)
    sheet = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for index in _numbered(shown):
        x, y = joints[index]
        if 0 <= x < CROP_PX and 0 <= y < CROP_PX:
            draw.text((x + 4, y - 12), str(index), fill="white", font=font, stroke_width=1, stroke_fill="black")
    return np.asarray(sheet)


def _numbered(shown: np.ndarray) -> list[int]:
    """Indices of the joints that get their numbers: all that are shown, or of very many those that the key has too."""
    indices = np.flatnonzero(shown).tolist()
    step = 1 if len(indices) <= _MAX_NUMBERED else _step(len(shown))
    return [index for index in indices if index % step == 0]


def _step(num_joints: int) -> int:
    return -(-num_joints // _MAX_NUMBERED)


def _titled(picture: np.ndarray, left: str, right: str) -> np.ndarray:
    height, width = picture.shape[:2]
    sheet = Image.new("RGB", (width, height + _LINE_PX), "white")
    sheet.paste(Image.fromarray(picture), (0, _LINE_PX))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    draw.text((3, 1), left, fill="black", font=font)
    draw.text((width // 2 + 3, 1), right, fill="black", font=font)
    return np.asarray(sheet)


def _key(skeleton: Skeleton, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers and names of the joints in the colours of their sides."""
    height, width = shape[:2]
    sheet = Image.new("RGB", (width, height), (40, 40, 40))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    num_sided = sum(side != "" for side in skeleton.sides)
    step = _step(len(skeleton.joints))
    title = f"{len(skeleton.joints)} joints, {num_sided // 2} pairs of left and right, {len(skeleton.limbs)} limbs"
    if step > 1:
        ending = {2: "nd", 3: "rd"}.get(step, "th")
        title += f"; every {step}{ending} is named"
    draw.text((8, 4), title, fill="white", font=font)
    for place, (name, side) in enumerate((("left", "left"), ("right", "right"), ("no side", ""))):
        draw.text((8 + 70 * place, 4 + _LINE_PX), name, fill=_INK[side], font=font)
    rows = (height - 3 * _LINE_PX) // _LINE_PX
    columns = 4
    named = [index for index in range(len(skeleton.joints)) if index % step == 0]
    for place, index in enumerate(named):
        column, row = divmod(place, rows)
        if column == columns:
            break
        last = column == columns - 1 and row == rows - 1 and place + 1 < len(named)
        line, side = "…" if last else f"{index} {skeleton.joints[index]}", skeleton.sides[index]
        while draw.textlength(line, font=font) > width / columns - 10:
            line = line[:-2] + "…"
        draw.text((8 + column * width // columns, (row + 3) * _LINE_PX - 4), line, fill=_INK[side], font=font)
    return np.asarray(sheet)
