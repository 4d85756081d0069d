"""Turns latent weights toward their signs between epochs."""

from __future__ import annotations

import lightning as L

from bnnlight.callbacks.best import callbacks_of
from bnnlight.callbacks.schedules.freeze_signs import FreezeSigns
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.parts import BiRotated


class Turn(L.Callback):
    """Updates the rotations of every :class:`bnnlight.nn.BiRotated` as epochs begin, starting from the previous ones.

    The rotations travel in the checkpoint with the weights, so a resumed run has them. Once
    :class:`bnnlight.callbacks.FreezeSigns` holds the signs, they stay as they are. Not on by default; in a config::

        trainer:
          callbacks:
            - class_path: bnnlight.callbacks.Turn
              init_args: {every: 1, sweeps: 3}

    Args:
        every: number of epochs from one update to the next.
        sweeps: how often signs and rotations are found in turn, see :meth:`bnnlight.nn.BiRotated.renew`.

    Raises:
        ValueError: a number is below 1, or, as training starts, no layer has weights that are turned.

    Source: RBNN, Lin et al., NeurIPS 2020, https://arxiv.org/abs/2009.13055.
    """

    def __init__(self, every: int = 1, sweeps: int = 3) -> None:
        for name, value in (("every", every), ("sweeps", sweeps)):
            if value < 1:
                raise ValueError(f"Turn: {name} is {value}: give at least 1")
        self.every, self.sweeps = every, sweeps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        parts = [part for _, layer in named_binary_layers(pl_module) for part in layer.modules()]
        if not any(isinstance(part, BiRotated) for part in parts):
            raise ValueError("Turn: no layer has weights that are turned: add bnnlight.nn.BiRotated to weight_parts")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch % self.every or any(c.is_due(trainer) for c in callbacks_of(trainer, FreezeSigns)):
            return
        for _, layer in named_binary_layers(pl_module):
            if layer.weight_parts is None:
                continue
            layer.weight_parts.renew(layer.weight.detach(), self.sweeps)
            for buffer in layer.weight_parts.buffers():
                # ranks of different machines may round differently
                buffer.copy_(trainer.strategy.broadcast(buffer.clone()))
