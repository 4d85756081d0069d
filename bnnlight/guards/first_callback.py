"""`FirstCallback`: tells `LastCheckpoint` of each hook before any other callback hears of it."""

from __future__ import annotations

from typing import Any, Protocol

import lightning as L


class FirstHooks(Protocol):
    """What :class:`bnnlight.guards.last_checkpoint.LastCheckpoint` offers for its first callback."""

    def before_train(self, trainer: L.Trainer) -> None: ...

    def before_epoch(self, trainer: L.Trainer) -> None: ...

    def before_batch(self, trainer: L.Trainer) -> None: ...

    def before_step_end(self, trainer: L.Trainer) -> None: ...

    def before_validation(self, trainer: L.Trainer) -> None: ...

    def before_epoch_end(self, trainer: L.Trainer) -> None: ...

    def before_train_end(self, trainer: L.Trainer) -> None: ...


class FirstCallback(L.Callback):
    """Runs before all other callbacks and tells the last one, which Lightning puts behind them.

    Args:
        last: whom to tell.
    """

    def __init__(self, last: FirstHooks) -> None:
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
