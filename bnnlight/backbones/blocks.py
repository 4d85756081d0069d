"""Building blocks of binary networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bnnlight.nn import BinaryConv2d, Gradient, InputPartFactory, ScaleName, WeightPartFactory
from bnnlight.nn.compute.lean import recomputed

ShortcutStyle = Literal["block", "conv"]

ActivationFactory = Callable[[int], nn.Module]
"""Makes the activation behind a binary convolution from its number of output channels: ``torch.nn.PReLU``,
:class:`bnnlight.nn.RPReLU`, ``torch.nn.Identity``."""


class BinaryUnit(nn.Sequential):
    """Batch norm → sign → 3×3 binary convolution → α → activation: the repeated unit of binary residual networks.

    Args:
        in_channels, out_channels: numbers of channels.
        stride: of the convolution, px.
        scale, activation_gradient, weight_gradient, padding_value, weight_parts, input_parts: see
            :class:`bnnlight.nn.BinaryConv2d`.
        activation: makes the activation. A PReLU is computed with the convolution, in less memory than others.

    Shapes:
        ``(N, in_channels, H, W)`` → ``(N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        scale: ScaleName = "channel",
        activation_gradient: Gradient = "clipped",
        weight_gradient: Gradient = "clipped",
        padding_value: int = 0,
        activation: ActivationFactory = nn.PReLU,
        weight_parts: Sequence[WeightPartFactory] = (),
        input_parts: Sequence[InputPartFactory] = (),
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = BinaryConv2d(
            in_channels,
            out_channels,
            3,
            stride,
            1,
            padding_value=padding_value,
            scale=scale,
            activation_gradient=activation_gradient,
            weight_gradient=weight_gradient,
            weight_parts=weight_parts,
            input_parts=input_parts,
        )
        self.activation = activation(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        # a subclass of PReLU may compute something else
        fused = self.training and isinstance(self.conv, BinaryConv2d) and type(self.activation) is nn.PReLU
        if not fused:
            return super().forward(x)
        # the same in less memory: what PReLU keeps for its gradient is then the convolution's integers
        return self.conv(self.norm(x), slope=self.activation.weight)


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The way round a unit: identity, or average pool → real 1×1 convolution → batch norm where sizes change."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


class BinaryBlock(nn.Module):
    """Two binary units with one shortcut round each, or a single one round both.

    Args:
        in_channels, out_channels: numbers of channels.
        stride: of the first unit, px.
        style: ``conv``: a shortcut round each convolution (Bi-Real Net, https://arxiv.org/abs/1808.00278).
            ``block``: one round both, as in XNOR-Net's ResNet (https://arxiv.org/abs/1603.05279).
        lean: keeps the input and the convolutions' sums for the backward pass, and computes the rest again.
        **unit: options of :class:`BinaryUnit`.

    Shapes:
        ``(N, in_channels, H, W)`` → ``(N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, style: ShortcutStyle, lean: bool = False, **unit
    ) -> None:
        super().__init__()
        self.lean = lean
        if style not in ("block", "conv"):
            raise ValueError(f"unknown shortcut style {style!r}: choose block or conv")
        self.style = style
        self.unit1 = BinaryUnit(in_channels, out_channels, stride, **unit)
        self.unit2 = BinaryUnit(out_channels, out_channels, **unit)
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return recomputed(self._run, x, self) if self.lean and self.training else self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        if self.style == "block":
            return self.unit2(self.unit1(x)) + self.shortcut(x)
        x = self.unit1(x) + self.shortcut(x)
        return self.unit2(x) + x


class HierarchicalBlock(nn.Module):
    """Three binary units in series, C → C/2 → C/4 → C/4 channels, whose outputs are concatenated; with a shortcut.

    Each output sees a larger part of the input than the one before, and gradients reach each convolution on a
    way of its own: Bulat & Tzimiropoulos, ICCV 2017, https://arxiv.org/abs/1703.00862.

    Args:
        in_channels, out_channels: numbers of channels; the latter a multiple of 4. Where they differ, the
            shortcut is batch norm → PReLU → real 1×1 convolution, whatever the units' activation; else the identity.
        lean: keeps the input and the convolutions' sums for the backward pass, and computes the rest again.
        **unit: options of :class:`BinaryUnit`.

    Shapes:
        ``(N, in_channels, H, W)`` → ``(N, out_channels, H, W)``.

    Raises:
        ValueError: the output channels are no multiple of 4.
    """

    def __init__(self, in_channels: int, out_channels: int, lean: bool = False, **unit) -> None:
        super().__init__()
        self.lean = lean
        if out_channels % 4:
            raise ValueError(f"a hierarchical block of {out_channels} channels: give a multiple of 4")
        half, quarter = out_channels // 2, out_channels // 4
        self.unit1 = BinaryUnit(in_channels, half, **unit)
        self.unit2 = BinaryUnit(half, quarter, **unit)
        self.unit3 = BinaryUnit(quarter, quarter, **unit)
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(nn.BatchNorm2d(in_channels), nn.PReLU(in_channels), convolution)

    def forward(self, x: Tensor) -> Tensor:
        return recomputed(self._run, x, self) if self.lean and self.training else self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        first = self.unit1(x)
        second = self.unit2(first)
        third = self.unit3(second)
        return torch.cat((first, second, third), 1) + self.shortcut(x)
