"""Shipped models as files of Larq Compute Engine, for ARM phones and boards: written here, run there."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NoReturn

from bnnlight.deploy.manifest import Manifest
from bnnlight.deploy.program import Program
from bnnlight.deploy.seal import check_seal, sealed

FILE = "model.tflite"
KEY = "bnnlight"
"""Of the manifest in the file's metadata."""


def check_lce(program: Program) -> None:
    """Makes sure that a program can be written.

    Raises:
        ValueError: the engine cannot take it; the message names layers, reasons and what to change.
    """
    from bnnlight.deploy.formats.larq.limits import refuse
    from bnnlight.deploy.program.operations import check

    refuse(program, check(program))


def save_lce(program: Program, manifest: Manifest, folder: Path, real_dtype: Literal["fp32", "fp16"] = "fp32") -> Path:
    """Writes ``folder/model.tflite``, all of it or nothing.

    Args:
        program: a frozen network.
        manifest: what the file says of itself.
        folder: is made where it is missing.
        real_dtype: in which weights of real convolutions and linear layers are stored; all else is float32.

    Returns:
        The file.

    Raises:
        ValueError: the program is not sound, the engine cannot take it, or a weight is too large for float16.
        OSError: the file cannot be written.
    """
    from bnnlight.deploy.formats.container import write_bytes

    try:
        from bnnlight.deploy.formats.larq.operators import to_lce
    except ModuleNotFoundError as error:
        raise ValueError(f"format lce needs {error.name}: pip install 'bnnlight[deploy]'") from error
    content = to_lce(program, {KEY: manifest.to_json().encode()}, real_dtype == "fp16")
    write_bytes(sealed(content), folder / FILE)
    return folder / FILE


def read_lce(file: Path) -> Manifest:
    """What a file says of itself.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or no model of bnnlight.
    """
    content = file.read_bytes()
    try:
        manifest, seal = Manifest.from_json(_metadata(content))
        check_seal(content, seal)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return manifest


def _metadata(content: bytes) -> str:
    import tflite

    try:
        model = tflite.Model.GetRootAs(content)
        entries = [model.Metadata(i) for i in range(model.MetadataLength())]
        buffer = next(entry.Buffer() for entry in entries if entry.Name() == KEY.encode())
        return model.Buffers(buffer).DataAsNumpy().tobytes().decode()
    # a damaged file sends the reader anywhere
    except Exception as error:
        raise ValueError(
            "not a model of bnnlight, or a damaged one; make one with bnnlight export --format lce"
        ) from error


class LceEngine:
    """Says where the file runs: Larq Compute Engine's packages do not go with this project's.

    Args:
        file: of :func:`save_lce`.
        num_threads: as for other engines.

    Raises:
        ValueError: always.
    """

    def __init__(self, file: Path, num_threads: int | None = None) -> NoReturn:
        raise ValueError(
            f"{file}: this model runs in Larq Compute Engine alone: in its library on ARM, or in larq-compute-engine, "
            "a Python package for an environment of its own; to run here, export with --format openvino, onnx or packed"
        )
