"""`Runtime`: runs a shipped model, from a file to answers, without the code that trains."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from bnnlight.deploy.answers import find_joints, name_classes
from bnnlight.deploy.hub import PREFIX, downloaded
from bnnlight.deploy.manifest import Manifest
from bnnlight.deploy.shipped import shipped_models
from bnnlight.imaging.boxes import check_boxes
from bnnlight.imaging.reading import as_picture

FORMATS = {
    ".xml": ("openvino", "bnnlight.deploy.formats.openvino", "OpenVINOEngine"),
    ".onnx": ("onnx", "bnnlight.deploy.formats.onnx", "OnnxEngine"),
    ".qonnx": ("qonnx", "bnnlight.deploy.formats.qonnx", "QonnxEngine"),
    ".safetensors": ("packed", "bnnlight.deploy.formats.packed", "PackedEngine"),
    ".tflite": ("lce", "bnnlight.deploy.formats.lce", "LceEngine"),
}
"""Ending of a model's main file → the format's name, the module of its engine and the engine's class."""
FILES = {name: f"model{ending}" for ending, (name, _, _) in FORMATS.items()}
"""Format → its main file in the folder of an exported model."""


class Engine(Protocol):
    """What runs the network of one format."""

    manifest: Manifest
    input_shape: tuple[int, int, int]

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


class Runtime:
    """Answers with a shipped model. Nothing that trains is needed: a packed model runs in torch where it is installed,
    and in OpenVINO elsewhere.

    Any number of threads may call it. What it answers for a picture does not depend on the pictures beside it, and its
    memory not on the sizes of batches that it has seen. A process that is forked, or that it is pickled for, opens the
    file anew.

    Args:
        path: folder of an exported model with one of ``model.xml``, ``model.onnx`` and ``model.safetensors``, a
            file with such an ending, the name of a model that comes with the package, such as ``lsp``, or
            ``hf://OWNER/NAME``, a model on the Hugging Face Hub.
        num_threads: CPU threads that one call computes with, on one picture after the other; calls of several threads
            run beside each other while there are cores. By default each picture is computed by one thread, and as many
            pictures of a call at a time as there are cores.

    Attributes:
        file: the model's main file.
        manifest: the model's task, classes or joints, and origin.
        input_shape: ``(C, H, W)`` of the network's input.
        format: ``packed``, ``openvino``, ``onnx`` or ``qonnx``.

    Raises:
        FileNotFoundError: there is no model at the path.
        OSError: the model lies on the hub, which cannot be reached.
        ValueError: the folder holds several models, the file is none or is damaged, the package that runs it is
            not installed, or it runs elsewhere (``model.tflite``).
    """

    def __init__(self, path: str | Path, num_threads: int | None = None) -> None:
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads is {num_threads}: give at least 1")
        self._num_threads = num_threads
        with _located(path) as file:
            self.file = file.absolute()
            self.format = FORMATS[self.file.suffix.lower()][0]
            self._engines = {os.getpid(): self._open()}
            engine = self._engine()
            self.manifest, self.input_shape = engine.manifest, tuple(engine.input_shape)
            picture = self.manifest.input
            if self.input_shape != (picture.channels, picture.size_px, picture.size_px):
                raise ValueError(
                    f"{self.file}: the network takes {self.input_shape}, but its manifest names {picture.channels} "
                    f"channels of {picture.size_px} px; export it again"
                )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The network's output as it is.

        Args:
            images: ``(N, C, H, W)`` float32, normalized as the manifest says.

        Returns:
            float32: logits ``(N, classes)``, or heat maps ``(N, stacks, J, h, w)``.

        Raises:
            ValueError: the images are of another shape or type.
        """
        return self._engine()(images)

    def __reduce__(self) -> tuple[type[Runtime], tuple[Path, int | None]]:
        return type(self), (self.file, self._num_threads)

    def _engine(self) -> Engine:
        """The engine of this process."""
        process = os.getpid()
        if process not in self._engines:
            # A fork leaves an engine's threads behind. The engine itself is kept: OpenVINO waits for them to close.
            self._engines[process] = self._open()
        return self._engines[process]

    def _open(self) -> Engine:
        _, module, name = FORMATS[self.file.suffix.lower()]
        try:
            return getattr(import_module(module), name)(self.file, self._num_threads)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{self.file}: the package {error.name} is needed to run it and is not installed; "
                "run: pip install 'bnnlight[deploy]'"
            ) from error

    def predict(
        self,
        pictures: Sequence[Image.Image | np.ndarray],
        top: int = 5,
        batch_size: int = 32,
        boxes: Sequence[Any] | None = None,
        box_padding: float | None = None,
    ) -> list[dict[str, Any]]:
        """Classes or joints of pictures.

        Args:
            pictures: PIL images of any 8-bit mode, which are turned upright as their EXIF tag says, or uint8 arrays
                ``(H, W, 3)``, RGB, or ``(H, W)``, grey.
            top: classification: how many classes to name, best first.
            batch_size: most pictures, or boxes, that the network is handed at once.
            boxes: pose: for each picture the boxes ``(N, 4)`` of the people in it: x and y of the corner, width,
                height, px of the picture held upright.
            box_padding: side of the square that is cut out by the longer side of a box; None: as in training, 1.25
                where the manifest does not tell.

        Returns:
            For each picture, as its task is, ``{"classes": [{"class": …, "probability": …}, …]}``, or
            ``{"joints": [{"joint": …, "x": …, "y": …, "confidence": …}, …]}`` with all joints of the one person
            that fills the picture, in pixels of the picture held upright. With boxes
            ``{"people": [{"box": …, "score": …, "joints": …}, …]}``, in their order; the score is that of
            :func:`bnnlight.imaging.boxes.pose_score`, to be multiplied by a box's own.

        Raises:
            ValueError: something is no picture or no box, a picture has 32 bits a channel, or boxes are
                given to a model of classes.
        """
        if isinstance(pictures, Image.Image) or (isinstance(pictures, np.ndarray) and pictures.ndim < 4):
            raise ValueError("predict takes several pictures: put a single one into a list")
        if top < 1 or batch_size < 1:
            raise ValueError(f"top is {top}, batch_size is {batch_size}: give at least 1")
        if boxes is not None:
            boxes = self._checked_boxes(boxes, len(pictures))
        answers: list[dict[str, Any]] = []
        for start in range(0, len(pictures), batch_size):
            batch = slice(start, start + batch_size)
            some = [_checked(picture, start + index) for index, picture in enumerate(pictures[batch])]
            if self.manifest.task == "pose":
                of_batch = boxes[batch] if boxes is not None else None
                answers += find_joints(self, self.manifest, some, of_batch, box_padding, batch_size)
            else:
                answers += name_classes(self, self.manifest, some, top)
        return answers

    def _checked_boxes(self, boxes: Sequence[Any], num_pictures: int) -> list[np.ndarray]:
        if self.manifest.task != "pose":
            raise ValueError(f"{self.file}: boxes are for models that find joints, and this one names classes")
        if len(boxes) != num_pictures:
            raise ValueError(
                f"{len(boxes)} lists of boxes are given for {num_pictures} pictures: give one list for each"
            )
        checked = []
        for index, some in enumerate(boxes):
            try:
                checked.append(check_boxes(some))
            except ValueError as error:
                raise ValueError(f"picture {index}: {error}") from error
        return checked


def _checked(picture: Image.Image | np.ndarray, index: int) -> Image.Image:
    try:
        return as_picture(picture)
    except ValueError as error:
        raise ValueError(f"picture {index}: {error}") from error


@contextlib.contextmanager
def _located(path: str | Path) -> Iterator[Path]:
    """The main file of a model, to be opened inside: one that was downloaded and cannot be opened is not kept."""
    if str(path).startswith(PREFIX):
        with downloaded(str(path), FILES.values()) as file:
            yield file
    else:
        yield find_model(Path(path))


def find_model(path: Path) -> Path:
    """The main file of a shipped model.

    Args:
        path: its folder or file; or, where nothing is there, the name of a model that comes with the package.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several, or the file is of another kind.
    """
    if path.is_dir():
        files = [path / name for name in FILES.values() if (path / name).is_file()]
        if not files:
            run = path / "checkpoints"
            beside = f"; it is a run: name one of its checkpoints, as {run}/best.ckpt" if run.is_dir() else ""
            raise FileNotFoundError(f"no shipped model in {path}: looked for {', '.join(FILES.values())}{beside}")
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ValueError(f"{path} holds several models, {names}: name one of the files")
        return files[0]
    if not path.exists():
        models = shipped_models()
        if str(path) in models:
            return find_model(models[str(path)])
        raise FileNotFoundError(f"no such model: {path}; those that come with bnnlight: {', '.join(models) or 'none'}")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path} is not a shipped model: give a folder, or a file that ends in {', '.join(FORMATS)}")
    return path
