"""Binary residual networks for image classification."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bnnlight.backbones.blocks import ActivationFactory, BinaryBlock, ShortcutStyle
from bnnlight.backbones.stems import Stem, resnet_stem
from bnnlight.nn import (
    Dense,
    Gradient,
    InputPartFactory,
    LatentFactory,
    ScaleName,
    WeightPartFactory,
    factorize,
    make_spatial,
    restart_alpha,
)
from bnnlight.nn.compute.lean import recomputed


class ResNet(nn.Module):
    """Residual network whose 3×3 convolutions are binary; stem, shortcuts and classifier are real.

    Args:
        blocks: number of blocks in each stage; the first block of each stage but the first halves the
            resolution and doubles the channels.
        num_classes: size of the output.
        in_channels: channels of the input image.
        width: multiplier on 64, 128, 256, … channels.
        stem: ``imagenet``: 7×7 convolution with stride 2, batch norm, ReLU, 3×3 max pool with stride 2.
            ``light``: the same at a seventh of the multiply-adds (64 channels): 5×5 with stride 2 to 10 channels and
            1×1 in place of the 7×7 convolution.
            ``small``: 3×3 convolution with stride 1 and batch norm, for images of some 32 px. ``half``: the
            same with stride 2, at a quarter of the cost.
        shortcut: ``conv``: round each convolution (Bi-Real Net). ``block``: round each pair (XNOR-Net).
        latent: maps a dense weight to the latent of a binary convolution.
        scale: ``none``, ``analytic``, ``channel`` or ``spatial``.
        activation_gradient, weight_gradient: straight-through gradients.
        padding_value: of the binary convolutions: 0, +1 or -1.
        activation: makes the activation behind each binary convolution from its number of channels.
        weight_parts, input_parts: of the binary convolutions: what happens to W̃ and to X before their signs are taken,
            see :mod:`bnnlight.nn.parts`.
        image_size: height and width of the input in px; needed by scale ``spatial`` alone.
        lean: trains in about half the memory and somewhat more time: inputs of blocks and sums of convolutions are
            kept for the backward pass, all else is computed again. The result is the same bit for bit.

    Shapes:
        ``(N, in_channels, H, W)`` → logits ``(N, num_classes)``.

    Raises:
        ValueError: an unknown stem or style, a width that leaves no channel, or what latent and parts raise.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        stem: Stem = "imagenet",
        shortcut: ShortcutStyle = "conv",
        latent: LatentFactory = Dense,
        scale: ScaleName = "channel",
        activation_gradient: Gradient = "clipped",
        weight_gradient: Gradient = "clipped",
        padding_value: int = 0,
        activation: ActivationFactory = nn.PReLU,
        weight_parts: Sequence[WeightPartFactory] = (),
        input_parts: Sequence[InputPartFactory] = (),
        image_size: int | None = None,
        lean: bool = False,
    ) -> None:
        super().__init__()
        channels = [round(64 * 2**stage * width) for stage in range(len(blocks))]
        if not blocks or min(blocks) < 1:
            raise ValueError(f"blocks is {list(blocks)}: give at least one stage of at least one block")
        if channels[0] < 1:
            raise ValueError(f"width {width} leaves no channel: 64 × width must be at least 1")
        self.lean = lean
        self.stem = resnet_stem(stem, in_channels, channels[0])
        unit = {
            "scale": "channel" if scale == "spatial" else scale,
            "activation_gradient": activation_gradient,
            "weight_gradient": weight_gradient,
            "padding_value": padding_value,
            "activation": activation,
            "weight_parts": weight_parts,
            "input_parts": input_parts,
            "lean": lean,
        }
        stages, last = [], channels[0]
        for stage, (num_blocks, size) in enumerate(zip(blocks, channels, strict=True)):
            stage_blocks = []
            for block in range(num_blocks):
                stage_blocks.append(BinaryBlock(last, size, 2 if stage and not block else 1, shortcut, **unit))
                last = size
            stages.append(nn.Sequential(*stage_blocks))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(last)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # built dense, then decomposed: latents that share something need all layers of the network
        if latent is not Dense:
            factorize(self, latent)
        if scale == "spatial":
            make_spatial(self, (in_channels, image_size, image_size) if image_size else None)
        restart_alpha(self)

    def forward(self, x: Tensor) -> Tensor:
        x = recomputed(self.stem, x, self.stem) if self.lean and self.training else self.stem(x)
        x = self.norm(self.stages(x))
        return self.classifier(self.pool(x).flatten(1))


class ResNet18(ResNet):
    """:class:`ResNet` with 2, 2, 2, 2 blocks, He et al. 2016, https://arxiv.org/abs/1512.03385.

    Args:
        **options: all of :class:`ResNet` but ``blocks``.
    """

    def __init__(self, **options) -> None:
        super().__init__(blocks=(2, 2, 2, 2), **options)


class ResNet34(ResNet):
    """:class:`ResNet` with 3, 4, 6, 3 blocks, He et al. 2016, https://arxiv.org/abs/1512.03385.

    Args:
        **options: all of :class:`ResNet` but ``blocks``.
    """

    def __init__(self, **options) -> None:
        super().__init__(blocks=(3, 4, 6, 3), **options)
