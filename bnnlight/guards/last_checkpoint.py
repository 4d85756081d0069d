"""`LastCheckpoint`: writes the checkpoint from which a stopped run goes on."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from bnnlight.guards import lightning_internals as internals
from bnnlight.guards.callback_states import follow_moved_run, keep_patience
from bnnlight.guards.first_callback import FirstCallback
from bnnlight.guards.lightning_figures import restore_figures
from bnnlight.guards.moment import (
    MOMENT,
    PROCESSES,
    Moment,
    batches_a_step,
    checkpoints_now,
    restore_logged,
    restore_process,
    restore_run,
)
from bnnlight.guards.run_state import restore_metric_states, restore_random_states, share_of
from bnnlight.guards.stop_signals import Agreement, Stopped, StopSignals


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt``: after each validation, within an epoch, and when the run is told to stop.

    A run that goes on from it is the run that was not stopped, bit for bit on a CPU: beside what Lightning saves it
    holds the position in the data, the states of all random generators in every process, and the metrics and figures
    under way. Two are kept, ``last.ckpt`` and the one before it, ``previous.ckpt``, in case the newer one gets damaged.

    It is written between two steps or two epochs, before any callback hears of the next one: all that is done and
    logged behind a step, a validation or an epoch has been done by then. With gradient accumulation it is between two
    optimizer steps. Checkpoints that others write at the end of a validation or an epoch, when some hooks have run and
    some have not, hold the moment before: a run that goes on from them validates once more, and all hooks of that end
    run once.

    Args:
        steps: optimizer steps from one checkpoint to the next; None: steps alone save nothing.
        minutes: minutes from one checkpoint to the next; None: time alone saves nothing.
        dirpath: directory of the two files; the run's ``checkpoints`` unless given.

    Attributes:
        goes_on: whether a training that was ended before its last epoch, as by EarlyStopping, is to go on.

    Raises:
        ValueError: steps or minutes are not positive; as a training begins, a Lightning with another layout.
    """

    def __init__(self, steps: int | None = None, minutes: float | None = 10.0, dirpath: str | None = None) -> None:
        for name, value in (("steps", steps), ("minutes", minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"last_checkpoint.{name} is {value}: give a positive number, or null for none")
        self.steps, self.minutes, self.dirpath = steps, minutes, dirpath
        self.goes_on = False
        self.signals = StopSignals()
        self.first = FirstCallback(self)
        self._agreement: Agreement | None = None
        # what is to be saved between this step or epoch and the next; what a checkpoint holds that others write at the
        # end under way; what it holds once the training has ended; what is being written
        self._pending: Moment | None = None
        self._before: Moment | None = None
        self._end: Moment | None = None
        self._saving: Moment | None = None
        # of a run that goes on: what is to be put back, once more in a later hook, and where it was taken up
        self._restored: dict[str, Any] | None = None
        self._again: dict[str, Any] | None = None
        self._taken_up: Moment | None = None
        self._saved_step = self._stepped = -1
        self._saved_at = time.monotonic()
        self._is_due = self._stop = False
        self._checkpoints: dict[str, Any] = {}
        self._positions: list[dict[str, Any]] = []
        self._resting: list[tuple[Any, int]] = []

    @property
    def path(self) -> Path:
        """Where the newest checkpoint lies."""
        return Path(self.dirpath or ".") / "last.ckpt"

    @property
    def _next(self) -> Path:
        return self.path.with_name("next.ckpt")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and self.first not in trainer.callbacks:
            internals.check_layout(trainer)
            trainer.callbacks.insert(0, self.first)

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.take()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.take()

    # what `first` calls, before any other callback

    def before_train(self, trainer: L.Trainer) -> None:
        """A training begins, or goes on."""
        self._agreement = Agreement(trainer.world_size)
        if self._restored is None:
            return
        restored = self._restored
        restore_metric_states(trainer.lightning_module, restored["metrics"])
        if MOMENT not in restored:  # of an earlier version
            restore_logged(trainer)
            return
        place = restored[MOMENT]["place"]
        restore_run(trainer, restored[MOMENT])
        restore_process(trainer, restored)
        configured, trainer.accumulate_grad_batches = trainer.accumulate_grad_batches, batches_a_step(trainer)
        if place == "step":
            self._save_again(trainer)
        if internals.take_up(trainer, place):
            plateaus = [c for c in trainer.lr_scheduler_configs if c.reduce_on_plateau and c.interval == "step"]
            self._resting = [(config, config.frequency) for config in plateaus]
            for config in plateaus:
                config.frequency = sys.maxsize
        # GradientAccumulationScheduler, whose turn is next, refuses any other
        trainer.accumulate_grad_batches = configured

    def before_batch(self, trainer: L.Trainer) -> None:
        """A batch begins."""
        self._go_on()
        moment, self._pending = self._pending, None
        if moment is not None:
            self._save(trainer, moment)
        self._ask(trainer)

    def before_step_end(self, trainer: L.Trainer) -> None:
        """The hooks of a step's end begin, in which others may save."""
        self._checkpoints = checkpoints_now(trainer)

    def before_validation(self, trainer: L.Trainer) -> None:
        """A validation begins."""
        if not self._trains(trainer):
            return
        internals.forget_broken_validation(trainer)
        self._restore_random(trainer, "validation")
        self._pending = None
        self._ask(trainer)
        self._stop, late = self._agreement.answer()
        self._before = Moment.now(trainer, "validation").with_callbacks(trainer)
        if self._stop or late:
            self._save(trainer, self._before)

    def before_epoch_end(self, trainer: L.Trainer) -> None:
        """An epoch ends."""
        internals.resumed_epoch_ends(trainer)
        self._restore_random(trainer, "batch")
        here = Moment.now(trainer, "batch").with_callbacks(trainer)
        validated = self._pending if self._before else None
        self._before = self._before or here
        # steps, or whoever asked for an end, may end the training within an epoch: more steps would go on from there
        if not internals.is_epoch_whole(trainer):
            self._end = replace(validated, run=here.run, callbacks=here.callbacks) if validated else here

    def before_epoch(self, trainer: L.Trainer) -> None:
        """An epoch begins."""
        self._restore_random(trainer, "epoch")
        is_due = self._is_due or self._pending is not None
        self._go_on()
        self._pending = self._end = None
        if is_due or self._stop:
            self._save(trainer, Moment.now(trainer, "epoch"))

    def before_train_end(self, trainer: L.Trainer) -> None:
        """A training ends."""
        self._go_on_schedules()
        self._pending = None
        self._end = self._end or Moment.now(trainer, "epoch").with_callbacks(trainer)
        self._before = self._end

    # its own hooks, behind those of all other callbacks

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_step = self._stepped = trainer.global_step
        self._saved_at = time.monotonic()
        self._pending = self._before = self._end = None
        self._is_due = self._stop = False
        if self._restored is not None:
            restored, self._restored = self._restored, None
            trainer.accumulate_grad_batches = batches_a_step(trainer)
            place = restored.get(MOMENT, {}).get("place")
            if "random" in restored:
                restore_random_states(restored["random"], trainer.strategy.root_device)
                self._again = {"place": place, "random": restored["random"]}
            # Lightning itself does so where a schedule has not asked for the length of the loader before
            if place != "epoch" and self._positions and hasattr(trainer.train_dataloader, "load_state_dict"):
                trainer.train_dataloader.load_state_dict(self._positions[0])
        if trainer.ckpt_path and Path(trainer.ckpt_path).parent.resolve() == self.path.parent.resolve():
            # Lightning never removes the checkpoint that it was told to go on from; the run itself would in its time
            trainer.ckpt_path = None
        self.signals.hold()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if trainer.world_size == 1:  # it need not ask before the step, to hear the others after it
            self._ask(trainer)
        stop, late = self._agreement.answer()
        stepped, self._stepped = trainer.global_step != self._stepped, trainer.global_step
        many = self.steps is not None and trainer.global_step >= self._saved_step + self.steps
        if (stop or late or many) and stepped:
            self._stop = stop
            self._pending = Moment.now(trainer, "batch")

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        # several processes cannot agree here, as they may have different numbers of batches
        if self._trains(trainer) and self.signals.received is not None and trainer.world_size == 1:
            self._stop = True
            self._save(trainer, self._before)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._trains(trainer):
            return
        self._ask(trainer)
        self._stop, _ = self._agreement.answer()
        self._is_due = True
        # the validation's own metrics are still full, and are to begin empty
        self._pending = Moment.now(trainer, "batch", self._before.process["metrics"])

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.release()
        self._ask(trainer)
        late_stop, _ = self._agreement.answer()
        # not before the others: what they do and log here would be lost if the run were killed meanwhile
        stop, self._stop = self._stop or late_stop, False
        self._save(trainer, self._end.at_end(trainer))
        self._stop = stop

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._restored is not None and "last" in self._restored:  # there was nothing left to train
            restore_figures(trainer, self._restored["last"]["figures"])
            internals.set_epoch(trainer, self._restored["last"]["epoch"])
        self._restored = None
        self._leave_if_stopping(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.is_global_zero and self._next.exists():  # of an earlier start, broken off; nothing came after it
            self._rotate()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # also asked for the checkpoints that others save
        if self._agreement is None:  # before the training, as a tuner does it
            return
        moment = self._saving or self._before
        if moment is None and internals.is_within_step(trainer):
            moment = Moment.now(trainer, "step").before_saves(trainer, self._checkpoints)
        moment = moment or Moment.now(trainer, "batch")
        moment.write(trainer, checkpoint, self._agreement.group)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        moment = checkpoint.get(MOMENT)
        if trainer.state.fn == TrainerFn.FITTING and moment:
            if moment["callbacks"] is not None:
                live = checkpoint["callbacks"] if moment["place"] == "step" else {}
                checkpoint["callbacks"] = live | moment["callbacks"]
            trainer.should_stop = moment["should_stop"] and not self.goes_on
        follow_moved_run(trainer, checkpoint)
        keep_patience(trainer, checkpoint)
        self._positions = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
        if PROCESSES in checkpoint:
            self._restored = share_of(trainer.global_rank, trainer.world_size, checkpoint[PROCESSES])
            if moment:
                self._taken_up = Moment(moment["place"], checkpoint["loops"]["fit_loop"], dict(self._restored))
                self._restored[MOMENT] = moment

    def _trains(self, trainer: L.Trainer) -> bool:
        """Whether a validation is part of a training."""
        return self._agreement is not None and not trainer.sanity_checking and trainer.state.fn == TrainerFn.FITTING

    def _ask(self, trainer: L.Trainer) -> None:
        waited_s = time.monotonic() - self._saved_at
        late = self.minutes is not None and waited_s >= 60 * self.minutes
        # clocks differ: rank zero's counts
        self._agreement.ask(self.signals.received is not None, late and trainer.is_global_zero)

    def _save_again(self, trainer: L.Trainer) -> None:
        """Lets those that save behind a step do so: behind the first one's save the run was stopped."""
        self._before = self._taken_up.before_saves(trainer, checkpoints_now(trainer))
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback.on_train_batch_end(trainer, trainer.lightning_module, None, None, 0)
        self._before = None

    def _go_on(self) -> None:
        """What came before is over."""
        self._before = self._again = None
        self._is_due = False
        self._go_on_schedules()

    def _go_on_schedules(self) -> None:
        for config, frequency in self._resting:
            config.frequency = frequency
        self._resting = []

    def _restore_random(self, trainer: L.Trainer, place: str) -> None:
        """Puts the generators back in the very hook in which they were looked at: other hooks may have drawn."""
        if self._again and self._again["place"] == place:
            restore_random_states(self._again["random"], trainer.strategy.root_device)
        self._again = None

    def _rotate(self) -> None:
        # whenever this is broken off, the new checkpoint and the one before it are both there; where an error breaks it
        # off, as last.ckpt too: torch raises one at any moment, even between the moves, when a loader process is lost
        try:
            if self.path.exists():
                os.replace(self.path, self.path.with_name("previous.ckpt"))
        finally:
            if not self.path.exists():
                os.replace(self._next, self.path)

    def _save(self, trainer: L.Trainer, moment: Moment) -> None:
        self._saving = moment
        try:
            trainer.save_checkpoint(self._next, weights_only=False)
            if trainer.is_global_zero:
                self._rotate()
        finally:
            self._saving = None
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        self._leave_if_stopping(trainer)

    def _leave_if_stopping(self, trainer: L.Trainer) -> None:
        if self._stop and trainer.local_rank == 0:
            raise Stopped(self.signals.received, saved=True)
        if self._stop:
            # Lightning kills rank zero, which may still have to send figures, if a process that it started fails
            raise SystemExit(0)
