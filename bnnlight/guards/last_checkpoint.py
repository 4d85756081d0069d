"""The checkpoint from which a stopped run goes on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from bnnlight.guards.run_state import (
    metric_states,
    of_all_processes,
    random_states,
    restore_metric_states,
    restore_random_states,
    share_of,
)
from bnnlight.guards.stop_signals import Agreement, Stopped, StopSignals

_PROCESSES = "processes"
"""Entry of a checkpoint: for each process its random states and metrics under way."""

_VALIDATION = "epoch_loop.val_loop.batch_progress"
"""Lightning's name for its count of validation batches."""


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt``: after each validation, within an epoch, and when the run is told to stop.

    A run that goes on from it is the run that was not stopped, bit for bit on a CPU: beside what Lightning saves it
    holds the position in the data, the states of all random generators in every process, and the metrics under way.
    Two are kept, ``last.ckpt`` and the one before it, ``previous.ckpt``, in case the newer one gets damaged.

    Within an epoch, a checkpoint is of a moment between two steps, after all that the step logs was logged; with
    gradient accumulation, between two optimizer steps. It is written as the next batch begins.

    Args:
        steps: optimizer steps from one checkpoint to the next; None: steps alone save nothing.
        minutes: minutes from one checkpoint to the next; None: time alone saves nothing.
        dirpath: directory of the two files; the run's ``checkpoints`` unless given.

    Raises:
        ValueError: steps or minutes are not positive.
    """

    def __init__(self, steps: int | None = None, minutes: float | None = 10.0, dirpath: str | None = None) -> None:
        for name, value in (("steps", steps), ("minutes", minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"last_checkpoint.{name} is {value}: give a positive number, or null for none")
        self.steps, self.minutes, self.dirpath = steps, minutes, dirpath
        self.signals = StopSignals()
        self._agreement: Agreement | None = None
        self._saved_step = self._stepped = -1
        self._saved_at = time.monotonic()
        self._is_other = True
        self._pending: _Point | None = None
        self._validating: _Point | None = None
        self._saving: _Point | None = None
        self._restored: dict[str, Any] | None = None
        self._positions: list[dict[str, Any]] = []

    @property
    def path(self) -> Path:
        """Where the newest checkpoint lies."""
        return Path(self.dirpath or ".") / "last.ckpt"

    @property
    def _next(self) -> Path:
        return self.path.with_name("next.ckpt")

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.take()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.take()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._agreement = Agreement(trainer.world_size)
        self._saved_step = self._stepped = trainer.global_step
        self._saved_at = time.monotonic()
        # of another run, or the best one, after which this run was broken off before it had saved the last
        self._is_other = Path(trainer.ckpt_path or "") not in (self.path, self._next)
        if self._restored is not None:
            if "random" in self._restored:
                restore_random_states(self._restored["random"], trainer.strategy.root_device)
            restore_metric_states(pl_module, self._restored["metrics"])
            self._restored = None
            # Lightning itself does so where a schedule has not asked for the length of the loader before
            if self._positions and hasattr(trainer.train_dataloader, "load_state_dict"):
                trainer.train_dataloader.load_state_dict(self._positions[0])
        self.signals.hold()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        point, self._pending = self._pending, None
        if point is not None:
            self._save(trainer, point)
        self._ask(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if trainer.world_size == 1:  # it need not ask before the step, to hear the others after it
            self._ask(trainer)
        stop, late = self._agreement.answer()
        stepped, self._stepped = trainer.global_step != self._stepped, trainer.global_step
        many = self.steps is not None and trainer.global_step >= self._saved_step + self.steps
        # Lightning cannot go on behind an epoch's last batch; but the validation or the next epoch save soon after it
        if (stop or late or many) and stepped and not trainer.is_last_batch:
            self._pending = self._point(trainer, stop)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._trains(trainer):
            return
        self._pending = None
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        # a run that was stopped while validating has counted a batch that it started and did not end
        progress.total.ready = progress.total.started = progress.total.processed = progress.total.completed
        self._ask(trainer)
        stop, late = self._agreement.answer()
        self._validating = _before_validation(self._point(trainer, stop))
        if stop or late:
            self._save(trainer, self._validating)

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        # several processes cannot agree here, as they may have different numbers of batches
        if self._validating is not None and self.signals.received is not None and trainer.world_size == 1:
            self._save(trainer, replace(self._validating, stop=True))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._trains(trainer):
            return
        self._ask(trainer)
        stop, _ = self._agreement.answer()
        point, self._validating = self._point(trainer, stop), None
        self._save(trainer, point)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.release()
        # the last steps had no validation behind them, or there were none
        if trainer.global_step != self._saved_step or self._is_other:
            self._save(trainer, self._point(trainer, stop=False))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.is_global_zero and self._next.exists():  # of an earlier start, broken off; nothing came after it
            self._rotate()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # also asked for the checkpoints that others save, which are of this very moment
        point = self._saving or self._point(trainer, stop=False)
        checkpoint["loops"]["fit_loop"] = point.loops
        checkpoint[_PROCESSES] = of_all_processes(point.process, self._agreement.group if self._agreement else None)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        _follow_moved_run(trainer, checkpoint)
        self._positions = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
        if _PROCESSES in checkpoint:
            self._restored = share_of(trainer.global_rank, trainer.world_size, checkpoint[_PROCESSES])

    def _trains(self, trainer: L.Trainer) -> bool:
        """Whether a validation is part of a training."""
        return self._agreement is not None and not trainer.sanity_checking and trainer.state.fn == TrainerFn.FITTING

    def _ask(self, trainer: L.Trainer) -> None:
        waited_s = time.monotonic() - self._saved_at
        late = self.minutes is not None and waited_s >= 60 * self.minutes
        # clocks differ: rank zero's counts
        self._agreement.ask(self.signals.received is not None, late and trainer.is_global_zero)

    def _point(self, trainer: L.Trainer, stop: bool) -> _Point:
        # the validation's own metrics are still full when it ends, and are to begin empty
        before = self._validating.process["metrics"] if self._validating else None
        process = {
            "random": random_states(trainer.strategy.root_device),
            "metrics": metric_states(trainer.lightning_module) if before is None else before,
        }
        return _Point(trainer.fit_loop.state_dict(), process, stop)

    def _rotate(self) -> None:
        # whenever this is broken off, the new checkpoint and the one before it are both there; where an error breaks it
        # off, as last.ckpt too: torch raises one at any moment, even between the moves, when a loader process is lost
        try:
            if self.path.exists():
                os.replace(self.path, self.path.with_name("previous.ckpt"))
        finally:
            if not self.path.exists():
                os.replace(self._next, self.path)

    def _save(self, trainer: L.Trainer, point: _Point) -> None:
        self._saving = point
        try:
            trainer.save_checkpoint(self._next, weights_only=False)
            if trainer.is_global_zero:
                self._rotate()
        finally:
            self._saving = None
        self._saved_step, self._saved_at, self._is_other = trainer.global_step, time.monotonic(), False
        if point.stop and trainer.local_rank == 0:
            raise Stopped(self.signals.received, saved=True)
        if point.stop:
            # Lightning kills rank zero, which may still have to send figures, if a process that it started fails
            raise SystemExit(0)


@dataclass(frozen=True)
class _Point:
    """A moment at which a run can be taken up: Lightning's counters, this process's states, whether to stop there."""

    loops: dict[str, Any]
    process: dict[str, Any]
    stop: bool


def _before_validation(point: _Point) -> _Point:
    """The same moment, told to Lightning as one at which the validation's first batch was begun and not ended."""
    for part, shift in (("total", point.loops[_VALIDATION]["total"]["completed"]), ("current", 0)):
        count = point.loops[_VALIDATION][part]
        count.update(ready=shift + 1, started=shift + 1, processed=shift, completed=shift)
    return point


def _follow_moved_run(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
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
