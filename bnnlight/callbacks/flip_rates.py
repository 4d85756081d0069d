"""Logs how many binary weights change sign while training."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Tensor

from bnnlight.callbacks.interval import Interval, log_figures
from bnnlight.metrics.flip_rate import flip_rate, pack_signs
from bnnlight.nn.inspect import named_binary_layers


class FlipRates(L.Callback):
    """Logs ``bnn/flip_rate/LAYER`` and their mean over all weights, ``bnn/flip_rate_mean``.

    A flip rate is the share of a layer's binary weights that differ from the last look. The first look is
    only a baseline. Signs are kept with one bit per weight and travel in the checkpoint, so that a resumed run
    continues with the right rate. Weights are equal on all ranks after a step, so nothing is communicated.

    Args:
        interval: number of optimizer steps between two looks.

    Raises:
        ValueError: the interval is below 1.
    """

    def __init__(self, interval: int = 100) -> None:
        self.interval = Interval(interval)
        self._signs: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.interval.start(trainer.global_step):
            self._signs = {}
            self._look(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if not self.interval.due(trainer.global_step):
            return
        log_figures(trainer, self._look(pl_module))

    def _look(self, model: L.LightningModule) -> dict[str, float]:
        rates: dict[str, float] = {}
        num_flips, num_weights = 0.0, 0
        for name, layer in named_binary_layers(model):
            signs, size = pack_signs(layer.binary_weight()), layer.weight_shape.numel()
            if name in self._signs:
                rates[f"bnn/flip_rate/{name}"] = rate = flip_rate(self._signs[name], signs, size)
                num_flips, num_weights = num_flips + rate * size, num_weights + size
            self._signs[name] = signs
        if num_weights:
            rates["bnn/flip_rate_mean"] = num_flips / num_weights
        return rates

    def state_dict(self) -> dict[str, Any]:
        return {"signs": self._signs, "last_step": self.interval.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._signs = dict(state_dict["signs"])
        self.interval.resume(state_dict["last_step"])
