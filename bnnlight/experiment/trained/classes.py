"""Predicts classes with a trained task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bnnlight.imaging.classes import top_classes
from bnnlight.imaging.reading import turned
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
        task.measured_weights.begin()  # they stay as they are

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[dict[str, Any]]:
        """For each picture, held upright, a record of its ``classes``, best first."""
        inputs = torch.stack([self.transform(turned(picture)) for picture in pictures]).to(self.task.device)
        rows = self.task.predict_step(inputs, 0).cpu().numpy()
        return [{"classes": top_classes(row, self.task.class_names, self.top)} for row in rows]
