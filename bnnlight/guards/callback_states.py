"""What a checkpoint holds of callbacks, made to fit the run that goes on from it."""

from __future__ import annotations

import os
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


def keep_patience(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Lets EarlyStopping wait as long as it is told to now; Lightning would put back what it was told before."""
    for callback in trainer.early_stopping_callbacks:
        state = checkpoint["callbacks"].get(callback.state_key, {})
        if "patience" in state:
            state["patience"] = callback.patience


def follow_moved_run(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Lets ModelCheckpoint find the best checkpoints of a run whose directory has another path than it had.

    Lightning would forget them, and take the next checkpoint for the best, whatever it is worth.
    """
    for callback in trainer.checkpoint_callbacks:
        state = checkpoint["callbacks"].get(callback.state_key)
        if not isinstance(callback, ModelCheckpoint) or not state or state["dirpath"] == callback.dirpath:
            continue
        here = {path: os.path.join(callback.dirpath, os.path.basename(path)) for path in state["best_k_models"]}
        if here and all(map(os.path.exists, here.values())):
            state["dirpath"] = callback.dirpath
            state["best_k_models"] = {here[path]: score for path, score in state["best_k_models"].items()}
            for name in ("best_model_path", "kth_best_model_path"):
                state[name] = here.get(state[name], "")
