"""Binary stacked hourglass for heat maps of joints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlight.backbones.blocks import ActivationFactory, HierarchicalBlock
from bnnlight.backbones.stems import HourglassStem, hourglass_stem
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

STRIDE = 4
"""Input pixels to one pixel of the heat maps."""


class Hourglass(nn.Module):
    """Halves the resolution ``depth`` times and doubles it again, with a way across at each resolution.

    Args:
        depth: how often the resolution is halved, at least 1.
        features: number of channels throughout.
        **unit: options of :class:`bnnlight.backbones.HierarchicalBlock`.

    Shapes:
        ``(N, features, H, W)`` → the same; H and W multiples of 2^depth.
    """

    def __init__(self, depth: int, features: int, **unit) -> None:
        super().__init__()
        self.across = HierarchicalBlock(features, features, **unit)
        self.down = HierarchicalBlock(features, features, **unit)
        deeper = depth > 1
        self.inner = Hourglass(depth - 1, features, **unit) if deeper else HierarchicalBlock(features, features, **unit)
        self.up = HierarchicalBlock(features, features, **unit)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.across(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")


class StackedHourglass(nn.Module):
    """Hourglasses of hierarchical blocks, one after the other, each with heat maps of its own.

    The convolutions of the blocks are binary; the stem in front of them, all 1×1 convolutions and the heads are
    real. Newell et al., ECCV 2016, https://arxiv.org/abs/1603.06937; blocks of Bulat & Tzimiropoulos, ICCV
    2017, https://arxiv.org/abs/1703.00862.

    Args:
        num_joints: number of heat maps.
        features: number of channels, a multiple of 16; the paper's network has 256.
        stacks: number of hourglasses; the paper's network has one.
        depth: how often each hourglass halves the resolution.
        heads: number of real 1×1 convolutions after an hourglass: 1 is the heat maps alone, more put
            batch norm and ReLU between them.
        head_bias: start of the heat maps' bias. With cross entropy -5 is right, as nearly all pixels of a
            target are empty (sigmoid(-5) = 0.007) and the way there would take hundreds of steps; with MSE 0.
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
        stem: ``ordinary``: 7×7 convolution with stride 2, batch norm, ReLU. ``light``: the same at a seventh of the
            multiply-adds (64 channels): 5×5 with stride 2 to 10 channels and 1×1 in place of the 7×7 convolution.

    Shapes:
        ``(N, 3, H, W)`` → logits ``(N, stacks, num_joints, H/4, W/4)``; H and W multiples of 4·2^depth.

    Raises:
        ValueError: a number out of range, an unknown stem, an input of another size, or what latent and parts raise.
    """

    def __init__(
        self,
        num_joints: int = 16,
        features: int = 256,
        stacks: int = 1,
        depth: int = 4,
        heads: int = 2,
        head_bias: float = 0.0,
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
        stem: HourglassStem = "ordinary",
    ) -> None:
        super().__init__()
        for name, value in (("num_joints", num_joints), ("stacks", stacks), ("depth", depth), ("heads", heads)):
            if value < 1:
                raise ValueError(f"{name} is {value}: give at least 1")
        if features < 16 or features % 16:
            raise ValueError(f"features is {features}: give a multiple of 16")
        self.multiple = STRIDE * 2**depth
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
        quarter, half = features // 4, features // 2
        self.stem = nn.Sequential(
            *hourglass_stem(stem, quarter),
            HierarchicalBlock(quarter, half, **unit),
            nn.MaxPool2d(2),
            HierarchicalBlock(half, half, **unit),
            HierarchicalBlock(half, features, **unit),
        )
        self.hourglasses = nn.ModuleList(
            nn.Sequential(Hourglass(depth, features, **unit), HierarchicalBlock(features, features, **unit))
            for _ in range(stacks)
        )
        self.necks = nn.ModuleList(_neck(features, heads - 1) for _ in range(stacks))
        self.heads = nn.ModuleList(nn.Conv2d(features, num_joints, 1) for _ in range(stacks))
        self.merge_features = nn.ModuleList(nn.Conv2d(features, features, 1) for _ in range(stacks - 1))
        self.merge_maps = nn.ModuleList(nn.Conv2d(num_joints, features, 1) for _ in range(stacks - 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for head in self.heads:
            # a head adds up what all channels tell: fan-out, the number of joints, would start it far too large
            nn.init.normal_(head.weight, std=0.001)
            nn.init.constant_(head.bias, head_bias)
        # built dense, then decomposed: latents that share something need all layers of the network
        if latent is not Dense:
            factorize(self, latent)
        if scale == "spatial":
            make_spatial(self, (3, image_size, image_size) if image_size else None)
        restart_alpha(self)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(f"an input of {width}×{height} px: sides must be multiples of {self.multiple}")
        x = self.stem(x)
        maps = []
        for stack, (hourglass, neck, head) in enumerate(zip(self.hourglasses, self.necks, self.heads, strict=True)):
            features = neck(hourglass(x))
            maps.append(head(features))
            if stack < len(self.merge_features):
                x = x + self.merge_features[stack](features) + self.merge_maps[stack](maps[-1])
        return torch.stack(maps, 1)


def _neck(features: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(features, features, 1, bias=False), nn.BatchNorm2d(features), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
