"""How little time a step can take: its multiply-adds over the rates that this machine reaches."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bnnlight.nn import Dense, Rotated, named_binary_layers
from bnnlight.nn.compute.integer_conv import has_integer_products
from bnnlight.nn.compute.kernels import conv_backward, int_mm
from bnnlight.nn.compute.product import product
from bnnlight.nn.summary import summarize

REPEATS, NUM_SHAPES = 4, 4


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one step.

    Attributes:
        binary_forward: of the binary layers, in integers where the CPU has them.
        real_forward: of convolutions and linear layers that are real.
        backward: of all layers: gradients of the inputs and of the weights. The first layer needs none of the picture.
        rebuilding: of weights from their factors, forward.
        rebuilding_backward: gradients of both sides of each product, or of the one side that is not fixed.
    """

    binary_forward: int
    real_forward: int
    backward: int
    rebuilding: int
    rebuilding_backward: int


@dataclass(frozen=True)
class Rates:
    """Multiply-adds a second that this machine reaches, each the best of a few shapes.

    Attributes:
        forward: of a real convolution.
        backward: of its two gradients.
        integer: of a product of int8 matrices as large as the convolution's; that of ``forward`` where there is none.
        product: of real matrices.
    """

    forward: float
    backward: float
    integer: float
    product: float


def count_work(network: nn.Module, input_shape: tuple[int, int, int], batch_size: int) -> Work:
    """Of a network that is trained on a batch."""
    layers = summarize(network, input_shape).layers
    binary = batch_size * sum(layer.num_binary_macs for layer in layers)
    real = batch_size * sum(layer.num_real_macs for layer in layers)
    first = batch_size * next(layer.num_real_macs for layer in layers if layer.num_real_macs)
    latents = [(_macs(layer.latent), layer.latent) for _, layer in named_binary_layers(network)]
    rebuilding = sum(macs for macs, _ in latents)
    rebuilding_backward = sum(macs if isinstance(latent, Rotated) else 2 * macs for macs, latent in latents)
    return Work(binary, real, 2 * (binary + real) - first, rebuilding, rebuilding_backward)


def _macs(latent: nn.Module) -> int:
    """Multiply-adds of the products that rebuild one weight."""
    if isinstance(latent, Dense):
        return 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(latent).to("meta")()
    return counter.get_total_flops() // 2


def floor_s(work: Work, rates: Rates) -> float:
    """Seconds of a step in which nothing but multiply-adds took time, and nothing was computed twice to save memory."""
    return (
        work.binary_forward / rates.integer
        + work.real_forward / rates.forward
        + work.backward / rates.backward
        + (work.rebuilding + work.rebuilding_backward) / rates.product
    )


def convolution_shapes(real: nn.Module, images: Tensor) -> list[tuple[torch.Size, torch.Size]]:
    """Input and weight of the different 3×3 convolutions of stride 1 in a real network, those with most work first."""
    found: dict[tuple[torch.Size, torch.Size], int] = {}

    def hook(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        if module.kernel_size == (3, 3) and module.stride == (1, 1):
            shape = inputs[0].shape, module.weight.shape
            found[shape] = found.get(shape, 0) + output.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(hook) for m in real.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        real(images)
    for handle in hooks:
        handle.remove()
    return sorted(found, key=found.get, reverse=True)[:NUM_SHAPES]


def measure_rates(shapes: Iterable[tuple[torch.Size, torch.Size]]) -> Rates:
    """Rates of this machine, each the best over the shapes, both memory formats and some repeats.

    Args:
        shapes: of input ``(N, I, H, W)`` and weight ``(O, I, 3, 3)``.
    """
    best = {"forward": 0.0, "backward": 0.0, "integer": 0.0, "product": 0.0}

    def note(name: str, macs: int, call: Callable[[], object]) -> None:
        best[name] = max(best[name], macs / _quickest(call))

    for shape, weight_shape in shapes:
        positions = shape[0] * shape[2:].numel()
        num_out, patch = weight_shape[0], weight_shape[1:].numel()
        macs = positions * num_out * patch
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x, weight = (torch.randn(s).to(memory_format=memory_format) for s in (shape, weight_shape))
            y = F.conv2d(x, weight, padding=1)
            note("forward", macs, partial(F.conv2d, x, weight, padding=1))
            options = ((1, 1), (1, 1), (1, 1), 1, (True, True))
            note("backward", 2 * macs, partial(conv_backward, y, x, weight, *options))
        if has_integer_products():
            a, b = torch.ones(positions, patch, dtype=torch.int8), torch.ones(num_out, patch, dtype=torch.int8).T
            note("integer", macs, partial(int_mm, a, b))
        a, b = torch.randn(num_out, num_out), torch.randn(num_out, patch)
        for multiply in (product, torch.matmul):
            note("product", num_out * num_out * patch, partial(multiply, a, b))
    best["integer"] = best["integer"] or best["forward"]
    return Rates(**best)


def _quickest(call: Callable[[], object]) -> float:
    seconds = []
    with torch.no_grad():
        for _ in range(REPEATS):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
    return min(seconds)


def as_record(work: Work, rates: Rates) -> dict[str, object]:
    """Floor and multiply-adds of a row, for JSON."""
    return {"floor_ms": 1e3 * floor_s(work, rates), "multiply_adds": asdict(work)}
