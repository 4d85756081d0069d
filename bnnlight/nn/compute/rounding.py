"""Rounding of a binary layer's output: the sums of signs are exact, scaled by α in float32, and rounded once.

bfloat16 knows whole numbers up to 256 and float16 up to 2048, where a filter may have thousands of terms. So on a CPU
sums are computed in float32, or in integers, even where the output is of half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bnnlight.nn.scale import apply_alpha

_HALF = (torch.bfloat16, torch.float16)


def output_dtype(x: Tensor) -> torch.dtype:
    """Of a layer's output for this input: autocast's where that is on and takes x, else x's own."""
    device = x.device.type
    if x.dtype == torch.float64 or not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return x.dtype
    return torch.get_autocast_dtype(device)


def sum_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """In which sums of signs are computed as floats for an output of that dtype.

    GPUs add up in float32 by themselves, and round sums to the output's dtype.
    """
    return torch.float32 if device.type == "cpu" and dtype in _HALF else dtype


def scaled(sums: Tensor, alpha: Tensor | None, dtype: torch.dtype, channel_dim: int = 1) -> Tensor:
    """α ⊙ sums, rounded once where the sums are exact.

    Args:
        sums: ``(N, …)`` of any dtype, integers too, with O entries along ``channel_dim``.
        alpha: ``(O,)`` or None.
        dtype: of the result.
        channel_dim: 1 for a convolution, -1 for a linear layer.
    """
    if alpha is not None:
        # in half precision a product of rounded factors would be rounded twice
        wide = dtype if sums.dtype == dtype else torch.promote_types(dtype, torch.float32)
        sums = apply_alpha(sums, alpha.to(wide), channel_dim)
    return sums.to(dtype)
