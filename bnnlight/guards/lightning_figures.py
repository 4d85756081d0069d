"""Adapter for what is private to Lightning, second half: the figures that it has logged and sums up.

Lightning sums what steps log by ``self.log(…)`` in an object of each loop that no checkpoint keeps. :func:`sums` takes
it as plain data. ``lightning_internals.py`` is the first half, and checks that all private parts are there.
"""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.trainer.connectors.logger_connector import result as lightning_result
from torch import Tensor


def figures(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    """The newest value of each logged key, as callbacks, loggers and the progress bar see it."""
    return {kind: {key: plain(value) for key, value in values.items()} for kind, values in _figures(trainer).items()}


def restore_figures(trainer: L.Trainer, saved: dict[str, dict[str, Any]]) -> None:
    """Puts back what :func:`figures` found."""
    device = trainer.strategy.root_device
    for kind, target in _figures(trainer).items():
        values = saved.get(kind, {})  # a process that there was not before has none
        target.update({key: v.to(device) if isinstance(v, Tensor) else v for key, v in values.items()})


def sums(trainer: L.Trainer) -> list[dict[str, Any]]:
    """What the training steps of this epoch have logged by ``self.log(…)``, for the epoch's end summed so far."""
    return [
        _of_result(key, result)
        for key, result in trainer.fit_loop.epoch_loop._results.items()
        if not (result.meta.enable_graph or result.has_reset)
    ]


def restore_sums(trainer: L.Trainer, saved: list[dict[str, Any]]) -> None:
    """Puts back what :func:`sums` found, and lets the epoch go on as one that has begun."""
    modules = dict(trainer.lightning_module.named_modules())
    device = trainer.strategy.root_device
    for entry in saved:
        meta, sync = lightning_result._Metadata(**entry["meta"]), entry["sync"]
        meta.sync = lightning_result._Sync(
            _should=sync["should"], fn=trainer.strategy.reduce, rank_zero_only=sync["rank_zero_only"]
        )
        result = lightning_result._ResultMetric(meta, entry["is_tensor"]).to(device)
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


def log_step(trainer: L.Trainer) -> None:
    """Logs the figures of the step that was taken last, as Lightning does behind a step."""
    connector, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
    if loop._results:
        connector._first_loop_iter = False
        connector.on_batch_end()
        connector.update_train_step_metrics()


def plain(value: Any) -> Any:
    """A value that stays as it is; a tensor as a copy on the CPU."""
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def _figures(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    """Lightning's own dictionaries."""
    return {
        "callback": trainer.callback_metrics,
        "logged": trainer.logged_metrics,
        "progress_bar": trainer.progress_bar_metrics,
    }


def _of_result(key: str, result: Any) -> dict[str, Any]:
    meta = result.meta
    names = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "add_dataloader_idx", "dataloader_idx")
    options = {name: getattr(meta, name) for name in (*names, "metric_attribute")}
    values = ("value", "cumulated_batch_size", "_forward_cache") if result.is_tensor else ()
    return {
        "key": key,
        "meta": options | {"reduce_fx": meta.reduce_fx.__name__},
        "sync": {"should": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only},
        "is_tensor": result.is_tensor,
        "values": {name: plain(getattr(result, name)) for name in values if hasattr(result, name)},
    }
