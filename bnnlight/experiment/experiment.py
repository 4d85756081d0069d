"""From the command line and a config to model, data and trainer."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import ActionYesNo, Namespace, add_instantiator
from jsonargparse.typing import PositiveInt
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import bnnlight.backbones
import bnnlight.data
import bnnlight.nn
import bnnlight.tasks  # noqa: F401  (makes short class names known to the parser)
from bnnlight.callbacks import (
    Activations,
    Alphas,
    BadImages,
    Compile,
    CompileOptions,
    Damping,
    FactorRanks,
    FlipRates,
    Pictures,
    ProcessorTime,
    StepTime,
)
from bnnlight.callbacks.averages import whole
from bnnlight.callbacks.compiled import check_backend
from bnnlight.console.config_errors import named_failures
from bnnlight.console.shipped_configs import with_found_configs
from bnnlight.experiment.checkpoint_io import WholeCheckpointIO
from bnnlight.experiment.config.changes import check_changes
from bnnlight.experiment.config.files import check_config_files, options_in
from bnnlight.experiment.config.null_values import check_nulls, read_none_as_null
from bnnlight.experiment.config.option_ranges import check_bare, check_devices, check_ranges
from bnnlight.experiment.config.own_code import find_own_code
from bnnlight.experiment.config.printed import print_config_as_trained
from bnnlight.experiment.config.swapped_classes import forget_replaced
from bnnlight.experiment.config.untyped import check_hints
from bnnlight.experiment.factories import share_factories
from bnnlight.experiment.finished import check_finished
from bnnlight.experiment.loggers import guard_loggers, place_loggers, with_places
from bnnlight.experiment.own_files import Start, leave_last, write_over_own
from bnnlight.experiment.processes import SeedPerRank, SyncBatchNormAnywhere
from bnnlight.experiment.run_dir import new_run_dir, newest_checkpoint, resumed_run_dir
from bnnlight.experiment.run_lock import RunLock
from bnnlight.experiment.save_config import SaveConfig
from bnnlight.experiment.unused_latent import unused_latent
from bnnlight.guards.heartbeat import Heartbeat
from bnnlight.guards.last_checkpoint import LastCheckpoint
from bnnlight.guards.non_finite import NonFinite
from bnnlight.nn.start import weights_follow

_LOGGERS: list[dict[str, Any]] = [
    {"class_path": "bnnlight.tracking.WandbRun", "init_args": {}},
    {"class_path": "bnnlight.tracking.MetricsFile", "init_args": {}},
]


class Experiment(LightningCLI):
    """Model, data and trainer as a config names them; nothing is run.

    Args:
        verb: the command's name, for its help.
        description: what the command does, for its help.
        args: the command line behind the verb.
        for_fit: gives the run a directory with loggers, checkpoints and the whole config. Without it, nothing
            is logged and nothing is written.

    Attributes:
        run_dir: the run's directory, or None without ``for_fit``.
        lock: what keeps other runs out of it, until ``release``; on rank zero alone.
    """

    def __init__(self, verb: str, description: str, args: list[str], for_fit: bool = False) -> None:
        self._args, self._for_fit, self._goes_on = with_places(with_found_configs(args)), for_fit, False
        find_own_code(value for option, value in options_in(self._args) if option == "config")
        self._start = Start.of(None)
        if not for_fit:
            # what Lightning tells of devices and seeds would stand between the user and a single result
            for name in ("lightning.pytorch", "lightning.fabric"):
                logging.getLogger(name).setLevel(logging.WARNING)
        self.run_dir: Path | None = None
        self.lock: RunLock | None = None
        add_instantiator(named_failures, object)
        read_none_as_null()
        try:
            super().__init__(
                run=False,
                seed_everything_default=0,
                save_config_callback=SaveConfig if for_fit else None,
                auto_configure_optimizers=False,
                parser_kwargs={
                    "prog": f"bnnlight {verb}",
                    "description": description,
                    "exit_on_error": False,
                    "allow_abbrev": False,
                    "dump_header": [],
                },
            )
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Lets other runs into the run's directory."""
        if self.lock:
            self.lock.release()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        options = (
            ("run_dir", str | None, None, "Directory of the run; runs/CONFIG/TIME unless given."),
            ("ckpt_path", str | None, None, "Checkpoint to start from."),
            ("test_after_fit", bool, True, "Whether fit ends by testing the best checkpoint."),
            ("seed_per_rank", bool, False, "Whether each process draws random numbers (dropout) of its own."),
            ("num_threads", PositiveInt | None, None, "CPU threads that torch computes with; one per core by default."),
        )
        for name, kind, default, text in options:
            parser.add_argument(f"--{name}", type=kind, default=default, help=text)
        parser.add_argument(
            "--compile",
            nargs="?",
            const=True,
            type=bool | CompileOptions,
            default=False,
            help="Whether fit has torch.compile make the network quicker, or what is compiled and how.",
        )
        text = "Go on in run_dir where fit was stopped, or begin a run there."
        parser.add_argument("--resume", action=ActionYesNo, default=False, help=text)
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(NonFinite, "non_finite")
        parser.add_lightning_class_args(LearningRateMonitor, "lr_monitor")
        parser.add_lightning_class_args(FlipRates, "flip_rates")
        parser.add_lightning_class_args(FactorRanks, "factor_ranks")
        parser.add_lightning_class_args(Alphas, "alphas")
        parser.add_lightning_class_args(Activations, "activations")
        parser.add_lightning_class_args(Pictures, "pictures")
        parser.add_lightning_class_args(BadImages, "bad_images")
        # behind the others, whose looks would else count as waiting for data
        parser.add_lightning_class_args(StepTime, "step_time")
        parser.add_lightning_class_args(RichProgressBar, "progress")
        parser.add_lightning_class_args(Heartbeat, "heartbeat")
        parser.set_defaults(
            {
                "trainer.logger": _LOGGERS,
                "checkpoint.monitor": "val/acc1",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                # a run that goes on may find a best.ckpt that it does not know of yet: it is to be replaced
                "checkpoint.enable_version_counter": False,
                # as the validation ends, before last.ckpt; as the epoch ends, some of its figures would be lost
                "checkpoint.save_on_train_epoch_end": False,
                "lr_monitor.logging_interval": "step",
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        check_config_files(self._args)
        print_config_as_trained(parser, self._args)
        self.config = parser.parse_args(self._args)
        forget_replaced(self.config, self._args)
        check_hints(self.config)
        check_nulls(self.config)
        check_ranges(self.config)
        if self._for_fit and isinstance(self.config.compile, Namespace):
            check_backend(self.config.compile.backend)  # before there is a directory
        if not (self._for_fit and self.config.resume):  # what a run began with may be gone as it goes on
            self._check_checkpoint()
        if self._for_fit:
            check_bare(self.config.trainer)
            # before Lightning says its first word, so that what is wrong with the directory is the only line
            choose = resumed_run_dir if self.config.resume else new_run_dir
            self.run_dir, self.lock = choose(self.config)

    def before_instantiate_classes(self) -> None:
        if self.config.num_threads:
            torch.set_num_threads(self.config.num_threads)
        if not self._for_fit:
            self.config.trainer.logger = False
            return
        requested = self.config.clone()
        requested.run_dir, requested.resume = None, False
        for checkpoint in (self.config.checkpoint, self.config.last_checkpoint):
            if checkpoint.dirpath is None:
                checkpoint.dirpath = str(self.run_dir / "checkpoints")
        self._goes_on = bool(self.config.ckpt_path)  # what ended another run does not end this one
        if self.config.resume:
            self._resume(requested)
        self.save_config_kwargs = {"run_dir": self.run_dir, "requested": requested}
        self.config.trainer.default_root_dir = str(self.run_dir)
        loggers = place_loggers(self.config.trainer.logger, self.run_dir, bool(self.config.resume))
        self.config.trainer.logger = loggers

    def _resume(self, requested: Namespace) -> None:
        config_file = self.run_dir / "config.yaml"
        with_defaults = self._with_defaults(config_file) if config_file.exists() else "{}"
        begun = yaml.safe_load(with_defaults)
        folder = (begun.get("last_checkpoint") or {}).get("dirpath") or self.run_dir / "checkpoints"
        newest = newest_checkpoint(Path(self.config.last_checkpoint.dirpath), Path(folder))
        if newest and config_file.exists():
            changes = check_changes(self.parser.dump(requested, skip_none=False), config_file, with_defaults)
            if self.config.ckpt_path in (None, begun.get("ckpt_path")):
                self.config.ckpt_path = None  # the run began there, and has come further
                self._goes_on = check_finished(self.config, self.run_dir, newest, changes)
            if self.lock:  # on rank zero
                for change in changes:
                    print(f"bnnlight fit: changed since the run began: {change}", file=sys.stderr, flush=True)
        self._check_checkpoint()
        self.config.ckpt_path = self.config.ckpt_path or newest
        self._start = Start.of(newest, self.config.ckpt_path)

    def _check_checkpoint(self) -> None:
        # before a network is made, which may take long
        if self.config.ckpt_path and not Path(self.config.ckpt_path).is_file():
            raise FileNotFoundError(f"checkpoint not found: {self.config.ckpt_path}")

    def _with_defaults(self, config: Path) -> str:
        try:
            read = self.parser.parse_args([f"--config={config}"])
            read.config = None
            return self.parser.dump(read, skip_none=False)
        except Exception:  # cut off, or of a version that had options which are gone: then it is compared as it is
            return "{}"

    def instantiate_classes(self) -> None:
        # what is not trained gets its weights from a checkpoint, or needs none
        with contextlib.nullcontext() if self._for_fit else weights_follow():
            super().instantiate_classes()
        share_factories(self.model)
        if self._for_fit and self.lock and (warning := unused_latent(self.config, self.model)):  # on rank zero
            print(f"bnnlight fit: {warning}", file=sys.stderr, flush=True)
        self.config_init.last_checkpoint.goes_on = self._goes_on

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        # the directory is new, so nothing of an earlier run can be lost in it
        warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        # of Lightning to its own authors, and of callbacks that measuring has no use for
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated.*")
        warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
        config = {**self.config_init.trainer, **kwargs}
        own = config.get("callbacks") or []
        own = [whole(c) for c in (own if isinstance(own, list) else [own])]
        callbacks = [self.config_init[key] for key in self.parser.callback_keys]
        if not config.get("logger"):
            callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
        if config.get("enable_progress_bar") is False:
            callbacks = [c for c in callbacks if not isinstance(c, RichProgressBar)]
        if config.get("enable_checkpointing") is False or not self._for_fit:
            callbacks = [c for c in callbacks if not isinstance(c, Checkpoint)]
            config["enable_checkpointing"] = False
        if not self._for_fit:
            own = [c for c in own if not isinstance(c, Checkpoint)]
            callbacks = [c for c in callbacks if not isinstance(c, Heartbeat)]
        if self._for_fit:
            callbacks = [*callbacks, ProcessorTime(), Damping()]  # they have no options
            if compiled := self.config_init.compile:
                # behind all that put hooks on layers
                callbacks.append(Compile() if compiled is True else Compile(compiled))
        if self.config.seed_per_rank:
            callbacks = [*callbacks, SeedPerRank()]
        if self.save_config_callback and not config.get("fast_dev_run"):
            callbacks = [*callbacks, self.save_config_callback(self.parser, self.config, **self.save_config_kwargs)]
        plugins = config.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, list) else [plugins]
        if config.get("sync_batchnorm"):
            plugins.append(SyncBatchNormAnywhere())
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpointIO(self._start.run))
        callbacks = [*own, *callbacks]
        _check_callbacks(callbacks)
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and self._for_fit:
                leave_last(callback, self.config.last_checkpoint.dirpath)
                if self._start.first_step is not None:
                    write_over_own(callback, self._start)
        if SLURMEnvironment.detect() and not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            # the job's script puts it back into the queue: a run that does so as well would be in it twice
            plugins.append(SLURMEnvironment(auto_requeue=False))
        trainer = L.Trainer(**config | {"callbacks": callbacks, "plugins": plugins})
        check_devices(trainer)
        if self._for_fit:
            guard_loggers(trainer.loggers, self.run_dir, bool(self.config.resume))
        return trainer


def _check_callbacks(callbacks: Sequence[L.Callback]) -> None:
    """
    Raises:
        ValueError: two of them would have one place in a checkpoint, so that Lightning refuses them.
    """
    places = set()
    for callback in callbacks:
        if type(callback).state_dict is not L.Callback.state_dict:
            if callback.state_key in places:
                name = type(callback).__name__
                raise ValueError(f"callback {name} is named twice, in configs or on the command line: keep one of them")
            places.add(callback.state_key)
