"""Predictions of classes: names with probabilities below the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bnnlight.tasks import ClassificationTask


class ClassPredictor:
    """Names the most probable classes.

    Args:
        task: with its weights and class names.
        transform: from a picture to the network's input.
        top: how many classes to name.
    """

    def __init__(self, task: ClassificationTask, transform: Callable[[Image.Image], Tensor], top: int) -> None:
        self.task, self.transform, self.top = task, transform, top

    def __call__(self, pictures: Sequence[Image.Image]) -> list[tuple[dict[str, Any], Image.Image]]:
        """For each picture a record of its ``classes``, and the picture with them below it."""
        inputs = torch.stack([self.transform(picture) for picture in pictures]).to(self.task.device)
        found = []
        for picture, row in zip(pictures, self.task.predict_step(inputs, 0).cpu(), strict=True):
            best = top_classes(row, self.task.class_names, self.top)
            lines = [f"{100 * c['probability']:.1f} %  {c['class']}" for c in best]
            found.append(({"classes": best}, annotate(picture, lines)))
        return found


def top_classes(probabilities: Tensor, names: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The most probable classes, best first.

    Args:
        probabilities: ``(classes,)``.
        names: of the classes; without them, their indices.
        count: how many, at most all.
    """
    best = probabilities.topk(min(count, len(probabilities)))
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [{"class": names[i] if i < len(names) else str(i), "probability": p} for p, i in pairs]


def annotate(picture: Image.Image, lines: Sequence[str], width_px: int = 480) -> Image.Image:
    """The picture, enlarged to a readable size, with lines of text below it."""
    scale = width_px / picture.width
    height = max(1, round(picture.height * scale))
    # small pictures are enlarged in blocks: blurred digits tell less than sharp ones
    enlarged = picture.resize((width_px, height), Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BILINEAR)
    line_height = 24
    sheet = Image.new("RGB", (width_px, height + line_height * len(lines) + 12), "white")
    sheet.paste(enlarged)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for index, line in enumerate(lines):
        draw.text((8, height + 6 + index * line_height), line, fill="black" if index == 0 else "dimgray", font=font)
    return sheet
