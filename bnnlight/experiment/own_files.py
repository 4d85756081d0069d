"""Lets a resumed run write again the checkpoints that it wrote before it was stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from bnnlight.experiment.checkpoint_io import RUN
from bnnlight.guards.moment import MOMENT


@dataclass(frozen=True)
class Start:
    """One start of a run.

    Attributes:
        run: name of the run, the same for all of its starts.
        first_step: checkpoints of this step and later ones, written by an earlier start, are written again.
    """

    run: str
    first_step: int | None = None

    @classmethod
    def of(cls, newest: str | None, resumed_from: str | None = None) -> Start:
        """Of a run that has a newest checkpoint and goes on from it, or from another one; of a new run without."""
        if newest is None:
            return cls(uuid4().hex)
        run = _read(newest).get(RUN) or uuid4().hex
        try:
            content = _read(resumed_from or newest)
            step = int(content["global_step"])
        except Exception:  # Lightning, whose turn is next, says what is wrong with it
            return cls(run)
        moment = content.get(MOMENT) or {}
        # where hooks run again, so do those that have written checkpoints at this very step
        again = moment.get("callbacks") is not None or moment.get("place") == "step"
        return cls(run, step + (0 if again else 1))


def write_over_own(checkpoint: ModelCheckpoint, start: Start) -> None:
    """Lets a ModelCheckpoint write its files again where an earlier start of the run has left them.

    Without this it takes such a file for another run's, and writes ``NAME-v1.ckpt`` beside it. Files that the run
    knows of, those of earlier steps and of other runs are left alone.
    """
    exists, written = checkpoint.file_exists, set()

    def file_exists(path: Any, trainer: L.Trainer) -> bool:
        own_paths = {*checkpoint.best_k_models, checkpoint.best_model_path, checkpoint.last_model_path, *written}
        is_own = trainer.is_global_zero and str(path) not in own_paths and _is_later(path, start)
        is_there = exists(path, trainer)
        is_own = trainer.strategy.reduce_boolean_decision(is_own, all=False)
        if is_own or not is_there:
            written.add(str(path))
        return is_there and not is_own

    checkpoint.file_exists = file_exists


def leave_last(checkpoint: ModelCheckpoint, folder: str) -> None:
    """Lets a ModelCheckpoint with ``save_last`` write ``last-v1.ckpt``, where ``last.ckpt`` is LastCheckpoint's.

    With ``save_weights_only`` there would soon be nothing left to go on from.
    """
    here = checkpoint.dirpath is None or Path(checkpoint.dirpath).resolve() == Path(folder).resolve()
    if here and checkpoint.CHECKPOINT_NAME_LAST == "last":
        checkpoint.CHECKPOINT_NAME_LAST = "last-v1"


def _is_later(path: Any, start: Start) -> bool:
    try:
        content = _read(str(path))
        return content.get(RUN) == start.run and int(content["global_step"]) >= start.first_step
    except Exception:  # not there, or not a checkpoint: then it is not the run's
        return False


def _read(path: str) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
