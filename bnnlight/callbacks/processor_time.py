"""Logs the processor time of a run at each validation: comparable even where runs share a machine."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import lightning as L

try:
    import resource
except ImportError:  # there is none on Windows, where processes that have ended are not counted
    resource = None

KEY = "time/processor"


class ProcessorTime(L.Callback):
    """Logs ``time/processor`` with the figures of each validation: seconds of processor time since training began.

    That is user and system time of all threads, and of the processes that load data, summed over the processes of the
    run. Wall-clock time would also count what others do on the machine. Starting up and building the network are left
    out; validations are included. A resumed run counts on from the value in its checkpoint; with several processes each
    of them counts on from rank zero's share. A run resumed from a checkpoint without this value, of an earlier version,
    logs nothing.
    """

    def __init__(self) -> None:
        self._before: float | None = None
        self._begin: float | None = None

    @property
    def _seconds(self) -> float | None:
        if self._before is None or self._begin is None:
            return self._before
        return self._before + processor_seconds() - self._begin

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._before = 0.0
        self._begin = processor_seconds()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # not in a validation outside of training, nor in the one that only tries
        if self._begin is not None and self._seconds is not None:
            pl_module.log(KEY, self._seconds, reduce_fx="sum", sync_dist=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._before, self._begin = self._seconds, None

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["seconds"]


def processor_seconds() -> float:
    """User and system time of this process, of its children that have ended, and of the loaders still running.

    Other children that keep running, such as W&B's, do not train and are not counted. Running loaders can be measured
    only on Linux; elsewhere they count as soon as they have ended.
    """
    going_on = sum(_seconds_of(child.pid) for child in multiprocessing.active_children())
    ended = 0.0
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = used.ru_utime + used.ru_stime
    return time.process_time() + ended + going_on


def _seconds_of(pid: int | None) -> float:
    try:
        # behind the name in brackets, which may hold anything: the 12th and 13th, and those of its ended children
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    except OSError:  # another system, or it has just ended
        return 0.0
    return sum(map(int, fields)) / os.sysconf("SC_CLK_TCK")
