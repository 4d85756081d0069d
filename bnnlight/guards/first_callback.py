"""`FirstCallback`: tells `LastCheckpoint` of each hook before any other callback hears of it."""

from __future__ import annotations

from typing import Any

import lightning as L


class FirstCallback(L.Callback):
    """Runs before all other callbacks and tells the last one, which Lightning puts behind them.

    Args:
        last: whom to tell: a :class:`bnnlight.guards.last_checkpoint.LastCheckpoint`, which imports this file, or what
            else has its methods ``before_…``.
    """

    def __init__(self, last: Any) -> None:
        self.last = last

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last.before_train(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last.before_epoch(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self.last.before_batch(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self.last.before_step_end(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last.before_validation(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last.before_epoch_end(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last.before_train_end(trainer)
