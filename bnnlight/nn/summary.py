"""Counts a network's parameters, bytes and multiply-adds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from bnnlight.nn.layers import BinaryConv2d, BinaryLayer
from bnnlight.nn.running import run_once


@dataclass(frozen=True)
class LayerSummary:
    """One layer with parameters of its own.

    Attributes:
        name: the module's path.
        kind: the module's class.
        shape: of its weight.
        latent: class of its latent, "" for a real layer.
        ranks: nominal ranks of the latent.
        num_factors: parameters that W̃ is rebuilt from while training. A tensor that layers share counts at
            the first of them.
        num_binary: weights shipped with 1 bit each.
        num_real: parameters and running statistics shipped with 32 bits each.
        num_binary_macs, num_real_macs: multiply-adds for one input.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    latent: str
    ranks: tuple[int, ...]
    num_factors: int
    num_binary: int
    num_real: int
    num_binary_macs: int
    num_real_macs: int

    @property
    def num_bytes(self) -> int:
        """Bytes shipped: ⌈bits/8⌉ of the binary weights and four for each real number."""
        return -(-self.num_binary // 8) + 4 * self.num_real


@dataclass(frozen=True)
class NetworkSummary:
    """All layers of a network.

    Attributes:
        layers: those with parameters, in the order of registration.
        input_shape: of the one input that multiply-adds are for, ``(C, H, W)``.
    """

    layers: tuple[LayerSummary, ...]
    input_shape: tuple[int, ...]

    def total(self, field: str) -> int:
        """Sum of a field over all layers."""
        return sum(getattr(layer, field) for layer in self.layers)


def summarize(model: nn.Module, input_shape: Sequence[int]) -> NetworkSummary:
    """Counts what a network trains, ships and computes.

    A binary layer ships one bit per weight and its real parameters: α (one per output channel, or per position
    in the factored form of ``spatial``), bias, and what ``input_parts`` have. An analytic α is shipped as numbers too.
    Batch norms ship weight, bias and both running statistics, unfolded. Multiply-adds are those of convolutions and
    linear layers; scaling, batch norm and activations are not counted.

    Args:
        model: any network; left in the mode it was in.
        input_shape: ``(C, H, W)`` of one input.

    Raises:
        ValueError: the network does not run on such an input.
    """
    positions = _num_positions(model, input_shape)
    counted: set[int] = set()
    layers = []
    inside: set[str] = set()
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in inside):
            continue
        if isinstance(module, BinaryLayer):
            inside.add(name)
            layers.append(_binary(name, module, positions.get(name, 0), counted))
        elif row := _real(name, module, positions.get(name, 0), counted):
            layers.append(row)
    return NetworkSummary(tuple(layers), tuple(input_shape))


def _binary(name: str, layer: BinaryLayer, positions: int, counted: set[int]) -> LayerSummary:
    parts = () if layer.weight_parts is None else layer.weight_parts.parameters()
    factors = _uncounted((*layer.latent.parameters(), *parts), counted)
    # an analytic α is not a parameter, but the shipped layer needs its value
    num_alpha = layer.weight_shape[0] if layer.scale.name == "analytic" else 0
    num_alpha += sum(p.numel() for p in layer.scale.parameters())
    inputs = layer.input_parts
    threshold, pair = (None, None) if inputs is None else (inputs.threshold(), inputs.pair())
    num_shifts = 0 if threshold is None else threshold.numel()
    # a pair of values ships in α and bias
    num_shifts += 0 if layer.bias is None and pair is None else layer.weight_shape[0]
    return LayerSummary(
        name=name,
        kind=type(layer).__name__,
        shape=tuple(layer.weight_shape),
        latent=type(layer.latent).__name__,
        ranks=layer.latent.ranks,
        num_factors=sum(p.numel() for p in factors),
        num_binary=layer.weight_shape.numel(),
        num_real=num_alpha + num_shifts,
        num_binary_macs=positions * layer.weight_shape.numel(),
        num_real_macs=0,
    )


def _real(name: str, module: nn.Module, positions: int, counted: set[int]) -> LayerSummary | None:
    parameters = _uncounted(module.parameters(recurse=False), counted)
    statistics = [b for b in module.buffers(recurse=False) if b.is_floating_point()]
    if not parameters and not statistics:
        return None
    weight = getattr(module, "weight", None)
    weighted = isinstance(module, nn.Conv2d | nn.Linear)
    return LayerSummary(
        name=name,
        kind=type(module).__name__,
        shape=tuple(weight.shape) if isinstance(weight, Tensor) else (),
        latent="",
        ranks=(),
        num_factors=0,
        num_binary=0,
        num_real=sum(t.numel() for t in (*parameters, *statistics)),
        num_binary_macs=0,
        num_real_macs=positions * weight.numel() if weighted else 0,
    )


def _uncounted(parameters: Iterable[nn.Parameter], counted: set[int]) -> list[nn.Parameter]:
    """Those that no layer before has, which count as counted from now on."""
    new = [p for p in parameters if id(p) not in counted]
    counted.update(map(id, new))
    return new


def _num_positions(model: nn.Module, input_shape: Sequence[int]) -> dict[str, int]:
    """How often each weighted layer's filters are applied to one input."""
    weighted = {n: m for n, m in model.named_modules() if isinstance(m, BinaryLayer | nn.Conv2d | nn.Linear)}
    positions = dict.fromkeys(weighted, 0)

    def count(name: str, output: Tensor) -> None:
        convolution = isinstance(weighted[name], nn.Conv2d | BinaryConv2d)
        positions[name] += (output.shape[2:] if convolution else output.shape[1:-1]).numel()

    try:
        run_once(model, input_shape, list(weighted), count)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the network does not run on an input of {tuple(input_shape)}: {reason}") from error
    return positions
