"""Loosens the clamp of latent weights while training."""

from __future__ import annotations

import math
from typing import Any

import lightning as L

from bnnlight.callbacks.interval import IntervalCallback, log_figures
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.parts import Clamped
from bnnlight.nn.parts.weights import check_tau


class Loosen(IntervalCallback):
    """Moves the τ of every :class:`bnnlight.nn.Clamped` from ``start`` to ``end``.

    After i of N optimizer steps it is τ = start + (end − start) · (e^(i/N) − 1) / (e − 1), slowly at first. N is the
    length of the run, so τ depends only on the step, and a resumed run has the τ of one that was never
    stopped. The τ that the config names is replaced. Logs ``bnn/tau``. Not on by default; in a config::

        trainer:
          callbacks:
            - class_path: bnnlight.callbacks.Loosen
              init_args: {start: 0.85, end: 0.99}

    Args:
        start, end: τ before the first step and after the last, above 0.5 and at most 1.
        interval: number of optimizer steps from one logged value to the next.

    Raises:
        ValueError: a τ is out of range, the interval is below 1, or, as training starts, the run has no end or no layer
            has weights that are clamped.

    Source: ReCU, Xu et al., ICCV 2021, https://arxiv.org/abs/2103.12369, which counts epochs instead of steps.
    """

    def __init__(self, start: float = 0.85, end: float = 0.99, interval: int = 100) -> None:
        super().__init__(interval)
        self.start, self.end = check_tau(start, "start of Loosen"), check_tau(end, "end of Loosen")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not math.isfinite(trainer.estimated_stepping_batches):
            raise ValueError("no end to plan τ for: set trainer.max_epochs or trainer.max_steps")
        if not _clamps(pl_module):
            raise ValueError("Loosen: no layer has weights that are clamped: add bnnlight.nn.Clamped to weight_parts")
        super().on_train_start(trainer, pl_module)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        for part in _clamps(pl_module):
            part.tau = self._tau(trainer)

    def _tau(self, trainer: L.Trainer) -> float:
        done = min(1.0, trainer.global_step / trainer.estimated_stepping_batches)
        return self.start + (self.end - self.start) * math.expm1(done) / math.expm1(1)

    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        log_figures(trainer, {"bnn/tau": self._tau(trainer)})


def _clamps(model: L.LightningModule) -> list[Clamped]:
    return [part for _, layer in named_binary_layers(model) for part in layer.modules() if isinstance(part, Clamped)]
