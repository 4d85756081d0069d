"""Loads a trained network from a checkpoint, with its run's config and results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bnnlight.experiment.experiment import Experiment
from bnnlight.experiment.finished import read_results
from bnnlight.tasks.checkpoints import check_fits, read_checkpoint


def load_trained(verb: str, checkpoint: Path, config: Path | None) -> Experiment:
    """Model, data and trainer of a checkpoint's run; the model has the checkpoint's weights.

    Args:
        verb: for messages.
        checkpoint: of ``bnnlight fit``, in ``RUN/checkpoints``.
        config: of the run; ``RUN/config.yaml`` by default.

    Raises:
        FileNotFoundError: the checkpoint or its config is missing.
        ValueError: the file is not a checkpoint, or is of another network than the config's.
    """
    content = read_checkpoint(checkpoint)
    config = config_of(checkpoint, config)
    experiment = Experiment(verb, "", ["--config", str(config)])
    check_fits(content["state_dict"], experiment.model, checkpoint)
    experiment.model.load_state_dict(content["state_dict"])
    experiment.model.on_load_checkpoint(content)
    return experiment


def config_of(checkpoint: Path, config: Path | None, option: str = "--config FILE") -> Path:
    """The config of a checkpoint's run: as named, or ``RUN/config.yaml``.

    Args:
        checkpoint: of the run.
        config: as named, or None.
        option: how to name it.

    Raises:
        FileNotFoundError: it is not there.
    """
    config = config or checkpoint.resolve().parent.parent / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"config of the run not found: {config}; name it with {option}")
    return config


def results_of(checkpoint: Path) -> dict[str, Any]:
    """What stands in the run's ``results.json``; nothing where there is none."""
    return read_results(checkpoint.resolve().parent.parent) or {}
