"""Binarizes a network layer by layer, from input to output, with masks that grow."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from bnnlight.callbacks.best import callbacks_of, forget_best
from bnnlight.callbacks.interval import IntervalCallback, log_figures
from bnnlight.callbacks.schedules.stages import Stages
from bnnlight.data.loading.sampling import run_seed
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.stages import Mixed, set_stage


class LayerByLayer(IntervalCallback):
    """Makes one layer after another binary, from the first; within a layer, more and more of its entries.

    After i of N optimizer steps q = (i/N − start) / (end − start), clipped to [0, 1], of the way is done. Layer l of L,
    counted from 0 in the order of registration, which is that from input to output in the networks of this package,
    has the share p = q·L − l, clipped to [0, 1], of its weights and of its activations replaced by their signs. For
    what the rest computes see :class:`bnnlight.nn.stages.Mixed`: real weights, clipped activations. In a config::

        trainer:
          callbacks:
            - class_path: bnnlight.callbacks.LayerByLayer
              init_args: {start: 0.0, end: 0.8}

    From input to output and with random masks, as in StoMPP. The details are ours: that p grows evenly, that layers
    do not overlap, when the first begins and the last ends, and how masks are renewed.

    Everything follows from the step and the run's seed, so a resumed run has the masks of one that was never
    stopped, and all processes have the same ones. Logs ``bnn/binary_share``, the mean of all p, and at the start of
    each epoch ``bnn/stage``, twice that, so that 2 is binary as with :class:`bnnlight.callbacks.Stages`. What was kept
    as best is forgotten once the last layer has become binary, as with ``Stages``; whatever follows training uses the
    binary network.

    Args:
        start, end: shares of the run at which the first layer begins and the last one is done, 0 ≤ start < end < 1.
        refresh: share of the entries that leave a layer's mask in a step, for as many others, from 0 to below 1.
        straight_through: whether entries that are signs get the layers' straight-through gradients; without, they
            get none, and a layer that is binary throughout passes nothing on to those before it.
        interval: number of optimizer steps from one logged value to the next.

    Raises:
        ValueError: a number out of range; or, as the training begins, the run has no end, the network has no binary
            layers, or ``Stages`` is there too.

    Source: StoMPP, Smith & Islam 2026, https://arxiv.org/abs/2601.22660 (no straight-through gradients) and
    https://arxiv.org/abs/2606.27759 (with them, on entries that are signs).
    """

    def __init__(
        self,
        start: float = 0.0,
        end: float = 0.8,
        refresh: float = 0.01,
        straight_through: bool = True,
        interval: int = 100,
    ) -> None:
        super().__init__(interval)
        if not 0 <= start < end < 1:
            raise ValueError(f"LayerByLayer: start is {start} and end {end}: give shares with 0 <= start < end < 1")
        if not 0 <= refresh < 1:
            raise ValueError(f"LayerByLayer: refresh is {refresh}: give a share of the entries from 0 to below 1")
        self.start, self.end, self.refresh, self.straight_through = start, end, refresh, straight_through
        self._mixed: list[Mixed] = []
        self._is_binary = False

    def shares(self, done: float, num_layers: int) -> list[float]:
        """The share p of each layer, from the first to the last.

        Args:
            done: share of the run.
            num_layers: L.
        """
        way = min(1.0, max(0.0, (done - self.start) / (self.end - self.start)))
        return [min(1.0, max(0.0, way * num_layers - layer)) for layer in range(num_layers)]

    def is_binary(self, trainer: L.Trainer) -> bool:
        """Whether all layers are binary at a trainer's present step."""
        return self._is_binary or self._done(trainer) >= self.end

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            set_stage(pl_module, "binary")
            return
        if callbacks_of(trainer, Stages):
            raise ValueError("Stages and LayerByLayer both say when a layer becomes binary: leave one of them out")
        num_layers = sum(1 for _ in named_binary_layers(pl_module))
        if not num_layers:
            raise ValueError(f"LayerByLayer: {type(pl_module).__name__} has no binary layers: leave the callback out")
        # without seed_everything each process has a seed of its own
        seed = trainer.strategy.broadcast(run_seed())
        self._mixed = [Mixed(seed, n, straight_through=self.straight_through) for n in range(num_layers)]

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._enter(trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not math.isfinite(trainer.estimated_stepping_batches):
            raise ValueError("no end to plan the masks for: set trainer.max_epochs or trainer.max_steps")
        if callbacks_of(trainer, EarlyStopping) and (trainer.max_epochs or -1) > 0:
            # so that all is binary before it can end the run
            first = math.ceil(self.end * trainer.max_epochs) + 1
            trainer.fit_loop.min_epochs = max(trainer.fit_loop.min_epochs or 0, first)
        super().on_train_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        log_figures(trainer, {"bnn/stage": 2 * self._share(trainer)})

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._enter(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._mixed:
            self._enter(trainer, pl_module)

    def _enter(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        shares = self._shares(trainer)
        layers = named_binary_layers(pl_module)
        for (_, layer), mixed, share in zip(layers, self._mixed, shares, strict=True):
            mixed.share, mixed.turn = share, self.refresh * trainer.global_step
            # a binary layer has the straight-through gradients of its signs, and is quicker
            layer.stage = "binary" if share == 1 and self.straight_through else mixed
        was_binary, self._is_binary = self._is_binary, self.is_binary(trainer)
        if self._is_binary and not was_binary:
            forget_best(trainer)

    def _done(self, trainer: L.Trainer) -> float:
        return min(1.0, trainer.global_step / trainer.estimated_stepping_batches)

    def _share(self, trainer: L.Trainer) -> float:
        shares = self._shares(trainer)
        return sum(shares) / len(shares)

    def _shares(self, trainer: L.Trainer) -> list[float]:
        # a run that goes on with more epochs stays binary where it was
        return self.shares(1.0 if self.is_binary(trainer) else self._done(trainer), len(self._mixed))

    def look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        log_figures(trainer, {"bnn/binary_share": self._share(trainer)})

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self._share(trainer) < 1 and not trainer.fast_dev_run:
            text = "and what is tested, kept as best or exported was never trained as the binary network it is"
            rank_zero_warn(f"LayerByLayer: the training ended before its last layer was binary, {text}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._mixed = []
        set_stage(pl_module, "binary")

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "is_binary": self._is_binary}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._is_binary = state_dict["is_binary"]
