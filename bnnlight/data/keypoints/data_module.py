"""`PoseDataModule`, the base of pose data modules, and `PoseView`, items seen through a transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from bnnlight.data.keypoints.person import PosePicture
from bnnlight.data.keypoints.transforms import PoseAugmentation, PoseTransform
from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.data.loading.loaders import ImageDataModule
from bnnlight.data.loading.sampling import items_at, seeded_by
from bnnlight.imaging.pose_crop import MEAN, STD
from bnnlight.imaging.skeletons import Skeleton


class PoseItems(Protocol):
    """What a pose data set has to offer."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> PosePicture: ...


class PoseView(Dataset):
    """Chosen items of a pose data set, each seen through a transform.

    A position that is a :class:`bnnlight.data.loading.sampling.Draw` rules the transform's random numbers.

    Args:
        items: yields :class:`PosePicture`.
        transform: from a picture to a sample.
        indices: the items to show, in order; all if None.
    """

    def __init__(self, items: PoseItems, transform: PoseTransform, indices: Sequence[int] | None = None) -> None:
        self.items, self.transform = items, transform
        self.indices = range(len(items)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        with seeded_by(position):
            return self.transform(self.items[self.indices[position]])

    __getitems__ = items_at


class PoseDataModule(ImageDataModule):
    """Base of the pose data modules: the attributes that a task and a command need.

    A subclass sets ``train_set``, ``val_set`` and ``test_set`` in ``setup``. A batch is a dictionary; see
    :class:`bnnlight.data.keypoints.transforms.PoseTransform` for its entries.

    Args:
        skeleton: names of the joints, pairs, limbs.
        image_size: width and height of the network's input, px.
        augmentation: of the training pictures; None is none.
        batch_size: pictures in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        on_bad_image: what to do about an image file that cannot be read: "stop" or "skip" it.

    Attributes:
        num_channels: 3 (RGB).
        has_head_sizes: whether people to measure on have head boxes, without which there is no PCKh.
        eval_transform: from a :class:`PosePicture` to a sample, without randomness.
    """

    num_channels = 3
    has_head_sizes = True

    def __init__(
        self,
        skeleton: Skeleton,
        image_size: int,
        augmentation: PoseAugmentation | None,
        batch_size: int,
        num_workers: int | None,
        on_bad_image: OnBadImage = "stop",
    ) -> None:
        super().__init__(batch_size, num_workers, on_bad_image)
        self.skeleton, self.image_size = skeleton, image_size
        self.train_transform = PoseTransform(skeleton, image_size, augmentation)
        self.eval_transform = PoseTransform(skeleton, image_size)

    def augmented(self, items: PoseItems, indices: Sequence[int] | None = None) -> PoseView:
        """View items as training pictures."""
        return PoseView(items, self.train_transform, indices)

    def plain(self, items: PoseItems, indices: Sequence[int] | None = None) -> PoseView:
        """View items as pictures to measure on."""
        return PoseView(items, self.eval_transform, indices)

    def to_pixels(self, images: Tensor) -> np.ndarray:
        """Undo the normalization: ``(N, 3, H, W)`` float to ``(N, H, W, 3)`` uint8, RGB."""
        pixels = 255 * (images.float().cpu().numpy().transpose(0, 2, 3, 1) * STD + MEAN)
        return pixels.round().clip(0, 255).astype(np.uint8)
