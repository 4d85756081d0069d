"""Adapter for what is private to Lightning, first half: how far a run is, and how it goes on from there.

Lightning 2.6 keeps where a run is in counters of its loops. Taken up from them, it repeats or leaves out hooks at an
epoch's and a validation's end. :func:`placed` writes the counters of four moments that it does take up well, and
:func:`take_up` does what is left to do when it starts from them. What it has logged and sums up is the part of
``lightning_figures.py``. :func:`check_layout` looks whether this Lightning has all that the two rely on.

It is here, not in ``experiment``, because guards and callbacks need it, and may not import from above.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.connectors.logger_connector import result as lightning_result
from torch import Tensor

from bnnlight.guards.lightning_figures import log_step, plain

Place = Literal["step", "validation", "batch", "epoch"]
"""What a run that is taken up does first.

- ``step``: logs the figures of the step that has just been taken, then goes on as after any step.
- ``validation``: validates, then goes on as after any validation.
- ``batch``: takes the next batch; where the epoch has no more of them, it ends the epoch with all of its hooks.
- ``epoch``: begins an epoch.
"""

_BATCH, _EPOCH = "epoch_loop.batch_progress", "epoch_progress"
_VALIDATION = "epoch_loop.val_loop.batch_progress"
_MODEL_CHECKPOINT = ("_last_global_step_saved", "_last_checkpoint_saved", "_defer_save_until_validation")
_CHECKPOINT_FIGURE = "current_score"
_RESULT_CLASSES = ("_Metadata", "_ResultMetric", "_Sync")
_TRAINER = (
    "fit_loop._data_fetcher",
    "fit_loop.epoch_loop._batches_that_stepped",
    "fit_loop.epoch_loop._num_ready_batches_reached",
    "fit_loop.epoch_loop._results",
    "fit_loop.epoch_loop._should_accumulate",
    "fit_loop.epoch_loop._should_check_val_fx",
    "fit_loop.epoch_loop.val_loop._has_run",
    "_logger_connector._first_loop_iter",
    "_logger_connector.on_batch_end",
    "_logger_connector.update_train_step_metrics",
)


def check_layout(trainer: L.Trainer) -> None:
    """To be called before a training, which would else fail as it saves, hours later.

    Raises:
        ValueError: this version of Lightning lacks a part that this file, or ``lightning_figures.py``, relies on.
    """
    check_parts(trainer, _TRAINER)
    check_parts(lightning_result, _RESULT_CLASSES)
    check_parts(trainer.fit_loop, (_BATCH, _EPOCH, _VALIDATION))  # in a state, Lightning names them by where they are
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            check_parts(callback, _MODEL_CHECKPOINT)


def check_parts(owner: Any, names: Sequence[str], file: str = "bnnlight/guards/lightning_internals.py") -> None:
    """Tells in one line what Lightning has moved.

    Args:
        owner: a part of Lightning.
        names: of attributes, with dots for those of attributes.
        file: of this package, which relies on them.

    Raises:
        ValueError: the owner lacks one.
    """
    lacking = [name for name in names if not _has(owner, name)]
    if lacking:
        title = getattr(owner, "__name__", type(owner).__name__)
        raise ValueError(
            f"lightning {L.__version__}: {title} has no {', '.join(lacking)} any more: "
            f"install lightning 2.6, or adapt {file}"
        )


def _has(owner: Any, name: str) -> bool:
    try:
        attrgetter(name)(owner)
    except AttributeError:
        return False
    return True


def placed(loops: dict[str, Any], place: Place) -> dict[str, Any]:
    """The loops' counters, as ``trainer.fit_loop.state_dict()`` gives them, for one of four places.

    Within the hooks of a step's end they are those behind that step.
    """
    loops = copy.deepcopy(loops)
    within_step = loops[_BATCH]["total"]["processed"] == loops[_BATCH]["total"]["completed"] + 1
    if within_step and place == "batch":
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    for part in ("total", "current"):
        batch, epoch = loops[_BATCH][part], loops[_EPOCH][part]
        num_batches = batch["processed" if within_step else "completed"]
        batch.update(ready=num_batches, started=num_batches, processed=num_batches, completed=num_batches)
        begun = 0 if place == "epoch" else 1
        num_epochs = epoch["completed"]
        epoch.update(ready=num_epochs + begun, started=num_epochs + begun, processed=num_epochs)
    # of an earlier validation, and of no use to the next
    loops[_VALIDATION]["is_last_batch"] = False
    loops[_VALIDATION]["current"].update(ready=0, started=0, processed=0, completed=0)
    if place == "epoch":
        # where the last epoch ended in the data is not a place to begin the next
        loops["state_dict"].pop("combined_loader", None)
    elif place != "batch":
        # as if a validation's first batch had been begun and not ended: then Lightning validates, if it is time
        for part, shift in (("total", loops[_VALIDATION]["total"]["completed"]), ("current", 0)):
            count = loops[_VALIDATION][part]
            count.update(ready=shift + 1, started=shift + 1, processed=shift, completed=shift)
    return loops


def set_epoch(trainer: L.Trainer, epoch: int) -> None:
    """Makes ``trainer.current_epoch`` what it was as a training ended, where there is nothing left to train."""
    trainer.fit_loop.epoch_progress.current.completed = epoch


def take_up(trainer: L.Trainer, place: Place) -> bool:
    """To be called in ``on_train_start`` of a run that was taken up at a place.

    Returns:
        Whether plateau schedules that count steps have to rest until the next batch begins: Lightning would let them
        take the same step once more.
    """
    loop = trainer.fit_loop.epoch_loop
    if place == "epoch":
        # else it would think itself within the epoch that has ended
        for each in (trainer.fit_loop, loop, loop.val_loop):
            each.on_iteration_done()
        return False
    due = loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
    is_last = loop._num_ready_batches_reached()
    if place == "step":
        log_step(trainer)
        if not due:
            loop.update_lr_schedulers("step", update_plateau_schedulers=True)
            if not loop._should_accumulate():
                loop._batches_that_stepped += 1
    if is_last and not due:
        # it would ask the loader for one more batch, which hands it out where `limit_train_batches` is all that ended
        # the epoch
        loop.val_loop._has_run = True
    return due and place == "batch"


def resumed_epoch_ends(trainer: L.Trainer) -> None:
    """To be called as the first thing in ``on_train_epoch_end``.

    Lightning leaves out a plateau schedule's step at the end of the epoch in which a run was taken up.
    """
    if trainer.fit_loop.restarting:
        trainer.fit_loop.restarting = False
        trainer.fit_loop.epoch_loop.on_iteration_done()


def is_within_step(trainer: L.Trainer) -> bool:
    """Whether a step's weights are updated, and not all of its hooks have run."""
    count = trainer.fit_loop.epoch_loop.batch_progress.total
    return count.ready == count.processed == count.completed + 1


def is_epoch_whole(trainer: L.Trainer) -> bool:
    """Whether all batches of the epoch were trained on; where steps or EarlyStopping end a run, some are left."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def forget_broken_validation(trainer: L.Trainer) -> None:
    """Makes the count of validation batches right, where one was begun before the run was stopped, and not ended."""
    total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
    total.ready = total.started = total.processed = total.completed


def checkpoint_states(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    """What ModelCheckpoint leaves out of its state: its last step, whether a save is put off, the last figure."""
    return {
        callback.state_key: {name: getattr(callback, name) for name in (*_MODEL_CHECKPOINT, _CHECKPOINT_FIGURE)}
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
    }


def restore_checkpoint_states(trainer: L.Trainer, states: dict[str, dict[str, Any]]) -> None:
    """Puts back what :func:`checkpoint_states` found."""
    for callback in trainer.checkpoint_callbacks:
        for name, value in states.get(callback.state_key, {}).items():
            setattr(callback, name, value)


def forget_last_save(checkpoint: ModelCheckpoint) -> None:
    """Lets a ModelCheckpoint save again at the step of its last save."""
    checkpoint._last_global_step_saved = 0


def gathered_gradients(trainer: L.Trainer) -> dict[str, Tensor]:
    """What batches have gathered for an optimizer step that is yet to come; nothing between two steps."""
    if not trainer.fit_loop.epoch_loop._should_accumulate():
        return {}
    named = trainer.lightning_module.named_parameters()
    return {name: plain(parameter.grad) for name, parameter in named if parameter.grad is not None}


def restore_gradients(trainer: L.Trainer, gradients: dict[str, Tensor]) -> None:
    """Puts back what :func:`gathered_gradients` found."""
    for name, parameter in trainer.lightning_module.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)
