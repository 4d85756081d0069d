"""Stems: the real layers between the picture and the binary blocks."""

from __future__ import annotations

from typing import Literal

from torch import nn

Stem = Literal["imagenet", "light", "small", "half"]
"""Of residual networks; see :class:`bnnlight.backbones.ResNet`."""
HourglassStem = Literal["ordinary", "light"]
"""Of hourglasses; see :class:`bnnlight.backbones.StackedHourglass`."""


def resnet_stem(kind: Stem, in_channels: int, out_channels: int) -> nn.Sequential:
    """The stem of a residual network.

    Shapes:
        ``(N, in_channels, H, W)`` → ``(N, out_channels, ⌈H/s⌉, ⌈W/s⌉)``; s is 4 for ``imagenet`` and ``light``, 2 for
        ``half``, 1 for ``small``.

    Raises:
        ValueError: there is no such stem.
    """
    if kind == "imagenet":
        return nn.Sequential(*_seven(in_channels, out_channels), nn.MaxPool2d(3, 2, 1))
    if kind == "light":
        return _separable(in_channels, out_channels)
    if kind in ("small", "half"):
        return nn.Sequential(*_convolution(in_channels, out_channels, 3, 1 if kind == "small" else 2))
    raise ValueError(f"unknown stem {kind!r}: choose imagenet, light, small or half")


def hourglass_stem(kind: HourglassStem, out_channels: int) -> nn.Sequential:
    """The first layers of an hourglass, in front of its first binary block.

    Shapes:
        ``(N, 3, H, W)`` → ``(N, out_channels, ⌈H/2⌉, ⌈W/2⌉)``.

    Raises:
        ValueError: there is no such stem.
    """
    if kind == "ordinary":
        return nn.Sequential(*_seven(3, out_channels))
    if kind == "light":
        # at half the picture's resolution a depth-wise convolution would not see much more, and 1×1 ones cost most
        hidden = min(out_channels, max(16, out_channels // 4))
        layers = [*_convolution(3, hidden, 3, 2), nn.ReLU(inplace=True), *_convolution(hidden, out_channels, 1)]
        return nn.Sequential(*layers, nn.ReLU(inplace=True))
    raise ValueError(f"unknown stem {kind!r}: choose ordinary or light")


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    """3×3 convolution, then a depth-wise separable one, each of stride 2, as the stem of QuickNet has it.

    Bannink et al., MLSys 2021, https://arxiv.org/abs/2011.09398; with half the channels between them in place of a
    quarter. At 224×224 px and 64 channels it takes 18.2 million multiply-adds; the 7×7 convolution takes 118.
    """
    hidden = max(1, out_channels // 2)
    first = [*_convolution(in_channels, hidden, 3, 2), nn.ReLU(inplace=True)]
    return nn.Sequential(
        *first, *_convolution(hidden, hidden, 3, 2, groups=hidden), *_convolution(hidden, out_channels, 1)
    )


def _seven(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [*_convolution(in_channels, out_channels, 7, 2), nn.ReLU(inplace=True)]


def _convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    """A real convolution that keeps the size but for its stride, and its batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(out_channels)
