"""The sign function and its straight-through gradients."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Gradient = Literal["identity", "clipped", "polynomial", "swish"]
"""Name of a straight-through gradient g(u); see :func:`straight_through`."""

SWISH_BETA = 5.0
"""β of the ``swish`` gradient, the value used by BNN+."""


def straight_through(u: Tensor, gradient: Gradient) -> Tensor:
    """The factor g(u) that stands in for the derivative of sign, which is zero almost everywhere.

    ========== ============================================== ============================================
    name       g(u)                                           source
    ========== ============================================== ============================================
    identity   1                                              BinaryConnect, https://arxiv.org/abs/1511.00363
    clipped    1 where ``|u| <= 1``, else 0                   BNN, https://arxiv.org/abs/1602.02830
    polynomial ``2 - 2|u|`` where ``|u| <= 1``, else 0        Bi-Real Net, https://arxiv.org/abs/1808.00278
    swish      derivative of ``2 s(bu)(1 + bu(1-s(bu))) - 1`` BNN+, https://arxiv.org/abs/1812.11800
    ========== ============================================== ============================================

    with s the logistic function and b = :data:`SWISH_BETA`.

    Args:
        u: any shape; the real values whose sign was taken.
        gradient: one of the names above.

    Returns:
        g(u), of u's shape and dtype.

    Raises:
        ValueError: the name is none of the four.
    """
    check_gradient(gradient)
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


def check_gradient(gradient: str) -> None:
    """Raises ValueError where ``gradient`` is none of the known names."""
    if gradient not in get_args(Gradient):
        known = ", ".join(get_args(Gradient))
        raise ValueError(f"unknown straight-through gradient {gradient!r}: choose one of {known}")


class _Sign(torch.autograd.Function):
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
        gradient: name of the straight-through gradient.

    Returns:
        ±1 in u's shape and dtype.

    Raises:
        ValueError: the gradient's name is unknown.
    """
    check_gradient(gradient)
    return _Sign.apply(u, gradient)


def keep_sign(u: Tensor, gradient: Gradient) -> Tensor:
    """What the backward pass needs to know of u, as little as there is.

    One byte an entry where the gradient is ``identity`` or ``clipped``: ⌊u⌋ within [-2, 1], except that u = 1
    counts as below 1, so that the byte is -1 or 0 just where ``|u| <= 1``. The other gradients need u itself.

    Args:
        u: any shape, floating point.
        gradient: name of the straight-through gradient.
    """
    if gradient not in ("identity", "clipped"):
        return u
    # arithmetic and rounding are several times quicker on a CPU than comparisons; u/2 is rounded half to even
    code = u.clamp(-1, 0).floor_()
    if gradient == "clipped":
        code.add_(u.mul(0.5).clamp_(-1, 1).round_())
    return code.nan_to_num_(nan=-2).to(torch.int8)  # which is no number above or equal to 0, nor within ±1


def kept_sign(kept: Tensor, dtype: torch.dtype) -> Tensor:
    """sign(u) as ±1 of that dtype, from what :func:`keep_sign` returned."""
    if kept.dtype == torch.int8:
        return kept.clamp(-1, 0).mul_(2).add_(1).to(dtype)
    return (kept >= 0).view(torch.int8).mul_(2).sub_(1).to(dtype)


def through_kept_sign(grad: Tensor, kept: Tensor, gradient: Gradient) -> Tensor:
    """∂L/∂u = ∂L/∂sign(u) · g(u), from what :func:`keep_sign` returned, or from u itself."""
    if gradient == "identity":
        return grad
    # hardtanh's gradient passes where its argument lies strictly between the bounds
    if kept.dtype == torch.int8:
        return torch.ops.aten.hardtanh_backward(grad, kept.to(grad.dtype).add_(0.5), -1.0, 1.0)
    grad = grad.to(kept.dtype)
    if gradient == "clipped":
        above = 1 + torch.finfo(kept.dtype).eps  # the next number
        return torch.ops.aten.hardtanh_backward(grad, kept, -above, above)
    return grad * straight_through(kept, gradient)
