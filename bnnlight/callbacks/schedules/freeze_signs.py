"""Ends training with frozen signs: the binary weights stay as they are, and everything real trains on."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.optim import Optimizer

from bnnlight.callbacks.best import callbacks_of
from bnnlight.callbacks.interval import log_figures
from bnnlight.callbacks.schedules.layer_by_layer import LayerByLayer
from bnnlight.callbacks.schedules.stages import Stages
from bnnlight.nn.inspect import named_binary_layers


class FreezeSigns(L.Callback):
    """Stops stepping latents from some epoch, or share of the run, onwards, so that no binary weight flips.

    Learned α, batch norms, biases, activations and real layers are trained on, for the signs that are there now::

        trainer:
          callbacks:
            - class_path: bnnlight.callbacks.FreezeSigns
              init_args: {share: 0.9}

    Latents lose their gradients right before each step, so that any optimizer leaves them and their moments alone,
    its weight decay and momentum included. So do parts between W̃ and its sign, and ``Turn`` no longer turns weights.
    Everything computed from W̃ stays too, such as α of scale ``analytic``. Logs ``bnn/signs_frozen``, 0 or 1, at the
    start of each epoch. With several processes, each does the same.

    Args:
        epoch: the first epoch with frozen signs, counted from 0; or
        share: of the run's optimizer steps that are done by then, from 0 to below 1. Give one of the two.

    Raises:
        ValueError: none or both of the two are given, or one is out of range; or, as the training begins, the signs
            would be frozen before ``Stages`` or ``LayerByLayer`` has made the weights binary, the network has no
            binary layers, or the run has no end that a share could be taken of.
    """

    def __init__(self, epoch: int | None = None, share: float | None = None) -> None:
        if (epoch is None) == (share is None):
            raise ValueError("FreezeSigns: give either epoch or share")
        if epoch is not None and epoch < 0:
            raise ValueError(f"FreezeSigns: epoch is {epoch}: give an epoch of at least 0")
        if share is not None and not 0 <= share < 1:
            raise ValueError(f"FreezeSigns: share is {share}: give a share of the run from 0 to below 1")
        self.epoch, self.share = epoch, share
        self._is_frozen = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not any(named_binary_layers(pl_module)):
            raise ValueError(f"FreezeSigns: {type(pl_module).__name__} has no binary layers: leave the callback out")
        if self.share is not None and (trainer.max_epochs or -1) < 0 and (trainer.max_steps or -1) < 0:
            raise ValueError(
                "FreezeSigns: a share of a run that has no end: set trainer.max_epochs or trainer.max_steps"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        total = trainer.estimated_stepping_batches
        an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        begin = self.share * total if self.epoch is None else self.epoch * an_epoch
        asked = f"epoch {self.epoch}" if self.share is None else f"share {self.share}"
        for stages in callbacks_of(trainer, Stages):
            first = stages.first_binary(trainer)
            if begin < first * an_epoch:
                raise ValueError(
                    f"FreezeSigns ({asked}) would freeze the signs before Stages makes the weights binary, in epoch "
                    f"{first}: freeze them later"
                )
        for layers in callbacks_of(trainer, LayerByLayer):
            if begin < layers.end * total:
                raise ValueError(
                    f"FreezeSigns ({asked}) would freeze the signs before LayerByLayer has made all layers binary, at "
                    f"{layers.end} of the run: freeze them later"
                )
        if begin >= total:
            rank_zero_warn(f"FreezeSigns ({asked}): the run ends before that, so no sign is frozen")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        log_figures(trainer, {"bnn/signs_frozen": int(self.is_due(trainer))})

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        if self.is_due(trainer):
            self._is_frozen = True
            for _, layer in named_binary_layers(pl_module):
                for module in filter(None, (layer.latent, layer.weight_parts)):
                    for parameter in module.parameters():
                        parameter.grad = None

    def is_due(self, trainer: L.Trainer) -> bool:
        """Whether signs are frozen in the step that comes next. Once they are, they stay so in a longer run too."""
        if self._is_frozen:
            return True
        if self.epoch is not None:
            return trainer.current_epoch >= self.epoch
        return trainer.global_step >= self.share * trainer.estimated_stepping_batches

    def state_dict(self) -> dict[str, Any]:
        return {"is_frozen": self._is_frozen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._is_frozen = state_dict["is_frozen"]
