"""`RPReLU`, the activation of ReActNet: a PReLU with learned shifts before and after it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RPReLU(nn.Module):
    """y = PReLU(x − γ) + ζ, with a slope, a γ and a ζ for each channel, all learned.

    γ and ζ start at zero, where it is a PReLU of slope 0.25. They move the bend of each channel, and where its outputs
    lie.

    ReActNet's other part, RSign, is sign(x − τ) with a τ learned for each channel, :class:`bnnlight.nn.Shifted`. Units
    of this package need none: right before a sign stands a batch norm, whose bias b is such a shift already, τ = −b.

    Args:
        num_channels: of the input.

    Shapes:
        ``(N, num_channels, …)`` → the same.

    Source: Liu, Shen, Savvides, Cheng, ECCV 2020, https://arxiv.org/abs/2003.03488.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(num_channels))
        self.slope = nn.Parameter(torch.full((num_channels,), 0.25))
        self.zeta = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        gamma, zeta = (shift.to(x.dtype).view(shape) for shift in (self.gamma, self.zeta))
        return F.prelu(x - gamma, self.slope.to(x.dtype)) + zeta

    def extra_repr(self) -> str:
        return str(len(self.gamma))
