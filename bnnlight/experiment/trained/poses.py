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
from bnnlight.imaging.pose_crop import square_round
from bnnlight.imaging.reading import upright
from bnnlight.tasks import PoseTask


class PosePredictor:
    """Finds the joints of the one person that fills a picture.

    Args:
        task: with its weights and skeleton.
        transform: cuts a person out of a picture.
    """

    def __init__(self, task: PoseTask, transform: PoseTransform) -> None:
        self.task, self.transform = task, transform
        task.measured_weights.begin()  # they stay as they are

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[dict[str, Any]]:
        """For each picture a record of its ``joints``, in pixels of the picture held upright."""
        num_joints = len(self.task.skeleton.joints)
        nowhere, unknown = np.zeros((num_joints, 2), np.float32), np.zeros(num_joints, bool)
        # a person without known joints, whose box is the square round the picture
        images = [upright(picture) for picture in pictures]
        people = [PosePicture(image, Person(nowhere, unknown, *square_round(image))) for image in images]
        samples = [self.transform(person) for person in people]
        batch = {name: value.to(self.task.device) for name, value in default_collate(samples).items()}
        answer = self.task.predict_step(batch, 0)
        return self.task.skeleton.records(answer["joints"].tolist(), answer["confidence"].tolist())
