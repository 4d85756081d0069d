"""`load`: a run's trained network for use from Python, as `bnnlight.load`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from bnnlight.experiment.trained.network import config_of, load_trained

CHECKPOINTS = ("best.ckpt", "last.ckpt")
"""What is looked for in a run's ``checkpoints/``, in this order."""


@dataclass(frozen=True)
class Trained:
    """What a run left, ready for use.

    Attributes:
        checkpoint: the file that the weights are from.
        task: with the weights, on the CPU and in eval mode.
        data: the run's data module; nothing of it is read before its ``setup``.
        config: the run's whole config, as its YAML has it.
    """

    checkpoint: Path
    task: L.LightningModule
    data: L.LightningDataModule
    config: dict[str, Any]

    @property
    def network(self) -> nn.Module:
        """The task's backbone: images ``(N, C, H, W)`` to logits or heat maps."""
        return self.task.backbone


def load(run: str | Path, config: str | Path | None = None) -> Trained:
    """Network, task, data and config of a run of ``bnnlight fit``.

    Random numbers and the number of threads stay as they are.

    Args:
        run: the run's directory, of which ``checkpoints/best.ckpt`` is read, or ``last.ckpt`` if there is none; or a
            checkpoint.
        config: YAML of the run; ``RUN/config.yaml`` by default. Needed for a checkpoint of a script of your own.

    Raises:
        FileNotFoundError: there is no such run, checkpoint or config.
        ValueError: the file is a config or else no checkpoint, or is of another network than the config's.
    """
    checkpoint = _checkpoint_of(Path(run))
    file = config_of(checkpoint, None if config is None else Path(config), option="config=FILE")
    with _nothing_else_changed():
        experiment = load_trained("load", checkpoint, file)
    task = experiment.model.cpu().eval()
    return Trained(checkpoint, task, experiment.datamodule, yaml.safe_load(file.read_text(encoding="utf-8")))


def _checkpoint_of(run: Path) -> Path:
    if not run.is_dir():
        if run.suffix in (".yaml", ".yml") and run.is_file():
            where = run.parent if run.name == "config.yaml" else "RUN"
            raise ValueError(f"{run} is a config: give its run's directory, {where}, or one of its checkpoints")
        if run.is_file():
            return run
        raise FileNotFoundError(f"no such run or checkpoint: {run}; give a run's directory or one of its checkpoints")
    for name in CHECKPOINTS:
        if (run / "checkpoints" / name).is_file():
            return run / "checkpoints" / name
    raise FileNotFoundError(
        f"{run} has no checkpoints/{' or '.join(CHECKPOINTS)}: give the directory of a run of `bnnlight fit`, or a "
        "checkpoint (an exported model is opened by bnnlight.deploy.Runtime)"
    )


@contextmanager
def _nothing_else_changed() -> Iterator[None]:
    """Takes back what a command line may set for its whole process: seed, threads, how much Lightning tells."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels, threads = [logger.level for logger in loggers], torch.get_num_threads()
    seed = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    try:
        with isolate_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in seed.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
