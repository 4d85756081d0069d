"""Saves what a run is made of: its whole config, the code's version and the command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import SaveConfigCallback

from bnnlight.experiment.config.own_code import with_own_folders
from bnnlight.experiment.loggers import TO_GO_ON
from bnnlight.experiment.report import write_json
from bnnlight.nn.inspect import named_binary_layers
from bnnlight.tracking import WandbRun
from bnnlight.tracking.trackers import hand_config, hand_table, to_go_on

_LAYER_COLUMNS = ("layer", "weight", "latent", "ranks", "trained numbers", "1-bit weights", "α")


class SaveConfig(SaveConfigCallback):
    """Writes the whole config into the run's directory and hands it to the trackers, on rank zero, before training.

    They also get the code's version and the command (``bnnlight``) and a table of the binary layers. By what they go on
    with the run is kept in the file :data:`bnnlight.experiment.loggers.TO_GO_ON`.
    """

    def __init__(self, parser: Any, config: Namespace, *, run_dir: Path, requested: Namespace, **kwargs: Any) -> None:
        # as it was asked for: the places of this run filled in would lead a repetition into its directory
        super().__init__(parser, requested, save_to_log_dir=False, **kwargs)
        self.run_dir = run_dir

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        text = self.parser.dump(self.config, skip_none=False)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        # written beside and moved into place, so that a killed process leaves no half a config
        part = self.run_dir / "config.yaml.part"
        part.write_text(with_own_folders(yaml.safe_load(text), text), encoding="utf-8")
        part.replace(self.run_dir / "config.yaml")
        arguments = to_go_on(trainer.loggers)
        if arguments:
            write_json(self.run_dir / TO_GO_ON, arguments)
        hand_config(trainer.loggers, yaml.safe_load(text), provenance(), self.run_dir / "config.yaml")
        hand_table(trainer.loggers, "bnn/layers", _LAYER_COLUMNS, layer_rows(pl_module))
        for logger in trainer.loggers:
            if isinstance(logger, WandbRun) and logger.watched:
                logger.watch(pl_module, log=logger.watched, log_freq=logger.watch_interval, log_graph=False)


def layer_rows(model: L.LightningModule) -> list[list[Any]]:
    """One row a binary layer: what it is and how many numbers it trains and ships."""
    rows = []
    for name, layer in named_binary_layers(model):
        shape, ranks = ("×".join(map(str, sizes)) for sizes in (layer.weight_shape, layer.latent.ranks))
        trained = sum(p.numel() for p in layer.latent.parameters())
        kind = type(layer.latent).__name__
        rows.append([name, shape, kind, ranks, trained, layer.weight_shape.numel(), layer.scale.name])
    return rows


def command_line() -> str:
    """The command that started this process, for the record of a run."""
    program = Path(sys.argv[0])
    # what `python -m bnnlight` has there
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])


def provenance() -> dict[str, Any]:
    """Version, commit (with a + where files were changed; None where it is not known) and command.

    Outside a git checkout the commit is what ``BNNLIGHT_COMMIT`` says, which the Docker image sets.
    """
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "HEAD")
    changed = "+" if commit and _git(here, "status", "--porcelain", "--untracked-files=no") else ""
    return {
        "version": version("bnnlight"),
        "commit": commit + changed if commit else os.environ.get("BNNLIGHT_COMMIT") or None,
        "command": command_line(),
    }


def _git(folder: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
