"""Logs how many pictures were left out because they cannot be read."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
import torch

from bnnlight.callbacks.interval import Interval, log_figures


class BadImages(L.Callback):
    """Logs ``data/bad_images`` where the data leave out what cannot be read (``--data.on_bad_image skip``).

    It is how many pictures were missing from the training batches so far, in all processes together: one picture
    counts in each epoch. A value is logged when it has grown. For validation and test, a line on stderr says how many
    pictures were left out, again only when that has changed.

    A loader that leaves out pictures has two attributes: ``skipped``, the numbers of pictures missing from the batches
    that it handed out, and ``named``, a set of what the user was already told. See
    :class:`bnnlight.data.loading.bad_images.ImageLoader`. Other loaders are left alone.

    Args:
        interval: number of optimizer steps between two looks; there is one at the end of each epoch too.

    Raises:
        ValueError: the interval is below 1.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = Interval(interval)
        self._count, self._since, self._logged = 0, 0, 0
        self._measured = 0
        self._reported: dict[str, int] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.interval.start(trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        # The loader may be a batch ahead of the training, so that its own sum is not that of this step. Not as the
        # batch begins, when the run may be saved as it was before that.
        self._since += _missing(trainer.train_dataloader)
        if self.interval.due(trainer.global_step):
            self._look(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)
        _share_names(trainer, trainer.train_dataloader)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # not by `state_dict`, which has no trainer to ask the other processes with; all of them save together
        self._gather(trainer)
        checkpoint["bad_images"] = {"count": self._count, "logged": self._logged, "step": self.interval.last_step}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # a run from before there was this callback, or without it, has none
        if saved := checkpoint.get("bad_images"):
            self._count, self._logged = saved["count"], saved["logged"]
            self.interval.resume(saved["step"])

    def on_validation_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self._measured += _missing(trainer.val_dataloaders)

    def on_test_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self._measured += _missing(trainer.test_dataloaders)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._say(trainer, trainer.val_dataloaders, "validation")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._say(trainer, trainer.test_dataloaders, "test")

    def _look(self, trainer: L.Trainer) -> None:
        self._gather(trainer)
        if self._count > self._logged:
            self._logged = self._count
            log_figures(trainer, {"data/bad_images": float(self._count)})

    def _gather(self, trainer: L.Trainer) -> None:
        """Adds what all processes counted since the last time. All of them have to call it."""
        self._count += _sum(trainer, self._since, trainer.train_dataloader)
        self._since = 0

    def _say(self, trainer: L.Trainer, loader: Any, split: str) -> None:
        count = _sum(trainer, self._measured, loader)
        self._measured = 0
        _share_names(trainer, loader)
        if trainer.sanity_checking or count == self._reported.get(split, 0):
            return
        self._reported[split] = count
        if trainer.is_global_zero:
            what = "picture was" if count == 1 else "pictures were"
            print(f"{split}: {count} {what} left out, unreadable", file=sys.stderr, flush=True)


def _missing(loader: Any) -> int:
    """Pictures missing from the oldest batch that is not counted yet."""
    counts = getattr(loader, "skipped", None)
    return counts.popleft() if counts else 0


def _leaves_out(loader: Any) -> bool:
    return getattr(loader, "named", None) is not None


def _sum(trainer: L.Trainer, number: int, loader: Any) -> int:
    # what the loader is, is the same in all processes; where nothing is left out, none has to wait for another
    if not _leaves_out(loader) or trainer.world_size == 1:
        return number
    tensor = torch.tensor(number, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(tensor, reduce_op="sum"))


def _share_names(trainer: L.Trainer, loader: Any) -> None:
    """Tells the other processes which files were named, so that a file is named by one of them."""
    if _leaves_out(loader) and trainer.world_size > 1:
        names: list[set[str] | None] = [None] * trainer.world_size
        torch.distributed.all_gather_object(names, loader.named)
        loader.named.update(*names)
