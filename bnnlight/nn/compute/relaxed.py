"""Layers that are not binary yet: real weights, and real or binary activations, under the same α."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from bnnlight.nn.binarize import Gradient, sign
from bnnlight.nn.scale import analytic_alpha

Stage = Literal["real", "binary_activations", "binary"]
"""What of a layer is binary: nothing, its activations, or activations and weights."""

STAGES: tuple[Stage, ...] = get_args(Stage)


def check_stage(stage: str) -> None:
    """Raises ValueError where ``stage`` is none of the known names."""
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES)}")


def relaxed_input(x: Tensor, stage: Stage, gradient: Gradient) -> Tensor:
    """q(X): X itself in the stage ``real``, else its sign, with the straight-through gradient of that name."""
    return x if stage == "real" else sign(x, gradient)


def relaxed_weight(weight: Tensor) -> Tensor:
    """W̃_o / mean |W̃_o|, what stands in the place of sign(W̃_o) until the weights are binary.

    Its entries are ±1 in the mean of their sizes, so that α means the same before and after; with α at its start,
    mean |W̃_o|, the product of the two is W̃_o. Gradients flow through the mean too.

    Args:
        weight: ``(O, …)``, the real weight W̃.

    Returns:
        ``(O, …)``; zeros for a filter of zeros.
    """
    size = analytic_alpha(weight)
    # below the smallest normal number the quotient's gradient would be infinite
    size = torch.where(size >= torch.finfo(size.dtype).tiny, size, 1)
    return weight / size.view(-1, *[1] * (weight.ndim - 1))
