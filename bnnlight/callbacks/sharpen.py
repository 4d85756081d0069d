"""Sharpens the sign's straight-through gradient while training."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import lightning as L

from bnnlight.callbacks.interval import IntervalCallback, log_figures
from bnnlight.nn.binarize import Tanh, Triangular, check_sharpness
from bnnlight.nn.inspect import named_binary_layers

Signs = Literal["activations", "weights", "both"]
Shape = Literal["tanh", "triangular"]
_SHAPES = {"tanh": Tanh, "triangular": Triangular}


class Sharpen(IntervalCallback):
    """Gives the signs of all binary layers a gradient that gets sharper from step to step, :class:`bnnlight.nn.Tanh`.

    After i of N optimizer steps the sharpness is t = start · (end/start)^(i/N): while t is small every weight and
    activation gets a gradient, at the end only those that are about to change sign. N is the length of the run, so
    that t depends only on the step, and a resumed run has the t of one that was never stopped. The gradients
    that the config names are replaced. Logs ``bnn/sharpness``. Not on by default; in a config::

        trainer:
          callbacks:
            - class_path: bnnlight.callbacks.Sharpen
              init_args: {start: 0.1, end: 10.0, of: both}

    Args:
        start, end: sharpness before the first step and after the last, above 0.
        of: whose signs: ``activations``, ``weights`` or ``both``; the others keep their gradient.
        interval: number of optimizer steps from one logged value to the next.
        shape: ``tanh``, or ``triangular`` for :class:`bnnlight.nn.Triangular`.
        activations_from: the least sharpness of the activations' signs. RBNN uses 1, with ``start: 0.01``.

    Raises:
        ValueError: a sharpness is not a finite number above 0, ``of`` or ``shape`` is unknown, the interval is below 1,
            or, as training starts, the run has no end.

    Sources: IR-Net, Qin et al., CVPR 2020, https://arxiv.org/abs/1909.10788; RBNN, Lin et al., NeurIPS 2020,
    https://arxiv.org/abs/2009.13055; both count epochs instead of steps.
    """

    def __init__(
        self,
        start: float = 0.1,
        end: float = 10.0,
        of: Signs = "both",
        interval: int = 100,
        shape: Shape = "tanh",
        activations_from: float | None = None,
    ) -> None:
        super().__init__(interval)
        if shape not in _SHAPES:
            raise ValueError(f"Sharpen has no shape {shape!r}: choose one of {', '.join(_SHAPES)}")
        self.shape = _SHAPES[shape]
        least = activations_from
        self.activations_from = 0.0 if least is None else check_sharpness(least, "activations_from of Sharpen")
        self.start, self.end = check_sharpness(start, "sharpness"), check_sharpness(end, "sharpness")
        if of not in get_args(Signs):
            raise ValueError(f"Sharpen cannot sharpen {of!r}: choose one of {', '.join(get_args(Signs))}")
        self.of = of

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not math.isfinite(trainer.estimated_stepping_batches):
            raise ValueError("no end to plan the sharpness for: set trainer.max_epochs or trainer.max_steps")
        super().on_train_start(trainer, pl_module)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        sharpness = self._sharpness(trainer)
        of_weights, of_activations = self.shape(sharpness), self.shape(max(sharpness, self.activations_from))
        for _, layer in named_binary_layers(pl_module):
            if self.of != "weights":
                layer.activation_gradient = of_activations
            if self.of != "activations":
                layer.weight_gradient = of_weights

    def _sharpness(self, trainer: L.Trainer) -> float:
        done = min(1.0, trainer.global_step / trainer.estimated_stepping_batches)
        return self.start * (self.end / self.start) ** done

    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        log_figures(trainer, {"bnn/sharpness": self._sharpness(trainer)})
