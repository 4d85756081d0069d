"""Fixed-point numbers: what stays real in a binary network, in the few bits that an FPGA computes with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_BITS = 16
"""Most bits of a number: more are no longer rounded exactly in float32 sums."""


class _Rounded(torch.autograd.Function):
    """x to the nearest multiple of a step within bounds; the gradient is 1 within the bounds and 0 beyond."""

    @staticmethod
    def forward(ctx, x: Tensor, step: float, least: float, most: float) -> Tensor:
        ctx.save_for_backward((x >= least) & (x <= most))
        return torch.round(x / step).mul_(step).clamp_(least, most)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (within,) = ctx.saved_tensors
        return grad * within, None, None, None


class FixedPoint(nn.Module):
    """y = clip(round(x / s) · s, −2^(b−1) s, (2^(b−1) − 1) s) with s = 2^−f: signed numbers of b bits.

    Halves are rounded to even. The gradient is straight through: 1 where x lies within the bounds, else 0.

    Args:
        num_bits: b, from 2 to 16.
        fraction_bits: f, how many of them come after the point; may be negative, or more than b.

    Attributes:
        step, least, most: s and the two bounds.

    Shapes:
        Any → the same.

    Raises:
        ValueError: a number of bits out of range.

    Source: Jacob et al., CVPR 2018, https://arxiv.org/abs/1712.05877, with steps that are powers of two.
    """

    def __init__(self, num_bits: int = 8, fraction_bits: int = 4) -> None:
        super().__init__()
        if not 2 <= num_bits <= MAX_BITS:
            raise ValueError(f"num_bits is {num_bits}: give 2 to {MAX_BITS}")
        if not -MAX_BITS <= fraction_bits <= 2 * MAX_BITS:
            raise ValueError(f"fraction_bits is {fraction_bits}: give {-MAX_BITS} to {2 * MAX_BITS}")
        self.num_bits, self.fraction_bits = num_bits, fraction_bits
        self.step = 2.0**-fraction_bits
        self.least, self.most = -(2 ** (num_bits - 1)) * self.step, (2 ** (num_bits - 1) - 1) * self.step

    def forward(self, x: Tensor) -> Tensor:
        return self.round(x)

    def round(self, x: Tensor) -> Tensor:
        """The same for a weight, which is not a step of its own in the network."""
        return _Rounded.apply(x, self.step, self.least, self.most)

    def extra_repr(self) -> str:
        return f"num_bits={self.num_bits}, fraction_bits={self.fraction_bits}"


class FixedPointConv2d(nn.Conv2d):
    """A real 2-D convolution whose weights are rounded to fixed-point numbers in each call; without bias.

    Args:
        in_channels, out_channels, kernel_size, stride, padding: as of ``torch.nn.Conv2d``.
        num_bits, fraction_bits: of the weights, see :class:`FixedPoint`.

    Shapes:
        ``(N, in_channels, H, W)`` → ``(N, out_channels, H', W')``, H' and W' as for ``torch.nn.Conv2d``.

    Raises:
        ValueError: a number of bits out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        num_bits: int = 4,
        fraction_bits: int = 4,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.rounding = FixedPoint(num_bits, fraction_bits)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.rounding.round(self.weight), None, self.stride, self.padding)


class FixedPointLinear(nn.Linear):
    """A real linear layer whose weights are rounded to fixed-point numbers in each call; its bias is real.

    Args:
        in_features, out_features: as of ``torch.nn.Linear``.
        num_bits, fraction_bits: of the weights, see :class:`FixedPoint`.

    Shapes:
        ``(…, in_features)`` → ``(…, out_features)``.

    Raises:
        ValueError: a number of bits out of range.
    """

    def __init__(self, in_features: int, out_features: int, num_bits: int = 8, fraction_bits: int = 6) -> None:
        super().__init__(in_features, out_features)
        self.rounding = FixedPoint(num_bits, fraction_bits)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.rounding.round(self.weight), self.bias)
