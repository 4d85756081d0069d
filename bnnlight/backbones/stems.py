"""Stems: the real layers between the picture and the binary blocks."""

from __future__ import annotations

from typing import Literal

from torch import nn

Stem = Literal["imagenet", "light", "small", "half"]
"""Of residual networks; see :class:`bnnlight.backbones.ResNet`."""
HourglassStem = Literal["ordinary", "light"]
"""Of hourglasses; see :class:`bnnlight.backbones.StackedHourglass`."""

BETWEEN = 10
"""Channels between the two convolutions of a light stem."""


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
        return nn.Sequential(*_light(in_channels, out_channels), nn.MaxPool2d(3, 2, 1))
    if kind in ("small", "half"):
        conv = nn.Conv2d(in_channels, out_channels, 3, 1 if kind == "small" else 2, 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
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
        return nn.Sequential(*_light(3, out_channels))
    raise ValueError(f"unknown stem {kind!r}: choose ordinary or light")


def _seven(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 7, 2, 3, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _light(in_channels: int, out_channels: int) -> list[nn.Module]:
    """The 7×7 convolution's stand-in: 5×5 with stride 2 to :data:`BETWEEN` channels, and 1×1 from there.

    At 224×224 px and 64 channels they take 17.4 million multiply-adds; the 7×7 convolution takes 118. Together they
    are a 5×5 convolution of low rank. All channels are there at half the resolution, where ReLU and pool choose among
    them: stems that widen at a quarter of it, as QuickNet's, lose more accuracy.
    """
    between = min(BETWEEN, out_channels)
    first = nn.Conv2d(in_channels, between, 5, 2, 2, bias=False)
    last = nn.Conv2d(between, out_channels, 1, bias=False)
    return [first, last, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
