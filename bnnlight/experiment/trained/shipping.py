"""What an export takes from a run: manifest, test pictures, and the comparison with the shipped model."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import RichProgressBar
from torch.utils.data import DataLoader, Subset

from bnnlight.data.loading.transforms import ImageFormat
from bnnlight.deploy.check import METRICS, Check
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.proof.verify import SideBySide
from bnnlight.deploy.runtime import Runtime
from bnnlight.experiment.experiment import Experiment
from bnnlight.experiment.trained.needs import names_of_classes
from bnnlight.experiment.trained.network import config_of, results_of
from bnnlight.imaging.pose_crop import MEAN, STD
from bnnlight.tasks import PoseTask

NUM_CALIBRATION = 512
"""Training pictures by which the ranges of 8-bit layers are found."""


def describe(experiment: Experiment, checkpoint: Path, config: Path | None, form: ImageFormat) -> Manifest:
    """What a shipped model has to say of itself.

    The metrics are those of ``results.json`` that ``bnnlight fit`` measured of the best checkpoint.

    Args:
        experiment: with the checkpoint's weights.
        checkpoint, config: where it is from.
        form: what is done to a picture before the network.
    """
    task, data, results = experiment.model, experiment.datamodule, results_of(checkpoint)
    measured = results.get("results", {}) if checkpoint.stem == "best" else {}
    origin = {
        "bnnlight": version("bnnlight"),
        "made": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "checkpoint_sha256": _sha256(checkpoint),
        "config_sha256": _sha256(config_of(checkpoint, config)),
        "data": _path(data),
    }
    origin |= {
        key: str(results[key]) for key in ("command", "commit", "seed", "tested_on") if results.get(key) is not None
    }
    common = {
        "network": _path(task.backbone),
        "metrics": {key: float(value) for key, value in measured.items() if key.startswith("test/")},
        "origin": origin,
    }
    if isinstance(task, PoseTask):
        colours = {"mean": tuple(map(float, MEAN)), "std": tuple(map(float, STD))}
        # a data module of one's own may say nothing of boxes
        padding = getattr(data, "box_padding", None)
        picture = PictureInput(3, form.image_size, **colours, box_padding=padding and float(padding))
        heatmaps = {"sigmoid": task.loss == "bce", "flip_test": task.flip_test}
        return Manifest("pose", input=picture, skeleton=task.skeleton, **heatmaps, **common)
    picture = PictureInput(form.num_channels, form.image_size, form.mean, form.std, form.resize_px)
    return Manifest("classification", input=picture, classes=names_of_classes(task, data), **common)


def _path(thing: object) -> str:
    """The import path of its class."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_pictures(experiment: Experiment, count: int | None) -> DataLoader | None:
    """Test pictures, evenly spread over the test set.

    Args:
        experiment: with its data.
        count: how many; None is all, 0 none.

    Returns:
        None where none are wanted.
    """
    if count == 0:
        return None
    data = experiment.datamodule
    data.prepare_data()
    data.setup("test")
    pictures = getattr(data, "test_set", None)
    loader = None
    if pictures is None:  # a data module of one's own may have loaders alone
        loader = data.test_dataloader()
        loader = loader[0] if isinstance(loader, list | tuple) else loader
        pictures = loader.dataset
    total = len(pictures)
    if count is None or count >= total:
        return loader or data.test_dataloader()
    chosen = Subset(pictures, np.linspace(0, total - 1, count).round().astype(int).tolist())
    if loader is not None:
        return DataLoader(chosen, loader.batch_size or 1, collate_fn=loader.collate_fn)
    data.test_set = chosen
    return data.test_dataloader()


def training_pictures(experiment: Experiment) -> Iterator[np.ndarray]:
    """Some batches of training pictures ``(N, C, H, W)``, as the network sees them in training."""
    data = experiment.datamodule
    data.prepare_data()
    data.setup("fit")
    num_pictures = 0
    for batch in data.train_dataloader():
        images = batch["image"] if isinstance(batch, dict) else batch[0]
        yield images.numpy()
        num_pictures += len(images)
        if num_pictures >= NUM_CALIBRATION:
            return


def compare(
    experiment: Experiment,
    file: Path,
    signs: Callable[[np.ndarray], dict[str, np.ndarray]],
    loader: DataLoader,
    exact: bool,
    quiet: bool,
) -> Check:
    """Tests the checkpoint and the shipped model on the same pictures.

    Args:
        experiment: of the checkpoint; its network is left as it is.
        file: of the shipped model.
        signs: of its binarized activations.
        loader: of the pictures.
        exact: whether both compute with float32.
        quiet: shows no progress bar.
    """
    task = experiment.model.to("cpu").eval()
    network = task.backbone
    both = SideBySide(network, Runtime(file), signs)
    shown = Shown(experiment.datamodule, loader)
    expected = tested(task, shown, quiet)
    try:
        task.backbone = both
        measured = tested(task, shown, quiet)
    finally:
        task.backbone = network
    return Check(file.name, both.agreement, expected, measured, exact)


class Shown(L.LightningDataModule):
    """Some test pictures, and what else a task asks its data: skeleton, classes, the annotations to measure against.

    Args:
        data: of the run.
        loader: of the pictures.

    Attributes:
        shows_part: whether they are a choice of the test pictures.
    """

    def __init__(self, data: L.LightningDataModule, loader: DataLoader) -> None:
        super().__init__()
        self.data, self.loader = data, loader
        self.shows_part = isinstance(loader.dataset, Subset)

    def test_dataloader(self) -> DataLoader:
        return self.loader

    def __getattr__(self, name: str) -> Any:
        if name == "data":  # before it is there
            raise AttributeError(name)
        return getattr(self.data, name)


def tested(task: L.LightningModule, shown: Shown, quiet: bool) -> dict[str, float]:
    """The figures of :data:`METRICS` of a task on some pictures, on one CPU process.

    Args:
        task: with the network that is measured.
        shown: the pictures.
        quiet: shows no progress bar.

    Returns:
        Nothing of a task that has no ``test_step``: then its network alone is run.
    """
    if type(task).test_step is L.LightningModule.test_step:
        with torch.inference_mode():
            for batch in shown.test_dataloader():
                task.backbone(batch["image"] if isinstance(batch, dict) else batch[0])
        return {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=not quiet,
            callbacks=[] if quiet else [RichProgressBar()],
        )
        (measured,) = trainer.test(task, shown, verbose=False)
    return {key: float(measured[key]) for key in METRICS if key in measured}
