"""`NonFinite`: ends a run, or skips a step, whose loss or gradient is not finite."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from bnnlight.guards.bad_step import RanBatch, describe, find_origin, in_company
from bnnlight.guards.first_non_finite import bad_state
from bnnlight.guards.kept_state import KeptState

NUM_LINES = 5
"""Skipped steps that get a line on stderr; more of them are only counted."""


class NonFinite(L.Callback):
    """Ends the run, or skips the step, where the loss or a gradient is not finite.

    All batches of an accumulated step are judged together, once, after the last one's backward pass and before the
    optimizer: neither weights nor the optimizer's state have changed yet. All ranks decide alike.

    - ``stop`` raises one line that names the batch, the layer with the first number that is not finite, found by
      running the batch again, and the checkpoint to go on from.
    - ``skip`` takes the step back: no gradient reaches the optimizer, so that momentum and weight decay rest too, and
      buffers (batch norm's running statistics) and metrics of the training are what they were before. Steps and
      learning rate go on. ``train/skipped_batches``, the number so far, is logged at each skipped step, and the first
      few get a line on stderr.

    In addition, no checkpoint is written while a weight or a running statistic is not finite: the run ends with a line.

    With fp16 and a loss scale, gradients that overflow are part of the method: the scaler leaves out such a step by
    itself, and what the forward pass counted is sound. Only the loss is judged there. The batches of an accumulated
    step are held until it ends.

    Args:
        action: ``stop`` or ``skip``.
        max_skipped_in_a_row: optimizer steps; one more ends the run.

    Attributes:
        num_skipped: batches skipped so far, all those of an accumulated step; of one process.
        num_in_a_row: optimizer steps skipped since the last good one.

    Raises:
        ValueError: an unknown action, or a number below 1.
        FloatingPointError: while training, on rank zero; the other ranks leave without a word.
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop", max_skipped_in_a_row: int = 50) -> None:
        if action not in ("stop", "skip"):
            raise ValueError(f"unknown action {action!r}: choose stop or skip")
        if max_skipped_in_a_row < 1:
            raise ValueError(f"max_skipped_in_a_row is {max_skipped_in_a_row}: give a number of steps of at least 1")
        self.action, self.max_skipped_in_a_row = action, max_skipped_in_a_row
        self.num_skipped, self.num_in_a_row = 0, 0
        self._num_lines, self._has_skipped = 0, False
        self._begun: tuple[Any, int] | None = None
        self._batches: list[RanBatch] = []
        self._state: KeptState | None = None
        self._error: BaseException | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._forget()
        self._error = None
        self._state = KeptState(pl_module) if self.action == "skip" else None

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, index: int) -> None:
        self._begun = batch, index
        if self._state and not self._batches:
            self._state.keep()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if self._begun:
            self._batches.append(RanBatch(*self._begun, loss.detach().reshape(())))

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        batches, self._batches = self._batches, []
        losses, gradients = [batch.loss for batch in batches], [] if _loss_scaler(trainer) else _gradients(optimizer)
        # The one look a step at what the device computed. It waits for the backward pass that is under way, time in
        # which the host would otherwise go on to the optimizer's step and the next batch. The 2-norm is by far the
        # quickest, but overflows beyond some 1e19, so that where it is not finite the largest entry decides.
        if not all(_any_bad(losses, gradients, order) for order in (2.0, math.inf)):
            self.num_in_a_row = 0
            return
        self.num_in_a_row += 1
        if self.action == "stop":
            self._stop(trainer, find_origin(trainer, pl_module, batches), "The weights are those before this step")
        if self.num_in_a_row > self.max_skipped_in_a_row:
            self._state.restore()
            before = f"The {self.max_skipped_in_a_row} steps before it were skipped"
            self._stop(trainer, find_origin(trainer, pl_module, batches), before)
        self._report(trainer, pl_module, batches)
        _leave_out(trainer, optimizer)
        self._state.restore()
        self.num_skipped += len(batches)
        self._has_skipped = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._begun = None
        if self._has_skipped:
            self._has_skipped = False
            for logger in trainer.loggers:
                logger.log_metrics({"train/skipped_batches": float(self.num_skipped)}, step=trainer.global_step)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # a step may have spoiled weights that no batch has run through yet; and binary layers take the sign of NaN
        # for −1, so that a latent weight can be lost without a loss that shows it
        bad = bad_state(pl_module)
        if not bad:
            return
        if self._error:  # what is saved because the run was stopped: the cause is the better line
            raise self._error
        self._stop(trainer, f"after step {trainer.global_step} {bad}", "No checkpoint is written")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._forget()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        return {"num_skipped": self.num_skipped, "num_in_a_row": self.num_in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_skipped, self.num_in_a_row = state_dict["num_skipped"], state_dict["num_in_a_row"]

    def _forget(self) -> None:
        self._begun, self._batches, self._state = None, [], None

    def _report(self, trainer: L.Trainer, model: L.LightningModule, batches: list[RanBatch]) -> None:
        if self._num_lines == NUM_LINES:
            return
        self._num_lines += 1
        text = describe(trainer, model, batches)
        note = "; more are only counted, in train/skipped_batches" if self._num_lines == NUM_LINES else ""
        if trainer.is_global_zero:
            print(f"bnnlight: {text}. The step is skipped{note}", file=sys.stderr, flush=True)

    def _stop(self, trainer: L.Trainer, what: str, state: str) -> None:
        skip = ", or pass --non_finite.action skip" if self.action == "stop" else ""
        advice = f"lower the learning rate, look at the batch{skip}"
        self._error = FloatingPointError(f"{what}. {state}: {advice}. {_way_on(trainer)}")
        if not trainer.is_global_zero:
            # Lightning's launcher kills all processes within seconds of one that it started and that failed, while
            # rank zero may still be writing its logs: rank zero alone says how the run ended
            self._error = SystemExit(1 if trainer.local_rank == 0 else 0)
        raise self._error


def _loss_scaler(trainer: L.Trainer) -> Any:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _leave_out(trainer: L.Trainer, optimizer: Optimizer) -> None:
    """Lets the optimizer's next step change nothing."""
    scaler = _loss_scaler(trainer)
    if scaler:
        # the gradients of a fused optimizer are still scaled: the scaler wants to see some, and leaves out these
        for gradient in _gradients(optimizer):
            gradient.fill_(math.inf)
        try:
            scaler.unscale_(optimizer)
            return
        except RuntimeError:  # it has seen them before they were filled, and does not look again
            pass
    optimizer.zero_grad(set_to_none=True)


def _any_bad(losses: list[Tensor], gradients: list[Tensor], order: float) -> bool:
    """Whether a loss or the gradients' norm is not finite, on any rank."""
    values = [*losses, get_total_norm(gradients, order)] if gradients else losses
    if not values:
        return False
    bad = ~torch.stack([value.to(values[0].device) for value in values]).isfinite().all()
    if in_company():
        bad = bad.float()
        dist.all_reduce(bad, dist.ReduceOp.MAX)
    return bool(bad.item())


def _way_on(trainer: L.Trainer) -> str:
    """The last good checkpoint, and how to go on from it."""
    run_dir = Path(trainer.default_root_dir)
    folders = [run_dir / "checkpoints"]
    folders += [Path(c.dirpath) for c in trainer.checkpoint_callbacks if getattr(c, "dirpath", None)]
    for folder in folders:
        last = folder / "last.ckpt"
        if last.is_file():
            option = f"--run_dir {run_dir} --resume" if folder == folders[0] else f"--ckpt_path {last}"
            # the learning rate is part of a checkpoint
            return f"Last good checkpoint: {last} ({option} goes on from it, with the learning rate it was saved with)"
    return "There is no checkpoint yet: begin again"
