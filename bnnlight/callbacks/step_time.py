"""Logs how long a step takes, how much of it is waiting for data, and the memory in use."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
import torch

from bnnlight.callbacks.interval import Interval, log_figures

try:
    import resource
except ImportError:  # there is none on Windows, where a CPU's memory is not logged
    resource = None


class StepTime(L.Callback):
    """Logs ``time/step``, ``time/data`` and ``mem/peak`` of rank zero.

    - ``time/step``: mean seconds of an optimizer step since the last look, with all its batches, the wait for
      them and what other callbacks do. Validation is left out.
    - ``time/data``: the part of it that lies between two batches: waiting for data. What callbacks listed
      after this one do when a batch ends counts as waiting too, so name it last.
    - ``mem/peak``: peak bytes in use so far: of tensors on a CUDA device, else of the process.

    Nothing waits for the device: where it works asynchronously, times are right as a mean over many steps.

    Args:
        interval: number of optimizer steps between two looks.

    Raises:
        ValueError: the interval is below 1.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = Interval(interval)
        self._restart(0)

    def _restart(self, step: int) -> None:
        self._first_step, self._data_s, self._batches_s = step, 0.0, 0.0
        self._mark = time.perf_counter()

    def _lap(self) -> float:
        """Seconds since the last mark, and a new mark."""
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.interval.start(trainer.global_step)
        self._restart(trainer.global_step)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._lap()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._lap()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._data_s += self._lap()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._batches_s += self._lap()
        if not self.interval.due(trainer.global_step):
            return
        num_steps = trainer.global_step - self._first_step
        figures = {"time/step": (self._data_s + self._batches_s) / num_steps, "time/data": self._data_s / num_steps}
        peak = peak_bytes(trainer.strategy.root_device)
        if peak is not None:
            figures["mem/peak"] = float(peak)
        log_figures(trainer, figures)
        self._restart(trainer.global_step)


def peak_bytes(device: torch.device) -> int | None:
    """Peak bytes in use so far: of tensors on a CUDA device, else resident of this process; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # which counts in KiB elsewhere
