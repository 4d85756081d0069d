"""Trains a network in stages: real, then with binary activations, then binary."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from bnnlight.callbacks.best import callbacks_of, forget_best
from bnnlight.callbacks.interval import log_figures
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.nn.stages import STAGES, Stage, set_stage


class Stages(L.Callback):
    """Trains the first epochs with real weights and activations, the next with binary activations, the rest binary.

    All in one run, each stage beginning with the weights, factors and α of the one before; for what a layer computes
    see :func:`bnnlight.nn.set_stage`. In a config::

        trainer:
          callbacks:
            - class_path: bnnlight.callbacks.Stages
              init_args: {real_epochs: 20, activation_epochs: 20}

    Logs ``bnn/stage`` (0 real, 1 binary activations, 2 binary) at the start of each epoch, and at the end of a stage
    the figures of its last validation, ``stage/real/val/acc1`` and the like.

    Figures of the first stages are higher than those of the last. So what was kept as best is forgotten when the last
    stage begins: a ModelCheckpoint with a monitor removes its files (with ``save_top_k`` -1 it keeps them) and an
    EarlyStopping counts from there; before that, it cannot end the run. Whatever follows training (test,
    predict, export) uses the binary network, and so does measuring a checkpoint of an earlier stage.

    Schedules: without ``scheduler`` there is one cosine over the whole run. One that restarts with each stage is
    torch's own, counting epochs::

        scheduler: {class_path: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, init_args: {T_0: 20}}

    for stages of 20 epochs each; with ``T_mult: 2`` each is twice as long as the one before: 20, 40, 80.
    ``MultiStepLR`` with the stages' first epochs as ``milestones`` takes a step down at each. ``SequentialLR`` cannot
    be named in a config, as the schedules in it need the optimizer; ``ReduceLROnPlateau`` goes on comparing with the
    best figure of the first stages.

    Args:
        real_epochs: number of epochs in the stage ``real``; or, above 0 and below 1, its share of
            ``trainer.max_epochs``, rounded to whole epochs.
        activation_epochs: of the stage ``binary_activations``, which follows, likewise.

    Raises:
        ValueError: a number is negative, or neither whole nor below 1; or, as the training begins,
            ``trainer.max_epochs`` leaves no epoch for the last stage, or is not set and a share is to be taken of it,
            or the network has no binary layers.
    """

    def __init__(self, real_epochs: int | float = 0, activation_epochs: int | float = 0) -> None:
        for name, value in (("real_epochs", real_epochs), ("activation_epochs", activation_epochs)):
            if not (value >= 0 and (value < 1 or value % 1 == 0)):
                raise ValueError(
                    f"Stages: {name} is {value}: give a number of epochs of at least 0, or a share of them below 1"
                )
        self.real_epochs, self.activation_epochs = real_epochs, activation_epochs
        # until the run tells how many epochs shares are of
        self._lengths = real_epochs, activation_epochs
        self._stage: Stage | None = None
        self._figures: dict[str, float] = {}

    def stage_of(self, epoch: int) -> Stage:
        """The stage of an epoch, counted from 0."""
        if epoch < self._lengths[0]:
            return "real"
        return "binary_activations" if epoch < self._first_binary else "binary"

    def is_binary(self, trainer: L.Trainer) -> bool:
        """Whether a trainer is in the last stage."""
        return self.stage_of(trainer.current_epoch) == "binary"

    def first_binary(self, trainer: L.Trainer) -> int:
        """The first epoch of the last stage, counted from 0, in the training of a trainer."""
        return sum(self._in_epochs(trainer))

    def _in_epochs(self, trainer: L.Trainer) -> tuple[int, int]:
        lengths = self.real_epochs, self.activation_epochs
        if any(length % 1 for length in lengths) and (trainer.max_epochs or -1) < 0:
            raise ValueError(
                "Stages: a share of epochs that have no end: set trainer.max_epochs, or give numbers of epochs"
            )
        real, activations = (int(x) if x % 1 == 0 else round(x * trainer.max_epochs) for x in lengths)
        return real, activations

    @property
    def _first_binary(self) -> int:
        return sum(self._lengths)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            set_stage(pl_module, "binary")
            return
        if not any(named_binary_layers(pl_module)):
            raise ValueError(f"Stages: {type(pl_module).__name__} has no binary layers: leave the callback out")
        self._lengths = self._in_epochs(trainer)
        last = trainer.max_epochs
        # a dry run is of one epoch, whatever is asked for
        if last not in (None, -1) and last <= self._first_binary and not trainer.fast_dev_run:
            raise ValueError(
                f"Stages: real_epochs {self.real_epochs} and activation_epochs {self.activation_epochs} leave none of "
                f"{last} epochs for the binary stage: set trainer.max_epochs above {self._first_binary}"
            )

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        set_stage(pl_module, self.stage_of(trainer.current_epoch))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._first_binary and callbacks_of(trainer, EarlyStopping):
            # so that the last stage begins, whatever it says before
            trainer.fit_loop.min_epochs = max(trainer.fit_loop.min_epochs or 0, self._first_binary + 1)
        # a run that goes on within an epoch is not told of the epoch's start
        self._enter(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._enter(trainer, pl_module)
        log_figures(trainer, {"bnn/stage": STAGES.index(self._stage)})

    def _enter(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        before, self._stage = self._stage, self.stage_of(trainer.current_epoch)
        set_stage(pl_module, self._stage)
        if before not in (None, self._stage):
            self._log_last(trainer, before)
            if self._stage == "binary":
                forget_best(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            figures = trainer.callback_metrics.items()
            self._figures = {key: float(value) for key, value in figures if key.startswith("val/")}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log_last(trainer, self._stage)
        if self._stage != "binary" and not trainer.fast_dev_run:
            text = "and what is tested, kept as best or exported was never trained as the binary network it is"
            rank_zero_warn(f"Stages: the training ended in the stage {self._stage!r}, {text}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        set_stage(pl_module, "binary")

    def _log_last(self, trainer: L.Trainer, stage: Stage) -> None:
        figures, self._figures = self._figures, {}
        log_figures(trainer, {f"stage/{stage}/{key}": value for key, value in figures.items()})

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self._stage, "figures": self._figures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._stage, self._figures = state_dict["stage"], dict(state_dict["figures"])
