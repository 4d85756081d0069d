"""Shipped models as ONNX files: written with onnx, run with onnxruntime alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from bnnlight.deploy.formats.onnx_bytes import find_metadata, find_outputs, with_outputs
from bnnlight.deploy.formats.workers import Workers
from bnnlight.deploy.manifest import Manifest
from bnnlight.deploy.program import INPUT, Program
from bnnlight.deploy.seal import check_seal, sealed

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FILE = "model.onnx"
KEY = "bnnlight"
"""Of the manifest in the file's metadata."""
BINARIZE = "Where"
"""The operator that ``binarize`` steps alone are written with."""
FATAL = 4
"""onnxruntime's level of severity: what goes wrong is raised, nothing is printed."""


def save_onnx(program: Program, manifest: Manifest, folder: Path, real_dtype: Literal["fp32", "fp16"] = "fp32") -> Path:
    """Writes ``folder/model.onnx``, all of it or nothing.

    Args:
        program: a frozen network.
        manifest: what the file says of itself.
        folder: is made where it is missing.
        real_dtype: in which weights of real convolutions and linear layers are stored; all else is float32.

    Returns:
        The file.

    Raises:
        ValueError: the program is not sound, or a weight is too large for float16.
        OSError: the file cannot be written.
    """
    from onnx import helper

    from bnnlight.deploy.formats.container import write_bytes
    from bnnlight.deploy.formats.onnx_graph import to_onnx

    model = to_onnx(program, real_dtype)
    helper.set_model_props(model, {KEY: manifest.to_json()})
    write_bytes(sealed(model.SerializeToString(deterministic=True)), folder / FILE)
    return folder / FILE


class OnnxEngine:
    """Runs a file of :func:`save_onnx` on the CPU; any number of threads may call it.

    Args:
        file: that was written.
        num_threads: see :class:`bnnlight.deploy.formats.workers.Workers`.

    Attributes:
        manifest: what the file says of itself.
        input_shape: ``(C, H, W)`` of one picture.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no model of bnnlight, or of another version; or ``num_threads`` is below 1.
    """

    def __init__(self, file: Path, num_threads: int | None = None) -> None:
        content, self.manifest = read_sealed(file)
        self._network = Session(content, file, num_threads)
        self.input_shape = self._network.input_shape

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The network's output, ``(N, …)`` float32, for ``(N, C, H, W)`` float32.

        Raises:
            ValueError: the pictures are of another shape or type.
        """
        return self._network(images)[0]


def onnx_signs(file: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """For a batch of pictures the name of every ``binarize`` step → where it is +1, ``(N, …)`` bool.

    The file's own bytes are run, with these values named as further outputs.

    Raises:
        What :class:`OnnxEngine` raises.
    """
    content, _ = read_sealed(file)
    names = find_outputs(content, BINARIZE)
    network = Session(with_outputs(content, names), file, None)
    return lambda images: {name: value > 0 for name, value in zip(names, network(images, names), strict=True)}


class Session:
    """A model in onnxruntime, for batches of any size and calls of any number of threads.

    Each picture is computed by itself, so that what it gets does not depend on those beside it.

    Args:
        content: the model's bytes.
        file: for messages.
        num_threads: see :class:`bnnlight.deploy.formats.workers.Workers`.
        optimize: whether onnxruntime may join operators.

    Attributes:
        input_shape: ``(C, H, W)`` of one picture.

    Raises:
        ValueError: onnxruntime cannot load it, or it takes something else than pictures.
    """

    def __init__(self, content: bytes, file: Path, num_threads: int | None, optimize: bool = True) -> None:
        self._workers = Workers(num_threads)
        self._session = open_session(content, file, self._workers.per_picture, optimize)
        self._output = self._session.get_outputs()[0].name
        self.input_shape = tuple(self._session.get_inputs()[0].shape[1:])

    def __call__(self, images: np.ndarray, names: Sequence[str] | None = None) -> list[np.ndarray]:
        """The outputs of those names, by default the first, each ``(N, …)``, of ``(N, C, H, W)`` float32.

        Raises:
            ValueError: the pictures are of another shape or type.
        """
        if images.ndim != 4 or images.shape[1:] != self.input_shape or images.dtype != np.float32:
            expected = f"(N, {', '.join(map(str, self.input_shape))}) float32"
            raise ValueError(f"pictures of shape {images.shape} {images.dtype} on a network that takes {expected}")
        names = [self._output] if names is None else list(names)
        if not names:
            return []  # for which onnxruntime would give every output
        pieces = self._workers(lambda piece: self._one_by_one(piece, names), images)
        return [np.concatenate(parts) for parts in zip(*itertools.chain(*pieces), strict=True)]

    def _one_by_one(self, images: np.ndarray, names: list[str]) -> list[list[np.ndarray]]:
        return [self._session.run(names, {INPUT: images[i : i + 1]}) for i in range(len(images) or 1)]


def open_session(content: bytes, file: Path, num_threads: int, optimize: bool = True) -> InferenceSession:
    """A session of a model's bytes; the file is for messages."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common class
        reason = str(error).strip().splitlines()[0]
        version = onnxruntime.__version__
        raise ValueError(f"{file}: onnxruntime {version} cannot load it: {reason}; export the model again") from error
    inputs = [(value.name, value.type, value.shape) for value in session.get_inputs()]
    if [(name, kind, *map(type, shape)) for name, kind, shape in inputs] != [(INPUT, "tensor(float)", str, *[int] * 3)]:
        raise ValueError(f"{file}: it takes {inputs}, not pictures of a known size; export the model again")
    return session


def read_sealed(file: Path) -> tuple[bytes, Manifest]:
    """The file's bytes and its manifest, once its checksum is found right."""
    if not file.is_file():
        raise FileNotFoundError(f"no such model: {file}; bnnlight export makes one")
    content = file.read_bytes()
    try:
        manifest, seal = Manifest.from_json(find_metadata(content, KEY))
        check_seal(content, seal)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return content, manifest
