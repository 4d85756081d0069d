"""One picture at a time, without Python between the steps of its network."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from bnnlight.deploy.plain import FrozenNetwork

_tracing = threading.Lock()


def for_one_picture(network: FrozenNetwork) -> Callable[[Tensor], Tensor]:
    """What a network computes for a batch of one on a CPU, bit for bit, as a TorchScript trace.

    A trace runs without Python's lock, so that calls of several threads run beside each other: between the short steps
    of a small picture they would wait for the lock most of the time. It takes as long as one call to make.

    Args:
        network: on a CPU; its tensors are shared and must not change afterwards.

    Returns:
        A function ``(1, C, H, W)`` float32 → the network's output. It is ``network`` itself where this torch cannot
        trace.
    """
    # deprecated since torch 2.9, and nothing else there runs without the lock and without a compiler
    trace = getattr(torch.jit, "trace", None)
    if trace is None:
        return network
    example = torch.zeros(1, *network.program.input_shape)
    with _tracing, warnings.catch_warnings(), torch.inference_mode():
        # of the deprecation; and that sizes are taken as they are, which is meant
        warnings.simplefilter("ignore")
        try:
            return trace(network.forward, example, check_trace=False)
        except RuntimeError:
            return network
