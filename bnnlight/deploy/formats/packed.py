"""The packed format: one safetensors file with one bit a binary weight, which numpy alone can read.

Into plain torch, in three lines::

    from bnnlight.deploy.formats.packed import load_packed
    from bnnlight.deploy.formats.plain import FrozenNetwork
    network = FrozenNetwork(load_packed("model.safetensors")[0])  # (N, C, H, W) float32 -> the network's output

The file's metadata are two texts of JSON. ``bnnlight`` is the manifest, with the checksum of the whole file.
``program`` is ``{"input_shape": [C, H, W], "steps": [{"name", "op", "inputs", "settings", "tensors"}, …]}``, where
``tensors`` are names such as ``bits``; the tensor itself is named ``INDEX.bits`` after the place of its step, from 0.
Operations are listed in :data:`bnnlight.deploy.program.operations.OPERATIONS`, the order of bits is that of
:func:`bnnlight.deploy.program.bits.pack_signs`. ``weight`` may be float16; all else but the bits is float32.

A file is taken for the work of a stranger: nothing in it is run, and it is refused unless everything fits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bnnlight.deploy.formats.container import read_bytes, to_bytes, to_tensors, write_bytes
from bnnlight.deploy.formats.workers import Workers
from bnnlight.deploy.manifest import Manifest, read_seal
from bnnlight.deploy.program import Program, Shape, Step
from bnnlight.deploy.program.operations import check
from bnnlight.deploy.program.untrusted import parse_json, shown
from bnnlight.deploy.seal import Damaged, check_seal, sealed

if TYPE_CHECKING:
    from bnnlight.deploy.formats.openvino import InOpenVINO

FILE_NAME = "model.safetensors"
MANIFEST, PROGRAM = "bnnlight", "program"
"""Names of the texts."""


def save_packed(
    program: Program, manifest: Manifest, folder: Path, real_dtype: Literal["fp32", "fp16"] = "fp32"
) -> Path:
    """Writes ``folder/model.safetensors``; an error leaves the folder's files as they were.

    Args:
        program: of :func:`bnnlight.deploy.freezing.freeze.freeze`.
        manifest: of the same network.
        folder: is made where it is not there.
        real_dtype: of the weights of real convolutions and linear layers. All other numbers stay float32:
            rounding a threshold would flip signs.

    Returns:
        The file's path.

    Raises:
        ValueError: the program is not sound, the manifest is of another network, or a weight is too large for
            float16.
        OSError: the file cannot be written.
    """
    if real_dtype not in ("fp32", "fp16"):
        raise ValueError(f"real_dtype is {real_dtype!r}: choose fp32 or fp16")
    _check(program, manifest)
    tensors = {}
    for index, step in enumerate(program.steps):
        for name, array in step.tensors.items():
            half = name == "weight" and real_dtype == "fp16"
            tensors[f"{index}.{name}"] = _as_half(step, array) if half else array
    file = Path(folder) / FILE_NAME
    try:
        content = sealed(to_bytes(tensors, {PROGRAM: _to_json(program), MANIFEST: manifest.to_json()}))
        # what a reader would refuse must not be shipped
        Manifest.from_json(manifest.to_json())
    except ValueError as error:
        raise ValueError(f"{file}: {error}; nothing was written") from error
    write_bytes(content, file)
    return file


def load_packed(file: str | Path) -> tuple[Program, Manifest]:
    """The program and the manifest in a packed file. It takes numpy and safetensors; no code from the file is run.

    Memory is bounded by what is in the file: its bytes twice, real weights of float16 once more as float32, and
    40 times its texts, which are at most 4 MiB.

    Returns:
        A program whose settings, tensors and shapes were checked, weights in float32, and its manifest.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, cut off, of another kind or version, or not sound; one line that begins with
            the file's path and says what to do.
    """
    file = Path(file)
    try:
        content, texts = read_bytes(file)
        if set(texts) != {MANIFEST, PROGRAM}:
            raise ValueError("it is not a packed model of bnnlight")
        check_seal(content, read_seal(texts[MANIFEST]))
        manifest, _ = Manifest.from_json(texts[MANIFEST])
        program = _to_program(parse_json(texts[PROGRAM], "its program"), to_tensors(content))
        _check(program, manifest)
    except Damaged as error:
        raise ValueError(f"{file}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}; export the checkpoint again with this version of bnnlight") from error
    return program, manifest


class PackedEngine:
    """Runs a packed file in torch, in real arithmetic on ±1, or in OpenVINO where torch is not installed.

    Any number of threads may call it.

    Args:
        file: of :func:`save_packed`.
        num_threads: see :class:`bnnlight.deploy.formats.workers.Workers`.

    Attributes:
        manifest: of the file.
        input_shape: ``(C, H, W)`` of one picture.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see :func:`load_packed`; or the number of threads is below 1.
    """

    def __init__(self, file: str | Path, num_threads: int | None = None) -> None:
        program, self.manifest = load_packed(file)
        self.input_shape: Shape = program.input_shape
        self._network = in_torch_or_openvino(program, num_threads)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """``(N, C, H, W)`` float32 → the network's output, float32.

        Raises:
            ValueError: images of another shape or type.
        """
        return self._network(images)


def in_torch_or_openvino(program: Program, num_threads: int | None = None) -> InTorch | InOpenVINO:
    """A program in torch, or in OpenVINO where torch is not installed; arguments and errors are those of the two."""
    try:
        return InTorch(program, num_threads)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from bnnlight.deploy.formats.openvino import InOpenVINO

        return InOpenVINO(program, num_threads)


def packed_signs(file: str | Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The signs that a packed file's engine gives for pictures.

    Args:
        file: of :func:`save_packed`.

    Returns:
        A function ``(N, C, H, W)`` float32 → for the name of every ``binarize`` step a bool array ``(N, …)``, True
        where the activation is +1.

    Raises:
        FileNotFoundError, ValueError: see :func:`load_packed`.
    """
    return InTorch(load_packed(file)[0]).signs


class InTorch:
    """A program in torch on the CPU, for batches of any size and calls of any number of threads.

    Args:
        program: sound.
        num_threads: see :class:`bnnlight.deploy.formats.workers.Workers`.

    Raises:
        ValueError: the number of threads is below 1.
    """

    def __init__(self, program: Program, num_threads: int | None = None) -> None:
        # late: reading a file takes no torch
        from bnnlight.deploy.formats.alone import for_one_picture
        from bnnlight.deploy.formats.plain import FrozenNetwork, own_threads

        self._workers = Workers(num_threads, own_threads)
        self._network = FrozenNetwork(program).eval()
        self._alone = for_one_picture(self._network)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """``(N, C, H, W)`` float32 → the network's output, float32.

        Raises:
            ValueError: images of another shape or type.
        """
        return np.concatenate(self._workers(self._run, self._checked(images)))

    def signs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Name of every ``binarize`` step → where it is +1, ``(N, …)`` bool."""
        binarized = {step.name for step in self._network.program.steps if step.op == "binarize"}

        def run(piece: np.ndarray) -> dict[str, np.ndarray]:
            signs = {}
            self._run(piece, lambda name, value: signs.update({name: (value > 0).numpy()} if name in binarized else {}))
            return signs

        pieces = self._workers(run, self._checked(images))
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _checked(self, images: np.ndarray) -> np.ndarray:
        dtype, shape = getattr(images, "dtype", type(images).__name__), np.shape(images)
        if dtype != np.float32 or len(shape) != 4 or shape[1:] != self._network.program.input_shape:
            expected = ", ".join(map(str, ("N", *self._network.program.input_shape)))
            raise ValueError(f"images are {dtype} of shape {shape}: expected float32 of ({expected})")
        return images

    def _run(self, images: np.ndarray, look: Callable[[str, Any], None] | None = None) -> np.ndarray:
        import torch

        with torch.inference_mode():
            # a copy: the array may be read-only, and the output may be a view of the input; in torch's memory, which
            # begins where that of a picture of a batch does
            own = torch.empty(images.shape)
            own.numpy()[...] = images
            if len(own) == 1 and look is None:
                return self._alone(own).numpy()
            return self._network(own, look).numpy()


def _check(program: Program, manifest: Manifest) -> None:
    shapes = check(program)
    manifest.check_fits(program.input_shape, shapes[program.output])


def _as_half(step: Step, weight: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    if np.isinf(half).any():
        largest = np.abs(weight).max()
        raise ValueError(f"step {step.name!r}: a weight of {largest:.3g} is too large for fp16; choose fp32")
    return half


def _to_json(program: Program) -> str:
    steps = [
        {"name": s.name, "op": s.op, "inputs": list(s.inputs), "settings": dict(s.settings), "tensors": list(s.tensors)}
        for s in program.steps
    ]
    record = {"input_shape": list(program.input_shape), "steps": steps}
    return json.dumps(record, separators=(",", ":"), allow_nan=False)


def _to_program(record: Any, tensors: dict[str, np.ndarray]) -> Program:
    """The program of a file's JSON and tensors, not yet checked but for its types."""
    _check_keys(record, {"input_shape": list, "steps": list}, "its program")
    steps = tuple(_to_step(index, step, tensors) for index, step in enumerate(record["steps"]))
    if tensors:
        raise ValueError(f"its tensor {shown(next(iter(tensors)))} belongs to no step")
    return Program(tuple(record["input_shape"]), steps)


def _to_step(index: int, record: Any, tensors: dict[str, np.ndarray]) -> Step:
    kinds = {"name": str, "op": str, "inputs": list, "settings": dict, "tensors": list}
    _check_keys(record, kinds, f"its step {index}")
    own = {}
    for name in record["tensors"]:
        # each is taken out, so that none is taken twice and none is left over
        array = tensors.pop(f"{index}.{name}", None) if isinstance(name, str) else None
        if array is None:
            raise ValueError(f"its step {index} names a tensor {shown(name)} that is not there")
        own[name] = array.astype(np.float32) if name == "weight" and array.dtype == np.float16 else array
    return Step(record["name"], record["op"], tuple(record["inputs"]), record["settings"], own)


def _check_keys(record: Any, kinds: dict[str, type], what: str) -> None:
    if not isinstance(record, dict) or set(record) != set(kinds):
        raise ValueError(f"{what} is not made of {', '.join(kinds)}")
    wrong = [name for name, kind in kinds.items() if not isinstance(record[name], kind)]
    if wrong:
        raise ValueError(f"{what} has {wrong[0]} of the wrong kind: {shown(record[wrong[0]])}")
