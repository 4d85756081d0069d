"""Checks before training: monitors that nothing logs, validations that never come, data that do not fit."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Checkpoint

from bnnlight.data.loading.loaders import ImageDataModule
from bnnlight.experiment.experiment import Experiment

_OF_CALLBACKS = ("bnn/", "data/", "time/", "mem/", "stage/", "train/skipped_batches")
"""Keys that callbacks hand to the loggers; Lightning can monitor what a task logs, and learning rates."""

_OPTION = re.compile(r"\bmodel\.backbone\.(?P<name>\w+)")


def check_plan(experiment: Experiment) -> None:
    """Looks for monitors that nothing logs, and for a validation that never comes. Reads no data.

    Args:
        experiment: of ``fit``.

    Raises:
        ValueError: a monitor never gets a value in the run, or the validation would come after the run's end.
    """
    trainer = experiment.trainer
    if trainer.fast_dev_run or not _trains(trainer):
        return
    reason = _why_no_validation(trainer)
    if reason and trainer.limit_val_batches:
        raise ValueError(f"no validation would ever take place: {reason}")
    monitors = list(_monitors(experiment))
    keys = _logged(experiment)
    for owner, key, is_checkpoint in monitors:
        if keys is not None and key not in keys and not key.startswith("lr-"):
            raise ValueError(f"{owner} {key!r}, {_not_logged(key, keys)}")
        if reason and key.startswith("val/") and not is_checkpoint:
            raise ValueError(f"{owner} {key!r}, and no validation would ever take place: {reason}")
    if reason and trainer.is_global_zero and any(is_checkpoint for *_, is_checkpoint in monitors):
        print(f"bnnlight fit: no validation ({reason}), and so no best checkpoint", file=sys.stderr, flush=True)


def check_data(experiment: Experiment, stage: str) -> None:
    """Compares the data with the network, by the task's method ``check_data`` if it has one, and with the plan.

    Args:
        experiment: whose data module is set up.
        stage: ``fit``, ``validate`` or ``test``.

    Raises:
        ValueError: they do not fit.
    """
    trainer, data = experiment.trainer, experiment.datamodule
    if check := getattr(experiment.model, "check_data", None):
        try:
            check(data, stage)
        except ValueError as error:
            raise ValueError(_OPTION.sub(lambda found: _as_typed(found, experiment.config), str(error))) from error
    if stage == "fit" and isinstance(data, ImageDataModule) and trainer.world_size == 1 and _trains(trainer):
        _check_val_interval(trainer, len(data.train_dataloader()))


def _as_typed(found: re.Match[str], config: Namespace) -> str:
    """An option of the backbone as it is typed, also where `start_from` or the like is handed the network."""
    name, path, part = found["name"], "model.backbone", _options(config.get("model")).get("backbone")
    while name not in _options(part) and isinstance(_options(part).get("model"), Namespace):
        path, part = f"{path}.model", _options(part).get("model")
    return f"{path}.{name}" if name in _options(part) else found[0]


def _options(part: Any) -> Any:
    return (part.get("init_args") if isinstance(part, Namespace) else None) or {}


def _check_val_interval(trainer: L.Trainer, num_batches: int) -> None:
    limit = trainer.limit_train_batches
    num = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
    total = num * trainer.max_epochs if trainer.max_epochs not in (None, -1) else math.inf
    if trainer.max_steps not in (None, -1):
        total = min(total, trainer.max_steps * trainer.accumulate_grad_batches)
    interval = trainer.val_check_interval
    if not trainer.limit_val_batches or not isinstance(interval, int) or isinstance(interval, bool):
        return
    if trainer.check_val_every_n_epoch is None and interval > total:
        raise ValueError(
            "no validation would ever take place: "
            f"trainer.val_check_interval is {interval} batches, and the run has {total}"
        )
    if trainer.check_val_every_n_epoch is not None and interval > num:
        raise ValueError(
            f"trainer.val_check_interval is {interval} batches, and an epoch has {num}: lower it, or set "
            "trainer.check_val_every_n_epoch to null to count over epochs"
        )


def _trains(trainer: L.Trainer) -> bool:
    return trainer.max_epochs != 0 and trainer.max_steps != 0 and trainer.limit_train_batches != 0


def _why_no_validation(trainer: L.Trainer) -> str:
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if not trainer.limit_val_batches:
        return "trainer.limit_val_batches is 0"
    if every and epochs not in (None, -1) and every > epochs:
        return f"trainer.check_val_every_n_epoch is {every}, and trainer.max_epochs {epochs}"
    return ""


def _monitors(experiment: Experiment) -> Iterator[tuple[str, str, bool]]:
    """Who waits for a key, as a sentence begins, the key, and whether it is a checkpoint."""
    own = experiment.config_init.checkpoint
    for callback in experiment.trainer.callbacks:
        key = getattr(callback, "monitor", None)
        # one that is not strict goes on without
        if isinstance(key, str) and getattr(callback, "strict", True):
            owner = "checkpoint.monitor is" if callback is own else f"{type(callback).__name__} monitors"
            yield owner, key, isinstance(callback, Checkpoint)
    yield from _schedules(experiment.config.model)


def _schedules(config: Namespace) -> Iterator[tuple[str, str, bool]]:
    # a schedule is made only once there is an optimizer
    for value in vars(config).values():
        if isinstance(value, Namespace):
            arguments = value.get("init_args")
            if str(value.get("class_path", "")).endswith("ReduceLROnPlateau") and arguments and "monitor" in arguments:
                yield "ReduceLROnPlateau monitors", arguments.monitor, False
            yield from _schedules(value)


def _logged(experiment: Experiment) -> set[str] | None:
    """Keys that can be monitored; None where they are not known: a task, or a callback, may log what it likes."""
    task, callbacks = experiment.model, experiment.trainer.callbacks
    # a class derived from one that tells may log more
    tells = "logged" in vars(type(task))
    if not tells or not all(type(c).__module__.startswith(("bnnlight.", "lightning.")) for c in callbacks):
        return None
    return task.logged(experiment.datamodule) | {"epoch", "step"}


def _not_logged(key: str, keys: set[str]) -> str:
    if key.startswith(_OF_CALLBACKS):
        return f"which goes only to the loggers: what can be monitored is {', '.join(_short(keys))}"
    longer = [k for k in sorted(keys) if "/" in key and k.startswith(key)]  # acc1 before acc5
    near = longer or get_close_matches(key.replace("_", "/"), keys, 1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else f"it logs {', '.join(_short(keys))}"
    return f"which the task never logs: {hint}"


def _short(keys: set[str]) -> list[str]:
    names = sorted(keys - {"epoch", "step"})
    return names if len(names) <= 12 else [*names[:12], "…"]
