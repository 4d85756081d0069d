"""Sign, convolution and α as one differentiable function, which keeps one byte an activation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnnlight.nn.binarize import Gradient, keep_sign, kept_sign, through_kept_sign
from bnnlight.nn.integer_conv import ConvShape, integer_conv2d, takes_integers


class _BinaryConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, alpha, shape, x_gradient, weight_gradient):
        ctx.shape, ctx.gradients = shape, (x_gradient, weight_gradient)
        kept_x = keep_sign(x, x_gradient)
        # a parameter is there anyway
        kept_weight = weight if weight.is_leaf else keep_sign(weight, weight_gradient)
        ctx.save_for_backward(kept_x, kept_weight, alpha)
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        if takes_integers(x.device, shape.groups) and dtype.itemsize <= 4:
            signs, filters = kept_sign(kept_x, torch.int8), kept_sign(kept_weight, torch.int8)
            y = integer_conv2d(signs, filters, alpha, shape, dtype)
            channels_last = x.is_contiguous(memory_format=torch.channels_last)
            return y if channels_last or not x.is_contiguous() else y.contiguous()
        signs, padding = _pad(kept_sign(kept_x, dtype), shape)
        y = F.conv2d(signs, kept_sign(kept_weight, dtype), None, shape.stride, padding, shape.dilation, shape.groups)
        return y if alpha is None else y.mul_(alpha.to(dtype).view(1, -1, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        shape, (x_gradient, weight_gradient) = ctx.shape, ctx.gradients
        kept_x, kept_weight, alpha = ctx.saved_tensors
        signs, padding = _pad(kept_sign(kept_x, grad.dtype), shape)
        filters = kept_sign(kept_weight, torch.float32 if alpha is None else alpha.dtype)
        # α goes to the smaller factor: conv(grad · α, B) = conv(grad, α · B)
        scaled = filters if alpha is None else filters * alpha.view(-1, 1, 1, 1)
        wanted = [ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3]), False]
        to_signs, to_scaled, _ = torch.ops.aten.convolution_backward(
            *(grad, signs, scaled.to(grad.dtype), None, shape.stride, padding, shape.dilation),
            *(False, [0, 0], shape.groups, wanted),
        )
        to_x = to_weight = to_alpha = None
        if to_signs is not None:
            to_x = through_kept_sign(_crop(to_signs, shape), kept_x, x_gradient)
        if to_scaled is not None:
            to_scaled = to_scaled.to(scaled.dtype)
            if ctx.needs_input_grad[2]:
                to_alpha = _dot(to_scaled, filters)
            if ctx.needs_input_grad[1]:
                to_filters = to_scaled if alpha is None else to_scaled.mul_(alpha.view(-1, 1, 1, 1))
                to_weight = through_kept_sign(to_filters, kept_weight, weight_gradient)
        return to_x, to_weight, to_alpha, None, None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a_o, b_o⟩ for each o, in one pass."""
    a, b = (t.movedim(1, -1).flatten(1) for t in (a, b))
    return a.unsqueeze(1).bmm(b.unsqueeze(2)).view(-1)


def _pad(signs: Tensor, shape: ConvShape) -> tuple[Tensor, tuple[int, int]]:
    """The signs with a border of ±1 and no padding left, or with a border of zeros left to the convolution."""
    if not shape.padding_value:
        return signs, shape.padding
    height, width = shape.padding
    return F.pad(signs, (width, width, height, height), value=shape.padding_value), (0, 0)


def _crop(to_signs: Tensor, shape: ConvShape) -> Tensor:
    if not shape.padding_value:
        return to_signs
    height, width = shape.padding
    return to_signs[:, :, height : to_signs.shape[2] - height, width : to_signs.shape[3] - width]


def binary_conv2d(
    x: Tensor,
    weight: Tensor,
    alpha: Tensor | None,
    shape: ConvShape,
    activation_gradient: Gradient = "clipped",
    weight_gradient: Gradient = "clipped",
) -> Tensor:
    """Y = α ⊙ (sign(X) ⊛ sign(W̃)), differentiable once in all three.

    For the backward pass it keeps one byte for each entry of X and of W̃ (sign, and whether the straight-through
    gradient passes), from which the signs are rebuilt. No output of the convolution is needed for α: with C the
    gradient of the scaled filters α_o B_o,

        ∂L/∂α_o = ⟨B_o, C_o⟩,    ∂L/∂B_o = α_o C_o,    ∂L/∂sign(X) = ∂L/∂Y ⊛ᵀ (α_o B_o).

    On a CPU that multiplies bytes exactly the forward pass is computed in integers; sums are exact either way.

    Args:
        x: ``(N, I, H, W)``.
        weight: ``(O, I/groups, kh, kw)``, the real weight W̃.
        alpha: ``(O,)`` or None.
        shape: stride, padding and the like.
        activation_gradient, weight_gradient: see :func:`bnnlight.nn.straight_through`.

    Returns:
        ``(N, O, H', W')`` in x's dtype, or autocast's where that is on.
    """
    return _BinaryConv2d.apply(x, weight, alpha, shape, activation_gradient, weight_gradient)
