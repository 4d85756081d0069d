"""Heat maps in torch: joints to targets, predictions to joints. Batched, on any device.

:mod:`bnnlight.imaging.heatmaps` has `decode` and `mirror` too, by the same rule: there in numpy, since a shipped model
runs without torch; here where the maps are, since a copy from the GPU would hold up training. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def render(joints: Tensor, height: int, width: int, sigma: float = 1.0) -> Tensor:
    """Gaussian heat maps, exp(−‖p − joint‖² / 2σ²) at each pixel p.

    The middle lies at the joint itself, not at the nearest pixel: the largest value is below one between
    pixels, and the second largest shows on which side the joint lies, which :func:`decode` uses.

    Args:
        joints: ``(N, J, 2)``, x and y in heat-map pixels.
        height, width: of the maps, px.
        sigma: standard deviation, px.

    Returns:
        ``(N, J, height, width)``.
    """
    x, y = joints.unsqueeze(-1).unbind(2)
    columns = torch.arange(width, device=joints.device, dtype=joints.dtype)
    rows = torch.arange(height, device=joints.device, dtype=joints.dtype)
    # a Gaussian of two dimensions is the product of two of one
    across = torch.exp(-((columns - x) ** 2) / (2 * sigma**2))
    down = torch.exp(-((rows - y) ** 2) / (2 * sigma**2))
    return down.unsqueeze(-1) * across.unsqueeze(-2)


def decode(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The place of the largest value, moved a quarter of a pixel toward the larger neighbour.

    The move is made along each axis, and not where the place lies at the maps' border (Newell et al., ECCV
    2016, https://arxiv.org/abs/1603.06937).

    Args:
        maps: ``(N, J, H, W)``.

    Returns:
        Joints ``(N, J, 2)``, x and y in heat-map pixels, and the largest values ``(N, J)``.
    """
    height, width = maps.shape[-2:]
    flat = maps.flatten(2)
    value, place = flat.max(2)
    x, y = place % width, place // width

    def slope(step: int, inside: Tensor) -> Tensor:
        after = flat.gather(2, (place + step).clamp(max=height * width - 1).unsqueeze(2))
        before = flat.gather(2, (place - step).clamp(min=0).unsqueeze(2))
        return (after - before).squeeze(2).sign() * inside

    right = slope(1, (x > 0) & (x < width - 1))
    below = slope(width, (y > 0) & (y < height - 1))
    joints = torch.stack((x, y), 2).to(maps.dtype) + 0.25 * torch.stack((right, below), 2)
    return joints, value


def mirror(maps: Tensor, mirrored: Sequence[int]) -> Tensor:
    """Heat maps of a mirror image, brought back to those of the image.

    Args:
        maps: ``(N, J, H, W)``.
        mirrored: for each joint the one that a mirror image shows in its place.
    """
    return maps.flip(-1)[:, list(mirrored)]
