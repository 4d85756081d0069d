"""Makes ModelCheckpoint and EarlyStopping forget the best figure so far."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from bnnlight.guards.lightning_internals import forget_last_save


def forget_best(trainer: L.Trainer) -> None:
    """Makes each ModelCheckpoint with a monitor, and each EarlyStopping, start over.

    Files of the best so far are removed; with ``save_top_k`` -1 they stay.
    """
    for checkpoint in callbacks_of(trainer, ModelCheckpoint):
        if checkpoint.monitor is None:
            continue
        if checkpoint.save_top_k != -1:
            for path in checkpoint.best_k_models:
                trainer.strategy.remove_checkpoint(path)
        checkpoint.best_k_models, checkpoint.best_model_score, checkpoint.current_score = {}, None, None
        checkpoint.best_model_path = checkpoint.kth_best_model_path = ""
        checkpoint.kth_value = torch.tensor(math.inf if checkpoint.mode == "min" else -math.inf)
        forget_last_save(checkpoint)
    for stopping in callbacks_of(trainer, EarlyStopping):
        stopping.wait_count = stopping.stopped_epoch = 0
        stopping.best_score = torch.tensor(math.inf if stopping.mode == "min" else -math.inf)
        trainer.should_stop = False


def callbacks_of(trainer: L.Trainer, kind: type) -> list[Any]:
    """A trainer's callbacks of one kind."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]
