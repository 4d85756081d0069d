"""The real-valued networks that `inference.py` times, in torch and in OpenVINO: float32, bfloat16, 8-bit integers."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
import torchvision
from torch import nn

from bnnlight.deploy.formats.openvino_compiled import Compiled
from bnnlight.deploy.formats.openvino_graph import to_openvino
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.proof.quantized import quantized

Network = Callable[[np.ndarray], Any]
Shape = tuple[int, int, int]
SMALL = {
    "MobileNetV2": torchvision.models.mobilenet_v2,
    "MobileNetV3-Large": torchvision.models.mobilenet_v3_large,
    "MobileNetV3-Small": torchvision.models.mobilenet_v3_small,
}
"""What one would take instead of a binary ResNet-18."""


def in_torch(network: nn.Module, threads: int) -> Network:
    """A network in torch, eager, its feature maps stored channels last."""
    network = network.eval().to(memory_format=torch.channels_last)

    def run(images: np.ndarray) -> np.ndarray:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return network(torch.from_numpy(images).contiguous(memory_format=torch.channels_last)).numpy()

    return run


def to_ir(network: nn.Module, shape: Shape) -> ov.Model:
    """A real-valued network as an OpenVINO model: as our exports are written, or by OpenVINO's own converter."""
    try:
        return to_openvino(freeze(network, shape))
    except ValueError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, about the converter's way to trace
            example = torch.zeros(1, *shape)
            return ov.convert_model(network.eval(), example_input=example, input=[1, *shape])


class Rounded:
    """A network in OpenVINO that computes in bfloat16, which is OpenVINO's default where the processor has it."""

    def __init__(self, model: ov.Model, threads: int) -> None:
        config = {"INFERENCE_PRECISION_HINT": "bf16", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        compiled = ov.Core().compile_model(model, "CPU", config | {"ENABLE_CPU_PINNING": False})
        self.request = compiled.create_infer_request()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.request.get_input_tensor(0).data[:] = images
        self.request.infer(share_outputs=True)
        return self.request.output_tensors[0].data


def real_networks(
    name: str, model: ov.Model, threads: int, images: np.ndarray, folder: Path, nncf_python: str | None
) -> tuple[dict[str, Network], dict[str, int]]:
    """One real network in OpenVINO, in each type.

    Args:
        name: begins the name of each row.
        model: in float32; it stays as it is.
        threads: of a call.
        images: ``(N, C, H, W)`` to find the ranges with.
        folder: for files.
        nncf_python: Python of an environment with NNCF, for a row of what it makes.

    Returns:
        Row → network, and kind → bytes of its file.
    """
    place = folder / name.replace(",", "")
    place.mkdir(exist_ok=True)
    ov.save_model(model, place / "float32.xml", compress_to_fp16=False)
    ov.save_model(quantized(model.clone(), images), place / "int8.xml", compress_to_fp16=False)
    kinds = {"": "float32", ", int8": "int8"}
    if nncf_python:
        script = Path(__file__).with_name("inference_nncf.py")
        done = subprocess.run(
            [nncf_python, script, place / "float32.xml", place / "nncf.xml"], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{nncf_python} {script}: {done.stderr.strip().splitlines()[-1]}")
        kinds[", int8 by NNCF"] = "nncf"
    core = ov.Core()
    found: dict[str, Network] = {}
    for row, kind in kinds.items():
        found[name + row] = Compiled(core.read_model(place / f"{kind}.xml"), threads)
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        found[f"{name}, bfloat16"] = Rounded(core.read_model(place / "float32.xml"), threads)
    sizes = {kind: sum(f.stat().st_size for f in place.glob(f"{kind}.*")) for kind in kinds.values()}
    return found, sizes


def small_networks(
    threads: int, images: np.ndarray, folder: Path, nncf_python: str | None
) -> tuple[dict[str, Network], dict[str, dict[str, int]]]:
    """Those of :data:`SMALL`; see :func:`real_networks`."""
    rows: dict[str, Network] = {}
    sizes = {}
    for name, make in SMALL.items():
        model = to_ir(make(weights=None), images.shape[1:])
        found, sizes[name] = real_networks(name, model, threads, images, folder, nncf_python)
        rows |= found
    return rows, sizes
