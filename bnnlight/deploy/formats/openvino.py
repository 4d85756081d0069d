"""Shipped models for OpenVINO: ``model.xml`` with ``model.bin``, one bit a binary weight.

Any program with OpenVINO can run them; :class:`OpenVINOEngine` also checks them and runs batches of any size.
"""

from __future__ import annotations

import functools
import html
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import openvino as ov

from bnnlight.deploy.formats.openvino_compiled import Compiled
from bnnlight.deploy.formats.openvino_graph import BITS, to_openvino
from bnnlight.deploy.formats.openvino_precision import keep_float32
from bnnlight.deploy.manifest import Manifest
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.program.bits import pack_signs
from bnnlight.deploy.seal import check_seal, sealed

NAME = "model.xml"
ON_BITS = "BinaryConvolution jit_"
"""How kernels are called that work on bits."""
_MANIFEST = re.compile(rb"<bnnlight value=(\"[^\"]*\"|'[^']*')")


def save_openvino(
    program: Program,
    manifest: Manifest,
    folder: Path,
    real_dtype: Literal["fp32", "fp16"] = "fp32",
    ranges: dict[str, tuple[float, float]] | None = None,
) -> Path:
    """Writes ``model.xml`` and ``model.bin``.

    Args:
        program: to write.
        manifest: lies in the file, under ``rt_info``.
        folder: that is there already.
        real_dtype: of the weights of real convolutions and linear layers; all other numbers stay float32.
        ranges: makes the real layers that it names run on 8-bit integers; see
            :func:`bnnlight.deploy.formats.int8.find_ranges`.

    Returns:
        The path of ``model.xml``.
    """
    model = to_openvino(program, half=real_dtype == "fp16", ranges=ranges)
    model.set_rt_info(manifest.to_json(), ["bnnlight"])
    with tempfile.TemporaryDirectory(dir=folder, prefix=".openvino-") as room:
        xml, binary = Path(room) / NAME, (Path(room) / NAME).with_suffix(".bin")
        ov.save_model(model, xml, compress_to_fp16=False)
        xml.write_bytes(sealed(keep_float32(_short(xml.read_bytes())), binary.read_bytes()))
        os.replace(binary, (folder / NAME).with_suffix(".bin"))
        os.replace(xml, folder / NAME)
    return folder / NAME


class OpenVINOEngine:
    """Runs a shipped OpenVINO model on the CPU; any number of threads may call it.

    Args:
        file: ``model.xml``, with ``model.bin`` beside it.
        num_threads: see :class:`bnnlight.deploy.formats.workers.Workers`.

    Attributes:
        manifest: what the model says of itself.
        input_shape: ``(C, H, W)``.

    Raises:
        FileNotFoundError: one of the two files is not there.
        ValueError: they are not what was written, or are no model of bnnlight; the message begins with the file.
    """

    def __init__(self, file: Path, num_threads: int | None = None) -> None:
        _check_arithmetic()
        model, self.manifest = read_openvino(Path(file))
        self.input_shape: tuple[int, ...] = tuple(model.input(0).shape)[1:]
        self._network = Compiled(model, num_threads)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The network's output for ``(N, C, H, W)`` float32 images."""
        check_images(images, self.input_shape)
        return self._network(images)[0]

    def executed(self) -> dict[str, str]:
        """For each binary layer, or group of one, the type and kernel that it runs on, as OpenVINO compiled it.

        :data:`ON_BITS` begins those that work on bits; anything else has fallen back to something slower.
        """
        runtime = self._network.compiled.get_runtime_model()
        kernels = {}
        for node in runtime.get_ordered_ops():
            info = node.get_rt_info()
            text = {key: str(info[key].value) for key in ("layerType", "primitiveType", "originalLayersNames")}
            for name in text["originalLayersNames"].split(","):
                kernels[name] = f"{text['layerType']} {text['primitiveType']}"
        # the sums of unpacked layers are rounded, and nothing else is
        kinds = ("BinaryConvolution", "Round")
        names = [op.get_friendly_name() for op in self._network.model.get_ops() if op.get_type_name() in kinds]
        return {name: kernels.get(name, "folded away") for name in names}


class InOpenVINO:
    """A program in OpenVINO on the CPU, for batches of any size and calls of any number of threads.

    Args:
        program: sound.
        num_threads: see :class:`bnnlight.deploy.formats.workers.Workers`.

    Raises:
        ValueError: OpenVINO has no kernel for one of its layers here, or the number of threads is below 1.
    """

    def __init__(self, program: Program, num_threads: int | None = None) -> None:
        _check_arithmetic()
        self._input_shape = tuple(program.input_shape)
        self._network = Compiled(to_openvino(program), num_threads)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The network's output for ``(N, C, H, W)`` float32 images."""
        check_images(images, self._input_shape)
        return self._network(images)[0]


def openvino_signs(file: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What the model's binarized activations are, by step.

    Returns:
        A function of ``(N, C, H, W)`` float32 images → name of each ``binarize`` step → ``(N, …)`` bool, True where +1.
    """
    model, _ = read_openvino(Path(file))
    shape = tuple(model.input(0).shape)[1:]
    # A sign is read as ±1 where it is computed as such. Packed bits cannot be read: what they are made of can.
    read: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}
    sources = []
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind == "Select":
            source, bound, low = node.output(0), np.float32(0), np.float32(0)
        elif kind == "FakeQuantize" and name.endswith(BITS):
            name, source = name.removesuffix(BITS), node.input_value(0)
            bound, low = (node.input_value(i).get_node().data for i in (1, 3))
        else:
            continue
        if not source.get_names():
            continue  # a part of a layer with groups
        sources.append(source.get_any_name())
        read[name] = sources[-1], bound, low
    model.add_outputs(sorted(set(sources)))
    network = Compiled(model)
    places = {name: network.places[name] for name in sorted(set(sources))}

    def signs(images: np.ndarray) -> dict[str, np.ndarray]:
        check_images(images, shape)
        values = dict(zip(places, network(images, places.values()), strict=True))
        return {name: (values[place] > bound) != (low > 0.5) for name, (place, bound, low) in read.items()}

    return signs


def _short(xml: bytes) -> bytes:
    """The same XML without indentation, and with the manifest's many quotation marks as they are."""

    def single(match: re.Match) -> bytes:
        text = html.unescape(match[1][1:-1].decode())
        return f"<bnnlight value='{html.escape(text, quote=False).replace(chr(39), '&apos;')}'".encode()

    return _MANIFEST.sub(single, re.sub(rb">\s+<", b"><", xml))


def check_images(images: np.ndarray, input_shape: tuple[int, ...]) -> None:
    """Raises ValueError where images are not what a network takes."""
    if images.ndim != 4 or images.shape[1:] != input_shape or images.dtype != np.float32 or not len(images):
        expected = ", ".join(map(str, input_shape))
        raise ValueError(f"images of shape {images.shape} and type {images.dtype}: expected (N, {expected}) float32")


@functools.cache
def _check_arithmetic() -> None:
    """Makes sure, once a process, that this OpenVINO reads bits as the one did that the models were tried with."""
    weight = np.where(np.random.default_rng(0).random((3, 16)) < 0.5, -1, 1).astype(np.float32)
    layers = []
    for inputs in (16, 4):  # one on bits, one unpacked
        shape = [48 // inputs, inputs, 1, 1]
        settings = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1, "padding_value": 0}
        tensors = {"bits": pack_signs(weight)}
        layers.append(Step("y", "binary_conv2d", ("sign",), {"shape": shape, **settings}, tensors))
    for layer in layers:
        outputs, inputs, *_ = layer.settings["shape"]
        sign = Step("sign", "binarize", ("input",), {}, {"threshold": np.zeros(inputs, np.float32)})
        model = to_openvino(Program((inputs, 1, 1), (sign, layer)))
        x = np.linspace(-1, 1, inputs, dtype=np.float32).reshape(1, inputs, 1, 1)
        output = Compiled(model)(x)[0].reshape(-1)
        if not np.array_equal(output, weight.reshape(outputs, inputs) @ np.where(x >= 0, 1, -1).reshape(-1)):
            version = ov.get_version().split("-")[0]
            raise RuntimeError(
                f"OpenVINO {version} computes binary convolutions differently from 2026.4, with which bnnlight was "
                "tried: install that version, or export to another format"
            )


def read_openvino(file: Path) -> tuple[ov.Model, Manifest]:
    """A shipped model and what it says of itself.

    Raises:
        FileNotFoundError: one of the two files is not there.
        ValueError: they are not what was written; the message begins with the file.
    """
    content, binary = file.read_bytes(), file.with_suffix(".bin").read_bytes()
    match = _MANIFEST.search(content)
    if match is None:
        raise ValueError(
            f"{file}: not an OpenVINO model of bnnlight; export one with bnnlight export --format openvino"
        )
    try:
        manifest, seal = Manifest.from_json(html.unescape(match[1][1:-1].decode()))
        check_seal(content, seal, binary)
        # memory of OpenVINO's own: the model borrows it, and what numpy holds would be freed
        weights = ov.Tensor(ov.Type.u8, ov.Shape([len(binary)]))
        weights.data[:] = np.frombuffer(binary, np.uint8)
        return ov.Core().read_model(content, weights), manifest
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{file}: {reason}") from error
