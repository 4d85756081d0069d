"""`ImageDataModule`, the base of all data modules: the loaders over its three sets."""

import os
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, default_collate

from bnnlight.data.loading.bad_images import ImageLoader, LeaveOut, OnBadImage, Readable
from bnnlight.data.loading.by_value import SmallByValue
from bnnlight.data.loading.sampling import SameSampler, TrainSampler, UnpaddedSampler, no_items, run_seed
from bnnlight.data.loading.train_loader import TrainLoader
from bnnlight.data.loading.views import ItemView
from bnnlight.data.loading.worker_signals import hear_of_lost_workers, outlive_stop_signals

MAX_DEFAULT_WORKERS = 8


def default_num_workers() -> int:
    """Count the CPU cores this process may use, at most eight of them."""
    # A job scheduler often grants fewer cores than the machine has.
    has_affinity = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(MAX_DEFAULT_WORKERS, num_cores)


class ImageDataModule(LightningDataModule):
    """Base of all data modules: the loaders over ``train_set``, ``val_set`` and ``test_set``.

    A subclass names its ``view``, sets ``train_transform`` and ``eval_transform`` in its constructor and the three sets
    in ``setup``. Several processes share a set among them: see :mod:`bnnlight.data.loading.sampling`.

    Args:
        batch_size: images in a batch, per process.
        num_workers: loader processes; None takes one for each available CPU core, at most 8.
        on_bad_image: what to do about an image file that cannot be read: "stop" with an error, or "skip" it, which
            leaves a batch smaller; see :mod:`bnnlight.data.loading.bad_images`.

    Raises:
        ValueError: on_bad_image is neither "stop" nor "skip".
    """

    view: type[ItemView]

    def __init__(self, batch_size: int, num_workers: int | None, on_bad_image: OnBadImage = "stop") -> None:
        super().__init__()
        if on_bad_image not in get_args(OnBadImage):
            raise ValueError(f"on_bad_image is {on_bad_image!r}: give {' or '.join(get_args(OnBadImage))}")
        self.on_bad_image = on_bad_image
        self._named: set[str] = set()
        self.batch_size = batch_size
        self.num_workers = default_num_workers() if num_workers is None else num_workers
        if self.num_workers > 0:
            hear_of_lost_workers()
        self.train_set: Dataset | None = None
        self.val_set: Dataset | None = None
        self.test_set: Dataset | None = None

    def augmented(self, items: Any, indices: Sequence[int] | None = None) -> ItemView:
        """View items as training images."""
        return self.view(items, self.train_transform, indices)

    def plain(self, items: Any, indices: Sequence[int] | None = None) -> ItemView:
        """View items as images to measure on."""
        return self.view(items, self.eval_transform, indices)

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
        """Load the validation images in order, each in one process only."""
        return self._measuring_loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """Load the test images in order, each in one process only."""
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
