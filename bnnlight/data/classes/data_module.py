"""`ClassificationDataModule`, the base of data modules with classes, and `View`, items seen through a transform."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from bnnlight.data.loading.bad_images import OnBadImage
from bnnlight.data.loading.loaders import ImageDataModule
from bnnlight.data.loading.sampling import items_at, seeded_by
from bnnlight.data.loading.transforms import ImageFormat


class View(Dataset):
    """Chosen items of a data set, each picture seen through a transform.

    Two views of one data set share its memory; so training and held-out images can come
    from the same files and differ in augmentation.

    A position that is a :class:`bnnlight.data.loading.sampling.Draw` rules the transform's random numbers.

    Args:
        items: has a length and yields (picture, label).
        transform: picture to tensor.
        indices: the items to show, in order; all if None.
    """

    def __init__(
        self,
        items: Any,
        transform: Callable[[Any], torch.Tensor],
        indices: Sequence[int] | None = None,
    ):
        self.items = items
        self.transform = transform
        self.indices = range(len(items)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        with seeded_by(position):
            picture, label = self.items[self.indices[position]]
            return self.transform(picture), int(label)

    __getitems__ = items_at


class ClassificationDataModule(ImageDataModule):
    """Base of the data modules with classes: the attributes a network is built from.

    A subclass sets ``classes``, ``train_set``, ``val_set`` and ``test_set`` in ``setup``.

    Args:
        image_format: what the network's input looks like.
        augmentation: transforms of the training images.
        batch_size: images in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        on_bad_image: what to do about an image file that cannot be read: "stop" or "skip" it.

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

    def __init__(
        self,
        image_format: ImageFormat,
        augmentation: Sequence[nn.Module],
        batch_size: int,
        num_workers: int | None,
        on_bad_image: OnBadImage = "stop",
    ) -> None:
        super().__init__(batch_size, num_workers, on_bad_image)
        self.image_format = image_format
        self.num_channels = image_format.num_channels
        self.image_size = image_format.image_size
        self.eval_transform = image_format.eval_transform()
        self.train_transform = image_format.train_transform(augmentation)

    def augmented(self, items: Any, indices: Sequence[int] | None = None) -> View:
        """View items as training images."""
        return View(items, self.train_transform, indices)

    def plain(self, items: Any, indices: Sequence[int] | None = None) -> View:
        """View items as images to measure on."""
        return View(items, self.eval_transform, indices)

    def to_pixels(self, images: torch.Tensor) -> np.ndarray:
        """Undo the normalization: ``(N, num_channels, H, W)`` float to ``(N, H, W, 3)`` uint8, RGB."""
        channels = images.float().cpu().numpy().transpose(0, 2, 3, 1)
        pixels = 255 * (channels * self.image_format.std + self.image_format.mean)
        return np.broadcast_to(pixels.round().clip(0, 255).astype(np.uint8), (*pixels.shape[:3], 3))
