"""Scaling factors α of a binary layer: Y = α ⊙ (sign(X) ⊛ B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

ScaleName = Literal["none", "analytic", "channel", "spatial"]


def analytic_alpha(weight: Tensor) -> Tensor:
    """α_o = mean |W̃_o|, the least-squares scale of XNOR-Net, https://arxiv.org/abs/1603.05279.

    Args:
        weight: ``(O, …)``.

    Returns:
        ``(O,)``; gradients flow through it into the weight.
    """
    return weight.flatten(1).abs().mean(1)


class Scale(nn.Module):
    """Base of all scales: the latent weight in, α out.

    :meth:`forward` takes the latent weight ``(O, I, *kernel)`` and returns α with one entry per output
    channel, ``(O,)``, or one per output position, ``(O, *output size)``; or None where nothing is scaled.

    Attributes:
        needs_weight: whether α follows from the weight's entries, rather than being learned.
    """

    name: ScaleName
    needs_weight = False

    def forward(self, weight: Tensor) -> Tensor | None:
        raise NotImplementedError


class NoScale(Scale):
    """α = 1: the output is the integer sum."""

    name = "none"

    def forward(self, weight: Tensor) -> None:
        return None


class AnalyticScale(Scale):
    """α = mean |W̃| of each filter, recomputed at every step."""

    name = "analytic"
    needs_weight = True

    def forward(self, weight: Tensor) -> Tensor:
        return analytic_alpha(weight)


class ChannelScale(Scale):
    """α is a parameter with one entry per output channel, learned by back-propagation.

    Args:
        weight: ``(O, …)``, the initial latent weight; α starts as its analytic value.
    """

    name = "channel"

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.alpha = nn.Parameter(analytic_alpha(weight.detach()))

    def forward(self, weight: Tensor) -> Tensor:
        return self.alpha


class SpatialScale(Scale):
    """α[c, y, x] = a[c] · h[y] · w[x], all learned: XNOR-Net++, https://arxiv.org/abs/1909.13863.

    The vector over channels starts as the analytic value, those over positions as ones.

    Args:
        weight: ``(O, …)``, the initial latent weight.
        output_size: height and width of the layer's output in px, or the sizes of its other dimensions.
    """

    name = "spatial"

    def __init__(self, weight: Tensor, output_size: Sequence[int]) -> None:
        super().__init__()
        self.output_size = tuple(output_size)
        self.alpha = nn.Parameter(analytic_alpha(weight.detach()))
        self.positions = nn.ParameterList(weight.new_ones(n) for n in self.output_size)

    def forward(self, weight: Tensor) -> Tensor:
        alpha = self.alpha
        for vector in self.positions:
            alpha = alpha.unsqueeze(-1) * vector
        return alpha


def make_scale(name: ScaleName, weight: Tensor, output_size: Sequence[int] | None = None) -> Scale:
    """The scale of that name for a layer with this initial latent weight.

    Args:
        name: ``none``, ``analytic``, ``channel`` or ``spatial``.
        weight: ``(O, I, *kernel)``.
        output_size: needed by ``spatial`` alone, where the output has other dimensions than its channels.

    Raises:
        ValueError: an unknown name, or ``spatial`` without an output size.
    """
    if name == "spatial":
        num_dims = weight.ndim - 2
        if num_dims and (output_size is None or len(output_size) != num_dims or math.prod(output_size) < 1):
            raise ValueError(f"scale 'spatial' needs the layer's output size ({num_dims} numbers), got {output_size}")
        return SpatialScale(weight, output_size if num_dims else ())
    if name == "channel":
        return ChannelScale(weight)
    if name == "analytic":
        return AnalyticScale()
    if name == "none":
        return NoScale()
    raise ValueError(f"unknown scale {name!r}: choose one of none, analytic, channel, spatial")


def apply_alpha(y: Tensor, alpha: Tensor | None, channel_dim: int) -> Tensor:
    """y scaled by α along its channels.

    Args:
        y: ``(N, …)`` with O entries along ``channel_dim``.
        alpha: ``(O,)``, ``(O, *output size)`` or None.
        channel_dim: 1 for a convolution, -1 for a linear layer.

    Raises:
        ValueError: α was made for another output size.
    """
    if alpha is None:
        return y
    if alpha.ndim > 1:
        if alpha.shape[1:] != y.shape[2:]:
            raise ValueError(
                f"scale 'spatial' was made for outputs of {tuple(alpha.shape[1:])} and got {tuple(y.shape[2:])}: "
                "its size is fixed, use inputs of the size that the network was built for"
            )
        return y * alpha
    shape = [1] * y.ndim
    shape[channel_dim] = -1
    return y * alpha.view(shape)
