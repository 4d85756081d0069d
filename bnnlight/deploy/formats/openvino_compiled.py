"""An OpenVINO model in use: its requests, the threads that use them, and these threads' stacks for signals."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import openvino as ov

from bnnlight.deploy.formats.openvino_floats import has_kernels_on_bits, on_floats
from bnnlight.deploy.formats.workers import Workers

_CONFIG = {
    # for files of earlier versions, whose nodes do not ask for it: bfloat16 would turn signs round
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
    # several processes of a service would all sit on the first cores
    "ENABLE_CPU_PINNING": False,
}


class Compiled:
    """An OpenVINO model on the CPU, for batches of any size and calls of any number of threads.

    It is compiled once, for one picture: binary convolutions take fixed shapes alone, and what a picture gets does not
    depend on those beside it. Where OpenVINO has no kernels on bits, binary layers are computed on ±1 in float32.

    Args:
        model: for batches of one; it may be changed.
        num_threads: see :class:`bnnlight.deploy.formats.workers.Workers`.

    Attributes:
        compiled: it, as OpenVINO runs it.
        places: name of an output → its place.

    Raises:
        ValueError: OpenVINO has no kernel for a binary convolution on this processor, or the number of threads is
            below 1.
    """

    def __init__(self, model: ov.Model, num_threads: int | None = None) -> None:
        self.model = model
        if not has_kernels_on_bits():
            on_floats(model)
        self._workers = Workers(num_threads)
        streams = self._workers.at_a_time
        config = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams * self._workers.per_picture}
        with signal_stack_kept():
            self.compiled = _compiled(model, _CONFIG | config)
        self.places = {name: place for place, output in enumerate(model.outputs) for name in output.names}
        # requests that no thread uses, with their memory; there are as many in all as pictures were computed at a time
        self._free: deque[tuple[ov.InferRequest, np.ndarray, list[np.ndarray]]] = deque()
        _alive.add(self)

    def __call__(self, images: np.ndarray, places: Sequence[int] = (0,)) -> list[np.ndarray]:
        """The outputs at those places, each ``(N, …)``, of ``(N, C, H, W)`` float32; N is at least 1."""
        answers = self._workers(lambda piece: self._one_by_one(piece, places), images)
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    def _one_by_one(self, images: np.ndarray, places: Sequence[int]) -> list[np.ndarray]:
        try:
            request, picture, outputs = self._free.pop()  # needs no lock, as `append`
        except IndexError:
            request = self.compiled.create_infer_request()
            # views of OpenVINO's own memory: handing over arrays takes longer than a small network
            picture, outputs = request.get_input_tensor(0).data, [tensor.data for tensor in request.output_tensors]
        answers = [np.empty((len(images), *outputs[place].shape[1:]), outputs[place].dtype) for place in places]
        with signal_stack_kept():
            for index, image in enumerate(images):
                picture[0] = image
                request.infer(share_outputs=True)
                for answer, place in zip(answers, places, strict=True):
                    answer[index] = outputs[place][0]
        self._free.append((request, picture, outputs))
        return answers


_alive: weakref.WeakSet[Compiled] = weakref.WeakSet()
_of_parents: list[Compiled] = []
"""In a forked process: what was compiled before the fork."""


def _keep_those_of_the_parent() -> None:
    """Keeps a forked process from freeing what its parent had compiled, garbage that is not collected yet as well.

    OpenVINO 2026.4.1 waits, as a compiled network goes, for threads that a fork has left behind: a loader process in
    which Python's collector came upon one never returned, and the training waited for its batch.
    """
    _of_parents.extend(_alive)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_those_of_the_parent)


def _compiled(model: ov.Model, config: dict) -> ov.CompiledModel:
    try:
        return ov.Core().compile_model(model, "CPU", config)
    except RuntimeError as error:
        match = re.search(r"BinaryConvolution node with name '(.*?)' has unsupported parameters", str(error))
        if not match:
            raise
        # its kernels for AVX2 take less padding than those for AVX-512
        raise ValueError(
            f"OpenVINO has no kernel on this processor for the padding of the binary convolution {match[1]!r} "
            "(more can be computed with AVX-512): export with --format packed or onnx"
        ) from error


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux, https://man7.org/linux/man-pages/man2/sigaltstack.2.html."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Gives this thread back, at the end, the alternate signal stack that it had; does nothing but on Linux.

    OpenVINO 2026.4 gives a thread that runs a network an alternate stack for signals, and puts back the one before when
    the network goes. With two networks that go in the order in which they came, the second puts back the stack of the
    first, whose memory is freed by then: the next signal with a handler (a child process that ends, in a process with
    torch's data loaders) ends the process with a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    before = _Stack()
    _system().sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        _system().sigaltstack(ctypes.byref(before), None)


@functools.cache
def _system() -> ctypes.CDLL:
    return ctypes.CDLL(None)
