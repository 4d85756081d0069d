"""Trained networks as `pareto.py` compares them: what is shipped of each, how accurate it is, and what it costs."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from inference_networks import Network, to_ir
from torch import Tensor, nn

from bnnlight.deploy.formats.int8 import find_ranges
from bnnlight.deploy.formats.openvino_compiled import Compiled
from bnnlight.deploy.formats.openvino_graph import to_openvino
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.proof.quantized import quantized
from bnnlight.experiment.trained.network import load_trained
from bnnlight.experiment.trained.shipping import check_pictures, tested, training_pictures
from bnnlight.nn.summary import summarize

Shape = tuple[int, int, int]
BITS = {"binary": "float32", "binary, int8": "int8", "real": "float32", "real, int8": "int8"}
"""Kind of a shipped network → what its real layers compute with."""


@dataclass
class Shipped:
    """One file that somebody could ship.

    Attributes:
        name: of the network.
        kind: one of :data:`BITS`.
        model: for pictures of the size that it was trained with.
        large: the same weights for pictures of the size that is timed.
        num_bytes: of the file with the weights.
        macs: multiply-adds for one large picture by what they compute with: ``binary``, ``int8``, ``float32``.
    """

    name: str
    kind: str
    model: ov.Model
    large: ov.Model
    num_bytes: int
    macs: dict[str, int]

    @property
    def row(self) -> str:
        """Its name in the table."""
        return f"{self.name}, int8" if self.kind.endswith("int8") else self.name

    def timed(self, threads: int) -> Network:
        """It as a function of one large picture."""
        return Compiled(self.large, threads)


class InPlace(nn.Module):
    """An OpenVINO model in the place of a task's network."""

    def __init__(self, model: ov.Model) -> None:
        super().__init__()
        self.run = Compiled(model, None)

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.run(images.numpy())[0].copy())


def shipped(name: str, checkpoint: Path, size: int, folder: Path, nncf_python: str | None) -> Iterator[Shipped]:
    """What is shipped of a trained network: as it is, and with its real layers on 8-bit integers.

    Args:
        name: of the network.
        checkpoint: of ``bnnlight fit``.
        size: width and height of the pictures that are timed, px.
        folder: for files.
        nncf_python: Python of an environment with NNCF, which then quantizes the real networks.
    """
    experiment = load_trained("pareto", checkpoint, None)
    network = experiment.model.to("cpu").eval().backbone
    pictures = np.concatenate(list(training_pictures(experiment)))
    small, large = tuple(pictures.shape[1:]), (pictures.shape[1], size, size)
    total = summarize(network, large)
    binary, real = total.total("num_binary_macs"), total.total("num_real_macs")
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(pictures[:32]), size).numpy()
    for int8 in (False, True):
        if binary:
            models = [_binary(network, shape, pictures if int8 else None) for shape in (small, large)]
        else:
            given = ((small, pictures), (large, enlarged))
            models = [_real(network, shape, calib if int8 else None, folder, nncf_python) for shape, calib in given]
        kind = f"{'binary' if binary else 'real'}{', int8' if int8 else ''}"
        macs = {"binary": binary, "int8": real if int8 else 0, "float32": 0 if int8 else real}
        yield Shipped(name, kind, *models, _num_bytes(models[0], folder), macs)


def accuracy(checkpoint: Path, model: ov.Model) -> dict[str, float]:
    """The test figures of a shipped model, by the task and the test pictures of its run."""
    experiment = load_trained("pareto", checkpoint, None)
    loader = check_pictures(experiment, None)
    task = experiment.model.to("cpu").eval()
    task.backbone = InPlace(model)
    return tested(task, loader, quiet=True)


def _binary(network: nn.Module, shape: Shape, pictures: np.ndarray | None) -> ov.Model:
    program = freeze(network, shape)
    if pictures is None:
        return to_openvino(program)
    calibration = torch.nn.functional.interpolate(torch.from_numpy(pictures), shape[1:]).numpy()
    batches = [calibration[i : i + 16] for i in range(0, min(len(calibration), 256), 16)]
    return to_openvino(program, ranges=find_ranges(program, batches))


def _real(
    network: nn.Module, shape: Shape, pictures: np.ndarray | None, folder: Path, nncf_python: str | None
) -> ov.Model:
    model = to_ir(network, shape)
    if pictures is None:
        return model
    if nncf_python is None:
        return quantized(model, pictures)
    script = Path(__file__).with_name("inference_nncf.py")
    # OpenVINO keeps the weights of a model that it has read in their file: each model has files of its own
    place = Path(tempfile.mkdtemp(dir=folder))
    files = [place / name for name in ("float32.xml", "nncf.xml", "pictures.npy")]
    ov.save_model(model, files[0], compress_to_fp16=False)
    np.save(files[2], pictures)
    done = subprocess.run([nncf_python, script, *files], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{nncf_python} {script}: {done.stderr.strip().splitlines()[-1]}")
    return ov.Core().read_model(files[1])


def _num_bytes(model: ov.Model, folder: Path) -> int:
    file = folder / "size.xml"
    ov.save_model(model, file, compress_to_fp16=False)
    return file.with_suffix(".bin").stat().st_size


def figure_of(results: dict[str, Any], metric: str) -> float:
    """A test figure in percent."""
    return 100 * float(results[f"test/{metric}"])
