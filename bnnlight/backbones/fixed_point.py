"""A binary residual network of whole numbers from the pixels on, for FPGAs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bnnlight.backbones.blocks import BinaryUnit
from bnnlight.nn import (
    Dense,
    FixedPoint,
    FixedPointConv2d,
    FixedPointLinear,
    Gradient,
    LatentFactory,
    ScaleName,
    WeightPartFactory,
    factorize,
    restart_alpha,
)

PICTURE = {"num_bits": 8, "fraction_bits": 5}
"""Of normalized pixels: from −4 to 4."""


class FixedPointBlock(nn.Module):
    """Two binary units whose outputs are rounded to fixed-point numbers, with one shortcut round each.

    The shortcut is the identity; where sizes change it is a real 1×1 convolution with fixed-point weights, with
    stride, batch norm and rounding.

    Args:
        in_channels, out_channels: numbers of channels.
        stride: of the first unit, px.
        num_bits, fraction_bits: of the numbers that are added, see :class:`bnnlight.nn.FixedPoint`.
        **unit: options of :class:`bnnlight.backbones.BinaryUnit`.

    Shapes:
        ``(N, in_channels, H, W)`` → ``(N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, num_bits: int, fraction_bits: int, **unit
    ) -> None:
        super().__init__()

        def rounding(_: int = 0) -> FixedPoint:
            return FixedPoint(num_bits, fraction_bits)

        # bits have no zero, so the border is −1
        unit = {"padding_value": -1, "activation": rounding, **unit}
        self.unit1 = BinaryUnit(in_channels, out_channels, stride, **unit)
        self.unit2 = BinaryUnit(out_channels, out_channels, **unit)
        for one in (self.unit1, self.unit2):
            # in front of a sign it would change the gradient alone; one that is negative would turn thresholds round,
            # which FPGA compilers cannot do
            nn.init.ones_(one.norm.weight).requires_grad_(False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            convolution = FixedPointConv2d(in_channels, out_channels, 1, stride)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(out_channels), rounding())

    def forward(self, x: Tensor) -> Tensor:
        x = self.unit1(x) + self.shortcut(x)
        return self.unit2(x) + x


class FixedPointResNet(nn.Module):
    """Residual network for ``bnnlight export --format qonnx``: every number that two layers hand on is a whole one.

    Its 3×3 convolutions are binary, padded with −1. The picture, the stem's output and both sides of each sum are
    fixed-point numbers; so are the weights of stem, shortcuts and classifier. Batch norm and α stand in front of a sign
    or a rounding alone, so that each becomes a comparison with thresholds, or a multiply-add of whole numbers.

    Args:
        blocks: number of blocks in each stage; the first block of each stage but the first halves the resolution and
            doubles the channels.
        num_classes: size of the output.
        in_channels: channels of the input image.
        width: multiplier on 64, 128, 256, … channels.
        stem_stride: of the first 3×3 convolution, px.
        num_bits, fraction_bits: of the numbers behind stem, units and shortcuts.
        latent, scale, activation_gradient, weight_gradient, weight_parts: see :class:`bnnlight.backbones.ResNet`; no
            scale ``spatial``.

    Shapes:
        ``(N, in_channels, H, W)`` → logits ``(N, num_classes)``.

    Raises:
        ValueError: no blocks, a width that leaves no channel, or what latent and parts raise.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        num_classes: int = 10,
        in_channels: int = 1,
        width: float = 0.25,
        stem_stride: int = 1,
        num_bits: int = 6,
        fraction_bits: int = 3,
        latent: LatentFactory = Dense,
        scale: ScaleName = "channel",
        activation_gradient: Gradient = "clipped",
        weight_gradient: Gradient = "clipped",
        weight_parts: Sequence[WeightPartFactory] = (),
    ) -> None:
        super().__init__()
        channels = [round(64 * 2**stage * width) for stage in range(len(blocks))]
        if not blocks or min(blocks) < 1:
            raise ValueError(f"blocks is {list(blocks)}: give at least one stage of at least one block")
        if channels[0] < 1:
            raise ValueError(f"width {width} leaves no channel: 64 × width must be at least 1")
        bits = {"num_bits": num_bits, "fraction_bits": fraction_bits}
        unit = {"scale": scale, "activation_gradient": activation_gradient, "weight_gradient": weight_gradient}
        unit["weight_parts"] = weight_parts
        self.picture = FixedPoint(**PICTURE)
        convolution = FixedPointConv2d(in_channels, channels[0], 3, stem_stride, 1)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(channels[0]), FixedPoint(**bits))
        stages, last = [], channels[0]
        for stage, (num_blocks, size) in enumerate(zip(blocks, channels, strict=True)):
            for block in range(num_blocks):
                stages.append(FixedPointBlock(last, size, 2 if stage and not block else 1, **bits, **unit))
                last = size
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = FixedPointLinear(last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if latent is not Dense:
            factorize(self, latent)
        restart_alpha(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(self.picture(x)))
        return self.classifier(self.pool(x).flatten(1))
