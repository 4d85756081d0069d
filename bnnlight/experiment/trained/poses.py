"""Predicts joints with a trained task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from bnnlight.data.keypoints.person import Person, PosePicture
from bnnlight.data.keypoints.transforms import PoseTransform
from bnnlight.imaging.boxes import PADDING, Square, find_people
from bnnlight.imaging.reading import upright
from bnnlight.tasks import PoseTask


class PosePredictor:
    """Finds the joints of the one person that fills a picture, or of those in boxes.

    Args:
        task: with its weights and skeleton.
        transform: cuts a person out of a picture.
        batch_size: most people that are looked for at once.
        box_padding: side of the square that is cut out by the longer side of a box.
    """

    def __init__(
        self, task: PoseTask, transform: PoseTransform, batch_size: int = 32, box_padding: float = PADDING
    ) -> None:
        self.task, self.transform, self.batch_size, self.box_padding = task, transform, batch_size, box_padding
        task.measured_weights.begin()  # they stay as they are

    @torch.inference_mode()
    def __call__(
        self, pictures: Sequence[Image.Image], boxes: Sequence[np.ndarray] | None = None
    ) -> list[dict[str, Any]]:
        """For each picture what :func:`bnnlight.imaging.boxes.find_people` gives, in px of the picture held upright.

        Args:
            pictures: of any 8-bit mode.
            boxes: ``(N, 4)`` of each picture; None takes each as a whole.
        """
        images = [upright(picture) for picture in pictures]
        return find_people(images, boxes, self.box_padding, self.batch_size, self._find)

    def _find(self, images: Sequence[np.ndarray], squares: Sequence[Square]) -> list[dict[str, Any]]:
        num_joints = len(self.task.skeleton.joints)
        nowhere, unknown = np.zeros((num_joints, 2), np.float32), np.zeros(num_joints, bool)
        # people without known joints
        people = [Person(nowhere, unknown, *square) for square in squares]
        samples = [self.transform(PosePicture(*pair)) for pair in zip(images, people, strict=True)]
        batch = {name: value.to(self.task.device) for name, value in default_collate(samples).items()}
        answer = self.task.predict_step(batch, 0)
        return self.task.skeleton.records(answer["joints"].tolist(), answer["confidence"].tolist())
