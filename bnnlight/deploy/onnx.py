"""A shipped model as one ONNX file: written with onnx, run with onnxruntime alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from bnnlight.deploy.manifest import Manifest
from bnnlight.deploy.onnx_bytes import find_metadata, find_outputs, with_outputs
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

    from bnnlight.deploy.onnx_graph import to_onnx

    model = to_onnx(program, real_dtype)
    helper.set_model_props(model, {KEY: manifest.to_json()})
    content = sealed(model.SerializeToString(deterministic=True))
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{FILE}.{os.getpid()}"
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, folder / FILE)
    finally:
        unfinished.unlink(missing_ok=True)
    return folder / FILE


class OnnxEngine:
    """Runs a file of :func:`save_onnx` on the CPU.

    Args:
        file: that was written.
        num_threads: that one call may use; as many as onnxruntime finds right by default.

    Attributes:
        manifest: what the file says of itself.
        input_shape: ``(C, H, W)`` of one picture.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no model of bnnlight, or of another version; or ``num_threads`` is below 1.
    """

    def __init__(self, file: Path, num_threads: int | None = None) -> None:
        content, self.manifest = _read(file)
        self._session = open_session(content, file, num_threads)
        self.input_shape = tuple(self._session.get_inputs()[0].shape[1:])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The network's output, ``(N, …)`` float32, for ``(N, C, H, W)`` float32.

        Raises:
            ValueError: the pictures are of another shape or type.
        """
        (output,) = self._session.get_outputs()
        return _run(self._session, [output.name], images)[0]


def onnx_signs(file: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """For a batch of pictures the name of every ``binarize`` step → where it is +1, ``(N, …)`` bool.

    The file's own bytes are run, with these values named as further outputs.

    Raises:
        What :class:`OnnxEngine` raises.
    """
    content, _ = _read(file)
    names = find_outputs(content, BINARIZE)
    session = open_session(with_outputs(content, names), file, None)
    return lambda images: {name: value > 0 for name, value in zip(names, _run(session, names, images), strict=True)}


def _run(session: InferenceSession, names: list[str], images: np.ndarray) -> list[np.ndarray]:
    wanted = tuple(session.get_inputs()[0].shape[1:])
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.float32:
        wanted = f"(N, {', '.join(map(str, wanted))}) float32"
        raise ValueError(f"pictures of shape {images.shape} {images.dtype} on a network that takes {wanted}")
    # without a name onnxruntime would give every output
    return session.run(names, {INPUT: images}) if names else []


def open_session(content: bytes, file: Path, num_threads: int | None) -> InferenceSession:
    """A session of a model's bytes; the file is for messages."""
    import onnxruntime

    if num_threads is not None and num_threads < 1:
        raise ValueError(f"{num_threads} threads: at least 1 is needed")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = num_threads or 0
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common class
        reason = str(error).strip().splitlines()[0]
        version = onnxruntime.__version__
        raise ValueError(f"{file}: onnxruntime {version} cannot load it: {reason}; export the model again") from error
    taken = [(value.name, value.type, value.shape) for value in session.get_inputs()]
    if [(name, kind, *map(type, shape)) for name, kind, shape in taken] != [(INPUT, "tensor(float)", str, *[int] * 3)]:
        raise ValueError(f"{file}: it takes {taken}, not pictures of a known size; export the model again")
    return session


def _read(file: Path) -> tuple[bytes, Manifest]:
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
