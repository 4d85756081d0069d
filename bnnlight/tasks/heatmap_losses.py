"""Losses of heat maps: cross entropy, squared difference, and Adaptive Wing."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

HeatmapLoss = Literal["bce", "mse", "awing"]
LOSSES: tuple[str, ...] = get_args(HeatmapLoss)

OMEGA, THETA, EPSILON, ALPHA = 14.0, 0.5, 1.0, 2.1
"""Adaptive Wing's numbers, as its authors chose them."""
WEIGHT, NEAR = 10.0, 0.2
"""Of its weighted map: how much more a pixel counts beside a joint, and the target's value there, at least."""


def heatmap_loss(maps: Tensor, targets: Tensor, weight: Tensor, kind: HeatmapLoss) -> Tensor:
    """Mean loss of a heat-map pixel over the joints that count.

    Args:
        maps: ``(N, stacks, J, H, W)``, logits for ``bce``.
        targets: ``(N, J, H, W)``, in [0, 1].
        weight: ``(N, J)``, 0 for joints without loss.
        kind: ``bce``: binary cross entropy of the logits. ``mse``: squared difference, the maps taken as they
            are. ``awing``: :func:`adaptive_wing` times :func:`loss_weights`, the maps taken as they are.

    Returns:
        A number: the sum over the stacks of the mean over joints and pixels; 0 where no joint counts.
    """
    targets = targets.unsqueeze(1)
    if kind == "awing":
        losses = adaptive_wing(maps, targets) * loss_weights(targets)
    else:
        pixels = F.binary_cross_entropy_with_logits if kind == "bce" else F.mse_loss
        losses = pixels(maps, targets.expand_as(maps), reduction="none")
    losses = losses.mean((3, 4)).sum(1)
    return (losses * weight).sum() / weight.sum().clamp(min=1)


def adaptive_wing(maps: Tensor, targets: Tensor) -> Tensor:
    """Adaptive Wing loss of each pixel (Wang, Bo, Fuxin 2019, https://arxiv.org/abs/1904.07399).

    With d = |y − ŷ|, y being the target and ŷ the map::

        ω ln(1 + (d/ε)^(α−y))    where d < θ
        A d − C                  elsewhere

        A = ω (α−y) (θ/ε)^(α−y−1) / ((1 + (θ/ε)^(α−y)) ε),   C = θ A − ω ln(1 + (θ/ε)^(α−y))

    which is smooth at θ. On the background, y = 0, it is about as flat near 0 as the squared difference; at a joint,
    y = 1, it is nearly a corner, so that small errors there are not neglected. ω = 14, θ = 0.5, ε = 1, α = 2.1.

    Args:
        maps, targets: shapes that broadcast. Targets lie in [0, 1]; those of a teacher that lie outside count as
            the nearer end, since otherwise the power would be below 1.
    """
    targets = targets.clamp(0, 1)
    power = ALPHA - targets
    distance = (targets - maps).abs()
    at_theta = (THETA / EPSILON) ** power
    slope = OMEGA * power * at_theta / THETA / (1 + at_theta)
    offset = THETA * slope - OMEGA * torch.log1p(at_theta)
    # the curve is taken no further than θ: what is not chosen must have a finite gradient all the same
    curve = OMEGA * torch.log1p((distance.clamp(max=THETA) / EPSILON) ** power)
    return torch.where(distance < THETA, curve, slope * distance - offset)


def loss_weights(targets: Tensor) -> Tensor:
    """Adaptive Wing's weighted map: 11 at joints and the pixels around them, 1 elsewhere.

    1 + W · M with W = 10; M is 1 where the targets, each pixel being the largest of its 3×3 neighbours, are at least
    0.2, and 0 elsewhere.

    Args:
        targets: ``(…, H, W)``.
    """
    maps = targets.flatten(0, -3)
    return 1 + WEIGHT * (F.max_pool2d(maps, 3, 1, 1) >= NEAR).to(targets.dtype).view_as(targets)
