"""`Moment`: a place in the training at which a run can go on, and what a checkpoint holds of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint

from bnnlight.guards import lightning_figures
from bnnlight.guards import lightning_internals as internals
from bnnlight.guards.callback_states import frozen_parts, restore_frozen_parts
from bnnlight.guards.run_state import metric_states, of_all_processes, random_states
from bnnlight.tracking.log_book import LogBook
from bnnlight.tracking.metrics_file import MetricsFile, read_rows

PROCESSES = "processes"
"""Entry of a checkpoint: for each process its random states, metrics and figures under way."""
MOMENT = "moment"
"""Entry of a checkpoint: the rest of a :class:`Moment`."""


@dataclass(frozen=True)
class Moment:
    """Where a run is taken up, and what it knew there.

    Attributes:
        place: what it does first.
        loops: Lightning's counters.
        process: of this process: states of random generators and metrics, figures logged so far.
        run: of the run: what callbacks and network keep in no ``state_dict``.
        callbacks: states of all callbacks (for ``step``, only of those that save); None: as they are when the
            checkpoint is written.
        ended: whether the training had come to its end.
    """

    place: internals.Place
    loops: dict[str, Any]
    process: dict[str, Any]
    run: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] | None = None
    ended: bool = False

    @classmethod
    def now(cls, trainer: L.Trainer, place: internals.Place, metrics: dict[str, Any] | None = None) -> Moment:
        """This moment.

        Args:
            trainer: of the run.
            place: what the run does next.
            metrics: states of the task's metrics, where they are those of another moment.
        """
        process = {
            "random": random_states(trainer.strategy.root_device),
            "metrics": metric_states(trainer.lightning_module) if metrics is None else metrics,
            "figures": lightning_figures.figures(trainer),
            "sums": [] if place == "epoch" else lightning_figures.sums(trainer),
            "gradients": {} if place == "epoch" else internals.gathered_gradients(trainer),
        }
        return cls(place, internals.placed(trainer.fit_loop.state_dict(), place), process)

    def with_callbacks(self, trainer: L.Trainer) -> Moment:
        """The same, with the states that callbacks have now: hooks that run from here on are to run again."""
        states = {callback.state_key: callback.state_dict() for callback in trainer.callbacks}
        copies = {key: copy.deepcopy(state) for key, state in states.items() if state}
        return replace(self, run=_of_run(trainer), callbacks=copies)

    def before_saves(self, trainer: L.Trainer, states: dict[str, dict[str, Any]]) -> Moment:
        """The same, with what :func:`checkpoints_now` found before any of them may have saved."""
        run = _of_run(trainer) | {"checkpoints": states["checkpoints"]}
        return replace(self, run=run, callbacks=states["callbacks"])

    def at_end(self, trainer: L.Trainer) -> Moment:
        """The same, and that the training has ended since, with the last figures of all."""
        last = {"figures": lightning_figures.figures(trainer), "epoch": trainer.current_epoch}
        return replace(self, process=self.process | {"last": last}, ended=True)

    def write(self, trainer: L.Trainer, checkpoint: dict[str, Any], group: Any) -> None:
        """Puts it into a checkpoint. All processes have to call it together.

        Args:
            trainer: of the run.
            checkpoint: as Lightning has made it.
            group: of all processes; None for a single one.
        """
        checkpoint["loops"]["fit_loop"] = self.loops
        checkpoint[PROCESSES] = of_all_processes(self.process, group)
        run = self.run or _of_run(trainer)
        checkpoint[MOMENT] = {"place": self.place, "callbacks": self.callbacks, "ended": self.ended, **run}


def _of_run(trainer: L.Trainer) -> dict[str, Any]:
    return {
        "checkpoints": internals.checkpoint_states(trainer),
        "frozen": frozen_parts(trainer.lightning_module),
        "should_stop": bool(trainer.should_stop),
        "logged": {name: book.state() for name, book in _log_books(trainer).items()},
    }


def _log_books(trainer: L.Trainer) -> dict[str, LogBook]:
    books = {type(logger).__name__: getattr(logger, "book", None) for logger in trainer.loggers}
    return {name: book for name, book in books.items() if isinstance(book, LogBook)}


def checkpoints_now(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    """States of all ModelCheckpoints; quick enough for each step."""
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    states = {callback.state_key: callback.state_dict() for callback in callbacks}
    copies = {key: state | {"best_k_models": dict(state["best_k_models"])} for key, state in states.items()}
    return {"callbacks": copies, "checkpoints": internals.checkpoint_states(trainer)}


def restore_process(trainer: L.Trainer, process: dict[str, Any]) -> None:
    """Puts back what a checkpoint's entry :data:`PROCESSES` holds of figures and gradients."""
    lightning_figures.restore_figures(trainer, process.get("figures", {}))
    if process.get("sums"):
        lightning_figures.restore_sums(trainer, process["sums"])
    internals.restore_gradients(trainer, process.get("gradients", {}))


def restore_run(trainer: L.Trainer, moment: dict[str, Any]) -> None:
    """Puts back what a checkpoint's entry :data:`MOMENT` holds of callbacks, network and loggers."""
    internals.restore_checkpoint_states(trainer, moment["checkpoints"])
    restore_frozen_parts(trainer.lightning_module, moment["frozen"])
    for name, book in _log_books(trainer).items():
        if name in moment.get("logged", {}):
            book.go_on(moment["logged"][name])


def restore_logged(trainer: L.Trainer) -> None:
    """Puts back a validation's figures from the run's file, for a checkpoint of an earlier version, which holds none.

    It may lie between a validation and what callbacks do with its figures at the epoch's end.
    """
    for logger in trainer.loggers:
        if isinstance(logger, MetricsFile) and logger.path.exists():
            rows = [row for row in read_rows(logger.path) if row["step"] <= trainer.global_step]
            newest = {key: torch.tensor(row[key]) for row in rows for key in row if key.startswith("val/")}
            lightning_figures.restore_figures(trainer, {"callback": newest})


def batches_a_step(trainer: L.Trainer) -> int:
    """``accumulate_grad_batches`` of the epoch under way, whose start a callback that sets it may not be told of."""
    for callback in trainer.callbacks:
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches(trainer.current_epoch)
    return trainer.accumulate_grad_batches
