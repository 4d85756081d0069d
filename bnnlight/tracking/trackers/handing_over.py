"""Hands over to all loggers of a trainer, to each what its tracker can take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from lightning.pytorch.loggers import CometLogger, CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnnlight.tracking.failing_loggers import attempt
from bnnlight.tracking.trackers.comet import Comet
from bnnlight.tracking.trackers.csv_files import CSVFiles
from bnnlight.tracking.trackers.mlflow import MLflow
from bnnlight.tracking.trackers.tensorboard import TensorBoard
from bnnlight.tracking.trackers.tracker import Tracker
from bnnlight.tracking.trackers.wandb import Wandb

T = TypeVar("T")

TRACKERS: dict[type[Logger], type[Tracker]] = {
    WandbLogger: Wandb,
    TensorBoardLogger: TensorBoard,
    MLFlowLogger: MLflow,
    CometLogger: Comet,
    CSVLogger: CSVFiles,
}
"""Lightning's logger, whose module imports no tracker's package → what its tracker takes."""


@rank_zero_only
def hand_figures(
    loggers: Sequence[Logger], figures: Mapping[str, float], values: Mapping[str, np.ndarray], step: int
) -> None:
    """Hands figures over, and arrays of which a tracker shows a histogram if it can.

    Args:
        loggers: the trainer's.
        figures: key → number.
        values: key → array ``(N,)`` of float64, finite.
        step: the optimizer step.
    """
    _each(loggers, "log_metrics", lambda tracker: tracker.figures(figures, values, step))


@rank_zero_only
def hand_picture(loggers: Sequence[Logger], key: str, path: Path, step: int) -> None:
    """Hands a picture over.

    Args:
        loggers: the trainer's.
        key: such as ``val/pictures``.
        path: of a PNG.
        step: the optimizer step.
    """
    _each(loggers, "log_image", lambda tracker: tracker.picture(key, path, step))


@rank_zero_only
def hand_table(loggers: Sequence[Logger], key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Hands a table over.

    Args:
        loggers: the trainer's.
        key: such as ``bnn/layers``.
        columns: their names.
        rows: one value a column.
    """
    _each(loggers, "log_table", lambda tracker: tracker.table(key, columns, rows))


@rank_zero_only
def hand_config(loggers: Sequence[Logger], config: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> None:
    """Hands over what the run is made of.

    Args:
        loggers: the trainer's.
        config: nested, as in ``config.yaml``.
        own: version, commit and command.
        path: of ``config.yaml``.
    """
    _each(loggers, "log_hyperparams", lambda tracker: tracker.config(config, own, path))


@rank_zero_only
def finish(loggers: Sequence[Logger]) -> None:
    """Ends the run in all trackers, once all is handed over."""
    _each(loggers, "finish", lambda tracker: tracker.finish())


def to_go_on(loggers: Sequence[Logger]) -> dict[str, dict[str, str]]:
    """By what loggers go on with the run. To be asked on rank zero.

    Returns:
        Name of each logger's class, as :func:`numbered` has it → arguments of another logger of the class.
    """
    found = _each(loggers, "version", lambda tracker: tracker.to_go_on())
    names = numbered([type(logger).__name__ for logger in loggers])
    return {name: arguments for name, arguments in zip(names, found, strict=True) if arguments}


def numbered(names: Sequence[str]) -> list[str]:
    """Names with a number behind the second one of a kind, and those that follow: ``["a", "b", "a 2"]``."""
    return [f"{name} {names[:i].count(name) + 1}" if name in names[:i] else name for i, name in enumerate(names)]


def places(loggers: Sequence[Logger]) -> dict[str, str]:
    """Where the run is to be seen: what → path or command. To be asked on rank zero."""
    shown: dict[str, str] = {}
    for of_one in _each(loggers, "places", lambda tracker: tracker.places()):
        shown |= of_one or {}
    return shown


def _each(loggers: Sequence[Logger], what: str, call: Callable[[Tracker], T]) -> list[T | None]:
    return [attempt(logger, what, partial(call, _tracker(logger))) for logger in loggers]


def _tracker(logger: Logger) -> Tracker:
    return next((tracker for kind, tracker in TRACKERS.items() if isinstance(logger, kind)), Tracker)(logger)
