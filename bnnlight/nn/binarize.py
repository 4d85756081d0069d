"""The sign function and its straight-through gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bnnlight.nn.compute.kernels import clamp_backward

GradientName = Literal["identity", "clipped", "polynomial", "swish"]
"""Straight-through gradients without a number of their own."""

SWISH_BETA = 5.0
"""β of the ``swish`` gradient, the value used by BNN+."""


@dataclass(frozen=True)
class Tanh:
    """The straight-through gradient g(u) = k · t · (1 − tanh²(t · u)) with k = max(1/t, 1).

    It is the derivative of k · tanh(t · u): close to the identity's where t is small, and a narrow peak of height t at
    zero where t is large. Callback :class:`bnnlight.callbacks.Sharpen` moves t while training.

    Attributes:
        sharpness: t, above 0.

    Raises:
        ValueError: the sharpness is not a finite number above 0.

    Source: error decay estimator of IR-Net, Qin et al., CVPR 2020, https://arxiv.org/abs/1909.10788.
    """

    sharpness: float = 1.0

    def __post_init__(self) -> None:
        check_sharpness(self.sharpness, "sharpness")

    def __call__(self, u: Tensor) -> Tensor:
        """g(u), of u's shape and dtype."""
        return max(1.0, self.sharpness) * (1 - torch.tanh(self.sharpness * u).square())


@dataclass(frozen=True)
class Triangular:
    """The straight-through gradient g(u) = k · max(√2 · t − t² · |u|, 0) with k = max(1/t, 1).

    A triangle around zero: wide and of height √2 where t is small, narrow and of height √2 · t where t is large.
    Callback :class:`bnnlight.callbacks.Sharpen` moves t while training, with ``shape: triangular``.

    Attributes:
        steepness: t, above 0. Its name differs from that of :class:`Tanh`, because a config tells the two apart by it.

    Raises:
        ValueError: the steepness is not a finite number above 0.

    Source: RBNN, Lin et al., NeurIPS 2020, https://arxiv.org/abs/2009.13055.
    """

    steepness: float = 1.0

    def __post_init__(self) -> None:
        check_sharpness(self.steepness, "steepness")

    def __call__(self, u: Tensor) -> Tensor:
        """g(u), of u's shape and dtype."""
        t, k = self.steepness, max(1 / self.steepness, 1.0)
        return (k * math.sqrt(2) * t - k * t * t * u.abs()).clamp_min(0)


def check_sharpness(value: float, name: str) -> float:
    """The number itself; ValueError where it is not finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}: give a finite number above 0")
    return value


Gradient = GradientName | Tanh | Triangular
"""A straight-through gradient g(u), by its name or with its number; see :func:`straight_through`."""


def straight_through(u: Tensor, gradient: Gradient) -> Tensor:
    """The factor g(u) that stands in for the derivative of sign, which is zero almost everywhere.

    ========== ============================================== ============================================
    name       g(u)                                           source
    ========== ============================================== ============================================
    identity   1                                              BinaryConnect, https://arxiv.org/abs/1511.00363
    clipped    1 where ``|u| <= 1``, else 0                   BNN, https://arxiv.org/abs/1602.02830
    polynomial ``2 - 2|u|`` where ``|u| <= 1``, else 0        Bi-Real Net, https://arxiv.org/abs/1808.00278
    swish      derivative of ``2 s(bu)(1 + bu(1-s(bu))) - 1`` BNN+, https://arxiv.org/abs/1812.11800
    Tanh(t)    derivative of ``max(1/t, 1) tanh(tu)``         IR-Net, https://arxiv.org/abs/1909.10788
    Triangular see :class:`Triangular`                        RBNN, https://arxiv.org/abs/2009.13055
    ========== ============================================== ============================================

    with s the logistic function and b = :data:`SWISH_BETA`.

    Args:
        u: any shape; the real values whose sign was taken.
        gradient: one of the names above, or a :class:`Tanh` or :class:`Triangular`.

    Returns:
        g(u), of u's shape and dtype.

    Raises:
        ValueError: the gradient is not one of these.
    """
    check_gradient(gradient)
    if isinstance(gradient, Tanh | Triangular):
        return gradient(u)
    if gradient == "identity":
        return torch.ones_like(u)
    if gradient == "clipped":
        return (u.abs() <= 1).to(u.dtype)
    if gradient == "polynomial":
        return (2 - 2 * u.abs()).clamp_min(0)
    # beyond 100 the derivative is zero in every dtype, and the product would be ∞ · 0
    scaled = (SWISH_BETA * u).clamp(-100, 100)
    # sech²(x/2)/2 equals 1/(1 + cosh x) and, unlike cosh, does not overflow
    tanh = torch.tanh(scaled / 2)
    return SWISH_BETA * (2 - scaled * tanh) * (1 - tanh.square()) / 2


def check_gradient(gradient: Gradient) -> None:
    """Raises ValueError where ``gradient`` is neither a :class:`Tanh`, a :class:`Triangular` nor a known name."""
    if not isinstance(gradient, Tanh | Triangular) and gradient not in get_args(GradientName):
        known = f"{', '.join(get_args(GradientName))}, or bnnlight.nn.Tanh or Triangular"
        raise ValueError(f"unknown straight-through gradient {gradient!r}: choose one of {known}")


class _Sign(torch.autograd.Function):
    generate_vmap_rule = True  # for torch.func

    @staticmethod
    def forward(u: Tensor, gradient: Gradient) -> Tensor:
        return (u >= 0).to(u.dtype).mul_(2).sub_(1)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        u, gradient = inputs
        ctx.gradient = gradient
        # the clipped gradient needs one bit of u, so one byte is kept instead of four
        if gradient == "clipped":
            ctx.save_for_backward(u.abs() <= 1)
        elif gradient != "identity":
            ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.gradient == "identity":
            return grad, None
        (saved,) = ctx.saved_tensors
        return grad * (saved if ctx.gradient == "clipped" else straight_through(saved, ctx.gradient)), None


def sign(u: Tensor, gradient: Gradient = "clipped") -> Tensor:
    """+1 where ``u >= 0`` and -1 elsewhere, with a straight-through gradient.

    ``sign(0) = sign(-0.0) = +1``, unlike :func:`torch.sign`, which maps 0 to 0. The gradient is
    ∂L/∂u = ∂L/∂sign(u) · g(u), with g of :func:`straight_through`.

    Args:
        u: any shape, floating point.
        gradient: the straight-through gradient.

    Returns:
        ±1 in u's shape and dtype.

    Raises:
        ValueError: the gradient is unknown.
    """
    check_gradient(gradient)
    return _Sign.apply(u, gradient)


def encode_sign(u: Tensor, gradient: Gradient) -> Tensor:
    """What the backward pass needs to know of u, and no more.

    One byte per entry where the gradient is ``identity`` or ``clipped``: it is negative just where ``u < 0``, and for
    ``clipped`` ⌊u⌋ + ⌈u⌉, with u within ±2, so that it lies within ±2 just where ``|u| <= 1``. The other gradients
    need u itself.

    Args:
        u: any shape, floating point.
        gradient: the straight-through gradient.
    """
    if gradient not in ("identity", "clipped"):
        return u
    # arithmetic and rounding are several times quicker on a CPU than comparisons
    if gradient == "clipped":
        near = u.clamp(-2, 2)
        code = near.floor().add_(near.ceil_())
    else:
        code = u.clamp(-1, 0).floor_()
    return code.nan_to_num_(nan=-4).to(torch.int8)  # which is not a number above or equal to 0, nor within ±1


def decode_sign(code: Tensor, dtype: torch.dtype) -> Tensor:
    """sign(u) as ±1 of that dtype, from what :func:`encode_sign` returned."""
    if code.dtype == torch.int8:
        return code.clamp(-1, 0).mul_(2).add_(1).to(dtype)
    return (code >= 0).view(torch.int8).mul_(2).sub_(1).to(dtype)


def sign_backward(grad: Tensor, code: Tensor, gradient: Gradient) -> Tensor:
    """∂L/∂u = ∂L/∂sign(u) · g(u), from what :func:`encode_sign` returned, or from u itself."""
    if gradient == "identity":
        return grad
    if code.dtype == torch.int8:
        return clamp_backward(grad, code.to(grad.dtype), -2.5, 2.5)
    grad = grad.to(code.dtype)
    if gradient == "clipped":
        above = 1 + torch.finfo(code.dtype).eps  # the next number
        return clamp_backward(grad, code, -above, above)
    return grad * straight_through(code, gradient)
