"""A program as an ordinary torch module: real arithmetic on ±1, on any device."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlight.deploy.program import INPUT, Program, Step
from bnnlight.deploy.program.bits import unpack_signs
from bnnlight.deploy.program.operations import check

_setting = threading.Lock()


def own_threads(number: int) -> None:
    """Sets how many threads torch computes with for the calling thread, which is new, and for no other."""
    with _setting:
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        # torch also keeps the number for threads that are yet to come: one more new thread puts theirs back
        other = threading.Thread(target=torch.set_num_threads, args=(before,))
        other.start()
        other.join()


class FrozenNetwork(nn.Module):
    """Runs a program. Its tensors are buffers: nothing in it can be trained.

    It computes in float32 whatever dtype it is cast to, alone or within another module, and under autocast: rounded
    thresholds would give other signs. On a CPU what a picture gets does not depend on those beside it, bit for bit.

    Args:
        program: of :func:`bnnlight.deploy.freezing.freeze.freeze`, or read from a file.

    Shapes:
        ``(N, C, H, W)`` float32 → the network's output.

    Raises:
        ValueError: the program is not sound; pictures of another shape or dtype.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.shapes = check(program)
        self.program = program
        self.names: list[dict[str, str]] = []
        for index, step in enumerate(program.steps):
            names = {}
            for name, array in step.tensors.items():
                weight = unpack_signs(array, tuple(step.settings["shape"])) if name == "bits" else array.copy()
                names[name] = f"step{index}_{name}"  # a path has dots, which a buffer's name may not have
                # not part of a state: a frozen network is stored as its program; its bits as integers, which a cast to
                # another floating-point type leaves alone
                self.register_buffer(names[name], torch.from_numpy(weight).view(torch.int32), persistent=False)
            self.names.append(names)
        last_use = {name: index for index, step in enumerate(program.steps) for name in step.inputs}
        self.done = [[n for n in {*step.inputs} if last_use[n] == index] for index, step in enumerate(program.steps)]

    def forward(self, x: Tensor, look: Callable[[str, Tensor], None] | None = None) -> Tensor:
        """The output; ``look`` is shown the name and value of every step."""
        if tuple(x.shape[1:]) != self.program.input_shape or x.dtype != torch.float32:
            expected = (*"N", *self.program.input_shape)
            raise ValueError(f"pictures of shape {tuple(x.shape)}, {x.dtype}: expected {expected}, torch.float32")
        with _float32(x.device.type):
            return self.compute(x, self.tensors(), look)

    def tensors(self) -> list[dict[str, Tensor]]:
        """Of each step, by their names."""
        return [{n: getattr(self, buffer).view(torch.float32) for n, buffer in names.items()} for names in self.names]

    def compute(
        self, x: Tensor, tensors: list[dict[str, Tensor]], look: Callable[[str, Tensor], None] | None = None
    ) -> Tensor:
        """The output for pictures known to be right, with tensors like those of :meth:`tensors`."""
        values = {INPUT: x}
        for step, own, done in zip(self.program.steps, tensors, self.done, strict=True):
            values[step.name] = RUN[step.op](step, own, *(values[name] for name in step.inputs))
            if look:
                look(step.name, values[step.name])
            for name in done:
                del values[name]
        return values[self.program.output]


def _float32(device_type: str) -> contextlib.AbstractContextManager:
    """Leaves autocast: as nn's full_precision does, but formats need nothing of nn to run."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


def _along(tensor: Tensor, x: Tensor) -> Tensor:
    """One number a channel, or one a value, shaped for ``(N, C, …)``."""
    return tensor if tensor.ndim > 1 else tensor.view(-1, *[1] * (x.ndim - 2))


def _binarize(step: Step, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    threshold = _along(tensors["threshold"], x)
    if "direction" in tensors:
        direction = _along(tensors["direction"], x)
        x, threshold = x * direction, threshold * direction
    return (x >= threshold).to(x.dtype).mul_(2).sub_(1)


def _affine(step: Step, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    scale, shift = tensors["scale"], tensors.get("shift")
    if shift is None or scale.ndim > 1:
        y = x * _along(scale, x)
        return y if shift is None else y + _along(shift, x)
    # rounded once, as in the network: torch's batch norm is a fused multiply-add
    zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
    return F.batch_norm(x, zeros, ones, scale, shift, training=False, eps=0.0)


def _by_picture(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operation whose rounding torch lets depend on the batch, of each picture by itself where that is a CPU's.

    All else is exact, as sums of signs are, or rounds each value as if it were alone.
    """

    def each(step: Step, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        if x.device.type != "cpu" or len(x) < 2:
            return run(step, tensors, x)
        # copied: some products round otherwise where their input begins elsewhere in a cache line
        return torch.cat([run(step, tensors, picture.clone()) for picture in x.split(1)])

    return each


def _conv2d(step: Step, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    s = step.settings
    bias = tensors.get("bias")
    if x.device.type == "cpu" and len(x) and torch.backends.mkldnn.is_available():
        # what torch takes for batches; for a single small picture it would choose another way, with other roundings
        return torch.ops.aten.mkldnn_convolution(
            x, tensors["weight"], bias, s["padding"], s["stride"], s["dilation"], s["groups"]
        )
    return F.conv2d(x, tensors["weight"], bias, s["stride"], s["padding"], s["dilation"], s["groups"])


def _binary_conv2d(step: Step, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    s, padding = step.settings, step.settings["padding"]
    if s["padding_value"]:
        height, width = padding
        x, padding = F.pad(x, (width, width, height, height), value=s["padding_value"]), (0, 0)
    return F.conv2d(x, tensors["bits"], None, s["stride"], padding, s["dilation"], s["groups"])


def _max_pool2d(step: Step, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    s = step.settings
    return F.max_pool2d(x, s["kernel"], s["stride"], s["padding"], s["dilation"], s["ceil_mode"])


def _avg_pool2d(step: Step, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    s = step.settings
    return F.avg_pool2d(x, s["kernel"], s["stride"], s["padding"], s["ceil_mode"], s["count_include_pad"])


def _upsample(step: Step, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    # torch's interpolation rounds positions, and misses a pixel at some factors from 41 on
    down, across = step.settings["factor"]
    return x.repeat_interleave(down, 2).repeat_interleave(across, 3)


def _round(step: Step, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    s = step.settings
    # a power of two: neither the product nor the quotient is rounded
    return torch.round(x * 2.0 ** s["fraction_bits"]).mul_(2.0 ** -s["fraction_bits"]).clamp_(s["min"], s["max"])


RUN: dict[str, Callable[..., Tensor]] = {
    "conv2d": _by_picture(_conv2d),
    "binary_conv2d": _binary_conv2d,
    "linear": _by_picture(lambda step, t, x: F.linear(x, t["weight"], t.get("bias"))),
    "binary_linear": lambda step, t, x: F.linear(x, t["bits"]),
    "binarize": _binarize,
    "affine": _affine,
    "prelu": lambda step, t, x: F.prelu(x, t["slope"]),
    "relu": lambda step, t, x: F.relu(x),
    "clamp": lambda step, t, x: x.clamp(step.settings["min"], step.settings["max"]),
    "round": _round,
    "sigmoid": _by_picture(lambda step, t, x: x.sigmoid()),
    "tanh": _by_picture(lambda step, t, x: x.tanh()),
    "silu": _by_picture(lambda step, t, x: F.silu(x)),
    "gelu": _by_picture(lambda step, t, x: F.gelu(x, approximate=step.settings["approximate"])),
    "hardswish": lambda step, t, x: F.hardswish(x),
    "hardsigmoid": lambda step, t, x: F.hardsigmoid(x),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": lambda step, t, x: F.adaptive_avg_pool2d(x, step.settings["size"]),
    "mean2d": _by_picture(lambda step, t, x: x.mean((2, 3), keepdim=True)),
    "upsample_nearest": _upsample,
    "add": lambda step, t, x, y: x + y,
    "multiply": lambda step, t, x, y: x * y,
    "slice_channels": lambda step, t, x: x[:, step.settings["start"] : step.settings["stop"]],
    "shuffle_channels": lambda step, t, x: x.unflatten(1, (step.settings["groups"], -1)).transpose(1, 2).flatten(1, 2),
    "concat": lambda step, t, *values: torch.cat(values, 1),
    "stack": lambda step, t, *values: torch.stack(values, 1),
    "flatten": lambda step, t, x: x.flatten(1),
}
"""The operations of :data:`bnnlight.deploy.program.operations.OPERATIONS` in torch."""
