"""States of callbacks in a checkpoint, made to fit the run that goes on from it."""

from __future__ import annotations

import os
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn


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


def frozen_parts(model: nn.Module) -> dict[str, list[str]]:
    """What a finetuning callback has frozen: parameters without gradient, batch norms that keep no statistics.

    Lightning freezes again as a run is taken up, and does not thaw what it had thawed.
    """
    return {
        "parameters": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
        "norms": [name for name, norm in _norms(model).items() if not norm.track_running_stats],
    }


def restore_frozen_parts(model: nn.Module, frozen: dict[str, list[str]]) -> None:
    """Puts back what :func:`frozen_parts` found."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen["parameters"])
    for name, norm in _norms(model).items():
        norm.track_running_stats = name not in frozen["norms"]


def _norms(model: nn.Module) -> dict[str, Any]:
    # those that were made without statistics never kept any, frozen or not
    modules = {name: module for name, module in model.named_modules() if hasattr(module, "track_running_stats")}
    return {name: module for name, module in modules.items() if getattr(module, "running_mean", None) is not None}
