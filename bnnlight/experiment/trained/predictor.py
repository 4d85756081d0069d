"""Predicts with a checkpoint: its task, and what its data do to a picture before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bnnlight.experiment.experiment import Experiment
from bnnlight.experiment.trained.classes import ClassPredictor
from bnnlight.experiment.trained.needs import names_of_classes
from bnnlight.experiment.trained.network import load_trained
from bnnlight.experiment.trained.poses import PosePredictor
from bnnlight.imaging.boxes import PADDING
from bnnlight.imaging.skeletons import Skeleton
from bnnlight.tasks import PoseTask

Predictor = Callable[[Sequence[Image.Image], Sequence[np.ndarray] | None], list[dict[str, Any]]]


def load_run(checkpoint: Path, config: Path | None) -> tuple[Any, Any]:
    """The task of a checkpoint with its weights and class names, and the transform of its data.

    Args:
        checkpoint: of ``bnnlight fit``, in ``RUN/checkpoints``.
        config: of the run; ``RUN/config.yaml`` by default.

    Raises:
        FileNotFoundError: the checkpoint or its config is missing.
        ValueError: the file is not a checkpoint or is of another network, or the config's data module has no
            ``eval_transform``.
    """
    experiment = _loaded(checkpoint, config)
    return experiment.model, experiment.datamodule.eval_transform


def predictor_of(
    checkpoint: Path,
    config: Path | None,
    top: int,
    batch_size: int,
    num_threads: int | None,
    box_padding: float | None,
) -> tuple[Predictor, Skeleton | None]:
    """What answers for pictures with a checkpoint, and the skeleton of its joints; None for classes.

    Args:
        checkpoint, config: see :func:`load_run`.
        top: how many classes to name.
        batch_size: most people that are looked for at once.
        num_threads: CPU threads; None leaves it to torch.
        box_padding: side of the square that is cut out by the longer side of a box; None: as in training.

    Raises:
        FileNotFoundError, ValueError: see :func:`load_run`.
    """
    experiment = _loaded(checkpoint, config)
    task, data = experiment.model, experiment.datamodule
    if num_threads:
        torch.set_num_threads(num_threads)
    task.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    if isinstance(task, PoseTask):
        padding = box_padding or getattr(data, "box_padding", None) or PADDING
        return PosePredictor(task, data.eval_transform, batch_size, padding), task.skeleton
    names = ClassPredictor(task, data.eval_transform, top, names_of_classes(task, data))
    return (lambda pictures, boxes: names(pictures)), None


def _loaded(checkpoint: Path, config: Path | None) -> Experiment:
    experiment = load_trained("predict", checkpoint, config)
    if getattr(experiment.datamodule, "eval_transform", None) is None:
        name = type(experiment.datamodule).__name__
        raise ValueError(
            f"the data module of {checkpoint}, {name}, has no eval_transform to prepare images with: give it one, or "
            "predict with an exported model"
        )
    return experiment
