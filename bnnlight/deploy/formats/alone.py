"""One picture at a time, without Python between the steps of its network."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.program import Program

_traces: dict[str, Callable[..., Tensor]] = {}
"""Form of a network → its trace, which torch never frees: networks of one form share it."""
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
    form = _form(network.program)
    with _tracing:
        if form not in _traces:
            try:
                _traces[form] = _traced(network)
            except (AttributeError, RuntimeError):
                return network
        trace = _traces[form]
    flat = _flat(network)
    return lambda x: trace(x, *flat)


def _traced(network: FrozenNetwork) -> Callable[..., Tensor]:
    """A function of pictures and of all tensors: so no network is kept with its trace."""
    names = [list(own) for own in network.tensors()]
    traced = weakref.ref(network)

    def run(x: Tensor, *flat: Tensor) -> Tensor:
        rest = iter(flat)
        return traced().compute(x, [{name: next(rest) for name in own} for own in names])

    example = torch.zeros(1, *network.program.input_shape)
    with warnings.catch_warnings(), torch.inference_mode():
        # that torch.jit is deprecated, in whose place there is nothing that needs no compiler; and that sizes are
        # taken as they are, which is meant
        warnings.simplefilter("ignore")
        return torch.jit.trace(run, (example, *_flat(network)), check_trace=False)


def _flat(network: FrozenNetwork) -> list[Tensor]:
    return [tensor for own in network.tensors() for tensor in own.values()]


def _form(program: Program) -> str:
    """All of a program but the numbers in its tensors."""
    steps = [
        (s.name, s.op, tuple(s.inputs), sorted(s.settings.items()), [(n, t.shape) for n, t in s.tensors.items()])
        for s in program.steps
    ]
    return repr((program.input_shape, steps))
