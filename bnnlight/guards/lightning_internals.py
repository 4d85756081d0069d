"""Every private part of Lightning that the guards touch, each in a function that says why.

Lightning 2.6 keeps where a run is in counters of its loops. Taken up from them, it repeats or leaves out hooks at an
epoch's and a validation's end. :func:`placed` writes the counters of four moments that it does take up well, and
:func:`take_up` does what is left to do when it starts from them. ``tests/guards/test_lightning_internals.py`` fails
where another Lightning has another layout.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

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
        # where the last epoch ended in the data is no place to begin the next
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
        _log_step(trainer)
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


def figures(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    """The newest value of each logged key, as callbacks, loggers and the progress bar see it."""
    connector = trainer._logger_connector
    found = {"callback": trainer.callback_metrics, "logged": connector.logged_metrics}
    kept = {kind: {key: _plain(value) for key, value in values.items()} for kind, values in found.items()}
    return kept | {"progress_bar": dict(trainer.progress_bar_metrics)}


def restore_figures(trainer: L.Trainer, kept: dict[str, dict[str, Any]]) -> None:
    """Puts back what :func:`figures` found."""
    connector, device = trainer._logger_connector, trainer.strategy.root_device
    targets = connector._callback_metrics, connector._logged_metrics, connector._progress_bar_metrics
    for kind, target in zip(("callback", "logged", "progress_bar"), targets, strict=True):
        values = kept.get(kind, {})  # a process that there was not before has none
        target.update({key: v.to(device) if isinstance(v, Tensor) else v for key, v in values.items()})


def sums(trainer: L.Trainer) -> list[dict[str, Any]]:
    """What the training steps of this epoch have logged by ``self.log(…)``, for the epoch's end summed so far."""
    return [
        _of_result(key, result)
        for key, result in trainer.fit_loop.epoch_loop._results.items()
        if not (result.meta.enable_graph or result.has_reset)
    ]


def restore_sums(trainer: L.Trainer, kept: list[dict[str, Any]]) -> None:
    """Puts back what :func:`sums` found, and lets the epoch go on as one that has begun."""
    from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync

    modules = dict(trainer.lightning_module.named_modules())
    device = trainer.strategy.root_device
    for entry in kept:
        meta = _Metadata(**entry["meta"])
        told = entry["sync"]
        meta.sync = _Sync(_should=told["should"], fn=trainer.strategy.reduce, rank_zero_only=told["rank_zero_only"])
        result = _ResultMetric(meta, entry["is_tensor"]).to(device)
        if not entry["is_tensor"]:
            metric = modules.get(meta.metric_attribute)
            if metric is None:
                continue
            result.value = metric
        for name, value in entry["values"].items():
            setattr(result, name, value.to(device) if isinstance(value, Tensor) else value)
        result._update_count = 1
        trainer.fit_loop.epoch_loop._results[entry["key"]] = result
    # else the first batch would be taken for the epoch's, and the sums begun anew
    trainer._logger_connector._first_loop_iter = False


def gathered_gradients(trainer: L.Trainer) -> dict[str, Tensor]:
    """What batches have gathered for an optimizer step that is yet to come; nothing between two steps."""
    if not trainer.fit_loop.epoch_loop._should_accumulate():
        return {}
    named = trainer.lightning_module.named_parameters()
    return {name: _plain(parameter.grad) for name, parameter in named if parameter.grad is not None}


def restore_gradients(trainer: L.Trainer, kept: dict[str, Tensor]) -> None:
    """Puts back what :func:`gathered_gradients` found."""
    for name, parameter in trainer.lightning_module.named_parameters():
        if name in kept:
            parameter.grad = kept[name].to(parameter.device)


def _of_result(key: str, result: Any) -> dict[str, Any]:
    meta = result.meta
    names = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "add_dataloader_idx", "dataloader_idx")
    kept = {name: getattr(meta, name) for name in (*names, "metric_attribute")}
    values = ("value", "cumulated_batch_size", "_forward_cache") if result.is_tensor else ()
    return {
        "key": key,
        "meta": kept | {"reduce_fx": meta.reduce_fx.__name__},
        "sync": {"should": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only},
        "is_tensor": result.is_tensor,
        "values": {name: _plain(getattr(result, name)) for name in values if hasattr(result, name)},
    }


def _log_step(trainer: L.Trainer) -> None:
    connector, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
    if loop._results:
        connector._first_loop_iter = False
        connector.on_batch_end()
        connector.update_train_step_metrics()


def _plain(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def frozen_parts(model: nn.Module) -> dict[str, list[str]]:
    """What a finetuning callback has frozen: parameters without gradient, batch norms that keep no statistics.

    Lightning freezes again as a run is taken up, and does not thaw what it had thawed.
    """
    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return {
        "parameters": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
        "norms": [name for name, norm in norms if not norm.track_running_stats],
    }


def restore_frozen_parts(model: nn.Module, kept: dict[str, list[str]]) -> None:
    """Puts back what :func:`frozen_parts` found."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in kept["parameters"])
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = name not in kept["norms"]

