"""Weight averaging (EMA, SWA): Lightning's callbacks, corrected, so that the averaged network is measured and saved.

They stay what the config names, `EMAWeightAveraging`, `WeightAveraging`, `StochasticWeightAveraging` or a subclass of
one: :func:`whole` gives such an object the methods below. Then the averaged network is what is measured, kept as best,
tested, predicted with and exported, and a run that is resumed has the trained weights and averages of a run that was
never stopped. Besides hooks, these methods use private parts of Lightning 2.6's callbacks. No other file does, and
:func:`whole` checks that they are there.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from bnnlight.callbacks.best import forget_best
from bnnlight.guards.lightning_internals import check_parts
from bnnlight.nn.parts import BiRotated

_EPOCH = "averaging_epoch"


def whole(callback: L.Callback) -> L.Callback:
    """The same callback; if it averages weights, with the methods of this file.

    Raises:
        ValueError: this version of Lightning lacks a private part that they use.
    """
    for kind, methods in ((WeightAveraging, _Averages), (StochasticWeightAveraging, _Stochastic)):
        if isinstance(callback, kind) and not isinstance(callback, methods):
            check_parts(callback, methods.relies_on, "bnnlight/callbacks/averages.py")
            original = type(callback)
            # of the same name, under which a checkpoint keeps its state
            callback.__class__ = type(original.__qualname__, (methods, original), {"__module__": original.__module__})
    return callback


class _Averages(WeightAveraging):
    """WeightAveraging that counts in whole numbers, keeps rotations, and loses neither trained weights nor averages.

    Lightning 2.6.6 averages integer buffers such as ``num_batches_tracked``; measures and saves the untrained network
    until the first update; loads the trained weights, not the averages, where ``test`` follows ``fit``; writes the
    averages over the trained weights as the training ends; and forgets the last update at an epoch's end.
    """

    relies_on = ("_average_model", "_device", "_latest_update_epoch", "_swap_models")
    _is_swapped = False

    @property
    def _has_begun(self) -> bool:
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        # it was made before the network was moved to its device
        self._average_model.to(self._device or pl_module.device)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        self._keep_counts(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self._keep_counts(pl_module)

    @torch.no_grad()
    def _keep_counts(self, model: nn.Module) -> None:
        for average, current in zip(self._average_model.module.buffers(), model.buffers(), strict=True):
            if not current.is_floating_point() and not current.is_complex():
                average.copy_(current)
        # a mean of rotations is none
        for average, current in zip(self._average_model.module.modules(), model.modules(), strict=True):
            if isinstance(current, BiRotated):
                average.left.copy_(current.left)
                average.right.copy_(current.right)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self._has_begun:
            self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._is_swapped and trainer.state.fn == TrainerFn.FITTING:
            self._swap(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._has_begun:
            self._swap(pl_module)

    def _swap(self, model: nn.Module) -> None:
        self._swap_models(model)
        self._is_swapped = not self._is_swapped

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is None:
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        averages, trained = checkpoint["state_dict"], checkpoint["current_model_state"]
        if self._is_swapped:
            averages, trained = trained, averages
        checkpoint["state_dict"] = averages if self._has_begun else trained
        checkpoint["current_model_state"] = trained
        checkpoint[_EPOCH] = self._latest_update_epoch

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            self._latest_update_epoch = checkpoint.get(_EPOCH, self._latest_update_epoch)


class _Stochastic(StochasticWeightAveraging):
    """StochasticWeightAveraging whose result is the averaged network, and that can be resumed within an epoch.

    The last epoch gathers the statistics of the averaged network's batch norms. As it begins, the best checkpoint so
    far is forgotten, so the best one is the averaged network.

    In Lightning 2.6.6, a run that is resumed while averaging goes on with other learning rates, and does not average
    until the next epoch begins.
    """

    relies_on = (
        "_average_model",
        "_initialized",
        "_latest_update_epoch",
        "_model_contains_batch_norm",
        "_scheduler_state",
    )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._average_model is not None:
            super().load_state_dict(state_dict)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.fit_loop.restarted_mid_epoch:
            # Lightning does not tell of an epoch's start that was before the stop
            buffers = [buffer.clone() for buffer in pl_module.buffers()]
            self._begin(trainer, pl_module)
            for buffer, before in zip(pl_module.buffers(), buffers, strict=True):
                buffer.copy_(before)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._is_last(trainer):
            forget_best(trainer)
        self._begin(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if not self._model_contains_batch_norm:  # the averages have come into the network only now
            forget_best(trainer)

    def _is_last(self, trainer: L.Trainer) -> bool:
        return self._max_epochs != -1 and trainer.current_epoch == self.swa_end + 1

    def _begin(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        goes_on = self._scheduler_state is not None and not self._initialized
        groups = trainer.optimizers[0].param_groups
        options_before = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        if goes_on and self._is_last(trainer):
            # in that epoch it makes no schedule, and would leave the run without one: let it be an epoch of averaging
            # in which nothing is left to average
            latest, self._latest_update_epoch = self._latest_update_epoch, trainer.current_epoch
            self._max_epochs += 1
            super().on_train_epoch_start(trainer, pl_module)
            self._max_epochs -= 1
            self._latest_update_epoch = latest
        num_batches = trainer.fit_loop.max_batches
        super().on_train_epoch_start(trainer, pl_module)
        if self._is_last(trainer) and trainer.val_check_batch is not None:
            # in the middle of that epoch the statistics are those of a part of the data
            trainer.val_check_batch = num_batches
        if goes_on:  # making its schedule has set rates that are in the checkpoint
            for group, rates in zip(groups, options_before, strict=True):
                group.update(rates)
