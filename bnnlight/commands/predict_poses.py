"""Predictions of joints: the skeleton in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch.utils.data import default_collate

from bnnlight.data.pose import Person, PosePicture
from bnnlight.data.pose_transforms import PoseTransform
from bnnlight.imaging.pose_pictures import draw_pose
from bnnlight.tasks import PoseTask


class PosePredictor:
    """Finds the joints of the one person that fills a picture.

    Args:
        task: with its weights and skeleton.
        transform: cuts a person out of a picture.
        min_confidence: joints below it are not drawn; the record has them all.
    """

    def __init__(self, task: PoseTask, transform: PoseTransform, min_confidence: float) -> None:
        self.task, self.transform, self.min_confidence = task, transform, min_confidence

    def __call__(self, pictures: Sequence[Image.Image]) -> list[tuple[dict[str, Any], Image.Image]]:
        """For each picture a record of its ``joints``, in pixels of the picture held upright, and the picture
        with the skeleton on it."""
        # photographs are stored as the camera was held: turned upright, as every viewer shows them
        upright = [np.asarray(ImageOps.exif_transpose(picture)) for picture in pictures]
        samples = [self.transform(PosePicture(image, whole_picture(image, self.task))) for image in upright]
        batch = {name: value.to(self.task.device) for name, value in default_collate(samples).items()}
        found = self.task.predict_step(batch, 0)
        results = []
        for image, joints, confidence in zip(upright, found["joints"], found["confidence"], strict=True):
            joints, confidence = joints.cpu().numpy(), confidence.cpu().numpy()
            record = [
                {"joint": name, "x": float(x), "y": float(y), "confidence": float(sure)}
                for name, (x, y), sure in zip(self.task.skeleton.joints, joints, confidence, strict=True)
            ]
            drawn = draw_pose(image, joints, confidence >= self.min_confidence, self.task.skeleton)
            results.append(({"joints": record}, Image.fromarray(drawn)))
        return results


def whole_picture(image: np.ndarray, task: PoseTask) -> Person:
    """A person without known joints whose box is the square round the picture.

    Args:
        image: ``(H, W, 3)``.
        task: tells how many joints there are.
    """
    height, width = image.shape[:2]
    num_joints = len(task.skeleton.joints)
    center = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    nowhere = np.zeros((num_joints, 2), np.float32)
    return Person(nowhere, np.zeros(num_joints, bool), center, float(max(height, width)))
