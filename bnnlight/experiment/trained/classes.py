"""Predicts classes with a trained task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor

from bnnlight.imaging.classes import top_classes
from bnnlight.imaging.reading import turned
from bnnlight.tasks import ClassificationTask


class ClassPredictor:
    """Names the most probable classes.

    Args:
        task: with its weights. One of one's own that has no ``predict_step`` gives logits by its ``backbone``.
        transform: from a picture to the network's input.
        top: how many classes to name.
        names: of the classes; None: the task's own.
    """

    def __init__(
        self,
        task: L.LightningModule,
        transform: Callable[[Image.Image], Tensor],
        top: int,
        names: Sequence[str] | None = None,
    ) -> None:
        self.task, self.transform, self.top = task, transform, top
        self.names = task.class_names if names is None else names
        if isinstance(task, ClassificationTask):
            task.measured_weights.begin()  # they stay as they are

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[dict[str, Any]]:
        """For each picture, held upright, a record of its ``classes``, best first."""
        inputs = torch.stack([self.transform(turned(picture)) for picture in pictures]).to(self.task.device)
        if type(self.task).predict_step is L.LightningModule.predict_step:
            probabilities = self.task.backbone(inputs).softmax(1)
        else:
            probabilities = self.task.predict_step(inputs, 0)
        return [{"classes": top_classes(row, self.names, self.top)} for row in probabilities.cpu().numpy()]
