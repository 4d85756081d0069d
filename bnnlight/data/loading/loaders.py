"""What all image data modules share: views of a data set, and the loaders over them."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from bnnlight.data.bad_images import ImageLoader, LeaveOut, OnBadImage, Readable, check_choice
from bnnlight.data.by_value import SmallByValue
from bnnlight.data.sampling import SameSampler, TrainSampler, UnpaddedSampler, items_at, no_items, run_seed, seeded_by
from bnnlight.data.train_loader import TrainLoader
from bnnlight.data.transforms import ImageFormat
from bnnlight.data.worker_signals import hear_of_lost_workers, outlive_stop_signals

MAX_DEFAULT_WORKERS = 8


def default_num_workers() -> int:
    """Count the CPU cores this process may use, at most eight of them."""
    # A job scheduler often grants fewer cores than the machine has.
    has_affinity = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(MAX_DEFAULT_WORKERS, num_cores)


class View(Dataset):
    """Chosen items of a data set, each picture seen through a transform.

    Two views of one data set share its memory; so training and held-out images can come
    from the same files and differ in augmentation.

    A position that is a :class:`bnnlight.data.sampling.Draw` rules the transform's random numbers.

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


class ImageDataModule(LightningDataModule):
    """Base of all data modules: the loaders over ``train_set``, ``val_set`` and ``test_set``.

    A subclass sets the three in ``setup``. Several processes share a set among them: see
    :mod:`bnnlight.data.sampling`.

    Args:
        batch_size: images in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        on_bad_image: what to do about an image file that cannot be read: "stop" with an error, or "skip" it, which
            leaves a batch smaller; see :mod:`bnnlight.data.bad_images`.
    """

    def __init__(self, batch_size: int, num_workers: int | None, on_bad_image: OnBadImage = "stop") -> None:
        super().__init__()
        check_choice(on_bad_image)
        self.on_bad_image = on_bad_image
        self._named: set[str] = set()
        self.batch_size = batch_size
        self.num_workers = default_num_workers() if num_workers is None else num_workers
        if self.num_workers > 0:
            hear_of_lost_workers()
        self.train_set: Dataset | None = None
        self.val_set: Dataset | None = None
        self.test_set: Dataset | None = None

    def train_dataloader(self) -> DataLoader:
        """Load shuffled, augmented batches; the last, incomplete one is dropped.

        With ``trainer.overfit_batches`` the batches are not shuffled, and are the same each epoch, pixel for pixel.
        """
        num_processes, rank = self._processes()
        # Batch statistics of a few left-over images are poor, but some batch is better than none.
        drop_last = len(self.train_set) // num_processes >= self.batch_size
        # Without seed_everything each process has a seed of its own, yet all must draw from one order.
        seed = self.trainer.strategy.broadcast(run_seed()) if self.trainer else run_seed()
        sampler_class = SameSampler if getattr(self.trainer, "overfit_batches", 0) else TrainSampler
        sampler = sampler_class(self.train_set, seed, num_processes, rank, drop_last)
        return self._loader(self.train_set, kind=TrainLoader, sampler=sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader:
        """Load the validation images in order, each in one process alone."""
        return self._measuring_loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """Load the test images in order, each in one process alone."""
        return self._measuring_loader(self.test_set)

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _measuring_loader(self, view: Dataset) -> DataLoader:
        num_processes, rank = self._processes()
        if num_processes == 1:
            return self._loader(view, may_be_empty=True)
        collate = no_items if rank >= len(view) else default_collate
        sampler = UnpaddedSampler(view, num_processes, rank)
        return self._loader(view, collate, may_be_empty=True, sampler=sampler)

    def _loader(
        self,
        view: Dataset,
        collate: Callable = default_collate,
        may_be_empty: bool = False,
        kind: type[ImageLoader] = ImageLoader,
        **options: Any,
    ) -> ImageLoader:
        if self.on_bad_image == "skip":
            view = Readable(view, self._named)
            collate = LeaveOut(collate, self.batch_size, view if may_be_empty else None)
        return kind(
            view,
            collate_fn=SmallByValue(collate),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=outlive_stop_signals if self.num_workers > 0 else None,
            pin_memory=torch.cuda.is_available(),
            # Each pass over a loader draws a number: from the global generator, it would be the training's.
            generator=torch.Generator().manual_seed(run_seed()),
            **options,
        )


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
