"""Shipped models as QONNX files, for compilers of FPGAs; they can be tried with onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from bnnlight.deploy.formats.onnx import KEY, Session, read_sealed
from bnnlight.deploy.formats.onnx_bytes import find_outputs
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Program
from bnnlight.deploy.seal import sealed

FILE, HLS4ML = "model.qonnx", "model.hls4ml.json"


def save_qonnx(program: Program, manifest: Manifest, folder: Path, real_dtype: Literal["fp32"] = "fp32") -> Path:
    """Writes ``folder/model.qonnx``, and ``model.hls4ml.json`` with the precisions that hls4ml needs.

    The file takes pixels as they are stored, ``(1, C, H, W)`` float32 from 0 to 255.

    Args:
        program: a frozen network.
        manifest: what the file says of itself.
        folder: is made where it is missing.
        real_dtype: fp32; real layers have fixed-point weights already.

    Returns:
        The file.

    Raises:
        ValueError: something in the program cannot go to an FPGA; the message names each such step.
        OSError: a file cannot be written.
    """
    from onnx import helper

    from bnnlight.deploy.formats.container import write_bytes
    from bnnlight.deploy.formats.fpga.model import to_qonnx

    if real_dtype != "fp32":
        raise ValueError("--real_dtype fp16 does not go with qonnx, whose real layers have fixed-point weights")
    model, precision = to_qonnx(program, manifest.input)
    helper.set_model_props(model, {KEY: manifest.to_json()})
    write_bytes(sealed(model.SerializeToString(deterministic=True)), folder / FILE)
    settings = {
        # arguments of hls4ml.utils.config_from_onnx_model; without them sums wrap round at 16 bits
        "config_from_onnx_model": {
            "granularity": "name",
            "default_precision": f"fixed<{precision.integer + precision.fraction},{precision.integer}>",
        },
        "precision": {"global_in": {"result": "ufixed<8,8>"}},
    }
    write_bytes(json.dumps(settings, indent=2).encode() + b"\n", folder / HLS4ML)
    return folder / FILE


class QonnxEngine:
    """Runs a file of :func:`save_qonnx` on the CPU, to try it; any number of threads may call it.

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
        self._network = Session(_runnable(content), file, num_threads, optimize=False)
        self.input_shape = self._network.input_shape

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The network's output, ``(N, …)`` float32, for ``(N, C, H, W)`` float32, normalized from pixels of 8 bits.

        Raises:
            ValueError: the pictures are of another shape or type.
        """
        return self._network(to_pixels(images, self.manifest.input))[0]


def qonnx_signs(file: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """For a batch of pictures the name of every ``binarize`` step → where it is +1, ``(N, …)`` bool.

    Raises:
        What :class:`QonnxEngine` raises.
    """
    from bnnlight.deploy.formats.fpga.operators import BITS
    from bnnlight.deploy.formats.onnx_bytes import with_outputs

    content, manifest = read_sealed(file)
    bits = [name.removesuffix(BITS) for name in find_outputs(content, "Relu")]
    # those of weights have no names of their own
    names = bits + [name for name in find_outputs(content, "BipolarQuant") if not name.startswith(":")]
    network = Session(_runnable(with_outputs(content, names)), file, None, optimize=False)
    return lambda images: {
        name: value > 0 for name, value in zip(names, network(to_pixels(images, manifest.input), names), strict=True)
    }


def to_pixels(images: np.ndarray, picture: PictureInput) -> np.ndarray:
    """Pixels 0 to 255 ``(N, C, H, W)`` float32 that normalized pictures were made from."""
    if images.ndim != 4 or images.dtype != np.float32 or images.shape[1] != picture.channels:
        return images  # the network says what it takes
    mean, std = (np.reshape(numbers, (1, -1, 1, 1)) for numbers in (picture.mean, picture.std))
    return np.clip(np.rint((images * std + mean) * 255), 0, 255).astype(np.float32)


def _runnable(content: bytes) -> bytes:
    """The model with its quantizers written out as standard operators, for any number of pictures."""
    import onnx

    from bnnlight.deploy.formats.fpga.functions import FUNCTIONS

    model = onnx.load_model_from_string(content)
    model.functions.extend(FUNCTIONS)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    return model.SerializeToString()
