"""`PoseDataModule`, the base of pose data modules, and `PoseView`, what they show."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor

from bnnlight.data.keypoints.person import PosePicture
from bnnlight.data.keypoints.transforms import PoseAugmentation, PoseTransform
from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.data.loading.loaders import ImageDataModule
from bnnlight.data.loading.views import ItemView
from bnnlight.imaging.pose_crop import MEAN, STD
from bnnlight.imaging.skeletons import Skeleton


class PoseItems(Protocol):
    """What a pose data set has to offer."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> PosePicture: ...


class PoseView(ItemView):
    """Chosen :class:`PoseItems`, each seen through a :class:`bnnlight.data.keypoints.transforms.PoseTransform`."""


class PoseDataModule(ImageDataModule):
    """Base of the pose data modules: the attributes that a task and a command need.

    A subclass sets ``train_set``, ``val_set`` and ``test_set`` in ``setup``. A batch is a dictionary; see
    :class:`bnnlight.data.keypoints.transforms.PoseTransform` for its entries.

    Args:
        skeleton: names of the joints, pairs, limbs; None where a subclass has the attribute itself, and hands it to the
            transforms, once its files are read.
        image_size: width and height of the network's input, px.
        augmentation: of the training pictures; None for none.
        batch_size: pictures in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        on_bad_image: what to do about an image file that cannot be read: "stop" or "skip" it.

    Attributes:
        num_channels: 3 (RGB).
        has_head_sizes: whether people to measure on have head boxes, without which there is no PCKh.
        has_boxes: whether they have boxes, without which there is no PCK by the box.
        box_padding: side of the square that is cut out, divided by the longer side of a box; None where people have no
            boxes.
        eval_transform: from a :class:`PosePicture` to a sample, without randomness.
    """

    view = PoseView
    num_channels = 3
    has_head_sizes = True
    has_boxes = False
    box_padding: float | None = None

    def __init__(
        self,
        skeleton: Skeleton | None,
        image_size: int,
        augmentation: PoseAugmentation | None,
        batch_size: int,
        num_workers: int | None,
        on_bad_image: OnBadImage = "stop",
    ) -> None:
        super().__init__(batch_size, num_workers, on_bad_image)
        if skeleton is not None:
            self.skeleton = skeleton
        self.image_size = image_size
        self.train_transform = PoseTransform(skeleton, image_size, augmentation)
        self.eval_transform = PoseTransform(skeleton, image_size)

    def to_pixels(self, images: Tensor) -> np.ndarray:
        """Undo the normalization: ``(N, 3, H, W)`` float to ``(N, H, W, 3)`` uint8, RGB."""
        pixels = 255 * (images.float().cpu().numpy().transpose(0, 2, 3, 1) * STD + MEAN)
        return pixels.round().clip(0, 255).astype(np.uint8)
