"""Weight decay of latents, which have none otherwise, for the whole run or until the weights are binary."""

from __future__ import annotations

import math
from typing import Any

import lightning as L

from bnnlight.callbacks.best import callbacks_of
from bnnlight.callbacks.schedules.layer_by_layer import LayerByLayer
from bnnlight.callbacks.schedules.stages import Stages


class WeightDecay(L.Callback):
    """Sets the optimizer's weight decay of latents, and ends all weight decay once the weights are binary, if asked.

    A sign does not depend on the size of its latent, so by default the optimizer of a task gives latents no decay.
    With decay they stay small, and flip more easily, which is what recipes with plain SGD ask for::

        trainer:
          callbacks:
            - class_path: bnnlight.callbacks.WeightDecay
              init_args: {latent: 5.0e-4}

    Whether the decay is a part of the gradient, as in SGD, or a shrinkage of its own, as in AdamW, is up to the
    optimizer. For decomposed latents, the factors decay.

    Args:
        latent: weight decay of latents, at least 0.
        real: weight decay of real weights, at least 0; None leaves the optimizer's.
        until_binary: sets both to 0 once all layers are binary, as in the second step of ReActNet (Liu et al. 2020,
            https://arxiv.org/abs/2003.03488). Needs :class:`bnnlight.callbacks.Stages` or ``LayerByLayer``.

    Raises:
        ValueError: a number out of range; or, as the training begins, ``until_binary`` with a network that is binary
            from the start, or the optimizer has no latents with a weight decay.
    """

    def __init__(self, latent: float, real: float | None = None, until_binary: bool = False) -> None:
        for name, value in (("latent", latent), ("real", real)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"WeightDecay: {name} is {value}: give a finite number of at least 0")
        self.latent, self.real, self.until_binary = latent, real, until_binary

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and self.until_binary and not _staged(trainer):
            raise ValueError(
                "WeightDecay: until_binary is set, and the network is binary from the start: add Stages or LayerByLayer"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            latents = [group for group in optimizer.param_groups if _kind(group) == "latent"]
            # Bop's, which have a threshold, flip and have no size
            if not latents or any("weight_decay" not in group or "threshold" in group for group in latents):
                raise ValueError(
                    f"WeightDecay: {type(optimizer).__name__} has no weight decay for latents: leave the callback out, "
                    "or take another optimizer"
                )

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        ended = self.until_binary and any(callback.is_binary(trainer) for callback in _staged(trainer))
        decays = {"latent": self.latent, "weight": self.real}
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                kind = _kind(group)
                if kind in decays and (ended or decays[kind] is not None):
                    group["weight_decay"] = 0.0 if ended else decays[kind]


def _staged(trainer: L.Trainer) -> list[Stages | LayerByLayer]:
    return [*callbacks_of(trainer, Stages), *callbacks_of(trainer, LayerByLayer)]


def _kind(group: dict[str, Any]) -> str:
    """``latent`` or ``weight``, or what else the name of a parameter group begins with."""
    return str(group.get("name", "")).partition("/")[0]
