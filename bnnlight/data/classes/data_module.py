"""`ClassificationDataModule`, the base of data modules with classes, and `View`, what they show."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.data.loading.loaders import ImageDataModule
from bnnlight.data.loading.transforms import ImageFormat
from bnnlight.data.loading.views import ItemView


class View(ItemView):
    """Chosen pictures of a data set, each seen through a transform, with their labels.

    Args:
        items: has a length and yields (picture, label).
        transform: picture to tensor.
        indices: the items to show, in order; all if None.
    """

    def sample(self, item: tuple[Any, int]) -> tuple[torch.Tensor, int]:
        picture, label = item
        return self.transform(picture), int(label)


class ClassificationDataModule(ImageDataModule):
    """Base of the data modules with classes: the attributes a network is built from.

    A subclass sets ``classes``, ``train_set``, ``val_set`` and ``test_set`` in ``setup``.

    Args:
        image_format: what the network's input looks like.
        augmentation: transforms of the training images.
        batch_size: images in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        on_bad_image: what to do about an image file that cannot be read: "stop", or "skip" it.
        more_transforms: further transforms of the training images, after the augmentation.

    Attributes:
        num_channels: 1 (grey) or 3 (RGB).
        image_size: width and height of the network's input, px.
        eval_transform: any PIL image or uint8 tensor to a float32 tensor
            (num_channels, image_size, image_size), resized and normalized, without randomness.
        train_transform: the same for training images, with the augmentation.
        classes: names in the order of the labels; there after ``setup``, or before it where the
            data set has fixed names.
    """

    classes: list[str]
    view = View

    def __init__(
        self,
        image_format: ImageFormat,
        augmentation: Sequence[nn.Module],
        batch_size: int,
        num_workers: int | None,
        on_bad_image: OnBadImage = "stop",
        more_transforms: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, on_bad_image)
        self.image_format = image_format
        self.num_channels = image_format.num_channels
        self.image_size = image_format.image_size
        self.eval_transform = image_format.eval_transform()
        self.train_transform = image_format.train_transform([*augmentation, *(more_transforms or ())])

    def to_pixels(self, images: torch.Tensor) -> np.ndarray:
        """Undo the normalization: ``(N, num_channels, H, W)`` float to ``(N, H, W, 3)`` uint8, RGB."""
        channels = images.float().cpu().numpy().transpose(0, 2, 3, 1)
        pixels = 255 * (channels * self.image_format.std + self.image_format.mean)
        return np.broadcast_to(pixels.round().clip(0, 255).astype(np.uint8), (*pixels.shape[:3], 3))
